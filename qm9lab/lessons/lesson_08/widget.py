"""The layout explorer (lesson 08): layout, question, record width -> the pages that it touches."""

from qm9lab.course.view import View, choice


def layout_explorer(draw, questions, widths) -> View:
    """Rows or columns, which question, how many fields a record has -> pages of the file.

    ``draw(layout=..., question=..., n_fields=...)`` returns the picture and its sentence.
    """
    return View(
        draw,
        layout=choice("layout", ["rows", "columns"]),
        question=choice("question", questions),
        n_fields=choice("fields of a record", widths),
    )
