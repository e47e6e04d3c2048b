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

Blocks are estimated from some of the samples (:mod:`npsoftmax.objective.preconditioner`), which adds
a ridge of the estimate's error, m samples drawn of n: :math:`\frac{d+1}{m} (1 - \frac mn)` times
the diagonal.

Böhning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical
Mathematics 44(1), 1992, bounds every Hessian by
:math:`\frac12 (I - \mathbf 1 \mathbf 1^\top / k) \otimes A A^\top / n + \lambda I_W`: one block
for all classes and all :math:`\theta`, and less close to any of them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError
from npsoftmax.functional import affine, softmax
from npsoftmax.objective.hot_loop import (
    BLOCK_BYTES,
    FEWEST_SAMPLES,
    MOST_LOGITS,
    Workspace,
    samples_per_block,
)
from npsoftmax.objective.samples import (
    Draw,
    Samples,
    SampleStore,
    Summary,
    draw_evenly,
    draws_in,
    one_blas_thread,
)

__all__ = [
    "Solve",
    "class_blocks",
    "curvatures_and_diagonals",
    "equal_steps",
    "preconditioner_at",
]


# The blocks on the diagonal of the Hessian, each estimated from a sample of the samples.
#
# With weights :math:`v_j` that sum to 1, block c is :math:`\sum_j u_{cj} a_j a_j^\top` with the
# curvatures :math:`u_{cj} = v_j \frac{k}{k-1} (p_{cj} (1 - p_{cj}) + f)`, and :math:`\lambda` on the
# diagonal, but for the bias. A block costs :math:`m d^2` operations for m samples, and a few thousand
# are enough: they are drawn where :math:`u_{cj}` is large, with a chance :math:`\pi_j` in
# proportion to it, and weigh :math:`1/\pi_j` (Horvitz and Thompson, Journal of the American
# Statistical Association 47, 1952). The draw is systematic, at equal steps of the sum of all chances,
# and so repeatable.

Solve = Callable[[NDArray[Any]], NDArray[Any]]

# f, added to p (1 - p). Where every sample that has a feature is classified with confidence, their
# curvature all but vanishes, and comes back within a fraction of the step that it suggests.
FLOOR = 1e-3

# The smallest triangle that is inverted as a whole.
SMALLEST_TRIANGLE = 64

# Numbers drawn, and in blocks, at a time: they travel where samples lie elsewhere.
AT_ONCE = 8 * 1024 * 1024


def curvatures_and_diagonals(
    theta: NDArray[Any],
    X: NDArray[Any],
    shares: NDArray[np.float64],
    kept: NDArray[np.intp],
    scale: float,
    workspace: Workspace,
) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Return the :math:`u_{cj}` of the kept columns, and the diagonals, of all, without a penalty.

    Shapes ``(k, kept.size)`` and ``(k, d+1)``; ``shares`` are the :math:`v_j`, ``kept`` ascending
    columns of ``X``. Nothing is checked.
    """
    k, dtype = theta.shape[0], theta.dtype
    curvatures = np.empty((k, kept.size), dtype)
    diagonals = np.zeros(theta.shape, dtype)
    step = samples_per_block(theta)
    for start in range(0, shares.size, step):
        columns = slice(start, start + step)
        X_block = workspace.floats(X[:, columns], dtype)
        P = softmax(affine(theta, X_block, scale))
        of_block = (P - P * P + FLOOR) * (shares[columns] * (k / max(1, k - 1)))
        of_block = of_block.astype(dtype, copy=False)
        first, end = np.searchsorted(kept, (start, start + step))
        curvatures[:, first:end] = of_block[:, kept[first:end] - start]
        diagonals[:, :-1] += of_block @ np.square(X_block * dtype.type(scale)).T
        diagonals[:, -1] += of_block.sum(axis=1)
    return curvatures, diagonals


def class_blocks(
    curvatures: NDArray[Any],
    diagonals: NDArray[Any],
    kept: NDArray[np.intp],
    samples: int,
    scale: float,
    store: SampleStore,
) -> Solve:
    """Return the inverse of the blocks, estimated from so many of the kept samples each.

    ``curvatures`` and ``diagonals``, with the penalty, are those of each block; with the means over
    the classes, of one row each, there is one block for all.
    """
    summary, rows = store.summary, store.summary.num_inputs + 1
    # The error of an estimate from some of the samples, in units of the variances.
    ridge = rows / samples * max(0.0, 1 - samples / summary.num_samples)
    factors = np.empty((len(curvatures), rows, rows), curvatures.dtype)
    at_once = max(1, AT_ONCE // (samples + rows**2))
    for first in range(0, len(factors), at_once):
        some = slice(first, first + at_once)
        draws = [_drawn(curvature, kept, samples) for curvature in curvatures[some]]
        blocks = store.map_reduce_draws(partial(_blocks, scale=scale), np.add, draws)
        _factor_all(blocks, diagonals[some], ridge, store.driver_threads, factors[some])

    def solve(grad: NDArray[Any]) -> NDArray[Any]:
        columns = factors.transpose(0, 2, 1) @ (factors @ np.ascontiguousarray(grad)[:, :, None])
        result: NDArray[Any] = np.asfortranarray(columns[:, :, 0])
        return result

    return solve


def _drawn(curvature: NDArray[Any], kept: NDArray[np.intp], samples: int) -> Draw:
    """Draw samples for a class: their places among all, and what they count for, its dtype."""
    drawn, chances = equal_steps(curvature, samples)
    return kept[drawn], np.sqrt(curvature[drawn] / chances).astype(curvature.dtype)


def _blocks(samples: Samples, threads: int, draws: list[Draw], scale: float) -> NDArray[Any]:
    """Return what some samples contribute to a block for each draw."""
    size = samples.X.shape[0] + 1
    blocks = np.empty((len(draws), size, size), draws[0][1].dtype)

    def fill(number: int) -> None:
        places, roots = draws[number]
        blocks[number] = _block(roots, samples.X.T, places - samples.start, scale)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(draws))))
    return blocks


def _block(
    roots: NDArray[Any], X_rows: NDArray[Any], drawn: NDArray[np.intp], scale: float
) -> NDArray[Any]:
    """Return the sum of ``u a a'`` over the samples drawn, ``roots`` squared being the u.

    ``X_rows`` has samples as rows.
    """
    roots, dtype = roots[:, None], roots.dtype
    size = X_rows.shape[1] + 1
    block = np.zeros((size, size), dtype)
    # In cache, from the gathering to the product.
    rows = np.empty((max(256, BLOCK_BYTES // (size * dtype.itemsize)), size), dtype)
    for start in range(0, drawn.size, len(rows)):
        some = slice(start, start + len(rows))
        of_drawn = rows[: drawn[some].size]
        np.multiply(X_rows[drawn[some]], roots[some] * dtype.type(scale), out=of_drawn[:, :-1])
        of_drawn[:, -1:] = roots[some]
        block += of_drawn.T @ of_drawn
    return block


def equal_steps(sizes: NDArray[Any], count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Draw about ``count`` indices, each with a chance in proportion to its size, 1 at most.

    Returns the indices in ascending order, and their chances.

    Examples
    --------
    >>> equal_steps(np.array([1.0, 1.0, 1.0, 1.0, 8.0]), 3)
    (array([1, 3, 4]), array([0.5, 0.5, 1. ]))
    """
    if count >= sizes.size:
        return np.arange(sizes.size), np.ones(sizes.size)
    sizes = sizes.astype(np.float64) if sizes.any() else np.ones(sizes.size)
    rate = count / sizes.sum()
    # What is cut off at 1 goes to the others, of which some may then exceed 1.
    for _ in range(20):
        rate *= count / np.minimum(rate * sizes, 1.0).sum()
    chances = np.minimum(rate * sizes, 1.0)
    steps = np.floor(np.cumsum(chances) + 0.5)
    drawn = np.flatnonzero(np.diff(steps, prepend=0.0) > 0)
    return drawn, chances[drawn]


def _factor_all(
    blocks: NDArray[Any], diagonals: NDArray[Any], ridge: float, threads: int, out: NDArray[Any]
) -> None:
    """Write a factor of the inverse of each block to ``out``."""

    def fill(number: int) -> None:
        out[number] = _factor(blocks[number], diagonals[number], ridge)

    held = one_blas_thread() if threads > 1 else nullcontext()
    with held, ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(out))))


def _factor(block: NDArray[Any], diagonal: NDArray[Any], ridge: float) -> NDArray[Any]:
    """Return F with ``F' F`` the inverse of an estimated block, with a ridge."""
    estimated = np.einsum("ii->i", block)
    # The few samples drawn can miss nearly all of a feature that is rarely other than 0, and the
    # step along it would be too long by orders of magnitude.
    np.maximum(estimated, diagonal, out=estimated)
    units = np.sqrt(np.where(estimated > 0, estimated, 1)).astype(block.dtype)
    block /= units
    block /= units[:, None]
    ridge = max(ridge, len(block) * float(np.finfo(block.dtype).eps))
    while True:
        estimated[:] = 1 + ridge
        try:
            factor = _inverse_of_triangle(np.linalg.cholesky(block))
        except np.linalg.LinAlgError:  # rounding has made it indefinite
            ridge *= 10
        else:
            factor /= units
            return factor


def _inverse_of_triangle(L: NDArray[Any]) -> NDArray[Any]:
    """Invert a lower triangle: of [A 0; B C] it is [A' 0; -C'BA' C'], where A' inverts A."""
    size = len(L)
    inverse = np.zeros_like(L)
    if size <= SMALLEST_TRIANGLE:
        inverse[...] = np.linalg.inv(L)
        return inverse
    half = size // 2
    inverse[:half, :half] = above = _inverse_of_triangle(L[:half, :half])
    inverse[half:, half:] = below = _inverse_of_triangle(L[half:, half:])
    inverse[half:, :half] = -below @ (L[half:, :half] @ above)
    return inverse


# Beyond these classes come in blocks themselves.
MAX_PRECONDITIONED_CLASSES = MOST_LOGITS // FEWEST_SAMPLES
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


def preconditioner_at(theta: NDArray[Any], store: SampleStore, l2: float, scale: float) -> Solve:
    """Return the approximate inverse as a function. Nothing is checked."""
    k, rows = theta.shape
    if k > MAX_PRECONDITIONED_CLASSES:
        return _identity
    num_samples = store.summary.num_samples
    samples, candidates = _how_many(k, rows, num_samples)
    part = partial(
        _curvatures, theta=theta, summary=store.summary, candidates=candidates, scale=scale
    )
    curvatures, diagonals = store.map_reduce(part, _joined)
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
    kept = draw_evenly(num_samples, candidates)
    return _centred(class_blocks(curvatures, diagonals, kept, samples, scale, store), of_mean)


def _curvatures(
    samples: Samples,
    workspace: Workspace,
    theta: NDArray[Any],
    summary: Summary,
    candidates: int,
    scale: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what some samples contribute: curvatures of the candidates among them, diagonals."""
    kept = draw_evenly(summary.num_samples, candidates)
    here = draws_in((kept, kept), samples.start, samples.stop)[0] - samples.start
    shares = samples.shares(summary.total)
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
