"""Draw the kit's diagrams as SVG, byte for byte the same each time: ``make figures``.

Each function here draws one entry of figures.toml. What a lesson measures is drawn in the
lesson; these pictures show how things hang together and hold no measured number.
"""

import sys
import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from qm9lab import plots
from qm9lab.plots import FIELDS, MEANINGS, Look, blank, cell, meaning_legend, page_row, say

HERE = Path(__file__).resolve().parent
DISK, CACHE, MAPPED, PRIVATE = MEANINGS
HOLE = Look("#FFFFFF", "", "#888888")


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


def file_and_address_space(figure) -> None:
    ax = blank(figure.subplots(), 20, 12.4)
    left, width = 6.2, 1.7
    pages = [f"page {k}" for k in range(6)]
    say(ax, 0, 1.5, "this process's\naddress space", weight="bold")
    cell(ax, left - 2.4, 0.9, 2.2, 1.2, Look("#F4F4F4", "", "#555555"), "other\nregions")
    page_row(ax, left, 0.9, [None, MAPPED, MAPPED, None, None, None], width, 1.2, pages)
    cell(
        ax, left + 6 * width + 0.2, 0.9, 2.2, 1.2, Look("#F4F4F4", "", "#555555"), "other\nregions"
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
    say(ax, left + 3.25 * width, 2.9, "joined by a page-table entry:", color="#0072B2")
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
        ("1. truncate", "a placeholder of\nthe right size", None, "hole", "f.truncate(size)"),
        ("2. store", "records, through\nthe map", MAPPED, "dirty", "mm[a:b] = record"),
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
        Look("#FFFFFF", "", "#555555"),
        "nothing yet, or the old file, whole",
    )
    cell(ax, 15.8, 5.1, 3.8, 1.0, Look("#DDDDDD", "", "#222222"), "the new file, whole")
    say(
        ax,
        2.6,
        7.0,
        "Killed in any of the first three steps: a temporary file is left over, "
        "and nobody takes it for the data.",
        color="#444444",
    )
    meaning_legend(ax, (DISK, MAPPED), loc="lower left", bbox_to_anchor=(0.12, -0.06))


def who_sees_a_store(figure) -> None:
    ax = blank(figure.subplots(), 20, 11.2)
    panels = ((0.2, "ACCESS_WRITE  (shared)"), (10.7, "ACCESS_COPY  (private)"))
    for x, title in panels:
        say(ax, x, 0.4, title, weight="bold", fontsize=10.5)
        cell(ax, x + 5.2, 1.3, 3.6, 1.2, Look("#F4F4F4", "", "#222222"), "read(), other maps")
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
    say(ax, 11.4, 6.1, "copied at the first store", fontsize=8.5, color="#6B4A00")
    arrow(ax, (17.7, 4.4), (17.7, 2.5), "#444444")
    say(ax, 17.9, 3.5, "they see\nno change", fontsize=8.5)
    arrow(ax, (17.0, 5.6), (15.6, 7.5), "#999999", dashed=True, style="-")
    say(ax, 16.7, 6.8, "flush writes\nnothing", fontsize=8.5)
    meaning_legend(ax, loc="lower center", bbox_to_anchor=(0.5, -0.03))


SIZES = {
    "file_and_address_space": (8.4, 4.6),
    "record_layout": (8.4, 2.2),
    "read_or_map": (8.4, 4.0),
    "build_and_rename": (8.4, 3.5),
    "who_sees_a_store": (8.4, 4.3),
}


def build(folder: Path = HERE) -> list[Path]:
    """Draw every entry of figures.toml into ``folder``; return the paths that were written."""
    written = []
    for name, entry in tomllib.loads((HERE / "figures.toml").read_text("utf-8")).items():
        with plt.style.context(plots.STYLE):
            figure = plt.figure(figsize=SIZES[name])
            globals()[name](figure)
            path = folder / entry["file"]
            metadata = {"Date": None, "Title": entry["caption"], "Description": entry["alt"]}
            figure.savefig(path, format="svg", metadata=metadata)
            plt.close(figure)
        written.append(path)
    return written


if __name__ == "__main__":
    for path in build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(path.name)
