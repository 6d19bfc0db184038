"""Throughput of matrix products on the device, and the peak memory of a process."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from degla.allowance import main_memory
from degla.model.linear_kernel import linear
from degla.pages.words import counted

if sys.platform != "win32":
    import resource

_SECONDS = 0.5
"""Time to measure matrix products for."""


def matmul_peak(device: torch.device, *, bf16: bool) -> float:
    """Return floating-point operations per second of the fastest of some matrix products of a training step's sizes.

    Uses the same kernel as the step itself.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    best = 0.0
    sizes = (
        [(1024, 768, 3072), (2048, 1024, 4096)] if device.type == "cpu" else [(8192, 8192, 8192), (16384, 4096, 4096)]
    )
    for rows, inner, columns in sizes:
        left = torch.randn(rows, inner, dtype=dtype, device=device)
        right = torch.randn(columns, inner, dtype=dtype, device=device)
        linear(left, right, None)
        until = time.perf_counter() + _SECONDS / len(sizes)
        while time.perf_counter() < until:
            seconds: list[float] = []
            with timed(device, seconds):
                linear(left, right, None)
            best = max(best, 2 * rows * inner * columns / seconds[0])
    return best


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def timed(
    device: torch.device, seconds: list[float], *, clock: Callable[[], float] = time.perf_counter
) -> Iterator[None]:
    """Append the block's duration to `seconds`, including the device's work for it."""
    wait(device)
    started = clock()
    yield
    wait(device)
    seconds.append(clock() - started)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: on the GPU, or main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # On Linux, `getrusage` starts from the memory of the parent process.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    else:
        # Linux counts in kibibytes, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """Return the name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {counted(torch.get_num_threads(), 'thread')}"


def memory_of(device: torch.device) -> int:
    """Return the size of a GPU's memory or of main memory in bytes; 0 if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return main_memory()


def processor_name() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
