"""The learner's copies: an edit is never lost, an unedited copy follows the lesson."""

import json
import subprocess
import sys
from datetime import datetime

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from qm9lab import __main__ as command
from qm9lab.course import copies

NAMES = ["00_start_here.ipynb", "01_bytes.ipynb", "solutions/01_bytes_solutions.ipynb"]
NOW = datetime(2026, 11, 22, 9, 5, 7)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "notebooks"
    (folder / "solutions").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(f"{name}, first edition")
    (folder / "build.py").write_text("not a lesson")
    return folder


@pytest.fixture
def work(tmp_path):
    return tmp_path / "mémoire partagée" / "work"


def states(copied):
    return {name: state for name, state in copied}


def test_first_copy_makes_the_folder_and_copies_notebooks_only(source, work):
    assert states(copies.copy(work, source)) == dict.fromkeys(NAMES, "new")
    found = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    assert found == sorted([copies.RECORD, *NAMES])
    assert (work / NAMES[2]).read_text() == f"{NAMES[2]}, first edition"


def test_second_copy_does_nothing(source, work):
    copies.copy(work, source)
    before = {name: (work / name).stat().st_mtime_ns for name in NAMES}
    assert states(copies.copy(work, source)) == dict.fromkeys(NAMES, "same")
    assert {name: (work / name).stat().st_mtime_ns for name in NAMES} == before


def test_an_unedited_copy_follows_the_lesson(source, work):
    copies.copy(work, source)
    for edition in "second", "third":
        (source / NAMES[1]).write_text(edition)
        assert states(copies.copy(work, source))[NAMES[1]] == "updated"
        assert (work / NAMES[1]).read_text() == edition


@pytest.mark.parametrize("lesson_changes", [False, True])
def test_an_edited_copy_stays(source, work, lesson_changes):
    copies.copy(work, source)
    (work / NAMES[1]).write_text("mine")
    if lesson_changes:
        (source / NAMES[1]).write_text("second edition")
    for _ in range(2):
        assert states(copies.copy(work, source))[NAMES[1]] == "edited"
        assert (work / NAMES[1]).read_text() == "mine"


def test_a_lesson_is_handed_out_without_its_outputs_and_a_solution_with_them(source, work):
    cell = new_code_cell("2 + 3", execution_count=1)
    cell.outputs = [new_output("execute_result", {"text/plain": "5"}, execution_count=1)]
    cell.metadata.tags = ["exercise"]
    notebook = new_notebook(cells=[new_markdown_cell("é"), cell])
    for name in NAMES:
        nbformat.write(notebook, source / name)
    copies.copy(work, source)
    for name in NAMES[:2]:
        copied = nbformat.read(work / name, as_version=4)
        nbformat.validate(copied)
        assert copied.cells[1].outputs == [] and copied.cells[1].execution_count is None
        assert copied.cells[1].metadata.tags == ["exercise"] and copied.cells[1].id == cell.id
        assert [c.source for c in copied.cells] == ["é", "2 + 3"]
    assert (work / NAMES[2]).read_bytes() == (source / NAMES[2]).read_bytes()
    assert states(copies.copy(work, source)) == dict.fromkeys(NAMES, "same")


def test_a_deleted_copy_comes_back(source, work):
    copies.copy(work, source)
    (work / NAMES[1]).unlink()
    assert states(copies.copy(work, source))[NAMES[1]] == "new"


@pytest.mark.parametrize("damage", [None, "", "not json", "[]"])
def test_without_the_record_a_differing_copy_counts_as_edited(source, work, damage):
    copies.copy(work, source)
    (source / NAMES[1]).write_text("second edition")
    (work / copies.RECORD).unlink()
    if damage is not None:
        (work / copies.RECORD).write_text(damage)
    assert states(copies.copy(work, source)) == {
        NAMES[0]: "same", NAMES[1]: "edited", NAMES[2]: "same"}  # fmt: skip
    assert (work / NAMES[1]).read_text() == f"{NAMES[1]}, first edition"
    # ... and the record is whole again for those that do not differ.
    (source / NAMES[0]).write_text("third edition")
    assert states(copies.copy(work, source))[NAMES[0]] == "updated"


def test_copies_of_read_only_lessons_can_be_written(source, work):
    for name in NAMES:
        (source / name).chmod(0o444)
    copies.copy(work, source)
    assert all((work / name).stat().st_mode & 0o200 for name in NAMES)


def test_fresh_moves_the_copies_aside_and_keeps_them(source, work):
    copies.copy(work, source)
    (work / NAMES[1]).write_text("mine")
    (work / "my_own.ipynb").write_text("not a lesson's copy")
    old, copied = copies.fresh(work, source, NOW)
    assert old == work / "old-20261122-090507"
    assert states(copied) == dict.fromkeys(NAMES, "new")
    assert (old / NAMES[1]).read_text() == "mine"
    assert (work / NAMES[1]).read_text() == f"{NAMES[1]}, first edition"
    assert (work / "my_own.ipynb").read_text() == "not a lesson's copy"


def test_fresh_twice_in_a_second_loses_nothing(source, work):
    copies.copy(work, source)
    for content in "first", "second":
        (work / NAMES[1]).write_text(content)
        copies.fresh(work, source, NOW)
    kept = {p.read_text() for p in work.glob(f"old-*/{NAMES[1]}")}
    assert kept == {"first", "second"}


def test_fresh_moves_a_copy_whose_lesson_is_gone(source, work):
    copies.copy(work, source)
    (source / NAMES[1]).unlink()
    old, copied = copies.fresh(work, source, NOW)
    assert NAMES[1] not in states(copied)
    assert (old / NAMES[1]).exists() and not (work / NAMES[1]).exists()


def test_fresh_with_nothing_to_move(source, work):
    old, copied = copies.fresh(work, source, NOW)
    assert old is None and states(copied) == dict.fromkeys(NAMES, "new")
    assert not list(work.glob("old-*"))


def test_no_lessons_is_an_error_that_names_the_folder(tmp_path, work):
    for function in copies.copy, copies.fresh:
        with pytest.raises(copies.LessonError, match="found no notebook.*make setup"):
            function(work, tmp_path / "nowhere")
    assert not work.exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(source, tmp_path):
    (tmp_path / "work").write_text("a file where the folder should be")
    for function in copies.copy, copies.fresh:
        with pytest.raises(copies.LessonError, match="expected to copy the lessons .* --to"):
            function(tmp_path / "work", source)
    assert (tmp_path / "work").read_text() == "a file where the folder should be"


def test_a_failed_write_leaves_no_partial_copy(source, work, monkeypatch):
    copies.copy(work, source)
    (source / NAMES[0]).write_text("second edition")

    def full(self, target):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(copies.LessonError, match="No space left on device"):
        copies.copy(work, source)
    assert (work / NAMES[0]).read_text() == f"{NAMES[0]}, first edition"
    assert not list(work.glob(".*.tmp"))


def test_command_copy_says_what_it_left_alone(source, work, monkeypatch, capsys):
    monkeypatch.setattr(copies.copy, "__defaults__", (source,))
    assert command.main(["copy", "--to", str(work)]) == 0
    assert "3 (3 new, 0 updated)" in capsys.readouterr().out
    (work / NAMES[1]).write_text("mine")
    assert command.main(["copy", "--to", str(work)]) == 0
    left = f"left as you edited them (make fresh starts anew): {NAMES[1]}"
    assert left in capsys.readouterr().out
    assert json.loads((work / copies.RECORD).read_text()).keys() == set(NAMES)


def test_command_fresh_says_where_the_old_ones_are(source, work, monkeypatch, capsys):
    monkeypatch.setattr(copies.copy, "__defaults__", (source,))
    monkeypatch.setattr(copies.fresh, "__defaults__", (source, NOW))
    copies.copy(work, source)
    assert command.main(["fresh", "--to", str(work)]) == 0
    assert f"moved the former copies to {work / 'old-20261122-090507'}" in capsys.readouterr().out


def test_command_reports_an_error_in_one_line_without_a_traceback(tmp_path):
    (tmp_path / "work").write_text("a file")
    done = subprocess.run(
        [sys.executable, "-m", "qm9lab", "copy", "--to", tmp_path / "work"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("qm9lab: ") and len(done.stderr.splitlines()) == 1


def test_command_data_reports_a_data_error_in_one_line(monkeypatch, capsys):
    from qm9lab import qm9

    def fail(progress):
        raise qm9.DataError("qm9.pt: expected one thing, found another: do this")

    monkeypatch.setattr(qm9, "prepare", fail)
    assert command.main(["data"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "qm9lab: qm9.pt: expected one thing, found another: do this\n")


def test_command_data_names_what_is_ready(monkeypatch, capsys, tmp_path):

    (tmp_path / "a.pt").write_bytes(bytes(2_000_000))
    (tmp_path / "b.dat").write_bytes(bytes(1_000_000))
    from qm9lab import qm9

    monkeypatch.setattr(qm9, "prepare", lambda progress: (tmp_path / "a.pt", tmp_path / "b.dat"))
    assert command.main(["data"]) == 0
    line = f"QM9 is ready: {tmp_path / 'a.pt'} (2 MB) and {tmp_path / 'b.dat'} (1 MB)\n"
    assert capsys.readouterr().out == line


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["dance"])
    assert stop.value.code == 2 and "dance" in capsys.readouterr().err
