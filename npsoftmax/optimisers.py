r"""Update rules that change ``theta`` in place, with the semantics of Optimisers.jl.

Every rule turns a gradient into the step that is subtracted, ``theta -= step``, and may keep
arrays between steps in ``state``. Settings must be finite and at least 0. The rules do not
distinguish weights from biases: :class:`WeightDecay` and :class:`AdamW` shrink the whole array,
whereas the ``l2`` of the objective applies to the weights only.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import DivergedError, InputError, ShapeError

__all__ = [
    "Adam",
    "AdamW",
    "ClipGrad",
    "ClipNorm",
    "Descent",
    "Momentum",
    "Nesterov",
    "Optimiser",
    "OptimiserChain",
    "WeightDecay",
]

State = dict[str, NDArray[Any]]


@dataclass(eq=False)
class Optimiser(ABC):
    """Base class of the rules: checked settings, state, and the update."""

    _arrays: State = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in (setting.name for setting in fields(self) if setting.init):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(n, int | float) and 0 <= n < math.inf for n in numbers):
                raise InputError(
                    f"{type(self).__name__}: expected a finite {name} >= 0, got {value!r}"
                )

    @abstractmethod
    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the step for ``grad``, which may be overwritten, and advance the state."""

    def update(self, theta: NDArray[Any], grad: NDArray[Any]) -> None:
        """Subtract one step from ``theta`` in place.

        ``grad`` is the gradient at ``theta``, of the same shape and dtype; it is overwritten.

        Examples
        --------
        >>> theta = np.array([1.0, 2.0])
        >>> Descent(0.5).update(theta, np.array([2.0, 0.0]))
        >>> theta
        array([0., 2.])
        """
        if theta.shape != grad.shape:
            raise ShapeError(
                f"update: expected theta and grad of one shape, got {theta.shape} and {grad.shape}"
            )
        theta -= self.apply(theta, grad)

    @property
    def state(self) -> State:
        """The arrays kept between steps, by name; empty before the first step."""
        return self._arrays

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Copy the state of a rule of the same kind, for instance from a checkpoint."""
        self._arrays = {name: value.copy(order="K") for name, value in state.items()}

    def _memory(self, name: str, like: NDArray[Any]) -> NDArray[Any]:
        """Return the state array of this name, initially zeros."""
        if name not in self._arrays:
            self._arrays[name] = np.zeros_like(like)
        return self._arrays[name]


@dataclass(eq=False)
class Descent(Optimiser):
    r"""Gradient descent with the learning rate ``eta``: :math:`\theta \leftarrow \theta - \eta g`.

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

    The velocity ``v``, of which the fraction ``rho`` is kept, contains the learning rate ``eta``
    (as in Optimisers.jl, unlike PyTorch), so the two agree only if ``eta`` is constant.

    Examples
    --------
    >>> Momentum()
    Momentum(eta=0.01, rho=0.9)
    """

    eta: float = 0.01
    rho: float = 0.9

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the new velocity."""
        velocity = self._memory("velocity", grad)
        velocity *= self.rho
        grad *= self.eta
        velocity += grad
        grad[...] = velocity  # a copy, because the next rule may overwrite it
        return grad


@dataclass(eq=False)
class Nesterov(Optimiser):
    r"""Nesterov's momentum: :math:`d = (1+\rho)\eta g - \rho^2 v,\; v \leftarrow \rho v - \eta g`.

    ``eta`` is the learning rate and ``rho`` the fraction of the velocity that is kept. ``v`` is the
    previous velocity, with the sign of the movement (opposite to :class:`Momentum`).

    Examples
    --------
    >>> Nesterov()
    Nesterov(eta=0.001, rho=0.9)
    """

    eta: float = 0.001
    rho: float = 0.9

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``(1 + rho) * eta * grad - rho**2 * velocity``."""
        velocity = self._memory("velocity", grad)
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

    ``eta`` is the learning rate, ``beta`` holds the decays of the first and the second moment, and
    ``epsilon`` keeps the division finite.

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
        """Check the settings; with decays of 1 the moments would not be means."""
        super().__post_init__()
        if not isinstance(self.beta, tuple) or len(self.beta) != 2 or max(self.beta) >= 1:
            raise InputError(
                f"{type(self).__name__}: expected beta as two numbers in [0, 1), got {self.beta!r}"
            )

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``eta`` times the bias-corrected first moment over the root of the second."""
        beta1, beta2 = self.beta
        first = self._memory("first", grad)
        second = self._memory("second", grad)
        steps = self._memory("steps", np.zeros(1))
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

    The weight decay ``lambda_`` is multiplied by the learning rate, as in PyTorch and in
    Optimisers.jl with ``couple=true``. It shrinks all of ``theta``, including the bias. Its default
    is 0 as in Optimisers.jl (PyTorch: 0.01).

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


@dataclass(eq=False)
class WeightDecay(Optimiser):
    r"""Add :math:`\lambda\theta` to the gradient.

    As the first rule of a chain, it adds the penalty ``lambda_ / 2 * norm(theta)**2``.

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
    """Clip each entry of the gradient to ``[-delta, delta]``.

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
    r"""Scale the gradient down to the norm ``omega``: :math:`g \min(1, \omega / \|g\|_2)`.

    A norm that is NaN or infinite raises DivergedError.

    Examples
    --------
    >>> ClipNorm(1.0).apply(np.zeros(2), np.array([3.0, 4.0]))
    array([0.6, 0.8])
    """

    omega: float = 10.0

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the scaled gradient."""
        norm = float(np.linalg.norm(grad.astype(np.float64)))
        if not np.isfinite(norm):
            raise DivergedError(
                f"ClipNorm: expected a finite gradient, got one of norm {norm}; "
                "lower the learning rate, or look for NaN in the data"
            )
        if norm > self.omega:
            grad *= self.omega / norm
        return grad


class OptimiserChain(Optimiser):
    """Apply rules to the gradient from left to right; the empty chain subtracts the gradient.

    Examples
    --------
    >>> theta = np.array([1.0])
    >>> OptimiserChain(ClipGrad(1.0), Descent(0.1)).update(theta, np.array([5.0]))
    >>> theta
    array([0.9])
    """

    def __init__(self, *rules: Optimiser) -> None:
        for rule in rules:
            if not isinstance(rule, Optimiser):
                raise InputError(f"OptimiserChain: expected rules like Descent(0.1), got {rule!r}")
        self.rules = rules

    def __repr__(self) -> str:
        return f"OptimiserChain({', '.join(map(repr, self.rules))})"

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient after all rules."""
        for rule in self.rules:
            grad = rule.apply(theta, grad)
        return grad

    @property
    def state(self) -> State:
        """The states of the rules; each name is prefixed with the index of its rule."""
        return {
            f"{index}.{name}": value
            for index, rule in enumerate(self.rules)
            for name, value in rule.state.items()
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Copy the states of rules of the same kinds."""
        for index, rule in enumerate(self.rules):
            prefix = f"{index}."
            rule.load_state(
                {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            )
