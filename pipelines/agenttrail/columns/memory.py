"""Make the C allocator keep what it frees.

glibc hands every array above 128 KiB back to the kernel when it is freed, so each kernel call pays a page fault for
every 4 KiB that it writes.  Keeping the memory halves the time of the kernels of this package (77 against 33 ns a row
for parsing one address column, measured on two x86-64 cores).
"""

from __future__ import annotations

import ctypes
import functools
import gc
import platform

import pyarrow as pa

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # from malloc.h
_LARGEST_KEPT = 32 << 20  # bytes; the most that glibc takes
_MOST_KEPT = 256 << 20  # bytes of free memory at the top of the heap


_NEW_OBJECTS = 50_000  # objects that are made before the youngest are looked through; Python's own is 700


def look_for_cycles_seldom() -> None:
    """Let Python look for unreachable cycles less often than its defaults do.

    What lies in columns is one object each, and the libraries alone are some 300,000 that every full collection looks
    through: a run of ten million lines spent 0.3 s of 22 on that and found next to nothing.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])


@functools.cache
def keep_freed_memory() -> bool:
    """Raise glibc's thresholds for giving memory back, once per process; return whether that was possible.

    Elsewhere than on glibc nothing is changed and nothing is lost but speed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Arrow's own allocator gives memory back behind our back: from glibc the same run takes a quarter less at its peak
    pa.set_memory_pool(pa.system_memory_pool())
    settings = ((_M_MMAP_THRESHOLD, _LARGEST_KEPT), (_M_TRIM_THRESHOLD, _MOST_KEPT), (_M_ARENA_MAX, 1))
    return all([mallopt(option, value) == 1 for option, value in settings])  # noqa: C419 - every option is set
