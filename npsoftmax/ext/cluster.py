r"""Full-batch training on the workers of a Dask cluster, for data larger than one machine.

The objective, its gradient, the Hessian products, the preconditioner and the bound on the distance
to the optimum are sums over the samples, so each worker computes the sums over the samples it
holds. In a round each worker receives ``theta`` and returns one loss and one gradient, 31 kB each
way for Fashion-MNIST in float32; the penalty is added once. The solver and the optimum are those of
one machine. Integer samples stay integers on the workers.

Samples are rows here, as is usual with Dask. A chunk of rows, transposed, has samples as columns.
Errors call the chunk ``X.blocks[3]`` of a Dask array "block 3".
"""

from __future__ import annotations

import copy
import math
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial, reduce
from itertools import pairwise, zip_longest
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

import npsoftmax
from npsoftmax import SoftmaxRegression, metrics, objective, softmax
from npsoftmax._checks import as_count, as_size, unusable_weights, way_to_labels
from npsoftmax._threads import default_threads
from npsoftmax.errors import ClusterError, InputError, NpsoftmaxError, ShapeError
from npsoftmax.ext import extra
from npsoftmax.objective import Workspace
from npsoftmax.objective.samples import Draw, Samples, Summary, add, draws_in

with extra("distributed"):
    import dask
    import dask.array as da
    import distributed
    from dask import delayed
    from distributed import CancelledError, Client, KilledWorker, TimeoutError
    from distributed.comm import CommClosedError

    from npsoftmax.ext import _cluster_worker as on_worker
    from npsoftmax.ext._cluster_worker import Layout

__all__ = ["FullBatch", "Quality", "evaluate", "predict", "probabilities", "training_rows"]

# Above this number of answers, the workers combine them in a tree.
FAN_IN = 8
# Seconds between two checks of the cluster, and until one that cannot compute is abandoned.
TICK, PATIENCE = 2.0, 60.0
# A chunk may take this part of the memory of a thread: it is held twice at times, next to others.
MAX_CHUNK_MEMORY = 1 / 4

Result = TypeVar("Result")


class FullBatch(objective.FullBatch):
    """The objective on samples that are stored on the workers of a cluster.

    It has the methods of :class:`npsoftmax.objective.FullBatch`, and the same values up to
    rounding, for any chunks. :class:`npsoftmax.FullBatchTrainer` trains on it.

    Parameters
    ----------
    X : dask.array.Array, or sequence of paths
        Rows of samples, shape ``(n, d)``, of any real dtype; or IDX files (also in gzip) and
        ``.npy`` files, which each worker reads itself, under the same path on every machine. Images
        in files are flattened.
    y : dask.array.Array, array_like, or sequence of paths
        Integer labels, shape ``(n,)``; or a file of labels for each file of ``X``.
    l2 : float
        ``lambda``, the weight of the penalty.
    client : distributed.Client
        Client of the cluster. The samples stay on its workers as long as this object exists; Dask
        stores on disk what does not fit into their memory.
    sample_weight : dask.array.Array or array_like, optional
        Shape ``(n,)``, numbers of at least 0; all 1 by default.
    scale : float
        ``s``, the factor applied to the samples: ``model.input_scale(dtype)``.
    block_size : int, optional
        For files: the largest number of rows in a chunk. By default there is one chunk for each
        thread of the cluster, or smaller ones that fit its memory. A Dask array has its own chunks.
    penalty_factor : array_like, optional
        Shape ``(d,)``, as in :class:`npsoftmax.objective.FullBatch`.

    Raises
    ------
    InputError
        A chunk is too large for the memory of a worker, or its samples, labels or weights are
        refused; the message begins with its number, as in ``block 3``.
    ClusterError
        There is no worker, or one has another version of this package; the scheduler or all workers
        are lost; a worker is out of memory.

    Notes
    -----
    Each thread of a worker computes with one BLAS thread. The last digits of the result depend on
    the chunks and on the number of threads of the cluster at the start, but not on workers that are
    lost or added later.

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
        penalty_factor: ArrayLike | None = None,
    ) -> None:
        l2 = as_size(l2, "l2")  # before anything is loaded
        threads, address = check_workers(client), client.scheduler.address
        if isinstance(X, da.Array):
            if block_size is not None:
                raise InputError(
                    f"block_size: expected with files, got {block_size} with a Dask array, which "
                    f"has blocks of its own; use X.rechunk(({block_size}, -1))"
                )
            chunks = chunks_of_array(X, y, sample_weight)
        else:
            with errors_as_ours(client, address, {}, "use smaller blocks"):
                chunks = chunks_of_files(X, y, sample_weight, block_size, client, threads)
        names = {str(task.key): c.name for c in chunks for task in (c.rows, c.samples)}
        advice = _check_memory(chunks, threads)
        errors = partial(errors_as_ours, client, address, names, advice)
        with errors():
            shards, stops = place_on_workers(client, chunks, threads)
        store = ClusterSamples(client, shards, stops, threads.total, errors)
        self._set_samples(store, l2, scale, penalty_factor)
        if not 0 < self.summary.total < np.inf:
            raise unusable_weights(f"numbers that sum to {self.summary.total:g}")


class Threads(NamedTuple):
    """The number of threads of all workers, and the bytes that each may use (0: no limit)."""

    total: int
    memory: int

    @property
    def max_chunk_bytes(self) -> float:
        """The largest size of a chunk or a shard."""
        return self.memory * MAX_CHUNK_MEMORY or math.inf

    def num_shards(self, nbytes: int) -> int:
        """Return the number of shards for data of this size: one for each thread, or smaller."""
        return max(self.total, math.ceil(nbytes / self.max_chunk_bytes))


def check_workers(client: Client) -> Threads:
    """Return the threads of all workers; raise unless each has this version of npsoftmax."""
    if not isinstance(client, Client):
        raise InputError(
            f"client: expected a distributed.Client, got {client!r:.80}; open one: Client(address)"
        )
    if client.scheduler is None or client.status in ("closing", "closed"):
        raise ClusterError("client: expected an open one, got one that is closed; open another")
    if client.asynchronous:
        raise InputError("client: expected one that waits, got Client(asynchronous=True)")

    def describe(dask_worker: Any) -> tuple[Any, ...]:
        # A nested function travels as code: the package may be missing on the worker.
        try:
            from npsoftmax import __version__ as version
        except ImportError:
            version = None  # type: ignore[assignment]
        return version, dask_worker.state.nthreads, dask_worker.memory_manager.memory_limit

    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        found = client.run(describe)
    except (TimeoutError, OSError) as error:
        raise ClusterError(
            f"no worker joined the scheduler {address} within {PATIENCE:.0f} s, or one was lost; "
            f"start one on each machine: dask worker {address}"
        ) from error
    for name, (version, *_) in found.items():
        if version != npsoftmax.__version__:
            raise ClusterError(
                f"worker {name}: expected npsoftmax {npsoftmax.__version__} as here, got "
                f"{version or 'none'}; install it on the machine of each worker"
            )
    limits = [limit // count for _, count, limit in found.values() if limit]
    return Threads(sum(count for _, count, _ in found.values()), min(limits, default=0))


class Chunk(NamedTuple):
    """Some rows: the name in errors, and the tasks that make the rows and the checked Samples."""

    name: str
    layout: Layout
    rows: Any
    samples: Any


def _plan_chunks(
    names: Iterable[str], sizes: Sequence[int], layout: Layout, rows: Any, labels: Any, weights: Any
) -> list[Chunk]:
    """Plan the chunks of these sizes, except the empty ones."""
    weights = [None] * len(sizes) if weights is None else split(weights, sizes, "sample_weight")
    chunks = []
    stops = np.cumsum(sizes).tolist()
    for name, size, stop, *parts in zip(names, sizes, stops, rows, labels, weights, strict=True):
        if size > 0:
            part = layout._replace(num_rows=size)
            samples = delayed(on_worker.check_chunk, pure=False)(name, part, stop - size, *parts)
            chunks.append(Chunk(name, part, parts[0], samples))
    return chunks


def split(values: Any, sizes: Sequence[int], name: str) -> Any:
    """Split one value for each row into chunks of these sizes."""
    is_lazy = isinstance(values, da.Array)
    values = values if is_lazy else np.asarray(values)
    if values.shape != (sum(sizes),):
        raise ShapeError(
            f"{name}: expected one for each of {sum(sizes)} rows of X, got shape {values.shape}; "
            f"{way_to_labels(values.shape, name)}"
        )
    if is_lazy:
        return delayed_chunks(values.rechunk((tuple(sizes),)))
    # A Dask array of them would send the whole array to every worker.
    return np.split(values, np.cumsum(sizes)[:-1])


def delayed_chunks(array: da.Array) -> Any:
    """Return the tasks of the chunks, under the keys that Dask has for them.

    In an optimised graph these keys would mean other tasks, and those of two calls would clash.
    """
    return array.to_delayed(optimize_graph=False).reshape(-1)


def chunks_of_array(X: da.Array, y: Any, weights: Any) -> list[Chunk]:
    """Plan the chunks of a Dask array."""
    X = as_rows(X)
    sizes, layout = X.chunks[0], Layout(X.shape[0], X.shape[1], X.dtype)
    names = [f"block {number}" for number in range(len(sizes))]
    return _plan_chunks(names, sizes, layout, delayed_chunks(X), split(y, sizes, "y"), weights)


def _way_to_array(X: object) -> str:
    if hasattr(X, "to_dask_array"):
        return "pass X.to_dask_array(lengths=True)"
    return "split an array with dask.array.from_array(rows, chunks=(10_000, -1))"


def as_rows(X: Any, width: int | None = None) -> da.Array:
    """Return a Dask array of rows, of this width if it is given, whose chunks have all features."""
    if not isinstance(X, da.Array):
        raise InputError(
            f"X: expected a Dask array of rows, got {type(X).__name__}; {_way_to_array(X)}; only "
            "FullBatch takes files"
        )
    if X.ndim != 2:
        raise ShapeError(
            f"X: expected a Dask array of shape (samples, features), got {X.shape}; flatten images "
            "with X.reshape(len(X), -1)"
        )
    if np.isnan(X.shape).any():
        raise ShapeError(
            f"X: expected blocks of known sizes, got shape {X.shape}; call X.compute_chunk_sizes()"
        )
    if width not in (None, X.shape[1]):
        raise ShapeError(
            f"X: expected rows of {width} features, got shape {X.shape}; samples are rows in Dask "
            "arrays"
        )
    return X.rechunk({1: -1})


def chunks_of_files(
    X: Any, y: Any, weights: Any, block_size: int | None, client: Client, threads: Threads
) -> list[Chunk]:
    """Plan the chunks of files, after the workers have read the layouts."""
    paths, label_paths = _as_paths(X), _as_paths(y)
    if not paths:
        raise InputError(
            f"X: expected a Dask array of rows or a list of files, got {type(X).__name__}; "
            f"{_way_to_array(X)}, or stay on one machine"
        )
    if isinstance(y, str | os.PathLike):
        raise InputError(f"y: expected labels, or a list of files as for X, got {y!r}; use [{y!r}]")
    found = wait(client, client.map(on_worker.read_layout, [*paths, *label_paths], pure=False))
    layouts = found[: len(paths)]
    _check_layouts(paths, layouts, label_paths, found[len(paths) :])
    if block_size is None:
        num_rows = sum(layout.num_rows for layout in layouts)
        num_shards = threads.num_shards(sum(layout.nbytes for layout in layouts))
        block_size = max(1, math.ceil(num_rows / num_shards))
    block_size = as_count(block_size, "block_size")
    cuts = [
        (path, label_path, first, min(first + block_size, layout.num_rows))
        for path, label_path, layout in zip_longest(paths, label_paths, layouts)
        for first in range(0, layout.num_rows, block_size)
    ]
    names = [
        f"block {number} ({path}, rows {first} to {stop - 1})"
        for number, (path, _, first, stop) in enumerate(cuts)
    ]
    sizes = [stop - first for *_, first, stop in cuts]
    read_images = delayed(on_worker.read_images, pure=False)
    read_rows = delayed(on_worker.read_rows, pure=False)
    rows = [read_images(path, first, stop) for path, _, first, stop in cuts]
    if label_paths:
        labels = [read_rows(path, first, stop) for _, path, first, stop in cuts]
    else:
        labels = split(y, sizes, "y")
    return _plan_chunks(names, sizes, layouts[0], rows, labels, weights)


def _as_paths(values: Any) -> list[str]:
    """Return the absolute paths in a sequence of paths, none for anything else."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if is_list and all(isinstance(value, str | os.PathLike) for value in values):
        return [os.path.abspath(value) for value in values]
    return []


def _check_layouts(
    paths: list[str], layouts: list[Layout], label_paths: list[str], label_layouts: list[Layout]
) -> None:
    """Raise unless the files have the same kind of rows, and one label for each row."""
    if label_paths and len(label_paths) != len(paths):
        raise ShapeError(
            f"y: expected a file of labels for each of {len(paths)} files of X, got "
            f"{len(label_paths)}"
        )
    _, *kind = layouts[0]
    for path, (num_rows, *found), label_path, labels in zip_longest(
        paths, layouts, label_paths, label_layouts
    ):
        if num_rows > 0 and found != kind:
            raise ShapeError(
                "{}: expected rows of {} {}, as in {}, got {} {}; convert it, or leave it "
                "out".format(path, *kind, paths[0], *found)
            )
        if labels and labels[:2] != (num_rows, 1):
            raise ShapeError(
                f"{label_path}: expected {num_rows} labels, one for each row of {path}, got "
                f"{labels.num_rows} rows of {labels.width}"
            )


def _check_memory(chunks: Sequence[Chunk], threads: Threads) -> str:
    """Raise unless each chunk fits a worker; return what to do if one does not fit after all."""
    if not chunks:
        raise ShapeError("X: expected at least one sample, got none; check where it comes from")
    largest = max(chunks, key=lambda chunk: chunk.layout.nbytes)
    nbytes, num_rows = largest.layout.nbytes, largest.layout.num_rows
    limit = threads.max_chunk_bytes
    max_rows = max(1, int(min(num_rows // 2, limit * num_rows / nbytes)))
    advice = (
        f"use blocks of at most {max_rows:,} rows (X.rechunk(({max_rows}, -1)), for files "
        f"block_size={max_rows}), or workers with more memory"
    )
    if nbytes > limit and num_rows > 1:
        raise InputError(
            f"X: expected blocks of at most {limit / 1e6:,.1f} MB, {MAX_CHUNK_MEMORY:.0%} of the "
            f"memory of a thread, got {nbytes / 1e6:,.1f} MB in {largest.name}; {advice}"
        )
    return advice


def place_on_workers(
    client: Client, chunks: Sequence[Chunk], threads: Threads
) -> tuple[list[Any], list[int]]:
    """Make shards of consecutive chunks; return their futures and the index after each shard.

    Dask chooses the workers: a shard pinned to one would wait forever if it were replaced.
    """
    groups = group_chunks([chunk.layout.nbytes for chunk in chunks], threads)
    make_shard = delayed(on_worker.Shard, pure=False)
    shards = [make_shard([chunks[number].samples for number in group]) for group in groups]
    stops = np.cumsum([chunk.layout.num_rows for chunk in chunks])
    return client.compute(shards), [int(stops[group[-1]]) for group in groups]


def group_chunks(sizes: Sequence[int], threads: Threads) -> list[list[int]]:
    """Group consecutive chunks of these sizes in bytes into shards.

    Each thread gets about the same number of bytes, and no shard exceeds its memory.

    Examples
    --------
    >>> group_chunks([10, 10, 20, 20, 20], Threads(2, memory=0))
    [[0, 1, 2], [3, 4]]
    >>> group_chunks([10, 10, 20, 20, 20], Threads(2, memory=120))  # 30 fit
    [[0, 1], [2], [3], [4]]
    """
    stops = np.cumsum(sizes)
    count = min(threads.num_shards(int(stops[-1])), len(sizes))
    numbers = ((stops - np.array(sizes) / 2) * count / stops[-1]).astype(int)
    groups: list[list[int]] = []
    held = 0
    for chunk, size in enumerate(sizes):
        is_full = held + size > threads.max_chunk_bytes
        if chunk == 0 or numbers[chunk] != numbers[chunk - 1] or is_full:
            groups.append([])
            held = 0
        groups[-1].append(chunk)
        held += size
    return groups


class ClusterSamples:
    """A :class:`npsoftmax.objective.samples.SampleStore` on the workers of a cluster.

    A round sends a function, with ``theta`` in it, to each shard, which returns one answer, summed
    over its chunks. The order of all sums depends on the shards alone, not on the worker that holds
    them or the time it takes: if a worker is lost, Dask makes its shards again from their source,
    and the sums have the same bits.

    ``stops`` are the indices after the last sample of each shard; ``errors`` returns
    :func:`errors_as_ours` for these samples.
    """

    def __init__(
        self,
        client: Client,
        shards: Sequence[Any],
        stops: Sequence[int],
        threads: int,
        errors: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._client, self._shards, self._errors = client, list(shards), errors
        self._bounds = list(pairwise([0, *stops]))
        self._previous: list[Any] = []
        self.threads, self.driver_threads = threads, default_threads()
        self.place = f"a cluster, {len(self._shards)} shards"
        self.summary: Summary = self.map_reduce(_summarise, Summary.merge)

    def map_reduce(
        self,
        function: Callable[[Samples, Workspace], Result],
        combine: Callable[[Result, Result], Result],
    ) -> Result:
        """Call a function on each chunk, and combine the results in order."""
        question = pickle.dumps((function, combine, None), pickle.HIGHEST_PROTOCOL)
        return self._run_round([question] * len(self._shards), combine)

    def map_reduce_draws(
        self,
        function: Callable[[Samples, int, list[Draw]], Result],
        combine: Callable[[Result, Result], Result],
        draws: list[Draw],
    ) -> Result:
        """Call a function on each chunk, with one thread and the draws of its samples."""
        parts = [[draws_in(draw, *bounds) for draw in draws] for bounds in self._bounds]
        questions = [
            pickle.dumps((function, combine, part), pickle.HIGHEST_PROTOCOL) for part in parts
        ]
        return self._run_round(questions, combine)

    def subset(self, indices: NDArray[np.intp]) -> ClusterSamples:
        """Return a store of copies of the samples at these ascending indices, on their workers."""
        cuts = [0, *np.searchsorted(indices, [stop for _, stop in self._bounds]).tolist()]
        jobs = [
            (shard, indices[first:stop], first, stop)
            for shard, (first, stop) in zip(self._shards, pairwise(cuts), strict=True)
            if first < stop
        ]
        shards, parts, firsts, stops = zip(*jobs, strict=True)
        with self._errors():
            copies = self._client.map(on_worker.subset_of_shard, shards, parts, firsts, pure=False)
        return ClusterSamples(self._client, copies, stops, self.threads, self._errors)

    def _run_round(
        self, questions: Sequence[bytes], combine: Callable[[Result, Result], Result]
    ) -> Result:
        with self._errors():
            # The user cannot make a question smaller, so Dask should not ask for it.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
                futures = self._client.map(
                    on_worker.run_on_shard, self._shards, questions, pure=False
                )
            sent = [futures]
            while len(futures) > FAN_IN:
                groups = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
                part = partial(on_worker.reduce_answers, combine=combine)
                futures = self._client.map(part, groups, pure=False)
                sent.append(futures)
            # Release the previous round only now: Dask holds messages back that follow another
            # within 10 ms, and a release just before a round would delay the round.
            self._previous = sent
            answers = wait(self._client, futures)
            result: Result = pickle.loads(on_worker.reduce_answers(answers, combine))
        return result


def _summarise(samples: Samples, workspace: Workspace) -> Summary:
    return Summary.of(samples)


def wait(client: Client, futures: Sequence[Any]) -> list[Any]:
    """Return the results of tasks, or raise what they raise.

    Raise ClusterError if nothing can compute them for ``PATIENCE`` seconds.
    """
    last_alive = monotonic()
    while True:
        try:
            with client.as_current():
                distributed.wait(futures, timeout=TICK)
            for future in futures:
                if future.status == "error":
                    future.result()
            # If a worker is lost now, its answers are computed again, so this may time out as well.
            gather = partial(client.gather, futures, asynchronous=True)
            return list(client.sync(gather, callback_timeout=PATIENCE))
        except TimeoutError:
            if any(future.status == "error" for future in futures):
                raise  # of the task itself
        if _can_compute(client):
            last_alive = monotonic()
        elif monotonic() - last_alive > PATIENCE:
            raise ClusterError(
                f"the scheduler {client.scheduler.address} does not answer, no worker is left, or "
                f"workers have paused because their memory is full, for {PATIENCE:.0f} s; start "
                "the cluster again, with smaller blocks if the memory was full"
            )


def _can_compute(client: Client) -> bool:
    """Return whether a scheduler answers, and a worker computes or none has paused."""
    if client.status != "running":
        raise CommClosedError(f"the connection is {client.status}")
    try:
        known = client.sync(client.scheduler.identity, callback_timeout=TICK)
    except TimeoutError:
        return False
    workers = known["workers"].values()
    if any(worker["metrics"].get("task_counts", {}).get("executing") for worker in workers):
        return True
    return bool(workers) and all(worker["status"] != "paused" for worker in workers)


@contextmanager
def errors_as_ours(
    client: Client, address: str, names: Mapping[str, str], advice: str
) -> Iterator[None]:
    """Turn errors of Dask into a ClusterError; errors of npsoftmax and of the user's tasks stay.

    ``address`` is the scheduler's, which a closed client has forgotten; ``names`` maps the keys of
    tasks to names for the message; ``advice`` ends it.
    """
    try:
        yield
    except NpsoftmaxError:
        raise
    except KilledWorker as error:
        name = names.get(str(error.task), f"task {error.task}")
        raise ClusterError(
            f"{name}: its worker died {error.allowed_failures + 1} times, most likely because it "
            f"was out of memory; {advice}"
        ) from error
    except MemoryError as error:
        raise ClusterError(f"a worker is out of memory; {advice}") from error
    except Exception as error:
        is_lost = isinstance(error, CancelledError | CommClosedError)
        if client.status == "running" and not is_lost:
            raise
        problem = f"the scheduler {address} is gone, or has forgotten the samples"
        remedy = "start it and its workers again"
        if client.status in ("closing", "closed"):
            problem = f"the client of {address} is closed"
            remedy = "open another"
        raise ClusterError(f"{problem}: {type(error).__name__}; {remedy}") from error


def training_rows(
    data: npsoftmax.Dataset,
    client: Client,
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> tuple[da.Array, da.Array]:
    """Return the training images ``(n, 784)`` and labels ``(n,)`` of a data set as Dask arrays.

    No image leaves this process: each worker finds or downloads the data set and verifies it, as
    :func:`npsoftmax.load` does, and takes its rows.

    Parameters
    ----------
    data : Dataset
        The data set, as it was loaded here.
    client : distributed.Client
        Client of the cluster: there is a chunk for each of its threads, or smaller ones that fit
        its memory.
    limit : int, optional
        Number of samples to take, from the first on; all by default.
    data_dir, offline
        The arguments of :func:`npsoftmax.load` on the machine of the worker.

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
    count = min(check_workers(client).num_shards(num_rows * width), num_rows)
    folder = None if data_dir is None else os.path.abspath(os.path.expanduser(data_dir))
    for first, stop in pairwise(num_rows * number // count for number in range(count + 1)):
        X, y = delayed(on_worker.read_dataset, nout=2, pure=True)(
            data.name, folder, offline, first, stop
        )
        images.append(da.from_delayed(X, (stop - first, width), data.X_train.dtype))
        labels.append(da.from_delayed(y, (stop - first,), data.y_train.dtype))
    return da.concatenate(images), da.concatenate(labels)


def probabilities(model: SoftmaxRegression, X: da.Array) -> da.Array:
    """Return the probability of each class as a lazy Dask array, shape ``(n, k)``.

    Computing it raises what ``model(X.T)`` raises, with the number of the chunk.

    Parameters
    ----------
    model : SoftmaxRegression
        A trained model; the result uses it as it is now.
    X : dask.array.Array
        Rows of samples, shape ``(n, d)``.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = 0
    >>> probabilities(model, da.zeros((2, 1), chunks=1)).compute()
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    rows = as_rows(X, model.num_inputs)
    chunks = (rows.chunks[0], (model.num_outputs,))
    meta = np.empty((0, 0), model.theta.dtype)
    return rows.map_blocks(_apply, _snapshot(model), "probabilities", chunks=chunks, meta=meta)


def predict(model: SoftmaxRegression, X: da.Array) -> da.Array:
    """Return the most likely class of each sample as a lazy Dask array of intp, shape ``(n,)``.

    Computing it raises what ``model.predict(X.T)`` raises, with the number of the chunk.

    Parameters
    ----------
    model : SoftmaxRegression
        A trained model; the result uses it as it is now.
    X : dask.array.Array
        Rows of samples, shape ``(n, d)``.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = [[1, 0], [-1, 0]]
    >>> predict(model, da.from_array(np.array([[3.0], [-3.0]]), chunks=1)).compute()
    array([0, 1])
    """
    rows = as_rows(X, model.num_inputs)
    meta = np.empty(0, np.intp)
    return rows.map_blocks(_apply, _snapshot(model), "predict", drop_axis=1, meta=meta)


def _apply(
    rows: NDArray[Any], model: SoftmaxRegression, method: str, block_id: tuple[int, ...]
) -> Any:
    with on_worker.errors_name_chunk(f"block {block_id[0]}"):
        return getattr(model, method)(rows.T).T


class Quality(NamedTuple):
    """The metrics of a model on some samples, as :mod:`npsoftmax.metrics` defines them.

    Attributes
    ----------
    num_samples : int
        Number of samples.
    accuracy, top_3_accuracy, negative_log_likelihood, brier, expected_calibration_error : float
        Means over all samples.
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
    """Compute every metric on the workers, which return sums and no predictions.

    Parameters
    ----------
    model : SoftmaxRegression
        A trained model.
    X : dask.array.Array
        Rows of samples, shape ``(n, d)``.
    y : dask.array.Array or array_like
        Labels, shape ``(n,)``.

    Examples
    --------
    >>> model = SoftmaxRegression(1, 2)
    >>> model.theta[:] = [[1, 0], [-1, 0]]
    >>> X = da.from_array(np.array([[3.0], [-3.0], [1.0]]), chunks=2)
    >>> with dask.config.set(scheduler="threads"):  # of this process, whatever clients it has
    ...     quality = evaluate(model, X, [0, 1, 1])
    >>> round(quality.accuracy, 3), quality.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    rows = as_rows(X, model.num_inputs)
    if rows.shape[0] == 0:
        raise ShapeError(f"X: expected at least one sample, got shape {rows.shape}")
    sizes = rows.chunks[0]
    chunks = zip(delayed_chunks(rows), split(y, sizes, "y"), sizes, strict=True)
    snapshot = _snapshot(model)
    parts = [
        delayed(_metric_sums)(part, labels, snapshot, number)
        for number, (part, labels, size) in enumerate(chunks)
        if size > 0
    ]
    while len(parts) > 1:
        groups = [parts[i : i + FAN_IN] for i in range(0, len(parts), FAN_IN)]
        parts = [delayed(reduce)(add, group) for group in groups]
    ((n, sums, bins, confusion),) = dask.compute(parts[0])
    calibration_error = float(np.abs(bins[1] - bins[2]).sum() / n)
    accuracy, near, loss, squares = (sums / n).tolist()
    return Quality(n, accuracy, near, loss, squares, calibration_error, confusion)


def _metric_sums(
    rows: NDArray[Any], y: NDArray[Any], model: SoftmaxRegression, number: int
) -> tuple[Any, ...]:
    """Return the contribution of a chunk to the number of samples and to each metric."""
    with on_worker.errors_name_chunk(f"block {number}"):
        Z, n = model.logits(rows.T), len(rows)
        P, k = softmax(Z), model.num_outputs
        means = (
            metrics.accuracy(Z, y),
            metrics.top_k_accuracy(Z, y, min(3, k)),
            metrics.negative_log_likelihood(Z, y),
            metrics.brier(P, y),
        )
        bins = np.array(metrics.confidence_bins(P, y))
        return n, n * np.array(means), bins, metrics.confusion_matrix(Z.argmax(axis=0), y, k)


def _snapshot(model: SoftmaxRegression) -> Any:
    """Copy the model, so that a lazy result does not change when the model is trained further."""
    return delayed(copy.deepcopy(model), pure=False)
