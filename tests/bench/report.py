"""The table of a run, as CSV and Markdown, and its picture."""

import csv as csv_module
import io
import statistics
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from peers import TOOLS, Ours

from qm9lab.course import plots

TIMES = {
    "build": "s",
    "open": "ms",
    "first molecule": "us",
    "random molecule": "us",
    "batch of 1,024": "ms",
    "batch of 1,024, one property": "ms",
    "mean of one property": "ms",
    "full pass": "ms",
}
"""The questions that every tool is asked, and the unit of the table."""

OF_DATA = {
    "Data object": "a second",
    "Data object, again": "a second",
    "DataLoader, 0 workers": "a second",
    "DataLoader, 2 workers": "a second",
}
STEPS = ("open", "first molecule", "random molecule", "batch of 1,024", "mean of one property",
         "full pass", "Data object")  # fmt: skip
"""In the order in which a process of its own asks them."""

PER_SECOND = {"s": 1, "ms": 1e3, "us": 1e6}
MIB = 1 << 20
MISSING = "-"


class Key(NamedTuple):
    """Tool, how many times as large its file, how it was measured, and what was asked.

    ``temperature`` is "warm" or "cold": tools taking turns in rounds; or "alone" (warm) or "alone,
    cold": a process of its own, every question for the first time.
    """

    tool: str
    scale: int
    temperature: str
    operation: str


class Cell(NamedTuple):
    """What was found; None where it was not measured, and ``note`` then says why.

    Attributes
    ----------
    unit : "s" (a molecule, where it is about one) or "bytes"
    best, median, n : of n repetitions
    anonymous_bytes, file_bytes, minor, major : resident memory and faults that a process of its own
        has added since it began to open, up to the end of this step
    """

    unit: str = ""
    best: float | None = None
    median: float | None = None
    n: int = 0
    anonymous_bytes: int | None = None
    file_bytes: int | None = None
    minor: int | None = None
    major: int | None = None
    note: str = ""


class Table:
    """Cells by key, in the order in which they were found."""

    def __init__(self) -> None:
        self.cells: dict[Key, Cell] = {}

    def cell(self, *key) -> Cell:
        return self.cells.get(Key(*key), Cell())

    def change(self, key, **values) -> None:
        self.cells[Key(*key)] = self.cell(*key)._replace(**values)

    def add(self, tool, scale, temperature, operation, values, unit) -> None:
        best, median = min(values), statistics.median(values)
        self.change((tool, scale, temperature, operation), unit=unit, best=best, median=median,
                    n=len(values))  # fmt: skip

    def add_samples(self, scale, temperature, samples) -> None:
        for tool, operation, seconds in samples:
            self.add(tool, scale, temperature, operation, seconds, "s")

    def add_memory(self, tool, scale, temperature, operation, own, shared, minor, major) -> None:
        self.change((tool, scale, temperature, operation), anonymous_bytes=own, file_bytes=shared,
                    minor=minor, major=major)  # fmt: skip

    def forget(self, tool) -> None:
        """Drop what was said of a tool."""
        self.cells = {key: cell for key, cell in self.cells.items() if key.tool != tool}

    def say(self, tool, scale, temperature, operation, note) -> None:
        self.change((tool, scale, temperature, operation), note=note)

    def best(self, *key) -> float | None:
        return self.cell(*key).best

    def scales(self) -> list[int]:
        """Those that our own file was measured at."""
        found = {k.scale for k, c in self.cells.items() if k.tool == Ours.name and c.median}
        return sorted(found)

    def tools(self) -> list[str]:
        """Those that were asked for, measured or not."""
        return [name for name in TOOLS if any(key.tool == name for key in self.cells)]

    def notes(self) -> list[tuple[Key, str]]:
        return [(key, cell.note) for key, cell in self.cells.items() if cell.note]


# CSV and Markdown ----------------------------------------------------------------------------


def csv(table: Table) -> str:
    """Every cell, one a line."""
    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    writer.writerow([*Key._fields, *Cell._fields])
    for key, cell in table.cells.items():
        whole = cell.unit == "bytes"
        writer.writerow([*key, *(written(value, whole) for value in cell)])
    return out.getvalue()


def written(value, whole: bool):
    """A value of a cell: nothing for None, a float in six digits or as a whole number."""
    if isinstance(value, float):
        return f"{value:.0f}" if whole else f"{value:.6g}"
    return "" if value is None else value


def read_csv(text: str) -> Table:
    """The table that ``csv`` wrote."""
    table, kinds = Table(), (str, float, float, int, int, int, int, int, str)
    for row in csv_module.reader(io.StringIO(text.partition("\n")[2])):
        key = Key(row[0], int(row[1]), *row[2:4])
        pairs = zip(kinds, row[4:], strict=True)
        table.cells[key] = Cell(*(kind(v) if v or kind is str else None for kind, v in pairs))
    return table


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".")


def shown(cell: Cell, unit: str) -> str:
    if cell.median is None:
        return MISSING
    if unit == "MiB":
        return number(cell.median / MIB)
    if unit == "a second":
        return number(1 / cell.median)
    return number(cell.median * PER_SECOND[unit])


def grid(head, rows) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def times(table: Table, temperature: str, columns) -> str:
    rows = []
    for name in table.tools():
        cells = [shown(table.cell(name, 1, temperature, o), u) for o, u in columns.items()]
        if set(cells) != {MISSING}:
            rows.append([name, *cells])
    return grid(["", *(f"{o} ({u})" for o, u in columns.items())], rows)


def pair(cell: Cell) -> str:
    """Anonymous and file memory, MiB."""
    if cell.anonymous_bytes is None:
        return MISSING
    return f"{cell.anonymous_bytes / MIB:.1f} + {cell.file_bytes / MIB:.1f}"


def faults(cell: Cell) -> str:
    return MISSING if cell.minor is None else f"{cell.minor:,} + {cell.major or 0:,}"


def steps(table: Table, temperature: str, show) -> str:
    rows = [[name, *(show(table.cell(name, 1, temperature, step)) for step in STEPS)]
            for name in table.tools()]  # fmt: skip
    return grid(["", *STEPS], [row for row in rows if set(row[1:]) != {MISSING}])


def growth(table: Table) -> str:
    scales = sorted({key.scale for key in table.cells})
    columns = {"file size": "MiB", "open": "ms", "random molecule": "us",
               "batch of 1,024": "ms", "mean of one property": "ms", "full pass": "ms"}  # fmt: skip
    rows = []
    for name in table.tools():
        for scale in scales:
            cells = [shown(table.cell(name, scale, "alone", o), u) for o, u in columns.items()]
            if set(cells) != {MISSING}:
                cells += [pair(table.cell(name, scale, "alone", "full pass"))]
                rows.append([f"{name}, x{scale}", *cells])
    head = [f"{operation} ({unit})" for operation, unit in columns.items()]
    return grid(["", *head, "memory after all (MiB)"], rows)


def where(key: Key) -> str:
    parts = [key.tool, f"x{key.scale}" if key.scale > 1 else "", key.temperature, key.operation]
    return ", ".join(part for part in parts if part)


def markdown(table: Table, machine, met) -> str:
    """The whole report.

    Parameters
    ----------
    machine : lines that say what it ran on
    met : list of targets.Target
    """
    references = [(k, c) for k, c in table.cells.items() if k.tool == "baseline" and c.median]
    ours = [(k, c) for k, c in table.cells.items()
            if k.tool == Ours.name and k.scale == 1 and c.median is not None
            and k.operation not in TIMES | OF_DATA and c.unit == "s"]  # fmt: skip
    rest = [[where(k), number(c.best * 1e3), number(c.median * 1e3), c.n]
            for k, c in [*references, *ours]]  # fmt: skip
    others = [
        [name, TOOLS[name].other_way, shown(cell, "us")]
        for name in table.tools()
        if (cell := table.cell(name, 1, "warm", "random molecule, another way")).median
    ]
    cold = {"open": "ms", "random molecule": "ms", "full pass": "ms"}
    parts = [
        "# Side by side\n",
        "\n".join(f"- {line}" for line in machine) + "\n",
        "## Targets\n",
        grid(
            ["target", "measured", "limit", ""],
            [[t.claim, t.measured, t.limit, t.verdict] for t in met],
        ),
        "## Warm: every file in the page cache\n",
        "The median of the repetitions, the tools taking turns; pages are mapped already. A "
        "molecule is given as views and all bytes of its fields are copied once; a full pass "
        "copies all bytes of all fields, in the largest pieces that the tool gives. A build ends "
        "with fsync for every tool.\n",
        times(table, "warm", {"build": "s", "file size": "MiB"} | TIMES),
        times(table, "warm", OF_DATA),
        "The in-memory dataset keeps each Data object that it has made: these are first gets, and "
        '"again" asks for the same ones once more. A DataLoader\'s time includes the start of its '
        "workers.\n",
        "One random molecule in another way than the tool's recommended one:\n",
        grid(["", "how", "us"], others),
        "## Cold: no page of the file in the page cache, verified before each\n",
        times(table, "cold", cold),
        "A full pass and the mean of PyG's dataset on disk compute far longer than they read.\n",
        "What they are compared with, and ours alone (ms):\n",
        grid(["", "best", "median", "n"], rest),
        "## Memory that a process of its own has added, anonymous + file pages (MiB)\n",
        "Since before it opened the file, after each step in this order; warm. File pages are "
        "those of its file and of libraries that it used for the first time.\n",
        steps(table, "alone", pair),
        "The same from a cold file: minor + major faults.\n",
        steps(table, "alone, cold", faults),
        "## Growth\n",
        "Warm, each in a process of its own that asks each question for the first time (the open "
        "alone is repeated), so that first touches of mapped pages are in the times. Memory is "
        "what was added up to the end of the full pass.\n",
        growth(table),
        "## How each is used\n",
        "\n".join(f"- {name}: {TOOLS[name].how}." for name in table.tools()) + "\n",
    ]
    if table.notes():
        parts += [
            "## Not measured\n",
            "\n".join(f"- {where(key)}: {note}." for key, note in table.notes()) + "\n",
        ]
    return "\n".join(parts)


# The picture ---------------------------------------------------------------------------------

GREY, DARK = "#8A8A8A", "#222222"
PANELS = (
    ("build", "s", "build (s)"),
    ("open", "ms", "open (ms)"),
    ("random molecule", "us", "one random molecule (us)"),
    ("batch of 1,024", "ms", "batch of 1,024 (ms)"),
    ("mean of one property", "ms", "mean of one property (ms)"),
    ("full pass", "ms", "full pass (ms)"),
    ("Data object", "us", "Data object (us)"),
)


def draw(table: Table, path) -> None:
    """One picture of the table: a panel a question, then memory, and what grows with the file."""
    with plt.style.context(plots.STYLE):
        figure = plots.new_figure(11.5, 9.2)
        # A layout that is solved for (constrained) may come out another way the next time.
        figure.set_layout_engine("none")
        upper = figure.add_gridspec(2, 4, left=0.15, right=0.985, top=0.985, bottom=0.46,
                                    wspace=0.09, hspace=0.28)  # fmt: skip
        axes = upper.subplots(sharey=True)
        for ax, (operation, unit, label) in zip(axes.flat, PANELS, strict=False):
            dots(ax, table, operation, unit)
            ax.set_xlabel(label)
        memory_bars(axes.flat[-1], table)
        low = {"loc": "center", "fontsize": 9}
        figure.legend(handles=keys(), ncols=5, bbox_to_anchor=(0.55, 0.39), **low)
        lower = figure.add_gridspec(1, 3, left=0.07, right=0.985, top=0.34, bottom=0.125,
                                    wspace=0.27)  # fmt: skip
        left, middle, right = lower.subplots()
        lines(left, table, "open", lambda c: c.median and c.median * 1e3, "open (ms)")
        lines(
            middle,
            table,
            "random molecule",
            lambda c: c.median and c.median * 1e6,
            "one random molecule (us)",
        )
        lines(
            right,
            table,
            "full pass",
            lambda c: None if c.anonymous_bytes is None else max(c.anonymous_bytes / MIB, 0.1),
            "anonymous memory (MiB, from 0.1)",
        )
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, ncols=4, bbox_to_anchor=(0.53, 0.035), **low)
        metadata = {"Date": None, "Title": "The kit's file and other tools, side by side"}
        figure.savefig(path, format="svg", metadata=metadata)


def keys() -> list:
    own, shared = (plots.MEANINGS[m] for m in ("private (anonymous)", "mapped in this process"))
    return [
        Line2D([], [], ls="", marker="o", color=DARK, ms=7, label="ours, warm"),
        Line2D([], [], ls="", marker="o", mfc="white", mec=GREY, ms=7, label="others, warm"),
        Line2D([], [], ls="", marker="x", color=GREY, ms=6, label="cold"),
        Patch(facecolor=own.color, hatch=own.hatch, edgecolor="#555555", hatchcolor="#FFFFFF",
              label="anonymous"),
        Patch(facecolor=shared.color, edgecolor="#555555", label="file pages, mapped"),
    ]  # fmt: skip


def dots(ax, table: Table, operation: str, unit: str) -> None:
    names = table.tools()
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    for place, name in enumerate(names):
        color = DARK if name == Ours.name else GREY
        warm, cold = (table.cell(name, 1, t, operation).median for t in ("warm", "cold"))
        if cold:
            ax.plot(cold * PER_SECOND[unit], place, marker="x", color=color, ms=6)
        if warm:
            face = color if name == Ours.name else "white"
            ax.plot(warm * PER_SECOND[unit], place, marker="o", mfc=face, mec=color, ms=7)
        elif not cold:
            ax.text(0.03, place, "-", transform=ax.get_yaxis_transform(), va="center", color=GREY)
    labels(ax, names)


def labels(ax, names) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    for tick, name in zip(ax.get_yticklabels(), names, strict=False):  # shared: no ticks
        tick.set_fontweight("bold" if name == Ours.name else "normal")
    ax.grid(axis="y", visible=False)


def memory_bars(ax, table: Table) -> None:
    """Memory after 1,000 random molecules, anonymous and file pages stacked."""
    names = table.tools()
    for place, name in enumerate(names):
        cell = table.cell(name, 1, "alone", "random molecule")
        if cell.anonymous_bytes is None:
            ax.text(0.03, place, "-", transform=ax.get_yaxis_transform(), va="center", color=GREY)
            continue
        own, shared = max(cell.anonymous_bytes, 0) / MIB, max(cell.file_bytes, 0) / MIB
        looks = [plots.MEANINGS[m] for m in ("private (anonymous)", "mapped in this process")]
        for start, width, look in ((0, own, looks[0]), (own, shared, looks[1])):
            (bar,) = ax.barh(place, width, left=start, color=look.color, edgecolor="#555555",
                             height=0.62, lw=0.8)  # fmt: skip
            bar.set(hatch=look.hatch, hatchcolor="#FFFFFF")
    ax.set_xlabel("memory after 1,000 (MiB)")
    labels(ax, names)


MARKERS = "oDs^vPX*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)))


def lines(ax, table: Table, operation: str, value, label: str) -> None:
    for k, name in enumerate(table.tools()):
        found = [
            (key.scale, value(cell))
            for key, cell in table.cells.items()
            if (key.tool, key.temperature, key.operation) == (name, "alone", operation)
        ]
        found = sorted((scale, v) for scale, v in found if v)
        if found:
            color, width = (DARK, 2.2) if name == Ours.name else (GREY, 1.2)
            ax.plot(
                *zip(*found, strict=True),
                marker=MARKERS[k],
                ls=DASHES[k],
                color=color,
                lw=width,
                ms=5,
                mfc=color if name == Ours.name else "white",
                label=name,
            )
    ax.set(xscale="log", yscale="log", ylabel=label, xlabel="size of the file (times QM9)")
    scales = sorted({key.scale for key in table.cells})
    ax.set_xticks(scales, [f"x{scale}" for scale in scales])
    ax.minorticks_off()
