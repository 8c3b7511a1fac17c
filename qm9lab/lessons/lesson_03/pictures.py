"""Pictures of one call of mmap: the region that came out, or the error.

``outcome`` is a ``qm9lab.calls.Outcome``. The pages are drawn as they were when the call
returned; what touching them gave is written below.
"""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qm9lab.course.plots import (
    MEANINGS,
    Look,
    binary_size,
    blank,
    cell,
    neighbourhoods,
    new_figure,
    say,
)

NEW = "the new region"
PLAIN = Look("#F4F4F4", "", "#222222")
NOT_MAPPED = Look("#FFFFFF", "", "#555555")
WRONG = "#B04A00"
MONO = {"family": "monospace", "fontsize": 8}


def call(outcome, page_bytes: int) -> Figure:
    """The call, the address space with the region in it, and its pages; or the error."""
    figure = new_figure(9.4, 5.6)
    figure.set_layout_engine("none")  # fixed places: no text moves a picture beside it
    calls, space, result = (
        figure.add_axes(box)
        for box in ((0.01, 0.75, 0.98, 0.24), (0.01, 0.02, 0.37, 0.68), (0.41, 0.02, 0.58, 0.68))
    )
    the_call(calls, outcome)
    around(space, neighbourhoods(with_the_new_one(outcome), NEW))
    if outcome.missing:
        say(blank(result, 20, 12), 0, 1, textwrap.fill(outcome.missing, 50), va="top")
    elif outcome.error:
        refusal(result, outcome)
    else:
        pages(result, outcome, page_bytes)
    return figure


def with_the_new_one(outcome) -> list:
    """The child's regions, with what the call made cut out of the one that it may be part of."""
    regions = []
    for region in outcome.regions:
        if outcome.region is None or region.start != outcome.region.start:
            regions.append(region)
            continue
        start, end = outcome.address, outcome.address + outcome.span_bytes
        for a, b, name in ((region.start, start, ""), (start, end, NEW), (end, region.end, "")):
            if a < b:
                regions.append(region._replace(start=a, end=b, name=name))
    return regions


def the_call(ax: Axes, outcome) -> Axes:
    """The C call and the Python call, each with what it gave."""
    blank(ax, 100, 8)
    gave = outcome.error or (f"{outcome.address:#x}" if outcome.region else outcome.missing)
    python = outcome.python_call
    says = outcome.python_says if python else f"cannot be said: {outcome.python_says}"
    for y, name, text, result in ((0.2, "C", outcome.c_call, gave), (3.7, "Python", python, says)):
        say(ax, 0, y, name, weight="bold", va="top")
        lines = [*text.splitlines(), f"→ {result}" if result else ""]
        for k, line in enumerate(filter(None, lines)):
            bold = {"weight": "bold"} if line[0] == "→" else {}
            say(ax, 7, y + 1.05 * k, line, va="top", **MONO, **bold)
    return ax


def around(ax: Axes, parts) -> Axes:
    """The address space about the region, high addresses at the top, not to scale."""
    rows, last = [], None
    for start, end, label, lit in parts:
        if last is not None and start > last:
            rows.append((None, start - last, "nothing mapped", False))
        rows.append((start, end - start, NEW if lit else label, lit))
        last = end
    blank(ax, 20, max(len(rows), 1))
    small = {"fontsize": 7.5, "color": "#555555"}
    for y, (start, size, label, lit) in enumerate(reversed(rows)):
        if start is None:
            text = f"nothing mapped: {binary_size(size)}"
            say(ax, 13, y + 0.5, text, ha="center", style="italic", **small)
            continue
        look = MEANINGS["mapped in this process"] if lit else PLAIN
        font = {"fontsize": 8, "weight": "bold" if lit else "normal"}
        text = f"{label.replace(' and other', ',')}: {binary_size(size)}"
        cell(ax, 6.2, y + 0.06, 13.6, 0.88, look, text, **font)
        say(ax, 6, y + 0.7, f"{start:#x}", family="monospace", ha="right", **small)
    return ax


def pages(ax: Axes, outcome, page_bytes: int) -> Axes:
    """The region's pages, each above the page of the file that it maps."""
    n_pages = outcome.span_bytes // page_bytes
    anonymous = outcome.file_bytes is None
    shift = 0 if anonymous else outcome.offset_bytes // page_bytes
    left, width = 2.9, 17 / max(4, shift + n_pages)
    start = left + shift * width
    blank(ax, 20, 13)
    _length(ax, start, width, outcome, page_bytes)
    say(ax, 0, 4.1, "region", weight="bold")
    for k in range(n_pages):
        _page(ax, start + k * width, width, outcome, k, page_bytes)
    perms = outcome.region.perms
    words = f"{perms}, {'shared' if 's' in perms else 'private'}"
    if outcome.present is not None:
        words += f"; mapped when the call returned: {sum(outcome.present)} of {n_pages}"
    # A region far to the right would push its words off the sheet.
    say(ax, start + 0.2 if shift < 3 else 19.9, 5.5, words, ha="left" if shift < 3 else "right",
        fontsize=8.5)  # fmt: skip
    if anonymous:
        say(ax, left, 7.9, "no file behind it: every page reads as zeros", style="italic")
    else:
        _file(ax, left, width, outcome, page_bytes)
    for y, where in ((11.3, "first"), (12.3, "last")):
        results = [f"{t.act}: {_result(t)}" for t in outcome.touches if t.where == where]
        if results:
            say(ax, 0, y, f"{where} byte of the region", weight="bold", fontsize=8.5)
            say(ax, 8.2, y, "   ".join(results), **MONO)
    return ax


def _result(touch) -> str:
    if touch.act == "read" and not touch.result.startswith("SIG"):
        return "0" if touch.result == "\0" else repr(touch.result)
    return touch.result


def _length(ax, start, width, outcome, page_bytes) -> None:
    """A measure of length above the region, what it was rounded up to, and the address."""
    end = start + outcome.length_bytes / page_bytes * width
    ax.plot([start, start, end, end], [3.0, 2.5, 2.5, 3.0], color="#222222", lw=1)
    n_pages = outcome.span_bytes // page_bytes
    side, x = ("left", start) if start < 9 else ("right", 19.9)
    pages = f"the region: {n_pages} page{'s' * (n_pages > 1)}, {outcome.span_bytes:,} bytes"
    say(ax, x, 0.6, f"{pages}, at {outcome.address:#x}", ha=side, fontsize=8.5)
    say(ax, x, 1.7, f"length asked for: {outcome.length_bytes:,}", ha=side, fontsize=8.5)


def _page(ax, x, width, outcome, k, page_bytes) -> None:
    """One page of the region and what it reads; blue if it was mapped when the call returned."""
    mapped = outcome.present is not None and outcome.present[k]
    look = MEANINGS["mapped in this process"] if mapped else NOT_MAPPED
    font = {"fontsize": 8}
    left_bytes = 0 if outcome.file_bytes is None else outcome.file_bytes - k * page_bytes
    if outcome.file_bytes is None:
        cell(ax, x, 3.2, width, 1.8, look, "zeros", **font)
    elif left_bytes <= 0:
        cell(ax, x, 3.2, width, 1.8, look, "past\nthe end", fontsize=7.5)
    else:
        part = min(1, left_bytes / page_bytes) * width
        letter = "abc"[outcome.offset_bytes // page_bytes + k]
        cell(ax, x, 3.2, width, 1.8, look)
        say(ax, x + part / 2, 4.1, letter * 3, ha="center", color=look.text, **font)
        if part < width:
            ax.plot([x + part] * 2, [3.2, 5.0], color=look.text, lw=1, ls="--")
            say(ax, x + (part + width) / 2, 4.1, "000", ha="center", color=look.text, **font)


def _file(ax, left, width, outcome, page_bytes) -> None:
    """The file's pages, its end, and where offset points."""
    size = outcome.size_bytes
    say(ax, 0, 7.9, "file", weight="bold")
    for k, letter in enumerate("abc"[: -(-size // page_bytes)]):
        part = min(1, size / page_bytes - k)
        x = left + k * width
        cell(ax, x, 7.0, part * width, 1.8, MEANINGS["on disk"], letter * 3, fontsize=8)
    end = left + size / page_bytes * width
    say(ax, end + 0.2, 7.9, f"end of file: {size:,}", fontsize=8, color="#555555")
    x = left + outcome.offset_bytes / page_bytes * width
    ax.plot([x, x], [5.0, 7.0], color="#222222", lw=1, ls=":")
    ax.annotate("", (x, 8.9), (x, 9.9), arrowprops={"arrowstyle": "-|>", "color": "#222222"})
    side, by = ("left", 0.2) if x < 15 else ("right", -0.2)
    say(ax, x + by, 9.7, f"offset {outcome.offset_bytes:,}", ha=side, fontsize=8.5)


def refusal(ax: Axes, outcome) -> Axes:
    """The error, what it means, and the six parameters with those to change framed."""
    blank(ax, 20, 13)
    say(ax, 0.2, 0.9, outcome.error, fontsize=16, weight="bold", color=WRONG)
    say(ax, 7.6, 1.0, outcome.message, fontsize=10)
    for k, (name, value) in enumerate(outcome.choice._asdict().items()):
        x, y = 0.2 + k % 3 * 6.6, 2.6 + k // 3 * 2.6
        wrong = name in outcome.change
        cell(ax, x, y, 6.3, 2.1, PLAIN)
        if wrong:
            frame = Rectangle((x, y), 6.3, 2.1, fill=False, edgecolor=WRONG, lw=2.4)
            ax.add_patch(frame)
        title = f"{name}   ← change" if wrong else name
        color = WRONG if wrong else "#222222"
        say(ax, x + 0.2, y + 0.6, title, fontsize=8.5, weight="bold", color=color)
        for word in ("MAP", "PROT"):
            value = value.replace(f"|{word}_", " | ").replace(f"{word}_", "")
        say(ax, x + 0.2, y + 1.5, value, family="monospace", fontsize=7.2)
    say(ax, 0.2, 8.4, textwrap.fill(outcome.meaning, 68), va="top", fontsize=9.5)
    return ax
