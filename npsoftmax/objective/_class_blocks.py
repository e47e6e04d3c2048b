r"""The blocks on the diagonal of the Hessian, each estimated from a sample of the samples.

With weights :math:`v_j` that sum to 1, block c is :math:`\sum_j u_{cj} a_j a_j^\top` with the
curvatures :math:`u_{cj} = v_j \frac{k}{k-1} (p_{cj} (1 - p_{cj}) + f)`, and :math:`\lambda` on the
diagonal, but for the bias. A block costs :math:`m d^2` operations for m samples, and a few thousand
are enough: they are drawn where :math:`u_{cj}` is large, with a chance :math:`\pi_j` in
proportion to it, and weigh :math:`1/\pi_j` (Horvitz and Thompson, Journal of the American
Statistical Association 47, 1952). The draw is systematic, at equal steps of the sum of all chances,
and so repeatable.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.functional import affine, softmax
from npsoftmax.objective.hot_loop import BLOCK_BYTES, Workspace, samples_per_block
from npsoftmax.objective.samples import Draw, Samples, Store, one_blas_thread

__all__ = ["Solve", "class_blocks", "curvatures_and_diagonals", "equal_steps"]

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
    store: Store,
) -> Solve:
    """Return the inverse of the blocks, estimated from so many of the kept samples each.

    ``curvatures`` and ``diagonals``, with the penalty, are those of each block; with the means over
    the classes, of one row each, there is one block for all.
    """
    contents, rows = store.contents, store.contents.num_inputs + 1
    # The error of an estimate from some of the samples, in units of the variances.
    ridge = rows / samples * max(0.0, 1 - samples / contents.num_samples)
    factors = np.empty((len(curvatures), rows, rows), curvatures.dtype)
    at_once = max(1, AT_ONCE // (samples + rows**2))
    for first in range(0, len(factors), at_once):
        some = slice(first, first + at_once)
        draws = [_drawn(curvature, kept, samples) for curvature in curvatures[some]]
        blocks = store.together(partial(_blocks, scale=scale), np.add, draws)
        _factor_all(blocks, diagonals[some], ridge, store.threads_here, factors[some])

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
