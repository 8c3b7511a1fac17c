"""What several processes cost together: scripts that hold something at once, told step by step.

Derived in notebooks/09_sharing.ipynb, whose scripts map, read, fork and store: this package starts
them, passes words to and fro through their pipes, reads their memory from outside, and ends them.
It opens and maps nothing for them.
"""

from .amounts import Memory, memory, total
from .holders import Holder, Played, Told, family, holding, play, watch
from .readers import Joined, in_files, one_by_one

__all__ = [
    "Holder",
    "Joined",
    "Memory",
    "Played",
    "Told",
    "family",
    "holding",
    "in_files",
    "memory",
    "one_by_one",
    "play",
    "total",
    "watch",
]
