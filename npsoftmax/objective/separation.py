r"""Proofs that no optimum exists: directions along which no sample gets worse.

Without a penalty an optimum exists, up to directions that change no probability, if and only if
there is no direction V with

.. math:: (V_y - V_c)^\top a_j \ge 0 \quad \text{for each sample } j \text{ of class } y
    \text{ and each class } c,

and more than 0 for some of them: along such a V the loss falls for ever (Albert and Anderson,
Biometrika 71, 1984: complete separation if all are more than 0, otherwise quasi-complete). Any V
that passes this test is a proof. If some features have a penalty, V must be 0 there. Two kinds are
tried here: single features, and directions that a solver still moves along when everything else has
come to rest.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npsoftmax._sparse import ends_of_features, is_sparse, to_dense
from npsoftmax.objective.coordinates import Coordinates, Units, blocks_of
from npsoftmax.objective.hot_loop import Workspace
from npsoftmax.objective.samples import Samples, SampleStore, draw_evenly

__all__ = ["Separation", "separating_features", "separation_along"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Rounding errors of a margin, and the least margin, relative to the sum of its terms.
ROUNDING, LEAST = 1e-10, 1e-6
MAX_NAMED = 3
# The middle half of this many values, in relation to the largest deviation.
MAX_SAMPLES, MIN_SPREAD = 1000, 1e-7


class Separation(NamedTuple):
    """Groups of classes that a direction separates, and the features that it consists of.

    There are no features if there are more than a few.
    """

    groups: tuple[tuple[int, ...], ...]
    features: tuple[int, ...]


def separation_along(
    direction: Floats, store: SampleStore, coordinates: Coordinates, errors: float
) -> Separation | None:
    """Return what a direction separates, or None if the loss does not fall for ever along it.

    ``errors`` is the size of rounding errors of its margins.
    """
    part = partial(_margins, direction=direction, coordinates=coordinates, errors=errors)
    holds, separated = store.map_reduce(part, _merge_margins)
    present = np.flatnonzero(store.summary.class_totals)
    missing = np.delete(np.arange(len(direction)), present)
    separated[:, missing] = False
    if not holds or not separated.any():
        return None
    weights = np.abs(coordinates.leave(direction)[:, :-1]).max(axis=0) * coordinates.units.unit
    features = tuple(np.flatnonzero(weights > LEAST * weights.max()).tolist())
    if _hides_most_values(store, coordinates.units)[list(features)].any():
        return None
    groups = _groups(separated | separated.T, present.tolist())
    return Separation(groups, features if len(features) <= MAX_NAMED else ())


def _hides_most_values(store: SampleStore, units: Units) -> Flags:
    """Whether single values of a feature are so large that rounding hides how the others differ."""
    count = min(store.summary.num_samples, MAX_SAMPLES)
    part = store.subset(draw_evenly(store.summary.num_samples, count))
    values = part.map_reduce(_values, _join)
    low, high = np.quantile(values * units.scale, [0.25, 0.75], axis=1)
    hidden: Flags = (high > low) & (high - low < MIN_SPREAD * units.unit)
    return hidden


def _values(samples: Samples, workspace: Workspace) -> Floats:
    return to_dense(samples.X).astype(np.float64)


def _join(left: Floats, right: Floats) -> Floats:
    return np.concatenate([left, right], axis=1)


def _margins(
    samples: Samples,
    workspace: Workspace,
    direction: Floats,
    coordinates: Coordinates,
    errors: float,
) -> tuple[bool, Flags]:
    """Return whether no margin is negative, and between which classes some are positive."""
    k = len(direction)
    holds, separated = True, np.zeros((k, k), np.bool_)
    for block in blocks_of(samples, workspace):
        u = coordinates.apply(block.X)
        values = direction[:, :-1] @ u + direction[:, -1:]
        sizes = np.abs(direction[:, :-1]) @ np.abs(u) + np.abs(direction[:, -1:])
        label = block.y, np.arange(block.y.size)
        margins, sizes = values[label] - values, sizes[label] + sizes
        holds = holds and bool((margins >= -ROUNDING * sizes - errors).all())
        for c in range(k):
            np.logical_or.at(separated[:, c], block.y, margins[c] > LEAST * sizes[c] + 10 * errors)
    return holds, separated


def _merge_margins(left: tuple[bool, Flags], right: tuple[bool, Flags]) -> tuple[bool, Flags]:
    return left[0] and right[0], left[1] | right[1]


def _groups(separated: Flags, classes: list[int]) -> tuple[tuple[int, ...], ...]:
    """Return groups of classes, so that classes of different groups are separated."""
    left, groups = set(classes), []
    while left:
        group, new = set(), {min(left)}
        while new:
            group |= new
            new = {b for a in new for b in left - group if not separated[a, b]}
        groups.append(tuple(sorted(group)))
        left -= group
    if len(groups) > 1:
        return tuple(sorted(groups, key=len))
    # Some samples are separated from some classes: these classes.
    return tuple((c,) for c in classes if separated[c].any())


def separating_features(
    store: SampleStore, k: int, unpenalised: Flags | None = None
) -> Separation | None:
    """Return what single features separate: the classes of the first, and all that do the same.

    Only those without a penalty count; by default these are all.

    The values of a feature in some classes are all at most those in the other classes.
    """
    lowest, highest = store.map_reduce(partial(_ranges_by_class, k=k), _merge_ranges)
    if unpenalised is not None:
        lowest[:, ~unpenalised], highest[:, ~unpenalised] = -np.inf, np.inf
    present = np.flatnonzero(store.summary.class_totals > 0)
    lowest, highest = lowest[present], highest[present]
    order = np.lexsort((highest.T, lowest.T)).T  # by the lowest value, then by the highest
    lowest, highest = np.take_along_axis(lowest, order, 0), np.take_along_axis(highest, order, 0)
    reached = np.maximum.accumulate(highest)[:-1]
    differ = highest[1:] > lowest[:-1]  # or the neighbours belong on the same side
    splits, features = np.nonzero(((reached <= lowest[1:]) & differ).T)[::-1]
    if not features.size:
        return None
    # The side of a split that has the first class.
    everyone = set(range(present.size))
    below = [set(order[: s + 1, f].tolist()) for s, f in zip(splits, features, strict=True)]
    sides = [side if 0 in side else everyone - side for side in below]
    same = [int(f) for f, side in zip(features, sides, strict=True) if side == sides[0]]
    groups = sorted([sorted(sides[0]), sorted(everyone - sides[0])], key=len)
    return Separation(tuple(tuple(present[group].tolist()) for group in groups), tuple(same))


def _ranges_by_class(samples: Samples, workspace: Workspace, k: int) -> tuple[Any, Any]:
    """Return the smallest and largest values of each feature by class, ``(k, d)``."""
    shape = k, samples.X.shape[0]
    lowest, highest = np.full(shape, np.inf), np.full(shape, -np.inf)
    if is_sparse(samples.X):
        present = samples.shares(1) > 0
        for c in np.unique(samples.y[present]):
            X: Any = samples.X[:, present & (samples.y == c)]
            lowest[c], highest[c] = ends_of_features(X)
        return lowest, highest
    for block in blocks_of(samples, workspace):
        order = np.argsort(block.y, kind="stable")
        classes, starts = np.unique(block.y[order], return_index=True)
        rows = block.X.T[order]
        lowest[classes] = np.minimum(lowest[classes], np.minimum.reduceat(rows, starts))
        highest[classes] = np.maximum(highest[classes], np.maximum.reduceat(rows, starts))
    return lowest, highest


def _merge_ranges(left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
    return np.minimum(left[0], right[0]), np.maximum(left[1], right[1])
