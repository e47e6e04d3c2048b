"""Which method minimises the objective on all samples, and when it has arrived.

Newton's method solves small problems. L-BFGS takes the others, until its gradient is within the
tolerance. That says little where the penalty is tiny or the features have large units, so unless
the penalty proves that the objective is close to its smallest value, Newton's method finishes. For
problems too large for that, the decrement is estimated. Nothing here depends on anything but the
state, so that a run resumes bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from npsoftmax import lbfgs
from npsoftmax.lbfgs import Reason
from npsoftmax.objective import FullBatch
from npsoftmax.objective.newton import Newton
from npsoftmax.objective.separation import Separation

__all__ = ["Solver"]

# The distance from the smallest objective that a tolerance allows, in relation to both.
RELATIVE_GAP = 100
# After this number of iterations Newton's method finishes where it can.
MAX_LBFGS_ITERATIONS = 50


class Solver:
    """The minimisation of an objective with ``k`` classes."""

    def __init__(self, problem: FullBatch, k: int, tol: float) -> None:
        self.problem, self.k, self.tol = problem, k, tol
        self.begins_with_newton = problem.suits_newton(k)
        self._can_finish = problem.suits_newton(k, to_finish=True)
        self._newton: Newton | None = None

    @cached_property
    def passes_without(self) -> float:
        """How many passes to try without a preconditioner."""
        return self.problem.passes_without_preconditioner(self.k)

    @property
    def uses_newton(self) -> bool:
        """Whether Newton's method has taken over."""
        return self._newton is not None

    def states(self, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the states from this one on, until rounding errors end the descent."""
        evaluate = self.problem.loss_and_grad
        if not self._is_newtons(state):
            for state in self._quasi_newton(state):  # noqa: B020
                yield state
                if self._can_finish and self._is_late(state.history[-1]):
                    break
            else:
                if not self._can_finish:
                    return
        self._newton = self.problem.newton(state.x)
        yield from self._newton.iterate(evaluate, state)

    def _quasi_newton(self, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the states of L-BFGS, which makes a preconditioner once it is worth its cost."""
        problem = self.problem
        if self._is_plain(state):
            for state in lbfgs.iterate(problem.loss_and_grad, state):  # noqa: B020
                yield state
                if not self._is_plain(state):
                    break
        yield from lbfgs.iterate(
            problem.loss_and_grad, state, preconditioner=problem.preconditioner
        )

    def _is_plain(self, state: lbfgs.State) -> bool:
        """Whether there is no preconditioner yet, nor will one be made at this state."""
        return state.anchor is None and state.history[-1].evaluations < self.passes_without

    def _is_late(self, line: lbfgs.Iteration) -> bool:
        """Whether Newton's method follows this iteration, if it can finish."""
        is_late = line.max_gradient <= self.tol or line.iteration >= MAX_LBFGS_ITERATIONS
        return is_late and line.evaluations >= self.passes_without

    def _is_newtons(self, state: lbfgs.State) -> bool:
        """Whether the state is one of Newton's method."""
        finishes = self._can_finish and any(map(self._is_late, state.history[:-1]))
        return self.begins_with_newton or finishes

    def end(self, state: lbfgs.State) -> Reason | None:
        """Return the reason to stop at the newest state, if there is one."""
        if self._newton is not None:
            return self._newton.end
        if not state.history[-1].max_gradient <= self.tol:
            return None
        if self.is_separated(state):
            return "separated"
        if self._has_small_bound(state):
            return "converged"
        # Without a preconditioner further iterations cost less than the estimate, and prove more.
        if self._can_finish or self._is_plain(state) or not self._is_new_decade(state):
            return None
        return "converged" if self._is_near(state) else None

    def end_without_descent(self, state: lbfgs.State) -> Reason:
        """Return the reason to stop after the last state."""
        if self._newton is not None:
            return self._newton.end or "rounding"
        return "converged" if self._is_near(state) else "rounding"

    def assess(self, state: lbfgs.State) -> Reason | None:
        """Return the reason to stop at any state, if there is one."""
        if self._is_newtons(state):
            self._newton = self.problem.newton(state.x)
            return self._newton.assess(self._newton.at(state.x))
        return "converged" if state.history[-1].max_gradient <= self.tol else None

    def is_separated(self, state: lbfgs.State) -> bool:
        """Whether it is known that no optimum exists."""
        if self.problem.l2 > 0 or self.k == 1:
            return False
        return state.aux[1] == 1 or self._separating_features is not None

    @property
    def separation(self) -> Separation | None:
        """A separation: of single features if there is one, else what Newton's method found."""
        along = None if self._newton is None else self._newton.separation
        return self._separating_features or along

    @cached_property
    def _separating_features(self) -> Separation | None:
        return self.problem.separating_features(self.k)

    def _is_new_decade(self, state: lbfgs.State) -> bool:
        """Whether the gradient is below the tolerance by another power of ten than before."""
        decades = [
            math.floor(math.log10(self.tol / line.max_gradient)) if line.max_gradient else math.inf
            for line in state.history
            if line.max_gradient <= self.tol
        ]
        return decades[-1] not in decades[:-1]

    def _gap(self, state: lbfgs.State) -> float:
        return RELATIVE_GAP * self.tol * state.value

    def _has_small_bound(self, state: lbfgs.State) -> bool:
        """Whether gradient and penalty prove that the objective is close to its smallest value."""
        weights = state.grad[:, :-1].astype(np.float64)
        return float(np.vdot(weights, weights)) <= 2 * self.problem.l2 * self._gap(state)

    def _is_near(self, state: lbfgs.State) -> bool:
        """Whether the objective is close to its smallest value by the estimated decrement."""
        gap = self._gap(state)
        return self.problem.decrement(state.x, state.grad, gap) <= gap
