r"""More data than one machine: the objective on the workers of a Dask cluster.

The mean over samples is a sum over blocks of them, and so are gradient, Hessian products,
preconditioner and the bound on the distance to the optimum. Blocks stay where they are, as they are
(bytes stay bytes); what travels in a round is ``theta``, to each worker, and one loss and gradient
back, 31 kB each for Fashion-MNIST in float32. The penalty is added once. The solver is that of one
machine, and so is the optimum.

Samples are rows here, as Dask has them; a block of rows, transposed, has them as columns.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client
from numpy.typing import NDArray

from npsoftmax._checks import as_count, as_size
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.ext._cluster_datasets import training_rows
from npsoftmax.ext._cluster_faults import Memory, Watch
from npsoftmax.ext._cluster_predictions import Quality, evaluate, predict, probabilities
from npsoftmax.ext._cluster_store import ClusterStore
from npsoftmax.ext._cluster_worker import Block, blocks_of_array, blocks_of_files, layout_of
from npsoftmax.ext._cluster_workers import Threads, placed, threads_of
from npsoftmax.objective import SummedEvaluation, SummedObjective
from npsoftmax.objective.batch import as_scale
from npsoftmax.objective.full_batch import unusable_weights

__all__ = ["FullBatch", "Quality", "evaluate", "predict", "probabilities", "training_rows"]


class FullBatch(SummedObjective):
    r"""The objective on samples that lie on the workers of a cluster.

    .. math::

        J(\theta) = \frac{1}{\bar w} \sum_{j=1}^n w_j \, \ell(s W x_j + b, y_j)
            + \frac{\lambda}{2} \|W\|_F^2, \qquad \bar w = \sum_j w_j

    It has the methods of :class:`npsoftmax.objective.FullBatch`, and its values but for rounding,
    however the rows are cut. :class:`npsoftmax.ObjectiveTrainer` trains on it;
    :func:`npsoftmax.lbfgs.minimise` takes its ``loss_and_grad(theta)[:2]``.

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
        store = ClusterStore(client, shards, stops, watch, len(threads.addresses))
        super().__init__(store, l2, scale)
        if not 0 < self.contents.total < np.inf:
            raise unusable_weights(f"numbers that sum to {self.contents.total}")

    def loss_and_grad(self, theta: NDArray[Any]) -> SummedEvaluation:
        """Do what :meth:`evaluate` does, under the name that it has on one machine."""
        return self.evaluate(theta)


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
