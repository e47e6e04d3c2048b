"""A download is killed at random moments; the next one works as usual."""

import os
import random
import re
from time import sleep, time

import pytest
from faulty_server import FaultyServer, Step
from test_download_faults import NAME, SYNTHETIC, SYNTHETIC_FILE, start_driver

# Takes about half a second.
SLOW = Step(SYNTHETIC, drip=0.01, piece=65_536)
YESTERDAY = time() - 2 * 24 * 60 * 60


def parts_in(folder):
    return [path for path in folder.iterdir() if path.name != NAME]


@pytest.mark.parametrize(
    "kills", [pytest.param(5, id="quick"), pytest.param(100, id="slow", marks=pytest.mark.slow)]
)
def test_no_kill_leaves_a_wrong_file(kills, tmp_path, monkeypatch, record_property):
    monkeypatch.setenv("no_proxy", "*")
    rng = random.Random(kills)
    killed = wrong_bytes = parts_before = 0
    with FaultyServer(SLOW, forever=True) as server:
        for number in range(kills):
            child = start_driver(tmp_path, server.url)
            # Kill two of three while the file arrives, or just after it.
            while number % 3 and child.poll() is None and len(parts_in(tmp_path)) <= parts_before:
                sleep(0.01)
            sleep(rng.uniform(0, 0.7))
            child.kill()
            child.communicate()
            killed += child.returncode < 0
            parts = parts_in(tmp_path)
            assert all(re.fullmatch(rf"\.{NAME}\.[0-9a-f]{{16}}\.part", p.name) for p in parts)
            assert len(parts) <= parts_before + 1
            parts_before = len(parts)
            if (tmp_path / NAME).exists():
                wrong_bytes += (tmp_path / NAME).read_bytes() != SYNTHETIC and len(SYNTHETIC)
                (tmp_path / NAME).unlink()
        for path in tmp_path.iterdir():
            os.utime(path, (YESTERDAY, YESTERDAY))
        _, error = start_driver(tmp_path, server.url).communicate()
    record_property("id", "K01")
    record_property("fault", "kill -9 at random moments, then a good run a day later")
    record_property("expected", "file, and nothing left of the others")
    record_property("happened", f"{killed} of {kills} killed at work, {parts_before} parts left")
    record_property("kills", killed)
    record_property("bytes_lost", wrong_bytes)
    assert (error, wrong_bytes) == ("", 0)
    assert [path.name for path in tmp_path.iterdir()] == [SYNTHETIC_FILE.name]
    assert (tmp_path / NAME).read_bytes() == SYNTHETIC
    assert killed > kills / 3 and parts_before > 0
