"""The exact protocol, and the command that shows it: four counts of 200 traces, all the same."""

import functools
import mmap
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qm9lab import __main__ as command
from qm9lab import measure
from qm9lab.course import folders
from qm9lab.measure import protocol

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.timing,
    pytest.mark.skipif(sys.platform != "linux", reason="MADV_RANDOM and pagemap are Linux's"),
]


@pytest.fixture
def folder():
    """A folder where the protocol is to be had, or the reason why it is not."""
    place = folders.lesson_folder()
    if measure.file_system(place) not in ("ext4", "xfs"):  # there it must hold
        probe = measure.exact(place, 1)
        if measure.is_missing(probe):
            pytest.skip(str(probe))
    return place


def _rss_moves_by_the_page():
    """Whether one page more is one page more in RSS at once; some kernels count in batches."""
    with mmap.mmap(-1, 64 * mmap.PAGESIZE) as mm:
        seen = []
        for k in range(0, 64, 8):
            before = measure.resident().file_bytes
            mm[k * mmap.PAGESIZE] = 1
            seen.append(measure.resident().file_bytes - before)
    return seen.count(mmap.PAGESIZE) > 4


def test_200_traces_without_a_mismatch(folder):
    found = measure.exact(folder, 200, 7)
    assert (found.n_traces, found.mismatches) == (200, [])
    assert found.n_pages > 200 * 50 and found.source == measure.file_system(folder)
    if _rss_moves_by_the_page():  # the counter of the whole process: others may move it, too
        assert found.n_rss_exact >= 190
    assert [p for p in folder.iterdir() if p.name.startswith("exact-")] == []


def test_one_trace_counts_distinct_pages(folder):
    path = folder / "one_trace.dat"
    path.write_bytes(os.urandom(100 * mmap.PAGESIZE))
    found = measure.exact_trace(path, [5, 99, 5, 0, 99, 5])
    path.unlink()
    assert found[:5] == (3, 3, 3, 3, 3)


def test_the_command_prints_and_exits_0(folder):
    done = subprocess.run(
        [sys.executable, "-m", "qm9lab", "exact", "--traces", "20", "--seed", "7"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "traces: 20 " in done.stdout and "mismatches: 0 " in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no tmpfs at /dev/shm")
def test_on_tmpfs_the_command_says_why_and_exits_0():
    place = Path(f"/dev/shm/qm9lab-test-{os.getpid()}")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "qm9lab", "exact"], cwd=ROOT, capture_output=True, text=True,
            env=os.environ | {"QM9LAB_DATA": str(place), "QM9LAB_STRICT": "0"},
        )  # fmt: skip
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert "not available here, because" in done.stdout and "tmpfs" in done.stdout
    assert "mismatches" not in done.stdout


# Each instrument that is off by one, in one trace, is a mismatch that is named.
@pytest.mark.parametrize("name", ["n_major", "n_mapped", "n_cached", "n_smaps"])
def test_a_mismatch_is_named_and_exits_1(folder, name, monkeypatch, capsys):
    real, asked = protocol.exact_trace, []

    def off_by_one(path, pages):
        counted = real(path, pages)
        asked.append(pages)
        if len(asked) == 4:  # the probe comes first: this is trace 2
            return counted._replace(**{name: getattr(counted, name) + 1})
        return counted

    monkeypatch.setattr(protocol, "exact_trace", off_by_one)
    assert command.main(["exact", "--traces", "5"]) == 1
    told = capsys.readouterr()
    assert "mismatches: 1 " in told.out and told.err.startswith("mismatch: trace 2 (")
    assert len(asked) == 6


@pytest.mark.parametrize("counted", [(1, 0, 1, 1, 1, 1), (1, 1, 1, 4, 1, 1)])
def test_a_system_where_one_touch_is_not_one_page_is_not_available(folder, counted, monkeypatch):
    """As where the file system reads more than was asked for, or has no disk to wait for."""
    monkeypatch.setattr(protocol, "exact_trace", lambda *words: measure.Exact(*counted))
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    found = measure.exact(folder, 5)
    assert str(found).startswith("not available here, because on ")


def test_traces_vary_and_touch_pages_twice():
    draw = random.Random(7)
    traces = [protocol._draw_pages(draw, 1000) for _ in range(200)]
    lengths = [len(trace) for trace in traces]
    assert min(lengths) == 1 and max(lengths) > 800
    assert sum(n < 30 for n in lengths) > 60 and sum(n > 300 for n in lengths) > 15
    assert sum(len(set(trace)) < len(trace) for trace in traces) > 100
    assert protocol._draw_pages(random.Random(1), 1000) == protocol._draw_pages(
        random.Random(1), 1000
    )


def test_a_trace_of_a_mapped_file_is_an_error(folder, monkeypatch):
    path = folder / "mapped.dat"
    path.write_bytes(os.urandom(8 * mmap.PAGESIZE))
    make_cold = functools.partial(measure.make_cold, timeout_s=0.1)
    monkeypatch.setattr(protocol, "make_cold", make_cold)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        assert mm[0] >= 0
        with pytest.raises(RuntimeError, match="a process has them mapped"):
            measure.exact_trace(path, [0])
    path.unlink()
