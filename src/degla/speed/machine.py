"""What the device can do: matrix products a second, and the memory that a process has taken at most."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from degla.allowance import main_memory
from degla.model.linear_kernel import linear
from degla.pages.words import counted

_SECONDS = 0.5
"""That matrix products are timed for."""


def matmul_peak(device: torch.device, *, bf16: bool) -> float:
    """Floating point operations a second of the fastest of some matrix products of a training step's sizes.

    By the kernel that the step itself would take.
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
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def timed(
    device: torch.device, seconds: list[float], *, clock: Callable[[], float] = time.perf_counter
) -> Iterator[None]:
    """Add to `seconds` what the block takes, the device's work for it included."""
    wait(device)
    started = clock()
    yield
    wait(device)
    seconds.append(clock() - started)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: on the GPU, or of main memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # What `getrusage` says starts, on Linux, from what the parent process held.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Linux counts in kibibytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {counted(torch.get_num_threads(), 'thread')}"


def memory_of(device: torch.device) -> int:
    """Bytes of a GPU's memory, or of main memory; 0 where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return main_memory()


def processor_name() -> str:
    """The processor in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
