"""What the solver says of the point where it ended: how good it is, and what would help."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax import lbfgs
from npsoftmax._checks import as_columns, as_count, as_labels, as_size, same_samples
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
from npsoftmax.errors import ClusterError, InputError, LabelError, ShapeError
from npsoftmax.history import IterationRecord
from npsoftmax.lbfgs import Reason
from npsoftmax.objective import FullBatch, SummedEvaluation, SummedObjective, sample_losses
from npsoftmax.objective.preconditioner import evenly_random

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression
    from npsoftmax.objective import SummedObjective

__all__ = [
    "Ending",
    "FullBatchTrainer",
    "ObjectiveTrainer",
    "Optimum",
    "as_limit",
    "checked_data",
    "fit",
    "refuse_other_problem",
    "start_on_a_part",
]


@dataclass(frozen=True)
class Optimum:
    """Where training on all samples ended, and how far that is from the best there is.

    Attributes
    ----------
    reason : str
        As in :class:`npsoftmax.lbfgs.Result`.
    iterations : int
        How many, from the start on all samples.
    evaluations : int
        Passes over the samples, with those that the search for a start amounts to.
    objective : float
        Mean cross-entropy and penalty.
    max_gradient, tol : float
        The largest entry of the objective's gradient in magnitude, and what it was to come down to.
    suboptimality : float
        At most this much is the objective above its smallest value
        (:meth:`npsoftmax.objective.FullBatch.suboptimality`); without a penalty the objective
        itself, which says nothing.
    advice : str
        What to know or to change; empty where all is well.
    """

    reason: Reason
    iterations: int
    evaluations: int
    objective: float
    max_gradient: float
    tol: float
    suboptimality: float
    advice: str

    @property
    def converged(self) -> bool:
        """Whether the gradient is within the tolerance."""
        return self.reason == "converged"

    def __str__(self) -> str:
        """Write the line that training prints at its end."""
        state = "converged" if self.converged else "not converged"
        sign = "<=" if self.converged else ">"
        # A bound next to the objective itself says no more than that no loss is negative.
        says_something = self.suboptimality < self.objective / 2
        bound = f", at most {self.suboptimality:.1e} above the smallest" if says_something else ""
        text = (
            f"{state} after {self.iterations} iterations, {self.evaluations} evaluations: "
            f"objective {self.objective:.8g}{bound}; max|gradient| {self.max_gradient:.1e} {sign} "
            f"tol {self.tol:g}"
        )
        return f"{text}; {self.advice}" if self.advice else text


@dataclass(frozen=True)
class Ending:
    """What is known where training ended.

    Attributes
    ----------
    reason : str
        As in :class:`npsoftmax.lbfgs.Result`.
    limit : int
        Of the iterations.
    dtype : str
        Of the parameters.
    separated : bool
        There is no penalty, and every sample is classified right.
    missing : sequence of str
        The classes without samples.
    """

    reason: Reason
    limit: int
    dtype: str
    separated: bool
    missing: Sequence[str]

    def advice(self) -> str:
        """Return what a user should know, or the one change that helps; empty if all is well."""
        if self.separated:
            return (
                "every training sample is classified right and l2 is 0, so the optimum is at "
                "infinity and the weights depend on where this stopped: set l2 > 0"
            )
        if self.reason == "iterations":
            return f"raise max_iterations, now {self.limit}"
        if self.reason == "stopped":
            return "run again to go on"
        if self.reason == "rounding":
            wider = "use float64, " if self.dtype == "float32" else ""
            return (
                f"rounding errors hide any further descent: {wider}scale the features, or raise tol"
            )
        if self.missing:
            return (
                f"no sample is of class {', '.join(self.missing)}: the bias has no optimum there, "
                "the probability goes to 0"
            )
        return ""


# The checks that both trainers share.


def checked_data(
    model: SoftmaxRegression, X: ArrayLike, y: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and labels that fit the model and each other; refuse a calibrated model."""
    _refuse_calibrated(model)
    columns, labels = as_columns(X, model.num_inputs), as_labels(y, model.num_outputs)
    same_samples(columns, labels)
    return columns, labels


def refuse_other_problem(model: SoftmaxRegression, problem: SummedObjective) -> None:
    """Raise unless the model's parameters are those of the problem."""
    _refuse_calibrated(model)
    contents = problem.contents
    if contents.num_inputs != model.num_inputs:
        raise ShapeError(
            f"problem: expected samples of {model.num_inputs} features, as the model takes, got "
            f"{contents.num_inputs}"
        )
    if contents.class_totals.size > model.num_outputs:
        raise LabelError(
            f"problem: expected labels 0..{model.num_outputs - 1}, one for each class of the "
            f"model, got labels up to {contents.class_totals.size - 1}"
        )
    scale = model.input_scale(contents.dtype)
    if problem.scale != scale:
        raise InputError(
            f"problem: expected scale {scale:g}, what the model multiplies {contents.dtype} by, "
            f"got {problem.scale:g}; pass scale=model.input_scale(X.dtype)"
        )


def as_limit(model: SoftmaxRegression, value: object, name: str) -> int:
    """Return how long to train as an int of at least 0; refuse a calibrated model."""
    _refuse_calibrated(model)
    return as_count(value, name, minimum=0)


def _refuse_calibrated(model: SoftmaxRegression) -> None:
    if model.temperature != 1:
        raise InputError(
            f"model: expected one that is not calibrated, got temperature {model.temperature:g}, "
            "which was fitted to the weights that training would change; set model.temperature = 1 "
            "and calibrate again after training"
        )


# Where the search for the optimum begins.

# A sixth of the samples, but no fewer or more than these where there are so many.
PART, FEWEST, MOST = 6, 1_000, 50_000
ITERATIONS, TOL = 30, 1e-3


def start_on_a_part(problem: SummedObjective, theta: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return where some iterations on a part of the samples lead, and what they cost in passes.

    Without a preconditioner, on purpose: the probabilities at ``theta`` say nothing yet, and a
    preconditioner made of them would move the weights far along directions in which the features
    hardly vary. On Fashion-MNIST 13 passes lead from here to within 1e-3 of the optimum; from 0
    with the preconditioner 80 do not.
    """
    num_samples = problem.contents.num_samples
    kept = evenly_random(num_samples, min(max(num_samples // PART, FEWEST), MOST))
    part = problem.subset(kept)
    if part.contents.total == 0:
        return theta, 0.0
    x, history, _ = lbfgs.minimise(
        lambda theta: part.evaluate(theta)[:2], theta, tol=TOL, max_iterations=ITERATIONS
    )
    return x, history[-1].evaluations * kept.size / num_samples


# Training to the optimum of an objective, wherever its samples lie.


class ObjectiveTrainer:
    """Train a model to the optimum of an objective on all samples.

    What :func:`npsoftmax.fit` does, for an objective whose samples may lie anywhere, with
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
        InputError, CorruptFileError
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


# Training on all samples in this process at once, to the exact optimum.


class FullBatchTrainer(ObjectiveTrainer):
    """Train a model on all samples at once.

    What :func:`npsoftmax.fit` does, with a history, test data and checkpoints from which
    a run goes on bit for bit (same machine type, NumPy build, ``threads``).

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place.
    X, y, l2, sample_weight, threads
        As for :class:`npsoftmax.objective.FullBatch`.
    test, tol, checkpoint, checkpoint_every, identity, on_step
        As for :class:`npsoftmax.ObjectiveTrainer`.

    Attributes
    ----------
    problem : FullBatch
        The objective.
    reason : str or None
        Why the last run ended, as in :class:`npsoftmax.lbfgs.Result`.

    Raises
    ------
    ShapeError, LabelError, InputError
        The data do not fit the model, or a setting makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from npsoftmax import SoftmaxRegression
    >>> X, y = np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1]
    >>> trainer = FullBatchTrainer(SoftmaxRegression(1, 2, dtype=np.float64), X, y, l2=0.1)
    >>> records = list(trainer.run(max_iterations=20))
    >>> trainer.reason, [record.iteration for record in records]
    ('converged', [0, 1])
    """

    problem: FullBatch

    def __init__(
        self,
        model: SoftmaxRegression,
        X: ArrayLike,
        y: ArrayLike,
        *,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        tol: float = 1e-5,
        threads: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
        identity: Mapping[str, Any] | None = None,
        on_step: Callable[[Any], None] | None = None,
    ) -> None:
        columns, labels = checked_data(model, X, y)
        scale = model.input_scale(columns.dtype)
        super().__init__(
            model,
            FullBatch(columns, labels, l2, sample_weight, scale=scale, threads=threads),
            test=test,
            tol=tol,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            identity=identity,
            on_step=on_step,
        )


# Training to the exact optimum in one call.


def fit(
    model: SoftmaxRegression,
    X: ArrayLike,
    y: ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    tol: float = 1e-5,
    max_iterations: int = 1000,
    threads: int | None = None,
) -> Optimum:
    r"""Train a model on all samples, to the optimum of its convex objective.

    .. math:: J(\theta) = \frac{1}{\bar w} \sum_j w_j \, \ell(s W x_j + b, y_j)
        + \frac{\lambda}{2} \|W\|_F^2

    It needs no learning rate, no seed and no number of epochs: the result is the same, within
    the tolerance, from wherever ``model.theta`` starts.

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place; everything is computed in its dtype.
    X, y, l2, sample_weight, threads
        As for :class:`npsoftmax.objective.FullBatch`.
    tol : float
        The largest entry of the gradient, in magnitude, to stop at.
    max_iterations : int
        Stop after so many in any case.

    Returns
    -------
    Optimum
        What was reached, a bound on the distance to the optimum, and what would help.

    Raises
    ------
    ShapeError, LabelError, InputError
        The data do not fit the model, or a setting makes no sense.
    DivergedError
        The objective is not finite at the start.

    Examples
    --------
    >>> import numpy as np
    >>> from npsoftmax import SoftmaxRegression
    >>> X, y = np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1]
    >>> model = SoftmaxRegression(1, 2, dtype=np.float64)
    >>> optimum = fit(model, X, y, l2=0.1, tol=1e-9)
    >>> optimum.converged, round(optimum.objective, 6), optimum.suboptimality < 1e-12
    (True, 0.645986, True)
    >>> model.W.round(4)  # the classes differ in sign alone
    array([[-0.1922],
           [ 0.1922]])
    """
    return FullBatchTrainer(
        model, X, y, l2=l2, sample_weight=sample_weight, tol=tol, threads=threads
    ).fit(max_iterations)
