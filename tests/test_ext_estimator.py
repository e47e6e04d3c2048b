"""The estimator follows scikit-learn's rules, and its coefficients are the optimum."""

import copy
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
import joblib
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_info, threadpool_limits

from npsoftmax import SoftmaxRegression
from npsoftmax.errors import DivergedError, InputError, LabelError, ShapeError
from npsoftmax.ext._rows import weigh
from npsoftmax.ext.estimator import SoftmaxClassifier
from npsoftmax.objective import FullBatch, newton
from npsoftmax.optimisers import Optimiser

NO_OPTIMUM = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NAMES = np.array(["cat", "dog", "owl"])
DATASETS = {
    load.__name__[5:]: load for load in (load_iris, load_digits, load_wine, load_breast_cancer)
}


@NO_OPTIMUM
@parametrize_with_checks([SoftmaxClassifier()])
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@NO_OPTIMUM
@parametrize_with_checks(
    [
        SoftmaxClassifier(alpha=1e-2),
        SoftmaxClassifier(solver="sgd"),
        SoftmaxClassifier(class_weight="balanced"),
        SoftmaxClassifier(alpha=1e-4, class_weight="balanced", solver="sgd"),
        SoftmaxClassifier(warm_start=True, random_state=0),
    ]
)
def test_estimator_checks_of_other_parameters(estimator, check):
    check(estimator)


def noisy(n=90, d=3, k=3, seed=0):
    """Draw rows whose labels no model can tell for sure."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, (X @ rng.standard_normal((d, k)) + rng.gumbel(size=(n, k))).argmax(axis=1)


def separable():
    return np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])


# Coefficients


@pytest.fixture
def lbfgs_alone(monkeypatch):
    """Leave small problems to L-BFGS, as large ones are."""
    monkeypatch.setattr(newton, "MAX_ROWS", 0)


def dataset(name, scaled):
    X, y = DATASETS[name](return_X_y=True)
    return (StandardScaler().fit_transform(X) if scaled else X), y


def logistic_regression(X, y, alpha, weights):
    C = 1 / (alpha * weights.sum())
    peer = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of steps too small to be seen
        return peer.fit(X, y, weights)


def assert_equal_coefficients(classifier, peer, tolerance):
    np.testing.assert_allclose(classifier.coef_, peer.coef_, rtol=0, atol=tolerance)
    differences = classifier.intercept_ - peer.intercept_
    if len(differences) > 1:  # the same number added to all intercepts changes nothing
        differences -= differences.mean()
    np.testing.assert_allclose(differences, 0, rtol=0, atol=tolerance)


@pytest.mark.parametrize("alpha", [1e-3, 1e-1])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", DATASETS)
def test_coefficients_are_those_of_logistic_regression(name, scaled, alpha):
    X, y = dataset(name, scaled)
    peer = logistic_regression(X, y, alpha, np.ones(y.size))
    assert_equal_coefficients(SoftmaxClassifier(alpha).fit(X, y), peer, 1e-5)


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_balanced_coefficients_are_those_of_logistic_regression(name):
    X, y = dataset(name, scaled=True)
    X, y = X[20:], y[20:]
    peer = logistic_regression(X, y, 1e-2, compute_sample_weight("balanced", y))
    classifier = SoftmaxClassifier(1e-2, class_weight="balanced").fit(X, y)
    assert_equal_coefficients(classifier, peer, 1e-6)
    as_dict = dict(enumerate(y.size / (3 * np.bincount(y))))
    again = SoftmaxClassifier(1e-2, class_weight=as_dict).fit(X, y)
    np.testing.assert_allclose(again.coef_, classifier.coef_, rtol=0, atol=1e-9)


def test_unscaled_wine_is_solved_where_the_first_preconditioner_is_a_poor_one(lbfgs_alone):
    X, y = dataset("wine", scaled=False)
    peer = logistic_regression(X, y, 1e-4, np.ones(y.size))
    classifier = SoftmaxClassifier(1e-4).fit(X, y)
    assert_equal_coefficients(classifier, peer, 1e-5)
    assert classifier.n_iter_ > 200


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("extra", "free"),
    [
        (lambda X: X[:, 0], [1, 0, 0, -1]),
        (lambda X: X[:, 0] + X[:, 1], [1, 1, 0, -1]),
        (lambda X: np.full(len(X), 7.0), [0, 0, 0, 1]),
    ],
    ids=["the same", "a sum", "a constant"],
)
def test_of_equally_good_coefficients_the_smallest_are_taken(extra, free, seed):
    X, y = noisy(seed=seed)
    X += 5
    more = np.column_stack([X, extra(X)])
    classifier, without = SoftmaxClassifier().fit(more, y), SoftmaxClassifier().fit(X, y)
    # Along this direction the rows do not vary.
    np.testing.assert_allclose(classifier.coef_ @ free, 0, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        classifier.predict_proba(more), without.predict_proba(X), rtol=0, atol=1e-8
    )


@NO_OPTIMUM
def test_fewer_rows_than_features_leave_the_other_directions_alone():
    X, y = noisy(n=12, d=30)
    classifier = SoftmaxClassifier().fit(X, y)
    assert classifier.score(X, y) == 1
    outside = np.linalg.svd(X - X.mean(axis=0))[2][11:]
    np.testing.assert_allclose(classifier.coef_ @ outside.T, 0, rtol=0, atol=1e-12)


def test_few_rows_of_many_features_need_a_few_copies_of_them():
    code = """if True:
        import resource, warnings
        import numpy as np
        from npsoftmax.ext.estimator import SoftmaxClassifier
        X = np.random.default_rng(0).standard_normal((150, 6000))
        warnings.simplefilter("ignore")
        SoftmaxClassifier(max_iter=5).fit(X[:, :50], np.arange(150) % 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        SoftmaxClassifier(max_iter=5).fit(X, np.arange(150) % 2)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / X.nbytes)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 12


# What weights mean


@st.composite
def weighted_rows(draw):
    """Draw rows, labels, and weights of which every class has some."""
    n, d = draw(st.integers(4, 10)), draw(st.integers(1, 3))
    eighths = st.integers(-16, 16).map(lambda number: number / 8)
    X = np.array(draw(st.lists(st.lists(eighths, min_size=d, max_size=d), min_size=n, max_size=n)))
    labels = st.lists(st.integers(0, 2), min_size=n - 2, max_size=n - 2)
    weights = st.lists(st.integers(0, 3), min_size=n - 2, max_size=n - 2)
    y, w = np.array([0, 1, *draw(labels)]), np.array([1, 2, *draw(weights)])
    w[(y == 2) & (w[y == 2].sum() == 0)] = 1
    return X, NAMES[y], w


def same(a, b, X, tolerance, coefficients=True):
    assert list(a.classes_) == list(b.classes_)
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=0, atol=tolerance)
    if coefficients:
        np.testing.assert_allclose(a.coef_, b.coef_, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(a.intercept_, b.intercept_, rtol=tolerance, atol=tolerance)


def assert_weights_count_rows(classifier, X, y, weights, seed, factor, **compared):
    """Compare with the fit to rows that are repeated, left out and in another order."""
    order = np.random.default_rng(seed).permutation(y.size)
    kept = weights > 0
    result = clone(classifier).fit(X, y, weights)
    for other in (
        (X.repeat(weights, axis=0), y.repeat(weights)),
        (X[kept], y[kept], weights[kept]),
        (X[order], y[order], weights[order]),
        (X, y, factor * weights),
    ):
        same(clone(classifier).fit(*other), result, X[kept], **compared)


SEEDS, FACTORS = st.integers(0, 9), st.floats(1e-300, 1e300)
PENALISED = st.builds(
    SoftmaxClassifier,
    st.sampled_from([1e-3, 0.1, 10.0]),
    class_weight=st.sampled_from([None, "balanced", {"dog": 3.0}]),
)


@settings(max_examples=25)
@given(PENALISED, weighted_rows(), SEEDS, FACTORS)
def test_weights_count_rows(classifier, rows, seed, factor):
    assert_weights_count_rows(classifier, *rows, seed, factor, tolerance=1e-8)


@pytest.mark.slow
@settings(max_examples=300)
@given(PENALISED, weighted_rows(), SEEDS, FACTORS)
def test_weights_count_rows_of_many_data(classifier, rows, seed, factor):
    assert_weights_count_rows(classifier, *rows, seed, factor, tolerance=1e-8)


@settings(max_examples=10)
@given(weighted_rows(), SEEDS, FACTORS)
def test_weights_count_rows_in_a_batch_of_all(rows, seed, factor):
    classifier = SoftmaxClassifier(1e-2, "sgd", epochs=8, random_state=0)
    assert_weights_count_rows(classifier, *rows, seed, factor, tolerance=1e-6)


@NO_OPTIMUM
@settings(max_examples=5)
@given(weighted_rows(), SEEDS, FACTORS)
def test_weights_count_rows_where_no_coefficients_are_the_best(rows, seed, factor):
    # The probabilities of the rows go to 0 and 1 along many ways, and rounding chooses one.
    assert_weights_count_rows(
        SoftmaxClassifier(), *rows, seed, factor, tolerance=1e-6, coefficients=False
    )


@pytest.mark.parametrize("alpha", [0.0, 1e-3])
@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize(("k", "absent"), [(2, [0]), (2, [1]), (3, [1]), (3, [0, 2])])
def test_a_class_without_weight_has_a_probability_next_to_0(k, absent, solver, alpha):
    X, y = noisy(k=k)
    X *= [1e3, 1.0, 1e-3]
    weights = np.where(np.isin(y, absent), 0, 3)
    make = SoftmaxClassifier(alpha, solver, epochs=3, random_state=0)
    classifier = clone(make).fit(X, NAMES[y], weights)
    assert list(classifier.classes_) == list(NAMES[:k])
    for rows in (X, -1e3 * X):
        assert classifier.predict_proba(rows)[:, absent].max() < 1e-15
    without = make.set_params(class_weight=dict.fromkeys(NAMES[absent], 0.0))
    np.testing.assert_array_equal(without.fit(X, NAMES[y]).coef_, classifier.coef_)
    assert np.isfinite(classifier.partial_fit(X, NAMES[y]).coef_).all()


def test_the_other_classes_have_the_probabilities_of_a_fit_without_it():
    X, y = noisy()
    weights = np.where(y == 1, 0, 3)
    P = SoftmaxClassifier(1e-2).fit(X, y, weights).predict_proba(X)
    # Two classes have one row of coefficients, whose square is penalised at half the sum of two.
    left_out = SoftmaxClassifier(5e-3).fit(X[y != 1], y[y != 1]).predict_proba(X)
    np.testing.assert_allclose(P[:, [0, 2]], left_out, rtol=0, atol=1e-8)
    peer = LogisticRegression(C=1 / (1e-2 * (y != 1).sum()), tol=1e-8).fit(X, y, weights / 3)
    np.testing.assert_allclose(P, peer.predict_proba(X), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda member: VotingClassifier([("a", member), ("b", GaussianNB())], voting="soft"),
        lambda member: CalibratedClassifierCV(member, cv=3),
        lambda member: CalibratedClassifierCV(member, cv=3, ensemble=False),
        lambda member: StackingClassifier([("a", member)], final_estimator=GaussianNB(), cv=3),
        lambda member: BaggingClassifier(member, random_state=0),
        lambda member: AdaBoostClassifier(member, random_state=0),
    ],
    ids=["voting", "calibrated", "calibrated once", "stacking", "bagging", "boosting"],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_ensembles_stay_right_where_a_class_has_no_weight(wrap):
    X, y = dataset("wine", scaled=True)
    weights = np.where(y == 0, 0.0, 1.0)
    fitted = wrap(SoftmaxClassifier(1e-2)).fit(X, NAMES[y], sample_weight=weights)
    assert fitted.score(X[y > 0], NAMES[y[y > 0]]) > 0.95


def test_rows_of_one_class_with_weight_predict_this_class():
    X, y = noisy()
    for solver in ("lbfgs", "sgd"):
        classifier = SoftmaxClassifier(1e-2, solver, epochs=3).fit(X, NAMES[y], y == 1)
        assert classifier.predict_proba(X)[:, 1].min() > 1 - 1e-15
    with pytest.raises(InputError, match=r"only one class, \['dog'\]; check the column"):
        SoftmaxClassifier().fit(X[y == 1], NAMES[y[y == 1]])


def test_huge_class_weights_count_by_their_ratios():
    X, y = noisy()
    even = SoftmaxClassifier(1e-2).fit(X, y)
    huge = SoftmaxClassifier(1e-2, class_weight=dict.fromkeys(range(3), 1e308)).fit(X, y)
    np.testing.assert_array_equal(huge.coef_, even.coef_)


class Recorder(Optimiser):
    """A rule that stays where it is, and keeps the gradients."""

    def apply(self, theta, grad):
        self.state[len(self.state)] = grad.copy()
        return 0 * grad


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_the_gradients_of_batches_are_on_average_that_of_all_rows(l2):
    X, y = noisy()
    weights = np.random.default_rng(0).exponential(size=y.size)
    samples = weigh(X, y, np.arange(3), weights, class_weight=None)
    theta = np.array([[1.0, 2.0, -1.0, 0.5], [-2.0, 0.0, 3.0, 0.5], [1.0, -2.0, -2.0, -1.0]])
    of_all, of_batches = Recorder(), Recorder()
    for batch_size, recorder in ((90, of_all), (10, of_batches)):
        classifier = SoftmaxClassifier(l2, batch_size=batch_size, random_state=0)
        classifier._descend(theta, samples, range(1), recorder)
    expected = FullBatch(X.T, y, l2, weights).loss_and_grad(theta).grad
    np.testing.assert_allclose(of_all.state[0], expected, rtol=0, atol=1e-15)
    mean = sum(of_batches.state.values()) / 9
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-15)


# Labels, predictions, parameters


def test_labels_may_be_anything():
    X, y = noisy()
    by_number = SoftmaxClassifier(1e-2).fit(X, y)
    for names in (NAMES, NAMES.astype(object), np.array([-1, 5, 70])):
        classifier = SoftmaxClassifier(1e-2).fit(X, names[y])
        assert list(classifier.classes_) == list(names)
        assert list(classifier.predict(X)) == list(names[by_number.predict(X)])
    assert SoftmaxClassifier(1e-2).fit(X, y == 1).predict(X).dtype == bool


def test_logarithms_of_probabilities_are_exact_where_those_are_0():
    X, y = separable()
    classifier = SoftmaxClassifier(1e-2).fit(X, y)
    far = np.array([[-1000 / classifier.coef_[0, 0]]])
    assert classifier.predict_proba(far)[0, 1] == 0
    np.testing.assert_allclose(classifier.predict_log_proba(far)[0], [0, -1000], atol=1e-9)
    near = classifier.predict_proba(X)
    np.testing.assert_allclose(np.log(near), classifier.predict_log_proba(X), rtol=1e-12)


def test_two_classes_have_one_logit():
    X, y = separable()
    classifier = SoftmaxClassifier(1e-1).fit(X, y)
    logits = classifier.decision_function(X)
    assert classifier.coef_.shape == (1, 1) and classifier.intercept_.shape == (1,)
    np.testing.assert_allclose(logits, X[:, 0] * classifier.coef_[0, 0], atol=1e-9)
    np.testing.assert_allclose(classifier.predict_proba(X)[:, 1], 1 / (1 + np.exp(-logits)))
    assert classifier.decision_function(noisy()[0][:, :1]).shape == (90,)
    three = SoftmaxClassifier(1e-1).fit(*noisy())
    assert three.decision_function(noisy()[0]).shape == (90, 3)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("offset", [0, 1e3, 1e5, 1e7])
def test_float32_rows_have_the_predictions_of_the_same_numbers_in_float64(offset, k):
    X, y = noisy(n=600, k=k)
    X = (10 * X + offset).astype(np.float32)
    wide = X.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # features far from 0
        classifier = SoftmaxClassifier(1e-3, tol=1e-5).fit(X, y)
        peer = SoftmaxClassifier(1e-3, tol=1e-5).fit(wide, y)
    assert classifier.coef_.dtype == classifier.predict_proba(X).dtype == np.float64
    np.testing.assert_array_equal(classifier.coef_, peer.coef_)
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        ours, theirs = getattr(classifier, method)(X), getattr(peer, method)(wide)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14 * max(1, offset))
    np.testing.assert_array_equal(classifier.predict(X), peer.predict(wide))
    assert classifier.score(X, y) == peer.score(wide, y)


def test_logits_of_float32_rows_need_little_memory():
    X, y = np.zeros((20_000, 50), np.float32), np.arange(20_000) % 2
    X[:, 0] = y
    classifier = SoftmaxClassifier(0.1).fit(X, y)
    tracemalloc.start()
    classifier.predict_proba(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1}, "alpha: expected a number of at least 0, got -1"),
        ({"alpha": np.nan}, "alpha: expected"),
        ({"alpha": "1"}, "alpha: expected a number of at least 0, got '1'"),
        ({"tol": -1e-3}, "tol: expected"),
        ({"max_iter": 0}, "max_iter: expected a whole number of at least 1, got 0"),
        ({"max_iter": 1.5}, "max_iter: expected a whole number"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"epochs": 0}, "epochs: expected"),
        ({"learning_rate": np.inf}, "learning_rate: expected"),
        ({"solver": "newton"}, "solver: expected 'lbfgs' or 'sgd', got 'newton'"),
        ({"class_weight": "even"}, "class_weight: expected a dict, 'balanced' or None"),
        ({"class_weight": {0: -1.0}}, "class_weight: expected finite numbers of at least 0"),
        ({"class_weight": {0: np.nan}}, "class_weight: expected finite numbers"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "got zero for all"),
        ({"class_weight": np.array([1.0, 2.0])}, "class_weight: expected a dict"),
        ({"solver": np.array([1.0, 2.0])}, "solver: expected"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        SoftmaxClassifier(**parameters).fit(*noisy())


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.zeros(90), InputError, "positive weight for some row, got zero for all"),
        (np.full(90, -1.0), InputError, "at least 0"),
        (np.full(90, np.nan), InputError, "finite numbers"),
        (np.ones(3), ShapeError, r"one number for each of 90 samples, got shape \(3,\)"),
        (np.ones((90, 1)), ShapeError, r"got shape \(90, 1\)"),
    ],
)
def test_bad_weights_are_refused(weights, error, message):
    X, y = noisy()
    with pytest.raises(error, match=message):
        SoftmaxClassifier(1e-2).fit(X, NAMES[y], weights)


# Warnings and errors of the solvers


def advice(classifier, X, y):
    with pytest.warns(ConvergenceWarning) as caught:
        classifier.fit(X, y)
    assert caught[0].filename == __file__
    return str(caught[0].message)


def test_separable_rows_have_no_optimum_without_a_penalty():
    assert advice(SoftmaxClassifier(), *separable()) == (
        "SoftmaxClassifier: every training sample is classified correctly (feature 0 separates "
        "class 0 from 1) and alpha is 0, so the optimum is at infinity and the weights depend on "
        "where this stopped: set alpha > 0"
    )
    SoftmaxClassifier(1e-3).fit(*separable())
    SoftmaxClassifier().fit(*noisy())


@pytest.mark.parametrize("limit", [1, 5, 203])
def test_too_few_iterations_are_told(limit, lbfgs_alone):
    X, y = dataset("wine", scaled=False)
    classifier = SoftmaxClassifier(1e-4, max_iter=limit)
    assert (
        advice(classifier, X, y) == f"SoftmaxClassifier: not converged: raise max_iter, now {limit}"
    )
    assert classifier.n_iter_ == limit


def test_sgd_comes_near_the_optimum():
    X, y = noisy()
    near = SoftmaxClassifier(1e-2, "sgd", learning_rate=0.1, random_state=0).fit(X, y)
    assert near.n_iter_ == 100
    np.testing.assert_allclose(near.coef_.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(near.coef_, SoftmaxClassifier(1e-2).fit(X, y).coef_, atol=5e-3)


def test_sgd_tells_that_it_diverged():
    with pytest.raises(DivergedError, match="scale the features, or lower the learning rate"):
        SoftmaxClassifier(solver="sgd", learning_rate=1e308).fit(*noisy())


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_fits_are_repeatable(solver):
    X, y = noisy()
    make = SoftmaxClassifier(1e-3, solver, batch_size=16, epochs=2, random_state=7)
    first, second = (clone(make).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.coef_, second.coef_)
    np.testing.assert_array_equal(first.fit(X, y).coef_, second.coef_)
    other = clone(make).set_params(random_state=np.random.RandomState(8)).fit(X, y)
    assert np.array_equal(other.coef_, first.coef_) == (solver == "lbfgs")


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_fits_change_no_arguments_and_no_settings(solver):
    X, y = noisy()
    weights = np.arange(90.0)
    for array in (X, y, weights):
        array.setflags(write=False)
    classifier = SoftmaxClassifier(0.0, solver, class_weight="balanced", epochs=3)
    pools = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    with np.errstate(all="raise"):
        before = np.geterr()
        classifier.fit(np.hstack([X, X]), y, weights)
        classifier.fit(X * 1e-200, y)
        classifier.predict_proba(X)
        assert np.geterr() == before
    assert pools == [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]


# Starting again, and continuing


def test_fit_starts_again_and_a_warm_start_continues():
    X, y = noisy()
    classifier = SoftmaxClassifier(1e-2, warm_start=True).fit(X, y)
    cold = clone(classifier).set_params(warm_start=False).fit(X, y)
    assert cold.n_iter_ == classifier.n_iter_ > 1
    optimum = classifier.coef_.copy()
    assert classifier.fit(X, y).n_iter_ == 0 and cold.fit(X, y).n_iter_ > 1
    np.testing.assert_array_equal(classifier.coef_, optimum)
    for changed in ((X[:, :2], y), (X, NAMES[y]), (X[y < 2], y[y < 2])):
        again = clone(classifier).fit(*changed)
        np.testing.assert_array_equal(classifier.fit(*changed).coef_, again.coef_)
    two = X[y < 2], y[y < 2]
    assert classifier.fit(*two).n_iter_ == 0


def test_partial_fit_continues_and_fit_starts_again():
    X, y = noisy()
    classifier = SoftmaxClassifier(solver="sgd", batch_size=30, epochs=3, random_state=0)
    whole = clone(classifier).fit(X, y)
    for passes in (1, 2, 3):
        classifier.partial_fit(X, y, classes=[2, 1, 0])
        assert classifier.n_iter_ == passes
    # The same passes in the same order, with the memory of the rule.
    np.testing.assert_allclose(classifier.coef_, whole.coef_, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(classifier.fit(X, y).coef_, whole.coef_)
    before = classifier.coef_.copy()
    classifier.partial_fit(X, y)
    assert 0 < np.abs(classifier.coef_ - before).max() < 0.1 and classifier.n_iter_ == 4


def test_partial_fit_after_the_optimum_and_on_few_labels():
    X, y = noisy()
    classifier = SoftmaxClassifier(1e-2, random_state=0).fit(X, NAMES[y])
    optimum = classifier.coef_.copy()
    classifier.partial_fit(X[:1], NAMES[y[:1]], sample_weight=[3.0])
    assert 0 < np.abs(classifier.coef_ - optimum).max() < 0.1
    assert list(classifier.classes_) == list(NAMES)


def test_partial_fit_of_two_classes():
    X, y = separable()
    classifier = SoftmaxClassifier(random_state=0)
    for _ in range(50):
        classifier.partial_fit(X, y, classes=[0, 1])
    assert classifier.coef_.shape == (1, 1) and classifier.score(X, y) == 1


def test_partial_fit_refuses_other_classes():
    X, y = noisy()
    with pytest.raises(InputError, match="only one class"):
        SoftmaxClassifier().partial_fit(X, 0 * y, classes=[0])
    with pytest.raises(InputError, match="all labels at the first call of partial_fit, got None"):
        SoftmaxClassifier().partial_fit(X, y)
    with pytest.raises(LabelError, match=r"labels among \[0, 1\], got \[2\]"):
        SoftmaxClassifier().partial_fit(X, y, classes=[0, 1])
    classifier = SoftmaxClassifier().partial_fit(X, y, classes=[0, 1, 2])
    before = classifier.coef_.copy()
    with pytest.raises(InputError, match=r"expected \[0, 1, 2\] as before, got \[0, 1, 2, 3\]"):
        classifier.partial_fit(X, y, classes=[0, 1, 2, 3])
    with pytest.raises(LabelError, match=r"got \[3\]"):
        classifier.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="expecting 3 features"):
        classifier.partial_fit(X[:, :2], y)
    np.testing.assert_array_equal(classifier.coef_, before)


@pytest.mark.parametrize("class_weight", [None, {"cat": 0.0}])
def test_partial_fit_passes_over_rows_of_weight_0(class_weight):
    X, y = noisy()
    only_cats = np.flatnonzero(y == 0)
    weights = None if class_weight else np.zeros(only_cats.size)
    weightless = X[only_cats], NAMES[y[only_cats]], NAMES, weights
    stream = SoftmaxClassifier(1e-2, class_weight=class_weight, random_state=0)
    np.testing.assert_array_equal(
        stream.partial_fit(*weightless).predict_proba(X), np.full((90, 3), 1 / 3)
    )
    fresh = SoftmaxClassifier(1e-2, class_weight=class_weight, random_state=0)
    for classifier in (stream, fresh):
        classifier.partial_fit(X, NAMES[y], NAMES)
    before = vars(stream).copy()
    stream.partial_fit(*weightless)
    assert all(vars(stream)[name] is value for name, value in before.items())
    np.testing.assert_array_equal(stream.coef_, fresh.coef_)
    assert stream.n_iter_ == fresh.n_iter_ == 1


def test_a_class_weight_for_a_label_that_no_row_has_is_told_and_has_no_effect():
    X, y = noisy()
    even = SoftmaxClassifier(1e-2).fit(X, NAMES[y])
    classifier = SoftmaxClassifier(1e-2, class_weight={"rare": 10.0})
    with pytest.warns(UserWarning, match=r"got also \['rare'\], which have no effect") as caught:
        classifier.fit(X, NAMES[y])
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(classifier.coef_, even.coef_)
    every_label = {**dict.fromkeys(NAMES, 1.0), "rare": 10.0}  # cannot be a misspelling
    SoftmaxClassifier(1e-2, class_weight=every_label).fit(X, NAMES[y])


def test_partial_fit_cannot_balance_classes():
    classifier = SoftmaxClassifier(class_weight="balanced")
    assert not hasattr(classifier, "partial_fit")
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'") as caught:
        _ = classifier.partial_fit
    assert "expected a dict or None for partial_fit" in str(caught.value.__cause__)
    assert hasattr(classifier.set_params(class_weight={0: 2.0}), "partial_fit")


@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict", "predict_proba"])
def test_tensors_that_scikit_learn_passes_on_are_named(method):
    class Tensor(list):
        def __dlpack__(self): ...

    X, y = noisy()
    classifier = SoftmaxClassifier(1e-2).fit(X, y)
    arguments = (Tensor(X.tolist()), *([y] if "fit" in method else []))
    getattr(classifier, method)(*arguments)
    real = get_config()
    with pytest.MonkeyPatch.context() as patch:  # setting it needs SCIPY_ARRAY_API in the shell
        dispatch = {**real, "array_api_dispatch": True}
        patch.setattr("npsoftmax.ext._rows.get_config", lambda: dispatch)
        with pytest.raises(
            InputError, match=r"X: expected a NumPy array, got .*Tensor .*np\.asarray"
        ):
            getattr(classifier, method)(*arguments)
        getattr(classifier, method)(np.asarray(arguments[0]), *arguments[1:])


# The core's model


@pytest.mark.parametrize("k", [2, 3])
def test_the_model_has_the_probabilities_of_the_classifier(k):
    X, y = noisy(k=k)
    X = (X + 1e4).astype(np.float32)
    for labels in (NAMES[y], y, y - 1.0, y == 0):
        classifier = SoftmaxClassifier(1e-2, tol=1e-5).fit(X, labels)
        model = classifier.to_model()
        assert model.classes == tuple(str(label) for label in classifier.classes_)
        np.testing.assert_allclose(model(X.T).T, classifier.predict_proba(X), rtol=0, atol=1e-10)
        assert k > 2 or not model.logits(X.T)[0].any()
        model.save("model.npz")
        np.testing.assert_array_equal(SoftmaxRegression.load("model.npz").theta, model.theta)


def test_the_bound_covers_the_distance_to_the_optimum(lbfgs_alone):
    X, y = noisy()
    rough = SoftmaxClassifier(1e-2, tol=1e-2).fit(X, y)
    exact = SoftmaxClassifier(1e-2).fit(X, y)
    objectives = [
        -classifier.predict_log_proba(X)[np.arange(90), y].mean()
        + 1e-2 / 2 * np.square(classifier.coef_).sum()
        for classifier in (rough, exact)
    ]
    assert 0 < objectives[0] - objectives[1] <= rough.suboptimality_ < 1e-2
    assert exact.suboptimality_ < 1e-12 and exact.converged_ is True
    with pytest.warns(ConvergenceWarning):
        assert exact.set_params(max_iter=1).fit(X, y).converged_ is False
    exact.set_params(solver="sgd").fit(X, y)
    assert exact.converged_ is False and exact.suboptimality_ == np.inf


# With other estimators


def dump_and_load(classifier):
    return joblib.load(joblib.dump(classifier, "classifier.joblib")[0])


@pytest.mark.parametrize("make_copy", [copy.deepcopy, dump_and_load])
def test_copies_continue_training(make_copy):
    X, y = noisy()
    classifier = SoftmaxClassifier(1e-2, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    twin = make_copy(classifier)
    np.testing.assert_array_equal(twin.predict_proba(X), classifier.predict_proba(X))
    np.testing.assert_array_equal(twin.partial_fit(X, y).coef_, classifier.partial_fit(X, y).coef_)


def test_a_pickle_of_another_version_is_told(monkeypatch):
    classifier = SoftmaxClassifier(1e-2).fit(*noisy())
    pickled, old = pickle.dumps(classifier), classifier.__getstate__()
    del old["_npsoftmax_version"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vars(pickle.loads(pickled)).keys() == vars(classifier).keys()
        (
            copy.copy(classifier),
            copy.deepcopy(classifier),
            clone(classifier),
            dump_and_load(classifier),
        )
    monkeypatch.setattr("npsoftmax.ext._rows.__version__", "99")
    with pytest.warns(
        InconsistentVersionWarning, match=r"from version npsoftmax \d.* npsoftmax 99"
    ):
        pickle.loads(pickled)
    with pytest.warns(InconsistentVersionWarning, match="from version npsoftmax unknown"):
        SoftmaxClassifier().__setstate__(old)


def test_in_a_pipeline_and_a_grid_search():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier())
    search = GridSearchCV(pipeline, {"softmaxclassifier__alpha": [1e-3, 10.0]}, cv=3).fit(X, y)
    assert search.best_params_ == {"softmaxclassifier__alpha": 1e-3}
    assert search.score(X, y) > 0.97
    P = cross_val_predict(search.best_estimator_, X, y, cv=3, method="predict_log_proba")
    assert np.mean(P.argmax(axis=1) == y) > 0.94


def test_workers_of_joblib_share_the_cores(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    X, y = load_iris(return_X_y=True)

    def threads(*_):
        return FullBatch(np.eye(2), [0, 1]).threads

    with joblib.parallel_config("loky", inner_max_num_threads=1):
        scores = cross_val_score(SoftmaxClassifier(0.1), X, y, scoring=threads, n_jobs=2)
    assert scores.tolist() == [1] * 5


def test_sgd_holds_the_blas_to_one_thread(monkeypatch):
    seen = []

    def step(rule, theta, grad):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    monkeypatch.setattr(Optimiser, "update", step)
    with threadpool_limits(2, "blas"):
        SoftmaxClassifier(solver="sgd", epochs=1).fit(*noisy())
    assert set(seen) == {1}


@pytest.mark.slow
def test_in_a_grid_search_of_two_processes():
    X, y = load_digits(return_X_y=True)
    scores = [
        GridSearchCV(SoftmaxClassifier(), {"alpha": [0.01, 1.0]}, cv=3, n_jobs=jobs)
        .fit(X, y)
        .cv_results_["mean_test_score"]
        for jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)


def test_in_other_estimators():
    X, y = noisy(n=120)
    classifier = SoftmaxClassifier(1e-2)
    members = [("a", classifier), ("b", SoftmaxClassifier(1.0))]
    for estimator in (
        CalibratedClassifierCV(classifier, cv=3),
        VotingClassifier(members, voting="soft"),
        StackingClassifier(members, final_estimator=SoftmaxClassifier(1e-3), cv=3),
        BaggingClassifier(classifier, n_estimators=3, random_state=0),
    ):
        fitted = estimator.fit(X, NAMES[y])
        assert fitted.score(X, NAMES[y]) > classifier.fit(X, NAMES[y]).score(X, NAMES[y]) - 0.05
        np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)


def test_weights_are_routed():
    X, y = noisy()
    weights = np.where(y == 0, 0.0, 1.0)
    with config_context(enable_metadata_routing=True):
        classifier = SoftmaxClassifier(1e-2)
        asked = clone(classifier).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(asked).fit(X, y, sample_weight=weights)
        assert pipeline.predict_proba(X)[:, 0].max() < 1e-15
        with pytest.raises(ValueError, match="not explicitly set as requested"):
            make_pipeline(classifier).fit(X, y, sample_weight=weights)
        assert classifier.get_metadata_routing().partial_fit.requests == {
            "classes": None,
            "sample_weight": None,
        }


def test_features_that_separate_are_named():
    pandas = pytest.importorskip("pandas")
    X, y = noisy()
    frame = pandas.DataFrame(np.column_stack([X, y == 1]), columns=["a", "b", "c", "l2"])
    assert advice(SoftmaxClassifier(), frame, NAMES[y]) == (
        "SoftmaxClassifier: feature 3 separates class dog from cat, owl and alpha is 0, so the "
        "optimum is at infinity and the weights depend on where this stopped: set alpha > 0; "
        "feature 3 is l2"
    )


@pytest.mark.parametrize("alpha", [1e-1, 1e-3])
@pytest.mark.parametrize("k", [2, 3])
def test_without_an_intercept_the_optimum_is_scikit_learns(k, alpha):
    X, y = noisy()
    X, y = X[y < k] + 3, y[y < k]  # far from the origin
    ours = SoftmaxClassifier(alpha, fit_intercept=False).fit(X, y)
    theirs = LogisticRegression(
        C=1 / (alpha * y.size), fit_intercept=False, tol=1e-12, max_iter=5000
    ).fit(X, y)
    assert ours.converged_ and ours.suboptimality_ < 1e-12
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ours.intercept_, np.zeros(k if k > 2 else 1))
    np.testing.assert_allclose(ours.to_model()(X.T).T, theirs.predict_proba(X), atol=1e-6)


def test_every_way_to_train_leaves_an_intercept_out():
    X, y = noisy()
    by_steps = SoftmaxClassifier(0.1, "sgd", fit_intercept=False, epochs=3, random_state=0)
    again = SoftmaxClassifier(0.1, warm_start=True).fit(X, y)
    again.set_params(fit_intercept=False).fit(X, y)
    part = SoftmaxClassifier(0.1, fit_intercept=False, random_state=0)
    for classifier in (by_steps.fit(X, y), again, part.partial_fit(X, y, classes=np.unique(y))):
        assert classifier.coef_.any() and not classifier.intercept_.any()
    assert by_steps.suboptimality_ == np.inf
    with pytest.raises(InputError, match="fit_intercept: expected True or False, got 'no'"):
        SoftmaxClassifier(fit_intercept="no").fit(X, y)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_the_columns_of_a_table_keep_their_names(package, tmp_path):
    frames = pytest.importorskip(package)
    X, y = noisy()
    frame = frames.DataFrame(dict(zip("abc", X.T, strict=True)))
    classifier = SoftmaxClassifier(alpha=0.1).fit(frame, frames.Series(NAMES[y].tolist()))
    assert classifier.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(
        classifier.predict_proba(frame), SoftmaxClassifier(alpha=0.1).fit(X, y).predict_proba(X)
    )
    classifier.to_model().save(tmp_path / "m.npz")
    model = SoftmaxRegression.load(tmp_path / "m.npz")
    assert model.feature_names == ("a", "b", "c")
    assert {name for name, _ in model.top_features(3)[0]} == {"a", "b", "c"}
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(
            frame.rename({"a": "z"}) if package == "polars" else frame[["b", "a", "c"]]
        )


def test_names_of_features():
    pandas = pytest.importorskip("pandas")
    X, y = noisy()
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    scaler = StandardScaler().set_output(transform="pandas")
    pipeline = make_pipeline(scaler, SoftmaxClassifier(1e-2)).fit(frame, pandas.Series(NAMES[y]))
    assert list(pipeline[-1].feature_names_in_) == ["a", "b", "c"]
    assert pipeline[-1].n_features_in_ == 3
    with pytest.raises(ValueError, match="feature names"):
        pipeline.predict(frame.rename(columns={"a": "z"}))


@pytest.mark.parametrize("factor", [1e-12, 1e-100])
def test_features_may_be_tiny(factor):
    X, y = noisy()
    tiny, usual = SoftmaxClassifier().fit(factor * X, y), SoftmaxClassifier().fit(X, y)
    np.testing.assert_allclose(factor * tiny.coef_, usual.coef_, rtol=1e-8)


def test_no_prediction_is_nan():
    X, y = np.array([[-1.0, 0], [-2, 1], [1, 1], [2, 0]]), [0, 0, 1, 1]
    classifier = SoftmaxClassifier(alpha=0.1).fit(X, y)
    with pytest.raises(InputError, match="logits fit float64"):
        classifier.predict_proba([[1.7e308, -1.7e308]])
    assert np.isfinite(classifier.predict_proba([[1e300, 0.0]])).all()


def test_a_stream_that_needs_another_class_is_told_how_to_start_again():
    X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 2])
    stream = SoftmaxClassifier(alpha=0.1).fit(X[:2], y[:2])
    for classes in (None, [0, 1, 2]):
        with pytest.raises(InputError, match=r"clone\(classifier\).partial_fit\(.*classes=all"):
            stream.partial_fit(X, y, classes=classes)
    assert clone(stream).partial_fit(X, y, classes=[0, 1, 2]).classes_.size == 3
