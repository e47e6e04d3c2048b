"""Softmax regression: a linear map to logits, read as probabilities."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npsoftmax import storage
from npsoftmax._checks import as_columns, as_count
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.functional import affine, softmax

__all__ = ["SoftmaxRegression"]

DRAWN_AT_ONCE = 64 * 1024


class SoftmaxRegression:
    r"""Multinomial logistic regression on columns: :math:`P = \mathrm{softmax}(W X + b)`.

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
        What ``uint8`` input is multiplied by. Input of every other dtype is taken as it is, so
        images that are already scaled and raw bytes give the same result.

    Attributes
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, d+1)``, Fortran-ordered; ``W`` and ``b`` are views of it.

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
        if not 1e-20 <= pixel_scale < np.inf:
            raise InputError(
                f"pixel_scale: expected a finite number of at least 1e-20, got {pixel_scale}"
            )
        rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
        self.theta: NDArray[Any] = np.zeros(shape, dtype=dtype, order="F")
        # In blocks, for the float64 numbers not to take twice the room of theta for a while.
        step = max(1, DRAWN_AT_ONCE // shape[0])
        for start in range(0, shape[1] - 1, step):
            columns = self.W[:, start : start + step]
            columns[...] = sigma * rng.standard_normal(columns.shape[::-1]).T
        self.classes = _as_classes(classes, shape[0])
        self.pixel_scale = float(pixel_scale)

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
        return f"SoftmaxRegression({self.num_inputs} => {self.num_outputs}, {self.theta.dtype})"

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
        >>> SoftmaxRegression(2, 3).input_scale(np.dtype(np.float32))
        1.0
        """
        return self.pixel_scale if dtype == np.uint8 else 1.0

    def logits(self, X: ArrayLike) -> NDArray[Any]:
        r"""Compute the logits :math:`Z = s W X + b`.

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
            ``X`` does not have ``d`` rows, holds NaN or infinities, or overflows.

        Examples
        --------
        >>> SoftmaxRegression(2, 3).logits(np.zeros((2, 5))).shape
        (3, 5)
        """
        X = as_columns(X, self.num_inputs)
        with np.errstate(all="ignore"):
            Z = affine(self.theta, X, self.input_scale(X.dtype))
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters, class names and scaling to a ``.npz`` file, atomically.

        Parameters
        ----------
        path : path
            The file; it is replaced if it exists.

        Raises
        ------
        InputError
            A parameter is NaN or infinite.
        OutputError
            The file cannot be written.

        Examples
        --------
        >>> path = "model.npz"
        >>> SoftmaxRegression(2, 3, seed=1).save(path)
        >>> SoftmaxRegression.load(path)
        SoftmaxRegression(2 => 3, float32)
        """
        if not np.isfinite(self.theta).all():
            raise InputError("theta: expected finite parameters, got NaN or infinities; train anew")
        metadata = {"classes": list(self.classes), "pixel_scale": self.pixel_scale}
        storage.write(path, "model", {"theta": self.theta}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SoftmaxRegression":
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
        InputError, CorruptFileError, FormatVersionError
            The file does not exist, is not a model, is damaged, or is of another version.
        """
        arrays, metadata = storage.read(path, "model")
        try:
            theta = as_columns(arrays.pop("theta"))
            classes, pixel_scale = metadata.pop("classes"), metadata.pop("pixel_scale")
            if arrays or metadata:
                raise ValueError(f"{', '.join((*arrays, *metadata))} besides what makes a model")
            if type(classes) is not list or not {type(name) for name in classes} <= {str}:
                raise TypeError("classes that are no list of texts")
            if type(pixel_scale) is not float:
                raise TypeError(f"pixel_scale {pixel_scale!r:.80}")
            num_outputs, columns = theta.shape
            model = cls(columns - 1, num_outputs, 0, 0, theta.dtype, classes, pixel_scale)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CorruptFileError(f"{path}: expected a model, got {error!r:.200}") from error
        model.theta[...] = theta
        return model


def _as_classes(classes: Sequence[str] | None, num_outputs: int) -> tuple[str, ...]:
    names = tuple(map(str, range(num_outputs) if classes is None else classes))
    if len(names) != num_outputs:
        raise ShapeError(f"classes: expected {num_outputs} names, got {len(names)}: {names}")
    return names
