"""The examples of docs/derivation.md run, and it derives every gradient."""

import doctest
from pathlib import Path

import pytest

from npsoftmax import functional

DOCUMENT = Path(__file__).parents[1] / "docs" / "derivation.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_examples_print_the_output_shown(pytestconfig):
    flags = sum(
        doctest.OPTIONFLAGS_BY_NAME[name] for name in pytestconfig.getini("doctest_optionflags")
    )
    result = doctest.testfile(
        str(DOCUMENT), module_relative=False, optionflags=flags, encoding="utf-8"
    )
    assert result.attempted > 10
    assert result.failed == 0


@pytest.mark.parametrize("name", [f for f in functional.__all__ if f.endswith("_grad")])
def test_every_gradient_is_derived(name):
    assert f"`npsoftmax.functional.{name}`" in TEXT
