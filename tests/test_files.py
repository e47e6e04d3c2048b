"""A file appears whole or not at all."""

import os
import stat

import pytest

from npsoftmax.errors import CorruptFileError, InputError, OutputError
from npsoftmax.files import publish, read_bytes


def test_publishes_on_success(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with publish(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ConnectionError])
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), publish(path) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with publish(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(OutputError, match=f"cannot write {path}"), publish(path):
            pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_reading(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(CorruptFileError, match="at most 4 bytes, got 5"):
        read_bytes(path, 4)
    with pytest.raises(InputError, match="No such file"):
        read_bytes(tmp_path / "none", 4)
    os.mkfifo(tmp_path / "pipe")
    for strange in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="expected a regular file"):
            read_bytes(strange, 4)


def test_disk_full_says_so(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match="No space left"), publish(tmp_path / "file") as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == []
