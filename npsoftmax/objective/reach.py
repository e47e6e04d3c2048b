r"""How far the logits of any sample can be from those of the exact optimum.

Let :math:`\theta = (W, b)` have a proved gap :math:`g \ge J(\theta) - J(\theta^*)`, and let
:math:`V = W - W^*`, :math:`\beta = b - b^*` and :math:`D_j = s V x_j + \beta`, the changes of the
logits of sample j. With weights :math:`v_j` that sum to 1 and all :math:`\lambda_i > 0`:

**The weights.** J is minimal at :math:`\theta^*`, so its gradient is 0 there, and

.. math:: g \;\ge\; J(\theta) - J(\theta^*) = \sum_j v_j \, \mathrm{KL}(p^*_j \,\|\, p_j)
    + \frac12 \sum_i \lambda_i \|V_i\|^2 .

So :math:`\|W - W^*\|_F \le \sqrt{2 g / \lambda}`, whatever b is. In units of the penalty,
:math:`u_j = s x_j / \sqrt \lambda` for the samples and :math:`\sqrt \lambda V` for the weights,
:math:`\lambda` is 1.

**The curvature.** With :math:`S_j = \mathrm{diag}(p_j) - p_j p_j^\top` at :math:`\theta`, the
divergence is :math:`\int_0^1 (1 - t) \varphi''(t) \, dt`, where :math:`\varphi` is the log-sum-exp
on the way from :math:`\theta^*` to :math:`\theta`. Its second derivative is a variance over the
classes, and its third a third moment, at most the range of :math:`D_j` times the variance. So if
the range is at most M,

.. math:: \mathrm{KL}(p^*_j \,\|\, p_j) \;\ge\; \xi(M) \, D_j^\top S_j D_j, \qquad
    \xi(M) = \int_0^1 (1 - t) e^{-M (1 - t)} dt = \frac{1 - (1 + M) e^{-M}}{M^2} \le \frac12 .

**A pair of classes.** The logits of classes a and c of a sample u differ by
:math:`h^\top (V, \beta)` more than at the optimum, with :math:`h = (e_a - e_c) (u, 1)^\top`. For
any vectors :math:`q_j` with :math:`\sum_j q_j = e_a - e_c` whose entries sum to 0,

.. math:: h^\top (V, \beta) = \langle H, V \rangle + \sum_j q_j^\top D_j, \qquad
    H = (e_a - e_c) u^\top - \sum_j q_j u_j^\top ,

and by the inequality of Cauchy and Schwarz

.. math:: |h^\top (V, \beta)|^2 \;\le\; 2 g \, \Bigl( \|H\|_F^2 + \frac{c}{2 \xi(M)} \Bigr), \qquad
    c = \sum_j q_j^\top (v_j S_j)^+ q_j .

So the samples hold the bias in place: :math:`q_j` is what sample j carries of the difference.

**Which** :math:`q_j`. With a number :math:`w_l` for each class,
:math:`q_j = v_j w_{y_j} S_j e_{y_j} = v_j w_{y_j} p_{y_j} (e_{y_j} - p_j)` costs
:math:`c = \sum_l w_l^2 K_{ll}`, where column l of K is the sum of :math:`v_j S_j e_l` over the
samples of class l, and w solves :math:`K w = e_a - e_c`. Let
:math:`M_a = \sum_j q_j (u_j - \bar u)^\top` for :math:`K w = e_a - \mathbf 1 / k`,
:math:`\mu_a` its row a, and :math:`F_a` the length of the other rows. Then, with u less the mean
:math:`\bar u`,

.. math:: \|H\|_F \;\le\; \sqrt{\|u - \mu_a\|^2 + \|u - \mu_c\|^2} + F_a + F_c .

**The range.** The largest such bound for the samples of the training and all pairs is a bound for
M. With A the largest :math:`\|H\|_F^2` and C the largest c, :math:`M^2 \le 2 g A + g C / \xi(M)`.
With :math:`E = 1 - (1 + M) e^{-M}` this is :math:`M^2 (1 - g C / E) \le 2 g A`. E grows with M, and
so does the left side where it is positive: the largest M that satisfies this is a single root, or
infinite if :math:`g C \ge 1`.

Sources: Bach, "Self-concordant analysis for logistic regression", Electronic Journal of Statistics
4, 2010, section 2; Shalev-Shwartz and Zhang as in :mod:`npsoftmax.objective.duality`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._sparse import is_sparse, multiply, multiply_back, square
from npsoftmax.objective.duality import Gap, probabilities
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.penalty import Penalty
from npsoftmax.objective.samples import Samples

__all__ = ["EPS", "SLACK", "Reach", "Units", "reach_of"]

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]

# Numbers in an array of one matrix for each class; there are two of them.
MAX_NUMBERS = 4 * 1024 * 1024
# Rounding errors of a sum, and of a bound relative to its size.
EPS, SLACK = 32 * float(np.finfo(np.float64).eps), 1e-6


class Units(NamedTuple):
    """What turns samples into features ``u``, in units of the penalty."""

    factors: Floats  # s / sqrt(lambda_i), shape (d,)
    mean: Floats  # of u, shape (d,)

    def squared_distances(self, X: Any, points: Floats) -> Floats:
        """Return ``|u - mean - point|^2`` for each row of ``points`` and each column of ``X``."""
        if is_sparse(X):
            U, places = X.multiply(self.factors[:, None]).tocsc(), points + self.mean
            lengths = square(U).sum(axis=0)
        else:
            U, places = X * self.factors[:, None] - self.mean[:, None], points
            lengths = np.einsum("ij,ij->j", U, U)
        products = multiply(places, U) if is_sparse(U) else places @ U
        sums = lengths + np.einsum("ij,ij->i", places, places)[:, None]
        # The difference of the two may be one of rounding errors.
        distances: Floats = np.maximum(sums - 2 * products, 0.0) + EPS * sums
        return distances


class Reach(NamedTuple):
    """How far the logits of the ``k`` classes that have samples can change."""

    gap: float
    units: Units
    centres: Floats  # mu, shape (k, d)
    spreads: Floats  # F, shape (k,)
    resistances: Floats  # c, shape (k, k)
    inflation: float  # 1 / (2 xi(M))

    def changes(self, X: Any, labels: Labels) -> Floats:
        """Bound the changes of the logits of ``labels`` less those of each class.

        Shape ``(k, n)``: by so much the differences can be other than at the optimum.
        """
        squares = self.units.squared_distances(X, self.centres)
        own = squares[labels, np.arange(labels.size)]
        lengths = np.sqrt(squares + own) + self.spreads[:, None] + self.spreads[labels]
        costs = lengths**2 + self.inflation * self.resistances[:, labels]
        bounds: Floats = (1 + SLACK) * np.sqrt(2 * self.gap * costs)
        return bounds


def reach_of(rows: Floats, samples: Samples, penalty: Penalty, scale: float, gap: Gap) -> Reach:
    """Return the reach at ``rows`` of ``theta``, of classes that all have samples.

    The labels number these classes. All samples have a positive weight. Nothing is checked.
    """
    k, d = rows.shape[0], rows.shape[1] - 1
    factors = np.broadcast_to(scale / np.sqrt(penalty), d).astype(np.float64)
    order = np.argsort(samples.y, kind="stable")
    starts = np.searchsorted(samples.y[order], np.arange(k))
    carried, mean, mean_square = _carry(rows, samples, scale, factors)
    carried = carried[:, order]
    K = np.add.reduceat(carried, starts, axis=1)
    W = rows[:, :-1] * (scale / factors)
    g = _with_rounding(gap, W, rows[:, -1], math.sqrt(mean_square))
    units = Units(factors, mean)
    centres, spreads = np.zeros((k, d)), np.zeros(k)
    weights, resistances = _weights(K)
    if weights is None:
        return Reach(g, units, centres, spreads, resistances, math.inf)
    _add_up(weights, K, carried, order, starts, samples, units, centres, spreads)
    reach = Reach(g, units, centres, spreads, resistances, math.inf)
    return reach._replace(inflation=_inflation(reach, samples))


def _carry(
    rows: Floats, samples: Samples, scale: float, factors: Floats
) -> tuple[Floats, Floats, float]:
    """Return ``v S e_y`` of each sample, ``(k, n)``, the mean of u, and that of its square."""
    shares = samples.shares(1.0 if samples.weights is None else float(samples.weights.sum()))
    if samples.weights is None:
        shares = shares / shares.size
    carried = np.empty((rows.shape[0], shares.size), order="F")
    mean, mean_square = np.zeros(factors.size), 0.0
    for columns, X, P in probabilities(samples, Workspace(), rows, scale):
        own, numbers = samples.y[columns], np.arange(P.shape[1])
        weights = P[own, numbers] * shares[columns]
        P[own, numbers] = 0.0
        others = P.sum(axis=0)
        P *= -weights
        P[own, numbers] = weights * others
        carried[:, columns] = P
        mean += multiply_back(shares[None, columns], X)[0]
        mean_square += float(multiply_back(shares[None, columns], square(X))[0] @ factors**2)
    return carried, mean * factors, mean_square


def _weights(K: Floats) -> tuple[Floats | None, Floats]:
    """Return w of each class as a column, or None if rounding hides them, and the resistances."""
    k, own = len(K), np.einsum("ii->i", K)
    infinite = np.full((k, k), math.inf)
    if k == 1:
        return np.zeros((1, 1)), np.zeros((1, 1))
    if not (own > 0).all():
        return None, infinite
    # The sum over the classes is 0 in each column; adding a row of ones makes it invertible.
    wanted = np.eye(k) - 1 / k
    try:
        scaled: Floats = np.linalg.solve(K / own + 1 / k, wanted)
    except np.linalg.LinAlgError:
        return None, infinite
    weights = scaled / own[:, None]
    # Of a class that is held loosely, w is huge, and only the differences are not.
    resistances = np.array([own @ (weights - column[:, None]) ** 2 for column in weights.T])
    error = np.abs(K / own @ scaled - wanted).max()
    smallest = resistances[~np.eye(k, dtype=bool)].min()
    # The error moves the bias, at most as far as that of the class that is held most loosely.
    is_solved = k * error * math.sqrt(resistances.max()) <= SLACK * math.sqrt(smallest)
    return (weights, resistances) if is_solved else (None, infinite)


def _add_up(
    weights: Floats,
    K: Floats,
    carried: Floats,
    order: Labels,
    starts: Labels,
    samples: Samples,
    units: Units,
    centres: Floats,
    spreads: Floats,
) -> None:
    """Fill ``centres`` and ``spreads``, some features at a time."""
    k, d = centres.shape
    step = max(1, MAX_NUMBERS // k**2)
    X: Any = samples.X
    X = X.tocsr() if is_sparse(X) else X
    own = np.arange(k)
    for start in range(0, d, step):
        part = slice(start, min(start + step, d))
        X_part = X[part].tocsc() if is_sparse(X) else X[part]
        sums = np.empty((k, k, part.stop - part.start))
        for label, group in enumerate(np.split(np.arange(order.size), starts[1:])):
            U = X_part[:, order[group]].astype(np.float64)
            sums[label] = multiply_back(carried[:, group], U) * units.factors[part]
            sums[label] -= K[:, label, None] * units.mean[part]
        M = np.tensordot(weights, sums, (0, 0))
        centres[:, part] = M[own, own]
        M[own, own] = 0.0
        spreads += np.einsum("abi,abi->a", M, M)
    np.sqrt(spreads, out=spreads)


def _with_rounding(gap: Gap, W: Floats, b: Floats, length: float) -> float:
    """Return the gap with rounding errors, for weights and samples in units of the penalty."""
    logits = float(np.sqrt(np.einsum("ij,ij->i", W, W).max())) * length + float(np.abs(b).max())
    of_gradient = EPS * ((1 + logits) * (1 + length) + float(np.linalg.norm(W)))
    of_bias = math.sqrt(max(0.0, gap.rest)) * (1 + length)
    return (1 + SLACK) * (math.sqrt(max(0.0, gap.value)) + of_bias + of_gradient) ** 2


def _inflation(reach: Reach, samples: Samples) -> float:
    """Return ``1 / (2 xi(M))``."""
    farthest, step = 0.0, max(1, MAX_NUMBERS // sum(reach.centres.shape))
    for start in range(0, samples.y.size, step):
        X = samples.columns(slice(start, start + step)).X
        squares = reach.units.squared_distances(X, reach.centres)
        farthest = max(farthest, float(squares.max()))
    length = math.sqrt(2 * farthest) + 2 * float(reach.spreads.max())
    limit = _largest_range(reach.gap, length**2, float(reach.resistances.max()))
    return math.inf if math.isinf(limit) else 1 / (2 * _xi(limit))


def _largest_range(g: float, A: float, C: float) -> float:
    """Return the largest M with ``M^2 <= 2 g A + g C / xi(M)``."""
    if not g * C < 1:
        return math.inf
    high = 1.0
    while high**2 <= 2 * g * A + g * C / _xi(high):
        high *= 2
    low = 0.0
    while high - low > SLACK * high:
        middle = (low + high) / 2
        if middle**2 <= 2 * g * A + g * C / _xi(middle):
            low = middle
        else:
            high = middle
    return high


def _xi(M: float) -> float:
    """Return ``(1 - (1 + M) exp(-M)) / M^2``."""
    if M < 1e-3:
        return 0.5 - M / 3 + M**2 / 8 - M**3 / 30
    return (-math.expm1(-M) - M * math.exp(-M)) / M**2
