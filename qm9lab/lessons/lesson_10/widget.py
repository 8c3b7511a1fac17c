"""Waste and fragmentation (lesson 10): whole pages and holes, computed and as the kernel says."""

from collections.abc import Callable

from matplotlib.figure import Figure

from qm9lab.course.view import View, choice

RECORD_BYTES = (40, 256, 1000, 5000, 20_000)
PIECE_MIB = (16, 32, 64)
FREED = ("every 2nd", "every 4th", "the first half")
ASKED_MIB = (8, 48, 96, 192, 320)


def waste_calculator(draw: Callable[..., tuple[Figure, str]]) -> View:
    """Record size; pieces, which of them are freed, and a map to ask for (lesson 10).

    ``draw(record_bytes=..., piece_mib=..., freed=..., asked_mib=...)`` computes, asks the kernel,
    and returns the picture and its sentence.
    """
    controls = {
        "record_bytes": choice("bytes a record", RECORD_BYTES, 256),
        "piece_mib": choice("MiB a piece", PIECE_MIB, 32),
        "freed": choice("pieces freed", FREED),
        "asked_mib": choice("MiB asked for", ASKED_MIB, 96),
    }
    for control in controls.values():  # side by side: a gap says where one ends
        control.layout.margin = "0 24px 6px 0"
    return View(draw, **controls)
