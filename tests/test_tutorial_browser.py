"""The notebook that runs in the browser, in a real one: opened from the disk, as its readers do."""

import importlib
import re
from pathlib import Path

import browser
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "build" / "browser" / "index.html"
# A cell that trains waits for a compiler to WebAssembly, on busy cores.
PATIENCE = 600_000


@pytest.fixture(scope="module")
def chromium():
    if not PAGE.exists():
        pytest.skip("needs the page: python tutorial/browser/make_page.py build/browser")
    with browser.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page(chromium):
    """Yield the page once Python is ready; in the end it must have stayed alone."""
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE)
    problems, requests = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(PAGE.as_uri())
    page.get_by_text("Python is ready.").wait_for()
    yield page
    local = (PAGE.parent.as_uri(), "blob:", "data:")
    assert problems == []
    assert [url for url in requests if not url.startswith(local)] == []


def cell(page, number, code):
    """Write a cell, run it, and return its output."""
    chosen = page.locator(".cell").nth(number)
    chosen.locator(".code").fill(code)
    chosen.locator(".run").click()
    page.get_by_text("Python is ready.").wait_for()
    return chosen.locator(".output")


def test_a_cell_can_be_changed_and_runs(page):
    assert (
        cell(page, 0, "x = 6\nprint('one')\nprint('two')\nx * 7").inner_text() == "one\ntwo\n42\n"
    )
    assert cell(page, 1, "x + 1").inner_text().strip() == "7", "the cells share their names"


def test_what_goes_wrong_is_shown_and_the_rest_is_left_out(page):
    page.locator(".cell").nth(0).locator(".code").fill("1 / 0")
    page.locator("#run-all").click()
    page.get_by_text("ZeroDivisionError").wait_for()
    page.get_by_text("Python is ready.").wait_for()
    assert page.locator(".cell").nth(2).locator(".output").is_hidden()


def test_a_cell_that_does_not_end_can_be_stopped(page):
    page.locator(".cell").nth(0).locator(".code").fill("x = 1\nwhile True: pass")
    page.locator(".cell").nth(0).locator(".run").click()
    page.get_by_text("Running.").wait_for()
    page.locator("#restart").click()
    page.get_by_text("Python is ready.").wait_for()
    assert "NameError" in cell(page, 0, "x").inner_text()


def test_models_and_figures_are_shown_as_in_a_notebook(page):
    model = "import npsoftmax as nps\nnps.SoftmaxRegression(2, 3, classes=['<b>', 'b', 'c'])"
    assert "<b>, b, c" in cell(page, 0, model).locator("table").inner_text()
    figure = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    shown = cell(page, 1, figure)
    shown.locator("img").wait_for()
    assert shown.locator("img").evaluate("image => image.naturalWidth") > 300
    assert shown.inner_text() == "", "no warning, and no list of lines"


def test_the_security_policy_refuses_a_connection(chromium):
    page = chromium.new_page()
    page.goto(PAGE.as_uri())
    attempt = "() => fetch('https://example.org').then(() => 'opened', error => error.message)"
    assert page.evaluate(attempt) == "Failed to fetch"
    page.close()


@pytest.mark.slow
def test_the_whole_notebook_runs(page):
    page.reload()
    page.get_by_text("Python is ready.").wait_for()
    page.locator("#run-all").click()
    page.get_by_text("Running.").wait_for()
    page.get_by_text("Python is ready.").wait_for()
    assert page.locator(".output .error").count() == 0
    assert page.locator(".output img").count() >= 6
    printed = "".join(page.locator(".output").all_inner_texts())
    judged = re.search(r"Our loss is (\S+); the smallest possible is at least (\S+)\.", printed)
    loss, floor = map(float, judged.groups())
    assert floor < loss < 1.2 * floor


@pytest.fixture
def make_page(monkeypatch):
    pytest.importorskip("latex2mathml", reason="needs what builds the page: pip install '.[docs]'")
    monkeypatch.syspath_prepend(REPOSITORY / "tutorial" / "browser")
    return importlib.import_module("make_page")


def test_a_link_that_leads_nowhere_is_shown_as_text(make_page, tmp_path):
    notebook = tmp_path / "notebook.py"
    text = "# %% [markdown]\n# See [a file](../docs/a.md#b) and [a site](https://example.org).\n"
    notebook.write_text(text)
    assert 'See a file and <a href="https://example.org">a site</a>.' in make_page.to_html(notebook)


def test_a_file_that_is_not_pyodides_is_refused(make_page, tmp_path):
    with pytest.raises(SystemExit, match=r"pyodide\.js: expected the file of Pyodide .* no such"):
        make_page.read_pyodide(tmp_path)
    (tmp_path / "pyodide.js").write_text("changed")
    with pytest.raises(SystemExit, match="got another SHA-256"):
        make_page.read_pyodide(tmp_path)
