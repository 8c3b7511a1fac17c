"""One list of dependencies: pyproject.toml, the lock, environment.yml and this machine agree."""

import importlib.util
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

yaml = pytest.importorskip("yaml")  # of jupyter_events, which JupyterLab needs

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))

OLDEST_PYTHON = "3.11.0"
EXTRAS = PROJECT["optional-dependencies"]
ALSO = ("browser", "bench")
"""Extras that come with the target that needs them: make test-browser, make bench."""
REQUIREMENTS = [
    Requirement(line)
    for line in [*PROJECT["dependencies"], *EXTRAS["test"], *(r for e in ALSO for r in EXTRAS[e])]
]
# What conda-forge calls a package that pip knows by another name.
CONDA_NAMES = {"pytorch-cpu": "torch"}


def pins(lock):
    """Name to version of each line of a lock; anything but a comment and NAME==VERSION is wrong."""
    found = {}
    for line in lock.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line)
        assert match, f"requirements.lock: expected NAME==VERSION, found {line!r}"
        name = canonicalize_name(match[1])
        assert name not in found, f"requirements.lock: {name} stands there twice"
        found[name] = Version(match[2])
    return found


def unmet(requirements, pinned):
    """Requirements that no pin satisfies."""
    for requirement in requirements:
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version):
            yield f"{requirement} is pinned at {version}"


def contradictions(conda, project, pinned):
    """What in conda's file does not go with the project."""
    *packages, with_pip = conda["dependencies"]
    if with_pip != {"pip": ["-e ."]}:
        yield f"expected pip to install this project and nothing else, found {with_pip}"
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    for package in packages:
        name, _, version = package.partition("=")
        if name == "python":
            allowed = Requirement(f"python{project['requires-python']}").specifier
            if not allowed.contains(f"{version}.0"):
                yield f"python {version} is not {project['requires-python']}"
        elif name != "pip":
            name = CONDA_NAMES.get(name, name)
            if name not in needed:
                yield f"{name} is not a dependency of the project"
            if version and Version(version) not in (pinned.get(name),):
                yield f"{name} {version} is pinned at {pinned.get(name)}"
    if "pip" not in packages or not any(p.startswith("python=") for p in packages):
        yield f"expected python and pip, found {packages}"


def test_every_dependency_is_pinned_at_a_version_that_satisfies_it():
    assert list(unmet(REQUIREMENTS, pins(LOCK))) == []


def test_environment_yml_tells_the_same_story():
    assert list(contradictions(CONDA, PROJECT, pins(LOCK))) == []


def test_torch_is_pinned_exactly_for_every_platform():
    (line,) = [line for line in LOCK.splitlines() if line.startswith("torch==")]
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", line), "a build suffix fits one platform only"


def test_the_lock_is_sorted_and_leaves_the_installer_alone():
    names = [line.partition("==")[0] for line in LOCK.splitlines() if not line.startswith("#")]
    assert names == sorted(names, key=str.lower)
    assert not {"pip", "setuptools", "qm9lab"} & set(pins(LOCK))


def test_the_lock_names_no_place():
    assert not re.search(r"://|@|--", LOCK)


def test_what_is_installed_here_is_what_the_lock_says():
    pinned, wrong = pins(LOCK), []
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        found = Version(distribution.version)
        if name in pinned and Version(found.public) != pinned[name]:
            wrong.append(f"{name}: expected {pinned[name]}, found {found} (run make setup)")
    assert not wrong


def test_every_pin_can_be_installed_on_the_oldest_python_that_is_allowed():
    """Debian 12 has Python 3.11.2: a pin that needs 3.11.5 would send its users away."""
    wrong = []
    for distribution in metadata.distributions():
        needs = SpecifierSet(distribution.metadata["Requires-Python"] or "")
        if canonicalize_name(distribution.metadata["Name"]) in pins(LOCK):
            if not needs.contains(OLDEST_PYTHON):
                wrong.append(f"{distribution.metadata['Name']} needs Python {needs}")
    assert not wrong


def test_all_that_the_package_needs_is_installed():
    later = {Requirement(line).name for extra in ALSO for line in EXTRAS[extra]}
    for requirement in REQUIREMENTS:
        if requirement.name not in later:
            assert metadata.version(requirement.name)


def test_python_is_new_enough_in_all_three_places():
    assert sys.version_info >= (3, 11)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert PROJECT["requires-python"] == ">=3.11"
    assert SpecifierSet(PROJECT["requires-python"]).contains(OLDEST_PYTHON)
    assert "sys.version_info < (3, 11)" in makefile


def test_jupyterlab_knows_the_settings_that_make_setup_writes():
    """Plugin ids and keys of the overrides in set_up.py exist in what is installed here."""
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "set_up.py")
    set_up = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(set_up)
    assert len(set_up.JUPYTERLAB) == 2
    share = Path(sys.prefix) / "share" / "jupyter"
    for plugin, values in set_up.JUPYTERLAB.items():
        extension, _, name = plugin.partition(":")
        schemas = [
            share / "lab" / "schemas" / extension / f"{name}.json",
            share / "labextensions" / extension / "schemas" / extension / f"{name}.json",
        ]
        (schema,) = [json.loads(path.read_text()) for path in schemas if path.exists()]
        for key, value in values.items():
            assert value != schema["properties"][key]["default"], f"{plugin} {key} changes nothing"


def test_the_types_are_shipped():
    """Without py.typed, mypy does not look at the types of an installed package."""
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in shipped["tool"]["setuptools"]["package-data"]["*"]
    assert (ROOT / "qm9lab" / "py.typed").exists()


# The comparisons themselves ------------------------------------------------------------------

PINNED = {"torch": Version("2.13.0"), "psutil": Version("7.2.2")}


@pytest.mark.parametrize("line, ok", [("psutil>=7,<9", True), ("psutil>=8", False), ("x", False)])
def test_an_unmet_requirement_is_found(line, ok):
    assert bool(list(unmet([Requirement(line)], PINNED))) is not ok


@pytest.mark.parametrize("lock", ["torch>=2", "torch==1\ntorch==2", "-e .", ""])
def test_a_bad_lock_is_found(lock):
    with pytest.raises(AssertionError):
        assert pins(lock)


@pytest.mark.parametrize(
    "dependencies, expected",
    [
        (["python=3.12", "pip", "pytorch-cpu", {"pip": ["-e ."]}], None),
        (["python=3.10", "pip", {"pip": ["-e ."]}], "python 3.10 is not"),
        (["python=3.12", "pip", "numpy=1.0", {"pip": ["-e ."]}], "numpy 1.0 is pinned at"),
        (["python=3.12", "pip", "pandas", {"pip": ["-e ."]}], "pandas is not a dependency"),
        (["python=3.12", "pip", {"pip": ["-e .", "lmdb"]}], "nothing else"),
        (["python=3.12", {"pip": ["-e ."]}], "expected python and pip"),
    ],
)
def test_a_contradicting_environment_yml_is_found(dependencies, expected):
    project = {"requires-python": ">=3.11", "dependencies": ["torch", "numpy"]}
    found = list(contradictions({"dependencies": dependencies}, project, PINNED))
    assert [expected in problem for problem in found] == ([True] if expected else [])
