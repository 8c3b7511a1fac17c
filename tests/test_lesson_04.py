"""What lesson 04 says of flushes, full disks and renames, and does not measure in its cells."""

import errno
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qm9lab import measure, processes

ROOT = Path(__file__).resolve().parent.parent
PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the lesson says it of Linux")


def test_a_flush_after_each_record_writes_one_page_again_and_again():
    """Mistake 3: many records share a page, and each flush finds this page dirty."""
    with tempfile.NamedTemporaryFile(dir=ROOT) as f:
        f.truncate(100 * PAGE)
        with mmap.mmap(f.fileno(), 0) as mm:
            mm[:] = b"x" * len(mm)
            mm.flush()
            n_written = 0
            for k in range(20):
                mm[64 * k : 64 * k + 64] = b"y" * 64
                n_written += measure.cache_state(f).n_dirty
                mm.flush()
                assert measure.cache_state(f).n_dirty == 0
        if measure.is_missing(n_written):
            pytest.skip(str(n_written))
        # The kernel may have written a page by itself before we counted.
        assert 20 * 64 < PAGE and n_written > 10


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 pages."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={16 * PAGE}", "qm9lab-test", tmp_path]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def fill_the_holes(path):
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        for at in range(0, len(mm), mmap.PAGESIZE):
            mm[at] = 1


def test_a_full_disk_is_sigbus_in_a_hole_and_an_error_of_fallocate(small_disk):
    path = small_disk / "sparse.dat"
    with open(path, "wb") as f:
        f.truncate(64 * PAGE)
        assert os.stat(path).st_blocks == 0
        assert processes.run(fill_the_holes, path, uses=[mmap]).signal == "SIGBUS"
        with pytest.raises(OSError) as refused:
            os.posix_fallocate(f.fileno(), 0, 64 * PAGE)
        assert refused.value.errno == errno.ENOSPC
        f.truncate(8 * PAGE)
        os.posix_fallocate(f.fileno(), 0, 8 * PAGE)
    assert processes.run(fill_the_holes, path, uses=[mmap]).returncode == 0


def test_a_rename_works_within_one_file_system(small_disk):
    with tempfile.NamedTemporaryFile(dir=ROOT) as f, pytest.raises(OSError) as refused:
        os.replace(f.name, small_disk / "new.dat")
    assert refused.value.errno == errno.EXDEV


def test_a_reader_that_has_the_old_file_open_keeps_it(tmp_path):
    old, new = tmp_path / "safe.dat", tmp_path / "temporary.dat"
    old.write_bytes(b"O")
    new.write_bytes(b"N")
    with open(old, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
        os.replace(new, old)
        assert f.read() == mm[:] == b"O" and old.read_bytes() == b"N"
