"""Draw the kit's diagrams as SVG: ``make figures``.

Each function here draws one entry of figures.toml. What a lesson measures is drawn in the
lesson. Most of these pictures show how things are connected. Those with measured numbers draw
runs that record.py recorded.
"""

import json
import sys
import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from qm9lab.course import plots
from qm9lab.course.plots import MEANINGS, Style, blank, cell, meaning_legend, say
from qm9lab.lessons.lesson_01.pictures import FIELDS
from qm9lab.lessons.lesson_07 import compare

HERE = Path(__file__).resolve().parent
DISK, CACHE, MAPPED, PRIVATE = MEANINGS
HOLE = Style("#FFFFFF", "", "#888888")


def arrow(ax: Axes, start, end, color="#444444", style="-|>", dashed=False, bend=0.0) -> None:
    """An arrow between two points of the sheet."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=11,
            color=color,
            lw=1.3,
            linestyle="--" if dashed else "-",
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def page_row(ax: Axes, x, y, meanings, width=1.0, height=1.0, labels=None) -> None:
    """A row of pages, each drawn as its meaning (a key of ``MEANINGS``, or None for a hole)."""
    labels = labels or [""] * len(meanings)
    for k, (meaning, text) in enumerate(zip(meanings, labels, strict=True)):
        style = MEANINGS[meaning] if meaning else Style("#FFFFFF", "", "#999999")
        cell(ax, x + k * width, y, width, height, style, text)


def file_and_address_space(figure) -> None:
    ax = blank(figure.subplots(), 20, 12.4)
    left, width = 6.2, 1.7
    pages = [f"page {k}" for k in range(6)]
    say(ax, 0, 1.5, "this process's\naddress space", weight="bold")
    cell(ax, left - 2.4, 0.9, 2.2, 1.2, Style("#F4F4F4", "", "#555555"), "other\nregions")
    page_row(ax, left, 0.9, [None, MAPPED, MAPPED, None, None, None], width, 1.2, pages)
    cell(
        ax, left + 6 * width + 0.2, 0.9, 2.2, 1.2, Style("#F4F4F4", "", "#555555"), "other\nregions"
    )
    say(ax, left, 0.35, "the region that mmap made for this file", color="#0072B2", weight="bold")
    say(ax, 0, 5.3, "page cache\n(the kernel's memory,\nshared by all)", weight="bold")
    page_row(
        ax,
        left,
        4.7,
        [None, CACHE, CACHE, CACHE, None, None],
        width,
        1.2,
        ["", *pages[1:4], "", ""],
    )
    say(ax, 0, 9.1, "the file\non disk", weight="bold")
    page_row(ax, left, 8.5, [DISK] * 6, width, 1.2, pages)
    for k in (1, 2):
        arrow(
            ax, (left + (k + 0.5) * width, 2.1), (left + (k + 0.5) * width, 4.7), "#0072B2", "<|-|>"
        )
    say(ax, left + 3.25 * width, 2.9, "mapped by a page-table entry:", color="#0072B2")
    say(ax, left + 3.25 * width, 3.5, "no copy, no call, the very same page", color="#0072B2")
    for k in (1, 2, 3):
        arrow(ax, (left + (k + 0.5) * width, 8.5), (left + (k + 0.5) * width, 5.9), "#666666")
    say(ax, left + 4.1 * width, 6.9, "read from the disk once,", color="#444444")
    say(ax, left + 4.1 * width, 7.5, "when first touched, or ahead of it", color="#444444")
    say(ax, left, 10.3, "Touch page 3: a minor fault, only the entry is missing.")
    say(ax, left, 10.9, "Touch page 5: a major fault, the disk must be read first.")
    say(
        ax,
        left,
        11.5,
        "(Drawn without fault-around, which maps cached neighbours at once.)",
        color="#666666",
        fontsize=8.5,
    )
    meaning_legend(ax, (DISK, CACHE, MAPPED), loc="lower center", bbox_to_anchor=(0.5, -0.09))


def record_layout(figure) -> None:
    ax = blank(figure.subplots(), 20, 5.4)
    x = 0.4
    for k, n_smiles in enumerate((3.4, 2.2, 4.6)):
        start = x
        for name, width in (("length", 1.2), ("SMILES", n_smiles), ("value", 1.6)):
            cell(ax, x, 2.2, width, 1.2, FIELDS[name], name)
            x += width
        say(ax, (start + x) / 2, 3.9, f"record {k}", ha="center", weight="bold")
        arrow(ax, (start, 2.1), (x, 2.1), bend=-0.28)
        say(
            ax,
            (start + x) / 2,
            0.55 if k != 1 else 0.75,
            "4 + length + 8 bytes",
            ha="center",
            color="#444444",
            fontsize=8.5,
        )
    say(ax, x + 0.25, 2.8, "...", fontsize=14)
    say(
        ax,
        0.4,
        4.85,
        "No index: where record k begins is known only after hopping over the k records before it.",
        color="#444444",
    )


def read_or_map(figure) -> None:
    ax = blank(figure.subplots(), 20, 10.2)
    for x, title in ((0.3, "data = f.read()"), (10.6, "mm = mmap.mmap(fd, 0)")):
        say(ax, x, 0.45, title, weight="bold", fontsize=10.5, family="monospace")
        say(ax, x, 7.3, "page cache", color="#444444")
        page_row(ax, x, 5.8, [CACHE] * 5, 1.7, 1.1, [f"page {k}" for k in range(5)])
        say(ax, x, 1.45, "address space", color="#444444")
    page_row(ax, 0.3, 1.9, [PRIVATE] * 5, 1.7, 1.1, [f"copy {k}" for k in range(5)])
    page_row(
        ax, 10.6, 1.9, [None, MAPPED, None, None, None], 1.7, 1.1, [f"page {k}" for k in range(5)]
    )
    for k in range(5):
        arrow(ax, (1.15 + 1.7 * k, 5.8), (1.15 + 1.7 * k, 3.0), "#B07A00")
    say(
        ax,
        1.5,
        4.35,
        "  every byte is copied  ",
        color="#6B4A00",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )
    arrow(ax, (13.15, 3.0), (13.15, 5.8), "#0072B2", "<|-|>")
    say(
        ax,
        13.6,
        4.1,
        "page 1 was touched:\nan entry leads to the cache's page\n(drawn without fault-around)",
        color="#0072B2",
    )
    say(ax, 0.3, 8.5, "Private memory grows by the size of the file,\nwhether it is used or not.")
    say(ax, 10.6, 8.5, "No private memory for the data;\nuntouched pages cost nothing yet.")
    meaning_legend(ax, (CACHE, MAPPED, PRIVATE), loc="lower center", bbox_to_anchor=(0.5, -0.05))


def build_and_rename(figure) -> None:
    ax = blank(figure.subplots(), 20, 8.4)
    steps = (
        ("1. truncate", "a temporary file\nof the right size", None, "hole", "f.truncate(size)"),
        ("2. write", "records, through\nthe map", MAPPED, "dirty", "mm[a:b] = record"),
        ("3. flush", "dirty pages are\nwritten to the disk", DISK, "clean", "mm.flush()"),
        ("4. rename", "the file gets\nits real name", DISK, "clean", "os.replace(tmp, path)"),
    )
    for k, (title, text, meaning, state, call) in enumerate(steps):
        x = 2.6 + 4.4 * k
        say(ax, x, 0.4, title, weight="bold", fontsize=10.5)
        say(ax, x, 1.5, text, fontsize=8.5)
        page_row(ax, x, 2.4, [meaning] * 4, 0.95, 1.0, [state] * 4)
        say(ax, x, 3.9, call, family="monospace", fontsize=8)
        if k < 3:
            arrow(ax, (x + 3.9, 2.9), (x + 4.3, 2.9))
    say(ax, 0, 2.9, "the temporary\nfile", weight="bold", fontsize=8.5)
    ax.plot([2.6, 19.7], [4.7, 4.7], color="#BBBBBB", lw=0.8)
    say(ax, 0, 5.6, "a reader of\nthe real name\nsees", weight="bold", fontsize=8.5)
    cell(
        ax,
        2.6,
        5.1,
        12.6,
        1.0,
        Style("#FFFFFF", "", "#555555"),
        "the old file, whole",
    )
    cell(ax, 15.8, 5.1, 3.8, 1.0, Style("#DDDDDD", "", "#222222"), "the new file, whole")
    say(
        ax,
        2.6,
        7.0,
        "Killed in any of the first three steps: only the temporary file is left over. "
        "A power cut\ncan undo the rename until fsync of the folder.",
        color="#444444",
    )
    meaning_legend(ax, (DISK, MAPPED), loc="lower left", bbox_to_anchor=(0.12, -0.06))


def who_sees_a_store(figure) -> None:
    ax = blank(figure.subplots(), 20, 11.2)
    panels = ((0.2, "ACCESS_WRITE  (shared)"), (10.7, "ACCESS_COPY  (private)"))
    for x, title in panels:
        say(ax, x, 0.4, title, weight="bold", fontsize=10.5)
        cell(ax, x + 5.2, 1.3, 3.6, 1.2, Style("#F4F4F4", "", "#222222"), "read(), other maps")
        say(ax, x, 7.9, "disk", color="#444444")
        if x < 1:
            say(ax, x, 5.0, "page cache", color="#444444")
        cell(ax, x + 2.6, 7.5, 3.6, 1.2, MEANINGS[DISK], "the file's page")
    cell(ax, 0.4, 1.3, 3.6, 1.2, MEANINGS[MAPPED], "mm[0] = 1")
    cell(ax, 2.8, 4.4, 3.6, 1.2, MEANINGS[CACHE], "changed page")
    arrow(ax, (2.2, 2.5), (3.7, 4.4), "#0072B2")
    arrow(ax, (5.5, 4.4), (7.2, 2.5), "#444444")
    say(ax, 6.75, 3.7, "they see it\nat once", fontsize=8.5)
    arrow(ax, (4.6, 5.6), (4.6, 7.5), "#444444")
    say(ax, 4.9, 6.5, "flush, or the\nkernel in time", fontsize=8.5)
    cell(ax, 10.9, 1.3, 3.6, 1.2, MEANINGS[MAPPED], "mm[0] = 1")
    cell(ax, 10.9, 4.4, 3.6, 1.2, MEANINGS[PRIVATE], "private copy")
    cell(ax, 15.9, 4.4, 3.6, 1.2, MEANINGS[CACHE], "unchanged page")
    arrow(ax, (12.7, 2.5), (12.7, 4.4), "#0072B2")
    arrow(ax, (15.9, 5.0), (14.5, 5.0), "#B07A00", dashed=True)
    say(ax, 11.4, 6.1, "copied at the first write", fontsize=8.5, color="#6B4A00")
    arrow(ax, (17.7, 4.4), (17.7, 2.5), "#444444")
    say(ax, 17.9, 3.5, "they see\nno change", fontsize=8.5)
    arrow(ax, (17.0, 5.6), (15.6, 7.5), "#999999", dashed=True, style="-")
    say(ax, 16.7, 6.8, "flush writes\nnothing", fontsize=8.5)
    meaning_legend(ax, loc="lower center", bbox_to_anchor=(0.5, -0.03))


def three_layouts(figure) -> None:
    ax = blank(figure.subplots(), 21, 13.4)
    widths, wanted, lit = (2.2, 1.7, 2.6, 1.9, 2.3, 1.8), 4, Style("#D55E00", "", "#FFFFFF")
    plain = Style("#F4F4F4", "", "#555555")
    small = {"fontsize": 8.5, "color": "#444444"}
    left = 4.6
    for y, title in ((1.9, "a stream"), (5.0, "a stream\nand its index"), (10.2, "columns")):
        say(ax, 0, y, title, weight="bold")
    for y in (1.4, 6.0):
        x = left
        for k, width in enumerate(widths):
            look = lit if k == wanted else plain
            cell(ax, x, y, width, 1.0, look, "molecule k" if k == wanted else "", fontsize=8.5)
            if y < 2 and k < wanted:
                arrow(ax, (x + 0.1, 1.35), (x + width + 0.1, 1.35), bend=-0.35)
            x += width
        say(ax, x + 0.2, y + 0.5, "...")
    say(ax, left, 0.35, "hop: each record says how long it is", **small)
    for k in range(len(widths)):
        cell(ax, left + k, 3.9, 1, 0.9, lit if k == wanted else plain, "k" if k == wanted else "")
    say(
        ax,
        left + len(widths) + 0.2,
        4.35,
        "...   where each record begins: boxes of one size",
        **small,
    )
    arrow(ax, (left + wanted + 0.5, 4.8), (left + sum(widths[:wanted]) + 0.15, 5.95), "#D55E00")
    cell(ax, left, 9.7, 2.2, 1.1, Style("#D9D9D9", "", "#222222"), "header,\ntable", fontsize=8.5)
    sections = ("values", (2, 1)), ("offsets", (2, 2)), ("SMILES", (1.6, 1.7))
    for k, (name, rows) in enumerate(sections):
        x, (at, width) = left + 4.0 * (k + 1), rows
        cell(ax, x, 9.7, 3.1 + 0.4 * (k == 2), 1.1, plain)
        cell(ax, x + at * 0.62, 9.7, width * 0.45, 1.1, lit)
        arrow(ax, (left + 1.1, 9.7), (x + 0.05, 9.65), "#444444", bend=-0.32 - 0.02 * k)
        say(ax, x, 11.2, f"all {name}", **small)
    for k in range(9):
        x = left + 2.0 * k
        if x < 20.8:
            ax.plot([x, x], [12.0, 12.3], color="#444444", lw=1.2)
    ax.plot([left, 20.8], [12.3, 12.3], color="#444444", lw=1.2)
    say(
        ax,
        left,
        12.8,
        "ticks: multiples of 65,536 bytes, at which a section can be mapped alone",
        **small,
    )


def headline(figure) -> None:
    recorded = json.loads((HERE / "data" / "headline.json").read_text("utf-8"))
    title = "A full load owns a copy of its file, whatever is asked. A map owns nothing."
    compare.headline(figure, recorded["groups"], title, recorded["page_bytes"])


def map_costs(figure) -> None:
    ax = blank(figure.subplots(), 24, 9.6)
    bold, small = {"weight": "bold", "fontsize": 10}, {"fontsize": 9, "color": "#444444"}
    # One record in its pages.
    say(ax, 0, 0.5, "whole pages", **bold)
    page_row(ax, 0, 2.6, [MAPPED, None, None], 2.2, 1.4)
    edges = (0, 0.7, 1.6, 2.5, 3.6, 4.5, 5.8, 6.6)
    for k, (x, end) in enumerate(zip(edges, edges[1:], strict=False)):
        cell(ax, x, 4.6, end - x, 0.9, FIELDS["SMILES" if k == 1 else "length"])
    say(ax, 0, 1.9, "one map", color="#0072B2")
    say(ax, 0, 6.1, "records in a file of three pages", **small)
    arrow(ax, (1.15, 4.6), (1.15, 4.0), "#0072B2")
    say(ax, 0, 7.2, "How much of the map did\nnobody ask for?", **small)
    # A window of addresses.
    say(ax, 8.4, 0.5, "addresses", **bold)
    say(ax, 8.4, 1.9, "a window: grey is taken", **small)
    cell(ax, 8.4, 2.6, 7.2, 1.4, HOLE)
    for x, width in ((8.8, 1.1), (11.0, 0.9), (12.6, 1.3), (14.9, 0.7)):
        cell(ax, x, 2.6, width, 1.4, Style("#8C8C8C", "", "#FFFFFF"))
    cell(ax, 8.4, 4.6, 2.0, 0.9, Style("#FFFFFF", "", "#222222"), "asked for")
    say(ax, 8.4, 6.1, "to the same scale", **small)
    say(ax, 8.4, 7.2, "Much is free. Is there\nroom for this one?", **small)
    # A table.
    say(ax, 17.2, 0.5, "page tables", **bold)
    say(ax, 17.2, 1.9, "a table: a page of entries", **small)
    for k in range(12):
        cell(ax, 17.2 + 0.55 * k, 2.6, 0.55, 1.4, MEANINGS[MAPPED] if k == 7 else HOLE)
    page_row(ax, 20.2, 4.6, [MAPPED], 2.2, 1.4, ["a page"])
    arrow(ax, (21.3, 4.0), (21.3, 4.6), "#666666")
    say(ax, 17.2, 7.2, "One byte is touched. How\nmany entries are paid for?", **small)
    meaning_legend(ax, (MAPPED,), loc="lower center", bbox_to_anchor=(0.5, -0.05))


def training(figure) -> None:
    ax = blank(figure.subplots(), 20, 11.4)
    unknown, sheet = Style("#FFFFFF", "", "#999999"), Style("#F4F4F4", "", "#222222")
    left, width = (3.0, 9.0, 15.0), 4.4
    texts = ("makes batches", "order, model, losses", "makes batches")
    for x, name, text in zip(left, ("worker 1", "parent", "worker 2"), texts, strict=True):
        cell(ax, x, 0.3, width, 4.2, sheet)
        say(ax, x + width / 2, 0.95, name, weight="bold", fontsize=10.5, ha="center")
        say(ax, x + width / 2, 1.75, text, color="#555555", ha="center")
        for k in range(4):
            cell(ax, x + 0.2 + k, 2.6, 1.0, 1.1, unknown, "?")
    say(ax, 0, 3.15, "what each\nprocess holds", weight="bold")
    for start, end, text in ((9.0, 7.4, "numbers"), (13.4, 15.0, "numbers")):
        arrow(ax, (start, 1.2), (end, 1.2))
        say(ax, (start + end) / 2, 0.75, text, ha="center", fontsize=8.5)
    for start, end in ((7.4, 9.0), (15.0, 13.4)):
        arrow(ax, (start, 4.05), (end, 4.05))
        say(ax, (start + end) / 2, 3.6, "batches", ha="center", fontsize=8.5)
    say(ax, 0, 6.8, "page cache", weight="bold")
    say(ax, 0, 9.6, "the file\non disk", weight="bold")
    for k in range(14):
        cell(ax, 3.0 + 1.17 * k, 6.25, 1.17, 1.1, unknown, "?")
    page_row(ax, 3.0, 9.05, [DISK] * 14, 1.17, 1.1, [f"{k}" for k in range(14)])
    for x in (5.2, 11.2, 17.2):
        arrow(ax, (x, 6.25), (x, 4.5), "#666666", dashed=True)
        arrow(ax, (x, 9.05), (x, 7.35), "#666666", dashed=True)
    meaning_legend(ax, (DISK,), loc="lower center", bbox_to_anchor=(0.5, -0.06))


def sharing(figure) -> None:
    ax = blank(figure.subplots(), 20, 10.6)
    maps = {"process A": (0, 1, 2), "process B": (1, 2, 3), "process C": (2,)}
    n_own, left, width = {"process A": 2, "process B": 1, "process C": 1}, 4.2, 2.0
    for x, (name, pages) in zip((0.6, 8.4, 15.6), maps.items(), strict=True):
        say(ax, x, 0.6, name, weight="bold", fontsize=10.5)
        page_row(ax, x, 1.2, [MAPPED] * len(pages), 1.2, 1.2, [f"{k}" for k in pages])
        page_row(ax, x + 1.2 * len(pages) + 0.25, 1.2, [PRIVATE] * n_own[name], 1.2, 1.2)
        for k, page in enumerate(pages):
            arrow(ax, (x + 1.2 * k + 0.6, 2.4), (left + width * (page + 0.5), 6.4), "#0072B2")
    say(ax, 0, 7.0, "page cache", weight="bold")
    page_row(ax, left, 6.4, [CACHE] * 6, width, 1.2, [f"page {k}" for k in range(6)])
    say(ax, 0, 8.4, "mapped by")
    for page in range(6):
        n = sum(page in pages for pages in maps.values())
        say(ax, left + width * (page + 0.5), 8.4, f"{n}", ha="center", fontsize=11)
    meaning_legend(ax, (CACHE, MAPPED, PRIVATE), loc="lower center", bbox_to_anchor=(0.5, -0.05))


FIGURES = {
    sharing: (8.4, 4.0),
    training: (8.6, 4.5),
    map_costs: (8.8, 3.5),
    three_layouts: (8.4, 5.0),
    headline: (9.4, 5),
    file_and_address_space: (8.4, 4.6),
    record_layout: (8.4, 2.2),
    read_or_map: (8.4, 4.0),
    build_and_rename: (8.4, 3.5),
    who_sees_a_store: (8.4, 4.3),
}
"""Draw function -> width and height in inches; its name is the entry in figures.toml."""


def build(folder: Path = HERE) -> list[Path]:
    """Draw every figure into ``folder``; return the paths that were written."""
    written = []
    entries = tomllib.loads((HERE / "figures.toml").read_text("utf-8"))
    for draw, size in FIGURES.items():
        entry = entries[draw.__name__]
        with plt.style.context(plots.STYLE):
            figure = plt.figure(figsize=size)
            draw(figure)
            path = folder / entry["file"]
            metadata = {"Date": None, "Title": entry["caption"], "Description": entry["alt"]}
            figure.savefig(path, format="svg", metadata=metadata)
            plt.close(figure)
        written.append(path)
    return written


if __name__ == "__main__":
    for path in build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(path.name)
