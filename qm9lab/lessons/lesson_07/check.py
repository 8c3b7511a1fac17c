"""Checks of notebooks/07_full_load_vs_lazy.ipynb."""

import random

from qm9lab.course.check import Verdict, ask, hint, letters, not_numbers, number, right


def _draw_table(seed: int) -> tuple[int, dict[str, tuple[int, int, str]]]:
    """The file's MiB, and letter -> (rss, shared, who): r read it, m mapped it, o one byte."""
    draw = random.Random(seed)
    size = draw.randrange(200, 900)
    noise = [draw.randrange(1, 4) for _ in range(4)]
    # The map's RSS is the largest, so that "most RSS" is the wrong answer to "who owns most".
    rows = [
        (size + noise[0], noise[1], "r"),
        (size + noise[0] + noise[2] + 1, size + noise[1], "m"),
        (noise[2] + noise[3], noise[2], "o"),
    ]
    draw.shuffle(rows)
    return size, dict(zip("ABC", rows, strict=True))


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    size, rows = _draw_table(seed)
    table = "\n".join(f"  {k}   {rss:5} {shared:8}" for k, (rss, shared, _) in rows.items())
    return (
        f"A file of {size} MiB. What each process added, by psutil's memory_info(), in MiB:\n"
        f"      rss   shared\n{table}\n"
        "One called read() and keeps the bytes. One mapped the file and touched every page. One\n"
        "mapped it and touched one byte. Name them in this order: three letters, such as 'ABC'."
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check who is who."""
    answer, verdict = letters(answer, 3, "ABC")
    if verdict:
        return verdict
    if len(set(answer)) < 3:
        return hint("three different letters were asked for, such as 'ABC'.")
    _, rows = _draw_table(seed)
    who = "".join(rows[letter][2] for letter in answer)
    if who == "rmo":
        return right("rss - shared is what it owns; only one of the three owns anything.")
    if who == "mro":
        return hint("you went by RSS. Of which two kinds of pages is it the sum?")
    return hint(
        "who touched one byte has hardly anything resident: find that one first. It is the last "
        "letter."
    )


def _draw_windows(seed: int) -> tuple[int, int, list[int]]:
    """Pages of the file (the last window is cut short), pages of a window, pages touched."""
    draw = random.Random(seed)
    window = draw.choice([32, 64, 256])
    n_windows = draw.randrange(12, 30)
    n_pages = n_windows * window - draw.randrange(3, window - 3)
    chosen = draw.sample(range(n_windows - 1), 3)
    touched = [k * window + draw.randrange(window) for k in chosen]
    start = chosen[0] * window
    free = [page for page in range(start, start + window) if page not in touched]
    touched += draw.sample(free, draw.randint(1, 2))
    if draw.random() < 0.6:
        touched.append(draw.randrange((n_windows - 1) * window, n_pages))
    draw.shuffle(touched)
    return n_pages, window, touched


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    n_pages, window, touched = _draw_windows(seed)
    return ask(
        f"A cold file of {n_pages} pages, mapped, no advice. Assume that each disk read loads a "
        f"part of {window} pages, as far as the file goes: pages 0 to {window - 1}, or {window} to "
        f"{2 * window - 1}, and so on. A program touches the pages "
        f"{', '.join(map(str, touched))}. How many pages of the file are in the page cache then? "
        f"The file grows to three times its size, gets cold, and the program touches the same "
        f"pages. How many now?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check the pages that a few touches load, before and after the file has grown."""
    verdict = not_numbers(answer, 2)
    if verdict:
        return verdict
    n_pages, window, touched = _draw_windows(seed)
    windows = {page // window for page in touched}
    cached = sum(min(window, n_pages - k * window) for k in windows)
    verdict = number(
        answer[0],
        cached,
        {
            len(touched): "those are the pages of MADV_RANDOM: here the kernel reads ahead.",
            len(windows): "you counted disk reads (or major faults), not pages.",
            len(touched) * window: "a touch of a page that is loaded already loads nothing.",
            len(windows) * window: "does the file reach to the end of its last part?",
            n_pages: "not every part was touched.",
        },
        "in which part does each page lie, and how much of the file is in that part?",
    )
    if not verdict.right:
        return verdict
    grown = len(windows) * window
    return number(
        answer[1],
        grown,
        {
            3 * cached: "the file grew, but the program touches the same pages as before.",
            cached: "which part was cut short by the end of the file, and is not any more?",
        },
        "the first number is right. What is different now for these pages?",
        "What is loaded follows the questions and readahead, not the size of the file.",
    )
