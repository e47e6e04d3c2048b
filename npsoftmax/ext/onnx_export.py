r"""Export of a model to an ONNX graph, for ONNX Runtime and others.

The graph takes **rows**, as is usual with ONNX. It applies the pixel scale and the temperature:

.. math:: P = \mathrm{softmax}(s X W_T^\top + b_T), \qquad [W_T \; b_T] = \theta / T

It computes in float64 and rounds logits and probabilities like the model, so the results do not
depend on the order in which a runtime sums: in float32, 784 products leave an error of 1e-6 in a
probability.
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
    ``pixel_scale`` (already applied) and ``framing``. The same model gives the same bytes.

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
    takes_pixels = model.pixel_scale is not None
    if dtype is None:
        return np.dtype(np.uint8) if takes_pixels else model.theta.dtype
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
    constants = {
        "scale": np.asarray(model.input_scale(input_dtype), dtype=np.float64),
        "weight": theta[:, :-1],
        "bias": theta[:, -1],
    }
    return helper.make_graph(
        [
            helper.make_node("Cast", [name], ["numbers"], to=double),
            helper.make_node("Mul", ["numbers", "scale"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "weight", "bias"], ["sums"], transB=1),
            helper.make_node("Cast", ["sums"], ["logits"], to=output),
            # From the logits, like predict: different ones may round to the same probability.
            helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
            helper.make_node("Cast", ["logits"], ["rounded"], to=double),
            helper.make_node("Softmax", ["rounded"], ["softmax"], axis=1),
            helper.make_node("Cast", ["softmax"], ["probabilities"], to=output),
        ],
        "softmax_regression",
        [helper.make_tensor_value_info(name, given, ["N", model.num_inputs])],
        [
            helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", output, ["N", model.num_outputs]),
        ],
        [numpy_helper.from_array(array, constant) for constant, array in constants.items()],
    )
