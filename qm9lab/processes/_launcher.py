"""Start a Python process, wait for it, and report how it ended. Run by its path.

``python -I -S _launcher.py FD WORDS...`` starts ``python WORDS...`` and writes its report to the
descriptor FD. subprocess starts a process by vfork, and its ru_maxrss then begins at the peak of
the process that it was started from (exec does not reset it). So the child is forked from this
small process, and its peak is its own. With FD -1 this process becomes the child.
"""

import json
import os
import resource
import sys


def main(report_fd: int, words: list[str]) -> None:
    """Start the child; report its exit status and its peak RSS in bytes as JSON."""
    # A core limit of 1, unlike 0, also stops cores that are piped to a crash reporter (core(5)).
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if report_fd < 0 or os.fork() == 0:
        if report_fd >= 0:
            os.close(report_fd)
        os.execv(sys.executable, [sys.executable, *words])
    _, status, usage = os.wait3(0)
    peak_rss_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    report = [os.waitstatus_to_exitcode(status), peak_rss_bytes]
    os.write(report_fd, json.dumps(report).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
