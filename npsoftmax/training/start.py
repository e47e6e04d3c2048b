"""Where the search for the optimum begins."""

from typing import Any

from numpy.typing import NDArray

from npsoftmax import lbfgs
from npsoftmax.objective import SummedObjective
from npsoftmax.objective.preconditioner import evenly_random

__all__ = ["start_on_a_part"]

# A sixth of the samples, but no fewer or more than these where there are so many.
PART, FEWEST, MOST = 6, 1_000, 50_000
ITERATIONS, TOL = 30, 1e-3


def start_on_a_part(problem: SummedObjective, theta: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return where some iterations on a part of the samples lead, and what they cost in passes.

    Without a preconditioner, on purpose: the probabilities at ``theta`` say nothing yet, and a
    preconditioner made of them would move the weights far along directions in which the features
    hardly vary. On Fashion-MNIST 13 passes lead from here to within 1e-3 of the optimum; from 0
    with the preconditioner 80 do not.
    """
    num_samples = problem.contents.num_samples
    kept = evenly_random(num_samples, min(max(num_samples // PART, FEWEST), MOST))
    part = problem.subset(kept)
    if part.contents.total == 0:
        return theta, 0.0
    x, history, _ = lbfgs.minimise(
        lambda theta: part.evaluate(theta)[:2], theta, tol=TOL, max_iterations=ITERATIONS
    )
    return x, history[-1].evaluations * kept.size / num_samples
