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
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax.lbfgs import Reason
from npsoftmax.objective import FullBatch
from npsoftmax.objective.coordinates import Span
from npsoftmax.objective.newton import Newton
from npsoftmax.objective.preconditioner import Solve
from npsoftmax.objective.separation import Separation

__all__ = ["Solver"]

# The distance from the smallest objective that a tolerance allows, in relation to both.
RELATIVE_GAP = 100
# After this number of iterations, or more if it costs more, Newton's method finishes where it can.
MAX_LBFGS_ITERATIONS = 50
# In the span of the samples one iteration consists of up to this many.
MAX_SPAN_ITERATIONS = 200
# Of curvatures in the span for which L-BFGS needs no preconditioner, and of parameters.
MAX_RATIO, MIN_ROWS = 1e4, 100


class Solver:
    """The minimisation of an objective with ``k`` classes."""

    def __init__(self, problem: FullBatch, k: int, tol: float, preconditioned: bool = True) -> None:
        self.problem, self.k, self.tol = problem, k, tol
        self._preconditioner = self._precondition if preconditioned else None
        self._made: tuple[NDArray[Any], Solve] | None = None  # the last preconditioner, and where
        self.begins_in_span = problem.suits_span(k)
        self.begins_with_newton = preconditioned and problem.suits_newton(k)
        self._finishes_in_span = problem.suits_span(k, to_finish=True)
        self._can_finish = self._finishes_in_span or problem.suits_newton(k, to_finish=True)
        # A Hessian of k (d+1) rows costs about k (d+1) / 4 gradients.
        self._patience = max(MAX_LBFGS_ITERATIONS, k * (problem.summary.num_inputs + 1) // 4)
        # With a penalty a smaller gradient may prove what Newton's method would, at less cost.
        self._enough = tol / 100 if problem.least_penalty > 0 else tol
        self._newton: Newton | None = None
        self._inner: Solver | None = None  # in the span of the samples
        self._inner_end: Reason | None = None

    def tighten(self, tol: float) -> None:
        """Go on with a smaller tolerance."""
        self.tol, self._inner_end, self._newton = tol, None, None
        self._enough = tol / 100 if self.problem.least_penalty > 0 else tol

    def _precondition(self, theta: NDArray[Any]) -> Solve:
        """Return the preconditioner at a point; it can take seconds, so the last one is kept."""
        if self._made is None or not np.array_equal(self._made[0], theta):
            self._made = None  # two at once may not fit into memory
            self._made = theta, self.problem.preconditioner(theta)
        return self._made[1]

    @cached_property
    def passes_without(self) -> float:
        """How many passes to try without a preconditioner."""
        if self._preconditioner is None:
            return 0.0
        return self.problem.choose_preconditioner(self.k).passes_without

    @property
    def uses_newton(self) -> bool:
        """Whether Newton's method has taken over."""
        return self._newton is not None or (self._inner is not None and self._inner.uses_newton)

    def states(self, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the states from this one on, until rounding errors end the descent."""
        if not self._is_newtons(state):
            for state in self._quasi_newton(state):  # noqa: B020
                yield state
                if self._can_finish and self._is_late(state.history[-1]):
                    break
            else:
                if not self._can_finish:
                    return
        if self._finishes_in_span:
            yield from self._iterate_in_span(state)
            return
        self._newton = self.problem.newton(state.x)
        yield from self._newton.iterate(state)

    def _iterate_in_span(self, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the state at the start, and after each solution in the span of the samples.

        The state is the last one if a solution from there is no better: what follows depends on
        ``state.x`` alone.
        """
        state = replace(state, pairs=[], anchor=None)
        while True:
            theta, reason = self._solve_in_span(state.x)
            value, grad, *aux = self.problem.loss_and_grad(theta)
            noise = 10 * float(np.finfo(theta.dtype).eps) * abs(state.value)
            if not value < state.value - noise:
                self._inner_end = reason or "rounding"
            yield state
            if self._inner_end is not None:
                return
            number, _, _, _, evaluations = state.history[-1]
            largest = float(np.abs(grad).max())
            line = lbfgs.Iteration(number + 1, value, largest, 1.0, evaluations + 1)
            state = lbfgs.State(theta, grad, [*state.history, line], aux=tuple(aux))

    def _solve_in_span(self, theta: NDArray[Any]) -> tuple[NDArray[Any], Reason | None]:
        """Return a solution from these parameters, and why it ends; None if it is a long way."""
        span, problem = self._in_span
        curvatures = span.squares() / (self.k * problem.summary.num_samples) + problem.least_penalty
        # Where they are alike, L-BFGS needs no preconditioner, and Newton's method costs more.
        alike = curvatures.max(initial=0.0) <= MAX_RATIO * curvatures.min(initial=np.inf)
        preconditioned = not alike or self.k * curvatures.size <= MIN_ROWS
        self._inner = solver = Solver(problem, self.k, self.tol, preconditioned)
        state, reason = lbfgs.begin(problem.loss_and_grad, span.enter(theta)), None
        for state in islice(solver.states(state), MAX_SPAN_ITERATIONS + 1):  # noqa: B020
            reason = solver.end(state)
            if reason is not None:
                break
        else:
            if state.history[-1].iteration < MAX_SPAN_ITERATIONS:
                reason = solver.end_without_descent(state)
        return span.leave(state.x).astype(theta.dtype), reason

    @cached_property
    def _in_span(self) -> tuple[Span, FullBatch]:
        return self.problem.in_span()

    def _quasi_newton(self, state: lbfgs.State) -> Iterator[lbfgs.State]:
        """Yield the states of L-BFGS, which makes a preconditioner once it is worth its cost."""
        problem = self.problem
        if self._is_plain(state):
            for state in lbfgs.iterate(problem.loss_and_grad, state):  # noqa: B020
                yield state
                if not self._is_plain(state):
                    break
        yield from lbfgs.iterate(problem.loss_and_grad, state, preconditioner=self._preconditioner)

    def _is_plain(self, state: lbfgs.State) -> bool:
        """Whether there is no preconditioner yet, nor will one be made at this state."""
        return state.anchor is None and state.history[-1].evaluations < self.passes_without

    def _is_late(self, line: lbfgs.Iteration) -> bool:
        """Whether Newton's method follows this iteration, if it can finish."""
        is_late = line.max_gradient <= self._enough or line.iteration >= self._patience
        return is_late and line.evaluations >= self.passes_without

    def _is_newtons(self, state: lbfgs.State) -> bool:
        """Whether the state is one of Newton's method, or of the span of the samples."""
        finishes = self._can_finish and any(map(self._is_late, state.history[:-1]))
        return self.begins_with_newton or self.begins_in_span or finishes

    def end(self, state: lbfgs.State) -> Reason | None:
        """Return the reason to stop at the newest state, if there is one."""
        if self._inner is not None:
            return self._inner_end
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
        if self._is_newtons(state) and not self._finishes_in_span:
            self._newton = self.problem.newton(state.x)
            return self._newton.assess(self._newton.at(state.x))
        return "converged" if state.history[-1].max_gradient <= self.tol else None

    def is_separated(self, state: lbfgs.State) -> bool:
        """Whether it is known that no optimum exists."""
        if self.problem.least_penalty > 0 or self.k == 1:
            return False
        return self.is_complete(state) or self._separating_features is not None

    def is_complete(self, state: lbfgs.State) -> bool:
        """Whether weights without a penalty classify all samples correctly."""
        if self.problem.least_penalty > 0 or state.aux[1] != 1:
            return False
        return not np.any(self.problem.penalty) or self.problem.separates(state.x)

    @property
    def separation(self) -> Separation | None:
        """A separation: of single features if there is one, else what Newton's method found."""
        along = None if self._newton is None else self._newton.separation
        if self._inner is not None and self._inner.separation is not None:
            along = self._inner.separation._replace(features=())  # those of the span
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
        gap, bias = self._gap(state), state.grad[:, -1].astype(np.float64)
        # Of tiny losses, a gradient within the tolerance may be large. Their curvature with respect
        # to the biases, the sum of p (1 - p), is about the loss itself.
        is_small = float(bias @ bias) <= 2 * gap * state.aux[0]
        return is_small and self.problem.has_small_gap(state.grad, gap)

    def _is_near(self, state: lbfgs.State) -> bool:
        """Whether the objective is close to its smallest value by the estimated decrement."""
        gap = self._gap(state)
        solve = self._precondition(state.x if state.anchor is None else state.anchor)
        is_near = self.problem.decrement(state.x, state.grad, gap, solve) <= gap
        if is_near:
            self._made = None
        return is_near
