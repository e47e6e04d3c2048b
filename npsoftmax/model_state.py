"""What a model is made of, and the file that keeps it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npsoftmax import storage
from npsoftmax._checks import as_columns, as_count, as_size
from npsoftmax.centroids import Centroids
from npsoftmax.errors import CorruptFileError, InputError, ShapeError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ModelState"]

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
        self.centroids: Centroids | None = None

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
        if self.centroids is not None:
            _refuse_other_shape(self.centroids, self.num_inputs, self.num_outputs)
            arrays |= {"means": self.centroids.means, "radii": self.centroids.radii}
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
        InputError, CorruptFileError, FormatVersionError
            The file does not exist, is not a model, is damaged, or is of another version.
        """
        arrays, metadata = storage.read(path, "model")
        try:
            theta = as_columns(arrays.pop("theta"), what="theta")
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
                model.centroids = Centroids(arrays.pop("means"), arrays.pop("radii"))
                _refuse_other_shape(model.centroids, columns - 1, num_outputs)
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


def _refuse_other_shape(centroids: Centroids, num_inputs: int, num_outputs: int) -> None:
    if centroids.means.shape != (num_inputs, num_outputs):
        raise ShapeError(
            f"centroids: expected means of shape {(num_inputs, num_outputs)}, got "
            f"{centroids.means.shape}; call fit_centroids(X_train, y_train)"
        )


def _as_stored(value: object, name: str) -> float:
    if type(value) is not float:
        raise TypeError(f"{name} {value!r:.80}")
    return value
