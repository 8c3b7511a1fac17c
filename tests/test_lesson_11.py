"""Lesson 11: what looks at a training, its picture, and what its cells claim.

Its exercises are in test_check.py.
"""

import mmap
import multiprocessing
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from qm9lab import columns, measure, qm9
from qm9lab.course import plots
from qm9lab.lessons.lesson_11 import pictures, training
from qm9lab.lessons.lesson_11.training import ProcessMemory, Report
from qm9lab.measure import Missing

MIB = 1 << 20
NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "11_train_from_the_map.ipynb"
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and smaps_rollup")


# The memory of parent and workers -------------------------------------------------------------

HELD_BYTES, WRITTEN_BYTES = 64 * MIB, 16 * MIB


@pytest.fixture
def late(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    return Missing("the child was late")


def worker(held, written_bytes, ready, leave):
    held[: written_bytes : mmap.PAGESIZE] = 1
    ready.set()
    leave.wait(60)


@needs_linux
@pytest.mark.timing
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_parent_and_workers_own_what_is_held_once_and_what_each_has_written_to(tmp_path):
    """The identity of exercise 2, with pages that this test itself touched."""
    fork, memory = multiprocessing.get_context("fork"), partial(training.memory, tmp_path / "no")
    before = memory()
    held = np.ones(HELD_BYTES, np.uint8)
    leave, workers = fork.Event(), []
    for _ in range(2):
        ready = fork.Event()
        workers.append(fork.Process(target=worker, args=(held, WRITTEN_BYTES, ready, leave)))
        workers[-1].start()
        assert ready.wait(60)
    report = Report(before[0], memory())
    leave.set()
    for each in workers:
        each.join()
    assert len(before) == 1 and len(report.processes) == 3 and len(memory()) == 1
    expected = HELD_BYTES + 2 * WRITTEN_BYTES
    own_pages = 24 * MIB  # the interpreter's, that a worker writes to
    assert expected <= report.together_bytes + MIB < expected + own_pages
    assert abs(report.parent_bytes - HELD_BYTES) < 8 * MIB
    # RSS shows what is held three times: adding it up is the common mistake.
    rss = sum(each.anonymous_bytes for each in report.processes) - 3 * before[0].anonymous_bytes
    assert rss > 2.8 * HELD_BYTES


@needs_linux
def test_memory_is_that_of_the_instruments_and_of_the_data_file_alone(tmp_path):
    path = tmp_path / "a file.dat"
    path.write_bytes(bytes(300 * mmap.PAGESIZE))
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        sum(mm[:: mmap.PAGESIZE])
        (me,) = training.memory(path)
    assert me.file_bytes == 300 * mmap.PAGESIZE
    assert abs(me.share_bytes - measure.footprint(os.getpid()).pss_anonymous_bytes) < 8 * MIB
    assert abs(me.anonymous_bytes - measure.resident().anonymous_bytes) < 8 * MIB


def test_a_worker_that_has_ended_is_left_out(monkeypatch):
    def file_bytes(path, pid):
        if pid == 2**22 + 1:
            raise ProcessLookupError
        return 7

    monkeypatch.setattr(measure, "file_bytes", file_bytes)
    monkeypatch.setattr(measure, "resident", lambda pid: SimpleNamespace(anonymous_bytes=5))
    monkeypatch.setattr(measure, "footprint", lambda pid: SimpleNamespace(pss_anonymous_bytes=3))
    workers = [SimpleNamespace(pid=2**22 + k) for k in (1, 2)]
    monkeypatch.setattr(multiprocessing, "active_children", lambda: workers)
    assert training.memory("x") == [ProcessMemory(5, 3, 7)] * 2


def test_what_a_child_returned_is_a_table(late):
    rows = [[[MIB] * 3, [3 * MIB] * 3, [2 * MIB] * 3]] * 2
    first, second = training.reports_of(rows, 2)
    assert first == second and first.parent_bytes == 2 * MIB and first.together_bytes == 4 * MIB
    *_, worker_1, together = (line.split() for line in repr(first).splitlines())
    assert worker_1 == ["worker", "1", "2", "2", "2"]
    assert together == ["together,", "less", "before", "4"]
    (report,) = training.reports_of(late, 1)
    assert repr(report) == f"memory of each process: {late}"
    assert report.parent_bytes is late and report.together_bytes is late


# A rate ---------------------------------------------------------------------------------


def test_the_best_rate_is_that_of_the_fastest_try_and_tries_alternate():
    order, waits = [], {"a": iter([0.02, 0.001, 0.02]), "b": iter([0.01] * 3)}

    def make(name):
        return [order.append(name), time.sleep(next(waits[name]))]

    rates = training.best_rates({name: partial(make, name) for name in waits}, 10, n_tries=3)
    assert list(rates) == ["a", "b"] and order == ["a", "b"] * 3
    assert 10 / 0.02 < rates["a"] <= 10 / 0.001 and rates["b"] <= 10 / 0.01


# The picture ----------------------------------------------------------------------------------


def test_each_page_that_a_batch_touches_is_drawn_in_both_rows():
    batches = {"in order": [{0, 5, 6}, {7}], "shuffled": [{1}, {0, 8}]}
    bands = {"header": (0, 1), "y": (2, 4), "z": (5, 10)}
    figure = pictures.batch_pages(plots.new_figure(9, 5), batches, bands)
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


@pytest.mark.parametrize(
    ("pages", "run"), [({3}, (3, 3)), ({1, 2, 5, 6, 7, 9}, (5, 7)), ({1, 3, 5}, (1, 1))]
)
def test_the_longest_run_of_pages(pages, run):
    assert pictures.longest_run(pages) == run


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
    found = {"columns": columns, "mmap": mmap, "sys": sys, "torch": torch, "warnings": warnings}
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


def test_python_s_warning_of_a_fork_with_threads_does_not_reach_the_learner():
    words = "This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks"
    (cell,) = cells_of("def loader(")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(cell, {"sys": sys, "warnings": warnings})
        warnings.warn(words, DeprecationWarning, stacklevel=1)  # as 3.12 does
        warnings.warn("another", DeprecationWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == ["another"]


def test_no_rate_is_judged_by_a_count_of_calls():
    """Versions of Python differ in the calls that a profiler sees."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any("calls" in c.source for c in cells if c.cell_type == "code")


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
