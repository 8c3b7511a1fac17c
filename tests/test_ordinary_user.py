"""Each lesson as a learner has it: not root, no network, somebody else's data folder.

The repository is copied to a folder whose name has a space and an accent and given to a user with
no name and no rights (65534, "nobody"). One pytest then runs tests/test_twice.py there: each lesson
from a fresh kernel with an empty home, each cell twice. It has a network namespace with nothing but
loopback, which kernels need, and the built data as a read-only folder of another user.
"""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UID = 65534
TIMEOUT_S = 1800


def unavailable():
    """Why no sandbox can be made here; None if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can start a process as another user"
    missing = [tool for tool in ("setpriv", "unshare", "mount", "ip") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)} (util-linux, iproute2)"
    trial = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {trial.stderr.strip()}" if trial.returncode else None


UNAVAILABLE = unavailable()
pytestmark = [
    pytest.mark.user,
    pytest.mark.slow,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]

# Runs as root in a network and a mount namespace of its own, and starts loopback. A parent folder
# that is closed to others (/root, a private temporary folder) is covered by an empty one. What must
# be reached below it is held open meanwhile, and bound there again. At last the rights are dropped.
SANDBOX = r"""
import json, os, subprocess, sys
from pathlib import Path

uid, folders, command = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
run = lambda *words, **how: subprocess.run(words, check=True, **how)
run("ip", "link", "set", "lo", "up")
held = {folder: os.open(folder, os.O_PATH) for folder in folders}
for folder in map(Path, folders):
    for parent in reversed(folder.parents):
        if parent.exists() and not parent.stat().st_mode & 0o001:
            run("mount", "-t", "tmpfs", "-o", "mode=755", "none", parent)
for folder, fd in held.items():
    if not (os.path.exists(folder) and os.path.samestat(os.stat(folder), os.fstat(fd))):
        os.makedirs(folder)
        source = f"/proc/self/fd/{fd}"
        run("mount", "--no-canonicalize", "--bind", source, folder, pass_fds=[fd])
ids = ["--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
os.execvp("setpriv", ["setpriv", *ids, *command])
"""


class Learner:
    """A user without rights, with a home and a copy of the repository."""

    def __init__(self, place):
        self.repository = place / "mémoire partagée" / "qm9lab kit"
        self.home = place / "home"
        _copy_repository(self.repository)
        (self.home / "tmp").mkdir(parents=True)
        for path in (place, *place.rglob("*")):
            os.chown(path, UID, UID, follow_symlinks=False)

    @property
    def data(self):
        return Path(os.environ.get("QM9LAB_DATA") or ROOT / "data").absolute()

    def run(self, *words, timeout_s=TIMEOUT_S):
        """Run a program of this Python's environment in the sandbox."""
        reached = [Path(sys.base_prefix).resolve(), Path(sys.prefix), self.data]
        reached += [self.home, self.repository]
        environment = {
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "LANG": "C.UTF-8",
            "QM9LAB_DATA": str(self.data),
            "PYTHONPATH": str(self.repository),
            "PYTHONDONTWRITEBYTECODE": "1",
            "QM9LAB_TURN": os.environ.get("QM9LAB_TURN", ""),
        }
        sandbox = ["unshare", "--net", "--mount", "--propagation", "private"]
        sandbox += [sys.executable, "-c", SANDBOX, str(UID), json.dumps(list(map(str, reached)))]
        return subprocess.run(
            [*sandbox, *self._in_repository(words)],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def set_up(self):
        """Let ``make lab`` find this Python's environment, by links in the copy's .venv."""
        venv = self.repository / ".venv"
        venv.mkdir()
        for path in Path(sys.prefix).iterdir():
            if not path.name.startswith(".qm9lab-ready"):
                (venv / path.name).symlink_to(path)
        stamp = "{ pwd -P; cat pyproject.toml requirements.lock; } | cksum"  # the Makefile's
        stamp = subprocess.check_output(["sh", "-c", stamp], cwd=self.repository)
        (venv / ".qm9lab-ready").write_bytes(stamp)
        for path in (venv, *venv.iterdir()):
            os.chown(path, UID, UID, follow_symlinks=False)

    def _in_repository(self, words):
        """The command, with the copy as its working directory, entered without any rights."""
        command = shlex.join([str(Path(sys.prefix) / "bin" / "python"), *map(str, words)])
        return ["sh", "-c", f"cd {shlex.quote(str(self.repository))} && exec {command}"]


def _copy_repository(to):
    """The files that git tracks or would track: no .venv, no data, nobody's work."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # a tracked file may have been deleted
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)


@pytest.fixture(scope="module")
def learner():
    place = Path(tempfile.mkdtemp(prefix="qm9lab-"))
    place.chmod(0o755)
    try:
        yield Learner(place)
    finally:
        shutil.rmtree(place)


LOOK = """
import os, pathlib, socket, sys
import qm9lab
from qm9lab import qm9
print("user", os.getuid(), os.getgid(), os.getgroups())
print("package", pathlib.Path(qm9lab.__file__).parent.parent == pathlib.Path.cwd())
print("capabilities", int(open("/proc/self/status").read().split("CapEff:")[1].split()[0], 16))
def tries(what, *args):
    try:
        what(*args)
    except OSError as error:
        return type(error).__name__, error.strerror
    return "did it"
print("network", tries(socket.create_connection, ("192.0.2.1", 80), 5))
print("data", qm9.record_file().is_file(), tries((qm9.folder() / "mine").write_text, ""))
print("home", tries((pathlib.Path.home() / "mine").write_text, ""))
print("here", tries(pathlib.Path("mine").write_text, ""))
server = socket.create_server(("127.0.0.1", 0))
print("loopback", tries(socket.create_connection, server.getsockname(), 5))
"""


def test_the_sandbox_is_what_it_says(learner):
    done = learner.run("-c", LOOK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"user {UID} {UID} []",
        "package True",
        "capabilities 0",
        "network ('OSError', 'Network is unreachable')",
        "data True ('PermissionError', 'Permission denied')",
        "home did it",
        "here did it",
        "loopback did it",
    ]
    assert " " in str(learner.repository) and "é" in str(learner.repository)


def run_tests(learner, *options):
    """pytest, in the sandbox; the names of failed tests stand at the end of what it prints."""
    words = ["-m", "pytest", "-q", "-p", "no:nbval", "-p", "no:cacheprovider"]
    return learner.run(*words, "--basetemp", learner.home / "tests", *options)


def test_every_lesson_runs_and_each_cell_twice(learner):
    """Two lessons at a time: they may not disturb each other. And the take-home cells, alone."""
    files = ["tests/test_twice.py", "tests/test_take_home.py"]
    done = run_tests(learner, "-n", "2", "-m", "user or take_home", *files)
    printed = f"{done.stdout[-12_000:]}{done.stderr[-2000:]}"
    assert done.returncode == 0 and " skipped" not in done.stdout, printed


def test_a_notebook_that_fails_is_named(learner):
    import nbformat

    path = learner.repository / "notebooks" / "99_fails.ipynb"
    cells = [nbformat.v4.new_code_cell(s) for s in ("import os", "assert os.getuid() == 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    done = run_tests(learner, "-k", "99_fails", "tests/test_twice.py")
    path.unlink()
    assert done.returncode == 1 and "FAILED tests/test_twice.py::" in done.stdout, done.stdout
    assert "[99_fails]" in done.stdout and "1 failed" in done.stdout, done.stdout


@pytest.mark.skipif(
    not importlib.util.find_spec("playwright"), reason="needs playwright (make test-browser)"
)
def test_jupyterlab_and_the_page_map_in_a_browser(learner):
    learner.set_up()
    tests = "test_the_printed_url or test_page_map_by_keyboard"
    done = run_tests(learner, "-m", "browser", "-k", tests, "tests/test_browser.py")
    printed = f"{done.stdout[-6000:]}{done.stderr[-2000:]}"
    assert done.returncode == 0 and "2 passed" in done.stdout, printed
