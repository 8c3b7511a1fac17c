"""Who sees a store: the picture of lesson 05."""

from matplotlib.axes import Axes

from qm9lab.course.plots import MEANINGS, Look, blank, cell, meaning_legend, say


def observers(ax: Axes, seen: dict, n_dirty: int | None, private: bool) -> Axes:
    """What each observer of one page reads, as boxes side by side.

    Parameters
    ----------
    seen : dict of str to str
        Observer -> what it reads. The first one is the map through which was stored.
    n_dirty : int or None
        Pages of the file that wait to be written to the disk; None where it cannot be known.
    private : bool
        Whether the first observer looks at an anonymous copy of its own.
    """
    blank(ax, 12, 4)
    mapped, cached, copied = (
        MEANINGS[name]
        for name in ("mapped in this process", "in the page cache", "private (anonymous)")
    )
    looks = [copied if private else mapped, mapped, cached]
    for k, (name, answer) in enumerate(seen.items()):
        look = looks[k] if answer != "closed" else Look("#FFFFFF", "", "#888888")
        say(ax, 1.5 + 3 * k, 0.55, name, ha="center", fontsize=10)
        cell(
            ax,
            0.2 + 3 * k,
            1.0,
            2.6,
            1.5,
            look,
            answer,
            fontsize=14,
            weight="bold",
            family="monospace",
        )
    say(ax, 10.5, 0.55, "on the disk", ha="center", fontsize=10)
    unknown = "not available here,\nbecause nothing\ncounts dirty pages"
    on_disk = {None: unknown, 0: f"{seen['read()']}, as read()"}
    words = on_disk.get(n_dirty, "older bytes:\na dirty page waits")
    cell(ax, 9.2, 1.0, 2.6, 1.5, MEANINGS["on disk"], words, fontsize=10)
    meaning_legend(ax, loc="lower center", bbox_to_anchor=(0.5, -0.05), fontsize=8.5)
    return ax
