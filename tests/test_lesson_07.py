"""Lesson 07: its pictures, its measurements, and its scripts against other instruments."""

import json
import math
import mmap
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from qm9lab import measure, processes, qm9, records
from qm9lab.course import folders, memory_bars, outcomes, plots
from qm9lab.lessons.lesson_07 import compare, pictures
from qm9lab.processes import run_script

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


# Pictures ------------------------------------------------------------------------------------


def a_run(**other):
    base = {"way": "map", "pattern": "all", "source_bytes": 64 * MIB, "anonymous_bytes": 0}
    base |= {"file_bytes": 3 * MIB, "cached_bytes": 8 * MIB, "minor": 12, "major": 1}
    return SimpleNamespace(**base | other)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_headline_draws_what_each_run_added():
    runs = [
        a_run(way="read()", anonymous_bytes=64 * MIB, file_bytes=0, minor=16384, major=0),
        a_run(pattern="one"),
    ]
    figure = pictures.headline(plots.new_figure(9, 3), runs, "a finding")
    added, cached, faults = figure.axes
    labels = [label.get_text() for label in added.get_yticklabels()]
    assert labels == ["all", "read()", "one", "map"]
    assert [bar.get_width() for bar in added.patches] == [64, 3]
    hatches = [bar.get_hatch() for bar in added.patches]
    assert hatches == [plots.MEANINGS[name].hatch for name in (memory_bars.OWN, memory_bars.SHARED)]
    assert texts(added) == ["64 MiB", "3 MiB"] and texts(cached) == ["8 MiB", "8 MiB"]
    marks = {(line.get_xdata()[0], line.get_ydata()[0]) for line in faults.lines}
    assert marks == {(16384, 1), (0, 1), (12, 3), (1, 3)}
    assert figure.get_suptitle() == "a finding"


def test_a_missing_value_is_named_in_its_place(missing):
    names = "anonymous_bytes", "file_bytes", "cached_bytes", "minor", "major"
    run = a_run(**dict.fromkeys(names, missing))
    figure = pictures.headline(plots.new_figure(9, 3), [run])
    assert texts(figure.axes[0]) == texts(figure.axes[1]) == [plots.MISSING]
    line = measure.Timeline(np.arange(3.0), missing, missing, np.arange(3), missing, "")
    figure = pictures.timelines(plots.new_figure(9, 3), {"map": line})
    assert texts(figure.axes[0]) == [str(missing)]
    assert [max(drawn.get_ydata()) for drawn in figure.axes[1].lines] == [2]
    figure = pictures.timelines(plots.new_figure(9, 3), {"map": line, "read()": missing})
    assert texts(figure.axes[0]) == [str(missing)]
    ax = memory_bars.memory_story(plots.new_figure(9, 3).subplots(), ["a"], [(missing, missing)])
    assert texts(ax) == [plots.MISSING]


def test_a_bar_below_zero_which_lagging_counters_give_is_drawn_as_nothing():
    ax, parts = plots.new_figure(4, 2).subplots(), {memory_bars.OWN: -8192, memory_bars.SHARED: MIB}
    memory_bars.stacked_bars(ax, [0], [parts])
    assert [bar.get_width() for bar in ax.patches] == [1] and texts(ax) == ["1 MiB"]


def test_a_timeline_begins_at_nothing_and_ends_at_what_was_added():
    columns = np.array([[5, 6], [10 * MIB, 14 * MIB], [MIB, 3 * MIB], [100, 900], [0, 7]])
    line = measure.Timeline(*columns, "")
    figure = pictures.timelines(plots.new_figure(9, 3), {"map": line})
    own, shared = figure.axes[0].collections
    assert own.get_paths()[0].vertices[:, 1].max() == 4
    assert shared.get_paths()[0].vertices[:, 1].max() == 6
    assert [max(drawn.get_ydata()) for drawn in figure.axes[1].lines] == [800, 7]


# Measurements --------------------------------------------------------------------------------


@pytest.fixture
def one_page(tmp_path):
    path = tmp_path / "x.dat"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    return path


def test_a_script_that_fails_is_reported_with_its_last_words(one_page):
    with pytest.raises(RuntimeError, match=r"found exit status 1.*oh no"):
        compare.measure_script("map", "raise SystemExit('oh no')", one_page, "warm", "", ["one"])


def test_a_child_out_of_time_gives_rows_of_missing_and_the_pictures_say_so(
    one_page, missing, monkeypatch
):
    monkeypatch.setattr(processes, "run_script", partial(run_script, timeout_s=0.3))
    script = "import time\ntime.sleep(600)"
    found = compare.measure_script("map", script, one_page, "warm", "", ["one", "all"])
    assert [run.pattern for run in found] == ["one", "all"]
    for run in found:
        assert measure.is_missing(*run[4:]) and "busy" in run.answer.reason
        assert measure.is_missing(run.owned_share) and measure.is_missing(run.sampled_peak_bytes)
        assert run.owned_share > 0.9 and run.minor * 4096 > 0.9 * 10**9  # an assert goes on
    figure = pictures.headline(plots.new_figure(9, 3), found)
    assert texts(figure.axes[0]) == [plots.MISSING] * 2
    lines = {run.pattern: run.timeline for run in found}
    figure = pictures.timelines(plots.new_figure(9, 3), lines)
    assert "busy" in " ".join(texts(figure.axes[0])[0].split())


ALL_ADDED = "print('[1, %s, [[\"one\", 1.0, 0, 0, 5, 7, 0]], [[0], [1], [2], [0], [0]]]')"


def test_what_depends_on_a_cold_file_is_missing_where_it_was_not_cold(one_page, missing):
    """On tmpfs nothing can be evicted; on a disk another program may read the file meanwhile."""
    cold = partial(compare.measure_script, "map", asked_path="", patterns=["one"])
    (run,) = cold(ALL_ADDED % "false", one_page, "cold")
    for value in (run.major, run.disk_bytes, run.cached_bytes):
        assert "another program" in value.reason
    assert (run.minor, run.anonymous_bytes, run.answer) == (5, 0, 1.0)
    if os.path.isdir("/dev/shm") and measure.file_system("/dev/shm") == "tmpfs":
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
            f.write(b"x" * mmap.PAGESIZE)
            f.flush()
            (run,) = cold(ALL_ADDED % '{"missing": "of tmpfs"}', f.name, "cold")
            assert run.cached_bytes.reason == "of tmpfs" and run.minor == 5
            (run,) = compare.measure_script("map", ALL_ADDED % "false", f.name, "warm", "", ["one"])
            assert (run.major, run.cached_bytes) == (7, 0)


# The lesson's scripts ------------------------------------------------------------------------


def cell_source(beginning):
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (found,) = [cell.source for cell in cells if cell.source.startswith(beginning)]
    return found


def test_a_misspelt_attribute_in_the_verdicts_raises(missing):
    """All values missing: the asserts pass. A wrong name is an error all the same."""
    run = compare.Measurement("map", "cold", "one", MIB, *[missing] * 9)

    class Results(dict):
        def __missing__(self, key):
            return run

    names = {"results": Results(), "compare": compare, "size": MIB, "window": 3, "mmap": mmap}
    names |= dict.fromkeys(("PYG", "READS", "MAPS", "ADVISES", "ONE", "SOME", "ALL"))
    for beginning in ("largest =", 'read, lazy = results[READS, "cold", ALL]'):
        source = cell_source(beginning)
        exec(source, dict(names))
        for name in ("owned_share", "major", "cached_bytes"):
            if name in source:
                with pytest.raises(AttributeError, match=f"{name}x"):
                    exec(source.replace(f".{name}", f".{name}x", 1), dict(names))


@pytest.fixture(scope="module")
def scripts():
    """The parts of the lesson's scripts, by name."""
    found = {}
    for name in ("BEGIN", "READ", "GRAPHS", "MEASURE", "WAYS"):
        exec(cell_source(f"{name} = ").partition("\nresults = {}")[0], found)
    exec(cell_source("guess_rss = "), found)
    return found


N_COPIES = 16


@pytest.fixture(scope="module")
def tiled():
    """The record file many times over, what is asked, and the answers by plain reading."""
    once = qm9.record_file().read_bytes()
    walked = [(at + 4 + len(smiles.encode()), value) for at, smiles, value in records.walk(once)]
    value_at = np.array([at for at, _ in walked])
    values = [value for _, value in walked]
    numbers = np.random.default_rng(7).integers(0, N_COPIES * len(walked), 1000)
    answers = {"one": values[65_415], "all": math.fsum(values) / len(values)}
    answers["some"] = sum(values[n % len(values)] for n in numbers) / 1000
    with tempfile.TemporaryDirectory(dir=folders.lesson_folder()) as folder:
        path, asked = Path(folder, "tiled.dat"), Path(folder, "asked.npz")
        path.write_bytes(once * N_COPIES)
        np.savez(asked, value_at=value_at, copy_bytes=len(once), one=[65_415], some=numbers)
        yield path, asked, answers


ROLLUP = r"""
def smaps():
    fields = dict(line.split(":") for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    return {name: int(fields[name].split()[0]) * 1024 for name in ("Rss", "Anonymous")}
smaps(), now()
first, before = smaps(), now()
held = obtain()
answer = mean(held, sys.argv[3])
after, last = now(), smaps()
regions = psutil.Process().memory_maps(grouped=False)
ours = sum(region.rss for region in regions if path.name in region.path)
print(json.dumps([after[0] - before[0], after[1] - before[1], last["Anonymous"] - first["Anonymous"],
    last["Rss"] - first["Rss"], ours]))
"""  # noqa: E501


@needs_disk
@pytest.mark.timing
@pytest.mark.parametrize("way", ["read()", "map"])
@pytest.mark.parametrize("pattern", ["one", "all"])
def test_what_a_run_adds_agrees_with_smaps_to_some_pages(scripts, tiled, way, pattern):
    """A second instrument, exact to the page: /proc/self/smaps_rollup, and smaps for the map."""
    path, asked, _ = tiled
    measure.bring_to(path, "warm")
    done = run_script(scripts["BEGIN"] + scripts["WAYS"][way] + ROLLUP, path, asked, pattern)
    assert done.returncode == 0, done.stderr
    own, shared, own_smaps, rss_smaps, ours = json.loads(done.stdout)
    lag = 2 * MIB  # pages that statm has not yet added up, on each processor
    assert abs(own - own_smaps) < lag and abs(own + shared - rss_smaps) < lag
    size = path.stat().st_size
    if way == "read()":
        # A buffer far above malloc's largest mmap threshold is fresh: every page is new.
        assert size <= own_smaps < size + 4 * MIB and ours == 0
    else:
        assert own_smaps < 2 * MIB
        # Pages of libraries, NumPy's for one, are file pages too: few next to the file's.
        assert 0 <= rss_smaps - own_smaps - ours < 8 * MIB
        assert ours >= (size if pattern == "all" else mmap.PAGESIZE)


@needs_disk
@pytest.mark.timing
def test_the_identities_of_the_lesson_on_the_lessons_own_scripts(scripts, tiled):
    path, asked, answers = tiled
    size = path.stat().st_size

    def run(way, temperature, pattern):
        script = scripts["BEGIN"] + scripts["WAYS"][way] + scripts["MEASURE"]
        (found,) = compare.measure_script(way, script, path, temperature, asked, [pattern])
        assert math.isclose(found.answer, answers[pattern], rel_tol=1e-12)
        assert found[:4] == (way, temperature, pattern, size)
        if temperature == "cold":
            assert abs(found.disk_bytes - found.cached_bytes) < 0.05 * size
        # The samples cannot exceed the kernel's own high-water mark.
        assert found.sampled_peak_bytes <= 1.05 * found.peak_rss_bytes
        return found

    fault_bytes = compare.largest_fault_bytes()
    for temperature in ("cold", "warm"):
        for pattern in ("one", "some", "all"):
            full, lazy = run("read()", temperature, pattern), run("map", temperature, pattern)
            assert full.owned_share > 0.95 and lazy.owned_share < 0.05
            assert full.minor * fault_bytes > 0.95 * size
            if temperature == "cold":
                assert full.cached_bytes > 0.95 * size and lazy.major > full.major
            elif lazy.disk_bytes == 0:
                assert lazy.major == 0 and lazy.cached_bytes == 0
        assert lazy.file_bytes > 0.9 * size
    plain, advised = (run(way, "cold", "some") for way in ("map", "map, MADV_RANDOM"))
    assert advised.cached_bytes <= 2000 * mmap.PAGESIZE < plain.cached_bytes
    assert advised.major * mmap.PAGESIZE <= advised.cached_bytes + 50 * mmap.PAGESIZE


def story_of(scripts, path, asked):
    """The lesson's story of RSS: bytes of RSS and cached pages after each of its five steps."""
    done = run_script(scripts["BEGIN"] + scripts["MAP"] + scripts["STORY"], path, asked)
    values = outcomes.values_of(done, 15)
    return [own + shared for own, shared in zip(values[:5], values[5:10], strict=True)], values[10:]


@needs_disk
def test_after_pageout_the_pages_are_gone_on_a_disk(scripts, tiled):
    path, asked, _ = tiled
    if measure.file_system(path) == "overlay":
        pytest.skip("overlayfs does not pass the advice on")
    measure.bring_to(path, "warm")
    rss, n_cached = story_of(scripts, path, asked)
    assert rss[1] > 0.9 * path.stat().st_size > 9 * max(rss[0], rss[2], rss[4])
    assert n_cached[1] == n_cached[2] == n_cached[3] > 20 * n_cached[4]


@needs_linux
def test_after_pageout_the_pages_are_all_still_cached_on_tmpfs(scripts, tiled, missing):
    """RSS falls, which the first edition took for proof that the pages are gone."""
    if not os.path.isdir("/dev/shm") or measure.file_system("/dev/shm") != "tmpfs":
        pytest.skip("no tmpfs")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        f.write(bytes(16 * MIB))
        f.flush()
        rss, n_cached = story_of(scripts, f.name, tiled[1])
    assert rss[1] > 15 * MIB and rss[4] < 2 * MIB
    assert n_cached == [16 * MIB // mmap.PAGESIZE] * 5
