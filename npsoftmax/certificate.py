r"""What is proved about a prediction: whether the exact optimum makes the same one.

The gap bounds how far weights and biases can be from the optimum, and so how far each logit can
move (:mod:`npsoftmax.objective.reach`). A prediction whose logit is further above all others than
any of them can move is final: the exact optimum makes the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_float, as_size
from npsoftmax._sparse import columns as columns_of
from npsoftmax._sparse import square
from npsoftmax.errors import InputError, LabelError, ShapeError
from npsoftmax.functional import affine
from npsoftmax.objective import FullBatch
from npsoftmax.objective.penalty import penalty_at
from npsoftmax.objective.reach import EPS, SLACK, Reach
from npsoftmax.objective.samples import Summary

if TYPE_CHECKING:
    from npsoftmax.optimum import FullBatchTrainer, Optimum

__all__ = ["Certificate", "certify"]

# Numbers of the samples, logits and bounds in memory at a time.
PART_NUMBERS = 1024 * 1024


@dataclass(frozen=True)
class Certificate:
    """What is proved about weights and their predictions.

    Attributes
    ----------
    objective : float
        Mean cross-entropy plus penalty.
    gap : float
        It is at most this above the smallest value.
    radius : float
        The weights differ from those of the optimum by at most this, in the Frobenius norm; with
        penalty factors, in the norm that weighs the square of each feature by its factor.
    reserve : ndarray of float
        For each sample, shape ``(m,)``, the lead of its largest logit over another one, divided by
        how much this lead can differ from that of the optimum; the smallest such ratio over the
        other classes.
    final : ndarray of bool
        Which predictions are those of the exact optimum: those with a reserve above 1.
    share : float
        The share of the predictions that are final; NaN if there are no samples.
    """

    objective: float
    gap: float
    radius: float
    reserve: NDArray[np.float64]

    @property
    def final(self) -> NDArray[np.bool_]:
        """Which predictions are those of the exact optimum."""
        return self.reserve > 1

    @property
    def share(self) -> float:
        """The share of the predictions that are final."""
        return float(self.final.mean()) if self.reserve.size else math.nan

    def __str__(self) -> str:
        """Return a line."""
        text = (
            f"objective {self.objective:.8g}, at most {self.gap:.1e} above the smallest; "
            f"weights at most {self.radius:.2g} from the optimum's"
        )
        return f"{text}; {self.predictions}" if self.reserve.size else text

    @property
    def predictions(self) -> str:
        """Say how many are final."""
        return f"{np.count_nonzero(self.final)} of {self.reserve.size} predictions are final"


def certify(
    W: ArrayLike,
    b: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    l2: float,
    samples: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    penalty_factor: ArrayLike | None = None,
    scale: float = 1.0,
    threads: int | None = None,
) -> Certificate:
    r"""Prove how far weights are from the optimum, and which predictions cannot change.

    The weights may come from any program that minimises the same objective,

    .. math:: J(W, b) = \frac{1}{\bar w} \sum_j w_j \, \ell(s W x_j + b, y_j)
        + \frac{\lambda}{2} \sum_i f_i \|W_i\|^2 .

    Scikit-learn's ``LogisticRegression`` does, with :math:`\lambda = 1 / (C \sum_j w_j)`, and so
    does a loop with weight decay that leaves out the biases. For two classes scikit-learn has one
    row, ``coef_``: pass ``np.vstack([-coef_, coef_]) / 2``, the intercepts likewise, and twice
    the ``l2``.

    The proof is one of real numbers. The rounding errors of its computation, in float64, are
    estimated generously. It costs about as much as ten passes over the samples in float64, and
    :math:`k^2 / n` more for many classes. It proves less where ``l2`` is small: near 1e-12 often
    no prediction is final.

    Parameters
    ----------
    W, b : array_like
        Weights, shape ``(k, d)``, and biases, shape ``(k,)`` or ``(k, 1)``.
    X, y, l2, sample_weight, penalty_factor, scale, threads
        The training data and the penalty, as for :class:`npsoftmax.objective.FullBatch`. Each
        feature must have a penalty. For a model with a ``pixel_scale`` and integers, that is the
        ``scale``.
    samples : array_like, optional
        Samples to predict, shape ``(d, m)``. They are multiplied by ``scale`` too, so if it is not
        1 they must be integers if ``X`` is, and floats if ``X`` is.

    Returns
    -------
    Certificate
        Classes without training samples have no optimum; their predictions never are final.

    References
    ----------
    The derivation is in :mod:`npsoftmax.objective.reach` and docs/derivation.md, section 15.

    Examples
    --------
    >>> X, y = np.array([[-2.0, -1.0, 1.0, 2.0]]), [0, 1, 0, 1]
    >>> W, b = [[-0.19], [0.19]], [0.0, 0.0]  # the optimum has 0.1922
    >>> certificate = certify(W, b, X, y, l2=0.1, samples=[[-1.0, -0.01, 1.0]])
    >>> print(f"{certificate.gap:.1e}, {certificate.radius:.3f}", certificate.final)
    7.3e-05, 0.038 [ True False  True]
    """
    theta = _as_theta(W, b)
    problem = FullBatch(
        X, y, l2, sample_weight, scale=scale, threads=threads, penalty_factor=penalty_factor
    )
    check_penalised(problem)
    _check_shape(theta, problem.summary)
    columns = np.empty((theta.shape[1] - 1, 0))
    if samples is not None:
        columns = as_columns(samples, theta.shape[1] - 1, "samples", sparse=True)
        if scale != 1:
            _check_kind(columns.dtype, problem.summary.dtype, "samples")
    return certify_theta(theta, problem, columns)


def check_penalised(problem: FullBatch) -> None:
    """Raise unless each feature has a penalty."""
    if problem.least_penalty == 0:
        raise InputError(
            "l2: expected a penalty > 0 for each feature, got 0: without it the curvature of the "
            "objective has no lower bound, and there may be no optimum; train and certify with "
            "l2 > 0, and factors > 0 if you give a penalty_factor"
        )


def _check_kind(found: np.dtype[Any], expected: np.dtype[Any], name: str) -> None:
    """Raise unless both or neither are integers, which are scaled."""
    if (found.kind in "iu") != (expected.kind in "iu"):
        raise InputError(
            f"{name}: expected samples of the dtype of X, got {found} and {expected}, which would "
            "be scaled differently; pass pixels as integers in both, or scaled in both"
        )


def _as_theta(W: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return ``[W b]``, finite."""
    weights, biases = (as_float(given, name) for given, name in ((W, "W"), (b, "b")))
    k = weights.shape[0] if weights.ndim == 2 else 0
    if k == 0 or biases.shape not in ((k,), (k, 1)):
        raise ShapeError(
            f"W, b: expected shapes (k, d) and (k,), a row for each class, got {weights.shape} and "
            f"{biases.shape}"
        )
    theta = np.hstack([weights, biases.reshape(k, 1)], dtype=np.float64)
    if not np.isfinite(theta).all():
        raise InputError("W, b: expected finite numbers, got NaN or infinities; train again")
    return theta


def _check_shape(theta: NDArray[np.float64], summary: Summary) -> None:
    """Raise unless parameters fit the training data."""
    k, d = theta.shape[0], theta.shape[1] - 1
    if d != summary.num_inputs:
        hint = "; pass X.T" if d == summary.num_samples else ""
        raise ShapeError(
            f"W: expected a column for each of {summary.num_inputs} features of X, got {d}{hint}"
        )
    if k == 1 and summary.class_totals.size == 2:
        raise ShapeError(
            "W, b: expected a row for each of 2 classes, got one for both; pass "
            "np.vstack([-W, W]) / 2, np.hstack([-b, b]) / 2 and twice the l2"
        )
    if k < summary.class_totals.size:
        raise LabelError(
            f"y: expected labels 0..{k - 1} for {k} rows of W, got labels up to "
            f"{summary.class_totals.size - 1}; labels count from 0 and number the rows"
        )


def certify_theta(
    theta: NDArray[np.float64], problem: FullBatch, columns: NDArray[Any]
) -> Certificate:
    """Do the same for parameters of a problem whose penalty is positive."""
    objective = problem.loss_and_grad(theta).loss
    present, reach = problem.reach(theta)
    gap = min((1 + SLACK) * objective, reach.gap + (1 + SLACK) * problem.cost_of_absent(theta))
    # The weights of classes without samples are 0 at the optimum.
    absent = penalty_at(np.delete(theta, present, axis=0), problem.penalty)
    radius = math.sqrt(2 * (reach.gap + absent) / problem.l2)
    reserve = np.empty(columns.shape[1])
    step = max(1, PART_NUMBERS // sum(theta.shape))
    with np.errstate(all="ignore"):
        for start in range(0, reserve.size, step):
            part = slice(start, start + step)
            X = columns_of(columns, part)
            reserve[part] = _reserve(theta, problem.scale, present, reach, X)
    return Certificate(objective, gap, radius, reserve)


def _reserve(
    theta: NDArray[np.float64], scale: float, present: NDArray[np.intp], reach: Reach, X: Any
) -> NDArray[np.float64]:
    """Return the lead of the largest logit, divided by how far it can change."""
    Z = affine(theta, X, scale)
    predicted = Z.argmax(axis=0)
    labels = np.minimum(np.searchsorted(present, predicted), present.size - 1)
    numbers = np.arange(labels.size)
    leads = Z.max(axis=0) - Z[present] - _rounding(theta, scale, X)
    ratios = leads / reach.changes(X, labels)
    ratios[labels, numbers] = np.inf
    reserve: NDArray[np.float64] = ratios.min(axis=0)
    reserve[present[labels] != predicted] = 0.0  # no sample of the training has this class
    return reserve


def _rounding(theta: NDArray[np.float64], scale: float, X: Any) -> NDArray[np.float64]:
    """Return a bound for the rounding errors of a difference of two logits of each sample."""
    wide = X.astype(np.float64)
    lengths = np.sqrt(square(wide).sum(axis=0))
    W, b = theta[:, :-1], theta[:, -1]
    largest = abs(scale) * float(np.sqrt(np.einsum("ij,ij->i", W, W).max()))
    bounds: NDArray[np.float64] = EPS * (largest * lengths + np.abs(b).max())
    return bounds


def fit_until_final(
    trainer: FullBatchTrainer,
    until_final: tuple[ArrayLike, float],
    max_iterations: int,
    threads: int | None,
) -> Optimum:
    """Train until a share of the predictions for some samples is final."""
    check_penalised(trainer.problem)
    if not isinstance(until_final, tuple | list) or len(until_final) != 2:
        raise InputError(
            f"until_final: expected samples and a share, got {type(until_final).__name__}; pass "
            "until_final=(X_new, 0.999)"
        )
    samples, share = until_final
    if not 0 < as_size(share, "until_final") <= 1:
        raise InputError(
            f"until_final: expected a share above 0 and at most 1, got {share}; 0.999 leaves one "
            "prediction of a thousand"
        )
    columns = _columns_of(trainer, samples, threads)
    optimum, certificate = _train(trainer, columns, share, max_iterations)
    if certificate.share >= share or optimum.reason != "converged":
        return replace(optimum, certificate=certificate)
    way = "a larger l2 proves more"
    if trainer.model.theta.dtype == np.float32:
        way = "use float64"
    advice = f"rounding errors hide whether the other predictions are final: {way}"
    return replace(optimum, reason="rounding", certificate=certificate, advice=advice)


def _columns_of(trainer: FullBatchTrainer, samples: ArrayLike, threads: int | None) -> NDArray[Any]:
    """Return what the weights multiply of the samples of ``until_final``."""
    model, problem = trainer.model, trainer.problem
    sparse = model.features is None or model.features.takes_sparse
    columns = as_columns(samples, model.num_inputs, "X_new", sparse=sparse)
    if columns.shape[1] == 0:
        raise InputError("X_new: expected at least one sample, got none")
    columns = model.extract(columns, threads)
    if model.input_scale(columns.dtype) != problem.scale:
        _check_kind(columns.dtype, problem.summary.dtype, "X_new")
    return columns


def _train(
    trainer: FullBatchTrainer, columns: NDArray[Any], share: float, max_iterations: int
) -> tuple[Optimum, Certificate]:
    """Train with smaller and smaller tolerances, until enough predictions are final."""
    optimum = trainer.fit(max_iterations)
    while True:
        theta = trainer.model.theta.astype(np.float64)
        certificate = certify_theta(theta, trainer.problem, columns)
        reserve = np.sort(np.nan_to_num(certificate.reserve, posinf=np.inf))
        lowest = float(reserve[math.floor((1 - share) * reserve.size + 1e-9)])
        if lowest > 1 or optimum.reason != "converged":
            return optimum, certificate
        # What logits can change is in proportion to the gradient.
        trainer.tighten(trainer.tol * min(max(0.7 * lowest, 0.01), 0.7))
        iterations = optimum.iterations
        optimum = trainer.fit(max_iterations)
        if optimum.iterations == iterations:
            return optimum, certificate
