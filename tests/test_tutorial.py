"""The notebooks of tutorial/ run from the first cell to the last, without a network."""

import re
from pathlib import Path

import numpy as np
import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[1] / "tutorial"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.py"))
FLOOR = r"loss(?: with the penalty)? is (\S+); the smallest possible is at least (\S+)\.\n"


def numbers(pattern, text):
    """Return the numbers in the first line that a pattern matches."""
    return [float(number) for number in re.search(pattern, text).groups()]


def check_floor(text):
    """The floor is below the loss, and close enough to say something."""
    loss, floor = numbers(FLOOR, text)
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


def check_julia_chapter(text):
    assert "\n[0.1 0.5]\n1.4978661367769954\n" in text
    assert "float32 as above    [nan  0.  0.] [nan nan nan]" in text
    lines = re.findall(r"\[ Info: Train Loss: \S+, Val Loss: (\S+), Val Acc: (\S+)\n", text)
    losses = np.array(lines, float)
    assert losses.shape == (21, 2)  # ten epochs twice, and the last one in float32
    assert losses[10:20] == pytest.approx(losses[:10], abs=1e-4)
    (difference,) = numbers(r"difference of two weights: (\S+)\n", text)
    assert difference < 1e-12
    ours, theirs = numbers(r"mean over the images  (\S+)\nthe project's +(\S+)\n", text)
    assert ours == theirs
    assert "[[0.03 0.04]]: in the chapter [[0.6 0.8]], by ClipNorm(1.0) [[0.03 0.04]]" in text
    assert "from probabilities: 15.94" in text and "from logits:        50.0\n" in text
    loss, floor = numbers(FLOOR, text)
    assert floor < loss


def check_photo_demo(text):
    assert len(re.findall(r"^\d\) \S+ +: [01]\.\d{3}$", text, re.MULTILINE)) == 6
    loss, floor = numbers(FLOOR, text)
    assert floor < loss
    table = {
        row: numbers(rf"{row} +(\S+) +(\S+)\n", text)
        for row in ("the demo's recipe", "not normalised", "the project's recipe")
    }
    (demo, is_sure), (same, is_unsure), (project, _) = table.values()
    assert max(demo, same) < 0.2 and project > 0.65
    assert is_sure > 0.8 and is_unsure < 0.5
    pixels, patches = numbers(r"pixels +test accuracy (\S+)\npatches +test accuracy (\S+)\n", text)
    assert patches > pixels + 0.05


FIGURES = {"from_scratch.py": 6, "jax_slides.py": 5, "julia_chapter.py": 5, "photo_demo.py": 8}
CHECKS = {
    "from_scratch.py": check_from_scratch,
    "jax_slides.py": check_jax_slides,
    "julia_chapter.py": check_julia_chapter,
    "photo_demo.py": check_photo_demo,
}


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
