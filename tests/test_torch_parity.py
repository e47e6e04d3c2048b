"""Agreement with PyTorch's autograd and optimisers in float64, on ordinary and difficult batches.

The tolerance is 1e-12 of the largest entry of PyTorch's array over the whole batch; for confident
batches see the comment at ``CONFIDENT``.
"""

import numpy as np
import pytest

from npsoftmax import functional as F
from npsoftmax.objective import hessian_vector_product, loss_and_grad
from npsoftmax.optimisers import (
    Adam,
    AdamW,
    Descent,
    Momentum,
    Nesterov,
    OptimiserChain,
    WeightDecay,
)

torch = pytest.importorskip("torch", reason="needs torch: pip install '.[bench]'")

TOLERANCE = 1e-12
SIZES = [(2, 1), (2, 300), (3, 17), (10, 256), (1000, 1), (1000, 40)]  # classes, samples
KINDS = ["random", "offset", "ties", "dominant"]

# Where one class leads by 30, all entries of a gradient may be as small as exp(-30) = 1e-13.
# PyTorch computes the leading one as a difference of numbers of the size of the upstream
# gradient (p - 1 for a label), so the tolerance is relative to that size.
CONFIDENT = "dominant"


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    """Use one thread, like conftest.py for BLAS: on busy cores two threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch(kind, k, n, seed=0):
    rng = np.random.default_rng([seed, k, n])
    z = np.asfortranarray(rng.standard_normal((k, n)))
    if kind == "offset":
        z += rng.uniform(-1e3, 1e3, n)
    elif kind == "ties":
        np.rint(z, out=z)
    elif kind == "dominant":
        z[rng.integers(k, size=n), np.arange(n)] = z.max(axis=0) + 30
    return z


def labels_for(z):
    """Return random labels, but the largest logit's class for samples 0, 2, 4, ..."""
    labels = np.random.default_rng(z.shape).integers(z.shape[0], size=z.shape[1])
    labels[::2] = z[:, ::2].argmax(axis=0)
    return labels


def leaf(x):
    return torch.tensor(x, requires_grad=True)


def assert_agree(ours, theirs, floor=0.0):
    expected = theirs.detach().numpy()
    largest = max(np.abs(expected).max(), floor)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "n"), SIZES)
@pytest.mark.parametrize(
    ("f", "gradient", "peer"),
    [
        (F.softmax, F.softmax_grad, torch.softmax),
        (F.logsoftmax, F.logsoftmax_grad, torch.log_softmax),
    ],
    ids=["softmax", "logsoftmax"],
)
def test_softmax_and_logsoftmax(f, gradient, peer, k, n, kind):
    z, dy = batch(kind, k, n), batch("random", k, n, seed=1)
    x = leaf(z)
    y = peer(x, 0)
    y.backward(torch.tensor(dy))
    assert_agree(f(z), y)
    assert_agree(gradient(dy, f(z)), x.grad, np.abs(dy).max() if kind == CONFIDENT else 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "n"), SIZES)
def test_logsumexp(k, n, kind):
    z, dy = batch(kind, k, n), batch("random", 1, n, seed=1)[0]
    x = leaf(z)
    y = torch.logsumexp(x, 0)
    y.backward(torch.tensor(dy))
    assert_agree(F.logsumexp(z, 0), y)
    assert_agree(F.logsumexp_grad(dy, z, 0), x.grad)


def targets_for(z, form):
    """Return our targets, PyTorch's (samples as rows), and its settings."""
    labels = labels_for(z)
    if form == "labels":
        return labels, torch.tensor(labels), {}
    if form == "soft":
        soft = np.random.default_rng(2).dirichlet(np.ones(len(z)), z.shape[1]).T
        return soft, torch.tensor(soft.T), {}
    smoothed = F.label_smoothing(F.onehotbatch(labels, range(len(z))), 0.1)
    return smoothed, torch.tensor(labels), {"label_smoothing": 0.1}


@pytest.mark.parametrize("agg", ["mean", "sum", "none"])
@pytest.mark.parametrize("form", ["labels", "soft", "smoothed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "n"), SIZES)
def test_crossentropy(k, n, kind, form, agg):
    z = batch(kind, k, n)
    y, peer_y, settings = targets_for(z, form)
    x = leaf(z)
    expected = torch.nn.functional.cross_entropy(x.T, peer_y, reduction=agg, **settings)
    expected.sum().backward()
    loss, gradient = F.logitcrossentropy_and_grad(z, y, agg=agg)
    upstream = 1 / n if agg == "mean" else 1.0
    assert_agree(loss, expected, 1.0 if kind == CONFIDENT else 0.0)
    assert_agree(gradient, x.grad, upstream if kind == CONFIDENT else 0.0)
    np.testing.assert_array_equal(loss, F.logitcrossentropy(z, y, agg=agg))
    np.testing.assert_array_equal(gradient, F.logitcrossentropy_grad(z, y, agg=agg))
    if form == "labels":  # except at the label nothing cancels: relative to each entry
        others = ~F.onehotbatch(y, range(k))
        np.testing.assert_allclose(gradient[others], x.grad.numpy()[others], rtol=TOLERANCE)


def linear_problem(kind, k, d, n):
    """Return theta with a bias that makes the logits difficult, a direction, pixels and labels."""
    rng = np.random.default_rng([3, k, d, n])
    theta = np.asfortranarray(rng.standard_normal((k, d + 1)))
    theta[:, -1] = batch(kind, k, 1)[:, 0]
    X = rng.integers(0, 256, (n, d), dtype=np.uint8).T
    labels = labels_for(F.affine(theta, X, 1 / 255))
    return theta, rng.standard_normal(theta.shape), X, labels


def peer_objective(X, labels, l2, scale):
    X, labels = torch.tensor(X, dtype=torch.float64), torch.tensor(labels)

    def objective(theta):
        W, b = theta[:, :-1], theta[:, -1:]
        crossentropy = torch.nn.functional.cross_entropy((W @ (scale * X) + b).T, labels)
        return crossentropy + l2 / 2 * W.square().sum()

    return objective


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d", "n"), [(2, 1, 1), (4, 3, 7), (10, 20, 300), (1000, 3, 5)])
def test_linear_model(k, d, n, kind, l2):
    theta, V, X, labels = linear_problem(kind, k, d, n)
    peer, peer_theta = peer_objective(X, labels, l2, 1 / 255), leaf(theta)
    expected = peer(peer_theta)
    expected.backward()
    result = loss_and_grad(theta, X, labels, l2, 1 / 255)
    floor = 1.0 if kind == CONFIDENT else 0.0
    assert_agree(result.loss, expected, floor)
    assert_agree(result.grad, peer_theta.grad, floor)
    _, product = torch.autograd.functional.hvp(peer, torch.tensor(theta), torch.tensor(V))
    assert_agree(hessian_vector_product(theta, V, X, l2, 1 / 255), product, floor)


@pytest.mark.parametrize(
    ("rule", "name", "settings"),
    [
        (Descent(0.5), "SGD", {"lr": 0.5}),
        (Momentum(0.2, 0.9), "SGD", {"lr": 0.2, "momentum": 0.9}),
        (Nesterov(0.2, 0.8), "SGD", {"lr": 0.2, "momentum": 0.8, "nesterov": True}),
        (Adam(0.05), "Adam", {"lr": 0.05}),
        (
            Adam(0.05, (0.8, 0.95), epsilon=1e-4),
            "Adam",
            {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4},
        ),
        (AdamW(0.05, lambda_=0.1), "AdamW", {"lr": 0.05, "weight_decay": 0.1}),
        (
            OptimiserChain(WeightDecay(0.1), Descent(0.5)),
            "SGD",
            {"lr": 0.5, "weight_decay": 0.1},
        ),
        (
            OptimiserChain(WeightDecay(0.1), Nesterov(0.2)),
            "SGD",
            {"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        ),
        (
            OptimiserChain(WeightDecay(0.1), Adam(0.05)),
            "Adam",
            {"lr": 0.05, "weight_decay": 0.1},
        ),
    ],
)
def test_fifty_steps_on_the_objective(rule, name, settings):
    theta, _, X, labels = linear_problem("random", 4, 6, 40)
    peer, peer_theta = peer_objective(X, labels, 0.01, 1 / 255), leaf(theta)
    optimiser = getattr(torch.optim, name)([peer_theta], **settings)
    for _ in range(50):
        rule.update(theta, loss_and_grad(theta, X, labels, 0.01, 1 / 255).grad)
        optimiser.zero_grad()
        peer(peer_theta).backward()
        optimiser.step()
        assert_agree(theta, peer_theta)
