"""Checks of notebooks/09_sharing.ipynb."""

import math
import numbers
import random
from fractions import Fraction
from typing import NamedTuple

from qm9lab.course.check import NOT_YET, Verdict, ask, attempt, hint, is_stub, number, right


def _draw_tables(seed: int) -> tuple[dict[str, set[int]], dict[str, int]]:
    """Letter -> pages of the file that it maps, and its anonymous pages; A is asked for.

    Of A's pages some are its own alone, some are mapped by one other process, some by both.
    """
    draw = random.Random(seed)
    pages = draw.sample(range(12), 9)
    alone, with_b, with_c, by_all = (draw.randint(1, 2) for _ in range(4))
    parts = []
    for n in (alone, with_b, with_c, by_all):
        parts.append(set(pages[:n]))
        pages = pages[n:]
    maps = {"A": set().union(*parts)}
    maps["B"] = parts[1] | parts[3] | set(pages[:1])
    maps["C"] = parts[2] | parts[3]
    return maps, {letter: draw.randint(3, 6) for letter in "ABC"}


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    maps, own = _draw_tables(seed)
    rows = [
        f"  {letter}   {' '.join(map(str, sorted(pages))):25} {own[letter]} pages"
        for letter, pages in maps.items()
    ]
    return "\n".join(
        [
            "Three processes map a file of 12 pages; no one is a fork of another, and nobody else",
            "maps the file. Their page tables lead to these pages of it, and to anonymous pages:",
            "      of the file: numbers      anonymous: how many",
            *rows,
            "How many pages are RSS, PSS and USS of A?",
        ]
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check RSS, PSS and USS of A, in pages."""
    if is_stub(answer) or (isinstance(answer, tuple) and any(map(is_stub, answer))):
        return NOT_YET
    if not isinstance(answer, tuple) or len(answer) != 3:
        return hint("three numbers were asked for: RSS, PSS and USS.")
    for each in answer:
        if isinstance(each, bool) or not isinstance(each, numbers.Real) or not math.isfinite(each):
            return hint(f"a number of pages was asked for, this is {each!r}.")
    maps, own = _draw_tables(seed)
    mappers = [sum(page in each for each in maps.values()) for page in maps["A"]]
    rss, pss, uss = (round(float(each), 2) for each in answer)
    shares = sum(Fraction(1, n) for n in mappers)
    n_alone = mappers.count(1)
    wrong = {
        "RSS": {
            len(mappers): "RSS counts all kinds of pages, anonymous ones too.",
            len(mappers) + 1: "left are the numbers of pages, right is how many there are.",
        },
        "PSS": {
            len(mappers) + own["A"]: "a page counts by the part that falls to A.",
            shares: "who else has A's anonymous pages?",
            Fraction(len(mappers), 3) + own["A"]: "count for each page who maps it.",
            Fraction(len(mappers) + own["A"], 3): "who else has A's anonymous pages?",
        },
        "USS": {
            n_alone: "nobody else has the anonymous pages either.",
            own["A"]: "is there a page of the file that A alone maps?",
            len(mappers) + own["A"]: "that is RSS: which pages has A alone?",
        },
    }
    expected = {
        "RSS": len(mappers) + own["A"],
        "PSS": shares + own["A"],
        "USS": n_alone + own["A"],
    }
    for (name, right_one), given in zip(expected.items(), (rss, pss, uss), strict=True):
        if given != round(float(right_one), 2):
            mistakes = {round(float(value), 2): words for value, words in wrong[name].items()}
            otherwise = "go through the row page by page."
            if abs(given - right_one) < 0.1:
                otherwise = "almost; leave it as a sum of fractions, without rounding."
            return hint(f"{name}: {mistakes.get(given, otherwise)}")
    return right("If B ends now, PSS and USS of A grow, and A has done nothing.")


class _Table(NamedTuple):
    """A file of ``size`` MiB, of which the processes with a map have touched ``part`` MiB.

    ``rows`` has, for each process, RSS, PSS, USS and anonymous memory in MiB.
    """

    size: int
    part: int
    n_maps: int
    rows: list[tuple[int, int, int, int]]


def _draw_bill(seed: int) -> _Table:
    """No sum of a column, alone or with the file, is what is gone.

    For that the maps touch a part only, which is never one file when it is counted several times.
    One or two use ``read()``, so that the cache has the whole file.
    """
    draw = random.Random(seed)
    size, n_maps = 72 * draw.randint(2, 7), draw.choice([0, 1, 2, 2, 3])
    part = size * draw.choice([3, 5, 7, 9]) // 12
    rows = []
    for k in range(n_maps + draw.randint(1, 2)):
        own = draw.randrange(1, 9)
        if k < n_maps:
            alone = part if n_maps == 1 else 0
            rows.append((part + own, part // n_maps + own, alone + own, own))
        else:
            rows.append((size + own,) * 4)
    draw.shuffle(rows)
    return _Table(size, part, n_maps, rows)


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    size, part, n_maps, rows = _draw_bill(seed)
    n_reads = len(rows) - n_maps
    table = "\n".join(
        f"  {letter} {rss:7} {pss:6} {uss:6} {own:11}"
        for letter, (rss, pss, uss, own) in zip("ABCDE", rows, strict=False)
    )
    who = f"{n_reads} {'process' if n_reads == 1 else 'processes'} got all of it with read()"
    if n_maps == 1:
        who += f"; 1 mapped it, and has touched {part} MiB of it"
    elif n_maps:
        who += f"; {n_maps} mapped it, and each has touched the same {part} MiB of it"
    told = ask(
        f"A file of {size} MiB was cold. {who}. Now the page cache has all of its {size} MiB. "
        "What each process has added, in MiB:"
    )
    return (
        f"{told}\n        RSS    PSS    USS   anonymous\n{table}\n"
        "How many MiB of the machine's memory are gone, in all?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check what all processes and the page cache take together."""
    table = _draw_bill(seed)
    size = table.size
    rss, pss, uss, own = (sum(column) for column in zip(*table.rows, strict=True))
    too_often = "pages of the cache that are mapped stand in RSS, PSS and USS: count each once."
    no_cache = "the page cache has the file, too; in which of these numbers is it?"
    mistakes = dict.fromkeys((rss, rss + size, pss + size, uss + size), too_often)
    mistakes[pss] = "PSS finds the page cache only where somebody maps it."
    mistakes |= dict.fromkeys((own, uss), no_cache)
    return number(
        answer,
        own + size,
        mistakes,
        "which memory has an owner, and which is the page cache's?",
        "What they own, and the page cache once.",
    )


class _Shared:
    """A number and a lock that keep a log: r, w for read and store, + and - for the lock."""

    def __init__(self, value: int, fails: bool = False):
        self.value, self.fails, self.log, self.is_held = value, fails, "", False

    def __getitem__(self, index):
        self.log += "r"
        return [self.value][index]

    def __setitem__(self, index, value):
        self.log += "w"
        if self.fails:
            raise OverflowError("the number is too large")
        [self.value][index] = value
        self.value = value

    def __len__(self):
        return 1

    def _no_number(self, other):
        raise TypeError("counter is a map with a number in it: did you mean counter[0]?")

    __add__ = __radd__ = __iadd__ = _no_number


class _Lock:
    """A lock that, like a real one, keeps out its own holder, too."""

    def __init__(self, shared: _Shared):
        self._shared = shared

    def acquire(self, *args, **kwargs):
        if self._shared.is_held:
            raise RuntimeError("asked for a lock that it has: it would wait for ever")
        self._shared.is_held = True
        self._shared.log += "+"
        return True

    def release(self):
        if not self._shared.is_held:
            raise RuntimeError("gave back a lock that it does not have")
        self._shared.is_held = False
        self._shared.log += "-"

    __enter__ = acquire

    def __exit__(self, *exception):
        self.release()


def exercise_3(function) -> Verdict:
    """Check a function that adds to a shared number under a lock."""
    shared = _Shared(37)
    _, verdict = attempt(function, shared, _Lock(shared), 5)
    return verdict or _judge_log(shared) or _judge_failed(function) or right(
        "Nobody comes between read and store, and a failure leaves nobody waiting."
    )  # fmt: skip


def _judge_log(shared: _Shared) -> Verdict | None:
    log = shared.log
    if "w" not in log:
        return hint("nothing was stored into counter[0].")
    if shared.value != 42:
        return hint(f"the number was 37 and 5 were to be added; now it is {shared.value}.")
    if "+" not in log:
        return hint("it adds, but nobody asked for the lock.")
    if shared.is_held:
        return hint("the lock was not given back: everybody else waits for ever.")
    log = log[: log.rindex("w") + 1]  # a look after the last store does no harm
    outside = "".join(part.partition("-")[2] for part in ("-" + log).split("+"))
    if "r" in outside:
        return hint("the number was read without the lock: it may be old when you store.")
    if "w" in outside:
        return hint("it was stored when the lock had been given back.")
    if "r" not in log[: log.index("w")].rpartition("+")[2]:
        return hint("the lock was given back between reading and storing.")
    return None


def _judge_failed(function) -> Verdict | None:
    """The store fails: the lock must come back all the same."""
    shared = _Shared(37, fails=True)
    try:
        function(shared, _Lock(shared), 5)
    except OverflowError:
        pass
    except Exception as error:
        return hint(f"when a store failed, your function raised {type(error).__name__}: {error}")
    if shared.is_held:
        return hint("a store failed, and the lock stayed with you: what gives it back always?")
    return None
