"""Who sees a store (lesson 05)."""

from collections.abc import Callable

from matplotlib.figure import Figure

from qm9lab.course.view import View, choice, slider


def shared_or_private(draw: Callable[..., tuple[Figure, str]], steps) -> View:
    """A way to map and how far the story has gone -> who sees the store (lesson 05).

    ``draw(access=..., step=...)`` with ``access`` one of "ACCESS_WRITE", "ACCESS_COPY" and
    ``step`` the number of the last step done, of the ``steps`` that there are.
    """
    return View(
        draw,
        access=choice("map", ["ACCESS_WRITE", "ACCESS_COPY"]),
        step=slider("step", 0, len(steps) - 1, 1),
    )
