"""What holds on this machine: page, granularity, readahead, pages mapped by one fault."""

import contextlib
import json
import mmap
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from qm9lab.files import replacing, write_all

from .address_space import mapped_pages
from .cache import AnyPath, cache_state, file_system, unavailable
from .eviction import make_cold
from .fault_counts import faults
from .memory import resident
from .missing import Missing

FILE_BYTES = 32 << 20  # well over twice the readahead of 8 MiB that some systems set


class Machine(NamedTuple):
    """What the lessons need to know of a machine."""

    page_bytes: int
    granularity_bytes: int  # the unit of a map's offset
    file_system: str
    can_evict: bool | Missing  # whether a file's pages can be dropped from the page cache there
    readahead_pages: int | Missing  # cached by one touch of a cold file, a third into it
    fault_around_small_pages: int | Missing  # mapped by one touch of a file written page by page
    fault_around_large_pages: int | Missing  # the same of one just written in pieces of 1 MiB
    fault_source: str | Missing  # what faults() reads
    memory_source: str | Missing  # what resident() reads
    kernel: str
    python: str
    readahead_setting: str  # the folder's device and its read_ahead_kb; "" where there is none


def calibrate(folder: AnyPath, card: AnyPath | None = None) -> Machine:
    """Measure this machine on two files of 32 MiB of its own in ``folder``, or read its card.

    ``card`` is the path of a small JSON file. If it was written on this machine (same kernel,
    Python, page, file system, readahead setting and instruments), it is read and nothing is
    measured. Else it is written, if it can be. Derived in notebooks/00_start_here.ipynb.
    """
    counted, memory = faults(), resident()
    minor, anonymous = counted.minor, memory.anonymous_bytes
    known: dict[str, Any] = {
        "page_bytes": mmap.PAGESIZE,
        "granularity_bytes": mmap.ALLOCATIONGRANULARITY,
        "file_system": file_system(folder),
        "fault_source": minor if isinstance(minor, Missing) else counted.source,
        "memory_source": anonymous if isinstance(anonymous, Missing) else memory.source,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "readahead_setting": _readahead_setting(folder),
    }
    machine = _read(Path(card), known) if card is not None else None
    if machine is None:
        machine = Machine(**known, **_measure(Path(folder)))
        if card is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be written has no card
                Path(card).parent.mkdir(parents=True, exist_ok=True)
                with replacing(card, durable=False) as f:
                    write_all(f, _as_json(machine._asdict()).encode())
    return machine


def _measure(folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=folder) as place:
        small, large = Path(place, "small_pieces.dat"), Path(place, "large_pieces.dat")
        for path, piece_bytes in ((small, mmap.PAGESIZE), (large, 1 << 20)):
            with path.open("wb", buffering=0) as f:  # nothing that a file system could compress
                write_all(f, os.urandom(FILE_BYTES), piece_bytes)
        n_large, n_small = _one_touch(large)[0], _one_touch(small)[0]
        cold = make_cold(small).is_cold
        n_cached = _one_touch(small)[1] if cold is True else cold
    return {
        "can_evict": cold,
        "readahead_pages": n_cached,
        "fault_around_small_pages": n_small,
        "fault_around_large_pages": n_large,
    }


def _readahead_setting(folder: AnyPath) -> str:
    """``read_ahead_kb`` of a folder's device (Linux: /sys/class/bdi), with its number."""
    try:
        device = os.stat(folder).st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        return f"{name} {Path('/sys/class/bdi', name, 'read_ahead_kb').read_text().strip()}"
    except (OSError, AttributeError):  # no such device (btrfs, overlayfs), or not Linux
        return ""


def _one_touch(path: Path) -> tuple[int | Missing, int | Missing]:
    """Pages mapped and pages cached after one touch of a fresh map, a third into the file."""
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        mm[len(mm) // 3]
        mapped, n_cached = mapped_pages(mm), cache_state(f).n_cached
        for _ in range(50):  # mincore does not see pages that are still being read
            time.sleep(0.02)
            n_before, n_cached = n_cached, cache_state(f).n_cached
            if n_cached == n_before:
                break
    if missing := unavailable(path):  # a file that is dropped at each open is not warm when touched
        return missing, missing
    return mapped if isinstance(mapped, Missing) else int(mapped.sum()), n_cached


def _read(card: Path, known: dict[str, Any]) -> Machine | None:
    """The machine of a card; None if there is none, or it is cut short or another machine's."""
    try:
        noted = json.loads(card.read_text(encoding="utf-8"))
        if any(noted[name] != value for name, value in json.loads(_as_json(known)).items()):
            return None
        for name, value in noted.items():
            noted[name] = Missing(**value) if isinstance(value, dict) else value
        return Machine(**noted)
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, default=lambda missing: {"reason": missing.reason}) + "\n"
