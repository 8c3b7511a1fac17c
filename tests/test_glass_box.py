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
    "07": {"open", "run_script", "compare.run"},
    "08": {"open", "mmap.mmap", "struct.Struct", ".unpack_from", "np.frombuffer", "touched.pages"},
    # What 09 maps, reads and locks stands in scripts, which test_sharing.py reads.
    "09": {"holding", "total", "footprint", "watch", "play", ".tell", ".leave"},
    # As in 07: what kills or fills up stands in scripts, which test_costs.py reads.
    "10": {"open", "mmap.mmap", "run_script", "limits.waste"},
    "11": {
        "open",
        "mmap.mmap",
        "columns.write",
        "columns.MappedQM9",
        ".gather",
        "touched.pages",
        "DataLoader",
        ".backward",
        ".step",
        "torch.manual_seed",
        "run_script",
    },  # fmt: skip
}

# Function that a lesson defines in a cell tagged `twin` -> the module that has it for the others.
TWINS = {
    "regions": "qm9lab.measure.address_space",
    "c_mmap": "qm9lab.lessons.lesson_03.in_child",
    "rusage_faults": "qm9lab.measure.fault_counts",
    "evict": "qm9lab.measure.eviction",
    "one_by_one": "qm9lab.lessons.lesson_09.readers",
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
