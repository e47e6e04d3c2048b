"""Eleven laws of accurate softmax functions, on columns designed to break them.

1 oracle, 2 sum, 3 shift, 4 permutation, 5 order, 6 no collapse, 7 agreement, 8 layout and batch,
9 special values, 10 no warnings, 11 the same bits at every SIMD level. ``test_mutants.py`` shows
that they reject the usual faults. The tolerances are the claims of ``docs/numerics.md``.
"""

import math
import os
import subprocess
import sys
import warnings
from itertools import combinations

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mp, mpf

from npsoftmax.functional import (
    logitcrossentropy,
    logitcrossentropy_and_grad,
    logitcrossentropy_grad,
    logsoftmax,
    logsumexp,
    softmax,
)

INF, NAN = np.inf, np.nan
DTYPES = [np.float32, np.float64]
CLAIM = {np.float32: 0.501, np.float64: 3.0}
CLAIM_SUBNORMAL = {np.float32: 0.501, np.float64: 7.0}
# Two float64 results for one number may differ by a unit; float32 rounds the same float64.
MAX_APART = {np.float32: 0, np.float64: 1}
# Probabilities of adjacent float64 logits may be out of order by this much.
ORDER_UNITS = {np.float32: 0, np.float64: 2}

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
families = pytest.mark.parametrize("family", oracle.FAMILIES, ids=lambda f: f.__name__)


def all_results(x, y):
    """Return all results for ``x`` with one value per entry or per sample."""
    return {
        "softmax": softmax(x),
        "logsoftmax": logsoftmax(x),
        "loss": logitcrossentropy(x, y, agg="none"),
        "gradient": logitcrossentropy_grad(x, y, agg="none"),
        "mean gradient": logitcrossentropy_grad(x, y),
    }


def draw(family, dtype, n, samples, seed=0):
    """Return columns of a family and their labels, half of them at the largest entry."""
    rng = np.random.default_rng([seed, n, samples])
    with np.errstate(over="ignore", under="ignore"):
        x = np.asfortranarray(family(rng, n, samples, dtype).astype(dtype))
    return x, np.where(rng.random(samples) < 0.5, x.argmax(axis=0), rng.integers(n, size=samples))


def assert_claim(got, value, dtype, name):
    error = oracle.error_in_ulp(got, value, dtype)
    subnormal = abs(value) < mpf(float(np.finfo(dtype).tiny))
    claim = (CLAIM_SUBNORMAL if subnormal else CLAIM)[dtype]
    assert error <= claim, f"{name}: got {got!r}, exactly {mp.nstr(value, 20)}: {error:.4g} ULP"


def check_column(results, dtype, j, exact, samples):
    for name, values in [
        ("softmax", exact.softmax),
        ("logsoftmax", exact.logsoftmax),
        ("loss", [exact.loss]),
        ("gradient", exact.gradient),
        ("mean gradient", [v / samples for v in exact.gradient]),
    ]:
        column = np.atleast_1d(results[name][..., j])
        for got, value in zip(column, values, strict=True):
            assert_claim(got, value, dtype, f"{name}, sample {j}")


def check_against_oracle(x, y, dtype):
    n, samples = x.shape
    results = all_results(x, y)
    totals, mean = logsumexp(x, axis=0), logitcrossentropy(x, y)
    losses = []
    with mp.workdps(oracle.DIGITS):
        for j in range(samples):
            exact = oracle.exact(x[:, j], y[j])
            check_column(results, dtype, j, exact, samples)
            losses.append(exact.loss)
            units, power = (0.51, -50) if dtype == np.float32 else (3, -52)
            slack = mpf(2) ** power * (abs(float(x[:, j].max())) + math.log(n))
            distance = abs(mpf(float(totals[j])) - exact.logsumexp)
            assert distance <= units * oracle.ulp(exact.logsumexp, dtype) + slack
        if np.isfinite(results["loss"]).all():
            assert_claim(mean, mp.fsum(losses) / samples, dtype, "mean loss")


@families
@dtypes
@pytest.mark.parametrize(("n", "samples"), [(1, 3), (2, 40), (3, 40), (10, 20), (33, 5), (513, 1)])
def test_1_oracle(family, dtype, n, samples):
    check_against_oracle(*draw(family, dtype, n, samples), dtype)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        (oracle.ordinary, np.float32),
        pytest.param(oracle.mixed, np.float64, marks=pytest.mark.exhaustive),
        pytest.param(oracle.subnormal, np.float64, marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize("n", [10_000, pytest.param(100_000, marks=pytest.mark.exhaustive)])
def test_1_oracle_with_many_classes(family, dtype, n):
    check_against_oracle(*draw(family, dtype, n, 1), dtype)


@st.composite
def columns_and_labels(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 4)))
    elements = st.floats(allow_nan=False, allow_infinity=False, width=8 * dtype.itemsize)
    x = draw(hnp.arrays(dtype, shape, elements=st.one_of(elements, st.floats(-50, 50, width=32))))
    return x, draw(hnp.arrays(np.int64, shape[1], elements=st.integers(0, shape[0] - 1)))


@given(columns_and_labels())
def test_1_oracle_on_any_finite_columns(case):
    x, y = case
    check_against_oracle(x, y, x.dtype.type)


# Where a difference overflows, a soft loss overflows although its exact value may be finite.
@pytest.mark.parametrize("family", [f for f in oracle.FAMILIES if f is not oracle.overflowing])
@dtypes
@pytest.mark.parametrize("n", [2, 10, 600])
@pytest.mark.parametrize("weight", [1, 100])
def test_1_oracle_for_soft_targets(family, dtype, n, weight):
    x, _ = draw(family, dtype, n, 4)
    y = weight * np.random.default_rng(12).dirichlet(np.ones(n), 4).T
    losses = logitcrossentropy(x, y, agg="none")
    gradient = logitcrossentropy_grad(x, y, agg="none")
    with mp.workdps(oracle.DIGITS):
        for j in range(4):
            exact = oracle.exact(x[:, j], 0)
            targets = [mpf(v) for v in y[:, j]]
            loss = mp.fsum(-t * logp for t, logp in zip(targets, exact.logsoftmax, strict=True))
            assert_claim(losses[j], loss, dtype, f"soft loss, sample {j}")
            # Where p is close to its target digits cancel: only the absolute error is small.
            total = mp.fsum(targets)
            for got, t, p in zip(gradient[:, j], targets, exact.softmax, strict=True):
                value = total * p - t
                units = 0.51 if dtype == np.float32 else 3
                slack = units * oracle.ulp(value, dtype) + max(1, total) * mpf(2) ** -50
                assert abs(mpf(float(got)) - value) <= slack


@dtypes
def test_1_a_weighted_one_hot_target_is_as_exact_as_a_label(dtype):
    x, y = draw(oracle.dominant, dtype, 5, 50)
    weighted = np.zeros((5, 50), dtype)
    weighted[y, np.arange(50)] = 4  # a power of two, so that both sides round alike
    loss, gradient = logitcrossentropy_and_grad(x, weighted, agg="none")
    expected, expected_gradient = logitcrossentropy_and_grad(x, y, agg="none")
    np.testing.assert_array_max_ulp(loss, 4 * expected, maxulp=2)
    np.testing.assert_array_max_ulp(gradient, 4 * expected_gradient, maxulp=3)


def units(values):
    """Return the sum of the units in the last place of ``values``."""
    return math.fsum(np.spacing(np.abs(values[values != 0])).astype(float).tolist())


@families
@dtypes
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_2_probabilities_sum_to_one_and_gradients_to_zero(family, dtype, n):
    x, y = draw(family, dtype, n, 20)
    p, g = softmax(x), logitcrossentropy_grad(x, y, agg="none")
    for j in range(x.shape[1]):
        slack = max(CLAIM[dtype], 0.51)
        lost = n * float(np.finfo(dtype).smallest_subnormal)  # entries that rounded to 0
        assert abs(math.fsum([*p[:, j].tolist(), -1])) <= slack * units(p[:, j]) + lost
        assert abs(math.fsum(g[:, j].tolist())) <= slack * units(g[:, j]) + lost


@dtypes
def test_3_a_common_shift_changes_no_bit(dtype):
    rng = np.random.default_rng(3)
    x = np.asfortranarray(rng.integers(-(2**9), 2**9, (10, 200)).astype(dtype) / 64)
    c = (rng.integers(-(2**15), 2**15, 200) / 64).astype(dtype)
    assert (x.astype(np.longdouble) + c == x + c).all()
    y = rng.integers(10, size=200)
    shifted = all_results(x + c, y)
    for name, values in all_results(x, y).items():
        np.testing.assert_array_equal(values, shifted[name], err_msg=name)


@families
@dtypes
def test_4_permuting_the_classes_permutes_the_results(family, dtype):
    x, y = draw(family, dtype, 10, 2000)
    order = np.random.default_rng(4).permutation(10)
    place = np.argsort(order)
    permuted = all_results(np.asfortranarray(x[order]), place[y])
    for name, values in all_results(x, y).items():
        back = permuted[name] if name == "loss" else permuted[name][place]
        np.testing.assert_array_max_ulp(back, values, maxulp=1)
        if dtype == np.float32:
            assert (back == values).all(axis=0).mean() >= 0.999, name


def neighbours(dtype, samples=500):
    """Return sorted columns with one large logit and many that are adjacent numbers."""
    rng = np.random.default_rng(5)
    depth = rng.choice([1.0, 30.0, oracle.reach(dtype)], samples)
    first = -rng.uniform(0, depth, (20, samples)).astype(dtype)
    second = np.nextafter(first, dtype(0))
    third = np.nextafter(second, dtype(0))
    return np.sort(np.concatenate([first, second, third, np.ones((1, samples), dtype)]), axis=0)


@dtypes
@pytest.mark.parametrize("family", [*oracle.FAMILIES, neighbours], ids=lambda f: f.__name__)
def test_5_order(family, dtype):
    x = neighbours(dtype) if family is neighbours else draw(family, dtype, 33, 100)[0]
    x = np.sort(x, axis=0)
    same = np.diff(x, axis=0) == 0
    p, logp = softmax(x), logsoftmax(x)
    assert (p <= 1).all() and (logp <= 0).all()
    for values, units in ((p, ORDER_UNITS[dtype]), (logp, 0)):
        below, above = values[:-1], values[1:]
        np.testing.assert_array_equal(below[same], above[same])
        bound = above + units * np.spacing(above) if units else above
        assert (below <= bound).all()
    losses = logitcrossentropy(x, np.full(x.shape[1], len(x) - 1), agg="none")
    assert (losses >= 0).all() and not np.signbit(losses).any()


@dtypes
def test_6_a_confident_sample_keeps_its_loss_and_gradient(dtype):
    gap = np.arange(0, int(oracle.reach(dtype)), 0.25)
    x = np.asfortranarray(np.stack([gap, np.zeros_like(gap), -np.ones_like(gap)]).astype(dtype))
    losses = logitcrossentropy(x, np.zeros(gap.size, int), agg="none")
    g = logitcrossentropy_grad(x, np.zeros(gap.size, int), agg="none")
    assert (losses > 0).all() and (g[0] < 0).all()
    unit = np.spacing(np.abs(g)).sum(axis=0)
    assert (np.abs(g.astype(np.longdouble).sum(axis=0)) <= CLAIM[dtype] * 1.02 * unit).all()


@families
@dtypes
def test_7_the_results_agree_with_each_other(family, dtype):
    x, y = draw(family, dtype, 10, 300)
    losses = logitcrossentropy(x, y, agg="none")
    picked = -logsoftmax(x)[y, np.arange(y.size)]
    np.testing.assert_array_max_ulp(losses, picked, maxulp=1)
    for agg in ("mean", "sum", "none"):
        loss, gradient = logitcrossentropy_and_grad(x, y, agg=agg)
        np.testing.assert_array_equal(loss, logitcrossentropy(x, y, agg=agg))
        np.testing.assert_array_equal(gradient, logitcrossentropy_grad(x, y, agg=agg))
    for j in range(5):
        assert logitcrossentropy(x[:, j : j + 1], y[j : j + 1]) == losses[j]


@dtypes
def test_7_the_mean_of_60000_losses(dtype):
    x, y = draw(oracle.ordinary, dtype, 10, 60_000)
    # The exact sum of the losses before rounding, which float64 input gives.
    losses = logitcrossentropy(x.astype(np.float64), y, agg="none")
    exact = mpf(math.fsum(losses.tolist())) / 60_000
    assert_claim(logitcrossentropy(x, y), exact, dtype, "mean of 60000")


def layouts(x):
    """Yield the same matrix in other memory layouts, each with its name."""
    yield "C order", np.ascontiguousarray(x)
    yield "Fortran order", np.asfortranarray(x)
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    yield "strided", wide[::2, ::3]
    yield "reversed", x[::-1, ::-1].copy()[::-1, ::-1]
    yield "byte-swapped", x.astype(x.dtype.newbyteorder())
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen


@families
@dtypes
@pytest.mark.parametrize("n", [10, 600])
def test_8_memory_order_and_batch_size_change_nothing(family, dtype, n):
    x, y = draw(family, dtype, n, 120)
    expected = all_results(x, y)
    for layout, view in layouts(x):
        before = view.copy()
        for name, values in all_results(view, y).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=f"{name}, {layout}")
            assert values.dtype == dtype
        np.testing.assert_array_equal(view, before)
    del expected["mean gradient"]  # it divides by the size of the batch
    for j in range(0, 120, 40):
        alone = all_results(x[:, j : j + 1], y[j : j + 1])
        for name, values in expected.items():
            np.testing.assert_array_max_ulp(alone[name][..., 0], values[..., j], MAX_APART[dtype])


@dtypes
@pytest.mark.parametrize("n", [3, 600])
def test_8_blocks_change_nothing(dtype, n, monkeypatch):
    x, y = draw(oracle.mixed, dtype, n, 100)
    soft = np.random.default_rng(8).dirichlet(np.ones(n), 100).T
    expected = all_results(x, y) | {"soft": logitcrossentropy_grad(x, soft)}
    monkeypatch.setattr("npsoftmax.functional._compensated.BLOCK_ELEMENTS", 7 * n)
    in_blocks = all_results(x, y) | {"soft": logitcrossentropy_grad(x, soft)}
    for name, values in in_blocks.items():
        np.testing.assert_array_max_ulp(values, expected[name], MAX_APART[dtype])
    cube = x.T.reshape(4, 25, n).transpose(0, 2, 1)
    in_blocks = softmax(cube, axis=1).transpose(0, 2, 1).reshape(100, n).T
    np.testing.assert_array_max_ulp(in_blocks, expected["softmax"], MAX_APART[dtype])


SPECIAL = [
    # column, softmax, logsoftmax, logsumexp, then loss and gradient for label 0
    ([INF, 0, 1], [1, 0, 0], [0, -INF, -INF], INF, 0, [0, 0, 0]),
    ([0, INF, 1], [0, 1, 0], [-INF, 0, -INF], INF, INF, [-1, 1, 0]),
    ([INF, 0, INF], [0.5, 0, 0.5], [-np.log(2), -INF, -np.log(2)], INF, np.log(2), [-0.5, 0, 0.5]),
    ([-INF, 0, 0], [0, 0.5, 0.5], [-INF, -np.log(2), -np.log(2)], np.log(2), INF, [-1, 0.5, 0.5]),
    ([0, -INF, -INF], [1, 0, 0], [0, -INF, -INF], 0, 0, [0, 0, 0]),
    ([-INF, INF, 0], [0, 1, 0], [-INF, 0, -INF], INF, INF, [-1, 1, 0]),
    ([-INF, -INF, -INF], [NAN] * 3, [NAN] * 3, -INF, NAN, [NAN] * 3),
    ([NAN, 0, 1], [NAN] * 3, [NAN] * 3, NAN, NAN, [NAN] * 3),
    ([0, NAN, INF], [NAN] * 3, [NAN] * 3, NAN, NAN, [NAN] * 3),
    ("largest", [0.5, 0, 0.5], [-np.log(2), -INF, -np.log(2)], None, np.log(2), [-0.5, 0, 0.5]),
    ("smallest", [0, 1, 0], [-INF, 0, -INF], None, INF, [-1, 1, 0]),
]


def special_column(column, dtype):
    big = float(np.finfo(dtype).max)
    named = {"largest": [big, -big, big], "smallest": [-big, big, -big]}
    return named.get(column, column) if isinstance(column, str) else column


@dtypes
@pytest.mark.parametrize(("column", "p", "logp", "total", "loss", "gradient"), SPECIAL)
def test_9_special_values_stay_in_their_column(dtype, column, p, logp, total, loss, gradient):
    x, y = draw(oracle.ordinary, dtype, 3, 9)
    before = all_results(x, y)
    x[:, 4], y[4] = special_column(column, dtype), 0
    after = all_results(x, y)
    expected = {"softmax": p, "logsoftmax": logp, "loss": loss, "gradient": gradient}
    expected["mean gradient"] = np.array(gradient) / 9
    for name, values in after.items():
        others = np.arange(9) != 4
        np.testing.assert_array_equal(values[..., others], before[name][..., others], name)
        wanted = np.array(expected[name], dtype)
        np.testing.assert_allclose(values[..., 4], wanted, rtol=np.finfo(dtype).eps, err_msg=name)
    if total is not None:
        np.testing.assert_allclose(logsumexp(x, axis=0)[4], dtype(total), rtol=np.finfo(dtype).eps)
    # Soft targets that are multiples of a one-hot column.
    soft = np.zeros((3, 9))
    soft[y, np.arange(9)] = 2
    halved = logitcrossentropy(x, soft, agg="none")[4] / 2
    np.testing.assert_allclose(halved, dtype(loss), rtol=4 * np.finfo(dtype).eps)


@families
@dtypes
def test_10_nothing_warns_or_raises(family, dtype):
    x, y = draw(family, dtype, 10, 50)
    x[3, ::7], x[5, ::11], x[:, 13] = INF, -INF, -INF
    soft = np.full(x.shape, 0.1)

    def everything():
        loss, gradient = logitcrossentropy_and_grad(x, soft)
        return all_results(x, y) | {"lse": logsumexp(x, axis=0), "soft": gradient, "mean": loss}

    with np.errstate(all="ignore"):
        expected = everything()
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        got = everything()
    for name, values in got.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


DIGEST = """
import hashlib, sys
import numpy as np
from npsoftmax.functional import softmax, logsoftmax, logitcrossentropy_and_grad
for dtype in ("float32", "float64"):
    rng = np.random.default_rng(11)
    # ldexp, because np.power has different bits at each level, which are not tested here.
    x = np.ldexp(rng.standard_normal((10, 100_000)), rng.integers(-3, 7, 100_000))
    x, y = x.astype(dtype, order="F"), rng.integers(10, size=100_000)
    loss, gradient = logitcrossentropy_and_grad(x, y, agg="none")
    values = np.concatenate([a.ravel("F") for a in (softmax(x), logsoftmax(x), loss, gradient)])
    if dtype == "float32":
        print(hashlib.sha256(values.tobytes()).hexdigest())
    else:
        print(hashlib.sha256(np.exp(-np.abs(x)).tobytes()).hexdigest())
        np.save(sys.argv[1], values)
"""


def simd_levels():
    """Return lists of NumPy's SIMD features to disable: none, the widest, all optional ones."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    present = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    widest = [name for name in present if "512" in name or name == "X86_V4"]
    return [level for level in ([], widest, present) if level or level == []]


def test_11_every_simd_level_gives_the_same_bits(tmp_path):
    levels = simd_levels()
    if not any(levels):
        pytest.skip("NumPy has no optional SIMD features on this processor")
    digests, found = [], []
    for number, disabled in enumerate(levels):
        file = tmp_path / f"{number}.npy"
        environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(disabled)}
        command = [sys.executable, "-W", "ignore", "-c", DIGEST, str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digest, exponential = done.stdout.split()
        digests.append(digest)
        found.append((exponential, np.load(file)))
    assert len(set(digests)) == 1, levels
    for (exponential, values), (other, expected) in combinations(found, 2):
        # np.exp is a different one with AVX-512; then each is within 2 units of the exact value.
        np.testing.assert_array_max_ulp(values, expected, maxulp=1 if exponential == other else 4)
