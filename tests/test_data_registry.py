"""The pins of the known data sets."""

import re

import pytest

from npsoftmax.data.datasets import DATASETS, find
from npsoftmax.errors import InputError

ROLES = {"train-images", "train-labels", "test-images", "test-labels"}


@pytest.mark.parametrize("source", DATASETS.values(), ids=DATASETS)
def test_every_source_is_complete(source):
    assert set(source.files) == ROLES
    assert len(source.classes) == len(set(source.classes)) == 10
    assert len(source.mirrors) >= 2
    for mirror in source.mirrors:
        assert re.fullmatch(r"https?://\S+/", mirror)
    for file in source.files.values():
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.name.endswith("-ubyte.gz")
        assert file.size > 0


def test_data_sets_share_names_but_nothing_else():
    fashion, digits = find("fashion-mnist").files, find("mnist").files
    for role in ROLES:
        assert fashion[role].name == digits[role].name
        assert fashion[role].sha256 != digits[role].sha256
        assert fashion[role].size != digits[role].size


def test_unknown_name():
    with pytest.raises(InputError, match="one of fashion-mnist, mnist, got 'cifar'"):
        find("cifar")
