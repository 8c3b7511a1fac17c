"""The sampler: what it sees, what it costs, and that nothing is left of it."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from qm9lab import measure
from qm9lab.measure import timeline

pytestmark = [
    pytest.mark.timing,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
ROOT = Path(__file__).parent.parent


def samplers(of=None):
    """Processes that run the sampler's program, of one parent or of any."""
    found = psutil.Process(of).children() if of else psutil.process_iter()
    return [p for p in found if any("_sampling.py" in word for word in _words(p))]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def gone_within(pid, seconds=5.0) -> bool:
    """Whether a process ends (also as a zombie that its parent has not asked about)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert samplers(of=os.getpid()) == []


def anonymous(n_bytes):
    m = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    return m


def test_a_growing_process_is_seen_to_grow_at_the_right_time():
    n_pages = (64 << 20) // mmap.PAGESIZE
    with measure.Sampler() as sampler, anonymous(64 << 20) as m:
        assert sampler.timeline is None
        time.sleep(0.3)
        begin_s = time.monotonic()
        for page in range(n_pages):
            m[page * mmap.PAGESIZE] = 1
        end_s = time.monotonic()
        time.sleep(0.3)
    found = sampler.timeline
    assert found.source == "/proc/PID/statm and /proc/PID/stat"
    assert all(len(column) == len(found.t_s) for column in found[1:5])
    assert (np.diff(found.t_s) > 0).all() and (np.diff(found.minor) >= 0).all()
    before, after = found.t_s < begin_s, found.t_s > end_s
    assert before.any() and after.any()
    grown = found.anonymous_bytes[after][0] - found.anonymous_bytes[before][-1]
    assert abs(grown - (64 << 20)) < 4 << 20
    assert n_pages <= found.minor[after][0] - found.minor[before][-1] < n_pages + 2000
    # What it saw in between lies in between: the clock of both is the same.
    during = found.anonymous_bytes[~before & ~after]
    assert (during >= found.anonymous_bytes[before][-1] - (1 << 20)).all()
    assert (during <= found.anonymous_bytes[after][0] + (1 << 20)).all()


def test_it_samples_while_one_call_in_c_holds_the_global_lock():
    """A thread of this process would wait until the copy is done."""
    with measure.Sampler() as sampler:
        begin_s = time.monotonic()
        block = bytearray(256 << 20)  # one call: allocates and clears without giving up the lock
        bytes(block)
        end_s = time.monotonic()
    t_s = sampler.timeline.t_s
    inside = ((t_s > begin_s) & (t_s < end_s)).sum()
    assert inside >= (end_s - begin_s) / 0.005 / 4, (inside, end_s - begin_s)


def test_file_pages_are_told_from_anonymous_ones(tmp_path):
    path = tmp_path / "file.dat"
    path.write_bytes(bytes(16 << 20))
    with (
        measure.Sampler() as sampler,
        path.open("rb") as f,
        mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm,
    ):
        time.sleep(0.03)
        sum(mm[k] for k in range(0, len(mm), mmap.PAGESIZE))
        time.sleep(0.03)
    found = sampler.timeline
    assert abs(found.file_bytes.max() - found.file_bytes[0] - (16 << 20)) < 1 << 20


def test_it_agrees_with_the_instruments():
    with measure.Sampler() as sampler:
        now, counted = measure.resident(), measure.faults()
        time.sleep(0.05)
    found = sampler.timeline
    assert abs(int(found.anonymous_bytes[-1]) - now.anonymous_bytes) < 1 << 20
    assert abs(int(found.file_bytes[-1]) - now.file_bytes) < 1 << 20
    assert 0 <= found.minor[-1] - counted.minor < 500
    assert 0 <= found.major[-1] - counted.major < 50


def on_cpu_s(pid) -> float:
    """CPU time of a process to the nanosecond: the first field of /proc/PID/schedstat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cost(every_s, for_s, enough=5):
    """Share of a core that the sampler takes, from a moment after its start."""
    with measure.Sampler(every_s=every_s) as sampler:
        (process,) = samplers(of=os.getpid())
        time.sleep(enough * every_s)
        before, start_s = on_cpu_s(process.pid), time.monotonic()
        time.sleep(for_s)
        after, end_s = on_cpu_s(process.pid), time.monotonic()
    return (after - before) / (end_s - start_s), np.diff(sampler.timeline.t_s) * 1e3


def test_it_costs_under_2_percent_of_a_core():
    # The least of three: what it takes when the neighbours leave its caches alone.
    share, gaps_ms = min((cost(0.005, 1.5) for _ in range(3)), key=lambda found: found[0])
    print(
        f"sampler: {100 * share:.2f} % of a core, gaps median {np.median(gaps_ms):.2f} ms, "
        f"99 % {np.percentile(gaps_ms, 99):.2f} ms, longest {gaps_ms.max():.2f} ms"
    )
    assert share < 0.02
    # On a slow processor each sample costs more, and fewer are taken.
    assert len(gaps_ms) > 50 and 4.9 < np.median(gaps_ms) < 25


def test_where_samples_cost_too_much_they_come_less_often():
    share, gaps_ms = cost(0.0002, 2, enough=500)
    assert share < 0.03 and np.median(gaps_ms[-50:]) > 1


def test_it_starts_at_once():
    def enter():
        start_s = time.monotonic()
        with measure.Sampler() as sampler:
            entered_s = time.monotonic()
        assert start_s < sampler.timeline.t_s[0] < entered_s
        return entered_s - start_s

    took_s = min(enter() for _ in range(5))
    print(f"first sample after {took_s * 1e3:.0f} ms")
    assert took_s < 1  # of five tries, on a busy machine too


def test_it_ends_when_the_body_raises():
    with pytest.raises(ZeroDivisionError), measure.Sampler() as sampler:
        time.sleep(0.03)
        raise ZeroDivisionError
    assert len(sampler.timeline.t_s) >= 2


def test_it_ends_with_the_sampled_process_and_keeps_the_timeline():
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=-1) as child:
        with measure.Sampler(child.pid) as sampler:
            (process,) = samplers(of=os.getpid())
            time.sleep(0.1)
            child.kill()
            assert gone_within(process.pid)
            last_s = time.monotonic()
    assert len(sampler.timeline.t_s) >= 5 and sampler.timeline.t_s[-1] < last_s
    assert (sampler.timeline.anonymous_bytes > 0).all()


def test_a_process_that_nobody_has_is_an_error():
    with pytest.raises(ProcessLookupError, match="none with pid 4194303"):
        measure.Sampler(4_194_303).__enter__()


PARENT = """
import os, signal, sys, time
from qm9lab import measure
sampler = measure.Sampler({pid}).__enter__()
if {fork} and os.fork() == 0:  # a worker that holds copies of the pipes
    time.sleep(20)
    os._exit(0)
print(sampler._process.pid, flush=True)
time.sleep(20)
"""


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("pid", [None, os.getpid()])
def test_it_ends_when_its_parent_is_killed(fork, pid):
    """By the end of the pipe, or where a forked worker keeps that open, by the parent's id."""
    words = [sys.executable, "-c", PARENT.format(pid=pid, fork=fork)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        sampler_pid = int(parent.stdout.readline())
        workers = [p for p in psutil.Process(parent.pid).children() if p.pid != sampler_pid]
        assert len(workers) == fork and psutil.pid_exists(sampler_pid)
        parent.kill()
        assert gone_within(sampler_pid)
        for worker in workers:
            worker.kill()


def test_an_interrupt_while_it_starts_leaves_no_process(monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            started.append(self)
            pipe, self.stdout = self.stdout, self
            self._pipe = pipe

        def read(self, *n):
            self.stdout = self._pipe
            raise KeyboardInterrupt

    monkeypatch.setattr(timeline.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure.Sampler().__enter__()
    assert started[0].returncode is not None


def test_by_psutil_it_gives_the_same_columns(monkeypatch):
    monkeypatch.setattr(timeline, "has_proc", lambda: False)
    with measure.Sampler(every_s=0.02) as sampler:
        now = measure.resident()
        time.sleep(0.1)
    found = sampler.timeline
    assert found.source == "psutil" and len(found.t_s) >= 3
    assert abs(int(found.anonymous_bytes[-1]) - now.anonymous_bytes) < 1 << 20
