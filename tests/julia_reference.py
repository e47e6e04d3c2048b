"""The cases of the Julia packages, and our values for those that need more than one call.

``reference/julia_cases.json`` contains statements of the packages. A matrix is stored as its
columns, an infinity or NaN as a string. A function here takes the inputs of a case by name and
returns a dictionary of its expected parts.
"""

import json
import keyword
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npsoftmax import DataLoader, SoftmaxRegression, fit, lbfgs, splitobs
from npsoftmax.errors import InputError
from npsoftmax.functional import crossentropy, label_smoothing, onecold, onehotbatch
from npsoftmax.objective import hessian_vector_product, loss_and_grad
from npsoftmax.optimisers import Momentum, Nesterov

FOLDER = Path(__file__).parent / "reference"
SPECIAL = {"Infinity": np.inf, "-Infinity": -np.inf, "NaN": np.nan}


def decode(value):
    """Return a JSON value with arrays for matrices and for lists of numbers."""
    if isinstance(value, str):
        return SPECIAL.get(value, value)
    if isinstance(value, dict):
        if value.keys() == {"shape", "columns"}:
            return decode(value["columns"]).T.reshape(value["shape"])
        return {name: decode(part) for name, part in value.items()}
    if isinstance(value, list):
        items = [decode(item) for item in value]
        numeric = all(isinstance(item, int | float | np.ndarray) for item in items)
        return np.array(items) if numeric and len({np.shape(i) for i in items}) == 1 else items
    return value


def assert_close(actual, expected, rtol, atol):
    """Compare parts by name, items by place, numbers within the tolerance; shapes must agree."""
    if isinstance(expected, dict):
        for name, part in expected.items():
            assert_close(actual[name], part, rtol, atol)
    elif isinstance(expected, list):
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, rtol, atol)
    elif isinstance(expected, str | bool):
        assert actual == expected
    else:
        assert np.shape(actual) == np.shape(expected)
        np.testing.assert_allclose(actual, expected, rtol, atol)


@dataclass(frozen=True)
class Case:
    """One statement of a Julia package: inputs, expected output and tolerance."""

    id: str
    source: str
    inputs: dict[str, Any]
    expected: Any
    rtol: float
    atol: float

    def check(self, actual):
        """Raise AssertionError unless ``actual`` is the expected output."""
        if isinstance(self.expected, dict) and "raises" in self.expected:
            assert actual is True, "accepted an input that Julia refuses"
        else:
            assert_close(actual, self.expected, self.rtol, self.atol)


def read(entry):
    """Return the case of one JSON object, with its inputs in Julia's precision."""
    named = decode(entry["inputs"]).items()
    inputs = {name + "_" * keyword.iskeyword(name): value for name, value in named}
    tolerance = entry["tolerance"]
    # A few numbers have more digits than the Float32 of their inputs.
    demanding = max(tolerance.values()) < np.finfo(np.float32).eps / 2
    if inputs.pop("eltype", None) == "Float32" and not demanding:
        for name, value in inputs.items():
            if isinstance(value, np.ndarray):
                inputs[name] = value.astype(np.float32)
    return Case(entry["id"], entry["source"], inputs, decode(entry["expected"]), **tolerance)


def parse(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


CASES = {entry["id"]: read(entry) for entry in parse("julia_cases.json")}
BULK = decode(parse("julia_mlj_data.json"))


def refused(function, *arguments):
    try:
        function(*arguments)
    except InputError:
        return True
    return False


def refused_labels(calls):
    """Call onehotbatch(xs, labels[, default]) with labels written as "abc" or "0:4"."""

    def known(text):
        first, colon, last = text.partition(":")
        return list(range(int(first), int(last) + 1)) if colon else list(text)

    return all(refused(onehotbatch, xs, known(text), *default) for xs, text, *default in calls)


def one_hot_form(xs, labels):
    encoded = onehotbatch(xs, labels)
    hot = onecold(encoded) + 1
    return {"indices_one_based": hot, "nlabels": len(encoded), "shape": np.array(encoded.shape)}


def smoothing_effect(y, y_sim, y_dis, alpha):
    smooth = label_smoothing(y, alpha)
    return {
        "sim_plain": crossentropy(y_sim, y),
        "sim_smooth": crossentropy(y_sim, smooth),
        "dis_plain": crossentropy(y_dis, y),
        "dis_smooth": crossentropy(y_dis, smooth),
    }


def steps(rule, p, grads):
    """Return the parameters after each step, in their own precision."""
    theta = p.astype(np.result_type(p, np.float32))
    after = []
    for grad in grads:
        rule.update(theta, grad.astype(theta.dtype))
        after.append(theta.copy())
    return after


def momentum(p, grads, eta, rho):
    rule = Momentum(eta, rho)
    return {"p": steps(rule, p, grads)[-1], "velocity": rule.state["velocity"]}


def adjusted_momentum(grads, eta, rho):
    rule, p, (first, second) = Momentum(eta[0], rho[0]), np.zeros(3), grads.astype(float)
    delta_1 = rule.apply(p, first)
    rule.eta, rule.rho = eta[1], rho[1]
    return {"delta_1": delta_1, "delta_2": rule.apply(p, second)}


def nesterov(grads, eta, rho):
    rule = Nesterov(eta, rho)
    delta = rule.apply(np.zeros_like(grads[0]), grads[0].copy())
    return {"delta": delta, "velocity": rule.state["velocity"]}


def batches(X, batchsize, partial=True, Y=None):
    y = np.arange(X.shape[1]) if Y is None else Y
    loader = DataLoader(X, y, batchsize, drop_last=not partial)
    drawn = list(loader)
    return {
        "batch_lengths": np.array([y.size for _, y in drawn]),
        "batches": [X for X, _ in drawn],
        "last_batch": list(drawn[-1]),
    }


def vector_batches(n, batchsize, partial):
    drawn = batches(np.arange(1, n + 1)[None, :], batchsize, partial)
    return {**drawn, "batches": [X[0] for X in drawn["batches"]]}


def batch_lengths(n, batchsize):
    kept, dropped = (batches(np.zeros((1, n)), batchsize, partial) for partial in (True, False))
    return {**kept, "partial_false_lengths": dropped["batch_lengths"]}


def shuffling():
    X, y = np.zeros((1, 50)), np.arange(50)
    # shuffleobs returns all of the shuffled data.
    once, _ = splitobs((X, y), at=1.0, shuffle=True, rng=0)

    def changes(X, y, shuffle):
        loader = DataLoader(X, y, 50, shuffle=shuffle)
        first, second = ([y.tolist() for _, y in loader] for _ in range(2))
        return first != second

    return {
        "eachobs(shuffleobs(data))_reshuffles_each_epoch": changes(*once, shuffle=False),
        "DataLoader(shuffle=true)_reshuffles_each_epoch": changes(X, y, shuffle=True),
    }


def pieces(n, at, stratified=None):
    at = tuple(at.tolist()) if isinstance(at, np.ndarray) else at
    cut = splitobs(np.arange(n), at, stratified=stratified)
    return {
        "lengths": np.array([piece.size for piece in cut]),
        "indices_one_based": [piece + 1 for piece in cut],
    }


def scaled(pixels):
    """Return the logits of a model with identity weights for bytes."""
    model = SoftmaxRegression(1, 1, pixel_scale=1 / 255)
    model.theta[:] = [[1.0, 0.0]]
    return model.logits(pixels.astype(np.uint8)[None, :])[0]


def with_bias(W, b=None):
    return np.hstack([W, np.zeros((len(W), 1)) if b is None else b])


def sums(X_features_by_obs, y_one_based, W_classes_by_features, b_classes_by_1=None):
    """Return the sums over the samples of the loss and of its gradient."""
    n, theta = len(y_one_based), with_bias(W_classes_by_features, b_classes_by_1)
    result = loss_and_grad(theta, X_features_by_obs, y_one_based - 1)
    return {"loss": n * result.loss, "dW": n * result.grad[:, :-1], "db": n * result.grad[:, -1:]}


def hessian_sums(X_features_by_obs, y_one_based, W_classes_by_features, b_classes_by_1, VW, Vb):
    theta, V = with_bias(W_classes_by_features, b_classes_by_1), with_bias(VW, Vb)
    product = len(y_one_based) * hessian_vector_product(theta, V, X_features_by_obs)
    return {"HVW": product[:, :-1], "HVb": product[:, -1:]}


@dataclass
class Fit:
    """The sum of losses + lambda/2 ||W||^2: n times our mean objective.

    The first ``penalised_biases`` biases are penalised too, which ours never are.
    """

    X: Any
    y: Any
    lambda_: float
    penalised_biases: int = 0
    intercept: bool = True

    def value_and_grad(self, theta):
        n, b = self.y.size, theta[: self.penalised_biases, -1]
        result = loss_and_grad(theta, self.X, self.y, l2=self.lambda_ / n)
        grad = n * result.grad
        grad[: b.size, -1] += self.lambda_ * b
        if not self.intercept:
            grad[:, -1] = 0.0  # it starts at 0 and stays there
        return n * result.loss + self.lambda_ / 2 * (b @ b), grad

    def minimise(self):
        """Return the minimum and its location."""
        shape = (self.y.max() + 1, len(self.X) + 1)
        found = lbfgs.minimise(self.value_and_grad, np.zeros(shape, order="F"), tol=1e-9)
        assert found.reason == "converged", found.history[-1]
        return found.history[-1].value, found.x


def multinomial_fit(data_key, labels, lambda_, penalised_biases=0, **_):
    data = BULK[data_key]
    y = data[labels] - data["label_base"]
    return Fit(data["X_features_by_obs"], y, lambda_, penalised_biases)


def unpenalised_fit(**inputs):
    problem = multinomial_fit(**inputs)
    n, model = problem.y.size, SoftmaxRegression(len(problem.X), problem.y.max() + 1, dtype="f8")
    optimum = fit(model, problem.X, problem.y, l2=problem.lambda_ / n, tol=1e-12)
    assert optimum.converged, optimum
    b = model.b[:-1, 0]  # the source penalises all biases except the last
    minimum = n * optimum.objective
    quirk = minimum + problem.lambda_ / 2 * (b @ b)
    return {"J_min": minimum, "J_source_quirk_objective_at_that_optimum": quirk}


def binary_fit(data_key, labels, lambda_, penalised, **_):
    """Logistic regression as two classes with weights -w/2 and w/2 and twice the lambda."""
    data, intercept = BULK[data_key], labels.startswith("y1")
    w = data["theta1_with_intercept"] if intercept else [*data["theta_no_intercept"], 0.0]
    y = (data["y1" if intercept else "y"] + 1) // 2
    biases = 2 if "b" in penalised else 0
    fit = Fit(data["X_features_by_obs"], y, 2 * lambda_, biases, intercept)
    value, _ = fit.value_and_grad(np.outer([-0.5, 0.5], w))
    return {"J_generating": value, "J_min": fit.minimise()[0]}
