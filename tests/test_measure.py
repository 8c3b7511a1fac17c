"""The instruments, each against a second one."""

import ctypes
import mmap
import os
import pickle
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from qm9lab import measure

PAGE = mmap.PAGESIZE
pytestmark = pytest.mark.timing
NOT_HERE = "not available here, because "
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(request):
    """A file of 512 pages on the file system of the data folder, written in small pieces."""
    from qm9lab.course import folders

    file = folders.lesson_folder() / f"test_measure_{os.getpid()}.dat"
    with open(file, "wb", buffering=0) as f:
        for _ in range(512):
            f.write(os.urandom(PAGE))
    yield file
    file.unlink(missing_ok=True)


def cold(path) -> None:
    """Make the file cold, or skip where that cannot be had."""
    is_cold = measure.make_cold(path).is_cold
    if is_cold is not True:
        pytest.skip(f"cold: {is_cold}")


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


CHILD = """
import mmap, sys
m = mmap.mmap(-1, 3000 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_NOHUGEPAGE)
print(flush=True)
sys.stdin.readline()
for k in range(3000):
    m[k * mmap.PAGESIZE] = 1
print(flush=True)
sys.stdin.readline()
"""


@linux
def test_faults_and_memory_of_a_child_agree_with_proc():
    words = [sys.executable, "-I", "-S", "-c", CHILD]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        before, memory_before = measure.faults(pid=child.pid), measure.resident(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        counted, memory = measure.faults(pid=child.pid), measure.resident(child.pid)
        fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        rollup = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
    assert counted[:2] == (int(fields[7]), int(fields[9]))
    assert counted.source in ("/proc/PID/stat", "psutil page_faults")
    assert 3000 <= counted.since(before).minor < 3100
    assert abs(memory.anonymous_bytes - memory_before.anonymous_bytes - 3000 * PAGE) < 100 * PAGE
    anonymous = int(re.search(r"Anonymous: +(\d+) kB", rollup)[1]) * 1024
    rss = int(re.search(r"Rss: +(\d+) kB", rollup)[1]) * 1024
    assert abs(memory.anonymous_bytes - anonymous) < 64 * PAGE
    assert abs(memory.file_bytes - (rss - anonymous)) < 64 * PAGE


@linux
@pytest.mark.skipif(not os.path.exists("/usr/bin/time"), reason="no /usr/bin/time (GNU time)")
def test_faults_of_a_child_agree_with_time_v():
    """The child's own count, to its last line, against wait4(2)'s as GNU time prints it."""
    ask = "; print(*measure.faults()[:2], flush=True); import os; os._exit(0)"
    script = "from qm9lab import measure" + ask
    done = subprocess.run(
        ["/usr/bin/time", "-v", sys.executable, "-c", script],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    minor, major = map(int, done.stdout.split())
    by_time = [int(re.search(rf"{kind}.*page faults: (\d+)", done.stderr)[1])
               for kind in ("Minor", "Major")]  # fmt: skip
    assert minor > 1000 and 0 <= by_time[0] - minor < 200
    assert 0 <= by_time[1] - major < 50


@linux
def test_rusage_faults_counts_children_that_ended():
    before = measure.rusage_faults(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-I", "-S", "-c", CHILD]
    subprocess.run(words, input=b"\n\n", stdout=subprocess.DEVNULL, check=True)
    assert measure.rusage_faults(resource.RUSAGE_CHILDREN)[0] - before[0] >= 3000


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
def test_resident_memory_agrees_with_smaps_rollup():
    rollup = Path("/proc/self/smaps_rollup").read_text()
    now = measure.resident()
    anonymous = int(re.search(r"Anonymous: +(\d+) kB", rollup)[1]) * 1024
    rss = int(re.search(r"Rss: +(\d+) kB", rollup)[1]) * 1024
    assert abs(now.anonymous_bytes - anonymous) < 2 << 20
    assert abs(now.file_bytes - (rss - anonymous)) < 2 << 20


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
    if measure.is_missing(state.n_dirty):
        pytest.skip(str(state.n_dirty))
    assert state.n_dirty == 0
    with path.open("r+b") as f, mmap.mmap(f.fileno(), 0) as mm:
        mm[3 * PAGE] = mm[90 * PAGE] = 1
        assert measure.cache_state(path).n_dirty >= 2
        mm.flush()
        assert measure.cache_state(path).n_dirty == 0


def test_a_view_that_begins_inside_a_page_is_refused():
    with mmap.mmap(-1, 2 * PAGE) as mm, memoryview(mm)[100:] as view:
        with pytest.raises(ValueError, match="100 bytes into a page"):
            measure.mapped_pages(view)


@linux
def test_evict_writes_back_and_drops(path):
    with path.open("r+b") as f:
        f.write(b"x" * 5 * PAGE)
    if measure.cache_state(path).n_dirty == 0:
        pytest.skip("no dirty pages to see here")
    measure.evict(path)
    if measure.file_system(path) in measure.MEMORY_ONLY:
        pytest.skip("no disk to evict to")
    assert measure.cache_state(path)[1:3] == (0, 0)


def test_a_mapped_file_cannot_be_made_cold_and_says_so(path):
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
        sum(mm[k * PAGE] for k in range(512))
        state = measure.make_cold(path, timeout_s=0.1)
        assert state.n_cached > 0 and state.is_cold is False
    assert measure.make_cold(path).is_cold is True


@linux
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no tmpfs at /dev/shm")
def test_tmpfs_has_no_cold(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    path = Path(f"/dev/shm/qm9lab-{os.getpid()}.dat")
    try:
        path.write_bytes(b"x" * 8 * PAGE)
        state = measure.make_cold(path, timeout_s=0.05)
        assert state.n_cached == 8
        assert measure.is_missing(state.is_cold, state.n_dirty) and "tmpfs" in str(state.is_cold)
        assert str(state.n_dirty) == NOT_HERE + "tmpfs has no disk to write dirty pages to"
    finally:
        path.unlink()


def test_an_empty_file_has_no_pages(tmp_path):
    (tmp_path / "empty").touch()
    assert measure.cache_state(tmp_path / "empty")[:4] == (0, 0, 0, True)
    assert len(measure.cached_pages(tmp_path / "empty")) == 0


def test_a_missing_file_is_an_os_error_that_names_it(tmp_path):
    for ask in (measure.cache_state, measure.cached_pages, measure.make_cold):
        with pytest.raises(FileNotFoundError, match="nothing_here"):
            ask(tmp_path / "nothing_here")


ROOT_ONLY = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user"
)


PR_SET_DUMPABLE = 4  # prctl(2)


def as_somebody_else(ask):
    """What ``ask()`` returns as user 65534 without rights, in a forked child of this process.

    The child has all modules imported: it may not reach the folder of this Python.
    """
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            # Its own /proc is closed to a process that gave up rights, until it says otherwise
            # (proc(5)); one that began as this user has none of that.
            assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
            answer = ask()
        except BaseException as error:
            answer = error
        try:
            os.write(write_fd, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as f:
        answer = pickle.load(f)
    os.waitpid(pid, 0)
    if isinstance(answer, BaseException):
        raise answer
    return answer


@pytest.fixture
def somebody_else_s_file():
    """A cold file of root's that others may only read, in a folder that they can reach."""
    folder = Path(tempfile.mkdtemp(prefix="qm9lab-", dir="/var/tmp"))
    folder.chmod(0o755)
    file = folder / "of_root.dat"
    file.write_bytes(os.urandom(64 * PAGE))
    file.chmod(0o644)
    yield file
    shutil.rmtree(folder)


def raw_mincore(path):
    """What mincore(2) itself answers, believed."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        view = np.frombuffer(mm, np.uint8)
        answer = np.zeros(len(mm) // PAGE, np.uint8)
        address, to = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(answer.ctypes.data)
        assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(mm)), to) == 0
        del view
    return int((answer & 1).sum())


@linux
@ROOT_ONLY
def test_residency_of_somebody_else_s_file_is_refused_not_believed(
    somebody_else_s_file, monkeypatch
):
    """mincore(2) answers "all cached" there (FACTS 13): no number may come of it."""
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    path = somebody_else_s_file
    cold(path)

    def ask():
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
            found = measure.page_states(path, mm)
        return (
            os.geteuid(), measure.cache_state(path), measure.cached_pages(path),
            measure.make_cold(path), found, raw_mincore(path),
        )  # fmt: skip

    uid, state, cached, made_cold, found, believed = as_somebody_else(ask)
    why = NOT_HERE + "of_root.dat belongs to another user and you may not write to it"
    assert uid == 65534
    assert (state.n_pages, state.source) == (64, "")
    for value in (*state[1:4], cached, *made_cold[1:4], found.cached, found.dirty):
        assert str(value) == why
    assert not found.mapped.any() and not found.copied.any()
    if believed != 64:
        pytest.skip(f"this kernel's mincore told the truth ({believed} pages): nothing to refuse")


@linux
@ROOT_ONLY
def test_residency_of_one_s_own_file_is_told_to_anybody(somebody_else_s_file):
    path = somebody_else_s_file
    os.chown(path, 65534, 65534)
    path.chmod(0o444)  # the owner, but may not write
    state = as_somebody_else(lambda: measure.cache_state(path))
    assert state[:2] == (64, 64)
    os.chown(path, 0, 0)
    path.chmod(0o666)  # not the owner, but may write
    assert as_somebody_else(lambda: measure.cache_state(path))[:2] == (64, 64)


@linux
@ROOT_ONLY
def test_an_ordinary_user_sees_faults_and_memory_of_root_s_process_and_no_pss(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)

    def ask():
        return measure.faults(pid=1), measure.resident(1), measure.footprint(1), measure.regions(1)

    counted, memory, footprint, regions = as_somebody_else(ask)
    assert counted.minor > 0 and memory.anonymous_bytes >= 0
    why = NOT_HERE + "process 1 belongs to another user, and you may not look into it"
    for value in (footprint.pss_bytes, footprint.pss_anonymous_bytes, regions):
        assert str(value) == why


@linux
@pytest.mark.parametrize(
    "ask",
    [measure.footprint, measure.resident, measure.regions, lambda pid: measure.faults(pid=pid)],
)
def test_a_pid_without_a_process_is_an_error_that_names_it(ask):
    with pytest.raises(ProcessLookupError, match="none with pid 4194303"):
        ask(4_194_303)
    with pytest.raises(ValueError, match="found -1"):
        ask(-1)


@linux
def test_a_zombie_is_a_zombie():
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as child:
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with pytest.raises(ProcessLookupError, match="is a zombie"):
            measure.footprint(child.pid)
        assert measure.resident(child.pid)[:2] == (0, 0) and measure.regions(child.pid) == []


@linux
def test_bytes_of_a_file_in_a_process_are_its_mapped_pages(path):
    assert measure.file_bytes(path) == 0
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mm:
        mm.madvise(mmap.MADV_RANDOM)
        for page in (0, 100, 511):
            mm[page * PAGE]
        mapped = int(measure.mapped_pages(mm).sum())
        assert measure.file_bytes(path) == measure.file_bytes(path, os.getpid()) == mapped * PAGE
        mm[0] = 1  # a private copy is not the file's page
        assert measure.file_bytes(path) == (mapped - 1) * PAGE


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
