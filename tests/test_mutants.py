"""The twelfth law: the other laws reject the faults that softmax functions are known for.

Each fault is planted in a copy of the package, and the law that must notice it is run on the copy.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
COMPENSATED, LOSSES, SOFTMAX, HOT_LOOP = (
    "functional/_compensated.py",
    "functional/losses.py",
    "functional/softmax.py",
    "objective/hot_loop.py",
)

# File and expression for pytest's -k.
ORACLE = ("functional_accuracy", "1_oracle and not soft and not any")
SUBNORMAL = (ORACLE[0], f"{ORACLE[1]} and subnormal and float64")
CONFIDENT = ("functional_accuracy", "6_a_confident_sample")
CONFIDENT_IN_TRAINING = ("objective_hot_loop", "confident_sample")
BLOCKS_IN_TRAINING = ("objective_hot_loop", "blocks_change_nothing")


class Fault(NamedTuple):
    """A line of a module, what to replace it by, and the law that must notice."""

    module: str
    right: str
    wrong: str
    law: tuple[str, str]


OTHER = "other = np.add.reduce(exponentials, axis=0)"
LOSS = "np.subtract(np.log1p(other + (e_y - 1.0)), d_y, out=losses)"
DIVIDE = (
    'np.divide(exponentials, np.add.reduce(exponentials, axis=0), out=out, casting="same_kind")'
)
LOOP_OTHER = "np.add.reduce(e, axis=1, keepdims=True, out=self._other_row)"

FAULTS = {
    # The exact loss and its gradient.
    "p - onehot": Fault(
        LOSSES,
        "flat[at_y] = 0.0 - other\n            np.divide",
        "flat[at_y] = e_y - (other + e_y)\n            np.divide",
        CONFIDENT,
    ),
    "p - onehot in float64": Fault(
        LOSSES,
        "flat[at_y] = 0.0 - other\n        flat_error",
        "flat[at_y] = e_y - total.high\n        flat_error",
        CONFIDENT,
    ),
    "float32 sums": Fault(
        LOSSES, OTHER, OTHER.replace("axis=0", "axis=0, dtype=np.float32"), ORACLE
    ),
    "S - e_y": Fault(
        LOSSES, OTHER, f"{OTHER}\n        other += e_y\n        other -= e_y", CONFIDENT
    ),
    "lse - x_y": Fault(
        LOSSES, LOSS, "np.subtract(_ + np.log(other + e_y), _ + d_y, out=losses)", CONFIDENT
    ),
    "log(1 + s) in the loss": Fault(LOSSES, LOSS, LOSS.replace("log1p(", "log(1.0 + "), CONFIDENT),
    "the label's rounding error dropped": Fault(
        LOSSES,
        "(excess.low / total.high - error_y)",
        "excess.low / total.high",
        ("functional_compensated", "label_far_behind"),
    ),
    "two-hot columns taken for labels": Fault(
        LOSSES,
        "(hot.sum(axis=axis) == 1)",
        "(hot.sum(axis=axis) >= 1)",
        ("functional_losses", "two_hot"),
    ),
    # The training loop, and its form for many classes.
    "p - onehot in training": Fault(
        HOT_LOOP,
        "np.subtract(0.0, other, out=other)",
        "np.subtract(self._e_y, other + self._e_y, out=other)",
        CONFIDENT_IN_TRAINING,
    ),
    "float32 sums in training": Fault(
        HOT_LOOP,
        LOOP_OTHER,
        "self._other_row[...] = np.add.reduce(e, axis=1, keepdims=True, dtype=np.float32)",
        BLOCKS_IN_TRAINING,
    ),
    "S - e_y in training": Fault(
        HOT_LOOP,
        LOOP_OTHER,
        f"{LOOP_OTHER}\n        self._other += self._e_y\n        self._other -= self._e_y",
        CONFIDENT_IN_TRAINING,
    ),
    "lse - x_y in training": Fault(
        HOT_LOOP,
        "np.subtract(losses, self._d_y, out=losses)",
        "np.subtract("
        "self._top + np.log(self._other + self._e_y), self._top + self._d_y, out=losses)",
        CONFIDENT_IN_TRAINING,
    ),
    "log(1 + s) in training": Fault(
        HOT_LOOP,
        "np.log1p(losses, out=losses)",
        "np.log(losses + 1.0, out=losses)",
        CONFIDENT_IN_TRAINING,
    ),
    "p - onehot with many classes": Fault(
        HOT_LOOP,
        "z[rows, here] = -self._other[here]",
        "z[rows, here] -= self._other[here] + e_y[here]",
        CONFIDENT_IN_TRAINING,
    ),
    "log(1 + s) with many classes": Fault(
        HOT_LOOP,
        "np.log1p(self._other + (np.exp(d_y) - 1.0)) - d_y",
        "np.log(self._other + np.exp(d_y)) - d_y",
        CONFIDENT_IN_TRAINING,
    ),
    "sums relative to an earlier maximum": Fault(
        HOT_LOOP,
        "self._other *= _exponentiate(self._top[None, :], top)[0]",
        "pass",
        BLOCKS_IN_TRAINING,
    ),
    # The probabilities.
    "probabilities divided in float32": Fault(
        SOFTMAX,
        DIVIDE,
        "np.divide(exponentials.astype(np.float32), "
        "np.add.reduce(exponentials, axis=0).astype(np.float32), out=out)",
        ORACLE,
    ),
    "warnings let through": Fault(
        SOFTMAX,
        '@np.errstate(all="ignore")\ndef softmax(',
        "def softmax(",
        ("functional_accuracy", "10_nothing"),
    ),
    # What they share.
    "log(1 + s)": Fault(
        COMPENSATED, "return np.log1p(total, out=total)", "return np.log(1.0 + total)", ORACLE
    ),
    "unshifted exp": Fault(
        COMPENSATED, "np.maximum.reduce(x, axis=0, out=top)", "top[...] = 0.0", ORACLE
    ),
    "the shift's rounding error dropped": Fault(
        COMPENSATED, "error = (x - (d - t)) - (t + top)", "error = np.zeros_like(d)", ORACLE
    ),
    "terms of a sum subnormal": Fault(
        COMPENSATED, "if np.fmin.reduce(total) < MIN_SAFE_SUM:", "if False:", SUBNORMAL
    ),
    "terms of a sum huge": Fault(
        COMPENSATED,
        "if np.fmax.reduce(largest, axis=None, initial=0.0) > MAX_SAFE_TERM:",
        "if False:",
        ("functional_compensated", "sums_of_huge"),
    ),
    "the error of a sum dropped": Fault(
        COMPENSATED,
        "return Pair(total, b - (total - a))",
        "return Pair(total, np.zeros_like(total))",
        ("functional_compensated", "sums_keep"),
    ),
    "the error of a product dropped": Fault(
        COMPENSATED,
        "(upper * count - product) + (high - upper) * count + low * count)",
        "low * count)",
        ("functional_compensated", "products"),
    ),
    "the error of a divisor dropped": Fault(
        COMPENSATED,
        "error -= total.low / total.high\n",
        "error -= 0.0\n",
        ("functional_compensated", "quotient_uses"),
    ),
    "infinities not resolved": Fault(
        COMPENSATED,
        "if not math.isfinite(np.add.reduce(top, axis=None)):",
        "if False:",
        ("functional_accuracy", "9_special"),
    ),
    "labels found in the wrong memory order": Fault(
        COMPENSATED,
        "(columns, 1) if matrix.flags.c_contiguous else (1, rows)",
        "(columns, 1)",
        ("functional_accuracy", "2_probabilities and ordinary"),
    ),
    "blocks written to the wrong columns": Fault(
        COMPENSATED,
        "block_out = None if target is None else target[:, columns]",
        "block_out = None if target is None else target[:, : columns.stop - columns.start]",
        ("functional_accuracy", "8_blocks"),
    ),
    "targets overwritten before they are read": Fault(
        COMPENSATED,
        "a.copy() if np.may_share_memory(a, out) else a for a in per_column",
        "per_column",
        ("functional_losses", "out_may_be_the_targets"),
    ),
}
LAWS = {fault.law for fault in FAULTS.values()}
QUICK = ("p - onehot", "p - onehot in training")  # the others are left to the gate


# Test the copy, repeatably, without a search for the smallest failing example.
CONFTEST = """
from pathlib import Path
from hypothesis import Phase, settings
import npsoftmax
assert Path(npsoftmax.__file__).parents[1] == Path(__file__).parent
phases = [Phase.explicit, Phase.generate]
settings.register_profile("law", derandomize=True, deadline=None, max_examples=60, phases=phases)
settings.load_profile("law")
"""


@pytest.fixture
def copy(tmp_path):
    """Return a folder with a copy of the package and of the files that the laws need."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "npsoftmax", folder / "npsoftmax")
    (folder / "tests").mkdir()
    for name in {f"test_{file}.py" for file, _ in LAWS} | {"oracle.py"}:
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    shutil.copy(ROOT / "setup.cfg", folder)
    (folder / "conftest.py").write_text(CONFTEST)
    return folder


def law_fails(law, folder):
    """Run a law on the copy, without plugins, which load slowly; return whether it fails."""
    options = ["-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-k", law[1]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"tests/test_{law[0]}.py"],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    # 0: all passed; 1: a test failed; anything else: the copy could not be tested.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", sorted({file for file, _ in LAWS}))
def test_12_the_laws_hold_on_an_unchanged_copy(file, copy):
    together = " or ".join(f"({names})" for other, names in LAWS if other == file)
    assert not law_fails((file, together), copy)


@pytest.mark.parametrize(
    "name", [f if f in QUICK else pytest.param(f, marks=pytest.mark.exhaustive) for f in FAULTS]
)
def test_12_the_laws_reject(name, copy):
    fault = FAULTS[name]
    path = copy / "npsoftmax" / fault.module
    text = path.read_text()
    assert text.count(fault.right) == 1, f"{fault.module}: expected one line {fault.right!r}"
    path.write_text(text.replace(fault.right, fault.wrong))
    assert law_fails(fault.law, copy), f"{fault.law} did not notice: {name}"
