"""Run a function in a fresh Python process, and see how the process ended."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Final

from qm9lab.measure import Missing

from ._child import decode, encode
from .functions import Use, module_source

TIMEOUT_S: Final = 300.0
LAUNCHER: Final = str(Path(__file__).with_name("_launcher.py"))
CHILD: Final = str(Path(__file__).with_name("_child.py"))
SIGNALS: Final = {-each.value: each.name for each in signal.Signals}


class ProcessError(RuntimeError):
    """A process ended, or a function in it failed, before it gave its value."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended. After a time-out all but the texts is one ``Missing``.

    Attributes
    ----------
    returncode : the exit status; minus the number of the signal that killed the process
    signal : the name of that signal, such as ``"SIGBUS"``; None if none killed it
    stdout, stderr : what the process wrote
    peak_rss_bytes : the most resident memory that it had at once, anonymous and file pages
        together (``ru_maxrss`` of ``wait4(2)``)
    timed_out : whether it was killed at its time limit
    """

    returncode: int | Missing
    signal: str | None | Missing
    stdout: str
    stderr: str
    peak_rss_bytes: int | Missing
    timed_out: bool
    _name: str = dataclasses.field(repr=False)
    _values: Sequence[Any] = dataclasses.field(default=(), repr=False)

    @property
    def value(self) -> Any:
        """What the function returned; ProcessError if it raised, or its process was killed."""
        if self._values:
            return self._values[0]
        raise ProcessError(
            f"expected a value from {self._name}, found that its process ended without one: "
            f"{self.how_it_ended}\n{self.stderr[-2000:]}".strip()
        )

    @property
    def how_it_ended(self) -> str:
        """In words: ``exit status 0``, ``killed by SIGBUS`` or ``stopped at its time limit``."""
        if self.timed_out:
            return "stopped at its time limit"
        return f"killed by {self.signal}" if self.signal else f"exit status {self.returncode}"

    @property
    def last_line(self) -> str:
        """The last line of ``stderr``: the error that ended a traceback."""
        return (self.stderr.strip().splitlines() or [""])[-1]


def run(
    function: Callable[..., Any],
    *args: Any,
    uses: Iterable[Use] = (),
    timeout_s: float = TIMEOUT_S,
    cwd: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Call ``function(*args)`` in a fresh Python process, and wait until it ends.

    The function may come from a notebook's cell. It imports what it uses; ``uses`` names helpers
    that it calls, and modules that it does not import itself. Arguments and the result are
    numbers, text, bytes, None, paths, NumPy arrays, and lists, tuples and dicts of those. At its
    time limit (see ``time_limit_s``) the process is killed, with what it started.

    Raises
    ------
    FunctionError
        If the function needs something that a new process does not have.
    TypeError
        If an argument cannot be sent.

    Notes
    -----
    The function travels as source, values as JSON and ``.npy`` files; nothing is pickled, and your
    main module is not imported. The process runs without colour and leaves no core file.
    """
    with tempfile.TemporaryDirectory(prefix="qm9lab-run-") as folder:
        command = prepare_call(folder, function, args, uses)
        Path(folder, "command.json").write_text(json.dumps(command))
        outcome = _run(["-P", CHILD, "run", folder], command["function"], timeout_s, cwd)
        result = Path(folder, "result.json")
        if not outcome.timed_out and outcome.returncode == 0 and result.exists():
            value = decode(json.loads(result.read_text()))
            outcome = dataclasses.replace(outcome, _values=[value])
    return outcome


def on_linux(function: Callable[..., Any], *args: Any, uses: Iterable[Use] = ()) -> Any:
    """What a function that needs Linux returns in a fresh process, or the last line of its error.

    On another system a ``Missing``, and no process is started.
    """
    if sys.platform != "linux":
        return Missing("only Linux does this")
    outcome = run(function, *args, uses=uses)
    return outcome.last_line or outcome.value


def run_script(
    script: str, *args: object, timeout_s: float = TIMEOUT_S, cwd: str | None = None
) -> Outcome:
    """Run Python source, which sees ``args`` as ``sys.argv[1:]``, in a fresh process; see ``run``.

    For lessons that still write their scripts as text.
    """
    return _run(["-c", script, *map(str, args)], "the script", timeout_s, cwd)


def time_limit_s(timeout_s: float) -> float:
    """A time limit in seconds, at least ``QM9LAB_TIMEOUT_S``.

    Where twice as many processes want to run as there are cores, the limit is twice as long.
    """
    words = os.environ.get("QM9LAB_TIMEOUT_S") or "0"
    if not words.replace(".", "", 1).isdecimal():
        raise ValueError(
            f"expected a number of seconds in QM9LAB_TIMEOUT_S, found {words!r}: change it"
        )
    n_running = os.getloadavg()[0] if sys.platform != "win32" else 0.0
    return max(timeout_s, timeout_s * n_running / (os.cpu_count() or 1), float(words))


def late(name: str, limit_s: float) -> Missing:
    """The value of a function that did not end in time."""
    return Missing(
        f"this machine is busy: {name} did not end within {limit_s:.0f} s. Run this cell again. "
        f"To wait longer, set QM9LAB_TIMEOUT_S={2 * limit_s:.0f}"
    )


def prepare_call(
    folder: str, function: Callable[..., Any], args: Sequence[Any], uses: Iterable[Use]
) -> dict[str, Any]:
    """The command that has a child call a function; its source goes into ``folder``."""
    source, name = module_source(function, uses), function.__name__
    module = f"{name}_{zlib.crc32(source.encode()):08x}"  # the same source, the same module
    parts = [encode(part, folder, f"argument {i} of {name}") for i, part in enumerate(args, 1)]
    Path(folder, f"{module}.py").write_text(source, encoding="utf-8")
    path = [part or os.getcwd() for part in sys.path]
    Path(folder, "path.json").write_text(json.dumps(path))
    return {"module": module, "function": name, "args": parts}


def start(words: Sequence[str], report_fd: int = -1, **how: Any) -> subprocess.Popen[Any]:
    """Start Python, without colour, in a process group of its own, and without core files."""
    environment = os.environ | {"NO_COLOR": "1", "PYTHON_COLORS": "0"}
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        environment.pop(name, None)
    words = ["-X", "utf8", *words]
    if os.name != "nt":
        words = ["-I", "-S", LAUNCHER, str(report_fd), *words]
        how |= {"start_new_session": True, "pass_fds": [report_fd][: report_fd + 1]}
    return subprocess.Popen([sys.executable, *words], env=environment, **how)


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process that ``start`` started, with its group, and wait for it."""
    if os.name == "nt":
        process.kill()
    elif process.poll() is None:  # not reaped yet, so no other process has its number
        with contextlib.suppress(PermissionError):  # macOS, if all of the group are zombies
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def text_of(f: IO[bytes]) -> str:
    """What a process wrote to a file that it shares with us."""
    f.seek(0)
    return f.read().decode("utf-8", "replace").replace("\r\n", "\n")


def _run(words: Sequence[str], name: str, timeout_s: float, cwd: Any) -> Outcome:
    limit_s, timed_out = time_limit_s(timeout_s), False
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": files[0], "stderr": files[1]}
        process = start(words, files[2].fileno(), cwd=cwd, **pipes)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:  # also at the learner's interrupt: leave no process running
            kill(process)
        stdout, stderr, report = map(text_of, files)
    if timed_out:
        gone = late(name, limit_s)
        return Outcome(gone, gone, stdout, stderr, gone, timed_out, name, [gone])
    if report:
        status, peak_rss_bytes = json.loads(report)
    else:
        status = process.returncode
        nobody = "Windows does not report" if os.name == "nt" else "its launcher was killed before"
        peak_rss_bytes = Missing(f"{nobody} the peak RSS of a process that has ended")
    killed_by = SIGNALS.get(status, f"signal {-status}") if status < 0 else None
    return Outcome(status, killed_by, stdout, stderr, peak_rss_bytes, timed_out, name)
