"""The benchmarks' common ground, and documents that show what was measured."""

import importlib
from functools import partial
from pathlib import Path

import definition
import measure
import numpy as np
import optimum
import optimum_peers
import pytest
import small
import softmax as softmax_benchmark

ROOT = Path(__file__).parent.parent


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


@pytest.mark.parametrize("benchmark", [softmax_benchmark, definition])
def test_unequal_answers_are_refused(benchmark):
    with pytest.raises(AssertionError, match="wrong"):
        benchmark.refuse_unequal({definition.FUSED: lambda: 1.0, "wrong": lambda: 1.1})


PAGES = {
    "softmax": "docs/numerics.md",
    "definition": "docs/exercises.md",
    "faults": "benchmarks/results/faults.md",
    **dict.fromkeys(["certified", "sets"], "docs/how_sure.md"),
    **dict.fromkeys(
        ["hot_loop", "limit", "optimum", "scaling", "scale_out", "small", "start_to_finish"],
        "benchmarks/README.md",
    ),
}


@pytest.mark.parametrize(("name", "page"), PAGES.items())
def test_a_page_shows_the_results_as_they_were_measured(name, page):
    package = {"hot_loop": "torch", "scaling": "resource", "scale_out": "distributed"}.get(name)
    if package:
        pytest.importorskip(package, reason=f"needs {package}: pip install '.[bench]'")
    text = (ROOT / page).read_text()
    benchmark = importlib.import_module(name)
    for mark, table in benchmark.tables(measure.load(name)).items():
        assert f"<!-- {mark} -->\n{table}\n<!-- /{mark} -->" in text, mark
    if page != "docs/numerics.md" and hasattr(benchmark, "picture"):
        assert (measure.RESULTS / f"{name}.png").stat().st_size > 5000
        assert f"results/{name}.png" in text


def test_the_exercises_show_what_many_classes_cost_as_it_was_measured():
    scaling = pytest.importorskip("scaling", reason="needs the module resource")
    text = (ROOT / PAGES["definition"]).read_text()
    for row in scaling.tables(measure.load("scaling"))["scaling_k"].splitlines()[2:]:
        classes, relative, *_, memory = row.strip("| ").split(" | ")
        assert f"| {classes} | {relative} | {memory} |\n" in text


def test_all_forms_of_the_definition_are_the_same_loss():
    z, y = np.log(np.array([[1.0, 1.0], [3.0, 1.0]])), np.array([0, 1])
    calls = definition.contestants(z, y)
    assert len(calls) == 5
    for name, call in calls.items():
        assert call() == pytest.approx((np.log(4) + np.log(2)) / 2), name
    definition.refuse_unequal(calls)


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


SMALL, BINARY = (optimum_peers.problem_of(200, 3, k, smallest=0.1) for k in (3, 2))


@pytest.mark.parametrize("problem", [SMALL, BINARY], ids=lambda problem: f"k {problem.k}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", optimum_peers.CONTESTANTS)
def test_every_solver_comes_to_the_optimum_and_reports_its_way(name, dtype, problem):
    package = {optimum.INTELEX: "sklearnex", optimum_peers.TORCH: "torch"}.get(name, "sklearn")
    pytest.importorskip(package)
    best = optimum.best_of(problem)["objective"]
    data = problem._replace(dtype=dtype).data()
    solve, told = optimum_peers.CONTESTANTS[name](data), optimum.Stopwatch(best * 1.0001, 60)
    theta = solve(500, told)
    assert data.objective()(theta) == pytest.approx(best, rel=2e-4)
    if name != optimum.OURS:  # whose start may be the optimum already
        assert data.objective()(solve(1)) > best * 1.001
    if name != optimum.NEWTON:
        assert told.points[-1][2] == pytest.approx(data.objective()(theta), rel=1e-5)
        assert all(objective > told.target for _, _, objective in told.points[:-1])


@pytest.mark.parametrize("problem", [SMALL, BINARY], ids=lambda problem: f"k {problem.k}")
def test_scikit_learn_gets_the_fewest_iterations_to_the_objective(problem):
    data = problem.data()
    target = optimum.best_of(problem)["objective"] * (1 + 1e-4)
    fit, iterations = small.scikit_learns(data, target)
    assert data.objective()(fit()) <= target
    solve = optimum_peers.CONTESTANTS[optimum_peers.LBFGS](data)
    assert data.objective()(solve(iterations - 1)) > target


def test_bytes_count_from_0_to_1_for_every_solver():
    X = np.array([[0, 255], [51, 102]], np.uint8)
    data = optimum_peers.Data(X, np.array([0, 1]), 2, "float32", 0.1)
    np.testing.assert_allclose(data.rows(), [[0, 0.2], [1, 0.4]], rtol=1e-6)
    theta = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    losses = np.log1p(np.exp([-(2 * 0.2 + 3), 1 + 2 * 0.4 + 3]))
    assert data.objective()(theta) == pytest.approx(losses.mean() + 0.05 * 5)


def test_scipy_is_watched_only_for_a_while():
    from scipy import optimize

    minimise = optimize.minimize
    with optimum_peers.watched(lambda *_: True, 1):
        assert optimize.minimize is not minimise
    assert optimize.minimize is minimise


def test_a_stopwatch_ends_a_run_at_its_target_or_when_time_is_up():
    stopwatch = optimum.Stopwatch(target=1.0, limit=60)
    assert [stopwatch(number, value) for number, value in enumerate((3.0, 1.0))] == [False, True]
    assert [(number, value) for number, _, value in stopwatch.points] == [(0, 3.0), (1, 1.0)]
    assert optimum.Stopwatch(target=1.0, limit=0)(0, 3.0)


def test_the_fewest_iterations_are_found_without_trying_all():
    tried = []

    def fit(iterations, seconds=None):
        tried.append(iterations)
        return iterations, seconds or iterations / 1000, 100 / iterations

    points = optimum.searched(fit, [10.0, 3.0], limit=60)
    assert tried == [1, 2, 4, 8, 16, 32, 64, 12, 10, 9, 48, 40, 36, 34]
    assert [point[0] for point in points] == sorted(tried)
    assert optimum.reached({"points": points}, 10.0)[0] == 10
    assert 34 <= optimum.reached({"points": points}, 3.0)[0] <= 37
    assert len(optimum.searched(partial(fit, seconds=40.0), [3.0], limit=60)) == 1
    assert len(optimum.searched(fit, [0.0], limit=60)) == 10


def test_a_wrong_claim_is_refused():
    optimum.refuse_wrong_claim("solver", 1.0, 1.000001)
    with pytest.raises(SystemExit, match="solver: it reports 1"):
        optimum.refuse_wrong_claim("solver", 1.0, 1.001)


def test_the_table_says_who_was_absent_or_late():
    ours = {"points": [(0, 0.5, 2.0), (1, 1.0, 1.005), (2, 2.0, 1.0)]}
    late = {"points": [(1, 3.0, 1.005), (2, 5.0, 1.0009), (3, 4.0, 1.0009), (4, 5.0, 1.0009)]}
    traces = {"npsoftmax": ours, "late": late, "absent": None}
    table = optimum.table_of({"best": {"objective": 1.0}, "traces": traces}).splitlines()
    assert table[2:] == [
        "| npsoftmax | 1 | 2 | 2 | 1 |",
        "| late | 3 | 4 | not in 5 s | 2 |",
        "| absent | not installed | - | - | - |",
    ]


def test_scikit_learns_quicker_solver_runs_in_turn():
    trace = {
        name: {"threads": 1, "points": [(number, float(number), 1.0)]}
        for number, name in enumerate((optimum.OURS, optimum.NEWTON, optimum.LBFGS), start=1)
    }
    traces = {**trace, optimum.INTELEX: None}
    calls = []

    def call(_, __, name, iterations, *___):
        calls.append((name, iterations))
        return float(iterations)

    times = optimum.in_turn(SMALL, traces, best=1.0, rounds=2, call=call)
    assert calls == [(optimum.OURS, 1), (optimum.NEWTON, 2)] * 2
    assert times == {optimum.OURS: [1.0, 1.0], optimum.NEWTON: [2.0, 2.0]}
    rows = optimum.table_in_turn({"P": {"in_turn": times}}).splitlines()
    assert rows[3] == "| P | scikit-learn newton-cg | 2 | 2.00 | 2.00, 2.00 |"
