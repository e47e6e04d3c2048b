"""Compare accuracy and speed of softmax and related functions with four libraries.

Accuracy: the worst error in units in the last place (ULP) over the families of columns of
``tests/oracle.py``, against mpmath at 60 digits. Time: medians of calls in turn, as ratios to the
plain shifted NumPy formula on the same array, after checking that all agree.

    python benchmarks/softmax.py            # prints both tables, writes results/softmax.json
    python benchmarks/softmax.py --docs     # and puts them into docs/numerics.md
    python benchmarks/softmax.py --quick    # fewer and smaller columns, nothing written
"""

import sys
from collections.abc import Callable
from typing import Any

import measure

measure.threads(1)
sys.path.insert(0, str(measure.ROOT / "tests"))

import numpy as np
import oracle
from mpmath import mp, mpf
from softmax_peers import LIBRARIES, OURS, PLAIN, contestants

from npsoftmax.functional import _compensated, logitcrossentropy_and_grad

QUANTITIES = ("softmax", "logsoftmax", "loss", "gradient", "mean loss")
SIZES = ((2, 200), (10, 100), (33, 30), (1000, 2), (100_000, 1))
QUICK_SIZES = ((2, 20), (10, 10), (1000, 1))
SHAPES = ((10, 256), (10, 60_000))


def worst_errors(family: oracle.Family, dtype: Any, sizes: Any) -> dict[str, dict[str, float]]:
    """Return for each library and quantity the largest error in ULP over one family."""
    worst: dict[str, dict[str, float]] = {name: {} for name in LIBRARIES}
    for n, samples in sizes:
        rng = np.random.default_rng([2026, n])
        with np.errstate(all="ignore"):
            x = np.asfortranarray(family(rng, n, samples, dtype).astype(dtype))
            y = np.where(rng.random(samples) < 0.5, x.argmax(0), rng.integers(n, size=samples))
            values = {name: library(x, y) for name, library in LIBRARIES.items()}
        exact = exact_values(x, y, dtype)
        for name, results in values.items():
            for quantity, result in results.items():
                pairs = zip(np.ravel(result, order="F"), exact[quantity], strict=True)
                errors = [oracle.error_in_ulp(g, v, dtype) for g, v in pairs if v is not None]
                worst[name][quantity] = max([worst[name].get(quantity, 0.0), *errors])
    return worst


def exact_values(x: Any, y: Any, dtype: Any) -> dict[str, list[mpf | None]]:
    """Return the exact values in the order of ``ravel("F")``; None where nothing is claimed."""
    columns = [oracle.exact(x[:, j], y[j]) for j in range(y.size)]
    with mp.workdps(oracle.DIGITS):
        losses = [column.loss for column in columns]
        mean = mp.fsum(losses) / len(losses)
        # One infinite loss makes the mean infinite, for any exact value.
        fits = max(losses) <= mpf(float(np.finfo(dtype).max))
    return {
        "softmax": [v for column in columns for v in column.softmax],
        "logsoftmax": [v for column in columns for v in column.logsoftmax],
        "loss": list(losses),
        "gradient": [v for column in columns for v in column.gradient],
        "mean loss": [mean if fits else None],
    }


def accuracy(quick: bool) -> dict[str, Any]:
    """Return the worst errors by dtype, family, library and quantity."""
    sizes = QUICK_SIZES if quick else SIZES
    found: dict[str, Any] = {}
    for dtype in (np.float32, np.float64):
        found[dtype.__name__] = {}
        for family in oracle.FAMILIES:
            print(f"accuracy: {dtype.__name__}, {family.__name__}", file=sys.stderr)
            found[dtype.__name__][family.__name__] = worst_errors(family, dtype, sizes)
    return found


def refuse_unequal(calls: dict[str, Callable[[], Any]]) -> None:
    """Stop unless every contestant computes what the first one does."""
    first, *others = [call() for call in calls.values()]
    for name, result in zip(list(calls)[1:], others, strict=True):
        for got, expected in zip(as_tuple(result), as_tuple(first), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def as_tuple(result: Any) -> tuple[Any, ...]:
    """Return a result as the tuple that some functions return."""
    return result if isinstance(result, tuple) else (result,)


def speed(rounds: int) -> dict[str, Any]:
    """Return medians and ratios to the plain formula by dtype, shape and quantity."""
    found: dict[str, Any] = {}
    for dtype in ("float32", "float64"):
        for shape in SHAPES:
            rng = np.random.default_rng(2026)
            x = np.asfortranarray(rng.standard_normal(shape).astype(dtype))
            y = rng.integers(shape[0], size=shape[1])
            for quantity, calls in contestants(x, y).items():
                print(f"time: {dtype}, {shape}, {quantity}", file=sys.stderr)
                refuse_unequal(calls)
                times = measure.in_turn(calls, rounds)
                key = f"{quantity}, {dtype} {shape[0]} x {shape[1]}"
                found[key] = measure.compared(times, PLAIN)
    return found


def block_sizes(rounds: int) -> dict[str, Any]:
    """Return the ratios of float32 loss and gradient at other block sizes to the one in use."""
    x = np.asfortranarray(np.random.default_rng(2026).standard_normal(SHAPES[-1], np.float32))
    y = np.random.default_rng(2026).integers(SHAPES[-1][0], size=SHAPES[-1][1])
    in_use = _compensated.BLOCK_ELEMENTS

    def at(elements: int) -> Callable[[], Any]:
        def call() -> Any:
            _compensated.BLOCK_ELEMENTS = elements
            return logitcrossentropy_and_grad(x, y)

        return call

    sizes = [in_use >> shift for shift in (4, 3, 2, 1, 0)] + [in_use * 2, in_use * 6]
    times = measure.in_turn({str(size): at(size) for size in sizes}, rounds)
    _compensated.BLOCK_ELEMENTS = in_use
    return measure.compared(times, str(in_use))


def accuracy_table(found: dict[str, Any]) -> str:
    """Return the worst error of each library over all families."""
    rows = []
    for dtype, families in found.items():
        for quantity in QUANTITIES:
            cells = []
            for name in LIBRARIES:
                errors = [f[name][quantity] for f in families.values() if quantity in f[name]]
                cells.append(digits(max(errors), dtype) if errors else "-")
            rows.append([dtype, quantity, *cells])
    return measure.markdown(["", "", *LIBRARIES], rows)


def family_table(found: dict[str, Any]) -> str:
    """Return npsoftmax's worst error in each family."""
    rows = [
        [dtype, family, *(digits(libraries[OURS][quantity], dtype) for quantity in QUANTITIES)]
        for dtype, families in found.items()
        for family, libraries in families.items()
    ]
    return measure.markdown(["", "family", *QUANTITIES], rows)


def digits(error: float, dtype: str) -> str:
    """Return an error in ULP, or in words where nothing of the result is right."""
    if np.isinf(error):
        return "NaN or Inf"
    if error >= 2.0 ** np.finfo(dtype).nmant:
        return "every digit"
    return f"{error:.4f}" if error < 10 else f"{error:,.0f}"


def speed_table(found: dict[str, Any]) -> str:
    """Return the ratios to the plain formula, whose time is given in microseconds."""
    rows = []
    for key, table in found.items():
        cells = [f"{table[PLAIN]['median_seconds'] * 1e6:,.0f} us"]
        for name in LIBRARIES:
            if name != PLAIN:
                got = table.get(name)
                cells.append(f"{got['ratio']:.2f}" if got else "-")
        ours = table[OURS]
        rows.append([key, *cells, f"{ours['ratio_low']:.2f} to {ours['ratio_high']:.2f}"])
    others = [name for name in LIBRARIES if name != PLAIN]
    return measure.markdown(["", f"{PLAIN}", *others, f"{OURS}, middle half of the rounds"], rows)


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=25).parse_args()
    rounds = 5 if arguments.quick else arguments.rounds
    results = {
        "machine": measure.machine("scipy", "torch", "scikit-learn", "mpmath"),
        "speed": speed(rounds),
        "block sizes": block_sizes(rounds),
        "accuracy": accuracy(arguments.quick),
    }
    page = measure.ROOT / "docs" / "numerics.md"
    measure.publish("softmax", results, tables(results), picture, arguments, page)


def picture(results: dict[str, Any]) -> Any:
    """Draw the largest error of each library in softmax, over all families of input."""
    errors = {
        f"softmax, {dtype}": {
            library: max(float(family[library]["softmax"]) for family in families.values())
            for library in next(iter(families.values()))
        }
        for dtype, families in results["accuracy"].items()
    }
    figure = measure.bars(
        errors, "Largest error, eight families of input", "units in the last place"
    )
    for axes in figure.axes:
        axes.set_xscale("log")
    return figure


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of ``docs/numerics.md`` by name."""
    return {
        "machine": measure.described(results["machine"]),
        "worst errors": accuracy_table(results["accuracy"]),
        "worst errors by family": family_table(results["accuracy"]),
        "time": speed_table(results["speed"]),
        "block sizes": ", ".join(
            f"{size}: {row['ratio']:.2f}" for size, row in results["block sizes"].items()
        ),
    }


if __name__ == "__main__":
    main()
