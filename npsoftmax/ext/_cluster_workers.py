"""The workers of a cluster, and which of them holds what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from dask import delayed
from distributed import Client, TimeoutError

import npsoftmax
from npsoftmax.errors import ClusterError, InputError
from npsoftmax.ext._cluster_faults import PATIENCE, SHARE
from npsoftmax.ext._cluster_worker import Block, Shard

__all__ = ["Threads", "moves", "placed", "shared_out", "threads_of"]


class Threads(NamedTuple):
    """The threads of all workers.

    Attributes
    ----------
    addresses : list of str
        The worker of each thread.
    memory : int
        Bytes that each may use; 0 where there is no limit.
    """

    addresses: list[str]
    memory: int

    def num_shards(self, nbytes: int) -> int:
        """Return in how many shards to hold so many bytes: one for each thread, or smaller ones."""
        fewest = math.ceil(nbytes * SHARE / self.memory) if self.memory else 1
        return max(len(self.addresses), fewest)


class _Facts(NamedTuple):
    version: str | None
    num_threads: int
    memory_limit: int | None


def threads_of(client: Client) -> Threads:
    """Ask all workers what they are, and refuse those with another npsoftmax or none."""
    _refuse_unusable_client(client)

    def facts(dask_worker: Any) -> tuple[Any, ...]:
        # Inside, it travels as code, to where the package may be missing.
        try:
            from npsoftmax import __version__ as version
        except ImportError:
            version = None  # type: ignore[assignment]
        limit = dask_worker.memory_manager.memory_limit
        return version, dask_worker.state.nthreads, limit

    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        found = {name: _Facts(*known) for name, known in client.run(facts).items()}
    except (TimeoutError, OSError) as error:
        raise ClusterError(
            f"no worker joined the scheduler {address} within {PATIENCE:.0f} s, or one was lost; "
            f"start one on each machine: dask worker {address}"
        ) from error
    for name, known in found.items():
        if known.version != npsoftmax.__version__:
            raise ClusterError(
                f"worker {name}: expected npsoftmax {npsoftmax.__version__} as here, got "
                f"{known.version or 'none'}; install it on the machine of each worker"
            )
    addresses = [name for name, known in found.items() for _ in range(known.num_threads)]
    limits = [
        known.memory_limit // known.num_threads for known in found.values() if known.memory_limit
    ]
    return Threads(addresses, min(limits, default=0))


def _refuse_unusable_client(client: Client) -> None:
    if not isinstance(client, Client):
        raise InputError(
            f"client: expected a distributed.Client, got {client!r:.80}; open one: Client(address)"
        )
    if client.scheduler is None or client.status in ("closing", "closed"):
        raise ClusterError("client: expected an open one, got one that is closed; open another")
    if client.asynchronous:
        raise InputError(
            "client: expected one that waits for results, got Client(asynchronous=True); open "
            "another for this"
        )


def placed(
    client: Client, blocks: Sequence[Block], threads: Threads
) -> tuple[list[Any], list[int]]:
    """Make shards of contiguous blocks, on one worker each.

    Dask chooses the workers. A shard that is bound to one of them, and be it loosely, waits forever
    if all are lost at the same time and others come.

    Returns
    -------
    futures : list of Future
        Of the shards, in their order.
    stops : list of int
        How many samples there are up to and with the last one of each.
    """
    groups = shared_out([block.nbytes for block in blocks], threads)
    as_shard = delayed(Shard, pure=False)
    shards = [as_shard([blocks[number].samples for number in group]) for group in groups]
    stops = np.cumsum([block.layout.num_rows for block in blocks])
    return client.compute(shards), [int(stops[group[-1]]) for group in groups]


def shared_out(sizes: Sequence[int], threads: Threads) -> list[list[int]]:
    """Say which blocks make a shard: for each thread as much, none beyond a thread's memory.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of the blocks, more than 0, all of which fit.
    threads : Threads
        Of the cluster.

    Examples
    --------
    >>> shared_out([10, 10, 20, 20, 20], Threads(["a", "b"], memory=0))
    [[0, 1, 2], [3, 4]]
    >>> shared_out([10, 10, 20, 20, 20], Threads(["a", "b"], memory=120))  # 30 fit
    [[0, 1], [2], [3], [4]]
    """
    stops = np.cumsum(sizes)
    count = min(threads.num_shards(int(stops[-1])), len(sizes))
    numbers = ((stops - np.array(sizes) / 2) * count / stops[-1]).astype(int)
    most = threads.memory / SHARE or math.inf
    groups: list[list[int]] = []
    held = 0
    for block, size in enumerate(sizes):
        if block == 0 or numbers[block] != numbers[block - 1] or held + size > most:
            groups.append([])
            held = 0
        groups[-1].append(block)
        held += size
    return groups


def moves(homes: Sequence[str], num_threads: Mapping[str, int]) -> dict[int, str]:
    """Say which shards should go to which worker, for no thread to have more than need be.

    Parameters
    ----------
    homes : sequence of str
        The worker of each shard.
    num_threads : mapping of str to int
        Of each worker.

    Examples
    --------
    >>> moves(["a", "a", "a", "b"], {"a": 1, "b": 1, "c": 1})
    {2: 'c'}
    """
    held = {worker: [n for n, home in enumerate(homes) if home == worker] for worker in num_threads}
    moved: dict[int, str] = {}
    while held:
        busiest = max(held, key=lambda worker: len(held[worker]) / num_threads[worker])
        idlest = min(held, key=lambda worker: (len(held[worker]) + 1) / num_threads[worker])
        after = (len(held[idlest]) + 1) / num_threads[idlest]
        if after >= len(held[busiest]) / num_threads[busiest]:
            break
        moved[held[busiest].pop()] = idlest
        held[idlest].append(-1)  # came just now, and stays
    return moved
