"""softmax, logsoftmax, logsumexp: hand values, axes, out, dtypes, refusals.

Their accuracy is in ``test_functional_accuracy.py``.
"""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mp, mpf

from npsoftmax.errors import InputError, ShapeError
from npsoftmax.functional import (
    logsoftmax,
    logsoftmax_grad,
    logsumexp,
    logsumexp_grad,
    softmax,
    softmax_grad,
)

INF, NAN = np.inf, np.nan
FUNCTIONS = [softmax, logsoftmax]

matrices = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-40, 40, width=32),
)


def test_softmax_by_hand():
    x = np.log([[1.0, 3.0], [3.0, 1.0]])
    np.testing.assert_allclose(softmax(x), [[0.25, 0.75], [0.75, 0.25]], rtol=1e-15)
    np.testing.assert_allclose(softmax(x, axis=None).sum(), 1, rtol=1e-15)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([INF, 0.0], INF),
        ([INF, INF], INF),
        ([-INF, -INF], -INF),
        ([-INF, 9.0], 9.0),
        ([NAN, INF], NAN),
        ([1e-20, np.log(1e-20)], 2e-20),
        ([0.0, -40.0], 4.248354255291589e-18),
    ],
)
def test_logsumexp_special(column, expected):
    with np.errstate(all="raise"):
        np.testing.assert_allclose(logsumexp(column), expected, rtol=1e-15)


def test_out_may_overlap_the_input_elsewhere(monkeypatch):
    monkeypatch.setattr("npsoftmax.functional._compensated.BLOCK_ELEMENTS", 3)
    x = np.arange(9.0).reshape(3, 3) ** 2 / 8
    expected = softmax(x.T)
    np.testing.assert_array_equal(softmax(x.T, out=x), expected)


@pytest.mark.parametrize("axis", [(0, 2), (2, 0), (1,), None, 2])
def test_any_axes_of_three(axis):
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    for f in FUNCTIONS:
        out = np.empty((4, 5, 3)).transpose(0, 2, 1)
        got = f(x, axis, out=out)
        assert got is out
        np.testing.assert_allclose(got, f(x, axis), rtol=1e-15)
    totals = np.exp(x).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(softmax(x, axis), np.exp(x) / totals, rtol=1e-14)
    np.testing.assert_allclose(logsumexp(x, axis, keepdims=True), np.log(totals), rtol=1e-14)


def test_masked_logits_are_minus_infinity_not_nan():
    np.testing.assert_array_equal(logsoftmax([0.0, -INF]), [0, -INF])
    np.testing.assert_array_equal(logsoftmax([INF, 0.0, INF])[1], -INF)


def test_confident_log_probability_keeps_its_digits():
    assert logsoftmax(np.float32([20, 0]))[0] == pytest.approx(-2.0611537e-09, rel=1e-6)


@given(matrices, st.sampled_from(FUNCTIONS), st.booleans())
def test_layout_axis_and_out_do_not_change_bits(x, f, fortran):
    original = x.copy()
    expected = np.stack([f(column) for column in x.T], axis=1)
    view = np.asfortranarray(x) if fortran else x
    view.flags.writeable = False
    got = f(view)
    np.testing.assert_array_equal(got, expected)
    assert got.flags.f_contiguous == view.flags.f_contiguous
    np.testing.assert_array_equal(f(view.T, axis=1), expected.T)
    np.testing.assert_array_equal(f(view, axis=-2), expected)
    assert np.array_equal(view, original)
    in_place = x.copy()
    assert f(in_place, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, expected)


@given(matrices)
def test_gradients_write_into_out(x):
    dy = np.ones_like(x) + x
    for f, g in [(softmax, softmax_grad), (logsoftmax, logsoftmax_grad)]:
        y = f(x)
        out = np.empty_like(x)
        assert g(dy, y, out=out) is out
        np.testing.assert_array_equal(out, g(dy, y))


def test_gradients_by_hand():
    np.testing.assert_allclose(softmax_grad([1, 0.0], [0.25, 0.75]), [0.1875, -0.1875])
    np.testing.assert_allclose(
        logsoftmax_grad([1, 0.0], np.log([0.25, 0.75])), [0.75, -0.75], rtol=1e-15
    )
    np.testing.assert_allclose(logsumexp_grad(3.0, np.log([1.0, 3.0])), [0.75, 2.25], rtol=1e-15)
    np.testing.assert_allclose(
        logsumexp_grad([1.0, 2.0], np.zeros((2, 2)), axis=0), [[0.5, 1], [0.5, 1]]
    )


@pytest.mark.parametrize("lead", [0, 20, 30, 60])
def test_gradients_of_a_confident_column_keep_their_digits(lead):
    x = np.array([lead, 0.0, -1.0])
    dy = np.array([0.7, -0.2, 0.4])
    p = oracle.exact(x, 0).softmax
    with mp.workdps(oracle.DIGITS):
        mean = mp.fsum(mpf(d) * q for d, q in zip(dy, p, strict=True))
        expected = [float(q * (mpf(d) - mean)) for d, q in zip(dy, p, strict=True)]
        # A label's gradient is dy = onehot: 1 - p at the label.
        label = [float(p[1] + p[2]), float(-p[1]), float(-p[2])]
    np.testing.assert_allclose(softmax_grad(dy, softmax(x)), expected, rtol=3e-15)
    np.testing.assert_allclose(logsoftmax_grad([1.0, 0, 0], logsoftmax(x)), label, rtol=3e-15)


def read_only(x):
    x.flags.writeable = False
    return x


def test_the_gradient_of_logsumexp_is_rounded_once():
    x = np.random.default_rng(5).standard_normal((10, 500)).astype(np.float32)
    in_float64 = 3 * softmax(x.astype(np.float64))
    got = logsumexp_grad(np.full(500, 3.0, np.float32), x, axis=0)
    np.testing.assert_array_equal(got, in_float64.astype(np.float32))


def test_dtypes_and_shapes():
    assert logsumexp_grad(1.0, np.float32([1, 2])).dtype == np.float32
    assert softmax([1, 2]).dtype == np.float64
    assert softmax(np.array([True, False])).dtype == np.float64
    assert softmax(np.float16([1, 2])).dtype == np.float16
    assert softmax(np.zeros((3, 0))).shape == (3, 0)
    assert logsumexp(np.zeros((3, 4), np.float32), axis=0).shape == (4,)
    assert logsumexp(np.zeros((3, 4)), axis=1, keepdims=True).shape == (3, 1)
    assert logsumexp(np.zeros((2, 3, 4)), axis=(0, 2)).shape == (3,)
    assert isinstance(logsumexp(np.float32([1, 2])), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: softmax(1.0), ShapeError, "got the number 1.0"),
        (lambda: logsumexp(np.float64(1)), ShapeError, "got the number"),
        (lambda: softmax(np.zeros((0, 3))), ShapeError, "at least one class"),
        (lambda: softmax(np.zeros(3), axis=1), ShapeError, "axis"),
        (lambda: softmax(np.zeros(3), axis="rows"), ShapeError, "axis"),
        (lambda: softmax(["a"]), InputError, "expected real numbers"),
        (lambda: softmax([1j]), InputError, "expected real numbers"),
        (lambda: softmax(np.ones(3, np.longdouble)), InputError, "float64 or narrower"),
        (lambda: softmax(np.zeros(3), out=np.zeros(4)), ShapeError, r"\(3,\).*\(4,\)"),
        (lambda: softmax(np.zeros(3), out=np.zeros(3, int)), ShapeError, "floating"),
        (lambda: softmax(np.zeros(3), out=[0, 0, 0]), ShapeError, "floating array"),
        (lambda: softmax(np.zeros(3), out=read_only(np.zeros(3))), InputError, "read-only"),
        (lambda: logsumexp_grad(1j, np.zeros(3)), InputError, "real numbers"),
        (lambda: softmax_grad(np.zeros(3), np.zeros(4)), ShapeError, r"\(3,\) and \(4,\)"),
        (lambda: logsumexp_grad(np.zeros(5), np.zeros((3, 4)), 0), ShapeError, r"\(5,\)"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
