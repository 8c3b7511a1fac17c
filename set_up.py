"""Make .venv and install the kit into it. This is what ``make setup`` runs.

    python set_up.py                what a learner needs
    python set_up.py test browser   these extras of pyproject.toml as well

Only the standard library is used. pip's options can be given in the variable PIP_ARGS.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
UNFINISHED = VENV / ".qm9lab-unfinished"

NEEDED_BYTES = 2_500_000_000
WORKS_WITH = ((3, 11), (3, 12), (3, 13))
"""The versions of Python that every test was run on."""

JUPYTERLAB = {
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}
"""JupyterLab keeps the state of widgets in saved notebooks, and asks no server for news."""

CAUSES = (
    (
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|\[Errno 122\]",
        "the disk is full (or your quota on it, or {tmp}): make room and run make again",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "a download is not the file that the package index announced: run make again; if it "
        "fails again, clear what pip keeps: {python} -m pip cache purge",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|confirming the ssl certificate",
        "Python does not trust the certificate of the package index: if your network uses a "
        "certificate of its own, name its file in PIP_CERT and run make again",
    ),
    (
        r"ProxyError|407 Proxy Authentication",
        "the proxy does not let pip through: check HTTPS_PROXY and run make again",
    ),
    (
        r"NewConnectionError|NameResolutionError|name resolution|Network is unreachable"
        r"|Connect\w*Timeout|Read timed out|ReadTimeout|Connection (refused|reset|aborted)"
        r"|Connection broken|Max retries exceeded|RemoteDisconnected|IncompleteRead",
        "pip cannot reach the package index: connect to the network and run make again",
    ),
    (
        r"No matching distribution found|Could not find a version that satisfies",
        "there is no such release for Python {version} on {machine}: {other}",
    ),
    (
        r"Permission denied|\[Errno 13\]",
        "a file may not be written (the output names it): check whose file it is",
    ),
)
"""What pip prints, and the cause with its remedy. The first that fits is named."""


def remedy(log: str, version: tuple[int, int] = sys.version_info[:2]) -> str:
    """The cause of pip's failure and what to do, or pip's last lines if we do not know it.

    Parameters
    ----------
    log
        What pip printed.
    version
        The Python that pip ran in.
    """
    # Warnings may be about a connection that worked at the second try: the error counts. But an
    # index that cannot be reached ends as "found no version", and then the warnings have the cause.
    error = log[match.start() :] if (match := re.search(r"^\s*ERROR:", log, re.M)) else log
    if "(from versions: none)" in error:
        error = log
    causes = [cause for pattern, cause in CAUSES if re.search(pattern, error)]
    if not causes:
        last = "\n".join(f"  {line}" for line in log.splitlines()[-5:])
        return f"the last lines of {LOG} are:\n{last}"
    if version in WORKS_WITH:
        other = "ask who runs the package index that pip uses (pip config list)"
    else:
        other = "use Python 3.11, 3.12 or 3.13, for instance: make setup PYTHON=python3.12"
    return causes[0].format(
        tmp=os.environ.get("TMPDIR", "/tmp"),
        python=PYTHON,
        version=".".join(map(str, version)),
        machine=f"{platform.system()} {platform.machine()}",
        other=other,
    )


def environment() -> dict[str, str]:
    """The environment without what would make pip install elsewhere, or import another module."""
    elsewhere = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_ARGS", "PYTHONPATH", "PYTHONHOME"}
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    return kept | {"PIP_USER": "0"}


def logged(*command: str) -> bool:
    """Run a command with its output in LOG; whether it succeeded."""
    with open(LOG, "w", encoding="utf-8") as log:
        return not subprocess.call(command, stdout=log, stderr=log, env=environment())


def install(what: str, *requirements: str) -> None:
    """``pip install``, or end with the cause."""
    options = ["--disable-pip-version-check", "--no-input", "--no-color"]
    options += shlex.split(os.environ.get("PIP_ARGS", ""))
    if not logged(str(PYTHON), "-I", "-m", "pip", "install", *options, *requirements):
        cause = remedy(LOG.read_text(encoding="utf-8", errors="replace"))
        sys.exit(f"setup: pip could not install {what} (its output is in {LOG}): {cause}")


def make_venv() -> None:
    """A new .venv, or end with the cause."""
    free = shutil.disk_usage(".").free
    if free < NEEDED_BYTES:
        sys.exit(
            f"setup: needs {NEEDED_BYTES / 1e9:.1f} GB free on this disk, found {free / 1e6:.0f} "
            "MB: make room, or move this folder to another disk"
        )
    try:
        if VENV.is_symlink():
            VENV.unlink()
        elif VENV.exists():
            shutil.rmtree(VENV)
        VENV.mkdir()
        UNFINISHED.touch()
    except PermissionError as error:
        sys.exit(f"setup: cannot write here ({error}): copy this folder to a place of your own")
    print(f"setup: making .venv with {sys.executable}", flush=True)
    if not logged(sys.executable, "-I", "-m", "venv", str(VENV)):
        output = LOG.read_text(encoding="utf-8", errors="replace")
        if "ensurepip" in output or "No module named venv" in output:
            cause = "install its venv module (Debian, Ubuntu: apt install python3-venv)"
        else:
            cause = remedy(output)
        sys.exit(
            f"setup: {sys.executable} cannot make a virtual environment (its output is in {LOG}): "
            f"{cause}, or name another Python: make setup PYTHON=..."
        )


def set_up(extras: list[str]) -> None:
    """Make .venv if there is none that works, then install the kit and the extras into it."""
    if ":" in os.getcwd():
        sys.exit(
            f"setup: the path of this folder has a colon ({os.getcwd()}), and Python makes no "
            "virtual environment in such a folder: rename it, or move this folder"
        )
    works = [str(PYTHON), "-I", "-c", "import pip"]
    if (
        UNFINISHED.exists()
        or not PYTHON.exists()
        or subprocess.call(works, stderr=subprocess.DEVNULL)
    ):
        make_venv()
    constraints = ["-c", "requirements.lock"]
    if extras:
        names = ",".join(extras)
        print(f"setup: installing what `{names}` needs", flush=True)
        install(f"what `{names}` needs", "-e", f".[{names}]", *constraints)
        return
    UNFINISHED.touch()
    # Older ones (Debian 12's 23.0) try combinations of versions for hours under these constraints.
    install("a newer pip", "pip>=23.2")
    pins = Path("requirements.lock").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    print(f"setup: installing {torch} (a minute, or ten on a slow line)", flush=True)
    install(torch, torch)
    print("setup: installing the rest as pinned in requirements.lock (one to five minutes)")
    sys.stdout.flush()
    install("the pinned packages", "-e", ".", *constraints)
    settings = VENV / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(JUPYTERLAB, indent=2), encoding="utf-8")
    UNFINISHED.unlink()
    print("setup: done")


if __name__ == "__main__":
    try:
        set_up(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("setup: interrupted: run make again to go on")
    except OSError as error:
        sys.exit(f"setup: {error}")
