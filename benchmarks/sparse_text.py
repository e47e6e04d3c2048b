"""Time 20 Newsgroups, 11,314 texts of 130,107 TF-IDF features, to the optimum.

``python benchmarks/sparse_text.py [--quick] [--docs]``. Each contestant trains in a process of its
own, in turn; the gap is its objective minus the smallest one that is known. The texts are in
``$NPSOFTMAX_DATA/20newsgroups/tfidf.npz``: compressed rows as ``train_data``, ``train_indices``,
``train_indptr`` and ``train_shape``, labels as ``y_train``, and the same for ``test``.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure

measure.threads(1)

import numpy as np

L2 = 1e-5
K = 20
SOLVERS = {"saga": {}, "newton-cg": {"tol": 1e-3}, "lbfgs": {"max_iter": 1000}}


def load(part: str) -> tuple[Any, Any]:
    """Return compressed rows and labels."""
    from scipy.sparse import csr_array

    folder = Path(os.environ.get("NPSOFTMAX_DATA", "."))
    with np.load(folder / "20newsgroups" / "tfidf.npz") as file:
        names = ("data", "indices", "indptr", "shape")
        *parts, shape = (file[f"{part}_{name}"] for name in names)
        return csr_array(tuple(parts), shape=tuple(shape)), file[f"y_{part}"].astype(np.intp)


def assess(theta: Any) -> dict[str, float]:
    """Return the objective in float64, and the accuracy on the test texts."""
    from npsoftmax.objective import FullBatch

    X_train, y_train = load("train")
    problem = FullBatch(X_train.T, y_train, L2)
    objective = problem.loss_and_grad(np.asfortranarray(theta, np.float64)).loss
    X, y = load("test")
    accuracy = float(np.mean((X @ theta[:, :-1].T + theta[:, -1]).argmax(axis=1) == y))
    return {"objective": objective, "accuracy": accuracy}


def ours(tol: float, dtype: str) -> dict[str, Any]:
    """Train with this package."""
    import npsoftmax as nps

    X, y = load("train")
    model = nps.SoftmaxRegression(X.shape[1], K, sigma=0, dtype=dtype)

    def train() -> dict[str, Any]:
        optimum = nps.fit(model, X.T, y, l2=L2, tol=tol, threads=1)
        return {"bound": optimum.suboptimality, "passes": optimum.evaluations}

    return {**timed(train), **assess(model.theta)}


def scikit_learn(solver: str) -> dict[str, Any]:
    """Train with scikit-learn, whose C is 1 / (n l2)."""
    from sklearn.linear_model import LogisticRegression

    X, y = load("train")
    settings = SOLVERS[solver]
    peer = LogisticRegression(C=1 / (L2 * y.size), solver=solver, **settings)  # type: ignore[arg-type]

    def train() -> dict[str, Any]:
        peer.fit(X, y)
        return {"bound": None, "passes": int(peer.n_iter_[0])}

    found = timed(train)
    theta = np.hstack([peer.coef_, peer.intercept_[:, None]])
    return {**found, **assess(theta)}


def timed(train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what training returns, its seconds, and the memory that it took at most, in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    found = train()
    seconds = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**found, **seconds, "memory": (after - before) / 1024}


CONTESTANTS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]] = {
    "npsoftmax, tol 1e-4": (ours, (1e-4, "float32")),
    "npsoftmax, default tol": (ours, (1e-5, "float32")),
    "npsoftmax, float64, tol 1e-4": (ours, (1e-4, "float64")),
    **{f"scikit-learn, {solver}": (scikit_learn, (solver,)) for solver in SOLVERS},
}


def main() -> None:
    """Run the contestants in turn, and print the table."""
    arguments = measure.flags(__doc__, rounds=3).parse_args()
    chosen = list(CONTESTANTS)[:4] if arguments.quick else list(CONTESTANTS)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for _ in range(1 if arguments.quick else arguments.rounds):
        for name in chosen:
            function, settings = CONTESTANTS[name]
            runs[name].append(measure.in_own_process(function, *settings))
    smallest = measure.in_own_process(ours, 1e-8, "float64")["objective"]
    lines = [
        "| contestant | CPU seconds | seconds | gap | proved | test accuracy | memory beside X |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, results in runs.items():
        middle = {key: statistics.median(r[key] for r in results) for key in ("cpu", "seconds")}
        last = results[-1]
        bound = "-" if last["bound"] is None else f"{last['bound']:.1e}"
        lines.append(
            f"| {name} | {middle['cpu']:.1f} | {middle['seconds']:.1f} | "
            f"{last['objective'] - smallest:.1e} | {bound} | {last['accuracy']:.4f} | "
            f"{last['memory']:.0f} MB |"
        )
    measure.publish("sparse_text", runs, {"sparse_text": "\n".join(lines)}, None, arguments)


if __name__ == "__main__":
    main()
