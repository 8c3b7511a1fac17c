"""The sharing dashboard: how many readers, how many of them copy -> the total cost."""

from collections.abc import Callable

from matplotlib.figure import Figure

from qm9lab.course.view import View, choice, slider


def sharing_dashboard(draw: Callable[..., tuple[Figure, str]], mixes) -> View:
    """How many processes read the file, and which of them with ``read()``.

    ``draw(n=..., with_read=...)`` with one of ``mixes`` starts the processes, measures, ends them,
    and returns the picture and its sentence.
    """
    return View(draw, n=slider("processes", 1, 8, 3), with_read=choice("with read()", mixes))
