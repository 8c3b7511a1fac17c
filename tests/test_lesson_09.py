"""Lesson 09: its functions, and what it says, against a second measurement.

The second measurement of PSS, USS and cost counts pages: which ones each process has mapped (bit 63
of /proc/PID/pagemap), and how many processes have each.
"""

import ast
import ctypes
import mmap
import os
import pickle
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from lesson_module import code_cells, loaded

from qm9lab import measure, processes, qm9, records
from qm9lab.course import folders
from qm9lab.lessons.lesson_09 import team

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "09_sharing.ipynb"
MIB = 1 << 20
PAGE = mmap.PAGESIZE
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The functions that the lesson defines, as a module, whose source a child can get."""
    nodes = [node for cell in code_cells(NOTEBOOK) for node in ast.parse(cell).body]
    found = {node.name: ast.unparse(node) for node in nodes if isinstance(node, ast.FunctionDef)}
    del found["add"]  # an exercise
    file = tmp_path_factory.mktemp("lesson") / "lesson_09_functions.py"
    imports = "import mmap, os\nimport numpy as np\nfrom qm9lab import measure, records"
    with loaded(file, "\n\n".join([imports, *found.values()])) as module:
        yield module


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(dir=folders.lesson_folder()) as folder:
        made = Path(folder, "shared.dat")
        made.write_bytes(np.random.default_rng(1).bytes(16 * MIB))
        yield made


# The room ------------------------------------------------------------------------------------


def test_a_team_holds_its_values_and_is_gone_after_the_with():
    with team.start(3, os_pid, uses=[os]) as three:
        assert [each.call(same) for each in three] == [each.pid for each in three]
        assert team.at_once(three, same) == sum(each.pid for each in three)
    assert not any(psutil.pid_exists(each.pid) for each in three)


def os_pid():
    return os.getpid()


def same(held):
    return held


# What processes have -------------------------------------------------------------------------


def entries(pid, name=""):
    """Entries of pagemap for the regions of a process whose line in maps ends with ``name``."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        for line in maps:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if start < 2**63 and line.rstrip().endswith(name):  # vsyscall is the kernel's
                f.seek(start // PAGE * 8)
                found.append(np.frombuffer(f.read((end - start) // PAGE * 8), np.uint64))
    return np.concatenate(found)


def touch_part(mm, start, end):
    return sum(mm[start : end : mmap.PAGESIZE])


def open_map(path):
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


@needs_linux
@pytest.mark.timing
def test_pss_and_uss_are_what_one_counts_from_page_tables(path):
    size = path.stat().st_size
    with team.start(3, open_map, path, uses=[mmap]) as three:
        for each in three:
            each.call(touch_part, 0, 0, uses=[mmap])  # imports before the count begins
        before = [measure.footprint(each.pid) for each in three]
        for each, part in zip(three, ((0, 2), (1, 3), (0, 4)), strict=True):
            each.call(touch_part, *(size // 4 * k for k in part), uses=[mmap])
        tables = [entries(each.pid, path.name) >> np.uint64(63) == 1 for each in three]
        n_mappers = np.sum(tables, axis=0)
        assert set(n_mappers) == {1, 2, 3}
        for each, old, table in zip(three, before, tables, strict=True):
            added = measure.footprint(each.pid).since(old)
            pss, uss = (table / np.maximum(n_mappers, 1)).sum(), (table & (n_mappers == 1)).sum()
            for n_bytes, n_pages in zip(added[:4], (table.sum(), pss, uss, 0), strict=True):
                assert abs(n_bytes - n_pages * PAGE) < MIB  # what the interpreter itself did


@needs_linux
@pytest.mark.timing
@pytest.mark.parametrize("way, n_files", [("map_all", 1), ("read_all", 4)])
def test_the_cost_of_three_readers_is_the_pages_that_one_counts(lesson, path, way, n_files):
    """Anonymous pages are those with bit 63 and without bit 61, for a file or shared memory."""
    if measure.make_cold(path).is_cold is not True:
        pytest.skip("this folder's files cannot be made cold")
    owned = 0
    with team.start(3, os_pid, uses=[os]) as idle:
        owned -= sum(np.sum(entries(each.pid) >> np.uint64(61) == 0b100) for each in idle)
    with team.start(3, getattr(lesson, way), path, uses=[mmap]) as three:
        owned += sum(np.sum(entries(each.pid) >> np.uint64(61) == 0b100) for each in three)
    cost = (owned + measure.cached_pages(path).sum()) * PAGE / path.stat().st_size
    assert abs(cost - n_files) < 0.1


# fork, and pickles ---------------------------------------------------------------------------


def faults_in_child(path, what):
    """Minor faults of a forked child that looks at strings, at their array, or at nothing."""
    import resource

    data = [smiles for _, smiles, _ in records.walk(path.read_bytes())]
    if what == "array":
        data = memoryview("".join(data).encode())  # as NumPy's arrays, one object
    if os.fork() == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        max(data)
        n_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        os._exit(n_faults // 100)
    return os.waitstatus_to_exitcode(os.wait()[1])


@needs_linux
@pytest.mark.timing
def test_a_forked_child_takes_a_fault_for_each_page_of_strings_that_it_looks_at(lesson):
    path, uses = qm9.record_file(), [mmap, os, records, lesson.map_all, lesson.rollup]
    copied = processes.on_linux(lesson.look_in_child, path, "list", uses=uses)
    by_list, by_array = (
        processes.on_linux(faults_in_child, path, what, uses=[os, records])
        for what in ("list", "array")
    )
    list_mib = 130_831 * 60 / MIB  # at least: 49 bytes and the text of each
    assert copied > list_mib and by_list * 100 * PAGE > 0.9 * list_mib * MIB > 5 * by_array * PAGE


def test_a_map_is_not_pickled_and_a_memmap_is_pickled_as_its_data(path):
    with pytest.raises(TypeError, match="mmap"):
        pickle.dumps(open_map(path))
    loaded = pickle.loads(pickle.dumps(np.memmap(path, mode="r")))
    assert loaded.base == path.read_bytes()  # bytes: a copy, and no map


# Anonymous maps and malloc -------------------------------------------------------------------


def anonymous_maps():
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    private = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private[0:1] = b"p"
    if os.fork() == 0:
        shared[0:1] = private[0:1] = b"c"
        os._exit(0)
    os.wait()
    seen = shared[0:1] + private[0:1]
    private.madvise(mmap.MADV_DONTNEED)
    return seen + private[0:1]


def free_every_other(block_bytes, trim):
    blocks = [bytearray(block_bytes) for _ in range(2**26 // block_bytes)]
    before = rollup("self")["Rss"]  # noqa: F821
    del blocks[::2]
    if trim:
        ctypes.CDLL(None).malloc_trim(0)
    return (before - rollup("self")["Rss"]) / 1024  # noqa: F821


@needs_linux
def test_what_the_lesson_says_of_anonymous_maps_and_of_malloc(lesson):
    assert processes.on_linux(anonymous_maps, uses=[mmap, os]) == b"cp\0"
    for block_bytes, trim in ((2**16, True), (2**21, False)):  # small and trimmed, very large
        how = [ctypes, lesson.rollup]
        assert processes.on_linux(free_every_other, block_bytes, trim, uses=how) > 28  # MiB


# Two writers ---------------------------------------------------------------------------------


STORIES = [("Ar Aw Br Bw", 2), ("Ar Br Aw Bw", 1), ("Ar Br Bw Aw", 1), ("Br Bw Br Bw Ar Aw", 3)]


@pytest.mark.parametrize("story, number", STORIES)
def test_the_order_of_reads_and_writes_decides_every_time(lesson, path, story, number):
    path.write_bytes(bytes(8))
    with team.start(2, lesson.open_number, path, uses=[mmap]) as both:
        for letter, step in story.split():
            both["AB".index(letter)].call({"r": lesson.read, "w": lesson.write}[step])
    assert np.fromfile(path, "q") == [number]


def try_lock(held):
    import fcntl

    try:
        fcntl.lockf(held["file"], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "has it"
    except OSError:
        return "refused"


@needs_linux
def test_a_lock_refuses_another_process_and_stops_nobody_who_does_not_ask(lesson, path):
    path.write_bytes(bytes(8))
    with team.start(2, lesson.open_number, path, uses=[mmap]) as (a, b):
        answers = [process.call(try_lock) for process in (a, b, a)]
        assert answers == ["has it", "refused", "has it"]  # so not between threads of A
        for step in (lesson.read, lesson.write):
            b.call(step)
    assert np.fromfile(path, "q") == [1]
