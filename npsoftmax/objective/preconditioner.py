r"""An approximate inverse of the Hessian: from the blocks on its diagonal.

With :math:`a_j = (s x_j, 1)` and weights :math:`v_j` that sum to 1, let

.. math:: B = \mathrm{diag}(B_1, \dots, B_k), \qquad
    B_c = \frac{k}{k-1} \sum_j v_j \, \bigl(p_{cj} (1 - p_{cj}) + f\bigr) \, a_j a_j^\top
        + \lambda I_W ,

and :math:`\Pi` the projection on directions that sum to zero over the classes. The approximate
inverse is :math:`\Pi B^{-1} \Pi` there, and :math:`1 / \lambda`, the inverse itself, on directions
that are the same for all classes: these change no probability, so the Hessian is
:math:`\lambda I_W` on them, and the optimum, where they are 0, is reached at once; the blocks would
take them for steep. The factor of B: where all p are 1/k, :math:`\mathrm{diag}(p) - p p^\top` is
1/k times the identity on directions that sum to zero, and its diagonal is :math:`(k-1)/k^2`; so the
inverse is exact there, and for two classes at every :math:`\theta`, but for the small f and what is
said next.

Blocks are estimated from some of the samples (:mod:`npsoftmax.objective._class_blocks`), which adds
a ridge of the estimate's error, m samples drawn of n: :math:`\frac{d+1}{m} (1 - \frac mn)` times
the diagonal.

Böhning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical
Mathematics 44(1), 1992, bounds every Hessian by
:math:`\frac12 (I - \mathbf 1 \mathbf 1^\top / k) \otimes A A^\top / n + \lambda I_W`: one block
for all classes and all :math:`\theta`, and less close to any of them.
"""

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError
from npsoftmax.objective._class_blocks import Solve, class_blocks, curvatures_and_diagonals
from npsoftmax.objective.hot_loop import FEWEST_SAMPLES, MOST_LOGITS, Workspace
from npsoftmax.objective.samples import Contents, Samples, Store

__all__ = ["Solve", "evenly_random", "preconditioner_at"]

# Beyond these classes come in blocks themselves.
MOST_CLASSES = MOST_LOGITS // FEWEST_SAMPLES
# A block of more rows takes longer to invert than it saves, and more numbers than these (256 MB in
# float32) are not kept at a time.
MOST_ROWS = 2048
MOST_NUMBERS = 64 * 1024 * 1024
# Blocks are estimated from so many samples at least, or so many for each feature; from more where
# that takes no longer than PASSES passes over all samples, up to enough, and from all where that is
# half of them. They are drawn from CANDIDATES times as many.
SAMPLES, SAMPLES_PER_FEATURE, PASSES, CANDIDATES = 4096, 4, 10, 16
ENOUGH_NUMBERS, ENOUGH_SAMPLES = 16 * 1024 * 1024, 128 * 1024
# Of candidates no more than these numbers are held where that leaves several times the samples.
MOST_CURVATURES, FEWEST_CANDIDATES = 4 * 1024 * 1024, 4


def preconditioner_at(theta: NDArray[Any], store: Store, l2: float, scale: float) -> Solve:
    """Return the approximate inverse as a function. Nothing is checked."""
    k, rows = theta.shape
    if k > MOST_CLASSES:
        return _identity
    num_samples = store.contents.num_samples
    samples, candidates = _how_many(k, rows, num_samples)
    part = partial(
        _curvatures, theta=theta, contents=store.contents, candidates=candidates, scale=scale
    )
    curvatures, diagonals = store.shared(part, _joined)
    _refuse_overflow(diagonals)
    diagonals[:, :-1] += theta.dtype.type(l2)
    of_mean = _curvature_of_mean(diagonals, l2)
    if rows > MOST_ROWS:
        return _centred(_inverse_diagonals(diagonals), of_mean)
    if k * rows**2 > MOST_NUMBERS:
        curvatures = curvatures.mean(axis=0, keepdims=True)
        diagonals = diagonals.mean(axis=0, keepdims=True)
    # Those kept stand for all.
    curvatures *= theta.dtype.type(num_samples / candidates)
    kept = evenly_random(num_samples, candidates)
    return _centred(class_blocks(curvatures, diagonals, kept, samples, scale, store), of_mean)


def _curvatures(
    samples: Samples,
    workspace: Workspace,
    theta: NDArray[Any],
    contents: Contents,
    candidates: int,
    scale: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what some samples contribute: curvatures of the candidates among them, diagonals."""
    kept = evenly_random(contents.num_samples, candidates)
    here = kept[slice(*np.searchsorted(kept, (samples.start, samples.stop)))] - samples.start
    shares = samples.shares(contents.total)
    return curvatures_and_diagonals(theta, samples.X, shares, here, scale, workspace)


def _joined(
    left: tuple[NDArray[Any], NDArray[Any]], right: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Put the curvatures of samples side by side, and add up the diagonals."""
    return np.concatenate([left[0], right[0]], axis=1), left[1] + right[1]


def _how_many(k: int, rows: int, num_samples: int) -> tuple[int, int]:
    """Return how many samples to estimate a block from, and from how many to draw them."""
    # A pass takes 4 k d operations a sample, the blocks k d^2 for each that is drawn.
    samples = max(SAMPLES, 4 * PASSES * num_samples // rows)
    samples = num_samples if 2 * samples >= num_samples else samples
    samples = min(samples, ENOUGH_NUMBERS // rows, ENOUGH_SAMPLES)
    samples = max(samples, SAMPLES_PER_FEATURE * rows)
    candidates = max(MOST_CURVATURES // k, FEWEST_CANDIDATES * samples)
    candidates = min(CANDIDATES * samples, candidates, MOST_NUMBERS // k, num_samples)
    return min(samples, candidates), candidates


@lru_cache(maxsize=2)  # every part of the samples asks for the same ones
def evenly_random(num_samples: int, count: int) -> NDArray[np.intp]:
    """Return so many of the samples in ascending order, drawn one from each of as many stretches.

    Unlike every so-many-th they are fair to data whose order has a period; the draw is repeatable.

    Examples
    --------
    >>> evenly_random(4, 4), evenly_random(1000, 4)
    (array([0, 1, 2, 3]), array([159, 317, 510, 754]))
    """
    if count >= num_samples:
        drawn = np.arange(num_samples)
    else:
        places = np.arange(count) + np.random.default_rng(0).random(count)
        drawn = (places * (num_samples / count)).astype(np.intp)
    drawn.flags.writeable = False
    return drawn


def _refuse_overflow(diagonals: NDArray[Any]) -> None:
    if not np.isfinite(diagonals).all():
        raise InputError(
            f"X: expected features whose squares fit {diagonals.dtype}, got larger ones; divide "
            "them by their standard deviation, or use float64"
        )


def _inverse_diagonals(diagonals: NDArray[Any]) -> Solve:
    """Return the inverse of the diagonals, for so many features that blocks cost too much."""
    divisors = np.where(diagonals > 0, diagonals, 1).astype(diagonals.dtype)

    def solve(grad: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = grad / divisors
        return result

    return solve


def _curvature_of_mean(diagonals: NDArray[Any], l2: float) -> NDArray[Any]:
    """Return what the mean of each weight over the classes is divided by.

    It is the penalty, or the rounding error of the curvature if that is larger; without a penalty
    the mean has no gradient but rounding errors, and stays.
    """
    errors = float(np.finfo(diagonals.dtype).eps) * diagonals[:, :-1].mean(axis=0)
    return np.maximum(errors, l2) if l2 > 0 else np.full_like(errors, np.inf)


def _centred(solve: Solve, of_mean: NDArray[Any]) -> Solve:
    """Return the inverse whose first part is ``solve``, between zero sums over the classes."""

    @np.errstate(all="ignore")
    def solve_centred(grad: NDArray[Any]) -> NDArray[Any]:
        mean = grad.mean(axis=0)
        direction = solve(grad - mean)
        direction -= direction.mean(axis=0)
        direction[:, :-1] += mean[:-1] / of_mean
        return direction

    return solve_centred


def _identity(grad: NDArray[Any]) -> NDArray[Any]:
    return grad
