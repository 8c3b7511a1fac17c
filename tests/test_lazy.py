"""Lesson 07's measurements: the machinery, its pictures, and the lesson's own time and memory."""

import contextlib
import json
import math
import mmap
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import psutil
import pytest
from nbclient import NotebookClient

from qm9lab import measure, qm9, records
from qm9lab.course import folders, memory_bars, plots
from qm9lab.lessons.lesson_07 import compare
from qm9lab.lessons.lesson_07 import pictures as memory
from qm9lab.processes import run_script

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "07_full_load_vs_lazy.ipynb"
MIB = 1 << 20


def a_run(**other):
    base = {"way": "map", "pattern": "all", "source_bytes": 64 * MIB, "anonymous_bytes": 0}
    base |= {"file_bytes": 3 * MIB, "cached_bytes": 8 * MIB, "minor": 12, "major": 1}
    return SimpleNamespace(**base | other)


def texts(ax):
    return [text.get_text() for text in ax.texts]


# Pictures ------------------------------------------------------------------------------------


def test_the_headline_draws_what_each_run_added():
    runs = [
        a_run(way="read()", anonymous_bytes=64 * MIB, file_bytes=0, minor=16384, major=0),
        a_run(pattern="one"),
    ]
    figure = memory.headline(plots.new_figure(9, 3), runs, "a finding")
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


def test_what_a_system_does_not_offer_is_said_in_its_place():
    missing = dict.fromkeys(("anonymous_bytes", "file_bytes", "cached_bytes", "minor", "major"))
    figure = memory.headline(plots.new_figure(9, 3), [a_run(**missing)])
    assert texts(figure.axes[0]) == texts(figure.axes[1]) == [memory_bars.MISSING]
    line = measure.Timeline(np.arange(3.0), None, None, np.arange(3), None, "")
    figure = memory.timelines(plots.new_figure(9, 3), {"map": line})
    assert texts(figure.axes[0]) == [memory_bars.MISSING]
    ax = memory.growth(plots.new_figure(9, 3).subplots(), [a_run(anonymous_bytes=None)])
    assert texts(ax) == [memory_bars.MISSING]
    ax = memory_bars.memory_story(plots.new_figure(9, 3).subplots(), ["a"], [(None, None)])
    assert texts(ax) == [memory_bars.MISSING]


def test_a_bar_below_zero_which_lagging_counters_give_is_drawn_as_nothing():
    ax = memory_bars.stacked_bars(plots.new_figure(4, 2).subplots(), [0], [(-8192, MIB)])
    assert [bar.get_width() for bar in ax.patches] == [1] and texts(ax) == ["1 MiB"]


def test_a_timeline_begins_at_nothing_and_ends_at_what_was_added():
    columns = np.array([[5, 6], [10 * MIB, 14 * MIB], [MIB, 3 * MIB], [100, 900], [0, 7]])
    line = measure.Timeline(*columns, "")
    figure = memory.timelines(plots.new_figure(9, 3), {"map": line})
    own, shared = figure.axes[0].collections
    assert own.get_paths()[0].vertices[:, 1].max() == 4
    assert shared.get_paths()[0].vertices[:, 1].max() == 6
    assert [max(drawn.get_ydata()) for drawn in figure.axes[1].lines] == [800, 7]


def test_growth_has_a_line_a_way_in_order_of_size():
    sizes = (2 * MIB, MIB, 4 * MIB)
    ways = {"read()": 1.0, "map": 0.0, "full load (PyG)": 2.0}
    runs = [
        a_run(way=way, source_bytes=n, anonymous_bytes=int(n * share))
        for way, share in ways.items()
        for n in sizes
    ]
    with plt.style.context(plots.STYLE):
        ax = memory.growth(plots.new_figure(8, 3).subplots(), runs)
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert drawn["read(): anonymous"] == [1, 2, 4] and drawn["map: anonymous"] == [0, 0, 0]
    assert drawn["full load (PyG): anonymous"] == [2, 4, 8] and drawn["map: file pages"] == [3] * 3
    assert texts(ax) == ["k = 1", "k = 2", "k = 4"]


# The machinery -------------------------------------------------------------------------------


def test_claims_hold_fail_or_cannot_be_said():
    claims = "a > 1 | more\n\na > b | than none\na < 1 | less\nfind.major == 0 | of no run\n"
    table = compare.verdicts(claims, a=2, b=None, find=None)
    assert table.rows == [("more", True), ("than none", None), ("less", False), ("of no run", None)]
    assert not table.all_hold
    *_, third, _, reason = repr(table).splitlines()
    assert third == "FAILS | less" and reason.startswith("-: not available here, because ")
    assert compare.verdicts("1 | yes\na < 1 | unknown", a=None).all_hold


def test_a_claim_with_a_mistake_in_it_is_not_taken_for_unknown():
    with pytest.raises(NameError):
        compare.verdicts("missing_name > 1 | a typing error")


def test_a_script_that_fails_is_reported_with_its_last_words(tmp_path):
    path = tmp_path / "x.dat"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with pytest.raises(RuntimeError, match=r"map: expected an answer, found exit status 1.*oh no"):
        compare.run("map", "raise SystemExit('oh no')", path, "warm")


def cells_of(*beginnings):
    """The code cells that begin so, in order."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [next(c for c in cells if c.startswith(each)) for each in beginnings]


@pytest.fixture(scope="module")
def scripts():
    """The parts of the lesson's scripts, by name."""
    found = {}
    names = ("BEGIN", "READ", "GRAPHS", "MEASURE", "WAYS")
    for source in cells_of(*(f"{name} = " for name in names)):
        exec(source.partition("\n\n\ndef run(")[0], found)
    return found


def test_every_script_of_the_lesson_types_the_call_that_it_is_about(scripts):
    expected = {"full load (PyG)": "QM9(path)", "read()": "f.read()"}
    expected |= {"map": "mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)"}
    expected |= {"map, MADV_RANDOM": "mm.madvise(mmap.MADV_RANDOM)"}
    assert list(scripts["WAYS"]) == list(expected)
    for way, call in expected.items():
        assert call in scripts["WAYS"][way]
        compile(scripts["BEGIN"] + scripts["WAYS"][way] + scripts["MEASURE"], way, "exec")


N_COPIES = 16


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """The record file many times over, what is asked, and the answers by plain reading."""
    folder = folders.lesson_folder()
    once = qm9.record_file().read_bytes()
    path, asked = folder / "test_lazy.dat", folder / "test_lazy.npz"
    path.write_bytes(once * N_COPIES)
    walked = [(at + 4 + len(smiles.encode()), value) for at, smiles, value in records.walk(once)]
    value_at = np.array([at for at, _ in walked])
    values = [value for _, value in walked]
    numbers = np.random.default_rng(7).integers(0, N_COPIES * len(walked), 1000)
    np.savez(asked, value_at=value_at, copy_bytes=len(once), one=[65_415], some=numbers)
    answers = {"one": values[65_415], "all": math.fsum(values) / len(values)}
    answers["some"] = sum(values[n % len(values)] for n in numbers) / 1000
    yield path, asked, answers
    path.unlink()
    asked.unlink()


needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or measure.file_system(qm9.folder().parent) in measure.MEMORY_ONLY,
    reason="needs Linux and a disk",
)

ROLLUP = r"""
def smaps():
    fields = dict(line.split(":") for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    return {name: int(fields[name].split()[0]) * 1024 for name in ("Rss", "Anonymous")}
import resource
smaps(), now()
first, before = smaps(), now()
held = obtain()
answer = mean(held, sys.argv[3])
after, last = now(), smaps()
regions = psutil.Process().memory_maps(grouped=False)
ours = sum(region.rss for region in regions if path.name in region.path)
print(json.dumps([after[0] - before[0], after[1] - before[1], last["Anonymous"] - first["Anonymous"],
    last["Rss"] - first["Rss"], ours, resource.getrusage(resource.RUSAGE_SELF).ru_minflt]))
"""  # noqa: E501


@needs_linux
@pytest.mark.timing
@pytest.mark.parametrize("way", ["read()", "map"])
@pytest.mark.parametrize("pattern", ["one", "all"])
def test_what_a_run_adds_agrees_with_smaps_to_some_pages(scripts, tiled, way, pattern):
    """A second instrument, exact to the page: /proc/self/smaps_rollup, and smaps for the map."""
    path, asked, _ = tiled
    measure.bring_to(path, "warm")
    done = run_script(scripts["BEGIN"] + scripts["WAYS"][way] + ROLLUP, path, asked, pattern)
    assert done.returncode == 0, done.stderr
    own, shared, own_smaps, rss_smaps, ours, _ = json.loads(done.stdout)
    lag = 2 * MIB  # pages that statm has not yet added up, on each processor
    assert abs(own - own_smaps) < lag and abs(own + shared - rss_smaps) < lag
    size = path.stat().st_size
    if way == "read()":
        # A buffer far above malloc's largest mmap threshold is fresh: every page is new.
        assert size <= own_smaps < size + 4 * MIB and ours == 0
    else:
        assert own_smaps < 2 * MIB
        # Pages of libraries, NumPy's for one, are file pages too: few beside the file's.
        assert 0 <= rss_smaps - own_smaps - ours < 8 * MIB
        assert ours >= (size if pattern == "all" else mmap.PAGESIZE)


@needs_linux
@pytest.mark.timing
def test_the_identities_of_the_lesson_on_the_lessons_own_scripts(scripts, tiled):
    path, asked, answers = tiled
    size = path.stat().st_size

    def run(way, temperature, pattern):
        script = scripts["BEGIN"] + scripts["WAYS"][way] + scripts["MEASURE"]
        (found,) = compare.run(way, script, path, temperature, asked, pattern)
        assert math.isclose(found.answer, answers[pattern], rel_tol=1e-12)
        assert found[:3] == (way, temperature, pattern) and found.source_bytes == size
        if temperature == "cold":
            assert found.was_cold
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


# The lesson ----------------------------------------------------------------------------------


class Watch:
    """The memory of this process's descendants, sampled: the most at one time, in bytes."""

    def __init__(self):
        self.most_rss, self.most_pss, self._stop = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        ours = psutil.Process()
        while not self._stop.wait(0.1):
            rss = pss = 0
            for process in ours.children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError, AttributeError):
                    rss += process.memory_info().rss
                    pss += process.memory_full_info().pss
            self.most_rss, self.most_pss = max(self.most_rss, rss), max(self.most_pss, pss)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()


@needs_linux
@pytest.mark.slow
@pytest.mark.timing
def test_the_headline_comes_within_90_s_in_3_gb_and_nothing_is_left(capsys):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    headline = next(k for k, c in enumerate(notebook.cells) if 'show("cold"' in c.source)
    notebook.cells.append(nbformat.v4.new_code_cell("print(folders.lesson_folder())"))
    done_s, start_s = {}, time.monotonic()

    def note(cell, cell_index, **_):
        done_s[cell_index] = time.monotonic() - start_s

    client = NotebookClient(
        notebook,
        timeout=180,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        on_cell_executed=note,
    )
    with Watch() as watch:
        client.execute()
    folder = Path(notebook.cells[-1].outputs[0]["text"].strip())
    with capsys.disabled():
        print(
            f"\nlesson 07: headline after {done_s[headline]:.0f} s, all after "
            f"{max(done_s.values()):.0f} s; most memory of kernel and children: "
            f"RSS {watch.most_rss / MIB:,.0f} MiB, PSS {watch.most_pss / MIB:,.0f} MiB"
        )
    pictures = [o for o in notebook.cells[headline].outputs if "image/png" in o.get("data", {})]
    assert pictures and done_s[headline] < 90
    assert watch.most_rss < 3 * 10**9
    assert not folder.exists(), list(folder.iterdir())
