"""The Dask cluster that training with ``--workers`` or ``--scheduler`` runs on."""

import argparse
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

DASHBOARD = "127.0.0.1:8787"
CONNECT_SECONDS, WORKER_SECONDS = 10, 60
WORKERS_PER_CORE = 8
# A terminal sends Ctrl-C to all processes of a command; this one decides what it means.
DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@contextmanager
def connected(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator["Client | None"]:
    """Yield a client of the cluster that the flags ask for, or None if they ask for none."""
    if args.workers is None and args.scheduler is None:
        yield None
        return
    if not args.debug:
        logging.disable(logging.CRITICAL)  # what goes wrong is said once, by the error it leads to
    if args.scheduler is not None:
        with connected_to(args.scheduler) as client:
            introduce(client, say)
            yield client
        return
    with local_cluster(args.workers, args.debug) as client:
        introduce(client, say)
        yield client


def refuse_contradictions(args: argparse.Namespace) -> None:
    """Raise InputError for flags that do not go together, or without what they need."""
    from npsoftmax.errors import InputError

    if args.workers is None and args.scheduler is None:
        return
    if args.workers is not None and args.scheduler is not None:
        raise InputError(
            "--scheduler: expected a running cluster, or --workers for one that ends with the "
            "command, got both; leave one out"
        )
    most = WORKERS_PER_CORE * (os.cpu_count() or 1)
    if args.workers is not None and args.workers > most:
        raise InputError(
            f"--workers: expected at most {most}, {WORKERS_PER_CORE} for each core, got "
            f"{args.workers}; each is a process of some 150 MB without data; for more machines "
            "use --scheduler"
        )
    if find_spec("distributed") is None:
        raise InputError(
            "--workers and --scheduler: expected Dask, which is not installed: python -m pip "
            'install ".[distributed]"'
        )


@contextmanager
def local_cluster(count: int, debug: bool) -> Iterator["Client"]:
    """Start so many workers, one thread each, reachable from this machine alone; end them."""
    cluster = client = None
    try:
        with signals_held_back(), warnings.catch_warnings():
            # Here, for an interruption in the middle of an import may be lost.
            from distributed import Client, LocalCluster

            # If another program has the usual port, Dask takes any.
            warnings.filterwarnings("ignore", message="Port .* is already in use")
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                dashboard_address=DASHBOARD,
                silence_logs=logging.WARNING if debug else logging.CRITICAL,
                preload=DEAF_TO_CTRL_C,
            )
            client = Client(cluster)
        yield client
    finally:
        with signals_held_back():
            for opened in filter(None, (client, cluster)):
                opened.close()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block; processes started in it hear no Ctrl-C.

    A cluster half made can neither be used nor closed; one half closed takes ten seconds to end.
    """
    requests: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "pthread_sigmask"):
        # Or the first process would start it, and Python before 3.13 then unblocks Ctrl-C.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for number in before:
            if before[number] != signal.SIG_IGN:
                # Ctrl-C too: threads of the BLAS, older than the block, may get it.
                signal.signal(number, lambda number, _: requests.append(number))
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in before.items():
            signal.signal(number, handler)
    if requests:
        raise KeyboardInterrupt


@contextmanager
def connected_to(address: str) -> Iterator["Client"]:
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
    """Say who is at work, once there is someone, and where to watch."""
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
        f"cluster   {address}: {counted(len(threads), 'worker')}, "
        f"{counted(sum(threads.values()), 'thread')}\n"
        f"          dashboard {client.dashboard_link}{needs}"
    )


def counted(number: int, name: str) -> str:
    """Return how many there are of something, in words."""
    return f"{number} {name}{'' if number == 1 else 's'}"
