"""Linear layers by oneDNN on processors: more than twice as fast as by MKL where the processor is not Intel's.

PyTorch gives float32 matrix products to MKL, which leaves wide vector units of other makers' processors unused; oneDNN,
which PyTorch has for convolutions, uses them. Sums are in float32 in both, in another order (docs/log.md has figures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

NAME = "oneDNN"
"""What the identity of embeddings says where these kernels made them."""


class LinearKernel(TorchFunctionMode):
    """Inside `with`, in this thread and without gradients, `linear` of float32 on a processor goes to oneDNN."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch for every operation."""
        if func is torch.nn.functional.linear and not kwargs and _fits(*args):
            rows, weight = args[:2]
            return torch.ops.mkldnn._linear_pointwise(rows, weight, args[2] if len(args) > 2 else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    return (
        rows.dtype == weight.dtype == torch.float32
        and rows.device.type == weight.device.type == "cpu"
        and rows.numel() > 0
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
    )


@cache
def has_kernel() -> bool:
    """Whether this build of PyTorch has oneDNN's linear layer, and it computes what it must."""
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (torch.randn(shape, generator=generator) for shape in ((5, 64), (32, 64), (32,)))
    try:
        with torch.inference_mode(), LinearKernel():
            found = torch.nn.functional.linear(rows, weight, bias)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    expected = rows.double() @ weight.double().T + bias.double()
    return bool(torch.allclose(found.double(), expected, rtol=0, atol=1e-4))
