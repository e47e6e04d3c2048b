"""Atomic writes and bounded reads."""

import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from npsoftmax.errors import CorruptFileError, InputError, OutputError
from npsoftmax.files import publish, quoted, read_bytes, remove_stale

needs_modes = pytest.mark.skipif(os.name != "posix", reason="needs the modes of Unix")
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")


def test_a_file_appears_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with publish(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, ConnectionError])
def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), publish(path) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with publish(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(OutputError, match=f"cannot write {path}"), publish(path):
            pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@needs_pipes
def test_only_regular_files_of_limited_size_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(CorruptFileError, match="at most 4 bytes, got 5"):
        read_bytes(path, 4)
    for name, reason in (("none", "No such file"), ("a\0b", "null")):
        with pytest.raises(InputError, match=f"cannot read .*{reason}"):
            read_bytes(tmp_path / name, 4)
    os.mkfifo(tmp_path / "pipe")
    for strange in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="expected a regular file"):
            read_bytes(strange, 4)


@pytest.mark.parametrize("links", [True, False])
def test_the_previous_file_is_kept_under_another_name(tmp_path, monkeypatch, links):
    def fail(source, target):
        raise OSError(1, "Operation not permitted")

    # Copies are made only on a file system without hard links.
    monkeypatch.setattr(*((shutil, "copyfileobj") if links else (os, "link")), fail)
    path, backup = tmp_path / "file", tmp_path / "previous"
    for number in range(4):
        with publish(path, backup) as file:
            file.write(b"%d" % number)
            assert not path.exists() or path.read_bytes() == b"%d" % (number - 1)
        assert path.read_bytes() == b"%d" % number
        assert not backup.exists() if number == 0 else backup.read_bytes() == b"%d" % (number - 1)
        assert sorted(os.listdir(tmp_path)) == ["file"] if number == 0 else ["file", "previous"]


@pytest.mark.parametrize("broken", ["fsync", "link", "replace"])
def test_a_failure_leaves_both_files(tmp_path, monkeypatch, broken):
    path, backup = tmp_path / "file", tmp_path / "previous"
    path.write_bytes(b"new")
    backup.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    if broken == "link":
        monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(OutputError, match="No space left"), publish(path, backup) as file:
        file.write(b"newest")
    assert (path.read_bytes(), backup.read_bytes()) == (b"new", b"old")
    assert sorted(os.listdir(tmp_path)) == ["file", "previous"]


def test_there_is_always_a_file_under_both_names(tmp_path, monkeypatch):
    path, backup = tmp_path / "file", tmp_path / "previous"
    path.write_bytes(b"1")
    backup.write_bytes(b"0")
    seen, replace = [], os.replace

    def watched(source, target):
        seen.append((path.read_bytes(), backup.read_bytes()))
        replace(source, target)
        seen.append((path.read_bytes(), backup.read_bytes()))

    monkeypatch.setattr(os, "replace", watched)
    with publish(path, backup) as file:
        file.write(b"2")
    assert seen == [(b"1", b"0"), (b"2", b"0"), (b"2", b"0"), (b"2", b"1")]


@needs_pipes
def test_a_pipe_or_a_folder_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for target in ("pipe", "folder"):
        (tmp_path / f"link to {target}").symlink_to(target)
    for name in ("pipe", "folder", "link to pipe", "link to folder"):
        for backup in (None, tmp_path / "previous"):
            found = "a folder" if "folder" in name else "a device or a pipe"
            with (
                pytest.raises(OutputError, match=f"cannot write .*{name}'?: expected .*{found}"),
                publish(tmp_path / name, backup) as file,
            ):
                file.write(b"never")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link to folder", "link to pipe", "pipe"]


@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_chain_of_links_is_followed_and_stays(tmp_path, target):
    link, elsewhere = tmp_path / "link", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"old")
    (elsewhere / "second").symlink_to(target)
    link.symlink_to(Path("elsewhere", "second"))
    with publish(link, tmp_path / "previous") as file:
        file.write(b"new")
    assert link.is_symlink() and (elsewhere / "second").is_symlink()
    assert (elsewhere / target).read_bytes() == link.read_bytes() == b"new"
    assert set(os.listdir(elsewhere)) == {"file", "second", target}
    if target == "file":
        assert (tmp_path / "previous").read_bytes() == b"old"


def test_links_that_lead_nowhere_are_an_error_and_stay(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to(tmp_path / "unmounted" / "file")
    for name, reason in (("loop", "Too many levels"), ("gone", "No such file")):
        complaint = pytest.raises(OutputError, match=f"cannot write .*{name}: {reason}")
        with complaint, publish(tmp_path / name) as file:
            file.write(b"x")
        assert (tmp_path / name).is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["gone", "loop"]


@pytest.mark.parametrize("target", ["file", "nothing", "link"])
def test_a_link_is_replaced_on_demand_and_its_target_stays(tmp_path, target):
    link, elsewhere = tmp_path / "link", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"not mine")
    link.symlink_to(link if target == "link" else elsewhere / target)
    with publish(link, follow_links=False) as file:
        file.write(b"mine")
    assert not link.is_symlink() and link.read_bytes() == b"mine"
    assert (elsewhere / "file").read_bytes() == b"not mine"
    assert os.listdir(elsewhere) == ["file"]


def test_a_link_to_another_file_system_is_followed(tmp_path):
    try:
        memory = tempfile.TemporaryDirectory(dir="/dev/shm")
    except OSError:
        pytest.skip("needs a second file system")
    with memory as folder:
        elsewhere = Path(folder, "file")
        elsewhere.write_bytes(b"old")
        (tmp_path / "link").symlink_to(elsewhere)
        with publish(tmp_path / "link", tmp_path / "previous") as file:
            file.write(b"new")
        assert elsewhere.read_bytes() == b"new" and os.listdir(folder) == ["file"]
    assert (tmp_path / "previous").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["link", "previous"]


@needs_modes
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o2755])
@pytest.mark.parametrize("links", [True, False])
def test_an_existing_file_keeps_its_mode(tmp_path, monkeypatch, mode, links):
    path, previous = tmp_path / "file", tmp_path / "previous"
    path.write_bytes(b"old")
    path.chmod(mode)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no")))
    with publish(path, previous) as file:
        # A secret is not readable by others for a moment.
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
        file.write(b"new")
    assert {stat.S_IMODE(found.stat().st_mode) for found in (path, previous)} == {mode}


@needs_modes
@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="needs root")
def test_root_leaves_a_file_to_its_owner(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o600)
    os.chown(path, 1234, 5678)
    with publish(path) as file:
        file.write(b"new")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o600)


@needs_modes
def test_a_read_only_file_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"kept")
    path.chmod(0o444)
    with pytest.raises(OutputError, match="file: the file is read-only"), publish(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"kept" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", [
    "plain", "with  space", "a;b", "it's", "$HOME", "-x", "new\nline", "größe", "\udcff", "\\'\t1",
])  # fmt: skip
def test_a_shell_takes_a_quoted_path(tmp_path, name):
    text = quoted(name)
    assert text.isprintable()
    (tmp_path / name).write_bytes(name.encode(errors="surrogateescape"))
    read = subprocess.run(["bash", "-c", f"cat {text}"], cwd=tmp_path, capture_output=True)
    assert read.stdout.decode(errors="surrogateescape") == name, read.stderr


PART = ".checkpoint.npz.0123456789abcdef.part"


def test_remove_stale_removes_temporary_files_and_nothing_else(tmp_path):
    others = [
        "checkpoint.npz",
        "0123456789abcdef.part",
        "checkpoint.npz.0123456789abcdef.part",
        ".0123456789abcdef.part",
        ".checkpoint.npz.0123456789abcde.part",
        ".checkpoint.npz.0123456789ABCDEF.part",
        ".checkpoint.npz.0123456789abcdef.part.txt",
    ]
    for name in (PART, *others):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / PART).write_bytes(b"x")
    os.utime(tmp_path / "below" / PART, (0, 0))
    remove_stale(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "below"])
    assert os.listdir(tmp_path / "below") == [PART]


def test_remove_stale_keeps_young_files_unless_told_otherwise(tmp_path):
    part = tmp_path / PART
    part.write_bytes(b"x")
    now = part.stat().st_mtime
    os.utime(part, (now - 3600, now - 3600))
    remove_stale(tmp_path)
    assert part.exists()
    remove_stale(tmp_path, older_than=0)
    assert not part.exists()


def test_remove_stale_skips_what_it_cannot_remove(tmp_path):
    (tmp_path / PART).mkdir()
    target = tmp_path / "target"
    target.write_bytes(b"x")
    link = tmp_path / PART.replace("0", "f")
    link.symlink_to(target)
    remove_stale(tmp_path, older_than=-1)
    remove_stale(tmp_path / "none")
    remove_stale(target)
    assert sorted(os.listdir(tmp_path)) == [PART, "target"]


@pytest.mark.parametrize("path", ["", ".", "/", ".."])
def test_a_path_without_a_file_name_is_refused(path):
    with pytest.raises(OutputError, match="cannot write"), publish(path) as file:
        file.write(b"x")


@pytest.mark.parametrize(("number", "harmless"), [(22, True), (95, True), (5, False), (28, False)])
def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch, number, harmless):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    with (
        nullcontext() if harmless else pytest.raises(OutputError, match="cannot write"),
        publish(tmp_path / "file") as file,
    ):
        file.write(b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
