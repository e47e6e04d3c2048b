"""How accurate, and at what cost? softmax and its relatives beside four libraries.

Accuracy: the worst error in units in the last place (ULP) over the families of columns of
``tests/oracle.py``, against mpmath at 60 digits. Time: medians of calls in turn, as ratios to the
plain shifted NumPy formula on the same array, after checking that all agree.

    python benchmarks/softmax.py            # prints both tables, writes results/softmax.json
    python benchmarks/softmax.py --docs     # and puts them into docs/numerics.md
    python benchmarks/softmax.py --quick    # fewer and smaller columns, nothing written
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import measure

measure.one_thread()
sys.path.insert(0, str(measure.ROOT / "tests"))

import numpy as np  # noqa: E402
import oracle  # noqa: E402
from mpmath import mp, mpf  # noqa: E402

from npsoftmax.functional import (  # noqa: E402
    logitcrossentropy,
    logitcrossentropy_and_grad,
    logitcrossentropy_grad,
    logsoftmax,
    softmax,
)

QUANTITIES = ("softmax", "logsoftmax", "loss", "gradient", "mean loss")
SIZES = ((2, 200), (10, 100), (33, 30), (1000, 2), (100_000, 1))
QUICK_SIZES = ((2, 20), (10, 10), (1000, 1))
SHAPES = ((10, 256), (10, 60_000))
OURS, PLAIN = "npsoftmax", "NumPy, plain shifted"


def plain_softmax(x: Any) -> Any:
    """Return the shifted formula as everyone writes it."""
    exponentials = np.exp(x - x.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def plain_logsoftmax(x: Any) -> Any:
    """Return the shifted formula as everyone writes it."""
    d = x - x.max(axis=0)
    return d - np.log(np.exp(d).sum(axis=0))


def plain_loss_and_grad(x: Any, y: Any) -> Any:
    """Return the mean loss and its gradient, p - onehot, as everyone writes them."""
    samples = np.arange(y.size)
    d = x - x.max(axis=0)
    exponentials = np.exp(d)
    total = exponentials.sum(axis=0)
    gradient = exponentials / total
    gradient[y, samples] -= 1
    gradient /= y.size
    return (np.log(total) - d[y, samples]).mean(), gradient


def ours(x: Any, y: Any) -> dict[str, Any]:
    """Return npsoftmax's values."""
    return {
        "softmax": softmax(x),
        "logsoftmax": logsoftmax(x),
        "loss": logitcrossentropy(x, y, agg="none"),
        "gradient": logitcrossentropy_grad(x, y, agg="none"),
        "mean loss": logitcrossentropy(x, y),
    }


def from_two(p: Any, logp: Any, y: Any) -> dict[str, Any]:
    """Return what users of a softmax and a logsoftmax make of them."""
    samples = np.arange(y.size)
    gradient = p.copy()
    gradient[y, samples] -= 1
    loss = -logp[y, samples]
    return {
        "softmax": p,
        "logsoftmax": logp,
        "loss": loss,
        "gradient": gradient,
        "mean loss": loss.mean(),
    }


def plain(x: Any, y: Any) -> dict[str, Any]:
    """Return the plain shifted formulas' values."""
    return from_two(plain_softmax(x), plain_logsoftmax(x), y)


def scipy(x: Any, y: Any) -> dict[str, Any]:
    """Return SciPy's values."""
    from scipy import special

    return from_two(special.softmax(x, axis=0), special.log_softmax(x, axis=0), y)


def torch(x: Any, y: Any) -> dict[str, Any]:
    """Return PyTorch's values, on the same memory as rows."""
    import torch
    from torch.nn import functional

    rows, labels = torch.from_numpy(x.T), torch.from_numpy(y)
    leaf = rows.clone().requires_grad_()
    losses = functional.cross_entropy(leaf, labels, reduction="none")
    losses.sum().backward()
    return {
        "softmax": torch.softmax(rows, 1).numpy().T,
        "logsoftmax": torch.log_softmax(rows, 1).numpy().T,
        "loss": losses.detach().numpy(),
        "gradient": leaf.grad.numpy().T,
        "mean loss": functional.cross_entropy(rows, labels).numpy(),
    }


def scikit_learn(x: Any, y: Any) -> dict[str, Any]:
    """Return scikit-learn's values, on the same memory as rows."""
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.utils.extmath import softmax as sklearn_softmax

    if len(x) < 3:
        return {}
    rows, labels = np.ascontiguousarray(x.T), y.astype(x.dtype)
    multinomial = HalfMultinomialLoss(n_classes=len(x))
    losses, gradient = multinomial.loss_gradient(labels, rows)
    return {
        "softmax": sklearn_softmax(rows).T,
        "loss": losses,
        "gradient": gradient.T,
        "mean loss": losses.mean(),
    }


LIBRARIES: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    OURS: ours,
    PLAIN: plain,
    "SciPy": scipy,
    "PyTorch": torch,
    "scikit-learn": scikit_learn,
}


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
        # One infinite loss makes the mean infinite, whatever its exact value is.
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


def contestants(x: Any, y: Any) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return for each quantity the calls to time; PyTorch and scikit-learn see rows."""
    import torch
    from scipy import special
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.utils.extmath import softmax as sklearn_softmax
    from torch.nn import functional

    torch.set_num_threads(1)
    rows, tensor, labels = x.T, torch.from_numpy(x.T), torch.from_numpy(y)
    multinomial, float_labels = HalfMultinomialLoss(n_classes=len(x)), y.astype(x.dtype)

    def torch_loss_and_grad() -> tuple[Any, Any]:
        leaf = tensor.detach().requires_grad_()
        loss = functional.cross_entropy(leaf, labels)
        loss.backward()
        return loss.detach().numpy(), leaf.grad.numpy().T

    def sklearn_loss_and_grad() -> tuple[Any, Any]:
        losses, gradient = multinomial.loss_gradient(float_labels, rows)
        return losses.mean(), gradient.T / y.size

    return {
        "softmax": {
            PLAIN: lambda: plain_softmax(x),
            OURS: lambda: softmax(x),
            "SciPy": lambda: special.softmax(x, axis=0),
            "PyTorch": lambda: torch.softmax(tensor, 1).numpy().T,
            "scikit-learn": lambda: sklearn_softmax(rows).T,
        },
        "logsoftmax": {
            PLAIN: lambda: plain_logsoftmax(x),
            OURS: lambda: logsoftmax(x),
            "SciPy": lambda: special.log_softmax(x, axis=0),
            "PyTorch": lambda: torch.log_softmax(tensor, 1).numpy().T,
        },
        "loss and gradient": {
            PLAIN: lambda: plain_loss_and_grad(x, y),
            OURS: lambda: logitcrossentropy_and_grad(x, y),
            "PyTorch": torch_loss_and_grad,
            "scikit-learn": sklearn_loss_and_grad,
        },
    }


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer columns, nothing written")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/numerics.md")
    parser.add_argument("--rounds", type=int, default=25, help="turns of each contestant")
    arguments = parser.parse_args()
    results = {
        "machine": measure.machine("scipy", "torch", "scikit-learn", "mpmath"),
        "speed": speed(5 if arguments.quick else arguments.rounds),
        "accuracy": accuracy(arguments.quick),
    }
    for text in tables(results).values():
        print(text, end="\n\n")
    if not arguments.quick:
        print(f"written: {measure.save('softmax', results).relative_to(measure.ROOT)}")
        if arguments.docs:
            for name, text in tables(results).items():
                measure.insert(measure.ROOT / "docs" / "numerics.md", name, text)


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of ``docs/numerics.md`` by name."""
    return {
        "machine": ", ".join(f"{name} {value}" for name, value in results["machine"].items()),
        "worst errors": accuracy_table(results["accuracy"]),
        "worst errors by family": family_table(results["accuracy"]),
        "time": speed_table(results["speed"]),
    }


if __name__ == "__main__":
    main()
