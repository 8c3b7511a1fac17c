"""The anatomy of a lesson, and that the notebooks are committed as `make notebooks` leaves them.

Each rule is a function that yields what is wrong with a lesson, and is shown to fail on a lesson
that breaks it (``BREAKS``). How the cells are run and compared is conftest.py's and build.py's:
the last tests here hold those two to their word on notebooks of their own.
"""

import ast
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))

TAGS = {
    "exercise": "a stub with ... and the call of its check",
    "twin": "a function that qm9lab has too, held to the same code by test_glass_box.py",
    "nbval-ignore-output": "a measurement: its output is not compared",
}
# Imports that cost seconds stand in the cell that needs them, not in the first.
HEAVY = {"torch", "torch_geometric", "rdkit", "polars"}
# (lesson, cell id): why a cell that is not compared needs no assert.
NEEDS_NO_ASSERT: dict[tuple[str, str], str] = {}

MAX_WORDS = 110
MAX_LINES, MAX_MEDIAN_LINES = 12, 5
# A lesson of three or four rounds has up to 44 cells; these have six or seven experiments that
# must be there, each with its prediction in a cell of its own.
MAX_CELLS = 44
LONGER = {
    "02_first_map": 56,
    "03_mmap_parameters": 60,
    "04_build_the_qm9_file": 60,
    "05_read_and_update": 56,
    "06_pages_and_faults": 68,
    "07_full_load_vs_lazy": 68,
    "08_random_access": 82,
    "09_sharing": 74,
    "10_costs_and_limits": 77,
    "11_train_from_the_map": 70,
}
MAX_OUTPUT_BYTES = 250_000


class Lesson(NamedTuple):
    """A notebook and where it lies; links are looked up from there."""

    path: Path
    nb: nbformat.NotebookNode

    @property
    def is_first(self) -> bool:
        return self.path.name.startswith("00")

    def cells(self, kind: str) -> list[tuple[int, nbformat.NotebookNode]]:
        return [(i, cell) for i, cell in enumerate(self.nb.cells) if cell.cell_type == kind]


Rule = Callable[[Lesson], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


def parse(source: str) -> ast.Module:
    """The cell's code; an empty module if it is not plain Python (``plain_python`` says so)."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def code_lines(source: str) -> int:
    return sum(bool(line.strip()) for line in source.splitlines())


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def text_of(output) -> str:
    """All of an output that a reader sees as text."""
    texts = [output.get("text", "")]
    texts += [v for k, v in output.get("data", {}).items() if k.startswith(("text/", "image/svg"))]
    return "\n".join("".join(t) for t in texts)


# What stands where ---------------------------------------------------------------------------


@rule
def title(lesson):
    first = lesson.nb.cells[0]
    if first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        yield "cell 0: expected Markdown that starts with '# A title with a verb'"


@rule
def promise(lesson):
    for _, cell in lesson.cells("markdown")[:4]:
        _, found, after = cell.source.partition("You will")
        items = re.findall(r"^[-*\d].? +(.+)", after, re.MULTILINE)
        if found and 3 <= len(items) <= 5:
            vague = [s for s in items if re.match(r"(learn|understand|know|see)\b", s, re.I)]
            if vague:
                yield f"'You will' promises {vague[0]!r}: name something that can be checked"
            return
    yield "expected, among the first text cells, 'You will' and a list of three or four verbs"


IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)\s]+)[^)]*\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)[^)]*\)")


@rule
def picture(lesson):
    images = [m for _, cell in lesson.cells("markdown") for m in IMAGE.finditer(cell.source)]
    if not any(m["target"].startswith("../figures/") for m in images):
        yield "expected a picture of the lesson, ![alt text](../figures/name.svg)"
    for m in images:
        if len(m["alt"].split()) < 3:
            yield f"{m['target']}: expected alt text that says what is to see, found {m['alt']!r}"
    if any("<img" in cell.source for _, cell in lesson.cells("markdown")):
        yield "expected pictures as ![alt text](file), found <img>"


@rule
def links(lesson):
    for i, cell in lesson.cells("markdown"):
        for m in (*IMAGE.finditer(cell.source), *LINK.finditer(cell.source)):
            target = m["target"].partition("#")[0]
            if not target or re.match(r"(https?|mailto):", target):
                continue
            if not (lesson.path.parent / target).exists():
                yield f"cell {i}: expected the file {target}, found none"


@rule
def imports_first(lesson):
    (at, first), *others = lesson.cells("code")
    for node in parse(first.source).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            yield f"cell {at}: expected the first code cell to hold imports only"
            break
    for i, cell in others:
        for node in ast.walk(parse(cell.source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or node.names[0].name]
                if names[0].partition(".")[0] not in HEAVY:
                    yield f"cell {i}: expected `import {names[0]}` in the first code cell"


@rule
def plain_python(lesson):
    for i, cell in lesson.cells("code"):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            yield f"cell {i}: expected plain Python without % and !, found {error.text!r}"
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                yield f"cell {i}: expected imports by name, found a star import"
        if re.search(r"\bget_ipython\b|\bpip\b", cell.source):
            yield f"cell {i}: expected no get_ipython and no pip"


@rule
def length(lesson):
    low = 12 if lesson.is_first else 22
    high = LONGER.get(lesson.path.stem, MAX_CELLS)
    if not low <= len(lesson.nb.cells) <= high:
        yield f"expected {low} to {high} cells, found {len(lesson.nb.cells)}"


@rule
def enough_prose(lesson):
    n_text, n_code = len(lesson.cells("markdown")), len(lesson.cells("code"))
    if n_text < n_code:
        yield f"expected as many text cells as code cells, found {n_text} and {n_code}"


@rule
def short_cells(lesson):
    lines = {i: code_lines(cell.source) for i, cell in lesson.cells("code")}
    for i, n in lines.items():
        if n > MAX_LINES:
            yield f"cell {i}: expected at most {MAX_LINES} lines of code, found {n}"
    if statistics.median(lines.values()) > MAX_MEDIAN_LINES:
        median = statistics.median(lines.values())
        yield f"expected a median of at most {MAX_MEDIAN_LINES} lines a cell, found {median}"


@rule
def short_texts(lesson):
    for i, cell in lesson.cells("markdown")[1:]:
        prose = [line for line in cell.source.splitlines() if not line.startswith("|")]
        n_words = len(LINK.sub("link", IMAGE.sub("", "\n".join(prose))).split())
        if n_words > MAX_WORDS:
            yield f"cell {i}: expected at most {MAX_WORDS} words (tables aside), found {n_words}"


@rule
def predictions(lesson):
    if lesson.is_first:
        return
    at = [i for i, cell in lesson.cells("markdown") if "**Predict" in cell.source]
    if len(at) < 3:
        yield f"expected at least 3 cells with **Predict**, found {len(at)}"
    for i in at:
        if [cell.cell_type for cell in lesson.nb.cells[i + 1 : i + 2]] != ["code"]:
            yield f"cell {i}: expected, after **Predict**, the code cell where the guess is written"


@rule
def asserts(lesson):
    nodes = [n for _, cell in lesson.cells("code") for n in ast.walk(parse(cell.source))]
    n_asserts = sum(isinstance(node, ast.Assert) for node in nodes)
    if n_asserts < 4:
        yield f"expected at least 4 asserts, found {n_asserts}"


@rule
def exercises(lesson):
    n_exercises = 0
    for i, cell in lesson.cells("code"):
        calls = re.findall(r"\bcheck\.exercise_\w+\(", cell.source)
        n_exercises += bool(calls)
        if bool(calls) != ("exercise" in tags(cell)):
            yield f"cell {i}: expected the tag `exercise` where a check is called, only there"
        constants = [n for n in ast.walk(parse(cell.source)) if isinstance(n, ast.Constant)]
        if calls and not any(node.value is ... for node in constants):
            yield f"cell {i}: expected `...` in the stub of the exercise"
        if calls and "nbval-ignore-output" in tags(cell):
            yield f"cell {i}: expected the verdict on a stub to be compared, found it ignored"
    if not lesson.is_first and not 2 <= n_exercises <= 3:
        yield f"expected two or three exercises, found {n_exercises}"


@rule
def recap(lesson):
    last = [cell for _, cell in lesson.cells("markdown")][-3:]
    if not any(re.search(r"^#+ .*\bRecap\b", cell.source, re.MULTILINE) for cell in last):
        yield "expected, at the end, a heading with the word Recap"


@rule
def page_size_is_asked_for(lesson):
    for i, cell in enumerate(lesson.nb.cells):
        found = re.search(r"(?<![\d.])(4[ ,_]?096|16[ ,_]?384)(?!\.?\d)", cell.source)
        if found:
            names = "mmap.PAGESIZE or mmap.ALLOCATIONGRANULARITY"
            yield f"cell {i}: expected {names}, found {found[0]}"


def is_16(node):
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value == 16


def says(pattern, *nodes):
    """Whether the code of one of the nodes has a word that matches."""
    return any(re.search(pattern, ast.unparse(node), re.I) for node in nodes)


def sixteens(tree):
    """Code in which 16 stands for pages: times a page, compared, counted to, kept as pages."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left, ast.Mult(), right) if is_16(left) or is_16(right):
                if says("page", left, right):
                    yield node
            case ast.Compare(left, _, others) if any(map(is_16, [left, *others])):
                if not says("byte|size", left, *others):
                    yield node
            case ast.Call(ast.Name("range"), args) if any(map(is_16, args)):
                yield node
            case ast.Assign([target], value) if is_16(value) and says("page|around", target):
                yield node
            case ast.keyword(str(name), value) if is_16(value) and "page" in name:
                yield node


@rule
def pages_of_one_fault_are_measured(lesson):
    """16 pages are what one fault maps on many machines, of some files: it is no constant."""
    wanted = "what measure.calibrate or this lesson measured"
    in_words = re.compile(r"(?<![\w.,])(16|sixteen)[ -](small |base )?pages?\b", re.I)
    for i, cell in enumerate(lesson.nb.cells):
        if found := in_words.search(cell.source):
            yield f"cell {i}: expected {wanted}, found {found[0]!r}"
    for i, cell in lesson.cells("code"):
        for node in sixteens(parse(cell.source)):
            yield f"cell {i}: expected {wanted}, found {ast.unparse(node)!r}"


# What is committed ---------------------------------------------------------------------------


@rule
def executed(lesson):
    counts = [cell.execution_count for _, cell in lesson.cells("code")]
    if counts != list(range(1, len(counts) + 1)):
        yield f"expected cells run in order from a fresh kernel (make notebooks), found {counts}"


@rule
def no_errors(lesson):
    for i, cell in lesson.cells("code"):
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell {i}: expected no error output: catch it, print its type and assert it"


@rule
def clean_metadata(lesson):
    for i, cell in enumerate(lesson.nb.cells):
        if left := set(cell.metadata) - {"tags"}:
            yield f"cell {i}: expected no metadata but tags (make notebooks), found {sorted(left)}"
        if unknown := set(tags(cell)) - set(TAGS):
            yield f"cell {i}: expected tags of {sorted(TAGS)}, found {sorted(unknown)}"
    if left := set(lesson.nb.metadata) - {"kernelspec", "language_info"}:
        yield f"expected no metadata but the kernel's (make notebooks), found {sorted(left)}"


@rule
def ignored_outputs_have_an_assert(lesson):
    code = lesson.cells("code")
    for at, (i, cell) in enumerate(code):
        if "nbval-ignore-output" not in tags(cell):
            continue
        if (lesson.path.stem, cell.id) in NEEDS_NO_ASSERT:
            continue
        nodes = [n for _, c in code[at : at + 2] for n in ast.walk(parse(c.source))]
        if not any(isinstance(node, ast.Assert) for node in nodes):
            yield f"cell {i}: expected an assert in this measuring cell or the next code cell"


MACHINE_PATH = re.compile(r"(?<![\w.</])/(home|work|root|tmp|Users|opt)\b.{0,40}")


@rule
def no_machine_paths(lesson):
    for i, cell in lesson.cells("code"):
        for output in cell.outputs:
            if found := MACHINE_PATH.search(text_of(output)):
                yield f"cell {i}: expected no path of one machine in an output, found {found[0]!r}"


@rule
def small_outputs(lesson):
    for i, cell in lesson.cells("code"):
        n_bytes = len(json.dumps(cell.outputs))
        if n_bytes > MAX_OUTPUT_BYTES:
            yield f"cell {i}: expected at most {MAX_OUTPUT_BYTES} bytes of output, found {n_bytes}"


@rule
def no_warnings(lesson):
    for i, cell in lesson.cells("code"):
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {i}: expected nothing from standard error (make notebooks drops it)"


def test_there_are_lessons():
    assert LESSONS, "notebooks/ holds no lesson (NN_name.ipynb): nothing here is checked"


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson(path, name):
    problems = list(RULES[name](Lesson(path, nbformat.read(path, as_version=4))))
    assert not problems, "\n".join([f"{path.name}, {name}:", *problems])


COMMITTED = [executed, no_errors, clean_metadata, no_machine_paths, small_outputs, no_warnings]


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_solution(path, committed):
    problems = list(committed(Lesson(path, nbformat.read(path, as_version=4))))
    assert not problems, "\n".join([f"{path.name}, {committed.__name__}:", *problems])


# Each rule can fail --------------------------------------------------------------------------

STUB = "answer = ...\ncheck.exercise_1(answer)"


@pytest.fixture
def lesson(tmp_path):
    """A lesson of 24 cells that keeps every rule, with the files it links to."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "pages.svg").write_text("<svg/>")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_before.ipynb").write_text("{}")
    text, code = new_markdown_cell, new_code_cell
    cells = [
        text("# Map a file\nOne sentence."),
        text("You will\n\n- compute this\n- predict that\n- repair those"),
        text("![A file, page by page](../figures/pages.svg)"),
        code("import mmap\nfrom qm9lab import measure"),
    ]
    for _ in range(4):
        cells += [
            text("## Why\nBecause, see [before](01_before.ipynb#x) and [docs](https://x.org)."),
            text("**Predict** how many?"),
            code("guess = None"),
            code("assert 1 == 1", metadata={"tags": ["nbval-ignore-output"]}),
        ]
    for _ in range(2):
        cells.append(text("## Exercise\nYour turn."))
        cells.append(code(STUB, metadata={"tags": ["exercise"]}))
    cells.append(text("## Recap\nFacts."))
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    nb = new_notebook(cells=cells)
    _load_build().normalise(nb)
    return Lesson(tmp_path / "notebooks" / "02_x.ipynb", nb)


def _source(i, source):
    return lambda nb: nb.cells[i].update(source=source)


def _output(**what):
    return lambda nb: nb.cells[6].outputs.append(new_output(**what))


def _stdout(text):
    return _output(output_type="stream", name="stdout", text=text)


def _tags(i, *names):
    return lambda nb: nb.cells[i].metadata.update(tags=list(names))


def _drop(first, last):
    return lambda nb: nb.cells.__delitem__(slice(first, last))


BREAKS = [
    (title, _source(0, "No title")),
    (title, _source(0, "## Too low")),
    (promise, _source(1, "You will see.")),
    (promise, _source(1, "You will\n- understand maps\n- compute\n- repair")),
    (picture, _source(2, "none")),
    (picture, _source(2, "![](../figures/pages.svg)")),
    (picture, _source(2, '![A file of pages](../figures/pages.svg) <img src="x.png">')),
    (links, _source(4, "See [this](02_nowhere.ipynb).")),
    (links, _source(2, "![A file of pages](../figures/nowhere.svg)")),
    (imports_first, _source(3, "x = 1")),
    (imports_first, _source(6, "import os")),
    (imports_first, _source(6, "from os import path")),
    (plain_python, _source(6, "%matplotlib inline")),
    (plain_python, _source(6, "!ls")),
    (plain_python, _source(3, "from os import *")),
    (plain_python, _source(6, "subprocess.run(['pip', 'install', 'x'])")),
    (length, _drop(4, 10)),
    (length, lambda nb: nb.cells.extend([new_markdown_cell("more")] * 24)),
    (enough_prose, lambda nb: nb.cells.extend([new_code_cell("1")] * 6)),
    (short_cells, _source(6, "x = 1\n" * 13)),
    (short_cells, lambda nb: [c.update(source="x = 1\n" * 6) for c in nb.cells[3:]]),
    (short_texts, _source(4, "word " * 111)),
    (predictions, lambda nb: [nb.cells[i].update(source="x") for i in (5, 9)]),
    (predictions, lambda nb: nb.cells.insert(6, new_markdown_cell("in between"))),
    (asserts, _source(7, "1")),
    (exercises, lambda nb: nb.cells[21].metadata.clear()),
    (exercises, _tags(6, "exercise")),
    (exercises, _source(21, "answer = 4\ncheck.exercise_1(answer)  # was ...")),
    (exercises, _tags(21, "exercise", "nbval-ignore-output")),
    (exercises, lambda nb: [_source(21, "1")(nb), _tags(21)(nb)]),
    (recap, _source(24, "Recap without a heading")),
    (page_size_is_asked_for, _source(4, "A page has 4,096 bytes.")),
    (page_size_is_asked_for, _source(6, "x = 4096")),
    (page_size_is_asked_for, _source(6, "x = 16_384")),
    (pages_of_one_fault_are_measured, _source(4, "One fault maps 16 pages.")),
    (pages_of_one_fault_are_measured, _source(4, "It maps sixteen pages.")),
    (pages_of_one_fault_are_measured, _source(6, "x = 1  # 16 pages")),
    (pages_of_one_fault_are_measured, _source(6, "end = 16 * mmap.PAGESIZE")),
    (pages_of_one_fault_are_measured, _source(6, "end = start + page * 16")),
    (pages_of_one_fault_are_measured, _source(6, "assert mapped.sum() == 16")),
    (pages_of_one_fault_are_measured, _source(6, "assert 1 <= n_small <= 16")),
    (pages_of_one_fault_are_measured, _source(6, "for k in range(16):\n    mm[k]")),
    (pages_of_one_fault_are_measured, _source(6, "mm[:mmap.PAGESIZE * 3]\nn_pages = 16")),
    (pages_of_one_fault_are_measured, _source(6, "show(n_pages=16)")),
    (executed, lambda nb: nb.cells[6].update(execution_count=None)),
    (executed, lambda nb: nb.cells[6].update(execution_count=7)),
    (no_errors, _output(output_type="error", ename="E", evalue="", traceback=[])),
    (clean_metadata, lambda nb: nb.cells[6].metadata.update(execution={})),
    (clean_metadata, lambda nb: nb.metadata.update(widgets={})),
    (clean_metadata, _tags(6, "nbval-ignore-outputs")),
    (ignored_outputs_have_an_assert, _source(11, "1")),
    (no_machine_paths, _stdout("/home/ada/data/qm9.dat")),
    (no_machine_paths, _output(output_type="display_data", data={"text/plain": "'/tmp/x'"})),
    (small_outputs, _stdout("x" * 250_000)),
    (no_warnings, _output(output_type="stream", name="stderr", text="DeprecationWarning")),
]  # fmt: skip


def test_the_model_lesson_keeps_every_rule(lesson):
    assert {name: list(check(lesson)) for name, check in RULES.items() if list(check(lesson))} == {}


@pytest.mark.parametrize("at", range(len(BREAKS)), ids=lambda at: f"{at}-{BREAKS[at][0].__name__}")
def test_rule_fails_on_a_lesson_that_breaks_it(lesson, at):
    broken_rule, break_it = BREAKS[at]
    before = deepcopy(lesson.nb)
    break_it(lesson.nb)
    assert lesson.nb != before
    assert list(broken_rule(lesson))


def test_every_rule_is_shown_to_fail():
    assert set(RULES.values()) == {broken_rule for broken_rule, _ in BREAKS}


def test_first_lesson_may_be_short(lesson):
    first = Lesson(lesson.path.with_name("00_start.ipynb"), lesson.nb)
    del first.nb.cells[4:12]
    assert not list(length(first)) and list(length(lesson))


def test_numbers_that_only_contain_a_page_size_pass(lesson):
    lesson.nb.cells[4].source = "14096, 40960, 0.4096 and 4096.5 are no page sizes."
    assert not list(page_size_is_asked_for(lesson))


def test_other_sixteens_pass(lesson):
    lesson.nb.cells[4].source = "Base 16, 16 bytes, 160 pages, page 16 and 1.16 pages of text."
    lesson.nb.cells[6].source = "int(x, 16); x = 16 << 20; assert n_bytes == 16; show(16, page)"
    assert not list(pages_of_one_fault_are_measured(lesson))


# conftest.py and build.py keep their word ----------------------------------------------------


def _load_build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _nbval(path, *more):
    """Run a notebook, or a folder of them, under nbval with our conftest, as `make test` does."""
    options = ["--nbval", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    options += ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *more, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )


def _write(path, *cells):
    nb = new_notebook(cells=[new_code_cell(source) for source in cells])
    nbformat.write(nb, path)
    return path


WIDGET = """
import ipywidgets, sys
class View(ipywidgets.VBox):
    def _repr_mimebundle_(self, **kwargs):
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": "a slider", "image/png": b"x"}
print("progress", file=sys.stderr)
View([ipywidgets.IntSlider()])
"""


@pytest.fixture
def built(tmp_path):
    """A notebook with a widget and standard error, as `make notebooks` leaves it."""
    path = _write(tmp_path / "01_widget.ipynb", WIDGET, "print('one')\nprint('two')")
    _load_build().build(path)
    return path


def test_build_keeps_the_picture_and_drops_the_widget(built):
    nb = nbformat.read(built, as_version=4)
    (view,) = nb.cells[0].outputs
    assert set(view.data) == {"image/png", "text/plain"} and view.data["text/plain"] == "a slider"
    assert [cell.execution_count for cell in nb.cells] == [1, 2]
    (stream,) = nb.cells[1].outputs
    assert stream.text == "one\ntwo\n"
    assert nb.metadata == {"kernelspec": _load_build().KERNEL, "language_info": {"name": "python"}}


def test_build_twice_stores_nothing_new(built):
    before = built.read_bytes()
    assert _load_build().build(built).endswith("the same")
    assert built.read_bytes() == before and before.endswith(b"}\n")


def test_nbval_passes_on_what_build_stored(built):
    done = _nbval(built)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


def test_nbval_fails_on_another_text_beside_a_widget(built):
    built.write_text(built.read_text().replace('"a slider"', '"a knob"', 1))
    done = _nbval(built)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout


def test_build_leaves_a_failing_notebook_as_it_was(tmp_path, monkeypatch, capsys):
    build = _load_build()
    path = _write(tmp_path / "01_fails.ipynb", "1 / 0")
    before = path.read_bytes()
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.main([]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert build.main(["02"]) == 1 and "found none" in capsys.readouterr().err


def test_a_dead_kernel_is_named_at_once_and_ends_the_notebook(tmp_path):
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGBUS)"
    start_s = time.monotonic()
    done = _nbval(_write(tmp_path / "01_dies.ipynb", "1", kill, "2", "3"))
    assert "The kernel died in this cell (SIGBUS)" in done.stdout, done.stdout
    assert "1 failed, 1 passed, 2 skipped" in done.stdout
    assert time.monotonic() - start_s < 60


def test_notebooks_run_one_after_another_on_one_of_two_cores(tmp_path):
    """The second of two fails if the first still runs, and each if its cells are dealt out."""
    claim = "import os, time\nfd = os.open('lock', os.O_CREAT | os.O_EXCL)"
    for name in "01_first.ipynb", "02_second.ipynb":
        _write(tmp_path / name, claim, "time.sleep(1)", "os.close(fd)\nos.unlink('lock')")
    done = _nbval(tmp_path, "-n", "2")
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout
