"""Rules that reshape a gradient before another rule makes a step of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import DivergedError
from npsoftmax.optimisers.base import Optimiser

__all__ = ["ClipGrad", "ClipNorm", "WeightDecay"]


@dataclass(eq=False)
class WeightDecay(Optimiser):
    r"""Add :math:`\lambda\theta` to the gradient; first in a chain it is an L2 penalty.

    Parameters
    ----------
    lambda_ : float
        The penalty is ``lambda_ / 2 * norm(theta)**2``.

    Examples
    --------
    >>> WeightDecay(0.5).apply(np.array([2.0]), np.array([3.0]))
    array([4.])
    """

    lambda_: float = 5e-4

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``grad + lambda_ * theta``."""
        grad += self.lambda_ * theta
        return grad


@dataclass(eq=False)
class ClipGrad(Optimiser):
    """Limit each entry of the gradient to ``[-delta, delta]``.

    Parameters
    ----------
    delta : float
        The limit.

    Examples
    --------
    >>> ClipGrad(1.0).apply(np.zeros(2), np.array([0.5, -3.0]))
    array([ 0.5, -1. ])
    """

    delta: float = 10.0

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the clipped gradient."""
        return np.clip(grad, -self.delta, self.delta, out=grad)


@dataclass(eq=False)
class ClipNorm(Optimiser):
    r"""Shrink a gradient that is too long: :math:`g \min(1, \omega / \|g\|_2)`.

    Shorter gradients, zero among them, pass unchanged.

    Parameters
    ----------
    omega : float
        The largest norm that passes.

    Raises
    ------
    DivergedError
        The norm is NaN or infinite.

    Examples
    --------
    >>> ClipNorm(1.0).apply(np.zeros(2), np.array([3.0, 4.0]))
    array([0.6, 0.8])
    """

    omega: float = 10.0

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient, at most ``omega`` long."""
        norm = float(np.linalg.norm(grad.astype(np.float64)))
        if not np.isfinite(norm):
            raise DivergedError(
                f"ClipNorm: expected a finite gradient, got one of norm {norm}; "
                "lower the learning rate, or look for NaN in the data"
            )
        if norm > self.omega:
            grad *= self.omega / norm
        return grad
