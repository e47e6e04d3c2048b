"""Checkpoints of both trainers and of paths: writing, reading, and checking that they fit a run.

A checkpoint is a sealed archive (:mod:`npsoftmax.storage`). It holds the settings that a run must
have in common with it to resume at all, and the environment that must be the same to resume bit for
bit.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs, storage
from npsoftmax._threads import numpys_blas
from npsoftmax.errors import CorruptFileError, InputError, ResumeWarning
from npsoftmax.features import digest
from npsoftmax.files import quoted
from npsoftmax.history import EpochRecord, IterationRecord, Progress, rebuild
from npsoftmax.model import SoftmaxRegression

if TYPE_CHECKING:
    from npsoftmax.optimisers import Optimiser

__all__ = [
    "Checkpoint",
    "PathCheckpoint",
    "SolverCheckpoint",
    "as_settings",
    "check_settings",
    "environment",
    "max_checkpoint_bytes",
    "model_settings",
    "newest_usable",
    "read_path_checkpoint",
    "read_solver_checkpoint",
    "verify_files",
    "warn_if_environment_differs",
]

KIND, SOLVER_KIND = "checkpoint", "checkpoint of the lbfgs solver"
PATH_KIND = "checkpoint of a path"
MAX_HISTORY_BYTES = 20 * 2**20
OPTIMISER_PREFIX = "optimiser."

Arrays = Mapping[str, NDArray[Any]]
Pairs = list[tuple[NDArray[Any], NDArray[Any]]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a minibatch run needs to resume bit for bit.

    ``state`` holds the optimiser's arrays, ``history`` the finished epochs.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    theta: NDArray[Any]
    state: Arrays
    progress: Progress
    history: Sequence[EpochRecord]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint atomically; an intact older one is kept (``storage.previous``)."""
        arrays = {OPTIMISER_PREFIX + name: value for name, value in self.state.items()}
        metadata = {
            "settings": self.settings,
            "environment": self.environment,
            "progress": asdict(self.progress),
            "history": [asdict(record) for record in self.history],
        }
        storage.write(path, KIND, {"theta": self.theta, **arrays}, metadata, keep_previous=True)

    @classmethod
    def read(cls, path: str | os.PathLike[str], max_bytes: int = storage.MAX_BYTES) -> Checkpoint:
        """Read a checkpoint of at most ``max_bytes`` that :meth:`write` wrote."""
        arrays, metadata = storage.read(path, KIND, max_bytes)
        with _malformed_is_corrupt(path, KIND):
            theta = arrays.pop("theta")
            state = {name.removeprefix(OPTIMISER_PREFIX): value for name, value in arrays.items()}
            if "theta" in state or not all(name.startswith(OPTIMISER_PREFIX) for name in arrays):
                raise ValueError("arrays that are neither theta nor the optimiser's")
            progress = rebuild(Progress, metadata["progress"])
            if progress.num_seen < max(progress.num_correct, min(progress.step, 1)):
                raise ValueError(f"{progress.num_seen} samples in the current epoch")
            checkpoint = cls(
                settings=dict(metadata["settings"]),
                environment=dict(metadata["environment"]),
                theta=theta,
                state=state,
                progress=progress,
                history=[rebuild(EpochRecord, record) for record in metadata["history"]],
            )
        checkpoint.check(path)
        return checkpoint

    def check(self, source: object) -> None:
        """Raise CorruptFileError unless the parts can belong to one run."""
        _check_theta_and_finite({"theta": self.theta, **self.state}, source)
        progress, epochs = self.progress, [record.epoch for record in self.history]
        if progress.epoch != len(epochs) or epochs != list(range(1, len(epochs) + 1)):
            raise CorruptFileError(
                f"{source}: expected a position after the {len(epochs)} epochs of its history, "
                f"got epoch {progress.epoch}, and epochs {epochs[:5]}"
            )

    def check_run(
        self, theta: NDArray[Any], optimiser: Optimiser, num_steps: int, source: object
    ) -> None:
        """Raise CorruptFileError unless this fits a run with this ``theta`` and optimiser."""
        begun = self.progress.epoch > 0 or self.progress.step > 0
        expected = {"theta": theta}
        if begun:
            expected.update(_state_after_one_step(theta, optimiser))
        _check_layout({"theta": self.theta, **self.state}, expected, source)
        if self.progress.step > num_steps:
            raise CorruptFileError(
                f"{source}: expected a position in an epoch of {num_steps} steps, "
                f"got step {self.progress.step}"
            )


def _state_after_one_step(theta: NDArray[Any], optimiser: Optimiser) -> dict[str, NDArray[Any]]:
    """Return arrays of the names and shapes that the optimiser's state will have."""
    trial = copy.deepcopy(optimiser)
    trial.load_state({})
    trial.update(np.zeros_like(theta), np.zeros_like(theta))
    return trial.state


def max_checkpoint_bytes(theta: NDArray[Any], optimiser: Optimiser) -> int:
    """Return the largest size that the checkpoint of a run can have."""
    return _max_file_bytes([theta, *_state_after_one_step(theta, optimiser).values()])


def _max_file_bytes(arrays: Iterable[NDArray[Any]]) -> int:
    return sum(array.nbytes for array in arrays) + MAX_HISTORY_BYTES


@dataclass(frozen=True)
class SolverCheckpoint:
    """Everything that a run of the L-BFGS solver needs to resume bit for bit.

    ``x``, ``pairs`` and ``anchor`` are those of :class:`npsoftmax.lbfgs.State`. Its gradient is not
    stored but computed again.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    x: NDArray[Any]
    pairs: Pairs
    anchor: NDArray[Any] | None
    history: Sequence[IterationRecord]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint, as :meth:`Checkpoint.write` does."""
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
        storage.write(path, SOLVER_KIND, arrays, metadata, keep_previous=True)

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], max_bytes: int = storage.MAX_BYTES
    ) -> SolverCheckpoint:
        """Read a checkpoint of at most ``max_bytes`` that :meth:`write` wrote."""
        arrays, metadata = storage.read(path, SOLVER_KIND, max_bytes)
        with _malformed_is_corrupt(path, SOLVER_KIND):
            history = [rebuild(IterationRecord, record) for record in metadata["history"]]
            settings, environment = dict(metadata["settings"]), dict(metadata["environment"])
            _check_theta_and_finite(arrays, path)
        numbers = [record.iteration for record in history]
        if not numbers or numbers != list(range(len(numbers))):
            raise CorruptFileError(
                f"{quoted(path)}: expected a history of iterations 0, 1, ..., got {numbers[:5]}"
            )
        columns = {name: np.asfortranarray(array) for name, array in arrays.items()}
        pairs = _take_pairs(columns, path)
        return cls(settings, environment, columns["theta"], pairs, columns.get("anchor"), history)


def _take_pairs(arrays: Arrays, source: object) -> Pairs:
    """Return the solver's memory, checked."""
    count = sum(name.startswith("step.") for name in arrays)
    names = [f"{kind}.{number}" for number in range(count) for kind in ("step", "change")]
    names += ["theta"] + ["anchor"] * ("anchor" in arrays)
    _check_layout(arrays, dict.fromkeys(names, arrays["theta"]), source)
    pairs = [(arrays[f"step.{n}"], arrays[f"change.{n}"]) for n in range(count)]
    if count > lbfgs.MEMORY or not all(lbfgs.is_usable(*pair) for pair in pairs):
        raise CorruptFileError(
            f"{source}: expected at most {lbfgs.MEMORY} pairs of positive curvature, got {count}, "
            "or others"
        )
    return pairs


def read_solver_checkpoint(
    path: Path,
    settings: Mapping[str, Any],
    theta: NDArray[Any],
    value_and_grad: lbfgs.ValueAndGrad,
) -> tuple[SolverCheckpoint, lbfgs.State]:
    """Read the checkpoint of a run with these settings, and the solver's state.

    The objective is computed again. If it differs from the one in the history, the data, labels or
    weights are not those of the run.
    """
    saved = SolverCheckpoint.read(path, _max_file_bytes([theta] * (2 * lbfgs.MEMORY + 2)))
    check_settings(saved.settings, settings, path)
    _check_layout({"theta": saved.x}, {"theta": theta}, path)
    value, grad, *aux = value_and_grad(saved.x)
    last = saved.history[-1]
    # Another machine may round a float32 objective differently, by much less than this.
    if not math.isclose(value, last.objective, rel_tol=1e-5):
        raise CorruptFileError(
            f"{quoted(path)}: expected the data and weights of its run, with the objective "
            f"{last.objective}, got others, with {value}; resume with the same data, or start a "
            "new run"
        )
    history = [
        lbfgs.Iteration(r.iteration, r.objective, r.max_gradient, r.step, r.evaluations)
        for r in saved.history
    ]
    return saved, lbfgs.State(saved.x, grad, history, saved.pairs, saved.anchor, tuple(aux))


@dataclass(frozen=True)
class PathCheckpoint:
    """Everything that a path needs to go on with the next value.

    ``arrays`` are parameters and differences of them, ``state`` says which they are.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    arrays: Arrays
    state: Mapping[str, Any]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint, as :meth:`Checkpoint.write` does."""
        metadata = {name: getattr(self, name) for name in ("settings", "environment", "state")}
        storage.write(path, PATH_KIND, self.arrays, metadata, keep_previous=True)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PathCheckpoint:
        """Read a checkpoint that :meth:`write` wrote."""
        arrays, metadata = storage.read(path, PATH_KIND)
        with _malformed_is_corrupt(path, PATH_KIND):
            parts = [dict(metadata[name]) for name in ("settings", "environment", "state")]
            _check_theta_and_finite(arrays, path)
            _check_layout(arrays, dict.fromkeys(arrays, arrays["theta"]), path)
        columns = {name: np.asfortranarray(array) for name, array in arrays.items()}
        return cls(parts[0], parts[1], columns, parts[2])


def read_path_checkpoint(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    theta: NDArray[Any],
    restore: Callable[[PathCheckpoint], object],
    way: str,
) -> PathCheckpoint:
    """Read the checkpoint of a path with these settings, and restore what it is a checkpoint of."""
    saved = PathCheckpoint.read(path)
    check_settings(saved.settings, settings, path, way)
    _check_layout({"theta": saved.arrays["theta"]}, {"theta": theta}, path)
    with _malformed_is_corrupt(path, PATH_KIND):
        restore(saved)
    return saved


def newest_usable(path: str | os.PathLike[str], load: Callable[[Path], Result]) -> Result:
    """Load a checkpoint, or with a ResumeWarning the previous one if it is damaged or missing.

    An error of ``load`` for an intact file is raised as it is.
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
            raise CorruptFileError(
                f"{error}; the previous one is unusable too: {second}"
            ) from error
        warnings.warn(f"{error}; resuming from {quoted(earlier)}", ResumeWarning, stacklevel=3)
        return result


def model_settings(
    model: SoftmaxRegression, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the settings that describe a model and the layout of its samples."""
    settings = {
        "theta": f"{model.theta.dtype} {model.theta.shape}",
        "pixel_scale": model.pixel_scale,
        "classes": model.classes,
        "samples": f"{dtype} {shape}",
    }
    if model.features is not None:
        settings["features"] = digest(model.features)
    return settings


def as_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file stores them: JSON turns tuples into lists."""
    try:
        return dict(json.loads(json.dumps(settings, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"identity: expected what JSON can hold, got {error}") from error


def check_settings(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    source: str | os.PathLike[str],
    way: str = "start a new run",
) -> None:
    """Raise InputError, naming the differences, unless the settings are those of the run."""
    differing = ", ".join(
        _difference(name if name in here else repr(name)[:80], there.get(name), here.get(name))
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    )
    if differing:
        raise InputError(
            f"{quoted(source)}: expected the settings of this run, got others: {differing:.300}; "
            f"resume with the settings of the checkpoint, or {way}"
        )


def _difference(name: str, there: object, here: object) -> str:
    """Return how two settings differ; of nested ones the names, since a cut hash says nothing."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = [repr(n)[:80] for n in {**there, **here} if there.get(n) != here.get(n)]
        return f"{name} of {', '.join(names[:4])}"
    if all(re.fullmatch("[0-9a-f]{64}", str(each)) for each in (there, here)):
        return f"other {name}"
    return f"{name} {there!r:.80} there, {here!r:.80} here"


def environment(threads: int) -> dict[str, Any]:
    """Return what bitwise reproducibility depends on besides settings and data.

    Machine type, NumPy build and number of threads: OpenBLAS has different loops for each family of
    processors, and sums in a different order for each number of threads. ``threads`` is the number
    that share the work.
    """
    blas = numpys_blas()
    # NumPy leaves out "found" on a processor without any of its optional extensions, such as AVX2.
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return {
        "machine": f"{platform.machine()} {' '.join(extensions)}".strip(),
        "numpy": np.__version__,
        "blas": f"{blas.get('internal_api')} {blas.get('version')} {blas.get('architecture')}",
        "threads": threads,
    }


def warn_if_environment_differs(
    there: Mapping[str, Any], here: Mapping[str, Any], source: object
) -> None:
    """Warn, naming the differences, if a resumed run will not be bit for bit the same."""
    differing = [
        f"{name} {there.get(name)!s:.32} there, {here.get(name)!s:.32} here"
        for name in here
        if there.get(name) != here.get(name)
    ]
    if differing:
        warnings.warn(
            f"{source} was written in another environment ({', '.join(differing)}); the run "
            "resumes, but not bit for bit",
            ResumeWarning,
            stacklevel=3,
        )


@contextmanager
def _malformed_is_corrupt(path: object, kind: str) -> Iterator[None]:
    """Turn errors about missing or malformed entries into CorruptFileError."""
    try:
        yield
    except CorruptFileError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path}: expected a {kind}, got {error!r:.200}") from error


def _check_theta_and_finite(arrays: Arrays, source: object) -> None:
    theta = arrays["theta"]
    fits = theta.ndim == 2 and theta.shape[0] > 0 and theta.shape[1] > 1
    if not fits or theta.dtype not in (np.float32, np.float64):
        raise CorruptFileError(
            f"{source}: expected theta of shape (k, d+1) in float32 or float64, got "
            f"{theta.dtype}{theta.shape}"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CorruptFileError(f"{source}: expected finite numbers, got NaN or infinities")


def _check_layout(found: Arrays, expected: Arrays, source: object) -> None:
    """Raise CorruptFileError unless names, shapes and dtypes are as expected."""
    wanted, got = _layout(expected), _layout(found)
    if wanted != got:
        raise CorruptFileError(f"{source}: expected the arrays {wanted!s:.200}, got {got!s:.200}")


def _layout(arrays: Arrays) -> dict[str, str]:
    return {name: f"{array.dtype}{array.shape}" for name, array in sorted(arrays.items())}


def verify_files(argv: Sequence[str] | None = None) -> int:
    """Describe each file on a line; return 4 if one is damaged, 2 if one cannot be read, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m npsoftmax.storage",
        description="Verify models and checkpoints that npsoftmax wrote.",
        epilog="Exit codes: 0 all are intact, 2 one cannot be read, 4 one is damaged.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    codes = [0]
    for path in parser.parse_args(argv).files:
        try:
            print(_printable(f"{path}: {_describe(path)}"))
        except (InputError, CorruptFileError) as error:
            print(_printable(str(error)), file=sys.stderr)
            codes.append(error.exit_code)
    return max(codes)


def _describe(path: str) -> str:
    """Return the kind and the contents of a file, checked as if it were loaded for use."""
    kind = storage.kind_of(path)
    if kind == "model":
        return f"a model, {SoftmaxRegression.load(path)!r}"
    if kind == KIND:
        saved = Checkpoint.read(path)
        place = f"{saved.progress.epoch} epochs and {saved.progress.step} steps"
        return f"a checkpoint after {place}: {_list({'theta': saved.theta, **saved.state})}"
    if kind == SOLVER_KIND:
        state = SolverCheckpoint.read(path)
        iterations = state.history[-1].iteration
        return f"a {kind} after {iterations} iterations: {_list({'theta': state.x})}"
    if kind == PATH_KIND:
        path_state = PathCheckpoint.read(path)
        theta = {"theta": path_state.arrays["theta"]}
        return f"a {kind} after {len(path_state.state['records'])} values: {_list(theta)}"
    raise CorruptFileError(f"{quoted(path)}: expected a model or a checkpoint, got a {kind:.80}")


def _list(arrays: Arrays) -> str:
    text = ", ".join(f"{name} {array.dtype}{array.shape}" for name, array in arrays.items())
    return f"{text:.400}"


def _printable(text: str) -> str:
    # Parts of it may come from a file or its name, and terminals obey control characters.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
