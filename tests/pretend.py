"""Make a Linux Python look like CPython on macOS or on Windows to qm9lab and to a lesson's cells.

``environment(system, folder)`` gives the environment variables of a process (a kernel, say) that
begins so, with every Python process that it starts. Only code of qm9lab and of ``__main__`` (the
cells; a script run with ``-c``) is told: its imports get modules with the other system's names
and answers. All other packages see the real ones, or they would look for the other system's
libraries.

What is pretended
    names that are missing there (``os.posix_fadvise``, ``MADV_*``, ``resource``, ``SIGBUS``, a
    map's ``madvise``), ``/proc`` and ``/sys``, the fields of psutil's tuples, ``st_blocks``, the
    words that name the system; little free memory. On Windows also: the signature of
    ``mmap.mmap``, its granularity, a length past the end that extends the file, and the refusals:
    to remove or rename a file that this process has open, to shorten one that it has mapped.
What is not
    the kernel. Faults, sizes of pages (16 KiB on Apple silicon) and the numbers in psutil's
    tuples are this machine's, in the other system's fields. That a lesson passes here says that
    it copes with what is missing there, not that its facts hold there.

Source: CPython 3.11's Modules/mmapmodule.c, posixmodule.c and signalmodule.c ("Availability" in
their documentation); psutil 7's _psosx.py and _pswindows.py.
"""

import builtins
import errno
import io
import mmap
import os
import re
import signal
import sys
import types
from collections import namedtuple
from pathlib import Path

SYSTEMS = ("Darwin", "Windows")
VARIABLE = "QM9LAB_PRETEND"
WINDOWS_GRANULARITY = 65_536
HIDDEN_FOLDERS = ("/proc", "/sys")
AVAILABLE_BYTES = 2**28
"""Free memory that is pretended, a small laptop's: a lesson that scales its files keeps them
small."""

MMAP_NAMES = {
    "Windows": {"ACCESS_COPY", "ACCESS_DEFAULT", "ACCESS_READ", "ACCESS_WRITE"},
}
MMAP_NAMES["Windows"] |= {"ALLOCATIONGRANULARITY", "PAGESIZE", "error", "mmap"}
MMAP_NAMES["Darwin"] = MMAP_NAMES["Windows"] | {
    "MADV_DONTNEED", "MADV_FREE", "MADV_NORMAL", "MADV_RANDOM", "MADV_SEQUENTIAL", "MADV_WILLNEED",
    "MAP_ANON", "MAP_ANONYMOUS", "MAP_PRIVATE", "MAP_SHARED", "PROT_EXEC", "PROT_READ",
    "PROT_WRITE", "MAP_NORESERVE",
}  # fmt: skip
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
NO_MODULE = {"Darwin": set(), "Windows": {"fcntl", "grp", "pwd", "resource", "termios"}}
# By the beginning of the name: missing in both, and missing in Windows alone.
NOT_IN_DARWIN = tuple(
    """
    CLONE_ EFD_ GRND_ MFD_ O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_TMPFILE POSIX_FADV_ RWF_
    SCHED_ SPLICE_ copy_file_range eventfd fdatasync getrandom getresgid getresuid
    memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate sched_get sched_rr sched_set
    setns splice unshare
    """.split()
)
NOT_IN_WINDOWS = (
    *NOT_IN_DARWIN,
    *"""
    F_ O_CLOEXEC O_DSYNC O_NOFOLLOW O_NONBLOCK O_SYNC POSIX_SPAWN PRIO_ WNOHANG WIF
    WEXITSTATUS WTERMSIG chown chroot confstr fchdir fchown fork fstatvfs getegid geteuid
    getgid getgroups getloadavg getpgid getpriority getsid getuid killpg lchown lockf mkfifo
    mknod nice openpty pathconf posix_ pread preadv pwrite pwritev readv register_at_fork
    sched_ sendfile setegid seteuid setgid setpgid setpriority setsid setuid statvfs sync
    sysconf tcgetpgrp uname wait3 wait4 waitid writev
    """.split(),
)


def environment(system: str, folder: Path) -> dict[str, str]:
    """Environment variables of a process that is to believe that it runs on ``system``.

    ``folder`` gets a ``sitecustomize.py``, by which each Python begins. What goes wrong in one is
    only printed, so ask the process (``platform.system()``) whether it believes.
    """
    if system not in SYSTEMS:
        raise ValueError(f"expected one of {SYSTEMS}, found {system!r}")
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import pretend\nsys.path.pop(0)\npretend.begin({system!r})\n"
    )
    before = os.environ.get("PYTHONPATH")
    return {
        **{name: value for name, value in os.environ.items() if name != "QM9LAB_STRICT"},
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), before])),
        VARIABLE: system,
    }


def begin(system: str) -> None:
    """From now on, tell qm9lab and ``__main__`` that this is ``system``. There is no way back."""
    answers = System(system)
    builtins.__import__ = answers.imports(builtins.__import__)
    io.open = builtins.open = answers.opens(io.open)
    for name in ("stat", "exists", "is_file", "is_dir"):
        setattr(Path, name, answers.looks(getattr(Path, name)))
    sys.addaudithook(answers.audit)


# Who is asking -------------------------------------------------------------------------------

# Frames that only pass a call on: the library's, IPython's `open` in a cell, and some of ours here.
PASSING_ON = sys.stdlib_module_names | {"IPython"}
PASSING_ON_HERE = {"asked_by_us", "audit", "look", "open", "_os_open"}
# The module of a function that qm9lab.processes sent to a child process.
SENT = re.compile(r"\w+_[0-9a-f]{8}")


def is_ours(frame_globals) -> bool:
    """Whether this is code of qm9lab, of a cell, of a script or of a child's function."""
    name = frame_globals.get("__name__", "")
    if name == "__main__":  # also the name of the program that a kernel is started by
        return not str(frame_globals.get("__file__", "")).endswith("ipykernel_launcher.py")
    return name.partition(".")[0] == "qm9lab" or SENT.fullmatch(name) is not None


def asked_by_us() -> bool:
    """Whether the call that is under way was made by our code, directly or through the library."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == __name__:
            if frame.f_code.co_name not in PASSING_ON_HERE:
                return False
        elif name.partition(".")[0] not in PASSING_ON:
            return is_ours(frame.f_globals)
        frame = frame.f_back
    return False


def is_hidden(path) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    path = os.path.abspath(os.fsdecode(path))
    return any(path == hidden or path.startswith(hidden + "/") for hidden in HIDDEN_FOLDERS)


def refusal(code: int, path) -> OSError:
    return OSError(code, os.strerror(code), os.fsdecode(path))


def is_open(path) -> bool:
    """Whether this process has the file open; Python's map keeps a descriptor of its own."""
    try:
        wanted = os.stat(path)
    except OSError:
        return False
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.fstat(int(fd)), wanted):
                return True
        except OSError:  # the descriptor by which the folder was listed
            continue
    return False


def is_mapped(file) -> bool:
    """Whether this process has a map of the file (a path or a descriptor)."""
    try:
        found = os.fstat(file) if isinstance(file, int) else os.stat(file)
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    with REAL_OPEN("/proc/self/maps", errors="surrogateescape") as f:
        return any(line.split(maxsplit=5)[3:5] == [device, str(found.st_ino)] for line in f)


REAL_OPEN = io.open


# What they are told --------------------------------------------------------------------------


class Pretended(types.ModuleType):
    """A module with some names hidden and some replaced; the rest is the real one's."""

    def __init__(self, real, hide=lambda name: False, **replaced):
        super().__init__(real.__name__)
        self.__dict__.update(replaced, _real=real, _hide=hide)

    def __getattr__(self, name):
        if self._hide(name):
            raise AttributeError(f"module {self._real.__name__!r} has no attribute {name!r}")
        return getattr(self._real, name)

    def __dir__(self):
        return sorted({*dir(self._real), *self.__dict__} - set(filter(self._hide, dir(self._real))))


class Gone:
    """An attribute that is not there, neither of the class nor of an object of it."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner):
        raise AttributeError(f"{owner.__name__!r} object has no attribute {self.name!r}")


class System:
    """What the code that is told gets when it imports, opens or looks."""

    def __init__(self, system: str):
        self.system, self.windows = system, system == "Windows"
        self.modules = {}

    def imports(self, real):
        makers = {
            "ctypes": self._ctypes, "mmap": self._mmap, "os": self._os, "platform": self._platform,
            "psutil": self._psutil, "resource": self._resource, "signal": self._signal,
            "subprocess": self._subprocess, "sys": self._sys,
        }  # fmt: skip

        def __import__(name, globals=None, locals=None, fromlist=(), level=0):
            if level or globals is None or not is_ours(globals):
                return real(name, globals, locals, fromlist, level)
            if name in NO_MODULE[self.system]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            module = real(name, globals, locals, fromlist, level)
            top = name.partition(".")[0]
            if top not in makers or (fromlist and name != top):
                return module
            if top not in self.modules:
                self.modules[top] = makers[top](module)
            return self.modules[top]

        return __import__

    # Modules

    def _sys(self, real):
        return Pretended(real, platform="win32" if self.windows else "darwin")

    def _platform(self, real):
        machine = "AMD64" if self.windows else "arm64"
        release = "11" if self.windows else "24.1.0"
        named = f"{self.system}-{release}-{machine}"
        return Pretended(
            real,
            system=lambda: self.system,
            machine=lambda: machine,
            release=lambda: release,
            version=lambda: f"{self.system} {release}",
            platform=lambda *args, **kwargs: named,
        )

    def _signal(self, real):
        def hide(name):
            return self.windows and name.startswith("SIG") and name.isupper() and name not in kept

        kept = {*SIGNALS, "SIG_DFL", "SIG_IGN"}
        return Pretended(real, hide)

    def _os(self, real):
        missing = NOT_IN_WINDOWS if self.windows else NOT_IN_DARWIN
        looks = {
            name: self.looks(getattr(real.path, name)) for name in ("exists", "isfile", "isdir")
        }
        replaced = {"path": Pretended(real.path, **looks), "stat": self.looks(real.stat)}
        if self.windows:
            replaced |= {
                "name": "nt",
                "O_BINARY": 0,
                "fstat": self._without_blocks(real.fstat),
                "fsync": self._fsync,
                "open": self._os_open,
                "kill": self._kill,
            }
        return Pretended(real, lambda name: name.startswith(missing), **replaced)

    def _without_blocks(self, real):
        names = [n for n in dir(os.stat_result) if n.startswith("st_")]
        names = [n for n in names if n not in ("st_blocks", "st_blksize", "st_rdev")]

        def stat(*args, **kwargs):
            found = real(*args, **kwargs)
            return types.SimpleNamespace(**{name: getattr(found, name) for name in names})

        return stat

    @staticmethod
    def _fsync(fd):
        fd = fd if isinstance(fd, int) else fd.fileno()
        if not writable(fd):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.fsync(fd)

    @staticmethod
    def _os_open(path, *args, **kwargs):
        if os.path.isdir(path):
            raise refusal(errno.EACCES, path)
        return os.open(path, *args, **kwargs)

    @staticmethod
    def _kill(pid, number):
        """TerminateProcess: the number is the exit status."""
        if pid == os.getpid():
            os._exit(number)
        os.kill(pid, signal.SIGKILL)

    def _subprocess(self, real):
        def refuse(options):
            for name in ("preexec_fn", "pass_fds"):
                if options.get(name):
                    raise ValueError(f"{name} is not supported on Windows platforms")

        class Popen(real.Popen):
            def __init__(process, *args, **options):
                refuse(options)
                super().__init__(*args, **options)

        def run(*args, **options):
            refuse(options)
            return real.run(*args, **options)

        return Pretended(real, Popen=Popen, run=run) if self.windows else real

    def _resource(self, real):
        def getrusage(who):
            """In macOS ``ru_maxrss`` is in bytes."""
            usage = list(real.getrusage(who))
            usage[2] *= 1024
            return real.struct_rusage(usage)

        hidden = {"RUSAGE_THREAD", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_SIGPENDING", "prlimit"}
        return Pretended(real, hidden.__contains__, getrusage=getrusage)

    def _mmap(self, real):
        names = MMAP_NAMES[self.system]

        def hide(name):
            return name.isupper() and name not in names

        if self.windows:
            return Pretended(real, hide, mmap=WindowsMap, ALLOCATIONGRANULARITY=WINDOWS_GRANULARITY)
        return Pretended(real, hide, mmap=DarwinMap)

    def _ctypes(self, real):
        class CDLL(real.CDLL):
            def __init__(dll, name, *args, **kwargs):
                if name is not None and "libc.so" in str(name):
                    raise OSError(f"dlopen({name}): no such file")
                if name is None and self.windows:
                    raise TypeError("LoadLibrary() argument 1 must be str, not None")
                super().__init__(name, *args, **kwargs)

            def __getattr__(dll, name):
                if name == "syscall":  # there is one, and its numbers mean other things
                    raise AssertionError("expected no system call by a Linux number, found one")
                if name in ("cachestat", "mremap", "posix_fadvise", "readahead", "malloc_trim"):
                    raise AttributeError(f"dlsym(RTLD_DEFAULT, {name}): symbol not found")
                return super().__getattr__(name)

        return Pretended(real, CDLL=CDLL)

    def _psutil(self, real):
        if self.windows:
            gone = {"num_fds", "rlimit", "uids", "gids", "terminal"}
            make = windows_memory
        else:
            gone = {"io_counters", "memory_maps", "rlimit", "cpu_affinity", "ionice", "cpu_num"}
            make = darwin_memory

        class Process:
            def __init__(process, pid=None):
                process._real = real.Process(pid)

            def __getattr__(process, name):
                if name in gone:
                    raise AttributeError(f"'Process' object has no attribute {name!r}")
                return getattr(process._real, name)

            def memory_info(process):
                return make(process._real)

            def memory_full_info(process):
                memory = make(process._real)
                full = namedtuple("pfullmem", [*memory._fields, "uss"])
                return full(*memory, process._real.memory_full_info().uss)

        def virtual_memory():
            found = real.virtual_memory()
            found = found._replace(available=min(found.available, AVAILABLE_BYTES))
            extra = () if self.windows else ("active", "inactive")
            names = ("total", "available", "percent", "used", "free", *extra)
            return namedtuple("svmem", names)(*(getattr(found, name) for name in names))

        def disk_partitions(all=False):
            kind = "NTFS" if self.windows else "apfs"
            return [found._replace(fstype=kind) for found in real.disk_partitions(all)]

        return Pretended(
            real,
            Process=Process,
            virtual_memory=virtual_memory,
            disk_partitions=disk_partitions,
            LINUX=False,
            MACOS=not self.windows,
            OSX=not self.windows,
            POSIX=not self.windows,
            WINDOWS=self.windows,
        )

    # Calls

    def looks(self, real):
        """A call that looks at a path: nothing is to be seen below /proc."""
        stat = self._without_blocks(real) if self.windows and real.__name__ == "stat" else real

        def look(path, *args, **kwargs):
            if not asked_by_us():
                return real(path, *args, **kwargs)
            if is_hidden(path):
                if real.__name__ != "stat":
                    return False
                raise refusal(errno.ENOENT, path)
            return stat(path, *args, **kwargs)

        return look

    def opens(self, real):
        def open(file, mode="r", buffering=-1, *args, **kwargs):
            if not (
                self.windows and "b" in mode and ("+" in mode or "w" in mode) and asked_by_us()
            ):
                return real(file, mode, buffering, *args, **kwargs)
            kept = {name: kwargs[name] for name in ("closefd", "opener") if name in kwargs}
            raw = WindowsFile(file, mode.replace("b", ""), **kept)
            if buffering == 0:
                return raw
            return (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)

        return open

    def audit(self, event, args):
        """Refuse what Windows refuses, and what is in a folder that is not there."""
        if event in ("open", "os.listdir", "os.scandir"):
            if is_hidden(args[0]) and asked_by_us():
                raise refusal(errno.ENOENT, args[0])
            empties = event == "open" and isinstance(args[2], int) and args[2] & os.O_TRUNC
            if self.windows and empties and not isinstance(args[0], int) and asked_by_us():
                if is_mapped(args[0]):
                    raise refusal(errno.EINVAL, args[0])
        elif self.windows and event in ("os.remove", "os.rename"):
            paths = args[:1] if event == "os.remove" else args[:2]
            if asked_by_us() and any(map(is_open, paths)):
                raise refusal(errno.EACCES, paths[0])


def writable(fd: int) -> bool:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


class WindowsFile(io.FileIO):
    """A file that cannot be shortened while this process has it mapped."""

    def truncate(self, size=None):
        size = self.tell() if size is None else size
        if size < os.fstat(self.fileno()).st_size and is_mapped(self.fileno()):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().truncate(size)


class DarwinMap(mmap.mmap):
    """``mmap.mmap`` of macOS, where there is no mremap."""

    def resize(self, newsize):
        raise SystemError("mmap: resizing not available--no mremap()")


class WindowsMap(mmap.mmap):
    """``mmap.mmap`` of Windows: no flags, no prot, no advice; a map may lengthen its file."""

    madvise = Gone()

    def __new__(cls, fileno, length, tagname=None, access=mmap.ACCESS_DEFAULT, offset=0):
        if fileno == -1:
            if length == 0:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return super().__new__(cls, -1, length, access=access)
        size = os.fstat(fileno).st_size
        if access not in (mmap.ACCESS_READ, mmap.ACCESS_COPY) and not writable(fileno):
            raise OSError(errno.EACCES, "Access is denied")
        if offset % WINDOWS_GRANULARITY and offset < size:
            raise OSError(errno.EINVAL, "The base address or the file offset specified does not "
                          "have the proper alignment")  # fmt: skip
        if length and offset + length > size:
            if access in (mmap.ACCESS_READ, mmap.ACCESS_COPY):
                raise OSError(errno.ENOMEM, "Not enough memory resources are available")
            os.ftruncate(fileno, offset + length)
        return super().__new__(cls, fileno, length, access=access, offset=offset)

    def __init__(self, *args, **kwargs):
        """All is done in ``__new__``."""


# Fields as psutil has them there (recorded with psutil 7); the numbers are this process's own.

DarwinMemory = namedtuple("pmem", "rss vms pfaults pageins")
WindowsMemory = namedtuple(
    "pmem",
    "rss vms num_page_faults peak_wset wset peak_paged_pool paged_pool peak_nonpaged_pool "
    "nonpaged_pool pagefile peak_pagefile private",
)
RECORDED_WINDOWS = WindowsMemory(
    31_281_152, 22_036_480, 9_876, 31_281_152, 31_281_152, 215_104, 214_432, 17_232, 16_688,
    22_036_480, 22_036_480, 22_036_480,
)  # fmt: skip


def faults_of(process) -> tuple[int, int]:
    """Minor and major faults of a process, from Linux."""
    with REAL_OPEN(f"/proc/{process.pid}/stat", errors="replace") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[7]), int(fields[9])


def darwin_memory(process) -> DarwinMemory:
    memory, (minor, major) = process.memory_info(), faults_of(process)
    return DarwinMemory(memory.rss, memory.vms, minor + major, major)


def windows_memory(process) -> WindowsMemory:
    memory = process.memory_info()
    return RECORDED_WINDOWS._replace(
        rss=memory.rss, wset=memory.rss, num_page_faults=sum(faults_of(process))
    )
