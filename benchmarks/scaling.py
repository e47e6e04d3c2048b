"""Measure how time per sample and memory grow with samples n, classes k and features d.

    python benchmarks/scaling.py             # prints the tables, writes results/scaling.{json,png}
    python benchmarks/scaling.py --docs      # and puts the tables into benchmarks/README.md
    python benchmarks/scaling.py --quick     # smaller sizes, fewer rounds, nothing written

- n: epochs of ``Trainer.fit``, shuffled, on bytes of a memory-mapped IDX file (7.8 GB, written to
  ``--work-dir`` and deleted at the end), after an epoch that brings the file into the page cache.
- k and d: steps of ``loss_and_grad`` with a reused ``Workspace`` on a batch of float32. The
  multiply-adds of a sample are k d; a step does them twice, three times where it cannot keep all
  logits.

Each point is a process of its own, with one BLAS thread; the points run in turn. Training runs
under a limit on RLIMIT_DATA: private writable memory, so the heap, stacks and reserved buffers.
Pages of the mapped file do not count there, only as resident memory, where the system may take
them away. Linux only.

Answers are checked before times: gradients against float64 formulas, training from the file
against training from memory, bit for bit.
"""

import math
import os
import resource
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure

measure.threads(1)

import numpy as np

import npsoftmax as nps
from npsoftmax.data import idx
from npsoftmax.objective import Workspace, loss_and_grad

SIZES = {
    "n": (10_000, 100_000, 1_000_000, 10_000_000),
    "k": (10, 100, 1000, 10_000, 100_000),
    "d": (64, 256, 784, 4096, 16_384),
}
QUICK = {"n": 100_000, "k": 1000, "d": 784}
K, D, BATCH, SCALE = 10, 784, 256, 1 / 255
HEAP_LIMIT = 2**30
# field: (title, factor, unit, digits)
COLUMNS = {
    "seconds_per_sample": ("per sample", 1e6, "µs", 2),
    "seconds_per_multiply_add": ("per 1000 multiply-adds", 1e12, "ns", 0),
    "heap_bytes": ("heap", 1e-6, "MB", 0),
    "peak_bytes": ("resident", 1e-6, "MB", 0),
    "besides_bytes": ("besides theta and grad", 1e-6, "MB", 1),
}

Point = dict[str, float]
Axis = Mapping[str, Sequence[Point]]


def in_turn(calls: Mapping[int, Sequence[Any]], axis: str, rounds: int) -> dict[str, list[Point]]:
    """Return the points of each size, one per round; a call is a function and its arguments."""
    points: dict[str, list[Point]] = {str(size): [] for size in calls}
    for number in range(rounds):
        for size, call in calls.items():
            print(f"round {number + 1} of {rounds}, {axis} = {size:,}", file=sys.stderr)
            points[str(size)].append(measure.in_own_process(*call))
    return points


def write_images(path: Path, samples: int) -> None:
    """Write an IDX file of ``samples`` times ``D`` bytes: the smallest n, random, repeated."""
    block = np.random.default_rng(0).bytes(min(SIZES["n"]) * D)
    with open(path, "wb") as file:
        file.write(struct.pack(">4B2I", 0, 0, 8, 2, samples, D))
        for _ in range(samples // min(SIZES["n"])):
            file.write(block)
        # Else the system does it while epochs are timed.
        file.flush()
        os.fsync(file.fileno())


def limit_heap() -> None:
    """Hold this process to ``HEAP_LIMIT``, and make sure that it is held."""
    resource.setrlimit(resource.RLIMIT_DATA, (HEAP_LIMIT, HEAP_LIMIT))
    try:
        np.zeros(2 * HEAP_LIMIT, np.uint8)
    except MemoryError:
        return
    raise SystemExit("expected RLIMIT_DATA to limit memory, as it does on Linux since 4.7")


def trainer_on(X: np.ndarray) -> nps.Trainer:
    """Return what trains on these samples, with random labels."""
    y = np.random.default_rng(1).integers(K, size=X.shape[1], dtype=np.uint8)
    loader = nps.DataLoader(X, y, BATCH, shuffle=True, seed=0)
    model = nps.SoftmaxRegression(D, K, seed=0, pixel_scale=1 / 255)
    return nps.Trainer(model, nps.Descent(0.01), loader)


def refuse_unequal_training(path: Path) -> None:
    """Stop unless samples from the file and from memory lead to the same parameters."""
    mapped = idx.memory_map(path)[: min(SIZES["n"])].T
    trainers = [trainer_on(X) for X in (mapped, mapped.copy(order="K"))]
    for trainer in trainers:
        trainer.fit(1)
    np.testing.assert_array_equal(*(trainer.model.theta for trainer in trainers))


def training(path: Path, samples: int) -> Point:
    """Train on the first samples of a file, in whole epochs, for at least two seconds."""
    limit_heap()
    trainer = trainer_on(idx.memory_map(path)[:samples].T)
    heap: list[int] = []
    trainer.on_step = lambda _: heap.append(measure.memory("VmData"))
    trainer.fit(1)
    trainer.on_step = None
    start = time.perf_counter()
    while time.perf_counter() - start < 2:
        trainer.fit(1)
    per_epoch = (time.perf_counter() - start) / (len(trainer.history) - 1)
    loss = trainer.history[-1].train_loss
    if not math.isfinite(loss):
        raise SystemExit(f"n = {samples}: expected a finite loss, got {loss}")
    return {
        "seconds_per_sample": per_epoch / samples,
        "loss": loss,
        "heap_bytes": max(heap),
        "peak_bytes": measure.memory("VmHWM"),
    }


def batch_of(k: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return parameters, float32 samples and labels; filled in place, so no peak of their own."""
    rng = np.random.default_rng(0)
    theta = np.empty((k, d + 1), np.float32, order="F")
    rng.standard_normal(out=theta.T, dtype=np.float32)
    theta /= np.float32(math.sqrt(d))
    X = rng.integers(256, size=(BATCH, d), dtype=np.uint8).astype(np.float32).T
    return theta, X, rng.integers(k, size=BATCH)


def refuse_wrong_gradient(k: int, d: int) -> None:
    """Stop unless loss and gradient agree with the formulas as written, in float64."""
    theta, X, y = batch_of(k, d)
    found = loss_and_grad(theta, X, y, scale=SCALE)
    inputs = np.vstack([X.astype(np.float64) * SCALE, np.ones(BATCH)])
    P = np.exp(theta.astype(np.float64) @ inputs)
    P /= P.sum(axis=0)
    loss = -np.log(P[y, np.arange(BATCH)]).mean()
    P[y, np.arange(BATCH)] -= 1
    grad = P @ inputs.T / BATCH
    np.testing.assert_allclose(found.loss, loss, rtol=1e-4)
    np.testing.assert_allclose(found.grad, grad, rtol=1e-4, atol=1e-7 * np.abs(grad).max())


def steps(k: int, d: int) -> Point:
    """Evaluate loss and gradient on one batch again and again."""
    theta, X, y = batch_of(k, d)
    workspace, before = Workspace(), measure.memory("VmRSS")

    def step() -> None:
        loss_and_grad(theta, X, y, scale=SCALE, workspace=workspace)

    times = measure.in_turn({"step": step}, rounds=3, seconds=0.3)["step"]
    per_sample, peak = statistics.median(times) / BATCH, measure.memory("VmHWM")
    return {
        "seconds_per_sample": per_sample,
        "seconds_per_multiply_add": per_sample / (k * d),
        "peak_bytes": peak,
        # The gradient is as large as theta.
        "besides_bytes": peak - before - theta.nbytes,
    }


def measured(work_dir: str | None, rounds: int, quick: bool) -> dict[str, dict[str, list[Point]]]:
    """Return the points of all three axes, after a check of the answers."""
    sizes = {
        axis: [size for size in SIZES[axis] if not quick or size <= QUICK[axis]] for axis in SIZES
    }
    for k, d in [(k, 8) for k in sizes["k"]] + [(K, d) for d in sizes["d"]]:
        measure.in_own_process(refuse_wrong_gradient, k, d)
    of_classes = in_turn({k: (steps, k, D) for k in sizes["k"]}, "k", rounds)
    of_features = in_turn({d: (steps, K, d) for d in sizes["d"]}, "d", rounds)
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        path = Path(folder, "images-idx2-ubyte")
        write_images(path, max(sizes["n"]))
        measure.in_own_process(refuse_unequal_training, path)
        of_samples = in_turn({n: (training, path, n) for n in sizes["n"]}, "n", rounds)
    return {"n": of_samples, "k": of_classes, "d": of_features}


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the machine and the three tables, by the names of their places in the README."""
    return {
        "scaling_machine": measure.described(results["machine"]),
        **{f"scaling_{axis}": table_of(axis, results[axis]) for axis in SIZES},
    }


def table_of(axis: str, sizes: Axis) -> str:
    """Return medians over the rounds, and times relative to the smallest size of the same round."""
    first = next(iter(sizes.values()))
    fields = [field for field in COLUMNS if field in first[0]]
    rows = []
    for size, points in sizes.items():
        pairs = zip(points, first, strict=True)
        relative = [p["seconds_per_sample"] / r["seconds_per_sample"] for p, r in pairs]
        row = [f"{int(size):,}", f"{statistics.median(relative):,.2f}"]
        for field in fields:
            _, factor, unit, digits = COLUMNS[field]
            value = statistics.median(point[field] for point in points) * factor
            row.append(f"{value:,.{digits}f} {unit}")
        rows.append(row)
    return measure.markdown([axis, "relative", *(COLUMNS[field][0] for field in fields)], rows)


def picture(results: Mapping[str, Any]) -> Any:
    """Draw the three growths, each round a dot, and return the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    names = {"n": "samples n", "k": "classes k", "d": "features d"}
    for axes, (axis, name) in zip(figure.subplots(1, 3), names.items(), strict=True):
        field = "seconds_per_sample" if axis == "n" else "seconds_per_multiply_add"
        title, factor, unit, _ = COLUMNS[field]
        sizes = [int(size) for size in results[axis]]
        heights = np.array([[p[field] * factor for p in found] for found in results[axis].values()])
        axes.semilogx(sizes, np.median(heights, axis=1), color="tab:blue")
        axes.semilogx(sizes, heights, ".", color="tab:blue")
        axes.set(xlabel=name, ylabel=f"{unit} {title}", ylim=(0, None))
        axes.grid(alpha=0.3)
    return figure


def main() -> None:
    """Measure, print, save."""
    parser = measure.flags(__doc__, rounds=5)
    parser.add_argument("--work-dir", help="where the file of samples goes, 7.8 GB for a while")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    points = measured(arguments.work_dir, rounds, arguments.quick)
    results = {"machine": measure.machine(), **points}
    measure.publish("scaling", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
