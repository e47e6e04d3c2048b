"""Samples on the workers of a Dask cluster, and sums over them, round by round.

A round sends a function, with ``theta`` in it, to each shard and gets one answer of each, summed
over its blocks. With more than ``FAN_IN`` shards the workers add up answers in a tree first. The
order of all sums depends on the shards alone, not on who holds them or is done first: after a
worker was lost, and Dask has made its shards anew from where they came from, the same bits come
back.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from npsoftmax.ext._cluster_faults import Watch
from npsoftmax.ext._cluster_shards import Answer, Combine, added_up, asked, packed, picked
from npsoftmax.ext._cluster_workers import moves
from npsoftmax.objective import Contents, Samples, Workspace
from npsoftmax.objective._parts import cores

__all__ = ["ClusterStore"]

Result = TypeVar("Result")

FAN_IN = 8
SPREAD_SECONDS = 2.0


class ClusterStore:
    """Where samples lie, as :class:`npsoftmax.objective.Store` says it.

    Parameters
    ----------
    client : Client
        Of the cluster.
    shards : sequence of Future
        Of shards, in their order.
    watch : Watch
        What to do about faults.
    threads : int
        How many of the workers evaluate at the same time.
    """

    def __init__(self, client: Client, shards: Sequence[Any], watch: Watch, threads: int) -> None:
        self._client, self._shards, self._watch = client, list(shards), watch
        self.threads, self.threads_here = threads, cores()
        self._sent: list[Any] = []
        self._usual = math.ceil(len(self._shards) / threads)
        self._next_spread = 0.0
        self.contents: Contents = self.shared(_contents, Contents.joined)

    def shared(self, function: Callable[[Samples, Workspace], Result], combine: Combine) -> Result:
        """Call a function on each block, and combine what comes of them in their order."""
        result: Result = self._round(function, combine, True)
        return result

    def together(self, function: Callable[[Samples, int], Result], combine: Combine) -> Result:
        """Call a function on each block, which may use one thread."""
        result: Result = self._round(function, combine, False)
        return result

    def select(self, kept: NDArray[np.intp]) -> ClusterStore:
        """Return a store of copies of the samples at these ascending places, where they lie."""
        with self._watch.translated():
            stops = self._watch.results_of(_stop, self._shards)
            cuts = [0, *np.searchsorted(kept, stops).tolist()]
            jobs = [
                (shard, kept[first:end], first)
                for shard, first, end in zip(self._shards, cuts[:-1], cuts[1:], strict=True)
                if first < end
            ]
            shards = self._client.map(picked, *zip(*jobs, strict=True), pure=False)
        return ClusterStore(self._client, shards, self._watch, self.threads)

    def _round(self, function: Any, combine: Combine, takes_workspace: bool) -> Any:
        question = packed((function, combine, takes_workspace))
        with self._watch.translated():
            send = partial(self._client.map, pure=False)
            futures = send(partial(asked, question=question), self._shards)
            sent = [futures]
            while len(futures) > FAN_IN:
                groups = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
                futures = send(partial(added_up, combine=combine), groups)
                sent.append(futures)
            # Messages that follow within 10 ms wait for each other: had the last round been
            # released at once, that would have held up this one.
            self._sent = sent
            answer: Answer = pickle.loads(added_up(self._watch.results(futures), combine))
            self._watch.compare(answer.turns)
            self._spread([turn.worker for turn in answer.turns])
        return answer.result

    def _spread(self, homes: Sequence[str]) -> None:
        """Let workers that have nothing to do share the shards of those that have too many.

        A shard that was lost is made anew where Dask likes, mostly before another worker has come
        for the one that was lost.
        """
        crowded = max(Counter(homes).values()) > self._usual
        if not crowded or monotonic() < self._next_spread:
            return
        self._next_spread = monotonic() + SPREAD_SECONDS
        for number, worker in moves(homes, self._client.nthreads()).items():
            # Of the two copies Dask drops the one on the fuller worker. A worker that has gone
            # meanwhile is no target: ValueError.
            with suppress(ValueError):
                self._client.replicate([self._shards[number]], n=1, workers=[worker])


def _contents(samples: Samples, workspace: Workspace) -> Contents:
    return Contents.of(samples)


def _stop(shard: Any) -> int:
    return int(shard.stop)
