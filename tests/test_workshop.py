"""The workshop's slides: one idea on each, and no line of code that is cut off at 1280 x 720.

What fits was measured in Chromium, with nbconvert's slides. jupyterlab-rise takes the same
metadata.
"""

from pathlib import Path

import nbformat
import pytest
from nbconvert import SlidesExporter
from nbformat.v4 import new_code_cell, new_markdown_cell

PATH = Path(__file__).resolve().parent.parent / "notebooks" / "workshop.ipynb"
COLUMNS = 70  # of code that a slide shows
LINES = 22  # of text, code and output together
WORDS = 150
BEGINS = ("slide", "subslide")


def slides(cells):
    """The cells slide by slide. KeyError if a cell does not say where it is."""
    found = []
    for cell in cells:
        kind = cell.metadata["slideshow"]["slide_type"]
        assert kind in (*BEGINS, "-"), f"expected {BEGINS} or '-', found {kind!r}"
        if kind in BEGINS:
            found.append([])
        found[-1].append(cell)
    return found


def problems(slide):
    """What does not fit on a slide, or is more than one idea."""
    code = [cell for cell in slide if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in slide if cell.cell_type == "markdown")
    lines = [line for cell in code for line in cell.source.splitlines()]
    shown = [line for cell in code for out in cell.outputs for line in printed(out).splitlines()]
    if sum(line.startswith("#") for line in text.splitlines()) > 1:
        yield "two headings"
    if len(code) > 1:
        yield "two cells of code"
    if text.count("**Predict") > 1:
        yield "two predictions"
    yield from (f"cut off: {line}" for line in lines if len(line) > COLUMNS)
    if len(lines) + len(shown) > LINES:
        yield f"{len(lines)} lines of code and {len(shown)} of output"
    if len(text.split()) > WORDS:
        yield f"{len(text.split())} words"


def printed(output):
    return output.get("text") or output.get("data", {}).get("text/plain", "")


CELLS = nbformat.read(PATH, as_version=4).cells


@pytest.mark.parametrize("slide", slides(CELLS), ids=lambda slide: slide[0].id)
def test_a_slide_has_one_idea_and_fits(slide):
    assert not list(problems(slide))


def test_nbconvert_makes_as_many_slides():
    html, _ = SlidesExporter().from_filename(str(PATH))
    assert html.count("<section>") == len(slides(CELLS)) + sum(
        cell.metadata.slideshow.slide_type == "slide" for cell in CELLS
    )


TEXT = {"slideshow": {"slide_type": "slide"}}
MORE = {"slideshow": {"slide_type": "-"}}


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([new_code_cell("x" * 71, metadata=MORE)], "cut off"),
        ([new_code_cell("x\n" * 23, metadata=MORE)], "23 lines"),
        ([new_code_cell("x", metadata=MORE)] * 2, "two cells"),
        ([new_markdown_cell("# More", metadata=MORE)], "two headings"),
        ([new_markdown_cell("word " * 151, metadata=MORE)], "words"),
        ([new_markdown_cell("**Predict.** **Predict.**", metadata=MORE)], "two predictions"),
    ],
)
def test_what_does_not_fit_is_found(cells, problem):
    (slide,) = slides([new_markdown_cell("## Map", metadata=TEXT), *cells])
    assert problem in "\n".join(problems(slide))
