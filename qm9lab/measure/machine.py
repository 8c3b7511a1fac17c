"""What holds on this machine: page, granularity, readahead, pages mapped by one fault."""

import contextlib
import json
import mmap
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .address_space import NO_PAGEMAP, mapped_pages
from .cache import cache_state, file_system
from .eviction import make_cold
from .fault_counts import faults
from .memory import resident

FILE_BYTES = 32 << 20  # well over twice the readahead of 8 MiB that some systems set
LARGE_PIECE_BYTES = 1 << 20


class Machine(NamedTuple):
    """What the lessons need to know of a machine; None where it is not to be had.

    Attributes
    ----------
    page_bytes, granularity_bytes : the page, and the unit of a map's offset
    file_system : of the folder that was asked about
    can_evict : whether a file's pages can be dropped from the page cache there
    readahead_pages : cached by one touch of a cold file, a third into it
    fault_around_small_pages : mapped by one touch of a cached file that was written page by page
    fault_around_large_pages : the same of a file just written in pieces of 1 MiB
    fault_source, memory_source : what ``faults()`` and ``resident()`` go by
    kernel, python : their versions
    readahead_setting : the folder's device and its read_ahead_kb; "" where that is not told
    missing : name to ``not available here, because ...``
    """

    page_bytes: int
    granularity_bytes: int
    file_system: str
    can_evict: bool
    readahead_pages: int | None
    fault_around_small_pages: int | None
    fault_around_large_pages: int | None
    fault_source: str
    memory_source: str
    kernel: str
    python: str
    readahead_setting: str
    missing: dict[str, str]


def calibrate(folder, card=None) -> Machine:
    """Measure this machine on files of its own in ``folder``, or read its card.

    Parameters
    ----------
    folder : path
        Where to write two files of 32 MiB, which are removed again.
    card : path, optional
        A small JSON file. When it is this machine's (same kernel, Python, page, file system,
        readahead setting and instruments), it is read and nothing is measured; else it is
        written, if it can be.

    Notes
    -----
    Source: derived in notebooks/00_start_here.ipynb.
    """
    known = {
        "page_bytes": mmap.PAGESIZE,
        "granularity_bytes": mmap.ALLOCATIONGRANULARITY,
        "file_system": file_system(folder),
        "fault_source": faults().source,
        "memory_source": resident().source,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "readahead_setting": _readahead_setting(folder),
    }
    noted = _read(card) if card is not None else None
    if noted is not None and all(getattr(noted, name) == known[name] for name in known):
        return noted
    machine = _measure(Path(folder), known)
    if card is not None:
        _write(Path(card), machine)
    return machine


def _measure(folder: Path, known: dict) -> Machine:
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=folder) as place:
        small, large = Path(place, "small_pieces.dat"), Path(place, "large_pieces.dat")
        _write_in_pieces(small, mmap.PAGESIZE)
        _write_in_pieces(large, LARGE_PIECE_BYTES)
        missing = {}
        n_large, _ = _one_touch(large)
        n_small, _ = _one_touch(small)
        for name, n_mapped in (("small", n_small), ("large", n_large)):
            if n_mapped is None:
                missing[f"fault_around_{name}_pages"] = NO_PAGEMAP
        state = make_cold(small)
        readahead = _one_touch(small)[1] if state.n_cached == 0 else None
        if readahead is None:
            missing["can_evict"] = missing["readahead_pages"] = state.source
    for name in ("fault_source", "memory_source"):
        if known[name].startswith("not available here"):
            missing[name] = known[name]
    return Machine(
        can_evict=readahead is not None,
        readahead_pages=readahead,
        fault_around_small_pages=n_small,
        fault_around_large_pages=n_large,
        missing=missing,
        **known,
    )


def _readahead_setting(folder) -> str:
    """``read_ahead_kb`` of the device below a folder (Linux: /sys/class/bdi), with its number."""
    try:
        device = os.stat(folder).st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        return f"{name} {Path('/sys/class/bdi', name, 'read_ahead_kb').read_text().strip()}"
    except (OSError, AttributeError):  # no such device (btrfs, overlayfs), or not Linux
        return ""


def _write_in_pieces(path: Path, piece_bytes: int) -> None:
    with path.open("wb", buffering=0) as f:
        for _ in range(FILE_BYTES // piece_bytes):
            f.write(os.urandom(piece_bytes))  # nothing that a file system could compress


def _one_touch(path: Path) -> tuple[int | None, int | None]:
    """Pages mapped and pages cached after one touch of a fresh map, a third into the file."""
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        mm[len(mm) // 3]
        mapped = mapped_pages(mm)
    n_cached, deadline = cache_state(path).n_cached, time.monotonic() + 1
    while time.monotonic() < deadline:  # mincore alone does not see what is still being read
        time.sleep(0.02)
        n_before, n_cached = n_cached, cache_state(path).n_cached
        if n_cached == n_before:
            break
    return None if mapped is None else int(mapped.sum()), n_cached


def _read(card) -> Machine | None:
    try:
        return Machine(**json.loads(Path(card).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none yet, cut short, or of another version
        return None


def _write(card: Path, machine: Machine) -> None:
    """Whole or not at all; a folder that cannot be written has no card."""
    partial = card.with_name(f"{card.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        card.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(machine._asdict(), indent=1) + "\n", encoding="utf-8")
            partial.replace(card)
        finally:
            partial.unlink(missing_ok=True)
