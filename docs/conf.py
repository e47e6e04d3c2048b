"""The documentation site: ``sphinx-build -c docs . build/site``, from the root of the repository.

The sources are the Markdown files that GitHub shows, where they are, so that their links lead to
the same files in both places. The site is read without a network: everything it shows is in it.
"""

import os
import posixpath
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import npsoftmax

project = "npsoftmax"
copyright = "2026, the npsoftmax authors"
version = release = npsoftmax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
include_patterns += ["docs/**.md", "docs/**.rst", "benchmarks/**.md", "tutorial/*"]

# GitHub's dialect of Markdown: its formulas, and its anchors of headings.
myst_enable_extensions = ["dollarmath", "html_image"]
myst_dmath_allow_space = False
myst_fence_as_directive = ["math"]
myst_heading_anchors = 6

# For the notebooks: two threads of the BLAS on busy cores took 3 to 12 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_default_options = {"members": True}
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings name the types
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, without entries of its own
# Names of other packages have no page here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!npsoftmax).*")]

html_theme = "furo"
html_title = "npsoftmax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    # A line of a training run fits.
    "light_css_variables": {"code-font-size": "78%"},
    "top_of_page_buttons": [],
}
highlight_language = "none"  # for blocks without a name: commands and what they print

# The package holds MathJax for Django, which it does not need. SVG needs no fonts.
mathjax_folder = Path(find_spec("mathjax").submodule_search_locations[0])
html_static_path.append(str(mathjax_folder / "static/mathjax/es5/tex-svg.js"))
mathjax_path = "tex-svg.js"


def prepare(app: Any, document: str, source: list[str]) -> None:
    """Offer linked code as a file, and append the table of contents to the README."""

    def as_file(match: re.Match[str]) -> str:
        page = posixpath.normpath(posixpath.join(posixpath.dirname(document), match[1]))
        return match[0] if page in app.env.found_docs else f"](path:{match[1]}{match[2]})"

    # MyST takes each file with the suffix of a notebook for a page.
    source[0] = re.sub(r"\]\(([^):#]+)(\.py|\.md)\)", as_file, source[0])
    if document == root_doc:
        source[0] += Path(app.confdir, "contents.txt").read_text(encoding="utf-8")


def leave_out(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which the class describes."""
    return True if str(member.__doc__).startswith("Alias for field number") else None


def copy_home(app: Any, error: Exception | None) -> None:
    """Give the first page the name that a server looks for, too."""
    if not error and app.builder.format == "html":
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app: Any) -> None:
    """Connect these functions."""
    app.connect("source-read", prepare)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("build-finished", copy_home)
