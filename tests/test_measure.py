"""The instruments, each against a second one."""

import mmap
import os
import random
import resource
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import psutil
import pytest

from qm9lab import measure

PAGE = mmap.PAGESIZE
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(request):
    """A file of 512 pages on the file system of the data folder, written in small pieces."""
    from qm9lab import data

    file = data.lesson_folder() / f"test_measure_{os.getpid()}.dat"
    with open(file, "wb", buffering=0) as f:
        for _ in range(512):
            f.write(os.urandom(PAGE))
    yield file
    file.unlink(missing_ok=True)


def cold(path) -> None:
    """Make the file cold, or skip where that cannot be had."""
    state = measure.make_cold(path)
    if state.n_cached != 0:
        pytest.skip(state.source)


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


@linux
def test_faults_agree_with_proc_stat():
    def by_proc():
        fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[7]), int(fields[9])

    before_proc, before = by_proc(), measure.faults()
    anonymous = mmap.mmap(-1, 3000 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    anonymous.madvise(mmap.MADV_NOHUGEPAGE)
    for k in range(3000):
        anonymous[k * PAGE] = 1
    counted, after_proc = measure.faults().since(before), by_proc()
    assert counted.minor >= 3000
    assert abs(counted.minor - (after_proc[0] - before_proc[0])) < 100
    assert counted.major <= after_proc[1] - before_proc[1]
    assert counted.source == "getrusage(RUSAGE_SELF)" or "psutil" in counted.source


@linux
def test_the_thread_s_faults_are_its_own():
    import threading

    def touch():
        m = mmap.mmap(-1, 2000 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        m.madvise(mmap.MADV_NOHUGEPAGE)
        for k in range(2000):
            m[k * PAGE] = 1

    before_all, before_own = measure.faults(), measure.faults(thread=True)
    worker = threading.Thread(target=touch)
    worker.start()
    worker.join()
    assert measure.faults().since(before_all).minor >= 2000
    assert measure.faults(thread=True).since(before_own).minor < 1000


@linux
@pytest.mark.parametrize("piece_pages", [1, 256])
def test_the_exact_protocol_holds(path, piece_pages):
    """Cold, MADV_RANDOM, touch k pages: four instruments give k, exactly."""
    with open(path, "wb", buffering=0) as f:
        for _ in range(512 // piece_pages):
            f.write(os.urandom(piece_pages * PAGE))
    draw = random.Random(piece_pages)
    for _ in range(10):
        cold(path)
        touched = draw.sample(range(512), draw.randint(1, 200))
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
            mm.madvise(mmap.MADV_RANDOM)
            before = measure.faults(thread=True)
            for page in touched:
                mm[page * PAGE]
            counted = measure.faults(thread=True).since(before)
            mapped, cached = measure.mapped_pages(mm), measure.cached_pages(path)
        assert counted.major == len(touched)
        assert set(np.flatnonzero(mapped)) == set(np.flatnonzero(cached)) == set(touched)
        assert measure.cache_state(path).n_cached == len(touched)


@linux
def test_resident_memory_agrees_with_status():
    now = measure.resident()
    assert abs(now.anonymous_bytes - status_bytes("RssAnon")) < 2 << 20
    shared = status_bytes("RssFile") + status_bytes("RssShmem")
    assert abs(now.file_bytes - shared) < 2 << 20


@linux
def test_a_mapped_file_counts_as_file_pages_and_a_copy_of_it_as_anonymous(path):
    start = measure.resident()
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mm:
        sum(mm[k * PAGE] for k in range(512))
        read = measure.resident()
        for k in range(512):
            mm[k * PAGE] = 1
        stored = measure.resident()
    assert abs(read.file_bytes - start.file_bytes - 512 * PAGE) < 64 * PAGE
    assert abs(stored.anonymous_bytes - read.anonymous_bytes - 512 * PAGE) < 64 * PAGE


@linux
@pytest.mark.skipif(shutil.which("fincore") is None, reason="no fincore (util-linux)")
def test_residency_agrees_with_fincore(path):
    cold(path)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
        mm.madvise(mmap.MADV_RANDOM)
        for page in (0, 7, 300, 511):
            mm[page * PAGE]
        words = subprocess.run(
            ["fincore", "--noheadings", "--raw", "--output", "PAGES", path],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert int(words.stdout) == 4
        assert measure.cache_state(path).n_cached == 4
        assert list(np.flatnonzero(measure.cached_pages(path))) == [0, 7, 300, 511]


@linux
def test_dirty_pages_are_counted_and_flushed(path):
    measure.make_cold(path)
    state = measure.cache_state(path)
    if state.n_dirty is None:
        pytest.skip("no cachestat(2) on this kernel")
    assert state.n_dirty == 0
    with path.open("r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        mm[3 * PAGE] = mm[90 * PAGE] = 1
        assert measure.cache_state(path).n_dirty >= 2
        mm.flush()
        assert measure.cache_state(path).n_dirty == 0


def test_cache_state_without_cachestat_falls_back_to_mincore(path, monkeypatch):
    path.read_bytes()
    expected = measure.cache_state(path)
    monkeypatch.setattr(measure, "_cachestat", lambda path, size: None)
    state = measure.cache_state(path)
    assert state.n_cached == expected.n_cached and state.n_dirty is None
    assert "mincore" in state.source


def test_where_cachestat_looks_at_an_empty_inode_mincore_is_believed(path, monkeypatch):
    """As on overlayfs, where cachestat(2) counts no pages of a file that is all cached."""
    path.read_bytes()
    monkeypatch.setattr(measure, "_cachestat", lambda path, size: (0, 0))
    state = measure.cache_state(path)
    assert state[:3] == (512, 512, None) and "mincore" in state.source


def test_a_view_that_begins_inside_a_page_is_refused():
    with mmap.mmap(-1, 2 * PAGE) as mm, memoryview(mm)[100:] as view:
        with pytest.raises(ValueError, match="100 bytes into a page"):
            measure.mapped_pages(view)


def test_a_mapped_file_cannot_be_made_cold_and_says_so(path):
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
        sum(mm[k * PAGE] for k in range(512))
        state = measure.make_cold(path, timeout_s=0.1)
        assert state.n_cached > 0 and "cannot be evicted" in state.source
    assert measure.make_cold(path).n_cached == 0


@linux
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no tmpfs at /dev/shm")
def test_tmpfs_has_no_cold():
    path = Path(f"/dev/shm/qm9lab-{os.getpid()}.dat")
    try:
        path.write_bytes(b"x" * 8 * PAGE)
        state = measure.make_cold(path, timeout_s=0.05)
        assert state.n_cached == 8 and "tmpfs" in state.source
        assert state.n_dirty is None
    finally:
        path.unlink()


def test_an_empty_file_has_no_pages(tmp_path):
    (tmp_path / "empty").touch()
    assert measure.cache_state(tmp_path / "empty")[:3] == (0, 0, 0)
    assert len(measure.cached_pages(tmp_path / "empty")) == 0


def test_a_missing_file_is_an_os_error_that_names_it(tmp_path):
    for ask in (measure.cache_state, measure.cached_pages, measure.make_cold):
        with pytest.raises(FileNotFoundError, match="nothing_here"):
            ask(tmp_path / "nothing_here")


@linux
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root to become another user"
)
def test_residency_of_somebody_else_s_file_is_refused_not_believed(path):
    """mincore(2) answers "all cached" there; a count of 0 and a refusal must not be mixed up."""
    cold(path)
    os.chmod(path, 0o644)
    ask = (
        "import sys; from qm9lab import measure; p = sys.argv[1]; "
        "print(measure.cache_state(p)); print(measure.cached_pages(p))"
    )
    words = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
         sys.executable, "-c", ask, path],
        capture_output=True, text=True, env=os.environ | {"HOME": "/tmp"},
    )  # fmt: skip
    if "PermissionError" in words.stderr or "ModuleNotFoundError" in words.stderr:
        pytest.skip("another user cannot reach this checkout")
    assert words.returncode == 0, words.stderr
    assert "n_cached=None" in words.stdout and "belongs to somebody else" in words.stdout
    assert words.stdout.strip().endswith("None")


@linux
def test_regions_agree_with_psutil(path):
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
        ours = [r for r in measure.regions() if r.name == str(path.resolve())]
        theirs = [m for m in psutil.Process().memory_maps(grouped=False) if m.path == ours[0].name]
        assert len(ours) == len(theirs) == 1
        region = ours[0]
        assert region.start == measure.address_of(mm)
        assert theirs[0].addr == f"{region.start:x}-{region.end:x}"
        assert region.perms == "r--s" == theirs[0].perms
        assert region.end - region.start == 512 * PAGE
    assert not [r for r in measure.regions() if r.name == str(path.resolve())]


@linux
def test_regions_keep_names_with_spaces_and_accents(tmp_path):
    path = tmp_path / "mémoire  partagée.dat"
    path.write_bytes(b"x" * PAGE)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ):
        assert [r.perms for r in measure.regions() if r.name == str(path.resolve())] == ["r--s"]


def test_the_file_system_agrees_with_stat():
    words = subprocess.run(["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True)
    if words.returncode:
        pytest.skip("no stat -f")
    assert measure.file_system("/dev/shm") == words.stdout.strip() == "tmpfs"


# What psutil returns elsewhere, as recorded there; read by field name, never unpacked.
MACOS = types.SimpleNamespace(rss=51_298_304, vms=420_000_000_000, pfaults=22_113, pageins=14)
WINDOWS = types.SimpleNamespace(rss=31_000_000, vms=22_000_000, num_page_faults=9_876)


def psutil_like(memory, **calls):
    """A stand-in for psutil whose Process has these readings."""
    process = types.SimpleNamespace(memory_info=lambda: memory, **calls)
    return types.SimpleNamespace(Process=lambda: process)


def test_windows_counts_both_kinds_of_fault_together(monkeypatch):
    monkeypatch.setattr(measure, "psutil", psutil_like(WINDOWS))
    monkeypatch.setattr(measure, "resource", None)
    counted = measure.faults(thread=True)
    assert counted[:2] == (9_876, None) and "together" in counted.source
    assert counted.since(measure.Faults(9_000, None, ""))[:2] == (876, None)


def test_psutil_8_is_asked_first(monkeypatch):
    faults = types.SimpleNamespace(major=3, minor=40)
    monkeypatch.setattr(measure, "psutil", psutil_like(MACOS, page_faults=lambda: faults))
    assert measure.faults() == (40, 3, "psutil page_faults")


def test_no_split_of_resident_memory_is_said_not_guessed(monkeypatch):
    for memory in (MACOS, WINDOWS):
        monkeypatch.setattr(measure, "psutil", psutil_like(memory))
        now = measure.resident()
        assert now[:2] == (None, None) and now.source.startswith("not available here, because")


def test_without_fadvise_make_cold_says_so(path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    state = measure.make_cold(path)
    assert state.n_cached == 512 and "no posix_fadvise" in state.source


def test_getrusage_is_the_fallback(monkeypatch):
    monkeypatch.setattr(measure, "psutil", psutil_like(MACOS))
    assert measure.faults().minor <= resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert measure.faults().source == "getrusage(RUSAGE_SELF)"
