"""In place of the module ``resource``, which Windows does not have: its counts are missing."""

import platform
from types import SimpleNamespace

from .missing import Missing

RUSAGE_SELF = 0


def getrusage(who: int) -> SimpleNamespace:
    """Fault counts that are ``Missing``."""
    missing = Missing(f"{platform.system()} has no getrusage")
    return SimpleNamespace(ru_minflt=missing, ru_majflt=missing)
