"""Full against lazy (lesson 07): a question, an advice and a temperature -> what each way added."""

from collections.abc import Callable

from matplotlib.figure import Figure

from qm9lab.course.view import View, choice


def full_or_lazy(draw: Callable[..., tuple[Figure, str]]) -> View:
    """Which molecules, how many, which advice, cold or warm -> bars of each way (lesson 07).

    ``draw(pattern=..., how_many=..., advice=..., temperature=...)`` makes the runs and returns
    the picture and its sentence. ``advice`` is the name of a constant of ``mmap``.
    """
    return View(
        draw,
        pattern=choice("molecules", ["at random", "in a row"]),
        how_many=choice("how many", [1, 10, 100, 1000]),
        advice=choice("the map's advice", ["MADV_NORMAL", "MADV_RANDOM"]),
        temperature=choice("file", ["cold", "warm"]),
    )
