"""The files about the package agree, where a version stands in several of them."""

import configparser
import re
import tomllib
from pathlib import Path

import npsoftmax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")
PYTHONS = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])


def test_hooks_use_the_versions_of_the_gate():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = re.findall(r"additional_dependencies: \[(.*)\]", hooks)
    assert pinned and set(pinned) <= set(PROJECT["dependency-groups"]["lint"])


def test_the_oldest_python_is_the_same_everywhere():
    oldest = PYTHONS[0]
    assert SETUP["options"]["python_requires"] == f">={oldest}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_workflows_test_the_pythons_that_are_classified():
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    assert re.findall(r"python: \[(.*)\]", workflow) == [", ".join(f'"{v}"' for v in PYTHONS)]


def test_the_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {npsoftmax.__version__}\n" in citation
