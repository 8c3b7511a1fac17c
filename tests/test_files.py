"""Files are whole or not there, and a file can be written in pieces."""

import io
import os

import pytest

from qm9lab.files import replacing, write_all


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "whole.dat"
    path.write_bytes(b"old")
    with replacing(path) as f:
        f.write(b"ne")
        assert path.read_bytes() == b"old"
        f.write(b"w")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["whole.dat"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_after_an_error_nothing_has_changed(tmp_path, error):
    path = tmp_path / "whole.dat"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as f:
        f.write(b"half of it")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["whole.dat"]


def test_the_target_of_a_link_is_replaced_and_a_long_name_will_do(tmp_path):
    path, link = tmp_path / ("x" * 250), tmp_path / "link"
    link.symlink_to(path)
    with replacing(link, durable=False) as f:
        f.write(b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"


class Stubborn(io.RawIOBase):
    """A file that takes three bytes at a time, and remembers the sizes that it was given."""

    def __init__(self):
        self.content, self.given = b"", []

    def write(self, view):
        self.given.append(len(view))
        self.content += bytes(view[:3])
        return len(view[:3])


def test_all_is_written_in_pieces_also_when_a_write_takes_fewer():
    f = Stubborn()
    write_all(f, b"abcdefgh", piece_bytes=5)
    assert f.content == b"abcdefgh" and f.given == [5, 5, 2]
    write_all(f, b"")
    assert f.content == b"abcdefgh"
