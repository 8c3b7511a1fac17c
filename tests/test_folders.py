"""Lesson folders: one for each process, held by a lock, and swept only when the lock is free."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qm9lab import qm9
from qm9lab.course import folders

ROOT = Path(folders.__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="needs flock(2)")

MAKES = """
import os, signal, sys
from qm9lab.course import folders
own = folders.lesson_folder()
(own / "built.dat").write_bytes(b"x")
print(own, flush=True)
for line in sys.stdin:
    if line == "look\\n":
        print((own / "built.dat").exists(), flush=True)
    elif line == "die\\n":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("QM9LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


class Process:
    """A process that has made its lesson folder, and answers."""

    def __init__(self, *prefix):
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, "-c", MAKES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.folder = Path(self.popen.stdout.readline().strip())

    def ask(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()

    def end(self):
        self.popen.communicate(timeout=60)

    def kill(self):
        self.ask("die")
        self.end()


def made(data):
    return sorted((data / "lessons").iterdir())


def test_a_folder_is_private_and_of_this_process_alone(data):
    own = folders.lesson_folder()
    assert own == folders.lesson_folder() and own.is_dir() and not list(own.iterdir())
    assert own.parent.parent == data / "lessons"
    if os.name == "posix":
        assert own.parent.stat().st_mode & 0o777 == 0o700
    one, two = Process(), Process()
    assert len({own, one.folder, two.folder}) == 3
    one.end()
    two.end()
    assert made(data) == [own.parent]


@posix
def test_what_a_killed_process_left_is_swept_by_the_next(data):
    one = Process()
    one.kill()
    assert one.folder.is_dir()
    two = Process()
    assert not one.folder.exists() and two.folder.exists()
    two.end()
    assert made(data) == []


@posix
def test_two_pid_namespaces_do_not_delete_each_others_files(data):
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"]).returncode:
        pytest.skip("no PID namespaces here: needs root")
    held = [Process(*unshare) for _ in range(3)]
    held.append(Process())
    assert len({process.folder for process in held}) == 4
    assert [process.ask("look") for process in held] == ["True"] * 4
    for process in held:
        process.end()


@posix
def test_only_free_folders_of_this_user_are_swept_and_no_link_is_followed(data, tmp_path):
    lessons = data / "lessons"
    mine = tmp_path / "mine"
    for folder in (mine, lessons / "lesson-notes", lessons / "lesson-other"):
        folder.mkdir(parents=True)
        (folder / "keep").touch()
    (mine / folders.LOCK).touch()
    (lessons / "lesson-link").symlink_to(mine)
    (lessons / "lesson-other" / folders.LOCK).touch()
    if os.geteuid() == 0:
        os.chown(lessons / "lesson-other", 12345, -1)
    Process().end()
    assert (mine / "keep").exists() and (lessons / "lesson-notes" / "keep").exists()
    assert (lessons / "lesson-other" / "keep").exists() == (os.geteuid() == 0)


@posix
def test_a_symbolic_link_in_place_of_a_lock_is_not_opened(data, tmp_path):
    folder = data / "lessons" / "lesson-trap"
    folder.mkdir(parents=True)
    (tmp_path / "target").touch()
    (folder / folders.LOCK).symlink_to(tmp_path / "target")
    Process().end()
    assert folder.exists() and (tmp_path / "target").exists()


@posix
def test_a_forked_child_gets_a_folder_of_its_own_and_leaves_its_parents(data):
    own = folders.lesson_folder()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            folders._remove(own.parent, os.getppid())  # what atexit would call
            status = int(folders.lesson_folder() == own or not own.exists())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(data, monkeypatch):
    lock, calls = folders._lock, []

    def late(folder, flags=0):
        calls.append(folder)
        if len(calls) == 1:
            shutil.rmtree(folder)
        return lock(folder, flags)

    monkeypatch.setattr(folders, "_lock", late)
    own = folders._own_folder(data / "lessons", -os.getpid())
    assert own.is_dir() and own.parent == calls[1] != calls[0]


def test_where_the_data_are_read_only_it_lies_in_the_cache_folder(data, tmp_path, monkeypatch):
    # Under a file there can be no folder, not even root's: as good as a read-only disk.
    (tmp_path / "file").touch()
    monkeypatch.setenv("QM9LAB_DATA", str(tmp_path / "file" / "data"))
    if sys.platform == "linux":
        assert folders.lesson_folder().parent.parent == tmp_path / "cache" / "qm9lab"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
        with pytest.raises(qm9.DataError, match="expected a folder that can be written.*QM9LAB_D"):
            folders.lesson_folder()
