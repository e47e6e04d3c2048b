"""What the solver says of the point where it ended: how good it is, and what would help."""

from collections.abc import Sequence
from dataclasses import dataclass

from npsoftmax.lbfgs import Reason

__all__ = ["Ending", "Optimum"]


@dataclass(frozen=True)
class Optimum:
    """Where training on all samples ended, and how far that is from the best there is.

    Attributes
    ----------
    reason : str
        As in :class:`npsoftmax.lbfgs.Result`.
    iterations : int
        How many, from the start on all samples.
    evaluations : int
        Passes over the samples, with those that the search for a start amounts to.
    objective : float
        Mean cross-entropy and penalty.
    max_gradient, tol : float
        The largest entry of the objective's gradient in magnitude, and what it was to come down to.
    suboptimality : float
        At most this much is the objective above its smallest value
        (:meth:`npsoftmax.objective.FullBatch.suboptimality`); without a penalty the objective
        itself, which says nothing.
    advice : str
        What to know or to change; empty where all is well.
    """

    reason: Reason
    iterations: int
    evaluations: int
    objective: float
    max_gradient: float
    tol: float
    suboptimality: float
    advice: str

    @property
    def converged(self) -> bool:
        """Whether the gradient is within the tolerance."""
        return self.reason == "converged"

    def __str__(self) -> str:
        """Write the line that training prints at its end."""
        state = "converged" if self.converged else "not converged"
        sign = "<=" if self.converged else ">"
        # A bound next to the objective itself says no more than that no loss is negative.
        says_something = self.suboptimality < self.objective / 2
        bound = f", at most {self.suboptimality:.1e} above the smallest" if says_something else ""
        text = (
            f"{state} after {self.iterations} iterations, {self.evaluations} evaluations: "
            f"objective {self.objective:.8g}{bound}; max|gradient| {self.max_gradient:.1e} {sign} "
            f"tol {self.tol:g}"
        )
        return f"{text}; {self.advice}" if self.advice else text


@dataclass(frozen=True)
class Ending:
    """What is known where training ended.

    Attributes
    ----------
    reason : str
        As in :class:`npsoftmax.lbfgs.Result`.
    limit : int
        Of the iterations.
    dtype : str
        Of the parameters.
    separated : bool
        There is no penalty, and every sample is classified right.
    missing : sequence of str
        The classes without samples.
    """

    reason: Reason
    limit: int
    dtype: str
    separated: bool
    missing: Sequence[str]

    def advice(self) -> str:
        """Return what a user should know, or the one change that helps; empty if all is well."""
        if self.separated:
            return (
                "every training sample is classified right and l2 is 0, so the optimum is at "
                "infinity and the weights depend on where this stopped: set l2 > 0"
            )
        if self.reason == "iterations":
            return f"raise max_iterations, now {self.limit}"
        if self.reason == "stopped":
            return "run again to go on"
        if self.reason == "rounding":
            wider = "use float64, " if self.dtype == "float32" else ""
            return (
                f"rounding errors hide any further descent: {wider}scale the features, or raise tol"
            )
        if self.missing:
            return (
                f"no sample is of class {', '.join(self.missing)}: the bias has no optimum there, "
                "the probability goes to 0"
            )
        return ""
