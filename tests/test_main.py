"""The commands of an installed project: ``npsoftmax train``, and ``python -m npsoftmax train``."""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest
from running import SCRIPT, SCRIPTS, run_process

import npsoftmax.__main__
from npsoftmax.commands.command_line import COMMANDS

SMALL = ["--dataset", "garments", "--epochs", "1", "--limit", "512", "--run-dir", "run"]
# What pip makes of the entry point.
LAUNCHER = "import sys\nfrom {} import {}\nif __name__ == '__main__': sys.exit({}())\n"


@pytest.fixture
def installed(tmp_path):
    """Return the file ``npsoftmax`` that pip would put on the PATH."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(SCRIPTS.parent / "setup.cfg")
    name, entry = config["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = entry.split(":")
    path = tmp_path / "bin" / name
    path.parent.mkdir()
    path.write_text(LAUNCHER.format(module, function, function))
    return path


@pytest.fixture(params=["npsoftmax", "python -m npsoftmax"])
def said(request, monkeypatch, capsys):
    """Return what a user types, and what runs it here; this returns code, stdout and stderr."""
    path = npsoftmax.__main__.__file__ if request.param.startswith("python") else "bin/npsoftmax"

    def run(*flags):
        monkeypatch.setattr(sys, "argv", [path, *flags])
        try:
            code = npsoftmax.__main__.main()
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    return request.param, run


def test_a_run_prints_what_the_script_prints_and_names_its_own_next_command(installed, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError")  # pictures take time
    texts = []
    for program, *words in [[installed, "train"], [SCRIPT]]:
        flags = [*words, *SMALL, "--force"]
        process = run_process(program, tmp_path, *flags, PYTHONPATH=tmp_path)
        assert (process.returncode, process.stderr) == (0, "")
        texts.append(re.sub(r"\d\.\d\d s$", "", process.stdout, flags=re.MULTILINE))
    script = f"python {quote(str(SCRIPTS / 'evaluate.py'))} run"
    advice = "npsoftmax evaluate run"
    assert script in texts[1] and texts[0] == texts[1].replace(script, advice)
    words = re.search("^evaluate  npsoftmax (.*)", texts[0], re.MULTILINE)[1].split()
    evaluated = run_process(installed, tmp_path, *words, "--no-pictures")
    assert evaluated.returncode == 0 and "accuracy" in evaluated.stdout


def test_the_help_and_the_usage_lines_name_what_is_typed(said):
    typed, run = said
    code, text, _ = run("--help")
    assert code == 0 and text.startswith(f"usage: {typed} COMMAND [flags]\n")
    assert re.findall(r"^  (\w+) ", text, re.MULTILINE)[: len(COMMANDS)] == list(COMMANDS)
    assert run("--version") == (0, f"npsoftmax {npsoftmax.__version__}\n", "")
    for command in COMMANDS:
        code, text, _ = run(command, "--help")
        assert code == 0 and text.startswith(f"usage: {typed} {command} ")


@pytest.mark.parametrize(("words", "got"), [([], "none"), (["trian"], "'trian'"), (["-q"], "'-q'")])
def test_an_unknown_command_is_refused(said, words, got):
    typed, run = said
    line = f"expected one of {', '.join(COMMANDS)}, got {got}; see {typed} --help\n"
    assert run(*words) == (2, "", f"{typed}: error: {line}")


def test_errors_and_advice_name_what_is_typed(said):
    typed, run = said
    code, _, line = run("fetch")
    assert code == 2 and line.startswith(f"{typed} fetch: error: ")
    assert line.endswith(f"for example: {typed} fetch fashion-mnist\n")
    Path("run").mkdir()
    Path("run/checkpoint.npz").touch()
    assert f"; run {typed} train again" in run("predict", "run", "x.png")[2]


# matplotlib comes last. Before a run that nothing follows, the threads are in the environment.
SPY = "import os\nprint('threads', os.environ.get('MKL_NUM_THREADS'))\nraise ImportError\n"
PROGRAM = """
import sys
from npsoftmax.commands import train
def all_day():
    train.main(sys.argv[1:])
    print("on")
all_day()
"""


@pytest.mark.parametrize("way", ["script", "npsoftmax", "python -m npsoftmax", "program"])
def test_a_command_knows_whether_anything_follows_it(way, installed, tmp_path):
    (tmp_path / "matplotlib.py").write_text(SPY)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = {
        "script": [SCRIPT], "program": [program], "npsoftmax": [installed, "train"],
        "python -m npsoftmax": ["-m", "npsoftmax", "train"],
    }[way]  # fmt: skip
    out = run_process(words[0], tmp_path, *words[1:], *SMALL, PYTHONPATH=tmp_path).stdout
    assert f"threads {None if way == 'program' else 1}\n" in out
    assert out.endswith("on\n") == (way == "program")


def test_a_command_imports_no_other():
    code = (
        "import sys; from npsoftmax.__main__ import main; sys.argv = ['npsoftmax', 'fetch']; main()"
        "\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = {name for name in done.stdout.split() if name.startswith("npsoftmax.commands.")}
    assert commands == {"npsoftmax.commands.command_line", "npsoftmax.commands.fetch"}


def test_the_scripts_are_the_same_but_for_the_command():
    texts = {path.stem: path.read_text() for path in SCRIPTS.glob("*.py")}
    assert texts.keys() == COMMANDS.keys()
    bodies = {
        Path(name).stem: text.partition('"""\n\n')[2].replace(name, "NAME")
        for name, text in texts.items()
    }
    assert len(set(bodies.values())) == 1
