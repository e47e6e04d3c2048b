"""Where the search for the optimum begins."""

from typing import Any

from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax.objective import FullBatch

__all__ = ["start_on_a_part"]

# Every sixth sample, or so many of them.
EVERY, AT_MOST, AT_LEAST = 6, 50_000, 1_000
ITERATIONS = 30


def start_on_a_part(problem: FullBatch, theta: NDArray[Any], tol: float) -> NDArray[Any]:
    """Return where thirty iterations on a part of the samples lead, for five passes over all.

    Without a preconditioner, on purpose: the probabilities at ``theta`` say nothing yet, and a
    preconditioner made of them would move the weights far along directions in which the features
    hardly vary. On Fashion-MNIST 20 passes lead from here to within 1e-3 of the optimum; with the
    preconditioner from 0 it takes 35.
    """
    every = slice(None, None, max(EVERY, problem.y.size // AT_MOST))
    X, y = problem.X[:, every], problem.y[every]
    weights = None if problem.sample_weight is None else problem.sample_weight[every]
    if y.size < AT_LEAST or (weights is not None and not weights.any()):
        return theta
    part = FullBatch(X, y, problem.l2, weights, scale=problem.scale, threads=problem.threads)
    return lbfgs.minimise(
        lambda theta: part.loss_and_grad(theta)[:2], theta, tol=tol, max_iterations=ITERATIONS
    ).x
