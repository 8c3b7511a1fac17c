"""Scripts in a child process: every way to end is told apart."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from qm9lab import processes

posix = pytest.mark.skipif(os.name == "nt", reason="signals and wait4")


def test_exit_status_output_and_arguments(tmp_path):
    outcome = processes.run_script(
        "import sys; print(sys.argv[1:]); print('é', file=sys.stderr); sys.exit(3)", tmp_path, 5
    )
    assert outcome.returncode == 3 and outcome.signal == "" and not outcome.timed_out
    assert outcome.stdout == f"['{tmp_path}', '5']\n" and outcome.stderr == "é\n"
    assert outcome.how_it_ended == "exit status 3"


def test_a_traceback_ends_in_its_last_line():
    outcome = processes.run_script("1 / 0")
    assert outcome.returncode == 1
    assert outcome.last_line == "ZeroDivisionError: division by zero"
    assert processes.run_script("pass").last_line == ""


@posix
@pytest.mark.parametrize("name", ["SIGBUS", "SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_signal_is_named(name):
    outcome = processes.run_script(
        f"import os, signal; print(1, flush=True); os.kill(os.getpid(), signal.{name})"
    )
    assert outcome.signal == name and outcome.returncode < 0 and outcome.stdout == "1\n"
    assert outcome.how_it_ended == f"killed by {name}"


@posix
def test_a_child_that_takes_too_long_is_killed_with_all_that_it_started():
    script = (
        "import subprocess, sys, time; print('before', flush=True); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(77)']); time.sleep(77)"
    )
    start = time.monotonic()
    outcome = processes.run_script(script, timeout_s=1.5)
    assert outcome.timed_out and outcome.returncode is None and outcome.stdout == "before\n"
    assert outcome.how_it_ended == "stopped at its time limit"
    assert time.monotonic() - start < 10
    time.sleep(0.2)
    left = [
        p for p in psutil.process_iter(["cmdline"]) if "time.sleep(77)" in str(p.info["cmdline"])
    ]
    assert left == []


@posix
def test_the_peak_is_the_child_s_own_and_not_its_parent_s():
    ballast = bytearray(400 << 20)
    small, large = processes.run_script("pass"), processes.run_script("x = bytearray(200 << 20)")
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


def test_it_runs_where_it_is_told_and_sees_the_installed_packages(tmp_path):
    outcome = processes.run_script("import os, numpy; print(os.getcwd())", cwd=tmp_path)
    assert outcome.stdout.strip() == str(tmp_path.resolve()) and outcome.returncode == 0


@posix
def test_no_core_file_no_zombie_no_descriptor_is_left(tmp_path):
    before = psutil.Process().num_fds()
    processes.run_script("import os; os.abort()", cwd=tmp_path)
    processes.run_script("import time; time.sleep(9)", timeout_s=0.2)
    assert psutil.Process().num_fds() == before
    assert list(tmp_path.iterdir()) == []
    assert not [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE]


@posix
def test_a_real_time_signal_is_an_outcome_too():
    outcome = processes.run_script("import os; os.kill(os.getpid(), 40)")
    assert outcome.signal == "signal 40" and outcome.returncode == -40


@posix
def test_a_folder_that_is_not_there_leaks_nothing(tmp_path):
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        processes.run_script("pass", cwd=tmp_path / "none")
    assert psutil.Process().num_fds() == before


@posix
def test_an_interrupt_leaves_no_process_behind():
    """Stop in a notebook is SIGINT to this process; the child must not live on."""
    script = "import time; time.sleep(55.5)"
    interrupt = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        processes.run_script(script)
    interrupt.join()
    time.sleep(0.3)
    assert not [p for p in psutil.process_iter(["cmdline"]) if script in (p.info["cmdline"] or [])]


@posix
def test_a_launcher_that_was_killed_is_said():
    script = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    with pytest.raises(RuntimeError, match="its launcher .* was gone, status -9"):
        processes.run_script(script)
