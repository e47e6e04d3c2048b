r"""Export of a model to an ONNX graph, for ONNX Runtime and others.

The graph takes **rows**, as is usual with ONNX. It applies the pixel scale and the temperature:

.. math:: P = \mathrm{softmax}(s X W_T^\top + b_T), \qquad [W_T \; b_T] = \theta / T

It computes in float64 and rounds logits and probabilities like the model, so the results do not
depend on the order in which a runtime sums: in float32, 784 products leave an error of 1e-6 in a
probability.

The features of a model are nodes in front of this, in float32 as in :mod:`npsoftmax.features`:
convolutions with the filters, matrix products with the windows, cosines. Columns are standardised
in float64.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npsoftmax import __version__
from npsoftmax._checks import check_model
from npsoftmax.errors import InputError, OutputError
from npsoftmax.ext import extra
from npsoftmax.features import FeatureMap, Patches, RandomFourier, Standardise, pack
from npsoftmax.features.maps import parts_of
from npsoftmax.features.patches import EPSILON, PADDING, moving_means
from npsoftmax.files import publish
from npsoftmax.model import SoftmaxRegression

with extra("onnx"):
    import onnx
    from onnx import helper, numpy_helper

__all__ = ["save"]

OPSET = 17
IR_VERSION = 8  # of opset 17; the default of onnx is too new for older runtimes
INPUT_NAMES = {
    np.dtype(np.uint8): "pixels",
    np.dtype(np.float32): "features",
    np.dtype(np.float64): "features",
}
# Protocol buffers hold at most 2 GB: float64 parameters, and some space for the class names.
MAX_PARAMETERS = 240_000_000


def save(
    model: SoftmaxRegression, path: str | os.PathLike[str], dtype: DTypeLike | None = None
) -> None:
    """Write an ONNX graph that computes the labels and probabilities of a model, atomically.

    The graph has one input, ``pixels`` of type uint8 or ``features`` of a floating type, of shape
    ``(N, d)`` with any ``N``, and two outputs: ``label``, int64 ``(N,)``, the first of the most
    likely classes, and ``probabilities``, ``(N, k)`` of the dtype of ``theta``. The metadata are
    ``classes`` (a JSON list), ``temperature`` (already applied) and, if the model has them,
    ``pixel_scale`` (already applied), ``framing``, and ``features`` (a JSON list of their settings,
    which are in the graph, too). The same model gives the same bytes.

    Parameters
    ----------
    model : SoftmaxRegression
        The model. Parameters that are not finite after the division by the temperature, or more
        than 240 million of them, raise :exc:`~npsoftmax.errors.InputError`.
    path : path
        The file; it is replaced if it exists.
    dtype : uint8, float32 or float64, optional
        The type of the input. ``uint8`` is scaled in the graph, floats are not. ONNX Runtime
        refuses input of another type, so the two cannot be confused. By default ``uint8`` for a
        model with a pixel scale, else the dtype of ``theta``.

    Examples
    --------
    >>> import onnxruntime
    >>> model = SoftmaxRegression(2, 3, classes=["cat", "dog", "owl"])
    >>> model.theta[:] = [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    >>> save(model, "pets.onnx")
    >>> session = onnxruntime.InferenceSession("pets.onnx")
    >>> rows = np.array([[0, 2], [3, 1]], dtype=np.float32)
    >>> label, probabilities = session.run(None, {"features": rows})
    >>> label.tolist()
    [1, 0]
    >>> bool(np.abs(probabilities - model(rows.T).T).max() < 1e-6)
    True
    """
    check_model(model)
    input_dtype = _as_input_dtype(dtype, model)
    if model.theta.size > MAX_PARAMETERS:
        raise InputError(
            f"theta: expected at most {MAX_PARAMETERS:,} parameters for an ONNX file, got "
            f"{model.theta.size:,}; export it to safetensors instead"
        )
    proto = helper.make_model(
        _graph(model, input_dtype),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="npsoftmax",
        producer_version=__version__,
    )
    about = {
        "classes": json.dumps(model.classes),
        "temperature": repr(model.temperature),
    }
    if model.pixel_scale is not None:
        about["pixel_scale"] = repr(model.pixel_scale)
    if model.framing is not None:
        about["framing"] = model.framing
    if model.features is not None:
        about["features"] = json.dumps(pack(model.features)[1])
    helper.set_model_props(proto, about)
    content = proto.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise OutputError(
            f"cannot write {path}: expected a graph that onnx {onnx.__version__} finds valid, got "
            f"{error}; try another version of onnx"
        ) from error
    with publish(path) as file:
        file.write(content)


def _as_input_dtype(dtype: DTypeLike | None, model: SoftmaxRegression) -> np.dtype[Any]:
    takes_pixels, features = model.pixel_scale is not None, model.features
    if dtype is None:
        if takes_pixels:
            return np.dtype(np.uint8)
        return np.result_type(model.theta, np.float32 if features is None else features.precision)
    found = np.dtype(dtype)
    if found not in INPUT_NAMES:
        raise InputError(f"dtype: expected uint8, float32 or float64 for the input, got {found}")
    if found == np.uint8 and not takes_pixels:
        raise InputError(
            "dtype: expected float32 or float64, as the model has no pixel scale, got uint8; leave "
            "it out or, if the features are pixels, make the model with pixel_scale=1/255"
        )
    return found


def _graph(model: SoftmaxRegression, input_dtype: np.dtype[Any]) -> onnx.GraphProto:
    theta, name = model.calibrated_theta(), INPUT_NAMES[input_dtype]
    double, given, output = map(
        helper.np_dtype_to_tensor_dtype, (theta.dtype, input_dtype, model.theta.dtype)
    )
    add = _Nodes()
    own = theta.dtype if model.features is None else model.features.precision
    numbers = add("Cast", name, to=helper.np_dtype_to_tensor_dtype(own))
    scaled = add("Mul", numbers, np.asarray(model.input_scale(input_dtype), own))
    if model.features is not None:
        scaled = add("Cast", _extract(add, scaled, model.features), to=double)
    sums = add("Gemm", scaled, theta[:, :-1], theta[:, -1], transB=1)
    logits = add("Cast", sums, to=output)
    # From the logits, like predict: different ones may round to the same probability.
    add("ArgMax", logits, axis=1, keepdims=0, name="label")
    softmax = add("Softmax", add("Cast", logits, to=double), axis=1)
    add("Cast", softmax, to=output, name="probabilities")
    return helper.make_graph(
        add.nodes,
        "softmax_regression",
        [helper.make_tensor_value_info(name, given, ["N", model.num_inputs])],
        [
            helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", output, ["N", model.num_outputs]),
        ],
        add.constants,
    )


class _Nodes:
    """The nodes of a graph and the arrays in them; adding a node returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        name = name or f"{kind}{len(self.nodes)}"
        names = [given if isinstance(given, str) else self._hold(given) for given in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def _hold(self, array: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name


def _extract(add: _Nodes, numbers: str, features: FeatureMap) -> str:
    """Add the nodes that compute features."""
    for part in parts_of(features):
        if isinstance(part, Patches):
            numbers = _pool_responses(add, numbers, part)
        elif isinstance(part, RandomFourier):
            cosines = add("Cos", add("Gemm", numbers, part.weights, part.offsets, transB=1))
            numbers = add("Mul", cosines, np.sqrt(np.float32(2 / part.num_outputs)))
        elif isinstance(part, Standardise):
            scaled = add("Div", add("Sub", numbers, part.mean), part.deviation)
            numbers = add("Cast", scaled, to=onnx.TensorProto.FLOAT)
        else:
            raise InputError(
                f"features: expected Patches, RandomFourier or Standardise, got "
                f"{type(part).__name__}; export a model without features, and compute them outside "
                "of the graph"
            )
    return numbers


def _pool_responses(add: _Nodes, numbers: str, patches: Patches) -> str:
    height, width, colours = patches.shape
    q, count = patches.size, patches.offsets.size
    bank = patches.filters.reshape(q, q, colours, count).transpose(3, 2, 0, 1)
    images = add("Reshape", numbers, np.array([-1, height, width, colours]))
    images = add("Transpose", images, perm=[0, 3, 1, 2])
    if patches.mirror:
        start, end = np.array([-1]), np.array([np.iinfo(np.int64).min])
        mirrored = add("Slice", images, start, end, np.array([3]), np.array([-1]))
        images = add("Concat", images, mirrored, axis=0)
    compared = add("Conv", images, bank, pads=[PADDING] * 4)
    compared = add("Div", compared, _deviations(add, images, patches))
    responses = add("Relu", add("Add", compared, patches.offsets[:, None, None]))
    windows = patches.windows.reshape(patches.cells**2, -1)
    responses = add("Reshape", responses, np.array([0, count, windows.shape[1]]))
    pooled = add("Sqrt", add("MatMul", responses, windows.T))
    pooled = add("Transpose", pooled, perm=[0, 2, 1])
    if patches.mirror:
        pooled = add("Reshape", pooled, np.array([2, -1, patches.num_outputs]))
        pooled = add("ReduceMean", pooled, axes=[0], keepdims=0)
    else:
        pooled = add("Reshape", pooled, np.array([-1, patches.num_outputs]))
    return add("Div", add("Sub", pooled, patches.centre), np.float32(patches.divisor))


def _deviations(add: _Nodes, images: str, patches: Patches) -> str:
    """Add the nodes that compute sigma at each place, from float64 as in the features."""
    down, across = (
        moving_means(side + 2 * PADDING, patches.size)[:, PADDING:-PADDING]
        for side in patches.shape[:2]
    )
    images = add("Cast", images, to=onnx.TensorProto.DOUBLE)
    mean, square = (
        add("MatMul", add("MatMul", down, add("ReduceMean", values, axes=[1])), across.T)
        for values in (images, add("Mul", images, images))
    )
    variance = add("Sub", square, add("Mul", mean, mean))
    variance = add("Max", variance, np.float64(0))
    sigma = add("Sqrt", add("Add", variance, np.float64(EPSILON**2)))
    return add("Cast", sigma, to=onnx.TensorProto.FLOAT)
