"""Softmax regression: a linear map to logits, read as probabilities."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npsoftmax._checks import as_columns, as_count, as_float
from npsoftmax.calibration import fit_temperature
from npsoftmax.centroids import Centroids
from npsoftmax.errors import InputError, ShapeError
from npsoftmax.functional import affine, softmax
from npsoftmax.model_state import ModelState

__all__ = ["SoftmaxRegression"]


class SoftmaxRegression(ModelState):
    r"""Multinomial logistic regression on columns: :math:`P = \mathrm{softmax}((s W X + b) / T)`.

    Weights start as independent draws from N(0, sigma), biases as 0.

    Parameters
    ----------
    num_inputs : int
        Features per sample, ``d``.
    num_outputs : int
        Classes, ``k``.
    sigma : float
        Standard deviation of the initial weights.
    seed : int
        Seed of the initial weights; the float32 ones are the float64 ones rounded.
    dtype : float32 or float64
        Of the parameters and of everything computed from them.
    classes : sequence of str, optional
        Names of the classes; "0", "1", ... unless given.
    pixel_scale : float
        ``s`` for ``uint8`` input. Input of every other dtype is taken as it is, so images that are
        already scaled and raw bytes give the same result.

    Attributes
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, Fortran-ordered; ``W`` and ``b`` are views of it.
    temperature : float
        ``T``, what the logits are divided by: 1 until :meth:`calibrate`.
    centroids : Centroids or None
        What samples of each class look like, once :meth:`fit_centroids` was called.

    Raises
    ------
    InputError, ShapeError
        A size below one, a negative ``sigma``, another dtype, not one name per class.

    Examples
    --------
    >>> model = SoftmaxRegression(2, 3, classes=["cat", "dog", "owl"])
    >>> model
    SoftmaxRegression(2 => 3, float32)
    >>> model.theta[:] = 0
    >>> model(np.array([[1.0], [2.0]]))
    array([[0.33333334],
           [0.33333334],
           [0.33333334]], dtype=float32)
    """

    def logits(self, X: ArrayLike) -> NDArray[Any]:
        r"""Compute the logits :math:`Z = (s W X + b) / T`, in float64, rounded once.

        Parameters
        ----------
        X : array_like
            Samples, shape ``(d, n)``; ``uint8`` pixels or finite numbers.

        Returns
        -------
        ndarray
            Shape ``(k, n)``, Fortran-ordered.

        Raises
        ------
        ShapeError, InputError
            ``X`` does not have ``d`` rows, holds NaN or infinities, or overflows; so do parameters.

        Examples
        --------
        >>> SoftmaxRegression(2, 3).logits(np.zeros((2, 5))).shape
        (3, 5)
        """
        X = as_columns(X, self.num_inputs)
        # In float32, sums over hundreds of pixels would leave an error of 1e-6 in a probability.
        with np.errstate(all="ignore"):
            Z = affine(self.calibrated_theta(), X, self.input_scale(X.dtype))
            Z = Z.astype(self.theta.dtype, copy=False)
        if not np.isfinite(Z).all():
            raise InputError(
                f"X: expected numbers whose logits fit {self.theta.dtype}, got up to "
                f"{np.abs(X).max():g}; scale the features, or use dtype=np.float64"
            )
        return Z

    def probabilities(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the probability of each class, ``softmax(logits(X))``; also ``model(X)``.

        Parameters
        ----------
        X : array_like
            As for :meth:`logits`.

        Returns
        -------
        ndarray
            Shape ``(k, n)``; columns sum to one.

        Raises
        ------
        ShapeError, InputError
            As for :meth:`logits`.

        Examples
        --------
        >>> SoftmaxRegression(2, 3).probabilities(np.zeros((2, 1))).sum().item()
        1.0
        """
        logits = self.logits(X)
        return softmax(logits, out=logits)

    __call__ = probabilities

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """Return the most likely class of each sample, the first on a tie.

        Parameters
        ----------
        X : array_like
            As for :meth:`logits`.

        Returns
        -------
        ndarray of int
            Shape ``(n,)``; ``np.array(model.classes)[labels]`` are their names.

        Raises
        ------
        ShapeError, InputError
            As for :meth:`logits`.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2)
        >>> model.theta[:] = [[1, 0], [-1, 0]]
        >>> model.predict(np.array([[3.0, -3.0]]))
        array([0, 1])
        """
        labels: NDArray[np.intp] = self.logits(X).argmax(axis=0)
        return labels

    def top_k(self, X: ArrayLike, k: int = 3) -> list[list[tuple[str, float]]]:
        """Return the ``k`` most likely classes of each sample with their probabilities.

        Parameters
        ----------
        X : array_like
            As for :meth:`logits`.
        k : int
            At most the number of classes.

        Returns
        -------
        list of list of (str, float)
            For each sample, the most likely class first; on a tie the lower class first.

        Raises
        ------
        ShapeError, InputError
            As for :meth:`logits`, or ``k`` outside ``1..num_outputs``.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, classes=["up", "down"])
        >>> model.theta[:] = [[1, 0], [-1, 0]]
        >>> [(name, round(p, 3)) for name, p in model.top_k(np.array([[1.0]]), k=2)[0]]
        [('up', 0.881), ('down', 0.119)]
        """
        if as_count(k, "k") > self.num_outputs:
            raise InputError(f"k: expected at most {self.num_outputs} classes, got {k}")
        P = self.probabilities(X)
        best = np.argsort(-P, axis=0, kind="stable")[:k]
        return [
            [(self.classes[i], float(P[i, j])) for i in column] for j, column in enumerate(best.T)
        ]

    def decide(self, X: ArrayLike, costs: ArrayLike) -> NDArray[np.intp]:
        r"""Return for each sample the action whose expected cost is the least.

        .. math:: a_j = \arg\min_a \sum_c C_{ac} \, p_{cj}

        Parameters
        ----------
        X : array_like
            As for :meth:`logits`.
        costs : array_like
            ``C``, shape ``(m, k)``: what action ``a`` costs where class ``c`` is true. Usually row
            ``i < k`` is to say class ``i``; a further row can be to abstain, at a cost of its own.

        Returns
        -------
        ndarray of int
            Shape ``(n,)``, rows of ``costs``; the first on a tie.

        Raises
        ------
        ShapeError, InputError
            As for :meth:`logits`, or ``costs`` has no row, not ``k`` columns, or is not finite.

        References
        ----------
        Chow, "On optimum recognition error and reject tradeoff", IEEE Transactions on Information
        Theory 16(1), 1970.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, classes=["healthy", "ill"], sigma=0)
        >>> model.W[:] = [[-1], [1]]
        >>> X = np.array([[-2.0, -0.5, 0.5, 2.0]])  # ill with probability 0.02, 0.27, 0.73, 0.98
        >>> model.predict(X).tolist()
        [0, 0, 1, 1]
        >>> miss, false_alarm, expert = 10.0, 1.0, 0.5
        >>> model.decide(X, [[0, miss], [false_alarm, 0], [expert, expert]]).tolist()
        [0, 2, 1, 1]
        """
        C = as_float(costs, "costs").astype(np.float64)
        if C.ndim != 2 or C.shape[0] == 0 or C.shape[1] != self.num_outputs:
            raise ShapeError(
                f"costs: expected shape (actions, {self.num_outputs}), what each action costs "
                f"where each class is true, got {C.shape}"
            )
        if not np.isfinite(C).all():
            raise InputError("costs: expected finite numbers, got NaN or infinities; repair them")
        C /= np.abs(C).max() or 1.0  # no sum overflows
        actions: NDArray[np.intp] = (C @ self.probabilities(X)).argmin(axis=0)
        return actions

    def calibrate(self, X: ArrayLike, y: ArrayLike) -> float:
        r"""Fit the temperature to samples that training has not seen.

        Predictions stay what they are; derivation: :mod:`npsoftmax.calibration`.

        Parameters
        ----------
        X : array_like
            As for :meth:`logits`.
        y : array_like
            Labels, shape ``(n,)``.

        Returns
        -------
        float
            :attr:`temperature`, above 1 where the model was too sure of itself.

        Raises
        ------
        ShapeError, LabelError, InputError
            As for :meth:`logits`, or no temperature is the best
            (:func:`npsoftmax.calibration.fit_temperature`).

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, sigma=0)
        >>> model.W[:] = [[-2], [2]]
        >>> X, y = np.ones((1, 4)), [1, 1, 1, 0]
        >>> round(model.calibrate(X, y), 4)
        3.641
        >>> model(X[:, :1]).round(4).tolist()
        [[0.25], [0.75]]
        """
        self.temperature *= fit_temperature(self.logits(X), y)
        return self.temperature

    def fit_centroids(self, X: ArrayLike, y: ArrayLike) -> None:
        """Learn what samples of each class look like, for :meth:`novelty`.

        Parameters
        ----------
        X : array_like
            The training samples, as for :meth:`logits`.
        y : array_like
            Labels, shape ``(n,)``.

        Raises
        ------
        ShapeError, LabelError, InputError
            As for :meth:`logits`, or the labels do not fit.
        """
        X = as_columns(X, self.num_inputs)
        self.centroids = Centroids.of(X, y, self.num_outputs, self.input_scale(X.dtype))

    def novelty(self, X: ArrayLike) -> NDArray[np.float64]:
        """Say how unlike the training samples others are.

        Parameters
        ----------
        X : array_like
            As for :meth:`logits`.

        Returns
        -------
        ndarray of float64
            Shape ``(n,)``: the distance to the nearest class mean, in radii of that class
            (:meth:`npsoftmax.centroids.Centroids.novelty`). Above 1 the probabilities say little.

        Raises
        ------
        ShapeError, InputError
            As for :meth:`logits`, or :meth:`fit_centroids` was never called.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2)
        >>> model.fit_centroids(np.array([[0.0, 2.0, 10.0, 14.0]]), [0, 0, 1, 1])
        >>> model.novelty(np.array([[1.0, 100.0]]))
        array([ 0., 44.])
        """
        X = as_columns(X, self.num_inputs)
        if self.centroids is None:
            raise InputError(
                "novelty: expected a model that knows its class means, got one that does not; "
                "call fit_centroids(X_train, y_train)"
            )
        return self.centroids.novelty(X, self.input_scale(X.dtype))
