"""Several processes that run the same function and hold its value."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil

from qm9lab import processes
from qm9lab.measure import Missing


@contextlib.contextmanager
def start(
    n: int, function: Callable[..., Any], *args: Any, uses: Sequence = ()
) -> Iterator[list[processes.Held]]:
    """``n`` fresh processes that hold what ``function(*args)`` returns there; see ``hold``."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(processes.hold(function, *args, uses=uses)) for _ in range(n)]


def at_once(
    team: Sequence[processes.Held], function: Callable[..., Any], *args: Any, uses: Sequence = ()
) -> Any:
    """Call ``function(held, *args)`` in all processes at the same time; the sum of the values.

    The lesson's function locks a file with ``fcntl``.
    """
    if psutil.WINDOWS:
        return Missing("Windows has no fcntl")
    for process in team:
        process.send(function, *args, uses=uses)
    return sum([process.receive() for process in team])
