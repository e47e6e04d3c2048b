r"""The objective on a block of samples: the hot loop.

A block goes through these steps, with s the scale, m the samples of the whole batch, and all
arrays in Fortran order, for which the matrix product is fastest:

1. X to theta's dtype, unless it has it: bytes are converted one block at a time.
2. ``W X``, then ``Z = s (W X) + b``: the scale costs k numbers a sample here, d before.
3. The losses and ``s dZ = (s/m) (P - Y)``: the scale costs nothing where m is divided by anyway.
4. ``dW = (s dZ) X'``, and ``db`` as a product with a column of 1/s, faster than a sum along rows.

Everything is computed in theta's dtype, sums of losses in float64. The arrays are made at the
first block of a size. After that a step allocates nothing in proportion to the block, but for a few
numbers a sample where classes are so many that they come in blocks themselves.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npsoftmax.functional._label_losses import LabelLosses
from npsoftmax.functional._running_losses import RunningLosses

__all__ = ["AnyBlock", "Workspace", "samples_per_block"]

# The floats of a block are to stay in cache from the forward product to the backward one, and many
# enough for NumPy's fixed cost per call: 1,024 columns of 784 float32. benchmarks/limit.py compares
# other sizes.
BLOCK_BYTES = 1024 * 784 * 4
FEWEST_SAMPLES, MOST_SAMPLES = 128, 4096
# Sizes of batches that a workspace remembers; a run has two, the whole batch and the last one.
MOST_KEPT = 16
# Logits held at a time, 2 MB in float32. Where the fewest samples have more, classes are cut into
# blocks too, and the forward product is computed twice.
MOST_LOGITS = 512 * 1024


def samples_per_block(theta: NDArray[Any]) -> int:
    """Return how many samples to compute on at a time."""
    k, d = theta.shape[0], theta.shape[1] - 1
    fitting = BLOCK_BYTES // (max(1, d) * theta.itemsize)
    return int(max(FEWEST_SAMPLES, min(fitting, MOST_LOGITS // k, MOST_SAMPLES)))


class Block:
    """The losses of some samples, and the gradient: call :meth:`losses`, then :meth:`gradient`.

    Parameters
    ----------
    theta : ndarray
        Shape ``(k, d+1)``; only its shape and dtype count here.
    samples : int
        How many.

    Attributes
    ----------
    classes : int
        How many are computed at a time.
    """

    def __init__(self, theta: NDArray[Any], samples: int) -> None:
        self.classes = theta.shape[0]
        self._product = np.empty((self.classes, samples), theta.dtype, order="F")
        self._of_labels = LabelLosses(self.classes, samples, theta.dtype)
        self._to_bias = np.empty(samples, theta.dtype)

    def losses(
        self, theta: NDArray[Any], X: NDArray[Any], labels: NDArray[Any], scale: float
    ) -> NDArray[Any]:
        """Return the loss of each sample, valid until the next call."""
        logits = self._of_labels.logits
        np.matmul(theta[:, :-1], X, out=self._product)
        np.multiply(self._product, scale, out=logits)
        np.add(logits, theta[:, -1:], out=logits)
        return self._of_labels.losses(labels)

    def predict(self, out: NDArray[np.intp]) -> None:
        """Write the most likely class of each sample to ``out``."""
        # Across rows argmax would make this copy itself, in a new array each time.
        np.copyto(self._product, self._of_labels.logits)
        self._product.argmax(axis=0, out=out)

    def gradient(
        self,
        theta: NDArray[Any],
        X: NDArray[Any],
        scale: float,
        divisor: float | NDArray[np.float64],
        out: NDArray[Any],
        part: NDArray[Any] | None,
    ) -> None:
        """Compute the gradient on theta of the sum of the losses, each over its ``divisor``.

        It is written to ``out``, or to ``part`` and from there added to ``out``; ``part`` has as
        many rows as classes are computed at a time.
        """
        scaled_dZ = self._product
        self._of_labels.gradient(divisor / scale, out=scaled_dZ)
        self._to_bias.fill(1 / scale)
        _pull_back(scaled_dZ, X, self._to_bias, out, part)


class BlockOfManyClasses:
    """As :class:`Block` with the logits of some classes at a time: their memory is bounded."""

    def __init__(self, theta: NDArray[Any], samples: int) -> None:
        self.classes = MOST_LOGITS // FEWEST_SAMPLES
        self._memory = np.empty(self.classes * samples, theta.dtype)
        self._to_bias = np.empty(samples, theta.dtype)

    def losses(
        self, theta: NDArray[Any], X: NDArray[Any], labels: NDArray[Any], scale: float
    ) -> NDArray[Any]:
        """Return the loss of each sample."""
        self._running = RunningLosses(labels)
        for first in range(0, theta.shape[0], self.classes):
            self._running.add(self._logits(theta, X, scale, first), first)
        return self._running.losses()

    def _logits(
        self, theta: NDArray[Any], X: NDArray[Any], scale: float, first: int
    ) -> NDArray[Any]:
        of_classes = theta[first : first + self.classes]
        shape = of_classes.shape[0], X.shape[1]
        logits = self._memory[: shape[0] * shape[1]].reshape(shape, order="F")
        np.matmul(of_classes[:, :-1], X, out=logits)
        logits *= scale
        logits += of_classes[:, -1:]
        return logits

    def predict(self, out: NDArray[np.intp]) -> None:
        """Write the most likely class of each sample to ``out``."""
        out[...] = self._running.predicted

    def gradient(
        self,
        theta: NDArray[Any],
        X: NDArray[Any],
        scale: float,
        divisor: float | NDArray[np.float64],
        out: NDArray[Any],
        part: NDArray[Any] | None,
    ) -> None:
        """Do as :meth:`Block.gradient` does."""
        self._to_bias.fill(1 / scale)
        for first in range(0, theta.shape[0], self.classes):
            scaled_dZ = self._logits(theta, X, scale, first)
            self._running.gradient(scaled_dZ, first, divisor / scale)
            of_classes = out[first : first + self.classes]
            part_of_classes = None if part is None else part[: of_classes.shape[0]]
            _pull_back(scaled_dZ, X, self._to_bias, of_classes, part_of_classes)


def _pull_back(
    scaled_dZ: NDArray[Any],
    X: NDArray[Any],
    to_bias: NDArray[Any],
    out: NDArray[Any],
    part: NDArray[Any] | None,
) -> None:
    """Write ``[dW db]`` to ``out`` or add it, from ``s dZ`` and a column of ``1 / s``."""
    target = out if part is None else part
    np.matmul(scaled_dZ, X.T, out=target[:, :-1])
    np.matmul(scaled_dZ, to_bias, out=target[:, -1])
    if part is not None:
        out += part


AnyBlock = Block | BlockOfManyClasses


class Workspace:
    """What evaluations of the objective compute in, one after another.

    Examples
    --------
    >>> workspace = Workspace()
    >>> theta = np.zeros((10, 785), np.float32)
    >>> workspace.block(theta, 256) is workspace.block(theta, 256)
    True
    """

    def __init__(self) -> None:
        self._blocks: dict[Any, AnyBlock] = {}
        self._arrays: dict[Any, NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        """Copy and pickle as an empty one: arrays that are views of others would come apart."""
        return Workspace, ()

    def block(self, theta: NDArray[Any], samples: int) -> AnyBlock:
        """Return the block for parameters like ``theta`` and so many samples."""
        key = (theta.shape, theta.dtype, samples)
        held = self._blocks.get(key)
        if held is None:
            few = theta.shape[0] * FEWEST_SAMPLES <= MOST_LOGITS
            kind = Block if few else BlockOfManyClasses
            _make_room(self._blocks)
            held = self._blocks[key] = kind(theta, samples)
        return held

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a Fortran-ordered array of this name, with whatever it held before."""
        key = (name, shape, dtype)
        held = self._arrays.get(key)
        if held is None:
            _make_room(self._arrays)
            held = self._arrays[key] = np.empty(shape, dtype, order="F")
        return held

    def floats(self, X: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return ``X`` in ``dtype``, converted into an array of this workspace if need be."""
        if X.dtype == dtype:
            return X
        converted = self.take("X", X.shape, dtype)
        np.copyto(converted, X, casting="unsafe")
        return converted


def _make_room(kept: dict[Any, Any]) -> None:
    """Forget the oldest entry of a full dictionary."""
    if len(kept) >= MOST_KEPT:
        del kept[next(iter(kept))]
