"""The number of threads that this process is meant to use, and the threads of the BLAS."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

__all__ = ["blas_threads", "cores", "default_threads", "map_in_threads", "numpys_blas"]

Result = TypeVar("Result")


class _BlasThreads:
    """Context manager and decorator that sets the number of BLAS threads, and puts it back.

    The number applies to the whole process. If several are inside, the smallest number counts, and
    the last to leave puts back what was there before the first.
    """

    def __init__(self) -> None:
        # The garbage collector may end a generator, and so leave, while this thread enters.
        self._lock = RLock()
        self._inside: dict[object, int] = {}
        self._before: Any = None
        self._count: int | None = None
        self._allowed: int | None = None

    @contextmanager
    def __call__(self, count: int) -> Iterator[None]:
        me = object()
        try:
            try:
                self._enter(me, count)
                yield
            finally:
                self._leave(me)
        finally:  # again, because Ctrl-C may come before or while it leaves
            self._leave(me)

    def _enter(self, me: object, count: int) -> None:
        with self._lock:
            if self._before is None:
                self._allowed = _current()
                self._before = _numbers()
            self._inside[me] = count
            self._apply()

    def _leave(self, me: object) -> None:
        with self._lock:
            self._inside.pop(me, None)
            self._apply()

    def _apply(self) -> None:
        if self._inside:
            count = min(self._inside.values())
            if count != self._count:  # setting it takes as long as a pass over a small table
                for library in _blas():
                    library.set_num_threads(count)
                self._count = count
        elif self._before is not None:
            for library, number in zip(_blas(), self._before, strict=True):
                library.set_num_threads(number)
            self._before = self._count = None

    def allowed(self) -> int | None:
        """Return the number of threads outside of all ``with`` statements; None if unknown."""
        with self._lock:
            return self._allowed if self._inside else _current()


blas_threads = _BlasThreads()


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    # Looking for the libraries takes a millisecond, and its own limits ten times as long as these.
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _numbers() -> list[int]:
    return [library.get_num_threads() for library in _blas()]


def _current() -> int | None:
    return max(_numbers(), default=None)


@cache
def numpys_blas() -> Mapping[str, Any]:
    """Return what threadpoolctl knows of the BLAS that NumPy uses; SciPy may bring another."""
    libraries = [library.info() for library in _blas()]
    of_numpy = (library for library in libraries if "numpy" in library["filepath"])
    return next(of_numpy, libraries[0] if libraries else {})


def map_in_threads(
    function: Callable[..., Result], count: int, *iterables: Iterable[Any]
) -> Iterator[Result]:
    """Yield ``function`` of the items in their order; one thread is the caller's own."""
    if count == 1:  # where Python runs in a browser, no thread can be started
        yield from map(function, *iterables)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        yield from pool.map(function, *iterables)


def default_threads() -> int:
    """Return the number of threads to use if nobody says: one a core, or fewer.

    The BLAS has fewer if the environment (``OMP_NUM_THREADS`` and the like), threadpoolctl or a
    worker of joblib says so.
    """
    return min(cores(), blas_threads.allowed() or cores())


def cores() -> int:
    """Return the number of cores that this process may use, by its affinity and its quota."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota())))


MEMBERSHIP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# By controller, where the quotas are. Version 2 has one hierarchy, without a name.
QUOTAS = {"": (".", ["cpu.max"]), "cpu": ("cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"])}


@cache
def _quota() -> float:
    """Return how many cores the control groups of Linux grant: those of a container or a job."""
    quotas = [math.inf]
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.exists() else ():
        _, controllers, path = line.split(":", 2)
        for controller in QUOTAS.keys() & controllers.split(","):
            root, names = QUOTAS[controller]
            group = GROUPS / root / path.lstrip("/")
            quotas += [_read_quota(folder, names) for folder in (group, *group.parents)]
    return min(quotas)


def _read_quota(group: Path, names: list[str]) -> float:
    try:
        time, period = " ".join((group / name).read_text() for name in names).split()
    except OSError:  # it is not seen from inside a container, or has no such limit
        return math.inf
    return math.inf if time in ("max", "-1") else int(time) / int(period)
