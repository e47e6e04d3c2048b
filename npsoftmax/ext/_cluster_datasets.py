"""Data sets by name as Dask arrays, loaded and verified where a worker is."""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
from dask import delayed
from distributed import Client
from numpy.typing import NDArray

import npsoftmax
from npsoftmax._checks import as_count
from npsoftmax.ext._cluster_worker import on_this_worker
from npsoftmax.ext._cluster_workers import threads_of

__all__ = ["training_rows"]


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
