"""What a checkpoint holds, on disk and in memory, and what makes one unusable."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax import storage
from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.history import EpochRecord, Progress, rebuild

if TYPE_CHECKING:
    from npsoftmax.optimisers import Optimiser

__all__ = ["Checkpoint", "as_settings", "refuse_other_arrays", "refuse_other_settings"]

_OPTIMISER = "optimiser."


@dataclass(frozen=True)
class Checkpoint:
    """Everything from which a run goes on bit for bit.

    Attributes
    ----------
    settings : mapping
        What the run that goes on must agree in, as JSON holds it.
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
    theta: NDArray[Any]
    state: Mapping[str, NDArray[Any]]
    progress: Progress
    history: Sequence[EpochRecord]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint to ``path``, atomically.

        Parameters
        ----------
        path : path
            The file; it is replaced if it exists.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        arrays = {_OPTIMISER + name: value for name, value in self.state.items()}
        metadata = {
            "settings": self.settings,
            "progress": asdict(self.progress),
            "history": [asdict(record) for record in self.history],
        }
        storage.write(path, "checkpoint", {"theta": self.theta, **arrays}, metadata)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read what :meth:`write` wrote.

        Parameters
        ----------
        path : path
            The file.

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
        arrays, metadata = storage.read(path, "checkpoint")
        try:
            return cls(
                settings=dict(metadata["settings"]),
                theta=arrays.pop("theta"),
                state={name.removeprefix(_OPTIMISER): value for name, value in arrays.items()},
                progress=rebuild(Progress, metadata["progress"]),
                history=[rebuild(EpochRecord, record) for record in metadata["history"]],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"{path}: expected a checkpoint, got {error!r}") from error

    def refuse_misfit(
        self, theta: NDArray[Any], optimiser: Optimiser, num_steps: int, source: object
    ) -> None:
        """Raise CorruptFileError unless everything fits a run with this ``theta`` and optimiser."""
        begun = self.progress.epoch > 0 or self.progress.step > 0
        expected = {"theta": theta}
        if begun:
            expected.update(_state_after_one_step(theta, optimiser))
        refuse_other_arrays({"theta": self.theta, **self.state}, expected, source)
        place = self.progress
        if place.epoch != len(self.history) or not 0 <= place.step <= num_steps:
            raise CorruptFileError(
                f"{source}: expected a place in an epoch of {num_steps} steps after "
                f"{len(self.history)} epochs, got epoch {place.epoch}, step {place.step}"
            )


def _state_after_one_step(theta: NDArray[Any], optimiser: Optimiser) -> dict[str, NDArray[Any]]:
    trial = copy.deepcopy(optimiser)
    trial.load_state({})
    trial.update(np.zeros_like(theta), np.zeros_like(theta))
    return trial.state


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
    differing = [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise InputError(
            f"{source}: expected the settings of this run, got others: {', '.join(differing)}; "
            "resume with the settings of the checkpoint, or start a new run"
        )


def refuse_other_arrays(
    found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], source: object
) -> None:
    """Raise CorruptFileError unless shapes and dtypes are as expected, and the numbers finite."""
    wanted, got = _layout(expected), _layout(found)
    if wanted != got:
        raise CorruptFileError(f"{source}: expected the arrays {wanted}, got {got}")
    if not all(np.isfinite(array).all() for array in found.values()):
        raise CorruptFileError(f"{source}: expected finite numbers, got NaN or infinities")


def _layout(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {name: f"{array.dtype}{array.shape}" for name, array in sorted(arrays.items())}
