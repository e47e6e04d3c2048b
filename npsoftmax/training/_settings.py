"""What a checkpoint must agree in for a run to go on, as both trainers say it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.objective import FullBatch

__all__ = ["model_settings", "problem_settings"]


def model_settings(model: SoftmaxRegression, X: NDArray[Any]) -> dict[str, Any]:
    """Return what tells models and the layout of their samples apart."""
    return {
        "theta": f"{model.theta.dtype} {model.theta.shape}",
        "pixel_scale": model.pixel_scale,
        "classes": model.classes,
        "samples": f"{X.dtype} {X.shape}",
    }


def problem_settings(problem: FullBatch) -> dict[str, Any]:
    """Return what tells problems apart that have the same samples."""
    weights = problem.sample_weight
    return {
        "l2": problem.l2,
        "labels": hashlib.sha256(problem.y.astype(np.int64).tobytes()).hexdigest(),
        "weights": None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest(),
    }
