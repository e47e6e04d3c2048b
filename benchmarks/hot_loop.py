"""Time an epoch beside PyTorch's four ways to write it, and JAX's one.

Every program trains the same model from the same weights on the same batches, in float32 with SGD;
their parameters are compared after an epoch before any time is taken. Then epochs in turn.

    python benchmarks/hot_loop.py             # prints the table, writes results/hot_loop.json
    python benchmarks/hot_loop.py --docs      # and puts it into benchmarks/README.md
    python benchmarks/hot_loop.py --quick     # fewer samples and rounds, nothing written

The data are Fashion-MNIST (``NPSOFTMAX_DATA``).
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import measure

measure.threads(1)

import numpy as np
import torch
from hot_loop_peers import PEERS, Problem

import npsoftmax as nps

OURS, REFERENCE = "npsoftmax", "torch nn.Linear + SGD"
SLOW = "torch tutorial as printed"
BATCH_SIZES = (32, 64, 256, 1024, 4096)


def ours(problem: Problem) -> Callable[[], Any]:
    """Return an epoch of npsoftmax's Trainer."""
    loader = nps.DataLoader(problem.X, problem.y, problem.batch_size, shuffle=True, seed=0)

    def epoch() -> Any:
        model = nps.SoftmaxRegression(784, 10, seed=0)
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


def measured(batch_size: int, samples: int, rounds: int) -> dict[str, Any]:
    """Return medians and ratios for one batch size; the slow program has one round of its own."""
    problem = problem_of(batch_size, samples)
    epochs = {OURS: ours(problem)} | {name: make(problem) for name, make in PEERS.items()}
    refuse_unequal(epochs)
    slow = epochs.pop(SLOW)
    table = measure.compared(measure.in_turn(epochs, rounds, seconds=0), OURS)
    if batch_size == 256:
        pair = {OURS: epochs[OURS], SLOW: slow}
        table[SLOW] = measure.compared(measure.in_turn(pair, 3, seconds=0), OURS)[SLOW]
    return table


def table_of(results: dict[str, Any]) -> str:
    """Return milliseconds an epoch of npsoftmax, and the others' times relative to it."""
    names = [name for name in [OURS, *PEERS] if any(name in row for row in results.values())]
    rows = []
    for batch_size, row in results.items():
        cells = [f"{row[OURS]['median_seconds'] * 1e3:.0f} ms"]
        for name in names[1:]:
            got = row.get(name)
            cells.append(
                f"{got['ratio']:.1f} ({got['ratio_low']:.1f} to {got['ratio_high']:.1f})"
                if got
                else "-"
            )
        rows.append([batch_size, *cells])
    return measure.markdown(["batch", *names], rows)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples, nothing written")
    parser.add_argument("--docs", action="store_true", help="put the table into the README")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contestant")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples, rounds = (6000, 3) if arguments.quick else (60_000, arguments.rounds)
    results = {}
    for batch_size in BATCH_SIZES:
        print(f"batch {batch_size}", file=sys.stderr)
        results[str(batch_size)] = measured(batch_size, samples, rounds)
    print(table_of(results))
    if not arguments.quick:
        name = "hot_loop"
        found = {"machine": measure.machine("torch"), "epochs": results}
        print(f"written: {measure.save(name, found).relative_to(measure.ROOT)}")
        if arguments.docs:
            page = measure.ROOT / "benchmarks" / "README.md"
            measure.insert(page, name, table_of(results))
            measure.insert(page, "hot_loop_machine", measure.described(found["machine"]))


if __name__ == "__main__":
    main()
