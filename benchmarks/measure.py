"""What the benchmarks share: timing in turn, the machine, results on disk, tables.

Machines are shared and change their clock, so contestants run in turn, A B C A B C, and what is
compared is each round's ratio to the reference of the same round.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def threads(count: int) -> None:
    """Hold BLAS and OpenMP to so many threads; call it before NumPy loads."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(count)


def in_turn(
    contestants: Mapping[str, Callable[[], object]], rounds: int = 15, seconds: float = 0.02
) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant in each round.

    A turn repeats the call until it lasts about ``seconds``; a call before it warms the caches.
    """
    repeats = {}
    for name, call in contestants.items():
        call()
        repeats[name] = max(1, round(seconds / max(_seconds(call, 1), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            call()
            times[name].append(_seconds(call, repeats[name]))
    return times


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


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


def machine(*packages: str) -> dict[str, str]:
    """Return what a reader needs to know of the machine, with the versions of ``packages``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{model}, {os.cpu_count()} cores, {simd_level()}",
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


def save(name: str, results: Mapping[str, Any]) -> Path:
    """Write raw results to ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def load(name: str) -> Any:
    """Return the raw results of ``benchmarks/results/<name>.json``."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def insert(document: Path, name: str, text: str) -> None:
    """Put ``text`` between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a document."""
    before, _, rest = document.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise SystemExit(f"{document}: expected the lines <!-- {name} --> and <!-- /{name} -->")
    document.write_text(f"{before}<!-- {name} -->\n{text}\n{end}{after}")
