"""A grid of penalties: each value is that of a fit by itself, whatever interrupts the path."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npsoftmax import PathRecord, PenaltyPath, SoftmaxRegression, fit, fit_path, storage
from npsoftmax.errors import CorruptFileError, InputError, LabelError, ResumeWarning, ShapeError
from npsoftmax.objective import newton
from npsoftmax.validation import as_folds

D, K, N = 6, 4, 120
GRID = [1e-1, 1e-2, 1e-3, 1e-4]


def drawn(n=N, d=D, k=K, seed=0):
    """Draw labels from a softmax model, each class at least twice."""
    rng = np.random.default_rng(seed)
    X = np.asfortranarray(rng.standard_normal((d, n)))
    y = (rng.standard_normal((k, d)) @ X + rng.gumbel(size=(k, n))).argmax(axis=0)
    y[: 2 * k] = np.arange(2 * k) % k
    return X, y


def new_model(d=D, k=K, dtype=np.float64, **settings):
    return SoftmaxRegression(d, k, dtype=dtype, **settings)


def path_on(X, y, model=None, k=K, **settings):
    model = model or new_model(X.shape[0], k)
    return fit_path(model, X, y, **{"l2": GRID, **settings}), model


@pytest.fixture
def lbfgs(monkeypatch):
    """Solve small problems as large ones."""
    monkeypatch.setattr(newton, "MAX_ROWS", 0)
    monkeypatch.setattr(newton, "MAX_SPAN_SAMPLES", 0)


def kind_of_problem(name, monkeypatch):
    """Return samples that are solved by a certain method."""
    if name == "span":
        X, y = drawn(n=20, d=50, k=3)
        return X, y, 3
    X, y = drawn()
    if name == "sparse":
        sparse = pytest.importorskip("scipy.sparse")
        X = sparse.csc_array(np.where(np.abs(X) > 0.5, X, 0.0))
    if name != "newton":
        monkeypatch.setattr(newton, "MAX_ROWS", 0)
    return X, y, K


@pytest.mark.parametrize("name", ["newton", "lbfgs", "sparse", "span"])
def test_each_value_is_that_of_a_single_fit(name, monkeypatch):
    X, y, k = kind_of_problem(name, monkeypatch)
    path, _ = path_on(X, y, k=k, gap=1e-6)
    for record in path.records:
        single = new_model(X.shape[0], k)
        optimum = fit(single, X, y, l2=record.l2, tol=1e-10)
        assert record.converged and record.suboptimality <= 1e-6 * record.objective
        lowest = optimum.objective - optimum.suboptimality
        assert record.objective - record.suboptimality - 1e-12 <= optimum.objective
        assert -1e-12 <= record.objective - lowest <= 1e-6 * record.objective


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(-7, 1), min_size=1, max_size=5, unique=True))
def test_every_gap_holds(seed, powers):
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(2, 5)), int(rng.integers(1, 6))
    X, y = drawn(30, d, k, seed)
    weights = rng.uniform(0.1, 2, 30)
    grid = np.unique(10.0 ** np.array(powers))
    with pytest.MonkeyPatch.context() as patch:
        if seed % 2:
            patch.setattr(newton, "MAX_ROWS", 0)
        path, _ = path_on(X, y, k=k, l2=grid, sample_weight=weights)
    for record in path.records:
        best = fit(new_model(d, k), X, y, l2=record.l2, sample_weight=weights, tol=1e-10)
        assert record.objective - best.objective <= record.suboptimality + 1e-12
        assert record.suboptimality <= 1e-4 * record.objective or not record.converged


def test_records_come_in_the_order_of_the_grid_and_theta_is_that_of_the_best(lbfgs):
    X, y = drawn(n=60)
    X, y, held_out = X[:, :30], y[:30], (X[:, 30:], y[30:])
    grid = [10.0, 1.0, 0.1, 0.01]
    up, model = path_on(X, y, held_out=held_out, l2=grid[::-1], gap=1e-10)
    down, other = path_on(X, y, held_out=held_out, l2=grid, gap=1e-10)
    assert [r.l2 for r in up.records] == grid[::-1] and [r.l2 for r in down.records] == grid
    assert model.theta.tobytes() == other.theta.tobytes()
    single = new_model()
    fit(single, X, y, l2=up.best.l2, tol=1e-10)
    np.testing.assert_allclose(model(X), single(X), atol=1e-4)
    losses = [record.held_out_loss for record in up.records]
    assert up.best.held_out_loss == min(losses) and np.argmin(losses) not in (0, 3)
    assert up.advice == ""


def test_without_held_out_samples_theta_is_that_of_the_smallest_value():
    X, y = drawn()
    path, model = path_on(X, y)
    single = new_model()
    fit(single, X, y, l2=GRID[-1])
    np.testing.assert_allclose(model.theta, single.theta, atol=1e-6)
    assert path.records[0].held_out_loss is None and path.records[0].fold_losses == ()
    with pytest.raises(InputError, match="best: expected a path with held-out samples"):
        path.best  # noqa: B018


def test_the_result_does_not_depend_on_where_the_model_begins(lbfgs):
    X, y = drawn()
    _, one = path_on(X, y, new_model(seed=1, sigma=3.0))
    _, two = path_on(X, y)
    assert one.theta.tobytes() == two.theta.tobytes()


def test_a_path_takes_fewer_passes_than_single_fits(lbfgs):
    X, y = drawn(400, 30, 10)
    grid = np.logspace(-1, -5, 17)
    path, _ = path_on(X, y, new_model(30, 10), l2=grid)
    assert all(record.converged for record in path.records)
    singles = [fit(new_model(30, 10), X, y, l2=l2).evaluations for l2 in grid]
    assert 2 * sum(record.evaluations for record in path.records) < sum(singles)


def test_measures_are_those_of_the_model():
    from npsoftmax import metrics

    X, y = drawn(k=7)
    X_val, y_val = drawn(50, k=7, seed=1)
    path, model = path_on(X, y, k=7, l2=[0.1], held_out=(X_val, y_val))
    record, P = path.best, model(X_val)
    losses = -np.log(P[y_val, np.arange(50)])
    assert record.held_out_loss == pytest.approx(losses.mean())
    assert record.held_out_error == pytest.approx(losses.std(ddof=1) / math.sqrt(50))
    assert record.accuracy == metrics.accuracy(P, y_val)
    assert record.top5 == metrics.top_k_accuracy(P, y_val, 5) < 1
    expected = metrics.expected_calibration_error(P, y_val)
    assert record.calibration_error == pytest.approx(expected)


def test_folds_are_fits_on_the_others(lbfgs):
    X, y = drawn()
    folds = [(np.flatnonzero(np.arange(N) % 3 != i), np.arange(N) % 3 == i) for i in range(3)]
    path, model = path_on(X, y, folds=folds, gap=1e-10)
    losses = []
    for train, test in folds:
        other = new_model()
        fit(other, X[:, train], y[train], l2=path.best.l2, tol=1e-9)
        losses.append(-np.log(other(X[:, test])[y[test], np.arange(test.sum())]).mean())
    best = path.best
    assert best.fold_losses == pytest.approx(losses, rel=1e-4)
    assert best.held_out_loss == pytest.approx(np.mean(losses), rel=1e-4)
    error = np.std(best.fold_losses, ddof=1) / math.sqrt(3)
    assert best.held_out_error == pytest.approx(error)
    assert best.accuracy == pytest.approx(np.mean(best.fold_accuracies))
    single = new_model()
    fit(single, X, y, l2=best.l2, tol=1e-9)
    np.testing.assert_allclose(model(X), single(X), atol=1e-4)  # on all samples


def test_held_out_samples_of_folds_count_by_their_own_weight(lbfgs):
    X, y = drawn()
    counts, part = np.arange(N) % 4, np.arange(N) % 3
    given = {"l2": [0.1, 0.01], "gap": 1e-10, "class_weight": {0: 3.0}}
    folds = [(part != i, part == i) for i in range(3)]
    path, _ = path_on(X, y, folds=folds, sample_weight=counts, **given)
    many, part = (X.repeat(counts, axis=1), y.repeat(counts)), part.repeat(counts)
    repeated, _ = path_on(*many, folds=[(part != i, part == i) for i in range(3)], **given)
    for one, other in zip(path.records, repeated.records, strict=True):
        assert one.fold_losses == pytest.approx(other.fold_losses, rel=1e-4)
        assert one.fold_accuracies == pytest.approx(other.fold_accuracies)
        assert one.calibration_error == pytest.approx(other.calibration_error, rel=1e-2)
    with pytest.raises(InputError, match="folds: expected a positive weight for some sample"):
        path_on(X, y, folds=folds, sample_weight=folds[0][0], **given)


def test_features_and_pixels_go_through_the_model():
    from npsoftmax.features import Standardise

    X, y = drawn()
    X = 5 + 3 * X
    features = Standardise.fit(X)
    path, model = path_on(X, y, new_model(features=features), held_out=(X, y), l2=[0.1])
    assert path.best.accuracy == np.mean(model.predict(X) == y)
    pixels = np.clip(40 * X, 0, 255).astype(np.uint8)
    path, model = path_on(pixels, y, new_model(pixel_scale=1 / 255), folds=4, l2=[0.1, 0.01])
    single = new_model(pixel_scale=1 / 255)
    fit(single, pixels, y, l2=path.best.l2)
    np.testing.assert_allclose(model.theta, single.theta, atol=1e-6)


def test_weights_of_samples_classes_and_features_are_those_of_fit(lbfgs):
    X, y = drawn()
    given = {
        "sample_weight": np.arange(N) % 3 + 0.5,
        "class_weight": "balanced",
        "penalty_factor": np.arange(1.0, D + 1),
    }
    path, model = path_on(X, y, l2=[1e-1, 1e-3], gap=1e-10, **given)
    single = new_model()
    fit(single, X, y, l2=1e-3, tol=1e-9, **given)
    np.testing.assert_allclose(model(X), single(X), atol=1e-4)
    assert all(record.converged for record in path.records)


@pytest.mark.parametrize("finishes", [True, False])
def test_without_a_penalty_on_some_feature_fits_end_as_those_of_fit(finishes, monkeypatch):
    if not finishes:
        monkeypatch.setattr(newton, "MAX_ROWS", 0)
    X, y = drawn()
    factor = np.append(np.ones(D - 1), 0.0)
    path, model = path_on(X, y, penalty_factor=factor)
    single = new_model()
    fit(single, X, y, l2=GRID[-1], penalty_factor=factor)
    np.testing.assert_allclose(model(X), single(X), atol=1e-3)
    for record in path.records:
        assert record.converged and record.suboptimality == pytest.approx(record.objective)


# Interruptions.


def same(one, two):
    strip = [[replace(record, seconds=0.0) for record in path.records] for path in (one, two)]
    return strip[0] == strip[1]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("judged", ["held_out", "folds", "neither"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_path_resumes_bit_for_bit(tmp_path, number, judged, dtype, lbfgs):
    X, y = drawn()
    given = {"held_out": {"held_out": drawn(40, seed=1)}, "folds": {"folds": 3}, "neither": {}}
    given, seen = given[judged], []

    def stop(record):
        seen.append(record)
        if len(seen) == number + 1:
            raise KeyboardInterrupt

    whole, expected = path_on(X, y, new_model(dtype=dtype), **given)
    with pytest.raises(KeyboardInterrupt):
        path_on(X, y, checkpoint=tmp_path / "c.npz", on_value=stop, **given,
                model=new_model(dtype=dtype))  # fmt: skip
    assert storage.kind_of(tmp_path / "c.npz") == "checkpoint of a path"
    rest = []
    again, model = path_on(
        X, y, new_model(dtype=dtype, seed=1), checkpoint=tmp_path / "c.npz", on_value=rest.append,
        **given
    )  # fmt: skip
    assert same(again, whole) and model.theta.tobytes() == expected.theta.tobytes()
    assert [record.l2 for record in rest] == GRID[number + 1 :]
    assert again.records[: number + 1] == seen


def test_a_finished_path_is_read(tmp_path):
    X, y = drawn()
    path, model = path_on(X, y, folds=3, checkpoint=tmp_path / "c.npz")
    again, other = path_on(X, y, folds=3, checkpoint=tmp_path / "c.npz", on_value=pytest.fail)
    assert again == path and other.theta.tobytes() == model.theta.tobytes()


def shortened(count):
    """Return the folds of these samples, with fewer samples to train on."""
    return [(train[1:], test) for train, test in as_folds(count, drawn()[1], 0)]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"l2": [1e-1, 1e-2]}, "value 3 of l2 is 0.001 there, none here, from the largest on"),
        ({"l2": [1e-1, 1e-2, 2e-3]}, "value 3 of l2 is 0.001 there, 0.002 here"),
        ({"gap": 1e-5}, "gap 0.0001 there, 1e-05 here"),
        ({"folds": 4}, r"folds 3 there, 4 here, other held-out samples or folds \(seed\)"),
        ({"seed": 1}, r"got others: other held-out samples or folds \(seed\); resume"),
        ({"folds": shortened(3)}, r"got others: other held-out samples or folds \(seed\); resume"),
        ({"sample_weight": np.arange(N) + 1.0}, "other training data"),
        ({"penalty_factor": np.arange(D) + 1.0}, "got others: other penalty_factor; resume"),
        ({"X": drawn(seed=5)[0]}, "other training data"),
        ({"y": (drawn()[1] + 1) % K}, "other training data"),
        ({"model": new_model(classes=list("abcd"))}, "classes"),
        ({"model": new_model(dtype=np.float32)}, "theta"),
    ],
)
def test_the_checkpoint_of_another_path_is_refused(tmp_path, change, difference):
    X, y = drawn()
    given = {"X": X, "y": y, "folds": 3, "checkpoint": tmp_path / "c.npz"}
    path_on(**given)
    for name in ("c.npz", "c.previous.npz"):  # the second one after a user has deleted the first
        with pytest.raises(
            InputError, match=rf"{name}: expected the settings of this run.*{difference}"
        ) as error:
            path_on(**given | change)
        assert f"{tmp_path / 'c.previous.npz'}" in str(error.value).partition(", or delete ")[2]
        assert (f"{tmp_path / 'c.npz'} and " in str(error.value)) == (name == "c.npz")
        (tmp_path / name).unlink()
    path_on(**given | change)


@pytest.mark.parametrize("judged", [{}, {"folds": 3}])
def test_a_path_goes_on_with_smaller_values_to_the_same_bits(tmp_path, judged, lbfgs):
    X, y = drawn()
    whole, expected = path_on(X, y, max_iterations=500, **judged)
    file, seen = tmp_path / "c.npz", []
    path_on(X, y, l2=GRID[:2], checkpoint=file, **judged)
    again, model = path_on(
        X, y, l2=GRID[::-1], max_iterations=500, checkpoint=file, on_value=seen.append, **judged
    )
    assert [record.l2 for record in seen] == GRID[2:]
    assert same(PenaltyPath(again.records[::-1]), whole)
    assert model.theta.tobytes() == expected.theta.tobytes()


def test_a_path_goes_on_with_other_threads(tmp_path):
    path_on(*drawn(), l2=GRID[:2], checkpoint=tmp_path / "c.npz", threads=1)
    with pytest.warns(ResumeWarning, match="threads 1 there, 2 here"):
        path, _ = path_on(*drawn(), checkpoint=tmp_path / "c.npz", threads=2)
    assert len(path.records) == 4


def test_a_damaged_checkpoint_gives_way_to_the_previous_one(tmp_path, lbfgs):
    X, y = drawn()
    file = tmp_path / "c.npz"
    whole, model = path_on(X, y, checkpoint=file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(ResumeWarning, match="resuming from"):
        again, other = path_on(X, y, checkpoint=file)
    assert same(again, whole) and other.theta.tobytes() == model.theta.tobytes()


def test_a_checkpoint_with_other_contents_is_refused(tmp_path):
    X, y = drawn()
    file = tmp_path / "c.npz"
    path_on(X, y, checkpoint=file)
    storage.previous(file).unlink()
    arrays, metadata = storage.read(file, "checkpoint of a path")
    for state in ({}, {**metadata["state"], "followers": [{"optima": 3}]}):
        storage.write(file, "checkpoint of a path", arrays, {**metadata, "state": state})
        with pytest.raises(CorruptFileError, match="expected a checkpoint of a path"):
            path_on(X, y, checkpoint=file)


def test_the_file_is_described(tmp_path, capsys):
    from npsoftmax.checkpoint import verify_files

    X, y = drawn()
    path_on(X, y, checkpoint=tmp_path / "c.npz")
    assert verify_files([str(tmp_path / "c.npz")]) == 0
    assert "a checkpoint of a path after 4 values: theta float64(4, 7)" in capsys.readouterr().out


# The choice.


def path_of(losses, error=0.03, reason="converged", **settings):
    converged = reason == "converged"
    return PenaltyPath(
        [
            PathRecord(l2, 1.0, 0.0, 1.0, 1, 0.0, converged, loss, error, reason=reason)
            for l2, loss in losses.items()
        ],
        **settings,
    )


def test_one_standard_error_by_hand():
    path = path_of({10.0: 0.7, 1.0: 0.53, 0.1: 0.5, 0.01: 0.52, 0.001: 0.9})
    assert (path.best.l2, path.one_standard_error.l2) == (0.1, 1.0)
    path = path_of({10.0: 0.7, 1.0: 0.5301, 0.1: 0.5, 0.01: 0.52, 0.001: 0.9})
    assert path.one_standard_error.l2 == 0.1
    path = path_of({0.1: 0.5, 1.0: 0.5, 10.0: 0.5})
    assert path.best.l2 == 10.0, "the largest penalty on a tie"


def test_advice_names_an_end_of_the_grid_and_fits_that_did_not_arrive():
    inside = {1.0: 0.6, 0.1: 0.5, 0.01: 0.6}
    assert path_of(inside).advice == ""
    assert "0.01, is the smallest of the grid: add smaller" in path_of({0.1: 0.6, 0.01: 0.5}).advice
    assert "0.1, is the largest of the grid: add larger" in path_of({0.1: 0.5, 0.01: 0.6}).advice
    assert path_of({0.1: 0.5}).advice == ""
    failed = "3 of 3 values did not reach the gap, the first at l2=1: "
    advice = path_of(inside, reason="iterations").advice
    assert advice == f"{failed}raise max_iterations"
    advice = path_of(inside, reason="rounding").advice
    ways = "leave out the smallest values, or scale the features"
    assert advice == f"{failed}rounding errors hide the rest: {ways}"
    advice = path_of(inside, reason="rounding", dtype="float32").advice
    assert advice == f"{failed}rounding errors hide the rest: use a model of float64, {ways}"
    advice = path_of(inside, reason="separated").advice
    assert advice == f"{failed}features without a penalty separate classes, give them one"
    assert path_of(inside, missing=("cow",)).advice.startswith("no sample is of class cow: the bia")


def test_a_fit_that_cannot_arrive_says_so(lbfgs):
    X, y = drawn()
    path, _ = path_on(X, y, max_iterations=1)
    assert not path.records[-1].converged and "raise max_iterations" in path.advice
    path, _ = path_on(X, y, new_model(dtype=np.float32), gap=1e-15)
    assert not any(record.converged for record in path.records)
    assert "not converged: rounding" in str(path.records[0])
    assert "use a model of float64" in path.advice


def test_a_penalty_that_is_lost_in_rounding_is_said():
    path, _ = path_on(*drawn(), l2=1e-300)
    assert path.records[0].reason == "rounding"
    assert "leave out the smallest values" in path.advice and "float64" not in path.advice


def test_classes_without_samples_are_said():
    X, _ = drawn()
    path, _ = path_on(X, np.zeros(N, int), new_model(classes=["ant", "bee", "cow", "dog"]))
    assert path.advice.startswith("no sample is of class bee, cow, dog: the bias has no optimum")


def test_json_holds_the_records():
    X, y = drawn()
    path, _ = path_on(X, y, folds=3)
    content = json.loads(path.to_json())
    assert [record["l2"] for record in content["records"]] == GRID
    assert (content["best"], content["advice"]) == (path.best.l2, path.advice)
    assert content["one_standard_error"] == path.one_standard_error.l2
    path, _ = path_on(X, y)
    assert set(json.loads(path.to_json())) == {"records", "advice"}


def test_a_path_draws_itself():
    pytest.importorskip("matplotlib")
    X, y = drawn()
    ax = path_on(X, y, folds=3)[0].plot()
    assert ax.get_xscale() == "log" and len(ax.get_legend().get_texts()) == 3
    assert path_on(X, y)[0].plot(ax) is ax


# Bad input.


@pytest.mark.parametrize(
    ("l2", "message"),
    [
        ([], "expected at least one value"),
        ([[1, 0.1]], r"expected one dimension, got shape \(1, 2\); pass np.ravel\(l2\)"),
        ([0.1, 0.3, 0.2], "ascending or descending order"),
        ([0.1, 0.1], "each once, got 0.1 twice; pass np.unique"),
        ([0.1, 0.0], "expected positive numbers, got 0.0; leave it out"),
        ([-0.1], "expected positive numbers, got -0.1"),
        ([math.nan], "expected positive numbers, got nan"),
        ([math.inf, 1.0], "expected positive numbers, got inf"),
        (["a"], "expected real numbers"),
    ],
)
def test_bad_grids(l2, message):
    with pytest.raises(InputError, match=f"l2: .*{message}"):
        path_on(*drawn(), l2=l2)


def test_one_value_is_a_grid():
    path, _ = path_on(*drawn(), l2=0.1)
    assert [record.l2 for record in path.records] == [0.1]


class KFold:
    """As in scikit-learn."""

    def split(self, X, y):
        raise NotImplementedError


def test_folds_may_be_any_iterable():
    X, y = drawn()
    pairs = as_folds(3, y, 0)
    listed, _ = path_on(X, y, folds=pairs)
    drawn_once, _ = path_on(X, y, folds=(pair for pair in pairs))
    assert same(listed, drawn_once)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"gap": 0}, InputError, "gap: expected a positive number, got 0"),
        ({"gap": -1}, InputError, "gap: expected a positive number, got -1"),
        ({"gap": math.nan}, InputError, "gap: expected a positive number"),
        ({"checkpoint": ""}, InputError, "checkpoint: expected the path of a file, got ''"),
        ({"checkpoint": 5}, InputError, "checkpoint: expected the path of a file, got 5"),
        ({"on_value": 3}, InputError, "on_value: expected a function, got 3; pass print"),
        (
            {"class_weight": {2: 0}, "folds": 3},
            LabelError,
            r"folds: .* of class 2, and weight 0 for those to train on; .* positive weight",
        ),
        ({"max_iterations": 0}, InputError, "max_iterations: expected a whole number"),
        ({"held_out": drawn(), "folds": 3}, InputError, "held_out: .* got both; leave one out"),
        ({"held_out": drawn()[0]}, InputError, r"held_out: expected samples and labels, got nda"),
        ({"held_out": (drawn()[0], [0])}, ShapeError, "held_out: X_val and y_val: expected as man"),
        ({"held_out": (drawn()[0].T, [0])}, ShapeError, r"^held_out: X_val: .*array\(X_val\)\.T"),
        (
            {"held_out": (drawn()[0], np.full(N, K))},
            LabelError,
            r"^held_out: y_val: expected labels 0\.\.3",
        ),
        (
            {"held_out": (drawn()[0], drawn()[1] + 1)},
            LabelError,
            r"^held_out: y_val: expected labels 0\.\.3.*; pass np\.asarray\(y_val\) - 1$",
        ),
        (
            {"held_out": (drawn()[0], drawn()[1] * 1.0)},
            LabelError,
            r"^held_out: y_val: .*: np\.asarray\(y_val, int\)$",
        ),
        (
            {"held_out": (drawn()[0], drawn()[1].astype(str))},
            LabelError,
            r"classes, y = np.unique\(y, .*, and y_val = np.searchsorted\(classes, y_val\)$",
        ),
        ({"held_out": (drawn()[0] * np.nan, [0] * N)}, InputError, "^held_out: X_val: expected fi"),
        ({"folds": KFold()}, InputError, r"got KFold; pass list\(cv.split\(rows, y\)\)"),
        ({"held_out": (drawn()[0][:, :1], [0])}, InputError, "held_out: expected at least 2"),
        ({"folds": 1}, InputError, "folds: expected a whole number of at least 2, got 1"),
        ({"folds": True}, InputError, "folds: expected a whole number"),
        ({"folds": 3, "seed": -1}, InputError, "seed: expected a whole number"),
        ({"folds": [([0, 1, 2, 3], [4])]}, InputError, "folds: expected at least 2 samples"),
    ],
)
def test_bad_arguments(given, error, message):
    with pytest.raises(error, match=message):
        path_on(*drawn(), **given)


def test_held_out_classes_that_training_lacks_are_named():
    X, y = drawn()
    here = y != 2
    model = new_model(classes=["ant", "bee", "cow", "dog"])
    with pytest.raises(LabelError, match=rf"held_out: .* got {(~here).sum()} of class cow, and no"):
        path_on(X[:, here], y[here], model, held_out=(X, y))
    weights = here * 1.0
    with pytest.raises(LabelError, match=r"held_out: .* of class cow"):
        path_on(X, y, model, held_out=(X, y), sample_weight=weights)


def test_a_class_with_one_sample_cannot_be_held_out():
    X, y = drawn()
    y[y == 2] = 0
    y[7] = 2
    with pytest.raises(LabelError, match=r"folds: .* 1 of class 2, and none .*, or pass held_out="):
        path_on(X, y, folds=3)
    y[8] = 2  # held out one at a time
    path, _ = path_on(X, y, folds=3)
    assert path.best.converged


def test_a_class_without_samples_is_no_obstacle():
    X, y = drawn()
    path, model = path_on(X, y, k=K + 1, folds=3)
    assert path.best.converged and model(X)[K].max() < 1e-3
