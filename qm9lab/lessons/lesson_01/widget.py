"""The record inspector (lesson 01)."""

from collections.abc import Callable

from matplotlib.figure import Figure

from qm9lab.course.view import View, slider


def record_inspector(draw: Callable[..., tuple[Figure, str]], n_records: int) -> View:
    """A record's number -> its bytes by field and the molecule that they spell (lesson 01).

    ``draw(record_index=...)`` returns the picture and its sentence.
    """
    return View(draw, record_index=slider("record", 0, n_records - 1))
