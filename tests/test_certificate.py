"""What is certified, against the optimum in extended precision, and faults that this notices."""

import inspect

import numpy as np
import pytest
from certified_problems import (
    Case,
    Findings,
    check,
    check_drawn,
    draw,
    hardest,
    new_samples,
    points,
)
from mpmath import mp, mpf
from optimum_oracle import HAS_EXTENDED, LD, Problem, optimum

import npsoftmax as nps
from npsoftmax import certificate
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.objective import duality, full_batch, reach

pytestmark = pytest.mark.skipif(not HAS_EXTENDED, reason="longdouble has no more digits here")


def overlapping(k=3, d=2, n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d, n)), np.r_[np.arange(k), rng.integers(0, k, n - k)]


# The oracle itself.


def newton_step_of_40_digits(problem, theta):
    """Return the step from parameters whose last bias is held, in mpmath."""
    k, d = problem.k, len(problem.X)
    n = problem.y.size
    weights = np.ones(n) if problem.weights is None else problem.weights
    total = mp.fsum(mpf(float(w)) for w in weights)
    size = k * (d + 1) - 1
    gradient, H = mp.zeros(size, 1), mp.zeros(size, size)
    for j in range(n):
        a = [mpf(float(x)) for x in problem.X[:, j]] + [mpf(1)]
        e = [mp.exp(mp.fdot(row, a)) for row in theta]
        p, v = [x / mp.fsum(e) for x in e], mpf(float(weights[j])) / total
        for row in range(size):
            c, i = divmod(row, d + 1)
            gradient[row] += v * (p[c] - (c == problem.y[j])) * a[i]
            for column in range(size):
                other, m = divmod(column, d + 1)
                H[row, column] += v * p[c] * ((c == other) - p[other]) * a[i] * a[m]
    for row in range(size):
        c, i = divmod(row, d + 1)
        if i < d:
            penalty = mpf(float(problem.penalties[i]))
            gradient[row] += penalty * theta[c][i]
            H[row, row] += penalty
    return [*mp.lu_solve(H, -gradient), mpf(0)]


def as_mpf(number):
    """Return a longdouble exactly."""
    high = float(number)
    return mpf(high) + mpf(float(number - LD(high)))


@pytest.mark.parametrize("l2", [1e-8, 1e-3, 10])
def test_the_oracle_agrees_with_40_digits(l2):
    X, y = overlapping()
    X[:, y == 2] += 1e3 * (l2 == 1e-3)
    exact = optimum(Problem(X, y, 3, l2, np.linspace(0.1, 3, y.size)))
    b = exact.phi[:, -1] - exact.W @ exact.mean
    with mp.workdps(40):
        rows = [[as_mpf(x) for x in row] for row in np.column_stack([exact.W, b - b[-1]])]
        for _ in range(2):
            step = newton_step_of_40_digits(exact.problem, rows)
            rows = [
                [x + change for x, change in zip(row, step[3 * c : 3 * c + 3], strict=True)]
                for c, row in enumerate(rows)
            ]
        logits = [[mp.fdot(row, [*map(mpf, map(float, x)), mpf(1)]) for row in rows] for x in X.T]
        differences = [[as_mpf(z) for z in column] for column in (exact.logits(X)).T]
        errors = [
            abs((a[0] - a[c]) - (z[0] - z[c]))
            for a, z in zip(logits, differences, strict=True)
            for c in (1, 2)
        ]
    assert max(abs(change) for change in step) < mpf(10) ** -25
    assert float(max(errors)) <= float(exact.uncertainty(X).max()) < 1e-11
    assert float(max(errors)) < 1e-13


@pytest.mark.parametrize("seed", range(8))
def test_another_step_of_the_oracle_changes_nothing(seed):
    exact = optimum(draw(np.random.default_rng(seed)).problem)
    logits = exact.phi @ exact.A.T
    assert np.abs(exact.step @ exact.A.T).max() <= 1e-13 * max(1, np.abs(logits).max())


# The claims.


def checked(seeds):
    found = Findings()
    for seed in seeds:
        check_drawn(seed, found)
    return found


@pytest.mark.parametrize("start", range(0, 120, 15))
def test_what_is_certified_is_true(start):
    found = checked(range(start, start + 15))
    assert not found.wrong, "\n".join(found.wrong)
    assert found.checked["final predictions"] > found.checked["predictions"] / 4


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 10_000, 250))
def test_what_is_certified_is_true_of_ten_thousand_problems(start):
    found = checked(range(start, start + 250))
    assert not found.wrong, "\n".join(found.wrong)


def test_bounds_are_close_to_the_truth():
    # The features are constant, so two biases are all, and the bound is an equation.
    X, y = np.zeros((1, 4)), np.array([0, 1, 0, 1])
    moved = nps.certify(np.zeros((2, 1)), [1e-4, -1e-4], X, y, 0.1, [[0.0]])
    assert 1 <= moved.gap / (np.log(np.cosh(1e-4))) < 1.00001
    _, bounds = full_batch.FullBatch(X, y, 0.1).reach(np.array([[0.0, 1e-4], [0.0, -1e-4]]))
    assert 2e-4 <= bounds.changes(np.zeros((1, 1)), np.array([0]))[1, 0] < 2.0003e-4


# Faults that the checks above notice.


def with_fault(monkeypatch, module, right, wrong):
    """Use a module in which an expression is another one."""
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{module.__name__} has no longer one {right!r}"
    names = {**module.__dict__}
    exec(compile(source.replace(right, wrong), module.__file__, "exec"), names)
    for name in ("reach_of", "duality_gap", "cost_of_absent", "certify_theta"):
        if getattr(module, name, None) and names[name].__module__ == module.__name__:
            user = certificate if module is certificate else full_batch
            monkeypatch.setattr(user, name, names[name])


FAULTS = {
    "no distance from the centres": (
        reach,
        "lengths = np.sqrt(squares + own)",
        "lengths = 0 * np.sqrt(squares + own)",
    ),
    "no spread of the other rows": (
        reach,
        " + self.spreads[:, None] + self.spreads[labels]\n",
        "\n",
    ),
    "no resistance": (reach, "* self.resistances[:, labels]", "* 0.0"),
    "the curvature does not fall": (reach, "inflation=_inflation(reach, samples)", "inflation=1.0"),
    "the range from one distance only": (
        reach,
        "math.sqrt(2 * farthest) + 2 *",
        "0 * math.sqrt(farthest) + 0 *",
    ),
    "no divergence": (duality, "Gap(found.divergence, square,", "Gap(0.0, square,"),
    "no square": (duality, "Gap(found.divergence, square,", "Gap(found.divergence, 0.0,"),
    "half of the gap": (reach, "return (1 + SLACK) * (math", "return 0.5 * (math"),
    "no rounding errors of the gap": (reach, "+ of_bias + of_gradient) ** 2", ") ** 2"),
    "resistances as a difference of squares": (
        reach,
        "is_solved = k * error",
        "roots = np.sqrt(own)[:, None] * weights\n"
        "    squares = np.einsum('ij,ij->j', roots, roots)\n"
        "    resistances = np.maximum(squares + squares[:, None] - 2 * roots.T @ roots, 0.0)\n"
        "    is_solved = k * error",
    ),
    "classes without samples may be final": (
        certificate,
        "reserve[present[labels] != predicted] = 0.0",
        "pass",
    ),
    "classes without samples cost nothing": (
        duality,
        "return loss + penalty_at(",
        "return 0 * penalty_at(",
    ),
    "weights of classes without samples": (certificate, "(reach.gap + absent)", "reach.gap"),
}


def families(rng):
    """Yield problems in which one term after the other is the largest."""
    for _ in range(8):
        yield draw(rng)
    y = np.array([0, 1, 0, 1, 2])
    # The penalty holds the weights: far from the samples distance is all that counts.
    yield Case(Problem(X := 0.01 * rng.standard_normal((1, 5)), y, 3, 10.0), X)
    # The biases are all that there is.
    yield Case(Problem(X := np.zeros((1, 4)), y[:4], 2, 0.1), X)
    # A class is rare.
    weights = np.array([1, 1, 1, 1, 1e-7])
    yield Case(Problem(X := 0.01 * rng.standard_normal((1, 5)), y, 3, 1.0, weights), X)
    # The samples of a class are far from the others, whose mean is not that of all.
    X = np.where(y == 2, 30.0, 0.1 * rng.standard_normal((2, 5)))
    yield Case(Problem(X, y, 3, 1e-5), X)
    # A class has no samples.
    X = rng.standard_normal((2, 5))
    yield Case(Problem(X, 2 * (y % 2), 3, 0.1), X)


def found_in_families(seed):
    rng, found = np.random.default_rng(seed), Findings()
    for number, case in enumerate(families(rng)):
        exact = optimum(case.problem)
        samples = new_samples(rng, exact)
        problem = full_batch.FullBatch(**case.arguments)
        for name, theta in points(rng, case, exact):
            check(case, exact, theta, samples, f"family {number}, {name}", found)
        if exact.problem.present.size < 2:
            continue
        theta = exact.theta
        theta[np.setdiff1d(np.arange(case.problem.k), case.problem.present), -1] = 100
        check(case, exact, theta, samples, f"family {number}, an absent class", found)
        # At the centre of a class, the distance from it is 0.
        _, bounds = problem.reach(exact.theta)
        centres = ((bounds.centres + bounds.units.mean) / bounds.units.factors).T
        for x in (*centres.T[:3], *samples.T[-3:]):
            theta = hardest(rng, exact, exact.theta, x)
            here = np.column_stack([x, samples])
            check(case, exact, theta, here, f"family {number}, hardest", found)
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(monkeypatch, fault):
    with_fault(monkeypatch, *FAULTS[fault])
    assert any(found_in_families(seed).wrong for seed in range(6))


def test_nothing_is_noticed_without_a_fault():
    found = [found_in_families(seed).wrong for seed in range(2)]
    assert not any(found), found


def test_each_other_class_counts():
    # The second logit is held by more than the third, which is the only one that may lead.
    costs = np.array([[0, 1, 144], [1, 0, 144], [144, 144, 0]]) * 0.0025
    units = reach.Units(np.ones(1), np.zeros(1))
    bounds = reach.Reach(0.5, units, np.zeros((3, 1)), np.zeros(3), costs, 1.0)
    theta = np.array([[0, 1.0], [0, 0.9], [0, 0.5]])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = certificate._reserve(theta, 1.0, np.arange(3), bounds, np.zeros((1, 1)))
    assert found == pytest.approx([min(0.1 / 0.05, 0.5 / 0.6)], rel=1e-5)


# Input that cannot be certified.


def certified(W=None, b=None, X=None, y=(0, 1, 2, 0), l2=0.1, **arguments):
    X = np.arange(8.0).reshape(2, 4) if X is None else X
    W = np.zeros((3, 2)) if W is None else W
    return nps.certify(W, np.zeros(len(W)) if b is None else b, X, y, l2, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"l2": 0.0}, InputError, "l2: expected a penalty > 0 .* no lower bound"),
        ({"penalty_factor": [1, 0]}, InputError, "penalty > 0 for each feature"),
        ({"W": np.zeros((3, 4))}, ShapeError, r"each of 2 features of X, got 4; pass X\.T"),
        ({"W": np.zeros((3, 5))}, ShapeError, "each of 2 features of X, got 5$"),
        ({"W": np.zeros(2), "b": np.zeros(1)}, ShapeError, r"\(k, d\) and \(k,\)"),
        ({"b": np.zeros(2)}, ShapeError, r"got \(3, 2\) and \(2,\)"),
        ({"b": np.zeros((1, 3))}, ShapeError, r"and \(1, 3\)"),
        ({"W": np.full((3, 2), np.nan)}, InputError, "finite numbers"),
        ({"b": np.array([0, np.inf, 0])}, InputError, "finite numbers"),
        ({"samples": np.zeros((3, 4))}, ShapeError, "2"),
        ({"W": np.zeros((2, 2))}, LabelError, r"labels 0\.\.1 for 2 rows of W, got labels up to 2"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        certified(**arguments)


@pytest.mark.parametrize("b", [np.zeros(1), np.zeros((1, 1))])
def test_a_single_row_for_two_classes_is_explained(b):
    with pytest.raises(ShapeError, match=r"np\.vstack\(\[-W, W\]\) / 2"):
        certified(np.zeros((1, 2)), b, y=(0, 1, 1, 0))


def test_the_advice_for_a_single_row_works():
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = overlapping(k=2, n=40)
    model = linear_model.LogisticRegression(C=0.5, tol=1e-12, max_iter=1000).fit(X.T, y)
    W, b = model.coef_, model.intercept_
    l2 = 1 / (0.5 * y.size)
    W, b = np.vstack([-W, W]) / 2, np.hstack([-b, b]) / 2
    found = nps.certify(W, b, X, y, 2 * l2, X)
    assert found.gap < 1e-9 and found.final.all()


def test_no_samples_and_one_class():
    found = certified()
    assert found.reserve.size == 0 and np.isnan(found.share)
    found = certified(np.ones((1, 2)), y=np.zeros(4, int), samples=np.ones((2, 3)))
    assert found.final.all() and found.radius >= np.sqrt(2)


def test_scaled_samples_are_refused_next_to_pixels():
    X = np.random.default_rng(0).integers(0, 256, (4, 60)).astype(np.uint8)
    y, W, b = np.arange(60) % 3, np.zeros((3, 4)), np.zeros(3)
    with pytest.raises(InputError, match="samples: expected samples of the dtype of X, got float"):
        nps.certify(W, b, X, y, 0.1, X / 255, scale=1 / 255)
    one, other = (
        nps.certify(W, b, X, y, 0.1, X, scale=1 / 255),
        nps.certify(W, b, X / 255, y, 0.1, X / 255),
    )
    np.testing.assert_allclose(one.reserve, other.reserve)
