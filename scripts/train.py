"""Train softmax regression: `python scripts/train.py`."""

import sys
from pathlib import Path

try:
    from npsoftmax.commands.train import main
except ModuleNotFoundError as error:
    from shlex import quote

    project = quote(str(Path(__file__).resolve().parents[1]))
    advice = f"install the project first: python -m pip install {project}"
    sys.exit(f"train.py: error: {error}; {advice}")

if __name__ == "__main__":
    sys.exit(main())
