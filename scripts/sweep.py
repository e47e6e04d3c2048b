"""Compare learning rates, batch sizes or penalties: `python scripts/sweep.py lr|batch-size|l2`."""

import sys
from pathlib import Path

try:
    from npsoftmax.commands.sweep import main
except ModuleNotFoundError as error:
    from shlex import quote

    project = quote(str(Path(__file__).resolve().parents[1]))
    advice = f"install the project first: python -m pip install {project}"
    sys.exit(f"sweep.py: error: {error}; {advice}")

if __name__ == "__main__":
    sys.exit(main())
