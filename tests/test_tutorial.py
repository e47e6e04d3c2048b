"""The notebooks of tutorial/ run from the first cell to the last, without a network."""

import re
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[1] / "tutorial"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.py"))


def numbers(pattern, text):
    """Return the numbers in the first line that a pattern matches."""
    return [float(number) for number in re.search(pattern, text).groups()]


def check_floor(text):
    """The floor is below the loss, and close enough to say something."""
    loss, floor = numbers(r"loss is (\S+); the smallest possible is at least (\S+)\.\n", text)
    assert 0.8 * loss < floor < loss


def check_from_scratch(text):
    assert "softmax:  [nan  0.  0.]\nloss of class 1: [inf]" in text
    assert "softmax:  [1. 0. 0.]\nloss of class 1: [1000.]" in text
    slopes = re.findall(r"formula (\S+), estimate (\S+)\n", text)
    assert slopes
    for formula, estimate in slopes:
        assert float(formula) == pytest.approx(float(estimate), abs=2e-8) != 0
    ours, theirs = numbers(r"test loss: ours (\S+)\n\s+Trainer's (\S+)\n", text)
    assert ours == pytest.approx(theirs, rel=1e-10)
    check_floor(text)


def check_jax_slides(text):
    assert "\n1.4979\n" in text
    assert "three lines: [nan  0.  0.]\nnps.softmax: [1. 0. 0.]" in text
    (ours,) = numbers(r"epoch 10: test loss (\S+),", text)
    (theirs,) = numbers(r"\ntest loss (\S+),", text)
    assert ours == pytest.approx(theirs, abs=1.1e-4)
    check_floor(text)


FIGURES = {"from_scratch.py": 7, "jax_slides.py": 5}
CHECKS = {"from_scratch.py": check_from_scratch, "jax_slides.py": check_jax_slides}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_its_figures(name, monkeypatch):
    monkeypatch.delenv("NPSOFTMAX_DATA", raising=False)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = jupytext.read(FOLDER / name)
    where = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    streams = [output for output in outputs if output.output_type == "stream"]
    assert not [output.text for output in streams if output.name == "stderr"]
    figures = sum("image/png" in output.get("data", ()) for output in outputs)
    assert figures == FIGURES.get(name, figures) and figures > 0
    CHECKS.get(name, len)("".join(output.text for output in streams))
