"""Problems, points near and far from their optimum, and whether what is certified there is true."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from optimum_oracle import EPS, LD, Exact, Problem, hardest_direction, optimum

import npsoftmax as nps
from npsoftmax.objective import FullBatch

FACTORS_OF_NOISE = 10.0 ** -np.arange(1, 13)


class Case(NamedTuple):
    """A problem, and its samples in the form in which the package gets them."""

    problem: Problem
    X: Any

    @property
    def arguments(self) -> dict[str, Any]:
        """What describes the objective."""
        return {
            "X": self.X,
            "y": self.problem.y,
            "l2": self.problem.l2,
            "sample_weight": self.problem.weights,
            "penalty_factor": self.problem.factors,
            "scale": self.problem.scale,
        }


def draw(rng: np.random.Generator) -> Case:
    """Draw a problem of some kind."""
    k = int(rng.choice([2, 2, 3, 3, 4, 5, 7, 10, 18, 30], p=[0.12] * 7 + [0.1, 0.03, 0.03]))
    n, d = int(k + rng.choice([0, 3, 10, 40])), int(rng.integers(1, 6))
    y = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    if rng.random() < 0.2:  # classes of one sample
        y[k:] = rng.integers(0, max(1, k // 2), n - k)
    if rng.random() < 0.2:  # classes without samples
        y[y == rng.integers(k)] = rng.integers(k)
        y = y if rng.random() < 0.8 else np.full(n, y[0])
    X = rng.standard_normal((d, n))
    X += rng.choice([0, 1, 5]) * rng.standard_normal((d, k))[:, y]
    if rng.random() < 0.2:  # the same samples again, some of them with other labels
        X = X[:, rng.integers(0, n, n)]
    X = _reshaped(rng, X)
    weights = factors = None
    if rng.random() < 0.4:
        weights = 10.0 ** rng.uniform(-rng.choice([1, 3, 9]), 0, n)
        weights[rng.random(n) < 0.1] = 0
        weights[0] += 1
    if rng.random() < 0.2:
        factors = 10.0 ** rng.uniform(-3, 3, d)
    l2 = float(10 ** rng.uniform(-8, 1))
    scale = float(rng.choice([1, 1, 1, 1 / 255, -2]))
    problem = Problem(X, y, k, l2, weights, factors, scale)
    return Case(problem, as_sparse(X) if rng.random() < 0.2 else X)


def _reshaped(rng: np.random.Generator, X: Any) -> Any:
    """Return samples with an offset, of another size, with constants or of another dtype."""
    kind = rng.integers(10)
    if kind == 0:
        X = X + 1e3 * rng.standard_normal((len(X), 1))
    elif kind == 1:
        X = X * 10.0 ** rng.uniform(-6, 3, (len(X), 1))
    elif kind == 2:
        X = np.where(rng.random((len(X), 1)) < 0.5, X[:, :1], X)
    elif kind == 3:
        X = np.repeat(X[:, :1], X.shape[1], axis=1)
    elif kind == 4:
        X = np.clip(40 * X + 128, 0, 255).astype(np.uint8)
    elif kind == 5:
        X = X.astype(np.float32)
    elif kind == 6:
        X = X * (rng.random(X.shape) < 0.3)
    elif kind == 7:
        X = X * 1e-5
    return X


def as_sparse(X: Any) -> Any:
    from scipy.sparse import csc_array

    return csc_array(X)


def points(rng: np.random.Generator, case: Case, exact: Exact) -> list[tuple[str, Any]]:
    """Return parameters, from the rounded optimum to zeros."""
    theta, problem = exact.theta, case.problem
    if rng.random() < 0.5:
        theta[np.setdiff1d(np.arange(problem.k), problem.present), -1] = rng.uniform(-60, 2)
    found = [("rounded", theta)]
    noise = rng.standard_normal(theta.shape) * rng.choice(FACTORS_OF_NOISE)
    noise *= 1.0 if rng.random() < 0.5 else np.abs(theta).max(axis=0)
    found.append(("noise", theta + noise))
    kind = rng.integers(6)
    if kind == 0:
        found.append(("float32", theta.astype(np.float32)))
    elif kind == 1:
        found.append(("scaled", theta * (1 + rng.choice(FACTORS_OF_NOISE))))
    elif kind == 2:
        found.append(("shifted", theta + 10 * rng.standard_normal(theta.shape[1])))
    elif kind == 3:
        found.append(("zeros", np.zeros_like(theta)))
    elif kind == 4:
        model = nps.SoftmaxRegression(len(problem.X), problem.k, dtype=np.float64)
        arguments = {**case.arguments, "X": problem.X.astype(np.float64) * problem.scale}
        del arguments["scale"]
        nps.fit(model, max_iterations=int(rng.integers(0, 9)), **arguments)
        found.append(("stopped", model.theta.copy()))
    if problem.present.size > 1:
        found.append(("hardest", hardest(rng, exact, theta)))
    return found


def hardest(rng: np.random.Generator, exact: Exact, theta: Any, x: Any = None) -> Any:
    """Return parameters that differ where the bound for a sample and a pair is tightest."""
    x = exact.problem.X[:, rng.integers(exact.problem.y.size)] if x is None else x
    pair = rng.choice(exact.problem.present.size, 2, replace=False)
    return moved(exact, theta, x, pair, LD(10) ** -rng.uniform(2, 26))


def moved(exact: Exact, theta: Any, x: Any, pair: Any, gap: LD) -> Any:
    """Move parameters so that a pair of logits of a sample differ most for a small gap."""
    direction = hardest_direction(exact, x, *pair)
    effect = (direction[pair[0]] - direction[pair[1]]) @ exact.features(x.reshape(-1, 1))[0]
    V = direction[:, :-1] / exact.units
    beta = direction[:, -1] - V @ exact.mean
    rows = theta.astype(LD)
    rows[exact.problem.present] += np.sqrt(2 * gap / effect) * np.column_stack([V, beta])
    return rows.astype(np.float64)


def new_samples(rng: np.random.Generator, exact: Exact) -> Any:
    """Return samples like those of the training, far ones, and ones close to boundaries."""
    X = exact.problem.X.astype(np.float64)
    mean, size = X.mean(axis=1, keepdims=True), X.std(axis=1, keepdims=True) + 1e-9
    like = mean + 2 * size * rng.standard_normal((len(X), 24))
    far = mean + 100 * size * rng.standard_normal((len(X), 4))
    known = np.hstack([X[:, rng.integers(0, X.shape[1], 8)], like, far])
    return np.hstack([known, mean, near_boundaries(rng, exact, known)])


def near_boundaries(rng: np.random.Generator, exact: Exact, known: Any) -> Any:
    """Bisect between pairs of samples of different predictions, more often or less."""
    left, right = (known[:, rng.integers(0, known.shape[1], 30)] for _ in range(2))
    depth = rng.integers(2, 56, 30)
    label = exact.logits(left).argmax(axis=0)
    differ = label != exact.logits(right).argmax(axis=0)
    left, right, depth, label = left[:, differ], right[:, differ], depth[differ], label[differ]
    for number in range(depth.max(initial=0)):
        middle = (left + right) / 2
        is_left = exact.logits(middle).argmax(axis=0) == label
        moving = depth > number
        left = np.where(is_left & moving, middle, left)
        right = np.where(~is_left & moving, middle, right)
    return np.hstack([left, right])


@dataclass
class Findings:
    """What was checked, what is not true, and the smallest bounds in units of the truth."""

    checked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    def compare(self, name: str, bound: Any, truth: Any, uncertain: Any, where: str) -> None:
        """Compare bounds with the truth, which is known up to an uncertainty."""
        bound, truth, uncertain = np.broadcast_arrays(bound, truth, uncertain)
        self.checked[name] += bound.size
        # Of infinite bounds, nothing is said.
        is_wrong = ~(bound >= truth - uncertain)
        if is_wrong.any():
            number = np.flatnonzero(is_wrong.ravel())[0]
            values = [float(each.ravel()[number]) for each in (bound, truth, uncertain)]
            self.wrong.append(f"{name} at {where}: bound, truth and uncertainty are {values}")
        certain = (truth > 100 * uncertain) & (truth > 0) & np.isfinite(bound)
        self.checked[f"{name}, finite and the truth known"] += int(certain.sum())
        if certain.any():
            ratio = float((bound[certain] / truth[certain]).min())
            self.ratios[name] = min(ratio, self.ratios.get(name, np.inf))


def check(case: Case, exact: Exact, theta: Any, samples: Any, where: str, found: Findings) -> None:
    """Compare what is certified at ``theta`` with the truth."""
    problem, present = case.problem, case.problem.present
    arguments = case.arguments
    if problem.scale != 1 and samples.dtype.kind == "f":  # pixels and floats are refused
        arguments = {**arguments, "X": arguments["X"].astype(np.float64)}
    certificate = nps.certify(theta[:, :-1], theta[:, -1], samples=samples, **arguments)
    wide = theta.astype(LD)
    gap, uncertain, radius = exact.distance(theta)
    found.compare("gap", np.sqrt(LD(certificate.gap)), np.sqrt(gap), uncertain, where)
    of_weights = 4 * np.sqrt((exact.step[:, :-1] ** 2 / exact.units**2).sum())
    of_weights = 4 * np.abs(of_weights) + 64 * EPS * np.abs(wide[:, :-1]).max(initial=0)
    of_weights *= np.sqrt(np.max(problem.penalties) / LD(problem.l2))
    found.compare("radius", certificate.radius, radius, of_weights, where)

    found_present, reach = FullBatch(**arguments).reach(theta)
    assert np.array_equal(found_present, present)
    Z = wide[present, :-1] @ samples.astype(LD) * LD(problem.scale) + wide[present, -1:]
    optimal = exact.logits(samples)
    uncertain = exact.uncertainty(samples) + 32 * EPS * (
        np.abs(wide[:, :-1]).max(axis=0) @ np.abs(samples) * abs(problem.scale)
        + np.abs(wide[:, -1]).max()
    )
    own, numbers = Z.argmax(axis=0), np.arange(samples.shape[1])
    D = exact.change(theta)
    ranges = np.ptp(D, axis=0).max()
    found.compare("inflation", reach.inflation, inflation(ranges), 1e-12, where)
    D = Z - optimal
    with np.errstate(all="ignore"):
        bounds = reach.changes(samples, own)
    others = own != np.arange(present.size)[:, None]
    truth = np.abs(D[own, numbers] - D)
    uncertain = np.broadcast_to(uncertain, truth.shape)
    found.compare("changes", bounds[others], truth[others], uncertain[others], where)
    uncertain = uncertain[0]
    _check_final(certificate, theta, present, samples, problem, optimal, uncertain, where, found)


def inflation(M: LD) -> LD:
    """Return ``1 / (2 xi(M))``, from the integral by Gauss and Legendre."""
    if M > 30:
        return M**2 / 2 * (1 + 2 * M * np.exp(-M))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t = (nodes + 1) / 2
    return 1 / (2 * (weights / 2 * (1 - t) * np.exp(-M * (1 - t))).sum())


def _check_final(
    certificate: Any,
    theta: Any,
    present: Any,
    samples: Any,
    problem: Problem,
    optimal: Any,
    uncertain: Any,
    where: str,
    found: Findings,
) -> None:
    """Compare the final predictions with those of the optimum."""
    final, numbers = certificate.final, np.arange(optimal.shape[1])
    rows = theta.astype(np.float64)
    predicted = (rows[:, :-1] * problem.scale @ samples + rows[:, -1:]).argmax(axis=0)
    labels = np.searchsorted(present, predicted).clip(max=present.size - 1)
    behind = optimal.max(axis=0) - optimal[labels, numbers]
    wrong = final & ((behind > uncertain) | (present[labels] != predicted))
    found.checked["predictions"] += final.size
    found.checked["final predictions"] += int(final.sum())
    if wrong.any():
        found.wrong.append(f"{wrong.sum()} final predictions are others, {where}")


def check_drawn(seed: int, found: Findings) -> None:
    """Draw a problem and check all points."""
    rng = np.random.default_rng(seed)
    case = draw(rng)
    exact = optimum(case.problem)
    samples = new_samples(rng, exact)
    found.checked["problems"] += 1
    for name, theta in points(rng, case, exact):
        found.checked["points"] += 1
        check(case, exact, theta, samples, f"seed {seed}, {name}", found)
