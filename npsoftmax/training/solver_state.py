"""A minimisation under way as a checkpoint file, and back."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax import lbfgs, storage
from npsoftmax.checkpoint import refuse_other_arrays, refuse_other_settings
from npsoftmax.errors import CorruptFileError
from npsoftmax.history import IterationRecord, rebuild

__all__ = ["read_state", "write_state"]

KIND = "checkpoint of the lbfgs solver"


def write_state(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    state: lbfgs.State,
    history: Sequence[IterationRecord],
) -> None:
    """Write all that the minimisation needs to go on bit for bit, atomically."""
    arrays = {"theta": state.x}
    if state.anchor is not None:
        arrays["anchor"] = state.anchor
    for number, (step, change) in enumerate(state.pairs):
        arrays |= {f"step.{number}": step, f"change.{number}": change}
    metadata = {"settings": settings, "history": [asdict(record) for record in history]}
    storage.write(path, KIND, arrays, metadata)


def read_state(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    theta: NDArray[Any],
    value_and_grad: Callable[[NDArray[Any]], tuple[float, NDArray[Any]]],
) -> tuple[lbfgs.State, list[IterationRecord]]:
    """Read what :func:`write_state` wrote, for a run with these settings and such a ``theta``.

    The gradient is computed anew, and the objective with it, which tells parameters of another
    run.
    """
    arrays, metadata = storage.read(path, KIND)
    try:
        history = [rebuild(IterationRecord, record) for record in metadata["history"]]
        there = dict(metadata["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: expected a {KIND}, got {error!r}") from error
    refuse_other_settings(there, settings, path)
    pairs = _pairs(arrays, theta, path)
    numbers = [record.iteration for record in history]
    if not numbers or numbers != list(range(len(numbers))):
        raise CorruptFileError(f"{path}: expected a history of iterations 0, 1, ..., got {numbers}")
    x, anchor = np.asfortranarray(arrays["theta"]), arrays.get("anchor")
    value, grad = value_and_grad(x)
    if not math.isclose(value, history[-1].objective, rel_tol=1e-5):
        raise CorruptFileError(
            f"{path}: expected parameters with the objective {history[-1].objective} of its "
            f"history, got {value}"
        )
    lines = [_iteration(record) for record in history]
    anchor = None if anchor is None else np.asfortranarray(anchor)
    return lbfgs.State(x, grad, lines, pairs, anchor), history


def _pairs(
    arrays: Mapping[str, NDArray[Any]], theta: NDArray[Any], path: object
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the solver's memory, once all arrays have been checked."""
    count = sum(name.startswith("step.") for name in arrays)
    names = [f"{kind}.{number}" for number in range(count) for kind in ("step", "change")]
    names += ["theta"] + ["anchor"] * ("anchor" in arrays)
    refuse_other_arrays(arrays, dict.fromkeys(names, theta), path)
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
