"""Rules that turn a gradient into a step: gradient descent and its descendants."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError
from npsoftmax.optimisers.base import Optimiser

__all__ = ["Adam", "AdamW", "Descent", "Momentum", "Nesterov"]


@dataclass(eq=False)
class Descent(Optimiser):
    r"""Gradient descent: :math:`\theta \leftarrow \theta - \eta g`.

    Parameters
    ----------
    eta : float
        Learning rate.

    Raises
    ------
    InputError
        A setting is negative or NaN.

    Examples
    --------
    >>> Descent(0.1)
    Descent(eta=0.1)
    """

    eta: float = 0.1

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``eta * grad``."""
        grad *= self.eta
        return grad


@dataclass(eq=False)
class Momentum(Optimiser):
    r"""Heavy ball: :math:`v \leftarrow \rho v + \eta g,\; \theta \leftarrow \theta - v`.

    The learning rate is inside ``v`` (as in Optimisers.jl, unlike PyTorch), so the two agree
    only while ``eta`` stays constant.

    Parameters
    ----------
    eta, rho : float
        Learning rate; how much of the velocity stays.

    Examples
    --------
    >>> Momentum()
    Momentum(eta=0.01, rho=0.9)
    """

    eta: float = 0.01
    rho: float = 0.9

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the new velocity."""
        velocity = self._memory("velocity", grad.shape, grad.dtype)
        velocity *= self.rho
        grad *= self.eta
        velocity += grad
        grad[...] = velocity  # what leaves is the caller's to change, the velocity is not
        return grad


@dataclass(eq=False)
class Nesterov(Optimiser):
    r"""Nesterov's momentum: :math:`d = (1+\rho)\eta g - \rho^2 v,\; v \leftarrow \rho v - \eta g`.

    ``v`` is the old velocity, with the sign of a movement (opposite to :class:`Momentum`).

    Parameters
    ----------
    eta, rho : float
        Learning rate; how much of the velocity stays.

    Examples
    --------
    >>> Nesterov()
    Nesterov(eta=0.001, rho=0.9)
    """

    eta: float = 0.001
    rho: float = 0.9

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``(1 + rho) * eta * grad - rho**2 * velocity``."""
        velocity = self._memory("velocity", grad.shape, grad.dtype)
        grad *= self.eta
        step = (1 + self.rho) * grad - self.rho**2 * velocity
        velocity *= self.rho
        velocity -= grad
        return step


@dataclass(eq=False)
class Adam(Optimiser):
    r"""Adam: steps scaled by running moments of the gradient.

    .. math::

        m &\leftarrow \beta_1 m + (1-\beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1-\beta_2) g^2 \\
        \theta &\leftarrow \theta - \eta \,
            \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    eta : float
        Learning rate.
    beta : (float, float)
        Decay of the first and the second moment.
    epsilon : float
        Keeps the division finite.

    References
    ----------
    Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> Adam()
    Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = field(default=1e-8, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings; the decays must be below 1 for the moments to be means."""
        super().__post_init__()
        if not isinstance(self.beta, tuple) or len(self.beta) != 2 or max(self.beta) >= 1:
            raise InputError(
                f"{type(self).__name__}: expected beta as two numbers in [0, 1), got {self.beta!r}"
            )

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``eta`` times the bias-corrected first moment over the root of the second."""
        beta1, beta2 = self.beta
        first = self._memory("first", grad.shape, grad.dtype)
        second = self._memory("second", grad.shape, grad.dtype)
        steps = self._memory("steps", (1,), np.float64)
        steps += 1
        first *= beta1
        first += (1 - beta1) * grad
        second *= beta2
        second += (1 - beta2) * grad * grad
        t = float(steps[0])
        root = np.sqrt(second / (1 - beta2**t)) + self.epsilon
        return np.asarray(first / (1 - beta1**t) / root * self.eta)


@dataclass(eq=False)
class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    .. math:: \theta \leftarrow \theta - \eta \, (\text{adam} + \lambda \theta)

    ``lambda_`` is multiplied by the learning rate, as in PyTorch and in Optimisers.jl's
    ``couple=true``. It shrinks all of ``theta``, the bias too.

    Parameters
    ----------
    eta, beta, epsilon
        As for :class:`Adam`.
    lambda_ : float
        Weight decay; 0 as in Optimisers.jl (PyTorch: 0.01).

    References
    ----------
    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.

    Examples
    --------
    >>> AdamW(lambda_=0.01)
    AdamW(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08, lambda_=0.01)
    """

    lambda_: float = field(default=0.0, kw_only=True)

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return Adam's step plus ``eta * lambda_ * theta``."""
        return super().apply(theta, grad) + self.eta * self.lambda_ * theta
