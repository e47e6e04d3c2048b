"""Softmax regression as an object: parameters, predictions, decisions, calibration and files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npsoftmax import storage
from npsoftmax._checks import (
    Range,
    as_columns,
    as_count,
    as_float,
    as_labels,
    as_samples,
    as_size,
    check_pixels,
)
from npsoftmax._names import as_feature_names, join_names, split_names, strongest
from npsoftmax._products import memory_order
from npsoftmax.calibration import fit_temperature
from npsoftmax.conformal import SetRule
from npsoftmax.doubt import evidence, fit_evidence_limit
from npsoftmax.errors import CorruptFileError, InputError, ShapeError
from npsoftmax.features import FeatureMap, pack, unpack
from npsoftmax.functional import affine, softmax
from npsoftmax.novelty import ClassMeans, choose_evenly

__all__ = ["FRAMINGS", "SoftmaxRegression"]

MOST_NAMED = 12  # classes that fit on a line or two
MOST_LETTERS = 40  # of the name of a class

FRAMINGS = ("bounding-box", "centre-of-mass", "whole", "square")


class SoftmaxRegression:
    r"""Multinomial logistic regression on columns: :math:`P = \mathrm{softmax}((s W X + b) / T)`.

    Initial weights are independent draws from N(0, sigma), initial biases are 0.

    Parameters
    ----------
    num_inputs : int
        Features per sample, ``d``.
    num_outputs : int
        Classes, ``k``.
    sigma : float
        Standard deviation of the initial weights.
    seed : int
        Seed of the initial weights; the float32 weights are the float64 weights, rounded.
    dtype : float32 or float64
        The dtype of the parameters and of everything computed from them.
    classes : sequence of str, optional
        Names of the classes, by default "0", "1", ...
    pixel_scale : float, optional
        For a model of images, ``s`` for integers: pixels from 0 to 255, of any integer dtype.
        For floats and Booleans ``s`` is 1, so pixels and images that are already scaled give the
        same result. It is 1/255 for the images of :func:`npsoftmax.load`. Without it, numbers of
        every dtype are used as they are. Samples that look as if they were meant otherwise, such
        as floats from 0 to 255, give an :exc:`~npsoftmax.errors.InputWarning`.
    framing : {"bounding-box", "centre-of-mass", "whole", "square"}, optional
        How the items were placed in the images: in their bounding box, as in Fashion-MNIST; by
        their centre of mass, as in MNIST; or as they were, because the whole picture was taken,
        stretched to the shape of the image or in a square. It is stored for programs that prepare
        photographs, and does not change a prediction.
    features : FeatureMap, optional
        A fixed map of the samples, from :mod:`npsoftmax.features`, which stands before ``W``:
        ``W`` then has a column for each of its ``num_outputs`` features in place of ``d``.
    feature_names : sequence of str, optional
        Different names of the ``d`` numbers of a sample, such as the columns of a table or the
        words of a vocabulary. They are stored, and do not change a prediction.

    Attributes
    ----------
    theta : ndarray
        ``[W b]``, shape ``(k, num_features + 1)``; ``W`` and ``b`` are views of it. Its memory
        order is the one that NumPy's BLAS is fastest for.
    temperature : float
        ``T``, the divisor of the logits; 1 before :meth:`calibrate`.
    class_means : ClassMeans or None
        The means of the classes for :meth:`novelty`; None before :meth:`fit_class_means`.
    evidence_limit : float or None
        Predictions with at most this :meth:`evidence` are doubtful; None before
        :meth:`fit_evidence_limit`.
    set_rule : SetRule or None
        Which classes are in the sets of :meth:`predict_sets`; None before :meth:`calibrate_sets`.

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
        pixel_scale: float | None = None,
        framing: str | None = None,
        features: FeatureMap | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        width = as_count(num_inputs, "num_inputs")
        if features is not None:
            width = _width_of(features, num_inputs)
        shape = as_count(num_outputs, "num_outputs"), width + 1
        if not 0 <= sigma < np.inf:
            raise InputError(f"sigma: expected a number of at least 0, got {sigma}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise InputError(f"dtype: expected float32 or float64, got {np.dtype(dtype)}")
        rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
        self.theta: NDArray[Any] = np.zeros(shape, dtype=dtype, order=memory_order())
        # In blocks, so that the float64 draws need little memory next to a float32 theta.
        step = max(1, 2**16 // shape[0])
        for start in range(0, shape[1] - 1, step):
            columns = self.W[:, start : start + step]
            columns[...] = sigma * rng.standard_normal(columns.shape[::-1]).T
        self.classes = _as_classes(classes, shape[0])
        self.pixel_scale = _as_pixel_scale(pixel_scale)
        self.framing = _as_framing(framing)
        self.features = features
        self.feature_names = as_feature_names(feature_names, self.num_inputs)
        self.temperature = 1.0
        self.class_means: ClassMeans | None = None
        self.evidence_limit: float | None = None
        self.set_rule: SetRule | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_inputs} => {self.num_outputs}, {self.theta.dtype})"

    def _repr_html_(self) -> str:
        """Return a table of what the model is and knows, for notebooks."""
        from html import escape

        cells = (f"<tr><th>{row}</th><td>{escape(text)}</td></tr>" for row, text in self._summary())
        return f"<table><caption>{escape(repr(self))}</caption>{''.join(cells)}</table>"

    def _summary(self) -> Iterator[tuple[str, str]]:
        """Yield a name and a text for each thing worth knowing before a prediction."""
        others = self.num_outputs - MOST_NAMED
        more = [f"and {others} others"] if others > 0 else []
        yield "classes", ", ".join([*map(_short, self.classes[:MOST_NAMED]), *more])
        scaled = f", integers times {self.pixel_scale:.6g}" if self.pixel_scale else ""
        yield "samples", f"{self.num_inputs} numbers{scaled}"
        if self.features is not None:
            yield "features", f"{self.num_features}, by {type(self.features).__name__}"
        with np.errstate(over="ignore"):  # of a diverged model
            norm = np.linalg.norm(self.W.astype(np.float64))
        yield "parameters", f"{self.theta.size} of {self.theta.dtype}, norm of W {norm:.4g}"
        if self.temperature != 1:
            yield "temperature", f"{self.temperature:.4g}, by calibrate"
        if self.class_means is not None:
            yield "novelty", "class means, by fit_class_means"
        if self.evidence_limit is not None:
            yield "doubt", f"evidence up to {self.evidence_limit:.4g}, by fit_evidence_limit"
        if self.set_rule is not None:
            yield "sets", f"{self.set_rule.method}, coverage {self.set_rule.coverage:g}"

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
        """Numbers per sample, ``d``."""
        return self.num_features if self.features is None else self.features.num_inputs

    @property
    def num_features(self) -> int:
        """Number of columns of ``W``, which is ``d`` or the features of the map before it."""
        return int(self.theta.shape[1]) - 1

    @property
    def num_outputs(self) -> int:
        """Classes, ``k``."""
        return int(self.theta.shape[0])

    def input_scale(self, dtype: np.dtype[Any]) -> float:
        """Return ``s`` for input of this dtype: ``pixel_scale`` for integers, if set, else 1.

        Examples
        --------
        >>> model = SoftmaxRegression(2, 3, pixel_scale=0.5)
        >>> model.input_scale(np.dtype(np.uint8)), model.input_scale(np.dtype(np.float32))
        (0.5, 1.0)
        """
        return 1.0 if self.pixel_scale is None or dtype.kind not in "iu" else self.pixel_scale

    def extract(
        self,
        X: ArrayLike,
        threads: int | None = None,
        on_block: Callable[[int], None] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return what ``W`` multiplies: the features of the samples, or the samples themselves.

        :class:`~npsoftmax.Trainer` and :class:`~npsoftmax.objective.FullBatch` take it;
        :func:`npsoftmax.fit` extracts by itself. ``threads``, ``on_block`` and ``dtype`` are those
        of :class:`npsoftmax.features.FeatureMap`.

        Examples
        --------
        >>> SoftmaxRegression(2, 3).extract([[1.0], [2.0]]).tolist()
        [[1.0], [2.0]]
        """
        return self._extract(self._as_input(X), threads, on_block, dtype)

    def logits(self, X: ArrayLike) -> NDArray[Any]:
        r"""Compute the logits :math:`Z = (s W X + b) / T` in float64 and round them once.

        With a map of features, they are :math:`Z = (W \, \phi(s X) + b) / T`.

        Parameters
        ----------
        X : array_like
            Samples, shape ``(d, n)``; finite numbers, or a sparse array of SciPy. Integers are
            pixels from 0 to 255 if the model has a pixel scale.

        Returns
        -------
        ndarray
            Shape ``(k, n)``, Fortran-ordered, of the dtype of ``theta``. A logit that overflows
            this dtype raises InputError.

        Examples
        --------
        >>> SoftmaxRegression(2, 3).logits(np.zeros((2, 5))).shape
        (3, 5)
        """
        return self._logits(X, self.theta.dtype)

    def probabilities(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the probability of each class, shape ``(k, n)``; ``model(X)`` does the same.

        Examples
        --------
        >>> SoftmaxRegression(2, 3).probabilities(np.zeros((2, 1))).sum().item()
        1.0
        """
        logits = self.logits(X)
        return softmax(logits, out=logits)

    __call__ = probabilities

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """Return the most likely class of each sample, shape ``(n,)``; the first on a tie.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2)
        >>> model.theta[:] = [[1, 0], [-1, 0]]
        >>> model.predict(np.array([[3.0, -3.0]]))
        array([0, 1])
        """
        labels: NDArray[np.intp] = self.logits(X).argmax(axis=0)
        return labels

    def predict_names(self, X: ArrayLike) -> NDArray[np.str_]:
        """Return the name of the most likely class of each sample, shape ``(n,)``.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, classes=["up", "down"])
        >>> model.theta[:] = [[1, 0], [-1, 0]]
        >>> model.predict_names(np.array([[3.0, -3.0]])).tolist()
        ['up', 'down']
        """
        return np.array(self.classes)[self.predict(X)]

    def top_k(self, X: ArrayLike, k: int = 3) -> list[list[tuple[str, float]]]:
        """Return the names and probabilities of the ``k`` most likely classes of each sample.

        The most likely class comes first; on a tie, the lower class.

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

    def top_features(self, k: int = 10) -> list[list[tuple[str, float]]]:
        r"""Return the names and weights of the ``k`` strongest features of each class.

        The strongest are those that speak most for the class: they have the largest

        .. math:: w_{ci} - \frac1k \sum_{c'} w_{c'i} .

        Relative to the mean over the classes, because a number that is added to the weights of all
        classes changes no probability. What speaks against a class speaks for others, and stands
        there. Features without names have their number as name. Weights of features of different
        units cannot be compared; scale the features before the training, for instance to a
        standard deviation of 1.

        Parameters
        ----------
        k : int
            Features of each class, at most ``d``.

        Returns
        -------
        list of list
            For each class its features, the strongest first, on a tie the lower feature.

        Examples
        --------
        >>> model = SoftmaxRegression(3, 2, feature_names=["meow", "tail", "bark"])
        >>> model.W[:] = [[2, 5, 0], [0, 5, 3]]
        >>> model.top_features(2)
        [[('meow', 1.0), ('tail', 0.0)], [('bark', 1.5), ('tail', 0.0)]]
        """
        if self.features is not None and not self.features.is_one_by_one:
            raise InputError(
                f"top_features: expected weights of the samples themselves, got those of "
                f"{type(self.features).__name__}, which mixes them; fit a model without features"
            )
        if as_count(k, "k") > self.num_inputs:
            raise InputError(f"k: expected at most {self.num_inputs} features, got {k}")
        names = as_feature_names(self.feature_names, self.num_inputs)
        names = names or tuple(map(str, range(self.num_inputs)))
        return [
            [(names[i], float(value)) for i, value in zip(columns, values, strict=True)]
            for columns, values in zip(*strongest(self.W, k), strict=True)
        ]

    def decide(self, X: ArrayLike, costs: ArrayLike) -> NDArray[np.intp]:
        r"""Return the action with the lowest expected cost for each sample; the first on a tie.

        .. math:: a_j = \arg\min_a \sum_c C_{ac} \, p_{cj}

        Parameters
        ----------
        X : array_like
            Samples, as for :meth:`logits`.
        costs : array_like
            ``C``, shape ``(m, k)``: the cost of action ``a`` if the true class is ``c``. Usually,
            action ``i < k`` is to predict class ``i``; a further row can be the cost of abstaining.

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
                f"costs: expected shape (actions, {self.num_outputs}), the cost of each action if "
                f"each class is true, got {C.shape}"
            )
        if not np.isfinite(C).all():
            raise InputError("costs: expected finite numbers, got NaN or infinities; repair them")
        C /= np.abs(C).max() or 1.0  # so that no sum overflows
        actions: NDArray[np.intp] = (C @ self.probabilities(X)).argmin(axis=0)
        return actions

    @property
    def temperature(self) -> float:
        """The divisor ``T`` of the logits, from 1e-20 to 1e20."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        """Set the divisor of the logits."""
        if not 1e-20 <= as_size(value, "temperature") <= 1e20:
            raise InputError(f"temperature: expected a number from 1e-20 to 1e20, got {value}")
        self._temperature = float(value)

    def calibrate(self, X: ArrayLike, y: ArrayLike) -> float:
        r"""Fit :attr:`temperature` to samples that were not used for training, and return it.

        It is above 1 if the model was overconfident; predictions do not change. Raises InputError
        if there is no best temperature (:func:`npsoftmax.calibration.fit_temperature`).

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

    def calibrated_theta(self) -> NDArray[np.float64]:
        """Return ``theta / T`` in float64, shape ``(k, d+1)``, Fortran-ordered.

        It is all that another program needs to compute the logits.

        Examples
        --------
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
                "calibrate again"
            )
        return theta

    def fit_class_means(self, X: ArrayLike, y: ArrayLike) -> None:
        """Compute the means and radii of the classes from training samples, for :meth:`novelty`."""
        X, y = as_samples(X, y, self.num_inputs, self.num_outputs)
        check_pixels(self, Range.of(X))
        some = choose_evenly(y)
        X = self._extract(X.T[some].T)
        self.class_means = ClassMeans.fit(X, y[some], self.num_outputs, self.input_scale(X.dtype))

    def novelty(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute how different samples are from the training samples.

        It is the distance to the nearest class mean, in radii of that class, shape ``(n,)``. A
        value above 1 means that 99 % of the samples of each class are closer to their mean; the
        probabilities are then unreliable.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2)
        >>> model.fit_class_means(np.array([[0.0, 2.0, 10.0, 14.0]]), [0, 0, 1, 1])
        >>> model.novelty(np.array([[1.0, 100.0]]))
        array([ 0., 44.])
        """
        X = self._as_input(X)
        if self.class_means is None:
            raise InputError(
                "novelty: expected a model that knows its class means, got one that does not; "
                "call fit_class_means(X_train, y_train)"
            )
        novelty = np.empty(X.shape[1])
        for block in _parts(X.shape[1]):
            A = self._extract(X[:, block])
            novelty[block] = self.class_means.novelty(A, self.input_scale(A.dtype))
        return novelty

    def evidence(self, X: ArrayLike) -> NDArray[np.float64]:
        r"""Compute the evidence for the most likely class of each sample, shape ``(n,)``.

        .. math:: e_j = T \, \Bigl( \max_i z_{ij} - \frac1k \sum_i z_{ij} \Bigr)

        A prediction with at most :attr:`evidence_limit` is doubtful. The temperature has no
        influence.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, sigma=0)
        >>> model.W[:] = [[-1], [1]]
        >>> model.evidence(np.array([[0.5, -3.0]]))
        array([0.5, 3. ])
        """
        return self.temperature * evidence(self.logits(X))

    def fit_evidence_limit(self, X: ArrayLike, y: ArrayLike, right: float = 0.9) -> float:
        """Find and return the :attr:`evidence_limit` above which most predictions are right.

        It is chosen on samples that were not used for training, by
        :func:`npsoftmax.doubt.fit_evidence_limit`.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, sigma=0)
        >>> model.W[:] = [[-1], [1]]
        >>> X, y = np.linspace(-3, 3, 81)[None], np.arange(81) > 40
        >>> round(model.fit_evidence_limit(X, y.astype(int)), 3)  # all right; an eighth is doubted
        0.375
        """
        limit = fit_evidence_limit(self.logits(X), y, right)
        self.evidence_limit = self.temperature * limit
        return self.evidence_limit

    def calibrate_sets(
        self,
        X: ArrayLike,
        y: ArrayLike,
        coverage: float = 0.9,
        method: str = "lac",
        randomised: bool = False,
        per_class: bool = False,
    ) -> SetRule:
        r"""Find and return the :attr:`set_rule` whose sets hold the right class so often.

        .. math:: P(y \in C(x)) \ge \gamma

        This holds for samples from the same source as those given, which must not have been used
        for training (:mod:`npsoftmax.conformal`). A temperature that is fitted later changes no
        set.

        Parameters
        ----------
        X : array_like
            Samples, as for :meth:`logits`.
        y : array_like
            Labels, shape ``(n,)``.
        coverage : float
            :math:`\gamma`, between 0 and 1.
        method : {"lac", "aps", "raps"}
            Sets that are small on average (``"lac"``, some may be empty), sets that are larger for
            harder samples (``"aps"``), or the same with few large ones (``"raps"``).
        randomised : bool
            Whether ``"aps"`` and ``"raps"`` leave the last class out at random, in the same way for
            the same sample.
        per_class : bool
            Whether the coverage shall hold for each class, and not only for all together. Each
            class then needs samples.

        Returns
        -------
        SetRule

        Raises
        ------
        InputError
            The samples, or those of a class, are too few for the coverage.

        Examples
        --------
        >>> model = SoftmaxRegression(1, 2, classes=["up", "down"], sigma=0)
        >>> model.W[:] = [[1], [-1]]
        >>> X = np.array([[-3.0, -2.0, -1.0, 0.1, 0.2, 1.0, 2.0, 3.0, 4.0]])
        >>> y = [1, 1, 1, 1, 0, 0, 0, 0, 0]  # 0.1 is on the wrong side
        >>> model.calibrate_sets(X, y, coverage=0.9).coverage
        0.9
        >>> model.predict_sets(np.array([[-1.0, 0.05, 1.0]])).tolist()
        [[False, True, True], [True, True, False]]
        """
        P, labels = self._probabilities_of_sets(X, self.temperature), as_labels(y, self.num_outputs)
        rule = SetRule.fit(P, labels, coverage, method, randomised, per_class)
        self.set_rule = dataclasses.replace(rule, temperature=self.temperature)
        return self.set_rule

    def predict_sets(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Return which classes are in the set of each sample, shape ``(k, n)``.

        :meth:`calibrate_sets` has an example. The names of a set are
        ``np.array(model.classes)[sets[:, j]]``.
        """
        if self.set_rule is None:
            raise InputError(
                "predict_sets: expected a model with calibrated sets, got one without; call "
                "calibrate_sets(X, y) with samples that were not used for training"
            )
        return self.set_rule.sets(self._probabilities_of_sets(X, self.set_rule.temperature))

    def _probabilities_of_sets(self, X: ArrayLike, temperature: float) -> NDArray[np.float64]:
        """Return probabilities at a temperature, in float64 whatever the dtype of ``theta``."""
        # Rounded to float32, large logits of equal samples could differ by more than SLACK.
        Z = self._logits(X, np.float64)
        Z *= self.temperature / temperature
        return softmax(Z, out=Z)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a ``.npz`` file, atomically; an existing file is replaced.

        Examples
        --------
        >>> path = "model.npz"
        >>> SoftmaxRegression(2, 3, seed=1).save(path)
        >>> SoftmaxRegression.load(path)
        SoftmaxRegression(2 => 3, float32)
        """
        if self.theta.dtype not in (np.float32, np.float64):
            raise InputError(f"theta: expected float32 or float64, got {self.theta.dtype}")
        if not np.isfinite(self.theta).all():
            raise InputError("theta: expected finite parameters, got NaN or infinity; train again")
        arrays = {"theta": np.asfortranarray(self.theta)}  # the same file on every machine
        names = as_feature_names(self.feature_names, self.num_inputs)
        if names is not None:
            arrays["feature_names"] = join_names(names)
        if self.class_means is not None:
            self._check_class_means(self.class_means)
            arrays |= {"means": self.class_means.means, "radii": self.class_means.radii}
        metadata: dict[str, Any] = {
            "classes": _as_classes(self.classes, self.num_outputs),
            "pixel_scale": _as_pixel_scale(self.pixel_scale),
            "framing": _as_framing(self.framing),
            "temperature": self.temperature,
        }
        if self.evidence_limit is not None:
            metadata["evidence_limit"] = as_size(self.evidence_limit, "evidence_limit")
        if self.set_rule is not None:
            metadata["set_rule"] = dataclasses.asdict(self.set_rule)
        if self.features is not None:
            own, metadata["features"] = pack(self.features)
            arrays |= own
        storage.write(path, "model", arrays, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SoftmaxRegression:
        """Return the model that :meth:`save` wrote; the file cannot execute code.

        Raises CorruptFileError if the file is damaged, not a model, or of another format version.
        """
        arrays, metadata = storage.read(path, "model")
        try:
            theta = as_columns(arrays.pop("theta"), name="theta")
            classes, pixel_scale = metadata.pop("classes"), metadata.pop("pixel_scale")
            if type(classes) is not list or not {type(name) for name in classes} <= {str}:
                raise TypeError("classes that are not a list of strings")
            num_outputs, columns = theta.shape
            if pixel_scale is not None:
                pixel_scale = _as_stored_float(pixel_scale, "pixel_scale")
            features = None
            if "features" in metadata:
                own = {n: arrays.pop(n) for n in list(arrays) if n.startswith("features.")}
                features = unpack(own, metadata.pop("features"))
            num_inputs = columns - 1 if features is None else features.num_inputs
            model = cls(
                num_inputs, num_outputs, 0, 0, theta.dtype, classes, pixel_scale, None, features
            )
            model.theta[...] = theta
            # Older files have none of these.
            if "feature_names" in arrays:
                names = split_names(arrays.pop("feature_names"))
                model.feature_names = as_feature_names(names, num_inputs)
            model.framing = _as_framing(metadata.pop("framing", None))
            model.temperature = _as_stored_float(metadata.pop("temperature", 1.0), "temperature")
            if "evidence_limit" in metadata:
                limit = _as_stored_float(metadata.pop("evidence_limit"), "evidence_limit")
                model.evidence_limit = as_size(limit, "evidence_limit")
            if "set_rule" in metadata:
                model.set_rule = SetRule(**metadata.pop("set_rule"))
                model.set_rule.check_classes(num_outputs)
            if arrays:
                model.class_means = ClassMeans(arrays.pop("means"), arrays.pop("radii"))
                model._check_class_means(model.class_means)
            if arrays or metadata:
                raise ValueError(f"unknown entries {', '.join((*arrays, *metadata))}")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CorruptFileError(f"{path}: expected a model, got {error!r:.200}") from error
        return model

    def _as_input(self, X: ArrayLike) -> NDArray[Any]:
        sparse = self.features is None or self.features.takes_sparse
        columns = as_columns(X, self.num_inputs, sparse=sparse)
        check_pixels(self, Range.of(columns))
        return columns

    def _logits(self, X: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
        X = self._as_input(X)
        # In float32, sums over hundreds of pixels would leave an error of 1e-6 in a probability.
        with np.errstate(all="ignore"):
            theta = self.calibrated_theta()
            if self.features is None:
                Z = affine(theta, X, self.input_scale(X.dtype))
            else:
                Z = np.empty((self.num_outputs, X.shape[1]), order="F")
                # In parts, so that all features never are in memory.
                for block in _parts(X.shape[1]):
                    affine(theta, self._extract(X[:, block]), out=Z[:, block])
            Z = Z.astype(dtype, copy=False)
        if not np.isfinite(Z).all():
            raise InputError(
                f"X: expected numbers whose logits fit {Z.dtype}, got up to "
                f"{np.abs(X).max():g}; scale the features, or use dtype=np.float64"
            )
        return Z

    def _extract(
        self,
        columns: NDArray[Any],
        threads: int | None = None,
        on_block: Callable[[int], None] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        if self.features is None:
            return columns
        scale = self.input_scale(columns.dtype)
        return self.features(columns, scale=scale, threads=threads, on_block=on_block, dtype=dtype)

    def _check_class_means(self, class_means: ClassMeans) -> None:
        shape = self.num_features, self.num_outputs
        if class_means.means.shape != shape:
            raise ShapeError(
                f"class_means: expected means of shape {shape}, got "
                f"{class_means.means.shape}; call fit_class_means(X_train, y_train)"
            )


PART_COLUMNS = 2048


def _parts(num_samples: int) -> Iterator[slice]:
    for start in range(0, num_samples, PART_COLUMNS):
        yield slice(start, start + PART_COLUMNS)


def _width_of(features: FeatureMap, num_inputs: int) -> int:
    """Return the number of features of a map, which must fit the samples."""
    if not isinstance(features, FeatureMap):
        raise InputError(
            f"features: expected a map such as Patches, got {type(features).__name__}; make one "
            "with npsoftmax.features.Patches.fit(X)"
        )
    if features.num_inputs != num_inputs:
        raise ShapeError(
            f"features: expected a map of {num_inputs} numbers, got one of {features.num_inputs}"
        )
    return features.num_outputs


def _as_classes(classes: Sequence[str] | None, num_outputs: int) -> tuple[str, ...]:
    names = tuple(map(str, range(num_outputs) if classes is None else classes))
    if len(names) != num_outputs:
        raise ShapeError(f"classes: expected {num_outputs} names, got {len(names)}: {names}")
    return names


def _short(name: str) -> str:
    """Return the name of a class, cut if it is long, and in quotes if it is blank."""
    short = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
    return short if name.strip() else repr(short)


def _as_pixel_scale(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float | np.number) and 1e-20 <= value <= 1 and value is not True:
        return float(value)
    raise InputError(
        f"pixel_scale: expected None or a number from 1e-20 to 1, for instance 1/255, got {value!r}"
    )


def _as_framing(value: str | None) -> str | None:
    if value is not None and value not in FRAMINGS:
        raise InputError(f"framing: expected one of {', '.join(FRAMINGS)} or None, got {value!r}")
    return value


def _as_stored_float(value: object, name: str) -> float:
    if type(value) is not float:
        raise TypeError(f"{name} {value!r:.80}")
    return value
