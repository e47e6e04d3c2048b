"""Time the optima for 45 penalties of 150 intents: a path, single fits, and scikit-learn.

15,000 sentence embeddings of 384 float16 in 150 classes, ``l2`` from 1e-6 to 1e-1, from
``$NPSOFTMAX_DATA/clinc150/minilm.npz``. Each contestant has one thread and a process of its own.
The gap of an objective is its distance from the smallest one, in relation to it. It is measured
against a path in float64 whose gap is proved to be at most 1e-9. scikit-learn's tolerance for each
value is the largest of a ladder with which it reaches the gap of 1e-4; only that fit counts.

    python benchmarks/penalty_path.py            # prints the table, writes results
    python benchmarks/penalty_path.py --docs     # and puts the table into benchmarks/README.md
    python benchmarks/penalty_path.py --quick    # drawn samples and 9 values, nothing written
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure

measure.threads(1)

import numpy as np

import npsoftmax as nps
from npsoftmax.objective import FullBatch

GAP, EXACT = 1e-4, 1e-9
VALUES = np.logspace(-1, -6, 45)
LADDER = [10.0**-power for power in np.arange(2, 9.1, 0.5)]

Objectives = list[float]
Found = dict[str, Any]


def load(quick: bool) -> tuple[Any, Any, Any]:
    """Return samples as rows, labels, and the values."""
    if quick:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 20, 1500)
        rows = rng.standard_normal((20, 200))[y] + 2 * rng.standard_normal((y.size, 200))
        return (rows / 32).astype(np.float16), y, VALUES[::5]
    folder = Path(os.environ.get("NPSOFTMAX_DATA", "."))
    with np.load(folder / "clinc150" / "minilm.npz") as file:
        return file["X_train"], file["y_train"].astype(np.intp), VALUES


def of_path(quick: bool, dtype: str, gap: float) -> Found:
    """Fit a path, which proves its gaps."""
    rows, y, values = load(quick)
    model = nps.SoftmaxRegression(rows.shape[1], int(y.max()) + 1, dtype=dtype)
    start = time.process_time()
    path = nps.fit_path(model, rows.T, y, l2=values, gap=gap, threads=1)
    seconds = time.process_time() - start
    objectives = [record.objective for record in path.records]
    bounds = [record.suboptimality for record in path.records]
    passes = sum(record.evaluations for record in path.records)
    return {"seconds": seconds, "objectives": objectives, "bounds": bounds, "passes": passes}


def of_single_fits(quick: bool) -> Found:
    """Fit each value by itself."""
    rows, y, values = load(quick)
    start = time.process_time()
    model = nps.SoftmaxRegression(rows.shape[1], int(y.max()) + 1)
    found = []
    for l2 in values:
        model.theta[:] = 0
        found.append(nps.fit(model, rows.T, y, l2=l2, threads=1))
    seconds = time.process_time() - start
    passes = sum(optimum.evaluations for optimum in found)
    objectives = [optimum.objective for optimum in found]
    return {"seconds": seconds, "objectives": objectives, "passes": passes}


def of_scikit_learn(quick: bool, smallest: Objectives) -> Found:
    """Fit each value by itself, at the largest tolerance that reaches the gap."""
    from sklearn.linear_model import LogisticRegression

    rows, y, values = load(quick)
    X = rows.astype(np.float32)
    seconds, passes, objectives, rung = 0.0, 0, [], 0
    for l2, least in zip(values, smallest, strict=True):
        while True:
            peer = LogisticRegression(C=1 / (l2 * y.size), tol=LADDER[rung], max_iter=10_000)
            start = time.process_time()
            peer.fit(X, y)
            spent = time.process_time() - start
            theta = np.asfortranarray(np.column_stack([peer.coef_, peer.intercept_]), np.float64)
            objective = FullBatch(rows.T, y, l2).loss_and_grad(theta).loss
            if objective <= least * (1 + GAP) or rung == len(LADDER) - 1:
                break
            rung += 1
        seconds, passes = seconds + spent, passes + int(peer.n_iter_[0])
        objectives.append(objective)
    return {"seconds": seconds, "objectives": objectives, "passes": passes}


OURS = "one path"
CONTESTANTS: dict[str, Callable[..., Found]] = {
    OURS: lambda quick, smallest: of_path(quick, "float32", GAP),
    "single fits": lambda quick, smallest: of_single_fits(quick),
    "scikit-learn, `lbfgs`": of_scikit_learn,
}


def contest(name: str, quick: bool, smallest: Objectives) -> Found:
    """Return what a contestant found."""
    return CONTESTANTS[name](quick, smallest)


def table(runs: dict[str, Found], smallest: Objectives) -> str:
    """Return CPU seconds, passes and largest gap of each contestant."""
    rows, ours = [], runs[OURS]["seconds"]
    for name, found in runs.items():
        pairs = zip(found["objectives"], smallest, strict=True)
        gap = max(objective / least - 1 for objective, least in pairs)
        cpu = found["seconds"]
        rows.append([name, f"{cpu:.3g}", f"{cpu / ours:.2g}", f"{found['passes']}", f"{gap:.1e}"])
    header = ["", "CPU seconds", "ratio to the path", "passes or iterations", "largest gap"]
    return measure.markdown(header, rows)


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=1).parse_args()
    exact = measure.in_own_process(of_path, arguments.quick, "float64", EXACT)
    smallest = [o - b for o, b in zip(exact["objectives"], exact["bounds"], strict=True)]
    runs = {
        name: measure.in_own_process(contest, name, arguments.quick, smallest)
        for name in CONTESTANTS
    }
    results = {"machine": measure.machine("scikit-learn"), "runs": runs, "exact": exact}
    tables = {"penalty_path": table(runs, smallest)}
    measure.publish("penalty_path", results, tables, None, arguments)


if __name__ == "__main__":
    main()
