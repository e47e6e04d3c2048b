r"""Coordinates in which the units, offsets and collinearity of the features do not matter.

The features are centred at their means m and divided by their largest deviations D. Columns of the
result are made orthonormal one after another: those of the largest unit first, then those close to
sums of others, and those with a large offset last (classical Gram-Schmidt, twice: Giraud, Langou
and Rozložník, Computers and Mathematics with Applications 50, 2005). A column of which nothing but
rounding errors is left depends on those before it. With the triangle R of this elimination, whose
rows of dependent columns are those of the identity,

.. math:: s W x + b = \eta_W u + \eta_b, \qquad
    u = R^{-\top} D^{-1} (s x - m), \quad \eta_W = W D R^\top, \quad \eta_b = b + W m,

where s is the scale of the samples. Entries of u for dependent columns are rounding errors, and are
set to 0: the logits depend on the other entries alone, whatever the weights in units of the data.

The elimination needs no copy of the samples: a triangle that has the same products of columns
replaces each block of rows (Demmel, Grigori, Hoemmen and Langou, SIAM Journal on Scientific
Computing 34(1), 2012).

With a penalty the weights at the optimum are sums of the samples' deviations from m. If there are
fewer samples than features, coordinates in a basis of these are fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._sparse import ends_of_features, is_sparse, to_dense
from npsoftmax.errors import InputError
from npsoftmax.objective.hot_loop import Workspace, samples_per_block
from npsoftmax.objective.penalty import Penalty
from npsoftmax.objective.samples import Samples, SampleStore, add

__all__ = ["Coordinates", "Span", "Units", "blocks_of", "smallest_weights"]

Floats = NDArray[np.float64]

# Rows are eliminated in blocks of this many times the number of features, for few of them.
ROWS_PER_FEATURE = 4
# Relative rounding errors above this come from a large offset.
MAX_NOISE = 1e-10
# Columns of which less than this is left are eliminated after the others.
CLOSE = 1e-3
# Relative variances above this are certainly not rounding errors.
MIN_VARIANCE = 1e-10
# With more features than this, and fewer rows than features, the rows are made orthonormal.
MAX_COLUMNS = 1024
# Rounding errors that stay below this change no probability.
MAX_CHANGE = 1e-8
# Products of samples are used instead of the samples if their eigenvalues differ by less.
MIN_RATIO = 1e-6
# Relative rounding errors of weights that come from coordinates.
MAX_ROUNDING = 1e-12


class Ranges(NamedTuple):
    """Summary of each feature, and the number of samples."""

    excess: Floats  # sum of the differences from the centre
    lowest: Floats
    highest: Floats
    number: int

    def merge(self, other: Ranges) -> Ranges:
        """Summarise these samples and others."""
        return Ranges(
            self.excess + other.excess,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            self.number + other.number,
        )


class Units(NamedTuple):
    """Centre and unit of each feature, and the rounding errors of its values in this unit."""

    scale: float
    centre: Floats
    unit: Floats  # 1 for a feature that does not vary
    largest: Floats  # magnitude
    noise: Floats
    number: int  # of samples with a weight

    @classmethod
    def of(cls, store: SampleStore, scale: float) -> Units:
        """Return the units of samples, of which each has a weight."""
        centre = np.zeros(store.summary.num_inputs)
        for _ in range(2):  # again, for the rounding errors of a sum of many large values
            part = partial(_ranges, scale=scale, centre=centre)
            excess, lowest, highest, number = store.map_reduce(part, Ranges.merge)
            centre = np.clip(centre + excess / number, lowest, highest)
        unit = np.maximum(highest - centre, centre - lowest)
        largest = np.maximum(abs(highest), abs(lowest))
        if not np.isfinite(largest).all() or not largest.max(initial=0.0) < 1e150:
            raise _squares_overflow()
        errors = 4 * float(np.finfo(np.float64).eps) * largest
        unit = np.where(unit > np.maximum(errors, 1e-150), unit, 1.0)
        return cls(scale, centre, unit, largest, errors / unit, number)

    def apply(self, samples: NDArray[Any]) -> Floats:
        """Return samples centred and divided by the units, in a new array."""
        deviations: Floats = samples * np.float64(self.scale)
        deviations -= self.centre[:, None]
        deviations /= self.unit[:, None]
        return deviations

    def rounding_of_logits(self, theta: NDArray[Any]) -> float:
        """Return a bound on the rounding errors of logits in the dtype of ``theta``."""
        sizes = np.abs(theta).astype(np.float64)
        largest = (sizes[:, :-1] @ self.largest + sizes[:, -1]).max()
        return 4 * float(np.finfo(theta.dtype).eps) * float(largest)


def _squares_overflow() -> InputError:
    return InputError(
        "X: expected features whose squares fit float64, got larger ones; divide them by their "
        "standard deviation"
    )


def _ranges(samples: Samples, workspace: Workspace, scale: float, centre: Floats) -> Ranges:
    d = samples.X.shape[0]
    if is_sparse(samples.X):
        return _ranges_of_sparse(samples, scale, centre)
    found = Ranges(np.zeros(d), np.full(d, np.inf), np.full(d, -np.inf), 0)
    for block in blocks_of(samples, workspace):
        scaled = block.X * np.float64(scale)
        ends = scaled.min(axis=1), scaled.max(axis=1)
        excess = (scaled - centre[:, None]).sum(axis=1)
        found = found.merge(Ranges(excess, *ends, block.y.size))
    return found


def _ranges_of_sparse(samples: Samples, scale: float, centre: Floats) -> Ranges:
    X: Any = samples.X if samples.weights is None else samples.X[:, samples.weights > 0]
    number = X.shape[1]
    if number == 0:
        return Ranges(0 * centre, np.full(centre.size, np.inf), np.full(centre.size, -np.inf), 0)
    ends = [scale * end.astype(np.float64) for end in ends_of_features(X)]
    excess = scale * X.sum(axis=1, dtype=np.float64) - number * centre
    return Ranges(excess, np.minimum(*ends), np.maximum(*ends), number)


def blocks_of(samples: Samples, workspace: Workspace, fewest: int = 0) -> Iterator[Samples]:
    """Yield the samples that have a weight in dense blocks, of ``fewest`` if there are so many."""
    step = max(samples_per_block(np.empty((1, samples.X.shape[0] + 1))), fewest)
    for start in range(0, samples.y.size, step):
        block = samples.columns(slice(start, min(start + step, samples.y.size)))
        if block.weights is not None and not block.weights.all():
            block = block.take(block.start + np.flatnonzero(block.weights), block.start)
        if block.y.size:
            yield block._replace(X=to_dense(block.X))


class Coordinates(NamedTuple):
    """The map between parameters and their coordinates."""

    units: Units
    triangle: Floats  # R, its columns in the order of the features
    inverse: Floats  # of the triangle
    depends: NDArray[np.bool_]  # by coordinate: nothing but rounding errors are left

    @classmethod
    def of(cls, store: SampleStore, scale: float) -> Coordinates:
        """Return coordinates for samples."""
        units = Units.of(store, scale)
        if units.number > len(units.unit) and units.noise.max(initial=0.0) <= MAX_NOISE:
            order = np.argsort(-units.unit, kind="stable")
            factor = _factor_products(store, units, CLOSE**2, order)
            if factor is not None:
                place, depends = np.argsort(order), np.zeros(order.size, np.bool_)
                inverse = np.tril(np.linalg.inv(factor)).T
                return cls(units, factor.T[:, place], inverse[place], depends)
        rows = store.map_reduce(partial(_triangle, units=units), _join)
        noise, close = np.sqrt(units.number) * units.noise, np.zeros(len(units.noise), np.bool_)
        for _ in range(2):
            order = np.lexsort((-units.unit, close, units.noise > MAX_NOISE))
            _, triangle, inverse, depends = _eliminate(rows[:, order], noise[order])
            # Their coordinates have large weights, of which those of later columns have a share.
            lengths = np.linalg.norm(rows[:, order], axis=0)
            close[order] |= ~depends & (triangle.diagonal() < CLOSE * lengths)
            if not close.any():
                break
        place = np.argsort(order)
        return cls(units, triangle[:, place], inverse[place], depends)

    def apply(self, samples: NDArray[Any]) -> Floats:
        """Return ``u`` of samples, ``(d, m)``."""
        u: Floats = self.inverse.T @ self.units.apply(samples)
        u[self.depends] = 0.0
        return u

    def enter(self, theta: NDArray[Any]) -> Floats:
        """Return the coordinates of parameters, ``(k, d+1)``."""
        weights = theta[:, :-1].astype(np.float64)
        eta = np.empty(theta.shape)
        eta[:, :-1] = (weights * self.units.unit) @ self.triangle.T
        eta[:, -1] = theta[:, -1] + weights @ self.units.centre
        return eta

    def leave(self, eta: Floats) -> Floats:
        """Return the parameters at coordinates."""
        theta = np.empty(eta.shape, order="F")
        theta[:, :-1] = (eta[:, :-1] @ self.inverse.T) / self.units.unit
        theta[:, -1] = eta[:, -1] - theta[:, :-1] @ self.units.centre
        return theta

    def pull_back(self, grad: Floats) -> Floats:
        """Return the gradient with respect to the parameters from that in coordinates."""
        result = np.empty(grad.shape, order="F")
        result[:, :-1] = grad[:, :-1] @ self.triangle * self.units.unit
        result[:, :-1] += grad[:, -1:] * self.units.centre
        result[:, -1] = grad[:, -1]
        return result

    def metric(self, penalty: Penalty = 1.0) -> Floats:
        """Return G with ``eta_W G eta_W'`` the squares of the weights, times the penalty."""
        scaled = self.inverse / self.units.unit[:, None]
        products: Floats
        if not isinstance(penalty, np.ndarray):
            products = penalty * (scaled.T @ scaled)
            return products
        # Where weights change no logit, rounding errors must not look like weights with a penalty.
        sizes = np.abs(self.inverse)
        scaled[self.depends & (sizes < MAX_CHANGE * sizes.max(axis=0))] = 0.0
        scaled *= np.sqrt(penalty)[:, None]
        products = scaled.T @ scaled
        return products


def _triangle(samples: Samples, workspace: Workspace, units: Units) -> Floats:
    """Return a triangle with the products of the columns of some rows, in their units."""
    d = samples.X.shape[0]
    rows = np.zeros((0, d))
    for block in blocks_of(samples, workspace, ROWS_PER_FEATURE * d):
        rows = _join(rows, units.apply(block.X).T)
    return rows


def _join(upper: Floats, lower: Floats) -> Floats:
    rows = np.concatenate([upper, lower])
    if len(rows) <= rows.shape[1]:
        return rows
    triangle: Floats = np.asarray(np.linalg.qr(rows, mode="r"))
    return triangle


class Elimination(NamedTuple):
    """What becomes of columns that are made orthonormal one after another."""

    basis: Floats  # the orthonormal columns
    triangle: Floats
    inverse: Floats
    depends: NDArray[np.bool_]  # which columns depend on earlier ones


def _eliminate(columns: Floats, noise: Floats) -> Elimination:
    """Make columns orthonormal, up to rounding errors of the size ``noise`` in each."""
    size = columns.shape[1]
    basis = np.zeros((len(columns), min(columns.shape)))
    triangle, inverse, depends = np.eye(size), np.eye(size), np.zeros(size, np.bool_)
    for number, column in enumerate(columns.T):
        kept = np.flatnonzero(~depends[:number])
        before = basis[:, : kept.size]
        along = before.T @ column
        rest = column - before @ along
        again = before.T @ rest  # once is not enough if the rest is small
        rest -= before @ again
        along += again
        length = float(np.linalg.norm(rest))
        weights = inverse[:number, kept] @ along
        errors = noise[number] + np.abs(weights) @ noise[:number]
        depends[number] = kept.size == basis.shape[1] or not length > errors
        divisor = 1.0 if depends[number] else length
        triangle[kept, number], triangle[number, number] = along, divisor
        inverse[:number, number], inverse[number, number] = -weights / divisor, 1 / divisor
        if not depends[number]:
            basis[:, kept.size] = rest / length
    return Elimination(basis[:, : size - depends.sum()], triangle, inverse, depends)


def smallest_weights(theta: Floats, store: SampleStore, scale: float) -> Floats:
    """Return the smallest weights with the same logits on all samples, and the biases for them."""
    units = Units.of(store, scale)
    d = store.summary.num_inputs
    if units.number > d and _factor_products(store, units, MIN_VARIANCE) is not None:
        return theta
    coordinates = Coordinates.of(store, scale)
    free = coordinates.depends
    if not free.any():
        return theta
    # W' = B eta'. Rows of B for small units are large, and first they keep the others' digits.
    B = coordinates.inverse / coordinates.units.unit[:, None]
    B = B[np.argsort(-np.abs(B).max(axis=1), kind="stable")]
    eta = coordinates.enter(theta)
    Q, T = np.linalg.qr(B[:, free])
    eta[:, :-1][:, free] = -np.linalg.solve(T, Q.T @ (B[:, ~free] @ eta[:, :-1][:, ~free].T)).T
    return coordinates.leave(eta)


def _factor_products(
    store: SampleStore, units: Units, least: float, order: Any = slice(None)
) -> Floats | None:
    """Return the lower triangle of the products of the features, if they are independent.

    The variance of any weighted sum of them must exceed ``least`` times that of the terms. It is
    much faster than an elimination.
    """
    products = store.map_reduce(partial(_products, units=units), np.add)
    products = products[order][:, order]
    lengths = np.sqrt(products.diagonal())
    if not lengths.all():
        return None
    correlations = products / lengths / lengths[:, None]
    try:
        np.linalg.cholesky(correlations - least * np.eye(len(lengths)))
        factor: Floats = lengths[:, None] * np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return None
    return factor


def _products(samples: Samples, workspace: Workspace, units: Units) -> Floats:
    products = np.zeros((samples.X.shape[0],) * 2)
    for block in blocks_of(samples, workspace):
        deviations = units.apply(block.X)
        products += deviations @ deviations.T
    return products


class Span(NamedTuple):
    """Coordinates in an orthonormal basis of the samples' deviations from their mean.

    Weights outside of it change no logit, and the squares of the others stay the same. The basis is
    the product of ``columns``, ``(d, m)``, and ``mixture``, ``(m, r)``.
    """

    centre: Floats
    columns: Floats
    mixture: Floats
    samples: Floats  # the coordinates of those with a weight, (r, n)

    @classmethod
    def of(cls, store: SampleStore, scale: float, l2: float) -> Span:
        """Return coordinates for fewer samples than features."""
        deviations, centre = _all_deviations(store, scale)
        products = deviations.T @ deviations
        if not np.isfinite(products).all():
            raise _squares_overflow()
        # Where the mean had rounding errors, without them.
        products -= products.mean(axis=0)
        products -= products.mean(axis=1)[:, None]
        squares, vectors = np.linalg.eigh(products)
        # The sum of the deviations is 0, so the first square is one.
        rounding = float(np.finfo(np.float64).eps) * squares[-1]
        if squares[1:].min(initial=np.inf) > MIN_RATIO * squares[-1] or rounding < MAX_CHANGE * l2:
            kept = np.flatnonzero(squares > len(squares) * rounding)
            kept = kept[kept > 0]
            roots = np.sqrt(squares[kept])
            mixture = vectors[:, kept]
            return cls(centre, deviations, mixture / roots, np.asfortranarray((mixture * roots).T))
        largest = np.linalg.norm(np.abs(deviations).max(axis=1) + np.abs(centre))
        Q, R = np.linalg.qr(deviations - deviations.mean(axis=1)[:, None])
        noise = 4 * float(np.finfo(np.float64).eps) * largest
        mixture = _eliminate(R, np.full(R.shape[1], noise)).basis[:, : R.shape[1] - 1]
        return cls(centre, Q, mixture, np.asfortranarray(mixture.T @ R))

    def enter(self, theta: NDArray[Any]) -> Floats:
        """Return the coordinates of parameters, ``(k, r+1)``, Fortran-ordered."""
        weights = theta[:, :-1].astype(np.float64)
        eta = np.empty((len(theta), self.mixture.shape[1] + 1), order="F")
        eta[:, :-1] = weights @ self.columns @ self.mixture
        eta[:, -1] = theta[:, -1] + weights @ self.centre
        return eta

    def squares(self) -> Floats:
        """Return the sums of the squares of the coordinates."""
        sums: Floats = np.square(self.samples).sum(axis=1)
        return sums

    def project(self, theta: Floats, store: SampleStore, scale: float) -> Floats:
        """Remove what changes no logit from parameters.

        If rounding errors of features in a large unit reach the logits, they stay as they are.
        """
        result = self.leave(self.enter(theta))
        removed = (theta - result)[:, :-1]
        if not np.abs(removed).max() > MAX_ROUNDING * np.abs(theta).max():
            return theta
        change = np.abs(removed @ _all_deviations(store, scale)[0]).max()
        return theta if change > MAX_CHANGE else result

    def leave(self, eta: Floats) -> Floats:
        """Return the parameters at coordinates."""
        theta = np.empty((len(eta), len(self.centre) + 1), order="F")
        theta[:, :-1] = (eta[:, :-1] @ self.mixture.T) @ self.columns.T
        theta[:, -1] = eta[:, -1] - theta[:, :-1] @ self.centre
        return theta


def _all_deviations(store: SampleStore, scale: float) -> tuple[Floats, Floats]:
    """Return the samples that have a weight without their mean, and the mean.

    Rounding errors of a sum of many large values may be left in the first, but not in the second.
    """
    total, number = store.map_reduce(_sum, add)
    centre = total * (scale / number)
    part = partial(_deviations, scale=scale, centre=centre)
    deviations = store.map_reduce(part, _join_columns)
    return deviations, centre + deviations.mean(axis=1)


def _sum(samples: Samples, workspace: Workspace) -> tuple[Floats, int]:
    X = _weighted(samples, workspace)
    return X.sum(axis=1, dtype=np.float64), X.shape[1]


def _deviations(samples: Samples, workspace: Workspace, scale: float, centre: Floats) -> Floats:
    X = _weighted(samples, workspace)
    if scale != 1:
        X = X * np.float64(scale)
    deviations: Floats = np.subtract(X, centre[:, None], order="F")
    return deviations


def _weighted(samples: Samples, workspace: Workspace) -> NDArray[Any]:
    """Return the samples that have a weight."""
    blocks = [block.X for block in blocks_of(samples, workspace, samples.y.size)]
    return blocks[0] if blocks else samples.X[:, :0]


def _join_columns(left: Floats, right: Floats) -> Floats:
    joined: Floats = np.concatenate([left.T, right.T]).T
    return joined
