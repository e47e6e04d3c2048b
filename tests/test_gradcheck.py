"""The checker must reject wrong gradients, and every gradient by hand must pass it."""

import numpy as np
import pytest
from gradcheck import check_gradient

from npsoftmax import functional as F
from npsoftmax.objective import loss_and_grad

N, K, D = 5, 4, 3
LABELS = np.array([0, 3, 1, 1, 2])
SOFT = np.random.default_rng(1).dirichlet(np.ones(K), N).T
MASK = np.random.default_rng(2).standard_normal((K, N))  # an upstream gradient


def logits() -> np.ndarray:
    return np.asfortranarray(np.random.default_rng(3).standard_normal((K, N)))


def mean_loss(z):
    return F.logitcrossentropy(z, LABELS)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda g: -g, id="sign"),
        pytest.param(lambda g: g * N, id="factor n"),
        pytest.param(lambda g: g * 1.0005, id="0.05 % off"),
        pytest.param(lambda g: np.maximum(g, 0), id="missing label term"),
        pytest.param(lambda g: g.T.reshape(K, N), id="wrong axis"),
        pytest.param(lambda g: g[:, ::-1], id="wrong sample"),
        pytest.param(lambda g: g.astype(np.float16), id="too few digits"),
        pytest.param(lambda g: g[:, :1], id="wrong shape"),
    ],
)
def test_planted_wrong_gradient_is_rejected(wrong):
    with pytest.raises(AssertionError):
        check_gradient(mean_loss, lambda z: wrong(F.logitcrossentropy_grad(z, LABELS)), logits())


def test_missing_penalty_is_rejected():
    X = np.ones((D, N))

    def f(theta):
        return loss_and_grad(theta, X, LABELS, l2=0.1).loss

    theta = np.asfortranarray(np.random.default_rng(4).standard_normal((K, D + 1)))
    with pytest.raises(AssertionError):
        check_gradient(f, lambda t: loss_and_grad(t, X, LABELS, l2=0.0).grad, theta)


def probabilities() -> np.ndarray:
    return np.random.default_rng(5).uniform(0.1, 0.9, (K, N))


AXES = [0, 1, None, (0, 1)]
CASES = [
    *[
        pytest.param(
            "softmax_grad",
            lambda x, a=a: np.vdot(MASK, F.softmax(x, a)),
            lambda x, a=a: F.softmax_grad(MASK, F.softmax(x, a), a),
            logits(),
            id=f"softmax {a}",
        )
        for a in AXES
    ],
    *[
        pytest.param(
            "logsoftmax_grad",
            lambda x, a=a: np.vdot(MASK, F.logsoftmax(x, a)),
            lambda x, a=a: F.logsoftmax_grad(MASK, F.logsoftmax(x, a), a),
            logits(),
            id=f"logsoftmax {a}",
        )
        for a in AXES
    ],
    *[
        pytest.param(
            "logsumexp_grad",
            lambda x, a=a: float(np.sum(2 * F.logsumexp(x, a))),
            lambda x, a=a: F.logsumexp_grad(2 * np.ones_like(F.logsumexp(x, a)), x, a),
            logits(),
            id=f"logsumexp {a}",
        )
        for a in AXES
    ],
    *[
        pytest.param(
            f"{name}_grad",
            lambda x, f=f, y=y, agg=agg: float(np.sum(f(x, y, agg=agg))),
            lambda x, g=g, y=y, agg=agg: g(x, y, agg=agg),
            start,
            id=f"{name} {kind} {agg}",
        )
        for name, f, g, start in [
            ("logitcrossentropy", F.logitcrossentropy, F.logitcrossentropy_grad, logits()),
            ("logitcrossentropy_and", F.logitcrossentropy,
             lambda *a, **k: F.logitcrossentropy_and_grad(*a, **k)[1], logits()),
            ("crossentropy", F.crossentropy, F.crossentropy_grad, probabilities()),
        ]
        for kind, y in [("labels", LABELS), ("soft", SOFT), ("unnormalised", 3 * SOFT)]
        for agg in ["mean", "sum", "none"]
    ],
    pytest.param(
        "logitcrossentropy_grad",
        lambda x: F.logitcrossentropy(x, np.array([0, 3, 1, 1]), axis=1),
        lambda x: F.logitcrossentropy_grad(x, np.array([0, 3, 1, 1]), axis=1),
        logits(),
        id="logitcrossentropy axis=1",
    ),
    pytest.param(
        "affine_grad",
        lambda theta: float(np.vdot(MASK, F.affine(theta, logits()[:D], 0.5))),
        lambda theta: F.affine_grad(MASK, logits()[:D], 0.5),
        np.random.default_rng(6).standard_normal((K, D + 1)),
        id="affine",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "f", "gradient", "x"), CASES)
def test_gradient_by_hand(name, f, gradient, x):
    check_gradient(f, gradient, x)


def test_every_gradient_is_checked():
    checked = {case.values[0] for case in CASES}
    assert {name for name in F.__all__ if name.endswith("_grad")} == checked


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["labels", "soft"])
def test_objective_gradient(l2, targets):
    X = np.random.default_rng(8).integers(0, 256, (D, N), dtype=np.uint8)
    theta = np.asfortranarray(np.random.default_rng(9).standard_normal((K, D + 1)))
    check_gradient(
        lambda t: loss_and_grad(t, X, targets, l2, 1 / 255).loss,
        lambda t: loss_and_grad(t, X, targets, l2, 1 / 255).grad,
        theta,
    )
