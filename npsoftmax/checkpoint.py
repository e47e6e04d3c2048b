"""What a checkpoint holds, on disk and in memory, and what makes one unusable."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax import storage
from npsoftmax.errors import CorruptFileError, InputError, ResumeWarning
from npsoftmax.history import EpochRecord, Progress, rebuild

if TYPE_CHECKING:
    from npsoftmax.optimisers import Optimiser

__all__ = [
    "Checkpoint",
    "as_settings",
    "largest_checkpoint",
    "largest_file",
    "newest_usable",
    "refuse_other_arrays",
    "refuse_other_settings",
    "refuse_unusable_arrays",
]

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
        CorruptFileError, FormatVersionError
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
