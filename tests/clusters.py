"""Clusters for tests, quiet ones, and what tests do to them."""

import logging
import os
import signal
import threading
from contextlib import contextmanager

import numpy as np
from distributed import Client, LocalCluster


@contextmanager
def cluster_of(workers, *, processes=True, threads=1, **settings):
    """Yield a client of a cluster on this machine."""
    logging.disable(logging.CRITICAL)
    try:
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                processes=processes,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                **settings,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        logging.disable(logging.NOTSET)


def process_of(client, worker):
    """Return the process id of a worker."""
    return client.run(os.getpid, workers=[worker])[worker]


def kill_later(client, seconds, seed=0):
    """Kill a worker, drawn at random, after some seconds; return its address."""
    workers = sorted(client.nthreads())
    worker = workers[np.random.default_rng(seed).integers(len(workers))]
    timer = threading.Timer(seconds, os.kill, (process_of(client, worker), signal.SIGKILL))
    timer.daemon = True
    timer.start()
    return worker


def overlapping(n=600, d=5, k=3, seed=0):
    """Draw rows, and labels that no model can tell all."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    Z = X @ rng.standard_normal((d, k))
    return X, (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)
