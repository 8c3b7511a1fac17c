"""Pictures: what is drawn is what was handed in."""

import io
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from qm9lab import records
from qm9lab.course import page_grid, plots
from qm9lab.lessons.lesson_01 import pictures as pictures_01
from qm9lab.measure import Missing, Region


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
    assert faces == [pictures_01.FIELDS[name].color for name in expected]
    shown = [t for t in texts(ax) if len(t) == 2]
    assert shown == [f"{byte:02x}" for byte in raw]
    assert "offset 1,000" in texts(ax) and [t for t in texts(ax) if len(t) == 1] == ["C", "C", "O"]


def test_a_record_whose_length_is_wrong_is_not_drawn(ax):
    with pytest.raises(ValueError):
        pictures_01.record_bytes(ax, records.pack("CCO", 1.0), 4)


@pytest.mark.parametrize(
    ("smiles", "n_lines", "labels"),
    [
        ("[H]C([H])([H])[H]", 0, ["C", "H_{4}"]),
        ("[H]O[H]", 0, ["O", "H_{2}"]),
        ("[H]C#C[H]", 3, ["C", "H", "C", "H"]),
        ("c1ccccc1", 9, []),
        ("c1cnc[nH]1", 7, ["N", "N", "H"]),
        ("[NH3+]CC(=O)[O-]", 5, ["N", "H_{3}", "^{+}", "O", "O", "^{-}"]),
    ],
)
def test_a_molecule_has_a_line_for_each_bond_s_order_and_letters_for_its_atoms(
    ax, monkeypatch, smiles, n_lines, labels
):
    """Without rdkit.Chem.Draw, whose import fails on a system without libXrender."""
    monkeypatch.delattr("rdkit.Chem.Draw", raising=False)
    for name in ("rdkit.Chem.Draw", "rdkit.Chem.Draw.rdMolDraw2D"):
        monkeypatch.setitem(sys.modules, name, None)
    pictures_01.molecule(ax, smiles)
    assert len(ax.lines) == n_lines
    found = [t.removeprefix(r"$\mathregular{").removesuffix("}$") for t in texts(ax)]
    assert sorted(found) == sorted(labels)


def test_bytes_that_are_no_molecule_say_so(ax):
    assert "cannot draw" in texts(pictures_01.molecule(ax, "C((("))[0]


def test_bars_are_as_long_as_their_values(ax):
    plots.bars(ax, ["a", "b"], [3, 0], ["on disk", "private (anonymous)"], "pages")
    assert [bar.get_width() for bar in ax.patches] == [3, 0]
    assert ax.get_xlabel() == "pages" and [t.get_text() for t in ax.texts] == ["3", "0"]
    assert ax.patches[1].get_hatch() == plots.MEANINGS["private (anonymous)"].hatch


@pytest.mark.parametrize("log", [False, True])
def test_a_bar_that_is_missing_has_words_in_its_place(ax, monkeypatch, log):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    plots.bars(ax, ["a", "b"], [30, Missing("of this")], "on disk", "pages", log=log)
    assert texts(ax) == ["30", plots.MISSING] and ax.patches[1].get_width() == 0
    assert str(plots.binary_size(Missing("of this"))) == "not available here, because of this"


def drawn_pages(ax, columns):
    """Pages by the label of what is drawn over them, read back from the shapes' corners."""
    found = {}
    for patch in ax.patches:
        corners = patch.get_path().vertices.reshape(-1, 5, 2)
        low, high = corners.min(1), corners.max(1)
        for (x, y), (end, bottom) in zip(low, high, strict=True):
            first, last = round(x + 0.5), round(end - 0.5)
            row = round((y + bottom) / 2)
            pages = found.setdefault(patch.get_label(), [])
            pages += range(row * columns + first, row * columns + last + 1)
    assert all(len(pages) == len(set(pages)) for pages in found.values())
    return {label: set(pages) for label, pages in found.items()}


def test_the_page_grid_has_each_page_once_in_its_state(ax):
    draw = np.random.default_rng(1)
    cached, mapped, dirty = draw.random((3, 600)) < [[0.6], [0.3], [0.2]]
    page_grid.page_grid(ax, cached, mapped, 50, [5, 599], dirty)
    masks = [~(cached | mapped), cached & ~mapped, mapped, dirty]
    labels = [*page_grid.HEIGHTS, "dirty"]  # a line between pages is no page
    expected = {n: set(np.flatnonzero(m)) for n, m in zip(labels, masks, strict=True)}
    assert drawn_pages(ax, 50) == expected
    rings = ax.collections[-1]
    assert rings.get_offsets().tolist() == [[5, 0], [49, 11]]
    key = ax.figure.legends[0]
    assert [text.get_text() for text in key.get_texts()] == [
        *page_grid.HEIGHTS, "dirty: a bar across", "touched"]  # fmt: skip


def test_a_page_grid_draws_what_is_known_and_writes_why_nothing_is(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    none, cached = Missing("of this"), np.array([True, False, True])
    axes = plots.new_figure(8, 3).subplots(1, 2)
    page_grid.page_grid(axes[0], cached, none, 3, dirty=none)
    assert drawn_pages(axes[0], 3) == {"in the page cache": {0, 2}, "on disk": {1}}
    page_grid.page_grid(axes[1], none, none)
    assert texts(axes[1]) == ["not available here,\nbecause of this"]


def test_every_meaning_has_a_colour_and_a_second_cue():
    styles = list(plots.MEANINGS.values())
    assert len({style.color for style in styles}) == len(styles) == 4
    # Two have a hatch each of its own; the two without differ in the colour of their text.
    assert len({(style.hatch, style.text) for style in styles}) == 4
    fields = {style.color for style in pictures_01.FIELDS.values()}
    assert not {style.color for style in styles} & fields


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
    plots.address_space(ax, parts)
    lit = [p for p in ax.patches if to_hex(p.get_facecolor()).upper() == "#0072B2"]
    assert len(lit) == 1 and "our map: 50 B of addresses" in texts(ax)
    assert "nothing mapped: 40 GiB" in texts(ax)


def test_where_the_regions_are_missing_the_picture_says_why(ax, monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    parts = plots.neighbourhoods(Missing("macOS has no /proc"), "ours.dat")
    plots.address_space(ax, parts)
    assert texts(ax) == ["not available here, because macOS has no /proc"]


def test_png_is_a_picture():
    figure = plots.new_figure(4, 2)
    figure.subplots().plot([1, 2])
    image = Image.open(io.BytesIO(plots.png(figure)))
    assert image.format == "PNG" and image.size == (440, 220)
