"""What scripts in child processes print: one line of JSON, in which a value may be missing.

A value that the system cannot give is written as ``{"missing": reason}``, by the script, which
knows the reason.
"""

import json

from qm9lab.measure import Missing, is_missing
from qm9lab.processes import Outcome


def to_json(value: object) -> str:
    """A value as one line of JSON, each ``Missing`` in it as ``{"missing": reason}``."""
    return json.dumps(value, default=_plain)


def value_of(outcome: Outcome):
    """The value on the first line that a script printed, also if it was killed after that line.

    If it ran out of time before, that is ``Missing``. RuntimeError, with its last words, if it
    ended without a result.
    """
    lines = outcome.stdout.splitlines()
    if lines:
        return json.loads(lines[0], object_hook=_missing)
    if outcome.timed_out:
        return outcome.value
    raise RuntimeError(
        f"expected a line of JSON, found {outcome.how_it_ended}: {outcome.stderr.strip()}"
    )


def values_of(outcome: Outcome, n: int) -> list:
    """The ``n`` values of the list that a script printed; ``n`` times the ``Missing`` instead."""
    found = value_of(outcome)
    return [found] * n if is_missing(found) else found


def _plain(value: object) -> dict[str, str]:
    if isinstance(value, Missing):
        return {"missing": value.reason}
    raise TypeError(f"expected a value for JSON, found a {type(value).__name__}")


def _missing(found: dict):
    return Missing(found["missing"]) if set(found) == {"missing"} else found
