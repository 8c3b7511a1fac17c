"""Lesson 09: processes that hold something at once, and their memory.

The second measurement of PSS and USS counts pages itself: which pages of the file each process has
mapped (bit 63 of /proc/PID/pagemap), and how many processes have each.
"""

import ast
import json
import mmap
import os
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest

from qm9lab import measure, processes, qm9
from qm9lab.course import folders, plots
from qm9lab.lessons.lesson_09 import holders, pictures, readers
from qm9lab.measure.missing import STRICT

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "09_sharing.ipynb"
MIB = 1 << 20
PAGE = mmap.PAGESIZE

needs_pss = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc/PID/smaps_rollup"
)


def code_of(notebook=NOTEBOOK):
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def scripts():
    """The lesson's scripts, by the names that its cells give them."""
    found = {}
    for source in code_of():
        for node in ast.parse(source).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            name, value = node.targets[0].id, node.value
            if name.isupper() and name != "MIXES":
                found[name] = eval(compile(ast.Expression(value), name, "eval"), {}, found)
    return found


@pytest.fixture(scope="module")
def one_by_one():
    """The function that a cell of the lesson defines."""
    (source,) = (source for source in code_of() if source.startswith("def one_by_one"))
    names = vars(holders) | vars(readers) | {"measure": measure}
    exec(source, names)
    return names["one_by_one"]


@pytest.fixture
def path():
    made = folders.lesson_folder() / "test_sharing.dat"
    made.write_bytes(np.random.default_rng(1).bytes(16 * MIB))
    yield made
    made.unlink()


# The scripts ---------------------------------------------------------------------------------


def test_the_scripts_type_the_calls_that_the_lesson_is_about(scripts):
    expected = {
        "GET": "mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)",
        "FORK": "os.fork()",
        "STORE": "mmap.mmap(f.fileno(), 0, access=getattr(mmap, sys.argv[2]))",
        "COUNT": "counter = memoryview(mmap.mmap(f.fileno(), 0))",
        "LOCK": "fcntl.lockf(f, fcntl.LOCK_EX)",
        "MANY": "read(), write()",
        "DATASETS": "columns.MappedQM9(columns_path)",
        "USE": "DataLoader(dataset, ",
        "REST": "(pickle.dumps, ForkingPickler.dumps)",
    }
    assert set(scripts) == set(expected)
    assert "held = f.read()" in scripts["GET"]
    assert "lock(), read(), write(), unlock()" in scripts["LOCK"]
    for name, call in expected.items():
        assert call in scripts[name], name
        compile(scripts[name], name, "exec")
        assert "sleep" not in scripts[name]


# Holders -------------------------------------------------------------------------------------

ECHO = """
import os, sys
def who(): return os.getpid()
def args(): return sys.argv[1:]
def refuse(): raise PermissionError(13, "no")
def fail(): raise ValueError("oh no")
"""


def test_processes_answer_in_order_and_are_gone_after_the_with():
    with holders.holding(ECHO, 3, "a b", 5) as three:
        assert [int(each.call("who")) for each in three] == [each.pid for each in three]
        assert three[0].call("args") == "['a b', '5']"
        assert three[1].call("refuse") == "PermissionError"
        for each in three:
            each.send("who")
        assert [int(each.receive()) for each in three] == [each.pid for each in three]
        assert three[2].end() == 0
    assert not any(psutil.pid_exists(each.pid) for each in three)


def test_a_script_or_a_function_that_fails_is_an_error_with_its_last_words():
    with holders.holding(ECHO, 1) as (one,):
        with pytest.raises(processes.ProcessError, match="ValueError: oh no"):
            one.call("fail")
    with pytest.raises(processes.ProcessError, match="exit status 3"):
        with holders.holding("raise SystemExit(3)", 2):
            pass


def test_the_lesson_goes_on_after_a_process_that_is_late(monkeypatch):
    monkeypatch.delenv(STRICT, raising=False)
    with holders.holding("def wait():\n    import time\n    time.sleep(60)", 1) as (one,):
        one._process._limit_s = 0.2
        assert "this machine is busy" in str(one.call("wait")) and one.call("wait") == "None"


# Memory --------------------------------------------------------------------------------------


def smaps(pid, name):
    """Rss, Pss and private bytes of the regions of a file, of another process, from smaps."""
    sums, ours = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty"), 0), False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            head = line.split()
            if not head[0].endswith(":"):
                ours = line.rstrip().endswith(name)
            elif ours and head[0][:-1] in sums:
                sums[head[0][:-1]] += int(head[1]) * 1024
    return sums["Rss"], sums["Pss"], sums["Private_Clean"] + sums["Private_Dirty"]


def mapped(pid, name, n_pages):
    """Which pages of the file the process has mapped: bit 63 of its pagemap."""
    with open(f"/proc/{pid}/maps") as f:
        (line,) = [line for line in f if line.rstrip().endswith(name)]
    start = int(line.partition("-")[0], 16)
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        f.seek(start // PAGE * 8)
        return np.frombuffer(f.read(n_pages * 8), np.uint64) >> np.uint64(63) == 1


PARTS = """
import mmap, sys
f = open(sys.argv[1], "rb")
held = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
def first(): return sum(held[: len(held) // 2 : mmap.PAGESIZE])
def middle(): return sum(held[len(held) // 4 : 3 * len(held) // 4 : mmap.PAGESIZE])
def all(): return sum(held[:: mmap.PAGESIZE])
"""


@needs_pss
@pytest.mark.timing
def test_pss_and_uss_are_what_one_counts_from_page_tables(path):
    n_pages = path.stat().st_size // PAGE
    with holders.holding(PARTS, 3, path) as three:
        before = [measure.footprint(each.pid) for each in three]
        for each, word in zip(three, ("first", "middle", "all"), strict=True):
            each.call(word)
        tables = [mapped(each.pid, path.name, n_pages) for each in three]
        n_mappers = np.sum(tables, axis=0)
        for each, old, table in zip(three, before, tables, strict=True):
            rss, pss = table.sum() * PAGE, (table / np.maximum(n_mappers, 1)).sum() * PAGE
            uss = (table & (n_mappers == 1)).sum() * PAGE
            by_smaps = smaps(each.pid, path.name)
            added = measure.footprint(each.pid).since(old)
            assert by_smaps[0] == rss and abs(by_smaps[1] - pss) < 64 * 1024
            assert by_smaps[2] == uss
            few = MIB  # what the interpreter itself did meanwhile
            assert abs(added.rss_bytes - rss) < few and abs(added.pss_bytes - pss) < few
            assert abs(added.uss_bytes - uss) < few and added.pss_anonymous_bytes < few
        assert len(set(n_mappers)) == 3  # pages of one, of two and of three


TWICE = """
import mmap, sys
f, held = open(sys.argv[1], "rb"), []
def more():
    held.append(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    return sum(held[-1][:: mmap.PAGESIZE])
"""


@needs_pss
@pytest.mark.timing
def test_a_page_that_one_process_maps_twice_is_shared_with_itself(path):
    """Why the lesson says 'by how often it is mapped', and not by how many processes."""
    with holders.holding(TWICE, 1, path) as (one,):
        start, files = measure.footprint(one.pid), []
        for _ in range(2):
            one.call("more")
            added = measure.footprint(one.pid).since(start)
            files.append([readers.multiple(n, path.stat().st_size) for n in added[:3]])
    assert files == [[1, 1, 1], [2, 1, 0]]


@needs_pss
@pytest.mark.timing
def test_sums_over_readers_and_the_total_cost(scripts, one_by_one, path):
    size = path.stat().st_size
    maps, reads, mixed = (
        one_by_one(scripts["GET"], path, ways)
        for ways in (["by_map"] * 3, ["by_read"] * 3, ["by_map", "by_read", "by_read"])
    )
    assert [j.n for j in maps] == [1, 2, 3]
    assert [j.multiples["sum of RSS"] for j in (*maps, *reads)] == [1, 2, 3] * 2
    rows = (*maps, *reads, *mixed)
    assert [row.multiples["sum of PSS"] for row in rows] == [1, 1, 1, 1, 2, 3, 1, 2, 3]
    assert all(row.cached_bytes == size for row in rows)
    assert [row.multiples["own + page cache"] for row in rows] == [1, 1, 1, 2, 3, 4, 1, 2, 3]


def anonymous_pages(pid):
    """Pages of a process that are in memory and no file's: bits 63 and 61 of its pagemap."""
    n_pages = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        for line in maps:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if start < 2**63:  # the vsyscall page is the kernel's
                f.seek(start // PAGE * 8)
                entries = np.frombuffer(f.read((end - start) // PAGE * 8), np.uint64)
                n_pages += int((entries >> np.uint64(61) == 0b100).sum())
    return n_pages


@needs_pss
@pytest.mark.timing
@pytest.mark.parametrize("way, n_files", [("by_map", 1), ("by_read", 4)])
def test_the_total_cost_is_the_pages_that_one_counts(scripts, path, way, n_files):
    """A second measurement, without PSS: pagemap for what is owned, mincore for the cache.

    Free memory (/proc/meminfo) would be a third, but other processes move it by files' worth.
    """
    if measure.make_cold(path).is_cold is not True:
        pytest.skip("this folder's files cannot be made cold")
    with holders.holding(scripts["GET"], 3, path) as three:
        before = sum(anonymous_pages(each.pid) for each in three)
        for each in three:
            each.call(way)
        owned = sum(anonymous_pages(each.pid) for each in three) - before
    cost = (owned + measure.cached_pages(path).sum()) * PAGE / path.stat().st_size
    assert abs(cost - n_files) < 0.05


@needs_pss
@pytest.mark.timing
def test_a_forked_reader_of_a_list_has_private_dirty_pages_and_faults(scripts):
    record_path = qm9.record_file()
    with holders.holding(scripts["FORK"], 1, record_path) as (parent,):
        (child,) = psutil.Process(parent.pid).children()
        rows = []
        for word in ("read_map", "read_array", "read_list"):
            before = private_dirty(child.pid), measure.faults(pid=child.pid).minor
            parent.call(word)
            after = private_dirty(child.pid), measure.faults(pid=child.pid).minor
            rows.append([b - a for a, b in zip(before, after, strict=True)])
    (by_map, _), (by_array, _), (by_list, n_faults) = rows
    list_bytes = 130_831 * 60  # at least: 49 bytes and the text of each
    assert by_list > list_bytes > 5 * max(by_map, by_array)
    assert n_faults * PAGE > list_bytes


COLLECT = """
import gc, os
held = [[k] for k in range(400_000)]
def collect(): return gc.collect()
if FROZEN:
    gc.freeze()
os.fork() and os._exit(os.wait()[1])
"""


@needs_pss
@pytest.mark.timing
@pytest.mark.parametrize("frozen", [False, True])
def test_a_forked_child_that_collects_garbage_copies_what_was_not_frozen(frozen):
    """Why workers that keep many objects copy so much: the collector writes to each of them."""
    with holders.holding(COLLECT.replace("FROZEN", str(frozen)), 1) as (parent,):
        (child,) = psutil.Process(parent.pid).children()
        before = private_dirty(child.pid)
        parent.call("collect")
        grown = private_dirty(child.pid) - before
    assert (grown < 8 * MIB) if frozen else (grown > 24 * MIB)  # 400,000 lists of 72 bytes


def private_dirty(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_Dirty")) * 1024


# Two writers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "story, number",
    [
        ("A read, A write, B read, B write", 2),
        ("A read, B read, A write, B write", 1),
        ("A read, B read, B write, A write", 1),
        ("B read, B write, B read, B write, A read, A write", 3),
        ("AB many", None),
    ],
)
def test_the_order_decides_every_time(scripts, path, story, number):
    number_path = path.with_name("test_number.dat")
    for _ in range(3):
        game = holders.play(scripts["COUNT"] + scripts["MANY"], number_path, story)
        assert game.number == number or (number is None and game.number <= 100_000)
        assert game.results == ["None"] * len(game.results)
    number_path.unlink()


@pytest.mark.skipif(os.name == "nt", reason="needs fcntl")
def test_a_lock_keeps_out_who_asks(scripts, path):
    number_path, script = path.with_name("test_number.dat"), scripts["COUNT"] + scripts["LOCK"]
    game = holders.play(script, number_path, "A try_lock, B try_lock, A unlock, B try_lock")
    assert game.results[1] in ("BlockingIOError", "PermissionError")
    assert game.results[::2] == ["None", "None"] and game.results[3] == "None"
    assert holders.play(script, number_path, "AB many_locked").number == 100_000
    number_path.unlink()


TRAPS = """
import fcntl, os, sys
f = open(sys.argv[1], "r+b")
def tries(lock, f):
    try:
        lock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "has it"
    except OSError:
        return "refused"
def lock(): return tries(fcntl.lockf, f)
def again(): return tries(fcntl.lockf, open(sys.argv[1], "r+b"))
def close_another(): open(sys.argv[1], "rb").close()
def flock(): return tries(fcntl.flock, f)
def flock_in_child():
    read_fd, write_fd = os.pipe()
    if os.fork() == 0:
        inherited, own = tries(fcntl.flock, f), tries(fcntl.flock, open(sys.argv[1], "rb"))
        os.write(write_fd, f"{inherited}, {own}".encode())
        os._exit(0)
    os.wait()
    return os.read(read_fd, 100).decode()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fcntl and fork")
@pytest.mark.parametrize(
    "story, answers",
    [
        ("A lock, A again", ["has it", "has it"]),  # so its threads are not kept apart
        ("A lock, B lock, A close_another, B lock", ["has it", "refused", "None", "has it"]),
        ("A flock, A flock_in_child", ["has it", "has it, refused"]),
    ],
)
def test_the_traps_that_the_lesson_names(path, story, answers):
    number_path = path.with_name("test_number.dat")
    found = holders.play(TRAPS, number_path, story).results
    number_path.unlink()
    assert found == answers


# Pickles -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_spawned_worker_is_sent(scripts, tmp_path):
    """The loader's pickler sends little more than the strings; of the mapped data set, a path.

    How much it is does not depend on how many molecules there are in the file.
    """
    graphs_path, _ = qm9.prepare(progress=False)
    strings = "def strings(): return len(pickle.dumps([dataset[:1000].smiles]))\n"
    few = "def few():\n    global dataset\n    dataset = dataset[:3000]\n"
    script = scripts["DATASETS"] + scripts["USE"] + scripts["REST"] + strings + few
    with holders.holding(script, 1, tmp_path / "x.cols", graphs_path, "in memory") as (one,):
        for word in ("load", "few", "write"):
            one.call(word)
        n_strings = int(one.call("strings"))
        plain, by_loader = json.loads(one.call("sizes"))
        assert plain > 5 * by_loader > 5 * n_strings
    with holders.holding(script, 1, tmp_path / "x.cols", graphs_path, "mapped") as (one,):
        one.call("load")
        plain, by_loader = json.loads(one.call("sizes"))
        assert plain == by_loader < 1000


# Pictures ------------------------------------------------------------------------------------


@pytest.fixture
def no(monkeypatch):
    monkeypatch.delenv(STRICT, raising=False)
    return measure.Missing("it is a test")


def memory(rss, pss, uss, own):
    parts = (n if measure.is_missing(n) else int(n * MIB) for n in (rss, pss, uss, own))
    return measure.Footprint(*parts, "")


def readers_memory(n, added, cached=4):
    return readers.ReadersMemory(n, 4 * MIB, added, cached * MIB)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.figure.legends[0].get_texts()]


def bars(ax):
    return [(patch.get_x(), patch.get_width()) for patch in ax.patches]


def test_the_sums_are_drawn_as_they_are(no):
    rows = [readers_memory(1, memory(4, 4, 4, 0)), readers_memory(2, memory(8, 4, 0, 2))]
    missing = [readers_memory(1, memory(4, no, no, no))]
    figure = pictures.readers(plots.new_figure(6, 3), {"map": rows, "none": missing})
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines["sum of RSS"] == [1, 2] and lines["sum of PSS"] == [1, 1]
    assert lines["page cache"] == [1, 1] and lines["own + page cache"] == [1, 1.5]
    assert figure.axes[0].get_ylim()[1] > 2
    assert texts(figure.axes[1]) == ["own + page cache, sum of PSS:\nnot available here"]


def test_the_total_cost_has_own_memory_and_the_cache_once(no):
    ax = plots.new_figure(6, 3).subplots()
    pictures.total_cost(ax, readers_memory(2, memory(10, 9, 8, 8)))
    assert bars(ax) == [(0, 2), (2, 0.5), (0, 2), (2, 0.25), (0, 1), (0, 2), (2, 1)]
    assert texts(ax) == ["2.5", "2.2", "1.0", "3.0"]
    assert legend(ax) == ["anonymous: their own", "file pages, mapped", "in the page cache"]
    ax = plots.new_figure(6, 3).subplots()
    pictures.total_cost(ax, readers_memory(2, memory(10, no, no, no), no))
    assert texts(ax) == ["2.5", *["not available here"] * 3] and bars(ax) == []


def test_a_process_is_drawn_by_its_pss_with_marks_for_rss_and_uss(no):
    ax = plots.new_figure(6, 3).subplots()
    pictures.processes(ax, ["a", "b"], [memory(8, 5, 1, 2), memory(8, no, no, no)], 4 * MIB)
    assert bars(ax) == [(0, 0.5), (0.5, 0.75)]
    assert [line.get_xdata()[0] for line in ax.lines] == [2, 0.25, 2]
    assert texts(ax) == ["PSS: not available here"]
    assert legend(ax) == ["PSS, anonymous: their own", "PSS, file pages, mapped", "RSS", "USS"]
    ax = plots.new_figure(6, 3).subplots()
    pictures.processes(ax, ["a"], [memory(8, 8, 8, 0)], MIB)
    assert legend(ax) == ["PSS, file pages, mapped", "RSS", "USS"]  # what is drawn, only


def test_workers_are_drawn_by_what_they_own_and_the_page_cache_once(no):
    added = [memory(9, 9, 9, 8), memory(20, 9, 9, 12)]
    ways = {"x": (added, 4 * MIB), "y": ([added[0], memory(9, no, no, no)], no)}
    figure = pictures.workers(plots.new_figure(8, 3), ["loaded", "used"], ways)
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim() and left.get_xlim()[1] > 20
    assert bars(left) == [(0, 8), (8, 4), (0, 12), (12, 4)]
    assert texts(left) == ["8 + 4 = 12", "12 + 4 = 16"]
    assert texts(right) == ["own + page cache: not available here"] * 2
    assert [line.get_xdata()[0] for line in left.lines] == [9, 20]


def test_memory_of_all_processes_together_is_what_was_added_since_the_start():
    steps = {"start": holders.Step("", [memory(5, 4, 3, 2)])}
    steps["use"] = holders.Step("", [memory(5, 3, 1, 2), memory(5, 3, 1, 3)])
    added = holders.added_in_all(steps)
    assert added["use"][:4] == (5 * MIB, 2 * MIB, -1 * MIB, 3 * MIB)
    assert added["start"][:4] == (0, 0, 0, 0)
