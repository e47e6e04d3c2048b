"""Export a model for use without this package: `python scripts/export.py MODEL --onnx`."""

import sys
from pathlib import Path

try:
    from npsoftmax.commands.export import main
except ModuleNotFoundError as error:
    from shlex import quote

    project = quote(str(Path(__file__).resolve().parents[1]))
    advice = f"install the project first: python -m pip install {project}"
    sys.exit(f"export.py: error: {error}; {advice}")

if __name__ == "__main__":
    sys.exit(main())
