"""Pictures of one call of mmap: the region that it made, or the error.

``result`` is a ``CallResult``. The pages are drawn as they were when the call returned. What an
access to them did is written below.
"""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm9lab.course.plots import (
    MEANINGS,
    Style,
    binary_size,
    blank,
    cell,
    neighbourhoods,
    new_figure,
    say,
)
from qm9lab.measure import Region, is_missing

from .choice import LENGTH, LETTERS, OFFSET, PAGE, SIZE
from .words import byte, c_call, in_pages, python_call

NEW = "the new region"
PLAIN = Style("#F4F4F4", "", "#222222")
NOT_MAPPED = Style("#FFFFFF", "", "#555555")
LIT = MEANINGS["mapped in this process"]
WRONG = "#B04A00"
MONO = {"family": "monospace", "fontsize": 8}
GREY = {"fontsize": 7.5, "color": "#555555"}


def call(result) -> Figure:
    """The call, the address space with the region in it, and its pages; or the error."""
    figure = new_figure(9.4, 5.6)
    figure.set_layout_engine("none")  # fixed places: no text moves the picture next to it
    calls, space, right = (
        figure.add_axes(box)
        for box in ((0.01, 0.75, 0.98, 0.24), (0.01, 0.02, 0.37, 0.68), (0.41, 0.02, 0.58, 0.68))
    )
    the_call(calls, result)
    around(space, with_the_new_one(result))
    if result.missing:
        say(blank(right, 20, 12), 0, 1, textwrap.fill(result.sentence, 50), va="top")
    elif result.error:
        refusal(right, result)
    else:
        pages(right, result)
    return figure


def with_the_new_one(result) -> list[Region]:
    """The child's regions, and among them the new one."""
    regions = [Region(*each) for each in result.facts.get("regions", ())]
    if result.region:
        end = result.address + result.choice.span_bytes
        regions.append(Region(result.address, end, result.region.perms, 0, NEW))
    return sorted(regions)


def the_call(ax: Axes, result) -> None:
    """The C call and the Python call, each with its result."""
    blank(ax, 100, 8)
    made = f"{result.address:#x}" if result.region else result.error or str(result.missing)
    python = python_call(result.choice)
    by_python = result.python_result if python else f"no such call: {result.python_result}"
    for y, name, text, answer in (
        (0.2, "C", c_call(result.choice, result.addr), made),
        (3.7, "Python", python, by_python),
    ):
        say(ax, 0, y, name, weight="bold", va="top")
        lines = text.splitlines()
        for k, line in enumerate(lines):
            say(ax, 7, y + 1.05 * k, line, va="top", **MONO)
        if answer:
            say(ax, 7, y + 1.05 * len(lines), f"→ {answer}", va="top", weight="bold", **MONO)


def around(ax: Axes, regions: list[Region]) -> None:
    """The address space around the region, high addresses at the top, not to scale."""
    rows, last = [], None
    for start, end, label, lit in neighbourhoods(regions, NEW):
        if last is not None and start > last:
            rows.append((None, start - last, "nothing mapped", False))
        rows.append((start, end - start, NEW if lit else label, lit))
        last = end
    blank(ax, 20, max(len(rows), 1))
    for y, (start, size, label, lit) in enumerate(reversed(rows)):
        text = f"{label.replace(' and other', ',')}: {binary_size(size)}"
        if start is None:
            say(ax, 13, y + 0.5, text, ha="center", style="italic", **GREY)
            continue
        font = {"fontsize": 8, "weight": "bold" if lit else "normal"}
        cell(ax, 6.2, y + 0.06, 13.6, 0.88, LIT if lit else PLAIN, text, **font)
        say(ax, 6, y + 0.7, f"{start:#x}", family="monospace", ha="right", **GREY)


def pages(ax: Axes, result) -> None:
    """The region's pages, each above the page of the file that it maps."""
    blank(ax, 20, 13)
    choice, perms = result.choice, result.region.perms
    n_pages = choice.span_bytes // PAGE
    shift = 0 if choice.is_anonymous else OFFSET[choice.offset] // PAGE
    left, width = 2.9, 17 / max(4, shift + n_pages)
    start = left + shift * width
    # A region far to the right would push its words off the sheet.
    end = start + LENGTH[choice.length] / PAGE * width
    ax.plot([start, start, end, end], [3.0, 2.5, 2.5, 3.0], color="#222222", lw=1)
    words = f"{perms}, {'shared' if 's' in perms else 'private'}"
    if not is_missing(result.present):
        words += f"; mapped when the call returned: {sum(result.present)} of {n_pages}"
    size = f"{in_pages(choice.span_bytes)}, {choice.span_bytes:,} bytes"
    x, side = (start + 0.2, "left") if shift < 3 else (19.9, "right")
    for y, text in (
        (0.6, f"the region: {size}, at {result.address:#x}"),
        (1.7, f"length asked for: {LENGTH[choice.length]:,}"),
        (5.5, words),
    ):
        say(ax, x, y, text, ha=side, fontsize=8.5)
    say(ax, 0, 4.1, "region", weight="bold")
    for k in range(n_pages):
        mapped = not is_missing(result.present) and result.present[k]
        _page(ax, start + k * width, width, choice, k, LIT if mapped else NOT_MAPPED)
    if choice.is_anonymous:
        say(ax, left, 7.9, "no file: every page reads as zeros", style="italic")
    else:
        _file(ax, left, width, choice)
    for y, (where, (read, write)) in zip((11.3, 12.3), result.touches.items(), strict=False):
        say(ax, 0, y, f"{where} byte of the region", weight="bold", fontsize=8.5)
        seen = read if read.startswith("SIG") else byte(read)
        say(ax, 8.2, y, f"read: {seen}   write: {write}", **MONO)


def _page(ax: Axes, x: float, width: float, choice, k: int, style: Style) -> None:
    """Page ``k`` of the region, and what it reads."""
    part = (choice.file_bytes / PAGE - k) * width
    font = {"ha": "center", "color": style.text, "fontsize": 8}
    if part <= 0:
        words = "zeros" if choice.is_anonymous else "past\nthe end"
        cell(ax, x, 3.2, width, 1.8, style, words, fontsize=7.5)
        return
    cell(ax, x, 3.2, width, 1.8, style)
    part = min(part, width)
    letter = chr(LETTERS[OFFSET[choice.offset] + k * PAGE])
    say(ax, x + part / 2, 4.1, letter * 3, **font)
    if part < width:
        ax.plot([x + part] * 2, [3.2, 5.0], color=style.text, lw=1, ls="--")
        say(ax, x + (part + width) / 2, 4.1, "000", **font)


def _file(ax: Axes, left: float, width: float, choice) -> None:
    """The file's pages, its end, and where offset points."""
    size = 0 if choice.fd == "empty file" else SIZE
    say(ax, 0, 7.9, "file", weight="bold")
    for at in range(0, size, PAGE):
        part, text = min(PAGE, size - at) / PAGE * width, chr(LETTERS[at]) * 3
        cell(ax, left + at / PAGE * width, 7.0, part, 1.8, MEANINGS["on disk"], text, fontsize=8)
    end = left + size / PAGE * width
    say(ax, end + 0.2, 7.9, f"end of file: {size:,}", fontsize=8, color="#555555")
    offset = OFFSET[choice.offset]
    x = left + offset / PAGE * width
    ax.plot([x, x], [5.0, 7.0], color="#222222", lw=1, ls=":")
    ax.annotate("", (x, 8.9), (x, 9.9), arrowprops={"arrowstyle": "-|>", "color": "#222222"})
    side, by = ("left", 0.2) if x < 15 else ("right", -0.2)
    say(ax, x + by, 9.7, f"offset {offset:,}", ha=side, fontsize=8.5)


def refusal(ax: Axes, result) -> None:
    """The error, what it means, and the parameters to change."""
    blank(ax, 20, 13)
    meaning, change = result.cause
    say(ax, 0.2, 0.9, result.error, fontsize=16, weight="bold", color=WRONG)
    say(ax, 7.6, 1.0, result.message, fontsize=10)
    say(ax, 0.2, 2.6, textwrap.fill(meaning, 68), va="top", fontsize=9.5)
    for k, name in enumerate(change):
        text = f"change {name}: {getattr(result.choice, name)}"
        say(ax, 0.2, 6.4 + 1.2 * k, text, weight="bold", color=WRONG)
