"""Pictures: what is drawn is what was handed in, and the SVGs are those of the code."""

import importlib.util
import io
import tomllib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from qm9lab import records
from qm9lab.course import page_grid, plots
from qm9lab.lessons.lesson_01 import pictures as pictures_01
from qm9lab.lessons.lesson_02 import pictures as pictures_02
from qm9lab.lessons.lesson_05 import pictures as pictures_05
from qm9lab.measure import Region

ROOT = Path(__file__).resolve().parents[1]
FIGURES = tomllib.loads((ROOT / "figures/figures.toml").read_text("utf-8"))


@pytest.fixture
def ax():
    return plots.new_figure(8, 3).subplots()


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.texts if t.get_text()]


def test_each_byte_of_a_record_stands_in_its_field_s_colour(ax):
    raw = records.pack("CCO", 1.0)
    assert pictures_01.record_bytes(ax, raw, 3, 1000) is ax
    faces = [to_hex(patch.get_facecolor()).upper() for patch in ax.patches]
    expected = ["length"] * 4 + ["SMILES"] * 3 + ["value"] * 8
    assert faces == [plots.FIELDS[name].color for name in expected]
    shown = [t for t in texts(ax) if len(t) == 2]
    assert shown == [f"{byte:02x}" for byte in raw]
    assert "offset 1,000" in texts(ax) and [t for t in texts(ax) if len(t) == 1] == ["C", "C", "O"]


def test_a_record_whose_length_is_wrong_is_not_drawn(ax):
    with pytest.raises(ValueError):
        pictures_01.record_bytes(ax, records.pack("CCO", 1.0), 4)


def test_a_molecule_is_drawn_and_nonsense_says_so(ax):
    assert pictures_01.molecule(ax, "[H]C([H])([H])[H]").images
    other = pictures_01.molecule(plots.new_figure().subplots(), "C(((")
    assert not other.images and "cannot draw" in texts(other)[0]


def test_bars_are_as_long_as_their_values(ax):
    plots.bars(ax, ["a", "b"], [3, 0], ["on disk", "private (anonymous)"], "pages")
    assert [bar.get_width() for bar in ax.patches] == [3, 0]
    assert ax.get_xlabel() == "pages" and [t.get_text() for t in ax.texts] == ["3", "0"]
    assert ax.patches[1].get_hatch() == plots.MEANINGS["private (anonymous)"].hatch


def drawn_pages(ax, columns, runs=False):
    """Pages by the label of what is drawn over them, read back from the shapes' corners."""
    found = {}
    for patch in ax.patches:
        corners = patch.get_path().vertices.reshape(-1, 5, 2)
        low, high = corners.min(1), corners.max(1)
        for (x, y), (end, bottom) in zip(low, high, strict=True):
            first = round(x + 0.5 if runs else (x + end) / 2)
            last = round(end - 0.5) if runs else first
            row = round((y + bottom) / 2)
            pages = found.setdefault(patch.get_label(), [])
            pages += range(row * columns + first, row * columns + last + 1)
    assert all(len(pages) == len(set(pages)) for pages in found.values())
    return {label: set(pages) for label, pages in found.items()}


@pytest.mark.parametrize("runs", [False, True])
def test_the_page_grid_has_each_page_once_in_its_state(ax, runs):
    draw = np.random.default_rng(1)
    cached, mapped, dirty, copied = draw.random((4, 600)) < [[0.6], [0.3], [0.2], [0.1]]
    page_grid.page_grid(ax, cached, mapped, 50, [5, 599], dirty, copied, runs=runs)
    as_mapped, as_cached = mapped & ~copied, cached & ~mapped & ~copied
    masks = [~(cached | mapped | copied), as_cached, as_mapped, copied, dirty]
    labels = [*plots.MEANINGS, "dirty"]  # a line between pages is no page
    expected = {n: set(np.flatnonzero(m)) for n, m in zip(labels, masks, strict=True)}
    assert drawn_pages(ax, 50, runs) == expected
    rings = ax.collections[-1]
    assert rings.get_offsets().tolist() == [[5, 0], [49, 11]]
    key = ax.figure.legends[0]
    assert [text.get_text() for text in key.get_texts()] == [
        *plots.MEANINGS, "dirty: a bar across", "touched"]  # fmt: skip


def test_a_page_grid_without_knowledge_says_so(ax):
    page_grid.page_grid(ax, None, None)
    assert "not available here" in ax.texts[0].get_text()


def test_every_meaning_has_a_colour_and_a_second_cue():
    looks = list(plots.MEANINGS.values())
    assert len({look.color for look in looks}) == len(looks) == 4
    # Two have a hatch each of its own; the two without differ in the colour of their text.
    assert len({(look.hatch, look.text) for look in looks}) == 4
    assert not {look.color for look in looks} & {look.color for look in plots.FIELDS.values()}


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"),
     (1000 << 20, "1000 MiB"), (3 << 40, "3 TiB"), (5 << 50, "5120 TiB")],
)  # fmt: skip
def test_sizes_are_binary(n_bytes, words):
    assert plots.binary_size(n_bytes) == words


def regions():
    gib = 1 << 30
    return [
        Region(gib, gib + 100, "r-xp", 0, "/bin/python"),
        Region(gib + 100, gib + 300, "rw-p", 0, ""),
        Region(gib + 900, gib + 1000, "rw-p", 0, "[heap]"),
        Region(50 * gib, 50 * gib + 10, "r-xp", 0, "/lib/x.so"),
        Region(50 * gib + 10, 50 * gib + 60, "r--s", 0, "/data/ours.dat"),
        Region(50 * gib + 60, 50 * gib + 70, "rw-p", 0, ""),
        Region(90 * gib, 90 * gib + 5, "rw-p", 0, "[stack]"),
        Region(2**64 - 4096, 2**64, "--xp", 0, "[vsyscall]"),
    ]


def test_regions_are_merged_into_parts_and_ours_stays_alone(ax):
    parts = plots.neighbourhoods(regions(), "ours.dat")
    gib = 1 << 30
    assert parts == [
        (gib, gib + 300, "program", False),
        (gib + 900, gib + 1000, "heap", False),
        (50 * gib, 50 * gib + 10, "libraries and other maps", False),
        (50 * gib + 10, 50 * gib + 60, "our map", True),
        (50 * gib + 60, 50 * gib + 70, "libraries and other maps", False),
        (90 * gib, 90 * gib + 5, "stack", False),
    ]
    pictures_02.address_space(ax, parts)
    lit = [p for p in ax.patches if to_hex(p.get_facecolor()).upper() == "#0072B2"]
    assert len(lit) == 1 and "our map: 50 B of addresses" in texts(ax)
    assert "nothing mapped: 40 GiB" in texts(ax)
    assert plots.neighbourhoods([], "x") == []


def test_observers_show_what_each_reads_and_the_disk_only_what_is_known():
    seen = {"this map": "new", "another map": "old", "read()": "old"}
    for n_dirty, words in (
        (0, "old, as read()"),
        (None, "not available here,\nbecause nothing\ncounts dirty pages"),
        (1, "older bytes:\na dirty page waits"),
    ):
        ax = plots.new_figure().subplots()
        pictures_05.observers(ax, seen, n_dirty, private=True)
        assert [t for t in texts(ax) if t in ("new", "old")] == ["new", "old", "old"]
        assert texts(ax)[-1] == words


def test_where_no_regions_are_told_the_picture_says_so():
    ax = plots.new_figure().subplots()
    pictures_02.address_space(ax, [])
    assert texts(ax) == ["not available here, because only Linux tells a process its regions"]


def test_png_is_a_picture():
    figure = plots.new_figure(4, 2)
    figure.subplots().plot([1, 2])
    image = Image.open(io.BytesIO(plots.png(figure)))
    assert image.format == "PNG" and image.size == (440, 220)


def test_the_svgs_are_those_of_the_code(tmp_path):
    spec = importlib.util.spec_from_file_location("build", ROOT / "figures/build.py")
    build = importlib.util.module_from_spec(spec)
    backend = matplotlib.get_backend()
    spec.loader.exec_module(build)
    try:
        built = build.build(tmp_path)
    finally:
        matplotlib.use(backend)
    assert {path.name for path in built} == {path.name for path in (ROOT / "figures").glob("*.svg")}
    for path in built:
        assert path.read_bytes() == (ROOT / "figures" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_used_where_the_table_says_with_its_alt_text(name):
    entry = FIGURES[name]
    assert len(entry["alt"]) > 60 and entry["caption"]
    for place in entry["used_in"]:
        source = (ROOT / place).read_text("utf-8")
        assert f"figures/{entry['file']}" in source, place
        assert entry["alt"] in source.replace('\\"', '"'), place
