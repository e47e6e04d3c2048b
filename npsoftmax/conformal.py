r"""Sets of classes that hold the right one with a probability that is asked for.

A rule gives each class of a sample a score :math:`s(x, y)`, which is large if the class looks
wrong. The scores of the labels of :math:`n` samples, which were not used for training, are sorted.
The set of a new sample holds the classes whose score is at most the :math:`m`-th smallest of them,

.. math::

    C(x) = \{y : s(x, y) \le s_{(m)}\}, \qquad m = \lceil (n + 1) \, \gamma \rceil,

where :math:`\gamma` is the coverage. If all :math:`n + 1` samples are exchangeable, for instance
drawn independently from the same source, then the new score is equally likely to have each rank
among them, and

.. math:: P(y \in C(x)) \ge \frac{m}{n + 1} \ge \gamma .

Without ties it is :math:`m / (n + 1)` exactly. This needs no assumption about the model or the
source. It is a mean over samples and over calibrations: for one calibration, the coverage has the
distribution Beta(m, n + 1 - m). It says nothing about one sample, or about one kind of samples.
With a quantile for each class, from its own samples, the coverage holds for each class.

**Scores.** Let :math:`p_1 \ge p_2 \ge \dots` be the probabilities of a sample, and :math:`r` the
rank of :math:`y` among them.

- ``"lac"``: :math:`s = 1 - p_r`. A set holds every class that is likely enough. These are the
  smallest sets on average if the probabilities are true. A set is empty if no class is likely
  enough, which is common if the coverage is below the accuracy.
- ``"aps"``: :math:`s = p_1 + \dots + p_{r-1}`. A set holds the most likely classes until together
  they reach a probability, so it is larger for a sample that is harder. The most likely class is
  always in it.
- ``"aps"``, randomised: :math:`s = p_1 + \dots + p_r - u p_r` with :math:`u` from 0 to 1. The last
  class is left out at random, sometimes all: with true probabilities, the coverage is then
  right for each sample and not only on average. Without randomisation, :math:`u = 1`.
- ``"raps"``: :math:`s + \lambda \max(0, r - k)`, which makes large sets rare. :math:`k` and
  :math:`\lambda` are chosen on a fifth of the samples, which do not count for the quantile.

The number :math:`u` is a hash of the probabilities, so the same sample has the same set in every
call. The guarantee holds for any fixed score, so for this one too. It would not hold for samples
that are predicted one by one with the first number of a seeded generator.

**Rounding.** The code compares :math:`1 - s`, the **conformity**, summed up from the smallest
probability. Where a model is sure, all :math:`s` would be rounded to 1. The last digits of a
probability depend on how many samples are computed at once; so that they decide nothing, the
conformity may be smaller than the threshold by a billionth part.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005, section 2.2; for each
class: Vovk, "Conditional validity of inductive conformal predictors", ACML 2012, section 3.
``"lac"``: Sadinle, Lei, Wasserman, "Least ambiguous set-valued classifiers with bounded error
levels", Journal of the American Statistical Association 114, 2019. ``"aps"``: Romano, Sesia,
Candès, "Classification with valid and adaptive coverage", NeurIPS 2020, sections 2 and 3.
``"raps"``: Angelopoulos, Bates, Malik, Jordan, "Uncertainty sets for image classifiers using
conformal prediction", ICLR 2021, section 2 and appendix E.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_probabilities, as_scores, as_size
from npsoftmax.errors import InputError, ShapeError

__all__ = ["METHODS", "SetRule"]

METHODS = ("lac", "aps", "raps")
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # those of Angelopoulos et al., appendix E
TUNING = 5  # a fifth of the samples chooses among them
SLACK = 2.0**-30
MAX_NAMED = 5  # classes that an error names


@dataclass(frozen=True)
class SetRule:
    r"""Which classes are in a set: those whose conformity reaches a threshold.

    Attributes
    ----------
    method : {"lac", "aps", "raps"}
        The score, as described in :mod:`npsoftmax.conformal`.
    coverage : float
        The probability that was asked for, :math:`\gamma`.
    thresholds : tuple of float
        The smallest conformity :math:`1 - s` in a set: one for all classes, or one for each.
    randomised : bool
        Whether the last class is left out at random.
    penalty : float
        :math:`\lambda` of ``"raps"``.
    free_ranks : int
        :math:`k` of ``"raps"``: so many classes have no penalty.
    temperature : float
        The temperature of the model that the probabilities belong to.

    Examples
    --------
    Nine samples are just enough for 90 %: the threshold is the smallest probability of a label.

    >>> p = np.array([0.7, 0.8, 0.8, 0.8, 0.9, 0.9, 0.9, 0.9, 0.75])
    >>> rule = SetRule.fit([p, 1 - p], [0] * 8 + [1], coverage=0.9)
    >>> rule.thresholds
    (0.25,)
    >>> rule.sets([[0.95, 0.7, 0.05], [0.05, 0.3, 0.95]]).tolist()
    [[True, True, False], [False, True, True]]
    """

    method: str
    coverage: float
    thresholds: tuple[float, ...]
    randomised: bool = False
    penalty: float = 0.0
    free_ranks: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_method(self.method)
        thresholds = tuple(self.thresholds)
        if not thresholds or not all(type(t) is float and math.isfinite(t) for t in thresholds):
            raise InputError(f"thresholds: expected finite floats, got {thresholds!r:.80}")
        if type(self.randomised) is not bool:
            raise InputError(f"randomised: expected True or False, got {self.randomised!r:.80}")
        if self.randomised and self.method == "lac":
            raise InputError('randomised: expected "aps" or "raps", got "lac"; leave it out')
        as_count(self.free_ranks, "free_ranks")
        if not as_size(self.temperature, "temperature") > 0:
            raise InputError(f"temperature: expected a positive number, got {self.temperature}")
        object.__setattr__(self, "coverage", as_coverage(self.coverage))
        object.__setattr__(self, "thresholds", thresholds)
        object.__setattr__(self, "penalty", as_size(self.penalty, "penalty"))

    @classmethod
    def fit(
        cls,
        probabilities: ArrayLike,
        y: ArrayLike,
        coverage: float = 0.9,
        method: str = "lac",
        randomised: bool = False,
        per_class: bool = False,
    ) -> SetRule:
        r"""Find the thresholds on samples that were not used for training.

        .. math:: s_{(m)}, \quad m = \lceil (n + 1) \, \gamma \rceil

        Parameters
        ----------
        probabilities : array_like
            Of any classifier, shape ``(k, n)``.
        y : array_like
            Labels, shape ``(n,)``. A class may be absent, unless ``per_class`` is true.
        coverage : float
            :math:`\gamma`, between 0 and 1.
        method : {"lac", "aps", "raps"}
            The score, as described in :mod:`npsoftmax.conformal`.
        randomised : bool
            Whether the last class is left out at random; not for ``"lac"``.
        per_class : bool
            Whether the coverage shall hold for each class, and not only for all together.

        Returns
        -------
        SetRule

        Raises
        ------
        InputError
            The samples, or those of a class, are too few: at least
            :math:`\gamma / (1 - \gamma)` are needed, and five times as many for ``"raps"``.

        Examples
        --------
        >>> P = np.array([[0.7] * 10 + [0.2] * 10, [0.3] * 10 + [0.8] * 10])
        >>> SetRule.fit(P, [0] * 10 + [1] * 10, coverage=0.9, per_class=True).thresholds
        (0.7, 0.8)
        """
        P, labels = as_scores(probabilities, y, "probabilities")
        P = as_probabilities(P.astype(np.float64), "probabilities")
        rule = cls(method, coverage, (1.0,), randomised)
        _check_enough(labels.size, rule)
        if method == "raps":
            order = np.random.default_rng(0).permutation(labels.size)
            some, rest = np.split(order, [labels.size // TUNING])
            rule = _tune(rule, P[:, some], labels[some])
            P, labels = P[:, rest], labels[rest]
        own = _of_labels(rule._conformity(P), labels)
        groups = [own]
        if per_class:
            _check_enough_of_each(np.bincount(labels, minlength=P.shape[0]), rule)
            groups = [own[labels == label] for label in range(P.shape[0])]
        return replace(rule, thresholds=tuple(_quantile(group, coverage) for group in groups))

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return which classes are in the set of each sample, shape ``(k, n)``.

        Parameters
        ----------
        probabilities : array_like
            Of the classifier that the rule was fitted to, shape ``(k, n)``.

        Examples
        --------
        With a threshold of 0.4, the classes after those that reach 0.6 are left out:

        >>> rule = SetRule("aps", 0.9, thresholds=(0.4,))
        >>> rule.sets([[0.7, 0.5], [0.2, 0.3], [0.1, 0.2]]).T.tolist()
        [[True, False, False], [True, True, False]]
        """
        P = as_columns(probabilities, name="probabilities").astype(np.float64)
        P = as_probabilities(P, "probabilities")
        self.check_classes(P.shape[0])
        thresholds = np.array(self.thresholds)[:, None]
        # The penalty counts too: it is what the conformity near 0 is the difference from.
        slack = SLACK * (np.abs(thresholds) + self.penalty)
        inside: NDArray[np.bool_] = self._conformity(P) >= thresholds - slack
        return inside

    def check_classes(self, num_outputs: int) -> None:
        """Raise ShapeError if the thresholds are those of another number of classes."""
        if len(self.thresholds) not in (1, num_outputs):
            raise ShapeError(
                f"thresholds: expected one, or one for each of {num_outputs} classes, got "
                f"{len(self.thresholds)}; calibrate the sets of this classifier"
            )

    def _conformity(self, P: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the conformity of each class, shape ``(k, n)``."""
        if self.method == "lac":
            return P
        u = hashed(P) if self.randomised else 1.0
        return adaptive_conformity(P, u, self.penalty, self.free_ranks)


def adaptive_conformity(
    P: NDArray[np.float64],
    u: NDArray[np.float64] | float,
    penalty: float = 0.0,
    free_ranks: int = 1,
) -> NDArray[np.float64]:
    r"""Compute :math:`1 - s` of ``"aps"`` and ``"raps"``, shape ``(k, n)``.

    .. math:: 1 - s = u p_r + p_{r+1} + \dots + p_k - \lambda \max(0, r - k_0)

    Parameters
    ----------
    P : ndarray
        Probabilities, shape ``(k, n)``. On a tie, the lower class has the lower rank.
    u : ndarray or float
        One number for each sample, shape ``(n,)``, or one for all.
    penalty : float
        :math:`\lambda`.
    free_ranks : int
        :math:`k_0`.

    Examples
    --------
    >>> adaptive_conformity(np.array([[0.25], [0.5], [0.25]]), u=1.0).T
    array([[0.5 , 1.  , 0.25]])
    """
    order = np.argsort(-P, axis=0, kind="stable")
    ranked = np.take_along_axis(P, order, axis=0)
    below = np.zeros_like(ranked)
    below[:-1] = np.cumsum(ranked[:0:-1], axis=0)[::-1]
    excess = np.maximum(0, np.arange(1, len(P) + 1) - free_ranks)
    conformity = np.empty_like(P)
    values = below + u * ranked - penalty * excess[:, None]
    np.put_along_axis(conformity, order, values, axis=0)
    return conformity


def hashed(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a number from 0 to 1 for each sample that looks random, shape ``(n,)``.

    It depends on the first 16 binary digits of the probabilities: the last ones depend on how many
    samples are computed at once.

    Examples
    --------
    >>> u = hashed(np.array([[0.25, 0.5, 0.25], [0.75, 0.5, 0.75]]))
    >>> bool(u[0] == u[2] != u[1])
    True
    """
    bits = (P.astype(np.float32).view(np.uint32) >> np.uint32(8)).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, size=(len(P), 1), dtype=np.uint64)
    # A sum modulo 2**64, then the steps of SplitMix64 that let each bit change all others.
    mixed = ((2 * factors + np.uint64(1)) * bits).sum(axis=0, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    numbers: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def _tune(rule: SetRule, P: NDArray[np.float64], y: NDArray[Any]) -> SetRule:
    """Choose the ranks without a penalty, and the penalty with the smallest sets on average."""
    ranks = _of_labels(np.argsort(np.argsort(-P, axis=0, kind="stable"), axis=0), y) + 1
    free = -int(_quantile(-ranks, rule.coverage))

    def fitted(penalty: float) -> SetRule:
        trial = replace(rule, penalty=penalty, free_ranks=free)
        threshold = _quantile(_of_labels(trial._conformity(P), y), rule.coverage)
        return replace(trial, thresholds=(threshold,))

    return min(map(fitted, PENALTIES), key=lambda trial: int(trial.sets(P).sum()))


def _of_labels(values: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return the value of each sample's label."""
    found: NDArray[Any] = values[y, np.arange(y.size)]
    return found


def _quantile(conformity: NDArray[Any], coverage: float) -> float:
    """Return the conformity that so many samples reach: one minus the quantile of the scores."""
    # Decimals: 0.55 * 100 is above 55 in binary, and would be rounded up to 56.
    m = math.ceil((conformity.size + 1) * _decimal(coverage))
    return float(np.sort(conformity)[-m])


def _decimal(coverage: float) -> Fraction:
    return Fraction(repr(float(coverage)))


def _needed(coverage: float) -> int:
    """Return the smallest n with ceil((n + 1) coverage) <= n."""
    share = _decimal(coverage)
    return max(1, math.ceil(share / (1 - share)))


def _check_enough(count: int, rule: SetRule) -> None:
    parts = TUNING if rule.method == "raps" else 1
    needed, usable = parts * _needed(rule.coverage), count // parts
    if count < needed:
        # Rounded down, so that the samples are enough for it.
        most = math.floor(1e4 * usable / (usable + 1)) / 1e4
        raise InputError(
            f"y: expected at least {needed} samples for a coverage of {rule.coverage} with "
            f'"{rule.method}", got {count}; give more'
            + f", or ask for a coverage of at most {most}"
            * (usable > 0)
        )


def _check_enough_of_each(counts: NDArray[Any], rule: SetRule) -> None:
    needed = _needed(rule.coverage)
    few = np.flatnonzero(counts < needed)
    if few.size:
        got = ", ".join(f"{counts[label]} of class {label}" for label in few[:MAX_NAMED])
        more = f" and too few of {few.size - MAX_NAMED} others" * (few.size > MAX_NAMED)
        part = " besides the fifth that chooses the penalty" * (rule.method == "raps")
        raise InputError(
            f"per_class: expected at least {needed} samples of each class for a coverage of "
            f"{rule.coverage}{part}, got {got}{more}; give more, or leave per_class out"
        )


def as_coverage(coverage: float) -> float:
    """Return a coverage as a float, if it is between 0 and 1."""
    if not 0 < as_size(coverage, "coverage") < 1:
        raise InputError(
            f"coverage: expected a number between 0 and 1, got {coverage}; 90 % is 0.9"
        )
    return float(coverage)


def check_method(method: str) -> str:
    """Return a method, if there is one of this name."""
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r:.80}")
    return method
