"""Export of a model to one HTML file that classifies photos and drawings, without a server.

The page is ``web_page.html`` with its style and script (``web_page.css``, ``web_page.js``) and the
parameters of the model inserted. It follows the recipe of :mod:`npsoftmax.ext.photos` step by step.
"""

import base64
import hashlib
import json
import math
import os
import re
import zlib
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import check_model
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.features import FeatureMap, Patches
from npsoftmax.files import publish
from npsoftmax.model import SoftmaxRegression

__all__ = ["save"]

SIDE = 28  # of the images of Fashion-MNIST and MNIST
MAX_BYTES = 2 * 2**20


def save(model: SoftmaxRegression, path: str | os.PathLike[str]) -> None:
    """Write a page that classifies images in the browser, atomically.

    The file is self-contained: it opens from disk and loads nothing over the network (its
    Content-Security-Policy forbids it). The same model gives the same bytes. The file contains
    ``theta / temperature`` as float32, even for a float64 model, and the class means as whole grey
    levels. For a model on features, it contains the filters with 16 bits, ``theta`` with 9 and the
    class means with 6, so that probabilities differ by up to about 0.01. Without ``class_means`` it
    cannot warn of images unlike the training data. Ten classes take less than 100 kB, on pixels as
    on 1,600 features.

    Parameters
    ----------
    model : SoftmaxRegression
        A model of 784 inputs, the pixels of 28x28 images row by row, or of square grey images with
        the framing "whole" or "square", with a pixel scale. Its features, if it has any, are
        :class:`~npsoftmax.features.Patches`. Other features, parameters beyond float32, class means
        that are not grey levels, and pages above 2 MiB raise
        :exc:`~npsoftmax.errors.InputError`.
    path : path
        The file; it is replaced if it exists.

    Examples
    --------
    >>> from pathlib import Path
    >>> model = SoftmaxRegression(784, 3, classes=["cat", "dog", "owl"], pixel_scale=1 / 255)
    >>> save(model, "pets.html")
    >>> Path("pets.html").read_text("utf-8").splitlines()[0]
    '<!DOCTYPE html>'
    """
    check_model(model)
    page = _page(model).encode()
    if len(page) > MAX_BYTES:
        raise InputError(
            f"model: expected a page of at most {MAX_BYTES:,} bytes, got {len(page):,} with "
            f"{model.num_outputs} classes; export it to ONNX instead (--onnx)"
        )
    with publish(path) as file:
        file.write(page)


def _page(model: SoftmaxRegression) -> str:
    folder = resources.files(__package__)
    parts = {
        name: folder.joinpath(f"web_page.{name}").read_text("utf-8")
        for name in ("html", "css", "js")
    }
    blocks = {
        "style": parts["css"],
        "script": parts["js"],
        # Without any "<", class names cannot end the element that contains them.
        "model": json.dumps(_numbers(model), indent=1).replace("<", r"\u003c"),
        "policy": _policy(parts["css"], parts["js"]),
    }
    # In one pass, so that placeholders in the inserted texts, such as class names, stay.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: blocks[place[1]], parts["html"])


def _policy(style: str, script: str) -> str:
    """Return a policy that allows only this style and script, and no request."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'"
    )


def _numbers(model: SoftmaxRegression) -> dict[str, Any]:
    side = _side_of(model)
    with np.errstate(over="ignore"):
        theta = model.calibrated_theta().astype("<f4")
    if not np.isfinite(theta).all():
        raise InputError(
            "theta / temperature: expected parameters that fit float32, got larger ones; train or "
            "calibrate again"
        )
    numbers = {
        "classes": model.classes,
        "side": side,
        "pixelScale": model.pixel_scale,
        "framing": model.framing,
        "temperature": model.temperature,
        "evidenceLimit": model.evidence_limit,
    }
    if model.features is None:
        return numbers | _of_pixels(model, theta)
    return numbers | _of_patches(model.features, model)


def _side_of(model: SoftmaxRegression) -> int:
    """Return the side of the images of a model; raise an error if the page cannot show it."""
    d, side = model.num_inputs, math.isqrt(model.num_inputs)
    if side * side != d or (side != SIDE and model.framing not in ("whole", "square")):
        raise ShapeError(
            f"model: expected {SIDE * SIDE} inputs, the pixels of 28x28 images, or square images "
            f'with the framing "whole" or "square", got {d} with the framing {model.framing}; '
            "export it to ONNX instead (--onnx)"
        )
    if model.pixel_scale is None:
        raise InputError(
            "model: expected one with a pixel scale, got one of other features; export it to ONNX "
            "instead (--onnx) or, if they are pixels, make the model with pixel_scale=1/255"
        )
    return side


def _of_pixels(model: SoftmaxRegression, theta: NDArray[np.float32]) -> dict[str, Any]:
    k, scale = model.num_outputs, model.pixel_scale
    numbers = {"theta": _packed(theta[:, :-1]), "scales": [1] * k, "biases": theta[:, -1].tolist()}
    if model.class_means is not None and scale is not None:
        numbers["means"] = _packed(_grey_levels(model.class_means.means, scale))
        numbers["meanScales"], numbers["radii"] = [scale] * k, model.class_means.radii.tolist()
    return numbers


def _of_patches(features: FeatureMap, model: SoftmaxRegression) -> dict[str, Any]:
    """Return the numbers of a model on features: whole ones, with a scale for each class.

    The features in the page are neither centred nor divided: theta and the class means are changed
    instead. The bias corrects what the rounding of theta changes at the mean features.
    """
    if not isinstance(features, Patches) or features.shape[2] != 1:
        raise InputError(
            "features: expected none or those of Patches of grey images, got others, which do not "
            "fit a small page; export it to ONNX instead (--onnx)"
        )
    theta = model.calibrated_theta()
    weights, scales = _quantised(theta[:, :-1] / features.divisor, 255, axis=1)
    biases = theta[:, -1] - scales * (weights @ features.centre.astype(float))
    bank, bank_scale = _quantised(features.filters, 32767)
    numbers: dict[str, Any] = {
        "features": {
            "cells": features.cells,
            "mirror": features.mirror,
            "filters": _packed(bank.T.astype("<i2")),
            "filterScale": bank_scale.item(),
            "offsets": _packed(features.offsets.astype("<f4")),
        },
        "theta": _packed(_nine_bits(weights.astype(int))),
        "scales": scales.tolist(),
        "biases": biases.tolist(),
    }
    if model.class_means is not None:
        means = model.class_means.means * features.divisor + features.centre[:, None]
        levels, scales = _quantised(np.maximum(means, 0), 63, axis=0)
        numbers |= {"means": _packed(levels.astype(np.uint8)), "meanScales": scales.tolist()}
        numbers["radii"] = (model.class_means.radii * features.divisor).tolist()
    return numbers


def _quantised(
    array: NDArray[Any], largest: int, axis: int | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return whole numbers up to the largest, and the scales by which they are to be multiplied."""
    scales = np.abs(array).max(axis=axis, keepdims=True).astype(np.float64) / largest
    scales[scales == 0] = 1.0
    return np.rint(array / scales), scales.reshape(-1)


def _nine_bits(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the upper eight bits of each number, then all last bits, which do not compress."""
    flat = numbers.ravel(order="F")
    upper = (flat >> 1).astype(np.int8).view(np.uint8)
    return np.concatenate([upper, np.packbits((flat & 1).astype(bool), bitorder="little")])


def _grey_levels(means: NDArray[Any], pixel_scale: float) -> NDArray[np.uint8]:
    levels: NDArray[np.float64] = np.rint(means / np.float64(pixel_scale))
    if not ((levels >= 0) & (levels <= 255)).all():
        raise InputError(
            f"class_means: expected means of grey levels 0 to 255, got {levels.min():g} to "
            f"{levels.max():g}; fit_class_means(X, y) with uint8 images, or set class_means to None"
        )
    return levels.astype(np.uint8)


def _packed(array: NDArray[Any]) -> str:
    """Return the numbers column by column, little-endian and deflated."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return base64.b64encode(deflate.compress(array.tobytes(order="F")) + deflate.flush()).decode()
