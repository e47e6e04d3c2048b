"""The report of faults shows the records of the tests."""

from pathlib import Path
from xml.etree import ElementTree

import faults
import measure
import pytest

REPORT = """
<testsuites><testsuite>
<testcase name="test_a[T01]"><properties>
  <property name="id" value="T01"/><property name="fault" value="a reset"/>
  <property name="expected" value="file"/><property name="happened" value="file"/>
  <property name="way" value="library"/><property name="bytes_lost" value="0"/>
</properties></testcase>
<testcase name="test_b[T01]"><properties>
  <property name="id" value="T01"/><property name="fault" value="a reset"/>
  <property name="expected" value="file"/><property name="happened" value="a | b"/>
  <property name="way" value="command"/><property name="bytes_lost" value="7"/>
</properties></testcase>
<testcase name="test_c[quick]"><properties>
  <property name="id" value="K01"/><property name="fault" value="kills"/>
  <property name="expected" value="file"/><property name="happened" value="file"/>
  <property name="kills" value="1000"/>
</properties></testcase>
<testcase name="test_without_a_record"/>
</testsuite></testsuites>
"""


@pytest.fixture
def found():
    return faults.rows("downloads", ElementTree.fromstring(REPORT), quick=True)


def test_the_table_has_one_line_per_fault_with_both_outcomes(found):
    assert faults.table(found).splitlines()[2:] == [
        "| T01 | a reset | file | library: file; command: a \\| b |",
        "| K01 | kills | file | file |",
    ]


def test_counts_are_added_up_and_a_dash_means_not_counted(found):
    downloads, *others = faults.counts(found).splitlines()[2:]
    assert downloads == "| downloads | 2 | 3 | 1,000 | - | 7 |"
    assert [line.split(" | ", 1)[1] for line in others] == ["0 | 0 | - | - | - |"] * 3


def test_quick_variants_of_slow_tests_are_left_out_of_the_full_report():
    whole = faults.rows("downloads", ElementTree.fromstring(REPORT), quick=False)
    assert [row["id"] for row in whole] == ["T01", "T01"]


def test_a_failing_test_ends_the_report(monkeypatch, tmp_path):
    (tmp_path / "test_red.py").write_text("def test_red():\n    assert False, 'lost'\n")
    monkeypatch.setitem(faults.TESTS, "downloads", ("test_red.py",))
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="expected every fault to end as it should"):
        faults.observed_in("downloads", quick=True)


def test_temporary_folders_are_not_shown():
    text = "exit 2: /var/pytest-of-me/pytest-7/test_a0/run/checkpoint.npz: no"
    assert faults.without_folders(text) == "exit 2: checkpoint.npz: no"


def test_every_part_names_existing_tests():
    for paths in faults.TESTS.values():
        assert all((Path(__file__).parents[1] / path).exists() for path in paths)


def test_nothing_was_lost_and_every_fault_ended_as_it_should():
    found = measure.load("faults")["faults"]
    assert {row["part"] for row in found} == set(faults.TESTS)
    assert len({row["id"] for row in found if row["part"] == "downloads"}) >= 84
    assert sum(int(row.get("kills", 0)) for row in found if row["part"] == "crashes") >= 100
    assert {row["bytes_lost"] for row in found if "bytes_lost" in row} == {"0"}
    for row in found:
        if row["expected"] in ("file", "error"):
            assert row["happened"].startswith(row["expected"]), row
