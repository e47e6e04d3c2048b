"""The penalty is the one that scikit-learn's searches choose, and the fit that of this penalty."""

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    LeaveOneGroupOut,
    RepeatedStratifiedKFold,
    StratifiedKFold,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.ext.estimator import SoftmaxClassifier
from npsoftmax.ext.estimator_cv import SoftmaxClassifierCV

AT_THE_END = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NAMES = np.array(["cat", "dog", "owl"])
ALPHAS = np.logspace(-4, 0, 7)


@AT_THE_END
@parametrize_with_checks([SoftmaxClassifierCV(3, 2)])
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@AT_THE_END
@parametrize_with_checks(
    [SoftmaxClassifierCV(), SoftmaxClassifierCV([1e-3, 0.1], 3, class_weight="balanced")]
)
def test_estimator_checks_of_other_parameters(estimator, check):
    check(estimator)


def noisy(n=90, d=3, k=3, seed=0):
    """Draw rows whose labels no model can tell for sure, with the classes in turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return rng.standard_normal((n, d)) + 1.5 * np.eye(k, d)[y], y


def divisible(load, step=10):
    """Return standardised rows, of each class a multiple of ``step``."""
    X, y = load(return_X_y=True)
    kept = [np.flatnonzero(y == c)[: np.sum(y == c) // step * step] for c in np.unique(y)]
    rows = np.concatenate(kept)
    return StandardScaler().fit_transform(X[rows]), y[rows]


def fit(X, y, *args, alphas=ALPHAS, cv=3, **parameters):
    return SoftmaxClassifierCV(alphas, cv, **parameters).fit(X, y, *args)


# Against scikit-learn


@AT_THE_END
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_scores_and_choice_are_those_of_logistic_regression_cv(load, class_weight):
    X, y = divisible(load)
    weights = np.tile([1.0, 2.0], y.size // 2)
    ours = fit(X, NAMES[y], weights, cv=5, class_weight=class_weight)
    # Each fold trains on four fifths of the weight of each class, so one C is one alpha.
    peer = LogisticRegressionCV(
        Cs=1 / (ALPHAS * 0.8 * weights.sum()),
        cv=5,
        scoring="neg_log_loss",
        solver="newton-cholesky",
        tol=1e-10,
        class_weight=class_weight,
    )
    with warnings.catch_warnings():
        # Of parameters whose defaults change, and of steps too small to be seen.
        warnings.simplefilter("ignore")
        peer.fit(X, NAMES[y], weights)
    scores = peer.scores_
    if isinstance(scores, dict):  # before scikit-learn 1.10
        scores = next(iter(scores.values()))
    np.testing.assert_allclose(ours.scores_, scores.reshape(5, 7).T, rtol=0, atol=1e-6)
    assert ours.scores_.shape == (7, 5)
    C = np.ravel(peer.C_)[0]
    assert ours.alpha_ == pytest.approx(1 / (C * 0.8 * weights.sum()))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("cv", [4, KFold(3, shuffle=True, random_state=0)])
def test_scores_and_fit_are_those_of_a_grid_search(cv, k):
    X, y = noisy(k=k)
    search = GridSearchCV(
        SoftmaxClassifier(), {"alpha": ALPHAS}, cv=cv, scoring="neg_log_loss"
    ).fit(X, NAMES[y])
    ours = fit(X, NAMES[y], cv=cv)
    for number in range(ours.scores_.shape[1]):
        theirs = search.cv_results_[f"split{number}_test_score"]
        np.testing.assert_allclose(ours.scores_[:, number], theirs, rtol=0, atol=1e-9)
    assert ours.alpha_ == search.best_params_["alpha"]
    best = search.best_estimator_
    np.testing.assert_allclose(ours.coef_, best.coef_, rtol=0, atol=1e-7)
    np.testing.assert_allclose(ours.predict_proba(X), best.predict_proba(X), rtol=0, atol=1e-7)
    assert ours.coef_.shape == best.coef_.shape == ((1, 3) if k == 2 else (3, 3))


@pytest.mark.parametrize(("k", "d"), [(2, 1010), (4, 510)])
def test_the_fit_is_that_of_the_chosen_penalty_to_the_accuracy_of_the_gap(k, d):
    # More coefficients than Newton's method takes.
    X, y = noisy(n=1500, d=d, k=k)
    X *= np.linspace(0.2, 1, d)
    grid = [0.1, 1.0, 10.0]
    ours = fit(X, y, alphas=grid, cv=2)
    exact = SoftmaxClassifier(ours.alpha_).fit(X, y)

    def objective(classifier):
        loss = -classifier.predict_log_proba(X)[np.arange(y.size), y].mean()
        return loss + ours.alpha_ / 2 * np.square(classifier.coef_).sum()

    difference = objective(ours) - objective(exact)
    assert 0 < difference <= ours.suboptimality_ <= 1e-4 * objective(ours)
    assert np.abs(ours.coef_ - exact.coef_).max() < np.sqrt(2 * ours.suboptimality_ / ours.alpha_)
    finer = fit(X, y, alphas=grid, cv=2, gap=1e-9)
    assert 0 < finer.suboptimality_ <= 1e-9 * objective(finer)


# What weights mean


@pytest.mark.parametrize("class_weight", [None, "balanced", {"cat": 3.0, "owl": 0.5}])
def test_weights_count_rows(class_weight):
    X, y = noisy()
    weights, groups = np.random.default_rng(0).integers(0, 4, y.size), np.arange(y.size) % 4
    labels = NAMES[y]

    def fitted(X, labels, groups, *weights):
        folds = list(LeaveOneGroupOut().split(X, groups=groups))
        return fit(X, labels, *weights, cv=folds, class_weight=class_weight)

    ours = fitted(X, labels, groups, weights)
    many = (each.repeat(weights, axis=0) for each in (X, labels, groups))
    some = (each[weights > 0] for each in (X, labels, groups, weights))
    for other in (fitted(*many), fitted(*some), fitted(X, labels, groups, 7e-9 * weights)):
        np.testing.assert_allclose(other.scores_, ours.scores_, rtol=0, atol=1e-9)
        assert other.alpha_ == ours.alpha_
        np.testing.assert_allclose(other.coef_, ours.coef_, rtol=0, atol=1e-7)
        ours_and_theirs = [c.path_.best for c in (ours, other)]
        accuracies, errors = (
            [getattr(record, name) for record in ours_and_theirs]
            for name in ("accuracy", "calibration_error")
        )
        assert accuracies[0] == pytest.approx(accuracies[1])
        assert errors[0] == pytest.approx(errors[1])


def test_scores_do_not_weigh_classes():
    X, y = noisy()
    folds = list(StratifiedKFold(3).split(X, y))
    ours = fit(X, y, alphas=[0.1], cv=folds, class_weight={0: 5.0})
    for number, (train, test) in enumerate(folds):
        single = SoftmaxClassifier(0.1, class_weight={0: 5.0}).fit(X[train], y[train])
        logs = single.predict_log_proba(X[test])[np.arange(test.size), y[test]]
        assert ours.scores_[0, number] == pytest.approx(logs.mean(), abs=1e-9)


def test_a_class_without_weight_has_a_probability_next_to_0():
    X, y = noisy()
    weights = np.where(y == 1, 0, 3)
    ours = fit(X, NAMES[y], weights)
    assert list(ours.classes_) == list(NAMES) and ours.coef_.shape == (3, 3)
    assert ours.predict_proba(X)[:, 1].max() < 1e-15
    exact = SoftmaxClassifier(ours.alpha_).fit(X, NAMES[y], weights)
    np.testing.assert_allclose(ours.predict_proba(X), exact.predict_proba(X), rtol=0, atol=1e-8)


# Grids and folds


@pytest.mark.parametrize("k", [2, 3])
def test_the_default_grid_follows_the_scale_of_the_rows(k):
    X, y = noisy(k=k)
    ours = fit(X, y, alphas=6)
    assert ours.alphas_[-1] == pytest.approx(X.var(axis=0).sum())
    np.testing.assert_allclose(ours.alphas_[1:] / ours.alphas_[:-1], 10**1.6)
    # At the largest value the predictions are nearly the shares of the classes.
    assert ours.scores_[-1] == pytest.approx(-np.log(k), abs=0.3)
    larger = fit(100 * X + 7, y, alphas=6)
    np.testing.assert_allclose(larger.alphas_, 1e4 * ours.alphas_)
    np.testing.assert_allclose(larger.scores_, ours.scores_, rtol=0, atol=1e-6)
    assert ours.alphas_[0] < ours.alpha_ < ours.alphas_[-1]


@AT_THE_END
def test_rows_that_are_all_equal_have_a_grid_too():
    ours = fit(np.full((12, 2), 3.0), np.arange(12) % 2, alphas=3)
    np.testing.assert_allclose(ours.alphas_, [1e-8, 1e-4, 1])
    np.testing.assert_allclose(ours.predict_proba([[3.0, 3.0]]), [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ([], "alphas: expected at least one value"),
        ([0.1, 0.001, 0.01], r"alphas: .* ascending or descending .*; pass np.unique\(alphas\)"),
        ([0.1, 0.1], "alphas: .* each once, got 0.1 twice"),
        ([0.1, 0.0], "alphas: expected positive numbers, got 0.0; leave it out"),
        ([-1.0], "alphas: expected positive numbers, got -1.0"),
        ([np.nan], "alphas: expected positive numbers, got nan"),
        ([np.inf], "alphas: expected positive numbers, got inf"),
        ([[0.1]], r"alphas: expected one dimension, got shape \(1, 1\)"),
        (["0.1"], "alphas: "),
        (None, "alphas: "),
        (0, "alphas: expected a whole number of at least 1, got 0"),
        (True, "alphas: "),
    ],
)
def test_bad_grids_are_refused(alphas, message):
    with pytest.raises(InputError, match=message):
        fit(*noisy(), alphas=alphas)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"gap": 0}, "gap: expected a positive number"),
        ({"gap": "1"}, "gap: expected"),
        ({"max_iter": 0}, "max_iter: expected a whole number of at least 1, got 0"),
        ({"class_weight": "even"}, "class_weight: expected a dict, 'balanced' or None"),
        ({"class_weight": {0: np.nan}}, "class_weight: expected finite numbers"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "got zero for all"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        fit(*noisy(), **parameters)


def test_a_single_value_may_be_a_number():
    X, y = noisy()
    np.testing.assert_array_equal(fit(X, y, alphas=0.1).coef_, fit(X, y, alphas=[0.1]).coef_)


def test_a_descending_grid_has_the_same_scores_in_its_order():
    X, y = noisy()
    up, down = fit(X, y), fit(X, y, alphas=ALPHAS[::-1])
    np.testing.assert_array_equal(down.scores_, up.scores_[::-1])
    np.testing.assert_array_equal(down.alphas_, ALPHAS[::-1])
    assert down.alpha_ == up.alpha_


def test_folds_may_be_a_number_a_splitter_pairs_or_masks():
    X, y = noisy()
    grid = [1e-4, 1e-2, 1.0]
    ours = fit(X, y, alphas=grid, cv=3)
    pairs = list(StratifiedKFold(3).split(X, y))
    masks = [tuple(np.isin(np.arange(y.size), part) for part in pair) for pair in pairs]
    for cv in (StratifiedKFold(3), pairs, iter(pairs), masks):
        np.testing.assert_array_equal(fit(X, y, alphas=grid, cv=cv).scores_, ours.scores_)
    assert fit(X, y, alphas=grid, cv=pairs[:1]).scores_.shape == (3, 1)
    repeated = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    assert fit(X, y, alphas=grid, cv=repeated).scores_.shape == (3, 6)
    np.testing.assert_array_equal(
        SoftmaxClassifierCV(grid).fit(X, y).scores_, fit(X, y, alphas=grid, cv=5).scores_
    )


def test_a_fold_that_lacks_a_class_is_named():
    X, y = noisy()
    by_class = [(np.flatnonzero(y != 1), np.flatnonzero(y == 1))]
    with pytest.raises(
        LabelError, match=r"cv: .* none of class dog in fold 1, and 30 in all; give"
    ):
        fit(X, NAMES[y], cv=by_class)
    rare = np.where(np.arange(90) < 1, 2, y % 2)
    with (
        pytest.warns(UserWarning, match="least populated class"),
        pytest.raises(LabelError, match="none of class 2 in fold 1, and 1 in all"),
    ):
        fit(X, rare)
    # Neither trained on nor held out there, it would have no optimum.
    without = np.flatnonzero(y != 1)
    with pytest.raises(LabelError, match="none of class dog in fold 1"):
        fit(X, NAMES[y], cv=[(without[:40], without[40:])])


def test_a_fold_without_weight_is_named():
    X, y = noisy()
    pairs = list(KFold(3).split(X))
    weights = np.ones(90)
    weights[pairs[1][1]] = 0
    with pytest.raises(InputError, match=r"cv: .* none in fold 2; leave this fold out"):
        fit(X, y, weights, cv=pairs)
    assert fit(X, y, weights, cv=pairs[::2]).scores_.shape == (7, 2)


@pytest.mark.parametrize("cv", [1, "five", 2.5])
def test_scikit_learn_refuses_bad_folds(cv):
    with pytest.raises((ValueError, TypeError)):
        fit(*noisy(), cv=cv)


def test_rows_of_one_class_are_refused():
    X, y = noisy()
    with pytest.raises(InputError, match="only one class"):
        fit(X, 0 * y)
    with pytest.raises(InputError, match=r"only one class, \['dog'\]"):
        fit(X, NAMES[y], y == 1)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.zeros(90), InputError, "positive weight for some row, got zero for all"),
        (np.full(90, -1.0), InputError, "at least 0"),
        (np.ones(3), ShapeError, r"one number for each of 90 samples, got shape \(3,\)"),
    ],
)
def test_bad_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        fit(*noisy(), weights)


def test_huge_features_have_no_default_grid():
    X, y = noisy()
    with pytest.raises(InputError, match="X: expected numbers whose squares fit float64"):
        fit(X * 1e200, y, alphas=3)


# Samples of any kind


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_rows_have_the_fit_of_dense_ones(kind):
    X, y = noisy()
    X[X < 0] = 0
    dense, ours = fit(X, y, alphas=5), fit(kind(X), y, alphas=5)
    np.testing.assert_allclose(ours.alphas_, dense.alphas_)
    np.testing.assert_allclose(ours.scores_, dense.scores_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.coef_, dense.coef_, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(ours.predict(kind(X)), dense.predict(X))


def test_float32_rows_have_the_fit_of_the_same_numbers_in_float64():
    X, y = noisy()
    X = X.astype(np.float32)
    narrow, wide = fit(X, y, alphas=5), fit(X.astype(np.float64), y, alphas=5)
    np.testing.assert_allclose(narrow.scores_, wide.scores_, rtol=0, atol=1e-9)
    assert narrow.coef_.dtype == np.float64


def test_columns_keep_their_names():
    pandas = pytest.importorskip("pandas")
    X, y = noisy()
    table = pandas.DataFrame(X, columns=["a", "b", "c"])
    ours = fit(table, pandas.Series(NAMES[y]))
    assert list(ours.feature_names_in_) == ["a", "b", "c"]
    assert list(ours.classes_) == list(NAMES)
    np.testing.assert_array_equal(ours.coef_, fit(X, y).coef_)
    assert ours.to_model().feature_names == ("a", "b", "c")


# What is kept and told


@pytest.mark.parametrize("k", [2, 3])
def test_the_path_has_the_values_of_alpha(k):
    X, y = noisy(k=k)
    ours = fit(X, y)
    records = ours.path_.records
    assert [record.l2 for record in records] == ours.alphas_.tolist() == ALPHAS.tolist()
    assert ours.path_.best.l2 == ours.alpha_ <= ours.path_.one_standard_error.l2
    assert [-record.held_out_loss for record in records] == pytest.approx(ours.scores_.mean(axis=1))
    assert ours.scores_.mean(axis=1).argmax() == np.flatnonzero(ours.alphas_ == ours.alpha_)[0]
    assert ours.n_iter_.shape == (7,) and (ours.n_iter_ >= 1).all()
    loss = -ours.predict_log_proba(X)[np.arange(y.size), y].mean()
    penalty = ours.alpha_ / 2 * np.square(ours.coef_).sum()
    assert ours.path_.best.objective == pytest.approx(loss + penalty)


def test_a_choice_at_an_end_is_told():
    X, y = noisy()
    with pytest.warns(ConvergenceWarning) as caught:
        fit(X, y, alphas=[1.0, 10.0])
    assert str(caught[0].message) == (
        "SoftmaxClassifierCV: the best alpha, 1, is the smallest of the grid: add smaller ones"
    )
    with pytest.warns(ConvergenceWarning, match="the largest of the grid: add larger ones"):
        fit(X, y, alphas=[1e-6, 1e-5])


def test_the_warning_names_the_line_that_calls_fit():
    X, y = noisy()
    with pytest.warns(ConvergenceWarning) as caught:
        SoftmaxClassifierCV([1.0, 10.0]).fit(X, y)
    assert caught[0].filename == __file__


def test_too_few_iterations_are_told():
    X, y = noisy(n=600, d=1100)
    with pytest.warns(
        ConvergenceWarning, match=r"did not reach the gap, .* alpha=0.001: raise max_iter; "
    ):
        fit(X, y, alphas=[1e-3, 1e-2, 1e-1], cv=2, max_iter=1)


def test_fits_are_repeatable_and_change_no_arguments():
    X, y = noisy()
    weights = np.arange(90.0)
    for array in (X, y, weights):
        array.setflags(write=False)
    ours = SoftmaxClassifierCV(ALPHAS, 3)
    first = ours.fit(X, y, weights).coef_
    np.testing.assert_array_equal(clone(ours).fit(X, y, weights).coef_, first)
    np.testing.assert_array_equal(ours.fit(X, y, weights).coef_, first)


def test_copies_predict_the_same():
    X, y = noisy()
    ours = fit(X, NAMES[y])
    twin = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(twin.predict_proba(X), ours.predict_proba(X))
    assert twin.path_ == ours.path_
    np.testing.assert_allclose(ours.to_model()(X.T).T, ours.predict_proba(X), rtol=0, atol=1e-12)


def test_in_a_pipeline():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifierCV()).fit(X, NAMES[y])
    assert pipeline.score(X, NAMES[y]) > 0.97
    assert pipeline[-1].path_.best.accuracy > 0.95
