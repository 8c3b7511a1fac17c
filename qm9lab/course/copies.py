"""The learner's own copies of the lessons: made once, brought up to date, never overwritten.

The learner works in copies of ``notebooks/`` in ``work/``. A small JSON file next to the copies
keeps the SHA-256 of what was copied: a copy that still has it is the kit's and follows the lesson.
Any other copy is the learner's and stays.

A lesson is committed with its outputs. The learner's copy comes without them: what the next cell
prints would answer the prediction that this one asks for.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path

from qm9lab import files

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
"""Where the lessons lie: next to the package, in the repository."""

RECORD = ".copied.json"
"""In the learner's folder: name of each copy to the SHA-256 of what was copied."""


class LessonError(RuntimeError):
    """Lessons cannot be copied: the path, what was expected, what was found, what to do."""


def copy(work: Path, source: Path = NOTEBOOKS) -> dict[str, str]:
    """Copy each lesson and solution into ``work``, except over a copy that was edited.

    Opening and running a lesson in JupyterLab saves its outputs: that counts as an edit. Where
    the record of what was copied is lost, each copy that differs counts as edited.

    Returns the name of each notebook, such as ``solutions/01_bytes_on_disk_solutions.ipynb``, with
    ``new``, ``updated`` (the lesson changed, the copy had not), ``same`` or ``edited`` (left
    alone). LessonError if there are no lessons, or ``work`` cannot be written.
    """
    recorded, states = _read_record(work), {}
    try:
        for name, lesson in _lessons(source).items():
            target = _to_learn_from(name, lesson.read_bytes())
            copied = (work / name).read_bytes() if (work / name).exists() else None
            if copied is None:
                states[name] = "new"
            elif copied == target:
                states[name] = "same"
            elif recorded.get(name) == _sha256(copied):
                states[name] = "updated"
            else:
                states[name] = "edited"
                continue
            recorded[name] = _sha256(target)
            if copied != target:
                _replace(work / name, target)
        _replace(work / RECORD, json.dumps(recorded, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise _not_written(work, error) from error
    return states


def fresh(
    work: Path, source: Path = NOTEBOOKS, now: datetime | None = None
) -> tuple[Path | None, dict[str, str]]:
    """Move all copies into ``work/old-YYYYMMDD-HHMMSS/`` and copy the lessons again.

    Returns where the former copies are, None if there were none, and what ``copy`` returns.
    LessonError as for ``copy``.
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
    """The notebook that the learner gets: a lesson without its outputs, a solution as it is."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, durable=False) as f:
        files.write_all(f, content)


def _not_written(work: Path, error: OSError) -> LessonError:
    return LessonError(
        f"{error.filename or work}: expected to copy the lessons into {work}, found "
        f"{error.strerror}: make room, or name a folder of yours with --to (make lab WORK=...)"
    )
