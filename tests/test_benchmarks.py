"""The benchmarks' common ground, and documents that show what was measured."""

import importlib
from functools import partial
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


@pytest.mark.parametrize("name", ["hot_loop", "limit", "scaling", "start_to_finish"])
def test_the_page_of_benchmarks_shows_the_results_as_they_were_measured(name):
    pytest.importorskip({"hot_loop": "torch", "scaling": "resource"}.get(name, "numpy"))
    benchmark = importlib.import_module(name)
    text = (ROOT / "benchmarks" / "README.md").read_text()
    for mark, table in benchmark.tables(measure.load(name)).items():
        assert f"<!-- {mark} -->\n{table}\n<!-- /{mark} -->" in text, mark
    assert (measure.RESULTS / f"{name}.png").stat().st_size > 5000
    assert f"results/{name}.png" in text


def test_results_are_published_as_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    page = tmp_path / "page.md"
    page.write_text("<!-- t -->\n<!-- /t -->\n")

    def published(*flags):
        arguments = measure.flags("What?", rounds=3).parse_args(flags)
        draw = partial(measure.bars, title="T", unit="ms")
        measure.publish("name", {"g": {"a": 1.0}}, {"t": "table"}, draw, arguments, page)
        assert capsys.readouterr().out.startswith("table\n")
        return sorted(path.name for path in tmp_path.rglob("*.*")), "table" in page.read_text()

    assert published("--quick", "--docs") == (["page.md"], False)
    assert published() == (["name.json", "name.png", "page.md"], False)
    assert published("--docs") == (["name.json", "name.png", "page.md"], True)
    assert measure.load("name") == {"g": {"a": 1.0}}
