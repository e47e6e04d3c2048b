"""The twelfth law: the other eleven reject the faults that softmax functions are known for.

Each fault is planted in a copy of the package, and the laws are run on the copy.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAWS = "test_functional_accuracy.py"
SHIFTED, LOSSES, FAMILY = "_shifted.py", "logit_losses.py", "softmax_family.py"

# name -> module, the line that is right, the line that is wrong
FAULTS = {
    "p - onehot": (
        LOSSES,
        "flat[at_y] = 0.0 - other\n",
        "flat[at_y] = e_y - total.high\n",
    ),
    "log(1 + s)": (
        SHIFTED,
        "return np.log1p(total, out=total)",
        "return np.log(1.0 + total)",
    ),
    "float32 sums": (
        SHIFTED,
        "return Pair(np.add.reduce(x, axis=0), None)",
        "return Pair(np.add.reduce(x, axis=0, dtype=np.float32).astype(FLOAT64), None)",
    ),
    "unshifted exp": (
        SHIFTED,
        "top = np.maximum.reduce(x, axis=0)",
        "top = np.zeros(x.shape[1], x.dtype)",
    ),
    "S - e_y": (
        LOSSES,
        "other = with_subnormal_terms(others.high, shifted)",
        "other = (others.high + e_y) - e_y",
    ),
    "lse - x_y": (
        LOSSES,
        "np.subtract(log_total, d_y, out=losses)",
        "np.subtract(shifted.top + log_total, shifted.top + d_y, out=losses)",
    ),
    "log(1 + s) in the loss": (
        LOSSES,
        "log_total = np.log1p(other + (e_y - 1.0))",
        "log_total = np.log(other + e_y)",
    ),
    "the shift's rounding error dropped": (
        SHIFTED,
        "error = (x - (d - t)) - (t + top)",
        "error = np.zeros_like(d)",
    ),
    "terms of a sum subnormal": (
        SHIFTED,
        "if np.fmin.reduce(total) < SUBNORMAL_TERMS:",
        "if False:",
    ),
    "infinities not apart": (
        SHIFTED,
        "if not math.isfinite(np.add.reduce(top)):",
        "if False:",
    ),
    "float32 probabilities divided in float32": (
        SHIFTED,
        'np.divide(x, total.high, out=out, casting="same_kind")',
        "np.divide(x.astype(out.dtype), total.high.astype(out.dtype), out=out)",
    ),
    "blocks written to the wrong columns": (
        "_blocks.py",
        "block_out = None if target is None else target[:, columns]",
        "block_out = None if target is None else target[:, : columns.stop - columns.start]",
    ),
    "warnings let through": (
        FAMILY,
        '@np.errstate(all="ignore")\ndef softmax(',
        "def softmax(",
    ),
}


def laws_fail(folder):
    """Run the laws, but the two slow ones, on the copy; return whether one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    selected = [f"tests/{LAWS}", "-k", "not many_classes and not simd"]
    done = subprocess.run([*command, *selected], cwd=folder, capture_output=True, text=True)
    # 0: all passed; 1: a test failed; anything else: the copy could not be tested.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert str(folder) in done.stdout or done.returncode == 0, "the copy was not what was tested"
    return done.returncode == 1


@pytest.fixture
def copy(tmp_path):
    """Return a folder with a copy of the package and of what the laws need."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "npsoftmax", folder / "npsoftmax")
    (folder / "tests").mkdir()
    for name in (LAWS, "oracle.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    for name in ("conftest.py", "setup.cfg"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_12_the_laws_hold_on_an_unchanged_copy(copy):
    assert not laws_fail(copy)


@pytest.mark.parametrize("fault", FAULTS)
def test_12_the_laws_reject(fault, copy):
    module, right, wrong = FAULTS[fault]
    path = copy / "npsoftmax" / "functional" / module
    text = path.read_text()
    assert text.count(right) == 1, f"{module} has no single line {right!r}: mend this fault"
    path.write_text(text.replace(right, wrong))
    assert laws_fail(copy), f"no law noticed: {fault}"
