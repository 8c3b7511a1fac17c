"""The program of the sampler's process (timeline.py): read, wait, until a byte says stop.

It is run by its path and imports little, so that its first sample comes soon. Arguments: pid,
seconds between samples and, for systems without /proc, the import path of the process that
started it. It writes one byte when it has the first sample and, at the end, all samples as
doubles, five a sample: time.monotonic(), anonymous bytes, file bytes, minor and major faults;
nan where unknown.
"""

import array
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# Numbers are taken out of the text of /proc this many samples at a time: what is left to do at
# each waking, with cold caches, is most of what the sampler costs.
BATCH = 25
# Of a core. Where samples would cost more (a busy machine, a slow source), fewer are taken.
MOST = 0.017

Reading = tuple[Any, ...]
# A function that takes a sample, and one that makes four numbers of it, or none at the end.
Reader = tuple[Callable[[], Reading], Callable[..., tuple[float, ...]]]


def by_proc(pid: int) -> Reader:
    """Reads /proc/PID/statm and stat through open files, which never mean a later process."""
    statm_fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    stat_fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    page = os.sysconf("SC_PAGE_SIZE")

    def read() -> Reading:
        return os.pread(statm_fd, 128, 0), os.pread(stat_fd, 1024, 0)

    def numbers(statm: bytes, stat: bytes) -> tuple[float, ...]:
        if statm.startswith(b"0 0 "):  # a zombie has no memory any more
            return ()
        _, rss, shared, _ = statm.split(b" ", 3)
        # The name in the second field may hold blanks and brackets: count after the last one.
        fields = stat.rpartition(b")")[2].split(b" ", 11)
        file_bytes = int(shared) * page
        return int(rss) * page - file_bytes, file_bytes, int(fields[8]), int(fields[10])

    return read, numbers


def by_psutil(pid: int, import_path: str) -> Reader:
    """Reads what measure's own functions find, on systems without /proc."""
    sys.path[:] = import_path.split(os.pathsep)
    from qm9lab.measure import faults, resident

    def read() -> Reading:
        return (*resident(pid)[:2], *faults(pid=pid)[:2])

    def numbers(*values: Any) -> tuple[float, ...]:
        return tuple(map(float, values))  # nan for one that is Missing

    return read, numbers


def sample(reader: Reader, every_s: float) -> "array.array[float]":
    """Samples until a byte or the end of standard input, or the end of the process or parent."""
    stop, parent = threading.Event(), os.getppid()

    def wait_for_byte() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=wait_for_byte, daemon=True).start()
    (read, numbers), clock = reader, time.monotonic
    samples = array.array("d")
    readings: list[tuple[float, Reading]] = []
    due_s, cpu_s, period_s = clock(), time.process_time(), every_s

    def keep() -> bool:
        """Add what the readings say to the samples; False if the sampled process had ended."""
        while readings:
            t_s, reading = readings.pop(0)
            if not (found := numbers(*reading)):
                readings.clear()
                return False
            samples.extend((t_s, *found))
        return True

    with contextlib.suppress(OSError):  # ESRCH: the sampled process has ended
        readings.append((clock(), read()))
        os.write(1, b"!")
        while not stop.is_set():
            now_s = clock()
            due_s = max(due_s + period_s, now_s)  # no burst to catch up after a pause
            time.sleep(due_s - now_s)
            readings.append((clock(), read()))
            if len(readings) >= BATCH:
                if not keep() or os.getppid() != parent:
                    break
                cost_s = (time.process_time() - cpu_s) / (len(samples) // 5)
                period_s = max(every_s, cost_s / MOST)
    keep()
    return samples


def main() -> None:
    pid, every_s, *import_path = sys.argv[1:]
    samples = array.array("d")
    with contextlib.suppress(OSError):  # it had ended before the first sample
        reader = by_psutil(int(pid), *import_path) if import_path else by_proc(int(pid))
        samples = sample(reader, float(every_s))
    with open(1, "wb") as out:
        out.write(samples.tobytes())
    os._exit(0)  # the thread may still wait for standard input


if __name__ == "__main__":
    main()
