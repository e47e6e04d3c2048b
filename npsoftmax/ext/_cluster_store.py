"""Samples on the workers of a Dask cluster, and sums over them, round by round.

A round sends a function, with ``theta`` in it, to each shard and gets one answer of each, summed
over its blocks. With more than ``FAN_IN`` shards the workers add up answers in a tree first. The
order of all sums depends on the shards alone, not on who holds them or is done first: after a
worker was lost, and Dask has made its shards anew from where they came from, the same bits come
back.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

import dask
import numpy as np
from distributed import Client
from numpy.typing import NDArray

from npsoftmax.ext._cluster_faults import PATIENCE, Watch
from npsoftmax.ext._cluster_worker import Answer, Combine, added_up, asked, packed, picked
from npsoftmax.ext._cluster_workers import moves
from npsoftmax.objective import Contents, Samples, Workspace
from npsoftmax.objective.samples import Draw, cores, drawn_of

__all__ = ["ClusterStore"]

Result = TypeVar("Result")

FAN_IN = 8
SPREAD_SECONDS = 2.0


class ClusterStore:
    """Where samples lie, as :class:`npsoftmax.objective.samples.Store` says it.

    Parameters
    ----------
    client : Client
        Of the cluster.
    shards : sequence of Future
        Of shards, in their order.
    stops : sequence of int
        How many samples there are up to and with the last one of each.
    watch : Watch
        What to do about faults.
    threads : int
        How many of the workers evaluate at the same time.
    """

    def __init__(
        self,
        client: Client,
        shards: Sequence[Any],
        stops: Sequence[int],
        watch: Watch,
        threads: int,
    ) -> None:
        self._client, self._shards, self._watch = client, list(shards), watch
        self._bounds = list(pairwise([0, *stops]))
        self.threads, self.threads_here = threads, cores()
        self.place = f"a cluster, {len(self._shards)} shards"
        self._sent: list[Any] = []
        self._mover, self._next_spread = Thread(), 0.0
        self.contents: Contents = self.shared(_contents, Contents.joined)

    def shared(self, function: Callable[[Samples, Workspace], Result], combine: Combine) -> Result:
        """Call a function on each block, and combine what comes of them in their order."""
        question = packed((function, combine, None))
        result: Result = self._round([question] * len(self._shards), combine)
        return result

    def together(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Combine,
        draws: list[Draw],
    ) -> Result:
        """Call a function on each block, with one thread and the draws of its samples."""
        questions = [
            packed((function, combine, [drawn_of(draw, *bounds) for draw in draws]))
            for bounds in self._bounds
        ]
        result: Result = self._round(questions, combine)
        return result

    def select(self, kept: NDArray[np.intp]) -> ClusterStore:
        """Return a store of copies of the samples at these ascending places, where they lie."""
        cuts = [0, *np.searchsorted(kept, [stop for _, stop in self._bounds]).tolist()]
        jobs = [
            (shard, kept[first:end], first, end)
            for shard, (first, end) in zip(self._shards, pairwise(cuts), strict=True)
            if first < end
        ]
        shards, places, firsts, ends = zip(*jobs, strict=True)
        with self._watch.translated():
            copies = self._client.map(picked, shards, places, firsts, pure=False)
        return ClusterStore(self._client, copies, ends, self._watch, self.threads)

    def _round(self, questions: Sequence[bytes], combine: Combine) -> Any:
        with self._watch.translated():
            # Large questions are no mistake of the user's, of whom Dask would think.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
                futures = self._client.map(asked, self._shards, questions, pure=False)
            sent = [futures]
            while len(futures) > FAN_IN:
                groups = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
                futures = self._client.map(partial(added_up, combine=combine), groups, pure=False)
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
        for the one that was lost. It happens beside the rounds, for nobody to wait.
        """
        if self._mover.is_alive() or monotonic() < self._next_spread:
            return
        self._next_spread = monotonic() + SPREAD_SECONDS
        self._mover = Thread(target=_move, args=(self._client, self._shards, homes), daemon=True)
        self._mover.start()


def _move(client: Client, shards: Sequence[Any], homes: Sequence[str]) -> None:
    # Whatever goes wrong goes wrong in the next round too, where it is told.
    with suppress(Exception):
        for number, worker in moves(homes, client.nthreads()).items():
            # Of the two copies Dask drops the one on the fuller worker. If the worker that a shard
            # goes to is lost on the way, Dask would wait for it forever.
            client.replicate([shards[number]], n=1, workers=[worker], callback_timeout=PATIENCE)


def _contents(samples: Samples, workspace: Workspace) -> Contents:
    return Contents.of(samples)
