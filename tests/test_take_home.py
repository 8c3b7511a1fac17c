"""The take-home cell of each lesson, alone: a folder with a copy of the record file, and no kit.

``import qm9lab`` fails there. What the cell did is checked with plain Python. The user suite runs
this file as an ordinary user, too.
"""

import array
import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from qm9lab import qm9

LESSONS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9w]*.ipynb"))
NO_KIT = "import sys\nsys.modules['qm9lab'] = None  # what makes an import fail\n"

pytestmark = pytest.mark.take_home


def take_home(path):
    """The sources of the lesson's cells with the tag ``take-home``."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if "take-home" in cell.metadata.get("tags", ())]


def run(source, folder):
    command = [sys.executable, "-I", "-c", NO_KIT + source]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def one_number_changed(folder, printed):
    numbers, expected = array.array("d"), array.array("d", range(1_000_000))
    numbers.frombytes((folder / "my_numbers.dat").read_bytes())
    expected[123_456] *= -1
    assert numbers == expected and printed == "(-123456.0,)\n"


def one_record_of_a_thousand(folder, printed):
    assert (folder / "my_records.dat").read_bytes()[123 * 28 :].startswith(b"sample 123\0")
    assert printed == "sample 123 123 12.3\n"


def errors_counted(folder, printed):
    assert printed == f"{(folder / 'my_log.txt').read_text().count('error')} errors\n"
    assert printed == "200 errors\n"


def three_numbers_from_the_middle(folder, printed):
    with open(folder / "my_numbers.dat", "rb") as f:
        f.seek(8 * 123_456)
        assert printed == f"{list(struct.unpack('3d', f.read(24)))}\n"
    assert printed == "[123456.0, 123457.0, 123458.0]\n"


def a_file_built_and_renamed(folder, printed):
    expected = b"".join(struct.pack("<16sd", f"sample {k}".encode(), k / 10) for k in range(10_000))
    assert (folder / "my_data.dat").read_bytes() == expected
    assert not (folder / "my_data.partial").exists() and printed == "240000 bytes\n"


def celsius_to_kelvin(folder, printed):
    kelvin = array.array("d", (folder / "my_temperatures.dat").read_bytes())
    assert kelvin == array.array("d", (-20 + 5 * k + 273.15 for k in range(11)))
    assert printed == "[253.15 258.15 263.15]\n"


def only_the_copy_is_owned(folder, printed):
    assert (folder / "my_data.dat").read_bytes() == bytes(64 * 2**20)
    assert printed == "memmap: 0 %\nfromfile: 100 %\n"


def two_maps_and_nothing_owned(folder, printed):
    assert (folder / "my_data.dat").stat().st_size == 2**27
    assert printed == 2 * "RSS: 1 files, owned: 0 files\n"


def pages_needed(folder, printed):
    n_bytes, page = (folder / "qm9_smiles_properties.dat").stat().st_size, mmap.PAGESIZE
    read = [at for start in range(0, n_bytes - 100, 50_000) for at in range(start, start + 100)]
    n_needed = len({at // page for at in read})
    assert printed == f"{n_needed} of {len(range(0, n_bytes, page))} pages\n"


def one_of_a_thousand_changed(folder, printed):
    expected = [float(number) for number in range(1000)]
    expected[123] *= -1
    assert (folder / "my_numbers.dat").read_bytes() == struct.pack("<1000d", *expected)
    assert printed == "123.0 -> -123.0\n"


CHECKS = {
    "00": one_number_changed,
    "01": one_record_of_a_thousand,
    "02": errors_counted,
    "03": three_numbers_from_the_middle,
    "04": a_file_built_and_renamed,
    "05": celsius_to_kelvin,
    "06": pages_needed,
    "07": only_the_copy_is_owned,
    "09": two_maps_and_nothing_owned,
    "wo": one_of_a_thousand_changed,
}
CELLS = [(path.name[:2], source) for path in LESSONS for source in take_home(path)]


@pytest.mark.parametrize(("lesson", "source"), CELLS, ids=[lesson for lesson, _ in CELLS])
def test_take_home_cell_runs_without_the_kit(lesson, source, tmp_path):
    shutil.copyfile(qm9.record_file(), tmp_path / "qm9_smiles_properties.dat")
    done = run(source, tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    CHECKS[lesson](tmp_path, done.stdout)


def test_each_lesson_has_one_at_most_and_each_is_checked():
    assert CHECKS.keys() == {lesson for lesson, _ in CELLS}
    assert len(CELLS) == len(CHECKS)
    assert all(len(source.splitlines()) <= 25 for _, source in CELLS)


def test_a_cell_that_uses_the_kit_or_does_something_else_is_found(tmp_path):
    assert "ModuleNotFoundError: import of qm9lab" in run("from qm9lab import x", tmp_path).stderr
    (tmp_path / "my_numbers.dat").write_bytes(struct.pack("2d", 0, 1))
    with pytest.raises(AssertionError):
        one_number_changed(tmp_path, "(-123456.0,)\n")
