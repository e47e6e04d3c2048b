"""What a checkpoint must agree in for a run to go on, as both trainers say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.objective import SummedObjective

__all__ = ["model_settings", "problem_settings"]


def model_settings(
    model: SoftmaxRegression, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return what tells models and the layout of their samples apart."""
    return {
        "theta": f"{model.theta.dtype} {model.theta.shape}",
        "pixel_scale": model.pixel_scale,
        "classes": model.classes,
        "samples": f"{dtype} {shape}",
    }


def problem_settings(problem: SummedObjective) -> dict[str, Any]:
    """Return what tells problems apart that have the same samples."""
    labels, weights = problem.digests
    return {"l2": problem.l2, "labels": labels, "weights": weights}
