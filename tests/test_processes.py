"""Functions in processes of their own: what travels, how a process ends, and what is left of it."""

import functools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from nbclient import NotebookClient

from qm9lab import processes
from qm9lab.measure import Missing, MissingError
from qm9lab.measure.missing import STRICT

posix = pytest.mark.skipif(os.name == "nt", reason="signals and wait4")
LIMIT = 3
numbers = np


@pytest.fixture
def late_is_missing(monkeypatch):
    """The outcome of a function that takes too long, where a missing value is allowed."""
    monkeypatch.delenv(STRICT, raising=False)
    monkeypatch.delenv("QM9LAB_TIMEOUT_S", raising=False)


# What travels --------------------------------------------------------------------------------


def same(value):
    return value


@pytest.mark.parametrize(
    "value",
    [
        None, True, 7, -(2**70), 0.1, "é\ud800\n", b"\0\xff", [], [1, [2, "x"]], (1, (2, [3])),
        {"a": {"tuple": 1}, "": None}, Path("/a b/c"), {"deep": [({"x": (1.5,)},)]},
    ],
)  # fmt: skip
def test_plain_values_come_back_as_they_were(value):
    found = processes.run(same, value).value
    assert found == value and type(found) is type(value)


def test_arrays_come_back_as_they_were():
    arrays = [
        np.arange(6, dtype=">i2").reshape(2, 3).T,
        np.zeros((0, 3), bool),
        np.array([("a", 1.5)], dtype=[("name", "U4"), ("x", "f4")]),
        np.array(2.5),
    ]
    found = processes.run(same, {"arrays": arrays, "scalar": np.float32(1.1)}).value
    for before, after in zip(arrays, found["arrays"], strict=True):
        assert after.dtype == before.dtype and after.shape == before.shape
        assert (after == before).all()
    assert found["scalar"] == np.float32(1.1) and type(found["scalar"]) is np.float32
    assert math.isnan(processes.run(same, float("nan")).value)


def test_a_missing_value_travels(late_is_missing):
    assert processes.run(same, [Missing("no disk")]).value[0].reason == "no disk"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, object()]}, r"argument 1 of same\['a'\]\[1\], a object"),
        ({1: 2}, "argument 1 of same, a dict"),
        ({3}, "a set"),
        (namedtuple("Pair", "a b")(1, 2), "a Pair"),
        (np.array([object()]), "a ndarray"),
        (lambda: 3, "a function"),
    ],
)
def test_what_cannot_travel_is_a_type_error_before_anything_starts(value, where, monkeypatch):
    monkeypatch.setattr(processes.running, "start", None)
    with pytest.raises(TypeError, match=where):
        processes.run(same, value)


def returns_a_set():
    return [{1, 2}]


def test_a_result_that_cannot_travel_is_named():
    with pytest.raises(processes.ProcessError, match=r"the result of returns_a_set\[0\], a set"):
        _ = processes.run(returns_a_set).value


# Which functions -----------------------------------------------------------------------------


def double(x, n: "Unknown" = 2, *, where: np.ndarray = None) -> np.ndarray:  # noqa: F821
    """A text
    with a line at the margin."""
    import math

    return [value * n for value in x], math.pi, len(double.__doc__)


def add_all(x):
    return numbers.sum([add_one(value) for value in x])


def add_one(value):
    return value + 1


def with_default(n=LIMIT):
    return n


def decorator(function):
    @functools.wraps(function)
    def wrapped(*args):
        return function(*args) + 1

    return wrapped


@decorator
def decorated(x):
    return x


def asks_the_limit():
    return LIMIT


def calls_itself(n):
    return 1 if n == 0 else n * calls_itself(n - 1)


def keeps_a_global():
    global kept_here
    kept_here = 4
    return kept_here


def test_a_function_needs_what_it_imports_and_nothing_else():
    assert processes.run(double, [1, 2]).value == ([2, 4], math.pi, len(double.__doc__))
    assert processes.run(calls_itself, 5).value == 120
    assert processes.run(keeps_a_global).value == 4


def test_helpers_and_modules_are_named_with_uses():
    found = processes.run(add_all, [1, 2], uses=[np, add_one]).value
    assert found == 5 and type(found) is np.int64
    other_name = np
    alias = add_one

    def nested(x):
        return other_name.asarray([alias(value) for value in x])

    assert processes.run(nested, [1], uses=[np, add_one]).value.tolist() == [2]


def test_a_decorated_function_takes_its_decorator_along():
    assert processes.run(decorated, 3, uses=[decorator, functools]).value == 4


def closes_over():
    secret = 5

    def inner(x):
        return [x + secret for _ in range(2)]

    return inner


def shadows_a_builtin():
    sum = 3

    def inner():
        return sum

    return inner


FAULTS = [
    (closes_over(), "inner closes over the variable secret, .* pass it as an argument"),
    (shadows_a_builtin(), "closes over the variable sum"),
    (asks_the_limit, "asks_the_limit uses the name LIMIT, .* pass it as an argument"),
    (with_default, "with_default uses the name LIMIT"),
    (decorated, "uses the name decorator, .* uses=.decorator"),
    (add_all, "uses the name add_one, .* uses=.add_one"),
    (lambda: 3, "written with def, found <lambda>"),
    (Path().exists, r"found exists \(method\)"),
    (Path, r"found Path \(type\)"),
    (len, r"found len \(builtin_function_or_method\)"),
    (functools.partial(same, 1), "expected a function that is written with def"),
]


@pytest.mark.parametrize(("function", "words"), FAULTS)
def test_a_function_that_cannot_be_sent_is_an_error_before_anything_starts(
    function, words, monkeypatch
):
    monkeypatch.setattr(processes.running, "start", None)
    with pytest.raises(processes.FunctionError, match=words):
        processes.run(function)
    with pytest.raises(processes.FunctionError, match=words), processes.hold(function):
        pass
    with pytest.raises(processes.FunctionError, match=words):
        processes.run(same, 3, uses=[function])  # a helper is held to the same rules


def test_a_function_without_source_is_an_error():
    names = {}
    exec("def made(): return 3", names)
    with pytest.raises(processes.FunctionError, match="expected the source of made, found none"):
        processes.run(names["made"])


def test_a_name_with_two_meanings_is_an_error():
    tool = np

    def first():
        return tool.pi

    def second():
        return first(), tool.pi

    outer = second

    def rebind():
        tool = math

        def first_again():
            return tool.pi

        return first_again

    with pytest.raises(processes.FunctionError, match="tool means one thing"):
        processes.run(outer, uses=[np, math, first, rebind()])


def test_functions_from_a_notebook_s_cells(tmp_path):
    """IPython gives a cell's names an ``open`` of its own; the process runs without its main."""
    cells = [
        """
        import numpy as np
        print("the main module runs")
        def half(x):
            with open("here.txt", "w") as f:
                f.write("x")
            return np.asarray(x) / 2""",
        """
        import os, sys
        sys.path.insert(0, os.environ["ROOT"])
        from qm9lab import processes
        outcome = processes.run(half, [1, 2], uses=[np])
        print(outcome.value.tolist(), outcome.stdout == "", os.path.exists("here.txt"))""",
    ]
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=cells)
    os.environ["ROOT"] = str(Path(processes.__file__).parents[2])
    there = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, resources=there).execute()
    assert notebook.cells[1].outputs[0].text == "[0.5, 1.0] True True\n"


# How it ended --------------------------------------------------------------------------------


def prints_and_returns():
    import os
    import sys

    print("out")
    print("é", file=sys.stderr)
    os.write(1, b'{"result": 3}\n')
    return os.getpid(), sys.flags.utf8_mode


def test_value_output_and_a_process_of_its_own():
    outcome = processes.run(prints_and_returns)
    pid, utf8_mode = outcome.value
    assert pid != os.getpid() and utf8_mode == 1
    assert sorted(outcome.stdout.splitlines()) == ["out", '{"result": 3}']
    assert outcome.stderr == "é\n" and outcome.returncode == 0 and outcome.signal is None
    assert not outcome.timed_out and outcome.how_it_ended == "exit status 0"


def fails():
    return 1 / 0


def leaves(status):
    raise SystemExit(status)


def test_a_function_that_raised_has_no_value():
    outcome = processes.run(fails)
    assert outcome.returncode == 1 and outcome.last_line == "ZeroDivisionError: division by zero"
    with pytest.raises(processes.ProcessError, match="(?s)exit status 1.*division by zero"):
        _ = outcome.value
    for status in (0, 3):
        outcome = processes.run(leaves, status)
        assert outcome.returncode == status and outcome.last_line == ""
        with pytest.raises(processes.ProcessError, match=f"exit status {status}"):
            _ = outcome.value


def kills_itself(number):
    import os

    print(1, flush=True)
    os.kill(os.getpid(), number)


@posix
@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGSEGV, signal.SIGKILL, 40])
def test_a_signal_is_named(number):
    outcome = processes.run(kills_itself, int(number))
    name = "signal 40" if number == 40 else number.name  # a real-time signal has no name
    assert outcome.signal == name and outcome.returncode == -number and outcome.stdout == "1\n"
    assert outcome.how_it_ended == f"killed by {name}"
    with pytest.raises(processes.ProcessError, match=f"killed by {name}"):
        _ = outcome.value


def takes(n_mib):
    return len(bytearray(n_mib << 20))


@posix
def test_the_peak_is_the_process_s_own_and_not_its_parent_s():
    ballast = bytearray(400 << 20)
    small, large = processes.run(takes, 1), processes.run(takes, 200)
    del ballast
    assert small.peak_rss_bytes < 60 << 20
    assert 200 << 20 < large.peak_rss_bytes < 260 << 20


@posix
@pytest.mark.skipif(shutil.which("time", path="/usr/bin") is None, reason="no /usr/bin/time")
def test_the_peak_agrees_with_time():
    script = "x = bytearray(150 << 20)"
    words = subprocess.run(
        ["/usr/bin/time", "-v", sys.executable, "-X", "utf8", "-c", script],
        capture_output=True, text=True,
    )  # fmt: skip
    by_time = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", words.stderr)[1]) * 1024
    assert abs(processes.run_script(script).peak_rss_bytes - by_time) < 8 << 20


def reports_where_it_is():
    import os
    import sys

    colour = {name: os.environ.get(name) for name in ("NO_COLOR", "FORCE_COLOR", "PYTHON_COLORS")}
    return os.getcwd(), sys.path, colour


def test_it_runs_in_a_folder_with_the_parent_s_path_and_without_colour(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    monkeypatch.syspath_prepend(str(tmp_path / "a:b"))
    folder, path, colour = processes.run(reports_where_it_is, cwd=tmp_path).value
    assert folder == str(tmp_path.resolve()) and path[0] == str(tmp_path / "a:b")
    assert colour == {"NO_COLOR": "1", "FORCE_COLOR": None, "PYTHON_COLORS": "0"}
    assert "\x1b" not in processes.run(fails).stderr + processes.run_script("1 / 0").stderr


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(*pids):
    """A process that was killed with its group may be no child of ours to wait for."""
    deadline_s = time.monotonic() + 30
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline_s, "a process was left"
        time.sleep(0.01)


def starts_another(path):
    import os
    import subprocess
    import sys
    import time

    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    with open(path, "w") as f:
        f.write(f"{os.getpid()} {other.pid}")
    print("before", flush=True)
    time.sleep(99)


@posix
def test_out_of_time_is_a_missing_value_and_leaves_nothing(late_is_missing, tmp_path):
    outcome = processes.run(starts_another, tmp_path / "pids", timeout_s=4)
    assert outcome.timed_out and outcome.stdout == "before\n"
    assert outcome.how_it_ended == "stopped at its time limit"
    words = str(outcome.value)
    assert "this machine is busy: starts_another did not end within" in words
    assert "Run this cell again" in words and "QM9LAB_TIMEOUT_S=" in words
    # What a cell does next goes on.
    assert outcome.value == 5 and outcome.value + 1 > 0 and outcome.signal == "SIGBUS"
    assert outcome.returncode == 0 and outcome.peak_rss_bytes < 0
    wait_until_gone(*map(int, (tmp_path / "pids").read_text().split()))


def test_out_of_time_raises_where_nothing_may_be_missing(monkeypatch):
    monkeypatch.setenv(STRICT, "1")
    with pytest.raises(MissingError, match="this machine is busy"):
        processes.run_script("import time; time.sleep(99)", timeout_s=0.2)


def test_the_time_limit_follows_the_load_and_the_environment(monkeypatch):
    n = os.cpu_count()
    monkeypatch.delenv("QM9LAB_TIMEOUT_S", raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1 * n, 0, 0))
    assert processes.running.time_limit_s(60) == 60
    monkeypatch.setattr(os, "getloadavg", lambda: (4.0 * n, 0, 0))
    assert processes.running.time_limit_s(60) == 240
    monkeypatch.setenv("QM9LAB_TIMEOUT_S", "900")
    assert processes.running.time_limit_s(60) == 900
    assert processes.run(same, 3, timeout_s=0.001).value == 3
    monkeypatch.setenv("QM9LAB_TIMEOUT_S", "ten")
    with pytest.raises(ValueError, match="seconds in QM9LAB_TIMEOUT_S, found 'ten'"):
        processes.running.time_limit_s(60)


@posix
def test_no_core_file_no_zombie_no_descriptor_no_folder_is_left(
    late_is_missing, tmp_path, monkeypatch
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = psutil.Process().num_fds()
    processes.run(kills_itself, int(signal.SIGABRT), cwd=tmp_path)
    processes.run_script("import time; time.sleep(9)", timeout_s=0.2)
    with pytest.raises(FileNotFoundError):
        processes.run(same, 3, cwd=tmp_path / "none")
    assert psutil.Process().num_fds() == before
    assert os.listdir(tmp_path) == ["temporary"] and os.listdir(tmp_path / "temporary") == []
    assert not [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE]


@posix
def test_an_interrupt_leaves_no_process_behind(tmp_path):
    """Stop in a notebook is SIGINT to this process; the child must not live on."""

    def interrupt():
        while not (tmp_path / "pids").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        processes.run(starts_another, tmp_path / "pids")
    thread.join()
    wait_until_gone(*map(int, (tmp_path / "pids").read_text().split()))


def kills_its_launcher():
    import os
    import signal

    os.kill(os.getppid(), signal.SIGKILL)


@posix
def test_a_launcher_that_was_killed_is_reported(late_is_missing):
    outcome = processes.run(kills_its_launcher)
    assert outcome.signal == "SIGKILL" and "launcher" in outcome.peak_rss_bytes.reason


def test_a_script_gets_its_arguments(tmp_path):
    outcome = processes.run_script("import sys; print(sys.argv[1:]); sys.exit(3)", tmp_path, 5)
    assert outcome.stdout == f"['{tmp_path}', '5']\n" and outcome.returncode == 3


def forks():
    import os

    import numpy  # noqa: F401 (starts threads)

    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@posix
def test_a_function_that_forks_in_a_threaded_process_prints_no_warning():
    outcome = processes.run(forks)
    assert outcome.value == 0 and outcome.stderr == ""


# Processes that hold something ---------------------------------------------------------------


def open_counter(start):
    return {"n": start}


def count(counter, step, values=()):
    print("this is no answer")
    counter["n"] += step
    return counter["n"], len(values)


def its_pid(counter):
    import os

    return os.getpid()


def refuses(counter):
    raise PermissionError(13, "no")


def dies(counter):
    import os

    print("last words", flush=True)
    os._exit(7)


def starts_one(counter):
    import subprocess
    import sys

    counter["other"] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    return counter["other"].pid


def sleeps(counter, seconds):
    import time

    time.sleep(seconds)


def test_a_process_keeps_its_value_and_answers_in_order():
    with processes.hold(open_counter, 5) as a, processes.hold(open_counter, 0) as b:
        assert a.call(its_pid) == a.pid != b.pid == b.call(its_pid)
        assert a.call(count, 2, np.zeros(9)) == (7, 9) and a.call(count, 2) == (9, 0)
        for process in (a, b):
            process.send(count, 1)
        assert [process.receive() for process in (a, b)] == [(10, 0), (1, 0)]
    wait_until_gone(a.pid, b.pid)


def test_an_error_in_a_held_process_is_raised_here_and_the_process_goes_on():
    with processes.hold(open_counter, 5) as process:
        with pytest.raises(processes.ProcessError, match="(?s)refuses failed .*PermissionError"):
            process.call(refuses)
        with pytest.raises(processes.FunctionError):
            process.call(asks_the_limit)
        with pytest.raises(TypeError):
            process.call(count, {3})
        assert process.call(count, 1) == (6, 0)
        with pytest.raises(processes.ProcessError, match="(?s)exit status 7.*last words"):
            process.call(dies)
    with pytest.raises(processes.ProcessError, match="fails failed"):
        with processes.hold(fails):
            pass


def test_held_processes_end_when_the_block_fails_with_what_they_started():
    with pytest.raises(ZeroDivisionError), processes.hold(open_counter, 5) as process:
        started = process.call(starts_one)
        assert is_alive(started)
        raise ZeroDivisionError
    assert not is_alive(process.pid)
    if os.name != "nt":
        wait_until_gone(started)


def test_a_held_process_out_of_time_is_a_missing_value(late_is_missing):
    with processes.hold(open_counter, 5) as process:
        process._limit_s = 0.2
        assert "sleeps did not end within" in str(process.call(sleeps, 99))
        assert process.call(count, 1) + 1 == "goes on"
    assert not is_alive(process.pid)


@posix
def test_a_held_process_ends_by_itself_when_its_parent_is_gone():
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from test_processes import its_pid, open_counter
from qm9lab import processes
with processes.hold(open_counter, 1) as process:
    print(process.call(its_pid), flush=True)
    sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    wait_until_gone(pid)
