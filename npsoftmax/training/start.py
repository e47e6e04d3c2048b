"""Where the search for the optimum begins."""

from typing import Any

from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax.objective import FullBatch

__all__ = ["start_on_a_part"]

# Every sixth sample, but no fewer or more than these where there are so many.
EVERY, FEWEST, MOST = 6, 1_000, 50_000
ITERATIONS, TOL = 30, 1e-3


def start_on_a_part(problem: FullBatch, theta: NDArray[Any]) -> NDArray[Any]:
    """Return where some iterations on a part of the samples lead, for five passes over all.

    Without a preconditioner, on purpose: the probabilities at ``theta`` say nothing yet, and a
    preconditioner made of them would move the weights far along directions in which the features
    hardly vary. On Fashion-MNIST 13 passes lead from here to within 1e-3 of the optimum; from 0
    with the preconditioner 80 do not.
    """
    num_samples = problem.y.size
    step = max(1, min(EVERY, num_samples // FEWEST), num_samples // MOST)
    X, y = problem.X[:, ::step], problem.y[::step]
    weights = None if problem.sample_weight is None else problem.sample_weight[::step]
    if weights is not None and not weights.any():
        return theta
    part = FullBatch(X, y, problem.l2, weights, scale=problem.scale, threads=problem.threads)
    return lbfgs.minimise(
        lambda theta: part.loss_and_grad(theta)[:2], theta, tol=TOL, max_iterations=ITERATIONS
    ).x
