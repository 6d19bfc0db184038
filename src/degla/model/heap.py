"""Make the C library keep memory that a model on the CPU frees and needs again immediately."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from contextlib import suppress

KEPT = "DEGLA_KEEP_FREED_MEMORY"
"""Environment variable; 0 leaves the C library's settings unchanged."""

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Two mallopt parameters of glibc's malloc.h."""


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for later allocations, from now until the process ends.

    By default it maps each large tensor separately and returns it to the system when it is freed, so every layer of
    every forward pass touches pages that the system must first find and clear. `bench/heap.py` measures the cost. The
    price of keeping memory is that a process holds its peak usage. Other C libraries are left unchanged, as is glibc if
    the user has configured it (MALLOC_* or glibc.malloc in GLIBC_TUNABLES).

    Returns:
        Whether freed memory is kept.
    """
    if os.environ.get(KEPT) == "0" or _set_up(os.environ) or not _is_glibc():
        return False
    # None: the C library that this process is linked to, whatever its file name.
    mallopt = ctypes.CDLL(None).mallopt
    # No allocation by mmap, which is unmapped when freed; and -1: the top of the heap is never returned.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def _set_up(environment: os._Environ[str]) -> bool:
    own = any(name.startswith("MALLOC_") and name.endswith("_") for name in environment)
    return own or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")


def _is_glibc() -> bool:
    if sys.platform != "win32":
        with suppress(AttributeError, ValueError, OSError):  # macOS and musl, which lack this name; others
            return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False
