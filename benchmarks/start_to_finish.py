"""Compare time and memory of whole processes: train.py and PyTorch's programs.

Each contestant is a new process with one BLAS thread. The programs train ten epochs on cached data
and compute the test accuracy after each. It must end within 0.02 of train.py's before any time is
reported. Wall time and peak memory (as Linux counts it) are measured in turn, after a warm-up run.

    python benchmarks/start_to_finish.py           # prints both tables, writes results and picture
    python benchmarks/start_to_finish.py --docs    # and puts the tables into benchmarks/README.md
    python benchmarks/start_to_finish.py --quick   # one epoch, round; no warm-up, nothing written

The data are Fashion-MNIST (``NPSOFTMAX_DATA``).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import measure

from npsoftmax.data import datasets

Command = list[str]
Run = dict[str, Any]
Runs = dict[str, list[Run]]

OURS, BARE, SLOW = "scripts/train.py", "scripts/train.py, no matplotlib", "torch, as printed"
TORCH = "import torch"
REFERENCES = {"start_to_finish": TORCH, "imports": "import numpy"}
TOLERANCE = 0.02

# Linux counts the memory of the process that starts another into the other's peak; this one is
# smaller than any that it starts.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
from npsoftmax.commands.train import main
sys.exit(main())
"""


def programs(epochs: int) -> dict[str, Command]:
    """Return the commands of the first table."""
    source = datasets.find("fashion-mnist")
    paths, _ = datasets.acquire(source, source.files)
    data = paths["train-images"].resolve().parent.parent
    unpacked = datasets.cache_folder().resolve() / "unpacked" / source.name
    scripts, peers = measure.ROOT / "scripts", Path(__file__).with_name("start_to_finish_peers.py")
    flags = ["--data-dir", str(data), "--run-dir", ".", "--quiet", "--epochs", str(epochs)]
    peer = [sys.executable, str(peers), str(unpacked), str(epochs)]
    return {
        OURS: [sys.executable, str(scripts / "train.py"), *flags],
        BARE: [*python(WITHOUT_MATPLOTLIB), *flags],
        TORCH: python(TORCH),
        "torch, concise": [*peer, "concise"],
        SLOW: [*peer, "as_printed"],
    }


def imports() -> dict[str, Command]:
    """Return the commands of the second table."""
    codes = ("import numpy", "import npsoftmax", "from npsoftmax import *")
    return {code: python(code) for code in codes}


def python(code: str) -> Command:
    """Return the command that runs a piece of Python."""
    return [sys.executable, "-c", code]


def run(command: Command, env: Mapping[str, str]) -> Run:
    """Run a process in an empty folder; return its seconds, peak MB and, if any, its accuracy."""
    launcher = [sys.executable, "-IS", "-c", LAUNCHER, *command]
    with tempfile.TemporaryDirectory() as folder:
        launched = subprocess.run(launcher, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        if launched.returncode:
            raise SystemExit(f"exit code {launched.returncode}: {' '.join(command)}")
        summary = Path(folder, "summary.json")
        accuracy = json.loads(summary.read_text())["test_acc"] if summary.exists() else None
    seconds, peak_kib = map(float, launched.stdout.split())
    return {"seconds": seconds, "peak_mb": peak_kib * 1024 / 1e6, "test_acc": accuracy}


def in_turn(commands: Mapping[str, Command], rounds: int, env: Mapping[str, str]) -> Runs:
    """Return the runs of each contestant; the slow one has a run in the first round only."""
    runs: Runs = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            if name != SLOW or number == 0:
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
                runs[name].append(run(command, env))
    return runs


def refuse_unequal(runs: Runs) -> None:
    """Stop unless every program ends with train.py's test accuracy."""
    expected = runs[OURS][0]["test_acc"]
    for name in runs.keys() - {TORCH}:
        for accuracy in (turn["test_acc"] for turn in runs[name]):
            if abs(accuracy - expected) > TOLERANCE:
                raise SystemExit(f"{name}: expected accuracy {expected:.4f}, got {accuracy:.4f}")


def measured(quick: bool, rounds: int) -> dict[str, Runs]:
    """Return all runs by table and contestant; one epoch of each program warms the caches."""
    commands = {"start_to_finish": programs(1 if quick else 10), "imports": imports()}
    env = dict(os.environ)
    with tempfile.TemporaryDirectory() as bytecode:
        if quick:
            del commands["start_to_finish"][SLOW]
        else:
            # Installed packages have their bytecode; the warm-up writes it, and leaves no trace.
            env.pop("PYTHONDONTWRITEBYTECODE", None)
            env["PYTHONPYCACHEPREFIX"] = bytecode
            print("warm-up", file=sys.stderr)
            in_turn(programs(1) | imports(), 1, env)
        runs = {name: in_turn(group, rounds, env) for name, group in commands.items()}
    refuse_unequal(runs["start_to_finish"])
    return runs


def table_of(runs: Runs, reference: str) -> str:
    """Return milliseconds, ratios to the reference and megabytes; a single run has no quartiles."""
    times = {name: [turn["seconds"] for turn in turns] for name, turns in runs.items()}
    repeated = {name: values for name, values in times.items() if len(values) > 1}
    compared = measure.compared(repeated, reference) if repeated else {}
    rows = []
    for name, turns in runs.items():
        if name in compared:
            ratio = measure.middle(compared[name])
        else:
            ratio = f"{times[name][0] / times[reference][0]:.2f} (one run)"
        peak = statistics.median(turn["peak_mb"] for turn in turns)
        rows.append([name, f"{statistics.median(times[name]) * 1e3:.0f}", ratio, f"{peak:.0f}"])
    return measure.markdown(["process", "wall ms", f"ratio to {reference}", "peak MB"], rows)


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    found = {name: table_of(results[name], reference) for name, reference in REFERENCES.items()}
    return {"start_to_finish_machine": measure.described(results["machine"]), **found}


def picture(results: Mapping[str, Any]) -> Any:
    """Draw the first table as bars, on a logarithmic axis: the slow program is far out."""
    from matplotlib.figure import Figure

    runs = results["start_to_finish"]
    seconds = [statistics.median(turn["seconds"] for turn in turns) for turns in runs.values()]
    peaks = [statistics.median(turn["peak_mb"] for turn in turns) for turns in runs.values()]
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    colours = ["C0" if name in (OURS, BARE) else "C7" for name in runs]
    bars = axes.barh(list(runs), seconds, color=colours)
    labels = [f"{s:.1f} s, {peak:.0f} MB" for s, peak in zip(seconds, peaks, strict=True)]
    axes.bar_label(bars, labels, padding=4)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(seconds) / 4, max(seconds) * 8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("wall time of the whole process in seconds")
    return figure


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=7).parse_args()
    measure.threads(1)
    runs = measured(arguments.quick, 1 if arguments.quick else arguments.rounds)
    results = {"machine": measure.machine("torch"), **runs}
    measure.publish("start_to_finish", results, tables(results), picture, arguments)


if __name__ == "__main__":
    main()
