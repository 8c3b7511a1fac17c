"""The sharing dashboard (lesson 09): how many readers, and how each gets the file -> the bill."""

from collections.abc import Callable

from matplotlib.figure import Figure

from . import View, choice, slider

MOST = 8


def sharing_dashboard(draw: Callable[..., tuple[Figure, str]], ways) -> View:
    """How many processes, and in which of ``ways`` each gets the file (lesson 09).

    ``draw(n=..., way=...)`` starts the processes, measures, ends them, and returns the picture
    and its sentence.
    """
    return View(draw, n=slider("readers", 1, MOST, 3), way=choice("each one's way", ways))
