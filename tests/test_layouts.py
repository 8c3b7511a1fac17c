"""Lesson 08: pages that a question touches, other tools on the same molecules, and the pictures."""

import itertools
import mmap
import os
import random
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_hex

from qm9lab import columns, measure, qm9, records
from qm9lab.course import folders, plots
from qm9lab.lessons.lesson_08 import peers
from qm9lab.lessons.lesson_08 import pictures as layouts
from qm9lab.measure import touched

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "08_random_access.ipynb"
PAGE = mmap.PAGESIZE


def cell_of(beginning: str, until: str = "\n\n\n\n") -> str:
    """The lesson's code cell that has a line which begins so, up to ``until``."""
    cells = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"]
    found = next(c for c in cells if f"\n{beginning}" in f"\n{c}")
    return found.partition(until)[0]


# Which pages a question touches -------------------------------------------------------------------


@pytest.fixture
def on_disk():
    """A file of 300 pages in a folder of this process, where pages can be counted."""
    path = folders.lesson_folder() / "test_layouts.dat"
    path.write_bytes(os.urandom(300 * PAGE - 100))
    if why := touched.why_not(path):
        path.unlink()
        pytest.skip(why)
    yield path
    path.unlink()


def fincore(path) -> int | None:
    """Cached pages by util-linux's fincore: shares no code with the package."""
    if not shutil.which("fincore"):
        return None
    done = subprocess.run(["fincore", "-nbo", "pages", path], capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.timing
def test_touched_pages_are_those_that_were_read_and_no_others(on_disk):
    draw = random.Random(3)
    for _ in range(5):
        wanted = set(draw.sample(range(300), draw.randrange(1, 60)))
        found = touched.pages(on_disk, lambda mm, which: [mm[k * PAGE] for k in which], wanted)
        assert found.pages == wanted and found.n == found.n_major == len(wanted)
        assert fincore(on_disk) in (None, len(wanted))
        assert measure.exact_trace(on_disk, wanted).n_major == len(wanted)


@pytest.mark.timing
def test_what_a_map_had_touched_before_is_not_counted(on_disk):
    with open(on_disk, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mm:
        assert len(mm[:]) == 300 * PAGE - 100
        assert touched.through(mm, on_disk, lambda: mm[7 * PAGE : 9 * PAGE]).pages == {7, 8}
        assert touched.through(mm, on_disk, lambda: None).pages == set()


@pytest.mark.timing
def test_a_file_that_others_read_meanwhile_is_not_counted(on_disk):
    def ask(mm):
        calls.append(mm[0])
        on_disk.read_bytes()

    calls = []
    found = touched.pages(on_disk, ask)
    assert found == (None, None, touched.NOT_ALONE) and found.n == touched.NOT_ALONE
    assert len(calls) == touched.N_TRIES and not (on_disk.parent / ".probe.dat").exists()


def test_where_pages_cannot_be_counted_nothing_is_asked(tmp_path, monkeypatch):
    path = tmp_path / "x.dat"
    path.write_bytes(b"x" * PAGE)
    monkeypatch.delattr(mmap, "MADV_RANDOM", raising=False)
    found = touched.pages(path, lambda mm: 1 / 0)
    assert found.pages is None and found.n.startswith("not available here, because ")


def test_a_view_is_led_back_to_its_map():
    mm = mmap.mmap(-1, 1000)
    views = [np.frombuffer(mm, "u1")[5:], memoryview(mm)[3:], np.ndarray((3,), "u1", mm)[1:]]
    assert all(touched.map_behind(view) is mm for view in views)
    assert touched.map_behind(np.zeros(3)) is touched.map_behind(b"x") is None


def test_every_byte_is_there_whatever_the_fields_are():
    torch = pytest.importorskip("torch")
    parts = (7, np.arange(3, dtype="<f4"), torch.ones(2, dtype=torch.int64), "CÉ")
    expected = struct.pack("<q3f2q", 7, 0, 1, 2, 1, 1) + "CÉ".encode()
    assert touched.every_byte(parts) == expected
    assert 0 < touched.best_s(sum, range(100)) < 1
    calls = []
    assert (
        touched.best_s(lambda: time.sleep(0 if calls else 0.3) or calls.append(1), repeat=1) < 0.3
    )
    assert len(calls) >= 3  # one without a clock, one to say how often to call, then those


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


# Other tools --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    """An indexed file of 300 molecules, and the CRC-32 of 1,000 of them by PyG alone."""
    path = folders.lesson_folder() / "test_layouts.columns"
    molecules = qm9.dataset(progress=False)[::436]
    columns.write(path, molecules)
    check, fields = 0, columns.FIELDS
    for k in np.random.default_rng(8).integers(len(molecules), size=1000).tolist():
        molecule = molecules[k]
        for name in fields:
            value = molecule[name]
            raw = value.encode() if isinstance(value, str) else value.numpy().tobytes()
            check = zlib.crc32(raw, check)
    yield path, check
    path.unlink()


@pytest.mark.slow
def test_every_tool_gives_the_same_bytes_as_pyg(few, tmp_path, monkeypatch):
    path, check = few
    gone = {"a tool that nobody has": ("no_such_package", None, None)}
    monkeypatch.setattr(peers, "TOOLS", peers.TOOLS | gone)
    found = {peer.name: peer for peer in peers.measure_all(path, tmp_path)}
    assert list(tmp_path.iterdir()) == []
    missing = found.pop("a tool that nobody has")
    assert missing.source == "not available here, because no_such_package is not installed"
    assert missing[1:6] == (None,) * 5
    there = [peer for peer in found.values() if not peer.source]
    assert {"PyG InMemoryDataset", "np.memmap, .npy", "columns"} <= {peer.name for peer in there}
    assert {peer.crc32 for peer in there} == {check}
    n_bytes = sum(s.length_bytes for s in columns.read_header(path.read_bytes()))
    assert all(peer.disk_bytes >= n_bytes and peer.get_s > 0 for peer in there)
    table = str(peers.table([*there, missing], "not available here, because x"))
    assert len(table.splitlines()) == 2 + len(there) + any(p.anonymous_bytes is None for p in there)
    assert peers.fastest_first([*there, missing])[-1] == "PyG OnDiskDataset"


def test_a_tool_that_fails_is_reported_with_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match=r"exit status 1: .*ColumnsError"):
        (tmp_path / "x.dat").write_bytes(b"x")
        peers.measure_all(tmp_path / "x.dat", tmp_path)


def test_each_tool_s_code_can_be_shown():
    shown = "".join(c.source for c in nbformat.read(NOTEBOOK, 4).cells if "peers.code(" in c.source)
    assert all(name in shown for name in ("PyG OnDiskDataset", "LMDB, pickled", "columns"))
    code = repr(peers.code(*peers.TOOLS))
    assert code.count("def write_") == code.count("def open_") == len(peers.TOOLS)
    assert "mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)" in code


# Pictures -----------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    return plots.new_figure(8, 3).subplots()


def test_sections_are_drawn_where_they_lie(ax):
    parts = [("header", 0, 100), ("a", 65_536, 70_000), ("b", 3 * 65_536, 200_000)]
    layouts.sections(ax, parts, 65_536)
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
    layouts.file_order(ax, layout, question)
    cells = dict(zip([t.get_text() for t in ax.texts[:12]], ax.patches, strict=True))
    assert [t.get_text() for t in ax.texts[12:-1]] == ["page 0", "page 1", "page 2"]
    borders = [tuple(line.get_xdata()) for line in ax.lines]
    assert [(round(a), round(b)) for a, b in borders] == [(0, 4), (4, 8), (8, 12)]
    order = [f"{m}{f}" for m in "ABCD" for f in "012"]
    expected = order if layout == "rows" else sorted(order, key=lambda each: each[::-1])
    assert list(cells) == expected
    orange = [n for n, p in cells.items() if to_hex(p.get_facecolor()).upper() == layouts.COMPUTED]
    assert orange == lit.split() and ax.texts[-1].get_text().startswith(f"{layout}: ")


def test_touched_pages_have_a_dot_each_and_the_kernel_s_are_blue(ax):
    layouts.touched_pages(ax, 130, {0, 64, 129}, {0, 65})
    (dots,) = ax.lines
    assert list(zip(*dots.get_data(), strict=True)) == [(0, 0), (0, 2), (1, 4)]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "64", "128"]
    blue = [p for p in ax.patches if p.get_label() == "mapped in this process"]
    assert len(blue) == 1 and len(blue[0].get_path().vertices) == 2 * 5
    assert not ax.texts
    other = layouts.touched_pages(plots.new_figure().subplots(), 3, {1}, None)
    assert other.texts[0].get_text() == "the kernel's count: not available here"


def test_growth_says_where_the_kernel_does_not_count():
    seconds = {"walk": [1e-3, 2e-3], "index": [1e-6, 1e-6]}
    counts = {"walk": [10, 20], "index": [1, 1]}
    figure = layouts.growth(plots.new_figure(), [100, 200], counts, seconds)
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[10, 20], [1, 1]]
    assert [list(line.get_ydata()) for line in right.lines] == [[1e3, 2e3], [1, 1]]
    none = dict.fromkeys(counts, ["not available here, because"] * 2)
    left, _ = layouts.growth(plots.new_figure(), [100, 200], none, seconds).axes
    assert not left.lines and left.texts[0].get_text() == layouts.MISSING


def test_the_key_names_what_is_drawn():
    figure = plots.new_figure()
    layouts.question(figure, "rows", "one molecule", 30, {3}, {3})
    words = [text.get_text() for text in layouts.key(figure).get_texts()]
    assert words == ["on disk", "mapped in this process", "computed: touched"]
    assert len(figure.legends) == 1
