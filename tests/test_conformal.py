"""Sets that cover: scores, thresholds, the guarantee, rounding, files, and other libraries."""

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npsoftmax as nps
from npsoftmax import SoftmaxRegression, softmax
from npsoftmax.conformal import METHODS, SetRule, _quantile, _tune, adaptive_conformity, hashed
from npsoftmax.errors import InputError, LabelError, ShapeError

KINDS = [("lac", False), ("aps", False), ("aps", True), ("raps", False), ("raps", True)]
SEEDS = st.integers(0, 2**32 - 1)


def draw(rng, n, k=4, trust=0.6):
    """Return probabilities, and labels that follow them only in part: the model is wrong."""
    P = rng.dirichlet(np.ones(k), n).T
    y = np.where(rng.random(n) < trust, (P.cumsum(axis=0) < rng.random(n)).sum(axis=0), 0)
    return P, np.minimum(y, k - 1)


def covered(sets, y):
    return sets[y, np.arange(y.size)]


# --- Thresholds ---


@pytest.mark.parametrize(
    ("n", "coverage", "m"),
    [
        (9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (20, 0.9, 19), (1, 0.5, 1), (1, 0.01, 1),
        (99, 0.55, 55), (9, 0.7, 7), (999, 0.999, 999), (1, 1e-9, 1),
    ],
)  # fmt: skip
def test_the_threshold_is_the_score_of_the_rank_that_the_theory_names(n, coverage, m):
    """In binary, 100 * 0.55 is above 55 and 10 * 0.7 is 7."""
    conformity = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    assert _quantile(conformity, coverage) == n + 1 - m  # s is the m-th smallest
    P = np.stack([conformity / n, 1 - conformity / n])
    assert SetRule.fit(P, np.zeros(n, int), coverage).thresholds == (P[0].min() + (n - m) / n,)


def test_ties_belong_to_the_set():
    rule = SetRule.fit([[0.5] * 12, [0.5] * 12], [0, 1] * 6, 0.9)
    assert rule.thresholds == (0.5,) and rule.sets([[0.5, 0.6], [0.5, 0.4]]).sum() == 3


# --- Scores ---


@given(SEEDS, st.booleans(), st.integers(1, 5))
def test_scores_are_those_of_the_definition(seed, has_ties, free):
    rng = np.random.default_rng(seed)
    P = rng.integers(1, 4, (5, 3)) / 8 if has_ties else rng.dirichlet(np.ones(5), 3).T
    P /= P.sum(axis=0)
    u = rng.random(3)
    got = adaptive_conformity(P, u, 0.1, free)
    for j in range(3):
        ranked = sorted(range(5), key=lambda i: -P[i, j])  # stable
        for place, label in enumerate(ranked):
            score = sum(P[i, j] for i in ranked[: place + 1]) - u[j] * P[label, j]
            score += 0.1 * max(0, place + 1 - free)
            assert got[label, j] == pytest.approx(1 - score, abs=1e-12)


def test_sets_by_hand():
    P = np.array([[0.7, 0.4, 0.3], [0.2, 0.35, 0.4], [0.1, 0.25, 0.3]])
    assert SetRule("lac", 0.9, (0.36,)).sets(P).T.tolist() == [
        [True, False, False], [True, False, False], [False, True, False],
    ]  # fmt: skip
    assert not SetRule("lac", 0.9, (0.8,)).sets(P).any()
    # Until 0.6 is reached: 0.7; 0.4 + 0.35; 0.4 + 0.3, the lower class of the two.
    assert SetRule("aps", 0.9, (0.4,)).sets(P).T.tolist() == [
        [True, False, False], [True, True, False], [True, True, False],
    ]  # fmt: skip
    # The second class costs 0.3: 1 - 0.7 - 0.3, 1 - 0.4 - 0.3 and 1 - 0.4 - 0.3 remain.
    assert SetRule("raps", 0.9, (0.1,), penalty=0.3).sets(P).sum(axis=0).tolist() == [1, 2, 2]
    assert SetRule("lac", 0.9, (0.5, 0.3, 0.3)).sets(P).T.tolist() == [
        [True, False, False], [False, True, False], [False, True, True],
    ]  # fmt: skip


@given(SEEDS, st.sampled_from(["aps", "raps"]))
def test_the_most_likely_class_is_in_each_adaptive_set_that_is_not_randomised(seed, method):
    rng = np.random.default_rng(seed)
    rule = SetRule.fit(*draw(rng, 60), coverage=rng.choice([0.05, 0.5, 0.9]), method=method)
    P, _ = draw(rng, 50)
    assert covered(rule.sets(P), P.argmax(axis=0)).all()


@given(SEEDS, st.sampled_from([kind for kind in KINDS if kind[0] != "raps"]), st.booleans())
def test_more_coverage_gives_larger_sets(seed, kind, per_class):
    """Not with "raps", which chooses another penalty."""
    rng = np.random.default_rng(seed)
    P, y = draw(rng, 300)
    Q, _ = draw(rng, 20)
    small, large = (
        SetRule.fit(P, y, coverage, *kind, per_class=per_class).sets(Q) for coverage in (0.5, 0.7)
    )
    assert (large | ~small).all()


def test_a_penalty_makes_large_sets_rare(rng):
    P, y = draw(rng, 4000, k=20, trust=0.95)
    rules = [SetRule.fit(P[:, :2000], y[:2000], 0.9, method) for method in ("aps", "raps")]
    sizes = [rule.sets(P[:, 2000:]).sum(axis=0) for rule in rules]
    assert sizes[1].max() < sizes[0].max() and sizes[1].mean() <= sizes[0].mean()
    assert rules[1].penalty > 0 and 1 <= rules[1].free_ranks <= 20


# --- The guarantee ---


@pytest.mark.parametrize(("method", "randomised"), KINDS)
def test_the_coverage_is_that_of_the_theory_and_no_other(method, randomised):
    """The number of covered samples of a new draw is beta-binomial, whatever the model is."""
    n, new, coverage, draws = 60, 40, 0.8, 600
    rng, hits = np.random.default_rng(1), 0
    for _ in range(draws):
        rule = SetRule.fit(*draw(rng, n), coverage, method, randomised)
        P, y = draw(rng, new)
        hits += covered(rule.sets(P), y).sum()
    n -= n // 5 * (method == "raps")
    m = math.ceil((n + 1) * coverage)
    p = m / (n + 1)
    variance = draws * new * p * (1 - p) * (n + 1 + new) / (n + 2)
    assert abs(hits - draws * new * p) < 4 * math.sqrt(variance)


@pytest.mark.parametrize(("method", "randomised"), KINDS)
def test_the_coverage_of_each_class_is_that_of_the_theory(method, randomised):
    rng, coverage = np.random.default_rng(2), 0.8
    difference, variance = np.zeros(4), np.zeros(4)
    for _ in range(200):
        P, y = draw(rng, 300)
        rule = SetRule.fit(P, y, coverage, method, randomised, per_class=True)
        rest = np.random.default_rng(0).permutation(300)[300 // 5 * (method == "raps") :]
        n = np.bincount(y[rest], minlength=4)
        P, y = draw(rng, 300)
        new = np.bincount(y, minlength=4)
        p = np.ceil((n + 1) * coverage - 1e-9) / (n + 1)
        hits = np.bincount(y[covered(rule.sets(P), y)], minlength=4)
        difference += hits - new * p
        variance += new * p * (1 - p) * (n + 1 + new) / (n + 2)
    assert (np.abs(difference) < 4 * np.sqrt(variance)).all()
    assert not _all_classes_are_covered_without(rng, method, randomised)


def _all_classes_are_covered_without(rng, method, randomised):
    """Whether one threshold for all classes covers each; the test would then show nothing."""
    rule = SetRule.fit(*draw(rng, 20_000), 0.8, method, randomised)
    P, y = draw(rng, 20_000)
    shares = [covered(rule.sets(P), y)[y == label].mean() for label in range(4)]
    return min(shares) > 0.79


@pytest.mark.parametrize(("method", "randomised"), KINDS)
def test_ties_never_lower_the_coverage(method, randomised):
    """Probabilities of five values: many scores are equal."""
    rng, hits = np.random.default_rng(3), 0
    for _ in range(200):
        P, y = draw(rng, 100)
        P = np.ceil(5 * P)
        P /= P.sum(axis=0)
        rule = SetRule.fit(P[:, :50], y[:50], 0.8, method, randomised)
        hits += covered(rule.sets(P[:, 50:]), y[50:]).mean()
    assert hits / 200 > 0.8 - 4 * math.sqrt(0.8 * 0.2 / 50 / 200 * 2)


# --- Randomisation ---


@pytest.mark.parametrize("k", [2, 3, 150])
def test_the_hash_is_uniform_and_independent_of_the_probabilities(k):
    rng = np.random.default_rng(4)
    P = softmax(3 * rng.normal(size=(k, 20_000)))
    u = hashed(P)
    assert ((u >= 0) & (u < 1)).all()
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 49 + 5 * math.sqrt(2 * 49)
    assert np.abs(np.corrcoef(np.vstack([u, P[:2]]))[0, 1:]).max() < 5 / math.sqrt(20_000)


def test_randomised_sets_are_the_same_in_every_call_and_batch(rng):
    P, y = draw(rng, 400)
    rule = SetRule.fit(P, y, method="aps", randomised=True)
    sets = rule.sets(P)
    np.testing.assert_array_equal(rule.sets(P[:, ::-1])[:, ::-1], sets)
    np.testing.assert_array_equal(np.hstack([rule.sets(P[:, [j]]) for j in range(400)]), sets)
    np.testing.assert_array_equal(hashed(P * (1 - 1e-9)), hashed(P))
    assert rule.sets(P).sum() < SetRule.fit(P, y, method="aps").sets(P).sum() * 1.2


# --- Rounding ---


@given(SEEDS, st.sampled_from(KINDS))
def test_other_last_digits_exclude_no_label_at_the_threshold(seed, kind):
    """Else identical samples, computed in batches of other sizes, would all be missed."""
    rng = np.random.default_rng(seed)
    column = rng.dirichlet(np.ones(4))[:, None]
    P, y = np.tile(column, 50), np.full(50, rng.integers(4))
    rule = SetRule.fit(P, y, 0.9, *kind)
    noisy = P * (1 + 1e-12 * rng.uniform(-1, 1, P.shape))
    assert covered(rule.sets(noisy), y).all()


def test_a_conformity_near_0_that_is_a_difference_has_its_slack():
    P = np.array([[0.7], [0.2], [0.1]])
    threshold = adaptive_conformity(P, 1.0, penalty=0.3)[1, 0]  # 0.3 - 0.3
    rule = SetRule("raps", 0.9, (threshold.item(),), penalty=0.3)
    for factor in (1 - 1e-12, 1, 1 + 1e-12):
        assert rule.sets(factor * P).T.tolist() == [[True, True, False]]


def test_sets_of_a_sure_model_are_not_all_classes():
    """Rounded to float64, s is 1 for all classes but the first."""
    P = softmax(np.array([[0.0], [-60.0], [-60.0], [-120.0]]))
    expected = np.exp([0, -60, -60, -120]) * [1, 2, 1, 1]
    np.testing.assert_allclose(adaptive_conformity(P, u=1.0)[:, 0], expected, rtol=1e-12)
    assert SetRule("aps", 0.9, (1e-40,)).sets(P).T.tolist() == [[True, True, True, False]]


# --- Models ---


def drawn_samples(rng, n=300):
    X = rng.normal(size=(3, n))
    return X, (2 * X + rng.gumbel(size=X.shape)).argmax(axis=0)


def a_model(dtype=np.float32):
    model = SoftmaxRegression(3, 3, sigma=0, dtype=dtype)
    model.W[:] = 2 * np.eye(3)
    return model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_predicts_its_sets_one_by_one_as_all_at_once(rng, dtype, kind):
    model, (X, y) = a_model(dtype), drawn_samples(rng)
    rule = model.calibrate_sets(X, y, 0.9, *kind)
    assert model.set_rule is rule and rule.method == kind[0]
    sets = model.predict_sets(X)
    assert sets.shape == (3, 300) and sets.dtype == bool
    assert covered(sets, y).mean() >= (0.9 if kind[0] != "raps" else 0.85)
    one_by_one = np.hstack([model.predict_sets(X[:, [j]]) for j in range(300)])
    np.testing.assert_array_equal(one_by_one, sets)


def test_identical_samples_are_all_covered_however_many_are_predicted(rng):
    x = 100 * rng.normal(size=(500, 1))
    model = SoftmaxRegression(500, 7, sigma=1e-3, seed=1)
    model.calibrate_sets(np.tile(x, 40), [3] * 40)
    for count in (1, 2, 3, 5, 8, 37, 64, 1001):
        assert model.predict_sets(np.tile(x, count))[3].all(), count


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_that_is_fitted_later_changes_no_set(rng, kind):
    model, (X, y) = a_model(), drawn_samples(rng)
    model.temperature = 3.0
    rule = model.calibrate_sets(X, y, 0.9, *kind)
    sets = model.predict_sets(X)
    assert rule.temperature == 3
    assert model.calibrate(X, y) != 3
    np.testing.assert_array_equal(model.predict_sets(X), sets)
    np.testing.assert_array_equal(rule.sets(softmax(2.0 / 3 * X)), sets)  # what the rule was for


def test_sparse_samples_have_the_same_sets(rng):
    sparse = pytest.importorskip("scipy.sparse")
    model, (X, y) = a_model(), drawn_samples(rng)
    X *= rng.random(X.shape) < 0.5
    model.calibrate_sets(sparse.csc_array(X), y, method="aps")
    np.testing.assert_array_equal(model.predict_sets(sparse.csr_matrix(X)), model.predict_sets(X))


def test_the_rule_is_in_the_file(tmp_path, rng):
    model, (X, y) = a_model(), drawn_samples(rng)
    model.calibrate_sets(X, y, np.float32(0.75), "raps", randomised=True, per_class=True)
    model.save(tmp_path / "m.npz")
    twin = SoftmaxRegression.load(tmp_path / "m.npz")
    assert twin.set_rule == model.set_rule and len(twin.set_rule.thresholds) == 3
    np.testing.assert_array_equal(twin.predict_sets(X), model.predict_sets(X))


def test_training_would_void_the_guarantee(rng):
    model, (X, y) = a_model(), drawn_samples(rng)
    model.calibrate_sets(X, y)
    with pytest.raises(InputError, match=r"set model.set_rule = None, and calibrate the sets"):
        nps.fit(model, X, y, l2=1.0)
    model.set_rule = None
    assert nps.fit(model, X, y, l2=1.0).converged


# --- Real data ---


def clinc150():
    with np.load(Path(os.environ["NPSOFTMAX_DATA"], "clinc150", "minilm.npz")) as file:
        return [(file[f"X_{part}"].T, file[f"y_{part}"]) for part in ("train", "val", "test")]


def newsgroups():
    sparse = pytest.importorskip("scipy.sparse")
    with np.load(Path(os.environ["NPSOFTMAX_DATA"], "20newsgroups", "tfidf.npz")) as file:
        train, test = (
            (
                sparse.csr_array(
                    tuple(file[f"{part}_{field}"] for field in ("data", "indices", "indptr")),
                    shape=tuple(file[f"{part}_shape"]),
                ).T,
                file[f"y_{part}"],
            )
            for part in ("train", "test")
        )
    return [train, *nps.splitobs(test, at=0.5, shuffle=True, rng=0)]


@pytest.fixture(scope="module", params=["fashion-mnist", "clinc150", "20newsgroups"])
def real(request):
    """Return a fitted model with samples that calibrate and samples that measure."""
    if request.param == "fashion-mnist":
        data = request.getfixturevalue("fashion_mnist")
        train = data.X_train / np.float32(255), data.y_train
        test = data.X_test / np.float32(255), data.y_test
        parts = [train, *nps.splitobs(test, at=0.5, shuffle=True, rng=0)]
    else:
        try:
            parts = clinc150() if request.param == "clinc150" else newsgroups()
        except (KeyError, FileNotFoundError):
            pytest.skip(f"needs {request.param} in $NPSOFTMAX_DATA")
    (X, y), calibration, test = parts
    model = SoftmaxRegression(X.shape[0], int(y.max()) + 1)
    nps.fit(model, X, y, l2=1e-5 if "fashion" not in request.param else 1e-4, tol=1e-4)
    return model, calibration, test


@pytest.mark.exhaustive
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_real_samples_are_covered_as_often_as_asked(real, kind, per_class):
    betabinom = pytest.importorskip("scipy.stats").betabinom
    model, (X_cal, y_cal), (X, y) = real
    model.calibrate_sets(X_cal, y_cal, 0.9, *kind, per_class=per_class)
    hit = covered(model.predict_sets(X), y)
    if kind[0] == "raps":
        y_cal = y_cal[np.random.default_rng(0).permutation(y_cal.size)[y_cal.size // 5 :]]
    n, new, hits = np.array(y_cal.size), np.array(y.size), hit.sum()
    if per_class:
        n, new, hits = (np.bincount(labels) for labels in (y_cal, y, y[hit]))
    m = np.ceil((n + 1) * 0.9 - 1e-9)
    risk = 1e-3 / n.size  # of all classes together
    assert (hits >= betabinom.ppf(risk, new, m, n + 1 - m)).all()
    if kind[1] or kind[0] == "lac":  # in others, the most likely class may be enough, or too much
        assert (hits <= betabinom.ppf(1 - risk, new, m, n + 1 - m)).all()


# --- Refusals ---


@settings(max_examples=200)
@given(st.integers(1, 60), st.sampled_from([0.5, 0.55, 0.8, 0.9, 0.95]), st.sampled_from(METHODS))
def test_too_few_samples_are_refused_with_what_is_enough(n, coverage, method):
    def fit(n, coverage):
        return SetRule.fit(np.tile([[0.7], [0.3]], n), np.zeros(n, int), coverage, method)

    needed = {0.5: 1, 0.55: 2, 0.8: 4, 0.9: 9, 0.95: 19}[coverage] * (5 if method == "raps" else 1)
    if n >= needed:
        assert fit(n, coverage).coverage == coverage
        return
    with pytest.raises(InputError, match=f"at least {needed} samples.*got {n}; give") as caught:
        fit(n, coverage)
    if most := re.search(r"at most (0\.\d+)", str(caught.value)):
        assert fit(n, float(most[1]))
    else:
        assert n < 5 and method == "raps"


def test_classes_with_too_few_samples_are_named():
    P = np.full((9, 60), 1 / 9)
    y = np.array([0] * 40 + [1] * 9 + [2] * 8 + [3] * 3)
    message = "at least 9 samples of each class for a coverage of 0.9, got 8 of class 2, 3 of class"
    with pytest.raises(InputError, match=message) as caught:
        SetRule.fit(P, y, per_class=True)
    assert "0 of class 6 and too few of 2 others; give more" in str(caught.value)
    assert SetRule.fit(P, y).coverage == 0.9  # absent classes do not matter to all together


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, X, y: m.calibrate_sets(X, y, 90), InputError, "between 0 and 1, got 90; 90 % "),
        (lambda m, X, y: m.calibrate_sets(X, y, 1.0), InputError, "coverage: expected a number"),
        (lambda m, X, y: m.calibrate_sets(X, y, math.nan), InputError, "coverage: expected"),
        (lambda m, X, y: m.calibrate_sets(X, y, method="APS"), InputError, "one of lac, aps, raps"),
        (lambda m, X, y: m.calibrate_sets(X, y, randomised=True), InputError, "got \"lac\"; leave"),
        (lambda m, X, y: m.calibrate_sets(X, y, method="aps", randomised=3), InputError, "True or"),
        (lambda m, X, y: m.calibrate_sets(X, y + 1), LabelError, r"labels 0\.\.2"),
        (lambda m, X, y: m.calibrate_sets(X, y - 1), LabelError, r"labels 0\.\.2"),
        (lambda m, X, y: m.calibrate_sets(X, y[:-1]), ShapeError, "as many labels as samples"),
        (lambda m, X, y: m.calibrate_sets(X * np.nan, y), InputError, "finite numbers, got nan"),
        (lambda m, X, y: m.calibrate_sets(X[:, :0], y[:0]), ShapeError, "at least one sample"),
        (lambda m, X, y: m.calibrate_sets(X.T, y), ShapeError, "pass np.asarray"),
        (lambda m, X, y: m.predict_sets(X), InputError, "one without; call calibrate_sets"),
        (lambda m, X, y: SetRule("aps", 0.9, ()), InputError, "thresholds: expected finite"),
        (lambda m, X, y: SetRule("aps", 0.9, (0.5,), penalty=-1), InputError, "penalty"),
        (lambda m, X, y: SetRule("aps", 0.9, (0.5,), free_ranks=0), InputError, "free_ranks"),
        (lambda m, X, y: SetRule("aps", 0.9, (0.5,), temperature=0), InputError, "temperature"),
        (lambda m, X, y: SetRule("aps", 0.9, (0.5,)).sets([[2.0], [0]]), InputError, "from 0 to 1"),
        (lambda m, X, y: SetRule("lac", 0.9, (0.5, 0.5)).sets(m(X)), ShapeError, "3 classes, got"),
        (lambda m, X, y: SetRule.fit([0.5, 0.5], [0, 1]), ShapeError, r"\(classes, samples\)"),
    ],
)  # fmt: skip
def test_refusals(call, error, message, rng):
    with pytest.raises(error, match=message):
        call(a_model(), *drawn_samples(rng))


# --- Other libraries ---


@pytest.fixture(scope="module")
def reference():
    """What MAPIE and crepes found; make_conformal_reference.py wrote it."""
    text = Path(__file__).with_name("reference").joinpath("conformal.json").read_text()
    found = {
        name: np.array(v) if isinstance(v, list) else v for name, v in json.loads(text).items()
    }
    return found | {name: found[name].T / 2**12 for name in "PQ"}


def test_mapie_finds_the_same_sets_with_lac(reference):
    rule = SetRule.fit(reference["P"], reference["y"], reference["coverage"])
    assert 1 - rule.thresholds[0] == pytest.approx(reference["lac"]["threshold"], abs=1e-12)
    np.testing.assert_array_equal(rule.sets(reference["Q"]).T, reference["lac"]["sets"])


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_mapie_finds_the_same_sets_with_the_same_random_numbers(reference, method):
    P, y, theirs = reference["P"], reference["y"], reference[method]
    rest = theirs.get("rest", np.arange(y.size))
    settings = theirs.get("penalty", 0.0), int(theirs.get("free_ranks", 1))
    u = reference["u_calibration"][: len(rest)]
    own = covered(adaptive_conformity(P[:, rest], u, *settings), y[rest])
    threshold = _quantile(own, reference["coverage"])
    assert 1 - threshold == pytest.approx(theirs["threshold"], abs=1e-12)
    sets = adaptive_conformity(reference["Q"], reference["u_test"], *settings) >= threshold - 1e-12
    np.testing.assert_array_equal(sets.T, theirs["sets"])


def test_mapie_gives_as_many_ranks_without_a_penalty(reference):
    P, y, some = reference["P"], reference["y"], reference["raps"]["tuning"]
    blank = SetRule("raps", reference["coverage"], (1.0,))
    rule = _tune(blank, P[:, some], y[some])
    assert rule.free_ranks == reference["raps"]["free_ranks"]
    sizes = [
        _tuned_size(replace(rule, penalty=penalty), P[:, some], y[some])
        for penalty in (0.001, 0.01, 0.1, 0.2, 0.5)
    ]
    assert _tuned_size(rule, P[:, some], y[some]) == min(sizes)


def _tuned_size(rule, P, y):
    threshold = _quantile(covered(rule._conformity(P), y), rule.coverage)
    return replace(rule, thresholds=(threshold,)).sets(P).sum()


@pytest.mark.parametrize(("name", "per_class"), [("crepes", False), ("crepes_per_class", True)])
def test_crepes_finds_the_same_sets(reference, name, per_class):
    rule = SetRule.fit(reference["P"], reference["y"], reference["coverage"], per_class=per_class)
    np.testing.assert_array_equal(rule.sets(reference["Q"]).T, reference[name])
