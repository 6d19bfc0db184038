"""Memory that a processor's model frees and needs again at once: the C library is told to keep it."""

from __future__ import annotations

import ctypes
import functools
import os

KEPT = "DEGLA_KEEP_FREED_MEMORY"
"""Variable that leaves the C library as it is, where it is 0."""

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Names of two settings in glibc's malloc.h."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for what is asked for next, from here to the end of the process.

    By default it maps each large tensor anew and gives it back to the system when it is freed, so that every layer of
    every forward pass touches pages which the system has to find and clear first. `bench/heap.py` measures what that
    costs; the price of keeping is that a process holds what it once needed. Other C libraries are left alone, and so
    is one whose user has set it up himself (MALLOC_* or glibc.malloc in GLIBC_TUNABLES).

    Returns:
        Whether freed memory is kept.
    """
    if os.environ.get(KEPT) == "0" or _set_up(os.environ) or not _is_glibc():
        return False
    # Anonymous: the C library that this process runs on, whatever its file is called.
    mallopt = ctypes.CDLL(None).mallopt
    # No allocation by mmap, which is unmapped when it is freed; and -1: the heap's end is never given back.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def _set_up(environment: os._Environ[str]) -> bool:
    own = any(name.startswith("MALLOC_") and name.endswith("_") for name in environment)
    return own or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows; macOS and musl, which know no such name; others
        return False
