"""Draw functions: each takes an Axes and plain values, draws, and returns the Axes.

Four colours have one meaning in every picture of the kit, and each has a second cue, a hatch,
for eyes and printers that do not tell them apart. They are drawn from the palette of Okabe and
Ito, which readers with any of the common colour vision deficiencies can tell apart.
"""

import io
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

STYLE = "qm9lab.course.qm9lab"
"""The style sheet's name for ``plt.style.use``."""


class Look(NamedTuple):
    """How a meaning is drawn: fill colour, hatch, and a text colour that is legible on it."""

    color: str
    hatch: str
    text: str


MEANINGS = {
    "on disk": Look("#DDDDDD", "", "#222222"),
    "in the page cache": Look("#A6DAF5", "///", "#0B2A3A"),
    "mapped in this process": Look("#0072B2", "", "#FFFFFF"),
    "private (anonymous)": Look("#F0B43C", "...", "#2B1D00"),
}
"""The four colours with a meaning."""


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
    """A line of text on a sheet, from the left unless told otherwise."""
    ax.text(x, y, text, **({"fontsize": 9, "va": "center", "color": "#222222"} | font))
    return ax


def cell(ax: Axes, x: float, y: float, width: float, height: float, look: Look, text="", **font):
    """One box of a diagram, filled, hatched and labelled according to ``look``."""
    face = Rectangle((x, y), width, height, facecolor=look.color, edgecolor="#555555", lw=0.8)
    face.set(hatch=look.hatch, hatchcolor="#FFFFFF" if look.hatch else None)
    ax.add_patch(face)
    if text:
        font = {"color": look.text, "ha": "center"} | font
        say(ax, x + width / 2, y + height / 2, text, **font)
    return ax


def page_row(
    ax: Axes, x: float, y: float, meanings, width: float = 1.0, height: float = 1.0, labels=None
) -> Axes:
    """A row of pages, each drawn as its meaning (a key of ``MEANINGS``, or None for a hole)."""
    for k, meaning in enumerate(meanings):
        text = labels[k] if labels is not None else ""
        look = MEANINGS[meaning] if meaning else Look("#FFFFFF", "", "#999999")
        cell(ax, x + k * width, y, width, height, look, text)
    return ax


def meaning_legend(ax: Axes, meanings=tuple(MEANINGS), **where) -> Axes:
    """The key to the colours, for the meanings that the picture uses."""
    handles = [
        Patch(
            facecolor=MEANINGS[m].color,
            hatch=MEANINGS[m].hatch,
            edgecolor="#555555",
            hatchcolor="#FFFFFF",
            label=m,
        )
        for m in meanings
    ]
    ax.legend(handles=handles, **({"loc": "lower left", "ncols": len(handles)} | where))
    return ax


def bars(
    ax: Axes, labels, values, meanings, unit: str, form: str = "{:,.0f}", log: bool = False
) -> Axes:
    """Horizontal bars, one a label, each in the colour of its meaning and with its number.

    ``meanings`` is one for all or one a bar, keys of ``MEANINGS``.
    ``unit`` is the label of the axis: quantity and unit. ``values`` are numbers >= 0; with
    ``log`` they are > 0 and the axis is logarithmic, from 1.
    """
    values = np.asarray(values, float)
    meanings = [meanings] * len(values) if isinstance(meanings, str) else meanings
    places = np.arange(len(values))
    for place, value, meaning in zip(places, values, meanings, strict=True):
        look = MEANINGS[meaning]
        bar = ax.barh(place, value, color=look.color, edgecolor="#555555", height=0.62)
        bar[0].set(hatch=look.hatch, hatchcolor="#FFFFFF")
        ax.annotate(
            form.format(value),
            (value, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(unit)
    if log:
        ax.set_xscale("log")
        ax.set_xlim(1, values.max() * 10)
    else:
        ax.set_xlim(0, max(values.max(), 1) * 1.18)
    return ax


def binary_size(n_bytes: float) -> str:
    """A size in the largest binary unit that keeps it above 1: ``binary_size(2048)`` is "2 KiB"."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while n_bytes >= 1024 and len(units) > 1:
        n_bytes /= 1024
        units.pop(0)
    return f"{n_bytes:.3g} {units[0]}" if n_bytes < 1000 else f"{n_bytes:.0f} {units[0]}"


def neighbourhoods(regions, lit_name: str) -> list[tuple[int, int, str, bool]]:
    """Regions merged into the few parts that ``address_space`` draws.

    A part is a run of regions of one kind: the program, its heap, the region whose name
    contains ``lit_name``, libraries and other maps, the stack. A gap of 1 GiB or more starts a
    new part. A part's size is the span of its addresses, small gaps within it included.
    """
    parts = []
    program = next((region.name for region in regions if lit_name not in region.name), "")
    for region in regions:
        if region.start >= 2**63:  # the vsyscall page is the kernel's half, not the process's
            continue
        lit = lit_name in region.name
        if lit:
            label = "our map"
        elif region.name.startswith(("[stack", "[heap")):
            label = region.name.strip("[]")
        elif region.name == program or (parts and parts[-1][2] == "program" and not region.name):
            label = "program"
        else:
            label = "libraries and other maps"
        near = parts and region.start - parts[-1][1] < 2**30
        if near and parts[-1][2:] == (label, lit) and not (lit and parts[-1][1] != region.start):
            parts[-1] = (parts[-1][0], region.end, label, lit)
        else:
            parts.append((region.start, region.end, label, lit))
    return parts
