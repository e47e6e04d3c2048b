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

**The gap.** J and D are close to each other where the gap is small, so their difference would be
one of rounding errors. As a sum it has no digits to lose:

.. math:: J(W, b) - D(Q) = \sum_j v_j \, \mathrm{KL}(q_j \,\|\, p_j)
    + \frac{1}{2 \lambda} \|G + \lambda W\|_F^2, \qquad
    \mathrm{KL}(q \,\|\, p) = \sum_c q_c \log \frac{q_c}{p_c},

with the probabilities :math:`p_j` at (W, b): the first term is what the loss of a sample is above
:math:`(q_j - y_j)^\top z_j + H(q_j)`, and the second is a completed square. If the weights of the
features differ, it is :math:`\sum_i \|G_i + \lambda_i W_i\|^2 / (2 \lambda_i)`. Where a
:math:`\lambda_i` is 0 there is no bound.

**The gradient.** For :math:`Q = P`, r is the gradient with respect to b, :math:`G + \lambda W` that
with respect to W, and KL is 0. If r = 0, the gap is the bound of strong convexity: the curvature is
at least :math:`\lambda` in W and may be 0 in b.

**Any (W, b).** If r is not 0, :math:`q_j = p_j + (\mathrm{diag}(p_j) - p_j p_j^\top) \, \delta`
makes it 0. This is softmax to first order in a change :math:`\delta` of b: columns still sum to 1,
and r becomes 0 exactly at

.. math:: \delta = -C^+ r, \qquad C = \sum_j v_j \, (\mathrm{diag}(p_j) - p_j p_j^\top).

With :math:`e_{cj} = \delta_c - p_j^\top \delta`, :math:`q_{cj} = p_{cj} (1 + e_{cj})`. Entries stay
positive while :math:`e_{cj} > -1`. A class without samples must have q = 0, so P is computed
without these classes, and the gap is that without them. With them J is larger by their penalty and
:math:`\sum_j v_j \log(1 + A_j / B_j)`, the sums of their probabilities and of all others.

Source: Shalev-Shwartz and Zhang, "Stochastic dual coordinate ascent methods for regularized loss
minimization", Journal of Machine Learning Research 14, 2013, section 1, without a bias.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._sparse import is_sparse, multiply_back
from npsoftmax.functional import affine
from npsoftmax.objective.hot_loop import Workspace, samples_per_block
from npsoftmax.objective.penalty import Penalty, divided_squares, penalty_at
from npsoftmax.objective.samples import Samples, SampleStore, Summary, add

__all__ = [
    "Gap",
    "Moments",
    "cost_of_absent",
    "duality_gap",
    "present_rows",
    "probabilities",
]

Floats = NDArray[np.float64]


class Gap(NamedTuple):
    """``J - D(Q)`` for a Q close to the probabilities, without the classes that have no samples."""

    divergence: float
    square: float
    rest: float  # r' C+ r of the r that rounding errors have left
    loss: float  # mean cross-entropy, without these classes

    @property
    def value(self) -> float:
        """The gap, infinite if no Q was found."""
        value = self.divergence + self.square
        return value if math.isfinite(value) else math.inf


NO_GAP = Gap(math.inf, math.inf, math.inf, 0.0)


def duality_gap(theta: Floats, store: SampleStore, penalty: Penalty, scale: float) -> Gap:
    """Return the gap at ``theta``. Each feature must have a penalty. Nothing is checked."""
    present, rows = present_rows(theta, store.summary)
    shares = store.summary.class_totals[present] / store.summary.total
    moments = partial(_moments, theta=rows, total=store.summary.total, scale=scale)
    total: Moments = store.map_reduce(moments, add)
    delta = _bias_change(total, total.mean - shares)
    if delta is None:
        return NO_GAP
    part = partial(
        _gap_part, theta=rows, present=present, delta=delta, total=store.summary.total, scale=scale
    )
    found = store.map_reduce(part, _add_parts)
    r = found.r
    # The entries sum to 0. That of the largest class has the largest rounding error.
    r[store.summary.class_totals[present].argmax()] -= r.sum()
    remaining = _solve_for_bias(total, r)
    # Q changed by so much more would make r zero.
    if not found.smallest_change - np.ptp(remaining) >= -1:
        return NO_GAP
    square = divided_squares(found.G + penalty * rows[:, :-1], penalty)
    return Gap(found.divergence, square, -float(r @ remaining), found.loss)


def present_rows(theta: Floats, summary: Summary) -> tuple[NDArray[np.intp], Floats]:
    """Return the classes that have samples, and their rows of ``theta``."""
    present = np.flatnonzero(summary.class_totals)
    return present, theta if present.size == len(theta) else np.asfortranarray(theta[present])


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
    for columns, _, P in probabilities(samples, workspace, theta, scale):
        mean += P @ shares[columns]
        P *= np.sqrt(shares[columns])
        products += P @ P.T  # of an array with itself, which takes half of the time
    return Moments(mean, np.diag(mean) - products)


MAX_BIAS_GRADIENT = 1e-12  # rounding errors of r after the change of the bias


def _bias_change(total: Moments, r: Floats) -> Floats | None:
    """Return ``delta``, or None if no change of the bias can make ``r`` zero."""
    try:
        delta = _solve_for_bias(total, r)
    except np.linalg.LinAlgError:
        return None
    remaining = np.abs(total.spread @ delta + r).max()
    return delta if remaining <= MAX_BIAS_GRADIENT else None


TINY = float(np.finfo(np.float64).tiny)
ABOVE_LOWEST = math.nextafter(-1.0, 0.0)  # where q is 0, so that q log (1 + e) is 0 too


def _solve_for_bias(total: Moments, r: Floats) -> Floats:
    """Return ``-C+ r``."""
    # C has the null vector 1, to which r is orthogonal: adding 1 1' makes it invertible.
    solution: Floats = np.linalg.solve(total.spread + 1.0 / r.size, -r).astype(np.float64)
    return solution


class GapPart(NamedTuple):
    """Parts of the divergence, of ``G``, of ``r`` and of the loss, and the smallest ``e``."""

    divergence: float
    G: Floats
    r: Floats
    loss: float
    smallest_change: float


def _gap_part(
    samples: Samples,
    workspace: Workspace,
    theta: Floats,
    present: NDArray[np.intp],
    delta: Floats,
    total: float,
    scale: float,
) -> GapPart:
    """Return the contribution of some samples; row i of ``theta`` is class ``present[i]``."""
    shares = samples.shares(total)
    # A class whose samples all have weight 0 has no row; any other will do for them.
    labels = np.minimum(np.searchsorted(present, samples.y), present.size - 1)
    divergence, loss, smallest_change = 0.0, 0.0, np.inf
    G, r = np.zeros((theta.shape[0], theta.shape[1] - 1)), np.zeros(theta.shape[0])
    for columns, X, P in probabilities(samples, workspace, theta, scale):
        own, numbers = labels[columns], np.arange(P.shape[1])
        # A smaller loss than the true one is of no harm.
        loss -= float(np.log(np.maximum(P[own, numbers], TINY)) @ shares[columns])
        change = (delta - (P.T @ delta)[:, None]).T  # in the order of P
        change[:, shares[columns] == 0] = 0.0  # these samples are not in D
        smallest_change = min(smallest_change, float(change.min()))
        moved = P * change
        Q = np.add(P, moved, out=P)
        logarithms = np.log1p(np.maximum(change, ABOVE_LOWEST, out=change), out=change)
        terms = np.subtract(np.multiply(Q, logarithms, out=change), moved, out=moved)
        divergence += float(terms.sum(axis=0) @ shares[columns])
        # Not 1 less: what is left of it would have fewer digits than the other entries.
        Q[own, numbers] = 0.0
        Q[own, numbers] = -Q.sum(axis=0)
        Q *= shares[columns]
        r += Q.sum(axis=1)
        Q *= scale
        G += multiply_back(Q, X)
    return GapPart(divergence, G, r, loss, smallest_change)


def _add_parts(left: GapPart, right: GapPart) -> GapPart:
    smallest_change = min(left.smallest_change, right.smallest_change)
    sums = add(left, right)
    return sums._replace(smallest_change=smallest_change)


def cost_of_absent(theta: Floats, store: SampleStore, penalty: Penalty, scale: float) -> float:
    """Return how much larger the objective is with the classes that have no samples."""
    present, _ = present_rows(theta, store.summary)
    absent = np.delete(np.arange(len(theta)), present)
    if absent.size == 0:
        return 0.0
    part = partial(
        _cost_part,
        theta=theta,
        present=present,
        absent=absent,
        total=store.summary.total,
        scale=scale,
    )
    loss: float = store.map_reduce(part, operator.add)
    return loss + penalty_at(theta[absent], penalty)


def _cost_part(
    samples: Samples,
    workspace: Workspace,
    theta: Floats,
    present: NDArray[np.intp],
    absent: NDArray[np.intp],
    total: float,
    scale: float,
) -> float:
    """Return the contribution of some samples."""
    shares, cost = samples.shares(total), 0.0
    for columns, _, P in probabilities(samples, workspace, theta, scale):
        ratios = P[absent].sum(axis=0) / P[present].sum(axis=0)
        cost += float(np.log1p(ratios) @ shares[columns])
    return cost


def probabilities(
    samples: Samples, workspace: Workspace, theta: Floats, scale: float
) -> Iterator[tuple[slice, Floats, Floats]]:
    """Yield columns, their samples as floats and their probabilities, one block at a time."""
    step = samples_per_block(theta, is_sparse(samples.X))
    for start in range(0, samples.y.size, step):
        columns = slice(start, start + step)
        X = workspace.floats(samples.columns(columns).X, theta.dtype)
        P = affine(theta, X, scale)
        P -= P.max(axis=0)
        np.exp(P, out=P)  # in float64 the sum needs no compensation
        P /= P.sum(axis=0)
        yield columns, X, P
