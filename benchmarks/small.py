"""Measure what small fits cost: the CPU time of npsoftmax and of scikit-learn's lbfgs.

Both minimise the objective of ``optimum.py`` in float64, from scratch, with one thread. npsoftmax
ends by its default tolerance. scikit-learn gets the smallest number of iterations that brings its
objective to npsoftmax's, within a relative 1e-6; it is found, and checked, before any time is
taken. CPU time depends little on what else the machine does.

    python benchmarks/small.py             # prints the table, writes results
    python benchmarks/small.py --docs      # and puts the table into benchmarks/README.md
    python benchmarks/small.py --quick     # three small problems, nothing written

The data are scikit-learn's tables, embeddings of sentences (``clinc150/minilm.npz`` in
``NPSOFTMAX_DATA``; drawn ones if it is absent), drawn embeddings, and drawn genes.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import measure

measure.threads(1)

import numpy as np
from optimum_peers import LBFGS, OURS, Data, Problem, logistic_regression

import npsoftmax as nps

SAME = 1e-6  # objectives that differ by less, relatively, count as equal
MOST_ITERATIONS = 15_000
SENTENCES = Path(os.environ.get("NPSOFTMAX_DATA", "."), "clinc150", "minilm.npz")


def standardised(rows: Any) -> Any:
    """Return rows as columns, with features of mean 0 and variance 1, unless they are constant."""
    centred = rows - rows.mean(axis=0)
    scale = centred.std(axis=0)
    return (centred / np.where(scale > 0, scale, 1)).T


def table(name: str) -> tuple[Any, Any]:
    """Return one of scikit-learn's tables."""
    from sklearn import datasets

    rows, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return standardised(rows), y


def sentences(n: int, k: int) -> tuple[Any, Any]:
    """Return real embeddings of sentences with 20 intents, which are put into ``k`` groups."""
    with np.load(SENTENCES) as stored:
        some = np.flatnonzero(stored["y_train"] < 20)
        some = np.sort(np.random.default_rng(0).choice(some, n, replace=False))
        rows, y = stored["X_train"][some], stored["y_train"][some]
    return np.ascontiguousarray(rows, np.float64).T, y % k


def embeddings(n: int, d: int, k: int) -> tuple[Any, Any]:
    """Draw vectors of length 1 with a decaying spectrum, and labels from a softmax model."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d)) / np.sqrt(np.arange(1, d + 1))
    rows = rows @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    logits = rows @ rng.normal(0, 20, (d, k))
    return rows.T, (logits + rng.gumbel(size=(n, k))).argmax(axis=1)


def genes(n: int, d: int) -> tuple[Any, Any]:
    """Draw expressions with twenty common factors; three classes differ in fifty genes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    rows = rng.standard_normal((n, 20)) @ rng.standard_normal((20, d))
    rows += 4 * rng.standard_normal((n, d))
    rows[:, :50] += rng.normal(0, 2, (3, 50))[y]
    return standardised(rows), y


def problem_of(title: str, make: Callable[..., Any], *arguments: Any, k: int, l2: float) -> Problem:
    """Return a problem in float64, with its sizes in its title."""
    return Problem(f"{title}, k {k}", make, arguments, k, "float64", math.inf, l2=l2)


def embeddings_of(d: int, k: int, l2: float) -> Problem:
    """Return 1,000 embeddings: sentences if they have this number of features and are there."""
    if d == 384 and SENTENCES.exists():
        return problem_of("sentences, 1,000 x 384", sentences, 1000, k, k=k, l2=l2)
    return problem_of(f"embeddings, 1,000 x {d:,}", embeddings, 1000, d, k, k=k, l2=l2)


# scikit-learn's default is C = 1: l2 = 1 / n, twice that for two classes (see logistic_regression).
PROBLEMS = (
    problem_of("iris, 150 x 4", table, "iris", k=3, l2=1 / 150),
    problem_of("wine, 178 x 13", table, "wine", k=3, l2=1 / 178),
    problem_of("breast cancer, 569 x 30", table, "breast_cancer", k=2, l2=2 / 569),
    problem_of("digits, 1,797 x 64", table, "digits", k=10, l2=1 / 1797),
    *(
        embeddings_of(d, k, l2)
        for d in (384, 768, 1536)
        for k in (2, 20)
        for l2 in (1e-5, 1e-4, 1e-3, 1e-2)
    ),
    problem_of("genes, 100 x 2,000", genes, 100, 2000, k=3, l2=1 / 100),
    problem_of("genes, 500 x 20,000", genes, 500, 20_000, k=3, l2=1 / 500),
)
QUICK = (PROBLEMS[0], embeddings_of(384, 2, 1e-2), PROBLEMS[-2])


def ours(data: Data) -> Callable[[], tuple[Any, nps.Optimum]]:
    """Return a fit of npsoftmax, which returns the parameters and what is known of them."""

    def fit() -> tuple[Any, nps.Optimum]:
        model = nps.SoftmaxRegression(data.X.shape[0], data.k, dtype=data.dtype)
        return model.theta, nps.fit(model, data.X, data.y, l2=data.l2, threads=1)

    return fit


def scikit_learns(data: Data, target: float) -> tuple[Callable[[], Any], int]:
    """Return a fit of scikit-learn, and its number of iterations: the fewest to the target."""
    solve, iterations = logistic_regression("sklearn", "lbfgs")(data), 0

    def watch(number: int, objective: float) -> bool:
        nonlocal iterations
        iterations = number
        return objective <= target

    solve(MOST_ITERATIONS, watch)
    return lambda: solve(iterations), iterations


def measured(problem: Problem, rounds: int) -> dict[str, Any]:
    """Return the CPU times of both, after a comparison of their objectives."""
    data = problem.data()
    objective, fit = data.objective(), ours(data)
    theta, found = fit()
    target = objective(theta) * (1 + SAME)
    peer, iterations = scikit_learns(data, target)
    reached = objective(peer())
    if reached > target * (1 + SAME):
        raise SystemExit(f"{problem.title}: expected {target} from scikit-learn, got {reached}")
    times = measure.in_turn({OURS: fit, LBFGS: peer}, rounds, 0.1, time.process_time)
    return {
        "title": problem.title,
        "l2": data.l2,
        "above": found.suboptimality / found.objective,
        "iterations": {OURS: found.iterations, LBFGS: iterations},
        "times": measure.compared(times, OURS),
    }


def table_of(results: Sequence[Mapping[str, Any]]) -> str:
    """Return milliseconds of CPU time and their ratio, a problem a line."""
    rows = []
    for result in results:
        times, iterations = result["times"], result["iterations"]
        cells = [
            f"{times[name]['median_seconds'] * 1e3:,.1f} ({iterations[name]})"
            for name in (OURS, LBFGS)
        ]
        ratio, above = measure.middle(times[LBFGS]), f"{result['above']:.0e}"
        rows.append([result["title"], f"{result['l2']:.1e}", *cells, ratio, above])
    names = [f"{name}, CPU ms (iterations)" for name in (OURS, LBFGS)]
    return measure.markdown(["problem", "l2", *names, "ratio", "above the smallest"], rows)


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    return {
        "small_machine": measure.described(results["machine"]),
        "small": table_of(results["problems"]),
    }


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=7).parse_args()
    problems, rounds = (QUICK, 3) if arguments.quick else (PROBLEMS, arguments.rounds)
    found = []
    for problem in problems:
        print(f"{problem.title}, l2 {problem.l2:.0e}", file=sys.stderr)
        found.append(measured(problem, rounds))
    results = {"machine": measure.machine("scipy", "scikit-learn"), "problems": found}
    measure.publish("small", results, tables(results), None, arguments)


if __name__ == "__main__":
    main()
