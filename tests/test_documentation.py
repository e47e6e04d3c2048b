"""Documents name commands, files and functions that exist; docstrings name every parameter.

Their Python examples are doctests (setup.cfg).
"""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from npsoftmax.commands.command_line import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_begins_with_the_two_commands():
    first_block = re.search(r"```\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert first_block == [
        "python -m pip install . && python scripts/train.py",
        'python -m pip install ".[test]" && python -m pytest',
    ]


DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "tutorial/*.md", "tutorial/*.py")
    for path in ROOT.glob(pattern)
)


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    path = ROOT / document
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text()):
        name, _, anchor = link.partition("#")
        page = path.parent / name if name else path
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_files_exist(document):
    text = (ROOT / document).read_text()
    assert text.strip()
    for named in set(re.findall(r"\b(?:docs|tests|benchmarks)/\w+\.(?:py|md)\b", text)):
        assert (ROOT / named).exists(), named
    for script in set(re.findall(r"\bscripts/\w+\.py", text)):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_modules_and_functions_exist(document):
    missing = set()
    for name in sorted(set(re.findall(r"\bnpsoftmax(?:\.\w+)+", (ROOT / document).read_text()))):
        try:
            assert pkgutil.resolve_name(name) is not None, name
        except AttributeError:
            # A module is not found either if it imports a package that is not installed.
            with pytest.raises(ModuleNotFoundError) as caught:
                importlib.import_module(".".join(name.split(".")[:3]))
            assert not caught.value.name.startswith("npsoftmax"), name
            missing.add(caught.value.name)
    if missing:
        pytest.skip(f'needs {", ".join(missing)}: python -m pip install ".[test-all]"')


@pytest.mark.parametrize("document", ["README.md", "docs/commands.md"])
def test_every_command_is_named(document):
    for command in COMMANDS:
        assert f"scripts/{command}.py" in (ROOT / document).read_text(), command


def test_every_flag_is_explained():
    text = (ROOT / "docs" / "commands.md").read_text()
    for module in (ROOT / "npsoftmax" / "commands").glob("*.py"):
        for flag in re.findall(r'"(--[a-z0-9-]+)"', module.read_text()):
            assert flag in text, f"{module.name} {flag}"


PUBLIC_FUNCTIONS = [
    pytest.param(node, id=f"{path.stem}.{node.name}")
    for path in sorted((ROOT / "npsoftmax").rglob("*.py"))
    for module in [ast.parse(path.read_text())]
    for scope in [module, *(node for node in module.body if isinstance(node, ast.ClassDef))]
    for node in scope.body
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
]


@pytest.mark.parametrize("node", PUBLIC_FUNCTIONS)
def test_docstrings_name_every_parameter(node):
    text = ast.get_docstring(node)
    assert text, "has no docstring"
    if "Parameters\n" in text:
        for argument in [*node.args.args, *node.args.kwonlyargs]:
            if argument.arg not in ("self", "cls"):
                assert re.search(rf"(^|, ){argument.arg}\b", text, re.MULTILINE), argument.arg
