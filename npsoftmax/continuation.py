r"""The optima of one objective for falling penalties, each fit begun where the last ones point.

With the optimum as a function of :math:`u = \log \lambda`, the fit at :math:`u_2` begins at

.. math:: \theta_1 + \frac{u_2 - u_1}{u_1 - u_0} (\theta_1 - \theta_0),

unless the last optimum :math:`\theta_1` has a lower objective. It takes over

- the memory of L-BFGS. A change of the gradient along a step s was :math:`y = \bar H s + \lambda
  s_W` with the mean Hessian :math:`\bar H` of the losses, which does not depend on
  :math:`\lambda`. So :math:`y + (\lambda' - \lambda) s_W` is the change for :math:`\lambda'`,
- the preconditioner. It is made again when the passes beyond the few that a good one needs have
  cost as much as another one would: at most twice what the best moments would have cost.

A fit ends when :meth:`npsoftmax.objective.FullBatch.suboptimality` proves the gap. That takes as
long as a few passes, so it is asked when the gradient suggests it. Everything that decides depends
on numbers of passes and not on seconds, so that a path is repeatable.

Source: Allgower and Georg, "Numerical Continuation Methods", 1990, chapter 2 (secant predictors).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax.lbfgs import Reason
from npsoftmax.objective import FullBatch
from npsoftmax.objective.penalty import divided_squares, penalty_at
from npsoftmax.objective.preconditioner import MAX_PRECONDITIONED_CLASSES, Solve
from npsoftmax.optimum import begin
from npsoftmax.solver import Solver

__all__ = ["Fitted", "Follower", "Preconditioner"]

Pairs = list[tuple[NDArray[Any], NDArray[Any]]]

# Passes of a fit that follows others, with a good preconditioner.
FEW_PASSES = 4
# In the span of the samples a smaller gap takes a smaller gradient, down to that of rounding.
FIRST_TOL, LAST_TOL = 1e-5, 1e-13
# Between the gap that is proved and the one that the gradient suggests.
MIN_RATIO, MAX_RATIO = 0.5, 100.0


class Optimum(NamedTuple):
    """The optimum at a penalty, without which its mean loss is ``crossentropy``."""

    l2: float
    theta: NDArray[Any]
    crossentropy: float


class Fitted(NamedTuple):
    """What a fit has found."""

    theta: NDArray[Any]
    objective: float
    crossentropy: float  # without the penalty
    bound: float  # on the distance from the smallest objective
    evaluations: int
    reason: Reason


class Preconditioner:
    """The preconditioner that several fits share, made of all samples."""

    def __init__(self, problem: FullBatch) -> None:
        self._problem = problem
        self.l2 = 0.0  # that it was made for
        self.anchor: NDArray[Any] | None = None  # the point that it was made at
        self.excess = 0  # passes beyond those with a good one, since then
        self._solve: Solve | None = None

    def renew(self, l2: float, theta: NDArray[Any]) -> None:
        """Make it again, here, if the last one has cost as much by now."""
        choice = self._problem.with_l2(l2).choose_preconditioner(len(theta))
        if self.anchor is not None and self.excess >= choice.cost:
            self._place(l2, theta)

    def at(self, l2: float, theta: NDArray[Any]) -> Solve:
        """Return it; if there is none, it is made here."""
        if self.anchor is None:
            self._place(l2, theta)
        if self._solve is None:
            self._solve = self._problem.with_l2(self.l2).preconditioner(np.asarray(self.anchor))
        return self._solve

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the state as arrays and as what JSON can hold; it is made again from them."""
        arrays = {} if self.anchor is None else {"anchor": self.anchor}
        return arrays, {"l2": self.l2, "excess": self.excess}

    def unpack(self, arrays: Mapping[str, NDArray[Any]], state: Any) -> None:
        """Take over what :meth:`pack` returned."""
        self.anchor, self._solve = arrays.get("anchor"), None
        self.l2, self.excess = float(state["l2"]), int(state["excess"])

    def _place(self, l2: float, theta: NDArray[Any]) -> None:
        self.l2, self.anchor, self.excess, self._solve = l2, theta, 0, None


class GapSolver(Solver):
    """The minimisation of an objective, until the gap is at most ``gap`` times the objective.

    Newton's method goes on until no logit changes, as it does without.
    """

    def __init__(
        self,
        problem: FullBatch,
        k: int,
        tol: float,
        gap: float,
        shared: Preconditioner,
        ratio: float,
    ) -> None:
        super().__init__(problem, k, tol)
        self.gap, self.ratio, self._shared = gap, ratio, shared
        self._is_provable = problem.least_penalty > 0 and k <= MAX_PRECONDITIONED_CLASSES
        self._proved: tuple[NDArray[Any], float] | None = None

    @property
    def is_in_span(self) -> bool:
        """Whether the problem is solved in the span of the samples."""
        return self._inner is not None

    @property
    def _looks_at_gap(self) -> bool:
        return self._is_provable and self._inner is None and self._newton is None

    def _precondition(self, theta: NDArray[Any]) -> Solve:
        return self._shared.at(self.problem.l2, theta)

    def _is_plain(self, state: lbfgs.State) -> bool:
        passes = state.history[-1].evaluations + self._shared.excess
        return state.anchor is None and passes < self.passes_without

    def end(self, state: lbfgs.State) -> Reason | None:
        """Return the reason to stop at the newest state, if there is one."""
        if not self._looks_at_gap:
            return super().end(state)
        estimate = self._estimate(state)
        if not estimate * self.ratio <= self.gap * state.value:
            return None
        bound = self.bound(state)
        if estimate > 0:
            self.ratio = min(max(bound / estimate, MIN_RATIO), MAX_RATIO)
        return "converged" if self.is_close(state) else None

    def end_without_descent(self, state: lbfgs.State) -> Reason:
        """Return the reason to stop after the last state."""
        if self._looks_at_gap:
            return "converged" if self.is_close(state) else "rounding"
        return super().end_without_descent(state)

    def is_close(self, state: lbfgs.State) -> bool:
        """Whether the gap is proved, if it can be."""
        return not self._is_provable or self.bound(state) <= self.gap * state.value

    def bound(self, state: lbfgs.State) -> float:
        """Return the bound on the distance from the smallest objective; it is kept for a point."""
        if self._proved is None or self._proved[0] is not state.x:
            self._proved = state.x, self.problem.suboptimality(state.x)
        return self._proved[1]

    def _estimate(self, state: lbfgs.State) -> float:
        """Return what the gap would be if the biases had the curvature of equal classes.

        The weights have at least that of the penalty.
        """
        grad = state.grad.astype(np.float64)
        of_biases = len(grad) * float(np.vdot(grad[:, -1], grad[:, -1])) / 2
        return divided_squares(grad[:, :-1], self.problem.penalty) + of_biases


@dataclass
class Follower:
    """The optimum of one objective, for one penalty after another.

    ``optima`` are the last two. ``pairs`` are those of L-BFGS at the newest, and ``ratio`` is that
    of its proved gap to the estimate.
    """

    problem: FullBatch
    shared: Preconditioner
    optima: list[Optimum] = field(default_factory=list)
    pairs: Pairs = field(default_factory=list)
    ratio: float = 1.0

    def follow(self, l2: float, gap: float, max_iterations: int, start: NDArray[Any]) -> Fitted:
        """Return the optimum at the next penalty; the first fit begins at ``start``."""
        self._change_penalty(l2)
        tol, k = FIRST_TOL, len(start)
        solver = GapSolver(self.problem, k, tol, gap, self.shared, self.ratio)
        state, reason = _descend(solver, self._begin(solver, start), max_iterations)
        while reason == "converged" and not solver.is_close(state):
            tol /= 10
            if not solver.is_in_span or tol < LAST_TOL:
                reason = "rounding"
                break
            solver = GapSolver(self.problem, k, tol, gap, self.shared, solver.ratio)
            state, reason = _descend(solver, state, max_iterations)
        evaluations = state.history[-1].evaluations
        self.shared.excess += max(0, evaluations - FEW_PASSES)
        self.optima = [*self.optima[-1:], Optimum(l2, state.x, state.aux[0])]
        self.pairs, self.ratio = state.pairs, solver.ratio
        return Fitted(state.x, state.value, state.aux[0], solver.bound(state), evaluations, reason)

    def pack(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the state as arrays, whose names begin with this one, and as JSON can hold it."""
        arrays = {f"{name}.theta.{n}": each.theta for n, each in enumerate(self.optima)}
        for number, (step, change) in enumerate(self.pairs):
            arrays |= {f"{name}.step.{number}": step, f"{name}.change.{number}": change}
        optima = [[each.l2, each.crossentropy] for each in self.optima]
        return arrays, {"optima": optima, "pairs": len(self.pairs), "ratio": self.ratio}

    def unpack(self, name: str, arrays: Mapping[str, NDArray[Any]], state: Any) -> None:
        """Take over what :meth:`pack` returned."""
        self.optima = [
            Optimum(float(l2), arrays[f"{name}.theta.{number}"], float(crossentropy))
            for number, (l2, crossentropy) in enumerate(state["optima"])
        ]
        numbers = range(state["pairs"])
        self.pairs = [(arrays[f"{name}.step.{n}"], arrays[f"{name}.change.{n}"]) for n in numbers]
        self.ratio = float(state["ratio"])
        if self.optima:
            self.problem = self.problem.with_l2(self.optima[-1].l2)

    def _change_penalty(self, l2: float) -> None:
        """Set the penalty, and change the pairs to what they would have been with it."""
        before, self.problem = self.problem.penalty, self.problem.with_l2(l2)
        difference = np.asarray(self.problem.penalty) - np.asarray(before)
        shifted = []
        for step, change in self.pairs:
            change = change.copy(order="K")
            change[:, :-1] += difference.astype(change.dtype) * step[:, :-1]
            shifted.append((step, change))
        self.pairs = [pair for pair in shifted if lbfgs.is_usable(*pair)]

    def _begin(self, solver: GapSolver, start: NDArray[Any]) -> lbfgs.State:
        evaluate = self.problem.loss_and_grad
        if self.optima:
            self.shared.renew(self.problem.l2, self.optima[-1].theta)
            state = self._predict()
        elif start.any():
            state = lbfgs.begin(evaluate, start)
        else:
            state = begin(self.problem, solver, start)
        state.pairs = self.pairs
        if self.shared.anchor is not None:
            state.anchor = state.x  # so that the solver takes the preconditioner at once
        return state

    def _predict(self) -> lbfgs.State:
        """Return the state at the point that the last two optima point at, or at the last one."""
        evaluate, last = self.problem.loss_and_grad, self.optima[-1]
        value = last.crossentropy + penalty_at(last.theta, self.problem.penalty)
        if len(self.optima) == 1:
            return lbfgs.begin(evaluate, last.theta)
        before = self.optima[0]
        ratio = math.log(self.problem.l2 / last.l2) / math.log(last.l2 / before.l2)
        theta = last.theta + last.theta.dtype.type(ratio) * (last.theta - before.theta)
        found = evaluate(theta)
        if found.loss < value:
            return lbfgs.begin(evaluate, theta, found)
        return lbfgs.begin(evaluate, last.theta, evaluations=2)


def _descend(
    solver: GapSolver, state: lbfgs.State, max_iterations: int
) -> tuple[lbfgs.State, Reason]:
    """Return the last state, and why it is the last one."""
    for state in solver.states(state):  # noqa: B020
        reason = solver.end(state)
        if reason is None and state.history[-1].iteration >= max_iterations:
            reason = "iterations"
        if reason is not None:
            return state, reason
    return state, solver.end_without_descent(state)
