"""The twelfth law: the other eleven reject the faults that softmax functions are known for.

Each fault is planted in a copy of the package, and the laws are run on the copy.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAWS = ("test_functional_shifted.py", "test_functional_losses.py", "test_functional_accuracy.py")
SHIFTED, LABELS, LOSSES, FAMILY, BLOCKS = (
    "_shifted.py",
    "_label_losses.py",
    "logit_losses.py",
    "softmax_family.py",
    "_blocks.py",
)
LOG_TOTAL = "np.subtract(losses, d_y, out=losses)"
OTHER = "np.add.reduce(exponentials, axis=0, out=other)"
LOG1P = "np.log1p(losses, out=losses)"
DIVIDE = (
    'np.divide(exponentials, np.add.reduce(exponentials, axis=0), out=out, casting="same_kind")'
)

# name -> module, what is right, what is wrong
FAULTS = {
    "p - onehot": (
        LABELS,
        "np.subtract(0.0, other, out=other)",
        "np.subtract(e_y, other + e_y, out=other)",
    ),
    "log(1 + s)": (
        SHIFTED,
        "return np.log1p(total, out=total)",
        "return np.log(1.0 + total)",
    ),
    "float32 sums": (
        LABELS,
        OTHER,
        OTHER.replace("out=other)", "out=other, dtype=np.float32, casting='same_kind')"),
    ),
    "unshifted exp": (
        SHIFTED,
        "np.maximum.reduce(x, axis=0, out=top)",
        "top[...] = 0.0",
    ),
    "S - e_y": (
        LABELS,
        OTHER,
        f"{OTHER}\n        other += e_y\n        other -= e_y",
    ),
    "lse - x_y": (
        LABELS,
        LOG_TOTAL,
        "np.subtract(top + np.log(other + e_y), top + d_y, out=losses)",
    ),
    "log(1 + s) in the loss": (
        LABELS,
        LOG1P,
        "np.log(losses + 1.0, out=losses)",
    ),
    "the shift's rounding error dropped": (
        SHIFTED,
        "error = (x - (d - t)) - (t + top)",
        "error = np.zeros_like(d)",
    ),
    "the label's rounding error dropped": (
        LOSSES,
        "(excess.low / total.high - error_y)",
        "excess.low / total.high",
    ),
    "terms of a sum subnormal": (
        SHIFTED,
        "if np.fmin.reduce(total) < SUBNORMAL_TERMS:",
        "if False:",
    ),
    "terms of a sum huge": (
        SHIFTED,
        "if np.fmax.reduce(largest, axis=None, initial=0.0) > HUGE_TERM:",
        "if False:",
    ),
    "the error of a sum dropped": (
        SHIFTED,
        "return Pair(total, b - (total - a))",
        "return Pair(total, np.zeros_like(total))",
    ),
    "the error of a product dropped": (
        SHIFTED,
        "(upper * count - product) + (high - upper) * count + low * count)",
        "low * count)",
    ),
    "the error of a divisor dropped": (
        SHIFTED,
        "error -= total.low / total.high\n",
        "error -= 0.0\n",
    ),
    "infinities not apart": (
        SHIFTED,
        "if not math.isfinite(np.add.reduce(top)):",
        "if False:",
    ),
    "probabilities divided in float32": (
        FAMILY,
        DIVIDE,
        "np.divide(exponentials.astype(np.float32), "
        "np.add.reduce(exponentials, axis=0).astype(np.float32), out=out)",
    ),
    "labels found in the wrong memory order": (
        SHIFTED,
        "(columns, 1) if matrix.flags.c_contiguous else (1, rows)",
        "(columns, 1)",
    ),
    "two-hot columns taken for labels": (
        "_targets.py",
        "(hot.sum(axis=axis) == 1)",
        "(hot.sum(axis=axis) >= 1)",
    ),
    "blocks written to the wrong columns": (
        BLOCKS,
        "block_out = None if target is None else target[:, columns]",
        "block_out = None if target is None else target[:, : columns.stop - columns.start]",
    ),
    "targets overwritten before they are read": (
        BLOCKS,
        "a.copy() if np.may_share_memory(a, out) else a for a in beside",
        "beside",
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
    selected = [*(f"tests/{name}" for name in LAWS), "-k", "not many_classes and not simd"]
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
    for name in (*LAWS, "oracle.py"):
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
