"""Which pages a function touches through a map: against fincore, and where others interfere."""

import mmap
import os
import random
import shutil
import subprocess

import pytest

from qm9lab import measure
from qm9lab.course import folders
from qm9lab.measure import touched

PAGE = mmap.PAGESIZE
pytestmark = pytest.mark.timing


@pytest.fixture
def on_disk():
    """A file of 300 pages in a folder of this process, where pages can be counted."""
    path = folders.lesson_folder() / "test_touched.dat"
    path.write_bytes(os.urandom(300 * PAGE - 100))
    if measure.file_system(path) not in ("ext4", "xfs"):  # there it must work
        n = touched.pages(path, lambda mm: mm[0]).n
        if measure.is_missing(n):
            path.unlink()
            pytest.skip(str(n))
    yield path
    path.unlink()


def fincore(path) -> int | None:
    """Cached pages by util-linux's fincore: shares no code with the package."""
    if not shutil.which("fincore"):
        return None
    done = subprocess.run(["fincore", "-nbo", "pages", path], capture_output=True, text=True)
    return int(done.stdout)


def test_touched_pages_are_those_that_were_read_and_no_others(on_disk):
    draw = random.Random(3)
    for _ in range(5):
        wanted = set(draw.sample(range(300), draw.randrange(1, 60)))
        found = touched.pages(on_disk, lambda mm, which: [mm[k * PAGE] for k in which], wanted)
        assert found.pages == wanted and found.n == found.n_major == len(wanted)
        assert fincore(on_disk) in (None, len(wanted))
        assert measure.exact_trace(on_disk, wanted).n_major == len(wanted)


def test_what_a_map_had_touched_before_is_not_counted(on_disk):
    with open(on_disk, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mm:
        assert len(mm[:]) == 300 * PAGE - 100
        assert touched.through(mm, on_disk, lambda: mm[7 * PAGE : 9 * PAGE]).pages == {7, 8}
        assert touched.through(mm, on_disk, lambda: None).pages == set()


def test_a_file_that_others_read_meanwhile_is_not_counted(on_disk, monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)

    def ask(mm):
        calls.append(mm[0])
        on_disk.read_bytes()

    calls = []
    found = touched.pages(on_disk, ask)
    for value in (*found, found.n):
        assert "others used the file at the same time" in str(value)
    assert len(calls) == touched.N_TRIES and not list(on_disk.parent.glob(".probe*"))


def test_a_file_that_another_map_keeps_warm_is_an_error(on_disk):
    with open(on_disk, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        assert mm[0] >= 0
        with pytest.raises(RuntimeError, match="Close its map and try again"):
            touched.pages(on_disk, lambda mm: mm[0])


def test_where_pages_cannot_be_counted_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    path = tmp_path / "x.dat"
    path.write_bytes(b"x" * PAGE)
    monkeypatch.delattr(mmap, "MADV_RANDOM", raising=False)
    found = touched.pages(path, lambda mm: 1 / 0)
    assert str(found.n).startswith("not available here, because ")
