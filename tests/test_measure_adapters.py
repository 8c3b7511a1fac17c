"""What other systems and other versions of psutil say, read by field name; what is missing."""

import errno
import mmap
import os
import platform
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from qm9lab import measure
from qm9lab.measure import cache, eviction, fault_counts, proc, timeline, touched

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
TOGETHER = NOT_HERE + "Windows counts minor and major faults together"
ELSEWHERE = 4_194_303  # a pid that this process does not have


@pytest.fixture(autouse=True)
def values_may_be_missing(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)


@pytest.fixture
def readings(monkeypatch):
    """Makes psutil.Process one with these readings, of this process or another."""

    def read(memory, pid=None, **calls):
        process = SimpleNamespace(memory_info=lambda: memory, pid=pid or os.getpid(), **calls)
        monkeypatch.setattr(psutil, "Process", lambda pid=None: process)

    return read


# Faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory, expected",
    [
        (MACOS, (3207 - 18, 18, "psutil pfaults - pageins, pageins")),
        (WINDOWS, (712, TOGETHER, "psutil num_page_faults")),
    ],
)
def test_faults_of_another_process_where_there_is_no_proc(readings, monkeypatch, memory, expected):
    readings(memory, pid=ELSEWHERE)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert list(map(str, measure.faults(pid=ELSEWHERE))) == list(map(str, expected))


def test_on_windows_this_process_s_faults_are_both_kinds_together(readings, monkeypatch):
    readings(WINDOWS)
    monkeypatch.setattr(fault_counts, "resource", fault_counts.no_resource)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    counted = measure.faults(thread=True)
    assert (counted.minor, str(counted.major)) == (712, TOGETHER)
    assert counted.since(measure.Faults(700, 5, "")).minor == 12
    assert str(counted.since(measure.Faults(700, 5, "")).major) == TOGETHER


def test_on_macos_getrusage_counts_this_process(readings):
    readings(MACOS)
    counted = measure.faults()
    assert counted.source == "getrusage(RUSAGE_SELF)" and counted.minor > MACOS.pfaults


def test_without_a_thread_s_count_the_process_s_is_given_and_named(monkeypatch):
    only_self = SimpleNamespace(RUSAGE_SELF=0, getrusage=fault_counts.resource.getrusage)
    monkeypatch.setattr(fault_counts, "resource", only_self)
    assert measure.faults(thread=True).source in ("getrusage(RUSAGE_SELF)", "psutil page_faults")


@pytest.mark.parametrize("pid", [None, ELSEWHERE])
def test_psutil_8_is_asked_first(readings, pid):
    readings(MACOS_8, pid=pid, page_faults=lambda: FAULTS_8)
    assert measure.faults(pid=pid) == (11219, 3, "psutil page_faults")


def test_where_nothing_counts_faults_it_is_said(readings, monkeypatch):
    readings(MACOS_8)
    monkeypatch.setattr(fault_counts, "resource", fault_counts.no_resource)
    monkeypatch.setattr(platform, "system", lambda: "Haiku")
    counted = measure.faults()
    for value in (*counted[:2], *counted.since(counted)[:2]):
        assert str(value) == NOT_HERE + "psutil counts no faults on Haiku"


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
def test_resident_memory_is_split(readings, memory, calls, expected):
    readings(memory, **calls)
    now = measure.resident()
    assert now[:2] == expected[:2] and now.source == (expected[2] or now.source)


@pytest.mark.parametrize("memory", [MACOS, WINDOWS, MACOS_8])
def test_no_split_of_resident_memory_is_said_not_guessed(readings, memory):
    readings(memory)
    for value in measure.resident()[:2]:
        assert str(value).startswith(NOT_HERE + "psutil does not split RSS")


@pytest.mark.parametrize("ask", [measure.resident, lambda pid: measure.faults(pid=pid)])
def test_somebody_else_s_process_is_refused_with_the_reason(readings, ask, monkeypatch):
    def refuse():
        raise psutil.AccessDenied(ELSEWHERE)

    readings(None, pid=ELSEWHERE)
    monkeypatch.setattr(psutil.Process(), "memory_info", refuse)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    why = f"process {ELSEWHERE} belongs to another user, and you may not look into it"
    for value in ask(ELSEWHERE)[:2]:
        assert str(value) == NOT_HERE + why


# Page cache, page table, eviction, calibration: each source away ------------------------------


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "four_pages.dat"
    file.write_bytes(os.urandom(4 * PAGE))
    return file


@pytest.fixture
def mm(path):
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        assert mm[0] >= 0
        yield mm


def refusal(code):
    """A system call that fails with an errno."""

    def refuse(*words):
        raise OSError(code, os.strerror(code))

    return refuse


def test_without_mincore_there_is_no_residency(path, mm, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    state, found = measure.cache_state(path), measure.page_states(path, mm)
    assert state.n_pages == 4 and state.source == ""
    for value in (measure.cached_pages(path), *state[1:4], found.cached, found.dirty):
        assert str(value) == NOT_HERE + "Windows has no mincore"
    assert found.mapped.any()


@pytest.mark.parametrize(
    "code, why",
    [
        (errno.ENOSYS, "there is no cachestat(2) here (Linux 6.5 has it; a container may hide it)"),
        (errno.EPERM, "cachestat(2) is refused here (Operation not permitted)"),
    ],
)
def test_without_cachestat_residency_is_known_and_dirty_pages_are_not(
    path, mm, monkeypatch, code, why
):
    monkeypatch.setattr(cache, "cachestat_counter", lambda fd: refusal(code))
    state, found = measure.cache_state(path), measure.page_states(path, mm)
    assert (state.n_pages, state.n_cached, state.is_cold, state.source) == (4, 4, False, "mincore")
    assert found.cached.all()
    for value in (state.n_dirty, found.dirty):
        assert str(value) == NOT_HERE + why


def test_a_refused_mincore_is_not_available_and_no_error(path, mm, monkeypatch):
    """As seccomp does in some containers: cachestat(2) still counts, but not page by page."""
    for module in (cache,):
        monkeypatch.setattr(module, "mincore", refusal(errno.EPERM), raising=False)
    why = NOT_HERE + "mincore(2) is refused here, as some containers do (seccomp)"
    found = measure.page_states(path, mm)
    for value in (measure.cached_pages(path), found.cached, found.dirty):
        assert str(value) == why
    assert found.mapped.any()
    monkeypatch.setattr(cache, "cachestat_counter", lambda fd: refusal(errno.ENOSYS))
    for value in (*measure.cache_state(path)[1:2], measure.make_cold(path).is_cold):
        assert str(value) == why


# Runs in a child, since a filter cannot be taken off again: mincore fails with EPERM and
# cachestat with ENOSYS (system calls 27 and 451 of x86-64), everything else is allowed.
FILTERED = """
import ctypes, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 27), (6, 0, 0, 0x50001), (0x15, 0, 1, 451)]
rules += [(6, 0, 0, 0x50026), (6, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
whole = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(program))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, whole, 0, 0) == 0
from qm9lab import measure
from qm9lab.measure import touched
print(measure.cached_pages(sys.argv[1]), *measure.cache_state(sys.argv[1])[1:4], sep="\\n")
print(measure.make_cold(sys.argv[1]).is_cold)
print(measure.exact_trace(sys.argv[1], [0]).n_major)
print(touched.pages(sys.argv[1], lambda mm: mm[0]).n)
"""


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="a filter for x86-64"
)
def test_under_a_real_filter_no_number_is_made_up(path):
    done = subprocess.run(
        [sys.executable, "-c", FILTERED, path], capture_output=True, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = NOT_HERE + "mincore(2) is refused here, as some containers do (seccomp)"
    no_call = NOT_HERE + "there is no cachestat(2) here (Linux 6.5 has it; a container may hide it)"
    expected = [refused, refused, no_call, *[refused] * 4]
    assert done.stdout.splitlines() == expected


def test_on_overlayfs_mincore_is_believed(path, monkeypatch):
    """There cachestat(2) counts no pages of a file that is all cached."""
    monkeypatch.setattr(cache, "cachestat_counter", lambda fd: lambda start, n: (0, 0))
    monkeypatch.setattr(cache, "file_system", lambda path: "overlay")
    state = measure.cache_state(path)
    assert state.n_cached == 4 and state.source == "mincore"
    assert str(state.n_dirty) == NOT_HERE + (
        "on overlay cachestat(2) looks at an inode without pages"
    )


def test_macos_makes_no_system_call_by_a_linux_number(path, mm, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(cache, "cachestat_counter", lambda fd: pytest.fail("a raw system call"))
    state = measure.cache_state(path)
    assert state.n_cached == 4
    for value in (state.n_dirty, measure.page_states(path, mm).dirty):
        assert str(value) == NOT_HERE + "Darwin has no cachestat(2)"


@pytest.fixture
def no_proc(monkeypatch):
    """The instruments find no /proc (psutil does)."""

    def refuse(path, *words, **options):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(proc, "open", refuse, raising=False)


def test_without_proc_mapped_pages_regions_and_pss_are_unknown(path, mm, no_proc):
    found, taken = measure.page_states(path, mm), measure.footprint()
    assert found.cached.all()
    for value in (measure.mapped_pages(mm), found.mapped, found.copied):
        assert str(value).endswith("has no /proc/PID/pagemap")
    for value in (measure.regions(), measure.file_bytes(path)):
        assert str(value).endswith("has no /proc/PID/maps")
    assert str(taken.pss_bytes).endswith("has no /proc/PID/smaps_rollup")
    assert taken.rss_bytes >= taken.uss_bytes > 0


def test_without_fadvise_make_cold_says_so(path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    state = measure.make_cold(path)
    assert state.n_cached == 4 and "no posix_fadvise" in str(state.is_cold)


def test_where_the_advice_does_nothing_no_file_is_cold(path, monkeypatch):
    """As on an overlay over tmpfs: a file without any map stays cached."""
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: None)
    monkeypatch.setattr(eviction, "RETRY_S", 0.0)
    is_cold = measure.make_cold(path, timeout_s=0).is_cold
    assert "does not drop a file's pages when it is advised to" in str(is_cold)


def test_a_file_system_without_fsync_is_still_advised(path, monkeypatch):
    """squashfs and other file systems that are only read: fsync(2) fails with EINVAL there."""
    advised = []
    monkeypatch.setattr(os, "fsync", refusal(errno.EINVAL))
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: advised.append(words))
    monkeypatch.setattr(
        eviction, "cache_state", lambda path: cache.CacheState(4, 0, 0, True, "cachestat")
    )
    assert measure.make_cold(path).is_cold is True
    assert advised and advised[0][1:] == (0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("source, n_asked", [("cachestat", 1), ("mincore", 3)])
def test_mincore_must_say_cold_three_times_and_cachestat_once(path, monkeypatch, source, n_asked):
    asked, state = [], cache.CacheState(4, 0, 0, True, source)
    monkeypatch.setattr(eviction, "cache_state", lambda path: asked.append(1) or state)
    assert measure.make_cold(path).is_cold is True and len(asked) == n_asked


def test_calibration_says_what_is_missing_also_from_its_card(
    tmp_path, monkeypatch, no_proc, readings
):
    readings(MACOS)
    monkeypatch.delattr(os, "posix_fadvise")
    found = measure.calibrate(tmp_path, tmp_path / "card.json")
    assert found.page_bytes == PAGE and found.granularity_bytes == mmap.ALLOCATIONGRANULARITY
    assert {name for name, value in found._asdict().items() if measure.is_missing(value)} == {
        "can_evict", "readahead_pages", "fault_around_small_pages", "fault_around_large_pages",
        "memory_source",
    }  # fmt: skip
    again = measure.calibrate(tmp_path, tmp_path / "card.json")
    assert list(map(str, again)) == list(map(str, found))
    assert [each.name for each in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize("gone", ["fadvise", "pagemap", "madvise"])
def test_the_exact_protocol_says_why_it_cannot_be_had(tmp_path, path, monkeypatch, request, gone):
    if gone == "fadvise":
        monkeypatch.delattr(os, "posix_fadvise")
    elif gone == "pagemap":
        request.getfixturevalue("no_proc")
    else:
        monkeypatch.delattr(mmap, "MADV_RANDOM")
    found = measure.exact(tmp_path, 3)
    touch = touched.pages(path, lambda mm: mm[0])
    for value in (found, *measure.exact_trace(path, [0])[1:], *touch, touch.n):
        assert str(value) == str(found) and str(found).startswith(NOT_HERE)


@pytest.mark.parametrize("memory", [MACOS, WINDOWS])
def test_a_timeline_has_no_columns_that_the_system_does_not_offer(readings, monkeypatch, memory):
    readings(memory)
    monkeypatch.setattr(timeline, "has_proc", lambda: False)
    if memory is WINDOWS:
        monkeypatch.setattr(fault_counts, "resource", fault_counts.no_resource)
        monkeypatch.setattr(platform, "system", lambda: "Windows")
    with measure.Sampler(every_s=0.02) as sampler:
        pass
    found = sampler.timeline
    missing = [measure.is_missing(column) for column in found]
    assert missing == [False, True, True, False, memory is WINDOWS, False]
    assert len(found.t_s) >= 1 and len(found.minor) == len(found.t_s)
    assert found.source == "psutil" and str(found.file_bytes).startswith(NOT_HERE)


def test_every_public_name_is_there():
    assert sorted(measure.__all__) == sorted(set(measure.__all__))
    assert all(hasattr(measure, name) for name in measure.__all__)
