r"""An approximate inverse of the Hessian: that of the blocks on its diagonal.

With :math:`a_j = (s x_j, 1)` and weights :math:`v_j` that sum to 1, it is the inverse of

.. math:: \mathrm{diag}(B_1, \dots, B_k), \qquad
    B_c = \frac{k}{k-1} \sum_j v_j \, \bigl(p_{cj} (1 - p_{cj}) + f\bigr) \, a_j a_j^\top
        + \lambda I_W

on directions that sum to zero over the classes, and of the Hessian itself on those that are the
same for all classes. The second part: such directions change no probability, so there the Hessian
is :math:`\lambda I_W`, and the optimum, where they are 0, is reached at once; the blocks would take
them for steep. The factor of the first: where all p are 1/k, :math:`\mathrm{diag}(p) - p p^\top` is
1/k times the identity on directions that sum to zero, and its diagonal is :math:`(k-1)/k^2`; so the
inverse is exact there, and for two classes at every :math:`\theta`, but for the small f (see
``FLOOR`` in :mod:`npsoftmax.objective.curvature`).

Böhning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical
Mathematics 44(1), 1992, bounds every Hessian by
:math:`\frac12 (I - \mathbf 1 \mathbf 1^\top / k) \otimes A A^\top / n + \lambda I_W`: one block
for all classes and all :math:`\theta`, and less close to any of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError
from npsoftmax.objective._blocks import FEWEST_SAMPLES, MOST_LOGITS, Workspace
from npsoftmax.objective._class_blocks import Solve, class_blocks
from npsoftmax.objective._parts import Parts
from npsoftmax.objective.curvature import block_diagonals

__all__ = ["Solve", "preconditioner_at"]

# Beyond these classes come in blocks themselves.
MOST_CLASSES = MOST_LOGITS // FEWEST_SAMPLES
# A block of more rows takes longer to invert than it saves, and more numbers than these (256 MB in
# float32) are not kept at a time.
MOST_ROWS = 2048
MOST_NUMBERS = 64 * 1024 * 1024
# Blocks are estimated from so many samples at least, or so many for each feature; from more where
# that takes no longer than PASSES passes over all samples, and from all where that is half of
# them. They are drawn from CANDIDATES times as many.
SAMPLES, SAMPLES_PER_FEATURE, PASSES, CANDIDATES = 4096, 4, 10, 16


def preconditioner_at(
    theta: NDArray[Any],
    X: NDArray[Any],
    weights: NDArray[np.float64] | None,
    l2: float,
    scale: float,
    parts: Parts,
) -> Solve:
    """Return the approximate inverse as a function. Nothing is checked."""
    k, rows = theta.shape
    if k > MOST_CLASSES:
        return _identity
    samples, candidates = _how_many(k, rows, X.shape[1])
    weights = np.ones(X.shape[1]) if weights is None else weights
    shares = weights * (k / max(1, k - 1) / weights.sum())
    step = -(-X.shape[1] // candidates)
    some = np.empty((k, len(range(0, X.shape[1], step))), theta.dtype)
    diagonals = _diagonals(theta, X, shares, scale, parts, some if step == 1 else None)
    diagonals[:, :-1] += theta.dtype.type(l2)
    if rows > MOST_ROWS:
        return _centred(_inverse_diagonals(diagonals), diagonals, l2)
    if step > 1:
        X, shares = X[:, ::step], shares[::step] * step
        _diagonals(theta, X, shares, scale, parts, some)
    of_blocks = diagonals
    if k * rows**2 > MOST_NUMBERS:
        some, of_blocks = some.mean(axis=0, keepdims=True), diagonals.mean(axis=0, keepdims=True)
    with parts.one_blas_thread():
        blocks = class_blocks(some, of_blocks, X, samples, scale, parts.threads)
    return _centred(blocks, diagonals, l2)


def _how_many(k: int, rows: int, num_samples: int) -> tuple[int, int]:
    """Return how many samples to estimate a block from, and from how many to draw them."""
    # A pass takes 4 k d operations a sample, the blocks k d^2 for each that is drawn.
    samples = max(SAMPLES, 4 * PASSES * num_samples // rows)
    samples = num_samples if 2 * samples >= num_samples else samples
    samples = max(min(samples, MOST_NUMBERS // (4 * rows)), SAMPLES_PER_FEATURE * rows)
    candidates = min(CANDIDATES * samples, MOST_NUMBERS // k)
    return min(samples, candidates), candidates


def _diagonals(
    theta: NDArray[Any],
    X: NDArray[Any],
    shares: NDArray[np.float64],
    scale: float,
    parts: Parts,
    curvatures: NDArray[Any] | None,
) -> NDArray[Any]:
    """Return the diagonals of the blocks; fill in what each sample adds to each, if asked to."""

    def part(columns: slice, workspace: Workspace) -> NDArray[Any]:
        of_part = None if curvatures is None else curvatures[:, columns]
        return block_diagonals(theta, X[:, columns], shares[columns], scale, workspace, of_part)

    diagonals: NDArray[Any] = np.sum(parts.call(part, X.shape[1]), axis=0)
    if not np.isfinite(diagonals).all():
        raise InputError(
            f"X: expected features whose squares fit {theta.dtype}, got larger ones; divide "
            "them by their standard deviation, or use float64"
        )
    return diagonals


def _inverse_diagonals(diagonals: NDArray[Any]) -> Solve:
    """Return the inverse of the diagonals, for so many features that blocks cost too much."""
    divisors = np.where(diagonals > 0, diagonals, 1).astype(diagonals.dtype)

    def solve(grad: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = grad / divisors
        return result

    return solve


def _centred(solve: Solve, diagonals: NDArray[Any], l2: float) -> Solve:
    """Return the inverse whose first part is ``solve``, between zero sums over the classes."""
    # Where rounding errors of the gradient are larger than the penalty's, the mean stays.
    felt = l2 > np.finfo(diagonals.dtype).eps * diagonals.max()

    @np.errstate(all="ignore")
    def solve_centred(grad: NDArray[Any]) -> NDArray[Any]:
        mean = grad.mean(axis=0)
        direction = solve(grad - mean)
        direction -= direction.mean(axis=0)
        if felt:
            direction[:, :-1] += mean[:-1] / grad.dtype.type(l2)
        return direction

    return solve_centred


def _identity(grad: NDArray[Any]) -> NDArray[Any]:
    return grad
