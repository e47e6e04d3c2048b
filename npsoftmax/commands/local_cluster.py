"""The Dask cluster for ``train --workers`` and ``--scheduler``."""

import argparse
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from npsoftmax.errors import ClusterError, InputError
from npsoftmax.ext import advice

if TYPE_CHECKING:
    from distributed import Client

DASHBOARD = "127.0.0.1:8787"
CONNECT_SECONDS = 10
MAX_WORKERS_PER_CORE = 8
# A terminal or a batch system signals the workers too: they must finish the step before the
# checkpoint.
IGNORE_SIGNALS = """
import signal
for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
"""


def check_flags(args: argparse.Namespace) -> None:
    """Raise InputError for flags that contradict each other, or if Dask is missing."""
    if args.workers is None and args.scheduler is None:
        return
    most = MAX_WORKERS_PER_CORE * (os.cpu_count() or 1)
    if args.workers is not None and args.scheduler is not None:
        raise InputError("--scheduler: expected it without --workers, got both; leave one out")
    if args.workers is not None and args.workers > most:
        raise InputError(
            f"--workers: expected at most {most}, {MAX_WORKERS_PER_CORE} for each core, got "
            f"{args.workers}; for more machines use --scheduler"
        )
    if find_spec("distributed") is None:
        raise InputError(
            f"--workers and --scheduler: expected Dask, which is missing; {advice('distributed')}"
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
            preload=IGNORE_SIGNALS,
        )
    with cluster, Client(cluster) as client:
        yield client


def join(address: str) -> "Client":
    """Connect to a running scheduler."""
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS)
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


def introduce(client: "Client", say: Callable[[str], None]) -> None:
    """Wait for a worker, and print the workers and the dashboard link."""
    from npsoftmax.ext.cluster import check_workers

    threads = check_workers(client).total
    workers = len(client.nthreads())
    needs = "" if find_spec("bokeh") else " (needs bokeh)"
    say(
        f"cluster   {client.scheduler.address}: {workers} worker{'s' * (workers != 1)}, "
        f"{threads} thread{'s' * (threads != 1)}\n"
        f"          dashboard {client.dashboard_link}{needs}"
    )


def describe(client: "Client") -> dict[str, Any]:
    """Return what the summary of a run says about its cluster."""
    from importlib.metadata import version

    return {"workers": len(client.nthreads()), "distributed": version("distributed")}
