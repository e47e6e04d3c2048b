"""What the workers of a cluster do: hold shards, and add up what these contribute.

Functions and answers travel as bytes. Dask hands out arrays as views of what it received, often at
odd addresses, for which NumPy takes other ways: the last bits would differ from round to round.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from npsoftmax.objective import Samples, Workspace
from npsoftmax.objective.samples import drawn_of, one_blas_thread

__all__ = ["Answer", "Shard", "Turn", "added_up", "asked", "packed", "picked"]

Combine = Callable[[Any, Any], Any]


class Shard:
    """Blocks that lie together: one object on one worker.

    Parameters
    ----------
    blocks : sequence of Samples
        In their order, none of them empty.
    """

    def __init__(self, blocks: Sequence[Samples]) -> None:
        self.blocks = [Samples(block.start, *map(_aligned, block[1:])) for block in blocks]

    def __reduce__(self) -> tuple[type[Shard], tuple[list[Samples]]]:
        """Travel from worker to worker, and arrive at addresses that can be computed with."""
        return Shard, (self.blocks,)

    def __sizeof__(self) -> int:
        """Tell Dask how much memory it takes."""
        return sum(part.nbytes for block in self.blocks for part in block[1:] if part is not None)


def _aligned(array: Any) -> Any:
    return array if array is None or array.flags.aligned else array.copy(order="K")


class Turn(NamedTuple):
    """How long a worker took for a shard."""

    worker: str
    seconds: float
    num_samples: int


class Answer(NamedTuple):
    """What comes back from a shard, or from several that were added up."""

    result: Any
    turns: list[Turn]


def packed(value: Any) -> bytes:
    """Return something as bytes."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def asked(shard: Shard, question: bytes) -> bytes:
    """Return the answer of a shard to a question: a function of a block, and how to combine.

    The function gets a workspace or, for draws, one thread and those of the block's samples.
    """
    started = perf_counter()
    function, combine, draws = pickle.loads(question)

    def of(block: Samples) -> Any:
        if draws is None:
            return function(block, _OF_THREAD.workspace)
        return function(block, 1, [drawn_of(draw, block.start, block.stop) for draw in draws])

    with one_blas_thread(), np.errstate(all="ignore"):
        result = reduce(combine, map(of, shard.blocks))
    num_samples = shard.blocks[-1].stop - shard.blocks[0].start
    turn = Turn(get_worker().address, perf_counter() - started, num_samples)
    return packed(Answer(result, [turn]))


def added_up(answers: Sequence[bytes], combine: Combine) -> bytes:
    """Combine answers in their order, of which no more than two are unpacked at a time."""
    turns: list[Turn] = []

    def results() -> Iterator[Any]:
        for answer in answers:
            unpacked = pickle.loads(answer)
            turns.extend(unpacked.turns)
            yield unpacked.result

    with np.errstate(all="ignore"):
        result = reduce(combine, results())
    return packed(Answer(result, turns))


def picked(shard: Shard, kept: NDArray[np.intp], start: int) -> Shard:
    """Return copies of samples of a shard, at these places among all, numbered from ``start``."""
    some = []
    for block in shard.blocks:
        chosen = block.picked(kept, start)
        if chosen.y.size:
            some.append(chosen)
        start += chosen.y.size
    return Shard(some)


class _OfThread(threading.local):
    """The arrays in which a thread of a worker computes."""

    def __init__(self) -> None:
        self.workspace = Workspace()


_OF_THREAD = _OfThread()
