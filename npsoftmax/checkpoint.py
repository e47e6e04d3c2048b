"""What a checkpoint holds, on disk and in memory, and what makes one unusable."""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs, storage
from npsoftmax.errors import CorruptFileError, InputError, ResumeWarning
from npsoftmax.history import EpochRecord, IterationRecord, Progress, rebuild
from npsoftmax.model import SoftmaxRegression

if TYPE_CHECKING:
    from npsoftmax.objective import SummedObjective
    from npsoftmax.optimisers import Optimiser

__all__ = [
    "Checkpoint",
    "KIND",
    "SolverState",
    "as_settings",
    "describe",
    "environment",
    "largest_checkpoint",
    "largest_file",
    "model_settings",
    "newest_usable",
    "problem_settings",
    "read_state",
    "refuse_other_arrays",
    "refuse_other_settings",
    "refuse_unusable_arrays",
    "verify_files",
    "warn_of_another",
]


# What the bits of a run depend on besides its settings and data.


def environment(threads: int | None = None) -> dict[str, Any]:
    """Return the machine's type, the NumPy build and the number of threads, as JSON holds them.

    The same product differs in its last bits from one of these to the other: OpenBLAS has other
    loops for each family of processors, and sums in another order with each number of threads.

    Parameters
    ----------
    threads : int, optional
        Those that share the work; else those of the BLAS.
    """
    from threadpoolctl import threadpool_info

    # The first that was loaded is NumPy's; SciPy may bring another.
    libraries = (lib for lib in threadpool_info() if lib["user_api"] == "blas")
    blas: dict[str, Any] = next(libraries, {})
    build = np.show_config(mode="dicts")
    return {
        "machine": f"{platform.machine()} {' '.join(build['SIMD Extensions']['found'])}".strip(),
        "numpy": np.__version__,
        "blas": f"{blas.get('internal_api')} {blas.get('version')} {blas.get('architecture')}",
        "threads": blas.get("num_threads") if threads is None else threads,
    }


def warn_of_another(there: Mapping[str, Any], here: Mapping[str, Any], source: object) -> None:
    """Warn, naming them, of the differences that keep a resumed run from being bit for bit."""
    differing = [
        f"{name} {there.get(name)!s:.32} there, {here.get(name)!s:.32} here"
        for name in here
        if there.get(name) != here.get(name)
    ]
    if differing:
        warnings.warn(
            f"{source} was written in another environment ({', '.join(differing)}); the run goes "
            "on, but not bit for bit",
            ResumeWarning,
            stacklevel=3,
        )


# What a checkpoint must agree in for a run to go on, as both trainers say it.


def model_settings(
    model: SoftmaxRegression, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return what tells models and the layout of their samples apart."""
    return {
        "theta": f"{model.theta.dtype} {model.theta.shape}",
        "pixel_scale": model.pixel_scale,
        "classes": model.classes,
        "samples": f"{dtype} {shape}",
    }


def problem_settings(problem: SummedObjective) -> dict[str, Any]:
    """Return what tells problems apart that have the same samples."""
    labels, weights = problem.digests
    return {"l2": problem.l2, "labels": labels, "weights": weights}


_OPTIMISER = "optimiser."
_HISTORY_BYTES = 20 * 2**20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Checkpoint:
    """Everything from which a run goes on bit for bit.

    Attributes
    ----------
    settings : mapping
        What the run that goes on must agree in, as JSON holds it.
    environment : mapping
        What it must agree in to go on bit for bit.
    theta : ndarray
        The parameters.
    state : mapping of str to ndarray
        The optimiser's arrays.
    progress : Progress
        Where training stands in the epoch under way.
    history : sequence of EpochRecord
        The finished epochs.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    theta: NDArray[Any]
    state: Mapping[str, NDArray[Any]]
    progress: Progress
    history: Sequence[EpochRecord]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint to ``path``, atomically, and keep the one before.

        Parameters
        ----------
        path : path
            The file; a whole one that stands there is kept as ``storage.previous(path)``.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        arrays = {_OPTIMISER + name: value for name, value in self.state.items()}
        metadata = {
            "settings": self.settings,
            "environment": self.environment,
            "progress": asdict(self.progress),
            "history": [asdict(record) for record in self.history],
        }
        content = {"theta": self.theta, **arrays}
        storage.write(path, "checkpoint", content, metadata, keep_previous=True)

    @classmethod
    def read(cls, path: str | os.PathLike[str], max_bytes: int = storage.MAX_BYTES) -> Checkpoint:
        """Read what :meth:`write` wrote.

        Parameters
        ----------
        path : path
            The file.
        max_bytes : int
            The largest file to accept.

        Returns
        -------
        Checkpoint

        Raises
        ------
        InputError
            The file does not exist or cannot be read.
        CorruptFileError
            It is damaged, not a checkpoint, or of another version.
        """
        arrays, metadata = storage.read(path, "checkpoint", max_bytes)
        try:
            theta = arrays.pop("theta")
            state = {name.removeprefix(_OPTIMISER): value for name, value in arrays.items()}
            if "theta" in state or not all(name.startswith(_OPTIMISER) for name in arrays):
                raise ValueError("arrays that are neither theta nor the optimiser's")
            progress = rebuild(Progress, metadata["progress"])
            if progress.num_seen < max(progress.num_correct, min(progress.step, 1)):
                raise ValueError(f"{progress.num_seen} samples in the epoch under way")
            checkpoint = cls(
                settings=dict(metadata["settings"]),
                environment=dict(metadata["environment"]),
                theta=theta,
                state=state,
                progress=progress,
                history=[rebuild(EpochRecord, record) for record in metadata["history"]],
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CorruptFileError(f"{path}: expected a checkpoint, got {error!r:.200}") from error
        checkpoint.refuse_incoherence(path)
        return checkpoint

    def refuse_incoherence(self, source: object) -> None:
        """Raise CorruptFileError unless the parts can belong to one run, whichever it is."""
        refuse_unusable_arrays({"theta": self.theta, **self.state}, source)
        progress, epochs = self.progress, [record.epoch for record in self.history]
        if progress.epoch != len(epochs) or epochs != list(range(1, len(epochs) + 1)):
            raise CorruptFileError(
                f"{source}: expected a place after the {len(epochs)} epochs of its history, "
                f"got epoch {progress.epoch}, and epochs {epochs[:5]}"
            )

    def refuse_misfit(
        self, theta: NDArray[Any], optimiser: Optimiser, num_steps: int, source: object
    ) -> None:
        """Raise CorruptFileError unless everything fits a run with this ``theta`` and optimiser."""
        self.refuse_incoherence(source)
        begun = self.progress.epoch > 0 or self.progress.step > 0
        expected = {"theta": theta}
        if begun:
            expected.update(_state_after_one_step(theta, optimiser))
        refuse_other_arrays({"theta": self.theta, **self.state}, expected, source)
        if self.progress.step > num_steps:
            raise CorruptFileError(
                f"{source}: expected a place in an epoch of {num_steps} steps, "
                f"got step {self.progress.step}"
            )


def _state_after_one_step(theta: NDArray[Any], optimiser: Optimiser) -> dict[str, NDArray[Any]]:
    trial = copy.deepcopy(optimiser)
    trial.load_state({})
    trial.update(np.zeros_like(theta), np.zeros_like(theta))
    return trial.state


def newest_usable(path: str | os.PathLike[str], load: Callable[[Path], Result]) -> Result:
    """Return what ``load`` makes of the checkpoint, or of the one before if it is damaged.

    Parameters
    ----------
    path : path
        The newest checkpoint.
    load : callable
        Reads one.

    Returns
    -------
    object

    Raises
    ------
    InputError, CorruptFileError
        What ``load`` raises for the newest checkpoint if it is whole, or if there is none before;
        else what it raises for the one before.

    Warns
    -----
    ResumeWarning
        The newest one is damaged or missing, and the one before is taken.
    """
    try:
        return load(Path(path))
    except (InputError, CorruptFileError) as error:
        earlier = storage.previous(path)
        if storage.is_whole(path) or not os.path.exists(earlier):
            raise
        try:
            result = load(earlier)
        except CorruptFileError as second:
            raise CorruptFileError(f"{error}; nor is the one before of use: {second}") from error
        warnings.warn(f"{error}; going on from {earlier}", ResumeWarning, stacklevel=3)
        return result


def largest_checkpoint(theta: NDArray[Any], optimiser: Optimiser) -> int:
    """Return how large the checkpoint of a run may be, in bytes."""
    return largest_file([theta, *_state_after_one_step(theta, optimiser).values()])


def largest_file(arrays: Iterable[NDArray[Any]]) -> int:
    """Return how large a checkpoint of such arrays may be, in bytes, its history included."""
    return sum(array.nbytes for array in arrays) + _HISTORY_BYTES


def as_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file gives them back: JSON turns tuples into lists."""
    try:
        return dict(json.loads(json.dumps(settings, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"identity: expected what JSON can hold, got {error}") from error


def refuse_other_settings(
    there: Mapping[str, Any], here: Mapping[str, Any], source: object
) -> None:
    """Raise InputError, naming them, where the settings are not those of the run."""
    differing = ", ".join(
        f"{name if name in here else repr(name)[:80]} "
        f"{there.get(name)!r:.80} there, {here.get(name)!r:.80} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    )
    if differing:
        raise InputError(
            f"{source}: expected the settings of this run, got others: {differing:.300}; "
            "resume with the settings of the checkpoint, or start a new run"
        )


def refuse_unusable_arrays(arrays: Mapping[str, NDArray[Any]], source: object) -> None:
    """Raise CorruptFileError unless ``theta`` is ``(k, d+1)`` of floats, and all is finite."""
    theta = arrays["theta"]
    fits = theta.ndim == 2 and theta.shape[0] > 0 and theta.shape[1] > 1
    if not fits or theta.dtype not in (np.float32, np.float64):
        raise CorruptFileError(
            f"{source}: expected theta of shape (k, d+1) in float32 or float64, got "
            f"{theta.dtype}{theta.shape}"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CorruptFileError(f"{source}: expected finite numbers, got NaN or infinities")


def refuse_other_arrays(
    found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], source: object
) -> None:
    """Raise CorruptFileError unless names, shapes and dtypes are as expected."""
    wanted, got = _layout(expected), _layout(found)
    if wanted != got:
        raise CorruptFileError(f"{source}: expected the arrays {wanted!s:.200}, got {got!s:.200}")


def _layout(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {name: f"{array.dtype}{array.shape}" for name, array in sorted(arrays.items())}


# A minimisation under way as a checkpoint file, and back.

KIND = "checkpoint of the lbfgs solver"

Pairs = list[tuple[NDArray[Any], NDArray[Any]]]


@dataclass(frozen=True)
class SolverState:
    """All that a minimisation needs to go on bit for bit.

    Attributes
    ----------
    settings, environment : mapping
        As in :class:`npsoftmax.checkpoint.Checkpoint`.
    x, pairs, anchor
        As in :class:`npsoftmax.lbfgs.State`; its gradient is computed anew.
    history : sequence of IterationRecord
        The start and each iteration.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    x: NDArray[Any]
    pairs: Pairs
    anchor: NDArray[Any] | None
    history: Sequence[IterationRecord]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the state to ``path``, atomically, and keep the one before."""
        arrays = {"theta": self.x}
        if self.anchor is not None:
            arrays["anchor"] = self.anchor
        for number, (step, change) in enumerate(self.pairs):
            arrays |= {f"step.{number}": step, f"change.{number}": change}
        metadata = {
            "settings": self.settings,
            "environment": self.environment,
            "history": [asdict(record) for record in self.history],
        }
        storage.write(path, KIND, arrays, metadata, keep_previous=True)

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], max_bytes: int = storage.MAX_BYTES
    ) -> "SolverState":
        """Read what :meth:`write` wrote, or raise CorruptFileError."""
        arrays, metadata = storage.read(path, KIND, max_bytes)
        try:
            history = [rebuild(IterationRecord, record) for record in metadata["history"]]
            settings, environment = dict(metadata["settings"]), dict(metadata["environment"])
            refuse_unusable_arrays(arrays, path)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, CorruptFileError):
                raise
            raise CorruptFileError(f"{path}: expected a {KIND}, got {error!r:.200}") from error
        numbers = [record.iteration for record in history]
        if not numbers or numbers != list(range(len(numbers))):
            raise CorruptFileError(
                f"{path}: expected a history of iterations 0, 1, ..., got {numbers[:5]}"
            )
        pairs = _pairs(arrays, path)
        columns = {name: np.asfortranarray(array) for name, array in arrays.items()}
        return cls(settings, environment, columns["theta"], pairs, columns.get("anchor"), history)


def read_state(
    path: Path,
    settings: Mapping[str, Any],
    theta: NDArray[Any],
    value_and_grad: Callable[[NDArray[Any]], tuple[float, NDArray[Any]]],
) -> tuple[SolverState, lbfgs.State]:
    """Read the state of a run with these settings and such a ``theta``.

    The gradient is computed anew, and the objective with it, which tells parameters of another
    run.
    """
    saved = SolverState.read(path, largest_file([theta] * (2 * lbfgs.MEMORY + 2)))
    refuse_other_settings(saved.settings, settings, path)
    refuse_other_arrays({"theta": saved.x}, {"theta": theta}, path)
    value, grad = value_and_grad(saved.x)
    last = saved.history[-1]
    if not math.isclose(value, last.objective, rel_tol=1e-5):
        raise CorruptFileError(
            f"{path}: expected parameters with the objective {last.objective} of its history, "
            f"got {value}"
        )
    lines = [_iteration(record) for record in saved.history]
    return saved, lbfgs.State(saved.x, grad, lines, saved.pairs, saved.anchor)


def _pairs(arrays: Mapping[str, NDArray[Any]], path: object) -> Pairs:
    """Return the solver's memory, once all arrays have been checked."""
    count = sum(name.startswith("step.") for name in arrays)
    names = [f"{kind}.{number}" for number in range(count) for kind in ("step", "change")]
    names += ["theta"] + ["anchor"] * ("anchor" in arrays)
    refuse_other_arrays(arrays, dict.fromkeys(names, arrays["theta"]), path)
    columns = {name: np.asfortranarray(array) for name, array in arrays.items()}
    pairs = [(columns[f"step.{n}"], columns[f"change.{n}"]) for n in range(count)]
    if count > lbfgs.MEMORY or not all(lbfgs.is_usable(*pair) for pair in pairs):
        raise CorruptFileError(
            f"{path}: expected at most {lbfgs.MEMORY} pairs of positive curvature, got {count}, "
            "or others"
        )
    return pairs


def _iteration(record: IterationRecord) -> lbfgs.Iteration:
    return lbfgs.Iteration(
        record.iteration, record.objective, record.max_gradient, record.step, record.evaluations
    )


def describe(path: str) -> str:
    """Return what a file is and holds, or raise what is wrong with it.

    The seal, the version, the names, shapes and dtypes of the arrays, and whether the numbers can
    belong together are checked by what reads such a file for use.
    """
    kind = storage.kind_of(path)
    if kind == "model":
        return f"a model, {SoftmaxRegression.load(path)!r}"
    if kind == "checkpoint":
        saved = Checkpoint.read(path)
        place = f"{saved.progress.epoch} epochs and {saved.progress.step} steps"
        return f"a checkpoint after {place}: {_layout_of({'theta': saved.theta, **saved.state})}"
    if kind == KIND:
        state = SolverState.read(path)
        iterations = state.history[-1].iteration
        return f"a {kind} after {iterations} iterations: {_layout_of({'theta': state.x})}"
    raise CorruptFileError(f"{path}: expected a model or a checkpoint, got a {kind:.80}")


def _layout_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    text = ", ".join(f"{name} {array.dtype}{array.shape}" for name, array in arrays.items())
    return f"{text:.400}"


def _printable(text: str) -> str:
    # A file may have put words into it, its name too, and terminals obey control characters.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def verify_files(argv: Sequence[str] | None = None) -> int:
    """Describe each file on a line; return 4 if one is damaged, 2 if one cannot be read, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m npsoftmax.storage",
        description="Verify models and checkpoints that npsoftmax wrote.",
        epilog="Exit codes: 0 all are whole, 2 one cannot be read, 4 one is damaged.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    codes = [0]
    for path in parser.parse_args(argv).files:
        try:
            print(_printable(f"{path}: {describe(path)}"))
        except (InputError, CorruptFileError) as error:
            print(_printable(str(error)), file=sys.stderr)
            codes.append(error.exit_code)
    return max(codes)
