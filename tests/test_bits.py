"""Rearranging the code moves no bit: parameters, formulas, files and printed lines.

A change that means to move bits says so and records them again: ``python tests/bits.py --record``.
"""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest
from bits import RECORD
from bits import __file__ as SCRIPT

KNOWN = json.loads(RECORD.read_text())


@pytest.mark.exhaustive
@pytest.mark.skipif(platform.machine() != "x86_64", reason="recorded with the kernels of x86-64")
@pytest.mark.skipif(np.__version__ not in KNOWN, reason=f"recorded with NumPy {', '.join(KNOWN)}")
def test_no_bit_has_moved():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == KNOWN[np.__version__]
