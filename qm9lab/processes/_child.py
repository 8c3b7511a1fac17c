"""What a fresh Python process runs, by its path: import a function, call it, send its result.

The parent imports ``encode`` and ``decode`` from here. Values travel as JSON, arrays in files in
NumPy's format. Nothing is pickled. The child imports only the standard library, and NumPy if an
array arrives.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path, PurePath
from typing import Any

PLAIN = (type(None), bool, int, float, str)


def encode(value: Any, folder: str, where: str) -> Any:
    """``value`` as JSON can hold it; arrays go into files in ``folder``.

    Raises TypeError if a part of the value, which is named ``where``, cannot be sent.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in (list, tuple):
        parts = [encode(part, folder, f"{where}[{k}]") for k, part in enumerate(value)]
        return parts if kind is list else {"tuple": parts}
    if kind is dict and all(type(key) is str for key in value):
        items = value.items()
        return {"dict": {key: encode(part, folder, f"{where}[{key!r}]") for key, part in items}}
    if kind is bytes:
        return {"bytes": value.hex()}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    numpy, missing = sys.modules.get("numpy"), sys.modules.get("qm9lab.measure.missing")
    if missing and kind is missing.Missing:
        return {"missing": value.reason}
    if numpy and isinstance(value, numpy.ndarray | numpy.generic) and not value.dtype.hasobject:
        fd, path = tempfile.mkstemp(".npy", dir=folder)
        with open(fd, "wb") as f:
            numpy.save(f, value, allow_pickle=False)
        return {"array": path}
    raise TypeError(
        f"expected numbers, text, bytes, paths, arrays, or lists, tuples and dicts (with str "
        f"keys) of those, found {where}, a {kind.__name__}: it cannot go to another process"
    )


def decode(value: Any) -> Any:
    """What ``encode`` made, as a value again; removes the files of its arrays."""
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tuple":
        return tuple(decode(content))
    if kind == "dict":
        return {key: decode(part) for key, part in content.items()}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "path":
        return Path(content)
    if kind == "missing":
        return importlib.import_module("qm9lab.measure.missing").Missing(content)
    array = importlib.import_module("numpy").load(content, allow_pickle=False)
    os.unlink(content)
    return array if array.ndim else array[()]


def call(command: dict[str, Any], *held: Any) -> Any:
    """Call the function that a command names, with what is held before its arguments."""
    importlib.invalidate_caches()  # its file may be newer than the last look into the folder
    function = getattr(importlib.import_module(command["module"]), command["function"])
    return function(*held, *decode(command["args"]))


def call_once(folder: str) -> None:
    """Do the one command in ``folder``, and leave the result there."""
    command = json.loads(Path(folder, "command.json").read_text())
    value = encode(call(command), folder, f"the result of {command['function']}")
    Path(folder, "result.json").write_text(json.dumps(value))


def answer_calls(folder: str) -> None:
    """Do one command after another from standard input, and answer each in a line.

    The first one's result is kept, and goes to each later function as its first argument. What
    a function prints goes to standard error, so that the answers have the pipe for themselves.
    """
    commands, answers = open(os.dup(0)), open(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    held: list[Any] = []
    for line in commands:
        command, answer = json.loads(line), {}
        try:
            value = call(command, *held)
            if held:
                answer["value"] = encode(value, folder, f"the result of {command['function']}")
            else:
                held.append(value)
        except Exception:
            answer["error"] = traceback.format_exc()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path[:] = [*json.loads(Path(sys.argv[2], "path.json").read_text()), sys.argv[2]]
    {"run": call_once, "hold": answer_calls}[sys.argv[1]](sys.argv[2])
