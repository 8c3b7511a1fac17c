"""The program of the sampler's process (timeline.py): read, wait, until told to stop.

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

NAN = float("nan")
# Numbers are taken out of the text of /proc this many samples at a time: what is left to do at
# each waking, with cold caches, is most of what the sampler costs.
BATCH = 25
# Of a core. Where samples would cost more (a busy machine, a slow source), fewer are taken.
MOST = 0.017


class ByProc:
    """/proc/PID/statm and stat, through open files, which never mean a later process."""

    def __init__(self, pid):
        self.statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
        self.stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        self.page = os.sysconf("SC_PAGE_SIZE")

    def read(self):
        return os.pread(self.statm, 128, 0), os.pread(self.stat, 1024, 0)

    def numbers(self, statm, stat):
        _, rss, shared, _ = statm.split(b" ", 3)
        # The name in the second field may hold blanks and brackets: count after the last one.
        fields = stat.rpartition(b")")[2].split(b" ", 11)
        file_bytes = int(shared) * self.page
        return int(rss) * self.page - file_bytes, file_bytes, int(fields[8]), int(fields[10])

    def has_ended(self, statm, stat):
        return statm.startswith(b"0 0 ")  # a zombie has no memory any more


class ByPsutil:
    """The adapters of fault_counts.py and memory.py."""

    def __init__(self, pid, import_path):
        sys.path[:] = import_path.split(os.pathsep)
        import psutil

        from qm9lab.measure.fault_counts import faults_of
        from qm9lab.measure.memory import resident_of

        self.process, self.gone = psutil.Process(pid), psutil.NoSuchProcess
        self.memory, self.faults = resident_of, faults_of

    def read(self):
        try:
            return (*self.memory(self.process)[:2], *self.faults(self.process)[:2])
        except self.gone:
            raise ProcessLookupError from None

    def numbers(self, *values):
        return [NAN if value is None else value for value in values]

    def has_ended(self, *values):
        return False  # psutil says so itself


def sample(reader, every_s):
    """Samples until standard input says or ends, the sampled process ends, or the parent does."""
    told, parent = [], os.getppid()

    def wait_for_word():
        os.read(0, 1)
        told.append(True)

    threading.Thread(target=wait_for_word, daemon=True).start()
    samples, texts, read, clock = array.array("d"), [], reader.read, time.monotonic
    due_s, cpu_s = clock(), time.process_time()
    period_s = every_s
    with contextlib.suppress(OSError):  # ESRCH: the sampled process has ended
        texts.append((clock(), *read()))
        os.write(1, b"!")
        while not told:
            now_s = clock()
            due_s = max(due_s + period_s, now_s)  # no burst to catch up after a pause
            time.sleep(due_s - now_s)
            texts.append((clock(), *read()))
            if len(texts) >= BATCH:
                if not keep(reader, texts, samples) or os.getppid() != parent:
                    break
                cost_s = (time.process_time() - cpu_s) / (len(samples) // 5)
                period_s = max(every_s, cost_s / MOST)
    keep(reader, texts, samples)
    return samples


def keep(reader, texts, samples):
    """Add what the texts say to the samples; False if the sampled process had ended."""
    while texts and not reader.has_ended(*texts[0][1:]):
        t_s, *text = texts.pop(0)
        samples.extend((t_s, *reader.numbers(*text)))
    return not texts


def main():
    pid, every_s, *import_path = sys.argv[1:]
    try:
        reader = ByPsutil(int(pid), *import_path) if import_path else ByProc(int(pid))
        samples = sample(reader, float(every_s))
    except OSError:  # it had ended before the first sample
        samples = array.array("d")
    with open(1, "wb") as out:
        out.write(samples.tobytes())
    os._exit(0)  # the thread may still wait for standard input


if __name__ == "__main__":
    main()
