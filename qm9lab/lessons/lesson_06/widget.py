"""The live page map (lesson 06): a session's pages on a canvas, and its acts as controls."""

import mmap
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from qm9lab.course import plots
from qm9lab.course.page_grid import HEIGHTS
from qm9lab.measure import is_missing

from . import pages

HERE = Path(__file__).resolve().parent
N_LINES = 6
"""Acts that the table under the map remembers."""

MOST_RINGS = 8
"""An act that touched more pages has no rings around them."""

UNKNOWN_COLOUR = "#AAAAAA"
"""For a page that the system shows in no way."""

START = "Nothing has been done through this page map yet."


class PageMap(anywidget.AnyWidget):
    """All pages of a session's file; click or press keys to act on them.

    What is drawn is the session's last look, one byte a page. A notebook that is read on the web,
    or opened and not yet run, has no live widget: it shows the same map as a PNG, and the last
    sentence as text.
    """

    _esm = HERE / "page_map.js"
    _css = HERE / "page_map.css"
    states = traitlets.Bytes().tag(sync=True)
    molecules = traitlets.Bytes().tag(sync=True)  # first and last on each page, little-endian i4
    touched = traitlets.List().tag(sync=True)  # pages with a ring
    facts = traitlets.Dict().tag(sync=True)  # what does not change: sizes, names, colours
    sentence = traitlets.Unicode().tag(sync=True)
    mode = traitlets.Unicode().tag(sync=True)
    lines = traitlets.List().tag(sync=True)
    step = traitlets.Int().tag(sync=True)  # set last: the view draws when it changes

    def __init__(self, session: pages.Session):
        self.session = session
        missing = {k: value for k, value in session.now._asdict().items() if is_missing(value)}
        facts = {
            "name": session.path.name,
            "n_pages": session.n_pages,
            "page_bytes": mmap.PAGESIZE,
            "columns": pages.columns(session.n_pages),
            "n_molecules": session.n_molecules,
            "modes": [name for name in pages.MODES if pages.ADVICE[name] is not None],
            "actions": [name for name in pages.ACTIONS if pages.ADVICE[name] is not None],
            "colours": [*(plots.MEANINGS[name].color for name in HEIGHTS), UNKNOWN_COLOUR],
            "unavailable": "; ".join(f"{name}: {value}" for name, value in missing.items()),
        }
        super().__init__(facts=facts, molecules=session.molecules_by_page().astype("<i4").tobytes())
        self.on_msg(self._hear)
        self._show()

    def _hear(self, _widget, message: dict, _buffers) -> None:
        """Call the session's method that the view asks for, then show what happened."""
        getattr(self.session, message["act"])(*message.get("args", ()))
        self._show()

    def _show(self) -> None:
        session = self.session
        with self.hold_sync():
            self.states = pages.packed(session.now, session.n_pages).tobytes()
            touched = session.steps[-1].touched if session.steps else []
            self.touched = touched if len(touched) <= MOST_RINGS else []
            self.sentence = session.steps[-1].sentence if session.steps else START
            self.mode = session.mode
            self.lines = [_line(step) for step in session.steps[: -N_LINES - 1 : -1]]
            self.step = len(session.steps)

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        picture = pages.png({self.session.path.name: self.session.now}, self.touched or None)
        still = {"image/png": picture, "text/plain": self.sentence}
        return {**data, **still}, metadata


def _line(step: pages.Step) -> list:
    """One line of the table: the act, its faults, and how many pages are in each state after."""
    after = step.after
    numbers = (step.faults.major, step.faults.minor, after.cached, after.mapped, after.dirty)
    return [step.name, *("?" if is_missing(number) else int(np.sum(number)) for number in numbers)]
