"""Running the training command as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"


def run_train(folder, *arguments, **environment):
    """Run the command in a folder; return the finished process."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


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
