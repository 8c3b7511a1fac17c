"""Public claims about maps, and verdicts that are computed from what was measured (lesson 10).

The claims stand in ``claims.toml``, each with its address, its yardstick and the names of the cases
in which it is tried; whether it holds in a case comes from the lesson.
"""

import tomllib
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

TRUE, FALSE, DEPENDS = "true", "false", "it depends"
NOT_HERE = "not available here, because this system could not try it"


class Judgement(NamedTuple):
    """A verdict, and the cases that it was computed from."""

    verdict: str
    cases: str


def judge(cases: Mapping[str, bool | None]) -> Judgement:
    """The verdict on a claim, from whether it holds in each case.

    True where it holds in all, false where in none, and otherwise it depends. A case that is None,
    since this system could not try it, is named and not counted; with no other, there is no
    verdict.
    """
    known = {holds for holds in cases.values() if holds is not None}
    verdict = NOT_HERE
    if known:
        verdict = DEPENDS if len(known) == 2 else TRUE if known == {True} else FALSE
    words = {True: "holds", False: "does not hold", None: "could not be tried here"}
    return Judgement(verdict, "; ".join(f"{case}: {words[h]}" for case, h in cases.items()))


class Claim(NamedTuple):
    """A claim in our words, where it stands, and how it is tried.

    Attributes
    ----------
    claim, address : str
    holds_if : str
        The yardstick: what is seen in a case in which the claim holds.
    cases : tuple of str
        The names of the cases.
    """

    claim: str
    address: str
    holds_if: str
    cases: tuple[str, ...]


def public_claims() -> list[Claim]:
    """The claims of ``claims.toml``, in its order."""
    text = Path(__file__).with_name("claims.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)["claims"]
    return [Claim(**{**each, "cases": tuple(each["cases"])}) for each in listed]


class Claims:
    """A table of public claims that fills as they are judged.

    Parameters
    ----------
    guesses : sequence
        The learner's guesses, in order; ``...`` for none yet. The first letter counts: t, f, d
        (or i).
    claims : sequence of Claim, optional
        Those of ``claims.toml``, unless told otherwise.
    """

    def __init__(self, guesses=(), claims=None):
        self.claims = list(public_claims() if claims is None else claims)
        self.guesses = [*guesses, *[...] * (len(self.claims) - len(guesses))]
        self.judged: dict[int, Judgement] = {}

    def judge(self, number: int, cases: Mapping[str, Callable[[], bool]]) -> Judgement:
        """Judge claim ``number``, counted from 1, and keep the verdict.

        Parameters
        ----------
        cases : mapping of str to callable
            Name of the case -> a function that says whether the claim holds in it. One that
            returns None or computes with it, which stands for what this system has not got, says
            nothing. The names are those of the claim, which the learner read before guessing.
        """
        if not 1 <= number <= len(self.claims):
            raise ValueError(f"expected a claim from 1 to {len(self.claims)}, found {number}")
        if tuple(cases) != tuple(self.claims[number - 1].cases):
            expected = list(self.claims[number - 1].cases)
            raise ValueError(f"claim {number}: expected the cases {expected}, found {list(cases)}")
        found = {}
        for case, holds in cases.items():
            try:
                answer = holds()
            except TypeError:  # None has no order and no parts
                answer = None
            found[case] = None if answer is None else bool(answer)
        self.judged[number] = judge(found)
        return self.judged[number]

    @property
    def verdicts(self) -> list[str | None]:
        """The verdict on each claim, None where it was not judged."""
        numbers = range(1, len(self.claims) + 1)
        return [self.judged[n].verdict if n in self.judged else None for n in numbers]

    @property
    def n_right(self) -> int:
        """How many of the guesses are the verdict."""
        letters = {"t": TRUE, "f": FALSE, "d": DEPENDS, "i": DEPENDS}
        pairs = zip(self.guesses, self.verdicts, strict=True)
        return sum(letters.get(_word(g)[:1].lower()) == v for g, v in pairs if v)

    @property
    def _caption(self) -> str:
        return f"your guesses: {self.n_right} of {len(self.claims)} as computed here"

    def _rows(self):
        for number, claim in enumerate(self.claims, 1):
            found = self.judged.get(number, Judgement("not judged yet", ""))
            yield number, claim, _word(self.guesses[number - 1]), found

    def __repr__(self) -> str:
        lines = [self._caption]
        for number, claim, guess, (verdict, cases) in self._rows():
            lines += [f"{number:2} {verdict.upper()} (your guess: {guess}): {claim.claim}"]
            lines += [f"   {claim.holds_if}? {cases}"] if cases else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        heads = "".join(f'<th style="text-align:left">{h}</th>' for h in HEADS)
        rows = []
        for number, claim, guess, (verdict, cases) in self._rows():
            link = f'<a href="{escape(claim.address, quote=True)}">{escape(claim.claim)}</a>'
            words = escape(guess), f"<b>{escape(verdict)}</b>", escape(claim.holds_if)
            cells = (f"{number}", link, *words, escape(cases).replace("; ", "<br>"))
            rows.append("".join(f'<td style="text-align:left">{cell}</td>' for cell in cells))
        body = "</tr><tr>".join(rows)
        return f"<p>{self._caption}</p><table><tr>{heads}</tr><tr>{body}</tr></table>"


HEADS = ("", "the claim, and where it stands", "your guess", "verdict here")
HEADS += ("it holds in a case, if", "the cases")


def _word(guess) -> str:
    return guess if isinstance(guess, str) else "none yet"
