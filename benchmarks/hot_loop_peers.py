"""The programs that ``hot_loop.py`` compares with: four in PyTorch, and one in JAX if installed.

Each takes a problem and returns a function that trains one epoch and returns ``theta`` (k, d+1).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn


class Problem(NamedTuple):
    """What all contestants share."""

    X: Any  # uint8, (d, n)
    y: Any  # labels, (n,)
    theta: Any  # initial weights, (k, d+1)
    order: Any  # of the samples, (n,)
    batch_size: int
    learning_rate: float


def in_memory(problem: Problem) -> tuple[Any, Any, list[Any]]:
    """Return images as rows of float32 from 0 to 1, labels, and the batches' indices."""
    images = torch.from_numpy(np.array(problem.X.T)).float() / 255
    order = torch.from_numpy(problem.order)
    return images, torch.from_numpy(problem.y.astype(np.int64)), order.split(problem.batch_size)


def weights(problem: Problem, grad: bool) -> tuple[Any, Any]:
    """Return W (d, k) and b (k) as the tutorials have them."""
    W = torch.tensor(problem.theta[:, :-1].T.copy(), requires_grad=grad)
    return W, torch.tensor(problem.theta[:, -1].copy(), requires_grad=grad)


def as_theta(W: Any, b: Any) -> Any:
    """Return W (d, k) and b (k) as one array (k, d+1)."""
    return torch.cat([W.T, b[:, None]], dim=1).detach().numpy()


def tutorial_step(W: Any, b: Any, X: Any, y: Any, learning_rate: float) -> None:
    """Take the first tutorial's step: softmax and cross-entropy by their definitions, autograd."""
    exponentials = torch.exp(torch.matmul(X, W) + b)
    y_hat = exponentials / exponentials.sum(1, keepdim=True)
    loss = -torch.log(y_hat[range(len(y_hat)), y]).mean()
    loss.backward()
    with torch.no_grad():
        for parameter in (W, b):
            parameter -= learning_rate * parameter.grad
            parameter.grad.zero_()


def as_printed(problem: Problem) -> Callable[[], Any]:
    """Make the first tutorial's program: a DataLoader over torchvision's data set and ToTensor.

    torchvision is not needed: both are written out here, step for step.
    """
    from PIL import Image

    stored = torch.from_numpy(np.array(problem.X.T).reshape(-1, 28, 28))

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return int(problem.y.size)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            image = Image.fromarray(stored[index].numpy())
            pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(28, 28, 1)
            tensor = pixels.permute((2, 0, 1)).contiguous().to(torch.float32).div(255)
            return tensor, int(problem.y[index])

    order = problem.order.tolist()
    loader = torch.utils.data.DataLoader(Images(), problem.batch_size, sampler=order)

    def epoch() -> Any:
        W, b = weights(problem, grad=True)
        for X, y in loader:
            tutorial_step(W, b, X.reshape(-1, 784), y, problem.learning_rate)
        return as_theta(W, b)

    return epoch


def formulas_in_memory(problem: Problem) -> Callable[[], Any]:
    """Make the tutorial's formulas on tensors in memory."""
    images, labels, batches = in_memory(problem)

    def epoch() -> Any:
        W, b = weights(problem, grad=True)
        for batch in batches:
            tutorial_step(W, b, images[batch], labels[batch], problem.learning_rate)
        return as_theta(W, b)

    return epoch


def linear_and_sgd(problem: Problem) -> Callable[[], Any]:
    """Make the program that PyTorch's users write, on tensors in memory."""
    images, labels, batches = in_memory(problem)

    def epoch() -> Any:
        model = nn.Linear(784, 10)
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(problem.theta[:, :-1].copy()))
            model.bias.copy_(torch.from_numpy(problem.theta[:, -1].copy()))
        optimiser = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
        loss = nn.CrossEntropyLoss()
        for batch in batches:
            optimiser.zero_grad()
            loss(model(images[batch]), labels[batch]).backward()
            optimiser.step()
        return as_theta(model.weight.T, model.bias)

    return epoch


def by_hand(problem: Problem) -> Callable[[], Any]:
    """Make the fastest PyTorch: gradients by hand, no autograd, the bias inside ``addmm``."""
    images, labels, batches = in_memory(problem)

    def epoch() -> Any:
        with torch.no_grad():
            W, b = weights(problem, grad=False)
            for batch in batches:
                X, y = images[batch], labels[batch]
                dZ = torch.softmax(torch.addmm(b, X, W), dim=1)
                dZ[torch.arange(len(y)), y] -= 1
                step = -problem.learning_rate / len(y)
                W.addmm_(X.T, dZ, alpha=step)
                b.add_(dZ.sum(0), alpha=step)
            return as_theta(W, b)

    return epoch


def jax_scan(problem: Problem) -> Callable[[], Any]:
    """Make JAX's whole epoch as one compiled scan; a last partial batch is a step of its own."""
    import jax
    import jax.numpy as jnp

    images = jnp.asarray(np.array(problem.X.T), dtype=jnp.float32) / 255
    labels, full = jnp.asarray(problem.y), problem.y.size // problem.batch_size
    order = jnp.asarray(problem.order)
    whole = order[: full * problem.batch_size].reshape(full, problem.batch_size)
    rest = order[full * problem.batch_size :]

    def loss(parameters: Any, X: Any, y: Any) -> Any:
        W, b = parameters
        logp = jax.nn.log_softmax(X @ W + b)
        return -jnp.take_along_axis(logp, y[:, None], 1).mean()

    def step(parameters: Any, batch: Any) -> tuple[Any, None]:
        grad = jax.grad(loss)(parameters, images[batch], labels[batch])
        rate = problem.learning_rate
        return jax.tree.map(lambda p, g: p - rate * g, parameters, grad), None

    @jax.jit
    def run(parameters: Any) -> Any:
        parameters, _ = jax.lax.scan(step, parameters, whole)
        return step(parameters, rest)[0] if rest.size else parameters

    W, b = jnp.asarray(problem.theta[:, :-1].T), jnp.asarray(problem.theta[:, -1])

    def epoch() -> Any:
        trained, bias = run((W, b))
        return np.concatenate([np.asarray(trained).T, np.asarray(bias)[:, None]], axis=1)

    return epoch


PEERS: dict[str, Callable[[Problem], Callable[[], Any]]] = {
    "torch tutorial as printed": as_printed,
    "torch tutorial in memory": formulas_in_memory,
    "torch nn.Linear + SGD": linear_and_sgd,
    "torch by hand": by_hand,
}
JAX = "JAX, jit + scan"
if find_spec("jax"):
    PEERS[JAX] = jax_scan
