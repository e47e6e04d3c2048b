"""How the parameters of an estimator are moved: to the optimum, or downhill batch after batch."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from npsoftmax import DataLoader, SoftmaxRegression, fit
from npsoftmax.errors import DivergedError, InputError
from npsoftmax.ext._estimator_samples import Samples
from npsoftmax.objective import FullBatch
from npsoftmax.optimisers import Optimiser

__all__ = ["descend", "finite_logits", "minimise", "rounded"]

Floats = NDArray[np.float64]

# A preconditioner that was made far from the optimum can be a poor one there. After so many
# iterations another is made, then after twice as many, and so on.
ITERATIONS = 200
# The smallest variance, in units of the features' own, that is no rounding error for sure.
COLLINEAR = 1e-10


def minimise(theta: Floats, samples: Samples, l2: float, tol: float, max_iter: int) -> int:
    """Move ``theta`` to the optimum, and return the number of iterations that it took.

    Warns with ConvergenceWarning where there is something to know of the point that was reached.
    """
    model = SoftmaxRegression(samples.X.shape[1], len(theta), sigma=0.0, dtype=np.float64)
    model.theta = theta
    done, limit = 0, ITERATIONS
    while True:
        limit = min(limit, max_iter - done)
        optimum = fit(
            model,
            samples.X.T,
            samples.labels,
            l2=l2,
            sample_weight=samples.weights,
            tol=tol,
            max_iterations=limit,
        )
        done += optimum.iterations
        if optimum.reason != "iterations" or done == max_iter:
            break
        limit *= 2
    if l2 == 0:
        _make_smallest(theta, samples.X)
    if done == 0 and optimum.max_gradient > 0 and not theta.any():
        _warn("the gradient is below tol at the start already: scale the features, or lower tol")
    if optimum.advice:
        advice = optimum.advice.replace(
            f"max_iterations, now {limit}", f"max_iter, now {max_iter}"
        ).replace("l2", "alpha")
        _warn(advice)
    return done


def _warn(advice: str) -> None:
    warnings.warn(f"SoftmaxClassifier: {advice}", ConvergenceWarning, stacklevel=4)


@np.errstate(all="ignore")
def rounded(rows: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return coefficients in another dtype, or raise DivergedError if they do not fit it."""
    found = rows.astype(dtype)
    if not np.isfinite(found).all():
        raise DivergedError(
            f"coefficients: expected numbers that fit {dtype}, got up to {np.abs(rows).max():g}; "
            "scale the features, or give them as float64"
        )
    return found


@np.errstate(all="ignore")
def finite_logits(X: Any, coef: NDArray[Any], intercept: NDArray[Any]) -> NDArray[Any]:
    """Return the logits of rows, or raise InputError if they overflow."""
    logits: NDArray[Any] = X @ coef.T + intercept
    if not np.isfinite(logits).all():
        raise InputError(
            f"X: expected numbers whose logits fit {logits.dtype}, got up to "
            f"{np.abs(X).max():g}; scale the features as those that the model was fitted to"
        )
    return logits


@np.errstate(all="ignore")
def _make_smallest(theta: Floats, X: NDArray[Any]) -> None:
    """Move to the smallest weights that have the same logits on all rows.

    The loss determines no more than these logits. Where features are collinear, or more than rows,
    other weights have them too; a vanishing penalty would choose the smallest.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    if _vary_in_all_directions(centred):
        return
    weights = np.linalg.lstsq(centred, centred @ theta[:, :-1].T, rcond=None)[0].T
    theta[:, -1] += (theta[:, :-1] - weights) @ mean
    theta[:, :-1] = weights


def _vary_in_all_directions(centred: Floats) -> bool:
    """Say whether rows certainly do: for many rows that is known long before their SVD."""
    products = centred.T @ centred
    units = np.sqrt(products.diagonal())
    if not units.all():
        return False
    correlations = products / units / units[:, None]
    np.fill_diagonal(correlations, 1 - COLLINEAR)
    try:
        np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return False
    return True


@np.errstate(all="ignore")
def descend(
    theta: Floats,
    samples: Samples,
    l2: float,
    epochs: Iterable[int],
    batch_size: int,
    rule: Optimiser,
    seed: int,
) -> None:
    """Move ``theta`` by a step of the rule for each batch of each epoch."""
    every_row = np.arange(samples.labels.size)
    loader = DataLoader(samples.X.T, every_row, batch_size, shuffle=True, seed=seed)
    for epoch in epochs:
        for X, rows in loader.batches(epoch):
            weights = samples.weights[rows]
            problem = FullBatch(X, samples.labels[rows], sample_weight=weights, threads=1)
            # A batch counts for what it weighs, or few heavy rows would be lost among many.
            grad = weights.mean() * problem.loss_and_grad(theta).grad
            grad[:, :-1] += l2 * theta[:, :-1]
            rule.update(theta, grad)
        # What the classes have in common changes no probability, and costs a penalty.
        theta -= theta.mean(axis=0)
        if not np.isfinite(theta).all():
            raise DivergedError(
                f"training diverged in epoch {epoch + 1}: expected finite coefficients, got NaN or "
                f"infinities; scale the features, or lower the learning rate ({rule!r})"
            )
