"""Lesson 08: what its cells compute, and its pictures. Its exercises are in test_check.py."""

import itertools
import mmap
import struct
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_hex

from qm9lab import records
from qm9lab.course import plots
from qm9lab.lessons.lesson_08 import pictures, reading
from qm9lab.measure import Missing

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "08_random_access.ipynb"
RESULTS = ROOT / "tests" / "bench" / "results" / "bench.md"
PAGE = mmap.PAGESIZE


def cells_of_row(line: str) -> tuple[str, list[str]]:
    """The first cell of a row of a Markdown table, and the others."""
    first, *others = (cell.strip() for cell in line.strip("|").split("|"))
    return first, others


def cell_of(beginning: str, until: str = "\n\n\n\n") -> str:
    """The lesson's code cell that has a line which begins so, up to ``until``."""
    cells = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"]
    found = next(c for c in cells if f"\n{beginning}" in f"\n{c}")
    return found.partition(until)[0]


# What the lesson writes out -----------------------------------------------------------------------


def test_the_lesson_s_arithmetic_of_pages_is_that_of_each_value_s_bytes():
    names = {"np": np, "mmap": mmap, "ORDERS": {"rows": "C", "columns": "F"}}
    source = cell_of("def pages_asked(")
    exec(source[source.index("def pages_asked(") :], names)
    for shape in ((700, 19), (3, 3_000), (2_045, 4)):
        asked = [np.s_[:, 2:3], np.s_[1:2, :], np.s_[1:150, :], np.s_[:, :]]
        for layout, question in itertools.product(names["ORDERS"], asked):
            table = np.arange(shape[0] * shape[1], dtype="<f4").reshape(shape)
            buf = table.tobytes(names["ORDERS"][layout])
            places = np.arange(table.size).reshape(shape, order=names["ORDERS"][layout])
            expected = {4 * at // PAGE for at in places[question].ravel().tolist()}
            assert names["pages_asked"](layout, question, shape) == expected
            answer = names["answer_from"](buf, layout, question, shape)
            assert answer == pytest.approx(table[question].sum())


def test_the_lesson_s_walk_and_index_find_every_record():
    stream = b"".join(records.pack("C" * k, float(k)) for k in range(1, 60))
    names = {"struct": struct}
    exec(cell_of("def walk_to(", "\n\n\ndef map_part"), names)
    starts = [at for at, *_ in records.walk(stream)] + [len(stream)]
    index = np.array(starts, "<i8").tobytes()
    for k, (start, end) in enumerate(itertools.pairwise(starts)):
        assert names["walk_to"](stream, k) == start
        assert names["look_up"](index, k) == (start, end)


def test_the_table_of_other_tools_is_that_of_the_recorded_bench():
    (text,) = (c.source for c in nbformat.read(NOTEBOOK, 4).cells if "`make bench`" in c.source)
    rows = dict(map(cells_of_row, filter(lambda line: line.count("|") == 6, text.splitlines())))
    recorded = RESULTS.read_text(encoding="utf-8").partition("## Warm")[2].splitlines()
    recorded = dict(map(cells_of_row, filter(lambda line: line.count("|") == 11, recorded)))
    tools = list(rows)[2:]
    assert set(tools) == set(recorded) - {"", "---", "the article's records"}
    for tool in tools:
        found = [float(recorded[tool][column].replace(",", "")) for column in (4, 5, 1)]
        assert [float(number) for number in rows[tool][1:]] == pytest.approx(found, rel=0.05), tool


# Pictures -----------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    return plots.new_figure(8, 3).subplots()


def test_sections_are_drawn_where_they_lie(ax):
    parts = [("header", 0, 100), ("a", 65_536, 70_000), ("b", 3 * 65_536, 200_000)]
    pictures.sections(ax, parts, 65_536)
    drawn = [(bar.get_x(), bar.get_width()) for bar in ax.patches if hasattr(bar, "get_width")]
    assert drawn[:3] == [(offset, n) for _, offset, n in parts]
    assert [t.get_text() for t in ax.texts] == ["header\n100 B", "a\n68.4 KiB", "b\n195 KiB"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["", "1", "3"]


@pytest.mark.parametrize(
    ("layout", "question", "lit"),
    [
        ("rows", "one molecule", "B0 B1 B2"),
        ("columns", "one molecule", "B0 B1 B2"),
        ("rows", "one property of all", "A1 B1 C1 D1"),
        ("columns", "100 neighbours", "B0 C0 B1 C1 B2 C2"),
    ],
)
def test_a_small_table_is_drawn_in_the_order_of_its_file(ax, layout, question, lit):
    pictures.file_order(ax, layout, question)
    cells = dict(zip([t.get_text() for t in ax.texts[:12]], ax.patches, strict=True))
    assert [t.get_text() for t in ax.texts[12:-1]] == ["page 0", "page 1", "page 2"]
    borders = [tuple(line.get_xdata()) for line in ax.lines]
    assert [(round(a), round(b)) for a, b in borders] == [(0, 4), (4, 8), (8, 12)]
    order = [f"{m}{f}" for m in "ABCD" for f in "012"]
    expected = order if layout == "rows" else sorted(order, key=lambda each: each[::-1])
    assert list(cells) == expected
    orange = [n for n, p in cells.items() if to_hex(p.get_facecolor()).upper() == pictures.COMPUTED]
    assert orange == lit.split() and ax.texts[-1].get_text().startswith(f"{layout}: ")


def test_touched_pages_have_a_dot_each_and_the_kernel_s_are_blue(ax, monkeypatch):
    pictures.touched_pages(ax, 130, {0, 64, 129}, {0, 65})
    (dots,) = ax.lines
    assert list(zip(*dots.get_data(), strict=True)) == [(0, 0), (0, 2), (1, 4)]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "64", "128"]
    blue = [p for p in ax.patches if p.get_label() == "mapped in this process"]
    assert len(blue) == 1 and len(blue[0].get_path().vertices) == 2 * 5
    assert not ax.texts
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    other = pictures.touched_pages(plots.new_figure().subplots(), 3, {1}, Missing("x"))
    assert other.texts[0].get_text() == "the kernel's count: not available here"


def test_the_cost_of_a_search_is_drawn_and_what_is_missing_is_named(monkeypatch):
    seconds = {"walk": [1e-3, 2e-3], "index": [1e-6, 1e-6]}
    counts = {"walk": [10, 20], "index": [1, 1]}
    figure = pictures.search_cost(plots.new_figure(), [100, 200], counts, seconds)
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[10, 20], [1, 1]]
    assert [list(line.get_ydata()) for line in right.lines] == [[1e3, 2e3], [1, 1]]
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    none = dict.fromkeys(counts, [Missing("x")] * 2)
    left, _ = pictures.search_cost(plots.new_figure(), [100, 200], none, seconds).axes
    assert not left.lines and left.texts[0].get_text() == pictures.MISSING


def test_the_key_names_what_is_drawn():
    figure = plots.new_figure()
    pictures.question(figure, "rows", "one molecule", 30, {3}, {3})
    words = [text.get_text() for text in pictures.key(figure).get_texts()]
    assert words == ["on disk", "mapped in this process", "computed: touched"]
    assert len(figure.legends) == 1


def test_a_view_is_led_back_to_its_map():
    mm = mmap.mmap(-1, 1000)
    views = [np.frombuffer(mm, "u1")[5:], memoryview(mm)[3:], np.ndarray((3,), "u1", mm)[1:]]
    assert all(reading.map_of(view) is mm for view in views)
    assert reading.map_of(np.zeros(3)) is reading.map_of(b"x") is None
