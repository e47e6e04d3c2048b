"""Samples, what is known of all of them, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from npsoftmax._checks import as_count
from npsoftmax.objective.hot_loop import Workspace

__all__ = [
    "Contents",
    "Draw",
    "LocalStore",
    "Parts",
    "Samples",
    "Store",
    "added",
    "cores",
    "digest_of",
    "drawn_of",
    "one_blas_thread",
]

Sums = TypeVar("Sums", bound=tuple[Any, ...])
Result = TypeVar("Result")
# Ascending places among all samples, and a number for each.
Draw = tuple[NDArray[np.intp], NDArray[Any]]

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
DIGESTED_AT_ONCE = 2**16


class Samples(NamedTuple):
    """Some of the samples, one after another.

    Attributes
    ----------
    start : int
        How many come before the first one.
    X : ndarray
        Shape ``(d, m)``, Fortran-ordered.
    y : ndarray of int
        Labels, shape ``(m,)``.
    weights : ndarray of float64 or None
        Shape ``(m,)``; None where all are 1.
    """

    start: int
    X: NDArray[Any]
    y: NDArray[Any]
    weights: NDArray[np.float64] | None

    @property
    def stop(self) -> int:
        """How many there are up to and with the last one."""
        return self.start + int(self.y.size)

    def columns(self, columns: slice) -> Samples:
        """Return those in the columns from ``start`` to ``stop``, which count within these."""
        weights = None if self.weights is None else self.weights[columns]
        return Samples(self.start + columns.start, self.X[:, columns], self.y[columns], weights)

    def picked(self, kept: NDArray[np.intp], start: int) -> Samples:
        """Return a copy of those at ascending places among all, numbered from ``start`` on."""
        here = drawn_of((kept, kept), self.start, self.stop)[0] - self.start
        weights = None if self.weights is None else self.weights[here]
        return Samples(start, self.X.T[here].T, self.y[here], weights)

    def shares(self, total: float) -> NDArray[np.float64]:
        """Return the weights over their total among all."""
        return (np.ones(self.y.size) if self.weights is None else self.weights) / total


@dataclass(frozen=True)
class Contents:
    """What is known of all samples without looking at them again.

    Attributes
    ----------
    num_samples, num_inputs : int
        n and d.
    dtype : dtype
        Of the samples.
    total : float
        The sum of the weights.
    class_totals : ndarray of float64
        The sum of the weights of each class, up to the largest label.
    """

    num_samples: int
    num_inputs: int
    dtype: np.dtype[Any]
    total: float
    class_totals: NDArray[np.float64]

    @classmethod
    def of(cls, samples: Samples) -> Contents:
        """Return what is known of these."""
        _, X, y, weights = samples
        with np.errstate(over="ignore"):
            total = y.size if weights is None else float(weights.sum())
        class_totals = np.bincount(y, weights).astype(np.float64)
        return cls(y.size, X.shape[0], X.dtype, total, class_totals)

    def joined(self, other: Contents) -> Contents:
        """Return what is known of these samples and others of the same kind."""
        totals = np.zeros(max(self.class_totals.size, other.class_totals.size))
        for part in (self.class_totals, other.class_totals):
            totals[: part.size] += part
        num_samples, total = self.num_samples + other.num_samples, self.total + other.total
        return Contents(num_samples, self.num_inputs, self.dtype, total, totals)

    def missing(self, num_outputs: int) -> list[int]:
        """Return the classes, of so many, without samples that weigh something."""
        present = set(np.flatnonzero(self.class_totals).tolist())
        return [label for label in range(num_outputs) if label not in present]


class Store(Protocol):
    """Who holds the samples: this process or others.

    Functions and what they return travel to the samples and back: module-level functions, or
    :func:`functools.partial` of them.

    Attributes
    ----------
    contents : Contents
        What is known of all samples.
    threads : int
        How many evaluate at the same time.
    threads_here : int
        How many there are in this process for what does not concern the samples.
    place : str
        Where samples lie and how they are cut, as far as the last bits of sums depend on it.
    """

    contents: Contents
    threads: int
    threads_here: int
    place: str

    def shared(
        self,
        function: Callable[[Samples, Workspace], Result],
        combine: Callable[[Result, Result], Result],
    ) -> Result:
        """Call a function on parts of the samples at the same time, and combine in their order."""

    def together(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Callable[[Result, Result], Result],
        draws: list[Draw],
    ) -> Result:
        """Call a function on what lies together, with the threads that it may use, and its draws.

        Of each draw it gets what was drawn of its samples, places counted among all.
        """

    def select(self, kept: NDArray[np.intp]) -> Store:
        """Return a store of copies of the samples at these ascending places."""


def drawn_of(draw: Draw, start: int, stop: int) -> Draw:
    """Return what was drawn of the samples from ``start`` to ``stop``.

    Examples
    --------
    >>> drawn_of((np.array([1, 4, 7]), np.array([0.1, 0.4, 0.7])), 2, 7)
    (array([4]), array([0.4]))
    """
    places, values = draw
    here = slice(*np.searchsorted(places, (start, stop)))
    return places[here], values[here]


def added(left: Sums, right: Sums) -> Sums:
    """Add up tuples entry by entry.

    Examples
    --------
    >>> added((1.0, np.array([1, 2])), (2.0, np.array([3, 4])))
    (3.0, array([4, 6]))
    """
    sums = [a + b for a, b in zip(left, right, strict=True)]
    return type(left)(*sums) if hasattr(left, "_fields") else type(left)(sums)


def digest_of(samples: Samples, workspace: Workspace) -> tuple[int, int]:
    r"""Return two numbers that tell labels, and weights, from others: sums over the samples.

    .. math:: \sum_j \mathrm{mix}(v_j + j g) \bmod 2^{64}

    with the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014). However samples are cut into parts, the sums modulo :math:`2^{64}`
    are the same; against forgery they are no protection.
    """
    labels = _digest(samples.y.astype(np.uint64), samples.start)
    if samples.weights is None:
        return labels, 0
    return labels, _digest(samples.weights.view(np.uint64), samples.start)


def _digest(values: NDArray[np.uint64], start: int) -> int:
    digest = np.uint64(0)
    for first in range(0, values.size, DIGESTED_AT_ONCE):
        part = values[first : first + DIGESTED_AT_ONCE]
        places = np.arange(start + first, start + first + part.size, dtype=np.uint64)
        mixed = part + (places + np.uint64(1)) * np.uint64(GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(FIRST)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(SECOND)
        digest = np.add.reduce(mixed ^ (mixed >> np.uint64(31)), initial=digest)
    return int(digest)


# Samples in parts, one for each thread.

# Multiplications: with fewer for a sample the threads are in each other's way, handing the
# interpreter's lock to and fro; with fewer for a part starting one costs more than it saves.
FEWEST_OF_SAMPLE, FEWEST_OF_PART = 1000, 2_000_000


class Parts:
    """Calls of a function with a part of the samples each, at the same time.

    Parameters
    ----------
    threads : int, optional
        How many at most; the cores that this process may use unless given.
    work : int
        Multiplications for a sample, about.
    """

    def __init__(self, threads: int | None, work: int) -> None:
        self.threads = as_count(cores() if threads is None else threads, "threads")
        self._work = work
        self._workspaces = [Workspace() for _ in range(self.threads)]
        self._in_use = Lock()

    def __reduce__(self) -> tuple[type["Parts"], tuple[int, int]]:
        """Copy and pickle without workspaces and lock."""
        return Parts, (self.threads, self._work)

    def call(
        self, function: Callable[[slice, Workspace], Result], num_samples: int
    ) -> list[Result]:
        """Return ``function(columns, workspace)`` of each part, in order."""
        count = 1
        if self._work >= FEWEST_OF_SAMPLE:
            count = max(1, min(self.threads, num_samples * self._work // FEWEST_OF_PART))
        cuts = [num_samples * number // count for number in range(count + 1)]
        columns = [slice(*ends) for ends in pairwise(cuts)]

        def silent(columns: slice, workspace: Workspace) -> Result:
            with np.errstate(all="ignore"):  # each thread has an error state of its own
                return function(columns, workspace)

        with self._in_use:  # the workspaces serve one call at a time
            if count == 1:
                return [silent(columns[0], self._workspaces[0])]
            with one_blas_thread(), ThreadPoolExecutor(count) as pool:
                return list(pool.map(silent, columns, self._workspaces))


class _OneBlasThread:
    """Hold the BLAS to one thread while several of ours call it.

    The limit is the whole process's: the first to come sets it, the last to go puts it back.
    """

    def __init__(self) -> None:
        self._lock, self._holders = Lock(), 0
        self._limit: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._holders == 0:
                self._limit = _blas().limit(limits=1, user_api="blas")
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._limit.restore_original_limits()


one_blas_thread = _OneBlasThread()


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # looking for the libraries takes a millisecond


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Samples in this process, shared by its threads.


class LocalStore:
    """Where samples lie, as :class:`npsoftmax.objective.samples.Store` says it.

    Parameters
    ----------
    samples : Samples
        All of them.
    threads : int, optional
        How many at most; the cores that this process may use unless given.
    """

    def __init__(self, samples: Samples, threads: int | None) -> None:
        self.samples = samples
        self.contents = Contents.of(samples)
        self._parts = Parts(threads, samples.X.shape[0] * self.contents.class_totals.size)
        self.threads = self.threads_here = self._parts.threads
        self.place = "this process"

    def shared(
        self,
        function: Callable[[Samples, Workspace], Result],
        combine: Callable[[Result, Result], Result],
    ) -> Result:
        """Call a function on parts of the samples, one for each thread."""
        results = self._parts.call(
            lambda columns, workspace: function(self.samples.columns(columns), workspace),
            self.samples.y.size,
        )
        return reduce(combine, results)

    def together(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Callable[[Result, Result], Result],
        draws: list[Draw],
    ) -> Result:
        """Call a function on all samples, which may use all threads."""
        if self.threads == 1:
            return function(self.samples, 1, draws)
        with one_blas_thread():
            return function(self.samples, self.threads, draws)

    def select(self, kept: NDArray[np.intp]) -> LocalStore:
        """Return a store of copies of the samples at these ascending places."""
        return LocalStore(self.samples.picked(kept, 0), self.threads)
