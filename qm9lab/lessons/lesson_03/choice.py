"""What you can choose for mmap's six parameters: for each a table of names and values."""

import mmap
import os
from typing import NamedTuple

PAGE = mmap.PAGESIZE
LETTERS = b"a" * PAGE + b"b" * PAGE + b"c" * (PAGE // 2)
"""The file that is mapped: its last page is half full."""
SIZE = len(LETTERS)
FILES = {"path": LETTERS, "empty_path": b""}

FREE = 1 << 36  # program, heap and libraries lie elsewhere on every 64-bit Linux
IN_USE = "page in use"  # the child knows where that is
ADDR = {"NULL": 0, "free page": FREE, "free page + 100": FREE + 100, IN_USE: None, "page 1": PAGE}
LENGTH = {"0": 0, "1": 1, "file size": SIZE, "file size + a page": SIZE + PAGE, "2**60": 2**60}
READ, WRITE, EXEC = 1, 2, 4
PROT = {
    "PROT_NONE": 0,
    "PROT_READ": READ,
    "PROT_WRITE": WRITE,
    "PROT_READ|PROT_WRITE": READ | WRITE,
    "PROT_READ|PROT_EXEC": READ | EXEC,
}
SHARED, PRIVATE, FIXED_NOREPLACE = 1, 2, 0x100000
ANONYMOUS, POPULATE = (getattr(mmap, f"MAP_{name}", 0) for name in ("ANONYMOUS", "POPULATE"))
FLAGS = {
    "MAP_SHARED": SHARED,
    "MAP_PRIVATE": PRIVATE,
    "MAP_SHARED|MAP_POPULATE": SHARED | POPULATE,
    "MAP_PRIVATE|MAP_ANONYMOUS": PRIVATE | ANONYMOUS,
    "MAP_SHARED|MAP_ANONYMOUS": SHARED | ANONYMOUS,
    "MAP_SHARED|MAP_FIXED_NOREPLACE": SHARED | FIXED_NOREPLACE,
    "0": 0,
}
FD = {  # the file that is opened, and how
    "rb": ("path", os.O_RDONLY),
    "r+b": ("path", os.O_RDWR),
    "O_WRONLY": ("path", os.O_WRONLY),
    "empty file": ("empty_path", os.O_RDWR),
    "folder": ("", os.O_RDONLY),
    "closed": ("path", os.O_RDWR),
    "-1": None,
}
OFFSET = {"0": 0, "one page": PAGE, "half a page": PAGE // 2, "past the end": 4 * PAGE}
OFFSET |= {"2**63 - one page": 2**63 - PAGE}

CONTROLS = {"addr": ADDR, "length": LENGTH, "prot": PROT, "flags": FLAGS, "fd": FD}
CONTROLS |= {"offset": OFFSET}
"""The choices for each parameter, in the order of the call."""


class Choice(NamedTuple):
    """One choice for each parameter, of those in ``CONTROLS``; the defaults work."""

    addr: str = "NULL"
    length: str = "file size"
    prot: str = "PROT_READ"
    flags: str = "MAP_SHARED"
    fd: str = "rb"
    offset: str = "0"

    @property
    def is_anonymous(self) -> bool:
        return "ANONYMOUS" in self.flags

    @property
    def is_fixed(self) -> bool:
        return "FIXED" in self.flags

    @property
    def no_python_call(self) -> str:
        """Why Python's mmap cannot make this call, or ""."""
        if self.is_fixed:
            return "Python's mmap has no addr, so there is nothing for MAP_FIXED_NOREPLACE to fix"
        return "" if self.addr == "NULL" else "Python's mmap has no addr: it always passes NULL"

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Length, prot, flags and offset as the kernel gets them."""
        return LENGTH[self.length], PROT[self.prot], FLAGS[self.flags], OFFSET[self.offset]

    @property
    def span_bytes(self) -> int:
        """The length rounded up to whole pages."""
        return -(-LENGTH[self.length] // PAGE) * PAGE

    @property
    def file_bytes(self) -> int:
        """How many bytes of a file the region maps."""
        size = 0 if self.is_anonymous or self.fd == "empty file" else SIZE
        return max(0, min(size - OFFSET[self.offset], self.span_bytes))
