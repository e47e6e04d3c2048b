"""Checkpoints are read exactly or refused; malformed files are in test_hostile_files.py."""

import dataclasses
import platform

import numpy as np
import pytest

from npsoftmax import storage
from npsoftmax.checkpoint import Checkpoint, check_settings, environment, newest_usable
from npsoftmax.errors import CorruptFileError, InputError, ResumeWarning
from npsoftmax.history import EpochRecord, Progress
from npsoftmax.optimisers import Adam, Descent

THETA = np.arange(6.0).reshape(2, 3, order="F")
RECORD = EpochRecord(1, 0.5, 0.75, 0.6, 0.7, 0.1, 0.02, 0.9, 0.5, None, None)


def adam_state():
    rule = Adam()
    rule.update(THETA.copy(), np.ones_like(THETA))
    return rule.state


@pytest.fixture
def good():
    return Checkpoint(
        {"seed": 3}, {"threads": 1}, THETA, adam_state(), Progress(1, 2, 20, 10, 5.0), [RECORD]
    )


def test_round_trip(good, tmp_path):
    good.write(tmp_path / "c.npz")
    twin = Checkpoint.read(tmp_path / "c.npz")
    assert (twin.settings, twin.environment) == (good.settings, good.environment)
    assert (twin.progress, twin.history) == (good.progress, good.history)
    np.testing.assert_array_equal(twin.theta, THETA)
    assert twin.theta.flags.f_contiguous
    for name, value in good.state.items():
        np.testing.assert_array_equal(twin.state[name], value)
    twin.check_run(THETA, Adam(), num_steps=5, source="c.npz")
    with pytest.raises(CorruptFileError, match="expected at most 100 bytes"):
        Checkpoint.read(tmp_path / "c.npz", max_bytes=100)


def test_other_settings_are_named(good):
    check_settings(good.settings, {"seed": 3}, "c.npz")
    with pytest.raises(InputError, match=r"c\.npz: .* seed 3 there, 4 here, l2 None there, 0 here"):
        check_settings(good.settings, {"seed": 4, "l2": 0}, "c.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"theta": THETA[:1]},
        {"theta": np.float64(1.0)},
        {"theta": THETA.astype(np.float32)},
        {"theta": THETA + np.nan},
        {"state": {}},
        {"state": {"first": THETA}},
        {"state": {**adam_state(), "extra": THETA}},
        {"state": {**adam_state(), "second": THETA[:1]}},
        {"state": {**adam_state(), "first": THETA + np.inf}},
        {"progress": Progress(1, 6)},
        {"progress": Progress(2, 0)},
        {"history": []},
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(good, change):
    bad = dataclasses.replace(good, **change)

    def check():
        bad.check("c.npz")
        bad.check_run(THETA, Adam(), num_steps=5, source="c.npz")

    with pytest.raises(CorruptFileError, match=r"c\.npz: expected"):
        check()


def test_before_the_first_step_there_is_no_state():
    fresh = Checkpoint({}, {}, THETA, {}, Progress(), [])
    fresh.check_run(THETA, Adam(), num_steps=5, source="c.npz")
    begun = dataclasses.replace(fresh, progress=Progress(step=1))
    begun.check_run(THETA, Descent(), num_steps=5, source="c.npz")
    with pytest.raises(CorruptFileError, match="expected the arrays"):
        begun.check_run(THETA, Adam(), num_steps=5, source="c.npz")


def test_the_previous_checkpoint_is_kept_and_read_if_the_newest_is_damaged(good, tmp_path):
    newest, before = tmp_path / "c.npz", tmp_path / "c.previous.npz"
    good.write(newest)
    assert not before.exists()
    first = newest.read_bytes()
    dataclasses.replace(good, theta=THETA + 1).write(newest)
    assert before.read_bytes() == first
    assert newest_usable(newest, Checkpoint.read).theta[0, 0] == 1
    for damage in (newest.read_bytes()[:-1], b"", None):
        newest.unlink()
        if damage is not None:
            newest.write_bytes(damage)
        with pytest.warns(ResumeWarning, match=r"c\.npz.*; resuming from .*c\.previous\.npz"):
            assert newest_usable(newest, Checkpoint.read).theta[0, 0] == 0


def test_a_whole_file_of_another_kind_is_refused(good, tmp_path):
    newest = tmp_path / "c.npz"
    good.write(newest)
    storage.write(newest, "model", {}, {}, keep_previous=True)
    with pytest.raises(CorruptFileError, match="expected a checkpoint, got a model"):
        newest_usable(newest, Checkpoint.read)


def test_two_damaged_checkpoints_are_refused(tmp_path):
    (tmp_path / "c.npz").write_bytes(b"damaged")
    with pytest.raises(CorruptFileError, match=r"c\.npz"):
        newest_usable(tmp_path / "c.npz", Checkpoint.read)
    (tmp_path / "c.previous.npz").write_bytes(b"damaged")
    with pytest.raises(CorruptFileError, match=r"c\.npz.*; the previous one .*c\.previous\.npz"):
        newest_usable(tmp_path / "c.npz", Checkpoint.read)


def test_the_environment_of_a_processor_without_optional_extensions(monkeypatch):
    build = {"SIMD Extensions": {"baseline": ["X86_V2"], "not found": ["X86_V3"]}}
    monkeypatch.setattr(np, "show_config", lambda mode: build)
    assert environment(1)["machine"] == platform.machine()
