"""Samples on the workers of a Dask cluster, and sums over them, round by round.

Contiguous blocks make a shard: one object on one worker. A round sends a function, with ``theta``
in it, to each shard and gets one result of each, summed over its blocks. With more than ``FAN_IN``
shards the workers add up results in a tree first. The order of all sums depends on the shards
alone, not on who holds them or is done first: after a worker was lost, and Dask has made its shards
anew from where they came from, the same bits come back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial, reduce
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from distributed import Client, get_worker
from numpy.typing import NDArray

from npsoftmax.ext._cluster_faults import Turn, Watch
from npsoftmax.objective import Contents, Samples, Workspace
from npsoftmax.objective._parts import cores

__all__ = ["ClusterStore", "Shard"]

Result = TypeVar("Result")
Combine = Callable[[Any, Any], Any]
Shard = list[Samples]

FAN_IN = 8


class Answer(NamedTuple):
    """What a round brings back from a shard, or from several that were added up."""

    result: Any
    turns: list[Turn]


class ClusterStore:
    """Where samples lie, as :class:`npsoftmax.objective.Store` says it.

    Parameters
    ----------
    client : Client
        Of the cluster.
    shards : sequence of Future
        Of shards, in their order; none is empty.
    watch : Watch
        What to do about faults.
    threads : int
        How many of the workers evaluate at the same time.
    """

    def __init__(self, client: Client, shards: Sequence[Any], watch: Watch, threads: int) -> None:
        self._client, self._shards, self._watch = client, list(shards), watch
        self.threads, self.threads_here = threads, cores()
        self._sent: list[Any] = []
        self.contents: Contents = self.shared(_contents, Contents.joined)

    def shared(self, function: Callable[[Samples, Workspace], Result], combine: Combine) -> Result:
        """Call a function on each block, and combine what comes of them in their order."""
        result: Result = self._round(_shared, function, combine)
        return result

    def together(self, function: Callable[[Samples, int], Result], combine: Combine) -> Result:
        """Call a function on each block, which may use one thread."""
        result: Result = self._round(_together, function, combine)
        return result

    def select(self, kept: NDArray[np.intp]) -> ClusterStore:
        """Return a store of copies of the samples at these ascending places, where they lie."""
        with self._watch.translated():
            stops = self._watch.results_of(_stop, self._shards)
            cuts = np.searchsorted(kept, stops)
            pieces = np.split(kept, cuts[:-1])
            starts = [0, *cuts[:-1].tolist()]
            chosen = [number for number, piece in enumerate(pieces) if piece.size]
            shards = self._client.map(
                _picked,
                [self._shards[number] for number in chosen],
                [pieces[number] for number in chosen],
                [starts[number] for number in chosen],
                pure=False,
            )
        return ClusterStore(self._client, shards, self._watch, self.threads)

    def _round(self, task: Callable[..., Answer], function: Any, combine: Combine) -> Any:
        with self._watch.translated():
            send = partial(self._client.map, pure=False)
            futures = send(partial(task, function=function, combine=combine), self._shards)
            sent = [futures]
            while len(futures) > FAN_IN:
                groups = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
                futures = send(partial(_combined, combine=combine), groups)
                sent.append(futures)
            # Messages that follow within 10 ms wait for each other: if the last round had been
            # released at once, this one would have been held up by that.
            self._sent = sent
            answer = _combined(self._watch.results(futures), combine)
        self._watch.compare(answer.turns)
        return answer.result


def _shared(shard: Shard, function: Any, combine: Combine) -> Answer:
    return _answer(shard, lambda samples: function(samples, _workspace()), combine)


def _together(shard: Shard, function: Any, combine: Combine) -> Answer:
    return _answer(shard, lambda samples: function(samples, 1), combine)


def _answer(shard: Shard, call: Callable[[Samples], Any], combine: Combine) -> Answer:
    """Add up what a shard contributes, on the worker."""
    started = perf_counter()
    with np.errstate(all="ignore"):
        result = reduce(combine, map(call, shard))
    num_samples = shard[-1].stop - shard[0].start
    turn = Turn(get_worker().address, perf_counter() - started, num_samples)
    return Answer(result, [turn])


def _combined(answers: Sequence[Answer], combine: Combine) -> Answer:
    """Add up answers, in their order."""
    with np.errstate(all="ignore"):
        result = reduce(combine, (answer.result for answer in answers))
    return Answer(result, [turn for answer in answers for turn in answer.turns])


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.workspace = Workspace()


_OF_THREAD = _OfThread()


def _workspace() -> Workspace:
    """Return the arrays in which this thread of a worker computes."""
    return _OF_THREAD.workspace


def _contents(samples: Samples, workspace: Workspace) -> Contents:
    return Contents.of(samples)


def _stop(shard: Shard) -> int:
    return shard[-1].stop


def _picked(shard: Shard, kept: NDArray[np.intp], start: int) -> Shard:
    """Return copies of some samples of a shard, numbered from ``start`` on."""
    picked = []
    for samples in shard:
        some = samples.picked(kept, start)
        if some.y.size:
            picked.append(some)
        start += some.y.size
    return picked
