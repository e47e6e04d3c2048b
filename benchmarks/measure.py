"""Shared parts of the benchmarks: flags, timing in turn, the machine, results, tables, bar charts.

Machines are shared and change their clock speed. So the contestants run in turn, A B C A B C, and
only ratios within the same round are compared.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def flags(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of the flags of all benchmarks, described by the first line of ``doc``."""
    parser = argparse.ArgumentParser(description=str(doc).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run, nothing written")
    parser.add_argument("--docs", action="store_true", help="put the tables where they are shown")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    return parser


def publish(
    name: str,
    results: Mapping[str, Any],
    tables: Mapping[str, str],
    picture: Callable[[Any], Any] | None,
    arguments: argparse.Namespace,
    page: Path = ROOT / "benchmarks" / "README.md",
) -> None:
    """Print tables; unless quick, write results and a picture; with --docs, fill in the page."""
    print("\n\n".join(tables.values()))
    if arguments.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    stored, drawn = (RESULTS / f"{name}.{kind}" for kind in ("json", "png"))
    stored.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten: {stored.relative_to(ROOT)}")
    if picture is not None:
        picture(results).savefig(drawn, dpi=100)
        print(f"written: {drawn.relative_to(ROOT)}")
    if arguments.docs:
        for mark, table in tables.items():
            insert(page, mark, table)


def threads(count: int) -> None:
    """Limit BLAS and OpenMP to a number of threads; call it before NumPy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(count)


def in_own_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Return ``function(*arguments)`` from a fresh interpreter, which ends with the call."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def in_turn(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    seconds: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant in each round.

    A turn repeats the call until it lasts about ``seconds``; a call before it warms the caches.
    With ``time.process_time`` as the clock, what other processes do counts for less.
    """

    def seconds_of(call: Callable[[], object], repeats: int = 1) -> float:
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats

    repeats = {}
    for name, call in contestants.items():
        call()
        repeats[name] = max(1, round(seconds / max(seconds_of(call), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            call()
            times[name].append(seconds_of(call, repeats[name]))
    return times


def compared(times: Mapping[str, Sequence[float]], reference: str) -> dict[str, dict[str, float]]:
    """Return each contestant's median seconds and its ratio to the reference, with quartiles."""
    table = {}
    for name, values in times.items():
        ratios = [v / r for v, r in zip(values, times[reference], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        table[name] = {
            "median_seconds": statistics.median(values),
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
        }
    return table


def middle(row: Mapping[str, float], form: str = ".2f") -> str:
    """Return a ratio and its quartiles as text."""
    return f"{row['ratio']:{form}} ({row['ratio_low']:{form}} to {row['ratio_high']:{form}})"


def machine(*packages: str) -> dict[str, str]:
    """Return a description of the machine, with the versions of ``packages``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{model}, {os.cpu_count()} cores, {simd_level()}",
        "BLAS kernel": blas_kernel(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("numpy", *packages)},
    }


def described(machine: Mapping[str, str]) -> str:
    """Return a machine as one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def simd_level() -> str:
    """Return the widest vector instructions that NumPy has found."""
    from numpy._core._multiarray_umath import __cpu_features__ as found

    names = ("AVX512F", "AVX2", "ASIMD")
    return next((name for name in names if found.get(name)), "no wide SIMD")


def blas_kernel() -> str:
    """Return NumPy's BLAS, and the processor type that its kernels are for.

    OpenBLAS takes another type from ``OPENBLAS_CORETYPE``.
    """
    from npsoftmax._threads import numpys_blas

    blas = numpys_blas()
    return " ".join(str(blas.get(name)) for name in ("internal_api", "version", "architecture"))


def memory(field: str) -> int:
    """Return bytes from /proc/self/status: the peak of getrusage begins at that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def load(name: str) -> Any:
    """Return the raw results of ``benchmarks/results/<name>.json``."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bars(groups: Mapping[str, Mapping[str, float]], title: str, unit: str) -> Any:
    """Draw values as horizontal bars, one group a panel, and return the figure."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    colours = {name: f"C{number}" for number, name in enumerate(names)}
    figure = Figure(figsize=(8, 0.8 + 0.26 * sum(len(g) + 1 for g in groups.values())))
    figure.set_layout_engine("constrained")
    heights = [len(group) for group in groups.values()]
    panels = figure.subplots(len(groups), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, (label, group) in zip(panels[:, 0], groups.items(), strict=True):
        drawn = axes.barh(list(group), list(group.values()), color=[colours[n] for n in group])
        axes.bar_label(
            drawn, [f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in group.values()], padding=3
        )
        axes.invert_yaxis()
        axes.set_title(label, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.1)
    panels[-1, 0].set_xlabel(unit)
    figure.suptitle(title)
    return figure


def insert(document: Path, name: str, text: str) -> None:
    """Put ``text`` between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a document."""
    before, _, rest = document.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise SystemExit(f"{document}: expected the lines <!-- {name} --> and <!-- /{name} -->")
    document.write_text(f"{before}<!-- {name} -->\n{text}\n{end}{after}")
