"""What the kernel did: faults, resident memory, page cache, page tables.

Every reading names its source: psutil where it has the number, then ``getrusage(2)``, ``/proc``,
``mincore(2)`` and ``cachestat(2)``. A value that the system cannot give is a ``Missing``. Nothing
here prints, plots, or maps a file for the caller.
"""

from .address_space import Region, address_of, file_bytes, mapped_pages, regions
from .cache import (
    MEMORY_ONLY,
    CacheState,
    PageStates,
    cache_state,
    cached_pages,
    file_system,
    page_states,
)
from .eviction import bring_to, evict, make_cold
from .fault_counts import Faults, faults, resource, rusage_faults
from .machine import Machine, calibrate
from .memory import Footprint, Resident, footprint, resident
from .missing import Missing, MissingError, first_missing, is_missing
from .protocol import Exact, exact, exact_trace
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
    "PageStates",
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
    "file_bytes",
    "file_system",
    "footprint",
    "is_missing",
    "make_cold",
    "mapped_pages",
    "page_states",
    "regions",
    "resident",
    "resource",
    "rusage_faults",
]
