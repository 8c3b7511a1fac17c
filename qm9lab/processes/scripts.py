"""Run a script that the reader can see in a child process, and say how it ended.

What kills a process (SIGBUS, SIGSEGV, a memory limit) belongs in a child: its exit status is
part of the lesson, and the learner's kernel lives on.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

# Stands between this process and the script. subprocess starts a process by vfork, and its
# ru_maxrss then begins at the peak of the process that it was started from (exec does not reset
# it), so the script is forked from this small process instead, and the figure is its own.
# A core limit of 1, unlike 0, also stops cores that would be piped to a crash reporter (core(5)).
LAUNCHER = """
import json, os, resource, sys, time
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
except (OSError, ValueError):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
begin = time.monotonic()
pid = os.fork()
if pid == 0:
    os.close(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
_, status, usage = os.wait4(pid, 0)
unit = 1 if sys.platform == "darwin" else 1024
report = [os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit, time.monotonic() - begin]
os.write(int(sys.argv[1]), json.dumps(report).encode())
"""


class Outcome(NamedTuple):
    """How a child process ended.

    Attributes
    ----------
    returncode : int or None
        The exit status; minus the number of the signal that killed it; None after a time-out.
    signal : str
        The signal's name, such as ``"SIGBUS"``, or "" when it was not killed by one.
    stdout, stderr : str
        What it wrote.
    peak_rss_bytes : int or None
        The most resident memory that it had at once, in bytes (``ru_maxrss`` of ``wait4(2)``:
        anonymous and file pages together); None where not available, and after a time-out.
    elapsed_s : float or None
        From its start to its end, in seconds; None after a time-out, and on Windows.
    """

    returncode: int | None
    signal: str
    stdout: str
    stderr: str
    peak_rss_bytes: int | None
    elapsed_s: float | None

    @property
    def timed_out(self) -> bool:
        """True when it was killed because it ran longer than its limit."""
        return self.returncode is None

    @property
    def how_it_ended(self) -> str:
        """In words: ``exit status 0``, ``killed by SIGBUS`` or ``stopped at its time limit``."""
        if self.timed_out:
            return "stopped at its time limit"
        return f"killed by {self.signal}" if self.signal else f"exit status {self.returncode}"

    @property
    def last_line(self) -> str:
        """The last line of ``stderr``: a traceback's verdict."""
        return (self.stderr.strip().splitlines() or [""])[-1]


def run_script(script: str, *args, timeout_s: float = 60.0, cwd=None) -> Outcome:
    """Run Python source in a child process.

    Parameters
    ----------
    script : str
        The source, shown in the lesson. It sees ``args`` as ``sys.argv[1:]``.
    *args
        Anything with a ``str()``; a path, a number.
    timeout_s : float
        After this many seconds the child is killed, with what it started in the same process
        group. After an ordinary end nothing is.
    cwd : path, optional
        The folder to run in.

    Notes
    -----
    The child leaves no core file. Calls ``fork``, ``execv`` and ``wait4(2)`` by way of a small
    launcher process; on Windows, which has none of them, the script is started directly,
    ``peak_rss_bytes`` and ``elapsed_s`` are None, and a time limit ends the script alone.
    """
    words = ["-X", "utf8", "-c", script, *map(str, args)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if os.name == "nt":
            returncode, peak, elapsed = _run_directly(words, out, err, timeout_s, cwd)
        else:
            returncode, peak, elapsed = _run_launched(words, out, err, timeout_s, cwd)
        out.seek(0)
        err.seek(0)
        stdout = out.read().decode("utf-8", "replace")
        stderr = err.read().decode("utf-8", "replace")
    return Outcome(returncode, _signal_name(returncode), stdout, stderr, peak, elapsed)


def _signal_name(returncode: int | None) -> str:
    if returncode is None or returncode >= 0:
        return ""
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # a real-time signal
        return f"signal {-returncode}"


def _run_launched(words, out, err, timeout_s, cwd):
    read_fd, write_fd = os.pipe()
    with open(read_fd, "rb") as pipe:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, str(write_fd), *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                pass_fds=[write_fd],
                start_new_session=True,
            )
        finally:
            os.close(write_fd)
        try:
            process.wait(timeout_s)
        except BaseException as error:  # also the learner's interrupt: leave no process behind
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None, None, None
            raise
        report = pipe.read()
    if not report:
        raise RuntimeError(
            f"expected a report of how the script ended, found that its launcher "
            f"(process {process.pid}) was gone, status {process.returncode}: run it again"
        )
    return json.loads(report)


def _run_directly(words, out, err, timeout_s, cwd):
    try:
        done = subprocess.run(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return None, None, None
    return done.returncode, None, None
