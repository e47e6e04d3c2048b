"""Compare the time and memory of fits on wide half floats with scikit-learn's L-BFGS.

60,000 samples of 4,096 float16 are drawn around class centres, from 256 factors and noise. Each
contestant minimises the same objective from zeros, in a process of its own, until it is within 1e-3
of the smallest value that npsoftmax finds; the checks of its input count. Memory is the largest
resident set above that with the samples. scikit-learn gets float32, as its fastest dtype.

    python benchmarks/wide.py            # prints the table, writes results
    python benchmarks/wide.py --docs     # and puts the table into benchmarks/README.md
    python benchmarks/wide.py --quick    # 6,000 samples, nothing written
"""

import time
from pathlib import Path
from typing import Any

import measure
import numpy as np

FEATURES, FACTORS, L2, GAP = 4096, 256, 1e-4, 1e-3
CLASSES = (10, 100)


def draw(samples: int, classes: int) -> tuple[Any, Any]:
    """Return samples as rows of float16, and labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, samples)
    sizes = np.arange(1, FACTORS + 1, dtype=np.float32)[:, None] ** -0.5
    mixture = rng.standard_normal((FACTORS, FEATURES), np.float32) * sizes
    mixture /= 64 * np.sqrt(np.square(mixture).sum(axis=0).mean())
    centres = rng.standard_normal((classes, FACTORS), np.float32) / 2
    X = np.empty((samples, FEATURES), np.float16)
    for start in range(0, samples, 2000):
        labels = y[start : start + 2000]
        factors = centres[labels] + rng.standard_normal((labels.size, FACTORS), np.float32)
        noise = rng.standard_normal((labels.size, FEATURES), np.float32) / 128
        X[start : start + 2000] = factors @ mixture + noise
    return X, y


class Clock:
    """Seconds of all threads and by the wall, and memory, since it was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        self.memory = measure.memory("VmRSS")
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return what was used so far."""
        return {
            "cpu": time.process_time() - self.cpu,
            "wall": time.perf_counter() - self.wall,
            "memory": measure.memory("VmHWM") - self.memory,
        }


def run_npsoftmax(samples: int, classes: int, target: float) -> dict[str, float]:
    """Fit until the objective is at most ``target``, and return what it took."""
    import npsoftmax as nps

    X, y = draw(samples, classes)
    clock = Clock()
    problem = nps.objective.FullBatch(X.T, y, L2)
    trainer = nps.FullBatchTrainer(nps.SoftmaxRegression(FEATURES, classes), problem)
    for record in trainer.run():
        if record.objective <= target:
            break
    return {**clock.read(), "objective": record.objective}


def run_sklearn(samples: int, classes: int, target: float) -> dict[str, float]:
    """Do the same with scikit-learn, through the callback of SciPy's minimiser."""
    from sklearn.linear_model import LogisticRegression, _logistic

    X, y = draw(samples, classes)
    X = X.astype(np.float32)
    found: dict[str, float] = {}

    def stop(intermediate_result: Any) -> None:
        found.update(clock.read(), objective=float(intermediate_result.fun))
        if intermediate_result.fun <= target:
            raise StopIteration

    minimise = _logistic.optimize.minimize
    _logistic.optimize.minimize = lambda *given, **named: minimise(
        *given, **{**named, "callback": stop}
    )
    clock = Clock()
    LogisticRegression(C=1 / (L2 * samples), tol=1e-9, max_iter=500).fit(X, y)
    return found


CONTESTANTS = {"npsoftmax": run_npsoftmax, "scikit-learn lbfgs": run_sklearn}


def contest(samples: int, rounds: int) -> dict[str, list[Any]]:
    """Return each contestant's figures for each number of classes and round."""
    results: dict[str, list[Any]] = {}
    for classes in CLASSES:
        best = measure.in_own_process(run_npsoftmax, samples, classes, 0.0)["objective"]
        for _ in range(rounds):
            for name, run in CONTESTANTS.items():
                found = measure.in_own_process(run, samples, classes, best + GAP)
                results.setdefault(f"{name}, {classes} classes", []).append(found)
                print(name, classes, {key: round(value, 4) for key, value in found.items()})
    return results


def table(results: dict[str, list[Any]]) -> str:
    """Return the medians as a table."""
    rows = []
    for name, found in results.items():
        cpu, wall, memory = (
            float(np.median([each[key] for each in found])) for key in ("cpu", "wall", "memory")
        )
        rows.append([name, f"{cpu:.1f} s", f"{wall:.1f} s", f"{memory / 1e6:,.0f} MB"])
    return measure.markdown(["contestant", "CPU time", "wall time", "memory beside X"], rows)


def main() -> None:
    """Run the contest, and publish it."""
    arguments = measure.flags(__doc__, rounds=3).parse_args()
    samples, rounds = (6_000, 1) if arguments.quick else (60_000, arguments.rounds)
    results = contest(samples, rounds)
    stored = {"machine": measure.machine("scikit-learn"), "results": results}
    measure.publish("wide", stored, {"wide": table(results)}, None, arguments)


if __name__ == "__main__":
    main()
