"""Lesson 07: its picture, what it makes of looks, and its own functions against other counts."""

import importlib.util
import mmap
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from qm9lab import measure, processes, qm9
from qm9lab.course import folders, memory_bars, plots
from qm9lab.lessons.lesson_07 import compare, pictures
from qm9lab.lessons.lesson_07.compare import Costs, Look

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


def costs(way="map", rss_mib=3, owned_mib=0, minor=12, major=1, cached_pages=8):
    """Of a file of 64 MiB in 64 pages, after one question."""
    return Costs(way, 64, 64, {1: Look(0.1, rss_mib, owned_mib, minor, major, cached_pages)}, 70.0)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_headline_draws_what_each_process_added():
    groups = [("all", 1, [costs("read()", 64, 64, 16384, 0, 64)]), ("one", 1, [costs()])]
    figure = pictures.headline(plots.new_figure(9, 3), groups, "a finding")
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
    figure = pictures.headline(plots.new_figure(9, 3), [("one", 1, [costs("map", *[missing] * 5)])])
    assert {words for ax in figure.axes for words in texts(ax)} == {plots.MISSING}
    ax = memory_bars.memory_story(plots.new_figure(9, 3).subplots(), ["a"], [(missing, missing)])
    assert texts(ax) == [plots.MISSING]


def test_a_bar_below_zero_which_lagging_counters_give_is_drawn_as_nothing():
    ax, parts = plots.new_figure(4, 2).subplots(), {memory_bars.OWN: -8192, memory_bars.SHARED: MIB}
    memory_bars.stacked_bars(ax, [0], [parts])
    assert [bar.get_width() for bar in ax.patches] == [1] and texts(ax) == ["1 MiB"]


def test_the_control_says_how_much_of_the_file_the_page_cache_has():
    runs = {"map": costs(), "map, MADV_RANDOM": costs(cached_pages=1)}
    _, words = pictures.question_by_question(plots.new_figure(9, 3), runs, 1)
    assert "map: 12.5%" in words and "MADV_RANDOM: 1.6%" in words


# Looks ---------------------------------------------------------------------------------------

LOOKS = [[0, 0, 0, 0, 0, 9], [5.0, 7 * MIB, MIB, 10, 1, 0], [6.0, 9 * MIB, 2 * MIB, 14, 3, 8]]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x.dat").write_bytes(b"x" * 16 * mmap.PAGESIZE)
    return tmp_path / "x.dat"


def added(path, looks=LOOKS, advice=None, is_cold=True, way="map"):
    outcome = SimpleNamespace(value=looks, peak_rss_bytes=10 * MIB)
    return compare.added(path, way, [20], advice, outcome, is_cold)


def test_what_was_added_counts_from_the_second_look_and_the_cache_from_nothing(path):
    found = added(path)
    assert found.after == {0: (0, 0, 0, 0, 0, 0), 20: (1, 2, 1, 4, 2, 8)}
    assert (found.peak_mib, found.file_pages, found.cached_share(20)) == (3, 16, 0.5)
    assert found.column("RSS (MiB)").tolist() == [0, 2]
    assert found.column("seconds").tolist() == [0, 1]
    with pytest.raises(AttributeError):
        found.column("minors")


def test_what_needs_a_cold_file_is_missing_where_nobody_knows(path, missing):
    look = added(path, is_cold=missing).after[20]
    assert look.major is look.cached_pages is missing and look.minor == 4
    with pytest.raises(RuntimeError, match=r"x\.dat: .*close the maps"):
        added(path, is_cold=False)
    assert added(path, is_cold=False, way="PyG").after[20].major == 2  # others may use PyG's file


def test_looks_that_were_not_taken_are_missing_and_are_not_drawn(path, missing):
    late = added(path, looks=missing, advice=4)
    assert measure.is_missing(*late.after["advice"]) and list(late.after) == [0, 20, "advice"]
    assert str(late.column("owned (MiB)")) == "[nan nan nan]"
    assert added(path, advice=4).after["advice"].rss_mib.reason == "only Linux has this advice"


def test_what_only_linux_can_give_is_missing_on_other_systems(monkeypatch, missing):
    monkeypatch.setattr(compare.psutil, "LINUX", False)
    assert "RLIMIT_DATA" in compare.on_linux(len, "abc", uses=[]).reason


def test_a_look_of_other_systems_is_one_of_linux_on_linux(path):
    seconds, rss, owned, minor, major, n_cached = compare.look(path)
    assert seconds > 0 and rss > owned > 0 and minor >= 0 and major >= 0 and n_cached <= 16


# The lesson's own functions ------------------------------------------------------------------


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The functions that the lesson defines, as a module, whose source a child can get."""
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    wanted = ("import mmap\nimport os", "def look", "def get", "def ask", "uses =", "guess_touched")
    found = [[cell for cell in cells if cell.startswith(begin)] for begin in wanted]
    assert [len(each) for each in found] == [1] * len(wanted)
    file = tmp_path_factory.mktemp("lesson") / "lesson_07_functions.py"
    file.write_text("\n\n".join(each[0] for each in found))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # inspect looks there for a function's source
    spec.loader.exec_module(module)
    yield module
    del sys.modules[file.stem]


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


def looks_and_smaps(path, way, step):
    """What two looks say that getting and touching the data added, and what the kernel says."""

    def smaps(names):
        with open("/proc/self/smaps_rollup") as f:
            lines = [line.split() for line in f]
        return [int(line[1]) * 1024 for line in lines if line[0] in names]

    smaps(["Rss:"]), look(path)  # noqa: F821
    (rss, own), before = smaps(["Rss:", "Anonymous:"]), look(path)  # noqa: F821
    data = get(path, way)  # noqa: F821
    data[::step]
    after, (rss_after, own_after) = look(path), smaps(["Rss:", "Anonymous:"])  # noqa: F821
    return [after[1] - before[1], after[2] - before[2], rss_after - rss, own_after - own]


@needs_disk
@pytest.mark.timing
@pytest.mark.parametrize("way", ["read()", "map"])
def test_rss_and_owned_memory_agree_with_smaps_rollup(lesson, energies, way):
    """A second instrument, exact to the page."""
    uses = lesson.uses
    found = processes.run(looks_and_smaps, energies, way, mmap.PAGESIZE, uses=uses).value
    rss, owned, rss_smaps, owned_smaps = found
    lag = 2 * MIB  # pages that statm has not yet added up, on each processor
    assert abs(rss - rss_smaps) < lag and abs(owned - owned_smaps) < lag
    size = energies.stat().st_size
    assert size <= rss_smaps < size + 8 * MIB
    assert (size <= owned_smaps < size + 4 * MIB) if way == "read()" else owned_smaps < 2 * MIB


@needs_disk
@pytest.mark.timing
def test_what_the_lesson_says_holds_for_its_own_functions(lesson, energies):
    size = energies.stat().st_size
    places = list(range(0, size, 1024))[::131]
    n_pages_asked = len({place // mmap.PAGESIZE for place in places})
    full, lazy, advised = (
        lesson.run_cold(energies, way, places, [1, len(places)])
        for way in ("read()", "map", "map, MADV_RANDOM")
    )
    for n_asked in (1, len(places)):
        assert full.after[n_asked].owned_mib > 0.95 * full.file_mib
        assert full.after[n_asked].minor > 0 and full.cached_share(n_asked) > 0.95
        assert max(lazy.after[n_asked].owned_mib, advised.after[n_asked].owned_mib) < 2
    look = advised.after[len(places)]
    assert look.major == look.cached_pages == n_pages_asked  # exact: nothing is read ahead
    assert look.major >= lazy.after[len(places)].major >= lazy.after[1].major == 1
    for run in (full, lazy, advised):  # the kernel's own record of the highest RSS
        assert max(run.column("RSS (MiB)")) <= run.peak_mib + 2
    assert full.peak_mib < 1.05 * full.after[1].rss_mib  # nothing more was held for a moment


@needs_disk
@pytest.mark.timing
def test_after_each_advice_rss_falls_and_the_page_cache_shows_the_difference(lesson, energies):
    if measure.file_system(energies) == "overlay":
        pytest.skip("overlayfs does not pass the advice on")
    pages = list(range(0, energies.stat().st_size, mmap.PAGESIZE))
    for advice, is_left in ((4, True), (21, False)):
        found = lesson.run_cold(energies, "map", pages, [len(pages)], advice)
        before, after = found.after[len(pages)], found.after["advice"]
        assert before.rss_mib > 0.9 * found.file_mib > 9 * after.rss_mib
        assert before.cached_pages == found.file_pages
        assert (after.cached_pages == found.file_pages) if is_left else after.cached_pages < 100


def rss_and_cached_after_pageout(path):
    from qm9lab.measure import cached_pages, resident

    mm = get(path, "map")  # noqa: F821
    mm[:: mmap.PAGESIZE]
    full = resident().file_bytes
    mm.madvise(21)
    return full - resident().file_bytes, int(cached_pages(path).sum())


@needs_linux
def test_after_pageout_the_pages_are_all_still_cached_on_tmpfs(lesson):
    """RSS falls, which the first edition took for proof that the pages are gone."""
    if not os.path.isdir("/dev/shm") or measure.file_system("/dev/shm") != "tmpfs":
        pytest.skip("no tmpfs")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        f.write(bytes(16 * MIB))
        f.flush()
        uses = [*lesson.uses, mmap]
        fell, n_cached = processes.run(rss_and_cached_after_pageout, f.name, uses=uses).value
    assert fell > 15 * MIB and n_cached == 16 * MIB // mmap.PAGESIZE


def minor_faults_of_two_readings(path):
    """Into memory that was never touched, and again."""
    buffer, found = mmap.mmap(-1, os.path.getsize(path), flags=mmap.MAP_PRIVATE), []
    for _ in range(2):
        with open(path, "rb", buffering=0) as f:
            before = look(path)  # noqa: F821
            f.readinto(buffer)
            found.append(look(path)[3] - before[3])  # noqa: F821
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
    assert lesson.compare.on_linux(lesson.limited, energies, "read()", half, uses=lesson.uses) == (
        "MemoryError"
    )
    n_touched = lesson.compare.on_linux(lesson.limited, energies, "map", half, uses=lesson.uses)
    assert n_touched * mmap.PAGESIZE >= energies.stat().st_size
    outcome = processes.run(private_map_under_a_limit, energies, half, uses=lesson.uses)
    assert outcome.value == 12  # ENOMEM
