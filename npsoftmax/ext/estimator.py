"""Scikit-learn estimator: softmax regression with one penalty."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax import Adam, DataLoader, FullBatchTrainer, Optimum, SoftmaxRegression
from npsoftmax._checks import as_count, as_size
from npsoftmax._threads import blas_threads
from npsoftmax.errors import DivergedError, InputError, LabelError
from npsoftmax.ext import extra
from npsoftmax.ext._rows import (
    Floats,
    LinearClassifier,
    Rows,
    add_absent,
    check_class_weight,
    check_two_classes,
    number_present,
    penalty_of_rows,
    warn,
    weigh,
)
from npsoftmax.objective import FullBatch, ThroughOrigin, loss_and_grad

with extra("sklearn"):
    from sklearn.utils import check_random_state
    from sklearn.utils.metaestimators import available_if

__all__ = ["SoftmaxClassifier"]


def _partial_fit_is_possible(estimator: SoftmaxClassifier) -> bool:
    if str(estimator.class_weight) == "balanced":
        raise InputError(
            "class_weight: expected a dict or None for partial_fit, got 'balanced'; give "
            "n / (k * counts) of all samples as a dict"
        )
    return True


class SoftmaxClassifier(LinearClassifier):
    r"""Softmax (multinomial logistic) regression.

    With samples as rows :math:`x_j` and weights :math:`w_j` (``sample_weight`` times
    ``class_weight``) it minimises

    .. math:: \frac{1}{\sum_j w_j} \sum_j w_j \, \ell(z_j, y_j)
        + \frac{\alpha}{2} \|\mathtt{coef\_}\|^2, \qquad
        z_j = \mathtt{coef\_} \, x_j + \mathtt{intercept\_},

    with the cross-entropy :math:`\ell`. For two classes ``coef_`` is one row, and the logits are 0
    and :math:`z_j`. The intercept is not penalised, or 0 with ``fit_intercept=False``. This is the
    objective of scikit-learn's ``LogisticRegression`` where :math:`C = 1 / (\alpha \sum_j w_j)`.

    Parameters
    ----------
    alpha : float
        Weight of the penalty.
    solver : {"lbfgs", "sgd"}
        The exact optimum from all samples at once, or minibatches with the step sizes of
        :class:`npsoftmax.optimisers.Adam`.
    tol, max_iter : float, int
        lbfgs: as ``tol`` and ``max_iterations`` of :func:`npsoftmax.fit`. Small problems end when
        no logit changes any more.
    fit_intercept : bool
        Whether there is an intercept. Without one, offsets of the features matter, and make lbfgs
        slow: scale them.
    learning_rate, batch_size : float, int
        sgd: the step size, and the number of rows for each step.
    epochs : int
        sgd: number of passes of :meth:`fit` over all rows. :meth:`partial_fit` makes one pass.
    class_weight : dict, "balanced" or None
        Factors for the sample weights of each class, 1 for classes that are not in the dict. A key
        that is no label has no effect. "balanced" gives all classes the same total weight.
    warm_start : bool
        Whether :meth:`fit` begins at the current coefficients, if classes and features are the
        same.
    random_state : int, RandomState or None
        sgd: seed of the order of the rows. The result of lbfgs does not depend on it.

    Attributes
    ----------
    classes_ : ndarray
        The labels in ascending order, shape ``(k,)``.
    coef_ : ndarray
        Weights, shape ``(k, d)``, for two classes ``(1, d)``.
    intercept_ : ndarray
        Biases, shape ``(k,)``, for two classes ``(1,)``; without an intercept they are 0.
    n_iter_ : int
        Number of iterations of lbfgs, or of passes over the rows.
    converged_ : bool
        Whether lbfgs reached the optimum; False after sgd.
    suboptimality_ : float
        The objective is at most this above its smallest value. Without a penalty it is the
        objective itself, after sgd infinity.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Number of features, ``d``, and their names if the columns of ``X`` have names.

    Notes
    -----
    Everything is computed and returned in float64; rows of float32 stay float32 in memory. A row of
    weight 0 counts as absent. A class that only such rows have stays in ``classes_``, and
    :meth:`fit` gives it a probability of at most 2e-16 everywhere, by its intercept. If several
    ``coef_`` are optimal, as for collinear features without a penalty, lbfgs returns the smallest,
    unless there is no intercept, or the rows are sparse and have more than 1,024 features.

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
        fit_intercept: bool = True,
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
        self.fit_intercept = fit_intercept
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> SoftmaxClassifier:
        """Fit the model, and return it.

        Parameters
        ----------
        X : array_like or sparse array
            Shape ``(n, d)``.
        y : array_like
            Labels of two classes or more, shape ``(n,)``.
        sample_weight : array_like, optional
            Numbers of at least 0, shape ``(n,)``. A weight of 2 counts a row twice; only ratios
            matter.

        Raises
        ------
        DivergedError
            sgd: the coefficients became NaN or infinite.

        Warns
        -----
        ConvergenceWarning
            lbfgs: the optimum was not reached, or there is none.
        """
        self._check_parameters()
        X, y = self._validated(X, y, first=True)
        samples = self._weighted(X, y, sample_weight)
        present, samples = number_present(samples)
        theta = self._start(samples, resume=self.warm_start)
        part = np.asfortranarray(theta[present])
        rule, n_iter, optimum = Adam(), self.epochs, None
        if self.solver == "lbfgs":
            names = samples.classes[present], getattr(self, "feature_names_in_", None)
            problem = self._problem(samples)
            n_iter, optimum = _minimise(part, samples, *names, problem, self.tol, self.max_iter)
        else:
            self._descend(part, samples, range(n_iter), rule)
        if len(part) < len(theta):
            theta, rule = add_absent(part, present, len(theta)), Adam()
        else:
            theta = part
        return self._store(theta, samples, n_iter, rule, optimum)

    @available_if(_partial_fit_is_possible)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> SoftmaxClassifier:
        """Continue training with one pass over these samples, in minibatches, and return self.

        Parameters
        ----------
        X, y, sample_weight : array_like
            As in :meth:`fit`, but classes may be absent. Only ratios of weights within a call
            matter.
        classes : array_like, optional
            All labels that will ever occur. Required in the first call, and the same in later ones.
        """
        self._check_parameters()
        begun = hasattr(self, "coef_")
        known = _check_classes(classes, self.classes_ if begun else None)
        X, y = self._validated(X, y, first=not begun)
        samples = weigh(X, _index_labels(y, known), known, sample_weight, self.class_weight)
        if begun and samples.labels.size == 0:
            return self  # rows of weight 0 change nothing
        theta = self._start(samples, resume=True)
        passes, rule = (self.n_iter_, deepcopy(self._rule)) if begun else (0, Adam())
        if samples.labels.size:
            self._descend(theta, samples, range(passes, passes + 1), rule)
            passes += 1
        return self._store(theta, samples, passes, rule)

    def _check_parameters(self) -> None:
        for name in ("alpha", "tol", "learning_rate"):
            as_size(getattr(self, name), name)
        for name in ("max_iter", "batch_size", "epochs"):
            as_count(getattr(self, name), name)
        if not isinstance(self.fit_intercept, bool | np.bool_):
            raise InputError(f"fit_intercept: expected True or False, got {self.fit_intercept!r}")
        # As text, because arrays are compared elementwise.
        if str(self.solver) not in ("lbfgs", "sgd"):
            raise InputError(f"solver: expected 'lbfgs' or 'sgd', got {self.solver!r}")
        check_class_weight(self.class_weight)

    def _start(self, samples: Rows, resume: bool) -> NDArray[np.float64]:
        """Return zeros, or the current parameters if they fit the samples."""
        k, d = samples.classes.size, samples.X.shape[1]
        theta = np.zeros((k, d + 1), order="F")
        fits = hasattr(self, "coef_") and np.array_equal(self.classes_, samples.classes)
        if resume and fits and self.coef_.shape[1] == d:
            rows = self._rows()
            theta[...] = np.vstack([-rows, rows]) / 2 if k == 2 else rows
        if not self.fit_intercept:
            theta[:, -1] = 0
        return theta

    def _problem(self, samples: Rows) -> FullBatch:
        objective = FullBatch if self.fit_intercept else ThroughOrigin
        return objective(
            samples.X.T,
            samples.labels,
            penalty_of_rows(self.alpha, samples.classes),
            samples.weights,
        )

    @np.errstate(all="ignore")
    @blas_threads(1)
    def _descend(
        self, theta: NDArray[np.float64], samples: Rows, epochs: range, rule: Adam
    ) -> None:
        """Move ``theta`` by one step for each batch of each epoch."""
        rule.eta = float(self.learning_rate)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        indices = np.arange(samples.labels.size)
        loader = DataLoader(samples.X.T, indices, self.batch_size, shuffle=True, seed=seed)
        for epoch in epochs:
            for X, rows in loader.batches(epoch):
                # Soft targets that sum to its weight make a sample count by its weight.
                targets = np.zeros((len(theta), rows.size))
                targets[samples.labels[rows], np.arange(rows.size)] = samples.weights[rows]
                grad = loss_and_grad(
                    theta, X, targets, penalty_of_rows(self.alpha, samples.classes)
                ).grad
                if not self.fit_intercept:
                    grad[:, -1] = 0
                rule.update(theta, grad)
            # The mean over the classes changes no probability, and costs a penalty.
            theta -= theta.mean(axis=0)
            if not np.isfinite(theta).all():
                raise DivergedError(
                    f"training diverged in epoch {epoch + 1}: expected finite coefficients, got "
                    f"NaN or infinities; scale the features, or lower the learning rate ({rule!r})"
                )

    def _store(
        self,
        theta: Floats,
        samples: Rows,
        n_iter: int,
        rule: Adam,
        optimum: Optimum | None = None,
    ) -> SoftmaxClassifier:
        self._keep(theta, samples.classes)
        self.n_iter_, self._rule = n_iter, rule
        self.converged_ = optimum is not None and optimum.converged
        self.suboptimality_ = np.inf if optimum is None else optimum.suboptimality
        return self


START_AGAIN = "start again: clone(classifier).partial_fit(X, y, classes=all_labels)"


def _check_classes(given: ArrayLike | None, known: NDArray[Any] | None) -> NDArray[Any]:
    """Return the classes of partial_fit: those of previous calls, if there were any."""
    classes = known if given is None else np.unique(given)
    if classes is None:
        raise InputError("classes: expected all labels at the first call of partial_fit, got None")
    if known is not None and not np.array_equal(known, classes):
        raise InputError(
            f"classes: expected {known.tolist()} as before, got {classes.tolist()}; leave them "
            f"out, or {START_AGAIN}"
        )
    check_two_classes(classes)
    return classes


def _index_labels(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return the indices of labels in the classes, or raise LabelError if one is unknown."""
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise LabelError(
            f"y: expected labels among {classes.tolist()}, got {unknown.tolist()}; {START_AGAIN}"
        )
    return np.searchsorted(classes, y)


# A preconditioner made far from the optimum can be a poor one near it. After this number of
# iterations a new one is made, then after twice that number, and so on.
ITERATIONS_PER_PRECONDITIONER = 200


def _minimise(
    theta: Floats,
    samples: Rows,
    classes: NDArray[Any],
    features: NDArray[Any] | None,
    problem: FullBatch,
    tol: float,
    max_iter: int,
) -> tuple[int, Optimum]:
    """Move ``theta`` to the optimum; return the number of iterations, and the result.

    Warns with ConvergenceWarning if the point reached needs attention, and then names the labels of
    the rows of ``theta``, and features if they have names.
    """
    names = [str(label) for label in classes]
    model = SoftmaxRegression(
        samples.X.shape[1], len(theta), sigma=0.0, dtype=np.float64, classes=names
    )
    model.theta = theta
    done, limit = 0, ITERATIONS_PER_PRECONDITIONER
    while True:
        limit = min(limit, max_iter - done)
        optimum = FullBatchTrainer(model, problem, tol=tol).fit(limit)
        done += optimum.iterations
        if optimum.reason != "iterations" or done == max_iter:
            break
        limit *= 2
    if problem.l2 == 0:
        theta[...] = problem.smallest_weights(theta)
    if optimum.advice:
        state = "not converged: " if optimum.reason == "iterations" else ""
        advice = optimum.advice.replace(f"max_iterations, now {limit}", f"max_iter, now {max_iter}")
        advice = advice.replace("and l2 is 0", "and alpha is 0").replace("set l2 >", "set alpha >")
        if features is not None:
            advice += "".join(f"; feature {i} is {features[i]}" for i in optimum.features[:3])
        warn(f"SoftmaxClassifier: {state}{advice}")
    return done, optimum
