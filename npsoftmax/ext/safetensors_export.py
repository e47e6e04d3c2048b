"""Export of a model to safetensors, for ``torch.nn.Linear`` and others."""

import json
import os
from typing import Any

import numpy as np

from npsoftmax import __version__
from npsoftmax._checks import check_model
from npsoftmax.errors import InputError
from npsoftmax.ext import extra
from npsoftmax.features import pack
from npsoftmax.files import publish
from npsoftmax.model import SoftmaxRegression

with extra("safetensors"):
    import safetensors.numpy

__all__ = ["save"]


def save(model: SoftmaxRegression, path: str | os.PathLike[str]) -> None:
    """Write the parameters as tensors ``weight`` and ``bias``, atomically.

    ``weight`` has shape ``(k, d)`` and ``bias`` ``(k,)``. Both have the dtype of ``theta`` and are
    divided by the temperature, so rows of **scaled** features times ``weight.T`` plus ``bias`` are
    the logits. The metadata have one entry, ``npsoftmax``, a JSON object with ``version``,
    ``classes``, ``pixel_scale`` (to multiply pixels by) and ``framing``, null if the model has
    none, and ``temperature`` (already applied). The same model gives the same bytes.

    A model with a map of features has further tensors ``features.…``, and ``features`` in the
    metadata: all that its formula (:mod:`npsoftmax.features`) needs. ``weight`` then multiplies
    what the map computes; this file holds no code for it, while an ONNX graph does.

    Parameters
    ----------
    model : SoftmaxRegression
        The model. Parameters that are not finite after the division by the temperature raise
        :exc:`~npsoftmax.errors.InputError`.
    path : path
        The file; it is replaced if it exists.

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
    check_model(model)
    with np.errstate(over="ignore"):
        theta = model.calibrated_theta().astype(model.theta.dtype)
    if not np.isfinite(theta).all():
        raise InputError(
            f"theta / temperature: expected numbers that fit {theta.dtype}, got larger ones; "
            "calibrate again"
        )
    about: dict[str, Any] = {
        "version": __version__,
        "classes": model.classes,
        "pixel_scale": model.pixel_scale,
        "framing": model.framing,
        "temperature": model.temperature,
    }
    tensors = {"weight": theta[:, :-1], "bias": theta[:, -1]}
    if model.features is not None:
        arrays, about["features"] = pack(model.features)
        tensors |= arrays
    content = safetensors.numpy.save(
        # Copies in C order: safetensors 0.8.0 writes the memory of an array without regard to its
        # strides, so Fortran-ordered numbers would be read in another order (its issue 825).
        {name: np.ascontiguousarray(array) for name, array in tensors.items()},
        # One entry: safetensors writes several in random order (its issue 584).
        metadata={"npsoftmax": json.dumps(about)},
    )
    with publish(path) as file:
        file.write(content)
