"""The learner's own copies of the lessons: made once, brought up to date, never overwritten.

``notebooks/`` holds the lessons as they are taught. The learner works in copies of them in
``work/``. A small JSON file beside the copies keeps the SHA-256 of what was copied: a copy that
still has it is the kit's and follows the lesson, any other copy is the learner's and stays.

A lesson is committed with its outputs, for those who read it on the web. The learner's copy comes
without them: what the next cell prints would answer the prediction that this one asks for.
"""

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
"""Where the lessons lie: beside the package, in the repository."""

RECORD = ".copied.json"
"""In the learner's folder: name of each copy to the SHA-256 of what was copied."""


class LessonError(RuntimeError):
    """Lessons cannot be copied: what was expected, what was found, what to do, with the path."""


class Copied(NamedTuple):
    """What became of one notebook.

    Attributes
    ----------
    name : relative to both folders, for instance ``solutions/01_bytes_on_disk_solutions.ipynb``
    state : ``new``, ``updated`` (the lesson changed, the copy had not), ``same`` (nothing to do),
        ``edited`` (the learner's: left alone)
    """

    name: str
    state: Literal["new", "updated", "same", "edited"]


def copy(work: Path, source: Path = NOTEBOOKS) -> list[Copied]:
    """Copy each lesson and solution into ``work``, except over a copy that was edited.

    Opening and running a lesson in JupyterLab saves its outputs: that counts as an edit. Where
    the record of what was copied is lost, each copy that differs counts as edited.

    Raises
    ------
    LessonError
        If there are no lessons, or ``work`` cannot be written.
    """
    recorded = _read_record(work)
    results = []
    try:
        for name, lesson in _lessons(source).items():
            copied, target = _content(work / name), _to_learn_from(name, lesson.read_bytes())
            if copied is None:
                state = "new"
            elif copied == target:
                state = "same"
            elif recorded.get(name) == _sha256(copied):
                state = "updated"
            else:
                state = "edited"
            if state in ("new", "updated"):
                _replace(work / name, target)
            if state != "edited":
                recorded[name] = _sha256(target)
            results.append(Copied(name, state))
        _replace(work / RECORD, json.dumps(recorded, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise _not_written(work, error) from error
    return results


def fresh(
    work: Path, source: Path = NOTEBOOKS, now: datetime | None = None
) -> tuple[Path | None, list[Copied]]:
    """Move all copies into ``work/old-YYYYMMDD-HHMMSS/`` and copy the lessons anew.

    Returns
    -------
    old : Path or None
        Where the former copies are; None if there were none.
    copied : list of Copied

    Raises
    ------
    LessonError
        See ``copy``.
    """
    names = [name for name in _lessons(source) | _read_record(work) if (work / name).exists()]
    old = None
    try:
        if names:
            old = work / f"old-{now or datetime.now():%Y%m%d-%H%M%S}"
            while old.exists():  # twice in one second
                old = old.with_name(old.name + "-again")
        for name in names:
            (old / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).rename(old / name)
    except OSError as error:
        raise _not_written(work, error) from error
    return old, copy(work, source)


def _lessons(source: Path) -> dict[str, Path]:
    """Name to path of each lesson and solution, sorted."""
    found = sorted((*source.glob("*.ipynb"), *source.glob("solutions/*.ipynb")))
    if not found:
        raise LessonError(
            f"{source}: expected the lessons, found no notebook: run this in the repository, with "
            "the package installed from it (make setup)"
        )
    return {path.relative_to(source).as_posix(): path for path in found}


def _to_learn_from(name: str, content: bytes) -> bytes:
    """The notebook as it is handed out: a lesson without its outputs, a solution as it is."""
    if name.startswith("solutions/"):
        return content
    try:
        notebook = json.loads(content)
        cells = notebook["cells"]
    except (ValueError, TypeError, KeyError):
        return content  # no notebook that we know: not ours to change
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_record(work: Path) -> dict[str, str]:
    """The record; empty if it is missing or damaged, so that all copies count as the learner's."""
    try:
        record = json.loads((work / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _replace(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: a copy is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _not_written(work: Path, error: OSError) -> LessonError:
    return LessonError(
        f"{error.filename or work}: expected to copy the lessons into {work}, found "
        f"{error.strerror}: make room, or name a folder of yours with --to (make lab WORK=...)"
    )
