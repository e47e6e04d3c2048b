"""A checkpoint comes back as it was, or is refused before anything of it is used."""

import dataclasses

import numpy as np
import pytest

from npsoftmax import storage
from npsoftmax.checkpoint import Checkpoint, refuse_other_settings
from npsoftmax.errors import CorruptFileError, InputError
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
    return Checkpoint({"seed": 3}, THETA, adam_state(), Progress(1, 2, 20, 10, 5.0), [RECORD])


def test_round_trip(good, tmp_path):
    good.write(tmp_path / "c.npz")
    twin = Checkpoint.read(tmp_path / "c.npz")
    assert (twin.settings, twin.progress, twin.history) == (
        good.settings, good.progress, good.history,
    )  # fmt: skip
    np.testing.assert_array_equal(twin.theta, THETA)
    assert twin.theta.flags.f_contiguous
    for name, value in good.state.items():
        np.testing.assert_array_equal(twin.state[name], value)
    twin.refuse_misfit(THETA, Adam(), num_steps=5, source="c.npz")


def test_other_settings_are_named(good):
    refuse_other_settings(good.settings, {"seed": 3}, "c.npz")
    with pytest.raises(InputError, match=r"c\.npz: .* seed 3 there, 4 here, l2 None there, 0 here"):
        refuse_other_settings(good.settings, {"seed": 4, "l2": 0}, "c.npz")


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
    with pytest.raises(CorruptFileError, match=r"c\.npz: expected"):
        bad.refuse_misfit(THETA, Adam(), num_steps=5, source="c.npz")


def test_state_of_another_rule_is_refused(good):
    with pytest.raises(CorruptFileError, match="expected the arrays"):
        good.refuse_misfit(THETA, Descent(), num_steps=5, source="c.npz")


def test_before_the_first_step_there_is_no_state():
    fresh = Checkpoint({}, THETA, {}, Progress(), [])
    fresh.refuse_misfit(THETA, Adam(), num_steps=5, source="c.npz")
    begun = dataclasses.replace(fresh, progress=Progress(step=1))
    with pytest.raises(CorruptFileError, match="expected the arrays"):
        begun.refuse_misfit(THETA, Adam(), num_steps=5, source="c.npz")


GOOD = {
    "settings": {},
    "progress": dataclasses.asdict(Progress()),
    "history": [dataclasses.asdict(RECORD)],
}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {**GOOD, "settings": None},
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
