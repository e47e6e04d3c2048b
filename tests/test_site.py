"""The documentation site builds without a warning, its links lead somewhere, it needs no net."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from posixpath import join
from types import FunctionType
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium

ROOT = Path(__file__).parents[1]
NEEDED = ("sphinx", "myst_nb", "furo", "jupytext", "mathjax")
MODULES = ["data", "errors", "features", "functional", "history", "lbfgs", "metrics", "objective"]
MODULES += ["optimisers", "storage"]
# One page of each kind, with what they show.
PAGES = [
    "index.html",
    "docs/derivation.html",
    "docs/web_page.html",
    "docs/api/measures.html",
    "benchmarks/README.html",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the site in NPSOFTMAX_SITE, or build it here without executing the notebooks."""
    if os.environ.get("NPSOFTMAX_SITE"):
        return ROOT / os.environ["NPSOFTMAX_SITE"]
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        pytest.skip(f'needs {", ".join(missing)}: python -m pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs"]
    done = subprocess.run(
        [*build, "-D", "nb_execution_mode=off", ".", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """The ids of a page, and what it links to or shows."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src"):
                self.links.add(value)


def test_links_and_anchors_lead_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    broken = set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                ids = pages[target].ids if target in pages else set()
                if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in ids):
                    broken.add(f"{path.relative_to(site)}: {link}")
    assert not broken, sorted(broken)


def test_every_public_name_is_in_the_reference(site):
    with (site / "objects.inv").open("rb") as stream:
        entries = import_module("sphinx.util.inventory").InventoryFile.load(stream, "", join)
    kinds = ("py:class", "py:exception", "py:function")
    described = [
        resolve_name(":".join(name.rsplit(".", 1))) for kind in kinds for name in entries[kind]
    ]
    for module in ["npsoftmax", *(f"npsoftmax.{name}" for name in MODULES)]:
        for name in import_module(module).__all__:
            value = resolve_name(f"{module}:{name}")
            is_described = any(value is each for each in described)
            assert is_described or not isinstance(value, FunctionType | type), name


@pytest.fixture(scope="module")
def browser():
    with chromium() as real:
        yield real


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_no_network_and_fits_a_phone(site, browser, name):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    troubles = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("request", lambda request: troubles.append(request.url) if is_outside(request) else 0)
    page.goto((site / name).as_uri())
    formulas = page.locator(".math").count()
    if formulas:
        page.locator("mjx-container").nth(formulas - 1).wait_for(state="attached")
        page.evaluate("MathJax.startup.promise.then(() => null)")
    # MathJax writes an unknown command in red.
    wrong = page.locator("mjx-merror, [data-mml-node=merror], mjx-container [fill=red]")
    assert not troubles and not wrong.all_text_contents()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CUT_OFF) == []
    context.close()


def is_outside(request):
    return not request.url.startswith(("file:", "data:", "blob:"))


# What is wider than the screen, and in nothing that scrolls. Only screen readers see the MathML.
CUT_OFF = """
() => {
  const scrolls = (element) => {
    for (; element.tagName !== "BODY"; element = element.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(element).overflowX)) return true;
    return false;
  };
  return [...document.querySelectorAll("article *")]
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
    .filter((element) => !element.closest("mjx-assistive-mml") && !scrolls(element))
    .map((element) => element.outerHTML.slice(0, 200));
}
"""
