"""Each rule by hand, and step by step against PyTorch if it is installed."""

import numpy as np
import pytest

from npsoftmax.errors import DivergedError, InputError
from npsoftmax.optimisers import (
    Adam,
    AdamW,
    ClipGrad,
    ClipNorm,
    Descent,
    Momentum,
    Nesterov,
    OptimiserChain,
    WeightDecay,
)

RULES = [
    Descent(0.1),
    Momentum(0.1, 0.9),
    Nesterov(0.1, 0.9),
    Adam(0.1),
    AdamW(0.1, lambda_=0.01),
    OptimiserChain(WeightDecay(0.01), Momentum(0.1)),
]


def quadratic_steps(rule, count=5):
    """Follow ``rule`` on ``f(theta) = sum(c * theta**2) / 2``."""
    theta, c = np.array([1.0, -2.0, 3.0]), np.array([1.0, 2.0, 0.5])
    path = []
    for _ in range(count):
        rule.update(theta, c * theta)
        path.append(theta.copy())
    return np.array(path)


def test_by_hand():
    np.testing.assert_allclose(quadratic_steps(Descent(0.5), 1), [[0.5, 0, 2.25]])
    # v1 = 0.1, theta1 = 0.9; v2 = 0.9 * 0.1 + 0.1 * 0.9 = 0.18, theta2 = 0.72
    np.testing.assert_allclose(quadratic_steps(Momentum(0.1, 0.9), 2)[:, 0], [0.9, 0.72])
    # d1 = 1.9 * 0.1; theta1 = 0.81, v = -0.1; d2 = 1.9 * 0.081 + 0.81 * 0.1
    np.testing.assert_allclose(
        quadratic_steps(Nesterov(0.1, 0.9), 2)[:, 0], [0.81, 0.81 - 0.1539 - 0.081]
    )
    np.testing.assert_allclose(quadratic_steps(Adam(0.1), 1), [[0.9, -1.9, 2.9]], rtol=1e-7)
    np.testing.assert_allclose(
        quadratic_steps(AdamW(0.1, lambda_=0.1), 1), [[0.89, -1.88, 2.87]], rtol=1e-7
    )


@pytest.mark.parametrize(
    ("rule", "name", "settings"),
    [
        (Descent(0.1), "SGD", {"lr": 0.1}),
        (Momentum(0.1, 0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
        (Nesterov(0.1, 0.9), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (Adam(0.1), "Adam", {"lr": 0.1}),
        (AdamW(0.1, lambda_=0.01), "AdamW", {"lr": 0.1, "weight_decay": 0.01}),
        (
            OptimiserChain(WeightDecay(0.01), Momentum(0.1)),
            "SGD",
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        ),
    ],
)
def test_against_torch(rule, name, settings):
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bench]'")
    theta = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    peer = getattr(torch.optim, name)([theta], **settings)
    expected = []
    for _ in range(30):
        peer.zero_grad()
        (c * theta**2 / 2).sum().backward()
        peer.step()
        expected.append(theta.detach().numpy().copy())
    np.testing.assert_allclose(quadratic_steps(rule, 30), expected, rtol=1e-12, atol=1e-14)


def test_julia_defaults():
    assert repr(Momentum()) == "Momentum(eta=0.01, rho=0.9)"
    assert repr(Nesterov()) == "Nesterov(eta=0.001, rho=0.9)"
    assert repr(Adam()) == "Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)"
    assert AdamW().lambda_ == 0 and WeightDecay().lambda_ == 5e-4
    assert ClipGrad().delta == 10 and ClipNorm().omega == 10


def test_clipping_leaves_small_gradients_unchanged():
    def clipped(rule, grad):
        return rule.apply(np.zeros(2), np.array(grad)).tolist()

    assert clipped(ClipNorm(5.0), [6.0, 8.0]) == [3.0, 4.0]
    assert clipped(ClipNorm(5.0), [0.3, 0.4]) == [0.3, 0.4]
    assert clipped(ClipNorm(5.0), [0.0, 0.0]) == [0.0, 0.0]
    assert clipped(ClipGrad(1.0), [0.5, -7.0]) == [0.5, -1.0]
    with pytest.raises(DivergedError, match="finite gradient"):
        clipped(ClipNorm(), [np.nan, 0.0])


def test_empty_chain_subtracts_the_gradient():
    theta = np.array([3.0])
    OptimiserChain().update(theta, np.array([1.0]))
    assert theta == 2.0


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_new_rule_continues_from_a_loaded_state_in_the_same_dtype(rule, dtype):
    def fresh():
        if isinstance(rule, OptimiserChain):
            return OptimiserChain(*(type(r)() for r in rule.rules))
        return type(rule)()

    first, second = fresh(), fresh()
    theta = np.ones((2, 3), dtype, order="F")
    grad = np.linspace(0.1, 1, 6, dtype=dtype).reshape(2, 3)
    first.update(theta, grad.copy())
    assert theta.dtype == dtype
    second.load_state(first.state)
    twin = theta.copy(order="K")
    first.update(theta, grad.copy())
    second.update(twin, grad.copy())
    np.testing.assert_array_equal(theta, twin)
    assert all(a.dtype.kind == "f" for a in first.state.values())


@pytest.mark.parametrize("later", [ClipNorm(0.5), ClipGrad(0.5), WeightDecay(1.0), Descent(0.1)])
def test_a_later_rule_does_not_change_the_velocity(later):
    momentum, chained = Momentum(1.0, 0.9), Momentum(1.0, 0.9)
    chain = OptimiserChain(chained, later)
    for _ in range(3):
        momentum.update(np.zeros(2), np.ones(2))
        chain.update(np.zeros(2), np.ones(2))
    np.testing.assert_array_equal(chained.state["velocity"], momentum.state["velocity"])
    np.testing.assert_allclose(chained.state["velocity"], 2.71)


def test_norm_of_large_float32_does_not_overflow():
    clipped = ClipNorm(1.0).apply(np.zeros(2), np.array([3e30, 4e30], np.float32))
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Descent(-0.1), "finite eta >= 0, got -0.1"),
        (lambda: Descent(float("inf")), "got inf"),
        (lambda: Descent("0.1"), "got '0.1'"),
        (lambda: Descent(None), "got None"),
        (lambda: Momentum(float("nan")), "got nan"),
        (lambda: Adam(beta=(0.9, -1)), r"finite beta >= 0, got \(0.9, -1\)"),
        (lambda: Adam(beta=(0.9, 1.0)), r"two numbers in \[0, 1\)"),
        (lambda: Adam(beta=0.9), "two numbers"),
        (lambda: OptimiserChain(Descent(), "adam"), "rules like Descent"),
        (lambda: Descent().update(np.zeros(3), np.zeros(1)), r"\(3,\) and \(1,\)"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
