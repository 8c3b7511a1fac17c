"""Lessons on a FUSE file system: they reach the bottom and print nothing false.

On bindfs, as on sshfs and some mounts of Docker Desktop, each open() of a file drops its pages from
the page cache. A count of pages that opens the file again would destroy what it counts, and then
report 0. The lessons must print a true count, or that there is none and why.

The data folder, with the folder that a lesson writes into, lies on a mount of its own. CI runs two
of the lessons that count pages, and ``--all-fuse`` runs them all.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
COUNT_PAGES = ("00", "04", "05", "06", "07", "09", "10")
IN_CI = ("00", "05")
MISSING = "not available here, because "
CELL_TIMEOUT_S = 240


def unavailable():
    """Why nothing can be mounted here; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can mount a file system"
    missing = [tool for tool in ("bindfs", "fusermount") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)}"
    return None if os.path.exists("/dev/fuse") else "this kernel has no FUSE"


UNAVAILABLE = unavailable()
pytestmark = [
    pytest.mark.systems,
    pytest.mark.slow,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]


def pytest_generate_tests(metafunc):
    """``path``: the lessons to run."""
    if "path" in metafunc.fixturenames:
        chosen = COUNT_PAGES if metafunc.config.getoption("all_fuse") else IN_CI
        paths = [path for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) if path.name[:2] in chosen]
        metafunc.parametrize("path", paths, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A copy of the built data, on bindfs."""
    from qm9lab import qm9

    qm9.prepare(progress=False)
    own = tmp_path_factory.mktemp("fuse")
    shutil.copytree(qm9.folder(), own / "disk", ignore=shutil.ignore_patterns("lessons", "*.json"))
    (own / "data").mkdir()
    mounted = subprocess.run(["bindfs", own / "disk", own / "data"], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"bindfs could not mount: {mounted.stderr.strip()}")
    try:
        yield own / "data"
    finally:
        subprocess.run(["fusermount", "-u", "-z", own / "data"], check=True)


def run(sources: list[str], data: Path) -> list[str]:
    """What each cell prints, in a fresh kernel with this data folder."""
    environment = {name: v for name, v in os.environ.items() if name != "QM9LAB_STRICT"}
    cells = [new_code_cell(source) for source in sources]
    NotebookClient(
        new_notebook(cells=cells),
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute(env=environment | {"QM9LAB_DATA": str(data)}, stderr=subprocess.DEVNULL)
    return [printed(cell) for cell in cells]


def printed(cell) -> str:
    outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return "\n".join(
        (output.get("text") or output.get("data", {}).get("text/plain", "")).strip()
        for output in outputs
    )


def false_lines(here: str, committed: str) -> list[str]:
    """Lines that are neither those of the committed output nor name what is missing."""
    true = set(committed.splitlines())
    return [line for line in here.splitlines() if line not in true and MISSING not in line]


def test_lesson_prints_nothing_false(path, data):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    here = run([cell.source for cell in cells], data)
    for cell, text in zip(cells, here, strict=True):
        if "nbval-ignore-output" not in cell.metadata.get("tags", []):
            found = false_lines(text, printed(cell))
            assert not found, f"{cell.source}\nprints\n{text}\non a disk\n{printed(cell)}"


LOOK = """
import mmap
from qm9lab import measure, qm9
path = qm9.folder() / "x.dat"
path.write_bytes(bytes(64 * mmap.PAGESIZE))
with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
    sum(mm[:: mmap.PAGESIZE])
    print(measure.mapped_pages(mm).sum())
    open(path, "rb").close()
    print(measure.mapped_pages(mm).sum())
print(measure.file_system(path))
"""


def test_an_open_drops_the_pages_there(data):
    """What these tests are about: the mount is one that forgets."""
    before, after, kind = run([LOOK], data)[0].split()
    assert (before, after) == ("64", "0") and kind.startswith("fuse")


def test_a_false_line_is_found():
    assert false_lines("0 of 64 pages", "64 of 64 pages") == ["0 of 64 pages"]
    assert not false_lines("64 of 64\ncached: not available here, because it forgets", "64 of 64")
