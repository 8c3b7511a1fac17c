"""Draw functions: each takes an Axes and plain values, draws, and returns the Axes.

Four colours have one meaning in every picture of the kit. Each has a second cue, a hatch, for
printers and eyes that do not distinguish the colours. The colours are from the palette of Okabe
and Ito, which was made for readers with colour vision deficiencies.
"""

import io
import textwrap
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from qm9lab.measure import Missing, is_missing

STYLE = "qm9lab.course.qm9lab"
"""The style sheet's name for ``plt.style.use``."""


class Style(NamedTuple):
    """How a meaning is drawn: fill colour, hatch, and a text colour that is legible on it."""

    color: str
    hatch: str
    text: str

    @property
    def face(self) -> dict:
        """As keywords for a bar, a box or an area."""
        look = {"facecolor": self.color, "edgecolor": "#555555", "linewidth": 0.8}
        return look | {"hatch": self.hatch, "hatchcolor": "#FFFFFF"}


MEANINGS = {
    "on disk": Style("#DDDDDD", "", "#222222"),
    "in the page cache": Style("#A6DAF5", "///", "#0B2A3A"),
    "mapped in this process": Style("#0072B2", "", "#FFFFFF"),
    "private (anonymous)": Style("#F0B43C", "...", "#2B1D00"),
}
"""The four colours with a meaning."""

MISSING = "not available here"
"""In place of a number that is ``Missing``, where there is no room for its reason."""


def new_figure(width_in: float = 8.0, height_in: float = 3.0) -> Figure:
    """A Figure in the kit's style that pyplot does not know of, for widgets and files."""
    with plt.style.context(STYLE):
        return Figure(figsize=(width_in, height_in), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    with plt.style.context(STYLE), io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def blank(ax: Axes, width: float, height: float) -> Axes:
    """Make ``ax`` a sheet of ``width`` by ``height`` units, y downward, without axes."""
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    return ax


def say(ax: Axes, x: float, y: float, text: str, **font) -> Axes:
    """A line of text on a sheet, aligned left unless ``ha`` says otherwise."""
    ax.text(x, y, text, **({"fontsize": 9, "va": "center", "color": "#222222"} | font))
    return ax


def cell(ax: Axes, x: float, y: float, width: float, height: float, style: Style, text="", **font):
    """One box of a diagram, filled, hatched and labelled in a ``style``."""
    ax.add_patch(Rectangle((x, y), width, height, **style.face))
    if text:
        font = {"color": style.text, "ha": "center"} | font
        say(ax, x + width / 2, y + height / 2, text, **font)
    return ax


def key(meaning: str, label: str) -> Patch:
    """The colour and the hatch of a meaning, for a legend."""
    return Patch(**MEANINGS[meaning].face, label=label)


def meaning_legend(ax: Axes, meanings=tuple(MEANINGS), **where) -> Axes:
    """The key to the colours, for the meanings that the picture uses."""
    handles = [key(meaning, meaning) for meaning in meanings]
    ax.legend(handles=handles, **({"loc": "lower left", "ncols": len(handles)} | where))
    return ax


def bars(
    ax: Axes, labels, values, meanings, unit: str, form: str = "{:,.0f}", log: bool = False
) -> Axes:
    """Horizontal bars, one a label, each in the colour of its meaning and with its number.

    ``meanings`` is a key of ``MEANINGS`` or one a bar, ``unit`` the label of the axis. In place of
    a value that is ``Missing`` stand words. With ``log`` the axis begins at 1, and values are
    above 0.
    """
    meanings = [meanings] * len(values) if isinstance(meanings, str) else meanings
    most = max([1, *(value for value in values if not is_missing(value))])
    for place, (value, meaning) in enumerate(zip(values, meanings, strict=True)):
        width = 0 if is_missing(value) else value
        words = MISSING if is_missing(value) else form.format(value)
        ax.barh(place, width, height=0.62, **MEANINGS[meaning].face)
        at = (max(width, 1) if log else width, place)
        ax.annotate(words, at, (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(unit)
    ax.set_xlim(0, most * 1.18)
    if log:
        ax.set(xscale="log", xlim=(1, most * 10))
    return ax


def draw_missing(ax: Axes, missing: Missing) -> Axes:
    """Write why there is no picture, in place of the picture."""
    ax.set_axis_off()
    width_in = ax.figure.get_figwidth() * ax.get_position().width
    text = textwrap.fill(str(missing), max(15, round(9 * width_in)))
    place = {"ha": "center", "va": "center", "transform": ax.transAxes}
    ax.text(0.5, 0.5, text, fontsize=9, **place).set_in_layout(False)
    return ax


def binary_size(n_bytes):
    """A size in the largest binary unit that keeps it above 1: 2048 is "2 KiB"."""
    if is_missing(n_bytes):
        return n_bytes
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while n_bytes >= 1024 and len(units) > 1:
        n_bytes /= 1024
        units.pop(0)
    return f"{n_bytes:.3g} {units[0]}" if n_bytes < 1000 else f"{n_bytes:.0f} {units[0]}"


def neighbourhoods(regions, lit_name: str):
    """Regions merged into the few parts that a picture of an address space draws.

    A part is a run of regions of one kind: the program, its heap, the region whose name
    contains ``lit_name``, libraries and other maps, the stack. A gap of 1 GiB or more starts a
    new part. A part is (start, end, label, lit), small gaps within it included. Where ``regions``
    is ``Missing``, so are the parts.
    """
    if is_missing(regions):
        return regions
    parts = []
    program = next((region.name for region in regions if lit_name not in region.name), "")
    for region in regions:
        if region.start >= 2**63:  # the vsyscall page is the kernel's half, not the process's
            continue
        start, end, label, lit = parts[-1] if parts else (0, -(2**30), "", False)
        kind = "libraries and other maps"
        if lit_name in region.name:
            kind = "our map"
        elif region.name.startswith(("[stack", "[heap")):
            kind = region.name.strip("[]")
        elif region.name == program or (label == "program" and not region.name):
            kind = "program"
        gap = region.start - end
        if kind == label and (gap == 0 if lit else gap < 2**30):
            parts[-1] = (start, region.end, label, lit)
        else:
            parts.append((region.start, region.end, kind, kind == "our map"))
    return parts


def address_space(ax: Axes, parts, our_map: Style | None = None, unit=" of addresses") -> Axes:
    """A process's address space, high addresses at the top, not to scale.

    ``parts`` are those of ``neighbourhoods``. The ``lit`` ones are drawn as ``our_map`` (as mapped
    if None), and the empty stretches between parts as gaps with their size.
    """
    if is_missing(parts):
        return draw_missing(ax, parts)
    our_map = our_map or MEANINGS["mapped in this process"]
    rows = []
    for k, (start, end, label, lit) in enumerate(parts):
        if k and start > parts[k - 1][1]:
            rows.append((None, start - parts[k - 1][1], "", False))
        rows.append((start, end - start, label, lit))
    blank(ax, 10, max(len(rows), 1))
    for y, (start, size, label, lit) in enumerate(reversed(rows)):
        if start is None:
            words = f"nothing mapped: {binary_size(size)}"
            say(ax, 5.9, y + 0.5, words, fontsize=8, color="#777777", ha="center", style="italic")
            continue
        style = our_map if lit else Style("#F4F4F4", "", "#222222")
        words = f"{label}: {binary_size(size)}{unit}"
        cell(ax, 2.3, y + 0.06, 7.2, 0.88, style, words, weight="bold" if lit else "normal")
        small = {"fontsize": 7.5, "family": "monospace", "ha": "right", "color": "#555555"}
        say(ax, 2.2, y + 0.78, f"{start:#x}", **small)
        if lit:
            say(ax, 2.2, y + 0.22, f"{start + size:#x}", **small)
    return ax
