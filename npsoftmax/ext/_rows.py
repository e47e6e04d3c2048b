"""What the estimators of scikit-learn share: rows with labels and weights, and predictions.

Rows in C order, transposed, are Fortran-ordered columns, as in the rest of the package. Nothing is
copied.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax import SoftmaxRegression, __version__
from npsoftmax._checks import as_weights, level_of_caller
from npsoftmax.errors import InputError
from npsoftmax.ext import extra
from npsoftmax.functional import affine, logsoftmax, softmax

with extra("sklearn"):
    from sklearn import get_config
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = [
    "Floats",
    "LinearClassifier",
    "Rows",
    "add_absent",
    "check_class_weight",
    "check_two_classes",
    "number_present",
    "penalty_of_rows",
    "warn",
    "weigh",
]

Floats = NDArray[np.float64]

DTYPES = [np.float64, np.float32]


class LinearClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predictions from ``coef_``, ``intercept_`` and ``classes_``; one row for two classes."""

    coef_: Floats
    intercept_: Floats
    classes_: NDArray[Any]
    class_weight: Mapping[Any, float] | str | None

    def decision_function(self, X: ArrayLike) -> Floats:
        """Compute logits, ``(n, k)``; for two classes the second minus the first, ``(n,)``."""
        logits = self._logits(X)
        return logits[:, 1] if self.classes_.size == 2 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely label of each row, ``(n,)``; the first on a tie."""
        indices = self._logits(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[indices]
        return labels

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Compute the probability of each class, ``(n, k)`` in the order of ``classes_``."""
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """Compute the log-probabilities, accurate even where the probabilities underflow to 0."""
        return logsoftmax(self._logits(X), axis=1)

    def to_model(self) -> SoftmaxRegression:
        """Return a model of the core with the same probabilities, to save or export.

        It takes samples as columns, and its classes are the labels as strings. Its features have
        the names of the columns of ``X``, if these have names.

        Examples
        --------
        >>> from npsoftmax.ext.estimator import SoftmaxClassifier
        >>> X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = SoftmaxClassifier(alpha=0.1).fit(X, ["no", "yes", "no", "yes"]).to_model()
        >>> model, model.classes
        (SoftmaxRegression(1 => 2, float64), ('no', 'yes'))
        >>> model.save("model.npz")
        """
        check_is_fitted(self, "coef_")
        model = SoftmaxRegression(
            self.coef_.shape[1],
            self.classes_.size,
            sigma=0.0,
            dtype=np.float64,
            classes=self.classes_.tolist(),
            feature_names=getattr(self, "feature_names_in_", None),
        )
        model.theta[-len(self.coef_) :] = self._rows()
        return model

    def _rows(self) -> Floats:
        """Return ``coef_`` and ``intercept_`` side by side."""
        return np.hstack([self.coef_, self.intercept_[:, None]], dtype=np.float64)

    @np.errstate(all="ignore")
    def _logits(self, X: ArrayLike) -> Floats:
        """Return one logit for each class, 0 for the first of two; InputError on overflow."""
        check_is_fitted(self, "coef_")
        _refuse_other_arrays(X=X)
        rows = validate_data(self, X, accept_sparse="csr", dtype=DTYPES, reset=False)
        logits = np.zeros((rows.shape[0], self.classes_.size))
        affine(self._rows(), rows.T, out=logits[:, -len(self.coef_) :].T)
        if not np.isfinite(logits).all():
            raise InputError(
                f"X: expected numbers whose logits fit float64, got up to {np.abs(rows).max():g}; "
                "scale the features as those that the model was fitted to"
            )
        return logits

    def _validated(self, X: Any, y: Any, first: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        _refuse_other_arrays(X=X, y=y)
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=DTYPES, order="C", reset=first)
        check_classification_targets(y)
        return X, y

    def _weighted(self, X: Any, y: NDArray[Any], sample_weight: ArrayLike | None) -> Rows:
        """Return the rows of positive weight, of which there must be one, of two labels or more."""
        classes, labels = np.unique(y, return_inverse=True)
        check_two_classes(classes)
        samples = weigh(X, labels, classes, sample_weight, self.class_weight)
        if samples.labels.size == 0:
            raise InputError(
                "sample_weight and class_weight: expected a positive weight for some row, got zero "
                "for all; leave them out for equal weights"
            )
        return samples

    def _keep(self, theta: Floats, classes: NDArray[Any]) -> None:
        """Store parameters with a row for each class."""
        rows = theta[1:] - theta[:1] if len(theta) == 2 else theta
        self.coef_, self.intercept_ = rows[:, :-1].copy("C"), rows[:, -1].copy()
        self.classes_ = classes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_npsoftmax_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("_npsoftmax_version", "unknown")
        super().__setstate__(state)
        if saved != __version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"npsoftmax {__version__}",
                    original_sklearn_version=f"npsoftmax {saved}",
                ),
                stacklevel=2,
            )


def _refuse_other_arrays(**given: object) -> None:
    """Raise InputError for a tensor that scikit-learn would pass on, not convert."""
    for name, array in given.items() if get_config()["array_api_dispatch"] else ():
        if hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray):
            raise InputError(
                f"{name}: expected a NumPy array, got {type(array).__module__}."
                f"{type(array).__name__} with array_api_dispatch=True; pass np.asarray({name})"
            )


SMALLEST = np.finfo(np.float64).smallest_subnormal
# The logit of an absent class, where the largest logit is at least 0.
ABSENT = float(np.log(np.finfo(np.float64).eps))


class Rows(NamedTuple):
    """Rows of positive weight, 1 on average: ``classes[labels[j]]`` is the label of ``X[j]``."""

    X: NDArray[Any]
    labels: NDArray[np.intp]
    weights: NDArray[np.float64]
    classes: NDArray[Any]
    kept: NDArray[np.bool_]  # which of the given rows these are


def weigh(
    X: NDArray[Any],
    labels: NDArray[np.intp],
    classes: NDArray[Any],
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> Rows:
    """Return the rows of positive weight."""
    weights = np.ones(labels.size)
    with np.errstate(all="ignore"):
        if sample_weight is not None:
            weights = as_weights(sample_weight, labels.size)
            weights /= weights.max() or 1.0
        if str(class_weight) == "balanced":
            weights /= np.maximum(np.bincount(labels, weights), SMALLEST)[labels]
        elif isinstance(class_weight, Mapping):
            weights *= _class_factors(class_weight, classes)[labels]
        weights /= weights.max() or 1.0
    kept = weights > 0
    if not kept.all():
        X, labels, weights = X[kept], labels[kept], weights[kept]
    return Rows(X, labels, weights / weights.mean() if weights.size else weights, classes, kept)


def number_present(samples: Rows) -> tuple[NDArray[np.intp], Rows]:
    """Return the classes that rows have, and the rows with labels that count these alone."""
    present, labels = np.unique(samples.labels, return_inverse=True)
    return present, samples._replace(labels=labels)


def add_absent(part: Floats, present: NDArray[np.intp], k: int) -> Floats:
    """Return the parameters of all ``k`` classes from those of the present ones.

    The objective has no minimum if a class is absent: its bias goes to -infinity, and its weights
    to 0. Centred, the other logits are never all negative.
    """
    theta = np.zeros((k, part.shape[1]))
    theta[:, -1] = ABSENT
    theta[present] = part - part.mean(axis=0)
    return theta


def _class_factors(class_weight: Mapping[Any, float], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the factor for the weights of each class."""
    names = classes.tolist()
    unknown = [key for key in class_weight if key not in names]
    # Not an error, as a part of the rows may lack a class; but it may be misspelt.
    if unknown and set(names) - set(class_weight):
        warnings.warn(
            f"class_weight: expected keys among the labels {names}, got also {unknown}, which have "
            "no effect here",
            stacklevel=level_of_caller(),
        )
    factors = np.array([class_weight.get(name, 1.0) for name in names], np.float64)
    if not (factors.min() >= 0 and factors.max() < np.inf):
        raise InputError(
            f"class_weight: expected finite numbers of at least 0, got {dict(class_weight)}"
        )
    return factors


def check_two_classes(classes: NDArray[Any]) -> None:
    """Raise InputError if there is one class alone."""
    if classes.size < 2:
        raise InputError(
            f"y: expected labels of at least two classes, got only one class, {classes.tolist()}; "
            "check the column or the part of the rows that they come from"
        )


def check_class_weight(class_weight: object) -> None:
    """Raise InputError unless it is a dict, "balanced" or None."""
    # As text, because arrays are compared elementwise.
    if not isinstance(class_weight, Mapping | None) and str(class_weight) != "balanced":
        raise InputError(f"class_weight: expected a dict, 'balanced' or None, got {class_weight!r}")


def penalty_of_rows(alpha: float, classes: NDArray[Any]) -> float:
    """Return the weight of the penalty; two rows, -w/2 and w/2, have half the square of w."""
    return float(alpha) * (2 if classes.size == 2 else 1)


def warn(advice: str) -> None:
    """Warn the caller of ``fit``."""
    warnings.warn(advice, ConvergenceWarning, stacklevel=level_of_caller())
