"""On a FUSE mount each open() drops a file's pages: no instrument destroys what it counts.

bindfs shows a folder a second time, through FUSE. What is counted there through an open file or a
map is checked with mincore(2) over that map; a path is answered with the reason.
"""

import mmap
import os
import shutil
import subprocess
import sys
import time

import pytest

from qm9lab import measure
from qm9lab.measure import system_calls, touched

PAGE = mmap.PAGESIZE
FORGETS = "this file system (fuse) forgets a file's pages each time the file is opened"
FORGOTTEN = f"not available here, because {FORGETS}"

pytestmark = [
    pytest.mark.timing,
    pytest.mark.skipif(shutil.which("bindfs") is None, reason="no bindfs"),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or not os.path.exists("/dev/fuse"),
        reason="only root can mount, with /dev/fuse",
    ),
]


@pytest.fixture
def mount(tmp_path, request, monkeypatch):
    """A folder seen through FUSE; options of bindfs may be given as the fixture's parameter."""
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    below, above = tmp_path / "below", tmp_path / "above"
    below.mkdir()
    above.mkdir()
    (below / "there.dat").write_bytes(bytes(PAGE))
    options = getattr(request, "param", [])
    done = subprocess.run(["bindfs", *options, below, above], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"bindfs: {done.stderr.strip()}")
    yield above
    for _ in range(50):  # something may still have it open for a moment
        if subprocess.run(["umount", above], capture_output=True).returncode == 0:
            break
        time.sleep(0.1)


@pytest.fixture
def held(mount):
    """A file of 64 pages, all cached, held open and mapped: (path, file, map)."""
    path = mount / "held.dat"
    path.write_bytes(os.urandom(64 * PAGE))
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        sum(mm[::PAGE])
        assert kernel_cached(mm) == 64
        yield path, f, mm


def kernel_cached(mm) -> int:
    return int(system_calls.mincore(measure.address_of(mm), len(mm)).sum())


def test_counting_by_path_gives_the_reason_and_keeps_the_pages(held):
    path, _, mm = held
    link = path.with_name("link.dat")
    link.symlink_to(path)
    state = measure.cache_state(path)
    for value in (*state[1:4], *measure.cache_state(link)[1:4], measure.cached_pages(path)):
        assert str(value) == FORGOTTEN
    assert state.n_pages == 64 and kernel_cached(mm) == 64


def test_an_open_file_and_a_map_are_counted_and_keep_the_pages(held):
    path, f, mm = held
    assert measure.cache_state(f)[:2] == (64, 64) and measure.cached_pages(f).all()
    by_path, by_file = measure.page_states(path, mm), measure.page_states(f, mm)
    for found in (by_path, by_file):
        assert found.cached.all() and found.mapped.all() and not found.copied.any()
    assert str(by_path.dirty) == FORGOTTEN and not by_file.dirty.any()
    assert measure.file_bytes(path) == 64 * PAGE
    assert kernel_cached(mm) == 64


def test_nothing_is_cold_or_warm_or_exact_by_path(mount):
    path = mount / "x.dat"
    path.write_bytes(os.urandom(64 * PAGE))
    for value in (
        measure.make_cold(path).is_cold,
        measure.bring_to(path, "warm").n_cached,
        *measure.exact_trace(path, [3, 40])[1:],
        measure.exact(mount, 3),
        touched.pages(path, lambda mm: mm[0]).n,
    ):
        assert str(value) == FORGOTTEN


def test_calibration_finds_no_number_there(mount):
    machine = measure.calibrate(mount)
    for value in (
        machine.can_evict,
        machine.readahead_pages,
        machine.fault_around_small_pages,
        machine.fault_around_large_pages,
    ):
        assert str(value) == FORGOTTEN
    assert [each.name for each in mount.iterdir()] == ["there.dat"]


@pytest.mark.parametrize("mount", [["-o", "ro"]], indirect=True)
def test_where_it_cannot_be_tried_the_reason_says_so(mount):
    """A folder that is read-only gives no answer to the question whether an open forgets."""
    value = str(measure.cache_state(mount / "there.dat").n_cached)
    assert "we could not try whether fuse keeps a file's pages when it is opened" in value
