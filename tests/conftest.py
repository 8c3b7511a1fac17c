"""How the notebooks are run and compared under nbval, and how xdist shares out the tests.

On Linux with a real disk all tests, their kernels and child processes run with QM9LAB_STRICT=1:
there no value is missing, so making a ``measure.Missing`` is an error. A test that provokes one
says ``monkeypatch.delenv("QM9LAB_STRICT", raising=False)``.
"""

import ctypes
import os
import signal
import sys
import tempfile
import time
from functools import partial
from queue import Empty

import pytest

CELL_TIMEOUT_S = 120
# Files whose tests take long and have a kernel each.
SHARED_OUT = ("test_browser.py", "test_fuse.py", "test_other_systems.py", "test_twice.py")
# In CI (QM9LAB_TURN is 0 to 3) these take every fourth lesson, each suite begins with another one,
# and the next three commits take the others.
N_TURNS = 4
TAKE_TURNS = {
    "test_lesson_in_the_browser": 0,
    "test_each_cell_runs_twice": 1,
    "test_lesson_reaches_the_bottom_and_says_what_is_missing": 2,
    "test_the_first_build_takes_a_minute_at_most": 0,
}
REAL_DISKS = {"btrfs", "ext4", "xfs"}
CACHESTAT = 451  # the system call's number, on all architectures but alpha and MIPS


def pytest_addoption(parser):
    """Options of test_other_systems.py and test_fuse.py."""
    parser.addoption("--system", choices=["Darwin", "Windows"], help="pretend this one alone")
    parser.addoption("--all-fuse", action="store_true", help="all lessons that count pages on FUSE")


def has_all_values(*folders):
    """Whether this system can give every value that the kit asks for, on files in the folders."""
    from qm9lab.measure import file_system

    if sys.platform != "linux" or {file_system(folder) for folder in folders} - REAL_DISKS:
        return False
    with tempfile.TemporaryFile() as f:
        span, counts = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()
        return ctypes.CDLL(None).syscall(CACHESTAT, f.fileno(), span, counts, 0) == 0


def pytest_configure(config):
    from qm9lab import qm9

    # Of another user's data the kernel hides which pages are cached (tests/test_ordinary_user.py).
    is_ours = os.access(qm9.folder(), os.W_OK) or not os.path.exists(qm9.folder())
    if is_ours and has_all_values(qm9.folder(), tempfile.gettempdir()):
        os.environ.setdefault("QM9LAB_STRICT", "1")
    if config.pluginmanager.has_plugin("nbval"):
        config.option.nbval_cell_timeout = CELL_TIMEOUT_S
        config.option.nbval_current_env = True
        # A plugin of its own rather than hooks of this file: a conftest's hooks are called for the
        # tests below its own folder only, and the notebooks are elsewhere.
        config.pluginmanager.register(NotebookRules(), "qm9lab-notebook-rules")


def pytest_collection_modifyitems(config, items):
    turn = os.environ.get("QM9LAB_TURN")
    for name, first in TAKE_TURNS.items() if turn else ():
        lessons = [item for item in items if getattr(item, "originalname", "") == name]
        ours = lessons[(int(turn) + first) % N_TURNS :: N_TURNS]
        others = [item for item in lessons if item not in ours]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``-n 2``: all notebooks, one after another, on one core; test files on the other.

    The tests of the files in ``SHARED_OUT`` go singly to whichever core is free.

    Notebooks share files and the page cache, so two at a time would disturb each other's counts.
    (The groups of xdist 3.8, ``--dist loadgroup``, group nothing under pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class NotebooksTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            if path.endswith(SHARED_OUT):
                return nodeid
            return "notebooks" if path.endswith(".ipynb") else path

    return NotebooksTogether(config, log)


class NotebookRules:
    """nbval, with three rules of ours.

    Standard error is not compared (progress bars, warnings of other packages). A kernel that dies
    fails its cell at once, by name of the signal, where nbval would wait for the timeout. The
    cells after it are skipped.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        for notebook in {item.parent for item in items if _is_cell(item)}:
            notebook.skip_compare = (*notebook.skip_compare, "stderr")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item):
        if not _is_cell(item):
            return
        kernel = item.parent.kernel
        if died := getattr(kernel, "died", None):
            pytest.skip(f"the kernel died in {died}")
        kernel.await_reply = partial(_await_reply, item, kernel, type(kernel).await_reply)


def _is_cell(item):
    return type(item).__name__ == "IPyNbCell"


def _await_reply(item, kernel, await_reply, msg_id, timeout=None):
    """nbval's ``RunningKernel.await_reply``, looking each second whether the kernel lives."""
    deadline_s = time.monotonic() + (timeout or CELL_TIMEOUT_S)
    while True:
        try:
            return await_reply(kernel, msg_id, timeout=1)
        except Empty:
            if not kernel.is_alive():
                kernel.died = item.name
                item.raise_cell_error(
                    f"The kernel died in this cell ({_how(kernel)}). What can kill a process "
                    "belongs in a child process: see qm9lab.processes"
                )
            if time.monotonic() > deadline_s:
                raise


def _how(kernel):
    status = kernel.km.provisioner.process.returncode
    return signal.Signals(-status).name if status and status < 0 else f"exit status {status}"
