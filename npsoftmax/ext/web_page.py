"""One HTML file that classifies photos and drawings in the browser, without a server.

The page is ``web_page.html`` with its style and script (``web_page.css``, ``web_page.js``) and the
numbers of the model written into it. Its preprocessing is the recipe of
:mod:`npsoftmax.ext.photos`, step by step.
"""

import base64
import hashlib
import json
import os
import re
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError, ShapeError
from npsoftmax.files import publish
from npsoftmax.model import SoftmaxRegression

__all__ = ["save"]

PIXELS = 28 * 28
MOST_BYTES = 2 * 2**20


def save(model: SoftmaxRegression, path: str | os.PathLike[str]) -> None:
    """Write a page that does in the browser what the model does here, atomically.

    The file stands alone: it opens from a disk, asks for nothing over the network (its
    Content-Security-Policy forbids it), and is the same bytes for the same model. It holds
    ``theta / temperature`` as float32, so a float64 model answers with float32's accuracy, and the
    class means as whole grey levels. Without class_means it cannot warn of what is unlike the
    training data. Ten classes take under 80 kB.

    Parameters
    ----------
    model : SoftmaxRegression
        Of 784 inputs, the pixels of 28x28 images row by row.
    path : path
        The file; it is replaced if it exists.

    Raises
    ------
    ShapeError
        The model does not have 784 inputs.
    InputError
        Parameters do not fit float32, class means are not grey levels, or the page would be
        larger than 2 MiB.
    OutputError
        The file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> save(SoftmaxRegression(784, 3, classes=["cat", "dog", "owl"]), "pets.html")
    >>> Path("pets.html").read_text("utf-8").splitlines()[0]
    '<!DOCTYPE html>'
    """
    page = _page(model).encode()
    if len(page) > MOST_BYTES:
        raise InputError(
            f"model: expected a page of at most {MOST_BYTES:,} bytes, got {len(page):,} with "
            f"{model.num_outputs} classes; export it to ONNX instead"
        )
    with publish(path) as file:
        file.write(page)


def _page(model: SoftmaxRegression) -> str:
    parts = {name: _text(f"web_page.{name}") for name in ("html", "css", "js")}
    blocks = {
        "style": parts["css"],
        "script": parts["js"],
        "model": _for_script_element(_numbers(model)),
        "policy": _policy(parts["css"], parts["js"]),
    }
    # In one pass: what is put in is never searched for further places to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: blocks[place[1]], parts["html"])


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Return a policy under which only these two texts are obeyed, and nothing is fetched."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'"
    )


def _for_script_element(numbers: dict[str, Any]) -> str:
    """Return JSON that cannot end the element it stands in, whatever the classes are called."""
    return json.dumps(numbers, indent=1).replace("<", r"\u003c")


def _numbers(model: SoftmaxRegression) -> dict[str, Any]:
    if model.num_inputs != PIXELS:
        raise ShapeError(
            f"model: expected {PIXELS} inputs, the pixels of 28x28 images, got "
            f"{model.num_inputs}; export it to ONNX instead"
        )
    with np.errstate(over="ignore"):
        theta = model.calibrated_theta().astype("<f4")
    if not np.isfinite(theta).all():
        raise InputError(
            "theta / temperature: expected parameters that fit float32, got larger ones; train or "
            "calibrate anew"
        )
    numbers = {
        "classes": model.classes,
        "pixelScale": model.pixel_scale,
        "theta": _base64(theta),
    }
    if model.class_means is not None:
        numbers["means"] = _base64(_grey_levels(model.class_means.means, model.pixel_scale))
        numbers["radii"] = model.class_means.radii.tolist()
    return numbers


def _grey_levels(means: NDArray[Any], pixel_scale: float) -> NDArray[np.uint8]:
    levels: NDArray[np.float64] = np.rint(means / np.float64(pixel_scale))
    if not ((levels >= 0) & (levels <= 255)).all():
        raise InputError(
            f"class_means: expected means of grey levels 0 to 255, got {levels.min():g} to "
            f"{levels.max():g}; fit_class_means(X, y) with uint8 images, or set class_means to None"
        )
    return levels.astype(np.uint8)


def _base64(array: NDArray[Any]) -> str:
    """Return the numbers column after column, little-endian."""
    return base64.b64encode(array.tobytes(order="F")).decode()
