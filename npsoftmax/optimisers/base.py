"""What all update rules share, and how they chain."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.errors import InputError, ShapeError

__all__ = ["Optimiser", "OptimiserChain"]

State = dict[str, NDArray[Any]]


@dataclass(eq=False)
class Optimiser(ABC):
    """What the rules share: checked settings, state, and the update itself."""

    _arrays: State = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for setting in fields(self):
            if setting.init:
                self._check(setting.name, getattr(self, setting.name))

    def _check(self, name: str, value: object) -> None:
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(n, int | float) and 0 <= n < math.inf for n in numbers):
            raise InputError(f"{type(self).__name__}: expected a finite {name} >= 0, got {value!r}")

    @abstractmethod
    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Turn ``grad`` into the step, overwriting it, and advance the state."""

    def update(self, theta: NDArray[Any], grad: NDArray[Any]) -> None:
        """Subtract one step from ``theta`` in place; ``grad`` is overwritten.

        Parameters
        ----------
        theta : ndarray
            The parameters.
        grad : ndarray
            The gradient at ``theta``, of its shape and dtype.

        Raises
        ------
        ShapeError
            The two differ in shape.

        Examples
        --------
        >>> from npsoftmax.optimisers import Descent
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
        """The arrays kept from one step to the next, by name; none before the first step."""
        return self._arrays

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state of a rule of the same kind, for instance from a checkpoint."""
        self._arrays = {name: value.copy(order="K") for name, value in state.items()}

    def _memory(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the state array of this name, zeros at first."""
        if name not in self._arrays:
            self._arrays[name] = np.zeros(shape, dtype, order="F")
        return self._arrays[name]


class OptimiserChain(Optimiser):
    """Apply rules from left to right to the gradient; the empty chain subtracts it as it is.

    Parameters
    ----------
    *rules : Optimiser
        For instance ``ClipNorm(1.0), Momentum(0.1)``.

    Examples
    --------
    >>> from npsoftmax.optimisers import ClipGrad, Descent
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
        """List the rules."""
        return f"OptimiserChain({', '.join(map(repr, self.rules))})"

    def apply(self, theta: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient after all rules."""
        for rule in self.rules:
            grad = rule.apply(theta, grad)
        return grad

    @property
    def state(self) -> State:
        """The states of the rules, each name preceded by the rule's place."""
        return {
            f"{place}.{name}": value
            for place, rule in enumerate(self.rules)
            for name, value in rule.state.items()
        }

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Hand each rule its own part of the state."""
        for place, rule in enumerate(self.rules):
            mine = f"{place}."
            rule.load_state(
                {n.removeprefix(mine): v for n, v in state.items() if n.startswith(mine)}
            )
