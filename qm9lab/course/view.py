"""Controls connected to a draw function: a picture that is drawn again when a control moves.

Delete a widget and the lesson still stands: its draw function was called without it first.
"""

from collections.abc import Callable

import ipywidgets
from matplotlib.figure import Figure

from . import plots


class View(ipywidgets.VBox):
    """Controls above a picture and the sentence that says what to see in it.

    ``draw`` takes the controls' values by name and returns ``(Figure, sentence)``. It is called
    again when a control, which may be any of ipywidgets with a ``value``, changes.

    A notebook that is read on the web, or opened and not yet run, has no live widget: it shows
    the picture as a PNG, and the sentence in plain text.
    """

    def __init__(self, draw: Callable[..., tuple[Figure, str]], **controls):
        self._draw = draw
        self._controls = controls
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self.sentence = ipywidgets.Label(layout={"width": "auto"})
        row = ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "wrap"})
        super().__init__([row, self.picture, self.sentence])
        for control in controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change=None) -> None:
        values = {name: control.value for name, control in self._controls.items()}
        figure, self.sentence.value = self._draw(**values)
        self.picture.value = plots.png(figure)

    def _repr_mimebundle_(self, **kwargs):
        live = super()._repr_mimebundle_(**kwargs)
        still = {"image/png": bytes(self.picture.value), "text/plain": self.sentence.value}
        return {**live, **still}


def slider(label: str, low: int, high: int, value: int = 0) -> ipywidgets.IntSlider:
    """A labelled whole-number slider that reports while it is moved."""
    return ipywidgets.IntSlider(
        value=max(low, value),
        min=low,
        max=high,
        description=label,
        style={"description_width": "initial"},
        layout={"width": "460px"},
    )


def choice(label: str, options) -> ipywidgets.ToggleButtons:
    """One of a few, as buttons side by side; the first at first."""
    style = {"description_width": "initial", "button_width": "auto"}
    return ipywidgets.ToggleButtons(options=list(options), description=label, style=style)
