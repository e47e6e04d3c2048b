"""The benchmarks' common ground, and documents that show what was measured."""

from pathlib import Path

import measure
import pytest
import softmax as softmax_benchmark

ROOT = Path(__file__).parent.parent


def test_numerics_shows_the_results_as_they_were_measured():
    text = (ROOT / "docs" / "numerics.md").read_text()
    for name, table in softmax_benchmark.tables(measure.load("softmax")).items():
        assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in text, name


def test_the_claims_hold_in_the_results():
    results = measure.load("softmax")["accuracy"]
    for dtype, claim in (("float32", 0.501), ("float64", 3.0)):
        assert len(results[dtype]) == len(softmax_benchmark.oracle.FAMILIES)
        for libraries in results[dtype].values():
            for error in libraries[softmax_benchmark.OURS].values():
                assert error <= claim


def test_contestants_run_in_turn():
    calls = []
    times = measure.in_turn(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, seconds=0
    )
    assert "".join(calls) == "aabb" + "aabb" * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_ratios_are_taken_round_by_round():
    times = {"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 8.0]}
    compared = measure.compared(times, "a")
    assert compared["b"] == {
        "median_seconds": 4.0,
        "ratio": 2.0,
        "ratio_low": 2.0,
        "ratio_high": 2.0,
    }


def test_text_is_inserted_between_its_marks(tmp_path):
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    measure.insert(document, "t", "new")
    assert document.read_text() == "before\n<!-- t -->\nnew\n<!-- /t -->\nafter\n"
    with pytest.raises(SystemExit, match="expected the lines"):
        measure.insert(document, "absent", "new")


def test_unequal_answers_are_refused():
    with pytest.raises(AssertionError, match="wrong"):
        softmax_benchmark.refuse_unequal({"right": lambda: 1.0, "wrong": lambda: 1.1})


def test_the_page_of_benchmarks_shows_the_epochs_as_they_were_measured():
    pytest.importorskip("torch")
    import hot_loop

    text = (ROOT / "benchmarks" / "README.md").read_text()
    results = measure.load("hot_loop")
    assert f"<!-- hot_loop -->\n{hot_loop.table_of(results['epochs'])}\n<!-- /hot_loop -->" in text
    assert measure.described(results["machine"]) in text
