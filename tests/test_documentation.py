"""The documents keep their promises: commands, links, numbers of the flags.

The README's Python and the docstrings' examples are run by pytest itself (doctest, setup.cfg).
"""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import npsoftmax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_begins_with_the_two_commands():
    first_block = re.search(r"```\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert first_block == [
        "python -m pip install . && python scripts/train.py",
        'python -m pip install ".[test]" && python -m pytest',
    ]


DOCUMENTS = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_files_exist(document):
    text = (ROOT / document).read_text()
    assert text.strip()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / document.parent / link).exists(), link
    for named in set(re.findall(r"\b(?:docs|tests|benchmarks)/\w+\.(?:py|md)\b", text)):
        assert (ROOT / named).exists(), named
    for script in set(re.findall(r"\bscripts/\w+\.py", text)):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_named_modules_and_functions_exist(document):
    for name in sorted(set(re.findall(r"\bnpsoftmax(?:\.\w+)+", (ROOT / document).read_text()))):
        assert pkgutil.resolve_name(name) is not None, name


def test_readme_names_every_script():
    for script in (ROOT / "scripts").glob("*.py"):
        if script.name not in ("command_line.py", "run_folder.py", "solvers.py", "workers.py"):
            assert f"scripts/{script.name}" in README


def test_contributing_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for room in (ROOT / "npsoftmax").iterdir():
        if room.suffix == ".py" and room.name != "__init__.py":
            assert f"`{room.name}`" in text, room.name
        if room.is_dir() and room.name != "__pycache__":
            assert f"`{room.name}/`" in text, room.name


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


def test_every_public_function_of_functional_is_documented_in_full():
    for name in npsoftmax.functional.__all__:
        text = getattr(npsoftmax.functional, name).__doc__
        for section in ("Parameters", "Returns", "Raises", "Examples"):
            assert f"{section}\n" in text, f"{name} lacks {section}"
