"""Public claims about maps, and the verdicts that lesson 10 computes for them.

The claims are in ``claims.toml``, each with its address, the test that it must pass and the names
of the cases in which it is tried. The lesson measures whether it holds in each case.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab.measure import Missing, first_missing, is_missing

LETTERS = {"t": "true", "f": "false", "d": "it depends", "i": "it depends"}


class Claim(NamedTuple):
    """A claim in our words, where it was made, and how it is tried."""

    claim: str
    address: str
    holds_if: str  # what we see in a case in which the claim holds
    cases: list[str]  # their names


def public_claims() -> list[Claim]:
    """The claims of ``claims.toml``, in its order."""
    text = Path(__file__).with_name("claims.toml").read_text(encoding="utf-8")
    return [Claim(**each) for each in tomllib.loads(text)["claims"]]


def judge(cases: Mapping[str, bool | Missing]) -> str | Missing:
    """The verdict on a claim, from whether it holds in each case.

    It is true if it holds in all cases, false if in none, otherwise it depends. A missing case
    does not count. If all are missing, the verdict is the first of them. TypeError if a case is
    neither True nor False nor missing.
    """
    for case, holds in cases.items():
        if not isinstance(holds, bool | np.bool_ | Missing):
            raise TypeError(f"case {case!r}: expected True, False or Missing, found {holds!r}")
    known = {bool(holds) for holds in cases.values() if not is_missing(holds)}
    if not known:
        return first_missing(*cases.values())
    if len(known) == 2:
        return "it depends"
    return "true" if True in known else "false"


def table(guesses: Sequence[object], cases: Mapping[int, Mapping[str, bool | Missing]]) -> str:
    """The verdicts on all claims next to the learner's guesses, as lines of text.

    A guess is a word, of which the first letter counts: t, f, d (or i), or ``...`` for none yet.
    ``cases`` has, by the number of the claim, counted from 1, whether it holds in each case by
    name. ValueError if the names are others than the learner read before guessing.
    """
    claims = public_claims()
    lines, n_right = [], 0
    for number, (claim, guess) in enumerate(zip(claims, guesses, strict=True), 1):
        found = cases.get(number, {})
        if list(found) != claim.cases:
            raise ValueError(f"claim {number}: expected {claim.cases}, found {list(found)}")
        verdict = str(judge(found))
        word = guess if isinstance(guess, str) else "none yet"
        n_right += LETTERS.get(word[:1].lower()) == verdict
        lines.append(f"{number:2} {verdict} (your guess: {word}): {claim.claim}")
        results = "; ".join(f"{case}: {_words(holds)}" for case, holds in found.items())
        lines.append(f"   {claim.holds_if}? {results}")
    head = f"your guesses: {n_right} of {len(claims)} as computed here"
    return "\n".join([head, *lines])


def _words(holds: bool | Missing) -> str:
    if is_missing(holds):
        return repr(holds)
    return "holds" if holds else "does not hold"
