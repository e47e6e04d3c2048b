"""Checks of shapes, dtypes, labels and weights, with their error messages.

Each check returns the accepted argument as an array, an int or a float. Otherwise it raises
:class:`npsoftmax.errors.InputError`, with a message of the form "expected X, got Y; do Z".
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import ArrayLike, NDArray

from npsoftmax._sparse import as_compressed, is_sparse
from npsoftmax.errors import InputError, InputWarning, LabelError, ShapeError


def as_array(given: object, name: str) -> NDArray[Any]:
    """Return an array, without a copy if it is one; refuse what NumPy cannot read, or misreads."""
    if type(given) is np.ndarray and given.dtype != object:
        return given
    kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}"
    kind = kind.removeprefix("builtins.")
    if hasattr(given, "toarray"):
        raise InputError(f"{name}: expected a dense array, got {kind}; pass {name}.toarray()")
    if hasattr(given, "__dask_graph__") and not hasattr(given, "chunks"):
        raise InputError(
            f"{name}: expected an array, got {kind}; load it into memory with {name}.compute(), or "
            f"give {name}.to_dask_array(lengths=True) to npsoftmax.ext.cluster"
        )
    if np.ma.is_masked(given):
        raise InputError(
            f"{name}: expected a value in every place, got a masked array; drop the samples with "
            f"masked values, or fill them, {name}.filled(0)"
        )
    try:
        array = _read(given)
    except (ValueError, TypeError, RuntimeError, BufferError, ImportError) as error:
        way = "give rows of equal length"
        if hasattr(given, "detach"):
            dense = ".to_dense()" * bool(getattr(given, "is_sparse", False))
            way = f"pass {name}.detach().cpu(){dense}.float().numpy()"
        elif hasattr(given, "__dlpack__"):
            way = "move it to the memory of the CPU, as float32"
        raise InputError(
            f"{name}: expected what NumPy reads as an array, got {kind} ({error}); {way}"
        ) from error
    if array.ndim == 0 and array.dtype.kind in "OUS":
        raise InputError(
            f"{name}: expected an array of numbers, got {given!r:.40} ({kind}); give its values as "
            "a list or an array"
        )
    if array.dtype == object and array.ndim == 1 and array.size and np.ndim(array[0]):
        raise InputError(f"{name}: expected numbers, got {kind} of arrays; pass np.stack({name}).T")
    return array


def _read(given: Any) -> NDArray[Any]:
    """Return what NumPy reads, without a copy of a tensor on the CPU or of what exports DLPack."""
    if hasattr(given, "detach"):
        given = given.detach()  # NumPy refuses a tensor that records gradients
        if str(given.dtype) == "torch.bfloat16":
            return _read_bfloat16(given)
    if hasattr(given, "__dlpack__") and not hasattr(given, "__array__"):
        return np.from_dlpack(given)
    return np.asarray(given)


def _read_bfloat16(tensor: Any) -> NDArray[Any]:
    """Return the numbers of a tensor in place, by way of integers: DLPack brings none to NumPy."""
    from ml_dtypes import bfloat16

    integers = sys.modules["torch"].int16
    array: NDArray[Any] = tensor.view(integers).numpy().view(bfloat16)
    return array


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether these are the bfloat16 of ``ml_dtypes``, which NumPy knows no kind of."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether these are floats, bfloat16 included."""
    return dtype.kind == "f" or is_bfloat16(dtype)


ENCODE = "encode text as columns of 0 and 1, for instance with pandas.get_dummies"
WAY_TO_NUMBERS = {
    "O": f"convert numbers with np.asarray({{}}, float), drop missing values, {ENCODE}",
    "U": f"convert numbers with np.asarray({{}}, float), {ENCODE}",
    "c": "take real and imaginary parts as features: np.vstack([{0}.real, {0}.imag])",
    "M": "turn dates into numbers: ({0} - {0}.min()) / np.timedelta64(1, 'D')",
    "V": "make a plain array: numpy.lib.recfunctions.structured_to_unstructured({})",
}


def floating_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the dtype to compute in: floats stay, integers and booleans become float64.

    bfloat16 becomes float32: NumPy has no functions of it.
    """
    if dtype.kind == "f":
        if dtype.itemsize > 8:
            raise InputError(
                f"{name}: expected float64 or narrower, got {dtype}, which would lose its extra "
                "digits; convert it with .astype(np.float64)"
            )
        return dtype if dtype.isnative else dtype.newbyteorder("=")
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if is_bfloat16(dtype):
        return np.dtype(np.float32)
    way = WAY_TO_NUMBERS.get(dtype.kind, "convert it to float first").format(name)
    if dtype == "V2":  # what a .npy file makes of bfloat16
        way = f"if it is bfloat16, pass {name}.view(ml_dtypes.bfloat16)"
    raise InputError(f"{name}: expected real numbers, got dtype {dtype}; {way}")


def as_float(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return ``x`` as an array of floating dtype, without a copy if it already is one."""
    array = as_array(x, name)
    dtype = floating_dtype(array.dtype, name)
    if array.ndim == 0:
        raise ShapeError(
            f"{name}: expected an array, got the number {array!s}; pass a whole column at once"
        )
    return array.astype(dtype, copy=False)


def as_axis(axis: int | tuple[int, ...] | None, x: NDArray[Any]) -> tuple[int, ...]:
    """Return ``axis`` as non-negative axes of ``x``, none of them empty; ``None`` means all."""
    try:
        if isinstance(axis, int) and -x.ndim <= axis < x.ndim:
            axes: tuple[int, ...] = (axis % x.ndim,)
        else:
            axes = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"axis: expected axes of an array of shape {x.shape}, got {axis!r} ({error})"
        ) from error
    if 0 in x.shape and any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            f"axis: expected at least one class along axis {axis!r}, got shape {x.shape}"
        )
    return axes


def as_single_axis(axis: object, x: NDArray[Any]) -> int:
    """Return ``axis`` as one non-negative axis of ``x`` that is not empty."""
    if not isinstance(axis, int | np.integer):
        raise ShapeError(f"axis: expected one axis of shape {x.shape}, got {axis!r}")
    return as_axis(int(axis), x)[0]


def as_out(out: NDArray[Any] | None, shape: tuple[int, ...], like: NDArray[Any]) -> NDArray[Any]:
    """Return the array to write into: ``out``, or a new one in the memory order of ``like``."""
    if out is None:
        return np.empty_like(like, shape=shape)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype.kind != "f":
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else repr(out)
        raise ShapeError(
            f"out: expected a floating array of shape {shape}, got {got}; "
            f"allocate it as np.empty({shape}, dtype={like.dtype}, order='F')"
        )
    if not out.flags.writeable:
        raise InputError("out: expected an array to write into, got a read-only one; copy it")
    return out


def as_columns(
    X: ArrayLike,
    num_inputs: int | None = None,
    name: str = "X",
    finite: bool = True,
    sparse: bool = False,
) -> NDArray[Any]:
    """Return ``X`` as a ``(d, n)`` array whose columns are the samples, checked to be finite.

    With ``sparse``, a sparse one is welcome too, and becomes a ``scipy.sparse.csc_array``.
    """
    array = as_compressed(X, name) if sparse and is_sparse(X) else as_array(X, name)
    floating_dtype(array.dtype, name)
    if array.ndim != 2:
        raise ShapeError(
            f"{name}: expected shape (features, samples), got {array.shape}; "
            f"{_way_to_columns(array.shape, name)}"
        )
    if num_inputs is not None and array.shape[0] != num_inputs:
        hint = "samples are columns"
        if array.shape[1] == num_inputs:
            hint = f"pass {name}.T" if is_sparse(array) else f"pass np.asarray({name}).T"
        elif array.size == num_inputs:
            hint = f"a single sample is np.asarray({name}).reshape(-1, 1)"
        raise ShapeError(
            f"{name}: expected {num_inputs} features along axis 0, got shape {array.shape}; {hint}"
        )
    if finite and is_floating(array.dtype):
        _check_finite(array, name)
    return array


def _way_to_columns(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 1:
        array = f"np.asarray({name})"
        return f"a single sample is {array}[:, None], a single feature {array}[None]"
    if len(shape) > 2 and shape[0] == shape[1] != shape[-1]:  # (28, 28, n), as Julia stores images
        grey = f"if it is one colour picture, np.asarray({name})[..., :3].mean(axis=-1)"
        way = f"; {grey}.reshape(-1, 1)" if shape[-1] in (3, 4) else ""
        return f"images are np.asarray({name}).reshape(-1, {shape[-1]}){way}"
    return f"images are np.asarray({name}).reshape({shape[0] if shape else 1}, -1).T"


def _check_finite(X: Any, name: str) -> None:
    """Raise InputError at the first sample that holds a NaN or an infinity."""
    if is_sparse(X):
        place = int(np.argmin(np.isfinite(X.data))) if X.data.size else 0
        if X.data.size and not np.isfinite(X.data[place]):
            sample = int(np.searchsorted(X.indptr, place, side="right")) - 1
            raise _not_finite(X.data[place], X.indices[place], sample, name)
        return
    # Column blocks keep the Boolean mask small next to a large X.
    for start in range(0, X.shape[1] if X.size else 0, 4096):
        finite = np.isfinite(X[:, start : start + 4096])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise _not_finite(X[row, start + column], row, start + column, name)


def _not_finite(number: Any, feature: int, sample: int, name: str) -> InputError:
    return InputError(
        f"{name}: expected finite numbers, got {number} in feature {feature} of sample {sample}; "
        "drop or repair such samples first"
    )


class Range(NamedTuple):
    """The dtype of some numbers, and where they lie."""

    dtype: np.dtype[Any]
    low: float  # the smallest of signed integers, and of floats if some are above 2; else 0
    high: float  # the largest

    @classmethod
    def of(cls, X: Any) -> Range:
        """Return the range of an array."""
        numbers = X.data if is_sparse(X) else X
        if numbers.dtype == np.float16 and numbers.size:
            numbers = _ends_of_half_floats(numbers)
        high = numbers.max().item() if numbers.size else 0
        signed = X.dtype.kind == "i" or (is_floating(X.dtype) and high > 2)
        return cls(X.dtype, numbers.min().item() if numbers.size and signed else 0, high)

    def merge(self, other: Range) -> Range:
        """Return the range of these numbers and others."""
        return Range(self.dtype, min(self.low, other.low), max(self.high, other.high))


def _ends_of_half_floats(numbers: NDArray[np.float16]) -> NDArray[np.float16]:
    """Return the largest and smallest number and others, in a twentieth of the time of ``max``.

    With a sign the bits of numbers from 0 on have their order; without, those of negative ones are
    above these, in reverse order.
    """
    signed, unsigned = numbers.view(np.int16), numbers.view(np.uint16)
    ends = signed.max(), signed.min(), unsigned.max(), unsigned.min()
    return np.array([bits.view(np.float16) for bits in ends])


# Fewer features are a table, whose integers may well be ages and blood pressures.
MIN_PIXELS = 64


def check_pixels(model: Any, samples: Range, test: tuple[NDArray[Any], Any] | None = None) -> None:
    """Raise or warn if samples, or test samples, do not suit the pixel scale of a model.

    The same fault of both gives one warning.
    """
    ranges = [samples] if test is None else [samples, Range.of(test[0])]
    for fault in dict.fromkeys(_fault(model, found) for found in ranges):
        if fault is not None:
            warnings.warn(f"X: expected {fault}", InputWarning, stacklevel=level_of_caller())


def _fault(model: Any, found: Range) -> str | None:
    (dtype, low, high), scale = found, model.pixel_scale
    whole, got = dtype.kind in "iu", f"got {found.dtype} up to {found.high:g}"
    if scale is None:
        if whole and low >= 0 and 127 < high <= 255 and model.num_inputs >= MIN_PIXELS:
            return (
                f"features, {got}, which look like pixels; make the model with pixel_scale=1/255, "
                "or pass X / 255; if they are not pixels, pass X.astype(float)"
            )
        return None
    if scale == 1:
        return None  # all numbers are used as they are, whatever they are
    way_out = "if they are not pixels, set model.pixel_scale = None"
    if whole and (low < 0 or high > 255):
        bits = "" if low < 0 else "divide pixels of 16 bits, X / 65535; "
        raise InputError(
            f"X: expected pixels from 0 to 255, got {low if low < 0 else high}; {bits}{way_out}"
        )
    if whole and high == 1:
        return (
            f"pixels from 0 to 255, got {dtype} of 0 and 1 only, which are almost black; pass "
            f"X.astype(bool) for black and white; {way_out}"
        )
    if is_floating(dtype) and low >= 0 and high > 2:
        return (
            f"integers from 0 to 255 or floats from 0 to 1, {got}, which are not scaled; pass "
            f"X / {1 / scale:g}; {way_out}"
        )
    return None


def level_of_caller() -> int:
    """Return the ``stacklevel`` with which a warning names the line that calls this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("npsoftmax."):
        level, frame = level + 1, frame.f_back
    return level


# Counting larger numbers, which are not labels, would exhaust the memory.
MAX_LABELS = 2**24


def as_labels(
    y: ArrayLike,
    num_outputs: int | None,
    shape: tuple[int, ...] | None = None,
    name: str = "y",
) -> NDArray[Any]:
    """Return ``y`` as integer labels in ``0..num_outputs-1``, shape ``(n,)`` or ``shape``.

    With ``num_outputs=None`` every label below ``MAX_LABELS`` is accepted.
    """
    labels = as_array(y, name)
    if labels.ndim != 1 if shape is None else labels.shape != shape:
        raise ShapeError(
            f"{name}: expected integer labels of shape {'(samples,)' if shape is None else shape}, "
            f"got shape {labels.shape}; {way_to_labels(labels.shape, name)}"
        )
    if labels.dtype.kind not in "iu":
        raise LabelError(
            f"{name}: expected integer labels 0..{_last(num_outputs)}, got "
            f"{_way_to_integers(labels, name)}"
        )
    if labels.size:
        low, high = np.minimum.reduce(labels, axis=None), np.maximum.reduce(labels, axis=None)
        if low < 0 or high >= (MAX_LABELS if num_outputs is None else num_outputs):
            limit = f", k at most {MAX_LABELS:,}" if num_outputs is None and low >= 0 else ""
            way = _way_to_numbers(name)
            if low == 1 and high == num_outputs:
                way = f"pass np.asarray({name}) - 1"
            raise LabelError(
                f"{name}: expected labels 0..{_last(num_outputs)}{limit}, got labels from {low} to "
                f"{high}; num_outputs must be the number of classes, and labels count from 0; {way}"
            )
    # np.take may refuse uint64 labels, which do not cast to an index safely.
    return labels if np.can_cast(labels.dtype, np.intp) else labels.astype(np.intp)


# At once, because a part of the labels may lack a class, and would get other numbers.
NUMBER_CLASSES = "number all labels at once: classes, {0} = np.unique({0}, return_inverse=True)"


def _way_to_numbers(name: str) -> str:
    if name == "y_val":
        return f"{NUMBER_CLASSES.format('y')}, and y_val = np.searchsorted(classes, y_val)"
    return NUMBER_CLASSES.format(name)


def way_to_labels(shape: tuple[int, ...], name: str) -> str:
    """Return what makes labels of an array of this shape."""
    if len(shape) == 2 and 1 in shape:
        return f"pass np.ravel({name})"
    if len(shape) == 2:  # there are more samples than classes
        axis = int(shape[0] > shape[1])
        return f"the labels of one-hot targets are np.asarray({name}).argmax(axis={axis})"
    return "give one value for each sample"


def _way_to_integers(labels: NDArray[Any], name: str) -> str:
    """Return what the labels are instead of integers, and what makes them integers."""
    got = f"dtype {labels.dtype}"
    if labels.dtype.kind in "bf":
        missing, parts = ~np.isfinite(labels), labels % 1 != 0
        if missing.any():
            first = f"{labels[missing][0]} for sample {missing.argmax()}"
            return f"{first}; keep the samples with labels, np.isfinite({name})"
        if not parts.any():
            return f"{got}; convert them: np.asarray({name}, int)"
        got = f"{labels[parts][0]}, a number of a scale or the name of a class"
    try:
        np.unique(labels)
    except TypeError:
        types = sorted({type(label).__name__ for label in labels.flat})
        return f"labels of types {', '.join(types)}; drop missing ones, and make all of one type"
    return f"{got}; {_way_to_numbers(name)}"


def _last(num_outputs: int | None) -> str:
    return "k-1" if num_outputs is None else str(num_outputs - 1)


def same_samples(
    X: NDArray[Any], y: NDArray[Any], name: str = "X", name_of_labels: str = "y"
) -> None:
    """Raise ShapeError unless ``X`` and ``y`` hold the same number of samples, at least one."""
    if X.shape[-1] != y.shape[-1]:
        rows = X.shape[0] == y.shape[-1]
        array = name if is_sparse(X) else f"np.asarray({name})"
        hint = f"pass {array}.T" if rows else "samples are columns"
        raise ShapeError(
            f"{name} and {name_of_labels}: expected as many labels as samples, got {name} "
            f"{X.shape} and {name_of_labels} {y.shape}; {hint}"
        )
    if y.shape[-1] == 0:
        raise ShapeError(
            f"{name} and {name_of_labels}: expected at least one sample, got {name} {X.shape} and "
            f"{name_of_labels} {y.shape}; check the file or the slice that they come from"
        )


def as_weights(sample_weight: ArrayLike, num_samples: int) -> NDArray[np.float64]:
    """Return finite weights of at least 0 in float64, one for each sample."""
    given = as_array(sample_weight, "sample_weight")
    if given.shape != (num_samples,):
        got = f"shape {given.shape}" if given.ndim else f"the number {given}"
        column = given.size == num_samples
        raise ShapeError(
            f"sample_weight: expected one number for each of {num_samples} samples, got {got}; "
            f"{'pass np.ravel(sample_weight)' if column else 'leave it out for equal weights'}"
        )
    floating_dtype(given.dtype, "sample_weight")
    weights = given.astype(np.float64)
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        raise unusable_weights(f"{weights[wrong][0]} for sample {wrong.argmax()}")
    return weights


def weights_of_classes(
    class_weight: Mapping[Any, float] | str,
    y: NDArray[Any],
    classes: Sequence[str],
    sample_weight: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return the weights of samples with valid labels, times a factor for each class.

    "balanced" gives all classes that occur the same total, and leaves the sum as it is.
    """
    weights = np.ones(y.size) if sample_weight is None else as_weights(sample_weight, y.size)
    if isinstance(class_weight, str) and class_weight == "balanced":
        totals = np.bincount(y, weights, minlength=len(classes))
        totals[totals == 0] = np.inf
        factors = weights.sum() / np.isfinite(totals).sum() / totals
    elif isinstance(class_weight, Mapping):
        factors = _class_factors(class_weight, classes)
    else:
        raise InputError(
            f"class_weight: expected 'balanced', or numbers by class, got {class_weight!r:.80}; "
            f"pass for instance {{{classes[0]!r}: 2}}"
        )
    weights *= factors[y]
    if not weights.any():
        raise InputError(
            "class_weight: expected a positive weight for some sample, got 0 for all; leave it out"
        )
    return weights


def _class_factors(
    class_weight: Mapping[Any, float], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Return the factor of each class: 1 unless its name or its number is a key."""
    factors = np.ones(len(classes))
    numbers: dict[Any, int] = {name: number for number, name in enumerate(classes)}
    numbers |= {number: number for number in range(len(classes))}
    unknown = [key for key in class_weight if isinstance(key, bool) or key not in numbers]
    if unknown:
        raise InputError(
            f"class_weight: expected names among {', '.join(classes):.200}, or numbers "
            f"0..{len(classes) - 1}, got {unknown[0]!r:.80}; correct it"
        )
    if len({numbers[key] for key in class_weight}) < len(class_weight):
        raise InputError(
            "class_weight: expected each class once, got one by its name and by its number; leave "
            "one out"
        )
    for key, value in class_weight.items():
        factors[numbers[key]] = as_size(value, f"class_weight[{key!r}]")
    return factors


def unusable_weights(got: str) -> InputError:
    """Return the error for weights that are negative, not finite, or all 0."""
    return InputError(
        f"sample_weight: expected finite numbers of at least 0, not all 0, got {got}; leave it out "
        "for equal weights"
    )


def as_samples(
    X: ArrayLike, y: ArrayLike, num_inputs: int, num_outputs: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels that fit a model and each other."""
    columns, labels = as_columns(X, num_inputs, sparse=True), as_labels(y, num_outputs)
    same_samples(columns, labels)
    return columns, labels


def as_test_data(
    test: object, num_inputs: int, num_outputs: int
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the samples and labels to evaluate on, or None if there are none."""
    if test is None:
        return None
    if not isinstance(test, tuple | list) or len(test) != 2:
        raise InputError(
            f"test: expected samples and labels, got {type(test).__name__}; pass "
            "test=(X_test, y_test)"
        )
    X, y = test
    return as_samples(X, y, num_inputs, num_outputs)


def as_scores(scores: ArrayLike, y: ArrayLike, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scores, shape ``(k, n)``, and labels in ``0..k-1`` that fit each other."""
    if np.ndim(scores) == 1 or (np.shape(scores)[:1] == (1,) and np.any(y)):
        raise ShapeError(
            f"{name}: expected shape (classes, samples), got {np.shape(scores)}; scores are "
            "model(X), the share of right labels is np.mean(np.equal(labels, y)), and p for the "
            "second of two classes is np.stack([1 - p, p])"
        )
    columns, labels = as_columns(scores, name=name), as_labels(y, None)
    same_samples(columns, labels, name)
    return columns, as_labels(labels, columns.shape[0])


# The largest rounding error of a sum of two float16 probabilities, and a little more.
MAX_EXCESS = 2**-8


def as_probabilities(P: NDArray[Any], name: str, way: str = "pass softmax(logits)") -> NDArray[Any]:
    """Return probabilities within 0 and 1, which they may have left by rounding errors."""
    low, high = P.min(initial=0), P.max(initial=0)
    if not -MAX_EXCESS <= low <= high <= 1 + MAX_EXCESS:
        raise InputError(f"{name}: expected numbers from 0 to 1, got {low} to {high}; {way}")
    return P if 0 <= low <= high <= 1 else P.clip(0, 1)


def check_model(model: object) -> None:
    """Raise InputError if this is not a model."""
    if not isinstance(getattr(model, "theta", None), np.ndarray):
        way = "make one: SoftmaxRegression(num_inputs, num_outputs)"
        if hasattr(model, "to_model"):
            way = "pass its to_model()"
        raise InputError(f"model: expected a SoftmaxRegression, got {type(model).__name__}; {way}")


def check_extracted(model: Any, num_features: int, dtype: np.dtype[Any]) -> None:
    """Raise for samples in place of the features that a model extracts from them, if it shows."""
    if model.features is not None and num_features == model.num_inputs != model.num_features:
        raise ShapeError(
            f"X: expected the {model.num_features} features that the model extracts from an image, "
            f"got {num_features} pixels; pass model.extract(X)"
        )
    if model.features is not None and dtype.kind in "iu":
        raise InputError(
            f"X: expected the features that the model extracts from samples, which are floats, got "
            f"{dtype}; pass model.extract(X)"
        )


def check_trainable(model: Any) -> None:
    """Raise InputError if this is not a model, or one that is calibrated."""
    check_model(model)
    if model.temperature != 1:
        raise InputError(
            f"model: expected one that is not calibrated, got temperature {model.temperature:g}; "
            "set model.temperature = 1, and calibrate again after training"
        )
    if model.set_rule is not None:
        raise InputError(
            "model: expected one without calibrated sets, whose guarantee training would void, got "
            "one with a set_rule; set model.set_rule = None, and calibrate the sets after training"
        )


def as_size(value: object, name: str, positive: bool = False) -> float:
    """Return ``value`` as a finite float of at least 0, or above it."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str) or not 0 <= number < math.inf or (positive and number == 0):
        kind = "positive number" if positive else "number of at least 0"
        raise InputError(f"{name}: expected a {kind}, got {value!r}")
    return number


def as_count(value: object, name: str, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < minimum:
        got = f"{value!r:.80}"
        raise InputError(f"{name}: expected a whole number of at least {minimum}, got {got}")
    return count


def as_grid(given: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return positive weights of a penalty in ascending or descending order."""
    array = as_array(given, name)
    values = as_float(np.atleast_1d(array), name).astype(np.float64)
    if values.ndim != 1:
        raise InputError(
            f"{name}: expected one dimension, got shape {array.shape}; pass np.ravel({name})"
        )
    if values.size == 0:
        raise InputError(
            f"{name}: expected at least one value, got shape {array.shape}; pass for instance "
            "np.logspace(-6, -1, 16)"
        )
    wrong = ~((values > 0) & (values < np.inf))
    if wrong.any():
        raise InputError(
            f"{name}: expected positive numbers, got {values[wrong][0]}; leave it out, or make one "
            "fit without a penalty"
        )
    steps = np.sign(np.diff(values))
    if not (steps == 1).all() and not (steps == -1).all():
        repeated = values[1:][steps == 0]
        got = f"{repeated[0]:g} twice" if repeated.size else f"{values.tolist()!s:.80}"
        raise InputError(
            f"{name}: expected values in ascending or descending order, each once, got {got}; pass "
            f"np.unique({name})"
        )
    return values
