"""A value that this system cannot give, with the reason."""

import math
import numbers
import os
from typing import Any, Final

import numpy as np

STRICT: Final = "QM9LAB_STRICT"  # with the value 1, making a Missing raises MissingError
VALUES = (numbers.Number, np.ndarray, np.generic, set)


class MissingError(RuntimeError):
    """A value is missing although ``QM9LAB_STRICT=1`` promised that this system has them all."""


class Missing:
    """A value that this system cannot give: arithmetic and comparison with it give it back.

    It behaves as ``pandas.NA`` does, with two differences: it knows its reason (the words after
    "because"), and its truth is True, so an assert on a missing number passes. It never hides an
    error: it has no attributes but ``reason``, no items and no length, and does not mix with text.
    Making one raises MissingError if the environment variable ``QM9LAB_STRICT`` is 1.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        if os.environ.get(STRICT) == "1":
            raise MissingError(f"expected a value, for {STRICT} is 1, found none, because {reason}")
        self.reason = reason

    def __repr__(self) -> str:
        return f"not available here, because {self.reason}"

    def __format__(self, spec: str) -> str:
        """The same words whatever the format asks for: ``f"{missing:,.1f}"`` works."""
        return repr(self)

    def __bool__(self) -> bool:
        return True

    def __float__(self) -> float:
        """NaN, which matplotlib does not draw."""
        return math.nan

    def __hash__(self) -> int:
        return hash((Missing, self.reason))

    def __reduce__(self) -> tuple[Any, ...]:
        return Missing, (self.reason,)

    def _with(self, *others: object) -> "Missing":
        """The result of an operation with numbers, arrays or sets of pages: this value again."""
        if all(isinstance(other, (*VALUES, Missing)) for other in others):
            return self
        return NotImplemented  # type: ignore[no-any-return]

    def __array_ufunc__(self, ufunc: object, method: str, *inputs: object, **_: Any) -> "Missing":
        """NumPy's part of the same: ``array - missing`` and ``np.sum(missing)``."""
        return self._with(*inputs)

    def _again(self, *_: object) -> "Missing":
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _with
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _with
    __pow__ = __rpow__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _with
    __lt__ = __le__ = __gt__ = __ge__ = _with
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _with
    __eq__ = __ne__ = _again  # type: ignore[assignment]
    __neg__ = __pos__ = __abs__ = __invert__ = __round__ = __floor__ = _again
    __ceil__ = _again


def is_missing(*values: object) -> bool:
    """Whether one of the values is ``Missing``."""
    return first_missing(*values) is not None


def first_missing(*values: object) -> Missing | None:
    """The first of the values that is ``Missing``; None if there is none."""
    return next((value for value in values if isinstance(value, Missing)), None)
