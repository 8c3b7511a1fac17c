"""The address space (lesson 02)."""

from collections.abc import Callable

from matplotlib.figure import Figure

from qm9lab.course.view import View, choice, slider


def address_space(draw: Callable[..., tuple[Figure, str]], max_mib: int) -> View:
    """How much to map, and whether it is mapped now -> this process's regions (lesson 02).

    ``draw(size_mib=..., state=...)`` with ``state`` one of "mapped", "closed".
    """
    return View(
        draw, size_mib=slider("MiB to map", 1, max_mib), state=choice("", ["mapped", "closed"])
    )
