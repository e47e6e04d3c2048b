"""Measure how often sets hold the right class, and how large they are, compared with MAPIE.

Three models, fitted once. Half of the test data, or the validation data of the intents, calibrate;
the rest is measured. MAPIE gets the same probabilities, and its defaults otherwise. It is left out
where it is not installed (``python -m pip install mapie``). The bands hold the coverage, or those
of all classes together, in 99 % of draws: the number of sets that hold the right class is
beta-binomial, from the rank of the threshold among the samples that calibrate.

    python benchmarks/sets.py             # prints the table, writes results
    python benchmarks/sets.py --docs      # and puts the table into docs/how_sure.md
    python benchmarks/sets.py --quick     # a small data set that is installed, nothing written
"""

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import measure

measure.threads(2)

import numpy as np
from numpy.typing import NDArray

import npsoftmax as nps
from npsoftmax.conformal import SetRule

PAGE = measure.ROOT / "docs" / "how_sure.md"
COVERAGE = 0.9
ONE, EACH = "one threshold", "a threshold for each class"
METHODS = [("lac", False), ("aps", False), ("aps", True), ("raps", False), ("raps", True)]

Array = NDArray[Any]
Part = tuple[Array, Array]  # samples or probabilities as columns, labels


class Predictions(NamedTuple):
    """Probabilities of samples that calibrate and of others, with labels."""

    classes: list[str]
    held_out: Part
    test: Part


def fitted(classes: Any, training: Part, l2: float, scale: float | None) -> nps.SoftmaxRegression:
    """Return a model at its optimum."""
    X, y = training
    names = [str(name) for name in classes]
    model = nps.SoftmaxRegression(X.shape[0], len(names), classes=names, pixel_scale=scale)
    print(nps.fit(model, X, y, l2=l2))
    return model


def predicted(model: nps.SoftmaxRegression, held_out: Part, test: Part) -> Predictions:
    """Return the probabilities in float64."""
    parts = [(nps.softmax(model.logits(X).astype(float)), y) for X, y in (held_out, test)]
    return Predictions(list(model.classes), *parts)


def halves(X: Any, y: Array) -> tuple[Part, Part]:
    """Return two halves, drawn at random."""
    order = np.random.default_rng(0).permutation(y.size)
    first, second = order[: y.size // 2], order[y.size // 2 :]
    return (X[:, first], y[first]), (X[:, second], y[second])


def images(name: str, l2: float) -> Predictions:
    """Fit the pixels of a data set of images."""
    data = nps.load(name)
    model = fitted(data.classes, (data.X_train, data.y_train), l2, data.pixel_scale)
    return predicted(model, *halves(data.X_test, data.y_test))


def stored(name: str) -> Any:
    """Return arrays of a file among the shared data."""
    return np.load(Path(os.environ["NPSOFTMAX_DATA"]) / name)


def intents() -> Predictions:
    """Fit sentence embeddings with 150 intents."""
    held = stored("clinc150/minilm.npz")
    training, validation, test = (
        (held[f"X_{part}"].T, held[f"y_{part}"].astype(np.intp))
        for part in ("train", "val", "test")
    )
    return predicted(fitted(held["classes"], training, 1e-5, None), validation, test)


def news() -> Predictions:
    """Fit texts as sparse TF-IDF."""
    from scipy.sparse import csr_array

    held = stored("20newsgroups/tfidf.npz")

    def part(name: str) -> Part:
        arrays = tuple(held[f"{name}_{array}"] for array in ("data", "indices", "indptr"))
        return csr_array(arrays, shape=tuple(held[f"{name}_shape"])).T.tocsc(), held[f"y_{name}"]

    model = fitted(held["classes"], part("train"), 1e-5, None)
    return predicted(model, *halves(*part("test")))


DATA = {
    "Fashion-MNIST": lambda: images("fashion-mnist", 1e-4),
    "CLINC150": intents,
    "20 Newsgroups": news,
}


def named(method: str, randomised: bool) -> str:
    """Return the name of a row."""
    return f"{method}, randomised" if randomised else method


def of_mapie(found: Predictions, method: str, randomised: bool) -> Array:
    """Return the sets of MAPIE for the probabilities of a model."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A classifier whose samples are probabilities."""

        is_fitted_ = True
        classes_ = np.arange(len(found.classes))

        def fit(self, X: Array, y: Array) -> "Given":
            return self

        def predict_proba(self, X: Array) -> Array:
            return X

        def predict(self, X: Array) -> Array:
            return X.argmax(axis=1)

    (P, y), (Q, _) = found.held_out, found.test
    classifier = SplitConformalClassifier(Given(), COVERAGE, method, random_state=0)
    classifier.conformalize(P.T, y)
    given = {} if method == "lac" else {"include_last_label": "randomized" if randomised else True}
    inside: Array = classifier.predict_set(Q.T, conformity_score_params=given or None)[1]
    return inside[:, :, 0].T


def described(sets: Array, y: Array) -> dict[str, float]:
    """Return what is measured about sets."""
    sizes = sets.sum(axis=0)
    return {
        "coverage": float(sets[y, np.arange(y.size)].mean()),
        "size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
    }


def band(calibrating: Array, measured: Array, outside: float) -> tuple[Array, Array]:
    """Return the smallest and largest numbers of sets with the right class, as likely as asked."""
    from scipy.stats import betabinom

    rank = np.ceil((calibrating + 1) * COVERAGE - 1e-9)
    limits = betabinom.ppf(
        [[outside / 2], [1 - outside / 2]], measured, rank, calibrating + 1 - rank
    )
    return limits[0], limits[1]


def by_class(found: Predictions) -> dict[str, Any]:
    """Return the coverage of each class, and how many of those with own thresholds are off."""
    (P, y), (Q, t) = found.held_out, found.test
    k, shares, size = len(found.classes), {}, math.nan
    totals = np.bincount(t, minlength=k)
    for name, per_class in ((ONE, False), (EACH, True)):
        sets = SetRule.fit(P, y, COVERAGE, per_class=per_class).sets(Q)
        right = np.bincount(t[sets[t, np.arange(t.size)]], minlength=k)
        shares[name], size = (right / totals).round(4).tolist(), float(sets.sum(axis=0).mean())
    low, high = band(np.bincount(y, minlength=k), totals, 0.01 / k)
    outside = int(((right < low) | (right > high)).sum())
    return {"classes": found.classes, "coverage": shares, "size": size, "outside": outside}


def measured(found: Predictions) -> dict[str, Any]:
    """Return what the table and the picture show of a data set."""
    (P, y), (Q, t) = found.held_out, found.test
    low, high = band(np.array([y.size]), np.array([t.size]), 0.01)
    sets = {}
    for method, randomised in METHODS:
        name = named(method, randomised)
        sets[name] = described(SetRule.fit(P, y, COVERAGE, method, randomised).sets(Q), t)
        if find_spec("mapie"):
            sets[f"MAPIE {name}"] = described(of_mapie(found, method, randomised), t)
    return {
        "calibrate": y.size,
        "measured": t.size,
        "accuracy": float((Q.argmax(axis=0) == t).mean()),
        "band": [float(low[0]) / t.size, float(high[0]) / t.size],
        "sets": sets,
        "by class": by_class(found),
    }


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the table of the page."""
    data = list(results["data"].values())

    def row(name: str, form: Any) -> list[str]:
        return [name, *(form(found) for found in data)]

    def of_sets(name: str) -> Any:
        return lambda f: f"{f['sets'][name]['coverage']:.3f}, {f['sets'][name]['size']:.2f}"

    def lowest(name: str) -> Any:
        return lambda f: f"{min(f['by class']['coverage'][name]):.2f}"

    classes = [len(found["by class"]["classes"]) for found in data]
    names = [f"{name}, {k} classes" for name, k in zip(results["data"], classes, strict=True)]
    rows = [
        row("samples that calibrate, measured", lambda f: f"{f['calibrate']:,}, {f['measured']:,}"),
        row("accuracy", lambda f: f"{f['accuracy']:.3f}"),
        row("band of the coverage", lambda f: "{:.3f} to {:.3f}".format(*f["band"])),
        *(row(name, of_sets(name)) for name in data[0]["sets"]),
        row("lowest coverage of a class, lac", lowest(ONE)),
        row("the same, `per_class=True`", lowest(EACH)),
        row("mean size, `per_class=True`", lambda f: f"{f['by class']['size']:.2f}"),
        row("classes outside their bands", lambda f: str(f["by class"]["outside"])),
    ]
    return {"sets": measure.markdown(["coverage, mean size", *names], rows)}


def picture(results: Mapping[str, Any]) -> Any:
    """Draw the coverage of each class of the first data set, and return the figure."""
    from matplotlib.figure import Figure

    name, data = next(iter(results["data"].items()))
    found = data["by class"]
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(found["classes"]))
    for offset, (label, shares) in zip((-0.2, 0.2), found["coverage"].items(), strict=True):
        ax.bar(places + offset, shares, 0.38, label=label)
    ax.axhline(COVERAGE, color="black", linewidth=1, linestyle="--", label="asked")
    ax.set(title=f"{name}: sets that hold the right class", ylabel="coverage", ylim=(0, 1))
    ax.set_xticks(places, found["classes"], rotation=30, ha="right")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=1).parse_args()
    data = {"garments": lambda: images("garments", 1e-3)} if arguments.quick else DATA
    packages = ["scipy", *(["mapie"] if find_spec("mapie") else [])]
    results = {
        "machine": measure.machine(*packages),
        "data": {name: measured(predict()) for name, predict in data.items()},
    }
    measure.publish("sets", results, tables(results), picture, arguments, PAGE)


if __name__ == "__main__":
    main()
