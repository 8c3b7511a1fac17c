"""tests/fresh.py finds this machine's way to packages. `make test-fresh` runs the whole of it."""

import subprocess
import sys
from pathlib import Path

import fresh
import pytest

SOURCES = """
# http://old.example/debian
Types: deb
URIs: http://security.example/debian-security
URIs: http://mirror.example/debian
deb https://other.example/apt stable main
"""


def test_the_mirror_is_read_from_apts_sources():
    assert fresh.mirror(SOURCES) == "http://mirror.example/debian"
    assert fresh.mirror("deb http://a.example/debian/ trixie main") == "http://a.example/debian/"
    assert fresh.mirror("# http://old.example/debian") is None


def test_the_environments_options_of_pip_win():
    listed = ":env:.find-links='/a'\nglobal.find-links='/b'\nglobal.extra-index-url='x\\ny z'"
    assert fresh.pip_variables(listed) == {"PIP_FIND_LINKS": "/a", "PIP_EXTRA_INDEX_URL": "x y z"}


def test_local_folders_of_packages_are_found(tmp_path):
    (tmp_path / "my index" / "simple").mkdir(parents=True)
    index = (tmp_path / "my index" / "simple").as_uri()
    variables = {"A": f"https://pypi.example/simple {index}", "B": f"{tmp_path} /nosuch", "C": "1"}
    assert fresh.local_paths(variables) == {tmp_path, tmp_path / "my index"}


def test_why_it_cannot_run_is_one_line(monkeypatch):
    monkeypatch.setattr(fresh.os, "geteuid", lambda: 1000)
    assert "only root" in fresh.unavailable()
    monkeypatch.setattr(fresh.os, "geteuid", lambda: 0)
    monkeypatch.setattr(fresh.shutil, "which", lambda tool: None)
    assert "apt install debootstrap" in fresh.unavailable()
    assert fresh.main("trixie") == fresh.NOT_HERE


def test_no_folder_is_left_when_it_fails(monkeypatch, tmp_path):
    made = tmp_path / "qm9lab-debian"
    monkeypatch.setattr(fresh, "unavailable", lambda: None)
    monkeypatch.setattr(fresh.tempfile, "mkdtemp", lambda **_: made.mkdir() or str(made))
    monkeypatch.setattr(fresh.signal, "signal", lambda *_: None)
    start = fresh.subprocess.Popen
    monkeypatch.setattr(fresh.subprocess, "Popen", lambda words, **how: start(["false"], **how))
    assert (fresh.main("trixie"), Path(made).exists()) == (1, False)


@pytest.mark.parametrize("words", [[], ["sid"], ["trixie", "--all"]])
def test_wrong_words_get_one_line(words):
    done = subprocess.run([sys.executable, fresh.__file__, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "test-fresh: expected trixie or bookworm and perhaps --whole\n"
