"""Each lesson is within the budget of tests/lesson_shape.py, or is listed as not rewritten yet."""

import lesson_shape
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

LESSONS = sorted(lesson_shape.NOTEBOOKS.glob("[0-9w]*.ipynb"))

# A lesson leaves this list when it is rewritten.
NOT_REWRITTEN_YET = {
    "08_random_access",
    "10_costs_and_limits",
    "11_train_from_the_map",
}


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_is_within_the_budget(path):
    measured = lesson_shape.shape(nbformat.read(path, as_version=4))
    over = lesson_shape.over_budget(path.name, measured)
    if path.stem in NOT_REWRITTEN_YET:
        assert over, f"{path.stem} is within the budget: take it off NOT_REWRITTEN_YET"
    else:
        assert not over, f"{path.name}: {', '.join(over)} (python tests/lesson_shape.py)"


def test_the_list_names_lessons():
    assert LESSONS and NOT_REWRITTEN_YET <= {path.stem for path in LESSONS}


def lesson(*cells):
    """A small lesson within the budget, with more cells."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Map a file\nYou map a file. You read it."),
            new_code_cell("from qm9lab import check, measure\nmeasure.faults()"),
            new_code_cell("open(path)", metadata={"tags": ["take-home"]}),
        ]
    )
    notebook.cells += cells
    return notebook


def test_a_small_lesson_is_within_the_budget():
    measured = lesson_shape.shape(lesson())
    assert lesson_shape.over_budget("01_x.ipynb", measured) == []
    assert (measured["cells"], measured["lines"], measured["names"]) == (3, 3, 1)


text, code = new_markdown_cell, new_code_cell
PICTURE = new_output("display_data", data={"image/png": "x"})
TOO_MUCH = [
    ("cells", [text("")] * 38),
    ("words", [text("word " * 1301)]),
    ("lines", [code("x = 1\n" * 15)] * 9),
    ("longest", [code("x = 1\n" * 16)]),
    ("predicts", [text("**Predict** how many?")] * 7),
    ("names", [code("\n".join(f"measure.name_{k}" for k in range(12)))]),
    ("names", [code("from qm9lab.records import " + ", ".join(f"name_{k}" for k in range(12)))]),
    ("strings", [code('RUN = """\nimport os\nprint(os.getpid())\n"""')]),
    ("tricks", [code("exec(source)")]),
    ("tricks", [code("RUN.replace('a', 'b')")]),
    ("tricks", [code("(n := 3)")]),
    ("tricks", [code("found or print('none')")]),
    ("others", [code("if sys.platform == 'darwin':\n    pass")]),
    ("comp", [code("[x for x in y]")]),
    ("lambdas", [code("f = lambda: 1")]),
    ("semis", [text("You map a file; you read it.")]),
    ("brackets", [text("You map a file (and read it).")]),
    ("tics", [text("The witness shall tell apart what stands behind the end.")]),
    ("no_alt", [code("show()", outputs=[PICTURE])]),
]


@pytest.mark.parametrize("measure, cells", TOO_MUCH)
def test_too_much_is_over_the_budget(measure, cells):
    over = lesson_shape.over_budget("01_x.ipynb", lesson_shape.shape(lesson(*cells)))
    assert measure in [each.split()[0] for each in over]


def test_a_lesson_without_a_take_home_cell_is_over_the_budget():
    notebook = lesson()
    del notebook.cells[2]
    assert lesson_shape.over_budget("01_x.ipynb", lesson_shape.shape(notebook)) == ["no_home 1 > 0"]


def test_every_measure_with_a_budget_is_shown_to_fail():
    budgets = {name for name, m in lesson_shape.MEASURES.items() if m.budget is not None}
    assert budgets == {name for name, _ in TOO_MUCH} | {"no_home"}


def test_what_is_no_prose_is_not_counted():
    cells = text(
        "`a;b` ![a (picture)](x.png) [link](https://x.org)\n\n| a; | (b) |\n\n```\n(;\n```"
    )
    measured = lesson_shape.shape(lesson(cells))
    assert (measured["semis"], measured["brackets"]) == (0, 0)


@pytest.mark.parametrize("where", ["alt", "mystnb", "output"])
def test_alt_text_is_found_where_tools_keep_it(where):
    output = new_output("display_data", data={"image/png": "x"})
    cell = code("show()", outputs=[output])
    if where == "output":
        output.metadata["image/png"] = {"alt": "a page map"}
    else:
        alt = {"alt": "a page map"}
        cell.metadata.update(alt if where == "alt" else {"mystnb": {"image": alt}})
    assert lesson_shape.alt_text(new_notebook(cells=[cell]).cells[0]) == "a page map"


def test_the_command_prints_what_is_over_and_fails(capsys, tmp_path):
    path = tmp_path / "01_long.ipynb"
    nbformat.write(lesson(text("word " * 1301)), path)
    assert lesson_shape.main(["--over", str(path)]) == 1
    assert "01_long.ipynb: words 13" in capsys.readouterr().out
    nbformat.write(lesson(), path)
    assert lesson_shape.main(["--over", str(path)]) == 0 == lesson_shape.main([str(path)])
