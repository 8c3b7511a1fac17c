"""The commands: what they print, and one line instead of a traceback."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime

import pytest

from qm9lab import __main__ as command
from qm9lab import qm9
from qm9lab.course import copies

NAMES = ["00_start_here.ipynb", "01_bytes.ipynb", "solutions/01_bytes_solutions.ipynb"]
NOW = datetime(2026, 11, 22, 9, 5, 7)


@pytest.fixture
def source(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    (folder / "solutions").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
    monkeypatch.setattr(copies.copy, "__defaults__", (folder,))
    monkeypatch.setattr(copies.fresh, "__defaults__", (folder, NOW))
    return folder


@pytest.fixture
def work(tmp_path):
    return tmp_path / "mémoire partagée" / "work"


def test_command_copy_says_what_it_left_alone(source, work, capsys):
    assert command.main(["copy", "--to", str(work)]) == 0
    assert "3 (3 new, 0 updated)" in capsys.readouterr().out
    (work / NAMES[1]).write_text("mine")
    assert command.main(["copy", "--to", str(work)]) == 0
    left = f"left as you edited them (make fresh starts again): {NAMES[1]}"
    assert left in capsys.readouterr().out
    assert json.loads((work / copies.RECORD).read_text()).keys() == set(NAMES)


def test_command_fresh_says_where_the_old_ones_are(source, work, capsys):
    command.main(["copy", "--to", str(work)])
    assert command.main(["fresh", "--to", str(work)]) == 0
    assert f"moved the former copies to {work / 'old-20261122-090507'}" in capsys.readouterr().out


NAMELESS = ["unshare", "--map-user=54321", "--map-group=54321"]


def one_line(*arguments, prefix=(), **environment):
    """What a command that fails prints, in a process of its own; None there unsets a variable."""
    merged = {**os.environ, **environment}
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "qm9lab", *arguments],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and done.stdout == "", done.stderr
    assert done.stderr.startswith("qm9lab: ") and len(done.stderr.splitlines()) == 1
    return done.stderr


def test_an_error_is_one_line_without_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    assert "expected to copy" in one_line("copy", "--to", tmp_path / "file")
    assert "expected a home folder" in one_line("data", QM9LAB_DATA="~nosuchuser/x")
    assert "/proc: expected a data folder" in one_line("data", QM9LAB_DATA="/proc")


def test_a_user_without_a_name_and_a_home_is_told_what_to_set(tmp_path):
    if shutil.which("unshare") is None or subprocess.run([*NAMELESS, "true"]).returncode:
        pytest.skip("no user namespaces here")
    (tmp_path / "file").touch()
    homeless = {"HOME": None, "XDG_CACHE_HOME": None, "QM9LAB_DATA": str(tmp_path / "file" / "x")}
    assert "set QM9LAB_DATA" in one_line("exact", prefix=NAMELESS, **homeless)
    homeless["QM9LAB_DATA"] = "~/x"
    assert "~/x: expected a home folder" in one_line("data", prefix=NAMELESS, **homeless)


def test_command_data_reports_a_data_error_in_one_line(monkeypatch, capsys):
    def fail(progress):
        raise qm9.DataError("qm9.pt: expected one thing, found another: do this")

    monkeypatch.setattr(qm9, "prepare", fail)
    assert command.main(["data"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "qm9lab: qm9.pt: expected one thing, found another: do this\n")


def test_command_data_names_what_is_ready(monkeypatch, capsys, tmp_path):
    (tmp_path / "a.pt").write_bytes(bytes(2_000_000))
    (tmp_path / "b.dat").write_bytes(bytes(1_000_000))
    monkeypatch.setenv("QM9LAB_DATA", str(tmp_path))
    monkeypatch.setattr(qm9, "prepare", lambda progress: (tmp_path / "a.pt", tmp_path / "b.dat"))
    assert command.main(["data"]) == 0
    line = f"QM9 is ready: {tmp_path / 'a.pt'} (2 MB) and {tmp_path / 'b.dat'} (1 MB)\n"
    assert capsys.readouterr() == (line, "")
    tmp_path.chmod(0o1777)
    assert command.main(["data"]) == 0
    out, err = capsys.readouterr()
    assert out == line and len(err.splitlines()) == 1 and f"chmod -R go-w {tmp_path}" in err


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["dance"])
    assert stop.value.code == 2 and "dance" in capsys.readouterr().err
