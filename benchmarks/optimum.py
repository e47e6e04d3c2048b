"""Time each solver of softmax regression with an L2 penalty to the optimum.

The objective is mean cross-entropy + l2/2 ||W||^2, without a penalty on the bias, l2 = 1e-4, from
scratch, with two threads on two cores. Measured is the time to come within a relative 1e-2, 1e-3
and 1e-4 of the smallest value. npsoftmax finds that value in float64 beforehand, with a proven
bound on its error.

    python benchmarks/optimum.py             # prints the tables, writes results and picture
    python benchmarks/optimum.py --docs      # and puts the tables into benchmarks/README.md
    python benchmarks/optimum.py --quick     # two small problems, nothing written

The data are Fashion-MNIST (``NPSOFTMAX_DATA``) and samples drawn from a softmax model; with
``--quick`` no data set is needed. scikit-learn-intelex takes part if it is installed. Linux
only, to pin a process to its cores.
"""

import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from time import perf_counter
from typing import Any

import measure

measure.threads(2)

from optimum_peers import (
    CONTESTANTS,
    INSTALLED,
    INTELEX,
    LBFGS,
    NEWTON,
    OURS,
    POOLS,
    PROBLEMS,
    QUICK,
    THREADS,
    Problem,
    Solve,
    limited,
    quickest_threads,
)

import npsoftmax as nps

LEVELS = (1e-2, 1e-3, 1e-4)
IN_TURN = 1e-3
TOLERANCE = 1e-5  # of what a solver says of its objective
MOST_ITERATIONS = 100_000

Point = tuple[int, float, float]  # iterations, seconds, objective
Trace = dict[str, Any]
Call = Callable[..., Any]


class Stopwatch:
    """Record the points of a run, and stop it when it is close enough or too late."""

    def __init__(self, target: float, limit: float) -> None:
        self.target, self.limit = target, limit
        self.points: list[Point] = []
        self.start = perf_counter()

    def __call__(self, iterations: int, objective: float) -> bool:
        """Take down a point; True ends the run."""
        seconds = perf_counter() - self.start
        self.points.append((iterations, seconds, objective))
        return objective <= self.target or seconds > self.limit


def best_of(problem: Problem) -> dict[str, float]:
    """Return the smallest objective that npsoftmax finds in float64, and a bound on its error."""
    data = problem.data()
    X, y, k, _, l2 = data
    model = nps.SoftmaxRegression(X.shape[0], k, dtype="float64", pixel_scale=data.pixel_scale)
    found = nps.fit(model, X, y, l2=l2, tol=1e-10, max_iterations=3000)
    if not found.suboptimality < 1e-3 * min(LEVELS) * found.objective:
        raise SystemExit(f"{problem.title}: expected the optimum, got: {found}")
    return {"objective": found.objective, "suboptimality": found.suboptimality}


def traced(problem: Problem, name: str, best: Mapping[str, float]) -> Trace:
    """Return the points of a contestant until it is within all levels, or its time is up."""
    data = problem.data()
    solve, evaluate = CONTESTANTS[name](data), data.objective()
    targets = [best["objective"] * (1 + level) for level in LEVELS]
    solve(1)
    threads = quickest_threads(name, solve) if name in POOLS else THREADS
    with limited(name, threads):
        if name == NEWTON:
            points = searched(refitted(solve, evaluate), targets, problem.limit)
        else:
            stopwatch = Stopwatch(min(targets), problem.limit)
            theta = solve(MOST_ITERATIONS, stopwatch)
            points = stopwatch.points
            refuse_wrong_claim(f"{problem.title}, {name}", points[-1][2], evaluate(theta))
    return {"threads": threads, "points": points}


def refitted(solve: Solve, evaluate: Callable[[Any], float]) -> Callable[[int], Point]:
    """Return a timed solve from scratch in a number of iterations; it evaluates off the clock."""

    def fit(iterations: int) -> Point:
        start = perf_counter()
        theta = solve(iterations)
        return iterations, perf_counter() - start, evaluate(theta)

    return fit


def searched(fit: Callable[[int], Point], targets: Sequence[float], limit: float) -> list[Point]:
    """Fit with more and more iterations; find the smallest number for each target, within 10 %."""
    points: dict[int, Point] = {}
    for iterations in (2**power for power in range(10)):
        points[iterations] = fit(iterations)
        _, seconds, objective = points[iterations]
        if objective <= min(targets) or 2 * seconds > limit:
            break
    for target in targets:
        enough = [number for number, point in points.items() if point[2] <= target]
        if not enough:
            continue
        high = min(enough)
        low = max((number for number in points if number < high), default=0)
        while high - low > max(1, low // 10):
            middle = (low + high) // 2
            points[middle] = fit(middle)
            low, high = (low, middle) if points[middle][2] <= target else (middle, high)
    return [points[number] for number in sorted(points)]


def refuse_wrong_claim(label: str, claimed: float, found: float) -> None:
    """Stop unless the objective that a solver reports is that of its parameters."""
    if not math.isclose(claimed, found, rel_tol=TOLERANCE):
        raise SystemExit(f"{label}: it reports {claimed}, its parameters have {found}")


def reached(trace: Trace | None, target: float) -> Point | None:
    """Return the earliest point within a target, or None; fits from scratch are not ordered."""
    points = [] if trace is None else trace["points"]
    within = [point for point in points if point[2] <= target]
    return min(within, key=lambda point: point[1], default=None)


def timed(problem: Problem, name: str, iterations: int, threads: int, target: float) -> float:
    """Return the seconds of a number of iterations from scratch, without callbacks."""
    data = problem.data()
    solve = CONTESTANTS[name](data)
    solve(1)
    with limited(name, threads):
        _, seconds, objective = refitted(solve, data.objective())(iterations)
    if objective > target * (1 + TOLERANCE):
        raise SystemExit(f"{problem.title}, {name}: expected {target}, got {objective}")
    return seconds


def in_turn(
    problem: Problem, traces: Mapping[str, Trace | None], best: float, rounds: int, call: Call
) -> dict[str, list[float]]:
    """Return seconds to 1e-3 by round: npsoftmax, scikit-learn's quicker solver, and Intel's."""
    target = best * (1 + IN_TURN)
    ends = {name: reached(traces[name], target) for name in (OURS, LBFGS, NEWTON, INTELEX)}
    seconds = {name: math.inf if end is None else end[1] for name, end in ends.items()}
    names = [OURS, min((LBFGS, NEWTON), key=seconds.__getitem__), INTELEX]
    times: dict[str, list[float]] = {name: [] for name in names if ends[name] is not None}
    if OURS not in times:
        return {}
    for number in range(rounds):
        for name, values in times.items():
            print(f"{problem.title}, round {number + 1} of {rounds}: {name}", file=sys.stderr)
            settings = ends[name][0], traces[name]["threads"]
            values.append(call(timed, problem, name, *settings, target))
    return times


def measured(problems: Sequence[Problem], rounds: int, call: Call) -> dict[str, Any]:
    """Return by problem the best objective known, all traces, and the times in turn.

    ``call(function, *arguments)`` calls a function, in a process of its own or in this one.
    """
    results = {}
    for problem in problems:
        print(f"{problem.title}: the best objective", file=sys.stderr)
        best = measure.in_own_process(best_of, problem)
        traces: dict[str, Trace | None] = dict.fromkeys(CONTESTANTS)
        for name in INSTALLED:
            print(f"{problem.title}: {name}", file=sys.stderr)
            traces[name] = call(traced, problem, name, best)
        times = in_turn(problem, traces, best["objective"], rounds if problem.repeated else 0, call)
        results[problem.title] = {"best": best, "traces": traces, "in_turn": times}
    return results


def table_of(result: Mapping[str, Any]) -> str:
    """Return the seconds of each contestant to each level, and its ratio to npsoftmax at 1e-3."""
    best, traces = result["best"]["objective"], result["traces"]
    reference = reached(traces[OURS], best * (1 + IN_TURN))
    rows = []
    for name, trace in traces.items():
        if trace is None:
            rows.append([name, "not installed", *["-"] * len(LEVELS)])
            continue
        cells = []
        for level in LEVELS:
            end = reached(trace, best * (1 + level))
            cells.append(f"{end[1]:.3g}" if end else f"not in {trace['points'][-1][1]:.3g} s")
        end = reached(trace, best * (1 + IN_TURN))
        ratio = f"{end[1] / reference[1]:.2g}" if end and reference else "-"
        rows.append([name, *cells, ratio])
    levels = [f"seconds to {level:.0e}" for level in LEVELS]
    return measure.markdown(["", *levels, f"ratio at {IN_TURN:.0e}"], rows)


def tables_of_problems(problems: Mapping[str, Any]) -> str:
    """Return a table for each problem below its name and its optimum."""
    parts = []
    for title, result in problems.items():
        best = result["best"]
        bound = f"{best['objective']:.8f}, of which at most {best['suboptimality']:.0e} is missing"
        parts.append(f"**{title}**; the objective's smallest value: {bound}\n\n{table_of(result)}")
    return "\n\n".join(parts)


def table_in_turn(problems: Mapping[str, Any]) -> str:
    """Return the median of the seconds, and the ratios to npsoftmax within each round."""
    rows = []
    for title, result in problems.items():
        times = result["in_turn"]
        for name, values in times.items():
            if values:
                ratios = [v / r for v, r in zip(values, times[OURS], strict=True)]
                each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                middle = f"{statistics.median(ratios):.2f}"
                rows.append([title, name, f"{statistics.median(values):.3g}", middle, each])
    header = ["problem", "", f"seconds to {IN_TURN:.0e}", "ratio to npsoftmax", "in each round"]
    return measure.markdown(header, rows)


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    return {
        "optimum_machine": measure.described(results["machine"]),
        "optimum_in_turn": table_in_turn(results["problems"]),
        "optimum": tables_of_problems(results["problems"]),
    }


def picture(results: Mapping[str, Any]) -> Any:
    """Plot the distance of each contestant's best point from the optimum against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), layout="constrained")
    problems = results["problems"]
    panels = figure.subplots(-(-len(problems) // 3), 3, sharey=True, squeeze=False)
    for axes, (title, result) in zip(panels.flat, problems.items(), strict=False):
        for number, (name, trace) in enumerate(result["traces"].items()):
            if trace is not None:
                _, seconds, objectives = zip(*trace["points"], strict=True)
                smallest = result["best"]["objective"]
                above = [value / smallest - 1 for value in accumulate(objectives, min)]
                width = 2.5 if name == OURS else 1.2
                marker = "o" if name == NEWTON else None
                axes.loglog(seconds, above, f"C{number}", lw=width, marker=marker, ms=3, label=name)
        for level in LEVELS:
            axes.axhline(level, color="0.8", lw=0.8, zorder=0)
        axes.set_title(title, fontsize="medium")
        axes.set_ylim(min(LEVELS) / 2, 5)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("objective / smallest - 1")
    for axes in panels[-1]:
        axes.set_xlabel("seconds")
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=3).parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if arguments.quick:  # in one process, for imports would take most of the time
        problems = measured(QUICK, 1, lambda function, *given: function(*given))
    else:
        problems = measured(PROBLEMS, arguments.rounds, measure.in_own_process)
    packages = ["scipy", "scikit-learn", "torch"]
    packages += ["scikit-learn-intelex"] if INTELEX in INSTALLED else []
    results = {"machine": measure.machine(*packages), "problems": problems}
    measure.publish("optimum", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
