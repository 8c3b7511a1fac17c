"""Lesson 11: what looks at a training, its pictures, its view, and the claims of its cells."""

import mmap
import multiprocessing
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import nbformat
import numpy as np
import pytest

from qm9lab import columns, measure, qm9
from qm9lab.course import plots
from qm9lab.lessons.lesson_11 import pictures, training
from qm9lab.lessons.lesson_11.training import Family, Log, Member
from qm9lab.lessons.lesson_11.widget import training_view
from qm9lab.processes import run_script

MIB = 1 << 20
NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "11_train_from_the_map.ipynb"
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and smaps_rollup")


# The memory of a family ----------------------------------------------------------------------

HELD_BYTES, STORED_BYTES = 64 * MIB, 16 * MIB


def worker(held, stored_bytes, ready, leave):
    held[: stored_bytes : mmap.PAGESIZE] = 1
    ready.set()
    leave.wait(60)


@needs_linux
@pytest.mark.timing
def test_a_family_owns_what_is_held_once_and_what_each_worker_has_stored_to(tmp_path):
    """The identity of exercise 2, with pages that this test itself touched."""
    fork, family = multiprocessing.get_context("fork"), partial(training.family, tmp_path / "no")
    before = family()
    held = np.ones(HELD_BYTES, np.uint8)
    leave, workers = fork.Event(), []
    for _ in range(2):
        ready = fork.Event()
        workers.append(fork.Process(target=worker, args=(held, STORED_BYTES, ready, leave)))
        workers[-1].start()
        assert ready.wait(60)
    members = family()
    leave.set()
    for each in workers:
        each.join()
    found = Family(before[0], members)
    assert len(before) == 1 and len(members) == 3 and len(family()) == 1
    expected = HELD_BYTES + 2 * STORED_BYTES
    own_pages = 24 * MIB  # the interpreter's, that a worker stores to
    assert expected <= found.together_bytes + MIB < expected + own_pages
    assert abs(found.added_bytes - HELD_BYTES) < 8 * MIB
    # RSS shows what is held three times: adding it up is the common mistake.
    rss = sum(m.anonymous_bytes for m in members) - 3 * before[0].anonymous_bytes
    assert rss > 2.8 * HELD_BYTES


@needs_linux
def test_a_member_s_numbers_are_those_of_other_instruments(tmp_path):
    (me,) = training.family(tmp_path / "no")
    told, kept = measure.footprint(os.getpid()), measure.resident()
    assert abs(me.share_bytes - told.pss_anonymous_bytes) < 8 * MIB
    assert abs(me.anonymous_bytes - kept.anonymous_bytes) < 8 * MIB
    assert me.anonymous_bytes >= me.share_bytes - MIB and me.data_bytes == 0


def resident_by_smaps(path):
    """The second instrument: Rss less Anonymous of the file's maps, in bytes."""
    n_kib, ours = 0, False
    for line in open("/proc/self/smaps", encoding="utf-8"):  # noqa: SIM115
        first, *rest = line.split()
        if "-" in first:
            ours = line.endswith(f" {path}\n")
        elif ours and first in ("Rss:", "Anonymous:"):
            n_kib += int(rest[0]) * (1 if first == "Rss:" else -1)
    return n_kib * 1024


@needs_linux
@pytest.mark.parametrize("access", [mmap.ACCESS_READ, mmap.ACCESS_COPY, mmap.ACCESS_WRITE])
def test_pages_of_the_data_file_are_those_that_are_mapped_and_not_copied(tmp_path, access):
    path, n_pages = tmp_path / "a file.dat", 300
    path.write_bytes(bytes(range(256)) * (n_pages * mmap.PAGESIZE // 256))
    (tmp_path / "other.dat").write_bytes(path.read_bytes())

    def found():
        (me,) = training.family(path)
        assert me.data_bytes == resident_by_smaps(path)
        return me.data_bytes // mmap.PAGESIZE

    assert found() == 0
    with (
        open(path, "r+b") as f,
        open(tmp_path / "other.dat", "rb") as g,
        mmap.mmap(f.fileno(), 0, access=access) as mm,
        mmap.mmap(f.fileno(), 8 * mmap.ALLOCATIONGRANULARITY, access=access) as again,
        mmap.mmap(g.fileno(), 0, access=mmap.ACCESS_READ) as other,
    ):
        assert found() == 0
        sum(mm[:: mmap.PAGESIZE] + other[:: mmap.PAGESIZE])
        assert found() == n_pages
        sum(again[:: mmap.PAGESIZE])
        assert found() > n_pages  # two maps of a page are two entries
        if access != mmap.ACCESS_READ:
            before = found()
            mm[: 10 * mmap.PAGESIZE : mmap.PAGESIZE] = bytes(10)
            assert found() == before - (10 if access == mmap.ACCESS_COPY else 0)
    assert found() == 0


def test_where_nothing_is_told_a_family_is_this_process_without_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "open", lambda *_: open(tmp_path / "no"), raising=False)
    assert training.family("x") == [Member(None, None, None)]


def a_member(mib, **other):
    return Member(mib * MIB, mib * MIB, 5 * MIB)._replace(**other)


def test_what_a_script_printed_is_read_back_line_by_line():
    lines = "print([[1048576] * 3, [3145728] * 3, [2097152] * 3])\n" * 2
    told = training.families(run_script(lines))
    assert len(told) == 2 and told[0] == told[1]
    assert told[0].added_bytes == 2 * MIB and told[0].together_bytes == 4 * MIB
    *_, worker_1, together = (line.split() for line in repr(told[0]).splitlines())
    assert worker_1 == ["worker", "1", "2", "2", "2"]
    assert together == ["together,", "less", "before", "-", "4", "-"]
    with pytest.raises(RuntimeError, match=r"expected the memory.*exit status 1.*oh no"):
        training.families(run_script("raise SystemExit('oh no')"))


def test_what_a_system_does_not_tell_is_said_in_words():
    nothing = Member(*[None] * 3)
    family = Family(nothing, [nothing])
    assert family.added_bytes is None and family.together_bytes is None
    assert repr(family).endswith(training.NO_NUMBER)
    assert training.in_mib([3 * MIB, None]) == [3, training.NO_NUMBER]


# A log, a rate, calls ------------------------------------------------------------------------


def test_a_log_keeps_each_loss_and_looks_after_each(monkeypatch):
    looked = []
    monkeypatch.setattr(
        training, "family", lambda path: looked.append(path) or [a_member(len(looked))]
    )
    log = Log("x", n_molecules=100, batch_size=64)
    assert log.owned_bytes == [MIB] and log.data_bytes == [[0]] and log.seen == [0]
    log.look()
    for k in range(5):
        log.note(1.0 / (k + 1))
    assert len(log.losses) == 5 and set(looked) == {"x"}
    # The last batch of an epoch has what is left.
    assert log.seen == [0, 0, 64, 100, 164, 200, 264]
    assert log.owned_bytes == [k * MIB for k in range(1, 8)]


def test_a_log_without_numbers_still_keeps_losses(monkeypatch):
    monkeypatch.setattr(training, "family", lambda path: [Member(*[None] * 3)])
    log = Log("x", 64, 64)
    log.note(1.0)
    assert log.owned_bytes == [None] * 2 and log.data_bytes == [[None]] * 2 and log.losses == [1.0]


def test_the_best_rate_is_that_of_the_fastest_try_and_tries_alternate():
    order, waits = [], {"a": iter([0.02, 0.001, 0.02]), "b": iter([0.01] * 3)}

    def make(name):
        return [order.append(name), time.sleep(next(waits[name]))]

    rates = training.best_rates({name: partial(make, name) for name in waits}, 10, n_tries=3)
    assert list(rates) == ["a", "b"] and order == ["a", "b"] * 3
    assert 10 / 0.02 < rates["a"] <= 10 / 0.001 and rates["b"] <= 10 / 0.01


def test_calls_are_counted_and_nothing_is_left_behind():
    def nine():
        for _ in range(9):
            len("x")
        yield 1
        len("x")  # behind the first batch

    few = training.calls_a_batch(lambda: iter([1]))
    assert training.calls_a_batch(nine) - few >= 9
    with pytest.raises(StopIteration):
        training.calls_a_batch(list)
    assert sys.getprofile() is None


def test_a_run_is_named_with_those_that_have_the_same_losses():
    logs = {("map", 64, n): SimpleNamespace(losses=[1.0, 0.5]) for n in (0, 2)}
    logs["map", 256, 0] = SimpleNamespace(losses=[2.0])
    words = training.in_words(logs, ("map", 64, 0))
    assert words == (
        "map, batches of 64, 0 workers: 2 losses. "
        "The same to the last digit: map, batches of 64, 2 workers."
    )
    assert training.in_words(logs, ("map", 256, 0)).endswith("none of the other runs (2).")
    logs["map", 64, 4] = SimpleNamespace(losses=[1.0, 0.5, 0.3])  # of a run still going, the first
    assert "2 losses. The same to the last digit" in training.in_words(logs, ("map", 64, 0))
    assert training.in_words(logs, ("map", 64, 0)).endswith("4 workers.")
    assert training.in_words(logs, ("map", 64, 4)).endswith("none of the other runs (3).")
    alone = training.in_words({("map", 64, 0): logs["map", 64, 0]}, ("map", 64, 0))
    assert alone.endswith("no other run yet.")
    assert training.in_words(logs, ("memory", 64, 0)).endswith("not run yet, press train.")


# Pictures ------------------------------------------------------------------------------------


def a_log(**other):
    base = {"n_molecules": 20, "losses": [1.0, 0.5, 0.3], "seen": [0, 0, 10, 20, 30]}
    base |= {"owned_bytes": [0, 4 * MIB, 4 * MIB, 5 * MIB, 5 * MIB]}
    base |= {"data_bytes": [[0], [MIB], [MIB, 2 * MIB], [MIB, 3 * MIB], [MIB]]}
    return SimpleNamespace(**base | other)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_curves_draw_each_loss_and_each_process():
    other = a_log(losses=[2.0], seen=[0, 0, 10])
    figure = pictures.curves(plots.new_figure(9, 3), a_log(), [other])
    losses, memory = figure.axes
    grey, points, mean, end = losses.lines
    assert list(grey.get_xdata()) == [10] and list(grey.get_ydata()) == [2.0]
    assert list(points.get_ydata()) == [1.0, 0.5, 0.3]
    assert list(points.get_xdata()) == [10, 20, 30] and end.get_xdata() == [20, 20]
    assert np.allclose(mean.get_ydata(), [1.0, 0.75, 0.6])
    area = memory.collections[0].get_paths()[0].vertices
    # A look's value holds until the next look: no slope where nobody looked.
    tops = {(x, y) for x, y in area if y}
    assert tops == {(0, 4), (10, 4), (20, 4), (20, 5), (30, 5)}
    parent, worker_1, _ = memory.lines
    assert list(parent.get_ydata()) == [0, 1, 1, 1, 1] and parent.get_drawstyle() == "steps-post"
    assert list(worker_1.get_ydata()[2:4]) == [2, 3] and np.isnan(worker_1.get_ydata()[4])
    assert worker_1.get_marker() != parent.get_marker() not in ("", "None")


def test_curves_of_nothing_and_of_an_unknown_memory_say_so():
    figure = pictures.curves(plots.new_figure(9, 3), None)
    assert texts(figure.axes[0]) == texts(figure.axes[1]) == ["not run yet"]
    unknown = a_log(owned_bytes=[None] * 5, data_bytes=[[None]] * 5)
    figure = pictures.curves(plots.new_figure(9, 3), unknown)
    assert texts(figure.axes[1]) == [pictures.MISSING]


def test_families_are_drawn_beyond_what_the_parent_had():
    nothing = Member(*[None] * 3)
    by_way = {"memory": Family(a_member(7), [a_member(10), a_member(11)])}
    by_way["map"] = Family(nothing, [nothing])
    ax = pictures.families(plots.new_figure(9, 3).subplots(), by_way)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["memory: parent", "memory: worker 1", "map: parent"]
    assert [bar.get_width() for bar in ax.patches] == [3, 5, 4, 5]
    assert pictures.MISSING in texts(ax)


def test_each_page_that_a_batch_touches_is_drawn_in_both_rows():
    batches = {"in order": [{0, 5, 6}, {7}], "shuffled": [{1}, {0, 8}]}
    bands = {"header": (0, 1), "y": (2, 4), "z": (5, 10)}
    figure = pictures.touched(plots.new_figure(9, 5), batches, bands)
    for ax, order in zip(figure.axes, [*batches, *batches], strict=True):
        strokes = [lines.get_segments() for lines in ax.collections]
        drawn = [[y for (_, y), _ in each] for each in strokes]
        assert drawn == [sorted(pages) for pages in batches[order]]
        assert [round(each[0].mean(0)[0]) for each in strokes] == [0, 1]
    titles = ["in order:\n4 pages of 10", "shuffled:\n3 pages of 10"]
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes[:2]] == titles
    assert figure.axes[2].get_ylim() == (7.5, 4.5)
    assert figure.axes[2].get_ylabel().endswith("part of z")
    grey = [[patch.get_y() for patch in ax.patches] for ax in figure.axes[:2]]
    assert grey == [[2], [2]]  # nobody asks for y
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["header", "y", "z"]
    times = re.search(r"drawn (\d+) times", figure.axes[0].get_ylabel())
    assert times[1] == "0"  # ten pages have room enough


@pytest.mark.parametrize(
    ("pages", "run"), [({3}, (3, 3)), ({1, 2, 5, 6, 7, 9}, (5, 7)), ({1, 3, 5}, (1, 1))]
)
def test_the_longest_run_of_pages(pages, run):
    assert pictures.longest_run(pages) == run


# The view ------------------------------------------------------------------------------------


def a_view(train):
    runs = []

    def draw(**values):
        figure = plots.new_figure(3, 1.5)
        figure.text(0.02, 0.5, str((values, runs)), fontsize=6)
        return figure, f"{len(runs)} steps"

    def make(**values):
        for share in train(values):
            runs.append(values)
            yield share

    return training_view(draw, make, ["memory", "map"], [64, 256], [0, 2]), runs


def test_the_button_trains_what_the_controls_say_and_draws_each_step():
    view, runs = a_view(lambda values: (0.5, 1.0))
    bars, locked = [], []
    view.bar.observe(lambda change: bars.append(change.new), "value")
    view.bar.observe(lambda change: locked.append(view.button.disabled), "value")
    for control in view.children[0].children:
        control.value = control.options[-1]
    before = bytes(view.picture.value)
    view.button.click()
    assert runs == [{"source": "map", "batch_size": 256, "n_workers": 2}] * 2
    assert bars == [0.5, 1.0] and locked == [True, True] and view.sentence.value == "2 steps"
    assert bytes(view.picture.value) != before
    controls = (view.button, *view.children[0].children)
    assert not any(control.disabled for control in controls)
    view.button.click()
    assert len(runs) == 4 and bars[-2:] == [0.5, 1.0]


def test_a_training_that_is_interrupted_leaves_the_controls_usable():
    def interrupted(values):
        yield 0.5
        raise KeyboardInterrupt

    view, runs = a_view(interrupted)
    with pytest.raises(KeyboardInterrupt):
        view._run(view.button)
    assert not view.button.disabled and len(runs) == 1 and view.sentence.value == "1 steps"
    assert isinstance(view.bar, ipywidgets.FloatProgress)


# The lesson's own code -----------------------------------------------------------------------


def cells_of(*beginnings):
    """The code cells that hold these words, in order, without their predictions."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [next(c for c in cells if words in c) for words in beginnings]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The lesson's model, loop, loaders and ``batch_of``, on 2,000 molecules."""
    import torch

    threads = torch.get_num_threads()
    found = {"columns": columns, "mmap": mmap, "sys": sys, "torch": torch}
    found["dataset"] = qm9.dataset(progress=False)[:2000]
    found["path"] = tmp_path_factory.mktemp("columns") / "qm9.cols"
    columns.write(found["path"], found["dataset"])
    found["mapped"] = columns.MappedQM9(found["path"])
    words = ("GAP = 4", "class Net", "def train(", "def loader(", "def batch_of", "def pages_of")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for source in cells_of(*words):
        exec(source.replace("dataset.y[", "torch.as_tensor(dataset._data.y)["), found)
    yield SimpleNamespace(**found)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def losses_of(lesson, batches, seed=1):
    lesson.torch.manual_seed(seed)
    return list(lesson.train(lesson.Net(), batches, 1))


def test_losses_are_the_same_to_the_last_digit_from_every_source(lesson):
    some = lesson.torch.arange(500)
    first = losses_of(lesson, lesson.loader(lesson.dataset[some]))
    assert len(first) == 8 and first[-1] == first[-1]
    assert losses_of(lesson, lesson.loader(lesson.mapped[some])) == first
    assert losses_of(lesson, lesson.loader(lesson.mapped[some], lesson.N_WORKERS)) == first
    assert losses_of(lesson, lesson.loader(lesson.mapped[some]), seed=2) != first
    in_order = [lesson.batch_of(part) for part in some.split(64)]
    collated = lesson.DataLoader(lesson.mapped[some], 64)
    assert losses_of(lesson, in_order) == losses_of(lesson, collated)


def test_a_gathered_batch_is_the_collated_one_in_every_field(lesson):
    for numbers in ([7], [1999, 0, 0, 1000], list(range(64)), [1500, 3]):
        numbers = lesson.torch.tensor(numbers)
        collated = next(iter(lesson.DataLoader(lesson.mapped[numbers], len(numbers))))
        gathered = lesson.batch_of(numbers, columns.FIELDS)
        assert set(gathered.keys()) == set(collated.keys()) - {"ptr"}
        for name in gathered.keys():  # noqa: SIM118 (a Data is no dict)
            a, b = gathered[name], collated[name]
            same = a == b if isinstance(a, list) else lesson.torch.equal(a, b)
            assert same, name


def test_the_pages_of_a_batch_are_those_that_hold_its_bytes(lesson):
    """A second instrument: the addresses of the views themselves."""
    whole, numbers = lesson.mapped.columns, [0, 3, 700, 1999]
    start = whole["atom_offsets"].__array_interface__["data"][0]
    start -= whole.sections["atom_offsets"].offset_bytes
    pages = {0}
    for number in numbers:
        molecule = whole.molecule(number)
        parts = [molecule.z, molecule.edge_index.T, molecule.edge_attr, molecule.y]
        parts += [whole[name][number : number + 2] for name in ("atom_offsets", "edge_offsets")]
        for part in parts:
            at = part.__array_interface__["data"][0] - start
            pages.update(byte // mmap.PAGESIZE for byte in range(at, at + part.nbytes))
    assert lesson.pages_of(numbers) == pages
