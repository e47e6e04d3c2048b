"""Clusters for tests, quiet ones, and what tests do to them."""

import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
from distributed import Client, LocalCluster


@contextmanager
def cluster_of(workers, *, processes=True, threads=1, default=True, **settings):
    """Yield a client of a cluster on this machine."""
    logging.disable(logging.CRITICAL)
    try:
        with (
            same_environment(),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                processes=processes,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                **settings,
            ) as cluster,
            Client(cluster, set_as_default=default) as client,
        ):
            yield client
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def same_environment():
    """Put the variables back that starting a worker's process leaves in this one.

    Among them is MALLOC_TRIM_THRESHOLD_, which makes a process three times as slow with arrays.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for variable in os.environ.keys() - before.keys():
            del os.environ[variable]
        os.environ.update(before)


def process_of(client, worker):
    """Return the process id of a worker."""
    return client.run(os.getpid, workers=[worker])[worker]


def overlapping(n=600, d=5, k=3, seed=0):
    """Draw rows, and labels that no model can tell all."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    Z = X @ rng.standard_normal((d, k))
    return X, (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)


@contextmanager
def dask_scheduler(**environment):
    """Run a scheduler and a worker as commands; yield the address and the scheduler's process."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    worker = None
    try:
        address = next(line.split()[-1] for line in scheduler.stderr if "Scheduler at:" in line)
        threading.Thread(target=scheduler.stderr.read, daemon=True).start()
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
             "--no-dashboard", "--death-timeout", "60"],
            stderr=subprocess.DEVNULL, env={**os.environ, **environment},
        )  # fmt: skip
        yield address, scheduler
    finally:
        # The worker's nanny first, and politely, for it to end the process that it watches over.
        for process in filter(None, (worker, scheduler)):
            process.terminate()
            process.communicate(timeout=60)
