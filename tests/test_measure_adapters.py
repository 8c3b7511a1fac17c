"""What other systems and other versions of psutil say, read by field name; what is missing."""

import mmap
import os
import platform
from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest

from qm9lab import measure
from qm9lab.measure import cache, eviction, fault_counts, page_states, protocol, timeline

PAGE = mmap.PAGESIZE
NOT_HERE = "not available here, because "

# What psutil printed on these systems, taken from transcripts on the web (Linux: from here).
LINUX = namedtuple("pmem", "rss vms shared text lib data dirty")(
    rss=15036416, vms=18305024, shared=6926336, text=4096, lib=0, data=9641984, dirty=0
)
MACOS = namedtuple("pmem", "rss vms pfaults pageins")(
    rss=8310784, vms=2481725440, pfaults=3207, pageins=18
)
WINDOWS = namedtuple(
    "pmem",
    "rss vms num_page_faults peak_wset wset peak_paged_pool paged_pool peak_nonpaged_pool "
    "nonpaged_pool pagefile peak_pagefile private",
)(
    rss=2719744, vms=1413120, num_page_faults=712, peak_wset=2723840, wset=2719744,
    peak_paged_pool=36040, paged_pool=36008, peak_nonpaged_pool=5160, nonpaged_pool=5160,
    pagefile=1413120, peak_pagefile=1413120, private=1413120,
)  # fmt: skip
# The shapes of psutil 8, as merged for its release (psutil#2730, #2737, #2988).
FAULTS_8 = namedtuple("ppagefaults", "minor major")(minor=11219, major=3)
LINUX_8 = namedtuple("pmem", "rss vms shared text data")(15036416, 18305024, 6926336, 4096, 9641984)
LINUX_EXTRAS_8 = namedtuple("pextra", "peak_rss peak_vms rss_anon rss_file rss_shmem swap hugetlb")(
    20_000_000, 30_000_000, 8_110_080, 6_901_760, 24_576, 0, 0
)
MACOS_8 = namedtuple("pmem", "rss vms")(8310784, 2481725440)
MACOS_EXTRAS_8 = namedtuple("pextra", "peak_rss rss_anon rss_file wired compressed phys_footprint")(
    9_000_000, 5_000_000, 3_310_784, 0, 0, 6_000_000
)
ELSEWHERE = 4_194_303  # a pid that this process does not have


@pytest.fixture
def told(monkeypatch):
    """Makes psutil.Process one with these readings, and this process's pid another."""

    def tell(memory, pid=None, **calls):
        process = SimpleNamespace(memory_info=lambda: memory, pid=pid or os.getpid(), **calls)
        monkeypatch.setattr(psutil, "Process", lambda pid=None: process)

    return tell


# Faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory, expected",
    [
        (MACOS, (3207 - 18, 18, "psutil pfaults - pageins, pageins")),
        (WINDOWS, (712, None, "psutil num_page_faults: minor and major together")),
    ],
)
def test_faults_of_another_process_where_there_is_no_proc(told, monkeypatch, memory, expected):
    told(memory, pid=ELSEWHERE)
    monkeypatch.setattr(fault_counts, "_proc_faults", lambda pid: None)
    assert measure.faults(pid=ELSEWHERE) == expected


def test_on_windows_this_process_s_faults_are_both_kinds_together(told, monkeypatch):
    told(WINDOWS)
    monkeypatch.setattr(fault_counts, "resource", None)
    monkeypatch.setattr(fault_counts, "_proc_faults", lambda pid: None)
    counted = measure.faults(thread=True)
    assert counted == (712, None, "psutil num_page_faults: minor and major together")
    assert counted.since(measure.Faults(700, None, ""))[:2] == (12, None)


def test_on_macos_getrusage_counts_this_process(told):
    told(MACOS)
    counted = measure.faults()
    assert counted.source == "getrusage(RUSAGE_SELF)" and counted.minor > MACOS.pfaults


def test_without_a_thread_s_count_the_process_s_is_given_and_named(monkeypatch):
    only_self = SimpleNamespace(RUSAGE_SELF=0, getrusage=fault_counts.resource.getrusage)
    monkeypatch.setattr(fault_counts, "resource", only_self)
    assert measure.faults(thread=True).source in ("getrusage(RUSAGE_SELF)", "psutil page_faults")


@pytest.mark.parametrize("pid", [None, ELSEWHERE])
def test_psutil_8_is_asked_first(told, pid):
    told(MACOS_8, pid=pid, page_faults=lambda: FAULTS_8)
    assert measure.faults(pid=pid) == (11219, 3, "psutil page_faults")


def test_where_nothing_counts_faults_it_is_said(told, monkeypatch):
    told(MACOS_8)
    monkeypatch.setattr(fault_counts, "resource", None)
    monkeypatch.setattr(fault_counts, "_proc_faults", lambda pid: None)
    counted = measure.faults()
    assert counted[:2] == (None, None) and counted.source.startswith(NOT_HERE)
    assert counted.since(counted)[:2] == (None, None)


def test_a_thread_of_another_process_is_refused():
    with pytest.raises(ValueError, match="thread=True or a pid"):
        measure.faults(thread=True, pid=1)


# Resident memory -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory, calls, expected",
    [
        (LINUX, {}, (15036416 - 6926336, 6926336, "psutil memory_info: rss - shared, shared")),
        (
            LINUX_8,
            {"memory_extras": lambda: LINUX_EXTRAS_8},
            (8_110_080, 6_901_760 + 24_576, "psutil memory_extras: rss_anon, rss_file"),
        ),
        (
            MACOS_8,
            {"memory_extras": lambda: MACOS_EXTRAS_8},
            (5_000_000, 3_310_784, "psutil memory_extras: rss_anon, rss_file"),
        ),
        (
            LINUX_8,
            {"memory_info_ex": lambda: LINUX_EXTRAS_8},
            (8_110_080, 6_926_336, "psutil memory_info_ex: rss_anon, rss_file"),
        ),
        (LINUX_8, {"memory_extras": lambda: WINDOWS}, (8110080, 6926336, None)),
    ],
)
def test_resident_memory_is_split(told, memory, calls, expected):
    told(memory, **calls)
    now = measure.resident()
    assert now[:2] == expected[:2] and now.source == (expected[2] or now.source)


@pytest.mark.parametrize("memory", [MACOS, WINDOWS, MACOS_8])
def test_no_split_of_resident_memory_is_said_not_guessed(told, memory):
    told(memory)
    now = measure.resident()
    assert now[:2] == (None, None) and now.source.startswith(NOT_HERE)


@pytest.mark.parametrize("ask", [measure.resident, lambda pid: measure.faults(pid=pid)])
def test_somebody_else_s_process_is_refused_with_the_reason(told, ask, monkeypatch):
    def refuse():
        raise psutil.AccessDenied(ELSEWHERE)

    told(None, pid=ELSEWHERE)
    monkeypatch.setattr(psutil.Process(), "memory_info", refuse)
    monkeypatch.setattr(fault_counts, "_proc_faults", lambda pid: None)
    answer = ask(ELSEWHERE)
    assert answer[:2] == (None, None)
    assert answer.source == NOT_HERE + f"process {ELSEWHERE} belongs to somebody else"


@pytest.mark.parametrize("ask", [measure.resident, lambda pid: measure.faults(pid=pid)])
def test_a_pid_that_nobody_has_is_an_error_that_names_it(ask):
    with pytest.raises(ProcessLookupError, match="none with pid 4194303"):
        ask(ELSEWHERE)


# Page cache, page table, eviction, calibration: each source away ------------------------------


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "four_pages.dat"
    file.write_bytes(os.urandom(4 * PAGE))
    return file


def test_without_mincore_there_is_no_residency(path, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert measure.cached_pages(path) is None
    state, found = measure.cache_state(path), measure.page_map(path)
    assert state[:3] == (4, None, None) and state.source == NOT_HERE + "Windows has no mincore"
    assert found[:4] == (None, None, None, None)
    for name in ("cached", "mapped, copied", "dirty"):
        assert f"{name}: {NOT_HERE}" in found.source


def test_without_cachestat_residency_is_known_and_dirty_pages_are_not(path, monkeypatch):
    monkeypatch.setattr(cache, "cachestat_counter", lambda fd: lambda start, n: None)
    monkeypatch.setattr(page_states, "cachestat_counter", lambda fd: lambda start, n: None)
    state, found = measure.cache_state(path), measure.page_map(path)
    assert state == (4, 4, None, "mincore (no dirty count)")
    assert found.cached.all() and found.dirty is None
    assert f"dirty: {NOT_HERE}this system has no cachestat(2)" in found.source


def test_where_cachestat_looks_at_an_empty_inode_mincore_is_believed(path, monkeypatch):
    """As on overlayfs, where cachestat(2) counts no pages of a file that is all cached."""
    for module in (cache, page_states):
        monkeypatch.setattr(module, "cachestat_counter", lambda fd: lambda start, n: (0, 0))
    state, found = measure.cache_state(path), measure.page_map(path)
    assert state == (4, 4, None, "mincore (no dirty count)")
    assert found.cached.all() and found.dirty is None
    assert f"dirty: {NOT_HERE}cachestat(2) looks at an inode without pages" in found.source


def test_macos_makes_no_system_call_by_a_linux_number(path, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(cache.ctypes, "PyDLL", lambda name: pytest.fail("a raw system call"))
    assert measure.cache_state(path)[1:3] == (4, None)
    assert measure.page_map(path).dirty is None


@pytest.fixture
def no_pagemap(monkeypatch):
    """open() says that there is no /proc/self/pagemap."""
    import builtins

    real = builtins.open

    def refuse(file, *args, **kwargs):
        if str(file).startswith("/proc/"):
            raise FileNotFoundError(2, "No such file or directory", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)


def test_without_a_pagemap_mapped_pages_are_unknown(path, no_pagemap):
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        assert measure.mapped_pages(mm) is None
        found = measure.page_map(path, mm)
    assert found.cached is not None and found.mapped is None and found.copied is None
    assert f"mapped, copied: {NOT_HERE}/proc/self/pagemap cannot be read" in found.source


def test_without_maps_there_are_no_regions(monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert measure.regions() is None


def test_without_fadvise_make_cold_says_so(path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    state = measure.make_cold(path)
    assert state.n_cached == 4 and state.source.startswith(NOT_HERE)
    assert "no posix_fadvise" in state.source


def test_a_file_system_without_fsync_is_still_advised(path, monkeypatch):
    """squashfs and other file systems that are only read: fsync(2) fails with EINVAL there."""
    advised = []

    def fsync(fd):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: advised.append(words))
    monkeypatch.setattr(
        eviction, "cache_state", lambda path: cache.CacheState(4, 0, 0, "cachestat")
    )
    assert measure.make_cold(path).n_cached == 0
    assert advised and advised[0][1:] == (0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize(
    "state, n_asked",
    [
        (cache.CacheState(4, 0, 0, "cachestat"), 1),
        (cache.CacheState(4, 0, None, "mincore (no dirty count)"), 3),
    ],
)
def test_mincore_must_say_cold_three_times_and_cachestat_once(path, monkeypatch, state, n_asked):
    asked = []
    monkeypatch.setattr(eviction, "cache_state", lambda path: asked.append(1) or state)
    assert measure.make_cold(path) == state and len(asked) == n_asked


def test_on_overlayfs_a_zero_of_cachestat_is_not_enough(path, monkeypatch):
    asked, state = [], cache.CacheState(4, 0, 0, "cachestat")
    monkeypatch.setattr(eviction, "cache_state", lambda path: asked.append(1) or state)
    monkeypatch.setattr(eviction, "file_system", lambda path: "overlay")
    assert measure.make_cold(path) == state and len(asked) == 3


def test_calibration_says_what_is_missing(tmp_path, monkeypatch, no_pagemap, told):
    told(MACOS)
    monkeypatch.delattr(os, "posix_fadvise")
    found = measure.calibrate(tmp_path)
    assert found.page_bytes == PAGE and found.granularity_bytes == mmap.ALLOCATIONGRANULARITY
    unknown = {name for name, value in found._asdict().items() if value is None}
    assert unknown == {
        "readahead_pages", "fault_around_small_pages", "fault_around_large_pages",
    }  # fmt: skip
    assert found.can_evict is False
    assert set(found.missing) == unknown | {"can_evict", "memory_source"}
    assert all(why.startswith(NOT_HERE) for why in found.missing.values())
    assert found.memory_source == found.missing["memory_source"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", ["fadvise", "pagemap", "madvise"])
def test_the_exact_protocol_says_why_it_cannot_be_had(tmp_path, monkeypatch, request, gone):
    if gone == "fadvise":
        monkeypatch.delattr(os, "posix_fadvise")
    elif gone == "pagemap":
        monkeypatch.setattr(protocol, "mapped_pages", lambda mm: None)
    else:
        monkeypatch.delattr(mmap, "MADV_RANDOM")
    found = measure.exact(tmp_path, 3)
    assert found[:4] == (0, 0, [], 0) and found.source.startswith(NOT_HERE)


@pytest.mark.parametrize("memory, gone", [(MACOS, 2), (WINDOWS, 3)])
def test_a_timeline_has_no_columns_that_the_system_does_not_offer(told, monkeypatch, memory, gone):
    told(memory)
    monkeypatch.setattr(timeline, "has_proc", lambda: False)
    monkeypatch.setattr(fault_counts, "_proc_faults", lambda pid: None)
    if memory is WINDOWS:
        monkeypatch.setattr(fault_counts, "resource", None)
    with measure.Sampler(every_s=0.02) as sampler:
        pass
    found = sampler.timeline
    assert [column is None for column in found[1:5]] == [True, True, False, memory is WINDOWS]
    assert len(found.t_s) >= 1 and len(found.minor) == len(found.t_s)
    assert found.source.startswith("psutil") and NOT_HERE in found.source


def test_every_public_name_is_there():
    assert sorted(measure.__all__) == sorted(set(measure.__all__))
    assert all(hasattr(measure, name) for name in measure.__all__)
