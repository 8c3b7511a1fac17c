"""Lesson 05: who sees a change, and second measurements of what it says about the kernel."""

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from qm9lab import measure
from qm9lab.course import folders
from qm9lab.lessons.lesson_05 import pictures
from qm9lab.measure import Missing

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def words(figure):
    """What stands in the boxes, and the names above them."""
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    "access, step, seen, own_copy",
    [
        ("ACCESS_WRITE", "both maps made", "P: o, S: o, read(): o", False),
        ("ACCESS_WRITE", "written", "P: p, S: p, read(): p", False),
        ("ACCESS_WRITE", "closed", "P: closed, S: p, read(): p", False),
        ("ACCESS_COPY", "both maps made", "P: o, S: o, read(): o", False),
        ("ACCESS_COPY", "flushed", "P: p, S: o, read(): o", True),
        ("ACCESS_COPY", "closed", "P: closed, S: o, read(): o", False),
    ],
)
def test_the_picture_shows_what_each_reader_gets(access, step, seen, own_copy):
    figure, sentence = pictures.who_sees(access, step)
    assert sentence == f"{access}, {step}. {seen}"
    assert [word for word in words(figure) if len(word) == 1 or word == "closed"] == re.findall(
        r": (\w+)", seen
    )
    (first, *_) = figure.axes[0].patches
    assert (first.get_hatch() == "...") == own_copy


@pytest.mark.parametrize(
    "n_dirty, disk", [(0, "o, as read()"), (1, "older bytes:\na dirty page waits")]
)
def test_of_the_disk_it_shows_what_is_known(n_dirty, disk, monkeypatch):
    state = measure.CacheState(1, 1, n_dirty, False, "")
    monkeypatch.setattr(measure, "cache_state", lambda f: state)
    assert words(pictures.who_sees("ACCESS_COPY", "written")[0])[-1] == disk


def test_where_dirty_pages_are_not_counted_the_disk_is_not_known(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    state = measure.CacheState(1, 1, Missing("of this"), False, "")
    monkeypatch.setattr(measure, "cache_state", lambda f: state)
    assert words(pictures.who_sees("ACCESS_WRITE", "written")[0])[-1] == "not available here"


# What the lesson says about the kernel ----------------------------------------------------------


def committed_bytes():
    """What Linux has promised to all processes."""
    found = re.search(r"Committed_AS: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024


@linux
@pytest.mark.timing
@pytest.mark.parametrize(
    "access, promised", [("ACCESS_READ", 0), ("ACCESS_WRITE", 0), ("ACCESS_COPY", 1024)]
)
def test_only_a_private_map_is_charged_and_in_full_before_it_is_touched(access, promised, tmp_path):
    with open(tmp_path / "sparse.dat", "w+b") as f:
        f.truncate(1024 * MIB)
        before = committed_bytes()
        with mmap.mmap(f.fileno(), 0, access=getattr(mmap, access)) as mm:
            grown = committed_bytes() - before
            n_mapped = measure.mapped_pages(mm).sum()
    assert abs(grown - promised * MIB) < 200 * MIB and n_mapped == 0


@linux
def test_it_is_the_promise_that_is_refused_and_not_the_size(tmp_path):
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "0":
        pytest.skip("this system does not have the usual overcommit")
    lines = Path("/proc/meminfo").read_text()
    total = sum(int(n) for n in re.findall(r"^(?:Mem|Swap)Total: +(\d+) kB", lines, re.M)) * 1024
    with open(tmp_path / "huge.dat", "w+b") as f:
        f.truncate(2 * total)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        flags, prot = mmap.MAP_PRIVATE | 0x4000, mmap.PROT_READ | mmap.PROT_WRITE  # MAP_NORESERVE
        mmap.mmap(f.fileno(), 0, flags=flags, prot=prot).close()
        mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_WRITE).close()


@linux
@pytest.mark.timing
def test_a_first_write_is_a_minor_fault_that_makes_its_page_dirty():
    """Each fault of the three rounds: which kind it is, and which pages are dirty afterwards."""
    path = folders.lesson_folder() / "test_lesson_05.dat"
    path.write_bytes(bytes(256 * mmap.PAGESIZE))
    if measure.make_cold(path).is_cold is not True:
        pytest.skip("the file cannot be made cold here")
    written = range(0, 200, 2)

    def write(mm):
        before = measure.faults(thread=True)
        for k in written:
            mm[k * mmap.PAGESIZE] = 0
        return measure.faults(thread=True).since(before)[:2]

    def dirty(f, mm):
        return list(np.flatnonzero(measure.page_states(f, mm).dirty))

    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        mm.madvise(mmap.MADV_RANDOM)  # no blocks of pages: each is read alone
        sum(mm[:: mmap.PAGESIZE])
        assert dirty(f, mm) == [] and write(mm) == (100, 0)
        assert dirty(f, mm) == list(written) and write(mm) == (0, 0)
        mm.flush()
        assert dirty(f, mm) == [] and write(mm) == (100, 0)
        assert dirty(f, mm) == list(written)
        assert change_one_page(mm) == 1
        assert change_one_page(mm, flush_each=True) == 20
    path.unlink()


def change_one_page(mm, flush_each=False):
    """The minor faults of 20 changes in one page, which is clean before the first."""
    mm.flush()
    before = measure.faults(thread=True)
    for k in range(20):
        if flush_each:
            mm.flush()
        mm[k] = 1
    return measure.faults(thread=True).since(before).minor


@linux
def test_a_resize_lengthens_the_map_and_its_file_and_a_write_does_neither(tmp_path):
    with open(tmp_path / "small.dat", "w+b") as f:
        f.truncate(4)
        mm = mmap.mmap(f.fileno(), 0)
        for place, value in ((4, 1), (slice(0, 3), b"four")):
            with pytest.raises(IndexError):
                mm[place] = value
        assert len(mm) == (tmp_path / "small.dat").stat().st_size == 4
        mm.resize(6)
        assert len(mm) == (tmp_path / "small.dat").stat().st_size == 6
