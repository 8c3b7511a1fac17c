"""A solution notebook holds the lesson's exercise cells, and differs from them only at ``...``."""

import ast
import io
import re
import textwrap
import tokenize
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9w]*.ipynb"))

NOT_YET, RIGHT = "Not yet:", "Right"


def read(path):
    return nbformat.read(path, as_version=4)


def exercises(notebook):
    """The cells tagged ``exercise``, in order."""
    return [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]


def solution_of(lesson):
    return lesson.parent / "solutions" / f"{lesson.stem}_solutions.ipynb"


def blanks(source):
    """Where the ``...`` of a stub stand: (start, end) offsets of the tokens, not those in text."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return [
        (starts[t.start[0] - 1] + t.start[1], starts[t.end[0] - 1] + t.end[1])
        for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.OP and t.string == "..."
    ]


def differs(stub, solution):
    """What else than the ``...`` differs between a stub and its solution; None if nothing does.

    A ``...`` on a line of its own may become lines at the same indent or deeper; any other may
    become one expression.
    """
    pattern, checks, at = "", [], 0
    for start, end in blanks(stub):
        pattern += re.escape(stub[at:start]) + r"([\s\S]+?)"
        before = stub[:start].rpartition("\n")[2]
        alone = not before.strip() and not stub[end:].partition("\n")[0].strip()
        checks.append((alone, before))
        at = end
    match = re.fullmatch(pattern + re.escape(stub[at:].rstrip()), solution.rstrip())
    if not match:
        return "the text around `...` is not the stub's"
    for fill, (alone, indent) in zip(match.groups(), checks, strict=True):
        lines = (indent + fill).splitlines()
        if alone and any(line.strip() and not line.startswith(indent) for line in lines):
            return f"lines in place of `...` leave its indent: {fill!r}"
        try:
            filled = textwrap.dedent("\n".join(lines)) if alone else f"(\n{fill}\n)"
            ast.parse(filled, mode="exec" if alone else "eval")
        except SyntaxError:
            return f"not {'statements' if alone else 'an expression'}: {fill!r}"
    if blanks(solution):
        return "a `...` is left"
    return None


def said(cell):
    """The text of a cell's outputs."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {})
        texts.append(output.get("text") or data.get("text/plain") or data.get("text/html") or "")
    return "\n".join(text.strip("'\" \n") for text in texts)


def verdict(cell):
    """What the check said, from its first word: the question may stand in lines before it."""
    found = re.search(rf"^(?:{NOT_YET}|{RIGHT}\b|Not quite)[\s\S]*", said(cell), re.MULTILINE)
    return found[0] if found else ""


def problems(lesson, solution):
    """What is wrong between a lesson and its solution, both notebooks."""
    stubs, solved = exercises(lesson), exercises(solution)
    if len(stubs) != len(solved):
        yield f"the lesson has {len(stubs)} exercise cells, the solution {len(solved)}"
    for n, (stub, cell) in enumerate(zip(stubs, solved, strict=False), 1):
        if found := differs(stub.source, cell.source):
            yield f"exercise cell {n}: {found}\n--- stub\n{stub.source}"
            yield f"--- solution\n{cell.source}"
        if not verdict(stub).startswith(NOT_YET):
            yield f"exercise cell {n}: expected the stub to say {NOT_YET!r}, found {said(stub)!r}"
        if not verdict(cell).startswith(RIGHT):
            yield f"exercise cell {n}: expected the solution to say {RIGHT!r}, found {said(cell)!r}"
    for cell in solution.cells:
        if cell.cell_type == "code" and blanks(cell.source):
            yield f"expected no `...` left in the solution, found it in\n{cell.source}"


def test_there_are_lessons_with_exercises():
    assert any(exercises(read(path)) for path in LESSONS), "no lesson has a cell tagged `exercise`"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_solution_differs_from_its_lesson_only_at_the_blanks(path):
    lesson = read(path)
    if not exercises(lesson):
        assert not solution_of(path).exists(), f"{path.name} has no exercise but a solution"
        return
    assert solution_of(path).exists(), f"expected {solution_of(path).relative_to(NOTEBOOKS)}"
    found = list(problems(lesson, read(solution_of(path))))
    assert not found, "\n".join([f"{path.name}:", *found])


def test_every_solution_belongs_to_a_lesson():
    expected = {solution_of(path) for path in LESSONS}
    assert set((NOTEBOOKS / "solutions").glob("*.ipynb")) <= expected


# The comparison itself -----------------------------------------------------------------------

EXPRESSION = "answer = ...  # bytes\ncheck.exercise_1(answer)"
BODY = 'def f(x):\n    """Say ... in words."""\n    ...\n\ncheck.exercise_2(f)'


@pytest.mark.parametrize(
    "stub, solution",
    [
        (EXPRESSION, "answer = 4 * len(x)  # bytes\ncheck.exercise_1(answer)"),
        (EXPRESSION, "answer = sum(\n    x for x in y\n)  # bytes\ncheck.exercise_1(answer)\n"),
        (BODY, BODY.replace("    ...\n", "    return x\n")),
        (BODY, BODY.replace("    ...\n", "    if x:\n        return 1\n\n    return x\n")),
        ("f(..., ...)", "f(1, 'a')"),
        ("def f(x):\n    return ...", "def f(x):\n    return x[...:2]".replace("...", "1")),
    ],
)
def test_same_but_for_the_blanks(stub, solution):
    assert differs(stub, solution) is None


@pytest.mark.parametrize(
    "stub, solution, expected",
    [
        (EXPRESSION, "answer = 4\ncheck.exercise_1(answer)", "not the stub's"),
        (EXPRESSION, "answer = 4  # bytes\ncheck.exercise_2(answer)", "not the stub's"),
        (EXPRESSION, "reply = 4  # bytes\ncheck.exercise_1(answer)", "not the stub's"),
        (EXPRESSION, EXPRESSION, "a `...` is left"),
        (EXPRESSION, "answer = 4\nx = 5  # bytes\ncheck.exercise_1(answer)", "not an expression"),
        (EXPRESSION, "answer = 4 +  # bytes\ncheck.exercise_1(answer)", "not an expression"),
        (BODY, BODY, "a `...` is left"),
        (BODY, BODY.replace("    ...\n", "    return x\ny = 2\n"), "leave its indent"),
        (BODY, BODY.replace("    ...\n", "    return (x\n"), "not statements"),
        (BODY, BODY.replace("def f(x)", "def f(x, y)"), "not the stub's"),
        (BODY, BODY.replace("Say ... in", "Say it in").replace("    ...\n", "    return 1\n"),
         "not the stub's"),
    ],
)  # fmt: skip
def test_other_differences_are_found(stub, solution, expected):
    assert expected in differs(stub, solution)


def _notebook(*cells):
    """Exercise cells of (source, what the cell said)."""
    return new_notebook(
        cells=[
            new_code_cell(
                source,
                metadata={"tags": ["exercise"]},
                outputs=[new_output("execute_result", {"text/plain": text})],
            )
            for source, text in cells
        ]
    )


STUB = (EXPRESSION, "How many bytes?\nNot yet: put your answer in place of the ...")
SOLVED = (EXPRESSION.replace("...", "4"), "Right. Four bytes.")


def test_a_lesson_and_its_solution_agree():
    assert list(problems(_notebook(STUB, STUB), _notebook(SOLVED, SOLVED))) == []


@pytest.mark.parametrize(
    "lesson, solution, expected",
    [
        (_notebook(STUB, STUB), _notebook(SOLVED), "2 exercise cells, the solution 1"),
        (_notebook((EXPRESSION, "Right.")), _notebook(SOLVED), "the stub to say 'Not yet:'"),
        (_notebook(STUB), _notebook((SOLVED[0], "Not quite: Right?")), "the solution to say"),
        (_notebook((EXPRESSION, "hm")), _notebook(SOLVED), "the stub to say 'Not yet:'"),
        (_notebook(STUB), _notebook(STUB), "a `...` is left"),
        (_notebook(STUB), _notebook(SOLVED, ("x = ...", "")), "no `...` left in the solution"),
    ],
)
def test_disagreements_are_found(lesson, solution, expected):
    assert any(expected in problem for problem in problems(lesson, solution))
