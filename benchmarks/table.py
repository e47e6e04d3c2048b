"""Measure a table from CSV to predictions: the commands, and scikit-learn's pipeline in Python.

Each contestant reads a CSV table of 50,000 rows with named columns, drawn like a census,
standardises the columns, fits with the same penalty, tells its accuracy on a second table, and
writes the classes and probabilities of all its rows as CSV. Processes are measured whole, one after
the other; the probabilities are compared first.

    python benchmarks/table.py             # prints the table, writes results
    python benchmarks/table.py --docs      # and puts the table into benchmarks/README.md
    python benchmarks/table.py --quick     # 2,000 rows, nothing written
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np

ROWS, L2 = 50_000, 1e-4
SCRIPTS = measure.ROOT / "scripts"
OURS, ONE, TWO = (
    "train.py and predict.py",
    "scikit-learn, one process",
    "scikit-learn, two processes",
)
SAME = 5e-3  # the largest difference of probabilities

FIT = f"""
import pandas
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
table, test = pandas.read_csv("census.csv"), pandas.read_csv("new.csv")
X, y = table.drop(columns="income"), table["income"]
model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / ({L2} * len(y))))
model.fit(X, y)
print(model.score(test.drop(columns="income"), test["income"]))
"""
PREDICT = """
P = model.predict_proba(test.drop(columns="income"))
found = pandas.DataFrame(P, columns=model.classes_)
found.insert(0, "class", model.classes_[P.argmax(axis=1)])
found.to_csv("found.csv", index=False)
"""
STORE = "import joblib\njoblib.dump(model, 'model.joblib')\n"
LOAD = (
    "import joblib, pandas\nmodel, test = joblib.load('model.joblib'), pandas.read_csv('new.csv')\n"
)

PROGRAMS: dict[str, list[list[str]]] = {
    OURS: [
        [str(SCRIPTS / "train.py"), "--data", "census.csv", "--label", "income", "--test",
         "new.csv", "--l2", str(L2), "--run-dir", "run", "--force"],
        [str(SCRIPTS / "predict.py"), "run", "new.csv"],
    ],
    ONE: [["-c", FIT + PREDICT]],
    TWO: [["-c", FIT + STORE], ["-c", LOAD + PREDICT]],
}  # fmt: skip


def draw(path: Path, rows: int, seed: int) -> None:
    """Write a table like a census: fourteen columns of other units, and an income with noise."""
    rng = np.random.default_rng(seed)
    age = rng.integers(17, 90, rows)
    school, hours = rng.integers(1, 17, rows), rng.integers(1, 99, rows)
    gain = np.where(rng.random(rows) < 0.08, rng.lognormal(8, 1, rows), 0).round()
    columns = {
        "age": age, "school_years": school, "hours": hours, "gain": gain,
        "weight": rng.lognormal(12, 0.5, rows).round(),
        **{f"works_{kind}": rng.integers(0, 2, rows) for kind in ("private", "state", "self")},
        **{f"is_{kind}": rng.integers(0, 2, rows) for kind in ("married", "male", "native")},
        **{f"score_{number}": rng.normal(size=rows).round(4) for number in range(3)},
    }  # fmt: skip
    z = 0.04 * (age - 45) + 0.4 * (school - 11) + 0.03 * (hours - 50) + 3e-4 * gain
    z += 1.5 * columns["is_married"] + 0.5 * columns["is_male"] - 1.5
    columns["income"] = np.where(z + rng.logistic(size=rows) > 0, ">50K", "<=50K")
    lines = [
        ",".join(columns),
        *map(",".join, zip(*(map(str, c) for c in columns.values()), strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")


def run(commands: Sequence[Sequence[str]], folder: Path) -> dict[str, float]:
    """Run processes one after the other; return their wall and CPU seconds."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    for number, command in enumerate(commands):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True
        )
        if number and done.stdout:
            (folder / "found.csv").write_text(done.stdout)
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def cpu_seconds() -> float:
    """Return the CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def refuse_unequal(found: Mapping[str, Any]) -> None:
    """Stop unless all programs give the same probabilities."""
    for name, probabilities in found.items():
        difference = abs(probabilities - found[OURS]).max()
        if difference > SAME:
            raise SystemExit(f"{name}: expected the probabilities of {OURS}, got {difference:.1e}")


def measured(rows: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return the seconds of each program in each round, after one that compares the answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "census.csv", rows, 0)
        draw(folder / "new.csv", rows, 1)
        found = {}
        for program, commands in PROGRAMS.items():
            run(commands, folder)
            numbers = np.loadtxt(folder / "found.csv", delimiter=",", skiprows=1, usecols=(1, 2))
            found[program] = numbers
        refuse_unequal(found)
        times: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
        for _ in range(rounds):
            for program, commands in PROGRAMS.items():
                times[program].append(run(commands, folder))
    return times


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the page of benchmarks by name."""
    times = results["times"]
    rows = []
    for program, turns in times.items():
        wall, cpu = (statistics.median(turn[kind] for turn in turns) for kind in ("wall", "cpu"))
        ratios = [turn["cpu"] / ours["cpu"] for turn, ours in zip(turns, times[OURS], strict=True)]
        rows.append([program, f"{wall:.1f}", f"{cpu:.1f}", f"{statistics.median(ratios):.2f}"])
    header = ["program", "wall s", "CPU s", f"CPU time, ratio to {OURS}"]
    return {
        "table_machine": measure.described(results["machine"]),
        "table": measure.markdown(header, rows),
    }


def main() -> None:
    """Measure, print, save."""
    arguments = measure.flags(__doc__, rounds=5).parse_args()
    times = measured(2_000 if arguments.quick else ROWS, 1 if arguments.quick else arguments.rounds)
    machine = measure.machine("scikit-learn", "pandas", "polars")
    measure.publish(
        "table",
        {"machine": machine, "times": times},
        tables({"machine": machine, "times": times}),
        None,
        arguments,
    )


if __name__ == "__main__":
    main()
