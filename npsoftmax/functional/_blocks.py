"""Any array as a matrix with its classes along axis 0, read and written in blocks of columns.

A block is small enough for its float64 copy and the few arrays beside it to stay in cache.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_matrix", "by_blocks"]

# 768 kB of float64 an array. With fewer the cost of a call shows, with more nothing is gained:
# benchmarks/softmax.py compares sizes.
BLOCK_ELEMENTS = 96 * 1024


def as_matrix(x: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return ``x`` with ``axes`` as its rows and all others as its columns; a view for a batch."""
    if x.ndim == 2 and axes == (0,):
        return x
    others = (a for a in range(x.ndim) if a not in axes)
    rows = math.prod(x.shape[a] for a in axes)
    matrix: NDArray[Any] = x.transpose(*axes, *others).reshape(rows, x.size // rows)
    return matrix


def by_blocks(
    kernel: Callable[..., None],
    x: NDArray[Any],
    axes: tuple[int, ...],
    out: NDArray[Any] | None,
    *beside: NDArray[Any],
) -> None:
    """Call ``kernel(x, out, *beside)`` on each block of columns; ``out`` None stays None.

    ``beside`` holds what goes with the columns: its last axis counts them.
    """
    if out is not None:
        # A block that is written must not be one that is still to be read.
        if out is not x and np.may_share_memory(x, out):
            x = x.copy()
        beside = tuple(a.copy() if np.may_share_memory(a, out) else a for a in beside)
    source = as_matrix(x, axes)
    target = None if out is None else as_matrix(out, axes)
    if 0 < source.size <= BLOCK_ELEMENTS:
        kernel(source, target, *beside)
    else:
        step = max(1, BLOCK_ELEMENTS // source.shape[0])
        for start in range(0, source.shape[1], step):
            columns = slice(start, start + step)
            block_out = None if target is None else target[:, columns]
            kernel(source[:, columns], block_out, *[array[..., columns] for array in beside])
    if target is None or target is out or out is None:
        return
    if not np.may_share_memory(target, out):
        order = (*axes, *(a for a in range(out.ndim) if a not in axes))
        in_order = target.reshape([out.shape[a] for a in order])
        out[...] = in_order.transpose(np.argsort(order))
