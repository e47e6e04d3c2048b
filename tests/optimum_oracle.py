"""The optimum of a small softmax problem in extended precision, and exact distances from it.

Nothing of the package is used. Newton's method runs in float64 first and then in ``longdouble``,
in features that are centred and scaled, with an elimination of its own. Classes without samples are
left out: their rows are 0 in the limit, and their probability is 0.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.longdouble]
LD = np.longdouble
EPS = np.finfo(LD).eps
HAS_EXTENDED = EPS < 2e-19  # 80 bits, as x86 has; elsewhere it often is float64


class Problem(NamedTuple):
    """A mean cross-entropy with a penalty for each feature; column j of ``X`` is a sample."""

    X: Any  # (d, n), dense, of any dtype
    y: NDArray[Any]  # (n,)
    k: int
    l2: float
    weights: NDArray[Any] | None = None
    factors: NDArray[Any] | None = None
    scale: float = 1.0

    @property
    def penalties(self) -> Wide:
        """The penalty of each feature: the float64 numbers ``l2 * factor``."""
        factors = np.ones(len(self.X)) if self.factors is None else self.factors
        return (self.l2 * factors).astype(LD)

    @property
    def totals(self) -> Wide:
        """The sum of the weights of each class."""
        weights = np.ones(self.y.size) if self.weights is None else self.weights
        return np.bincount(self.y, weights, minlength=self.k)

    @property
    def present(self) -> NDArray[np.intp]:
        """The classes with samples."""
        return np.flatnonzero(self.totals)


class Exact(NamedTuple):
    """The optimum of a problem, for the classes that have samples.

    Its features are ``a = (s x - mean) / unit`` and 1. ``phi`` are parameters for them.
    """

    problem: Problem
    A: Wide  # (n, d + 1), of samples of positive weight
    v: Wide  # (n,), sums to 1
    y: NDArray[np.intp]  # numbers of the present classes
    mean: Wide
    units: Wide
    phi: Wide  # (k, d + 1)
    step: Wide  # what one more step would change
    value: LD

    def features(self, X: Any) -> Wide:
        """Return the rows of ``A`` of some samples."""
        return extended(X, self.problem.scale, self.mean, self.units)

    def logits(self, X: Any) -> Wide:
        """Return the logits of the present classes, up to a number for each sample."""
        return self.phi @ self.features(X).T

    def uncertainty(self, X: Any) -> Wide:
        """Return how far a difference of two of these logits can be from the truth."""
        A = np.abs(self.features(X)).T
        sizes = np.abs(self.mean / self.units).max(initial=0.0)
        rounding = 16 * EPS * (np.abs(self.phi).max(axis=0) @ (A + sizes))
        return rounding + 4 * (np.abs(self.step).max(axis=0) @ A)

    @property
    def W(self) -> Wide:
        """The weights of the present classes."""
        return self.phi[:, :-1] / self.units

    @property
    def theta(self) -> NDArray[np.float64]:
        """``[W b]`` of all classes, rounded; the bias of a class without samples is -50."""
        theta = np.zeros((self.problem.k, self.phi.shape[1]), LD)
        theta[:, -1] = -50
        b = self.phi[:, -1] - self.W @ self.mean
        theta[self.problem.present] = np.column_stack([self.W, b])
        return theta.astype(np.float64)

    def hessian(self) -> Wide:
        """Return the Hessian in ``phi``, with the bias of the largest class left out."""
        return hessian(self.phi, self.A, self.v, self.scaled_penalties)

    @property
    def scaled_penalties(self) -> Wide:
        """The penalties of ``phi``."""
        return np.append(self.problem.penalties / self.units**2, LD(0))

    def distance(self, theta: NDArray[Any]) -> tuple[LD, LD, LD]:
        """Return ``J - J*`` without cancellation, what is uncertain of its root, and ``|W - W*|``.

        The sum of the divergences from the optimum and of the penalty of the change. It includes
        what classes without samples cost. The norm weighs features by their factors.
        """
        present, problem = self.problem.present, self.problem
        wide = theta.astype(LD)
        rows = wide[present]
        logits = self._logits_of(rows)
        optimal = self.phi @ self.A.T
        D = logits - optimal
        P = softmax(optimal)
        D = D - (P * D).sum(axis=0)
        gap = (self.v * divergences(optimal, D)).sum()
        V = rows[:, :-1] - self.W
        gap += (problem.penalties * V**2).sum() / 2
        absent = np.setdiff1d(np.arange(problem.k), present)
        if absent.size:
            others = self._logits_of(wide[absent])
            top = np.maximum(logits.max(axis=0), others.max(axis=0))
            ratio = np.exp(others - top).sum(axis=0) / np.exp(logits - top).sum(axis=0)
            gap += (self.v * np.log1p(ratio)).sum()
            gap += (problem.penalties * wide[absent, :-1] ** 2).sum() / 2
        factors = problem.penalties / LD(problem.l2)
        square = (factors * V**2).sum() + (factors * wide[absent, :-1] ** 2).sum()
        return gap, self._uncertain_root(rows), np.sqrt(square)

    def change(self, theta: NDArray[Any]) -> Wide:
        """Return how much the logits of the training are above those of the optimum."""
        return self._logits_of(theta.astype(LD)[self.problem.present]) - self.phi @ self.A.T

    def _uncertain_root(self, rows: Wide) -> LD:
        """Return how far ``sqrt(J - J*)`` can be from the truth."""
        changes = 4 * np.abs(self.step)
        logits = (changes @ np.abs(self.A).T).max(axis=0)
        sizes = np.abs(rows[:, :-1]).max(axis=0) @ np.abs(self.mean)
        sizes += np.abs(rows[:, -1]).max() + np.abs(self.phi @ self.A.T).max()
        of_weights = np.sqrt((self.scaled_penalties * changes**2).sum())
        of_weights += 4 * EPS * np.sqrt((self.problem.penalties * rows[:, :-1] ** 2).sum())
        return np.sqrt((self.v * logits**2).sum()) + of_weights + 16 * EPS * sizes

    def _logits_of(self, rows: Wide) -> Wide:
        kept = self.problem.X[:, self._kept].astype(LD)
        return rows[:, :-1] @ kept * LD(self.problem.scale) + rows[:, -1:]

    @property
    def _kept(self) -> NDArray[np.bool_]:
        weights = self.problem.weights
        return np.ones(self.problem.y.size, bool) if weights is None else weights > 0


def extended(X: Any, scale: float, mean: Wide, units: Wide) -> Wide:
    """Return centred and scaled rows with a column of ones."""
    centred = (X.astype(LD) * LD(scale) - mean[:, None]) / units[:, None]
    return np.vstack([centred, np.ones((1, X.shape[1]), LD)]).T


def divergences(logits: Wide, D: Wide) -> Wide:
    """Return ``log sum p exp(D)`` for changes whose mean is 0, without cancellation."""
    P, raised = softmax(logits), logits + D
    is_small = np.abs(D).max(axis=0) < 0.1
    small = np.where(is_small, D, 0)
    rest, term = np.zeros_like(D), small
    for power in range(2, 16):
        term = term * small / power
        rest = rest + term
    far = log_sum(raised) - log_sum(logits)
    return np.where(is_small, np.log1p((P * rest).sum(axis=0)), far)


def log_sum(logits: Wide) -> Wide:
    """Return the logarithm of the sum of exponentials."""
    top = logits.max(axis=0)
    return top + np.log(np.exp(logits - top).sum(axis=0))


def softmax(logits: Any) -> Any:
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def objective(phi: Any, A: Any, v: Any, y: Any, penalties: Any) -> Any:
    logits = phi @ A.T
    numbers = np.arange(y.size)
    with np.errstate(over="ignore"):
        others = np.exp(logits - logits[y, numbers])
        others[y, numbers] = 0
        return (v * np.log1p(others.sum(axis=0))).sum() + (penalties * phi**2).sum() / 2


def hessian(phi: Any, A: Any, v: Any, penalties: Any) -> Any:
    """Return the Hessian; bias of class 0 is held, so the last row and column of it are left."""
    k, columns = phi.shape
    P = softmax(phi @ A.T)
    products = np.einsum("ji,jl->jil", A, A).reshape(len(A), -1)
    curvatures = -(P[:, None] * P[None]) * v
    own = np.arange(k)
    others = P.sum(axis=0) - P
    curvatures[own, own] = P * others * v
    H = (curvatures.reshape(k * k, -1) @ products).reshape(k, k, columns, columns)
    H = H.transpose(0, 2, 1, 3).copy()
    number = np.arange(columns)
    H[own[:, None], number, own[:, None], number] += penalties
    return H.reshape(k * columns, k * columns)


def eliminate(H: Wide, right: Wide) -> Wide:
    """Solve a positive definite system of several right sides, whose diagonal is scaled to 1."""
    roots = np.sqrt(H.diagonal())
    A = np.column_stack([H / roots / roots[:, None], right / roots[:, None]])
    size = len(H)
    for i in range(size - 1):
        A[i + 1 :, i:] -= (A[i + 1 :, i] / A[i, i])[:, None] * A[i, i:]
    found = np.empty_like(right)
    for i in reversed(range(size)):
        found[i] = (A[i, size:] - A[i, i + 1 : size] @ found[i + 1 :]) / A[i, i]
    return found / roots[:, None]


def solve(H: Any, right: Any, columns: int) -> Any:
    """Solve for several right sides, with the bias of class 0 held at 0."""
    kept = np.arange(len(H)) != columns - 1
    reduced = H[np.ix_(kept, kept)]
    found = np.zeros_like(right)
    if H.dtype == LD and (reduced.diagonal() > 0).all():
        found[kept] = eliminate(reduced, right[kept])
    elif H.dtype == LD:
        # The start was so far that probabilities are 0: a step of the gradient, to be halved.
        found[kept] = right[kept] / reduced.diagonal().max()
    else:
        # Far from the optimum, rounding may leave no curvature.
        roots = np.sqrt(reduced.diagonal())
        roots = roots.clip(min=1e-20 * roots.max())
        scaled = reduced / roots / roots[:, None] + 1e-14 * np.eye(len(reduced))
        found[kept] = np.linalg.solve(scaled, right[kept] / roots[:, None]) / roots[:, None]
    return found


def newton(phi: Any, A: Any, v: Any, y: Any, penalties: Any, steps: int) -> tuple[Any, Any]:
    """Return parameters, and the last step, which is not taken."""
    Y = np.eye(len(phi), dtype=A.dtype)[:, y]
    rounding, last = 64 * np.finfo(A.dtype).eps, np.inf
    before = objective(phi, A, v, y, penalties)
    for number in range(steps):
        errors = softmax(phi @ A.T)
        own, samples = y, np.arange(y.size)
        others = errors.copy()
        others[own, samples] = 0
        errors = errors - Y
        errors[own, samples] = -others.sum(axis=0)
        gradient = (errors * v) @ A + penalties * phi
        H = hessian(phi, A, v, penalties)
        step = -solve(H, gradient.reshape(-1, 1), phi.shape[1]).reshape(phi.shape)
        size = np.abs(step @ A.T).max()
        is_small = size < rounding * max(1, np.abs(phi @ A.T).max())
        if is_small or (size < 1e-8 and size > last / 2) or number == steps - 1:
            break
        t = 1.0
        while t > 1e-6:
            after = objective(phi + t * step, A, v, y, penalties)
            if after <= before * (1 + rounding):
                break
            t /= 2
        phi, before, last = phi + t * step, after, size if t == 1 else np.inf
    return phi, step


def optimum(problem: Problem) -> Exact:
    """Return the optimum."""
    kept = np.ones(problem.y.size, bool) if problem.weights is None else problem.weights > 0
    # The largest class comes first: its bias is held.
    present = problem.present
    y = np.searchsorted(present, problem.y[kept])
    weights = np.ones(y.size, LD) if problem.weights is None else problem.weights[kept].astype(LD)
    v = weights / weights.sum()
    X = problem.X[:, kept].astype(LD) * LD(problem.scale)
    mean = X @ v
    X = X - mean[:, None]
    units = np.sqrt(X**2 @ v)
    constant = np.ptp(problem.X[:, kept].astype(np.float64), axis=1) == 0
    X[constant], units[constant | (units == 0)] = 0, 1
    mean[constant] = problem.X[constant, kept.argmax()].astype(LD) * LD(problem.scale)
    A = np.vstack([X / units[:, None], np.ones((1, y.size), LD)]).T
    penalties = np.append(problem.penalties / units**2, LD(0))
    largest = int(np.bincount(y, weights.astype(np.float64)).argmax())
    order = np.r_[largest, np.delete(np.arange(present.size), largest)]
    places = np.argsort(order)
    start = np.zeros((present.size, len(problem.X) + 1))
    near = [array.astype(np.float64) for array in (A, v, penalties)]
    start, _ = newton(start, near[0], near[1], places[y], near[2], 200)
    phi, step = newton(start.astype(LD), A, v, places[y], penalties, 30)
    value = objective(phi, A, v, places[y], penalties)
    return Exact(problem, A, v, y, mean, units, phi[places], step[places], value)


def hardest_direction(exact: Exact, x: Any, first: int, second: int) -> Wide:
    """Return the change of ``phi`` that moves a difference of logits most for a small gap.

    To first order the gap is then half of the change, which is 1 times the returned number.
    """
    k, columns = exact.phi.shape
    h = np.zeros((k, columns), LD)
    a = exact.features(x.reshape(-1, 1))[0]
    h[first], h[second] = a, -a
    H = exact.hessian()
    return solve(H, h.reshape(-1, 1), columns).reshape(k, columns)
