"""Pictures of one call of mmap: the region that it made above the file, or the error.

``result`` is a ``CallResult``. The pages are drawn as they were when the call returned. The words
about them are ``result.sentence``.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm9lab.course.plots import (
    MEANINGS,
    Style,
    address_space,
    blank,
    cell,
    draw_missing,
    neighbourhoods,
    new_figure,
    say,
)
from qm9lab.measure import Region, is_missing

from .choice import FD, FILES, LENGTH, OFFSET, PAGE
from .words import c_call, in_pages, python_call

NEW = "the new region"
DARK = "#222222"
NEW_STYLE = Style(DARK, "", "#FFFFFF")
NOT_MAPPED = Style("#FFFFFF", "", "#555555")
LIT = MEANINGS["mapped in this process"]
WRONG = "#B04A00"
MONO = {"family": "monospace", "fontsize": 7.5, "va": "top"}
GREY = {"fontsize": 7.5, "color": "#555555"}


def call(result) -> Figure:
    """The call, the address space with the region in it, and the region's pages; or the error."""
    figure = new_figure(9.4, 3.9)
    figure.set_layout_engine("none")  # fixed places: no text moves the picture next to it
    calls, space, right = (
        figure.add_axes(box)
        for box in ((0.01, 0.81, 0.98, 0.18), (0.03, 0.02, 0.36, 0.76), (0.41, 0.02, 0.58, 0.76))
    )
    the_call(calls, result)
    around(space, result)
    if is_missing(result.error):
        draw_missing(right, result.error)
    else:
        region_and_file(right, result)
    return figure


def the_call(ax: Axes, result) -> None:
    """The C call and the Python call, each with its result."""
    blank(ax, 100, 4.4)
    made = f"a region at {result.address:#x}" if result.region else str(result.error)
    rows = (
        ("C", c_call(result.choice, result.addr), made),
        ("Python", python_call(result.choice) or "no such call", result.python_result),
    )
    for y, (name, code, answer) in zip((0.1, 2.3), rows, strict=True):
        say(ax, 0, y, name, weight="bold", va="top")
        say(ax, 7, y, code, **MONO)
        say(ax, 7, y + 1, f"→ {answer}", weight="bold", **MONO)


def around(ax: Axes, result) -> None:
    """The address space around the region."""
    regions = [Region(*each) for each in result.facts.get("regions", ())]
    if result.region:
        end = result.address + result.choice.span_bytes
        regions.append(Region(result.address, end, result.region.perms, 0, NEW))
    address_space(ax, neighbourhoods(sorted(regions), NEW), NEW_STYLE, unit="")


def region_and_file(ax: Axes, result) -> None:
    """The region's pages, each above the page of the file that it shows; or the error."""
    blank(ax, 20, 10)
    choice, left = result.choice, 2.9
    n_pages = 0 if result.error else choice.span_bytes // PAGE
    before = 0 if choice.is_anonymous else min(OFFSET[choice.offset] / PAGE, 4.5)
    width = 17 / max(4.5, before + n_pages)
    start = left + before * width
    if result.error:
        say(ax, 0, 0.8, result.error, fontsize=16, weight="bold", color=WRONG)
        say(ax, 6.5, 0.8, result.message, fontsize=10)
        for y, name in enumerate(result.cause[1], 2):
            text = f"change {name}, now {getattr(choice, name)}"
            say(ax, 0, 0.2 + y, text, weight="bold", color=WRONG)
    else:
        region(ax, start, width, result)
    if choice.is_anonymous:
        say(ax, left, 7.4, "no file: every page shows zeros", style="italic")
    elif FD[choice.fd] and FD[choice.fd][0] in FILES:
        say(ax, 0, 7.1, "file", weight="bold")
        say(ax, 0, 7.9, f"fd {choice.fd}", **GREY)
        the_file(ax, left, width, FILES[FD[choice.fd][0]])
        ax.plot([start, start], [4.6, 6.6], color=DARK, lw=1, ls=":")
        ax.annotate("", (start, 8.2), (start, 9.2), arrowprops={"arrowstyle": "-|>", "color": DARK})
        side, by = ("left", 0.2) if before < 3 else ("right", -0.2)
        say(ax, start + by, 9.1, f"offset {OFFSET[choice.offset]:,}", ha=side, fontsize=8.5)


def region(ax: Axes, start: float, width: float, result) -> None:
    """The region's pages and what they show, and the length that was asked for."""
    choice, perms = result.choice, result.region.perms
    n_pages = choice.span_bytes // PAGE
    end = start + LENGTH[choice.length] / PAGE * width
    ax.plot([start, start, end, end], [2.4, 1.9, 1.9, 2.4], color=DARK, lw=1)
    # The words of a region far to the right would leave the sheet.
    x, side = (start, "left") if start < 10 else (19.9, "right")
    size = f"{in_pages(choice.span_bytes)}, {choice.span_bytes:,} bytes"
    say(ax, x, 0.4, f"the region: {size}, {perms}", ha=side, weight="bold", fontsize=8.5)
    say(ax, x, 1.3, f"length {LENGTH[choice.length]:,}", ha=side, fontsize=8.5)
    say(ax, 0, 3.6, "region", weight="bold")
    for k in range(n_pages):
        mapped = not is_missing(result.present) and result.present[k]
        a_page(ax, start + k * width, width, choice, k, LIT if mapped else NOT_MAPPED)
    by = 0.3 if side == "left" else 0
    say(ax, x + by, 5.2, "blue: mapped when the call returned", ha=side, **GREY)


def a_page(ax: Axes, x: float, width: float, choice, k: int, style: Style) -> None:
    """Page ``k`` of the region, and what it shows."""
    part = min(choice.file_bytes / PAGE - k, 1) * width
    if part <= 0:
        words = "zeros" if choice.is_anonymous else "past\nthe end"
        cell(ax, x, 2.6, width, 2, style, words, fontsize=7.5)
        return
    cell(ax, x, 2.6, width, 2, style)
    content = FILES["path"]
    texts = [(x + part / 2, chr(content[OFFSET[choice.offset] + k * PAGE]) * 3)]
    if part < width:
        ax.plot([x + part] * 2, [2.6, 4.6], color=style.text, lw=1, ls="--")
        texts.append((x + (part + width) / 2, "000"))
    for at, text in texts:
        say(ax, at, 3.6, text, ha="center", color=style.text, fontsize=8)


def the_file(ax: Axes, left: float, width: float, content: bytes) -> None:
    """The file's pages, and its end."""
    for at in range(0, len(content), PAGE):
        page = content[at : at + PAGE]
        x, part = left + at / PAGE * width, len(page) / PAGE * width
        cell(ax, x, 6.6, part, 1.6, MEANINGS["on disk"], chr(page[0]) * 3, fontsize=8)
    end = left + len(content) / PAGE * width
    say(ax, end + 0.2, 7.4, f"end of file: {len(content):,}", **GREY)
