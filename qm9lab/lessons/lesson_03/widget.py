"""The mmap call explorer of lesson 03: a menu for each of the six parameters."""

import html
from collections.abc import Callable, Mapping, Sequence

import anywidget
import ipywidgets
from matplotlib.figure import Figure

from qm9lab.course.view import View

from .choice import CONTROLS, Choice


class KeysOfItsOwn(anywidget.AnyWidget):
    """Not visible: makes JupyterLab leave the keys to the menus next to it.

    A notebook's shortcuts would otherwise take what is typed into a menu. Lumino, which dispatches
    them, skips a focused element with ``data-lm-suppress-shortcuts``.
    """

    _esm = """
    export default { render({ el }) {
      el.style.display = "none";
      const mark = () => (el.closest(".widget-vbox") || el).querySelectorAll("select")
        .forEach(menu => { menu.dataset.lmSuppressShortcuts = "true"; });
      requestAnimationFrame(mark);
      setTimeout(mark, 500);  // menus that came later than this
    } };
    """


class CallExplorer(View):
    """Six menus, and below them the sentence with the result and the picture of the call.

    ``draw`` gets the parameters by name. ``options`` has the choices of each; a menu begins at
    its default in ``Choice``.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        options: Mapping[str, Sequence[str]] = CONTROLS,
    ):
        look = {"style": {"description_width": "46px"}, "layout": {"width": "275px"}}
        menus = {
            name: ipywidgets.Dropdown(
                options=list(choices), value=Choice._field_defaults[name], description=name, **look
            )
            for name, choices in options.items()
        }
        super().__init__(draw, **menus)
        row, picture, _ = self.children
        # A sentence of several lines: a Label does not break lines.
        self.words = ipywidgets.HTML(layout={"max_width": "1000px"})
        self.children = [row, self.words, picture, KeysOfItsOwn()]
        self.sentence.observe(self._say, names="value")
        self._say()

    def _say(self, _change=None) -> None:
        # A screen reader reads out what changes in a region that is marked as live.
        text = html.escape(self.sentence.value, quote=False)
        self.words.value = f'<div role="status" aria-live="polite">{text}</div>'
