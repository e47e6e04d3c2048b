"""Maps of features as arrays and settings, for files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_count
from npsoftmax.features.columns import Standardise, Tfidf
from npsoftmax.features.maps import Chain, FeatureMap, RandomFourier, parts_of
from npsoftmax.features.patches import Patches

__all__ = ["digest", "pack", "unpack"]

COLUMN_BY_COLUMN: dict[str, type[FeatureMap]] = {"Standardise": Standardise, "Tfidf": Tfidf}


def pack(features: FeatureMap) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """Return the arrays and the settings of a map, for a file.

    Examples
    --------
    >>> fourier = RandomFourier.fit(np.eye(3, 5), num_features=2)
    >>> arrays, settings = pack(fourier)
    >>> sorted(arrays), settings
    (['features.0.offsets', 'features.0.weights'], [{'kind': 'RandomFourier'}])
    >>> digest(unpack(arrays, settings)) == digest(fourier)
    True
    """
    arrays: dict[str, NDArray[Any]] = {}
    settings = []
    for number, part in enumerate(parts_of(features)):
        own: dict[str, Any] = {"kind": type(part).__name__}
        for field in dataclasses.fields(part):  # type: ignore[arg-type]
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"features.{number}.{field.name}"] = value
            else:
                own[field.name] = value
        settings.append(own)
    return arrays, settings


def unpack(arrays: Mapping[str, NDArray[Any]], settings: Any) -> FeatureMap:
    """Return the map that :func:`pack` took apart.

    Raises ShapeError, ValueError, KeyError or TypeError if it does not fit together.
    """
    parts: list[FeatureMap] = []
    for number, given in enumerate(settings):
        own = {
            name.removeprefix(f"features.{number}."): array
            for name, array in arrays.items()
            if name.startswith(f"features.{number}.")
        }
        parts.append(_restore(own, **given))
    return parts[0] if len(parts) == 1 else Chain(parts)


def digest(features: FeatureMap) -> str:
    """Return the SHA-256 of all that the features depend on."""
    arrays, settings = pack(features)
    sha = hashlib.sha256(repr(settings).encode())
    for name in sorted(arrays):
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def _restore(arrays: dict[str, NDArray[Any]], kind: str, **settings: Any) -> FeatureMap:
    """Return one map; a file can hold anything."""
    dtype = np.float64 if kind in COLUMN_BY_COLUMN else np.float32
    for name, array in arrays.items():
        if array.dtype != dtype or not np.isfinite(array).all():
            raise ValueError(f"{name} of {array.dtype} that are not finite {np.dtype(dtype)}")
    if kind in COLUMN_BY_COLUMN:
        return COLUMN_BY_COLUMN[kind](**arrays, **settings)
    if kind == "RandomFourier":
        return RandomFourier(**arrays, **settings)
    if kind != "Patches":
        raise ValueError(f"features of kind {kind!r:.80}")
    height, width, colours = (as_count(side, "shape") for side in settings.pop("shape"))
    cells, mirror, divisor = (settings.pop(name) for name in ("cells", "mirror", "divisor"))
    if type(mirror) is not bool or type(divisor) is not float or not 0 < divisor < np.inf:
        raise TypeError(f"mirror {mirror!r:.80}, divisor {divisor!r:.80}")
    if settings:
        raise ValueError(f"unknown entries {', '.join(settings):.80}")
    shape = height, width, colours
    return Patches(shape, cells=as_count(cells, "cells"), mirror=mirror, divisor=divisor, **arrays)
