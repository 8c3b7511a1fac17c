"""Run the lessons and solutions from fresh kernels and store their outputs, ready to commit.

    make notebooks                   all of them
    make notebooks ARGS="01 05"      those whose names begin so

A notebook runs in its own folder, as a learner's does. The same outputs give the same file: no
execution times, no state of widgets, nothing that a tool left. An output that shows a widget loses
its link to the live widget, because a notebook that was not run cannot follow it. It keeps its
picture and text. nbval skips that link, as it skips pictures (``IPyNbFile.skip_compare``), so its
strict comparison still passes. The folder that a lesson had on this machine is not kept.

The alt text of a cell's picture is written in the cell's metadata, where sphinx finds it::

    {"mystnb": {"image": {"alt": "..."}}}

and copied to the picture's own metadata, where nbconvert finds it.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from qm9lab import qm9
from qm9lab.files import replacing, write_all

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT_S = 120
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
OWN_FOLDER = re.compile(re.escape(str(qm9.folder())) + r"/lessons/[^/\s]+")
KEPT_CELL_METADATA = {"mystnb", "slideshow", "tags"}


def notebooks(prefixes: list[str]) -> list[Path]:
    """Lessons and solutions whose names begin with one of the prefixes; all if there is none."""
    found = sorted((*HERE.glob("*.ipynb"), *HERE.glob("solutions/*.ipynb")))
    return [path for path in found if path.name.startswith(tuple(prefixes or [""]))]


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute all cells in place, from a fresh kernel whose working directory is ``folder``.

    Raises
    ------
    CellExecutionError, CellTimeoutError, DeadKernelError
        If a cell fails (one tagged raises-exception may), takes too long or kills the kernel.
    """
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    ).execute(stderr=subprocess.DEVNULL)  # the kernel's own log; what cells write comes as outputs


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Drop, in place, all that may differ between two runs with the same outputs."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    for cell in notebook.cells:
        for key in set(cell.metadata) - KEPT_CELL_METADATA:
            del cell.metadata[key]
        if cell.cell_type != "code":
            continue
        # Progress bars differ from run to run; conftest.py does not compare them.
        cell.outputs = [
            out for out in cell.outputs if out.get("name") != "stderr" and not _is_progress(out)
        ]
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for output in cell.outputs:
            if "text" in output:
                output.text = OWN_FOLDER.sub(
                    "/path/to/qm9lab/data/lessons/lesson-xxxxxxxx", output.text
                )
            output.get("data", {}).pop(WIDGET_VIEW, None)
            if "metadata" in output:
                output.metadata.pop(WIDGET_VIEW, None)
            if alt and "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": alt}


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """A widget that has no still picture of itself, such as tqdm's bar."""
    return set(output.get("data", ())) == {WIDGET_VIEW, "text/plain"}


def store(notebook: nbformat.NotebookNode, path: Path) -> bool:
    """Write the notebook (sorted keys, indent 1); False if the file is already the same."""
    content = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
    if path.read_bytes() == content:
        return False
    with replacing(path) as f:
        write_all(f, content)
    return True


def build(path: Path) -> str:
    """Run, normalise and store one notebook; return a line about it."""
    notebook = nbformat.read(path, as_version=4)
    start_s = time.perf_counter()
    run(notebook, path.parent)
    elapsed_s = time.perf_counter() - start_s
    normalise(notebook)
    changed = store(notebook, path)
    return f"{len(notebook.cells)} cells, {elapsed_s:.0f} s, {'stored' if changed else 'the same'}"


def main(argv: list[str] | None = None) -> int:
    """Build the notebooks named; 1 if one failed, after all were tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX", help='for instance "01"')
    chosen = notebooks(parser.parse_args(argv).prefixes)
    if not chosen:
        print("notebooks/build.py: expected notebooks to run, found none so named", file=sys.stderr)
        return 1
    failed = []
    for path in chosen:
        name = path.relative_to(HERE).as_posix()
        try:
            print(f"{name}: {build(path)}", flush=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{name}: FAILED, left as it was\n{error}", flush=True)
            failed.append(name)
    if failed:
        print(f"notebooks/build.py: {len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
