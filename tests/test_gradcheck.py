"""Both checkers reject wrong gradients, and every gradient of the package passes both.

The complex-step checker needs functions of complex numbers, which the package refuses. So the
textbook formulas are repeated here, and their values must agree with the package's functions.
"""

import numpy as np
import pytest
from gradcheck import check_gradient, check_gradient_complex

from npsoftmax import functional as F
from npsoftmax.calibration import _loss_grad
from npsoftmax.objective import FullBatch, hessian_vector_product, loss_and_grad

N, K, D = 5, 4, 3
LABELS = np.array([0, 3, 1, 1, 2])
ONE_HOT = np.eye(K)[:, LABELS]
SOFT = np.random.default_rng(1).dirichlet(np.ones(K), N).T
MASK = np.random.default_rng(2).standard_normal((K, N))  # an upstream gradient


def logits() -> np.ndarray:
    return np.asfortranarray(np.random.default_rng(3).standard_normal((K, N)))


def probabilities() -> np.ndarray:
    return np.random.default_rng(5).uniform(0.1, 0.9, (K, N))


def parameters() -> np.ndarray:
    return np.asfortranarray(np.random.default_rng(9).standard_normal((K, D + 1)))


# Textbook formulas for complex input.


def logsumexp(z, axis=0):
    largest = z.real.max(axis, keepdims=True)
    return largest + np.log(np.exp(z - largest).sum(axis, keepdims=True))


def logsoftmax(z, axis=0):
    return z - logsumexp(z, axis)


def softmax(z, axis=0):
    exponentials = np.exp(z - z.real.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def crossentropy(log_p, targets, agg):
    return -(targets * log_p).sum() / (N if agg == "mean" else 1)


def affine(theta, X, scale):
    return scale * (theta[:, :-1] @ X) + theta[:, -1:]


def objective(theta, X, targets, l2, scale):
    penalty = l2 / 2 * (theta[:, :-1] ** 2).sum()
    return crossentropy(logsoftmax(affine(theta, X, scale)), targets, "mean") + penalty


def objective_gradient(theta, X, targets, l2, scale):
    dZ = (softmax(affine(theta, X, scale)) * targets.sum(axis=0) - targets) / N
    dW = scale * dZ @ X.T + l2 * theta[:, :-1]
    return np.hstack([dW, dZ.sum(axis=1, keepdims=True)])


PACKAGE_LOSS = (check_gradient, lambda z: F.logitcrossentropy(z, LABELS))
TEXTBOOK_LOSS = (check_gradient_complex, lambda z: crossentropy(logsoftmax(z), ONE_HOT, "mean"))
WRONG = [
    pytest.param(lambda g: -g, id="sign"),
    pytest.param(lambda g: g * N, id="factor n"),
    pytest.param(lambda g: g * 1.0005, id="0.05 % off"),
    pytest.param(lambda g: np.maximum(g, 0), id="missing label term"),
    pytest.param(lambda g: g.T.reshape(K, N), id="wrong axis"),
    pytest.param(lambda g: g[:, ::-1], id="wrong sample"),
    pytest.param(lambda g: g.astype(np.float16), id="too few digits"),
    pytest.param(lambda g: g[:, :1], id="wrong shape"),
    pytest.param(lambda g: g * np.nan, id="not a number"),
]
SLIGHTLY_WRONG = [
    pytest.param(lambda g: g * (1 + 1e-9), id="1e-9 off"),
    pytest.param(lambda g: g.astype(np.float32), id="float32"),
    pytest.param(lambda g: np.where(g == g.max(), g + 1e-9, g), id="one entry off"),
]


@pytest.mark.parametrize(("check", "f"), [PACKAGE_LOSS, TEXTBOOK_LOSS], ids=["real", "complex"])
@pytest.mark.parametrize("wrong", WRONG)
def test_planted_wrong_gradient_is_rejected(check, f, wrong):
    check(f, lambda z: F.logitcrossentropy_grad(z, LABELS), logits())
    with pytest.raises(AssertionError):
        check(f, lambda z: wrong(F.logitcrossentropy_grad(z, LABELS)), logits())


@pytest.mark.parametrize("wrong", SLIGHTLY_WRONG)
def test_a_complex_step_detects_smaller_errors_than_differences(wrong):
    def gradient(z):
        return wrong(F.logitcrossentropy_grad(z, LABELS))

    check_gradient(PACKAGE_LOSS[1], gradient, logits())
    with pytest.raises(AssertionError):
        check_gradient_complex(TEXTBOOK_LOSS[1], gradient, logits())


AXES = [0, 1, None, (0, 1)]
TARGETS = {"labels": (LABELS, ONE_HOT), "soft": (SOFT, SOFT), "unnormalised": (3 * SOFT, 3 * SOFT)}

# Name of the gradient, function, its textbook formula, gradient, point.
CASES = [
    *[
        pytest.param(
            g.__name__,
            lambda x, f=f, a=a: np.vdot(MASK, f(x, a)),
            lambda x, textbook=textbook, a=a: np.vdot(MASK, textbook(x, a)),
            lambda x, f=f, g=g, a=a: g(MASK, f(x, a), a),
            logits(),
            id=f"{f.__name__} {a}",
        )
        for f, textbook, g in [
            (F.softmax, softmax, F.softmax_grad),
            (F.logsoftmax, logsoftmax, F.logsoftmax_grad),
        ]
        for a in AXES
    ],
    *[
        pytest.param(
            "logsumexp_grad",
            lambda x, a=a: np.sum(np.exp(F.logsumexp(x, a) / 4)),
            lambda x, a=a: np.sum(np.exp(logsumexp(x, a) / 4)),
            lambda x, a=a: F.logsumexp_grad(np.exp(F.logsumexp(x, a) / 4) / 4, x, a),
            logits(),
            id=f"logsumexp {a}",
        )
        for a in AXES
    ],
    *[
        pytest.param(
            f"{name}_grad",
            lambda x, f=f, y=y, agg=agg: np.sum(f(x, y, agg=agg)),
            lambda x, log_p=log_p, hot=hot, agg=agg: crossentropy(log_p(x), hot, agg),
            lambda x, g=g, y=y, agg=agg: g(x, y, agg=agg),
            start,
            id=f"{name} {kind} {agg}",
        )
        for name, f, log_p, g, start in [
            ("logitcrossentropy", F.logitcrossentropy, logsoftmax,
             F.logitcrossentropy_grad, logits()),
            ("logitcrossentropy_and", F.logitcrossentropy, logsoftmax,
             lambda *a, **k: F.logitcrossentropy_and_grad(*a, **k)[1], logits()),
            ("crossentropy", lambda *a, **k: F.crossentropy(*a, **k, eps=1e-3),
             lambda p: np.log(p + 1e-3),
             lambda *a, **k: F.crossentropy_grad(*a, **k, eps=1e-3), probabilities()),
        ]
        for kind, (y, hot) in TARGETS.items()
        for agg in ["mean", "sum", "none"]
    ],
    pytest.param(
        "logitcrossentropy_grad",
        lambda x: F.logitcrossentropy(x.T, LABELS, axis=1),
        lambda x: crossentropy(logsoftmax(x), ONE_HOT, "mean"),
        lambda x: F.logitcrossentropy_grad(x.T, LABELS, axis=1).T,
        logits(),
        id="logitcrossentropy axis=1",
    ),
    pytest.param(
        "affine_grad",
        lambda theta: np.vdot(MASK, F.affine(theta, logits()[:D], 0.5)),
        lambda theta: np.vdot(MASK, affine(theta, logits()[:D], 0.5)),
        lambda theta: F.affine_grad(MASK, logits()[:D], 0.5),
        parameters(),
        id="affine",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "f", "textbook", "gradient", "x"), CASES)
def test_gradient_by_hand(name, f, textbook, gradient, x):
    assert f(x) == pytest.approx(textbook(x), rel=1e-14)
    check_gradient(f, gradient, x)
    check_gradient_complex(textbook, gradient, x)


def test_every_gradient_is_checked():
    checked = {case.values[0] for case in CASES}
    assert {name for name in F.__all__ if name.endswith("_grad")} == checked


@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_temperature(kind):
    """docs/derivation.md, section 8."""
    (y, hot), z, T = TARGETS[kind], logits(), np.array([2.5])

    def by_temperature(T):
        return -np.sum(F.logitcrossentropy_grad(z / T, y) * z, keepdims=True)[0] / T**2

    check_gradient_complex(
        lambda z: crossentropy(logsoftmax(z / T), hot, "mean"),
        lambda z: F.logitcrossentropy_grad(z / T, y) / T,
        z,
    )
    check_gradient_complex(
        lambda T: crossentropy(logsoftmax(z / T), hot, "mean"), by_temperature, T
    )
    check_gradient_complex(
        lambda beta: crossentropy(logsoftmax(beta * z), hot, "mean"),
        lambda beta: np.array([_loss_grad(beta[0], z, y)]),
        1 / T,
    )


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_objective(l2, kind):
    X = np.random.default_rng(8).integers(0, 256, (D, N), dtype=np.uint8)
    y, hot = TARGETS[kind]
    settings = (l2, 1 / 255)

    def gradient(theta):
        return loss_and_grad(theta, X, y, *settings).grad

    check_gradient(lambda t: loss_and_grad(t, X, y, *settings).loss, gradient, parameters())
    check_gradient_complex(lambda t: objective(t, X, hot, *settings), gradient, parameters())
    V = np.random.default_rng(10).standard_normal((K, D + 1))
    check_gradient_complex(
        lambda t: np.vdot(V, objective_gradient(t, X, hot, *settings)),
        lambda t: hessian_vector_product(t, V, X, *settings),
        parameters(),
    )


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_objective_with_weights(l2):
    X = np.random.default_rng(8).integers(0, 256, (D, N), dtype=np.uint8)
    V = np.random.default_rng(10).standard_normal((K, D + 1))
    weights = np.array([0.5, 3.0, 0.0, 1.0, 2.5])
    problem = FullBatch(X, LABELS, l2, weights, scale=1 / 255)
    # Unnormalised targets: weights of the columns.
    settings = (X, ONE_HOT * weights * N / weights.sum(), l2, 1 / 255)

    check_gradient_complex(
        lambda t: objective(t, *settings), lambda t: problem.loss_and_grad(t).grad, parameters()
    )
    check_gradient_complex(
        lambda t: np.vdot(V, objective_gradient(t, *settings)),
        lambda t: problem.hessian_vector_product(t, V),
        parameters(),
    )
