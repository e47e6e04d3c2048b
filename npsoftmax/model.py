"""Softmax regression: a linear map to logits, read as probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npsoftmax import storage
from npsoftmax._checks import as_columns, as_count, as_float, as_size
from npsoftmax.calibration import fit_temperature
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.functional import affine, softmax
from npsoftmax.novelty import ClassMeans

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ModelState", "SoftmaxRegression"]


# What a model is made of, and the file that keeps it.

DRAWN_AT_ONCE = 64 * 1024


class ModelState:
    """Parameters, names, scaling: all of a :class:`npsoftmax.SoftmaxRegression` that is stored.

    Its parameters and attributes are described there.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        sigma: float = 0.01,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
        classes: Sequence[str] | None = None,
        pixel_scale: float = 1 / 255,
    ) -> None:
        shape = as_count(num_outputs, "num_outputs"), as_count(num_inputs, "num_inputs") + 1
        if not 0 <= sigma < np.inf:
            raise InputError(f"sigma: expected a number of at least 0, got {sigma}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise InputError(f"dtype: expected float32 or float64, got {np.dtype(dtype)}")
        rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
        self.theta: NDArray[Any] = np.zeros(shape, dtype=dtype, order="F")
        # In blocks, for the float64 numbers not to take twice the room of theta for a while.
        step = max(1, DRAWN_AT_ONCE // shape[0])
        for start in range(0, shape[1] - 1, step):
            columns = self.W[:, start : start + step]
            columns[...] = sigma * rng.standard_normal(columns.shape[::-1]).T
        self.classes = _as_classes(classes, shape[0])
        self.pixel_scale = _as_pixel_scale(pixel_scale)
        self.temperature = 1.0
        self.class_means: ClassMeans | None = None

    @property
    def W(self) -> NDArray[Any]:
        """Weights, shape ``(k, d)``; a view of ``theta``."""
        return self.theta[:, :-1]

    @property
    def b(self) -> NDArray[Any]:
        """Biases, shape ``(k, 1)``; a view of ``theta``."""
        return self.theta[:, -1:]

    @property
    def num_inputs(self) -> int:
        """Features per sample, ``d``."""
        return int(self.theta.shape[1]) - 1

    @property
    def num_outputs(self) -> int:
        """Classes, ``k``."""
        return int(self.theta.shape[0])

    def __repr__(self) -> str:
        """Show the sizes as Flux shows a Dense layer."""
        return f"{type(self).__name__}({self.num_inputs} => {self.num_outputs}, {self.theta.dtype})"

    def input_scale(self, dtype: np.dtype[Any]) -> float:
        """Return what input of this dtype is multiplied by: the one place where scaling lives.

        Parameters
        ----------
        dtype : dtype
            Of the samples.

        Returns
        -------
        float
            ``pixel_scale`` for ``uint8``, 1 for every other dtype.

        Examples
        --------
        >>> from npsoftmax import SoftmaxRegression
        >>> SoftmaxRegression(2, 3).input_scale(np.dtype(np.float32))
        1.0
        """
        return self.pixel_scale if dtype == np.uint8 else 1.0

    @property
    def temperature(self) -> float:
        """What the logits are divided by, ``T``; 1 until :meth:`SoftmaxRegression.calibrate`."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        """Refuse what no logits can be divided by."""
        if not 1e-20 <= as_size(value, "temperature") <= 1e20:
            raise InputError(f"temperature: expected a number from 1e-20 to 1e20, got {value}")
        self._temperature = float(value)

    def calibrated_theta(self) -> NDArray[np.float64]:
        """Return ``theta / T`` in float64: all that is needed to compute the logits elsewhere.

        Returns
        -------
        ndarray of float64
            Shape ``(k, d+1)``, Fortran-ordered.

        Raises
        ------
        InputError
            A parameter is NaN or infinite, or becomes so.

        Examples
        --------
        >>> from npsoftmax import SoftmaxRegression
        >>> model = SoftmaxRegression(1, 2)
        >>> model.theta[:], model.temperature = [[1, 3], [-1, 0]], 2.0
        >>> model.calibrated_theta().tolist()
        [[0.5, 1.5], [-0.5, 0.0]]
        """
        with np.errstate(over="ignore"):
            theta: NDArray[np.float64] = self.theta / np.float64(self.temperature)
        if not np.isfinite(theta).all():
            raise InputError(
                "theta / temperature: expected finite parameters, got NaN or infinities; train or "
                "calibrate anew"
            )
        return theta

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the model is to a ``.npz`` file, atomically.

        Parameters
        ----------
        path : path
            The file; it is replaced if it exists.

        Raises
        ------
        InputError, ShapeError
            A parameter is NaN or infinite, or something else is not what a model has.
        OutputError
            The file cannot be written.

        Examples
        --------
        >>> from npsoftmax import SoftmaxRegression
        >>> path = "model.npz"
        >>> SoftmaxRegression(2, 3, seed=1).save(path)
        >>> SoftmaxRegression.load(path)
        SoftmaxRegression(2 => 3, float32)
        """
        if self.theta.dtype not in (np.float32, np.float64):
            raise InputError(f"theta: expected float32 or float64, got {self.theta.dtype}")
        if not np.isfinite(self.theta).all():
            raise InputError("theta: expected finite parameters, got NaN or infinities; train anew")
        arrays = {"theta": self.theta}
        if self.class_means is not None:
            _refuse_other_shape(self.class_means, self.num_inputs, self.num_outputs)
            arrays |= {"means": self.class_means.means, "radii": self.class_means.radii}
        metadata = {
            "classes": _as_classes(self.classes, self.num_outputs),
            "pixel_scale": _as_pixel_scale(self.pixel_scale),
            "temperature": self.temperature,
        }
        storage.write(path, "model", arrays, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that :meth:`save` wrote; no code in the file can run.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        SoftmaxRegression

        Raises
        ------
        InputError, CorruptFileError
            The file does not exist, is not a model, is damaged, or is of another version.
        """
        arrays, metadata = storage.read(path, "model")
        try:
            theta = as_columns(arrays.pop("theta"), name="theta")
            classes, pixel_scale = metadata.pop("classes"), metadata.pop("pixel_scale")
            if type(classes) is not list or not {type(name) for name in classes} <= {str}:
                raise TypeError("classes that are no list of texts")
            num_outputs, columns = theta.shape
            pixel_scale = _as_stored(pixel_scale, "pixel_scale")
            model = cls(columns - 1, num_outputs, 0, 0, theta.dtype, classes, pixel_scale)
            model.theta[...] = theta
            # Older files have neither of these.
            model.temperature = _as_stored(metadata.pop("temperature", 1.0), "temperature")
            if arrays:
                model.class_means = ClassMeans(arrays.pop("means"), arrays.pop("radii"))
                _refuse_other_shape(model.class_means, columns - 1, num_outputs)
            if arrays or metadata:
                raise ValueError(f"{', '.join((*arrays, *metadata))} besides what makes a model")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CorruptFileError(f"{path}: expected a model, got {error!r:.200}") from error
        return model


def _as_classes(classes: Sequence[str] | None, num_outputs: int) -> tuple[str, ...]:
    names = tuple(map(str, range(num_outputs) if classes is None else classes))
    if len(names) != num_outputs:
        raise ShapeError(f"classes: expected {num_outputs} names, got {len(names)}: {names}")
    return names


def _as_pixel_scale(value: float) -> float:
    if not as_size(value, "pixel_scale") >= 1e-20:
        raise InputError(f"pixel_scale: expected a finite number of at least 1e-20, got {value}")
    return float(value)


def _refuse_other_shape(class_means: ClassMeans, num_inputs: int, num_outputs: int) -> None:
    if class_means.means.shape != (num_inputs, num_outputs):
        raise ShapeError(
            f"class_means: expected means of shape {(num_inputs, num_outputs)}, got "
            f"{class_means.means.shape}; call fit_class_means(X_train, y_train)"
        )


def _as_stored(value: object, name: str) -> float:
    if type(value) is not float:
        raise TypeError(f"{name} {value!r:.80}")
    return value


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
    class_means : ClassMeans or None
        What samples of each class look like, once :meth:`fit_class_means` was called.

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

    def fit_class_means(self, X: ArrayLike, y: ArrayLike) -> None:
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
        self.class_means = ClassMeans.of(X, y, self.num_outputs, self.input_scale(X.dtype))

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
            (:meth:`npsoftmax.novelty.ClassMeans.novelty`). Above 1 the probabilities say little.

        Raises
        ------
        ShapeError, InputError
            As for :meth:`logits`, or :meth:`fit_class_means` was never called.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2)
        >>> model.fit_class_means(np.array([[0.0, 2.0, 10.0, 14.0]]), [0, 0, 1, 1])
        >>> model.novelty(np.array([[1.0, 100.0]]))
        array([ 0., 44.])
        """
        X = as_columns(X, self.num_inputs)
        if self.class_means is None:
            raise InputError(
                "novelty: expected a model that knows its class means, got one that does not; "
                "call fit_class_means(X_train, y_train)"
            )
        return self.class_means.novelty(X, self.input_scale(X.dtype))
