"""Checks of the exercises: a message for each answer, never the answer.

``from qm9lab.lessons.lesson_01 import check`` and then ``check.exercise_1(answer)``. A stub
still holding ``...`` gets "Not yet"; a wrong answer gets the hint for the misconception that
it shows; a right one gets "Right". Questions with a ``seed`` are drawn anew for each seed.
"""

import numbers
import textwrap
from typing import NamedTuple


class Verdict(NamedTuple):
    """What a check says: ``right``, and a sentence."""

    right: bool
    text: str

    def __repr__(self) -> str:
        return self.text


NOT_HERE = "not available here"

NOT_YET = Verdict(False, "Not yet: put your answer in place of the ... and run this cell again.")


def ask(text: str) -> str:
    """A question, wrapped to a notebook's width."""
    return textwrap.fill(text, 88)


def right(text: str = "") -> Verdict:
    """The verdict for a right answer, with what to take away from it."""
    return Verdict(True, f"Right. {text}".strip())


def hint(text: str) -> Verdict:
    """The verdict for a wrong answer: what to think about, not what to write."""
    return Verdict(False, f"Not quite: {text}")


def is_stub(answer) -> bool:
    """True while the answer is still ``...``, or a function whose body is still ``...``."""
    if answer is ... or answer is None:
        return True
    code = getattr(answer, "__code__", None)
    return code is not None and code.co_code == _blank.__code__.co_code and not code.co_names


def _blank(): ...


def number(answer, expected, mistakes: dict, otherwise: str, praise: str = "") -> Verdict:
    """Check a numeric answer.

    Parameters
    ----------
    expected : number
    mistakes : dict
        Wrong number -> the hint for the misconception that leads to it. Entries that happen to
        equal ``expected`` (some questions of a seed make them coincide) are passed over.
    otherwise : str
        The hint for any other number.
    """
    if is_stub(answer):
        return NOT_YET
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return hint(f"a number was asked for, this is a {type(answer).__name__}.")
    if answer == expected:
        return right(praise)
    return hint(mistakes.get(answer, otherwise))


def attempt(function, *args):
    """Call the learner's function: ``(result, None)``, or ``(None, verdict)`` if that failed."""
    if is_stub(function):
        return None, NOT_YET
    try:
        return function(*args), None
    except Exception as error:
        return None, hint(f"your function raised {type(error).__name__}: {error}")


class Reveal(NamedTuple):
    """A guess beside what was measured."""

    guess: object
    measured: object
    unit: str

    def __repr__(self) -> str:
        guess, measured = _form(self.guess), _form(self.measured)
        unit = "" if NOT_HERE in measured else self.unit
        return f"your guess: {guess}   measured: {measured} {unit}".rstrip()


def _form(value) -> str:
    if is_stub(value):
        return "none yet"
    if isinstance(value, tuple | list):
        if all(map(is_stub, value)):
            return "none yet"
        forms = [_form(part) for part in value]
        if set(forms) == {forms[0]} and NOT_HERE in forms[0]:
            return forms[0]  # one reason is said once
        return " | ".join(forms)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def reveal(guess, measured, unit: str = "") -> Reveal:
    """Put the learner's guess and the measurement side by side."""
    return Reveal(guess, measured, unit)
