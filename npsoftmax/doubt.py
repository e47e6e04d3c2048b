r"""Doubt: which predictions are said without one, and how many of these are right.

The **evidence** for a prediction is how far the largest logit stands above the mean of all logits.
It is large if the sample has much of what distinguishes a class. A probability compares the classes
with each other, so it can be near 1 although little speaks for any of them; the evidence is small
then. So it recognises errors about as well as the probability does, and samples of unknown classes
better.

A prediction is doubted if the second class is more than half as likely as the first, or if the
evidence is at most a limit, which :func:`fit_evidence_limit` chooses on samples with known labels.
Of :math:`n` samples above a limit, let :math:`e` be wrong. If more than a share :math:`1 - r` of
all samples above it were wrong, then so few errors would have the probability

.. math:: P(E \le e) < \sum_{i=0}^{e} \binom{n}{i} (1 - r)^i r^{n - i} .

A limit is accepted if this sum is at most 5 %: the lower Clopper-Pearson bound of the share that is
right is then at least :math:`r`. The lowest accepted limit is taken. That it is chosen among many
is made up for by the predictions whose two best classes are close: they count here, and are then
doubted at any limit.

References
----------
Geifman, El-Yaniv, "Selective classification for deep neural networks", NIPS 2017: limits that
guarantee a share. Vaze et al., "Open-set recognition: a good closed-set classifier is all you
need?", ICLR 2022: the largest logit tells unknown classes. Clopper, Pearson, "The use of confidence
or fiducial limits illustrated in the case of the binomial", Biometrika 26(4), 1934.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_scores
from npsoftmax.errors import InputError

__all__ = ["are_doubtful", "evidence", "fit_evidence_limit"]

RISK = 0.05
# However many are right: samples of other kinds and origins have little evidence.
DOUBTED = 1 / 8


def evidence(logits: ArrayLike) -> NDArray[np.float64]:
    r"""Compute the evidence for the most likely class of each sample, shape ``(n,)``.

    .. math:: e_j = \max_i z_{ij} - \frac1k \sum_i z_{ij}

    Examples
    --------
    >>> evidence([[4.0, 0.5], [1.0, 0.25], [1.0, 0.0]]).tolist()
    [2.0, 0.25]
    """
    Z = as_columns(logits, name="logits").astype(np.float64)
    found: NDArray[np.float64] = Z.max(axis=0) - Z.mean(axis=0)
    return found


def are_doubtful(logits: ArrayLike, limit: float) -> NDArray[np.bool_]:
    """Return whether the prediction for each sample is doubtful at a limit, shape ``(n,)``.

    Examples
    --------
    The evidence is 2, 1 and 3; the first two classes of the last sample are equally likely:

    >>> are_doubtful([[4.0, 2.0, 6.0], [0.0, 0.0, 6.0], [2.0, 1.0, -3.0]], limit=1.5).tolist()
    [False, True, True]
    """
    columns = as_columns(logits, name="logits")
    return _are_close(columns) | (evidence(columns) <= limit)


def fit_evidence_limit(logits: ArrayLike, y: ArrayLike, right: float = 0.9) -> float:
    """Find the lowest limit above which a share of the predictions is right.

    It is chosen with an allowance for the number of samples, as described in
    :mod:`npsoftmax.doubt`, and doubts at least an eighth of the samples.

    Parameters
    ----------
    logits : array_like
        Shape ``(k, n)``, for samples held out from training.
    y : array_like
        Labels, shape ``(n,)``.
    right : float
        The share of predictions with more evidence that must be right, between 0 and 1.

    Returns
    -------
    float
        The limit. It is the largest evidence, so that all samples are doubted, if they are too few
        or too many of them are wrong.

    Examples
    --------
    Of 80 samples, the 20 with the least evidence are wrong. Two errors among the 62 samples above
    the limit are few enough to conclude that 90 % are right; three among 63 are not:

    >>> Z = np.stack([np.arange(80.0, 0.0, -1.0), np.zeros(80)])
    >>> y = [0] * 60 + [1] * 20
    >>> limit = fit_evidence_limit(Z, y)
    >>> int((evidence(Z) > limit).sum())
    62
    """
    columns, labels = as_scores(logits, y, "logits")
    if not 0 < right < 1:
        raise InputError(f"right: expected a share between 0 and 1, got {right}")
    found = evidence(columns)
    order = np.argsort(-found, kind="stable")
    errors = np.cumsum((columns.argmax(axis=0) != labels)[order])
    counts = np.arange(1, labels.size - int(np.ceil(DOUBTED * labels.size)) + 1)
    candidates = counts[errors[: counts.size] <= (1 - right) * counts]
    enough = (n for n in candidates[::-1] if _tail(errors[n - 1], n, right) <= RISK)
    return float(found[order[next(enough, 0)]])


def _are_close(logits: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether the second class is more than half as likely as the first."""
    second = np.sort(logits, axis=0)[-2:-1]  # none if there is one class
    return np.asarray((logits.max(axis=0) - second < np.log(2)).any(axis=0))


def _tail(errors: int, count: int, right: float) -> float:
    """Return the probability of at most so many errors, as above."""
    i = np.arange(errors + 1)
    # The binomial coefficients: each is the one before it times (n - i + 1) / i.
    steps = np.log((count - i[1:] + 1) / i[1:])
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(logs + i * np.log(1 - right) + (count - i) * np.log(right)).sum())
