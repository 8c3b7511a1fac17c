"""The training view (lesson 11): settings and a button -> a bar and curves while it trains."""

import time
from collections.abc import Callable, Iterator

import ipywidgets
from matplotlib.figure import Figure

from qm9lab.course.view import View, choice

TRAINING_TO_DRAWING = 3.0
"""Seconds of training for each second of drawing, at least."""


class TrainingView(View):
    """A View with a button that runs what its controls say, and draws while that runs.

    The controls choose which run is shown; the button makes the run, and the bar shows how far it
    is. To stop it, interrupt the kernel.

    Parameters
    ----------
    draw : callable
        Takes the controls' values by name, returns ``(Figure, sentence)`` of that run as it is.
    train : callable
        Takes them, too; a generator that makes the run and yields its share done, 0 to 1.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        train: Callable[..., Iterator[float]],
        **controls,
    ) -> None:
        super().__init__(draw, **controls)
        self._train = train
        self.button = ipywidgets.Button(description="train", button_style="primary")
        self.bar = ipywidgets.FloatProgress(0.0, min=0.0, max=1.0, description="done")
        self.button.on_click(self._run)
        row = ipywidgets.HBox([self.button, self.bar])
        self.children = (self.children[0], row, *self.children[1:])

    def _run(self, _button) -> None:
        values = {name: control.value for name, control in self._controls.items()}
        locked = (self.button, *self._controls.values())
        for control in locked:
            control.disabled = True
        drawn_s, cost_s = time.monotonic(), 0.0
        try:
            for share in self._train(**values):
                self.bar.value = share
                # Drawing takes a tenth of a second, more on a busy machine: most of the time is
                # the training's.
                if (start_s := time.monotonic()) - drawn_s > TRAINING_TO_DRAWING * cost_s:
                    self._redraw()
                    drawn_s = time.monotonic()
                    cost_s = drawn_s - start_s
        finally:
            for control in locked:
                control.disabled = False
            self._redraw()


def training_view(
    draw: Callable[..., tuple[Figure, str]],
    train: Callable[..., Iterator[float]],
    sources,
    batch_sizes,
    workers,
) -> TrainingView:
    """Where from, how many a batch, how many workers -> loss and memory (lesson 11).

    ``draw`` and ``train`` take ``source``, ``batch_size`` and ``n_workers``.
    """
    return TrainingView(
        draw,
        train,
        source=choice("source", sources),
        batch_size=choice("batch", batch_sizes),
        n_workers=choice("workers", workers),
    )
