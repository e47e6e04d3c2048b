"""Softmax regression as scikit-learn has it: samples are rows, and labels are anything.

Rows in C order, transposed, are the Fortran-ordered columns that the rest of the package computes
on: nothing is copied on the way.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from npsoftmax import Adam, DataLoader, SoftmaxRegression, fit
from npsoftmax.errors import DivergedError, InputError, LabelError, ShapeError
from npsoftmax.functional import logsoftmax, softmax
from npsoftmax.objective import FullBatch
from npsoftmax.optimisers import Optimiser

__all__ = [
    "Samples",
    "SoftmaxClassifier",
    "agreed_classes",
    "descend",
    "finite_logits",
    "is_class_weight",
    "minimise",
    "places_of",
    "rounded",
    "weighted",
    "without_absent_classes",
]


# Rows with labels and weights as a classifier of scikit-learn is given them.

SMALLEST = np.finfo(np.float64).smallest_subnormal


class Samples(NamedTuple):
    """Rows that weigh something.

    Attributes
    ----------
    X : ndarray
        The rows, shape ``(n, d)``, in C order.
    labels : ndarray of int
        Their places in ``classes``.
    weights : ndarray of float64
        Positive, and 1 on average.
    classes : ndarray
        The labels' names.
    """

    X: NDArray[Any]
    labels: NDArray[np.intp]
    weights: NDArray[np.float64]
    classes: NDArray[Any]


def is_class_weight(value: object) -> bool:
    """Say whether a value is a dict, "balanced" or None; arrays cannot be asked by ``in``."""
    return value is None or isinstance(value, Mapping) or str(value) == "balanced"


@np.errstate(all="ignore")
def weighted(
    X: NDArray[Any],
    labels: NDArray[np.intp],
    classes: NDArray[Any],
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> Samples:
    """Return the rows that weigh something, or raise InputError if there are none."""
    weights = _as_weights(sample_weight, labels.size)
    if str(class_weight) == "balanced":
        weights /= np.maximum(np.bincount(labels, weights), SMALLEST)[labels]
    elif isinstance(class_weight, Mapping):
        weights *= _as_factors(class_weight, classes)[labels]
    weights /= weights.max()
    kept = weights > 0
    if not kept.any():
        raise InputError(
            "class_weight: expected weights other than zero for some of the rows, got zero for all "
            "that have a sample_weight"
        )
    rows = X if kept.all() else X[kept]
    return Samples(rows, labels[kept], weights[kept] / weights[kept].mean(), classes)


def _as_weights(sample_weight: ArrayLike | None, num_samples: int) -> NDArray[np.float64]:
    """Return weights of which the largest is 1, in a new array."""
    if sample_weight is None:
        return np.ones(num_samples)
    weights = check_array(
        sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight"
    )
    if weights.shape != (num_samples,):
        raise ShapeError(
            f"sample_weight: expected one number for each of {num_samples} rows, got shape "
            f"{weights.shape}"
        )
    if weights.min() < 0 or weights.max() == 0:
        raise InputError(
            "sample_weight: expected numbers of at least zero, and not zero for all, got numbers "
            f"from {weights.min()} to {weights.max()}"
        )
    return np.asarray(weights / weights.max())


def _as_factors(class_weight: Mapping[Any, float], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return what the weights of each class are multiplied by."""
    names = classes.tolist()
    # Rows may lack a class that the dict names, but one that it does not name may be misspelt.
    if set(class_weight) - set(names) and set(names) - set(class_weight):
        raise InputError(
            f"class_weight: expected keys among the labels {names}, got {list(class_weight)}"
        )
    factors = np.array([class_weight.get(name, 1.0) for name in names], np.float64)
    if not (factors.min() >= 0 and factors.max() < np.inf):
        raise InputError(
            f"class_weight: expected finite numbers of at least 0, got {dict(class_weight)}"
        )
    return factors


def without_absent_classes(samples: Samples) -> Samples:
    """Return the samples with the classes that they have, two at least."""
    present, labels = np.unique(samples.labels, return_inverse=True)
    _refuse_one_class(samples.classes[present])
    return samples._replace(labels=labels, classes=samples.classes[present])


def agreed_classes(given: ArrayLike | None, known: NDArray[Any] | None) -> NDArray[Any]:
    """Return the classes of every call of partial_fit: those of the calls before, if there were."""
    classes = known if given is None else np.unique(given)
    if classes is None:
        raise InputError("classes: expected all labels at the first call of partial_fit, got None")
    if known is not None and not np.array_equal(known, classes):
        raise InputError(
            f"classes: expected {known.tolist()} as before, got {classes.tolist()}; leave them "
            "out, or begin anew with a clone"
        )
    _refuse_one_class(classes)
    return classes


def places_of(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return where labels stand among the classes, or raise LabelError if they do not."""
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise LabelError(
            f"y: expected labels among {classes.tolist()}, got {unknown.tolist()}; name all that "
            "will come at the first call of partial_fit, or begin anew with fit"
        )
    return np.searchsorted(classes, y)


def _refuse_one_class(classes: NDArray[Any]) -> None:
    if classes.size < 2:
        raise InputError(
            f"y: expected labels of at least two classes, got only one class, {classes.tolist()}; "
            "rows of weight 0 do not count"
        )


# How the parameters of an estimator are moved: to the optimum, or downhill batch after batch.

Floats = NDArray[np.float64]

# A preconditioner that was made far from the optimum can be a poor one there. After so many
# iterations another is made, then after twice as many, and so on.
ITERATIONS = 200
# The smallest variance, in units of the features' own, that is no rounding error for sure.
COLLINEAR = 1e-10


def minimise(theta: Floats, samples: Samples, l2: float, tol: float, max_iter: int) -> int:
    """Move ``theta`` to the optimum, and return the number of iterations that it took.

    Warns with ConvergenceWarning where there is something to know of the point that was reached.
    """
    model = SoftmaxRegression(samples.X.shape[1], len(theta), sigma=0.0, dtype=np.float64)
    model.theta = theta
    done, limit = 0, ITERATIONS
    while True:
        limit = min(limit, max_iter - done)
        optimum = fit(
            model,
            samples.X.T,
            samples.labels,
            l2=l2,
            sample_weight=samples.weights,
            tol=tol,
            max_iterations=limit,
        )
        done += optimum.iterations
        if optimum.reason != "iterations" or done == max_iter:
            break
        limit *= 2
    if l2 == 0:
        _make_smallest(theta, samples.X)
    if done == 0 and optimum.max_gradient > 0 and not theta.any():
        _warn("the gradient is below tol at the start already: scale the features, or lower tol")
    if optimum.advice:
        advice = optimum.advice.replace(
            f"max_iterations, now {limit}", f"max_iter, now {max_iter}"
        ).replace("l2", "alpha")
        _warn(advice)
    return done


def _warn(advice: str) -> None:
    warnings.warn(f"SoftmaxClassifier: {advice}", ConvergenceWarning, stacklevel=4)


@np.errstate(all="ignore")
def rounded(rows: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return coefficients in another dtype, or raise DivergedError if they do not fit it."""
    found = rows.astype(dtype)
    if not np.isfinite(found).all():
        raise DivergedError(
            f"coefficients: expected numbers that fit {dtype}, got up to {np.abs(rows).max():g}; "
            "scale the features, or give them as float64"
        )
    return found


@np.errstate(all="ignore")
def finite_logits(X: Any, coef: NDArray[Any], intercept: NDArray[Any]) -> NDArray[Any]:
    """Return the logits of rows, or raise InputError if they overflow."""
    logits: NDArray[Any] = X @ coef.T + intercept
    if not np.isfinite(logits).all():
        raise InputError(
            f"X: expected numbers whose logits fit {logits.dtype}, got up to "
            f"{np.abs(X).max():g}; scale the features as those that the model was fitted to"
        )
    return logits


@np.errstate(all="ignore")
def _make_smallest(theta: Floats, X: NDArray[Any]) -> None:
    """Move to the smallest weights that have the same logits on all rows.

    The loss determines no more than these logits. Where features are collinear, or more than rows,
    other weights have them too; a vanishing penalty would choose the smallest.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    if _vary_in_all_directions(centred):
        return
    weights = np.linalg.lstsq(centred, centred @ theta[:, :-1].T, rcond=None)[0].T
    theta[:, -1] += (theta[:, :-1] - weights) @ mean
    theta[:, :-1] = weights


def _vary_in_all_directions(centred: Floats) -> bool:
    """Say whether rows certainly do: for many rows that is known long before their SVD."""
    products = centred.T @ centred
    units = np.sqrt(products.diagonal())
    if not units.all():
        return False
    correlations = products / units / units[:, None]
    np.fill_diagonal(correlations, 1 - COLLINEAR)
    try:
        np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return False
    return True


@np.errstate(all="ignore")
def descend(
    theta: Floats,
    samples: Samples,
    l2: float,
    epochs: Iterable[int],
    batch_size: int,
    rule: Optimiser,
    seed: int,
) -> None:
    """Move ``theta`` by a step of the rule for each batch of each epoch."""
    every_row = np.arange(samples.labels.size)
    loader = DataLoader(samples.X.T, every_row, batch_size, shuffle=True, seed=seed)
    for epoch in epochs:
        for X, rows in loader.batches(epoch):
            weights = samples.weights[rows]
            problem = FullBatch(X, samples.labels[rows], sample_weight=weights, threads=1)
            # A batch counts for what it weighs, or few heavy rows would be lost among many.
            grad = weights.mean() * problem.loss_and_grad(theta).grad
            grad[:, :-1] += l2 * theta[:, :-1]
            rule.update(theta, grad)
        # What the classes have in common changes no probability, and costs a penalty.
        theta -= theta.mean(axis=0)
        if not np.isfinite(theta).all():
            raise DivergedError(
                f"training diverged in epoch {epoch + 1}: expected finite coefficients, got NaN or "
                f"infinities; scale the features, or lower the learning rate ({rule!r})"
            )


DTYPES = [np.float64, np.float32]
# Names of parameters, what they are, what that is called, and the least of it.
NUMBERS: Any = ("alpha", "tol", "learning_rate"), Real, "number", 0
COUNTS: Any = ("max_iter", "batch_size", "epochs"), Integral, "whole number", 1


def _needs_no_other_samples(estimator: SoftmaxClassifier) -> bool:
    if str(estimator.class_weight) == "balanced":
        raise InputError(
            "class_weight: expected a dict or None for partial_fit, which sees some of the samples "
            "only, got 'balanced'; give n / (k * counts) of all samples as a dict"
        )
    return True


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Softmax (multinomial logistic) regression.

    With samples as rows :math:`x_j` and weights :math:`w_j` (``sample_weight`` times
    ``class_weight``) it minimises

    .. math:: \frac{1}{\sum_j w_j} \sum_j w_j \, \ell(z_j, y_j)
        + \frac{\alpha}{2} \|\mathtt{coef\_}\|^2, \qquad
        z_j = \mathtt{coef\_} \, x_j + \mathtt{intercept\_},

    with the cross-entropy :math:`\ell`. For two classes ``coef_`` is one row, and the logits are 0
    and :math:`z_j`. The intercept is not penalised. This is the objective of scikit-learn's
    ``LogisticRegression`` where :math:`C = 1 / (\alpha \sum_j w_j)`.

    Parameters
    ----------
    alpha : float
        Weight of the penalty.
    solver : {"lbfgs", "sgd"}
        The exact optimum from all samples at once, or minibatches with the step sizes of
        :class:`npsoftmax.Adam`.
    tol : float
        lbfgs: the largest entry of the gradient, in magnitude, to stop at.
    max_iter : int
        lbfgs: stop after so many iterations in any case.
    learning_rate : float
        sgd: how far a step goes, about.
    batch_size : int
        sgd: rows for each step.
    epochs : int
        sgd: how often :meth:`fit` passes over all rows; :meth:`partial_fit` does it once.
    class_weight : dict, "balanced" or None
        What the weights of a class's samples are multiplied by, 1 for classes that are not in the
        dict. "balanced" gives all classes the same sum of weights.
    warm_start : bool
        Whether :meth:`fit` begins where the model stands, if it has these classes and features.
    random_state : int, RandomState or None
        sgd: the order of the rows. The result of lbfgs does not depend on chance.

    Attributes
    ----------
    classes_ : ndarray
        The labels in ascending order, shape ``(k,)``.
    coef_ : ndarray
        Weights, shape ``(k, d)``, for two classes ``(1, d)``; of the dtype of ``X``.
    intercept_ : ndarray
        Biases, shape ``(k,)``, for two classes ``(1,)``.
    n_iter_ : int
        Iterations of lbfgs, or passes over the rows.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Features, ``d``, and their names where ``X`` has columns with names.

    Notes
    -----
    Everything is computed in float64. Rows of float32 stay so in memory, and ``coef_`` is rounded
    to float32 in the end. A row of weight 0 is the same as an absent one: a class that only such
    rows have is not in ``classes_`` after :meth:`fit`. Where several ``coef_`` are optimal, as for
    collinear features without a penalty, lbfgs takes the smallest.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = SoftmaxClassifier(alpha=0.01).fit(X, y)
    >>> classifier.coef_.shape, round(classifier.score(X, y), 3)
    ((3, 4), 0.973)
    """

    def __init__(
        self,
        alpha: float = 0.0,
        solver: str = "lbfgs",
        *,
        tol: float = 1e-9,
        max_iter: int = 2000,
        learning_rate: float = 0.01,
        batch_size: int = 256,
        epochs: int = 100,
        class_weight: Mapping[Any, float] | str | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.alpha = alpha
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SoftmaxClassifier:
        """Fit the model to these samples alone.

        Parameters
        ----------
        X : array_like
            Shape ``(n, d)``.
        y : array_like
            Labels of two classes or more, shape ``(n,)``.
        sample_weight : array_like, optional
            Numbers of at least 0, shape ``(n,)``: 2 counts a row twice; only ratios count.

        Returns
        -------
        SoftmaxClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            Data or parameters make no sense, or ``X`` is sparse.
        DivergedError
            sgd: the coefficients became NaN or infinite.

        Warns
        -----
        ConvergenceWarning
            lbfgs: the optimum was not reached, or there is none.
        """
        self._check_parameters()
        X, y = self._validated(X, y, first=True)
        classes, labels = np.unique(y, return_inverse=True)
        samples = weighted(X, labels, classes, sample_weight, self.class_weight)
        samples = without_absent_classes(samples)
        theta = self._start(samples, go_on=self.warm_start)
        rule = Adam()
        if self.solver == "lbfgs":
            n_iter = minimise(theta, samples, self._l2(theta), self.tol, self.max_iter)
        else:
            n_iter = self.epochs
            self._descend(theta, samples, range(n_iter), rule)
        return self._take_over(theta, samples, n_iter, rule)

    @available_if(_needs_no_other_samples)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> SoftmaxClassifier:
        """Go on from where the model stands: pass over these samples once, in minibatches.

        Parameters
        ----------
        X, y, sample_weight : array_like
            As for :meth:`fit`, but classes may be absent. Ratios of weights count within a call.
        classes : array_like, optional
            All labels that will ever come; needed at the first call.

        Returns
        -------
        SoftmaxClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError, DivergedError
            As for :meth:`fit`; or ``classes`` are missing, others than before, or without one of
            the labels.
        """
        self._check_parameters()
        begun = hasattr(self, "coef_")
        known = agreed_classes(classes, self.classes_ if begun else None)
        X, y = self._validated(X, y, first=not begun)
        samples = weighted(X, places_of(y, known), known, sample_weight, self.class_weight)
        theta = self._start(samples, go_on=True)
        passes, rule = (self.n_iter_, deepcopy(self._rule)) if begun else (0, Adam())
        self._descend(theta, samples, range(passes, passes + 1), rule)
        return self._take_over(theta, samples, passes + 1, rule)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the logits.

        Parameters
        ----------
        X : array_like
            Shape ``(n, d)``.

        Returns
        -------
        ndarray
            Shape ``(n, k)``; for two classes ``(n,)``, the second logit minus the first.

        Raises
        ------
        ValueError, TypeError
            The model is not fitted, or ``X`` does not fit it.
        """
        check_is_fitted(self, "coef_")
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        logits = finite_logits(X, self.coef_, self.intercept_)
        return logits[:, 0] if self.classes_.size == 2 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely label of each sample, ``(n,)``; the first on a tie.

        Parameters
        ----------
        X : array_like
            As for :meth:`decision_function`, and raises the same.
        """
        places = self._logits(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[places]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the probability of each class, ``(n, k)`` in the order of ``classes_``.

        Parameters
        ----------
        X : array_like
            As for :meth:`decision_function`, and raises the same.
        """
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the logarithms of the probabilities from the logits: exact where those are 0.

        Parameters
        ----------
        X : array_like
            As for :meth:`decision_function`, and raises the same.
        """
        return logsoftmax(self._logits(X), axis=1)

    def _logits(self, X: ArrayLike) -> NDArray[Any]:
        logits = self.decision_function(X)
        return logits if logits.ndim == 2 else np.column_stack([np.zeros_like(logits), logits])

    def _check_parameters(self) -> None:
        for names, kind, what, least in (NUMBERS, COUNTS):
            for name in names:
                value = getattr(self, name)
                if not (isinstance(value, kind) and least <= value < np.inf):
                    raise InputError(
                        f"{name}: expected a {what} of at least {least}, got {value!r}"
                    )
        if str(self.solver) not in ("lbfgs", "sgd"):
            raise InputError(f"solver: expected 'lbfgs' or 'sgd', got {self.solver!r}")
        if not is_class_weight(self.class_weight):
            raise InputError(
                f"class_weight: expected a dict, 'balanced' or None, got {self.class_weight!r}"
            )

    def _validated(self, X: Any, y: Any, first: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        X, y = validate_data(self, X, y, dtype=DTYPES, order="C", reset=first)
        check_classification_targets(y)
        return X, y

    def _start(self, samples: Samples, go_on: bool) -> NDArray[np.float64]:
        """Return parameters to begin with: zeros, or the model's if it fits the samples."""
        k, d = samples.classes.size, samples.X.shape[1]
        theta = np.zeros((k, d + 1), order="F")
        fits = hasattr(self, "coef_") and np.array_equal(self.classes_, samples.classes)
        if go_on and fits and self.coef_.shape[1] == d:
            rows = np.column_stack([self.coef_, self.intercept_])
            theta[...] = np.vstack([-rows, rows]) / 2 if k == 2 else rows
        return theta

    def _l2(self, theta: NDArray[np.float64]) -> float:
        """Return the weight of the penalty on ``theta``.

        Two rows, -w/2 and w/2, have half the squared length of w.
        """
        return float(self.alpha) * (2 if len(theta) == 2 else 1)

    def _descend(
        self, theta: NDArray[np.float64], samples: Samples, epochs: range, rule: Adam
    ) -> None:
        rule.eta = float(self.learning_rate)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        descend(theta, samples, self._l2(theta), epochs, self.batch_size, rule, seed)

    def _take_over(
        self, theta: NDArray[np.float64], samples: Samples, n_iter: int, rule: Adam
    ) -> SoftmaxClassifier:
        rows = theta[1:] - theta[:1] if len(theta) == 2 else theta
        rows = rounded(rows, samples.X.dtype)
        self.coef_, self.intercept_ = rows[:, :-1].copy("C"), rows[:, -1].copy()
        self.classes_, self.n_iter_, self._rule = samples.classes, n_iter, rule
        return self
