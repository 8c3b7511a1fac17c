"""The part of ``qm9lab.calls`` that runs in the child process: the standard library alone.

``python -c <this file> FOLDER`` reads ``FOLDER/requests.json``, makes each call that it asks for,
touches what came out, and writes ``FOLDER/answers.json``. A touch that the kernel answers with a
signal kills a fork of the child and not the child.
"""

import ctypes
import errno
import io
import json
import mmap
import os
import signal
import sys

PAGE = mmap.PAGESIZE
NAME, EMPTY = "letters.dat", "empty.dat"
FREE_FROM = 1 << 36  # program, heap and libraries lie elsewhere on every 64-bit Linux


def c_mmap(addr, length, prot, flags, fd, offset):
    """mmap(2) itself: the address of the new region; OSError where it refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = libc.mmap(addr, length, prot, flags, fd, offset)
    if address == ctypes.c_void_p(-1).value:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return address or 0


def unmap(address: int, length: int) -> None:
    """munmap(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    if libc.munmap(address, length):
        raise OSError(ctypes.get_errno(), "munmap failed")


def map_lines() -> list[tuple]:
    """``(start, end, perms, offset, name)`` of each region, from /proc/self/maps."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            span, perms, offset, _, _, *name = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(address, 16) for address in span.split("-"))
            found.append((start, end, perms, int(offset, 16), "".join(name)))
    return found


def letters() -> bytes:
    """The file that is mapped: a page of a, a page of b, half a page of c."""
    return b"a" * PAGE + b"b" * PAGE + b"c" * (PAGE // 2)


def places() -> dict[str, int]:
    """The addresses that the control ``addr`` can name, as they are in this process."""
    regions = map_lines()
    free = FREE_FROM
    while any(start < free + 16 * PAGE and free < end for start, end, *_ in regions):
        free += FREE_FROM
    return {"free": free, "taken": regions[0][0]}


def may_map_at(address: int) -> bool:
    """Whether this user may have a region at exactly this low address."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000  # MAP_FIXED_NOREPLACE
    try:
        unmap(c_mmap(address, PAGE, 0, flags, -1, 0), PAGE)
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def descriptor(kind: str, folder: str) -> int:
    """An open descriptor of the kind that the control ``fd`` names, or the number of none."""
    if kind == "-1":
        return -1
    how = {"folder": os.O_RDONLY, "O_WRONLY": os.O_WRONLY, '"rb"': os.O_RDONLY}
    name = {"folder": "", "empty file": EMPTY}.get(kind, NAME)
    fd = os.open(os.path.join(folder, name), how.get(kind, os.O_RDWR))
    if kind == "closed":
        os.close(fd)
    return fd


def touch_all(touches: list[tuple[str, int]]) -> list[str]:
    """Read or store one byte at each address; what was read, "done", or the signal's name.

    A fork makes the touches, one after another, until one kills it; the next takes the rest.
    """
    results = []
    while len(results) < len(touches):
        here, there = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for act, address in touches[len(results) :]:
                    byte = ctypes.create_string_buffer(b"!", 1)
                    both = (byte, address) if act == "read" else (address, byte)
                    ctypes.memmove(*both, 1)
                    os.write(there, byte.raw)
                status = 0
            finally:
                os._exit(status)  # whatever was raised, a fork never goes on as its parent
        os.close(there)
        with open(here, "rb") as pipe:
            got = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for byte in got:
            results.append(chr(byte) if touches[len(results)][0] == "read" else "done")
        if code > 0:
            raise RuntimeError(f"a fork that touches memory ended with status {code}")
        if code < 0:
            results.append(signal.Signals(-code).name)
    return results


def present(address: int, n_pages: int) -> list[bool] | None:
    """Which pages have an entry in this process's page table, by /proc/self/pagemap."""
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as f:
            f.seek(address // PAGE * 8)
            entries = f.read(n_pages * 8)
    except OSError:
        return None
    return [bool(top >> 7) for top in entries[7::8]]


def stored(folder: str) -> list[int]:
    """Offsets of the bytes that the touches changed in the file, as read(2) gives it."""
    before = letters()
    with open(os.path.join(folder, NAME), "rb") as f:
        now = f.read()
    return [k for k in range(len(now)) if now[k] != before[k]] if now != before else []


def put_back(folder: str) -> None:
    """Make the file as before, with zeros behind its end: a store there stays in the page cache."""
    content = letters()
    fd = os.open(os.path.join(folder, NAME), os.O_RDWR)
    n_bytes = -(-len(content) // PAGE) * PAGE
    both = mmap.PROT_READ | mmap.PROT_WRITE
    address = c_mmap(0, n_bytes, both, mmap.MAP_SHARED, fd, 0)
    ctypes.memmove(address, content.ljust(n_bytes, b"\0"), n_bytes)
    unmap(address, n_bytes)
    os.close(fd)


def say_python(lines: str | None, folder: str) -> str | None:
    """What Python's own call does: the exception that it raises, or the map that it makes."""
    if lines is None:
        return None
    names = {"mmap": mmap, "os": os, "path": os.path.join(folder, NAME)}
    names |= {"empty_path": os.path.join(folder, EMPTY), "folder": folder}
    try:
        exec(lines, names)
        mm = names["mm"]
        perms = [perms for *_, perms, _, name in map_lines() if name.startswith(folder)]
        text = f"a map of {len(mm):,} bytes" + (f", {perms[0]}" if perms else "")
        mm.close()
        return text
    except OSError as error:
        return f"{type(error).__name__}: {errno.errorcode[error.errno]}, {error.strerror}"
    except (ValueError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for name, value in names.items():
            if name == "fd":
                os.close(value)
            elif isinstance(value, io.IOBase):
                value.close()


def make(request: dict, folder: str, near: dict[str, int]) -> dict:
    """Make one call, look at what came out, touch it, and take it away again."""
    kind, more = request["addr"]
    addr = near.get(kind, 0) + more
    fd = descriptor(request["fd"], folder)
    prot, flags, offset = request["prot"], request["flags"], request["offset"]
    answer = {"addr": addr, "errno": 0, "message": ""}
    try:
        answer["address"] = address = c_mmap(addr, request["length"], prot, flags, fd, offset)
    except OSError as error:
        answer |= {"errno": error.errno, "message": error.strerror}
    else:
        n_pages = -(-request["length"] // PAGE)
        span, regions = n_pages * PAGE, map_lines()
        answer["present"] = present(address, n_pages)
        answer["region"] = next(r for r in regions if r[0] <= address < r[1])
        ends = [(act, at) for at in (address, address + span - 1) for act in ("read", "store")]
        answer["touches"] = touch_all(ends) if request["touch"] else []
        answer["stored"] = stored(folder)
        unmap(address, span)
        if "done" in answer["touches"]:
            put_back(folder)
    finally:
        if fd >= 0 and request["fd"] != "closed":
            os.close(fd)
    if request["all_regions"]:
        answer["regions"] = regions if not answer["errno"] else map_lines()
    answer["python"] = say_python(request["python"], folder)
    return answer


def main(folder: str) -> None:
    """Answer each request of ``requests.json``, with what holds for all of them."""
    with open(os.path.join(folder, "requests.json")) as f:
        requests = json.load(f)
    for name, content in ((NAME, letters()), (EMPTY, b"")):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content)
    facts = {
        "noexec": bool(os.statvfs(folder).f_flag & os.ST_NOEXEC),
        "may_map_at": [address for address in (0, PAGE) if may_map_at(address)],
    }
    near = places()  # holds for all: each call's region is gone before the next call
    answers = [make(request, folder, near) for request in requests]
    with open(os.path.join(folder, "answers.json"), "w") as f:
        json.dump({"facts": facts, "answers": answers}, f)


if __name__ == "__main__":
    main(sys.argv[1])
