"""CPUs and main memory that this process may use, within the limits of a container or job."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RUNS: Final = "DEGLA_RUNS_AT_ONCE"
"""Environment variable in the processes of a study: how many of its runs share the cores."""


def usable_cores(system: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may use, 1 or more, by its affinity and its CPU quota.

    Args:
        system: folder that contains `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = _limits(system, 2, ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    # CPU time per period, and the period, in microseconds; a quota of -1 is no limit.
    return min([cores, *(math.ceil(quota / period) for quota, period in limits if quota > 0)])


def main_memory(system: Path = Path("/")) -> int:
    """Return the bytes of main memory that this process may use; 0 if not known.

    Args:
        system: folder that contains `proc` and `sys`.
    """
    if sys.platform != "win32":
        with contextlib.suppress(ValueError):
            machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            limits = _limits(system, 1, ("memory.max",), ("memory.limit_in_bytes",))
            return min([machine, *(limit for (limit,) in limits)])
    return 0


def _limits(
    system: Path, count: int, names: tuple[str, ...], first_version: tuple[str, ...]
) -> Iterator[tuple[int, ...]]:
    """Yield the limits of this process's control groups (cgroups), which containers and Slurm use to share a machine.

    Args:
        system: folder that contains `proc` and `sys`.
        count: how many integers form a limit; anything else, such as "max", is no limit.
        names: files of the limit, whose numbers are combined.
        first_version: names of the files in cgroups v1, which has a folder for each kind of limit.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        root = system / "sys/fs/cgroup" / kinds
        group = group.strip("/")
        for folder in (root / group, *(root / group).parents[: len(Path(group).parts)]):
            # Not a number: "max". No such file: a container, which sees its own group as the root, or other limits.
            with contextlib.suppress(OSError, ValueError):
                files = (folder / name for name in (first_version if kinds else names))
                limit = tuple(int(number) for file in files for number in file.read_text(encoding="ascii").split())
                if len(limit) == count:
                    yield limit
