"""Measure the cost of a cluster for the exact optimum, and predict it for a hundred machines.

    python benchmarks/scale_out.py             # prints the tables, writes results and picture
    python benchmarks/scale_out.py --docs      # and puts the tables into benchmarks/README.md
    python benchmarks/scale_out.py --quick     # fewer samples and rounds, nothing written

- rounds: an evaluation of loss and gradient on one and on two workers of this machine, in turn with
  one process with two BLAS threads and with two threads of npsoftmax. The overhead of a round is
  its time less the longest time that a worker computed.
- shards: the overhead of a round against the number of shards, on tiny data.
- memory: a whole fit in a driver whose address space is limited, with ten times as much data.
- model: seconds and bytes of an iteration for other sizes, from what was measured.

Samples are random bytes in the shape of Fashion-MNIST, drawn where the worker is. Linux only.
"""

import logging
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import measure

measure.threads(2)

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, get_task_stream

import npsoftmax as nps
from npsoftmax.ext import cluster
from npsoftmax.ext.cluster import FAN_IN
from npsoftmax.objective import FullBatch

K, D, SCALE, L2 = 10, 784, 1 / 255, 1e-4
SIZES = (60_000, 600_000)
SHARDS = (1, 2, 4, 8, 16, 32, 64, 100)
BLOCK = 30_000
LIMIT, TIMES = 2**30, 10
ITERATIONS = 5
EVALUATIONS = 40  # of a fit on Fashion-MNIST
BLAS, THREADS, ONE, TWO = (
    "one process, 2 BLAS threads",
    "one process, 2 threads",
    "1 worker",
    "2 workers",
)
# The model's assumptions about machines that are not here: bytes a second between any two of them.
NETWORK = 125e6
WEAK = (1, 2, 10, 100, 1000)
CASES = ((10**6, 2), (10**7, 10), (10**8, 100), (10**9, 100), (10**9, 1000))

Times = dict[str, list[dict[str, float]]]


@contextmanager
def workers(count: int, threads: int = 1) -> Iterator[Client]:
    """Yield a client of a number of processes."""
    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=threads,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # what workers miss while the cluster closes
        ) as processes,
        Client(processes) as client,
    ):
        yield client


def drawn(seed: int, rows: int) -> np.ndarray:
    """Return random bytes as rows."""
    return np.random.default_rng(seed).integers(256, size=(rows, D), dtype=np.uint8)


def labelled(seed: int, rows: int) -> np.ndarray:
    """Return labels that depend on the bytes of the same seed, but not on them alone."""
    rng = np.random.default_rng(seed + 10**6)
    W = np.random.default_rng(0).standard_normal((D, K), dtype=np.float32)
    Z = drawn(seed, rows).astype(np.float32) @ (W * np.float32(0.1 * SCALE))
    return (Z + rng.gumbel(size=Z.shape).astype(np.float32)).argmax(axis=1)


def rows_on_workers(n: int, block: int = BLOCK) -> tuple[da.Array, da.Array]:
    """Return n rows and labels as Dask arrays that nobody has drawn yet."""
    sizes = [min(block, n - start) for start in range(0, n, block)]
    X = [da.from_delayed(dask.delayed(drawn)(i, m), (m, D), np.uint8) for i, m in enumerate(sizes)]
    y = [da.from_delayed(dask.delayed(labelled)(i, m), (m,), np.int64) for i, m in enumerate(sizes)]
    return da.concatenate(X), da.concatenate(y)


def timed(evaluate: Callable[[], object], client: Client | None = None) -> dict[str, float]:
    """Return the seconds of an evaluation, and those in which no worker computed."""
    with get_task_stream(client=client) if client else nullcontext() as stream:
        start = time.perf_counter()
        evaluate()
        seconds = time.perf_counter() - start
    if stream is None:
        return {"seconds": seconds, "overhead": 0.0}
    computing = [
        sum(part["stop"] - part["start"] for part in task["startstops"])
        for task in stream.data
        if task["key"].startswith("run_on_shard")
    ]
    return {"seconds": seconds, "overhead": seconds - max(computing)}


def rounds_of(n: int, rounds: int) -> Times:
    """Time evaluations in turn, once all give the same loss and gradient."""
    X, y = (array.compute(scheduler="synchronous") for array in rows_on_workers(n))
    theta = np.random.default_rng(1).normal(size=(K, D + 1), scale=0.1).astype(np.float32)
    theta = np.asfortranarray(theta)
    with workers(1) as one, workers(2) as two:
        problems: dict[str, FullBatch] = {
            BLAS: FullBatch(X.T, y, L2, scale=SCALE, threads=1),
            THREADS: FullBatch(X.T, y, L2, scale=SCALE, threads=2),
            ONE: cluster.FullBatch(*rows_on_workers(n), L2, one, scale=SCALE),
            TWO: cluster.FullBatch(*rows_on_workers(n), L2, two, scale=SCALE),
        }
        expected = problems[BLAS].loss_and_grad(theta)
        for problem in problems.values():
            found = problem.loss_and_grad(theta)
            np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
            np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-3, atol=1e-6)
        clients = {ONE: one, TWO: two}
        times: Times = {name: [] for name in problems}
        for number in range(rounds + 2):
            for name, problem in problems.items():
                point = timed(partial(problem.loss_and_grad, theta), clients.get(name))
                if number >= 2:
                    times[name].append(point)
    return times


def overheads(rounds: int, counts: Sequence[int]) -> dict[str, list[float]]:
    """Time rounds on tiny shards, one for each thread of two workers."""
    theta = np.zeros((K, D + 1), np.float32, order="F")
    found = {}
    for count in counts:
        with workers(min(count, 2), max(1, count // 2)) as client:
            problem = cluster.FullBatch(*rows_on_workers(count, 1), L2, client, scale=SCALE)
            points = [
                timed(partial(problem.loss_and_grad, theta), client) for _ in range(rounds + 2)
            ]
        found[str(count)] = [point["overhead"] for point in points[2:]]
    return found


def limited_fit(address: str, n: int, limit: int) -> dict[str, float]:
    """Fit n samples on a cluster from a process with limited address space, data included."""
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = time.perf_counter()
    with Client(address) as client:
        problem = cluster.FullBatch(*rows_on_workers(n), L2, client, scale=SCALE)
        ready = time.perf_counter()
        model = nps.SoftmaxRegression(D, K, pixel_scale=SCALE)
        trainer = nps.FullBatchTrainer(model, problem)
        trainer.fit(ITERATIONS)
        return {
            "samples": n,
            "data_bytes": n * D,
            "address_space": measure.memory("VmPeak"),
            "resident": measure.memory("VmHWM"),
            "objective": trainer.history[-1].objective,
            "drawing_seconds": ready - start,
            "fit_seconds": time.perf_counter() - ready,
        }


def driver_memory(quick: bool) -> list[dict[str, float]]:
    """Fit a little and a lot of data under the same limit."""
    largest = LIMIT * TIMES // D + 1
    found = []
    for n in (BLOCK * 2,) if quick else (BLOCK * 2, largest // 10, largest):
        with workers(2) as client:
            call = (limited_fit, client.scheduler.address, n, LIMIT)
            found.append({**measure.in_own_process(*call), "limit": LIMIT})
    return found


def predicted(n: int, num_workers: int, costs: Mapping[str, float]) -> dict[str, float]:
    """Return the cost of an iteration by the model, for the width and classes of Fashion-MNIST."""
    theta = K * (D + 1) * 4
    levels = max(0, math.ceil(math.log(num_workers / FAN_IN, FAN_IN)))
    compute = n / num_workers * costs["per_sample"]
    overhead = costs["fixed"] + num_workers * costs["per_shard"]
    # The scheduler sends theta to all; each sum in the tree receives FAN_IN gradients in turn.
    transfer = (num_workers + (levels + 1) * FAN_IN) * theta / NETWORK
    return {
        "compute": compute,
        "rest": overhead + transfer,
        "seconds": compute + overhead + transfer,
        "bytes": 2 * num_workers * theta,
        "worker_bytes": n / num_workers * D,
    }


def costs_of(
    rounds: Mapping[str, Times], shards: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Return what the model needs: seconds a sample, and the line through the overheads."""
    n, times = max(rounds.items(), key=lambda item: int(item[0]))
    computing = [p["seconds"] - p["overhead"] for p in times[TWO]]
    counts = np.array([int(count) for count in shards])
    medians = np.array([statistics.median(values) for values in shards.values()])
    per_shard, fixed = np.polyfit(counts, medians, 1)
    return {
        "per_sample": statistics.median(computing) / (int(n) / 2),
        "per_shard": float(per_shard),
        "fixed": float(fixed),
    }


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the machine and the tables, by the names of their places in the README."""
    return {
        "scale_out_machine": measure.described(results["machine"]),
        "scale_out_rounds": rounds_table(results["rounds"]),
        "scale_out_shards": shards_table(results["shards"]),
        "scale_out_memory": memory_table(results["memory"]),
        "scale_out_weak": weak_table(results),
        "scale_out_model": model_table(results),
    }


def rounds_table(rounds: Mapping[str, Times]) -> str:
    """Return medians, and ratios within a round to one process with two BLAS threads."""
    rows = []
    for n, times in rounds.items():
        seconds = {name: [point["seconds"] for point in points] for name, points in times.items()}
        for name, row in measure.compared(seconds, BLAS).items():
            overhead = statistics.median(point["overhead"] for point in times[name])
            rows.append(
                [
                    f"{int(n):,}",
                    name,
                    f"{row['median_seconds'] * 1e3:,.1f} ms",
                    measure.middle(row),
                    f"{overhead * 1e3:.1f} ms" if overhead else "-",
                ]
            )
    return measure.markdown(["samples", "", "an evaluation", "relative", "overhead"], rows)


def shards_table(shards: Mapping[str, Sequence[float]]) -> str:
    """Return the overhead of a round for each number of shards."""
    rows = []
    for count, values in shards.items():
        low, middle, high = statistics.quantiles(values, n=4)
        rows.append([count, f"{middle * 1e3:.1f} ms ({low * 1e3:.1f} to {high * 1e3:.1f})"])
    return measure.markdown(["shards", "overhead of a round"], rows)


def memory_table(points: Sequence[Mapping[str, float]]) -> str:
    """Return what the driver took."""
    header = ["samples", "data", "limit", "address space", "resident", "drawing", "5 iterations"]
    return measure.markdown(
        header,
        [
            [
                f"{int(point['samples']):,}",
                *(
                    f"{point[field] / 1e6:,.0f} MB"
                    for field in ("data_bytes", "limit", "address_space", "resident")
                ),
                f"{point['drawing_seconds']:,.0f} s",
                f"{point['fit_seconds']:,.0f} s",
            ]
            for point in points
        ],
    )


def weak_table(results: Mapping[str, Any]) -> str:
    """Return the predicted times with equal samples per worker, relative to one worker."""
    costs = costs_of(results["rounds"], results["shards"])
    largest = max(map(int, results["rounds"]))
    measured = statistics.median(p["seconds"] for p in results["rounds"][str(largest)][TWO])
    alone = predicted(largest // 2, 1, costs)["seconds"]
    rows = []
    for num_workers in WEAK:
        n = largest // 2 * num_workers
        seconds = predicted(n, num_workers, costs)["seconds"]
        rows.append(
            [
                f"{num_workers:,}",
                f"{n:,}",
                f"{seconds:.3f} s",
                f"{measured:.3f} s" if num_workers == 2 else "-",
                f"{alone / seconds:.0%}",
            ]
        )
    return measure.markdown(["workers", "samples", "predicted", "measured", "efficiency"], rows)


def model_table(results: Mapping[str, Any]) -> str:
    """Return what the model predicts."""
    costs = costs_of(results["rounds"], results["shards"])
    rows = []
    for n, num_workers in CASES:
        point = predicted(n, num_workers, costs)
        rows.append(
            [
                f"{n:,}",
                f"{num_workers:,}",
                f"{point['worker_bytes'] / 1e9:,.2f} GB",
                f"{point['bytes'] / 1e6:,.2f} MB",
                f"{point['compute']:,.3f} s",
                f"{point['rest']:,.3f} s",
                f"{point['seconds']:,.2f} s",
                f"{point['seconds'] * EVALUATIONS / 60:,.1f} min",
            ]
        )
    header = [
        "samples",
        "workers",
        "data a worker",
        "sent",
        "computing",
        "the rest",
        "a round",
        "a fit",
    ]
    return measure.markdown(header, rows)


def picture(results: Mapping[str, Any]) -> Any:
    """Draw the time of an evaluation, and the overhead against the number of shards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    n, times = next(iter(results["rounds"].items()))
    for place, points in enumerate(times.values()):
        values = [point["seconds"] * 1e3 for point in points]
        left.plot(values, [place] * len(values), ".", color=f"C{place}")
        left.plot([statistics.median(values)], [place], "|", color="black", markersize=16)
    left.set_yticks(range(len(times)), list(times))
    left.invert_yaxis()
    left.set(xlim=(0, None), xlabel="ms", title=f"an evaluation on {int(n):,} samples")
    counts = [int(count) for count in results["shards"]]
    middles = [statistics.median(values) * 1e3 for values in results["shards"].values()]
    costs = costs_of(results["rounds"], results["shards"])
    right.plot(counts, middles, "o", label="measured, median")
    line = [(costs["fixed"] + costs["per_shard"] * count) * 1e3 for count in counts]
    right.plot(counts, line, color="grey", label="the model's line")
    right.set(xlabel="shards", ylabel="ms", ylim=(0, None), title="overhead of a round")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def main() -> None:
    """Measure, print, save."""
    parser = measure.flags(__doc__, rounds=40)
    arguments = parser.parse_args()
    rounds = 5 if arguments.quick else arguments.rounds
    sizes, counts = (SIZES[:1], (1, 2, 16)) if arguments.quick else (SIZES, SHARDS)
    results = {
        "machine": measure.machine("dask", "distributed"),
        "rounds": {str(n): rounds_of(n, rounds) for n in sizes},
        "shards": overheads(rounds, counts),
        "memory": driver_memory(arguments.quick),
    }
    results["costs"] = costs_of(results["rounds"], results["shards"])
    measure.publish("scale_out", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
