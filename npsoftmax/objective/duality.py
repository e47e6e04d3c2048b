r"""A proven bound on the distance of the objective from its minimum.

**The dual.** With the entropy :math:`H(q) = -\sum_c q_c \log q_c`, the loss of a sample is
:math:`\ell(z, y) = \max_q \, (q - y)^\top z + H(q)` over probabilities q, and the maximum is at
:math:`q = \mathrm{softmax}(z)`. So for *any* probabilities Q, one column per sample, and
weights :math:`v_j` that sum to 1,

.. math::

    J(W, b) \;\ge\; \sum_j v_j H(q_j) + \langle G, W \rangle + r^\top b
        + \frac{\lambda}{2} \|W\|_F^2, \qquad
    G = s \sum_j v_j (q_j - y_j) x_j^\top, \quad r = \sum_j v_j (q_j - y_j).

If r = 0, b drops out, the right side is smallest at :math:`W = -G / \lambda`, and

.. math:: \min J \;\ge\; D(Q) = \sum_j v_j H(q_j) - \frac{1}{2 \lambda} \|G\|_F^2 .

If the weights of the features differ, :math:`W_i = -G_i / \lambda_i` in each column, and the last
term is :math:`\sum_i \|G_i\|^2 / (2 \lambda_i)`. Where a :math:`\lambda_i` is 0 there is no bound.

**The gradient.** For :math:`Q = P` at :math:`(W, b)`, r is the gradient with respect to b and
:math:`G = \partial J / \partial W - \lambda W`; if r = 0 then

.. math:: J(W, b) - D(P) = \frac{1}{2 \lambda} \Bigl\| \frac{\partial J}{\partial W} \Bigr\|_F^2,

the bound of strong convexity: the curvature is at least :math:`\lambda` in W and may be 0 in b.

**Any (W, b).** If r is not 0, :math:`q_j = p_j + (\mathrm{diag}(p_j) - p_j p_j^\top) \, \delta`
makes it 0. This is softmax to first order in a change :math:`\delta` of b: columns still sum to 1,
and r becomes 0 exactly at

.. math:: \delta = -C^+ r, \qquad C = \sum_j v_j \, (\mathrm{diag}(p_j) - p_j p_j^\top).

Entries stay positive while :math:`\delta_c - p_j^\top \delta > -1`. A class without samples must
have q = 0, so P is computed without these classes.

Source: Shalev-Shwartz and Zhang, "Stochastic dual coordinate ascent methods for regularized loss
minimization", Journal of Machine Learning Research 14, 2013, section 1, without a bias.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._sparse import is_sparse, multiply_back
from npsoftmax.functional import affine, softmax
from npsoftmax.objective.hot_loop import Workspace, samples_per_block
from npsoftmax.objective.penalty import Penalty, divided_squares
from npsoftmax.objective.samples import Samples, SampleStore, add

__all__ = ["dual_value"]

Floats = NDArray[np.float64]


def dual_value(theta: Floats, store: SampleStore, penalty: Penalty, scale: float) -> float:
    """Return ``D(Q)`` for a Q close to the probabilities at ``theta``, or -inf if none is found.

    Each feature must have a penalty. Nothing is checked.
    """
    summary = store.summary
    present = np.flatnonzero(summary.class_totals)
    rows = theta if present.size == len(theta) else np.asfortranarray(theta[present])
    moments = partial(_moments, theta=rows, total=summary.total, scale=scale)
    total = store.map_reduce(moments, add)
    delta = _bias_change(total, total.mean - summary.class_totals[present] / summary.total)
    if delta is None:
        return -np.inf
    part = partial(
        _dual_part, theta=rows, present=present, delta=delta, total=summary.total, scale=scale
    )
    entropy, G, min_factor = store.map_reduce(part, _add_parts)
    if min_factor < 0:
        return -np.inf
    value = entropy - divided_squares(G, penalty)
    return value if math.isfinite(value) else -np.inf


class Moments(NamedTuple):
    """The weighted means of ``p_j`` and of ``diag(p_j) - p_j p_j'``, or parts of them."""

    mean: Floats
    spread: Floats


def _moments(
    samples: Samples, workspace: Workspace, theta: Floats, total: float, scale: float
) -> Moments:
    """Return the contribution of some samples."""
    k, shares = theta.shape[0], samples.shares(total)
    mean, products = np.zeros(k), np.zeros((k, k))
    for columns, _, P in _probabilities(samples, workspace, theta, scale):
        weighted = P * shares[columns]
        mean += weighted.sum(axis=1)
        products += weighted @ P.T
    return Moments(mean, np.diag(mean) - products)


MAX_BIAS_GRADIENT = 1e-12  # rounding errors of r after the change of the bias


def _bias_change(total: Moments, r: Floats) -> Floats | None:
    """Return ``delta``, or None if no change of the bias can make ``r`` zero."""
    # C has the null vector 1, to which r is orthogonal: adding 1 1' makes it invertible.
    try:
        delta: Floats = np.linalg.solve(total.spread + 1.0 / r.size, -r).astype(np.float64)
    except np.linalg.LinAlgError:
        return None
    remaining = np.abs(total.spread @ delta + r).max()
    return delta if remaining <= MAX_BIAS_GRADIENT else None


class DualPart(NamedTuple):
    """Parts of the entropy and of ``G``, and their smallest factor ``1 + delta_c - p_j' delta``."""

    entropy: float
    G: Floats
    min_factor: float


def _dual_part(
    samples: Samples,
    workspace: Workspace,
    theta: Floats,
    present: NDArray[np.intp],
    delta: Floats,
    total: float,
    scale: float,
) -> DualPart:
    """Return the contribution of some samples; row i of ``theta`` is class ``present[i]``."""
    shares = samples.shares(total)
    # A class whose samples all have weight 0 has no row; any other will do for them.
    labels = np.minimum(np.searchsorted(present, samples.y), present.size - 1)
    entropy, min_factor = 0.0, np.inf
    G: Floats | None = None
    for columns, X, P in _probabilities(samples, workspace, theta, scale):
        factors = 1.0 + delta[:, None] - delta @ P
        min_factor = min(min_factor, float(factors.min()))
        Q = P * factors
        logarithms = np.log(Q, out=np.zeros_like(Q), where=Q > 0)
        entropy -= float((Q * logarithms).sum(axis=0) @ shares[columns])
        Q[labels[columns], np.arange(Q.shape[1])] -= 1.0
        Q *= shares[columns] * scale
        part = multiply_back(Q, X)
        G = part if G is None else np.add(G, part, out=G)
    if G is None:  # there are no samples here
        G = np.zeros((theta.shape[0], theta.shape[1] - 1))
    return DualPart(entropy, G, min_factor)


def _add_parts(left: DualPart, right: DualPart) -> DualPart:
    min_factor = min(left.min_factor, right.min_factor)
    return DualPart(left.entropy + right.entropy, left.G + right.G, min_factor)


def _probabilities(
    samples: Samples, workspace: Workspace, theta: Floats, scale: float
) -> Iterator[tuple[slice, Floats, Floats]]:
    """Yield columns, their samples as floats and their probabilities, one block at a time."""
    step = samples_per_block(theta, is_sparse(samples.X))
    for start in range(0, samples.y.size, step):
        columns = slice(start, start + step)
        X = workspace.floats(samples.columns(columns).X, theta.dtype)
        yield columns, X, softmax(affine(theta, X, scale))
