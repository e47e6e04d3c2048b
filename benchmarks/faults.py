"""Outcomes of injected faults: downloads, data files, models, checkpoints and crashes.

Runs the tests that inject the faults, the slow ones included, and tabulates the outcomes that
they record with ``record_property``. Nothing is written unless all tests pass.

    python benchmarks/faults.py            # prints the tables, writes results/faults.json
    python benchmarks/faults.py --docs     # also updates results/faults.md
    python benchmarks/faults.py --quick    # the quick half, nothing written
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import measure

TESTS = {
    "downloads": ("tests/test_download_faults.py", "tests/test_download_kills.py"),
    "data files": ("tests/test_data_idx_fuzz.py",),
    "models and checkpoints": ("tests/test_hostile_files.py",),
    "crashes": ("tests/test_crashes.py",),
}
COUNTED = {"kills": "kills", "inputs": "hostile inputs, errors", "bytes_lost": "bytes lost"}


def observed(quick: bool) -> list[dict[str, Any]]:
    """Return the records of the tests of all parts, one row each."""
    # In parallel: most failing downloads only wait.
    with ThreadPoolExecutor(len(TESTS)) as executor:
        parts = executor.map(partial(observed_in, quick=quick), TESTS)
        return [row for part in parts for row in part]


def observed_in(part: str, quick: bool) -> list[dict[str, Any]]:
    """Run the tests of a part and return their records; exit if a test fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
        command += ["-m", "not slow" if quick else "slow or not slow", f"--junitxml={report}"]
        done = subprocess.run(
            [*command, *TESTS[part]], cwd=measure.ROOT, capture_output=True, text=True, check=False
        )
        print(f"{part}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nexpected every fault to end as it should")
        return rows(part, ElementTree.parse(report).getroot(), quick)


def rows(part: str, report: ElementTree.Element, quick: bool) -> list[dict[str, Any]]:
    """Return the records of faults; quick variants of slow tests count only if ``quick``."""
    found = []
    for case in report.iter("testcase"):
        properties = {p.get("name"): p.get("value") for p in case.iter("property")}
        if "fault" in properties and (quick or "quick" not in str(case.get("name"))):
            found.append(
                {"part": part, **properties, "happened": without_folders(properties["happened"])}
            )
    return found


def without_folders(text: str | None) -> str:
    """Return an outcome without the temporary folders of the tests."""
    return re.sub(r"/\S*pytest-of-\S*/", "", str(text))


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of ``results/faults.md`` by name."""
    found = results["faults"]
    return {
        "faults machine": measure.described(results["machine"]),
        "faults counts": counts(found),
        **{f"faults in {part}": table([r for r in found if r["part"] == part]) for part in TESTS},
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return one line per fault, with the outcomes of library and command in one cell."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in found:
        key = row["id"], row["fault"], row["expected"]
        seen = row["happened"].replace("|", "\\|")
        lines.setdefault(key, []).append(f"{row['way']}: {seen}" if "way" in row else seen)
    cells = [[*key, "; ".join(dict.fromkeys(seen))] for key, seen in lines.items()]
    return measure.markdown(["", "fault", "expected", "what happened"], cells)


def counts(found: Sequence[dict[str, Any]]) -> str:
    """Return the numbers of faults in each part; a dash means not counted."""
    lines = []
    for part in TESTS:
        mine = [row for row in found if row["part"] == part]
        lines.append([part, str(len({row["id"] for row in mine})), str(len(mine))])
        for name in COUNTED:
            numbers = [int(row[name]) for row in mine if name in row]
            lines[-1].append(f"{sum(numbers):,}" if numbers else "-")
    header = ["", "kinds of fault", "times injected", *COUNTED.values()]
    return measure.markdown(header, lines)


def main() -> None:
    """Inject the faults, print the tables and save the results."""
    arguments = measure.flags(__doc__, rounds=1).parse_args()
    results = {
        "machine": measure.machine("requests", "urllib3"),
        "faults": observed(arguments.quick),
    }
    page = measure.RESULTS / "faults.md"
    measure.publish("faults", results, tables(results), None, arguments, page)


if __name__ == "__main__":
    main()
