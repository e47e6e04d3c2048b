"""L-BFGS: what it finds, how it steps, what it records, and how it resumes."""

from copy import copy, deepcopy
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npsoftmax.errors import DivergedError, InputError
from npsoftmax.lbfgs import (
    CURVATURE,
    MEMORY,
    SUFFICIENT_DECREASE,
    Iteration,
    State,
    _between,
    _dot,
    _Line,
    _Point,
    _search,
    iterate,
    minimise,
)

HESSIAN = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 10.0]])
MINIMUM = np.array([1.0, -2.0, 3.0])


def quadratic(x):
    """Be 7 at the minimum."""
    change = x - MINIMUM
    return float(change @ HESSIAN @ change / 2 + 7), HESSIAN @ change


def rosenbrock(x):
    across, along = x[1] - x[0] ** 2, 1 - x[0]
    grad = [-400 * x[0] * across - 2 * along, 200 * across]
    return float(100 * across**2 + along**2), np.array(grad, x.dtype)


def quartic(x):
    return float(((x - 3) ** 4).sum(dtype=np.float64)), 4 * (x - 3) ** 3


def inverse(anchor):
    """Precondition the quadratic, wherever it is."""
    return lambda grad: np.linalg.solve(HESSIAN, grad)


def near_rosenbrock(anchor):
    """Return the inverse of Rosenbrock's Hessian at the minimum."""
    matrix = np.linalg.inv([[802.0, -400.0], [-400.0, 200.0]])
    return lambda grad: matrix @ grad


class Counted:
    """A function that remembers where it was evaluated."""

    def __init__(self, function):
        self.function, self.points = function, []

    def __call__(self, x):
        self.points.append(x.copy())
        return self.function(x)


START = np.array([-1.2, 1.0])
PRECONDITIONERS = [None, near_rosenbrock]


# What it finds.


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_minimum_of_any_quadratic(seed, size):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((size, size))
    A = A @ A.T + np.eye(size)
    solution, start = rng.standard_normal((2, size)) * 3

    def value_and_grad(x):
        return float((x - solution) @ A @ (x - solution) / 2), A @ (x - solution)

    x, history, reason = minimise(value_and_grad, start, tol=1e-10)
    assert reason == "converged" and history[-1].max_gradient <= 1e-10
    assert all(line.max_gradient > 1e-10 for line in history[:-1])
    np.testing.assert_allclose(x, solution, rtol=0, atol=1e-9)


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_the_minimum_of_rosenbrock(preconditioner):
    x, history, reason = minimise(rosenbrock, START, preconditioner=preconditioner, tol=1e-9)
    assert reason == "converged" and len(history) < 60
    np.testing.assert_allclose(x, [1, 1], rtol=1e-8)


def test_float32_stays_float32():
    function = Counted(quartic)
    x, _, reason = minimise(function, np.zeros(4, np.float32), tol=1e-5)
    assert reason == "converged" and x.dtype == np.float32
    assert {point.dtype for point in function.points} == {np.dtype(np.float32)}
    np.testing.assert_allclose(x, 3, atol=(1e-5 / 4) ** (1 / 3))


def test_a_number_without_dimensions():
    x, _, reason = minimise(lambda x: (float((x - 3) ** 2), 2 * (x - 3)), np.array(1.0))
    assert reason == "converged" and x == pytest.approx(3)


def test_with_the_inverse_hessian_a_quadratic_takes_one_iteration():
    x, history, reason = minimise(quadratic, np.zeros(3), preconditioner=inverse, tol=1e-9)
    assert reason == "converged" and history[1:] == [(1, 7.0, history[1].max_gradient, 1.0, 2)]
    np.testing.assert_allclose(x, MINIMUM, rtol=1e-14)


# How it steps.


def steps(function, start, **settings):
    """Yield point, value and gradient before and after each iteration, and the record."""
    before = None
    for state in iterate(function, start, **settings):
        if state.history[-1].max_gradient <= 1e-7 or len(state.history) > 200:
            return
        after = state.x, state.value, state.grad
        if before is not None:
            yield before, after, state.history[-1]
        before = after


@pytest.mark.parametrize(
    ("function", "start", "preconditioner"),
    [
        (quadratic, np.zeros(3), None),
        (rosenbrock, START, None),
        (rosenbrock, START, near_rosenbrock),
        (quartic, np.array([-30.0, 100.0]), None),
        (lambda x: (float(np.log1p(x @ x)), 2 * x / (1 + x @ x)), np.array([30.0, 4.0]), None),
    ],
)
def test_each_step_satisfies_the_strong_wolfe_conditions(function, start, preconditioner):
    count = 0
    for before, after, _ in steps(function, start, preconditioner=preconditioner):
        (x0, value0, grad0), (x1, value1, grad1) = before, after
        slope, new_slope = grad0 @ (x1 - x0), grad1 @ (x1 - x0)
        assert slope < 0
        noise = 1e-15 * abs(value0)
        assert value1 <= value0 + SUFFICIENT_DECREASE * slope * (1 - 1e-6) + noise
        assert abs(new_slope) <= CURVATURE * abs(slope) * (1 + 1e-6)
        count += 1
    assert count >= 2


def bfgs_inverse(initial, pairs):
    """Return Nocedal and Wright's equation (6.17), pair after pair."""
    H, identity = initial, np.eye(len(initial))
    for s, y in pairs:
        left = identity - np.outer(s, y) / (s @ y)
        H = left @ H @ left.T + np.outer(s, s) / (s @ y)
    return H


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_direction_is_that_of_the_bfgs_matrix(count, preconditioned):
    rng = np.random.default_rng(count)
    pairs = [(s, HESSIAN @ s + 0.1 * s**3) for s in rng.standard_normal((count, 3))]
    s, y = pairs[-1]
    initial = np.diag([0.5, 2.0, 0.1]) if preconditioned else np.eye(3) * (s @ y) / (y @ y)
    value, grad = quadratic(np.zeros(3))
    state = State(np.zeros(3), grad, [Iteration(0, value, 1.0, 0.0, 1)], list(pairs))
    solve = (lambda anchor: lambda grad: initial @ grad) if preconditioned else None
    states = iterate(quadratic, state, preconditioner=solve)
    next(states), next(states)
    np.testing.assert_allclose(
        state.x, -state.history[-1].step * (bfgs_inverse(initial, pairs) @ grad), rtol=1e-13
    )


def test_without_preconditioner_the_first_step_is_tried_at_length_one():
    plain, identity = Counted(quadratic), Counted(quadratic)
    next(states := iterate(plain, np.zeros(3))), next(states)
    next(states := iterate(identity, np.zeros(3), preconditioner=lambda _: np.copy)), next(states)
    assert np.linalg.norm(plain.points[1]) == pytest.approx(1, rel=1e-15)
    np.testing.assert_allclose(identity.points[1], -quadratic(np.zeros(3))[1], rtol=1e-15)
    along = identity.points[1] / np.linalg.norm(identity.points[1])
    np.testing.assert_allclose(plain.points[1], along, rtol=1e-14)


def test_pairs_are_the_last_steps_and_changes_of_the_gradient():
    points = []
    for state in iterate(rosenbrock, START):
        points.append((state.x, state.grad))
        if len(points) > 15:
            break
    assert len(state.pairs) == MEMORY
    for (s, y), before, after in zip(
        state.pairs, points[-MEMORY - 1 :], points[-MEMORY:], strict=False
    ):
        np.testing.assert_array_equal(s, after[0] - before[0])
        np.testing.assert_array_equal(y, after[1] - before[1])


def test_states_can_be_kept():
    states = list(islice(iterate(rosenbrock, START), 9))
    assert [state.history[-1].iteration for state in states] == list(range(9))
    for state in states:
        assert (state.value, len(state.pairs)) == (rosenbrock(state.x)[0], len(state.history) - 1)


def test_a_pair_of_the_wrong_curvature_is_not_kept():
    # Along a straight line downwards the gradient never changes: s'y = 0.
    states = iterate(lambda x: (float(-x.sum()), -np.ones(2)), np.zeros(2))
    next(states)
    assert next(states).pairs == []


def test_a_memory_that_leads_nowhere_is_forgotten():
    # H is 1e-30: no step along -H g changes x.
    useless = [(np.full(3, 1e-30), np.ones(3))]
    value, grad = quadratic(np.ones(3))
    function = Counted(quadratic)
    state = State(np.ones(3), grad, [Iteration(4, value, 1.0, 0.0, 9)], useless)
    states = iterate(function, state)
    next(states), next(states)
    assert state.value < value and len(state.pairs) == 1
    assert np.abs(state.pairs[0][0]).max() > 1e-3
    assert state.history[-1].evaluations == 9 + len(function.points)


# Why it ends.


def test_reasons():
    def reason(**settings):
        return minimise(quartic, np.zeros(2), **settings).reason

    assert reason() == "converged"
    assert reason(max_iterations=2) == "iterations"
    assert reason(callback=lambda state: state.history[-1].iteration == 3) == "stopped"
    # exp(log 3) is not 3: no point has a gradient of 0.
    x, _, reason_without_tol = minimise(
        lambda x: (float((np.exp(x) - 3 * x).sum()), np.exp(x) - 3), np.zeros(2), tol=0
    )
    assert reason_without_tol == "rounding"
    np.testing.assert_allclose(x, np.log(3), rtol=1e-15)


def test_rounding_of_values_does_not_hide_a_descent():
    """The value can fall by 1e-9, which is lost next to 1e8: the slope decides."""

    def function(x):
        return float(((x - 3) ** 2).sum()) + 1e8, 2 * (x - 3)

    x, _, reason = minimise(function, np.array([3 + 1e-5, 3 - 3e-5]), tol=1e-12)
    assert reason == "converged"
    np.testing.assert_allclose(x, 3, rtol=0, atol=1e-12)


def test_without_progress_it_ends_after_twenty_iterations():
    lines = [Iteration(i, 2.0 - (i == 0), 1.0, 1.0, i + 1) for i in range(21)]
    state = State(np.zeros(1), np.ones(1), lines)
    assert state.rounding_is_reached()
    assert not State(np.zeros(1), np.ones(1), lines[:-1]).rounding_is_reached()
    for better in (lines[-1]._replace(value=0.5), lines[-1]._replace(max_gradient=0.5)):
        assert not State(np.zeros(1), np.ones(1), [*lines[:-1], better]).rounding_is_reached()


def test_at_the_minimum_nothing_is_done():
    function = Counted(quadratic)
    result = minimise(function, MINIMUM, tol=0, callback=lambda state: True)
    assert result.reason == "converged" and len(function.points) == len(result.history) == 1
    result = minimise(quadratic, np.zeros(3), max_iterations=0)
    assert result.reason == "iterations" and not result.x.any()
    assert len(list(iterate(quadratic, MINIMUM))) == 1


@pytest.mark.parametrize(("dtype", "small"), [(np.float32, 1e-25), (np.float64, 1e-180)])
def test_a_gradient_whose_square_underflows(dtype, small):
    def function(x):
        return float((x.astype(np.float64) ** 2).sum()), 2 * x

    result = minimise(function, np.full(2, small, dtype), tol=0)
    assert result.reason in ("converged", "rounding")
    assert np.abs(result.x).max() <= small


def test_a_gradient_whose_square_overflows():
    def function(x):
        return float((x.astype(np.float64) ** 2).sum() * 1e20), (2e20 * x).astype(np.float32)

    result = minimise(function, np.ones(2, np.float32), tol=1e14)
    assert result.reason == "converged"


# What it tells.


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_the_callback_comes_once_an_iteration(preconditioner):
    seen, function = [], Counted(rosenbrock)

    def callback(state):
        value, grad = rosenbrock(state.x)
        last = state.history[-1]
        assert (value, np.abs(grad).max()) == (last.value, last.max_gradient)
        assert last.value == state.value and last.evaluations == len(function.points)
        assert last.step > 0
        np.testing.assert_array_equal(grad, state.grad)
        seen.append(last)

    result = minimise(function, START, preconditioner=preconditioner, callback=callback)
    assert result.history[1:] == seen
    assert [line.iteration for line in result.history] == list(range(len(result.history)))
    value, grad = rosenbrock(START)
    assert result.history[0] == (0, value, np.abs(grad).max(), 0.0, 1)
    assert result.history[-1].evaluations == len(function.points)


def test_a_callback_is_not_called_again_for_the_state_to_resume_from():
    states = []
    minimise(rosenbrock, START, callback=lambda state: states.append(deepcopy(state)))
    seen = []
    minimise(rosenbrock, states[4], callback=lambda state: seen.append(state.history[-1].iteration))
    assert seen == list(range(6, len(states) + 1))


# How it resumes.


@pytest.mark.parametrize("duplicate", [copy, deepcopy])
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_it_resumes_bit_for_bit(preconditioner, duplicate):
    anchors = []

    def remembering(anchor):
        anchors.append(anchor)
        # It depends on the anchor, as a true one does.
        return lambda grad: near_rosenbrock(anchor)(grad) * (1 + anchor[0] ** 2 / 100)

    settings = {"preconditioner": preconditioner and remembering, "tol": 1e-9}
    held = []

    def hold(state):
        held.append(duplicate(state))
        held[-1].history, held[-1].pairs = list(state.history), list(state.pairs)

    x, history, reason = minimise(rosenbrock, START, callback=hold, **settings)
    assert len(held) > 5 and len(anchors) == (preconditioner is not None)
    for state in held:
        again = minimise(rosenbrock, state, **settings)
        np.testing.assert_array_equal(again.x, x)
        assert (again.history, again.reason) == (history, reason)
    assert all(np.array_equal(anchor, START) for anchor in anchors)


def test_the_limit_counts_from_the_very_start():
    held = []
    minimise(quartic, np.zeros(2), callback=lambda state: held.append(deepcopy(state)))
    function = Counted(quartic)
    result = minimise(function, held[4], max_iterations=5)
    assert (result.reason, len(result.history), function.points) == ("iterations", 6, [])
    assert len(minimise(function, held[4], max_iterations=7).history) == 8


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("preconditioner", [None, lambda anchor: lambda grad: grad / 8])
def test_shape_and_order_are_kept_and_arrays_not_written_to(order, preconditioner):
    start = np.array([[1.0, 2.0, 2.5], [4.0, 5.0, 6.0]], order=order)
    before = start.copy()
    held = []
    for state in iterate(quartic, start, preconditioner=preconditioner):
        arrays = [state.x, state.grad, *(array for pair in state.pairs for array in pair)]
        for array in arrays:
            assert array.shape == (2, 3)
            assert array.flags.f_contiguous == (order == "F")
        held += [(array, array.copy()) for array in arrays]
        if len(state.history) == 15:
            break
    np.testing.assert_array_equal(start, before)
    for array, as_it_was in held:
        np.testing.assert_array_equal(array, as_it_was)


# What it refuses, and what it can stand.


@pytest.mark.parametrize(
    ("start", "settings", "message"),
    [
        (np.zeros(2, int), {}, "start: expected an array of float32 or float64"),
        (np.zeros(2, np.float16), {}, "start: expected an array of float32 or float64"),
        (np.zeros(0), {}, "got 0 numbers of float64"),
        (np.zeros(2), {"tol": -1e-9}, "tol: expected a number of at least 0, got"),
        (np.zeros(2), {"tol": np.nan}, "tol: expected a number of at least 0, got"),
        (np.zeros(2), {"max_iterations": -1}, "max_iterations: expected a whole number of"),
        (np.zeros(2), {"max_iterations": 2.5}, "max_iterations: expected a whole number of"),
    ],
)
def test_refusals(start, settings, message):
    with pytest.raises(InputError, match=message):
        minimise(quartic, start, **settings)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (np.nan, x),
        lambda x: (-np.inf, x),
        lambda x: (1.0, np.array([1.0, np.nan])),
        lambda x: (1.0, np.array([np.inf, 1.0])),
    ],
)
def test_a_start_that_is_not_finite_is_refused(function):
    with pytest.raises(DivergedError, match="start: expected a point with finite value"):
        minimise(function, np.zeros(2))


BEYOND = {
    "nan": (np.nan, [np.nan, np.nan]),
    "inf": (np.inf, [np.nan, np.nan]),
    "-inf": (-np.inf, [np.nan, np.nan]),
    "infinite gradient": (np.inf, [np.inf, np.inf]),
    "gradient of both signs": (np.inf, [np.inf, -np.inf]),
    "value alone": (np.inf, [1.0, 1.0]),
    "gradient alone": (-5.0, [np.inf, 1.0]),
}


@pytest.mark.parametrize("start", [[-3.0, 1.0], [-3.0, 0.0]])
@pytest.mark.parametrize("beyond", BEYOND)
def test_a_function_that_ends_at_a_wall(beyond, start):
    def function(x):
        if x[0] >= 1:
            return BEYOND[beyond][0], np.array(BEYOND[beyond][1])
        return float((x[0] - 0.9) ** 2 + x[1] ** 2), np.array([2 * (x[0] - 0.9), 2 * x[1]])

    def too_far(anchor):
        return lambda grad: grad * 50

    for preconditioner in (None, too_far):
        x, history, reason = minimise(
            function, np.array(start), preconditioner=preconditioner, tol=1e-9
        )
        assert reason == "converged" and history[-1].evaluations < 60
        np.testing.assert_allclose(x, [0.9, 0], rtol=0, atol=1e-9)


def falling_exponential(x):
    with np.errstate(over="ignore"):
        exponentials = np.exp(x)
        return -float(exponentials.sum()), -exponentials


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: (-float(x.sum(dtype=np.float64)), -np.ones_like(x)),
        lambda x: (-float(np.square(x, dtype=np.float64).sum()), -2 * x),
        falling_exponential,
    ],
    ids=["linear", "quadratic", "exponential"],
)
def test_a_function_without_a_minimum_ends(function, dtype):
    result = minimise(function, np.ones(2, dtype), max_iterations=50)
    assert result.reason in ("iterations", "rounding")
    assert np.isfinite(result.x).all() and result.history[-1].value < -1e6


# The line search by itself.


def along(function, t_scale=1.0):
    """Return the line of a function of one number from 0, in units of ``t_scale``."""

    def value_and_grad(x):
        value, slope = function(float(x[0]))
        return value, np.array([slope])

    value, grad = value_and_grad(np.zeros(1))
    return _Line(value_and_grad, np.zeros(1), value, grad, np.array([t_scale]))


def assert_strong_wolfe(start, point):
    assert point.value <= start.value + SUFFICIENT_DECREASE * point.t * start.slope
    assert abs(point.slope) <= CURVATURE * abs(start.slope)


@pytest.mark.parametrize(("value", "enough"), [(5e-5, False), (-5e-5, False), (-2e-4, True)])
def test_a_decrease_must_be_sufficient(value, enough):
    """Of a slope of -1 the step may keep a ten thousandth at least."""
    line = along(lambda x: (value, 0.0) if x == 1 else (x * (x - 1), 2 * x - 1))
    point = _search(line)
    assert (point.t == 1) == enough
    assert_strong_wolfe(line.start, point)


@pytest.mark.parametrize(("units", "hidden"), [(14, True), (16, False)])
def test_where_rounding_hides_the_decrease_the_slope_decides(units, hidden):
    beyond = 1e8 + units * np.spacing(1e8)
    point = _search(along(lambda x: (beyond if x == 1 else 1e8, 1e-9 * (x - 1))))
    assert (point.t == 1) == hidden


def test_uphill_there_is_no_point():
    line = along(lambda x: ((x - 10) ** 2, 2 * (x - 10)), -1.0)
    assert _search(line) is None and line.evaluations == 0


def test_next_to_a_wall_a_lower_point_is_found():
    # Steep up to the wall at 0.3: no point satisfies the second condition.
    line = along(lambda x: (-x, -1.0) if x < 0.3 else (np.inf, np.nan))
    point = _search(line)
    assert 0.29 < point.t < 0.3 and point.value == -point.t


@given(
    st.floats(0.01, 10), st.floats(-10, 10), st.floats(-10, 10), st.floats(0.01, 10),
    st.floats(-4, 4),
)  # fmt: skip
def test_a_point_is_found_on_any_quartic(a, b, c, d, exponent):
    def function(x):
        return (((a * x + b) * x + c) * x - d) * x, ((4 * a * x + 3 * b) * x + 2 * c) * x - d

    line = along(function, 10**exponent)
    assert_strong_wolfe(line.start, _search(line))


def point(t, value, slope):
    return _Point(t, np.zeros(1), value, np.zeros(1), slope)


@given(
    st.floats(-5, 5), st.floats(0.1, 5), st.floats(-9, 9), st.floats(-9, 0), st.floats(-9, 9),
    st.booleans(),
)  # fmt: skip
def test_the_next_trial_is_well_between(t, width, rise, slope, other_slope, finite):
    low = point(t, 0.0, slope)
    high = point(t + width, rise if finite else np.inf, other_slope)
    found = _between(low, high)
    assert t + 0.1 * width - 1e-12 <= found <= t + 0.9 * width + 1e-12
    if not finite:
        assert found == pytest.approx(t + width / 2)


@given(st.floats(0.2, 0.8), st.floats(0.1, 5), st.floats(-1, 1))
def test_the_next_trial_is_the_minimum_of_a_cubic(minimum, bend, third):
    def at(t):
        x = t - minimum
        return point(t, bend * x**2 / 2 + third * x**3 / 9, bend * x + third * x**2 / 3)

    # The other stationary point lies outside of the interval.
    if bend > abs(third):
        assert _between(at(0.0), at(1.0)) == pytest.approx(minimum, rel=1e-6)


def test_scalar_products_are_summed_in_float64():
    a = np.array([1e4, 1], np.float32)
    assert _dot(a, a) == 1e8 + 1
    fortran = np.arange(6.0).reshape(2, 3).copy(order="F")
    assert _dot(fortran, np.arange(6.0).reshape(2, 3)) == 55


@pytest.mark.parametrize(("trials", "scaled"), [(1, False), (2, True)])
def test_a_preconditioner_is_scaled_once_a_step_needed_several_trials(trials, scaled):
    s, y = np.array([1.0, 2.0, 0.5]), HESSIAN @ np.array([1.0, 2.0, 0.5])
    initial = np.diag([0.5, 2.0, 0.1])
    value, grad = quadratic(np.zeros(3))
    history = [Iteration(0, value, 1.0, 0.0, 1), Iteration(1, value, 1.0, 1.0, 1 + trials)]
    state = State(np.zeros(3), grad, history, [(s, y)])
    states = iterate(quadratic, state, preconditioner=lambda anchor: lambda grad: initial @ grad)
    next(states), next(states)
    size = (s @ y) / (y @ initial @ y) if scaled else 1.0
    expected = bfgs_inverse(size * initial, [(s, y)]) @ grad
    np.testing.assert_allclose(state.x, -state.history[-1].step * expected, rtol=1e-13)
