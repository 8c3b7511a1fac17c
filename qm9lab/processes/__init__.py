"""Call a function in a fresh Python process, and see how the process ended.

What kills a process (SIGBUS, SIGSEGV, a memory limit) belongs in a process of its own: how it
ends is part of the lesson, and the learner's kernel lives on.
"""

from .functions import FunctionError
from .holding import Held, hold
from .running import Outcome, ProcessError, on_linux, run, run_script

__all__ = [
    "FunctionError",
    "Held",
    "Outcome",
    "ProcessError",
    "hold",
    "on_linux",
    "run",
    "run_script",
]
