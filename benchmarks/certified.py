"""Certify where the defaults of other programs end, on three data sets.

Each program fits the same objective, with scikit-learn's default penalty C = 1, and stops where its
defaults stop. For k classes this is ``l2 = 1/n``; for two, whose one row of weights counts as two
rows of half of them, ``l2 = 2/n``. `nps.certify` then proves how far the objective and the weights
are from the optimum, and how many predictions for other samples are those of the exact optimum. The
exact optimum tells how many differ. statsmodels has a ridge penalty for two classes alone.

    python benchmarks/certified.py             # prints the table, writes results
    python benchmarks/certified.py --docs      # and puts the table into docs/how_sure.md
    python benchmarks/certified.py --quick     # the smallest data set, nothing written
"""

import os
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import measure

measure.threads(2)

import numpy as np
from numpy.typing import NDArray

import npsoftmax as nps
from npsoftmax.objective import FullBatch

PAGE = measure.ROOT / "docs" / "how_sure.md"
Rows = NDArray[Any]
Fit = Callable[[Rows, Rows, int, float], NDArray[Any]]  # rows, labels, classes, l2 -> [W b]


def breast_cancer() -> tuple[Rows, Rows, Rows]:
    """Return standardised rows, their labels, and other rows, each a half."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X[::2].mean(axis=0)) / X[::2].std(axis=0)
    return X[::2], y[::2], X[1::2]


def digits() -> tuple[Rows, Rows, Rows]:
    """Return images of digits in 64 pixels from 0 to 1, and other ones."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X[::2] / 16, y[::2], X[1::2] / 16


def intents() -> tuple[Rows, Rows, Rows]:
    """Return sentence embeddings with 150 intents, and those of the validation part."""
    held = np.load(Path(os.environ["NPSOFTMAX_DATA"]) / "clinc150" / "minilm.npz")
    return held["X_train"].astype(float), held["y_train"].astype(int), held["X_val"].astype(float)


def scikit_learn(X: Rows, y: Rows, k: int, l2: float) -> NDArray[Any]:
    """Fit `LogisticRegression()`."""
    from sklearn.linear_model import LogisticRegression

    return two_rows(LogisticRegression(C=1 / (one_row(l2, k) * len(y))).fit(X, y))


def intel_extension(X: Rows, y: Rows, k: int, l2: float) -> NDArray[Any]:
    """Fit the same class of Intel's extension of scikit-learn."""
    from sklearnex.linear_model import LogisticRegression

    return two_rows(LogisticRegression(C=1 / (one_row(l2, k) * len(y))).fit(X, y))


def one_row(l2: float, k: int) -> float:
    """Return the weight of the penalty for programs with one row of weights for two classes."""
    return l2 / 2 if k == 2 else l2


def two_rows(model: Any) -> NDArray[Any]:
    """Return the coefficients of scikit-learn's model with a row for each class."""
    theta = np.hstack([model.coef_, model.intercept_[:, None]])
    return np.vstack([-theta, theta]) / 2 if len(theta) == 1 else theta


def statsmodels(X: Rows, y: Rows, k: int, l2: float) -> NDArray[Any]:
    """Fit `GLM(...).fit_regularized`, a ridge with an intercept that is free."""
    import statsmodels.api as sm

    A = sm.add_constant(X)
    alpha = np.append(0.0, np.full(X.shape[1], one_row(l2, k)))
    found = sm.GLM(y, A, family=sm.families.Binomial()).fit_regularized(alpha=alpha, L1_wt=0.0)
    theta = np.roll(found.params, -1)[None]
    return np.vstack([-theta, theta]) / 2


def pytorch(X: Rows, y: Rows, k: int, l2: float) -> NDArray[Any]:
    """Train `nn.Linear` with Adam for 50 epochs of batches of 64, as tutorials do."""
    import torch

    torch.manual_seed(0)
    samples, labels = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    layer = torch.nn.Linear(X.shape[1], k)
    optimiser = torch.optim.Adam(layer.parameters())
    for _ in range(50):
        for batch in torch.randperm(len(y)).split(64):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(samples[batch]), labels[batch])
            (loss + l2 / 2 * layer.weight.square().sum()).backward()
            optimiser.step()
    parts = layer.weight, layer.bias[:, None]
    return torch.hstack(parts).detach().numpy().astype(np.float64)


def npsoftmax_float32(X: Rows, y: Rows, k: int, l2: float) -> NDArray[Any]:
    """Fit with the defaults of this project."""
    model = nps.SoftmaxRegression(X.shape[1], k)
    nps.fit(model, X.T.astype(np.float32), y, l2=l2)
    return model.theta.astype(np.float64)


DATA = {"breast cancer": breast_cancer, "digits": digits, "150 intents": intents}
PROGRAMS: dict[str, tuple[str, Fit]] = {
    "npsoftmax": ("numpy", npsoftmax_float32),
    "scikit-learn": ("sklearn", scikit_learn),
    "its Intel extension": ("sklearnex", intel_extension),
    "statsmodels": ("statsmodels", statsmodels),
    "PyTorch, Adam": ("torch", pytorch),
}

PACKAGES = {
    "scikit-learn": "sklearn",
    "scikit-learn-intelex": "sklearnex",
    "statsmodels": "statsmodels",
    "torch": "torch",
}


def exact(X: Rows, y: Rows, k: int, l2: float) -> NDArray[Any]:
    """Return the optimum in float64."""
    model = nps.SoftmaxRegression(X.shape[1], k, dtype=np.float64)
    nps.fit(model, X.T, y, l2=l2, tol=1e-10)
    return model.theta


def certified(name: str) -> dict[str, Any]:
    """Return what is proved about each program on a data set."""
    X, y, others = DATA[name]()
    k, n = int(y.max()) + 1, len(y)
    l2 = 2 / n if k == 2 else 1 / n
    optimum, found = exact(X, y, k, l2), {}
    for program, (package, fit) in PROGRAMS.items():
        if find_spec(package) is None or (program == "statsmodels" and k > 2):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of those that stop at their number of iterations
            theta = fit(X, y, k, l2)
        found[program] = judged(theta, optimum, X, y, l2, others)
    return {"samples": len(others), "programs": found}


def judged(
    theta: NDArray[Any], optimum: NDArray[Any], X: Rows, y: Rows, l2: float, others: Rows
) -> dict[str, Any]:
    """Return the certificate of some weights, and how many predictions really differ."""
    certificate = nps.certify(theta[:, :-1], theta[:, -1], X.T, y, l2, others.T)
    differ = predictions(theta, others) != predictions(optimum, others)
    if (differ & certificate.final).any():
        raise SystemExit("expected final predictions to be those of the optimum, got others")
    return {
        "objective": certificate.objective,
        "gap": certificate.gap,
        "radius": certificate.radius,
        "share": certificate.share,
        "differ": int(differ.sum()),
    }


def predictions(theta: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """Return the most likely class of each row."""
    return (rows @ theta[:, :-1].T + theta[:, -1]).argmax(axis=1)


def curves() -> dict[str, list[tuple[float, float]]]:
    """Return the gap, relative to the objective, and the share of final predictions of intents.

    A point for each tolerance, for each of three penalties.
    """
    X, y, others = intents()
    found = {}
    for l2 in (1e-4, 1e-5, 1e-6):
        model = nps.SoftmaxRegression(X.shape[1], int(y.max()) + 1, dtype=np.float64)
        trainer = nps.FullBatchTrainer(model, FullBatch(X.T, y, l2), tol=1e-3)
        points = []
        for exponent in range(3, 9):
            trainer.tighten(10.0**-exponent)
            trainer.fit(5000)
            certificate = nps.certify(model.W, model.b, X.T, y, l2, others.T)
            points.append((certificate.gap / certificate.objective, certificate.share))
        found[f"l2 = {l2:g}"] = points
    return found


def picture(results: Mapping[str, Any]) -> Any:
    """Draw the shares against the gaps, and return the figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    ax = figure.subplots()
    for name, points in results["curves"].items():
        ax.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    ax.set(
        title="150 intents: 3,000 predictions", xscale="log",
        xlabel="proved gap, relative to the objective", ylabel="predictions that are final",
    )  # fmt: skip
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.invert_xaxis()
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def table(results: Mapping[str, Any]) -> str:
    """Return the table of the page."""
    rows = []
    for name, data in results.items():
        for program, found in data["programs"].items():
            rows.append(
                [name, program, f"{found['objective']:.6f}", f"{found['gap']:.1e}",
                 f"{found['radius']:.2g}", f"{found['share']:.1%}",
                 f"{found['differ']} of {data['samples']}"]
            )  # fmt: skip
    header = ["data", "program", "objective", "proved gap", "weights within", "final", "differ"]
    return measure.markdown(header, rows)


def main() -> None:
    """Certify, print, save."""
    arguments = measure.flags(__doc__, rounds=1).parse_args()
    names = list(DATA)[:1] if arguments.quick else list(DATA)
    results = {name: certified(name) for name in names}
    packages = [name for name, module in PACKAGES.items() if find_spec(module)]
    found = {"machine": measure.machine(*packages), "data": results}
    if not arguments.quick:
        found["curves"] = curves()
    tables = {"certified": table(results)}
    measure.publish("certified", found, tables, picture, arguments, PAGE)


if __name__ == "__main__":
    main()
