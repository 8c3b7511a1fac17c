"""Two maps of one page of a file, P and S: exercise 2 and the picture play with them."""

import mmap
from typing import IO


def play(f: IO[bytes], acts, p_access: int = mmap.ACCESS_COPY) -> dict[str, str]:
    """What P, S and read() see of the first byte of ``f`` after the ``acts``, on this kernel.

    An act is such as ``P writes 'p'``, ``P is flushed``, ``P is closed`` or ``P is mapped again``.
    S is a shared map.
    """
    access = {"P": p_access, "S": mmap.ACCESS_WRITE}
    maps = {who: mmap.mmap(f.fileno(), 0, access=access[who]) for who in access}
    for act in acts:
        who = act[0]
        if "writes" in act:
            maps[who][0:1] = act[-2].encode()
        elif "flushed" in act:
            maps[who].flush()
        else:
            maps[who].close()
        if "again" in act:
            maps[who] = mmap.mmap(f.fileno(), 0, access=access[who])
    seen = {who: "closed" if mm.closed else mm[0:1].decode() for who, mm in maps.items()}
    f.seek(0)
    seen["read()"] = f.read(1).decode()
    for mm in maps.values():
        mm.close()
    return seen
