"""Controls joined to a draw function: the only module that imports ipywidgets.

A widget here is a picture that is drawn anew when a control moves. Delete it and the lesson
still stands: the draw function was called without it first.
"""

from collections.abc import Callable

import ipywidgets
from matplotlib.figure import Figure

from . import plots


class View(ipywidgets.VBox):
    """Controls above a picture and the sentence that says what to see in it.

    Parameters
    ----------
    draw : callable
        Takes the controls' values by name and returns ``(Figure, sentence)``.
    controls : ipywidgets with a ``value``, by the name of ``draw``'s parameter
        ``draw`` is called again when one of them changes.

    Notes
    -----
    A notebook that is read on the web, or opened and not yet run, has no live widget. The view
    therefore also shows itself as a PNG of its picture, and as its sentence in plain text.
    """

    def __init__(self, draw: Callable[..., tuple[Figure, str]], **controls):
        self._draw = draw
        self._controls = controls
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self.sentence = ipywidgets.Label(layout={"width": "auto"})
        super().__init__(
            [
                ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "wrap"}),
                self.picture,
                self.sentence,
            ]
        )
        for control in controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change=None) -> None:
        values = {name: control.value for name, control in self._controls.items()}
        figure, self.sentence.value = self._draw(**values)
        self.picture.value = plots.png(figure)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        still = {"image/png": bytes(self.picture.value), "text/plain": self.sentence.value}
        return {**data, **still}, metadata


def slider(label: str, low: int, high: int, value: int | None = None) -> ipywidgets.IntSlider:
    """A labelled whole-number slider that reports while it is moved."""
    return ipywidgets.IntSlider(
        value=low if value is None else value,
        min=low,
        max=high,
        description=label,
        style={"description_width": "initial"},
        layout={"width": "460px"},
    )


def choice(label: str, options, value=None) -> ipywidgets.ToggleButtons:
    """One of a few, as buttons side by side."""
    options = list(options)
    return ipywidgets.ToggleButtons(
        options=options,
        value=options[0] if value is None else value,
        description=label,
        style={"description_width": "initial", "button_width": "auto"},
    )
