"""What goes wrong on a cluster, in words: lost, out of memory, slow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from distributed import CancelledError, Client, KilledWorker, TimeoutError, wait
from distributed.comm import CommClosedError

from npsoftmax.errors import ClusterError, NpsoftmaxError, SlowWorkerWarning
from npsoftmax.ext._cluster_worker import Turn

__all__ = ["PATIENCE", "SHARE", "Memory", "Watch"]

# Seconds between two looks at the cluster, and until a scheduler that does not answer, and workers
# that are missing or paused for want of memory, are given up. Dask itself gives up a worker that
# says nothing for five minutes.
TICK, PATIENCE = 2.0, 60.0
# A block may have one part in so many of the memory of a thread: it is held twice at times, beside
# others, and beside what computes on it.
SHARE = 4
# A worker is slow that takes so many times as long for a sample as the others, and keeps them
# waiting for so many seconds, in so many rounds one after another.
SLOW, SLOW_SECONDS, SLOW_ROUNDS = 3.0, 0.1, 5


class Memory(NamedTuple):
    """What a thread of a worker may use, and what it has to hold.

    Attributes
    ----------
    limit : int
        Bytes; 0 where there is no limit.
    row_bytes : int
        Of the features of a sample.
    largest_block : int
        Rows of it.
    """

    limit: int
    row_bytes: int
    largest_block: int

    @property
    def fitting_rows(self) -> int:
        """How many rows a block may have."""
        return max(1, self.limit // SHARE // max(1, self.row_bytes))

    def advice(self) -> str:
        """Say which blocks would fit."""
        rows = max(1, self.largest_block // 2)
        if self.limit:
            rows = min(rows, self.fitting_rows)
        limit = ""
        if self.limit:
            fitting = _mb(self.limit // SHARE)
            limit = f", where a block may take {fitting}, 1/{SHARE} of the memory of a thread"
        return (
            f"the largest block has {self.largest_block:,} rows and takes "
            f"{_mb(self.largest_block * self.row_bytes)}{limit}; use blocks of at most {rows:,} "
            f"rows (X.rechunk(({rows}, -1)), for files block_size={rows}), or workers with more "
            "memory"
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


class Watch:
    """Waits for the results of rounds, and says in one error or warning what is wrong.

    Parameters
    ----------
    client : Client
        Of the cluster.

    Attributes
    ----------
    memory : Memory
        For what to say of workers that have too little.
    names : mapping
        What to call a task in an error, by its key.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._address = client.scheduler.address
        self.memory = Memory(0, 0, 0)
        self.names: Mapping[str, str] = {}
        self._slow: list[str] = []

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what Dask raises into a ClusterError; errors of npsoftmax stay what they are."""
        try:
            yield
        except NpsoftmaxError:
            raise
        except KilledWorker as error:
            name = self.names.get(str(error.task), f"task {error.task}")
            raise ClusterError(
                f"{name}: its worker died {error.allowed_failures + 1} times, most likely for want "
                f"of memory: {self.memory.advice()}"
            ) from error
        except MemoryError as error:
            raise ClusterError(f"a worker is out of memory: {self.memory.advice()}") from error
        except (CancelledError, CommClosedError) as error:
            self._refuse_lost(error)
        except Exception as error:
            if self._client.status != "running":
                self._refuse_lost(error)
            raise

    def _refuse_lost(self, error: BaseException) -> NoReturn:
        what = f"the scheduler {self._address} is gone, or has forgotten the samples"
        advice = "start it and its workers again"
        if self._client.status in ("closing", "closed"):
            what, advice = f"the client of {self._address} is closed", "open another"
        raise ClusterError(f"{what}: {type(error).__name__}; {advice}") from error

    def results_of(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        """Return what a function makes of each value, on some worker."""
        return self.results(self._client.map(function, values, pure=False))

    def results(self, futures: Sequence[Any]) -> list[Any]:
        """Return what the tasks return, or raise what they raise."""
        missing_since = None
        while (results := self._gathered(futures)) is None:
            complaint = self._complaint()
            missing_since = (missing_since or monotonic()) if complaint else None
            if missing_since is not None and monotonic() - missing_since > PATIENCE:
                raise ClusterError(complaint)
        return results

    def _gathered(self, futures: Sequence[Any]) -> list[Any] | None:
        """Return what the tasks return, or None if it is not there yet."""
        try:
            with self._client.as_current():
                wait(futures, timeout=TICK)
        except TimeoutError:
            return None
        for future in futures:
            if future.status == "error":
                future.result()  # raises, and be it a TimeoutError of the task's own
        # Answers whose worker is lost at this moment are made anew, so this may wait too.
        gather = partial(self._client.gather, futures, asynchronous=True)
        try:
            results: list[Any] = self._client.sync(gather, callback_timeout=PATIENCE)
        except TimeoutError:
            return None
        return results

    def _complaint(self) -> str | None:
        """Say what keeps a round from ever ending, if something does."""
        if self._client.status != "running":
            raise CommClosedError(f"the connection is {self._client.status}")
        try:
            known = self._client.sync(self._client.scheduler.identity, callback_timeout=TICK)
        except TimeoutError:
            return f"the scheduler {self._address} does not answer; start it and its workers again"
        workers = known["workers"]
        if not workers:
            return f"no worker is left, and none came within {PATIENCE:.0f} s; start some"
        if any(
            worker["metrics"].get("task_counts", {}).get("executing") for worker in workers.values()
        ):
            return None
        paused = [name for name, worker in workers.items() if worker["status"] == "paused"]
        if paused:
            return f"worker {paused[0]} has paused for want of memory: {self.memory.advice()}"
        return None

    def compare(self, turns: Sequence[Turn]) -> None:
        """Warn once of a worker for which all others wait, round after round."""
        slowest = max(turns, key=lambda turn: turn.seconds)
        others = [turn for turn in turns if turn.worker != slowest.worker and turn.num_samples]
        if not others or self._slow.count(slowest.worker) >= SLOW_ROUNDS:
            return
        usual = median(turn.seconds / turn.num_samples for turn in others)
        factor = slowest.seconds / slowest.num_samples / max(usual, 1e-12)
        lost = slowest.seconds - max(turn.seconds for turn in others)
        if factor < SLOW or lost < SLOW_SECONDS:
            self._slow = []
            return
        self._slow = [name for name in self._slow if name == slowest.worker] + [slowest.worker]
        if len(self._slow) == SLOW_ROUNDS:
            warnings.warn(
                f"worker {slowest.worker} takes {factor:.0f} times as long for a sample as the "
                "others, and each round waits for it; free its machine, or let others have its "
                f"samples: client.retire_workers([{slowest.worker!r}])",
                SlowWorkerWarning,
                stacklevel=2,
            )
