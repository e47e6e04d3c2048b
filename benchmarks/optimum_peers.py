"""The problems and the solvers of ``optimum.py``.

Each contestant converts a problem's data to its own layout, and returns a function that solves from
scratch in at most a given number of iterations and returns ``theta`` (k, d+1). If that function is
given a watch, it reports the objective at each point, as the solver computed it, and ends when the
watch returns True.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

import npsoftmax as nps
from npsoftmax.data import garments
from npsoftmax.objective import FullBatch

L2, THREADS = 1e-4, 2
# Never reached: what ends a run is the watch or the number of iterations.
TOLERANCE = 1e-14

Watch = Callable[[int, float], bool]
Solve = Callable[..., Any]


class Data(NamedTuple):
    """The data of all contestants."""

    X: Any  # (d, n): bytes from 0 to 255, which count as 0 to 1, or floats
    y: Any  # labels, (n,)
    k: int
    dtype: str
    l2: float

    @property
    def pixel_scale(self) -> float | None:
        """The factor of pixels; None for other features."""
        return 1 / 255 if self.X.dtype == np.uint8 else None

    def rows(self) -> Any:
        """Return samples as rows of floats, as the others take them."""
        rows = np.array(self.X.T, self.dtype, order="C")
        if self.pixel_scale is not None:
            rows /= 255
        return rows

    def objective(self) -> Callable[[Any], float]:
        """Return what evaluates parameters, in float64."""
        scale = self.pixel_scale or 1.0
        problem = FullBatch(self.X, self.y, self.l2, scale=scale, threads=THREADS)
        return lambda theta: problem.loss_and_grad(np.asarray(theta, np.float64)).loss


class Problem(NamedTuple):
    """A problem to minimise."""

    title: str
    make: Callable[..., tuple[Any, Any]]
    arguments: tuple[Any, ...]
    k: int
    dtype: str
    limit: float  # seconds for a fit
    repeated: bool = True  # whether the quickest run in turn, too
    l2: float = L2

    def data(self) -> Data:
        """Return samples and labels."""
        return Data(*self.make(*self.arguments), self.k, self.dtype, self.l2)


def fashion_mnist() -> tuple[Any, Any]:
    """Return the images, bytes of a memory-mapped file, and the labels."""
    data = nps.load("fashion-mnist")
    return data.X_train, data.y_train


def few_garments() -> tuple[Any, Any]:
    """Return every fourth pixel of a thousand drawn images, and their labels."""
    X, y = garments.generate(1000)
    return np.asfortranarray(X[::4]), y


def sampled(n: int, d: int, k: int, smallest: float) -> tuple[Any, Any]:
    """Draw from a softmax model whose classes overlap.

    The logits depend on d independent features alike, whose scales then go from 1 to ``smallest``
    and which are then mixed by a random rotation.
    """
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, d))
    logits = features @ rng.normal(0, 2 / math.sqrt(d), (d, k))
    y = (logits + rng.gumbel(size=(n, k))).argmax(axis=1)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (features * np.geomspace(1, smallest, d) @ rotation).T, y


def problem_of(n: int, d: int, k: int, smallest: float, limit: float = 40) -> Problem:
    """Return a problem with drawn samples, in float64."""
    scales = "scales 1" if smallest == 1 else f"scales 1 to {smallest:g}"
    title = f"drawn, n {n:,}, d {d}, k {k}, {scales}"
    return Problem(title, sampled, (n, d, k, smallest), k, "float64", limit)


PROBLEMS = (
    Problem("Fashion-MNIST, float32", fashion_mnist, (), 10, "float32", 120),
    Problem("Fashion-MNIST, float64", fashion_mnist, (), 10, "float64", 120, repeated=False),
    problem_of(20_000, 50, 5, smallest=1),
    problem_of(100_000, 20, 3, smallest=1),
    problem_of(20_000, 50, 5, smallest=1e-3),
    problem_of(5_000, 500, 10, smallest=1e-3),
)
QUICK = (
    Problem("garments, n 1,000, d 196", few_garments, (), 10, "float32", 1, repeated=False),
    problem_of(4_000, 10, 3, smallest=1e-1, limit=1),
)


def full_batch_trainer(data: Data) -> Solve:
    """Make npsoftmax's trainer on all samples, on the samples as they are."""

    def solve(iterations: int, watch: Watch | None = None) -> Any:
        model = nps.SoftmaxRegression(
            data.X.shape[0], data.k, dtype=data.dtype, pixel_scale=data.pixel_scale
        )
        scale = model.input_scale(data.X.dtype)
        problem = FullBatch(data.X, data.y, data.l2, scale=scale, threads=THREADS)
        trainer = nps.FullBatchTrainer(model, problem, tol=TOLERANCE)
        for record in trainer.run(iterations):
            if watch and watch(record.iteration, record.objective):
                break
        return model.theta

    return solve


def logistic_regression(package: str, solver: str) -> Callable[[Data], Solve]:
    """Return a contestant: scikit-learn's estimator, or the one that takes its place."""

    def make(data: Data) -> Solve:
        estimator_class = import_module(f"{package}.linear_model").LogisticRegression
        # For two classes its parameters are one row w; the rows -w/2 and w/2 have half its square.
        rows, C = data.rows(), (2 if data.k == 2 else 1) / (data.l2 * data.y.size)
        # What scikit-learn-intelex minimises is a sum over the samples, not their mean.
        divisor = data.y.size if package == "sklearnex" else 1

        def solve(iterations: int, watch: Watch | None = None) -> Any:
            estimator = estimator_class(C=C, solver=solver, tol=TOLERANCE, max_iter=iterations)
            watching = watched(watch, divisor) if watch else nullcontext()
            with watching, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is made to end before it has converged
                estimator.fit(rows, data.y)
            theta = np.column_stack([estimator.coef_, estimator.intercept_])
            return np.vstack([-theta, theta]) / 2 if data.k == 2 else theta

        return solve

    return make


@contextmanager
def watched(watch: Watch, divisor: float) -> Iterator[None]:
    """Tell the watch each iteration of SciPy's L-BFGS, which both libraries' lbfgs calls."""
    from scipy import optimize

    minimise, numbers = optimize.minimize, itertools.count(1)

    def callback(intermediate_result: Any) -> None:
        if watch(next(numbers), float(intermediate_result.fun) / divisor):
            raise StopIteration

    def minimise_watched(*arguments: Any, **options: Any) -> Any:
        return minimise(*arguments, **{**options, "callback": callback})

    with mock.patch.object(optimize, "minimize", minimise_watched):
        yield


def torch_lbfgs(data: Data) -> Solve:
    """Make PyTorch's L-BFGS; it tells of every evaluation, not of every iteration."""
    import torch
    from torch.nn import functional as F

    rows, labels = torch.from_numpy(data.rows()), torch.from_numpy(data.y.astype(np.int64))

    def solve(iterations: int, watch: Watch | None = None) -> Any:
        W = torch.zeros(data.k, rows.shape[1], dtype=rows.dtype, requires_grad=True)
        b = torch.zeros(data.k, dtype=rows.dtype, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [W, b],
            max_iter=iterations,
            max_eval=100 * iterations,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )
        numbers = itertools.count(1)

        def closure() -> Any:
            optimiser.zero_grad()
            loss = F.cross_entropy(F.linear(rows, W, b), labels) + data.l2 / 2 * W.square().sum()
            loss.backward()
            if watch and watch(next(numbers), loss.item()):
                raise StopIteration
            return loss

        with suppress(StopIteration):
            optimiser.step(closure)
        return torch.cat([W, b[:, None]], dim=1).detach().numpy()

    return solve


OURS = "npsoftmax"
LBFGS, NEWTON = "scikit-learn lbfgs", "scikit-learn newton-cg"
INTELEX, TORCH = "scikit-learn-intelex lbfgs", "torch.optim.LBFGS"
CONTESTANTS: dict[str, Callable[[Data], Solve]] = {
    OURS: full_batch_trainer,
    LBFGS: logistic_regression("sklearn", "lbfgs"),
    NEWTON: logistic_regression("sklearn", "newton-cg"),
    INTELEX: logistic_regression("sklearnex", "lbfgs"),
    TORCH: torch_lbfgs,
}
INSTALLED = [name for name in CONTESTANTS if name != INTELEX or find_spec("sklearnex")]


# Whose threads are tried one and two; npsoftmax sees to its own.
POOLS = {LBFGS: "blas", NEWTON: "blas", INTELEX: "blas", TORCH: "openmp"}


def quickest_threads(name: str, solve: Solve) -> int:
    """Return the number of threads with which three iterations are faster, in two tries each.

    Two are not always better: OpenMP's threads, which wait in a loop, may be in the way.
    """
    times: dict[int, list[float]] = {1: [], THREADS: []}
    for _ in range(2):
        for count, seconds in times.items():
            with limited(name, count):
                start = perf_counter()
                solve(3)
                seconds.append(perf_counter() - start)
    return min(times, key=lambda count: sum(times[count]))


def limited(name: str, threads: int) -> AbstractContextManager[Any]:
    """Limit a contestant to a number of threads."""
    return threadpool_limits(threads, user_api=POOLS[name]) if name in POOLS else nullcontext()
