"""Records of training: means over samples, and the printed line."""

import dataclasses

import pytest

from npsoftmax.history import EpochRecord, Progress


def test_batches_are_weighted_by_their_size():
    progress = Progress()
    progress.add(loss=1.0, num_correct=3, num_samples=3)
    progress.add(loss=5.0, num_correct=0, num_samples=1)
    assert (progress.step, progress.num_seen, progress.num_correct) == (2, 4, 3)
    assert progress.loss_sum / progress.num_seen == 2.0
    assert (progress.last_loss, progress.last_acc) == (5.0, 0.0)


def test_a_record_is_frozen_and_prints_its_means():
    record = EpochRecord(3, 0.5, 0.75, 0.6, 0.7, 0.1, 0.02, 9.0, 0.0, 9.0, 0.0)
    assert str(record) == (
        "epoch 03 | train_loss=0.5000 | train_acc=0.7500"
        " | test_loss=0.6000 | test_acc=0.7000 | 0.12 s"
    )
    assert repr([record, record]) == f"[<{record}>, <{record}>]"
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.epoch = 4
