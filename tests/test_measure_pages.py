"""The page states against what the kernel says by other ways, and its cost."""

import mmap
import os
import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qm9lab import measure
from qm9lab.course import folders
from qm9lab.measure import cache, system_calls
from qm9lab.measure.address_space import is_mapped

PAGE = mmap.PAGESIZE
pytestmark = [
    pytest.mark.timing,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


@pytest.fixture
def path():
    file = folders.lesson_folder() / "test_measure_pages.dat"
    yield file
    file.unlink(missing_ok=True)


def fill(path, n_pages, piece_pages=1):
    with path.open("wb", buffering=0) as f:
        for _ in range(n_pages // piece_pages):
            f.write(os.urandom(piece_pages * PAGE))
        os.fsync(f.fileno())


def cold(path) -> None:
    is_cold = measure.make_cold(path).is_cold
    if is_cold is not True:
        pytest.skip(f"cold: {is_cold}")


def in_smaps(mm, name) -> int:
    """A line of /proc/self/smaps for a map's region, in pages."""
    text = Path("/proc/self/smaps").read_text(errors="replace")
    (region,) = re.findall(rf"^{measure.address_of(mm):x}-.*?^VmFlags", text, re.M | re.S)
    return int(re.search(rf"^{name}: +(\d+) kB", region, re.M)[1]) * 1024 // PAGE


def best_s(ask, times=15) -> float:
    """The shortest of some runs, in this thread's time on a core: it waits for nothing else."""

    def once():
        start = time.thread_time()
        ask()
        return time.thread_time() - start

    return min(once() for _ in range(times))


def where(mask) -> list[int]:
    return list(np.flatnonzero(mask))


@pytest.mark.parametrize("piece_pages", [1, 256])
def test_mapped_pages_are_the_region_s_rss(path, piece_pages):
    fill(path, 2048, piece_pages)
    draw = random.Random(piece_pages)
    for _ in range(10):
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
            touched = draw.sample(range(2048), draw.randint(1, 60))
            for page in touched:
                mm[page * PAGE]
            # Two readings are compared, and the kernel may move a page in memory in between,
            # which hides it for that moment: then look again.
            for _ in range(3):
                found, n_rss = measure.page_states(path, mm), in_smaps(mm, "Rss")
                mapped, cached = measure.mapped_pages(mm), measure.cached_pages(path)
                agree = np.array_equal(found.mapped, mapped)
                agree &= np.array_equal(found.cached, cached)
                if agree and found.mapped.sum() == n_rss:
                    break
            assert agree and found.mapped.sum() == n_rss >= len(touched)
            assert found.mapped[touched].all() and not found.copied.any()


def test_each_state_is_told_of_the_very_pages(path):
    fill(path, 512)
    cold(path)
    with path.open("r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        mm.madvise(mmap.MADV_RANDOM)
        for page in (3, 200, 511):
            mm[page * PAGE]
        mm[7 * PAGE] = mm[300 * PAGE] = 1
        found = measure.page_states(path, mm)
        assert where(found.cached) == where(found.mapped) == [3, 7, 200, 300, 511]
        if measure.is_missing(found.dirty):
            pytest.skip(str(found.dirty))
        assert where(found.dirty) == [7, 300] and where(found.copied) == []
        mm.flush()
        assert where(measure.page_states(path, mm).dirty) == []


def test_a_private_copy_is_not_the_file_s_page(path):
    fill(path, 64)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mm:
        sum(mm[page * PAGE] for page in range(64))
        mm[5 * PAGE] = mm[60 * PAGE] = 1
        found = measure.page_states(path, mm)
        assert found.mapped.all() and where(found.copied) == [5, 60]
        assert found.copied.sum() == in_smaps(mm, "Anonymous")
        assert measure.is_missing(found.dirty) or not found.dirty.any()


def test_a_private_copy_says_nothing_of_the_page_cache(path):
    """mincore(2) over the map itself would say that the page of a copy is there."""
    fill(path, 64)
    cold(path)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mm:
        mm[5 * PAGE] = 1
        cold(path)  # the copy is not the file's page, and does not keep it
        found = measure.page_states(path, mm)
    assert where(found.cached) == [] and where(found.mapped) == where(found.copied) == [5]


def kernel_dirty(path) -> list[int]:
    """Dirty pages by one cachestat(2) a page: what the halving must agree with."""
    with path.open("rb") as f:
        count = system_calls.cachestat_counter(f.fileno())
        return [k for k in range(path.stat().st_size // PAGE) if count(k, 1)[1]]


@pytest.mark.parametrize("piece_pages", [1, 64])
@pytest.mark.parametrize("n_stores", [0, 1, 30, 400, 999])
def test_dirty_pages_are_those_that_the_kernel_counts_page_by_page(path, piece_pages, n_stores):
    fill(path, 64 * 15 + 39 if piece_pages == 1 else 64 * 16, piece_pages)
    n_pages = path.stat().st_size // PAGE
    if measure.is_missing(measure.cache_state(path).n_dirty):
        pytest.skip(str(measure.cache_state(path).n_dirty))
    with path.open("r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        for page in random.Random(n_stores).sample(range(n_pages), n_stores):
            mm[page * PAGE] = 1
        for _ in range(5):  # the kernel may write some back in between: then ask again
            before, found = kernel_dirty(path), measure.page_states(path, mm)
            if before == kernel_dirty(path):
                break
        assert where(found.dirty) == before
        assert found.dirty.sum() == measure.cache_state(path).n_dirty >= n_stores


def test_halving_asks_about_no_more_ranges_than_there_are_pages(path, monkeypatch):
    """Exact for every pattern, also the worst: every second page dirty."""
    fill(path, 33)
    for dirty in ([], [0], [32], list(range(0, 33, 2)), list(range(33)), [5, 6, 7, 20]):
        asked = []

        def count(start, n, dirty=dirty, asked=asked):
            asked.append((start, n))
            return n, sum(start <= k < start + n for k in dirty)

        monkeypatch.setattr(cache, "counter", lambda fd, path, count=count: count)
        found = cache.dirty_pages(path, np.ones(33, bool))
        assert where(found) == dirty and len(asked) <= 33
        assert len(asked) == 1 or dirty not in ([], list(range(33)))


def test_a_map_longer_or_shorter_than_the_file_is_cut_to_the_file_s_pages(path):
    fill(path, 8)
    with path.open("r+b") as f, mmap.mmap(f.fileno(), 4 * PAGE) as mm:
        assert mm[3 * PAGE] >= 0
        found = measure.page_states(path, mm)
    assert len(found.mapped) == len(found.cached) == 8
    assert found.mapped[3] and not found.mapped[4:].any()


def test_a_file_s_page_that_is_being_moved_is_mapped_and_one_in_swap_is_not():
    present, swapped, file = 1 << 63, 1 << 62, 1 << 61
    entries = np.array([0, present, present | file, swapped, swapped | file, file], dtype=np.uint64)
    assert list(is_mapped(entries)) == [False, True, True, False, True, False]


def test_page_states_of_8192_pages_take_5_ms_at_most(path):
    fill(path, 8192)
    with path.open("r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        sum(mm[page * PAGE] for page in range(8192))
        mm[100 * PAGE] = 1
        took_s = best_s(lambda: measure.page_states(path, mm), 100)
    print(f"page states of 8,192 pages: {took_s * 1e3:.2f} ms")
    assert took_s <= 0.005  # 1.3 ms on an idle machine


def test_page_states_of_1_gib_take_100_ms_at_most(path):
    fill(path, 8192, 256)
    with path.open("r+b") as f:
        f.truncate(1 << 30)
        with mmap.mmap(f.fileno(), 0) as mm:
            sum(mm[page * PAGE] for page in range(8192))
            mm[100 * PAGE] = 1
            found = measure.page_states(path, mm)
            took_s = best_s(lambda: measure.page_states(path, mm))
    assert len(found.cached) == (1 << 30) // PAGE and found.cached[:8192].all()
    print(f"page states of a file of 1 GiB: {took_s * 1e3:.1f} ms")
    assert took_s <= 0.1
