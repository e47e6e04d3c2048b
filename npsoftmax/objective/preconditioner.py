r"""An approximate inverse of the Hessian: the blocks on its diagonal, from a sample of the samples.

With :math:`a_j = (s x_j, 1)`, the Hessian's block of class c with itself is

.. math:: \sum_j \frac{w_j}{\bar w} \, p_{cj} (1 - p_{cj}) \, a_j a_j^\top + \lambda I_W .

The preconditioner is the inverse of

.. math:: \mathrm{diag}(B_1, \dots, B_k), \qquad
    B_c = \frac{k}{k-1} \sum_j \frac{w_j}{\bar w} \, p_{cj} (1 - p_{cj}) \, a_j a_j^\top
        + \lambda I_W .

The factor: gradients sum to zero over the classes, but for the penalty. At :math:`\theta = 0` all
p are 1/k, and :math:`\mathrm{diag}(p) - p p^\top` is 1/k times the identity on such directions,
where its diagonal is :math:`(k-1)/k^2`. With the factor the preconditioner inverts the Hessian
there exactly, and for two classes at every :math:`\theta`. (Böhning, "Multinomial logistic
regression algorithm", Annals of the Institute of Statistical Mathematics 44(1), 1992, bounds every
Hessian by :math:`\frac12 (I - \mathbf 1 \mathbf 1^\top / k) \otimes A A^\top / n`: one block
for all classes and all :math:`\theta`, less close to any of them.)

A block costs :math:`m d^2` operations for m samples, and a few thousand are enough: they are drawn
where :math:`w_j p_{cj} (1 - p_{cj})` is large, with a chance :math:`\pi_j` in proportion to it, and
weigh :math:`1/\pi_j` (Horvitz and Thompson, Journal of the American Statistical Association 47,
1952). The draw is systematic, at equal steps of the sum of all chances, and so repeatable.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Preconditioner", "class_blocks", "equal_steps", "inverse_diagonals"]

Preconditioner = Callable[[NDArray[Any]], NDArray[Any]]

# Added to a diagonal of ones: an estimate from a few thousand samples knows no more exactly than
# this in which directions the features hardly vary.
RIDGE = 0.1
# The smallest triangle that is inverted as a whole.
SMALLEST_TRIANGLE = 64


def class_blocks(
    curvatures: NDArray[Any],
    diagonals: NDArray[Any],
    X: NDArray[Any],
    samples: int,
    scale: float,
    threads: int,
) -> Preconditioner:
    """Return the inverse of the blocks, estimated from so many samples each.

    ``curvatures`` holds what the columns of ``X`` are multiplied by in the sum of each block, shape
    ``(k, n)``, and ``diagonals`` the diagonals of the blocks, shape ``(k, d+1)``. With the means
    over the classes, of one row each, there is one block for all.
    """

    def factor(curvature: NDArray[Any], diagonal: NDArray[Any]) -> NDArray[Any]:
        return _factor(_block(curvature, X, samples, scale), diagonal)

    with ThreadPoolExecutor(threads) as pool:
        factors = np.stack(list(pool.map(factor, curvatures, diagonals)))

    def solve(grad: NDArray[Any]) -> NDArray[Any]:
        columns = factors.transpose(0, 2, 1) @ (factors @ np.ascontiguousarray(grad)[:, :, None])
        result: NDArray[Any] = np.asfortranarray(columns[:, :, 0])
        return result

    return solve


def _block(curvature: NDArray[Any], X: NDArray[Any], samples: int, scale: float) -> NDArray[Any]:
    """Return a block without the penalty, estimated from so many samples."""
    drawn, chances = equal_steps(curvature, samples)
    roots = np.sqrt(curvature[drawn] / chances).astype(curvature.dtype)[:, None]
    rows = np.empty((drawn.size, X.shape[0] + 1), curvature.dtype)
    np.multiply(X.T[drawn], roots * curvature.dtype.type(scale), out=rows[:, :-1])
    rows[:, -1:] = roots
    return np.asarray(rows.T @ rows)


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


def _factor(block: NDArray[Any], diagonal: NDArray[Any]) -> NDArray[Any]:
    """Return F with ``F' F`` next to the inverse of an estimated block with its true diagonal."""
    estimated = np.einsum("ii->i", block)
    # The few samples drawn can miss nearly all of a feature that is rarely other than 0, and the
    # step along it would be too long by orders of magnitude.
    np.maximum(estimated, diagonal, out=estimated)
    units = np.sqrt(np.where(estimated > 0, estimated, 1)).astype(block.dtype)
    block /= units
    block /= units[:, None]
    ridge = RIDGE
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


def inverse_diagonals(diagonals: NDArray[Any]) -> Preconditioner:
    """Return the inverse of the diagonals, for so many features that blocks cost too much."""
    divisors = np.where(diagonals > 0, diagonals, 1).astype(diagonals.dtype)

    def solve(grad: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = grad / divisors
        return result

    return solve
