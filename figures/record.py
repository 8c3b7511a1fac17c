"""Record on this machine the runs that figures are drawn from: ``figures/record.py headline``.

Each run is kept as a small JSON in figures/data/, with the facts of the machine it ran on, and is
committed: ``make figures`` draws from it, the same each time, on any machine.
"""

import json
import platform
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent / "data"
PRINT_GROUPS = """
import json
print(json.dumps([groups, measure.file_system(path), mmap.PAGESIZE]))
"""
"""A last cell for lesson 07; a number that is missing is an error, for JSON has none."""


def headline() -> dict:
    """The cold runs of lesson 07, made by the lesson's own cells as far as its headline."""
    path = FOLDER.parents[1] / "notebooks" / "07_full_load_vs_lazy.ipynb"
    lesson = nbformat.read(path, as_version=4)
    last = next(k for k, cell in enumerate(lesson.cells) if "compare.headline(" in cell.source)
    lesson.cells[last + 1 :] = [nbformat.v4.new_code_cell(PRINT_GROUPS)]
    NotebookClient(lesson, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    groups, file_system, page_bytes = json.loads(lesson.cells[-1].outputs[0]["text"])
    system = f"{platform.system()} {platform.release()}, {file_system}"
    return {"machine": system, "page_bytes": page_bytes, "groups": groups}


RUNS = {"headline": headline}


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        text = json.dumps(RUNS[name](), default=np.ndarray.tolist)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(f"data/{name}.json: {len(text):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:] or list(RUNS))
