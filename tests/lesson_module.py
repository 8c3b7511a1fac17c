"""A lesson's own functions as a module, for the tests that call them."""

import contextlib
import importlib.util
import sys
from pathlib import Path

import nbformat


def code_cells(notebook: Path) -> list[str]:
    """The source of each code cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@contextlib.contextmanager
def loaded(file: Path, source: str):
    """The module that ``source`` makes, written to ``file``, whose functions a child can get."""
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # inspect looks there for a function's source
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[file.stem]
