"""Both of the README's commands on a bare Debian that is made for this and removed again.

    python3 tests/fresh.py trixie            Debian 13; bookworm is Debian 12
    python3 tests/fresh.py trixie --whole    all of `make test`, an hour or less

It needs root and debootstrap (`make test-fresh`). Debian is installed into a temporary folder with
make, python3, python3-venv, git and certificates, and nothing else. A clean clone of this
repository is put there. `make lab` must serve its first page, and `make test` must pass, on the
first three lessons or as a whole. Packages come from where this machine gets its own: the mirror in
apt's sources, and the index and folders of `pip config list`.

Exit status 77: no Debian can be installed here. All mounts are made in a mount namespace of their
own, so none is left however this ends.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "make,python3,python3-venv,git,ca-certificates"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KIT = "/root/qm9lab"
LESSONS = "notebooks/0[0-2]_*.ipynb notebooks/solutions/0[0-2]_*.ipynb"
NOT_HERE = 77  # the exit status, as other test programs use it
SUITES = ("trixie", "bookworm")  # Debian 13 and 12
LIMIT_S = {"": 1800, "--whole": 5400}
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "requests_ca_bundle")
URL = re.compile(r"http://localhost:\d+/lab/tree/work/00_start_here\.ipynb\?token=\w+")


def unavailable() -> str | None:
    """Why this cannot run here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can install a Debian into a folder"
    if missing := [tool for tool in ("debootstrap", "unshare", "git") if not shutil.which(tool)]:
        return f"needs {', '.join(missing)} (Debian, Ubuntu: apt install {' '.join(missing)})"
    act = 'mount -t tmpfs none "$1" && mount -t proc proc "$1" && mount --rbind /dev "$1"'
    with tempfile.TemporaryDirectory() as folder:
        words = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", act, "sh", folder]
        done = subprocess.run(words, capture_output=True, text=True)
    return f"no namespaces with mounts here: {done.stderr.strip()}" if done.returncode else None


def mirror(sources: str) -> str | None:
    """The first mirror of Debian that apt's sources name."""
    lines = [line for line in sources.splitlines() if not line.lstrip().startswith("#")]
    found = re.search(r"\bhttps?://\S+/debian/?(?=\s|$)", "\n".join(lines))
    return found[0] if found else None


def pip_variables(listed: str) -> dict[str, str]:
    """What ``pip config list`` printed, as variables PIP_*; the environment's own come last."""
    found = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2].upper().replace("-", "_")
        found[f"PIP_{name}"] = " ".join(ast.literal_eval(value).split())
    return found


def local_paths(variables: dict[str, str]) -> set[Path]:
    """Files and folders of this machine that the variables name.

    An index in a folder may link to files next to it, so its parent is what is needed.
    """
    found = set()
    for word in " ".join(variables.values()).split():
        if word.startswith("file://"):
            found.add(Path(unquote(urlsplit(word).path)).parent)
        elif word.startswith("/"):
            found.add(Path(word))
    return {path for path in found if path.exists() and path != Path("/")}


def run(*command: str, **options) -> None:
    subprocess.run(command, check=True, **options)


def step(sentence: str) -> None:
    print(f"test-fresh: {time.monotonic() - STARTED_S:4.0f} s: {sentence}", flush=True)


STARTED_S = time.monotonic()


def bind(source: Path, debian: Path, *options: str) -> None:
    """Show a file or folder of this machine at the same place in the new system."""
    target = debian / source.relative_to("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    run("mount", *options, str(source.resolve()), str(target))


def install_debian(debian: Path, suite: str) -> None:
    step(f"installing Debian {suite}")
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    sources = "\n".join(path.read_text() for path in files if path.is_file())
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(debian)]
    command += [found] if (found := mirror(sources)) else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        step(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        sys.exit(NOT_HERE)


def way_to_packages() -> dict[str, str]:
    """The variables by which this machine's programs find packages, pip's options among them."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    found = {name: value for name, value in os.environ.items() if name.lower() in PROXIES}
    return found | pip_variables(listed)


def try_lab(inside: list[str], variables: dict[str, str]) -> None:
    """``make lab`` sets up, builds QM9 and serves the page that it prints."""
    words = ["make", "lab", "LAB_ARGS=--no-browser --ServerApp.port=0"]
    server = subprocess.Popen(
        [*inside, *words],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in server.stdout:
        print(line, end="", flush=True)
        if found := URL.search(line):
            step(f"make lab serves its first page (status {status_of(found[0])})")
            break
    else:
        sys.exit("test-fresh: make lab ended without the URL of the first lesson")
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def status_of(url: str) -> int:
    """The HTTP status of a page; the server prints its address a moment before it listens."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline_s = time.monotonic() + 60
    while True:
        try:
            with direct.open(url, timeout=60) as page:
                return page.status
        except urllib.error.URLError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)


def inside_namespace(suite: str, whole: str, debian: Path) -> None:
    """Install, mount and run. The caller has made a mount and a PID namespace."""
    debian.chmod(0o755)  # tests become another user, who must get into the new system's root
    run("mount", "--bind", str(debian), str(debian))
    install_debian(debian, suite)
    variables = way_to_packages()
    for path in sorted(local_paths(variables)):
        bind(path, debian, "--bind", "-o", "ro")
    for path in (Path("/dev"), Path("/sys")):
        bind(path, debian, "--rbind")
    run("mount", "-t", "proc", "proc", str(debian / "proc"))
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", debian / "etc" / name)
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), f"{debian}{KIT}")
    # Without PIP_NO_COMPILE pip compiles 100 packages; most of their modules are never imported.
    variables |= {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "PIP_NO_COMPILE": "1"}
    inside = ["chroot", str(debian), "env", "-C", KIT]
    try_lab(inside, variables)
    tested = [] if whole else ["TESTS=", f"NOTEBOOKS={LESSONS}"]
    run(*inside, "make", "test", *tested, env=variables)
    step("both commands work on a bare Debian")


def main(suite: str, whole: str = "") -> int:
    """Make the namespaces and the folder, run, and remove the folder whatever happens."""
    if reason := unavailable():
        step(reason)
        return NOT_HERE
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"test-fresh: signal {number}"))
    # Not /tmp, which may be in memory: lessons want files on a disk.
    debian = Path(tempfile.mkdtemp(prefix="qm9lab-debian-", dir="/var/tmp"))
    command = ["unshare", "--mount-proc", "--propagation=private", "--pid", "--fork"]
    command += ["--kill-child", sys.executable, __file__, suite, whole, str(debian)]
    child = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL)
    try:
        return child.wait(timeout=LIMIT_S[whole])
    except subprocess.TimeoutExpired:
        sys.exit(f"test-fresh: not done after {LIMIT_S[whole]} s: is the machine busy?")
    except KeyboardInterrupt:
        sys.exit("test-fresh: interrupted")
    finally:
        child.kill()  # and with it, by --kill-child, everything that it started
        child.wait()
        shutil.rmtree(debian, ignore_errors=True)
        if debian.exists():  # something was still writing
            time.sleep(2)
            shutil.rmtree(debian)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        suite, whole = [*sys.argv[1:], "", ""][:2]
        if suite not in SUITES or whole not in LIMIT_S:
            sys.exit(f"test-fresh: expected {' or '.join(SUITES)} and perhaps --whole")
        sys.exit(main(suite, whole))
    try:
        inside_namespace(*sys.argv[1:3], Path(sys.argv[3]))
    except (subprocess.CalledProcessError, KeyboardInterrupt) as error:
        sys.exit(f"test-fresh: {error or 'interrupted'}")
