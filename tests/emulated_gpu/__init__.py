"""A GPU that is none: tensors that say they lie on `cuda:0`, in main memory and computed there.

For a machine without one: `python -m pytest -p tests.emulated_gpu.plugin FILES`. What code for a GPU does wrong shows
as it would there:

* An operation over tensors of the processor and of the GPU is refused, and so are indices on the GPU for a tensor of
  the processor, a GPU's tensor as a NumPy array, and random numbers of a GPU from a generator of the processor.
* `device.waits` counts, by operation and place in the package, what makes the processor wait for the GPU: a look at a
  value, a copy without `non_blocking` or of memory that is not pinned, a result whose size depends on values.
* Half precision, pinned memory, fused optimisers, events and random states go by the names of CUDA.

No kernel of a GPU runs: nothing here says how fast one is, how it rounds, or how much memory it takes. One device; no
NCCL, no compilation; `inference_mode` is `no_grad`, and `torch.load` leaves tensors on the processor.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")


def missing() -> str:
    """Why there can be no such device here; "" where there can."""
    version = importlib.metadata.version("torch")
    if not version.endswith("+cpu") or tuple(map(int, version.split(".")[:2])) < (2, 13):
        return "needs PyTorch 2.13 or later without CUDA"
    return "" if shutil.which("g++") else "needs g++"


def build() -> Path:
    """The library of `device.cpp`, made once for each PyTorch and source; torch is not imported."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.submodule_search_locations
    (torch,) = spec.submodule_search_locations
    key = hashlib.sha256(SOURCE.read_bytes() + f"{torch} {importlib.metadata.version('torch')}".encode()).hexdigest()
    library = Path(tempfile.gettempdir()) / f"degla-emulated-gpu-{os.getuid()}" / f"{key[:16]}.so"
    if not library.exists():
        library.parent.mkdir(mode=0o700, exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["g++", "-std=c++20", "-O0", "-fPIC", "-shared", f"-I{torch}/include", str(SOURCE), f"-L{torch}/lib",
             f"-Wl,-rpath,{torch}/lib", "-lc10", "-ltorch_cpu", "-o", str(part)],
            check=True,
        )  # fmt: skip
        part.replace(library)
    return library
