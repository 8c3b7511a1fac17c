"""The mmap call explorer of lesson 03: a menu for each of the six parameters."""

import html
from collections.abc import Callable, Mapping, Sequence

import anywidget
import ipywidgets
from matplotlib.figure import Figure

from qm9lab.course.view import View


class KeysOfItsOwn(anywidget.AnyWidget):
    """Not visible: makes JupyterLab leave the keys to the menus next to it.

    A notebook's shortcuts (arrows, letters) would otherwise take what is typed into a menu.
    Lumino, which dispatches them, skips an element with ``data-lm-suppress-shortcuts``. It checks
    the element with the focus first, so the menus themselves must have the attribute.
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
    """Six menus above the picture of the call and the sentence with its result.

    ``draw`` gets the parameters by name. ``options`` has the choices of each (such as
    ``calls.CONTROLS``), and ``start`` the first one.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        options: Mapping[str, Sequence[str]],
        start: Mapping[str, str],
    ):
        look = {"style": {"description_width": "50px"}, "layout": {"width": "320px"}}
        menus = {
            name: ipywidgets.Dropdown(
                options=list(choices), value=start[name], description=name, **look
            )
            for name, choices in options.items()
        }
        super().__init__(draw, **menus)
        # A sentence of several lines: a Label does not break lines.
        self.words = ipywidgets.HTML(layout={"max_width": "1000px"})
        self.children = [*self.children[:-1], self.words, KeysOfItsOwn()]
        self.sentence.observe(self._say, names="value")
        self._say()

    def _say(self, _change=None) -> None:
        # A screen reader reads out what changes in a region that is marked as live.
        text = html.escape(self.sentence.value, quote=False)
        self.words.value = f'<div role="status" aria-live="polite">{text}</div>'
