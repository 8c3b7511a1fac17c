"""Lesson 07: its picture, and its own functions against other counts."""

import mmap
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
from lesson_module import code_cells, loaded

from qm9lab import measure, processes, qm9
from qm9lab.course import folders, memory_bars, plots
from qm9lab.lessons.lesson_07 import compare

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "07_full_load_vs_lazy.ipynb"
MIB = 1 << 20
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
needs_disk = pytest.mark.skipif(
    sys.platform != "linux" or measure.file_system(qm9.folder().parent) in measure.MEMORY_ONLY,
    reason="needs Linux and a disk",
)


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    return measure.Missing("of a test")


# The picture ---------------------------------------------------------------------------------

NAMES = ("RSS (MiB)", "owned (MiB)", "minor faults", "major faults", "cached pages")


def cost(*numbers):
    """What a process added, of a file of 64 MiB."""
    return dict(zip(NAMES, numbers, strict=True)) | {"bytes": 64 * MIB}


MAP = cost(3, 0, 12, 1, 8 * MIB // mmap.PAGESIZE)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_headline_draws_what_each_process_added():
    full = cost(64, 64, 16384, 0, 64 * MIB // mmap.PAGESIZE)
    groups = {"all": {"read()": full}, "one": {"map": MAP}}
    figure = compare.headline(plots.new_figure(9, 3), groups, "a finding")
    memory, cache, faults = figure.axes
    labels = [label.get_text() for label in memory.get_yticklabels()]
    assert labels == ["all", "read()", "one", "map"]
    assert [bar.get_width() for bar in memory.patches] == [64, 3]
    hatches = [bar.get_hatch() for bar in memory.patches]
    assert hatches == [plots.MEANINGS[name].hatch for name in (memory_bars.OWN, memory_bars.SHARED)]
    assert texts(memory) == ["64 MiB", "3 MiB"] and texts(cache) == ["64 MiB", "8 MiB"]
    assert [bar.get_width() for bar in faults.patches] == [16384, 12, 0, 1]
    assert texts(faults) == ["16,384", "12", "0", "1"]
    assert figure.get_suptitle() == "a finding"


def test_a_missing_value_is_named_in_its_place(missing):
    groups = {"one": {"map": cost(*[missing] * 5)}}
    figure = compare.headline(plots.new_figure(9, 3), groups)
    assert {words for ax in figure.axes for words in texts(ax)} == {plots.MISSING}
    ax = memory_bars.memory_story(plots.new_figure(9, 3).subplots(), ["a"], [(missing, missing)])
    assert texts(ax) == [plots.MISSING]


def test_a_bar_below_zero_which_lagging_counters_give_is_drawn_as_nothing():
    ax, parts = plots.new_figure(4, 2).subplots(), {memory_bars.OWN: -8192, memory_bars.SHARED: MIB}
    memory_bars.stacked_bars(ax, [0], [parts])
    assert [bar.get_width() for bar in ax.patches] == [1] and texts(ax) == ["1 MiB"]


def test_the_control_says_how_much_of_the_file_the_page_cache_has():
    for n, words in ((1, "map, 1 question: "), (20, "map, 20 questions: ")):
        _, said = compare.one_run("map", n, MAP)
        assert said == words + "part of the file in the page cache: 12.5%"


def test_what_only_linux_can_give_is_missing_on_other_systems(monkeypatch, missing):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "only Linux" in processes.on_linux(len, "abc", uses=[]).reason


# The lesson's own functions ------------------------------------------------------------------


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The functions that the lesson defines, as a module, whose source a child can get."""
    cells = code_cells(NOTEBOOK)
    begins = ("import mmap\nimport os", "def look", "def ask(", "def cost", "def ask_all", "def ad")
    wanted = (*begins, "def limited")
    found = [[cell for cell in cells if cell.startswith(begin)] for begin in wanted]
    assert [len(each) for each in found] == [1] * len(wanted)
    file = tmp_path_factory.mktemp("lesson") / "lesson_07_functions.py"
    # The functions of each cell, without what it does with them.
    functions = [re.split(r"\n\n\n(?!def |uses)", each[0])[0] for each in found]
    names = "names = ['seconds', 'RSS (MiB)', 'owned (MiB)', 'minor faults', 'major faults']"
    with loaded(file, "\n\n".join([*functions, names])) as module:
        yield module


@pytest.fixture(scope="module")
def energies():
    """The lesson's file."""
    with tempfile.TemporaryDirectory(dir=folders.lesson_folder()) as folder:
        path = Path(folder, "energies.dat")
        compare.write_records(path, qm9.record_file())
        yield path


def test_each_record_has_its_place(energies):
    data = energies.read_bytes()
    assert len(data) == 1024 * 130_831
    first = b"[H]C([H])([H])[H]"
    assert data[8:1024] == first.ljust(1016, b"\0") and data[1032:1049] == b"[H]N([H])[H]".ljust(
        17, b"\0"
    )


@needs_disk
@pytest.mark.timing
def test_other_sources_agree_with_psutil(lesson, energies):
    """smaps_rollup, exact to the page, and the kernel's own record of the highest RSS."""
    said = compare.second_sources(energies, lesson.uses)
    owned, by_smaps, rss, highest = map(int, re.findall(r"(\d+) MiB", said))
    size_mib = energies.stat().st_size / MIB
    lag = 3  # pages that statm has not yet added up, on each processor, and rounding
    assert abs(owned - by_smaps) < lag and size_mib - 1 <= by_smaps < size_mib + 4
    assert rss - lag <= highest < rss + 8  # nothing more was held for a moment


@needs_disk
@pytest.mark.timing
def test_what_the_lesson_says_holds_for_its_own_functions(lesson, energies):
    size = energies.stat().st_size
    file_mib, n_pages = size / MIB, -(-size // mmap.PAGESIZE)
    places = list(range(0, size, 1024))[::131]
    n_pages_asked = len({place // mmap.PAGESIZE for place in places})
    ways = ("read()", "map", "map, MADV_RANDOM")
    full, lazy, advised = (lesson.cost(lesson.ask, energies, way, places) for way in ways)
    for look in (1, -1):
        assert full[look]["owned (MiB)"] > 0.95 * file_mib and full[look]["minor faults"] > 0
        assert max(lazy[look]["owned (MiB)"], advised[look]["owned (MiB)"]) < 2
    assert full[-1]["cached pages"] == n_pages
    assert len(lazy) == 1 + len(places) and set(lazy[0].values()) >= {0, size}
    last = advised[-1]  # exact: nothing is read ahead
    assert last["major faults"] == last["cached pages"] == n_pages_asked
    assert last["major faults"] >= lazy[-1]["major faults"] >= lazy[1]["major faults"] == 1
    in_order = lesson.cost(lesson.ask_all, energies, "map", list(range(0, size, 1024)))
    assert len(in_order) == 3 and in_order[-1]["owned (MiB)"] < 2
    assert in_order[-1]["RSS (MiB)"] > 0.95 * file_mib


@needs_disk
@pytest.mark.timing
def test_after_each_advice_rss_falls_and_the_page_cache_shows_the_difference(lesson, energies):
    if measure.file_system(energies) == "overlay":
        pytest.skip("overlayfs does not pass the advice on")
    for advice, is_left in ((4, True), (21, False)):
        fell = processes.on_linux(lesson.advise, energies, advice, uses=lesson.uses)
        n_left, n_pages = measure.cache_state(energies).n_cached, measure.cache_state(energies)[0]
        assert fell > 0.9 * energies.stat().st_size / MIB
        assert n_left == n_pages if is_left else n_left < 100


@needs_linux
def test_after_pageout_the_pages_are_all_still_cached_on_tmpfs(lesson):
    """RSS falls, which the first edition took for proof that the pages are gone."""
    if not os.path.isdir("/dev/shm") or measure.file_system("/dev/shm") != "tmpfs":
        pytest.skip("no tmpfs")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        f.write(bytes(16 * MIB))
        f.flush()
        assert processes.on_linux(lesson.advise, f.name, 21, uses=lesson.uses) > 15
        assert measure.cached_pages(f.name).sum() == 16 * MIB // mmap.PAGESIZE


def minor_faults_of_two_readings(path):
    """Into memory that was never touched, and again."""
    buffer, found = mmap.mmap(-1, os.path.getsize(path), flags=mmap.MAP_PRIVATE), []
    for _ in range(2):
        with open(path, "rb", buffering=0) as f:
            before = look()  # noqa: F821
            f.readinto(buffer)
            found.append(look()[3] - before[3])  # noqa: F821
    return found


@needs_linux
@pytest.mark.timing
def test_the_copy_makes_the_minor_faults_and_not_the_reading(lesson, energies):
    uses = [*lesson.uses, os]
    first, again = processes.run(minor_faults_of_two_readings, energies, uses=uses).value
    assert first > 20 * max(again, 1)


def private_map_under_a_limit(path, more_bytes):
    """An errno, if a private writable map is refused, though none of its pages is touched."""
    import resource

    limit = psutil.Process().memory_info().data + more_bytes  # noqa: F821
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with open(path, "rb") as f:
        mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            return error.errno


@needs_linux
def test_the_limit_counts_private_writable_addresses_touched_or_not(lesson, energies):
    half = energies.stat().st_size // 2
    by_read, n_touched = (
        processes.on_linux(lesson.limited, energies, way, half, uses=lesson.uses)
        for way in ("read()", "map")
    )
    assert by_read == "MemoryError"
    assert n_touched * mmap.PAGESIZE >= energies.stat().st_size
    outcome = processes.run(private_map_under_a_limit, energies, half, uses=lesson.uses)
    assert outcome.value == 12  # ENOMEM
