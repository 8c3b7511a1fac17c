"""Public claims about maps, and the verdicts that lesson 10 computes for them.

The claims are in ``claims.toml``, each with its address, the test that it must pass and the names
of the cases in which it is tried. The lesson measures whether it holds in each case.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab.measure import Missing, first_missing

TRUE, FALSE, DEPENDS = "true", "false", "it depends"
LETTERS = {"t": TRUE, "f": FALSE, "d": DEPENDS, "i": DEPENDS}


class Claim(NamedTuple):
    """A claim in our words, where it was made, and how it is tried.

    Attributes
    ----------
    claim, address : str
    holds_if : str
        What we see in a case in which the claim holds.
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


def judge(cases: Mapping[str, bool | Missing]) -> str | Missing:
    """The verdict on a claim, from whether it holds in each case.

    Returns
    -------
    str or Missing
        True if it holds in all cases, false if in none, otherwise it depends. A missing case does
        not count. If all are missing, the verdict is the first of them.

    Raises
    ------
    TypeError
        If a case is neither True nor False nor missing.
    """
    for case, holds in cases.items():
        if not isinstance(holds, bool | np.bool_ | Missing):
            raise TypeError(f"case {case!r}: expected True, False or Missing, found {holds!r}")
    known = {bool(holds) for holds in cases.values() if not isinstance(holds, Missing)}
    if len(known) == 2:
        return DEPENDS
    if not known:
        return first_missing(*cases.values())
    return TRUE if known == {True} else FALSE


def table(
    guesses: Sequence[object],
    cases: Mapping[int, Mapping[str, bool | Missing]],
    claims: Sequence[Claim] | None = None,
) -> str:
    """The verdicts on all claims next to the learner's guesses, as lines of text.

    Parameters
    ----------
    guesses : sequence
        A word for each claim, ``...`` for none yet. The first letter counts: t, f, d (or i).
    cases : mapping of int to mapping of str to bool or Missing
        Number of the claim, counted from 1 -> name of a case -> whether the claim holds in it.
    claims : sequence of Claim, optional
        Those of ``claims.toml`` by default.

    Raises
    ------
    ValueError
        If a claim has no cases, or others than those that the learner read before guessing.
    """
    claims = public_claims() if claims is None else claims
    lines, n_right = [], 0
    for number, (claim, guess) in enumerate(zip(claims, guesses, strict=True), 1):
        found = cases.get(number, {})
        if tuple(found) != claim.cases:
            raise ValueError(
                f"claim {number}: expected the cases {list(claim.cases)}, found {list(found)}"
            )
        verdict = str(judge(found))
        word = guess if isinstance(guess, str) else "none yet"
        n_right += LETTERS.get(word[:1].lower()) == verdict
        lines.append(f"{number:2} {verdict} (your guess: {word}): {claim.claim}")
        results = "; ".join(f"{case}: {_words(holds)}" for case, holds in found.items())
        lines.append(f"   {claim.holds_if}? {results}")
    head = f"your guesses: {n_right} of {len(claims)} as computed here"
    return "\n".join([head, *lines])


def _words(holds: bool | Missing) -> str:
    if isinstance(holds, Missing):
        return repr(holds)
    return "holds" if holds else "does not hold"
