"""The learner's copies: an edit is never lost, an unedited copy follows the lesson."""

from datetime import datetime

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

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


def test_first_copy_makes_the_folder_and_copies_notebooks_only(source, work):
    assert copies.copy(work, source) == dict.fromkeys(NAMES, "new")
    found = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    assert found == sorted([copies.RECORD, *NAMES])
    assert (work / NAMES[2]).read_text() == f"{NAMES[2]}, first edition"


def test_second_copy_does_nothing(source, work):
    copies.copy(work, source)
    before = {name: (work / name).stat().st_mtime_ns for name in NAMES}
    assert copies.copy(work, source) == dict.fromkeys(NAMES, "same")
    assert {name: (work / name).stat().st_mtime_ns for name in NAMES} == before


def test_an_unedited_copy_follows_the_lesson(source, work):
    copies.copy(work, source)
    for edition in "second", "third":
        (source / NAMES[1]).write_text(edition)
        assert copies.copy(work, source)[NAMES[1]] == "updated"
        assert (work / NAMES[1]).read_text() == edition


@pytest.mark.parametrize("lesson_changes", [False, True])
def test_an_edited_copy_stays(source, work, lesson_changes):
    copies.copy(work, source)
    (work / NAMES[1]).write_text("mine")
    if lesson_changes:
        (source / NAMES[1]).write_text("second edition")
    for _ in range(2):
        assert copies.copy(work, source)[NAMES[1]] == "edited"
        assert (work / NAMES[1]).read_text() == "mine"


def test_a_name_of_250_bytes_is_copied(source, work):
    name = "x" * 244 + ".ipynb"
    (source / name).write_text("a long name")
    assert copies.copy(work, source)[name] == "new"
    assert (work / name).read_text() == "a long name"


def test_a_lesson_is_copied_without_its_outputs_and_a_solution_with_them(source, work):
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
    assert copies.copy(work, source) == dict.fromkeys(NAMES, "same")


def test_a_deleted_copy_comes_back(source, work):
    copies.copy(work, source)
    (work / NAMES[1]).unlink()
    assert copies.copy(work, source)[NAMES[1]] == "new"


@pytest.mark.parametrize("damage", [None, "", "not json", "[]"])
def test_without_the_record_a_differing_copy_counts_as_edited(source, work, damage):
    copies.copy(work, source)
    (source / NAMES[1]).write_text("second edition")
    (work / copies.RECORD).unlink()
    if damage is not None:
        (work / copies.RECORD).write_text(damage)
    assert copies.copy(work, source) == {
        NAMES[0]: "same", NAMES[1]: "edited", NAMES[2]: "same"}  # fmt: skip
    assert (work / NAMES[1]).read_text() == f"{NAMES[1]}, first edition"
    # ... and the record is whole again for those that do not differ.
    (source / NAMES[0]).write_text("third edition")
    assert copies.copy(work, source)[NAMES[0]] == "updated"


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
    assert copied == dict.fromkeys(NAMES, "new")
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
    assert NAMES[1] not in copied
    assert (old / NAMES[1]).exists() and not (work / NAMES[1]).exists()


def test_fresh_with_nothing_to_move(source, work):
    old, copied = copies.fresh(work, source, NOW)
    assert old is None and copied == dict.fromkeys(NAMES, "new")
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

    def full(path, target):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(copies.LessonError, match="No space left on device"):
        copies.copy(work, source)
    assert (work / NAMES[0]).read_text() == f"{NAMES[0]}, first edition"
    assert not list(work.glob(".*.tmp"))
