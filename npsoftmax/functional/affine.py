r"""The linear layer ``W X + b`` on columns, with its gradient.

``theta = [W b]`` is one ``(k, d+1)`` array; ``W = theta[:, :-1]`` and ``b = theta[:, -1:]`` are
views of it. The bias is a column of ``theta``, never a row of
ones in ``X``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_array, as_float
from npsoftmax._products import piece_columns
from npsoftmax._sparse import is_sparse, multiply, multiply_back
from npsoftmax.errors import ShapeError

__all__ = ["affine", "affine_grad"]


def affine(
    theta: NDArray[Any], X: NDArray[Any], scale: float = 1.0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    r"""Map the columns of ``X`` to logits.

    .. math:: Z = W (s X) + b \mathbf{1}^\top

    Parameters
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, float32 or float64.
    X : ndarray
        Samples, shape ``(d, n)``, or a sparse array of SciPy. If their dtype is not ``theta``'s
        (``uint8`` pixels), they are converted a block of columns at a time.
    scale : float
        ``s``, which multiplies ``W`` (k x d numbers) instead of ``X`` (d x n numbers).
    out : ndarray, optional
        The array to write ``Z`` to: shape ``(k, n)``, Fortran-ordered, of ``theta``'s dtype.

    Examples
    --------
    >>> theta = np.array([[1.0, 2.0, 10.0]])  # W = [1 2], b = [10]
    >>> affine(theta, np.array([[1.0, 0.0], [0.0, 1.0]]))
    array([[11., 12.]])
    """
    theta, X = as_float(theta, "affine: theta"), _as_samples(X, "affine: X")
    if X.ndim != 2 or theta.ndim != 2 or theta.shape[1] != X.shape[0] + 1:
        raise ShapeError(
            f"affine: expected theta (k, d+1) and X (d, n), got theta {theta.shape} and "
            f"X {X.shape}; samples are the columns of X"
        )
    shape = (theta.shape[0], X.shape[1])
    if out is None:
        out = np.empty(shape, dtype=theta.dtype, order="F")
    elif out.shape != shape:
        raise ShapeError(f"affine: expected out of shape {shape}, got {out.shape}")
    W, b = theta[:, :-1], theta[:, -1:]
    if scale != 1.0:
        W = W * theta.dtype.type(scale)
    if is_sparse(X):
        out[...] = multiply(W, X)
    elif X.dtype == theta.dtype:
        _matmul(W, X, out)
    else:
        _matmul_in_blocks(W, X, out)
    out += b
    return out


def _as_samples(X: Any, name: str) -> Any:
    return X if is_sparse(X) else as_array(X, name)


def _matmul(W: NDArray[Any], X: NDArray[Any], out: NDArray[Any]) -> None:
    """Write ``W X``, in equal pieces of columns where these are faster."""
    k, n = out.shape
    columns = piece_columns(k, X.shape[0], n) or n
    pieces = n // max(1, columns)
    rows, logits = X.T.reshape(pieces, columns, X.shape[0]), out.T.reshape(pieces, columns, k)
    np.matmul(rows, W.T, out=logits)


# 784 x 256 float32 take 0.8 MB, which stays in a second-level cache.
BLOCK_COLUMNS = 256


def _matmul_in_blocks(W: NDArray[Any], X: NDArray[Any], out: NDArray[Any]) -> None:
    num_samples = X.shape[1]
    buffer = np.empty((X.shape[0], min(BLOCK_COLUMNS, num_samples)), dtype=W.dtype, order="F")
    for start in range(0, num_samples, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, num_samples)
        block = buffer[:, : stop - start]
        np.copyto(block, X[:, start:stop], casting="unsafe")
        _matmul(W, block, out[:, start:stop])


def affine_grad(
    dZ: NDArray[Any], X: NDArray[Any], scale: float = 1.0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    r"""Pull the gradient ``dZ`` of :func:`affine`'s output back to ``theta``.

    .. math:: dW = s \, dZ \, X^\top \; (k \times d), \qquad db = dZ \, \mathbf{1} \; (k \times 1)

    From :math:`Z_{ij} = s \sum_l W_{il} X_{lj} + b_i`:
    :math:`\partial Z_{ij} / \partial W_{il} = s X_{lj}` and
    :math:`\partial Z_{ij} / \partial b_i = 1`, summed over the samples ``j``.

    Parameters
    ----------
    dZ : ndarray
        The upstream gradient, shape ``(k, n)``.
    X : ndarray
        The samples, shape ``(d, n)``, of ``dZ``'s dtype, or a sparse array of SciPy.
    scale : float
        ``s`` of :func:`affine`.
    out : ndarray, optional
        The array to write ``[dW db]`` to: shape ``(k, d+1)``, Fortran-ordered.

    Examples
    --------
    >>> affine_grad(np.array([[1.0, 1.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[3., 7., 2.]])
    """
    dZ, X = as_float(dZ, "affine_grad: dZ"), _as_samples(X, "affine_grad: X")
    if dZ.ndim != 2 or X.ndim != 2 or dZ.shape[1] != X.shape[1]:
        raise ShapeError(
            f"affine_grad: expected dZ (k, n) and X (d, n), got dZ {dZ.shape} and X {X.shape}"
        )
    shape = (dZ.shape[0], X.shape[0] + 1)
    if out is None:
        out = np.empty(shape, dtype=dZ.dtype, order="F")
    elif out.shape != shape:
        raise ShapeError(f"affine_grad: expected out of shape {shape}, got {out.shape}")
    if is_sparse(X):
        out[:, :-1] = multiply_back(dZ, X)
    else:
        np.matmul(dZ, X.T, out=out[:, :-1])
    if scale != 1.0:
        out[:, :-1] *= dZ.dtype.type(scale)
    np.add.reduce(dZ, axis=1, out=out[:, -1])
    return out
