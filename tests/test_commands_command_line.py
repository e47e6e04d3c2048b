"""What all commands share: the process that they run in, signals, and paths in messages."""

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest
from running import INSTALL, SCRIPT

from npsoftmax.commands import command_line, evaluate, export, predict, sweep, train

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

SMALL = ["--dataset", "garments", "--epochs", "1", "--limit", "512", "--run-dir"]
STATE = """
import json, logging, os, signal, sys, warnings, numpy
from threadpoolctl import threadpool_info
def state():
    return json.dumps([
        [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        str(warnings.showwarning), str(warnings.filters), dict(os.environ), sys.path, os.getcwd(),
        [library["num_threads"] for library in threadpool_info()], logging.root.manager.disable,
        sys.stdout.errors, sys.stderr.errors, str(numpy.geterr()),
    ], indent=0)
"""
HEARD = """
try:
    signal.raise_signal(signal.SIGINT)
    print("ignored")
except KeyboardInterrupt:
    print("heard")
"""


def lines_of(command, folder, text=None):
    """Run a session with two threads for the BLAS; return the lines that it prints."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    process = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    return process.stdout.splitlines(), process.stderr


ENDINGS = {
    "well": f"{' '.join(SMALL)} run",
    "with an error": "--lr -1",
    "with a usage error": "--nonsense",
    "with the help": "--help",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_ipython_is_left_as_it_was_found(tmp_path, ending):
    pytest.importorskip("IPython", reason=INSTALL)
    run = f"get_ipython().run_line_magic('run', '{SCRIPT} {ENDINGS[ending]}')"
    code = (
        f"{STATE}\nbefore = state()\n{run}\nprint('\\nsame', state() == before){HEARD}\n"
        "warnings.warn('mine')"
    )
    out, err = lines_of([sys.executable, "-m", "IPython", "--no-banner", "-c", code], tmp_path)
    assert "same True" in out and out[-1] == "heard"
    assert "UserWarning: mine" in err and "train.py: warning" not in err


def test_a_session_after_the_command_hears_ctrl_c(tmp_path):
    # Nothing has loaded NumPy before: its BLAS must not keep the one thread of the command.
    text = f"{STATE}\n{HEARD}\nprint('threads', threadpool_info()[0]['num_threads'])\n"
    text += (
        "print([os.environ.get(name) for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS')])\n"
    )
    command = [sys.executable, "-i", str(SCRIPT), *SMALL, "run"]
    out, _ = lines_of(command, tmp_path, text)
    assert out[-3:] == ["heard", "threads 2", "[None, '2']"]


@pytest.mark.parametrize("error", [None, ValueError("x"), KeyboardInterrupt(), BrokenPipeError()])
def test_a_program_gets_its_process_back_and_the_exit_code(error, capsys):
    namespace = {}
    exec(STATE, namespace)

    def command(args):
        if error:
            raise error

    before = namespace["state"]()
    flags = command_line.Parser("test")
    command_line.add_output_flags(flags)
    code = command_line.run(flags, command, [])
    assert code == (0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else 1)
    assert namespace["state"]() == before


def test_a_missing_package_is_named_with_what_installs_it():
    error = ModuleNotFoundError("No module named 'tqdm.auto'", name="tqdm.auto")
    advice = "install it: python -m pip install tqdm"
    assert command_line._explain(error) == (1, f"No module named 'tqdm.auto'; {advice}")


def test_a_command_runs_in_a_thread_which_cannot_handle_signals(tmp_path, capsys):
    from npsoftmax.commands import train

    codes = []
    flags = [*SMALL, str(tmp_path / "run"), "--quiet"]
    thread = threading.Thread(
        target=lambda: codes.append(command_line.run(train.parser(), train.train, flags))
    )
    thread.start()
    thread.join()
    assert codes == [0], capsys.readouterr().err


# Signals


def start(folder, before=(), **options):
    """Start a long run."""
    command = [*before, sys.executable, "-u", str(SCRIPT), *SMALL, "run", "--epochs", "99999"]
    return subprocess.Popen(command, cwd=folder, text=True, **options)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_hangups_and_the_warnings_of_batch_systems_end_in_a_checkpoint(tmp_path, name):
    number = getattr(signal, name)
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("epoch 02"):
            process.send_signal(number)
            process.send_signal(number)  # a shell passes on what it gets itself
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "checkpoint written, resume" in err and err.count("\n") == 1
    assert (tmp_path / "run" / "checkpoint.npz").exists()


def test_a_terminal_that_closes_ends_in_a_checkpoint_though_nothing_can_be_printed(tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        flags = [*SMALL, "run", "--epochs", "99999"]
        os.execv(sys.executable, [sys.executable, str(SCRIPT), *flags])
    seen = b""
    while b"epoch 02" not in seen:
        seen += os.read(terminal, 1000)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert (tmp_path / "run" / "checkpoint.npz").exists()


def test_nohup_keeps_a_run_alive(tmp_path):
    process = start(tmp_path, before=["nohup"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    epochs = 0
    for line in process.stdout:
        if line.startswith("epoch"):
            epochs += 1
            process.send_signal(signal.SIGHUP if epochs < 5 else signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130 and epochs >= 5


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (train, ["--run-dir=~/run"]),
        (sweep, ["lr", "--run-dir=~/run"]),
        (evaluate, ["~/model.npz", "--pictures=~/run"]),
        (predict, ["~/model.npz", "~/bar.png", "--show=~/bar.pdf"]),
        (export, ["~/model.npz", "-o", "~/site/"]),
    ],
)
def test_a_tilde_that_the_shell_left_in_a_path_is_the_home_folder(module, words):
    args = vars(module.parser().parse_args(words))
    assert "~" not in str(args)
    assert str(args).count(os.path.expanduser("~/")) == str(words).count("~")
