"""Training to the optimum of an objective, wherever its samples lie."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax import lbfgs
from npsoftmax._checks import as_count, as_size
from npsoftmax.checkpoint import (
    SolverState,
    as_settings,
    environment,
    model_settings,
    newest_usable,
    problem_settings,
    read_state,
    warn_of_another,
)
from npsoftmax.errors import ClusterError, InputError
from npsoftmax.history import IterationRecord
from npsoftmax.objective import SummedEvaluation, SummedObjective, sample_losses
from npsoftmax.training._checks import as_limit, checked_data, refuse_other_problem
from npsoftmax.training.optimum import Ending, Optimum
from npsoftmax.training.start import start_on_a_part

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["ObjectiveTrainer"]


class ObjectiveTrainer:
    """Train a model to the optimum of an objective on all samples.

    What :func:`npsoftmax.training.fit` does, for an objective whose samples may lie anywhere, with
    a history, test data and checkpoints from which a run goes on bit for bit (same machine type,
    NumPy build, ``threads``). :class:`npsoftmax.FullBatchTrainer` makes the objective itself.

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place.
    problem : SummedObjective
        :class:`npsoftmax.objective.FullBatch`, or one whose samples lie elsewhere.
    test : (array_like, array_like), optional
        ``X (d, n)`` and ``y (n,)`` to evaluate on after each iteration.
    tol : float
        The largest entry of the gradient, in magnitude, to stop at.
    checkpoint : path, optional
        Where to keep the newest checkpoint, written at the start, at the end, every
        ``checkpoint_every`` iterations, and when a cluster is lost; the one before is kept beside
        it.
    checkpoint_every : int
        How often.
    identity : mapping, optional
        What else a checkpoint must agree in to be resumed, for instance hashes of the data.
    on_step : callable, optional
        Called with the trainer after each iteration; it may raise, and the trainer is then in
        order to be checkpointed or to go on.

    Attributes
    ----------
    reason : str or None
        Why the last run ended, as in :class:`npsoftmax.lbfgs.Result`.

    Raises
    ------
    ShapeError, LabelError, InputError
        Objective or test data do not fit the model, or a setting makes no sense.

    Examples
    --------
    >>> from npsoftmax import SoftmaxRegression
    >>> from npsoftmax.objective import FullBatch
    >>> problem = FullBatch(np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1], l2=0.1)
    >>> trainer = ObjectiveTrainer(SoftmaxRegression(1, 2, dtype=np.float64), problem)
    >>> records = list(trainer.run(max_iterations=20))
    >>> trainer.reason, [record.iteration for record in records]
    ('converged', [0, 1])
    """

    def __init__(
        self,
        model: SoftmaxRegression,
        problem: SummedObjective,
        *,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        tol: float = 1e-5,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
        identity: Mapping[str, Any] | None = None,
        on_step: Callable[[Any], None] | None = None,
    ) -> None:
        refuse_other_problem(model, problem)
        self.model, self.problem = model, problem
        self.test = None if test is None else checked_data(model, *test)
        self.tol = as_size(tol, "tol")
        self.checkpoint = checkpoint
        self.checkpoint_every = as_count(checkpoint_every, "checkpoint_every")
        self.identity = dict(identity or {})
        self.on_step = on_step
        self.reason: lbfgs.Reason | None = None
        self._limit = 0
        # Together, for an interruption not to leave them unlike.
        self._reached: tuple[lbfgs.State | None, list[IterationRecord]] = None, []
        self._last: tuple[NDArray[Any], SummedEvaluation] | None = None
        self._settings()

    @property
    def history(self) -> list[IterationRecord]:
        """The start and each iteration."""
        return self._reached[1]

    def fit(self, max_iterations: int = 1000) -> Optimum:
        """Train until the tolerance is reached.

        Parameters
        ----------
        max_iterations : int
            Stop after so many, counted from the very start, in any case.

        Returns
        -------
        Optimum

        Raises
        ------
        DivergedError
            The objective is not finite at the start.
        OutputError
            A checkpoint cannot be written.
        ClusterError
            The samples lie on a cluster that is lost; the trainer can be checkpointed.
        """
        for _ in self.run(max_iterations):
            pass
        return self.optimum()

    def run(self, max_iterations: int = 1000) -> Iterator[IterationRecord]:
        """Train as :meth:`fit` does, and yield a record for the start and for each iteration.

        Nothing happens before the result is iterated over.

        Parameters
        ----------
        max_iterations : int
            As for :meth:`fit`.

        Yields
        ------
        IterationRecord

        Raises
        ------
        DivergedError, OutputError, ClusterError
            As for :meth:`fit`.
        """
        self._limit = as_limit(self.model, max_iterations, "max_iterations")
        self.reason = None
        try:
            yield from self._iterations(max_iterations)
        except ClusterError:
            if self.checkpoint is not None and self._reached[0] is not None:
                self.save_checkpoint(self.checkpoint)
            raise
        if self.checkpoint is not None:
            self.save_checkpoint(self.checkpoint)

    def _iterations(self, max_iterations: int) -> Iterator[IterationRecord]:
        """Advance until there is a reason to stop, and yield the records."""
        clock = perf_counter()
        start = self._start() if self._reached[0] is None else self._reached[0].copy()
        solve = self.problem.preconditioner
        for state in lbfgs.iterate(self._value_and_grad, start, preconditioner=solve):
            self.reason = self._reason(state, max_iterations)
            if len(self.history) < len(state.history):
                yield self._recorded(state, perf_counter() - clock)
                clock = perf_counter()
            if self.reason is not None:
                break
        else:
            self.reason = "rounding"

    def optimum(self) -> Optimum:
        """Say how good the point is where training stands.

        Returns
        -------
        Optimum

        Raises
        ------
        InputError
            Training has not begun.
        """
        state, history = self._reached
        if state is None:
            raise InputError("optimum: expected a trainer that has run, got a new one; call fit")
        last, problem, names = history[-1], self.problem, self.model.classes
        reason = self.reason or self._reason(state, math.inf) or "stopped"
        known = Ending(
            reason,
            limit=self._limit,
            dtype=str(self.model.theta.dtype),
            separated=problem.l2 == 0 and self._evaluate(state.x).accuracy == 1 and len(names) > 1,
            missing=[names[label] for label in problem.contents.missing(len(names))],
        )
        return Optimum(
            reason,
            last.iteration,
            last.evaluations,
            last.objective,
            last.max_gradient,
            self.tol,
            problem.suboptimality(state.x),
            known.advice(),
        )

    def _start(self) -> lbfgs.State:
        """Return where to begin: the model's parameters if they have been trained already."""
        given: NDArray[Any] = self.model.theta.copy(order="F")
        value = self._value_and_grad(given)[0]
        # With all parameters 0 the objective is log k.
        if not value < math.log(self.model.num_outputs):
            given, value = np.zeros_like(given), math.log(self.model.num_outputs)
        found, passes = start_on_a_part(self.problem, given)
        given = found if self._value_and_grad(found)[0] < value else given
        return lbfgs.begin(self._value_and_grad, given, evaluations=1 + math.ceil(passes))

    def _value_and_grad(self, theta: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        evaluation = self._evaluate(theta)
        return evaluation.loss, evaluation.grad

    def _evaluate(self, theta: NDArray[Any]) -> SummedEvaluation:
        """Evaluate the objective, unless that was done for these parameters just before."""
        if self._last is None or not np.array_equal(self._last[0], theta):
            self._last = theta, self.problem.evaluate(theta)
        return self._last[1]

    def _recorded(self, state: lbfgs.State, seconds: float) -> IterationRecord:
        """Take over an iteration: into the model, the history and, if it is due, a checkpoint."""
        started = perf_counter()
        self.model.theta[...] = state.x
        evaluation = self._evaluate(state.x)
        test_loss, test_acc = self._evaluate_test()
        at = state.history[-1]
        record = IterationRecord(
            iteration=at.iteration,
            objective=at.value,
            max_gradient=at.max_gradient,
            step=at.step,
            evaluations=at.evaluations,
            train_loss=evaluation.crossentropy,
            train_acc=evaluation.accuracy,
            test_loss=test_loss,
            test_acc=test_acc,
            train_seconds=seconds,
            test_seconds=perf_counter() - started,
        )
        self._reached = state.copy(), [*self.history, record]
        if self.checkpoint is not None and at.iteration % self.checkpoint_every == 0:
            self.save_checkpoint(self.checkpoint)
        if self.on_step is not None:
            self.on_step(self)
        return record

    def _evaluate_test(self) -> tuple[float, float] | tuple[None, None]:
        if self.test is None:
            return None, None
        X, y = self.test
        losses, predicted = sample_losses(self.model.theta, X, y, self.model.input_scale(X.dtype))
        return float(losses.mean(dtype=np.float64)), float(np.mean(predicted == y))

    def _reason(self, state: lbfgs.State, max_iterations: float) -> lbfgs.Reason | None:
        last = state.history[-1]
        if last.max_gradient <= self.tol:
            return "converged"
        return "iterations" if last.iteration >= max_iterations else None

    def _settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree in for the run to go on bit for bit."""
        contents = self.problem.contents
        shape = contents.num_inputs, contents.num_samples
        settings = model_settings(self.model, contents.dtype, shape)
        return as_settings({**settings, **problem_settings(self.problem), **self.identity})

    def _environment(self) -> dict[str, Any]:
        return {**environment(self.problem.threads), "samples": self.problem.place}

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write all that :meth:`resume` needs, atomically.

        Parameters
        ----------
        path : path
            The file; the one that stands there is kept as ``storage.previous(path)``.

        Raises
        ------
        InputError
            Training has not begun.
        OutputError
            The file cannot be written.
        """
        state, history = self._reached
        if state is None:
            raise InputError("checkpoint: expected a trainer that has run, got a new one; call fit")
        settings, here = self._settings(), self._environment()
        SolverState(settings, here, state.x, state.pairs, state.anchor, history).write(path)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take over parameters, history and the solver's memory from a checkpoint.

        Parameters
        ----------
        path : path
            A file that :meth:`save_checkpoint` wrote. If it is damaged, the one before, which was
            kept beside it, is taken.

        Raises
        ------
        InputError, CorruptFileError, FormatVersionError
            As for :meth:`npsoftmax.Trainer.resume`.

        Warns
        -----
        ResumeWarning
            As there.
        """
        saved, state = newest_usable(path, self._read)
        warn_of_another(saved.environment, self._environment(), path)
        self.model.theta[...] = state.x
        self._reached = state, list(saved.history)

    def _read(self, path: Path) -> tuple[SolverState, lbfgs.State]:
        return read_state(path, self._settings(), self.model.theta, self._value_and_grad)
