"""Verify models and checkpoints: ``python -m npsoftmax.storage FILE...``."""

import argparse
import io
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from npsoftmax import storage
from npsoftmax.checkpoint import KIND, Checkpoint, SolverState
from npsoftmax.errors import CorruptFileError, InputError
from npsoftmax.model import SoftmaxRegression


def describe(path: str) -> str:
    """Return what a file is and holds, or raise what is wrong with it.

    The seal, the version, the names, shapes and dtypes of the arrays, and whether the numbers can
    belong together are checked by what reads such a file for use.
    """
    kind = storage.kind_of(path)
    if kind == "model":
        return f"a model, {SoftmaxRegression.load(path)!r}"
    if kind == "checkpoint":
        saved = Checkpoint.read(path)
        place = f"{saved.progress.epoch} epochs and {saved.progress.step} steps"
        return f"a checkpoint after {place}: {_layout({'theta': saved.theta, **saved.state})}"
    if kind == KIND:
        state = SolverState.read(path)
        iterations = state.history[-1].iteration
        return f"a {kind} after {iterations} iterations: {_layout({'theta': state.x})}"
    raise CorruptFileError(f"{path}: expected a model or a checkpoint, got a {kind:.80}")


def _layout(arrays: Mapping[str, NDArray[Any]]) -> str:
    text = ", ".join(f"{name} {array.dtype}{array.shape}" for name, array in arrays.items())
    return f"{text:.400}"


def _printable(text: str) -> str:
    # A file may have put words into it, its name too, and terminals obey control characters.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def main(argv: Sequence[str] | None = None) -> int:
    """Describe each file on a line; return 4 if one is damaged, 2 if one cannot be read, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m npsoftmax.storage",
        description="Verify models and checkpoints that npsoftmax wrote.",
        epilog="Exit codes: 0 all are whole, 2 one cannot be read, 4 one is damaged.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    codes = [0]
    for path in parser.parse_args(argv).files:
        try:
            print(_printable(f"{path}: {describe(path)}"))
        except (InputError, CorruptFileError) as error:
            print(_printable(str(error)), file=sys.stderr)
            codes.append(error.exit_code)
    return max(codes)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end in silence where nobody reads on
    sys.exit(main())
