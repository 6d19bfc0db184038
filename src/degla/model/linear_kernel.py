"""Linear layers with oneDNN on CPUs not made by Intel, where it is 1.1 to 2.5 times as fast as MKL.

PyTorch uses MKL for float32 matrix products, which leaves wide vector units of other makers' CPUs unused. oneDNN, which
PyTorch includes for convolutions, uses them. Both sum in float32, but in a different order (docs/log.md has figures).
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from timeit import timeit
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from degla.errors import DeglaError, InputError
from degla.files import cache_folder, write_text

NAME, OWN = "oneDNN", "PyTorch's own"
"""Names of the kernels in checkpoints and figures; the identity of cached embeddings includes only the first."""

_FASTER = 1.08
"""Intel CPUs have a ratio of 0.92 to 1.0, AMD EPYC of the Zen 4 generation 1.12 to 1.2."""
_SHAPES = ((800, 768), (3072, 768), (3072,))
"""Rows, weight and bias of the measurement: a layer of ViT-B/32's image tower, for 16 images."""

_LARGE = 1 << 22
"""Smallest product, in multiplications, that is worth it: the kernel keeps memory for each product size."""


def linear(
    rows: Float[Tensor, "*rows width"], weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "*rows out"]:
    """`torch.nn.functional.linear` with gradients, using oneDNN where it is faster."""
    large = rows.numel() * len(weight) >= _LARGE
    if large and not torch.compiler.is_compiling() and fits(rows, weight) and is_faster():
        return cast(Tensor, _Linear.apply(rows, weight, bias))
    return functional.linear(rows, weight, bias)


def apply_layer(layer: nn.Module, rows: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows out"]:
    """Apply a layer: plain linear layers with `linear`, others, such as layers with adapters, by calling them."""
    if type(layer) in (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return linear(rows, cast(Tensor, layer.weight), cast("Tensor | None", layer.bias))
    return cast(Tensor, layer(rows))


class _Linear(torch.autograd.Function):
    """All three products of a linear layer with oneDNN."""

    @staticmethod
    def forward(context: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = _padded(rows)
        context.save_for_backward(flat, weight)
        context.shape = rows.shape
        return _shaped(_multiply(flat, weight, bias), rows.shape)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        flat, weight = context.saved_tensors
        for_rows, for_weight, for_bias = context.needs_input_grad
        sent = _padded(grad)
        return (
            _shaped(_multiply(sent, weight.t()), context.shape) if for_rows else None,
            _multiply(sent.t(), flat.t()) if for_weight else None,
            sent.sum(dim=0) if for_bias else None,
        )


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""))


def _padded(rows: Float[Tensor, "*rows width"]) -> Float[Tensor, "padded width"]:
    """Flatten to a matrix, zero-padded to one of 16 row counts between a power of two and the next.

    oneDNN keeps half a megabyte of code for each row count, and text trees have many.
    """
    flat = rows.reshape(-1, rows.shape[-1]).contiguous()
    step = 1 << max(len(flat).bit_length() - 5, 3 if len(flat) > 8 else 0)
    missing = -len(flat) % step
    return functional.pad(flat, (0, 0, 0, missing)) if missing else flat


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    """Undo `_padded`: rows in the original shape, of any width."""
    return flat[: shape[:-1].numel()].view(*shape[:-1], flat.shape[-1])


def count_operations(rows: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Count the kernel's floating-point operations for `torch.utils.flop_counter`, which does not know it."""
    count = 2 * weight[0]
    for size in rows:
        count *= size
    return count


class LinearKernel(TorchFunctionMode):
    """Context manager: in this thread and without gradients, float32 `linear` on the CPU uses oneDNN."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch for every operation."""
        if func is functional.linear and not kwargs and not torch.is_grad_enabled() and fits(*args[:2]):
            return _shaped(_multiply(_padded(args[0]), args[1], args[2] if len(args) > 2 else None), args[0].shape)
        return func(*args, **(kwargs or {}))


def fits(rows: Tensor, weight: Tensor) -> bool:
    """Whether the kernel supports these tensors: float32 on the CPU without autocast."""
    return (
        rows.dtype == weight.dtype == torch.float32
        and rows.device.type == weight.device.type == "cpu"
        and rows.numel() > 0
        and weight.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def has_kernel() -> bool:
    """Whether this build of PyTorch has oneDNN's linear layer and it computes correctly, gradients included."""
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(shape, generator=generator) for shape in ((5, 64), (32, 64), (32,), (5, 32))]
    try:
        with torch.no_grad():
            actual = [
                _multiply(*operands[:3]),
                _multiply(operands[3], operands[1].t()),
                _multiply(operands[3].t(), operands[0].t()),
            ]
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    rows, weight, bias, grad = (value.double() for value in operands)
    expected = [rows @ weight.T + bias, grad @ weight, grad.T @ rows]
    return all(
        torch.allclose(one.double(), other, rtol=0, atol=1e-4) for one, other in zip(actual, expected, strict=True)
    )


_settled: bool | None = None
_MEASURING = Lock()


def is_faster() -> bool:
    """Whether linear layers use the kernel: as set by `settle`, else as measured."""
    return measured() if _settled is None else _settled


def settle(faster: bool) -> None:
    """Choose whether this process uses the kernel for linear layers, overriding any measurement."""
    global _settled
    _settled = faster


def used_on(device: torch.device) -> str:
    """Return the kernel for float32 linear layers on a device: `NAME` or `OWN`."""
    return NAME if device.type == "cpu" and is_faster() else OWN


@cache
def measured() -> bool:
    """Whether the kernel exists, is correct and faster than PyTorch's own.

    Measured once per kind of CPU and version of PyTorch, in about 0.5 s, and stored in `kernels` in the cache folder:
    a noisy machine must not change the kernel from one run to the next, since the two round differently.
    """
    if not has_kernel():
        return False
    with contextlib.suppress(InputError):  # no home folder
        file = cache_folder("kernels") / f"linear-{hashlib.sha256(_processor().encode()).hexdigest()[:16]}"
        with contextlib.suppress(OSError, ValueError):
            return float(file.read_text(encoding="utf-8")) > _FASTER
        ratio = _ratio()
        with contextlib.suppress(DeglaError):  # a folder that is not writable
            write_text(file, f"{ratio}\n")
        return ratio > _FASTER
    return _ratio() > _FASTER


def _processor() -> str:
    """What the ratio depends on: the version of PyTorch and what Linux tells about the kind of CPU."""
    lines = [torch.__version__, platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        lines += [
            line for line in first.splitlines() if line.startswith(("vendor", "cpu family", "model", "flags", "CPU"))
        ]
    return "\n".join(lines)


def _ratio() -> float:
    """Measure PyTorch's time for a linear layer, in multiples of oneDNN's."""
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (torch.randn(shape, generator=generator) for shape in _SHAPES)
    with _MEASURING:  # A concurrent thread would save and restore the single thread set here.
        threads = torch.get_num_threads()
        # One thread: several wait for each other on a busy machine, and MKL's spin meanwhile, which counts as work.
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                # `linear` reduces to `addmm`, which is not redirected inside `LinearKernel`.
                sides = (lambda: torch.addmm(bias, rows, weight.t()), lambda: _multiply(rows, weight, bias))
                # Alternating, and the best of several, because other work may run on the machine.
                # CPU time: other work on the machine must not change the kernel of a resumed run.
                turns = [[timeit(side, timer=time.process_time, number=1) for side in sides] for _ in range(7)]
        finally:
            torch.set_num_threads(threads)
    own, other = (min(times) for times in zip(*turns, strict=True))
    return float(round(own / max(other, 1e-9), 3))
