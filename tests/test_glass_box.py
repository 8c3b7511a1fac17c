"""The kit looks at what the learner opened. It does not open it for the learner.

What a lesson teaches is typed in its cells. A function that a lesson writes out in full, and that
the package has for later lessons, is the same code in both (a twin).
"""

import ast
import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9w]*.ipynb"))

# What each lesson teaches, as it is typed: dotted names, `.name` for a method of some object,
# several names separated by | where one of them is enough.
TAUGHT = {
    "00": "open mmap.mmap struct.unpack_from struct.pack_into .flush np.memmap mmap.PAGESIZE",
    "01": "open .seek .read struct.pack struct.unpack|struct.unpack_from",
    "02": "open mmap.mmap memoryview .read .close",
    "03": "open mmap.mmap mmap.ALLOCATIONGRANULARITY libc.mmap",
    "04": "open mmap.mmap struct.pack_into .flush .truncate os.replace os.fsync",
    "05": "open mmap.mmap struct.unpack_from struct.pack_into .flush mmap.ACCESS_COPY .truncate "
    "resource.getrusage .ru_minflt psutil.Process .memory_info .rss .shared np.memmap",
    "06": "open mmap.mmap .madvise os.posix_fadvise os.fsync resource.getrusage",
    "07": "open mmap.mmap .madvise psutil.Process .memory_info .rss .shared resource.getrusage "
    ".ru_minflt .ru_majflt resource.setrlimit processes.run ax.plot",
    "08": "open mmap.mmap struct.Struct .unpack_from np.frombuffer touched.pages",
    "09": "open mmap.mmap os.fork .madvise mmap.MAP_ANONYMOUS pickle.dumps np.memmap "
    "fcntl.lockf measure.footprint",
    "10": "open mmap.mmap",
    "11": "open mmap.mmap columns.write columns.MappedQM9 .gather touched.pages DataLoader "
    ".backward .step torch.manual_seed",
    "wo": "open mmap.mmap struct.unpack_from struct.pack_into .flush .read "
    "mmap.ALLOCATIONGRANULARITY mmap.ACCESS_READ .memory_info .madvise .setrlimit .plot",
}

# Function that a lesson defines in a cell tagged `twin` -> the module that has it for the others.
TWINS = {
    "c_mmap": "qm9lab.measure.system_calls",
    "rusage_faults": "qm9lab.measure.fault_counts",
    "evict": "qm9lab.measure.eviction",
}


def code(path, tag=None):
    """The trees of a notebook's code cells, of those with a tag if one is given."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return [ast.parse(c.source) for c in cells if not tag or tag in c.metadata.get("tags", [])]


def missing(taught, trees):
    """The names of ``taught`` that no code uses."""
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name | ast.Attribute):
            found.add(ast.unparse(node))
        if isinstance(node, ast.Attribute):
            found.add(f".{node.attr}")
    return [names for names in taught.split() if not found & set(names.split("|"))]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_types_the_calls_that_it_teaches(path):
    assert not missing(TAUGHT[path.name[:2]], code(path))


def test_a_call_that_is_hidden_or_only_named_is_missed():
    trees = [ast.parse("import mmap\nx = 'mmap.mmap(fd, 0)'\nmm = helper.map(path)\nmm.flush()")]
    assert missing("mmap.mmap .flush a|.flush", trees) == ["mmap.mmap"]
    assert missing("mmap.mmap", [ast.parse("mm = mmap.mmap(f.fileno(), 0)")]) == []


def functions(tree):
    return {node.name: bare(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


class WithoutAnnotations(ast.NodeTransformer):
    def visit_AnnAssign(self, node):
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def bare(function):
    """A function's code without docstring, annotations and comments, as text to compare."""
    function = WithoutAnnotations().visit(ast.parse(ast.unparse(function)).body[0])
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(function)


def test_what_a_lesson_wrote_out_is_what_the_package_has():
    in_lessons = {}
    for tree in (tree for path in LESSONS for tree in code(path, tag="twin")):
        assert functions(tree), "a cell tagged `twin` defines no function"
        in_lessons |= functions(tree)
    assert set(in_lessons) == set(TWINS)
    for name, module in TWINS.items():
        source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
        assert in_lessons[name] == functions(ast.parse(source))[name], f"{name}, {module}"


def test_twins_are_compared_by_their_code():
    def of(source):
        return functions(ast.parse(source))["f"]

    lesson = "def f(a, b=1):\n    # why\n    c = a\n    return c + b"
    module = 'def f(a: int, b: int = 1) -> int:\n    """Doc."""\n    c: int = a\n    return (c + b)'
    assert of(lesson) == of(module)
    for old, new in (("+", "-"), ("= 1", "= 2"), ("c + b)", "c + b) or None")):
        assert of(lesson) != of(module.replace(old, new))
