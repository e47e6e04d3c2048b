"""The Dask cluster that training with ``--workers`` or ``--scheduler`` runs on."""

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

DASHBOARD = "127.0.0.1:8787"
CONNECT_SECONDS = 10
# A terminal sends Ctrl-C to all processes of a command; this one decides what it means.
DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@contextmanager
def connected(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator["Client | None"]:
    """Yield a client of the cluster that the flags ask for, or None if they ask for none."""
    if args.workers is None and args.scheduler is None:
        yield None
        return
    refuse_contradictions(args)
    if not args.debug:
        logging.disable(logging.CRITICAL)  # what goes wrong is said once, by the error it leads to
    if args.scheduler is not None:
        with connected_to(args.scheduler) as client:
            introduce(client, say)
            yield client
        return
    from distributed import Client

    with local_cluster(args.workers, args.debug) as cluster, Client(cluster) as client:
        introduce(client, say)
        yield client


def refuse_contradictions(args: argparse.Namespace) -> None:
    """Raise InputError for flags that do not go together, or without what they need."""
    from npsoftmax.errors import InputError

    if args.workers is not None and args.scheduler is not None:
        raise InputError(
            "--scheduler: expected a running cluster, or --workers for one that ends with the "
            "command, got both; leave one out"
        )
    if find_spec("distributed") is None:
        raise InputError(
            "--workers and --scheduler: expected Dask, which is not installed: python -m pip "
            'install ".[distributed]"'
        )


def local_cluster(count: int, debug: bool) -> "LocalCluster":
    """Start so many workers, one thread each, reachable from this machine alone."""
    from distributed import LocalCluster

    with warnings.catch_warnings():
        # If another program has the usual port, Dask takes any.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=DASHBOARD,
            silence_logs=logging.WARNING if debug else logging.CRITICAL,
            preload=DEAF_TO_CTRL_C,
        )


@contextmanager
def connected_to(address: str) -> Iterator["Client"]:
    """Connect to a running scheduler."""
    from distributed import Client

    from npsoftmax.errors import ClusterError, InputError

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise ClusterError(
            f"--scheduler {address}: no scheduler answered within {CONNECT_SECONDS} s; start one "
            "(dask scheduler) and workers (dask worker ADDRESS), or check the address"
        ) from error
    except ValueError as error:
        raise InputError(
            f"--scheduler {address}: expected an address such as tcp://host:8786, got {error}"
        ) from error
    with client:
        yield client


def introduce(client: "Client", say: Callable[[str], None]) -> None:
    """Say who is at work, and where to watch."""
    threads = client.nthreads()
    say(
        f"cluster   {client.scheduler.address}: {len(threads)} workers, "
        f"{sum(threads.values())} threads\n          dashboard {client.dashboard_link}"
    )
