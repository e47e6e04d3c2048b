"""Optima for a grid of penalties, compared on held-out samples."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import (
    as_count,
    as_grid,
    as_size,
    as_weights,
    check_pixels,
)
from npsoftmax._threads import blas_threads
from npsoftmax.checkpoint import (
    PathCheckpoint,
    as_settings,
    environment,
    model_settings,
    newest_usable,
    read_path_checkpoint,
    warn_if_environment_differs,
)
from npsoftmax.continuation import Fitted, Follower, Preconditioner
from npsoftmax.data.labelled import digest
from npsoftmax.errors import InputError
from npsoftmax.files import quoted
from npsoftmax.objective import FullBatch
from npsoftmax.optimum import check_problem, problem_of
from npsoftmax.storage import previous
from npsoftmax.validation import (
    Fold,
    Held,
    Measures,
    as_folds,
    as_held_out,
    check_callers,
    check_classes,
    check_number,
    digest_of,
    mean_of_folds,
    measure,
    weighted,
)

if TYPE_CHECKING:
    from npsoftmax.model import SoftmaxRegression

__all__ = ["PathRecord", "PenaltyPath", "fit_path"]


def fit_path(
    model: SoftmaxRegression,
    X: ArrayLike,
    y: ArrayLike,
    *,
    l2: ArrayLike,
    held_out: tuple[ArrayLike, ArrayLike] | None = None,
    folds: int | Iterable[Any] | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
    penalty_factor: ArrayLike | None = None,
    gap: float = 1e-4,
    max_iterations: int = 1000,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    on_value: Callable[[PathRecord], object] | None = None,
) -> PenaltyPath:
    r"""Train a model to the optimum for each value of the penalty, and compare the values.

    The fits run from the largest value to the smallest. Each begins where the last two point, with
    what L-BFGS has learned, and ends when its distance from the smallest objective is proved to be
    small:

    .. math:: J(\theta) - \min J \;\le\; \text{gap} \cdot J(\theta)

    So a grid takes a fraction of the time of as many calls of :func:`npsoftmax.fit`.

    Parameters
    ----------
    model : SoftmaxRegression
        At the end, its ``theta`` is that of the fit on all of ``X`` at the best value. Without
        held-out samples it is that of the smallest value.
    X, y, sample_weight, class_weight, penalty_factor, threads
        As for :func:`npsoftmax.fit`.
    l2 : array_like
        The values, positive, in ascending or descending order.
    held_out : (array_like, array_like), optional
        ``X_val (d, m)`` and ``y_val (m,)``, which were not trained on, to compare the values on.
        All count equally.
    folds : int or iterable of (array_like, array_like), optional
        Instead: the number of parts of ``X``, each with its share of each class. Each is held out
        from a fit on the others, whose samples are copied. Or pairs of the indices to train on and
        to hold out, as ``cv.split`` of scikit-learn yields. The held-out loss is the mean over the
        folds, and that of a fold is the mean over its held-out samples by their ``sample_weight``.
        ``class_weight`` is for training alone.
    gap : float
        The proved distance from the smallest objective, relative to the objective, at which a fit
        ends. Small problems, which Newton's method solves, end when no logit changes any more. If
        a feature has no penalty nothing is proved, and a fit ends as :func:`npsoftmax.fit` does.
    max_iterations : int
        The largest number of iterations of each fit.
    seed : int
        Of the order in which the samples of a class are shared among ``folds``.
    checkpoint : path, optional
        File that is written after each value; the one before is kept as ``storage.previous`` of
        it. If there is one of them, the path goes on from there, to the same bits. Data and
        settings must be the same. The grid may go on with other values below those that are done,
        and ``max_iterations`` and ``threads`` may change. Values that are done stay
        as they are, also those that ended at the old ``max_iterations``; to fit these again, delete
        both files.
    on_value : callable, optional
        Called with the record of each value, after its fit.

    Returns
    -------
    PenaltyPath
        A record for each value, the best one, and a hint if something needs attention. ``best``
        raises InputError without held-out samples.

    Examples
    --------
    >>> import numpy as np
    >>> from npsoftmax import SoftmaxRegression
    >>> X, y = np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1]
    >>> model = SoftmaxRegression(1, 2, dtype=np.float64)
    >>> path = fit_path(model, X, y, l2=[1.0, 0.1, 0.01], held_out=([[-3.0, 3.0]], [0, 1]))
    >>> print(*path.records, sep="\n")
    l2=1 | objective=0.665261 | gap=... | held_out_loss=0.4126 | accuracy=1.0000
    l2=0.1 | objective=0.645986 | gap=... | held_out_loss=0.2743 | accuracy=1.0000
    l2=0.01 | objective=0.642390 | gap=... | held_out_loss=0.2525 | accuracy=1.0000
    >>> path.best.l2, path.advice
    (0.01, 'the best l2, 0.01, is the smallest of the grid: add smaller ones')
    """
    check_callers(checkpoint, on_value)
    values = as_grid(l2, "l2")
    first = float(values.max())
    problem = problem_of(model, X, y, first, sample_weight, class_weight, penalty_factor, threads)
    check_problem(model, problem)
    if model.features is None:
        check_pixels(model, problem.summary.range)
    gap = as_size(gap, "gap", positive=True)
    path = _Path(model, problem, gap, as_count(max_iterations, "max_iterations"))
    if held_out is not None and folds is not None:
        raise InputError("held_out: expected it without folds, got both; leave one out")
    if held_out is not None:
        path.hold_out(as_held_out(model, held_out, threads))
    if folds is not None:
        y = problem.samples.y
        weights = None if sample_weight is None else as_weights(sample_weight, y.size)
        path.fold(as_folds(folds, y, as_count(seed, "seed", minimum=0)), weights)
    path.run(np.sort(values)[::-1].tolist(), checkpoint, on_value)
    model.theta[...] = path.theta
    records = {record.l2: record for record in path.records}
    return PenaltyPath(
        [records[value] for value in values.tolist()],
        str(model.theta.dtype),
        tuple(model.classes[each] for each in problem.summary.missing_classes(model.num_outputs)),
    )


class _Path:
    """A path that may stop after any value and go on from there."""

    def __init__(
        self, model: SoftmaxRegression, problem: FullBatch, gap: float, max_iterations: int
    ) -> None:
        self.model, self.problem, self.gap, self.max_iterations = (
            model,
            problem,
            gap,
            max_iterations,
        )
        self.shared = Preconditioner(problem)
        self.followers = [Follower(problem, self.shared)]
        self.held: list[Held] = []  # what measures the last of the followers
        self.trained: list[NDArray[np.intp]] = []  # on which parts of the samples these are fitted
        self.records: list[PathRecord] = []
        self.theta: NDArray[Any] = np.zeros_like(model.theta, order="F")

    def hold_out(self, held: Held) -> None:
        """Measure the fit on these samples."""
        _, _, trained, weights = self.problem.samples
        check_classes("held_out", held.y, trained, weights, self.model.classes)
        self.held = [held]

    def fold(self, folds: Sequence[Fold], counted: NDArray[np.float64] | None) -> None:
        """Measure fits on parts of the samples, each on other samples, by these weights."""
        samples = self.problem.samples
        if counted is not None:
            folds = [Fold(train, weighted(test, counted)) for train, test in folds]
        for train, test in folds:
            weights = None if samples.weights is None else samples.weights[train]
            check_classes("folds", samples.y[test], samples.y[train], weights, self.model.classes)
        for train, test in folds:
            self.trained.append(train)
            self.followers.append(Follower(self.problem.subset(train), self.shared))
            _, X, y, _ = samples.take(test, 0)
            weights = None if counted is None else counted[test]
            self.held.append(Held(X, y, self.problem.scale, weights))
        check_number("folds", self.held)

    def run(
        self,
        values: Sequence[float],
        checkpoint: str | os.PathLike[str] | None,
        on_value: Callable[[PathRecord], object] | None,
    ) -> None:
        """Fit descending values, except those that the checkpoint has."""
        if checkpoint is not None:
            settings = self._settings()
            self._resume(checkpoint, settings, values)
        for l2 in values[len(self.records) :]:
            with blas_threads(1):  # besides those of the problems
                self._fit(l2)
            if checkpoint is not None:
                self._save(checkpoint, settings)
            if on_value is not None:
                on_value(self.records[-1])

    def _fit(self, l2: float) -> None:
        """Fit all problems for the next value, and measure."""
        clock = perf_counter()
        start, fits = np.zeros_like(self.theta), list[Fitted]()
        for follower in self.followers:
            fits.append(follower.follow(l2, self.gap, self.max_iterations, start))
            start = fits[0].theta
        measures = [
            measure(fit.theta, *held)
            for fit, held in zip(fits[-len(self.held) :], self.held, strict=False)
        ]
        record = _record(l2, fits, measures, perf_counter() - clock)
        self.records.append(record)
        if not measures or _best(self.records) is record:
            self.theta = fits[0].theta

    def _settings(self) -> dict[str, Any]:
        """Return what a checkpoint must have in common with the path."""
        _, X, y, weights = self.problem.samples
        return as_settings(
            {
                **model_settings(self.model, self.problem.summary.dtype, X.shape),
                "penalty_factor": digest(np.asarray(self.problem.with_l2(1.0).penalty), y[:0]),
                "gap": self.gap,
                "folds": len(self.trained),
                "training data": digest_of([Held(X, y, self.problem.scale, weights)]),
                "held-out samples or folds (seed)": digest_of(self.held, self.trained),
            }
        )

    def _environment(self) -> dict[str, Any]:
        return {**environment(self.problem.threads), "samples": self.problem.place}

    def _save(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        arrays, shared = self.shared.pack()
        arrays["theta"], followers = self.theta, []
        for number, follower in enumerate(self.followers):
            own, state = follower.pack(f"fit.{number}")
            arrays |= own
            followers.append(state)
        records = [asdict(record) for record in self.records]
        state = {"records": records, "shared": shared, "followers": followers}
        PathCheckpoint(settings, self._environment(), arrays, state).write(path)

    def _resume(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        values: Sequence[float],
    ) -> None:
        """Go on from a checkpoint whose values are the first of these, or write the first one."""
        files = [quoted(file) for file in (path, previous(path)) if os.path.exists(file)]
        if not files:
            self._save(path, settings)
            return
        way = f"name another file, or delete {' and '.join(files)}"

        def load(file: Path) -> PathCheckpoint:
            saved = read_path_checkpoint(file, settings, self.theta, self._restore, way)
            for number, record in enumerate(self.records):
                here = values[number] if number < len(values) else None
                if record.l2 != here:
                    raise InputError(
                        f"{quoted(file)}: expected the settings of this run, got others: value "
                        f"{number + 1} of l2 is {record.l2!r} there, "
                        f"{'none' if here is None else here} here, from the largest on; "
                        f"resume with the settings of the checkpoint, or {way}"
                    )
            return saved

        saved = newest_usable(path, load)
        warn_if_environment_differs(saved.environment, self._environment(), path)

    def _restore(self, saved: PathCheckpoint) -> None:
        arrays, state = saved.arrays, saved.state
        self.shared.unpack(arrays, state["shared"])
        for number, follower in enumerate(self.followers):
            follower.unpack(f"fit.{number}", arrays, state["followers"][number])
        self.theta = arrays["theta"]
        self.records = [_rebuild(record) for record in state["records"]]


def _record(
    l2: float, fits: Sequence[Fitted], measures: Sequence[Measures], seconds: float
) -> PathRecord:
    whole = fits[0]
    fitted: dict[str, Any] = {
        "l2": l2,
        "objective": whole.objective,
        "suboptimality": whole.bound,
        "train_loss": whole.crossentropy,
        "evaluations": sum(fit.evaluations for fit in fits),
        "seconds": seconds,
        "converged": all(fit.reason == "converged" for fit in fits),
        "reason": next((fit.reason for fit in fits if fit.reason != "converged"), "converged"),
    }
    if not measures:
        return PathRecord(**fitted)
    mean, is_one = mean_of_folds(measures), len(fits) == 1
    return PathRecord(
        **fitted,
        held_out_loss=mean.loss,
        held_out_error=mean.error,
        accuracy=mean.accuracy,
        top5=mean.top5,
        calibration_error=mean.calibration_error,
        fold_losses=() if is_one else tuple(each.loss for each in measures),
        fold_accuracies=() if is_one else tuple(each.accuracy for each in measures),
    )


def _best(records: Sequence[PathRecord]) -> PathRecord:
    """Return the record with the smallest held-out loss, the largest penalty on a tie."""
    return min(records, key=lambda record: (_loss(record), -record.l2))


def _loss(record: PathRecord) -> float:
    return math.inf if record.held_out_loss is None else record.held_out_loss


def _rebuild(values: Mapping[str, Any]) -> PathRecord:
    """Return a record from the values of a file."""
    folds = {name: tuple(values[name]) for name in ("fold_losses", "fold_accuracies")}
    return PathRecord(**{**values, **folds})


@dataclass(frozen=True, repr=False)
class PathRecord:
    """The fit at one value of the penalty, and what it is worth on held-out samples.

    Without held-out samples the fields from ``held_out_loss`` on are None or empty.

    Attributes
    ----------
    l2 : float
        The value.
    objective, suboptimality : float
        Mean cross-entropy plus penalty of the fit on all samples, and an upper bound on its
        distance from the smallest value (:meth:`npsoftmax.objective.FullBatch.suboptimality`).
    train_loss : float
        The objective without the penalty.
    evaluations : int
        Passes over the samples, and with folds those of all folds.
    seconds : float
        What the value has taken.
    converged : bool
        Whether each fit has reached the gap.
    held_out_loss, held_out_error : float
        Mean cross-entropy of the held-out samples, in nats, and its standard error: from the
        differences between samples, or between folds.
    accuracy, top5 : float
        The shares of held-out samples whose label is the most likely class, or among the five most
        likely ones.
    calibration_error : float
        As in :func:`npsoftmax.metrics.expected_calibration_error`, for all held-out samples
        together.
    fold_losses, fold_accuracies : tuple of float
        Those of each fold. Their means are ``held_out_loss`` and ``accuracy``.
    reason : str
        Why a fit has ended without the gap, "iterations", "rounding" or "separated" as in
        :class:`npsoftmax.FullBatchTrainer`; else "converged".
    """

    l2: float
    objective: float
    suboptimality: float
    train_loss: float
    evaluations: int
    seconds: float
    converged: bool
    held_out_loss: float | None = None
    held_out_error: float | None = None
    accuracy: float | None = None
    top5: float | None = None
    calibration_error: float | None = None
    fold_losses: tuple[float, ...] = ()
    fold_accuracies: tuple[float, ...] = ()
    reason: str = "converged"

    def __str__(self) -> str:
        """Format the record as a line."""
        text = f"l2={self.l2:g} | objective={self.objective:.6f} | gap={self.suboptimality:.1e}"
        if self.held_out_loss is not None:
            text += f" | held_out_loss={self.held_out_loss:.4f} | accuracy={self.accuracy:.4f}"
        return text if self.converged else f"{text} | not converged: {self.reason}"

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True)
class PenaltyPath:
    """The result of :func:`fit_path`.

    Attributes
    ----------
    records : list of PathRecord
        One for each value, in the order of the grid.
    dtype : str
        That of the parameters.
    missing : tuple of str
        The classes without samples to train on.

    Examples
    --------
    The smallest loss is that of 0.1. The loss of 1 is not clearly larger:

    >>> fitted = dict.fromkeys(["objective", "suboptimality", "train_loss", "seconds"], 0.0)
    >>> losses = {10.0: 0.7, 1.0: 0.52, 0.1: 0.5, 0.01: 0.6}
    >>> path = PenaltyPath([
    ...     PathRecord(l2, evaluations=1, converged=True, held_out_loss=loss, held_out_error=0.03,
    ...                **fitted)
    ...     for l2, loss in losses.items()
    ... ])
    >>> path.best.l2, path.one_standard_error.l2
    (0.1, 1.0)
    """

    records: list[PathRecord]
    dtype: str = "float64"
    missing: tuple[str, ...] = ()

    @property
    def best(self) -> PathRecord:
        """The record with the smallest held-out loss, that with the largest ``l2`` on a tie."""
        if self.records[0].held_out_loss is None:
            raise InputError(
                "best: expected a path with held-out samples, got one without; pass held_out or "
                "folds to fit_path"
            )
        return _best(self.records)

    @property
    def one_standard_error(self) -> PathRecord:
        """The record with the largest ``l2`` whose loss is at most a standard error above the best.

        Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3.
        """
        best = self.best
        most = _loss(best) + (best.held_out_error or 0.0)
        return max((r for r in self.records if _loss(r) <= most), key=attrgetter("l2"))

    @property
    def advice(self) -> str:
        """A hint if something needs attention, else empty."""
        advice = []
        ways = {
            "iterations": "raise max_iterations",
            "rounding": "rounding errors hide the rest: "
            + ("use a model of float64, " if self.dtype == "float32" else "")
            + "leave out the smallest values, or scale the features",
            "separated": "features without a penalty separate classes, give them one",
        }
        for reason in dict.fromkeys(r.reason for r in self.records if not r.converged):
            failed = [record.l2 for record in self.records if record.reason == reason]
            advice.append(
                f"{len(failed)} of {len(self.records)} values did not reach the gap, the first at "
                f"l2={failed[0]:g}: {ways[reason]}"
            )
        if self.missing:
            advice.append(
                f"no sample is of class {', '.join(self.missing)}: the bias has no optimum there, "
                "the probability goes to 0"
            )
        values = sorted(record.l2 for record in self.records)
        if self.records[0].held_out_loss is not None and len(values) > 1:
            ends = {values[0]: "smallest", values[-1]: "largest"}
            if (best := self.best.l2) in ends:
                end, more = ends[best], "smaller" if best == values[0] else "larger"
                advice.append(f"the best l2, {best:g}, is the {end} of the grid: add {more} ones")
        return "; ".join(advice)

    def plot(self, ax: Any = None) -> Any:
        """Draw the path on matplotlib Axes, new ones by default (:func:`npsoftmax.ext.plots.path`).

        Returns the Axes.
        """
        # The core never imports what is outside; this looks it up when somebody asks.
        return import_module("npsoftmax.ext.plots").path(self, ax)

    def to_json(self) -> str:
        """Return the records, the two choices and the advice as JSON."""
        content: dict[str, Any] = {"records": [asdict(record) for record in self.records]}
        if self.records[0].held_out_loss is not None:
            content |= {"best": self.best.l2, "one_standard_error": self.one_standard_error.l2}
        return json.dumps({**content, "advice": self.advice})
