"""The Dask cluster for ``train.py --workers`` and ``--scheduler``."""

import argparse
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

DASHBOARD = "127.0.0.1:8787"
CONNECT_SECONDS, WORKER_SECONDS = 10, 60
MAX_WORKERS_PER_CORE = 8
# A terminal sends Ctrl-C to the workers too: they must finish the step before the checkpoint.
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def check_flags(args: argparse.Namespace) -> None:
    """Raise InputError for flags that contradict each other, or if Dask is missing."""
    from npsoftmax.errors import InputError

    if args.workers is None and args.scheduler is None:
        return
    if args.workers is not None and args.scheduler is not None:
        raise InputError(
            "--scheduler: expected a running cluster, or --workers for one that ends with the "
            "command, got both; leave one out"
        )
    most = MAX_WORKERS_PER_CORE * (os.cpu_count() or 1)
    if args.workers is not None and args.workers > most:
        raise InputError(
            f"--workers: expected at most {most}, {MAX_WORKERS_PER_CORE} for each core, got "
            f"{args.workers}; each is a process of some 150 MB without data; for more machines "
            "use --scheduler"
        )
    if find_spec("distributed") is None:
        raise InputError(
            "--workers and --scheduler: expected Dask, which is not installed: python -m pip "
            'install ".[distributed]"'
        )


@contextmanager
def connect(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator["Client | None"]:
    """Yield a client of the cluster that the flags ask for, or None without such flags."""
    if args.workers is None and args.scheduler is None:
        yield None
        return
    if not args.debug:
        logging.disable(logging.CRITICAL)  # the exception is enough
    started = args.scheduler is None
    with start(args.workers, args.debug) if started else join(args.scheduler) as client:
        introduce(client, say)
        yield client


@contextmanager
def start(count: int, debug: bool) -> Iterator["Client"]:
    """Start workers with one thread each, reachable from this machine only; end them."""
    from distributed import Client, LocalCluster

    with warnings.catch_warnings():
        # If another program has the usual port, Dask takes any.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=DASHBOARD,
            silence_logs=logging.WARNING if debug else logging.CRITICAL,
            preload=IGNORE_CTRL_C,
        )
    with cluster, Client(cluster) as client:
        yield client


@contextmanager
def join(address: str) -> Iterator["Client"]:
    """Connect to a running scheduler."""
    from distributed import Client

    from npsoftmax.errors import ClusterError, InputError

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except OSError as error:
        reason = str(error) or f"no answer within {CONNECT_SECONDS} s"
        raise ClusterError(
            f"--scheduler {address}: no scheduler was reached: {reason}; start one (dask "
            "scheduler) and workers (dask worker ADDRESS), or check the address and its protocol"
        ) from error
    except Exception as error:  # an odd scheme, a worker's address, certificates that are missing
        raise InputError(
            f"--scheduler {address}: expected the address of a scheduler such as tcp://host:8786, "
            f"got {type(error).__name__}: {error}"
        ) from error
    with client:
        yield client


def introduce(client: "Client", say: Callable[[str], None]) -> None:
    """Wait for a worker, and print the workers and the dashboard link."""
    from distributed import TimeoutError

    from npsoftmax.errors import ClusterError

    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"--scheduler {address}: no worker joined it within {WORKER_SECONDS} s; start one on "
            f"each machine: dask worker {address}"
        ) from error
    threads = client.nthreads()
    needs = "" if find_spec("bokeh") else " (shows something where bokeh is installed)"
    say(
        f"cluster   {address}: {count_of(len(threads), 'worker')}, "
        f"{count_of(sum(threads.values()), 'thread')}\n"
        f"          dashboard {client.dashboard_link}{needs}"
    )


def count_of(number: int, name: str) -> str:
    """Return a number with its noun."""
    return f"{number} {name}{'' if number == 1 else 's'}"
