"""The kit looks at what the learner opened and does not open it for him.

What a lesson teaches is typed in its cells; the package keeps the rules of its house: who imports
whom, who may open a file, who may print. A function that a lesson wrote out in full and the
package keeps for later lessons is the same code in both.
"""

import ast
import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
PACKAGE = {
    ".".join(path.relative_to(ROOT / "qm9lab").with_suffix("").parts): path
    for path in sorted((ROOT / "qm9lab").rglob("*.py"))
}

# What each lesson teaches, as it is typed: dotted names, `.name` for a method of some object,
# several names separated by | where one of them will do.
TAUGHT = {
    "00": {"mmap.PAGESIZE", "mmap.ALLOCATIONGRANULARITY"},
    "01": {"open", ".seek", ".read", "struct.pack", "struct.unpack|struct.unpack_from"},
    "02": {"open", "mmap.mmap", "memoryview", ".read", ".close"},
    "03": {"open", "mmap.mmap", "mmap.ALLOCATIONGRANULARITY", "libc.mmap"},
    "04": {"open", "mmap.mmap", ".flush", ".truncate", "os.replace"},
    "05": {"open", "mmap.mmap", ".flush", "struct.pack_into|struct.pack", "mmap.ACCESS_COPY"},
    "06": {"open", "mmap.mmap", ".madvise", "os.posix_fadvise", "os.fsync", "resource.getrusage"},
    # What 07 opens, it opens in scripts for child processes: test_lazy.py reads those.
    "07": {"open", "child.run", "compare.run"},
    "08": {"open", "mmap.mmap", "struct.Struct", ".unpack_from", "np.frombuffer", "touched.pages"},
    # What 09 maps, reads and locks stands in scripts, which test_sharing.py reads.
    "09": {"holding", "total", "memory", "watch", "play", ".tell", ".leave"},
    # As in 07: what kills or fills up stands in scripts, which test_costs.py reads.
    "10": {"open", "mmap.mmap", "child.run", "limits.waste"},
    "11": {
        "open", "mmap.mmap", "columns.write", "columns.MappedQM9", ".gather", "touched.pages",
        "DataLoader", ".backward", ".step", "torch.manual_seed", "child.run",
    },  # fmt: skip
}

# Function that a lesson defines in a cell tagged `twin` -> the module that has it for the others.
TWINS = {
    "regions": "qm9lab.measure.address_space",
    "c_mmap": "qm9lab.calls.in_child",
    "rusage_faults": "qm9lab.measure.fault_counts",
    "evict": "qm9lab.measure.eviction",
    "one_by_one": "qm9lab.sharing.readers",
}


# What is typed in the lessons ----------------------------------------------------------------


def code(notebook, tag=None):
    """The code cells' trees, of those with a tag if one is given."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [ast.parse(c.source) for c in cells if not tag or tag in c.metadata.get("tags", [])]


def dotted(node):
    """``a.b.c`` of nested attributes of a name; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


def typed(trees):
    """Names that the code uses: dotted, and each attribute as ``.name``."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute):
            names |= {f".{node.attr}", dotted(node)}
        elif isinstance(node, ast.Name):
            names.add(node.id)
    return names


def missing(taught, trees):
    found = typed(trees)
    return sorted(names for names in taught if not found & set(names.split("|")))


def test_there_are_lessons():
    assert LESSONS, "notebooks/ holds no lesson (NN_name.ipynb): nothing here is checked"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_types_the_calls_that_it_teaches(path):
    number = path.name.partition("_")[0]
    assert number in TAUGHT, f"say in TAUGHT what {path.name} teaches"
    gone = missing(TAUGHT[number], code(nbformat.read(path, as_version=4)))
    assert not gone, f"{path.name} teaches {gone} but no cell has it"


def test_a_call_that_is_hidden_or_only_named_is_missed():
    trees = [ast.parse("import mmap\nx = 'mmap.mmap(fd, 0)'\nmm = helper.map(path)\nmm.flush()")]
    assert missing({"mmap.mmap", ".flush", "a|.flush"}, trees) == ["mmap.mmap"]
    assert missing({"mmap.mmap"}, [ast.parse("mm = mmap.mmap(f.fileno(), 0)")]) == []


# Twins ---------------------------------------------------------------------------------------


def functions(tree):
    found = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, found)}


def bare(function):
    """A function's code without docstring, annotations and comments, as text to compare."""
    function = ast.parse(ast.unparse(function)).body[0]
    for node in ast.walk(function):
        if hasattr(node, "returns"):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(function)


def twin_problems(tree, twins, read_module):
    """What is wrong with the functions of one cell tagged ``twin``."""
    defined = functions(tree)
    if not defined:
        yield "a cell tagged `twin` defines no function"
    for name, function in defined.items():
        if name not in twins:
            yield f"say in TWINS which module has `{name}`"
            continue
        module = functions(ast.parse(read_module(twins[name])))
        if name not in module:
            yield f"expected `{name}` in {twins[name]}, found none"
        elif bare(function) != bare(module[name]):
            yield (
                f"`{name}` differs:\n--- lesson\n{bare(function)}\n"
                f"--- {twins[name]}\n{bare(module[name])}"
            )


def read_module(name):
    return Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_what_a_lesson_wrote_out_is_what_the_package_has(path):
    trees = code(nbformat.read(path, as_version=4), tag="twin")
    found = [p for tree in trees for p in twin_problems(tree, TWINS, read_module)]
    assert not found, "\n".join([f"{path.name}:", *found])


def test_every_twin_stands_in_a_lesson():
    cells = [tree for path in LESSONS for tree in code(nbformat.read(path, as_version=4), "twin")]
    assert set(TWINS) <= {name for tree in cells for name in functions(tree)}


LESSON_TWIN = "def f(a, b=1):\n    # why\n    return a + b"
MODULE_TWIN = 'def f(a: int, b: int = 1) -> int:\n    """Doc."""\n    return (a + b)  # other'


@pytest.mark.parametrize(
    "lesson, module, expected",
    [
        (LESSON_TWIN, MODULE_TWIN, None),
        (LESSON_TWIN, MODULE_TWIN.replace("+", "-"), "differs"),
        (LESSON_TWIN, MODULE_TWIN.replace("= 1", "= 2"), "differs"),
        (LESSON_TWIN, MODULE_TWIN.replace("a + b)", "a + b) or None"), "differs"),
        (LESSON_TWIN, "def g(): pass", "expected `f`"),
        (LESSON_TWIN.replace("f(", "h("), MODULE_TWIN, "say in TWINS"),
        ("x = 1", MODULE_TWIN, "defines no function"),
    ],
)
def test_twins_are_compared_by_their_code(lesson, module, expected):
    found = list(twin_problems(ast.parse(lesson), {"f": "m"}, lambda name: module))
    assert [expected in problem for problem in found] == ([True] if expected else [])


# The package ---------------------------------------------------------------------------------

# Who may import what of ours. The arrows go one way: widgets -> plots -> (arrays);
# widgets -> measure; records and measure stand on their own.
MAY_IMPORT = {
    "__init__": set(),
    "records": set(),
    "measure": {"measure"},
    "child": set(),
    "lessons": set(),
    "plots": {"plots"},
    "pages": {"pages", "measure"},
    "data": {"records", "_"},
    "_": {"data", "records", "_"},  # private modules, which are parts of data
    "calls": {"calls", "child", "measure"},
    "compare": {"child", "measure"},
    "sharing": {"sharing", "measure"},
    "training": set(),
    "columns": {"columns"},
    "touched": {"measure"},
    "peers": {"child", "columns"},
    "limits": set(),
    "claims": set(),
    "widgets": {"widgets", "plots", "measure", "pages"},
    "check": {"check", "records", "measure", "touched"},
    "__main__": {"data", "lessons", "records", "measure", "child"},
}
OPENING = {
    "open", "io.open", "os.open", "np.load", "np.fromfile", "np.memmap", "mmap.mmap",
    ".open", ".read_bytes", ".read_text", ".write_bytes", ".write_text", ".imread",
}  # fmt: skip

# What reads bytes that someone else opened or mapped.
ANY_BUFFER = {"records", "columns.layout", "columns.reading"}


def imported(tree, module):
    """Dotted names that a module imports, our own with ``qm9lab.`` written out."""
    package = ["qm9lab", *module.split(".")][:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *base.split(".")])
            base = base.strip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part(name):
    """A module's name in MAY_IMPORT: its first component, ``_`` for a private one."""
    top = name.partition(".")[0]
    return "_" if top.startswith("_") and not top.startswith("__") else top


def ours(names):
    """What of ours is imported, as in MAY_IMPORT."""
    return {part(name.removeprefix("qm9lab.")) for name in names if name.startswith("qm9lab.")}


def outside(names):
    return {name.partition(".")[0] for name in names}


def house_problems(module, source):
    """What in a module's source breaks the rules of the house."""
    tree = ast.parse(source)
    names = set(imported(tree, module))
    top = part(module)
    if top not in MAY_IMPORT:
        yield f"say in MAY_IMPORT what {top} may import"
        return
    wrong = ours(names) - MAY_IMPORT[top] - {"__version__"}
    if wrong:
        yield f"may import {sorted(MAY_IMPORT[top])} of ours, found {sorted(wrong)}"
    if top != "widgets" and outside(names) & {"ipywidgets", "anywidget"}:
        yield "only widgets imports ipywidgets and anywidget"
    if top == "data" and "mmap" in outside(names):
        yield "data.py makes no memory map"
    if any(name.endswith(".*") for name in names):
        yield "no star import"
    calls = {n.func for n in ast.walk(tree) if isinstance(n, ast.Call)}
    called = {dotted(f) for f in calls} | {f".{f.attr}" for f in calls if hasattr(f, "attr")}
    if top == "plots" and called & OPENING:
        yield f"plots opens no file, found {sorted(called & OPENING)}"
    if module in ANY_BUFFER and (called & OPENING or "mmap" in outside(names)):
        yield "reads any buffer that the learner has, and opens and maps none"
    if top != "__main__" and "print" in called:
        yield "library code does not print"
    if any(isinstance(node, ast.Global) for node in ast.walk(tree)):
        yield "no global state"


@pytest.mark.parametrize("module", PACKAGE)
def test_module_keeps_the_rules_of_the_house(module):
    found = list(house_problems(module, PACKAGE[module].read_text(encoding="utf-8")))
    assert not found, "\n".join([f"qm9lab.{module}:", *found])


def test_the_package_has_the_modules_that_the_rules_are_about():
    assert {"records", "measure", "data", "plots", "widgets", "__main__"} <= set(map(part, PACKAGE))
    assert ANY_BUFFER <= set(PACKAGE)


@pytest.mark.parametrize(
    "module, source, expected",
    [
        ("records", "import struct", None),
        ("records", "from . import data", "may import"),
        ("records", "from .data import folder", "may import"),
        ("measure", "import qm9lab.records", "may import"),
        ("measure", "from . import _build", "may import"),
        ("data", "from . import _build, records", None),
        ("_build", "from .data import DataError", None),
        ("measure", "def f():\n    from qm9lab import records", "may import"),
        ("plots", "from . import records", "may import"),
        ("widgets", "import ipywidgets\nfrom . import plots, measure", None),
        ("widgets", "from . import data", "may import"),
        ("check.lesson_01", "from . import right\nfrom ..records import pack", None),
        ("check.lesson_01", "from .. import widgets", "may import"),
        ("check.__init__", "from ..data import qm9", "may import"),
        ("plots", "from ipywidgets import Image", "only widgets"),
        ("data", "import mmap", "no memory map"),
        ("plots", "open('x')", "opens no file"),
        ("plots", "path.read_bytes()", "opens no file"),
        ("plots", "import numpy as np\nnp.memmap('x')", "opens no file"),
        ("plots", "def draw(ax):\n    'open(x)'\n    ax.plot([1])\n    return ax", None),
        ("columns.reading", "from .layout import header\nheader([])", None),
        ("columns.reading", "import numpy as np\nnp.memmap('x')", "opens and maps none"),
        ("columns.reading", "from mmap import mmap", "opens and maps none"),
        ("columns.layout", "with open('x') as f:\n    pass", "opens and maps none"),
        ("columns.mapped", "import mmap\nopen('x')", None),
        ("child", "print('x')", "does not print"),
        ("__main__", "print('x')", None),
        ("records", "from struct import *", "no star"),
        ("records", "def f():\n    global x\n    x = 1", "no global"),
        ("newcomer", "", "say in MAY_IMPORT"),
    ],
)
def test_a_module_that_breaks_a_rule_is_found(module, source, expected):
    found = list(house_problems(module, source))
    assert [expected in problem for problem in found] == ([True] if expected else [])
