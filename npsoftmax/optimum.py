"""Training on all samples, to the optimum of the convex objective."""

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
from npsoftmax._checks import (
    as_array,
    as_count,
    as_labels,
    as_size,
    as_test_data,
    check_extracted,
    check_model,
    check_pixels,
    check_trainable,
    weights_of_classes,
)
from npsoftmax._sparse import is_sparse
from npsoftmax._threads import blas_threads
from npsoftmax.certificate import Certificate, fit_until_final
from npsoftmax.checkpoint import (
    SolverCheckpoint,
    as_settings,
    environment,
    model_settings,
    newest_usable,
    read_solver_checkpoint,
    warn_if_environment_differs,
)
from npsoftmax.errors import ClusterError, InputError, LabelError, ShapeError
from npsoftmax.history import IterationRecord
from npsoftmax.lbfgs import Reason
from npsoftmax.objective import Evaluation, FullBatch, sample_losses
from npsoftmax.objective.penalty import digest
from npsoftmax.objective.samples import draw_evenly
from npsoftmax.objective.separation import Separation
from npsoftmax.solver import Solver

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["FullBatchTrainer", "Optimum", "fit"]

# The starting point is found on a twelfth of the samples, or on a sixth if that is few for so many
# features, within these bounds. Twice as many take twice as long, and lead hardly closer.
START_SAMPLES_PER_FEATURE, MIN_START_SAMPLES, MAX_START_SAMPLES = 6, 1_000, 50_000
# Below this number the part is no small one, and a start pays only before blocks for each class.
FEW_SAMPLES = 6 * MIN_START_SAMPLES
START_ITERATIONS, START_TOL = 30, 1e-3


def fit(
    model: SoftmaxRegression,
    X: ArrayLike,
    y: ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
    penalty_factor: ArrayLike | None = None,
    tol: float = 1e-5,
    max_iterations: int = 1000,
    threads: int | None = None,
    until_final: tuple[ArrayLike, float] | None = None,
) -> Optimum:
    r"""Train a model on all samples, to the optimum of its convex objective.

    .. math:: J(\theta) = \frac{1}{\bar w} \sum_j w_j \, \ell(s W x_j + b, y_j)
        + \frac{\lambda}{2} \sum_i f_i \|W_i\|^2

    It needs no learning rate, no seed and no number of epochs. Within the tolerance the result does
    not depend on where ``model.theta`` starts.

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place; everything is computed in its dtype.
    X, y, l2, sample_weight, penalty_factor, threads
        The data and the penalty, as for :class:`npsoftmax.objective.FullBatch`.
    class_weight : mapping or "balanced", optional
        Factors for the weights of the samples of each class, by its name or its number; 1 for
        classes that are not in the mapping. "balanced" gives all classes the same total weight.
    tol : float
        Stop when the largest entry of the gradient, in magnitude, is at most this, and the
        objective close to its smallest value. Small problems, which Newton's method solves, end
        when no logit changes any more, whatever the tolerance is. With fewer samples than features,
        the gradient is that in centred coordinates.
    max_iterations : int
        Stop after this number of iterations, whatever the gradient is.
    until_final : (array_like, float), optional
        Samples ``X_new (d, m)``, and the share of their predictions that must be proved to be those
        of the exact optimum, for instance 0.999. The tolerance falls until they are. If rounding
        errors hide whether they are, the result has not converged. Each feature must have a
        penalty. See :func:`npsoftmax.certify`.

    Returns
    -------
    Optimum
        The result, a bound on the distance to the optimum, and a hint if something needs attention.

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
    problem = problem_of(model, X, y, l2, sample_weight, class_weight, penalty_factor, threads)
    trainer = FullBatchTrainer(model, problem, tol=tol)
    if until_final is None:
        return trainer.fit(max_iterations)
    return fit_until_final(trainer, until_final, max_iterations, threads)


def problem_of(
    model: SoftmaxRegression,
    X: ArrayLike,
    y: ArrayLike,
    l2: float,
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
    penalty_factor: ArrayLike | None,
    threads: int | None,
) -> FullBatch:
    """Return the objective of a model on samples, from which it extracts its features."""
    check_model(model)
    labels = as_labels(y, model.num_outputs)
    if model.features is not None:
        X = model.extract(X, threads)
    elif not is_sparse(X):
        X = as_array(X, "X")
    scale = model.input_scale(X.dtype)  # type: ignore[union-attr]
    if class_weight is not None:
        sample_weight = weights_of_classes(class_weight, labels, model.classes, sample_weight)
    return FullBatch(
        X,
        labels,
        l2,
        sample_weight,
        scale=scale,
        threads=threads,
        penalty_factor=penalty_factor,
    )


class FullBatchTrainer:
    """Train a model to the optimum of an objective on all samples.

    This does what :func:`npsoftmax.fit` does, and adds a history, test data and checkpoints. A run
    resumes from a checkpoint bit for bit on the same machine type and NumPy build, with the same
    number of threads.

    Parameters
    ----------
    model : SoftmaxRegression
        Its ``theta`` is changed in place.
    problem : npsoftmax.objective.FullBatch or npsoftmax.ext.cluster.FullBatch
        The objective on samples in memory, or on a cluster.
    test : (array_like, array_like), optional
        ``X (d, n)`` and ``y (n,)`` to evaluate on after each iteration.
    tol : float
        As in :func:`npsoftmax.fit`.
    checkpoint : path, optional
        File for the newest checkpoint. It is written at the start, at the end, every
        ``checkpoint_every`` iterations, and when a cluster is lost. The previous one is kept next
        to it.
    checkpoint_every : int
        Iterations between two checkpoints.
    identity, on_step : optional
        As in :class:`npsoftmax.Trainer`.

    Attributes
    ----------
    history : list of IterationRecord
        The start and each iteration.
    reason : str or None
        Why the last run ended: "converged", "separated" (no optimum exists), "iterations" (the
        limit is reached) or "rounding" (rounding errors allow no further descent).

    Examples
    --------
    >>> from npsoftmax import SoftmaxRegression
    >>> from npsoftmax.objective import FullBatch
    >>> problem = FullBatch(np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1], l2=0.1)
    >>> trainer = FullBatchTrainer(SoftmaxRegression(1, 2, dtype=np.float64), problem)
    >>> records = list(trainer.run(max_iterations=20))
    >>> trainer.reason, [record.iteration for record in records]
    ('converged', [0, 1, 2])
    """

    def __init__(
        self,
        model: SoftmaxRegression,
        problem: FullBatch,
        *,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        tol: float = 1e-5,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
        identity: Mapping[str, Any] | None = None,
        on_step: Callable[[Any], None] | None = None,
    ) -> None:
        check_problem(model, problem)
        self.model, self.problem = model, problem
        self.test = as_test_data(test, model.num_features, model.num_outputs)
        if model.features is None:
            check_pixels(model, problem.summary.range, self.test)
        self.tol = as_size(tol, "tol")
        self.checkpoint = checkpoint
        self.checkpoint_every = as_count(checkpoint_every, "checkpoint_every")
        self.identity = as_settings(identity) if identity else {}
        self.on_step = on_step
        self.history: list[IterationRecord] = []
        self.reason: Reason | None = None
        self._max_iterations = 0
        self._state: lbfgs.State | None = None
        self._solver = Solver(problem, model.num_outputs, self.tol)

    @blas_threads(1)  # besides those of the problem; to enter once is quicker
    def fit(self, max_iterations: int = 1000) -> Optimum:
        """Train until the tolerance is reached.

        ``max_iterations`` counts from the very start. If a cluster that holds the samples is lost,
        which raises ClusterError, the trainer can still write a checkpoint.
        """
        for _ in self.run(max_iterations):
            pass
        return self.optimum()

    def run(self, max_iterations: int = 1000) -> Iterator[IterationRecord]:
        """Train as :meth:`fit` does, lazily; yield a record for the start and each iteration."""
        check_trainable(self.model)
        self._max_iterations = as_count(max_iterations, "max_iterations", minimum=0)
        self.reason = None
        try:
            records = self._iterations()
            while True:
                with blas_threads(1):  # besides those of the problem
                    record = next(records, None)
                if record is None:
                    break
                yield record
        except ClusterError:
            if self.checkpoint is not None and self._state is not None:
                self.save_checkpoint(self.checkpoint)
            raise
        if self.checkpoint is not None:
            self.save_checkpoint(self.checkpoint)

    def _iterations(self) -> Iterator[IterationRecord]:
        """Advance until there is a reason to stop, and yield the records."""
        clock = perf_counter()
        start = self.model.theta.copy(order="F")
        state = self._state.copy() if self._state else begin(self.problem, self._solver, start)
        for state in self._solver.states(state):  # noqa: B020
            self.reason = self._reason(state)
            if len(self.history) < len(state.history):
                yield self._record(state, perf_counter() - clock)
                clock = perf_counter()
            if self.reason is not None:
                break
        else:
            self.reason = self._solver.end_without_descent(state)

    def _reason(self, state: lbfgs.State) -> Reason | None:
        is_last = state.history[-1].iteration >= self._max_iterations
        return self._solver.end(state) or ("iterations" if is_last else None)

    def _record(self, state: lbfgs.State, seconds: float) -> IterationRecord:
        """Copy an iteration to the model, the history and, if it is due, a checkpoint."""
        started = perf_counter()
        self.model.theta[...] = state.x
        crossentropy, accuracy, _ = state.aux
        test_loss, test_acc = self._evaluate_test()
        last = state.history[-1]
        record = IterationRecord(
            iteration=last.iteration,
            objective=last.value,
            max_gradient=last.max_gradient,
            step=last.step,
            evaluations=last.evaluations,
            train_loss=crossentropy,
            train_acc=accuracy,
            test_loss=test_loss,
            test_acc=test_acc,
            train_seconds=seconds,
            test_seconds=perf_counter() - started,
        )
        # An interruption between the two leaves a record too many; the state decides.
        self.history, self._state = [*self.history, record], state
        if self.checkpoint is not None and last.iteration % self.checkpoint_every == 0:
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

    @blas_threads(1)
    def optimum(self) -> Optimum:
        """Assess the current parameters."""
        state = self._begun_state("optimum")
        iteration, value, max_gradient, _, evaluations = state.history[-1]
        problem, solver, names = self.problem, self._solver, self.model.classes
        reason = self.reason or solver.assess(state) or "stopped"
        complete = solver.is_complete(state)
        if (complete or reason != "converged") and solver.is_separated(state):
            reason = "separated"
        separation = solver.separation if reason == "separated" else None
        advice = _advice(
            reason,
            separation=_describe(separation, complete, names),
            small=solver.uses_newton,
            max_iterations=self._max_iterations,
            dtype=self.model.theta.dtype,
            penalised=bool(np.any(problem.penalty)),
            missing=[names[label] for label in problem.summary.missing_classes(len(names))],
        )
        bound = problem.suboptimality(state.x)
        features = separation.features if separation else ()
        return Optimum(
            reason,
            iteration,
            evaluations,
            value,
            max_gradient,
            self.tol,
            bound,
            advice,
            features,
        )

    def tighten(self, tol: float) -> None:
        """Go on with a smaller tolerance at the next call of :meth:`fit` or :meth:`run`."""
        self.tol = as_size(tol, "tol")
        self._solver.tighten(self.tol)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write everything that :meth:`resume` needs, atomically.

        A previous file is kept as ``storage.previous(path)``.
        """
        state = self._begun_state("checkpoint")
        history = self.history[: len(state.history)]
        SolverCheckpoint(
            self._settings(), self._environment(), state.x, state.pairs, state.anchor, history
        ).write(path)

    def _begun_state(self, name: str) -> lbfgs.State:
        if self._state is None:
            raise InputError(f"{name}: expected a trainer that has run, got a new one; call fit")
        return self._state

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Load parameters, history and the solver's memory from a checkpoint.

        If the file is damaged, the previous one is used.

        Warns
        -----
        ResumeWarning
            The newest checkpoint is damaged; or the machine type, the NumPy build, the threads or
            the place of the samples differ, so that the run resumes, but not bit for bit.
        """
        saved, state = newest_usable(path, self._read)
        warn_if_environment_differs(saved.environment, self._environment(), path)
        self.model.theta[...] = state.x
        self.history, self._state = list(saved.history), state

    def _read(self, path: Path) -> tuple[SolverCheckpoint, lbfgs.State]:
        evaluate = self.problem.loss_and_grad
        return read_solver_checkpoint(path, self._settings(), self.model.theta, evaluate)

    def _settings(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must have in common with the run."""
        summary = self.problem.summary
        shape = summary.num_inputs, summary.num_samples
        settings = model_settings(self.model, summary.dtype, shape)
        penalty = self.problem.penalty
        if isinstance(penalty, np.ndarray):
            settings |= {"l2": self.problem.l2, "penalties": digest(penalty)}
        else:
            settings["l2"] = penalty
        return as_settings({**settings, **self.identity})

    def _environment(self) -> dict[str, Any]:
        return {**environment(self.problem.threads), "samples": self.problem.place}


def check_problem(model: SoftmaxRegression, problem: FullBatch) -> None:
    """Raise unless the model's parameters are those of the problem."""
    check_trainable(model)
    if not isinstance(problem, FullBatch):
        raise InputError(
            f"problem: expected a FullBatch, got {type(problem).__name__}; pass "
            "npsoftmax.objective.FullBatch(X, y, l2)"
        )
    summary = problem.summary
    check_extracted(model, summary.num_inputs, summary.dtype)
    if summary.num_inputs != model.num_features:
        hint = "; pass X.T" if summary.num_samples == model.num_features else ""
        raise ShapeError(
            f"X: expected samples of {model.num_features} features, as the model takes, got "
            f"{summary.num_inputs}{hint}"
        )
    if summary.class_totals.size > model.num_outputs:
        raise LabelError(
            f"y: expected labels 0..{model.num_outputs - 1}, got labels up to "
            f"{summary.class_totals.size - 1}; labels count from 0, and num_outputs must be the "
            "number of classes"
        )
    scale = model.input_scale(summary.dtype)
    if problem.scale != scale:
        raise InputError(
            f"problem: expected scale {scale:g}, the model's factor for {summary.dtype}, "
            f"got {problem.scale:g}; pass scale=model.input_scale(X.dtype)"
        )


def begin(problem: FullBatch, solver: Solver, start: NDArray[Any]) -> lbfgs.State:
    """Return where to begin.

    It is the better of these parameters and zeros, moved by a brief fit on a part of the samples if
    that helps.
    """
    k, evaluate = len(start), problem.loss_and_grad
    at_start = evaluate(start)
    known: Evaluation | None = at_start
    loss, loss_at_zeros = at_start.loss, math.log(k)
    if not loss < loss_at_zeros and start.any():
        start, known, loss = np.zeros_like(start), None, loss_at_zeros
    if solver.begins_with_newton or solver.begins_in_span:
        centred = _centred(start)
        known = known if np.array_equal(centred, start) else None
        return lbfgs.begin(evaluate, centred, known, evaluations=2)
    starts_small = problem.summary.num_samples >= FEW_SAMPLES
    choice = problem.choose_preconditioner(k)
    begins_here = choice.is_at_zeros or (
        not starts_small and (choice.passes_without > 0 or choice.is_shared)
    )
    if begins_here:
        return lbfgs.begin(evaluate, start, known, evaluations=1 + (known is None))
    found, passes = _fit_part(problem, start)
    at_found = evaluate(found)
    if at_found.loss < loss:
        start, known = found, at_found
    return lbfgs.begin(evaluate, start, known, evaluations=2 + math.ceil(passes))


def _centred(theta: NDArray[Any]) -> NDArray[Any]:
    """Return parameters that sum to 0 over the classes, the same bits if they do up to rounding."""
    mean = theta.mean(axis=0)
    rounding = 4 * np.finfo(theta.dtype).eps * np.abs(theta).max(axis=0)
    return theta - np.where(np.abs(mean) > rounding, mean, 0)


def _fit_part(problem: FullBatch, theta: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Minimise briefly on a part of the samples; return the point, and the cost in full passes.

    There is no preconditioner, on purpose. The probabilities at ``theta`` say nothing yet, and a
    preconditioner made of them would move the weights far along directions in which the features
    hardly vary. On Fashion-MNIST, 13 passes lead from here to within 1e-3 of the optimum; from 0
    with the preconditioner, 80 do not.
    """
    n, d = problem.summary.num_samples, problem.summary.num_inputs
    count = max(n // 12, min(START_SAMPLES_PER_FEATURE * d, n // 6), MIN_START_SAMPLES)
    indices = draw_evenly(n, min(count, MAX_START_SAMPLES))
    part = problem.subset(indices)
    if part.summary.total == 0:
        return theta, 0.0
    x, history, _ = lbfgs.minimise(
        part.loss_and_grad, theta, tol=START_TOL, max_iterations=START_ITERATIONS
    )
    return x, history[-1].evaluations * indices.size / n


@dataclass(frozen=True)
class Optimum:
    """The result of training on all samples, and its distance from the optimum.

    Attributes
    ----------
    reason : str
        Why training ended, as in :class:`FullBatchTrainer`; "stopped" if it was interrupted.
    iterations, evaluations : int
        Iterations, and passes over the samples, which include the search for a starting point.
    objective : float
        Mean cross-entropy plus penalty.
    max_gradient, tol : float
        The largest entry of the objective's gradient in magnitude, and the tolerance for it.
    suboptimality : float
        Upper bound on the distance of the objective from its smallest value
        (:meth:`npsoftmax.objective.FullBatch.suboptimality`). If a feature has no penalty it is the
        objective itself, and says nothing.
    advice : str
        A hint if something needs attention, else empty.
    features : tuple of int
        If no optimum exists, the features that show it, if they are few or each shows it by itself.
    certificate : Certificate or None
        With ``until_final``, what is proved about the predictions.
    """

    reason: Reason
    iterations: int
    evaluations: int
    objective: float
    max_gradient: float
    tol: float
    suboptimality: float
    advice: str
    features: tuple[int, ...] = ()
    certificate: Certificate | None = None

    @property
    def converged(self) -> bool:
        """Whether the optimum was reached."""
        return self.reason == "converged"

    def __str__(self) -> str:
        """Format the line that training prints at its end."""
        state = "converged" if self.converged else "not converged"
        end = f"{'<=' if self.max_gradient <= self.tol else '>'} tol {self.tol:g}"
        if self.converged and self.max_gradient > self.tol:
            end = "in the units of the features, which do not matter here"
        # A bound close to the objective itself only repeats that no loss is negative.
        informative = self.suboptimality < self.objective / 2
        bound = f", at most {self.suboptimality:.1e} above the smallest" if informative else ""
        text = (
            f"{state} after {self.iterations} iterations, {self.evaluations} evaluations: "
            f"objective {self.objective:.8g}{bound}; max|gradient| {self.max_gradient:.1e} {end}"
        )
        if self.certificate is not None:
            text = f"{text}; {self.certificate.predictions}"
        return f"{text}; {self.advice}" if self.advice else text


MAX_NAMED = 3


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    others = f" and {len(names) - MAX_NAMED} others" * (len(names) > MAX_NAMED)
    return ", ".join(names[:MAX_NAMED]) + others


def _describe(separation: Separation | None, complete: bool, names: Sequence[str]) -> str:
    """Return what shows that there is no optimum."""
    right = "every training sample is classified correctly"
    if separation is None or (complete and not separation.features):
        return right
    groups = [_listed([names[label] for label in group]) for group in separation.groups]
    features = list(map(str, separation.features))
    by = f"feature{'s' * (len(features) > 1)} {_listed(features)}"
    if not features:
        by = "a sum of features with certain weights"
    verb = "separate" if len(features) > 1 else "separates"
    text = f"{by} {verb} class {' from '.join(groups)}"
    return f"{right} ({text})" if complete else text


def _advice(
    reason: Reason,
    *,
    separation: str,
    small: bool,
    max_iterations: int,
    dtype: np.dtype[Any],
    penalised: bool,
    missing: Sequence[str],
) -> str:
    """Return what a user should know, or the one change that helps; empty if all is well."""
    if reason == "separated":
        cause, way = "l2 is 0", "set l2 > 0"
        if penalised:
            cause, way = "some features have no penalty", "give them a penalty_factor > 0"
        return (
            f"{separation} and {cause}, so the optimum is at infinity and the weights depend on "
            f"where this stopped: {way}"
        )
    if reason == "iterations":
        return f"raise max_iterations, now {max_iterations}"
    if reason == "stopped":
        return "run again to continue"
    if reason == "rounding":
        wider = "use float64, " if dtype == np.float32 else ""
        ways = f"{wider}scale the features, or raise tol"
        if small:
            ways = f"{wider}subtract their means from the features, or scale them"
        return f"rounding errors hide any further descent: {ways}"
    if missing:
        return (
            f"no sample is of class {', '.join(missing)}: the bias has no optimum there, "
            "the probability goes to 0"
        )
    return ""
