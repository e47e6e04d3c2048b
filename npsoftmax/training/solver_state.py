"""A minimisation under way as a checkpoint file, and back."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs, storage
from npsoftmax.checkpoint import (
    largest_file,
    refuse_other_arrays,
    refuse_other_settings,
    refuse_unusable_arrays,
)
from npsoftmax.errors import CorruptFileError
from npsoftmax.history import IterationRecord, rebuild

__all__ = ["KIND", "SolverState", "read_state"]

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
