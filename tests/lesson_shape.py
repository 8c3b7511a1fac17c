"""The shape of each lesson: how long, how dense, how much a learner must take in.

    python tests/lesson_shape.py [NOTEBOOK ...]     a table of all measures
    python tests/lesson_shape.py --over             what exceeds the budget; status 1 if anything

Everything is counted from the notebook's file. Nothing is run.
"""

import argparse
import ast
import re
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


class Measure(NamedTuple):
    """What is counted, and how much of it a lesson may have (None: it is only shown)."""

    budget: float | None
    meaning: str


MEASURES = {
    "cells": Measure(40, "cells, code and text"),
    "words": Measure(1300, "words of prose, without code, tables and pictures"),
    "lines": Measure(130, "lines of code that are not blank"),
    "median": Measure(None, "median of the lines of code in a cell"),
    "longest": Measure(15, "lines of code in the longest cell"),
    "predicts": Measure(6, "cells with **Predict"),
    "names": Measure(12, "names of qm9lab that the cells use"),
    "strings": Measure(0, "scripts written as a string"),
    "tricks": Measure(0, "eval, exec, globals, replace() on code, walrus, and/or as a statement"),
    "others": Measure(3.0, "lines about other systems or missing values, in 100 lines of code"),
    "comp": Measure(5.0, "comprehensions in 100 lines of code"),
    "lambdas": Measure(1.0, "lambdas in 100 lines of code"),
    "semis": Measure(6.0, "semicolons in 100 sentences"),
    "brackets": Measure(8.0, "opening brackets in 100 sentences"),
    "tics": Measure(2, "words that CONTRIBUTING.md tells you to avoid"),
    "no_alt": Measure(0, "cells with a picture and no alt text"),
    "no_home": Measure(0, "1 if no cell is tagged take-home"),
}
# By the beginning of the notebook's name.
WIDER = {
    "07": {"words": 1400},
    "workshop": {"words": 1500},
    "10b": {"cells": 45, "words": 1500},
    "13": {"cells": 45, "words": 1500},
    "14": {"cells": 45, "words": 1500, "lines": 150},
}

TRICK_CALLS = {"eval", "exec", "globals", "locals", "compile", "__import__"}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
IS_SCRIPT = re.compile(r"\b(import|def|for|with|return)\b.*[:\n(]")
OTHER_SYSTEM = re.compile(
    r"not available here|NOT_HERE|not_here|sys\.platform|os\.name|hasattr\((?:os|mmap|resource|mm)"
    r"|is (?:not )?None|can_evict|Windows|macOS|why_not"
)
TICS = re.compile(
    r"\btells? apart\b|\btold apart\b|\bshall\b|\bcomes? of (?:it|a|the)\b|\bmend(?:s|ed)?\b"
    r"|\bwitness|\banew\b|\breckon|\bnot to be had\b|\bbehind (?:the|it|its|a)\b"
    r"|\bstore[sd]? (?:to|into|through|in)\b|\bwere stored\b|\bis stored\b|\bapart\b"
    r"|\bhands? out\b|\bTold[:,]",
    re.IGNORECASE,
)


def shape(notebook) -> dict[str, float]:
    """Each measure of a notebook (a ``nbformat.NotebookNode``)."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code]
    n_lines = sum(map(len, lines))
    others = sum(bool(OTHER_SYSTEM.search(line)) for cell in lines for line in cell)
    text = prose(notebook)
    sentences = [s for s in re.split(r"(?<=[.!?:])\s+|\n\n", text) if len(s.split()) > 2]
    found = [count_code(parse(cell.source)) for cell in code]
    totals = {name: sum(each[name] for each in found) for name in ("strings", "tricks")}

    def in_100_lines(n: int) -> float:
        return round(100 * n / max(n_lines, 1), 1)

    def in_100_sentences(character: str) -> float:
        return round(100 * text.count(character) / max(len(sentences), 1), 1)

    return {
        "cells": len(notebook.cells),
        "words": len(re.findall(r"[A-Za-z']+", text)),
        "lines": n_lines,
        "median": statistics.median(map(len, lines)) if lines else 0,
        "longest": max(map(len, lines), default=0),
        "predicts": sum("**Predict" in cell.source for cell in notebook.cells),
        "names": len(names_of_the_kit([parse(cell.source) for cell in code])),
        **totals,
        "others": in_100_lines(others),
        "comp": in_100_lines(sum(each["comp"] for each in found)),
        "lambdas": in_100_lines(sum(each["lambdas"] for each in found)),
        "semis": in_100_sentences(";"),
        "brackets": in_100_sentences("("),
        "tics": len(TICS.findall(text)),
        "no_alt": sum(has_picture(cell) and not alt_text(cell) for cell in code),
        "no_home": int(not any("take-home" in c.metadata.get("tags", []) for c in code)),
    }


def parse(source: str) -> ast.Module:
    """The cell's code without its lines of magic; an empty module if it is not Python."""
    try:
        return ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE))
    except SyntaxError:
        return ast.Module([], [])


def prose(notebook) -> str:
    """The words of the text cells: no code, tables, pictures or targets of links."""
    text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\|.*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"!\[.*?\]\(.*?\)", " ", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)
    return re.sub(r"[*_#]", "", text)


def count_code(tree: ast.Module) -> dict[str, int]:
    """Scripts in strings, tricks, comprehensions and lambdas of one cell."""
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in docstrings]
    scripts = [t for t in texts if isinstance(t, str) and t.count("\n") > 1 and IS_SCRIPT.search(t)]
    return {
        "strings": len(scripts),
        "tricks": sum(map(is_trick, nodes)),
        "comp": sum(isinstance(node, COMPREHENSIONS) for node in nodes),
        "lambdas": sum(isinstance(node, ast.Lambda) for node in nodes),
    }


def is_trick(node: ast.AST) -> bool:
    match node:
        case ast.Call(ast.Name(name)):
            return name in TRICK_CALLS
        case ast.Call(ast.Attribute(ast.Name(name), "replace")):
            return name.isupper()  # a script in a constant
        case ast.NamedExpr() | ast.Expr(ast.BoolOp()):
            return True
    return False


def names_of_the_kit(trees: list[ast.Module]) -> set[str]:
    """What the cells use of qm9lab: functions imported by name, and ``module.name``."""
    names, modules = set(), set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qm9lab"):
                imported = {alias.asname or alias.name for alias in node.names}
                (modules if node.module == "qm9lab" else names).update(imported)
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(ast.Name(module), name) if module in modules - {"check"}:
                    names.add(f"{module}.{name}")
    return names - {"check", "reveal"}


def has_picture(cell) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))


def alt_text(cell) -> str:
    """The alt text of a cell's picture: the cell's metadata, or the output's."""
    found = [cell.metadata.get("alt"), cell.metadata.get("mystnb", {}).get("image", {}).get("alt")]
    for output in cell.outputs:
        found.append(output.get("metadata", {}).get("image/png", {}).get("alt"))
    return next(filter(None, found), "")


def over_budget(name: str, measured: dict[str, float]) -> list[str]:
    """What exceeds the budget of the lesson with this file name, such as ``words 1350 > 1300``."""
    budget = {measure: MEASURES[measure].budget for measure in measured}
    for prefix, wider in WIDER.items():
        if name.startswith(prefix):
            budget |= wider
    return [
        f"{measure} {value} > {budget[measure]}"
        for measure, value in measured.items()
        if budget[measure] is not None and value > budget[measure]
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--over", action="store_true", help="only what exceeds the budget")
    options = parser.parse_args(argv)
    paths = options.notebooks or sorted(NOTEBOOKS.glob("[0-9w]*.ipynb"))
    shapes = {path.name: shape(nbformat.read(path, as_version=4)) for path in paths}
    over = {name: found for name in shapes if (found := over_budget(name, shapes[name]))}
    if options.over:
        for name, found in over.items():
            print(f"{name}: {', '.join(found)}")
        print(f"{len(shapes)} notebooks, {len(over)} over budget")
        return int(bool(over))
    print("lesson".ljust(28), *(measure.rjust(8) for measure in MEASURES))
    for name, measured in shapes.items():
        print(name[:28].ljust(28), *(f"{value:8g}" for value in measured.values()))
    budgets = ("-" if m.budget is None else f"{m.budget:g}" for m in MEASURES.values())
    print("budget".ljust(28), *(budget.rjust(8) for budget in budgets))
    for name, measure in MEASURES.items():
        print(f"{name:10}{measure.meaning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
