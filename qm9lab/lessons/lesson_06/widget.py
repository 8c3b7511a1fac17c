"""The live page map (lesson 06): a session's pages on a canvas, and its acts as controls."""

import mmap
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from qm9lab.course import plots
from qm9lab.course.page_grid import page_grid

from . import pages

HERE = Path(__file__).resolve().parent
N_LINES = 6
"""Acts that the table under the map remembers."""

START = "Nothing has been done through this page map yet."


class PageMap(anywidget.AnyWidget):
    """All pages of a session's file; click or press keys to act on them.

    Parameters
    ----------
    session : pages.Session

    Notes
    -----
    What is drawn is the session's last look, one byte a page. A notebook that is read on the web,
    or opened and not yet run, has no live widget: it shows the same map as a PNG, and the last
    sentence as text.
    """

    _esm = HERE / "page_map.js"
    _css = HERE / "page_map.css"
    states = traitlets.Bytes().tag(sync=True)
    molecules = traitlets.Bytes().tag(sync=True)  # first and last on each page, little-endian i4
    touched = traitlets.Bytes().tag(sync=True)  # one byte a page
    facts = traitlets.Dict().tag(sync=True)  # what does not change: sizes, names, colours
    said = traitlets.Unicode().tag(sync=True)
    mode = traitlets.Unicode().tag(sync=True)
    lines = traitlets.List().tag(sync=True)
    step = traitlets.Int().tag(sync=True)  # set last: the view draws when it changes

    def __init__(self, session: pages.Session):
        self.session = session
        known = pages.advice()
        facts = {
            "name": session.path.name,
            "n_bytes": session.n_bytes,
            "n_pages": session.n_pages,
            "page_bytes": mmap.PAGESIZE,
            "columns": pages.columns(session.n_pages),
            "n_molecules": session.n_molecules,
            "modes": [name for name in pages.MODES if name in known],
            "actions": [name for name in pages.ACTIONS if name in known],
            "looks": [[name, look.color] for name, look in plots.MEANINGS.items()],
            "missing": pages.missing(session.now),
        }
        on_pages = session.molecules_on(range(session.n_pages)).astype("<i4")
        super().__init__(facts=facts, molecules=on_pages.tobytes())
        self.on_msg(self._hear)
        self._show()

    def _hear(self, _widget, message: dict, _buffers) -> None:
        """Do what the view asks for; then show what became of the pages."""
        session, store = self.session, message.get("store", False)
        acts = {
            "page": lambda: session.touch(message["page"], store),
            "molecule": lambda: session.touch_molecule(message["molecule"], store),
            "scan": lambda: session.scan(store),
            "cold": session.make_cold,
            "flush": session.flush,
            "drop": session.drop,
            "look": session.look,
            "advise": lambda: session.advise(message["name"]),
        }
        acts[message["act"]]()
        self._show()

    def _show(self) -> None:
        session = self.session
        last = session.steps[-1] if session.steps else None
        touched = np.zeros(session.n_pages, np.uint8)
        if last:
            touched[list(last.touched)] = 1
        with self.hold_sync():
            self.states = pages.states(session.now, session.n_pages).tobytes()
            self.touched = touched.tobytes()
            self.said = last.said if last else START
            self.mode = session.mode
            self.lines = [_line(step) for step in session.steps[: -N_LINES - 1 : -1]]
            self.step = len(session.steps)

    def picture(self):
        """The same map as a Figure."""
        session = self.session
        figure = plots.new_figure(8.4, 3.4)
        touched = session.steps[-1].touched if session.steps else ()
        now = session.now
        page_grid(
            figure.subplots(),
            now.cached,
            now.mapped,
            pages.columns(session.n_pages),
            touched if len(touched) < 9 else None,
            dirty=now.dirty,
            copied=now.copied,
        )
        return figure

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        still = {"image/png": plots.png(self.picture()), "text/plain": self.said}
        return {**data, **still}, metadata


def _line(step: pages.Step) -> list:
    """One line of the table: the act, its faults, and how many pages are in each state after."""
    sums = [None if each is None else int(each.sum()) for each in step.after[:3]]
    numbers = [step.faults.major, step.faults.minor, *sums]
    return [step.name, *("?" if each is None else each for each in numbers)]
