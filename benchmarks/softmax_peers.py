"""The libraries that ``softmax.py`` compares, called as their users do, on the same memory.

npsoftmax, NumPy and SciPy see Fortran-ordered columns ``(k, n)``, PyTorch and scikit-learn the same
bytes as rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from npsoftmax.functional import (
    logitcrossentropy,
    logitcrossentropy_and_grad,
    logitcrossentropy_grad,
    logsoftmax,
    softmax,
)

OURS, PLAIN = "npsoftmax", "NumPy, plain shifted"


def plain_softmax(x: Any) -> Any:
    """Return the usual shifted formula."""
    exponentials = np.exp(x - x.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def plain_logsoftmax(x: Any) -> Any:
    """Return the usual shifted formula."""
    d = x - x.max(axis=0)
    return d - np.log(np.exp(d).sum(axis=0))


def plain_loss_and_grad(x: Any, y: Any) -> Any:
    """Return the mean loss and its gradient, p - onehot, by the usual formulas."""
    samples = np.arange(y.size)
    d = x - x.max(axis=0)
    exponentials = np.exp(d)
    total = exponentials.sum(axis=0)
    gradient = exponentials / total
    gradient[y, samples] -= 1
    gradient /= y.size
    return (np.log(total) - d[y, samples]).mean(), gradient


def ours(x: Any, y: Any) -> dict[str, Any]:
    """Return npsoftmax's values."""
    return {
        "softmax": softmax(x),
        "logsoftmax": logsoftmax(x),
        "loss": logitcrossentropy(x, y, agg="none"),
        "gradient": logitcrossentropy_grad(x, y, agg="none"),
        "mean loss": logitcrossentropy(x, y),
    }


def from_two(p: Any, logp: Any, y: Any) -> dict[str, Any]:
    """Return loss and gradient as users compute them from a softmax and a logsoftmax."""
    samples = np.arange(y.size)
    gradient = p.copy()
    gradient[y, samples] -= 1
    loss = -logp[y, samples]
    return {
        "softmax": p,
        "logsoftmax": logp,
        "loss": loss,
        "gradient": gradient,
        "mean loss": loss.mean(),
    }


def plain(x: Any, y: Any) -> dict[str, Any]:
    """Return the plain shifted formulas' values."""
    return from_two(plain_softmax(x), plain_logsoftmax(x), y)


def scipy(x: Any, y: Any) -> dict[str, Any]:
    """Return SciPy's values."""
    from scipy import special

    return from_two(special.softmax(x, axis=0), special.log_softmax(x, axis=0), y)


def torch(x: Any, y: Any) -> dict[str, Any]:
    """Return PyTorch's values, on the same memory as rows."""
    import torch
    from torch.nn import functional

    rows, labels = torch.from_numpy(x.T), torch.from_numpy(y)
    leaf = rows.clone().requires_grad_()
    losses = functional.cross_entropy(leaf, labels, reduction="none")
    losses.sum().backward()
    return {
        "softmax": torch.softmax(rows, 1).numpy().T,
        "logsoftmax": torch.log_softmax(rows, 1).numpy().T,
        "loss": losses.detach().numpy(),
        "gradient": leaf.grad.numpy().T,
        "mean loss": functional.cross_entropy(rows, labels).numpy(),
    }


def scikit_learn(x: Any, y: Any) -> dict[str, Any]:
    """Return scikit-learn's values, on the same memory as rows."""
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.utils.extmath import softmax as sklearn_softmax

    if len(x) < 3:
        return {}
    rows, labels = np.ascontiguousarray(x.T), y.astype(x.dtype)
    multinomial = HalfMultinomialLoss(n_classes=len(x))
    losses, gradient = multinomial.loss_gradient(labels, rows)
    return {
        "softmax": sklearn_softmax(rows).T,
        "loss": losses,
        "gradient": gradient.T,
        "mean loss": losses.mean(),
    }


LIBRARIES: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    OURS: ours,
    PLAIN: plain,
    "SciPy": scipy,
    "PyTorch": torch,
    "scikit-learn": scikit_learn,
}


def contestants(x: Any, y: Any) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return for each quantity the calls to time; PyTorch and scikit-learn see rows."""
    import torch
    from scipy import special
    from sklearn._loss import HalfMultinomialLoss
    from sklearn.utils.extmath import softmax as sklearn_softmax
    from torch.nn import functional

    torch.set_num_threads(1)
    rows, tensor, labels = x.T, torch.from_numpy(x.T), torch.from_numpy(y)
    multinomial, float_labels = HalfMultinomialLoss(n_classes=len(x)), y.astype(x.dtype)

    def torch_loss_and_grad() -> tuple[Any, Any]:
        leaf = tensor.detach().requires_grad_()
        loss = functional.cross_entropy(leaf, labels)
        loss.backward()
        return loss.detach().numpy(), leaf.grad.numpy().T

    def sklearn_loss_and_grad() -> tuple[Any, Any]:
        losses, gradient = multinomial.loss_gradient(float_labels, rows)
        return losses.mean(), gradient.T / y.size

    return {
        "softmax": {
            PLAIN: lambda: plain_softmax(x),
            OURS: lambda: softmax(x),
            "SciPy": lambda: special.softmax(x, axis=0),
            "PyTorch": lambda: torch.softmax(tensor, 1).numpy().T,
            "scikit-learn": lambda: sklearn_softmax(rows).T,
        },
        "logsoftmax": {
            PLAIN: lambda: plain_logsoftmax(x),
            OURS: lambda: logsoftmax(x),
            "SciPy": lambda: special.log_softmax(x, axis=0),
            "PyTorch": lambda: torch.log_softmax(tensor, 1).numpy().T,
        },
        "loss and gradient": {
            PLAIN: lambda: plain_loss_and_grad(x, y),
            OURS: lambda: logitcrossentropy_and_grad(x, y),
            "PyTorch": torch_loss_and_grad,
            "scikit-learn": sklearn_loss_and_grad,
        },
    }
