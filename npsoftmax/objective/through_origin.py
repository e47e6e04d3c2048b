"""The full-batch objective without biases, whose logits are 0 where all features are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.objective.batch import Evaluation
from npsoftmax.objective.full_batch import FullBatch
from npsoftmax.objective.penalty import divided_squares
from npsoftmax.objective.preconditioner import Solve
from npsoftmax.objective.separation import Separation

__all__ = ["ThroughOrigin"]


class ThroughOrigin(FullBatch):
    r"""The objective with biases that stay where they are, usually at 0.

    It takes the arguments of :class:`npsoftmax.objective.FullBatch` and has its methods. The
    gradient with respect to the biases is 0. If there is no optimum, this is found only where all
    samples are classified correctly.

    Examples
    --------
    >>> problem = ThroughOrigin(np.array([[1.0, 3.0, 2.0]]), [0, 1, 1], l2=0.1)
    >>> value, grad, *_ = problem.loss_and_grad(np.zeros((2, 2)))
    >>> round(value, 6), grad.round(6).tolist()
    (0.693147, [[0.666667, 0.0], [-0.666667, 0.0]])
    """

    def loss_and_grad(self, theta: NDArray[Any]) -> Evaluation:
        """Evaluate the objective and its gradient."""
        found = super().loss_and_grad(theta)
        found.grad[:, -1] = 0
        return found

    def hessian_vector_product(self, theta: NDArray[Any], V: NDArray[Any]) -> NDArray[Any]:
        """Multiply the Hessian at ``theta`` by a direction whose biases are ignored."""
        weights = np.array(V)
        weights[:, -1] = 0
        product = super().hessian_vector_product(theta, weights)
        product[:, -1] = 0
        return product

    def preconditioner(self, theta: NDArray[Any]) -> Solve:
        """Return an approximate inverse of the Hessian at ``theta`` for weights."""
        solve = super().preconditioner(theta)

        def solve_for_weights(grad: NDArray[Any]) -> NDArray[Any]:
            direction = np.array(solve(grad))
            direction[:, -1] = 0
            return direction

        return solve_for_weights

    def suits_newton(self, k: int, to_finish: bool = False) -> bool:
        """Return False: its coordinates shift the biases."""
        return False

    def suits_span(self, k: int, to_finish: bool = False) -> bool:
        """Return False: its coordinates shift the biases."""
        return False

    def separating_features(self, k: int) -> Separation | None:
        """Return None: single features would need a bias."""
        return None

    def smallest_weights(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weights as they are."""
        return theta

    def suboptimality(self, theta: NDArray[Any]) -> float:
        r"""Bound the distance of the objective at ``theta`` from its smallest value.

        The objective is strongly convex in the weights, so the bound is
        :math:`\sum_i \|\partial J / \partial W_i\|^2 / (2 \lambda_i)`. If a feature has no penalty
        it is the objective itself.
        """
        loss, grad, *_ = self.loss_and_grad(np.asarray(theta, np.float64))
        if self.least_penalty == 0:
            return loss
        return min(loss, divided_squares(grad[:, :-1], self.penalty))
