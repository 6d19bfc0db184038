"""The processes that share one global batch: gathering with gradient, and means over all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor


class _Gather(torch.autograd.Function):
    """all_gather along the first axis whose backward adds up what every process sends back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = tensor.shape[0]
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous().clone()  # Autograd may hand the same tensor to others.
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


@dataclass(frozen=True)
class Processes:
    """How many processes share the global batch, and which one this is.

    The convention that makes gradients independent of their number: every process computes the share of the loss that
    belongs to its own rows, times `count`, divided by the number of rows of *all* processes. The average over
    processes, which data-parallel training takes of the gradients, is then the gradient of the global mean.

    Attributes:
        count: number of processes, 1 without distribution.
        rank: number of this process.
    """

    count: int = 1
    rank: int = 0

    @classmethod
    def current(cls) -> Processes:
        """The processes of the running job; a single one where `torch.distributed` is not set up."""
        if dist.is_available() and dist.is_initialized():
            return cls(count=dist.get_world_size(), rank=dist.get_rank())
        return cls()

    def own_rows(self, rows: int) -> slice:
        """Where the rows of this process, so many as every process has, lie among the gathered ones."""
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def places(self, tensor: Tensor) -> Int[Tensor, " batch"]:
        """Where each row of this process lies among the gathered ones."""
        own = self.own_rows(len(tensor))
        return torch.arange(own.start, own.stop, device=tensor.device)

    def gather(self, tensor: Float[Tensor, "batch ..."]) -> Float[Tensor, "all ..."]:
        """Rows of all processes in rank order; gradients of all processes flow back to each row's owner."""
        return tensor if self.count == 1 else cast(Tensor, _Gather.apply(tensor))  # type: ignore[no-untyped-call]

    def gather_constant(self, tensor: Tensor) -> Tensor:
        """Rows of all processes in rank order, without gradient (masks, indices)."""
        if self.count == 1:
            return tensor
        wire = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        parts = [torch.empty_like(wire) for _ in range(self.count)]
        dist.all_gather(parts, wire.detach().contiguous())
        return torch.cat(parts).to(tensor.dtype)

    def rows_of(self, tensor: Tensor, rank: int) -> Tensor:
        """What one process has, on every process, without gradient; all of them must call it with the same shape."""
        if self.count == 1:
            return tensor
        found = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(found, src=rank)
        return found

    def sum_at(self, tensor: Tensor, rank: int) -> Tensor:
        """Sum over processes, without gradient, for one of them; what the others get is of no meaning."""
        if self.count > 1:
            dist.reduce(tensor, dst=rank)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over processes, without gradient, on the tensor's own device."""
        tensor = tensor.detach().clone()
        if self.count > 1:
            # NCCL moves only what lies on its GPU; a flag made on the host takes the trip there.
            wire = tensor.cuda() if dist.get_backend() == "nccl" else tensor
            dist.all_reduce(wire)
            tensor = wire.to(tensor.device)
        return tensor

    def mean(self, values: Float[Tensor, "*shape"], keep: Bool[Tensor, "*shape"] | None = None) -> Float[Tensor, ""]:
        """This process's share of the mean over all kept entries of all processes.

        Args:
            values: one value an entry.
            keep: which entries count; all by default. Entries left out get an exact zero gradient, also where they
                are infinite. Where none is left anywhere the mean is 0.
        """
        if keep is None:
            # Filled there, not copied there: a copy would wait for the device.
            count = torch.full((), float(values.numel()), device=values.device)
            kept = values
        else:
            count = keep.sum().to(values.dtype)
            kept = torch.where(keep, values, torch.zeros_like(values))
        return kept.sum() * self.count / self.total(count).clamp(min=1)
