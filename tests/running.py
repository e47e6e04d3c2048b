"""Running the commands as a user does."""

import io
import json
import os
import runpy
import subprocess
import sys
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from threadpoolctl import threadpool_limits

SCRIPTS = Path(__file__).parents[1] / "scripts"
SCRIPT = SCRIPTS / "train.py"
# Why a test skips where a package is missing that few tests need.
INSTALL = 'needs more than the tests usually do: python -m pip install ".[test-all]"'
# What Python does not show unless it is asked to.
SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def run_here(script, folder, *arguments, **environment):
    """Run a command in this process, which takes a fraction of the time; return what a process has.

    Good for what depends on the flags, the streams and the files. What Python and NumPy read when
    they start (PYTHONPATH, the number of threads), signals, memory and descriptors need
    `run_process`.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n") for _ in range(2))
    code = 0
    with undone(), redirect_stdout(out), redirect_stderr(err):
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv = [str(script), *map(str, arguments)]
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = 0 if end.code is None else end.code
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess(arguments, code, *texts)


@contextmanager
def undone():
    """Undo what a test changes of this process before it runs a command."""
    folder, arguments, environment = os.getcwd(), sys.argv, dict(os.environ)
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.resetwarnings()
        for category in SILENT:
            warnings.simplefilter("ignore", category)
        try:
            yield
        finally:
            sys.argv = arguments
            os.chdir(folder)
            for variable in os.environ.keys() - environment.keys():
                del os.environ[variable]
            os.environ.update(environment)


def run_process(script, folder, *arguments, **environment):
    """Run a command in a folder; return the finished process.

    A folder given as PYTHONPATH goes before what stands there already.
    """
    if "PYTHONPATH" in environment:
        environment = {**environment, **python_path(environment["PYTHONPATH"])}
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def python_path(folder):
    """Return the variable that lets Python look into a folder first."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def interrupt(folder, flags, beginning, number, victim=None, group=False):
    """Start a run, send it a signal after a line that begins so; return code, stdout, stderr.

    The signal goes to another process, or to all that the run has started too, as from a terminal.
    """
    process = subprocess.Popen(
        [sys.executable, "-u", str(SCRIPT), *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )
    for line in process.stdout:
        if line.startswith(beginning):
            if group:
                os.killpg(process.pid, number)
            else:
                (victim or process).send_signal(number)
            break
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def one_line(process, code):
    """Check that the process ended with this code and one line of complaint; return the line."""
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert "Traceback" not in line
    return line


def history_of(folder):
    """Return the records of a run."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def told(folder):
    """Return the records without the times."""
    return [
        {name: value for name, value in record.items() if "seconds" not in name}
        for record in history_of(folder)
    ]
