"""Samples in parts, one for each thread."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from npsoftmax._checks import as_count
from npsoftmax.objective.hot_loop import Workspace

__all__ = ["Parts", "cores", "one_blas_thread"]

# Multiplications: with fewer for a sample the threads are in each other's way, handing the
# interpreter's lock to and fro; with fewer for a part starting one costs more than it saves.
FEWEST_OF_SAMPLE, FEWEST_OF_PART = 1000, 2_000_000

Result = TypeVar("Result")


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
