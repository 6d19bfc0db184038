"""Memory that a processor's model frees and needs again at once: the C library is told to keep it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from pathlib import Path

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


def main_memory(system: Path = Path("/")) -> int:
    """Bytes of main memory that this process may have: the machine's, or less in a container or a job; 0: not known.

    Args:
        system: folder that holds `proc` and `sys`.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # Windows
        return 0
    return min([machine, *_memory_limits(system)])


def _memory_limits(system: Path) -> Iterator[int]:
    """What Linux allows the control groups that this process is in, by which containers and Slurm keep memory apart."""
    try:
        lines = (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root, name = system / "sys/fs/cgroup" / kinds, "memory.limit_in_bytes" if kinds else "memory.max"
        group = group.strip("/")
        for folder in (root / group, *(root / group).parents[: len(Path(group).parts)]):
            # No number is "max"; no such file: a container, which sees its own group as the root.
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text(encoding="ascii"))


def _set_up(environment: os._Environ[str]) -> bool:
    own = any(name.startswith("MALLOC_") and name.endswith("_") for name in environment)
    return own or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows; macOS and musl, which know no such name; others
        return False
