"""What the commands share: flags, streams, threads, and the way from an error to an exit code.

Nothing here imports NumPy at the top: the number of BLAS threads must be set before it loads.
"""

import argparse
import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import npsoftmax

THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
MOST_THREADS = 1024


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line, as the commands do."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add where data sets lie and whether the network may be used."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where data sets lie, as DIR/fashion-mnist/train-images-idx3-ubyte.gz and so on; "
        "else $NPSOFTMAX_DATA, else the user's cache folder",
    )
    group.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        default=[],
        help="try this address before the built-in mirrors; may be repeated",
    )
    group.add_argument(
        "--offline",
        action="store_true",
        default=None,
        help="never open a socket ($NPSOFTMAX_OFFLINE=1)",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add what to print."""
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    group.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def set_threads(count: int | None) -> int | None:
    """Set the threads of the linear algebra below NumPy, which reads them when it loads.

    Without a count it is the environment's, else one: the products of one batch are too small
    to gain from a second thread, and two on cores that are busy took 3 to 12 times as long.
    Returns the count or the environment's, or None where nobody asked for any.
    """
    # OpenMP's variable may list a number for each level of nesting; the first one counts.
    asked = [os.environ.get(variable, "").split(",")[0].strip() for variable in THREAD_VARIABLES]
    if count is None:
        numbers = [int(value) for value in asked if re.fullmatch("[0-9]{1,4}", value)]
        count = next((number for number in numbers if 0 < number <= MOST_THREADS), None)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count or 1)))
    return count


def hold_threads(count: int) -> None:
    """Hold the BLAS that NumPy has loaded to so many threads.

    The environment counts only for a BLAS that reads it, and that was not loaded before.
    """
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_limits

    threadpool_limits(count, user_api="blas")


def blas_in_use() -> list[dict[str, Any]]:
    """Return what each loaded BLAS says of itself, if threadpoolctl knows it."""
    from threadpoolctl import threadpool_info

    return [
        {key: blas.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for blas in threadpool_info()
        if blas["user_api"] == "blas"
    ]


def load(args: argparse.Namespace, name: str) -> "npsoftmax.Dataset":
    """Load a data set as the data flags say, with a bar on stderr if a person watches."""
    import npsoftmax

    return npsoftmax.load(
        name.lower(), args.data_dir, args.mirror, args.offline, progress=wants_bar(args)
    )


def wants_bar(args: argparse.Namespace) -> bool:
    """Return whether to show progress: on a terminal, unless told to be quiet."""
    return sys.stderr.isatty() and not args.quiet


def positive(text: str) -> int:
    """Parse a whole number of at least one."""
    return _whole_number(text, 1)


def natural(text: str) -> int:
    """Parse a whole number of at least zero."""
    return _whole_number(text, 0)


def threads(text: str) -> int:
    """Parse a number of threads."""
    if positive(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_THREADS}, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Parse a time of more than nothing."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


def _whole_number(text: str, minimum: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < minimum:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least {minimum}, got {text!r}"
        )
    return int(text)


def run(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the flags, run the command, and turn what it raises into one line and an exit code.

    The codes: 0 done, 1 unexpected, 2 usage, 3 data not to be had, 4 data or model file
    corrupt, 5 diverged, 6 cluster lost, 130 interrupted.
    """
    _prepare_streams()
    args = parser.parse_args(argv)
    warnings.showwarning = partial(_warn, parser)
    # SIGTERM ends a command as Ctrl-C does: temporary files go, the exit code is 130.
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    args.threads = set_threads(getattr(args, "threads", None))
    try:
        command(args)
        sys.stdout.flush()
        _ignore_signals()
    except KeyboardInterrupt:
        return _complain(parser, args, "interrupted", 130)
    except BrokenPipeError:
        # What Python still holds for the reader that went away must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _complain(parser, args, "stopped: nobody reads the output any more", 1)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is not None:
            return _complain(parser, args, str(error), code)
        if _caused_by_interruption(error):
            return _complain(parser, args, "interrupted", 130)
        text = f"unexpected {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError):
            text = f"{error}; install the project first: python -m pip install ."
        return _complain(parser, args, text, 1)
    return 0


def _caused_by_interruption(error: BaseException | None) -> bool:
    # A second signal may cut short how a lock is put back after the first: "release unlocked lock".
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _prepare_streams() -> None:
    """Make writing safe where a stream is closed (`>&-`) or cannot hold every character."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _warn(parser: argparse.ArgumentParser, message: Warning | str, *_: object) -> None:
    print(f"{parser.prog}: warning: {one_line(str(message))}", file=sys.stderr)


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters."""
    # A server or a file may have put words into it, and terminals obey control characters.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def _complain(
    parser: argparse.ArgumentParser, args: argparse.Namespace, text: str, code: int
) -> int:
    _ignore_signals()
    if args.debug:
        traceback.print_exc()
    print(f"{parser.prog}: {'' if code == 130 else 'error: '}{one_line(text)}", file=sys.stderr)
    return code


def _ignore_signals() -> None:
    # The end is near: a signal must not turn it into a traceback or another exit code.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
