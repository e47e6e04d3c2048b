"""A model as a safetensors file, whose tensors load straight into ``torch.nn.Linear``."""

import json
import os
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from npsoftmax import __version__
from npsoftmax.errors import InputError, OutputError
from npsoftmax.files import publish
from npsoftmax.model import SoftmaxRegression

__all__ = ["save"]

Tensors = dict[str, NDArray[Any]]


def save(model: SoftmaxRegression, path: str | os.PathLike[str]) -> None:
    """Write the parameters as ``weight`` and ``bias``, atomically, and read them back.

    ``weight`` is ``(k, d)``, ``bias`` ``(k,)``, both of the dtype of ``theta`` and divided by the
    temperature, so rows of **scaled** features times ``weight.T`` plus ``bias`` are the logits.
    The metadata have one entry, ``npsoftmax``, a JSON object with ``version``, ``classes``,
    ``pixel_scale`` (to multiply pixels by) and ``temperature`` (already applied). The same model
    gives the same bytes.

    Parameters
    ----------
    model : SoftmaxRegression
        The model.
    path : path
        The file; it is replaced if it exists.

    Raises
    ------
    InputError
        Parameters that are NaN, infinite, or become so when they are divided by the temperature.
    OutputError
        The file cannot be written, or what was written reads back as something else.

    Examples
    --------
    >>> model = SoftmaxRegression(2, 3, classes=["cat", "dog", "owl"])
    >>> save(model, "pets.safetensors")
    >>> from safetensors.numpy import load_file
    >>> tensors = load_file("pets.safetensors")
    >>> {name: tensor.shape for name, tensor in sorted(tensors.items())}
    {'bias': (3,), 'weight': (3, 2)}
    >>> np.array_equal(tensors["weight"], model.W)
    True
    """
    tensors = _tensors(model)
    about = {
        "version": __version__,
        "classes": model.classes,
        "pixel_scale": model.pixel_scale,
        "temperature": model.temperature,
    }
    # In one entry: safetensors writes several in random order (its issue 584).
    content = safetensors.numpy.save(tensors, metadata={"npsoftmax": json.dumps(about)})
    with publish(path) as file:
        file.write(content)
        file.seek(0)
        _refuse_other_than(tensors, file.read(), path)


def _tensors(model: SoftmaxRegression) -> Tensors:
    with np.errstate(over="ignore"):
        theta = model.calibrated_theta().astype(model.theta.dtype)
    if not np.isfinite(theta).all():
        raise InputError(
            f"theta / temperature: expected numbers that fit {theta.dtype}, got larger ones; "
            "calibrate anew"
        )
    # Copies in C order: safetensors 0.8.0 writes memory as it lies, and theta is Fortran-ordered,
    # so its numbers would come back in other places (its issue 825).
    return {
        "weight": np.ascontiguousarray(theta[:, :-1]),
        "bias": np.ascontiguousarray(theta[:, -1]),
    }


def _refuse_other_than(tensors: Tensors, content: bytes, path: str | os.PathLike[str]) -> None:
    try:
        found = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise OutputError(
            f"cannot write {path}: what was written cannot be read back: {error}"
        ) from error
    if found.keys() != tensors.keys() or not all(
        found[name].dtype == tensor.dtype
        and found[name].shape == tensor.shape
        and found[name].tobytes() == tensor.tobytes()
        for name, tensor in tensors.items()
    ):
        raise OutputError(
            f"cannot write {path}: what was written reads back as something else; try another "
            "version of safetensors, or another disk"
        )
