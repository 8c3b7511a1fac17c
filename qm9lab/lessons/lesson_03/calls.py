"""The six parameters of mmap(2): from six choices to the call, and to what the kernel made of it.

``make(folder, Choice(...))`` really makes the call, on a file in ``folder``, in a child process,
and touches what came out. Nothing of it happens in the process that asks.
"""

import contextlib
import errno
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qm9lab import processes
from qm9lab.measure import Region

from . import in_child
from .choice import ADDR, CONTROLS, FLAG, LENGTH, OFFSET, PROT, Choice, Outcome, Touch
from .words import c_call, describe, explain, python_call, why_not_python

__all__ = ["CONTROLS", "Choice", "Outcome", "make", "make_all", "why_not"]


def why_not() -> str:
    """Why calls cannot be made and seen on this system, or ""."""
    if sys.platform == "win32":
        return "not available here, because Windows has no mmap(2), prot and flags"
    if sys.platform != "linux":
        return f"not available here, because {sys.platform} has no /proc/self/maps to see regions"
    if sys.maxsize < 2**32:
        return "not available here, because this Python is a 32-bit one"
    return ""


def make(folder, choice: Choice) -> Outcome:
    """Make the call in a child process, on a file in ``folder``, and touch what came out.

    Notes
    -----
    Calls ``mmap(2)`` through ctypes, with every flag and every errno that it has; reads and
    stores the first and the last byte of the region, in forks of the child; then makes the
    Python call, too. The file is removed again.
    """
    return make_all(folder, [choice], all_regions=True)[0]


def make_all(
    folder,
    choices: Iterable[Choice],
    touch: bool = True,
    all_regions: bool = False,
    timeout_s: float = 60.0,
) -> list[Outcome]:
    """Make one call after another in one child process; see ``make``.

    Parameters
    ----------
    touch : bool
        Read and store at both ends of each region. A touch that kills takes a fork.
    all_regions : bool
        Fill ``Outcome.regions``, too.

    Raises
    ------
    RuntimeError
        If the child ended before it had answered.
    """
    choices = list(choices)
    if missing := why_not():
        return [
            _with_words(Outcome(choice, missing=missing, python_says=why_not_python(choice)))
            for choice in choices
        ]
    with tempfile.TemporaryDirectory(dir=folder, prefix="call-") as name:
        own = Path(name)
        how = {"touch": touch, "all_regions": all_regions}
        requests = [_request(choice) | how for choice in choices]
        (own / "requests.json").write_text(json.dumps(requests))
        script = Path(in_child.__file__).read_text(encoding="utf-8")
        ended = processes.run_script(script, own, timeout_s=timeout_s)
        with contextlib.suppress(FileNotFoundError):
            answers = json.loads((own / "answers.json").read_text())
            pairs = zip(choices, answers["answers"], strict=True)
            return [_outcome(choice, answer, answers["facts"]) for choice, answer in pairs]
    raise RuntimeError(
        f"expected an answer from the child process, found that it ended without: "
        f"{ended.how_it_ended}, {ended.last_line or 'no message'}: run it again"
    )


def _request(choice: Choice) -> dict:
    def bits(text, table):
        return sum(table[part.split("_", 1)[1]] for part in text.split("|") if part != "0")

    return {
        "addr": ADDR[choice.addr],
        "length": LENGTH[choice.length],
        "prot": bits(choice.prot, PROT),
        "flags": bits(choice.flags, FLAG),
        "fd": choice.fd,
        "offset": OFFSET[choice.offset],
        "python": python_call(choice),
    }


def _outcome(choice: Choice, answer: dict, facts: dict) -> Outcome:
    regions = tuple(Region(*line) for line in answer.get("regions", ()))
    outcome = Outcome(
        choice,
        addr=answer["addr"],
        python_says=answer["python"] or why_not_python(choice),
        regions=regions,
    )
    if answer["errno"]:
        name = errno.errorcode[answer["errno"]]
        meaning, change = explain(choice, name, facts)
        message = answer["message"]
        return _with_words(
            outcome._replace(error=name, message=message, meaning=meaning, change=change)
        )
    acts = [(act, where) for where in ("first", "last") for act in ("read", "store")]
    touches = [Touch(*act, result) for act, result in zip(acts, answer["touches"], strict=False)]
    return _with_words(
        outcome._replace(
            address=answer["address"],
            region=Region(*answer["region"]),
            present=None if answer["present"] is None else tuple(answer["present"]),
            touches=tuple(touches),
            stored=tuple(answer["stored"]),
        )
    )


def _with_words(outcome: Outcome) -> Outcome:
    return outcome._replace(
        c_call=c_call(outcome.choice, None if outcome.missing else outcome.addr),
        python_call=python_call(outcome.choice) or "",
        sentence=describe(outcome),
    )
