"""Time an epoch of npsoftmax, of four ways to write it in PyTorch, and of JAX.

Every program trains the same model from the same weights on the same batches, in float32 with SGD.
Their parameters are compared after one epoch, before any time is taken. Then epochs run in turn.
On one core CPU time is measured, which other work on the machine changes little, on two cores wall
time.

    python benchmarks/hot_loop.py             # prints the table, writes results and picture
    python benchmarks/hot_loop.py --docs      # and puts the table into benchmarks/README.md
    python benchmarks/hot_loop.py --quick     # one batch size, fewer samples, nothing written

The data are Fashion-MNIST (``NPSOFTMAX_DATA``). Linux only, to pin a process to a core.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import measure

measure.threads(1)

import numpy as np
import torch
from hot_loop_peers import JAX, PEERS, Problem
from threadpoolctl import threadpool_limits

import npsoftmax as nps

OURS = "npsoftmax"
BATCH_SIZES = (32, 64, 256, 1024, 4096)
# label: (cores that the process may use, threads of NumPy's BLAS and of PyTorch)
MACHINES = {"one core": (1, 1), "two cores, 1 thread": (2, 1), "two cores, 2 threads": (2, 2)}
# Its epoch takes so long that it is measured once, with three rounds.
SLOW, SLOW_AT = "torch tutorial as printed", ("two cores, 1 thread", 256)


def ours(problem: Problem) -> Callable[[], Any]:
    """Return an epoch of npsoftmax's Trainer."""
    loader = nps.DataLoader(problem.X, problem.y, problem.batch_size, shuffle=True, seed=0)

    def epoch() -> Any:
        model = nps.SoftmaxRegression(784, 10, seed=0, pixel_scale=1 / 255)
        nps.Trainer(model, nps.Descent(problem.learning_rate), loader).fit(1)
        return model.theta

    return epoch


def problem_of(batch_size: int, samples: int) -> Problem:
    """Return the data, the initial weights and the order of the samples for every contestant."""
    data = nps.load("fashion-mnist")
    X, y = data.X_train[:, :samples], data.y_train[:samples]
    loader = nps.DataLoader(X, y, batch_size, shuffle=True, seed=0)
    theta = nps.SoftmaxRegression(784, 10, seed=0).theta
    return Problem(X, y, theta, loader.permutation(0), batch_size, learning_rate=0.1)


def refuse_unequal(epochs: dict[str, Callable[[], Any]]) -> None:
    """Stop unless all contestants arrive at npsoftmax's parameters."""
    expected = epochs[OURS]()
    for name, epoch in epochs.items():
        np.testing.assert_allclose(epoch(), expected, rtol=1e-3, atol=2e-5, err_msg=name)


def measured(
    label: str, cores: int, threads: int, sizes: Sequence[int], samples: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return medians and ratios by batch size, on this number of cores, in a new process."""
    # JAX takes all the cores that its process may use when it first computes.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    threadpool_limits(threads, user_api="blas")
    torch.set_num_threads(threads)
    clock = time.process_time if cores == 1 else time.perf_counter
    rows = {}
    for batch_size in sizes:
        print(f"{label}, batch {batch_size}", file=sys.stderr)
        problem = problem_of(batch_size, samples)
        epochs = {OURS: ours(problem)} | {name: make(problem) for name, make in PEERS.items()}
        slow = epochs.pop(SLOW)
        refuse_unequal(epochs)
        row = measure.compared(measure.in_turn(epochs, rounds, 0, clock), OURS)
        if (label, batch_size) == SLOW_AT:
            pair = {OURS: epochs[OURS], SLOW: slow}
            refuse_unequal(pair)
            row[SLOW] = measure.compared(measure.in_turn(pair, 3, 0, clock), OURS)[SLOW]
        rows[f"{label}, batch {batch_size}"] = row
    return rows


def table_of(results: dict[str, Any]) -> str:
    """Return milliseconds an epoch of npsoftmax, and the others' times relative to it."""
    known = dict.fromkeys([OURS, *PEERS, JAX])  # where JAX was installed, not where it is
    names = [name for name in known if any(name in row for row in results.values())]
    rows = []
    for label, row in results.items():
        cells = [f"{row[OURS]['median_seconds'] * 1e3:.0f} ms"]
        cells += [measure.middle(row[name]) if name in row else "-" for name in names[1:]]
        rows.append([label, *cells])
    return measure.markdown(["", *names], rows)


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    return {
        "hot_loop_machine": measure.described(results["machine"]),
        "hot_loop": table_of(results["epochs"]),
    }


def picture(results: dict[str, Any]) -> Any:
    """Draw the milliseconds of an epoch on two cores with one thread."""
    milliseconds = {
        label: {name: got["median_seconds"] * 1e3 for name, got in row.items() if name != SLOW}
        for label, row in results["epochs"].items()
        if label.startswith(SLOW_AT[0])
    }
    return measure.bars(milliseconds, "Fashion-MNIST, float32, SGD", "ms per epoch")


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=9).parse_args()
    settings = (BATCH_SIZES, 60_000, arguments.rounds)
    if arguments.quick:
        settings = ((256,), 6000, 3)
    epochs = {}
    for label, (cores, threads) in MACHINES.items():
        epochs |= measure.in_own_process(measured, label, cores, threads, *settings)
    packages = ["torch", "jax"] if JAX in PEERS else ["torch"]
    results = {"machine": measure.machine(*packages), "epochs": epochs}
    measure.publish("hot_loop", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
