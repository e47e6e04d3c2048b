"""The tables that scikit-learn ships: the optimum of a plain Newton method, or none at all."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from newton_oracle import newton
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from npsoftmax.ext.estimator import SoftmaxClassifier

TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}

NAMES = np.array(["setosa", "versicolor", "virginica"])


def table(name, scaled):
    X, y = TABLES[name](return_X_y=True)
    return (StandardScaler().fit_transform(X) if scaled else X), y


# The plain method takes long for digits.
CASES = [
    pytest.param(name, alpha, marks=[pytest.mark.exhaustive] * (name == "digits" and alpha < 1e-3))
    for name in TABLES
    for alpha in (1e-9, 1e-6, 1e-3)
]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("name", "alpha"), CASES)
def test_with_a_penalty_the_optimum_is_that_of_a_plain_newton_method(name, alpha, scaled):
    X, y = table(name, scaled)
    k = y.max() + 1
    W, P = newton(X, y, alpha * (2 if k == 2 else 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        classifier = SoftmaxClassifier(alpha).fit(X, y)
    np.testing.assert_allclose(classifier.predict_proba(X), P, rtol=0, atol=2e-7)
    coef = classifier.coef_ if k > 2 else np.vstack([-classifier.coef_, classifier.coef_]) / 2
    np.testing.assert_allclose(coef, W, rtol=0, atol=1e-6 * np.abs(W).max())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["wine", "breast cancer", "digits"])
def test_tables_that_are_completely_separable_have_no_optimum_without_a_penalty(name, scaled):
    X, y = table(name, scaled)
    with pytest.warns(ConvergenceWarning, match="every training sample is classified correctly"):
        classifier = SoftmaxClassifier().fit(X, y)
    logits = classifier.decision_function(X)
    logits = logits if logits.ndim == 2 else np.column_stack([-logits, logits])
    rows = np.arange(y.size)
    best_other = np.where(np.arange(logits.shape[1]) == y[:, None], -np.inf, logits).max(axis=1)
    # The proof: all logits times a number lower the loss, and more the larger the number is.
    assert (logits[rows, y] - best_other).min() > 1


@pytest.mark.parametrize("scaled", [False, True])
def test_iris_has_no_optimum_without_a_penalty_since_petals_separate_setosa(scaled):
    X, y = table("iris", scaled)
    assert X[y == 0, 2].max() < X[y > 0, 2].min()  # the proof
    with pytest.warns(ConvergenceWarning) as caught:
        classifier = SoftmaxClassifier().fit(X, NAMES[y])
    assert str(caught[0].message) == (
        "SoftmaxClassifier: features 2, 3 separate class setosa from versicolor, virginica and "
        "alpha is 0, so the optimum is at infinity and the weights depend on where this stopped: "
        "set alpha > 0"
    )
    # The probabilities of the others are those of the others alone.
    P = newton(X[y > 0], y[y > 0] - 1, 0.0)[1]
    np.testing.assert_allclose(classifier.predict_proba(X)[y > 0, 1:], P, rtol=0, atol=1e-6)
