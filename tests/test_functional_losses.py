"""Cross-entropy with all kinds of targets, axes and aggregates; smoothing; one-hot columns."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mp, mpf

from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import (
    crossentropy,
    crossentropy_grad,
    label_smoothing,
    logitcrossentropy,
    logitcrossentropy_and_grad,
    logitcrossentropy_grad,
    logsoftmax,
    onecold,
    onehotbatch,
)
from npsoftmax.objective import loss_and_grad

INF, NAN = np.inf, np.nan


@st.composite
def logits_and_labels(draw):
    k, n = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    z = draw(hnp.arrays(dtype, (k, n), elements=st.floats(-40, 40, width=32)))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    return z, y


@given(logits_and_labels())
def test_labels_one_hot_and_definition_agree(case):
    z, y = case
    one_hot = onehotbatch(y, range(z.shape[0]))
    for agg in ("mean", "sum", "none"):
        by_label = logitcrossentropy(z, y, agg=agg)
        for targets in (one_hot, one_hot.astype(z.dtype)):
            np.testing.assert_array_equal(by_label, logitcrossentropy(z, targets, agg=agg))
    losses = logitcrossentropy(z, y, agg="none")
    assert losses.dtype == z.dtype and losses.shape == y.shape
    picked = -logsoftmax(z)[y, np.arange(y.size)]
    np.testing.assert_allclose(losses, picked, rtol=4 * np.finfo(z.dtype).eps)
    assert (losses >= 0).all() and not np.signbit(losses).any()


@given(logits_and_labels())
def test_axis_moves_and_out_may_be_the_logits(case):
    z, y = case
    loss, gradient = logitcrossentropy_and_grad(z, y)
    moved_loss, moved = logitcrossentropy_and_grad(z.T, y, axis=1)
    assert moved_loss == loss
    np.testing.assert_array_equal(moved.T, gradient)
    in_place = z.copy()
    _, written = logitcrossentropy_and_grad(in_place, y, out=in_place)
    assert written is in_place
    np.testing.assert_array_equal(written, gradient)


def test_more_than_two_axes():
    z = np.random.default_rng(0).standard_normal((2, 4, 3))
    y = np.array([[0, 1, 2], [3, 0, 1]])
    losses = logitcrossentropy(z, y, axis=1, agg="none")
    gradient = logitcrossentropy_grad(z, y, axis=1, agg="sum")
    assert losses.shape == (2, 3) and gradient.shape == (2, 4, 3)
    for i in range(2):
        np.testing.assert_array_equal(losses[i], logitcrossentropy(z[i], y[i], agg="none"))
        np.testing.assert_array_equal(gradient[i], logitcrossentropy_grad(z[i], y[i], agg="sum"))


@pytest.mark.parametrize("dtype", "bhilqBHILQ")
@pytest.mark.parametrize("k", [3, 600])
def test_labels_of_any_integer_dtype(dtype, k):
    z = np.random.default_rng(1).standard_normal((k, 300)).astype(np.float32)
    y = np.random.default_rng(2).integers(3, size=300)
    loss, gradient = logitcrossentropy_and_grad(z, y.astype(dtype))
    expected, expected_gradient = logitcrossentropy_and_grad(z, y)
    assert loss == expected
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert loss_and_grad(np.ones((k, 2)), z[:1], y.astype(dtype)).loss == pytest.approx(np.log(k))


def test_two_hot_columns_are_soft_targets():
    z = np.array([[1.0], [2.0], [3.0]])
    expected = -logsoftmax(z)[[0, 1]].sum()
    assert logitcrossentropy(z, np.array([[1], [1], [0]])) == pytest.approx(expected, rel=1e-15)


def test_out_may_be_the_targets_in_another_order(monkeypatch):
    monkeypatch.setattr("npsoftmax.functional._compensated.BLOCK_ELEMENTS", 12)
    rng = np.random.default_rng(3)
    z, y = rng.standard_normal((6, 6)), rng.dirichlet(np.ones(6), 6).T
    expected = logitcrossentropy_grad(z, y)
    targets = y.copy()
    logitcrossentropy_and_grad(z, targets, out=targets.T)
    np.testing.assert_array_equal(targets.T, expected)


def test_huge_losses_do_not_overflow_on_the_way():
    assert logitcrossentropy([[0.0], [-2.3e307]], [[0.5], [0.5]]) == pytest.approx(1.15e307)
    signed = logitcrossentropy([[0.0, 0], [-1.7e308, -1.7e308]], [[0, 0], [-0.9, 0.9]], agg="none")
    np.testing.assert_allclose(signed, [-1.53e308, 1.53e308], rtol=1e-15)
    assert logitcrossentropy([[1.7e308, 1.7e308], [0, 0]], [1, 1]) == 1.7e308


def test_a_column_with_nan_has_no_loss_even_if_all_targets_are_zero():
    assert np.isnan(logitcrossentropy([[NAN], [0.0]], [[0.0], [0.0]]))


def test_the_mean_of_equal_losses_is_as_accurate_as_one():
    x = np.zeros((2, 518))
    x[1, :513], x[1, 513:] = -1.2564109264239691, -2000
    with mp.workdps(oracle.DIGITS):
        exact = oracle.exact(x[:, 0], 0).loss * 513 / 518
        mean = logitcrossentropy(x, np.zeros(518, int))
        assert oracle.error_in_ulp(mean, exact, np.float64) <= 3


def test_soft_targets_silence_masked_logits():
    z = np.array([[0.0], [0.0], [-INF]])
    y = np.array([[0.5], [0.5], [0.0]])
    assert logitcrossentropy(z, y) == pytest.approx(np.log(2), rel=1e-15)
    np.testing.assert_allclose(logitcrossentropy_grad(z, y).ravel(), [0, 0, 0], atol=1e-16)


def test_crossentropy_epsilon():
    assert crossentropy([[0.0], [1.0]], [[1.0], [0.0]]) == pytest.approx(36.04365338911715)
    assert crossentropy(np.float32([[0], [1]]), [0]) == pytest.approx(15.942385, rel=1e-6)
    assert crossentropy([[0.0], [1.0]], [0], eps=0) == INF
    assert crossentropy([[0.5], [0.5]], [[0.0], [0.0]], eps=0) == 0


@pytest.mark.parametrize(("dtype", "claim"), [(np.float32, 0.501), (np.float64, 3)])
def test_crossentropy_is_accurate_next_to_one(dtype, claim):
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    p = np.concatenate([1 - rng.integers(0, 50, 50) * info.epsneg, 10 ** rng.uniform(-30, 0, 50)])
    p = np.stack([p, 1 - p]).astype(dtype)
    losses = crossentropy(p, np.zeros(100, int), agg="none")
    mixed = crossentropy(p, np.full((2, 100), 0.25), agg="none", eps=1e-3)
    with mp.workdps(oracle.DIGITS):
        for j in range(100):
            top, rest = mpf(float(p[0, j])), mpf(float(p[1, j]))
            exact = -mp.log(top + mpf(float(info.eps)))
            assert oracle.error_in_ulp(losses[j], exact, dtype) <= claim
            exact = -(mp.log(top + mpf(1e-3)) + mp.log(rest + mpf(1e-3))) / 4
            assert oracle.error_in_ulp(mixed[j], exact, dtype) <= claim


def test_crossentropy_where_probability_and_epsilon_sum_to_one():
    expected = -(0.3 - (1 - 0.7))  # 5.6e-17, which 0.3 + 0.7 rounds away
    assert crossentropy([[0.3], [0.7]], [0], eps=0.7) == pytest.approx(expected, rel=1e-15)


def test_crossentropy_grad_of_narrow_floats_and_extremes():
    halves = crossentropy_grad(np.full((2, 70000), 0.5, np.float16), np.zeros(70000, int))
    assert halves[0, 0] == pytest.approx(-2 / 70000, rel=1e-2)
    assert crossentropy_grad([[0.0], [1.0]], [1], eps=0)[0, 0] == 0
    along_rows = crossentropy_grad([[0.25, 0.75], [0.5, 0.5]], [0, 1], axis=1, eps=0)
    np.testing.assert_array_equal(along_rows, [[-2, 0], [0, -1]])
    with np.errstate(all="raise"):
        tiny = np.float32([[1e-45], [1]])
        assert crossentropy_grad(tiny, [[1.0], [0.0]], eps=0)[0, 0] == -INF
        label_smoothing(np.array([[1e-310], [1]]), 0.3)


def test_label_smoothing():
    np.testing.assert_allclose(
        label_smoothing([[1, 0], [0, 1], [0, 0]], 0.3), [[0.8, 0.1], [0.1, 0.8], [0.1, 0.1]]
    )
    np.testing.assert_allclose(label_smoothing([[1, 0, 0]], 0.3, axis=1), [[0.8, 0.1, 0.1]])
    assert label_smoothing(np.float32([[1], [0]]), 0.5).dtype == np.float32


@pytest.mark.parametrize("loss", [logitcrossentropy, logitcrossentropy_grad, crossentropy,
                                  crossentropy_grad])  # fmt: skip
@pytest.mark.parametrize(
    ("y", "kwargs", "error", "message"),
    [
        ([0, 3], {}, LabelError, "expected labels 0..2, got labels from 0 to 3"),
        ([0, 1, 2], {}, ShapeError, r"\(2,\), got shape \(3,\)"),
        (np.zeros((2, 3)), {}, ShapeError, r"\(3, 2\).*\(2, 3\)"),
        ([0, 1], {"agg": "median"}, InputError, "got 'median'"),
        ([0, 1], {"axis": 2}, ShapeError, "axis"),
        ([0, 1], {"axis": (0, 1)}, ShapeError, "expected one axis"),
    ],
)
def test_refusals(loss, y, kwargs, error, message):
    with pytest.raises(error, match=message):
        loss(np.full((3, 2), 0.5), y, **kwargs)


def test_mean_of_nothing_is_refused():
    with pytest.raises(ShapeError, match="at least one sample"):
        logitcrossentropy(np.zeros((3, 0)), np.zeros(0, int))
    assert logitcrossentropy(np.zeros((3, 0)), np.zeros(0, int), agg="sum") == 0


@pytest.mark.parametrize("eps", [-1.0, NAN, INF, "small"])
def test_crossentropy_refuses_a_strange_epsilon(eps):
    for f in (crossentropy, crossentropy_grad):
        with pytest.raises(InputError, match="eps: expected"):
            f([[0.5], [0.5]], [0], eps=eps)


def test_one_hot_columns_by_hand():
    encoded = onehotbatch([20, 10, 20], [10, 20, 30])
    np.testing.assert_array_equal(encoded, [[0, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert encoded.dtype == bool and encoded.flags.f_contiguous
    assert onehotbatch(list("abca"), list("abc")).sum() == 4
    np.testing.assert_array_equal(onehotbatch([7], [7, 7])[:, 0], [1, 0])
    np.testing.assert_array_equal(onecold(onehotbatch([1, 9], [1, 2], default=2)), [0, 1])
    assert onecold([1, 3, 3]) == 1


def test_one_hot_classes_come_before_the_other_axes():
    encoded = onehotbatch([[0, 1, 2], [2, 1, 0]], range(3))
    assert encoded.shape == (3, 2, 3)
    np.testing.assert_array_equal(onecold(encoded), [[0, 1, 2], [2, 1, 0]])


@given(st.lists(st.integers(0, 5), max_size=20))
def test_one_hot_columns_give_back_their_labels(labels):
    assert onecold(onehotbatch(np.array(labels, int), range(6))).tolist() == labels


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: onehotbatch([4], [1, 2]), LabelError, "got .*4"),
        (lambda: onehotbatch(["x"], [1, 2]), LabelError, "'x'"),
        (lambda: onehotbatch([4], [1, 2], default=3), LabelError, "default"),
        (lambda: onehotbatch([4], []), ShapeError, "at least one label"),
        (lambda: onecold([1.0, np.nan]), InputError, "NaN"),
        (lambda: onecold([[1.0, 1], [np.nan, 0]]), InputError, "NaN"),
        (lambda: onecold([1, 2], ["a"]), ShapeError, "expected 2 labels"),
        (lambda: onecold(3.0), ShapeError, "at least one class"),
        (
            lambda: label_smoothing([0, 2, 1], 0.1),
            InputError,
            "got 0.0 to 2.0; make labels one-hot",
        ),
        (lambda: label_smoothing([[1], [0]], 0), InputError, "0 < alpha < 1"),
        (lambda: label_smoothing([[1], [0]], 1), InputError, "0 < alpha < 1"),
        (lambda: label_smoothing([[1], [0]], NAN), InputError, "0 < alpha < 1"),
    ],
)
def test_one_hot_and_smoothing_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
