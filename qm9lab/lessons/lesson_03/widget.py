"""The mmap call explorer of lesson 03: a menu for each of the six parameters."""

import html
from collections.abc import Callable, Mapping, Sequence

import anywidget
import ipywidgets
from matplotlib.figure import Figure

from qm9lab.course.view import View


class KeysOfItsOwn(anywidget.AnyWidget):
    """Not seen: has JupyterLab leave the keys to the menus that it stands beside.

    A notebook's shortcuts (arrows, letters) would otherwise take what is typed into a menu.
    Lumino, which dispatches them, passes over an element with ``data-lm-suppress-shortcuts``;
    it looks at the one that has the focus first, so the menus themselves must have it.
    """

    _esm = """
    export default { render({ el }) {
      el.style.display = "none";
      const tell = () => (el.closest(".widget-vbox") || el).querySelectorAll("select")
        .forEach(menu => { menu.dataset.lmSuppressShortcuts = "true"; });
      requestAnimationFrame(tell);
      setTimeout(tell, 500);  // menus that came later than this
    } };
    """


class CallExplorer(View):
    """Six menus above the picture of the call and the sentence that says what it came to.

    Parameters
    ----------
    draw : callable
        ``draw(addr=..., length=..., prot=..., flags=..., fd=..., offset=...)`` returns the
        picture and its sentence.
    options : mapping
        Parameter -> what can be chosen for it (``qm9lab.calls.CONTROLS``).
    start : mapping
        Parameter -> what is chosen at first.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        options: Mapping[str, Sequence[str]],
        start: Mapping[str, str],
    ):
        menus = {name: menu(name, options[name], start[name]) for name in options}
        super().__init__(draw, **menus)
        # A sentence of several lines: a Label does not break lines.
        self.words = ipywidgets.HTML(layout={"max_width": "1000px"})
        self.children = [*self.children[:-1], self.words, KeysOfItsOwn()]
        self.sentence.observe(self._say, names="value")
        self._say()

    def _say(self, _change=None) -> None:
        # A screen reader tells what changes in a region marked as live.
        text = html.escape(self.sentence.value, quote=False)
        self.words.value = f'<div role="status" aria-live="polite">{text}</div>'


def menu(name: str, options: Sequence[str], value: str) -> ipywidgets.Dropdown:
    """A menu with a name, as wide as its longest entry."""
    return ipywidgets.Dropdown(
        options=list(options),
        value=value,
        description=name,
        style={"description_width": "50px"},
        layout={"width": "320px"},
    )
