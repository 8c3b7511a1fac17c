"""The rooms of the package and the arrows between them: down only, and never in a circle.

Also what the core promises: it is light, and prints nothing.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "qm9lab").rglob("*.py"))
}
LAYERS = [
    {"files"},
    {"records", "measure"},
    {"qm9", "processes", "columns"},
    {"course"},
    {"lessons"},
    {"__main__"},
]
"""From the bottom to the top. A room imports rooms of lower layers, and ``__version__``."""

CORE = {"records", "files", "measure", "processes", "columns"}
"""For use outside the course: it imports neither the data set nor the course."""


def imports(name: str, source: str, modules=MODULES) -> set[str]:
    """The modules of ours that a module imports, wherever in it the import is written."""
    is_package = any(other.startswith(f"{name}.") for other in modules)
    package = name.split(".") if is_package else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in modules else base)
    return {each for each in found if each in modules and each not in (name, "qm9lab")}


def room(name: str) -> str:
    """``qm9lab.measure.cache`` lies in ``measure``, ``qm9lab.lessons.lesson_03.x`` in lesson_03."""
    _, top, inner, *_ = [*name.split("."), "", ""]
    return inner or top if top == "lessons" else top


def layer(name: str) -> int:
    top = (name.split(".")[1:] or [""])[0]
    return next(k for k, rooms in enumerate(LAYERS) if top in rooms)


def problems(graph: dict[str, set[str]]):
    """What breaks the rules in a graph of module -> modules that it imports."""
    for name, targets in graph.items():
        for target in targets:
            if room(name) == room(target):
                continue
            if layer(target) >= layer(name):
                yield f"{name} imports {target}, which is not below it"
            elif room(name) in CORE and room(target) not in CORE:
                yield f"{name} is core and imports {target}, which is not"
    yield from circles(graph)


def circles(graph: dict[str, set[str]]):
    """Circles of imports, each as the path that leads back to where it began."""
    done = set()

    def visit(name, path):
        if name in path:
            yield "a circle: " + " -> ".join([*path[path.index(name) :], name])
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, [*path, name])
            done.add(name)

    for name in graph:
        yield from visit(name, [])


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    return {
        name: imports(name, source, sources) for name, source in sources.items() if name != "qm9lab"
    }


def test_arrows_point_down_and_in_no_circle():
    sources = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    assert len(sources) > 30
    assert list(problems(graph_of(sources))) == []


@pytest.mark.parametrize(
    "name, source, expected",
    [
        ("qm9lab.records", "from qm9lab import measure", "not below"),
        ("qm9lab.measure.cache", "def f():\n    from qm9lab.course import plots", "not below"),
        ("qm9lab.lessons.lesson_01", "from qm9lab.lessons.lesson_02 import check", "not below"),
        ("qm9lab.columns", "from qm9lab import processes", "not below"),
        ("qm9lab.measure.a", "def f():\n    from . import b", "a circle"),
        ("qm9lab.lessons.lesson_01", "from qm9lab.course import plots", None),
        ("qm9lab.qm9", "from qm9lab import records", None),
    ],
)
def test_an_arrow_up_or_a_circle_is_found(name, source, expected):
    sources = dict.fromkeys(
        ("qm9lab.measure", "qm9lab.course.plots", "qm9lab.records", "qm9lab.processes"), ""
    )
    sources |= {"qm9lab.lessons.lesson_02.check": "", "qm9lab.measure.cache": ""}
    sources["qm9lab.measure.b"] = "from .a import x"
    sources["qm9lab.measure.a"] = ""
    found = list(problems(graph_of(sources | {name: source})))
    assert [expected in each for each in found] == ([True] if expected else [])


# What the core and the whole package promise -----------------------------------------------------

HEAVY = {"IPython", "ipywidgets", "matplotlib", "torch"}
UNWANTED = {"eval", "exec", "globals"}


def loaded(*modules: str) -> set[str]:
    """Which of the heavy packages are loaded when the modules are imported."""
    code = f"import sys, {', '.join(modules)}; print(*({HEAVY} & set(sys.modules)))"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_the_core_loads_nothing_heavy():
    assert loaded(*(f"qm9lab.{name}" for name in CORE)) == set()
    assert loaded("qm9lab.course.plots") == {"matplotlib"}


def called(source: str) -> set[str]:
    """Names of the functions that a module calls."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {func.id for func in calls if isinstance(func, ast.Name)}


def promises_broken(name: str, source: str):
    """What a module does although the package promises not to."""
    # A grep, so that scripts in strings are seen, too.
    if found := re.search(rf"\b({'|'.join(UNWANTED)})\(|^ *global ", source, re.MULTILINE):
        yield f"{name}: expected no {found[0].strip()}"
    if room(name) in CORE and "print" in called(source):
        yield f"{name}: the core prints nothing"
    for notebook in re.findall(r"notebooks/[\w/]+\.ipynb", source):
        if not (ROOT / notebook).exists():
            yield f"{name}: expected {notebook}, found none"


@pytest.mark.parametrize("name", MODULES)
def test_the_package_keeps_its_promises(name):
    assert list(promises_broken(name, MODULES[name].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "exec(code)",
        "SCRIPT = 'eval(code)'",
        "def f():\n    global x",
        "print(1)",
        '"""Source: notebooks/99_nowhere.ipynb."""',
    ],
)
def test_a_broken_promise_is_found(source):
    assert len(list(promises_broken("qm9lab.measure.cache", source))) == 1
