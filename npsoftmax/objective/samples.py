"""Samples in memory, a summary of them, and map-reduce over the threads that share them.

The objective, its gradient, the Hessian products, the preconditioner and the bound are sums over
the samples. Each is written as a function of *some* samples and a rule that combines two results;
:meth:`SampleStore.map_reduce` runs the function where the samples are stored: on the threads of
this process (:class:`LocalSamples`) or on the workers of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax import _sparse
from npsoftmax._checks import Range, as_count
from npsoftmax._threads import blas_threads, default_threads, map_in_threads
from npsoftmax.objective.hot_loop import Workspace

__all__ = [
    "Draw",
    "LocalSamples",
    "SampleStore",
    "Samples",
    "Summary",
    "add",
    "draw_evenly",
    "draws_in",
]

Sums = TypeVar("Sums", bound=tuple[Any, ...])
Result = TypeVar("Result")
# Ascending indices into all samples, and a number for each.
Draw = tuple[NDArray[np.intp], NDArray[Any]]

# Multiplications. With fewer per sample the threads wait for the interpreter's lock; with fewer
# per part, starting a thread costs more than it saves.
MIN_WORK_OF_SAMPLE, MIN_WORK_OF_PART = 1000, 2_000_000


class Samples(NamedTuple):
    """A run of ``m`` consecutive samples."""

    start: int  # index of the first one among all samples
    X: NDArray[Any]  # (d, m), Fortran-ordered, or a csc_array
    y: NDArray[Any]  # labels, (m,)
    weights: NDArray[np.float64] | None  # (m,); None if all are 1

    @property
    def stop(self) -> int:
        """Index after the last one."""
        return self.start + int(self.y.size)

    def columns(self, columns: slice) -> Samples:
        """Slice by local column index."""
        weights = None if self.weights is None else self.weights[columns]
        X = _sparse.columns(self.X, columns)
        return Samples(self.start + columns.start, X, self.y[columns], weights)

    def take(self, indices: NDArray[np.intp], start: int) -> Samples:
        """Copy the samples at ascending global indices, and number the copies from ``start``."""
        here = draws_in((indices, indices), self.start, self.stop)[0] - self.start
        weights = None if self.weights is None else self.weights[here]
        return Samples(start, self.X.T[here].T, self.y[here], weights)

    def shares(self, total: float) -> NDArray[np.float64]:
        """Return the weights divided by the total weight of all samples."""
        return (np.ones(self.y.size) if self.weights is None else self.weights) / total


@dataclass(frozen=True)
class Summary:
    """Summary of a data set."""

    num_samples: int
    num_inputs: int
    range: Range  # of the samples
    total: float  # sum of the weights
    class_totals: NDArray[np.float64]  # sums of the weights by class, up to the largest label
    is_sparse: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the samples."""
        return self.range.dtype

    @classmethod
    def of(cls, samples: Samples) -> Summary:
        """Summarise some samples."""
        _, X, y, weights = samples
        with np.errstate(over="ignore"):
            total = y.size if weights is None else float(weights.sum())
        class_totals = np.bincount(y, weights).astype(np.float64)
        return cls(y.size, X.shape[0], Range.of(X), total, class_totals, _sparse.is_sparse(X))

    def merge(self, other: Summary) -> Summary:
        """Summarise these samples and others of the same kind."""
        totals = np.zeros(max(self.class_totals.size, other.class_totals.size))
        for part in (self.class_totals, other.class_totals):
            totals[: part.size] += part
        num_samples, total = self.num_samples + other.num_samples, self.total + other.total
        numbers = self.range.merge(other.range)
        return Summary(num_samples, self.num_inputs, numbers, total, totals, self.is_sparse)

    def missing_classes(self, num_outputs: int) -> list[int]:
        """Return the classes in ``0..num_outputs-1`` without samples of positive weight."""
        present = set(np.flatnonzero(self.class_totals).tolist())
        return [label for label in range(num_outputs) if label not in present]


class SampleStore(Protocol):
    """All samples of a data set, in this process or on a cluster.

    Functions travel to the samples and results travel back, so functions must be module-level
    functions, or :func:`functools.partial` of them.
    """

    summary: Summary
    threads: int  # that evaluate at the same time
    driver_threads: int  # of this process, for work that needs no samples
    place: str  # of the samples, and how they are cut, if the last bits of sums depend on it

    def map_reduce(
        self,
        function: Callable[[Samples, Workspace], Result],
        combine: Callable[[Result, Result], Result],
    ) -> Result:
        """Call a function on parts of the samples in parallel, and combine the results in order."""

    def map_reduce_draws(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Callable[[Result, Result], Result],
        draws: list[Draw],
    ) -> Result:
        """Call a function on samples stored together, the threads it may use, and its draws.

        From each draw, the function gets the part that lies in its samples, as global indices.
        """

    def subset(self, indices: NDArray[np.intp]) -> SampleStore:
        """Return a store of copies of the samples at these ascending indices."""


class LocalSamples:
    """A :class:`SampleStore` in this process, on all threads that it is meant to use by default."""

    def __init__(self, samples: Samples, threads: int | None) -> None:
        self.samples = samples
        self.summary = Summary.of(samples)
        self.threads = as_count(default_threads() if threads is None else threads, "threads")
        self.driver_threads = self.threads
        self.place = "this process"
        self._workspaces = self._new_workspaces()
        self._in_use = Lock()  # the workspaces serve one call at a time

    def map_reduce(
        self,
        function: Callable[[Samples, Workspace], Result],
        combine: Callable[[Result, Result], Result],
    ) -> Result:
        """Call a function on parts of the samples, one for each thread."""

        def call(columns: slice, workspace: Workspace) -> Result:
            with np.errstate(all="ignore"):  # each thread has an error state of its own
                return function(self.samples.columns(columns), workspace)

        parts = self._parts()
        with self._in_use:
            if len(parts) == 1:
                return call(parts[0], self._workspaces[0])
            # They are put back at the end: after Ctrl-C a thread may still write into them.
            workspaces, self._workspaces = self._workspaces, self._new_workspaces()
            with blas_threads(1):
                result = reduce(combine, map_in_threads(call, len(parts), parts, workspaces))
            self._workspaces = workspaces
            return result

    def _new_workspaces(self) -> list[Workspace]:
        return [Workspace() for _ in range(self.threads)]

    def _parts(self) -> list[slice]:
        """Cut the samples into as many parts as threads are worth starting."""
        num_samples = self.samples.y.size
        # Of sparse samples, `size` counts the numbers that are stored.
        work = self.samples.X.size // num_samples * self.summary.class_totals.size
        count = 1
        if work >= MIN_WORK_OF_SAMPLE:
            count = max(1, min(self.threads, num_samples * work // MIN_WORK_OF_PART))
        cuts = [num_samples * number // count for number in range(count + 1)]
        return [slice(*ends) for ends in pairwise(cuts)]

    def map_reduce_draws(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Callable[[Result, Result], Result],
        draws: list[Draw],
    ) -> Result:
        """Call a function on all samples, with all threads."""
        with blas_threads(1) if self.threads > 1 else nullcontext():
            return function(self.samples, self.threads, draws)

    def subset(self, indices: NDArray[np.intp]) -> LocalSamples:
        """Return copies of the samples at these ascending indices."""
        return LocalSamples(self.samples.take(indices, 0), self.threads)


def draws_in(draw: Draw, start: int, stop: int) -> Draw:
    """Return the part of a draw with indices from ``start`` to ``stop``.

    Examples
    --------
    >>> draws_in((np.array([1, 4, 7]), np.array([0.1, 0.4, 0.7])), 2, 7)
    (array([4]), array([0.4]))
    """
    indices, values = draw
    here = slice(*np.searchsorted(indices, (start, stop)))
    return indices[here], values[here]


@lru_cache(maxsize=2)  # every part of the samples asks for the same ones
def draw_evenly(num_samples: int, count: int) -> NDArray[np.intp]:
    """Draw one index from each of ``count`` stretches of equal length, in ascending order.

    Unlike a fixed step, this is fair to data whose order has a period. The draw is repeatable.

    Examples
    --------
    >>> draw_evenly(4, 4), draw_evenly(1000, 4)
    (array([0, 1, 2, 3]), array([159, 317, 510, 754]))
    """
    if count >= num_samples:
        drawn = np.arange(num_samples)
    else:
        places = np.arange(count) + np.random.default_rng(0).random(count)
        drawn = (places * (num_samples / count)).astype(np.intp)
    drawn.flags.writeable = False
    return drawn


def add(left: Sums, right: Sums) -> Sums:
    """Add tuples entry by entry.

    Examples
    --------
    >>> add((1.0, np.array([1, 2])), (2.0, np.array([3, 4])))
    (3.0, array([4, 6]))
    """
    sums = [a + b for a, b in zip(left, right, strict=True)]
    return type(left)(*sums) if hasattr(left, "_fields") else type(left)(sums)
