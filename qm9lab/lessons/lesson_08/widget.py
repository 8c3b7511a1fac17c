"""The layout explorer (lesson 08): layout, question, record width -> the pages that it touches."""

from collections.abc import Callable, Iterable

from matplotlib.figure import Figure

from qm9lab.course.view import View, choice


def layout_explorer(
    draw: Callable[..., tuple[Figure, str]], questions: Iterable[str], widths: Iterable[int]
) -> View:
    """Rows or columns, which question, how wide a record is -> pages of the file (lesson 08).

    Parameters
    ----------
    draw : ``draw(layout=..., question=..., n_fields=...)`` returns the picture and its sentence;
        ``layout`` is "rows" or "columns"
    questions : names of the questions
    widths : numbers of fields of a record
    """
    return View(
        draw,
        layout=choice("layout", ["rows", "columns"]),
        question=choice("question", questions),
        n_fields=choice("fields of a record", widths),
    )
