"""What cross-entropy by its definition costs, and the page that shows it."""

import definition
import measure
import numpy as np
import pytest

PAGE = (measure.ROOT / "docs" / "exercises.md").read_text()


def test_the_page_shows_the_results_as_they_were_measured():
    for mark, table in definition.tables(measure.load("definition")).items():
        assert f"<!-- {mark} -->\n{table}\n<!-- /{mark} -->" in PAGE, mark


def test_the_page_shows_what_many_classes_cost_as_it_was_measured():
    scaling = pytest.importorskip("scaling", reason="needs the module resource")
    table = scaling.tables(measure.load("scaling"))["scaling_k"]
    for row in table.splitlines()[2:]:
        classes, relative, *_, memory = row.strip("| ").split(" | ")
        assert f"| {classes} | {relative} | {memory} |\n" in PAGE


def test_all_forms_are_the_same_loss():
    z, y = np.log(np.array([[1.0, 1.0], [3.0, 1.0]])), np.array([0, 1])
    calls = definition.contestants(z, y)
    assert len(calls) == 5
    for name, call in calls.items():
        assert call() == pytest.approx((np.log(4) + np.log(2)) / 2), name
    definition.refuse_unequal(calls)


def test_a_form_that_is_another_loss_is_refused():
    with pytest.raises(AssertionError, match="wrong"):
        definition.refuse_unequal({definition.FUSED: lambda: 1.0, "wrong": lambda: 1.1})
