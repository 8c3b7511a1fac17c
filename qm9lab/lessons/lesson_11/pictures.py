"""The pages that the batches of a training touch (lesson 11)."""

import numpy as np
from matplotlib.figure import Figure

from qm9lab.course.plots import MEANINGS

BLUE = MEANINGS["mapped in this process"].color


def batch_pages(figure: Figure, batches_by_order: dict, bands: dict) -> Figure:
    """Which pages of a file each batch touches; a column for each order of the molecules.

    The upper row has the whole file, the lower one the longest run of neighbouring pages that the
    first order touches. A batch is the set of its pages. ``bands`` has, for each section in the
    order of the file, its first page and the page after its last.
    """
    n_pages = max(end for _, end in bands.values())
    first, last = longest_run(set().union(*next(iter(batches_by_order.values()))))
    shape = {"sharey": "row", "sharex": True, "height_ratios": [3, 2]}
    whole, part = figure.subplots(2, len(batches_by_order), **shape)
    for above, below, (order, batches) in zip(whole, part, batches_by_order.items(), strict=True):
        for at, pages in enumerate(batches):
            for ax, width_pt in ((above, 0.3), (below, 1.2)):
                y = sorted(pages)
                ax.hlines(y, at - 0.4, at + 0.4, lw=width_pt, color=BLUE, snap=False)
        touched = set().union(*batches)
        above.set_title(f"{order}:\n{len(touched):,} pages of {n_pages:,}", fontsize=10)
        above.grid(False)
        for start, end in bands.values():
            above.axhline(start, color="#999999", lw=0.5, zorder=0.5)
            if touched.isdisjoint(range(start, end)):
                above.axhspan(start, end, color="#EEEEEE", lw=0, zorder=0)
        below.grid(False)
        below.set(xlabel="batch", xlim=(-1, len(batches)))
    # A small section has no room for its name.
    named = {name: (a + b) / 2 for name, (a, b) in bands.items() if b - a > n_pages / 20}
    whole[0].set_yticks([*named.values()], [*named], fontsize=8)
    whole[0].set(ylim=(n_pages, 0), ylabel="whole file, section by section")
    holder = next(name for name, (start, end) in bands.items() if start <= first < end)
    part[0].set(ylim=(last + 0.5, first - 0.5), ylabel=f"page of the file,\npart of {holder}")
    part[0].yaxis.set_major_formatter("{x:,.0f}")
    return figure


def longest_run(pages) -> tuple[int, int]:
    """First and last page of the longest run of neighbours among ``pages``."""
    numbers = np.sort(list(pages))
    longest = max(np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1), key=len)
    return int(longest[0]), int(longest[-1])
