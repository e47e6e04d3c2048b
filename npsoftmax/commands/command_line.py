"""Flags, output streams, threads and exit codes that the commands share.

NumPy is not imported at the top: the number of BLAS threads must be set before it loads.
"""

import argparse
import errno
import gc
import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, NoReturn

from npsoftmax.errors import CorruptFileError, DataUnavailableError, InputError, OutputError
from npsoftmax.files import quoted

if TYPE_CHECKING:
    import npsoftmax

COMMANDS = {
    "train": "train a model and write a run folder",
    "evaluate": "measure a model on test data",
    "predict": "classify photos, or the rows of a table",
    "export": "write a model as ONNX, safetensors or a web page",
    "sweep": "compare learning rates, batch sizes or penalties",
    "fetch": "download and verify a data set",
}
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
MAX_THREADS = 1024


def start(command: str) -> str:
    """Return the words that start a command in the way that this process was started."""
    called = Path(sys.argv[0]).resolve()
    if is_script(called):
        path, here = called.with_name(f"{command}.py"), Path.cwd()
        return f"python {quoted(path.relative_to(here) if path.is_relative_to(here) else path)}"
    return f"{'python -m ' if called.name == '__main__.py' else ''}npsoftmax {command}".rstrip()


def program(command: str) -> str:
    """Return what a command is called in messages: a script by its name alone."""
    return f"{command}.py" if is_script(Path(sys.argv[0])) else start(command)


def is_script(path: Path) -> bool:
    """Return whether a path is one of the files in ``scripts/``."""
    return path.suffix == ".py" and path.stem in COMMANDS


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors take one line."""

    def __init__(self, command: str, **options: Any) -> None:
        super().__init__(prog=program(command), **options)
        self.command = command

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the model that a command reads."""
    parser.add_argument("model", metavar="MODEL", type=model_path,
        help=f"a model.npz that {program('train')} wrote, or its run folder")  # fmt: skip


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the folder of the data sets and the use of the network."""
    group = parser.add_argument_group("data")
    group.add_argument("--data-dir", metavar="DIR",
        help="folder with the files of the data set, or with a folder fashion-mnist that has them, "
        "compressed or not; default: $NPSOFTMAX_DATA, else the user's cache folder")  # fmt: skip
    group.add_argument("--mirror-url", metavar="URL", action="append", default=[],
        help="try this address before the built-in mirrors; may be repeated")  # fmt: skip
    group.add_argument("--offline", action="store_true", default=None,
        help="never open a socket (also set by NPSOFTMAX_OFFLINE=1)")  # fmt: skip


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the output."""
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    group.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


# A shell leaves the ~ of --run-dir=~/run as it is.
path = os.path.expanduser


def natural(text: str, minimum: int = 0) -> int:
    """Parse a whole number of at least zero."""
    if not text.isascii() or not text.isdigit() or int(text) < minimum:
        message = f"expected a whole number of at least {minimum}, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number of at least one."""
    return natural(text, minimum=1)


def threads(text: str) -> int:
    """Parse a number of threads or workers."""
    if positive(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MAX_THREADS}, got {text!r}")
    return int(text)


def positive_float(text: str, name: str) -> float:
    """Parse a finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive {name}, got {text!r}")
    return value


def run(
    parser: Parser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the flags, run the command, and turn its exception into one line and an exit code.

    The codes: 0 done, 1 unexpected, 2 usage, 3 data unavailable, 4 data or model file corrupt,
    5 diverged, 6 cluster lost, 130 interrupted.

    A process that goes on afterwards, such as a notebook or ``python -i``, is left as it was found.
    """
    goes_on = not is_last() or bool(sys.flags.inspect)
    with left_as_found() if goes_on else nullcontext():
        return _run(parser, command, argv, goes_on)


def is_last() -> bool:
    """Return whether Python itself started the command, so that nothing comes after it."""
    frame = sys._getframe()
    while frame.f_back and module_name(frame.f_globals).startswith("npsoftmax."):
        frame = frame.f_back
    # That called a command. What runs a module with -m comes before it.
    above = frame.f_back
    while above and module_name(above.f_globals) == "runpy":
        above = above.f_back
    return above is None


def module_name(names: Mapping[str, Any]) -> str:
    """Return the name under which a module was imported, also that of one that -m runs."""
    return getattr(names.get("__spec__"), "name", "")


def _run(
    parser: Parser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
    goes_on: bool,
) -> int:
    _prepare_streams()
    args = parser.parse_args(argv)
    warnings.showwarning = lambda message, *_: warn(parser.command, str(message))
    handle_signals(_interrupt)
    args.threads = choose_threads(getattr(args, "threads", None))
    if not goes_on:  # NumPy would keep these numbers for as long as it is loaded
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(args.threads or 1)))
    try:
        command(args)
        sys.stdout.flush()
        # The command is about to end: a signal must not change its exit code or print a traceback.
        handle_signals(signal.SIG_IGN)
        if not goes_on:
            gc.freeze()  # Python would search all objects for garbage once more before it exits
    except (Exception, KeyboardInterrupt) as error:
        handle_signals(signal.SIG_IGN)
        code, text = _explain(error)
        if args.debug:
            traceback.print_exc()
        if isinstance(error, BrokenPipeError) and not goes_on:
            # Python flushes stdout again at exit, which must not fail a second time.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        label = "" if code == 130 else "error: "
        # Where data are missing, the way out is not at the end of a thousand characters.
        missing = isinstance(error, DataUnavailableError | CorruptFileError)
        lines = text.splitlines() if missing else [text]
        print(f"{parser.prog}: {label}" + "\n  ".join(map(one_line, lines)), file=sys.stderr)
        return code
    return 0


@contextmanager
def left_as_found() -> Iterator[None]:
    """Undo at the end what a command changes of its process."""
    import logging

    environment, logs = dict(os.environ), logging.root.manager.disable
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    modes = [(s, s.errors) for s in streams.values() if hasattr(s, "reconfigure")]
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with warnings.catch_warnings():
        try:
            yield
        finally:
            if current_thread() is main_thread():
                for number, handler in handlers.items():
                    if handler is not None:  # it is not Python's, and was left alone
                        signal.signal(number, handler)
            logging.disable(logs)
            for variable in os.environ.keys() - environment.keys():
                del os.environ[variable]
            os.environ.update(environment)
            for name, stream in streams.items():
                setattr(sys, name, stream)
            for stream, errors in modes:
                stream.reconfigure(errors=errors)


def _prepare_streams() -> None:
    """Make writing safe if a stream is closed (`>&-`) or cannot encode every character."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


# What asks a process to stop: Ctrl-C, the system, a terminal that closes, and the warnings of batch
# systems before they end a job.
STOP_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]


def handle_signals(handler: Any) -> dict[int, Any]:
    """Let ``handler`` receive what asks to stop; return the previous handlers.

    An ignored signal stays ignored: that is how ``nohup`` and shells protect their jobs.
    """
    if current_thread() is not main_thread():
        return {}  # Python runs handlers in the main thread only
    left_alone = (signal.SIG_IGN, None)
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) not in left_alone]
    return {number: signal.signal(number, handler) for number in heard}


def _interrupt(number: int, _: object) -> None:
    """End a command as Ctrl-C does: temporary files are removed, the exit code is 130."""
    note_signal(number)
    raise KeyboardInterrupt


def note_signal(number: int) -> None:
    """If a terminal that has closed sent the signal, send what is printed there to nowhere."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a descriptor
            descriptor = stream.fileno()
            try:
                os.write(descriptor, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an exception and its text."""
    if isinstance(error, BrokenPipeError):
        return 1, "stopped: output closed (broken pipe)"
    if hasattr(error, "exit_code"):
        return error.exit_code, str(error)
    if _caused_by_interruption(error):
        return 130, "interrupted"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        # The package's own errors have a code of theirs, so this is a stream.
        return OutputError.exit_code, f"cannot write the output: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return 1, f"{error}; install it: python -m pip install {error.name.partition('.')[0]}"
    return 1, f"unexpected {type(error).__name__}: {error}"


def _caused_by_interruption(error: BaseException | None) -> bool:
    # A second signal may break the release of a lock after the first one: "release unlocked lock".
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters."""
    # Parts of it may come from a server or a file, and terminals obey control characters. Spaces
    # stay: they may belong to a path.
    text = re.sub(r"\s*[\r\n]\s*", " ", text)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def complain(command: str, text: str, kind: str = "error") -> None:
    """Print what a command has to say in one line on stderr."""
    print(f"{program(command)}: {kind}: {one_line(text)}", file=sys.stderr)


def warn(command: str, text: str) -> None:
    """Print a warning in one line on stderr."""
    complain(command, text, "warning")


def note(command: str, text: str) -> None:
    """Print in one line on stderr what was done and need not be a mistake."""
    complain(command, text, "note")


def choose_threads(count: int | None) -> int | None:
    """Return the number of BLAS threads from the flag or the environment, None if neither has one.

    The default is one: the products of one batch are too small to gain from a second thread, and
    two threads on busy cores took 3 to 12 times as long.
    """
    if count is None:
        # OpenMP's variable may list a number for each level of nesting; the first one counts.
        values = [os.environ.get(name, "").split(",")[0].strip() for name in THREAD_VARIABLES]
        numbers = [int(value) for value in values if re.fullmatch("[0-9]{1,4}", value)]
        count = next((number for number in numbers if 0 < number <= MAX_THREADS), None)
    return count


def limit_blas(count: int) -> AbstractContextManager[object]:
    """Limit the threads of the BLAS for a block, also of one that does not read the environment."""
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(count, user_api="blas")
    return limits


def load(args: argparse.Namespace, name: str) -> "npsoftmax.Dataset":
    """Load a data set according to the data flags, with a progress bar on a terminal."""
    import npsoftmax

    return npsoftmax.load(
        name, args.data_dir, args.mirror_url, args.offline, progress=wants_bar(args)
    )


def wants_bar(args: argparse.Namespace) -> bool:
    """Return whether to show progress: on a terminal, except with ``--quiet``."""
    return sys.stderr.isatty() and not args.quiet


def import_extra(module: str, prefix: str = "") -> Any:
    """Import a module of npsoftmax.ext; if what it needs is missing, say what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"{prefix}{error}") from error


def model_path(text: str) -> str:
    """Return the file of a model that was named by itself or by its run folder."""
    text = path(text)
    if not os.path.isdir(text):
        return text
    file = os.path.join(text, "model.npz")
    if not os.path.lexists(file) and os.path.lexists(os.path.join(text, "checkpoint.npz")):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} has no model.npz yet, because its run has not ended; run "
            f"{program('train')} again with its flags and --resume --run-dir {quoted(text)}"
        )
    return file
