"""Softmax regression as scikit-learn has it: samples are rows, and labels are anything.

Rows in C order, transposed, are the Fortran-ordered columns that the rest of the package computes
on: nothing is copied on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from npsoftmax import Adam
from npsoftmax.errors import InputError
from npsoftmax.ext._estimator_samples import (
    Samples,
    agreed_classes,
    is_class_weight,
    places_of,
    weighted,
    without_absent_classes,
)
from npsoftmax.ext._estimator_solvers import descend, finite_logits, minimise, rounded
from npsoftmax.functional import logsoftmax, softmax

__all__ = ["SoftmaxClassifier"]

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
