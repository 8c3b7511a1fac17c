"""What a committed notebook must keep, and that conftest.py and build.py do what they say.

Each rule is a function that yields what is wrong with a notebook, and is shown to fail
(``BREAKS``). How long and how dense a lesson may be is the subject of test_lesson_shape.py.
"""

import ast
import functools
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9w]*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))

TAGS = {
    "exercise": "a stub with ... and the call of its check",
    "take-home": "code that runs without qm9lab",
    "twin": "a function that qm9lab has too, held to the same code by test_glass_box.py",
    "nbval-ignore-output": "a measurement: its output is not compared",
}
LINK = re.compile(r"\]\((?P<target>[^)\s]+)[^)]*\)")
PAGE_SIZE = re.compile(
    r"(?<![\d.])(4[ ,_]?096|16[ ,_]?384)(?!\.?\d)"
    r"|(?<![\w.,])(16|sixteen)[ -](small |base )?pages?\b",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.</])/(home|work|root|tmp|Users|opt)\b.{0,40}")


def code_cells(nb):
    return [(i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def nodes(cell, kind):
    return [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kind)]


def links(nb, folder):
    for i, cell in enumerate(nb.cells):
        for found in LINK.finditer(cell.source if cell.cell_type == "markdown" else ""):
            target = found["target"].partition("#")[0]
            if target and not re.match(r"(https?|mailto):", target):
                if not (folder / target).exists():
                    yield f"cell {i}: expected the file {target}, found none"


def exercises(nb, folder):
    for i, cell in code_cells(nb):
        is_exercise = re.search(r"\bcheck\.exercise_\w+\(", cell.source) is not None
        if is_exercise != ("exercise" in tags(cell)):
            yield f"cell {i}: expected the tag `exercise` where a check is called, only there"
        if not is_exercise:
            continue
        if not any(node.value is ... for node in nodes(cell, ast.Constant)):
            yield f"cell {i}: expected `...` in the stub of the exercise"
        if "nbval-ignore-output" in tags(cell):
            yield f"cell {i}: expected the verdict on a stub to be compared, found it ignored"


def page_size_is_asked_for(nb, folder):
    for i, cell in enumerate(nb.cells):
        if found := PAGE_SIZE.search(cell.source):
            yield f"cell {i}: expected mmap.PAGESIZE or what was measured, found {found[0]}"


def ignored_outputs_have_an_assert(nb, folder):
    code = code_cells(nb)
    for at, (i, cell) in enumerate(code):
        if "nbval-ignore-output" in tags(cell):
            if not any(nodes(c, ast.Assert) for _, c in code[at : at + 2]):
                yield f"cell {i}: expected an assert in this measuring cell or the next code cell"


def figures_are_pictures(nb, folder):
    for i, cell in code_cells(nb):
        for data in (output.get("data", {}) for output in cell.outputs):
            if data.get("text/plain", "").startswith("<Figure") and "image/png" not in data:
                yield f"cell {i}: expected a picture, found only the words that name it"


def executed(nb, folder):
    counts = [cell.execution_count for _, cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"expected cells run in order from a fresh kernel (make notebooks), found {counts}"


def clean_metadata(nb, folder):
    for i, cell in enumerate(nb.cells):
        if left := set(cell.metadata) - _load_build().KEPT_CELL_METADATA:
            yield f"cell {i}: expected what make notebooks keeps, found {sorted(left)}"
        if unknown := set(tags(cell)) - set(TAGS):
            yield f"cell {i}: expected tags of {sorted(TAGS)}, found {sorted(unknown)}"
    if left := set(nb.metadata) - {"kernelspec", "language_info"}:
        yield f"expected no metadata but the kernel's (make notebooks), found {sorted(left)}"


def clean_outputs(nb, folder):
    for i, cell in code_cells(nb):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {i}: expected no error output: catch it, print its type, assert it"
            data = output.get("data", {}).items()
            texts = [output.get("text", ""), *(v for kind, v in data if kind.startswith("text/"))]
            if found := MACHINE_PATH.search("\n".join(texts)):
                yield f"cell {i}: expected no path of one machine in an output, found {found[0]!r}"


COMMITTED = (executed, clean_metadata, clean_outputs, figures_are_pictures)
RULES = (*COMMITTED, links, exercises, page_size_is_asked_for, ignored_outputs_have_an_assert)


def problems(nb, folder, rules):
    return [f"{rule.__name__}: {found}" for rule in rules for found in rule(nb, folder)]


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=lambda p: p.stem)
def test_notebook_keeps_the_rules(path):
    rules = COMMITTED if path in SOLUTIONS else RULES
    found = problems(nbformat.read(path, as_version=4), path.parent, rules)
    assert not found, "\n".join([f"{path.name}:", *found])


def test_there_are_lessons_and_solutions():
    assert LESSONS and SOLUTIONS


# Each rule can fail --------------------------------------------------------------------------


@pytest.fixture
def lesson():
    """A lesson that keeps every rule."""
    measures = {"tags": ["nbval-ignore-output"]}
    cells = [
        new_markdown_cell("# Map\n[docs](https://x.org#y) [here](#x) ![a map](read_or_map.svg)"),
        new_code_cell("guess = None", execution_count=1),
        new_code_cell("time()", execution_count=2, metadata=measures),
        new_code_cell("assert 1", execution_count=3),
        new_code_cell(
            "answer = ...\ncheck.exercise_1(answer)",
            execution_count=4,
            metadata={"tags": ["exercise"]},
        ),
    ]
    return new_notebook(cells=cells)


def source(i, text):
    return lambda nb: nb.cells[i].update(source=text)


def output(**what):
    return lambda nb: nb.cells[1].outputs.append(new_output(**what))


def tagged(i, *names):
    return lambda nb: nb.cells[i].metadata.update(tags=list(names))


BREAKS = [
    (links, source(0, "See [this](02_nowhere.ipynb).")),
    (links, source(0, "![A file of pages](../figures/nowhere.svg)")),
    (exercises, tagged(4)),
    (exercises, tagged(3, "exercise")),
    (exercises, source(4, "answer = 4\ncheck.exercise_1(answer)  # was ...")),
    (exercises, tagged(4, "exercise", "nbval-ignore-output")),
    (page_size_is_asked_for, source(0, "A page has 4,096 bytes.")),
    (page_size_is_asked_for, source(1, "x = 16_384")),
    (page_size_is_asked_for, source(0, "One fault maps sixteen pages.")),
    (ignored_outputs_have_an_assert, source(3, "'assert'")),
    (executed, lambda nb: nb.cells[3].update(execution_count=None)),
    (executed, lambda nb: nb.cells[3].update(execution_count=7)),
    (clean_metadata, lambda nb: nb.cells[3].metadata.update(execution={})),
    (clean_metadata, lambda nb: nb.metadata.update(widgets={})),
    (clean_metadata, tagged(3, "nbval-ignore-outputs")),
    (clean_outputs, output(output_type="error", ename="E", evalue="", traceback=[])),
    (clean_outputs, output(output_type="stream", name="stdout", text="/home/ada/qm9.dat")),
    (clean_outputs, output(output_type="display_data", data={"text/plain": "'/tmp/x'"})),
    (figures_are_pictures, output(output_type="display_data", data={"text/plain": "<Figure>"})),
]


def test_the_model_lesson_keeps_every_rule(lesson):
    assert problems(lesson, ROOT / "figures", RULES) == []


@pytest.mark.parametrize("rule, break_it", BREAKS)
def test_rule_fails_on_a_lesson_that_breaks_it(lesson, rule, break_it):
    break_it(lesson)
    assert list(rule(lesson, ROOT / "figures"))


def test_every_rule_is_shown_to_fail():
    assert set(RULES) == {rule for rule, _ in BREAKS}


def test_other_numbers_pass(lesson):
    lesson.cells[0].source = "14096, 40960, 0.4096, 4096.5, 16 bytes, 160 pages and page 16."
    assert not list(page_size_is_asked_for(lesson, ROOT))


# conftest.py and build.py keep their word ----------------------------------------------------


@functools.cache
def _load_build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pytest(path, *more, **variables):
    """Run a folder of notebooks in a pytest of their own with our conftest."""
    options = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "tests.conftest"]
    options += ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *more, path],
        env=os.environ | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def _write(path, *cells):
    nb = new_notebook(cells=[new_code_cell(source) for source in cells])
    nbformat.write(nb, path)
    return path


ALT = {"mystnb": {"image": {"alt": "a slider at 0"}}}
WIDGET = """
import ipywidgets, sys
class View(ipywidgets.VBox):
    def _repr_mimebundle_(self, **kwargs):
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": "a slider", "image/png": b"x"}
print("progress", file=sys.stderr)
View([ipywidgets.IntSlider()])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A notebook with a widget and standard error, as `make notebooks` leaves it."""
    folder = tmp_path_factory.mktemp("built")
    path = _write(folder / "01_widget.ipynb", WIDGET, "print('one')\nprint('two')")
    nb = nbformat.read(path, as_version=4)
    nb.cells[0].metadata.update(ALT, scrolled=True)
    nbformat.write(nb, path)
    _load_build().build(path)
    return path


def test_build_keeps_the_picture_and_drops_the_widget(built):
    nb = nbformat.read(built, as_version=4)
    (view,) = nb.cells[0].outputs
    assert set(view.data) == {"image/png", "text/plain"} and view.data["text/plain"] == "a slider"
    assert nb.cells[0].metadata == ALT and view.metadata == {"image/png": {"alt": "a slider at 0"}}
    assert [cell.execution_count for cell in nb.cells] == [1, 2]
    (stream,) = nb.cells[1].outputs
    assert stream.text == "one\ntwo\n"
    assert nb.metadata == {"kernelspec": _load_build().KERNEL, "language_info": {"name": "python"}}


def test_build_twice_stores_nothing_new(built):
    before = built.read_bytes()
    assert _load_build().build(built).endswith("the same")
    assert built.read_bytes() == before and before.endswith(b"}\n")


def test_nbval_compares_with_what_build_stored_and_names_a_dead_kernel_at_once(built, tmp_path):
    (tmp_path / "01_same.ipynb").write_text(text := built.read_text())
    (tmp_path / "02_other.ipynb").write_text(text.replace('"a slider"', '"a knob"', 1))
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGBUS)"
    _write(tmp_path / "03_dies.ipynb", "1", kill, "2", "3")
    start_s = time.monotonic()
    done = _pytest(tmp_path, "--nbval", "-v")
    assert time.monotonic() - start_s < 110  # nbval alone would wait 120 s for the dead kernel
    found = re.findall(r"(\d\d_\w+)\.ipynb::Cell \d+ ([A-Z]+)", done.stdout)
    verdicts = {name: [v for n, v in found if n == name] for name, _ in found}
    assert verdicts == {
        "01_same": ["PASSED", "PASSED"],
        "02_other": ["FAILED", "PASSED"],
        "03_dies": ["PASSED", "FAILED", "SKIPPED", "SKIPPED"],
    }, done.stdout
    assert "The kernel died in this cell (SIGBUS)" in done.stdout, done.stdout


def test_build_leaves_a_failing_notebook_as_it_was(tmp_path, monkeypatch, capsys):
    build = _load_build()
    path = _write(tmp_path / "01_fails.ipynb", "1 / 0")
    before = path.read_bytes()
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.main([]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert build.main(["02"]) == 1 and "found none" in capsys.readouterr().err


STAND_IN = """
import os, pytest, time

class Cell(pytest.Item):
    def runtest(self):
        if self.name == "Cell 0":
            self.parent.fd = os.open(os.environ["LOCK"], os.O_CREAT | os.O_EXCL)
        elif self.name == "Cell 1":
            time.sleep(1)
        else:
            os.close(self.parent.fd)  # an AttributeError in another process
            os.unlink(os.environ["LOCK"])

class Notebook(pytest.File):
    def collect(self):
        return [Cell.from_parent(self, name=f"Cell {k}") for k in range(3)]

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb":
        return Notebook.from_parent(parent, path=file_path)
"""


def test_notebooks_run_one_after_another_on_one_of_two_cores(tmp_path):
    """The second of two fails if the first still runs, and each if its cells are dealt out.

    Something stands in for nbval, with its names of cells: kernels take seconds to start.
    """
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    for name in "01_first.ipynb", "02_second.ipynb":
        (tmp_path / name).touch()
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "LOCK": str(tmp_path / "lock")}
    done = _pytest(tmp_path, "-p", "no:nbval", "-p", "stand_in", "-n", "2", **environment)
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout
