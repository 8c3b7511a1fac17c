"""What the kernel did: faults, resident memory, page cache, regions of the address space.

Every value names its source. What a system does not offer is ``None``, and ``source`` then
reads ``not available here, because ...``: the caller says so and carries on.

psutil comes first where it has the number (psutil 8 counts faults, 7 does not); then
``getrusage(2)``, ``/proc``, ``mincore(2)`` and ``cachestat(2)``. Nothing here prints, plots,
or maps a file for the caller.
"""

from .address_space import Region, address_of, mapped_pages, regions
from .cache import MEMORY_ONLY, CacheState, cache_state, cached_pages, file_system
from .eviction import bring_to, evict, make_cold
from .fault_counts import Faults, faults, rusage_faults
from .machine import Machine, calibrate
from .memory import Resident, resident
from .missing import Missing, MissingError, first_missing, is_missing
from .page_states import PageMap, page_map
from .protocol import Exact, exact, exact_trace
from .pss import Footprint, footprint, total
from .timeline import Sampler, Timeline

__all__ = [
    "MEMORY_ONLY",
    "CacheState",
    "Exact",
    "Faults",
    "Footprint",
    "Machine",
    "Missing",
    "MissingError",
    "PageMap",
    "Region",
    "Resident",
    "Sampler",
    "Timeline",
    "address_of",
    "bring_to",
    "cache_state",
    "cached_pages",
    "calibrate",
    "evict",
    "exact",
    "exact_trace",
    "faults",
    "first_missing",
    "file_system",
    "footprint",
    "is_missing",
    "make_cold",
    "mapped_pages",
    "page_map",
    "regions",
    "resident",
    "rusage_faults",
    "total",
]
