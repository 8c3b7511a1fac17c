"""``make setup`` on a small kit of its own: real make, venv and pip, packages from a folder.

The small kit has this repository's Makefile and set_up.py. Its wheels are made here, so that
nothing is asked of a network.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("set_up", ROOT / "set_up.py")
set_up = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(set_up)

pytestmark = pytest.mark.skipif(
    not shutil.which("make") or sys.platform == "win32", reason="needs make and a POSIX shell"
)

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "qm9lab"
version = "1"
"""
BACKEND = """
import shutil
def build_editable(folder, config_settings=None, metadata_directory=None):
    shutil.copy("qm9lab-1-py3-none-any.whl", folder)
    return "qm9lab-1-py3-none-any.whl"
"""
LOOK = "import psutil\nprint(psutil.WHOSE)\n"


def make_wheel(folder, name, module="", requires=()):
    """A wheel of one module, version 1."""
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1", *requires]
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        if module:
            wheel.writestr(f"{name}.py", module)
        info = f"{name}-1.dist-info"
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        wheel.writestr(f"{info}/RECORD", "")


class Kit:
    """A folder with this Makefile, and what it needs to set up."""

    def __init__(self, folder, venv):
        self.folder = folder
        (folder / "qm9lab").mkdir(parents=True)
        for name in ("Makefile", "set_up.py"):
            shutil.copy(ROOT / name, folder)
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "requirements.lock").write_text("psutil==1\ntorch==1\n")
        (folder / "backend.py").write_text(BACKEND)
        (folder / "qm9lab" / "__main__.py").write_text(LOOK)
        for name in ("torch", "onlytests"):
            make_wheel(folder, name)
        make_wheel(folder, "psutil", "WHOSE = 'the one of the lock'")
        for_tests = ["Provides-Extra: test", 'Requires-Dist: onlytests; extra == "test"']
        make_wheel(folder, "qm9lab", requires=["Requires-Dist: psutil", *for_tests])
        if venv:
            shutil.copytree(venv, folder / ".venv", symlinks=True)

    def make(self, *words, **variables):
        """Run make as from a clean shell; its status and what it printed."""
        inherited = ("PIP_", "PYTHON", "MAKE", "QM9LAB")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(inherited)}
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ".", "PIP_CONFIG_FILE": os.devnull}
        environment |= {"LC_ALL": "C.UTF-8"} | variables
        done = subprocess.run(
            ["make", "--no-print-directory", f"PYTHON={sys.executable}", *words],
            cwd=self.folder,
            env={k: v for k, v in environment.items() if v is not None},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    def installed(self):
        site = next(self.folder.glob(".venv/lib/python*/site-packages"))
        names = {path.name.partition("-")[0] for path in site.glob("*.dist-info")}
        return names & {"qm9lab", "torch", "psutil", "onlytests"}


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """A virtual environment with the pip of this one, which is new enough."""
    folder = tmp_path_factory.mktemp("venv")
    words = ["-I", "-m", "venv", "--without-pip", folder]
    subprocess.run([sys.executable, *words], check=True, timeout=300)
    site = next(folder.glob("lib/python*/site-packages"))
    for path in Path(sysconfig.get_path("purelib")).glob("pip*"):
        if path.name == "pip" or path.name.startswith("pip-"):
            shutil.copytree(path, site / path.name)
    return folder


@pytest.fixture
def kit(tmp_path, venv):
    return Kit(tmp_path / "mémoire partagée", venv)


@pytest.fixture(scope="module")
def ready(tmp_path_factory, venv):
    """A kit that was set up, against all odds.

    The date of its pyproject.toml is in the future. The environment tells pip to install elsewhere
    and names another psutil.py and pip.py, and another Python's home.
    """
    odd = tmp_path_factory.mktemp("ready")
    kit = Kit(odd / "mémoire partagée", venv)
    tomorrow = time.time() + 86_400
    os.utime(kit.folder / "pyproject.toml", (tomorrow, tomorrow))
    (odd / "psutil.py").write_text("WHOSE = 'another one'")
    (odd / "pip.py").write_text("raise SystemExit('not pip')")
    elsewhere = dict.fromkeys(["PIP_TARGET", "PYTHONPATH", "PYTHONHOME"], str(odd))
    status, output = kit.make("data", PIP_USER="1", **elsewhere)
    assert status == 0 and "setup: done" in output, output
    assert output.splitlines()[-1] == "the one of the lock"
    return kit


def is_set_up(kit, target="setup"):
    """Whether make has nothing to do."""
    return kit.make("--question", target)[0] == 0


def test_dates_in_the_future_and_the_environment_change_nothing(ready):
    assert is_set_up(ready)


def test_a_changed_lock_is_installed(ready):
    lock = ready.folder / "requirements.lock"
    before = lock.read_text()
    lock.write_text("torch==1\npsutil==1\n")
    assert not is_set_up(ready)
    lock.write_text(before)


def test_a_moved_folder_is_set_up_again(ready):
    here = ready.folder
    ready.folder = here.rename(here.parent / "moved")
    assert not is_set_up(ready)
    ready.folder = ready.folder.rename(here)
    assert is_set_up(ready)


def test_a_learner_gets_no_test_tools_and_make_test_adds_them_once(ready):
    assert ready.installed() == {"qm9lab", "torch", "psutil"}
    for_tests = ".venv/.qm9lab-ready-test"
    status, output = ready.make(for_tests)
    assert (status, "onlytests" in ready.installed()) == (0, True), output
    assert is_set_up(ready, for_tests)


def test_a_colon_in_the_path_is_named(tmp_path):
    status, output = Kit(tmp_path / "a:b", None).make("setup")
    assert status != 0
    (line,) = [line for line in output.splitlines() if line.startswith("setup:")]
    assert "a:b" in line and "colon" in line


def test_no_python_is_named():
    make = ["make", "-C", ROOT, "--always-make", "setup", "PYTHON=nosuchpython", "READY=nosuch"]
    done = subprocess.run(make, capture_output=True, text=True, timeout=60)
    assert "found no working Python 3.11 or newer (tried: nosuchpython)" in done.stderr


REMEDIES = {
    "release": "no such release",
    "network": "connect to the network",
    "disk": "make room",
    "hash": "pip cache purge",
    "certificate": "PIP_CERT",
    "proxy": "HTTPS_PROXY",
    "permission": "whose file",
    "unknown": "the last lines",
}


def causes_named(message):
    return {cause for cause, words in REMEDIES.items() if words in message}


@pytest.mark.parametrize(
    "cause, variables",
    [
        ("release", {"lock": "torch==2\n"}),
        ("network", {"PIP_NO_INDEX": None, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}),
    ],
)
def test_only_the_remedy_for_the_cause_is_named(kit, cause, variables):
    if lock := variables.pop("lock", None):
        (kit.folder / "requirements.lock").write_text(lock)
    variables |= {"PIP_RETRIES": "1", "PIP_TIMEOUT": "1"}
    if cause == "network":
        variables["PIP_FIND_LINKS"] = None
    status, output = kit.make("setup", **variables)
    assert status != 0
    assert causes_named(output) == {cause}, output


RETRIED = (
    "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...): "
    "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution'"
)
NONE = "ERROR: Could not find a version that satisfies the requirement x==2 (from versions: none)"
SOME = "ERROR: Could not find a version that satisfies the requirement x==2 (from versions: 1, 3)"


@pytest.mark.parametrize(
    "cause, log",
    [
        ("network", f"{RETRIED}\n{NONE}"),
        ("release", f"{RETRIED}\n{SOME}"),
        ("release", NONE),
        ("disk", "ERROR: Could not install: [Errno 28] No space left on device"),
        ("disk", f"{RETRIED}\nERROR: Exception:\nOSError: [Errno 122] Disk quota exceeded"),
        ("hash", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."),
        ("certificate", f"SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED')\n{NONE}"),
        ("proxy", f"connection broken by 'ProxyError('Cannot connect to proxy.')'\n{NONE}"),
        ("permission", "ERROR: Could not install: [Errno 13] Permission denied: '/x'"),
        ("unknown", "ERROR: something new"),
        ("unknown", ""),
    ],
)
def test_a_cause_is_found_in_what_pip_prints(cause, log):
    assert causes_named(set_up.remedy(log)) == {cause}


def test_an_untried_python_is_named():
    assert "use Python 3.11, 3.12 or 3.13" in set_up.remedy(NONE, (3, 15))
    assert "use Python" not in set_up.remedy(NONE, (3, 12))


@pytest.mark.parametrize(
    "printed, words",
    [
        ("The virtual environment was not created because ensurepip is not", "python3-venv"),
        ("Error: [Errno 28] No space left on device", "make room"),
    ],
)
def test_why_there_is_no_virtual_environment(monkeypatch, tmp_path, printed, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(set_up, "logged", lambda *_: not set_up.LOG.write_text(printed))
    with pytest.raises(SystemExit, match=words) as error:
        set_up.make_venv()
    assert ("python3-venv" in str(error.value)) == ("ensurepip" in printed)


def test_too_little_room_is_named_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(set_up, "NEEDED_BYTES", 10**20)
    with pytest.raises(SystemExit, match=r"needs .* GB free on this disk, found \d+ MB"):
        set_up.make_venv()
    assert not list(tmp_path.iterdir())


def test_python_is_old_enough_nowhere():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"sys\.version_info < \(3, 11\)", makefile)
    assert set_up.WORKS_WITH[0] == (3, 11)


def test_notebooks_alone_are_run_by_the_rules_of_conftest():
    """pytest finds tests/conftest.py by itself only where it is given a test."""
    for tests, expected in (("", True), ("tests/test_files.py", False)):
        words = ["make", "-n", "test", f"TESTS={tests}"]
        printed = subprocess.check_output(words, cwd=ROOT, text=True)
        assert ("-p tests.conftest" in printed) == expected, printed
