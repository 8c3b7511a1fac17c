"""What processes that read one file add to the machine's memory: their sums, as multiples of it."""

from typing import NamedTuple

from qm9lab.measure import Footprint, Missing


def multiple(n_bytes: int | Missing, file_bytes: int) -> float | Missing:
    """Bytes as a multiple of a file's size, to a tenth."""
    return round(n_bytes / file_bytes, 1)


class ReadersMemory(NamedTuple):
    """What ``n`` processes together have added, after the last of them read the file."""

    n: int
    source_bytes: int  # the size of the file
    added: Footprint  # the sum over all of them, beyond their baselines
    cached_bytes: int | Missing  # growth of the page cache by pages of the file

    @property
    def sums(self) -> dict[str, int | Missing]:
        """The sums in bytes; the last is the memory of the machine in use, the total cost."""
        return {
            "sum of RSS": self.added.rss_bytes,
            "sum of PSS": self.added.pss_bytes,
            "page cache": self.cached_bytes,
            "own + page cache": self.added.pss_anonymous_bytes + self.cached_bytes,
        }

    @property
    def multiples(self) -> dict[str, float | Missing]:
        """Each sum as a multiple of the file, to a tenth."""
        return {name: multiple(n, self.source_bytes) for name, n in self.sums.items()}
