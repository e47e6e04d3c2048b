"""A checkpoint comes back as it was, or is refused before anything of it is used."""

import dataclasses

import numpy as np
import pytest

from npsoftmax import storage
from npsoftmax.checkpoint import (
    Checkpoint,
    check_settings,
    newest_usable,
)
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
def test_what_does_not_fit_is_refused(good, change):
    bad = dataclasses.replace(good, **change)

    def check():
        bad.check("c.npz")
        bad.check_run(THETA, Adam(), num_steps=5, source="c.npz")

    with pytest.raises(CorruptFileError, match=r"c\.npz: expected"):
        check()


def test_state_of_another_rule_is_refused(good):
    with pytest.raises(CorruptFileError, match="expected the arrays"):
        good.check_run(THETA, Descent(), num_steps=5, source="c.npz")


def test_before_the_first_step_there_is_no_state():
    fresh = Checkpoint({}, {}, THETA, {}, Progress(), [])
    fresh.check_run(THETA, Adam(), num_steps=5, source="c.npz")
    begun = dataclasses.replace(fresh, progress=Progress(step=1))
    with pytest.raises(CorruptFileError, match="expected the arrays"):
        begun.check_run(THETA, Adam(), num_steps=5, source="c.npz")


GOOD = {
    "settings": {},
    "environment": {},
    "progress": dataclasses.asdict(Progress(epoch=1)),
    "history": [dataclasses.asdict(RECORD)],
}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {**GOOD, "settings": None},
        {**GOOD, "environment": 1},
        {**GOOD, "progress": {**GOOD["progress"], "epoch": "a"}},
        {**GOOD, "progress": {**GOOD["progress"], "epoch": -1}},
        {**GOOD, "progress": {**GOOD["progress"], "step": True}},
        {**GOOD, "progress": {**GOOD["progress"], "unknown": 1}},
        {**GOOD, "history": 5},
        {**GOOD, "history": [{}]},
        {**GOOD, "history": [{**GOOD["history"][0], "train_loss": "low"}]},
    ],
)
def test_strange_metadata_is_refused(tmp_path, metadata):
    storage.write(tmp_path / "c.npz", "checkpoint", {"theta": THETA}, metadata)
    with pytest.raises(CorruptFileError, match="expected a checkpoint"):
        Checkpoint.read(tmp_path / "c.npz")


def test_metadata_that_is_whole_is_taken(tmp_path):
    storage.write(tmp_path / "c.npz", "checkpoint", {"theta": THETA}, GOOD)
    assert Checkpoint.read(tmp_path / "c.npz").history == [RECORD]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": np.arange(3.0)}, "expected theta of shape"),
        ({"theta": THETA.astype(int)}, "expected theta of shape"),
        ({"theta": THETA + np.inf}, "expected finite numbers"),
        ({"state": {"first": THETA * np.nan}}, "expected finite numbers"),
        ({"history": []}, "expected a position after the 0 epochs of its history, got epoch 1"),
    ],
)
def test_what_fits_no_run_is_refused_by_whoever_reads_it(good, tmp_path, change, message):
    dataclasses.replace(good, **change).write(tmp_path / "c.npz")
    with pytest.raises(CorruptFileError, match=message):
        Checkpoint.read(tmp_path / "c.npz")


def test_the_one_before_is_kept_and_taken_if_the_newest_is_damaged(good, tmp_path):
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


def test_a_damaged_checkpoint_never_replaces_the_good_one_before(good, tmp_path):
    newest, before = tmp_path / "c.npz", tmp_path / "c.previous.npz"
    good.write(newest)
    good.write(newest)
    newest.write_bytes(b"damaged")
    dataclasses.replace(good, theta=THETA + 1).write(newest)
    assert Checkpoint.read(newest).theta[0, 0] == 1
    assert Checkpoint.read(before).theta[0, 0] == 0


def test_a_whole_checkpoint_that_is_of_no_use_is_refused_and_not_passed_over(good, tmp_path):
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


def test_a_checkpoint_far_larger_than_the_run_is_not_read(good, tmp_path):
    good.write(tmp_path / "c.npz")
    with pytest.raises(CorruptFileError, match="expected at most 100 bytes"):
        Checkpoint.read(tmp_path / "c.npz", max_bytes=100)
