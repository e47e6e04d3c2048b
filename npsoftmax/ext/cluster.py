r"""More data than one machine: the objective on the workers of a Dask cluster.

The mean over samples is a sum over blocks of them, and so are gradient, Hessian products,
preconditioner and the bound on the distance to the optimum. Blocks stay where they are, as they are
(bytes stay bytes); what travels in a round is ``theta``, to each worker, and one loss and gradient
back, 31 kB each for Fashion-MNIST in float32. The penalty is added once. The solver is that of one
machine, and so is the optimum.

Samples are rows here, as Dask has them; a block of rows, transposed, has them as columns.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import pairwise
from statistics import median
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple, NoReturn, TypeVar

import dask
import dask.array as da
import numpy as np
from dask import delayed
from distributed import CancelledError, Client, KilledWorker, TimeoutError, wait
from distributed.comm import CommClosedError
from numpy.typing import NDArray

import npsoftmax
from npsoftmax import SoftmaxRegression, metrics, objective, softmax
from npsoftmax._checks import as_count, as_size, unusable_weights
from npsoftmax.errors import ClusterError, InputError, NpsoftmaxError, ShapeError, SlowWorkerWarning
from npsoftmax.ext._cluster_worker import (
    Answer,
    Block,
    Combine,
    Shard,
    Turn,
    added_up,
    asked,
    blocks_of_array,
    blocks_of_files,
    delayed_blocks,
    layout_of,
    of_block,
    on_this_worker,
    packed,
    picked,
    rows_of,
    values_of,
)
from npsoftmax.objective import Workspace
from npsoftmax.objective.batch import as_scale
from npsoftmax.objective.samples import Draw, Samples, Summary, add, cores, draws_in

__all__ = [
    "ClusterSamples",
    "FullBatch",
    "Memory",
    "PATIENCE",
    "Quality",
    "SHARE",
    "Threads",
    "Watch",
    "evaluate",
    "moves",
    "placed",
    "predict",
    "probabilities",
    "shared_out",
    "threads_of",
    "training_rows",
]


# What goes wrong on a cluster, in words: lost, out of memory, slow.

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


# The workers of a cluster, and which of them holds what.


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


# Samples on the workers of a Dask cluster, and sums over them, round by round.
#
# A round sends a function, with ``theta`` in it, to each shard and gets one answer of each, summed
# over its blocks. With more than ``FAN_IN`` shards the workers add up answers in a tree first. The
# order of all sums depends on the shards alone, not on who holds them or is done first: after a
# worker was lost, and Dask has made its shards anew from where they came from, the same bits come
# back.

Result = TypeVar("Result")

FAN_IN = 8
SPREAD_SECONDS = 2.0


class ClusterSamples:
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
        self.threads, self.driver_threads = threads, cores()
        self.place = f"a cluster, {len(self._shards)} shards"
        self._sent: list[Any] = []
        self._mover, self._next_spread = Thread(), 0.0
        self.summary: Summary = self.map_reduce(_contents, Summary.merge)

    def map_reduce(
        self, function: Callable[[Samples, Workspace], Result], combine: Combine
    ) -> Result:
        """Call a function on each block, and combine what comes of them in their order."""
        question = packed((function, combine, None))
        result: Result = self._round([question] * len(self._shards), combine)
        return result

    def map_reduce_draws(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Combine,
        draws: list[Draw],
    ) -> Result:
        """Call a function on each block, with one thread and the draws of its samples."""
        questions = [
            packed((function, combine, [draws_in(draw, *bounds) for draw in draws]))
            for bounds in self._bounds
        ]
        result: Result = self._round(questions, combine)
        return result

    def subset(self, kept: NDArray[np.intp]) -> ClusterSamples:
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
        return ClusterSamples(self._client, copies, ends, self._watch, self.threads)

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


def _contents(samples: Samples, workspace: Workspace) -> Summary:
    return Summary.of(samples)


# Data sets by name as Dask arrays, loaded and verified where a worker is.


def training_rows(
    data: npsoftmax.Dataset,
    client: Client,
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> tuple[da.Array, da.Array]:
    """Return the training images and labels of a data set as Dask arrays of rows.

    No image leaves this process: each worker finds or downloads the data set as
    :func:`npsoftmax.load` does, verifies it, and takes its rows.

    Parameters
    ----------
    data : Dataset
        The data set, as it was loaded here.
    client : distributed.Client
        Of the cluster: there is a block for each of its threads, or smaller ones that fit its
        memory.
    limit : int, optional
        Take the first ones only.
    data_dir, offline
        As for :func:`npsoftmax.load`, on the machine of the worker.

    Returns
    -------
    X : dask.array.Array
        Of uint8, shape ``(n, 784)``.
    y : dask.array.Array
        Labels, shape ``(n,)``.

    Raises
    ------
    InputError
        ``limit`` is not a whole number of at least one.
    ClusterError
        As for :class:`npsoftmax.ext.cluster.FullBatch`.

    Examples
    --------
    >>> settings = {"n_workers": 1, "threads_per_worker": 4, "dashboard_address": ":0"}
    >>> with Client(processes=False, **settings) as client:
    ...     X, y = training_rows(npsoftmax.load("garments"), client)
    >>> X.shape, X.dtype, y.shape, y.numblocks
    ((10240, 784), dtype('uint8'), (10240,), (4,))
    """
    num_rows = len(data.y_train)
    if limit is not None:
        num_rows = min(num_rows, as_count(limit, "limit"))
    width, images, labels = data.X_train.shape[0], [], []
    count = min(threads_of(client).num_shards(num_rows * width), num_rows)
    folder = None if data_dir is None else os.path.abspath(os.path.expanduser(data_dir))
    for ends in pairwise(num_rows * number // count for number in range(count + 1)):
        block = delayed(_rows, nout=2, pure=True)(data.name, folder, offline, *ends)
        size = ends[1] - ends[0]
        images.append(da.from_delayed(block[0], (size, width), data.X_train.dtype))
        labels.append(da.from_delayed(block[1], (size,), data.y_train.dtype))
    return da.concatenate(images), da.concatenate(labels)


def _rows(
    name: str, folder: str | None, offline: bool | None, first: int, stop: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    with on_this_worker():
        data = _loaded(name, folder, offline)
    # Views of the mapped file: workers on one machine share its memory.
    return data.X_train.T[first:stop], np.array(data.y_train[first:stop])


@lru_cache(maxsize=1)
def _loaded(name: str, folder: str | None, offline: bool | None) -> npsoftmax.Dataset:
    return npsoftmax.load(name, folder, offline=offline)


class FullBatch(objective.FullBatch):
    r"""The objective on samples that lie on the workers of a cluster.

    .. math::

        J(\theta) = \frac{1}{\bar w} \sum_{j=1}^n w_j \, \ell(s W x_j + b, y_j)
            + \frac{\lambda}{2} \|W\|_F^2, \qquad \bar w = \sum_j w_j

    It has the methods of :class:`npsoftmax.objective.FullBatch`, and its values but for rounding,
    however the rows are cut. :class:`npsoftmax.FullBatchTrainer` trains on it;
    :func:`npsoftmax.lbfgs.minimise` takes its ``loss_and_grad``.

    Parameters
    ----------
    X : dask.array.Array, or sequence of paths
        Rows of samples, shape ``(n, d)``, of any real dtype; or IDX files (also in gzip) and
        ``.npy`` files, which each worker reads itself, under the same path on every machine.
        Files of images are flattened.
    y : dask.array.Array, array_like, or sequence of paths
        Integer labels, shape ``(n,)``; or a file of them for each file of ``X``.
    l2 : float
        ``lambda``, the weight of the penalty.
    client : distributed.Client
        Of the cluster. The blocks stay on its workers as long as this object exists; Dask puts on
        disk what does not fit into their memory.
    sample_weight : dask.array.Array or array_like, optional
        Shape ``(n,)``, numbers of at least 0; all 1 unless given.
    scale : float
        ``s``, what a sample is multiplied by: ``model.input_scale(dtype)``.
    block_size : int, optional
        For files: the most rows of a block; unless given, one block for each thread of the cluster,
        or smaller ones that fit its memory. A Dask array has blocks of its own.

    Raises
    ------
    ShapeError, LabelError, InputError
        As for :class:`npsoftmax.objective.FullBatch`, with the number of the block, which counts
        from 0; blocks are too large for the memory of a worker.
    CorruptFileError
        A file is not what its format promises.
    ClusterError
        There is no worker, or one has another version of this package; scheduler or workers are
        lost; a worker is out of memory.

    Warns
    -----
    SlowWorkerWarning
        One worker keeps the others waiting, round after round.

    Notes
    -----
    Each thread of a worker computes with one BLAS thread. In its last digits the result depends on
    how rows are cut into blocks and on the number of threads of the cluster at the start, not on
    what happens to workers after it.

    Examples
    --------
    >>> from distributed import Client
    >>> with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
    ...     X = da.from_array(np.array([[1.0], [3.0]]), chunks=1)
    ...     problem = FullBatch(X, [0, 1], 0.1, client)
    ...     value, grad, *_ = problem.loss_and_grad(np.zeros((2, 2)))
    >>> round(value, 6), grad.tolist()
    (0.693147, [[0.5, 0.0], [-0.5, 0.0]])
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        l2: float,
        client: Client,
        sample_weight: Any = None,
        *,
        scale: float = 1.0,
        block_size: int | None = None,
    ) -> None:
        l2, scale = as_size(l2, "l2"), as_scale(scale)  # before anything is loaded
        threads, watch = threads_of(client), Watch(client)
        with watch.translated():
            if isinstance(X, da.Array):
                _refuse_block_size(block_size)
                blocks = blocks_of_array(X, y, sample_weight)
            else:
                blocks = _blocks_of_files(X, y, sample_weight, block_size, watch, threads)
            _refuse_unusable(blocks, watch, threads)
            shards, stops = placed(client, blocks, threads)
        store = ClusterSamples(client, shards, stops, watch, len(threads.addresses))
        self._use(store, l2, scale)
        if not 0 < self.summary.total < np.inf:
            raise unusable_weights(f"numbers that sum to {self.summary.total}")


def _refuse_block_size(block_size: int | None) -> None:
    if block_size is not None:
        raise InputError(
            f"block_size: expected with files, got {block_size} with a Dask array, which has "
            f"blocks of its own; use X.rechunk(({block_size}, -1))"
        )


def _blocks_of_files(
    X: Any, y: Any, weights: Any, block_size: int | None, watch: Watch, threads: Threads
) -> list[Block]:
    """Plan the blocks of files, once a worker has said what is in them."""
    paths = _as_paths(X)
    if not paths:
        raise InputError(
            f"X: expected a Dask array of rows or a list of files, got {type(X).__name__}; cut an "
            "array by dask.array.from_array(rows, chunks=(10_000, -1)), or stay on one machine"
        )
    label_paths = _as_paths(y)
    if isinstance(y, str | os.PathLike):
        raise InputError(f"y: expected labels, or a list of files as for X, got {y!r}; use [{y!r}]")
    layouts = watch.results_of(layout_of, [*paths, *(label_paths or [])])
    files = list(zip(paths, layouts, strict=False))
    if label_paths is None:
        labels: Any = np.asarray(y)
    else:
        labels = list(zip(label_paths, layouts[len(paths) :], strict=True))
    if block_size is None:
        num_rows = sum(layout.num_rows for _, layout in files)
        nbytes = sum(math.prod(layout[:2]) * layout.dtype.itemsize for _, layout in files)
        block_size = max(1, math.ceil(num_rows / threads.num_shards(nbytes)))
    weights = None if weights is None else np.asarray(weights)
    return blocks_of_files(files, labels, weights, as_count(block_size, "block_size"))


def _as_paths(values: Any) -> list[str] | None:
    """Return the files that a sequence names, in full, or None if it names none."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    if not all(isinstance(value, str | os.PathLike) for value in values):
        return None
    return [os.path.abspath(value) for value in values]


def _refuse_unusable(blocks: Sequence[Block], watch: Watch, threads: Threads) -> None:
    """Raise unless there are blocks that fit into the memory of a worker."""
    if not blocks:
        raise ShapeError("X: expected at least one sample, got none; check where it comes from")
    layouts = [block.layout for block in blocks]
    row_bytes = layouts[0].width * layouts[0].dtype.itemsize
    largest = max(layout.num_rows for layout in layouts)
    watch.memory = Memory(threads.memory, row_bytes, largest)
    watch.names = {str(task.key): b.name for b in blocks for task in (b.rows, b.samples)}
    if threads.memory and largest > watch.memory.fitting_rows:
        raise InputError(f"X: expected blocks that fit a worker: {watch.memory.advice()}")


# What a model makes of Dask arrays, block by block, and how good that is.


def probabilities(model: SoftmaxRegression, X: da.Array) -> da.Array:
    """Compute the probability of each class, block by block, when Dask is asked for them.

    Parameters
    ----------
    model : SoftmaxRegression
        A trained model.
    X : dask.array.Array
        Rows of samples, shape ``(n, d)``, as ``model(X.T)`` takes them.

    Returns
    -------
    dask.array.Array
        Shape ``(n, k)``, not computed yet; its blocks raise what ``model`` raises.

    Raises
    ------
    ShapeError
        ``X`` is not of that shape, or its size is not known.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = 0
    >>> probabilities(model, da.zeros((3, 1), chunks=2)).compute()
    array([[0.5, 0.5],
           [0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    rows = _as_rows(model, X)
    chunks = (rows.chunks[0], (model.num_outputs,))
    meta = np.empty((0, 0), model.theta.dtype)
    return rows.map_blocks(_probabilities, _shipped(model), chunks=chunks, meta=meta)


def predict(model: SoftmaxRegression, X: da.Array) -> da.Array:
    """Return the most likely class of each sample, block by block, when Dask is asked for them.

    Parameters
    ----------
    model, X
        As for :func:`probabilities`.

    Returns
    -------
    dask.array.Array
        Of intp, shape ``(n,)``, not computed yet; its blocks raise what ``model`` raises.

    Raises
    ------
    ShapeError
        As for :func:`probabilities`.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = [[1, 0], [-1, 0]]
    >>> predict(model, da.from_array(np.array([[3.0], [-3.0]]), chunks=1)).compute()
    array([0, 1])
    """
    rows = _as_rows(model, X)
    meta = np.empty(0, np.intp)
    return rows.map_blocks(_predict, _shipped(model), drop_axis=1, meta=meta)


class Quality(NamedTuple):
    """How good a model is on some samples, as :mod:`npsoftmax.metrics` defines it.

    Attributes
    ----------
    num_samples : int
        How many there are.
    accuracy, top_3_accuracy, negative_log_likelihood, brier, expected_calibration_error : float
        Over all of them.
    confusion : ndarray of int64
        Shape ``(k, k)``; :func:`npsoftmax.metrics.per_class` takes it.
    """

    num_samples: int
    accuracy: float
    top_3_accuracy: float
    negative_log_likelihood: float
    brier: float
    expected_calibration_error: float
    confusion: NDArray[np.int64]


def evaluate(model: SoftmaxRegression, X: da.Array, y: Any) -> Quality:
    """Compute every metric, block by block; numbers come back, not predictions.

    Parameters
    ----------
    model, X
        As for :func:`probabilities`.
    y : dask.array.Array or array_like
        Labels, shape ``(n,)``.

    Returns
    -------
    Quality

    Raises
    ------
    ShapeError, LabelError, InputError
        As for the model and the metrics.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = [[1, 0], [-1, 0]]
    >>> X = da.from_array(np.array([[3.0], [-3.0], [1.0]]), chunks=2)
    >>> quality = evaluate(model, X, [0, 1, 1])
    >>> round(quality.accuracy, 3), quality.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    rows = _as_rows(model, X)
    if rows.shape[0] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {rows.shape}")
    labels, sizes = values_of(rows, y, "y"), rows.chunks[0]
    shipped = _shipped(model)
    parts = [
        delayed(_sums)(part, of_labels, shipped, number)
        for number, (part, of_labels, size) in enumerate(
            zip(delayed_blocks(rows), labels, sizes, strict=True)
        )
        if size > 0
    ]
    while len(parts) > 1:
        parts = [delayed(_total)(parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
    (sums,) = dask.compute(parts[0])
    n, hits, near, loss, squares, bins, confusion = sums
    error = float(np.abs(bins[1] - bins[2]).sum() / n)
    return Quality(n, hits / n, near / n, loss / n, squares / n, error, confusion)


def _shipped(model: SoftmaxRegression) -> Any:
    """Return the model as it is now: what is lazy must not follow its later training."""
    return delayed(copy.deepcopy(model), pure=False)


def _as_rows(model: SoftmaxRegression, X: da.Array) -> da.Array:
    rows = rows_of(X)
    if rows.shape[1] != model.num_inputs:
        raise ShapeError(
            f"X: expected rows of {model.num_inputs} features, got shape {rows.shape}; samples are "
            "rows in Dask arrays"
        )
    return rows


def _probabilities(
    rows: NDArray[Any], model: SoftmaxRegression, block_id: tuple[int, ...]
) -> NDArray[Any]:
    with of_block(f"block {block_id[0]}"):
        P: NDArray[Any] = model.probabilities(rows.T).T
    return P


def _predict(
    rows: NDArray[Any], model: SoftmaxRegression, block_id: tuple[int, ...]
) -> NDArray[np.intp]:
    with of_block(f"block {block_id[0]}"):
        return model.predict(rows.T)


def _sums(
    rows: NDArray[Any], y: NDArray[Any], model: SoftmaxRegression, number: int
) -> tuple[Any, ...]:
    """Return what a block contributes to each metric."""
    with of_block(f"block {number}"):
        Z, n = model.logits(rows.T), len(rows)
        P, k = softmax(Z), model.num_outputs
        return (
            n,
            n * metrics.accuracy(Z, y),
            n * metrics.top_k_accuracy(Z, y, min(3, k)),
            n * metrics.negative_log_likelihood(Z, y),
            n * metrics.brier(P, y),
            np.array(metrics.confidence_bins(P, y)),
            metrics.confusion_matrix(Z.argmax(axis=0), y, k),
        )


def _total(parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total
