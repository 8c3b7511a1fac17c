"""What the checks of all exercises share: verdicts, and a guess next to what was measured.

``from qm9lab.lessons.lesson_01 import check`` and then ``check.exercise_1(answer)``. A stub
still holding ``...`` gets "Not yet". A wrong answer gets the hint for the misconception that
it shows, never the answer. Questions with a ``seed`` are drawn again for each seed.
"""

import math
import numbers
import textwrap
from typing import NamedTuple

from qm9lab.measure import is_missing


class Verdict(NamedTuple):
    """What a check says: ``right``, and a sentence."""

    right: bool
    text: str

    def __repr__(self) -> str:
        return self.text


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


def not_numbers(answer, n: int = 1) -> Verdict | None:
    """Why an answer is not a number, or not ``n`` of them in a tuple or list; None if it is."""
    parts = answer if n > 1 and isinstance(answer, tuple | list) else [answer]
    if any(map(is_stub, parts)):
        return NOT_YET
    if len(parts) != n:
        return hint(f"{n} numbers were asked for.")
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, numbers.Real) or not math.isfinite(part):
            return hint(f"a number was asked for, found {part!r}.")
    return None


def number(answer, expected, mistakes: dict, otherwise: str, praise: str = "") -> Verdict:
    """Check a number, or a tuple of several.

    ``mistakes`` has, for wrong answers, the hint for the misconception that leads to each. Some
    seeds make a mistake lead to the right number: then the answer is right.
    """
    several = isinstance(expected, tuple)
    verdict = not_numbers(answer, len(expected) if several else 1)
    if verdict:
        return verdict
    answer = tuple(answer) if several else answer
    return right(praise) if answer == expected else hint(mistakes.get(answer, otherwise))


def letters(answer, n: int, allowed: str) -> tuple[str, Verdict | None]:
    """The ``n`` letters that an answer has, and None; or "" and what is wrong with the answer.

    Spaces and commas do not count, nor does upper or lower case if all of ``allowed`` have one.
    """
    if is_stub(answer):
        return "", NOT_YET
    text = "".join(answer.replace(",", " ").split()) if isinstance(answer, str) else ""
    if allowed.islower() or allowed.isupper():
        text = text.lower() if allowed.islower() else text.upper()
    if len(text) != n or not set(text) <= set(allowed):
        return "", hint(f"{n} characters were asked for, each one of {', '.join(allowed)}.")
    return text, None


def attempt(function, *args, returns: bool = True):
    """Call the learner's function: ``(result, None)``, or ``(None, verdict)`` if that failed.

    ``returns=False`` is for a function that may return None.
    """
    if is_stub(function):
        return None, NOT_YET
    try:
        result = function(*args)
    except Exception as error:
        return None, hint(f"your function raised {type(error).__name__}: {error}")
    if result is None and returns:
        return None, hint("your function returned None: is `return` missing?")
    return result, None


class Reveal(NamedTuple):
    """A guess next to what was measured: values, or tuples of several.

    A ``measure.Missing`` is shown by its words; the unit is left out where one is missing.
    """

    guess: object
    measured: object
    unit: str = ""

    def __repr__(self) -> str:
        parts = self.measured if isinstance(self.measured, tuple | list) else [self.measured]
        unit = "" if is_missing(*parts) else self.unit
        return f"your guess: {_form(self.guess)}   measured: {_form(self.measured)} {unit}".rstrip()


reveal = Reveal
"""As lessons call it: ``reveal(guess, measured, "pages")``."""


def _form(value) -> str:
    """A value, or several with bars between them; words that all share are written once."""
    if isinstance(value, tuple | list):
        forms = [_form(part) for part in value] or ["none"]
        shared = is_missing(*value) or all(map(is_stub, value))
        return forms[0] if shared and len(set(forms)) == 1 else " | ".join(forms)
    if is_stub(value):
        return "not made yet"
    is_count = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return f"{value:,}" if is_count else str(value)
