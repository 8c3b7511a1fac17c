"""Record on this machine the runs that figures are drawn from: ``figures/record.py page_map``.

Each run is kept as a small JSON in figures/data/, with the facts of the machine it ran on, and is
committed: ``make figures`` draws from it, the same each time, on any machine.
"""

import json
import mmap
import platform
import random
import shutil
import sys
from itertools import groupby
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient

from qm9lab import measure, qm9, records
from qm9lab.course import folders
from qm9lab.lessons.lesson_06 import pages

N_MOLECULES, N_STORES = 200, 40
FOLDER = Path(__file__).resolve().parent / "data"


def run_lengths(states) -> list[list[int]]:
    """``[state, how many times in a row]``, again and again."""
    return [[int(state), len(list(same))] for state, same in groupby(states)]


def page_map() -> dict:
    """The pages of the record file in four situations (lesson 06)."""
    path = folders.lesson_folder() / "record_page_map.dat"
    shutil.copyfile(qm9.record_file(), path)
    contents = path.read_bytes()
    starts = [offset for offset, _, _ in records.walk(contents)]

    def map_file():
        with open(path, "r+b") as f:
            return mmap.mmap(f.fileno(), 0)

    session = pages.Session(path, map_file, starts)

    def fresh(advice=None):
        session.drop()
        if np.any(session.make_cold().after.cached):
            raise SystemExit(f"{path}: expected a file that can be made cold, found one that stays")
        if advice:
            session.advise(advice)

    middle = session.n_pages // 2
    draw = random.Random(6)
    found = {}

    def keep(name, touched=()):
        session.look()
        states = pages.packed(session.now, session.n_pages)
        found[name] = {"touched": list(touched), "states": run_lengths(states)}

    fresh()
    keep("cold")
    session.touch(middle)
    keep("one touch", [middle])
    fresh("RANDOM")
    for molecule in draw.sample(range(len(starts)), N_MOLECULES):
        session.touch_molecule(molecule)
    keep("random")
    was_touched = np.flatnonzero(session.now.mapped).tolist()
    for page in draw.sample(was_touched, N_STORES):
        session.touch(page, store=True)
    keep("stores")
    session.mm.close()
    system = f"{platform.system()} {platform.release()}, {measure.file_system(path)}"
    path.unlink()
    return {
        "machine": system,
        "page_bytes": mmap.PAGESIZE,
        "n_pages": session.n_pages,
        "columns": pages.columns(session.n_pages),
        "n_molecules": N_MOLECULES,
        "n_stores": N_STORES,
        "maps": found,
    }


LOOKS = """
import json
rows = [
    [question, [[run.way, run.file_mib, run.file_pages, run.after[n]] for run in some]]
    for question, n, some in groups
]
print(json.dumps([rows, measure.file_system(path), mmap.PAGESIZE]))
"""
"""A last cell for lesson 07; a number that is missing is an error, for JSON has none."""


def headline() -> dict:
    """The cold runs of lesson 07, made by the lesson's own cells as far as its headline."""
    path = FOLDER.parents[1] / "notebooks" / "07_full_load_vs_lazy.ipynb"
    lesson = nbformat.read(path, as_version=4)
    last = next(k for k, cell in enumerate(lesson.cells) if "pictures.headline(" in cell.source)
    lesson.cells[last + 1 :] = [nbformat.v4.new_code_cell(LOOKS)]
    NotebookClient(lesson, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    rows, file_system, page_bytes = json.loads(lesson.cells[-1].outputs[0]["text"])
    system = f"{platform.system()} {platform.release()}, {file_system}"
    return {"machine": system, "page_bytes": page_bytes, "groups": rows}


RUNS = {"page_map": page_map, "headline": headline}


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        text = json.dumps(RUNS[name](), default=np.ndarray.tolist)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(f"data/{name}.json: {len(text):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:] or list(RUNS))
