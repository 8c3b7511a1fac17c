"""Each lesson on a pretended macOS or Windows: it reaches the bottom and says what is missing.

tests/pretend.py describes what is pretended and what cannot be. A notebook runs from a fresh
kernel, on links to the built data in a folder of the test's own, and then each control is moved to
both ends. ``--system Darwin`` or ``--system Windows`` runs that one alone; CI takes turns. The
solutions of the exercises are run by nbval in `make test`, not here.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pretend
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9w]*.ipynb"))
NAMES = {"Darwin": "macOS", "Windows": "Windows"}
SAYS = "not available here, because "
WITHOUT_A_REASON = re.compile(r".*(?:not available here(?!, because )|: None\b).*")
# Lessons that need nothing that these systems lack.
NOTHING_MISSING = {
    "01_bytes_on_disk": {"Darwin", "Windows"},
    "04_build_the_qm9_file": {"Darwin"},
}
CELL_TIMEOUT_S = 120

pytestmark = [
    pytest.mark.systems,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="pretends from Linux"),
]


def pytest_generate_tests(metafunc):
    """``system``: both of them, or the one of the option ``--system``."""
    if "system" in metafunc.fixturenames:
        only = metafunc.config.getoption("system")
        systems = [only] if only else pretend.SYSTEMS
        metafunc.parametrize("system", systems, ids=NAMES.get)


# After a lesson's cells: each control of its widgets at both ends, each button once.
MOVE_ALL = """
import ipywidgets
for control in list(ipywidgets.widgets.widget._instances.values()):
    if isinstance(control, (ipywidgets.IntSlider, ipywidgets.FloatSlider)):
        control.value = control.min
        control.value = control.max
    elif isinstance(control, (ipywidgets.Dropdown, ipywidgets.ToggleButtons)):
        for control.index in range(len(control.options)):
            pass
    elif isinstance(control, (ipywidgets.Checkbox, ipywidgets.ToggleButton)):
        control.value = not control.value
    elif isinstance(control, ipywidgets.Button):
        control.click()
"""


class Pretence:
    """A folder with the built data and no machine's card, and processes that believe a system."""

    def __init__(self, folder: Path):
        from qm9lab import qm9

        qm9.prepare(progress=False)
        self.data = folder / "data"
        for path in qm9.folder().rglob("*"):
            name = path.relative_to(qm9.folder())
            if path.suffix in (".pt", ".dat", ".sha256") and name.parts[0] != "lessons":
                (self.data / name.parent).mkdir(parents=True, exist_ok=True)
                (self.data / name).symlink_to(path)
        self.folders = {}
        for system in pretend.SYSTEMS:
            self.folders[system] = folder / system
            self.folders[system].mkdir()

    def environment(self, system: str) -> dict[str, str]:
        told = pretend.environment(system, self.folders[system])
        return told | {
            "QM9LAB_DATA": str(self.data),
            "PYTHONPATH": os.pathsep.join([told["PYTHONPATH"], str(ROOT)]),
        }

    def run(self, system: str, notebook) -> str:
        """Run all cells, first one that makes sure that the kernel believes; what they said."""
        believes = f"import platform\nassert platform.system() == {system!r}"
        cells = [new_code_cell(believes), *notebook.cells, new_code_cell(MOVE_ALL)]
        notebook = new_notebook(cells=cells)
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(ROOT / "notebooks")}},
        ).execute(env=self.environment(system), stderr=subprocess.DEVNULL)
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        # The error of a button's callback is shown below the cell, which goes on.
        errors = [output for output in outputs if output.output_type == "error"]
        assert not errors, errors
        return "\n".join(map(text_of, outputs))

    def python(self, system: str, code: str) -> str:
        """What a script prints."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment(system),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout


def text_of(output) -> str:
    return "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))


@pytest.fixture(scope="module")
def pretence():
    folder = Path(tempfile.mkdtemp(prefix="qm9lab-systems-"))
    yield Pretence(folder)
    shutil.rmtree(folder)


def test_there_are_lessons():
    assert LESSONS, "notebooks/ holds no lesson (NN_name.ipynb): nothing here is checked"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_reaches_the_bottom_and_says_what_is_missing(pretence, path, system):
    said = pretence.run(system, nbformat.read(path, as_version=4))
    assert (SAYS in said) == (system not in NOTHING_MISSING.get(path.stem, ())), said[-3000:]
    assert not (bare := WITHOUT_A_REASON.findall(said)), bare


# The pretence is real, and a lesson that does not cope is seen to fail ---------------------------

LOOK = """
import mmap, os, platform, signal, sys
from pathlib import Path
print(platform.system(), sys.platform, os.name)
names = {mmap: "MADV_RANDOM MAP_POPULATE MAP_PRIVATE", signal: "SIGBUS", os: "posix_fadvise fork"}
print(*(n for module, found in names.items() for n in found.split() if hasattr(module, n)))
print(hasattr(mmap.mmap(-1, 1), "madvise"), hasattr(os.stat("."), "st_blocks"))
print(os.path.exists("/proc/self/maps"), Path("/proc/self/maps").exists(), end=" ")
for look in (open, os.listdir, Path.read_text, os.stat):
    try:
        print(look(Path("/proc/self/maps")))
    except FileNotFoundError:
        print("none", end=" ")
"""
LOOKED = {
    "Darwin": "Darwin darwin posix\nMADV_RANDOM MAP_PRIVATE SIGBUS fork\nTrue True\n",
    "Windows": "Windows win32 nt\n\nFalse False\n",
}


def test_what_is_missing_there_is_missing_here(pretence, system):
    assert pretence.python(system, LOOK) == LOOKED[system] + "False False none none none none "


MEASURE = """
import ctypes, mmap, os, psutil, tempfile
from qm9lab import measure
print(hasattr(psutil.Process().memory_info(), "shared"), end=" ")
try:
    print(ctypes.CDLL(None).syscall(39))
except (AssertionError, TypeError) as error:
    print(type(error).__name__)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "x.dat")
    with open(path, "wb") as f:
        f.write(bytes(8 * mmap.PAGESIZE))
    print(measure.is_missing(measure.faults().major), measure.file_system(path))
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        print(measure.mapped_pages(mm))
    print(measure.cache_state(path).n_dirty)
    print(measure.make_cold(path).is_cold)
    print(measure.regions())
    print(measure.resident().anonymous_bytes)
"""


def test_the_instruments_say_what_is_not_available_and_why(pretence, system):
    first, second, *values = pretence.python(system, MEASURE).splitlines()
    assert first == {"Darwin": "False AssertionError", "Windows": "False TypeError"}[system]
    assert second == {"Darwin": "False apfs", "Windows": "True NTFS"}[system]
    assert len(values) == 5 and all(value.startswith(SAYS) for value in values), values


CHILD = """
from qm9lab import processes

def look():
    import os, sys
    return [sys.platform, hasattr(os, "posix_fadvise")]

print(*processes.run(look).value)
"""


def test_a_function_in_a_child_process_is_on_that_system_too(pretence, system):
    words = pretence.run(system, new_notebook(cells=[new_code_cell(CHILD)])).split()
    assert words == [{"Darwin": "darwin", "Windows": "win32"}[system], "False"]


REFUSED = """
import mmap, os, sys

def tries(what, *args, **kwargs):
    try:
        what(*args, **kwargs)
        return "did it"
    except Exception as error:
        return f"{type(error).__name__} {getattr(error, 'errno', None)}"

path = os.path.join(os.environ["QM9LAB_DATA"], "refused.dat")
with open(path, "wb") as f:
    f.write(bytes(3 * mmap.ALLOCATIONGRANULARITY))
with open(path, "r+b") as f:
    print(tries(mmap.mmap, f.fileno(), 0, flags=1))
    print(tries(mmap.mmap, f.fileno(), 0, offset=mmap.PAGESIZE))
    mm = mmap.mmap(f.fileno(), 4 * mmap.ALLOCATIONGRANULARITY)
    print(os.path.getsize(path) == len(mm), tries(f.truncate, 1))
print(tries(os.unlink, path), tries(os.replace, path, path + "2"), tries(open, path, "wb"))
mm.close()
print(tries(open, path, "wb"), tries(os.replace, path, path + "2"), tries(os.unlink, path + "2"))
"""


def test_windows_refuses_what_it_refuses(pretence):
    assert pretence.python("Windows", REFUSED).splitlines() == [
        "TypeError None",
        "OSError 22",
        "True OSError 22",
        "PermissionError 13 PermissionError 13 OSError 22",
        "did it did it did it",
    ]


LEFT_OPEN = """
from qm9lab.lessons.lesson_02 import check
kept = []

def map_to_read(path):
    kept.append(open(path, "rb"))
    return kept[0].read()

print(check.exercise_1(map_to_read))
"""


def test_an_answer_that_leaves_its_file_open_gets_its_hint_on_windows_too(pretence):
    assert pretence.python("Windows", LEFT_OPEN).startswith("Not quite: that is a copy")


NEEDS_LINUX = [
    "open('/proc/self/maps')",
    "from qm9lab import measure\nassert not measure.is_missing(measure.resident().anonymous_bytes)",
]


@pytest.mark.parametrize("at", range(len(NEEDS_LINUX)))
def test_a_notebook_that_does_not_cope_is_seen_to_fail(pretence, system, at):
    cells = [new_code_cell(source) for source in ("1 + 1", NEEDS_LINUX[at])]
    with pytest.raises(CellExecutionError):
        pretence.run(system, new_notebook(cells=cells))


def test_a_control_that_does_not_cope_is_seen_to_fail(pretence):
    slider = "import ipywidgets, os\ns = ipywidgets.IntSlider()\n"
    for source, failure in (
        (slider + "s.observe(lambda change: os.posix_fadvise)", CellExecutionError),
        ("import ipywidgets\nb = ipywidgets.Button()\nb.on_click(lambda _: 1 / 0)", AssertionError),
    ):
        with pytest.raises(failure):
            pretence.run("Darwin", new_notebook(cells=[new_code_cell(source)]))


def test_who_is_not_ours_is_told_nothing(pretence):
    code = "import platform, sys\nprint(platform.system(), sys.platform, platform.sys.platform)"
    assert pretence.python("Windows", code).split() == ["Windows", "win32", "linux"]


def test_an_unknown_system_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'BeOS'"):
        pretend.environment("BeOS", tmp_path)
