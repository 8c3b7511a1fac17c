"""From a function to the source of a module that a fresh Python imports."""

import builtins
import inspect
import symtable
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, ModuleType
from typing import Any, Final

Use = Callable[..., Any] | ModuleType
"""What can be named in ``uses``: a helper function, or a module."""

ABSENT: Final = object()
# Annotations may name types that the new process does not import: they stay text.
FUTURE: Final = "from __future__ import annotations\n"


class FunctionError(ValueError):
    """A function cannot be sent to another process as source."""


def module_source(function: Callable[..., Any], uses: Iterable[Use] = ()) -> str:
    """Source of a module that defines ``function`` and all that it uses.

    FunctionError if a function has no source, closes over a variable, or takes a name from its
    module that is neither a builtin nor in ``uses``.

    Source: ``inspect.getsource`` for the text, ``symtable`` for the names in it.
    """
    parts = [*uses, function]
    modules = [part for part in parts if isinstance(part, ModuleType)]
    functions = [part for part in parts if not isinstance(part, ModuleType)]
    sources = [_source_of(each) for each in functions]
    lines: dict[str, str] = {}
    for each, source in zip(functions, sources, strict=True):
        for name in sorted(_outside_names(source)):
            line = _definition(name, each, functions, modules)
            if lines.setdefault(name, line) != line:
                raise FunctionError(
                    f"expected that {name} means one thing in all the functions that are sent, "
                    f"found another meaning in {each.__name__}: rename it there"
                )
    # Imports come first, since a default value or a decorator may need them; other names of
    # helpers come last.
    imports = [line for line in lines.values() if line.startswith("import ")]
    aliases = [line for line in lines.values() if not line.startswith("import ")]
    return "\n".join([FUTURE, *imports, *sources, *aliases])


def _source_of(function: Callable[..., Any]) -> str:
    plain = inspect.unwrap(function)
    name = getattr(function, "__name__", repr(function))
    if not isinstance(plain, FunctionType) or name == "<lambda>":
        found = f"expected a function that is written with def, found {name}"
        raise FunctionError(f"{found} ({type(plain).__name__}): call it in one, and send that")
    try:
        source = inspect.getsource(plain)
    except (OSError, TypeError) as error:
        raise FunctionError(
            f"expected the source of {name}, found none ({error}): define it in a file or in a "
            f"notebook's cell"
        ) from None
    # An indented function keeps its indent: removing it would change the text of long strings.
    return f"if True:\n{source}" if source[0].isspace() else source


def _outside_names(source: str) -> set[str]:
    """Names that the source takes from its module or from the builtins."""
    taken, made = set(), set()
    tables = [symtable.symtable(FUTURE + source, "a function", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                taken.add(symbol.get_name())
            if symbol.is_global() and symbol.is_assigned():
                made.add(symbol.get_name())
    return taken - made


def _definition(
    name: str,
    function: Callable[..., Any],
    functions: Sequence[Callable[..., Any]],
    modules: Sequence[ModuleType],
) -> str:
    """The line that defines ``name`` in the new module; "" if it needs none."""
    plain: Any = inspect.unwrap(function)
    captured = dict(zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=False))
    try:
        value = captured[name].cell_contents if name in captured else plain.__globals__[name]
    except (KeyError, ValueError):  # not there, or a cell that is not filled yet
        value = ABSENT
    for module in modules:
        if value is module or (value is ABSENT and name == module.__name__):
            return f"import {module.__name__} as {name}"
    for helper in functions:
        if value is helper or name == helper.__name__:
            return "" if name == helper.__name__ else f"{name} = {helper.__name__}"
    builtin = getattr(builtins, name, ABSENT)
    # IPython wraps a few builtins in its own functions, such as open.
    is_builtin = value is ABSENT or inspect.unwrap(value) is builtin
    if builtin is not ABSENT and (is_builtin or name.startswith("__")):
        return ""
    kind = "closes over the variable" if name in captured else "uses the name"
    advice = "pass it as an argument"
    if value is ABSENT or callable(value) or isinstance(value, ModuleType):
        advice = f"import or define it inside {function.__name__}"
        advice += f", or give uses=[{name}]" if value is not ABSENT else ""
    raise FunctionError(
        f"{function.__name__} {kind} {name}, which a new process does not have: {advice}"
    )
