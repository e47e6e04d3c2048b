"""Compare the cost of cross-entropy by its definition with forms that do not multiply by zeros.

    python benchmarks/definition.py            # prints the table, writes results/definition.json
    python benchmarks/definition.py --docs     # and puts it into docs/exercises.md
    python benchmarks/definition.py --quick    # fewer rounds, nothing written

All forms compute the mean loss of one batch of float32 logits, with samples as columns and one
thread. All shift the logits by their maximum, so they differ only in the steps after it.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import measure

measure.threads(1)

import numpy as np

from npsoftmax.functional import logitcrossentropy

SHAPES = ((10, 256), (10, 60_000), (1000, 256), (10_000, 256))
FUSED = "log-sum-exp minus the label's logit"


def softmax(z: Any) -> Any:
    """Return the probabilities, as textbooks write them."""
    exponentials = np.exp(z - z.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def onehot(z: Any, y: Any) -> Any:
    """Return the labels as columns of zeros with a one."""
    Y = np.zeros_like(z)
    Y[y, np.arange(y.size)] = 1
    return Y


def definition(z: Any, Y: Any) -> Any:
    """Return the mean of - sum y log p, with the usual clip before the logarithm."""
    return -(Y * np.log(np.clip(softmax(z), 1e-12, None))).sum(axis=0).mean()


def pick_at_label(z: Any, y: Any) -> Any:
    """Return the mean of - log p at the label: what the chapter does."""
    return -np.log(softmax(z)[y, np.arange(y.size)]).mean()


def fused(z: Any, y: Any) -> Any:
    """Return the mean of log sum exp z - z at the label; no probability is ever computed."""
    d = z - z.max(axis=0)
    return (np.log(np.exp(d).sum(axis=0)) - d[y, np.arange(y.size)]).mean()


def contestants(z: Any, y: Any) -> dict[str, Callable[[], Any]]:
    """Return the forms by name."""
    Y = onehot(z, y)
    return {
        "definition, one-hot made": lambda: definition(z, onehot(z, y)),
        "definition, one-hot given": lambda: definition(z, Y),
        "minus log of the label's probability": lambda: pick_at_label(z, y),
        FUSED: lambda: fused(z, y),
        "npsoftmax.logitcrossentropy": lambda: logitcrossentropy(z, y),
    }


def refuse_unequal(calls: Mapping[str, Callable[[], Any]]) -> None:
    """Stop unless all forms compute the same loss."""
    expected = calls[FUSED]()
    for name, call in calls.items():
        np.testing.assert_allclose(call(), expected, rtol=1e-5, err_msg=name)


def measured(rounds: int) -> dict[str, Any]:
    """Return medians and ratios to the fused form, by shape."""
    found = {}
    for k, n in SHAPES:
        print(f"{k} classes, {n} samples", file=sys.stderr)
        rng = np.random.default_rng(2026)
        z = np.asfortranarray(rng.standard_normal((k, n), np.float32))
        calls = contestants(z, rng.integers(k, size=n))
        refuse_unequal(calls)
        found[f"{k:,} x {n:,}"] = measure.compared(measure.in_turn(calls, rounds), FUSED)
    return found


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of ``docs/exercises.md`` by name."""
    shapes = results["speed"]
    rows = []
    for name in next(iter(shapes.values())):
        cells = [
            f"{table[name]['median_seconds'] * 1e6:,.0f} us"
            if name == FUSED
            else f"{table[name]['ratio']:.2f}"
            for table in shapes.values()
        ]
        rows.append([name, *cells])
    return {
        "definition_machine": measure.described(results["machine"]),
        "definition": measure.markdown(["", *shapes], rows),
    }


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=25).parse_args()
    speed = measured(5 if arguments.quick else arguments.rounds)
    results = {"machine": measure.machine(), "speed": speed}
    page = measure.ROOT / "docs" / "exercises.md"
    measure.publish("definition", results, tables(results), None, arguments, page)


if __name__ == "__main__":
    main()
