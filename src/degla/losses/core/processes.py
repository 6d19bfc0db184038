"""The processes that share one global batch: gathering with gradient, and means over all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.losses.core.partition import refuse_second_derivative
from degla.processes import ProcessGroup


class _Gather(torch.autograd.Function):
    """All-gather along the first axis; the backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = tensor.shape[0]
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        refuse_second_derivative()  # Autograd does not record the sum over processes.
        (gradient,) = gradients
        gradient = gradient.contiguous().clone()  # Autograd may hand the same tensor to others.
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


@dataclass(frozen=True)
class Processes(ProcessGroup):
    """The processes that share the global batch.

    To make gradients independent of the number of processes, every process computes the share of the loss that
    belongs to its own rows, times `count`, divided by the number of rows of *all* processes. Averaging the gradients
    over processes, as data-parallel training does, then gives the gradient of the global mean.
    """

    @classmethod
    def current(cls) -> Processes:
        """Return the processes of the running job; a single one if `torch.distributed` is not initialised."""
        if dist.is_available() and dist.is_initialized():
            return cls(count=dist.get_world_size(), rank=dist.get_rank())
        return cls()

    def own_rows(self, rows: int) -> slice:
        """Return the slice of this process's rows among the gathered ones, if every process has `rows` of them."""
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def places(self, tensor: Tensor) -> Int[Tensor, " batch"]:
        """Return the index of each row of this process among the gathered ones."""
        own = self.own_rows(len(tensor))
        return torch.arange(own.start, own.stop, device=tensor.device)

    def gather(self, tensor: Float[Tensor, "batch ..."]) -> Float[Tensor, "all ..."]:
        """Return the rows of all processes in rank order; gradients flow back to the process that owns a row."""
        return tensor if self.count == 1 else cast(Tensor, _Gather.apply(tensor))

    def gather_constant(self, tensor: Tensor) -> Tensor:
        """Return the rows of all processes in rank order, without gradient (masks, indices)."""
        if self.count == 1:
            return tensor
        wire = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        parts = [torch.empty_like(wire) for _ in range(self.count)]
        dist.all_gather(parts, wire.detach().contiguous())
        return torch.cat(parts).to(tensor.dtype)

    def rows_of(self, tensor: Tensor, rank: int) -> Tensor:
        """Broadcast the tensor of one process, without gradient; all must call it with the same shape."""
        if self.count == 1:
            return tensor
        rows = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(rows, src=rank)
        return rows

    def sum_at(self, tensor: Tensor, rank: int) -> Tensor:
        """Sum over processes onto one of them, without gradient; the result on the others is undefined."""
        if self.count > 1:
            dist.reduce(tensor, dst=rank)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over processes, without gradient, on the tensor's own device."""
        tensor = tensor.detach().clone()
        if self.count > 1:
            # NCCL handles only tensors on its GPU; one made on the host is copied there.
            wire = tensor.cuda() if dist.get_backend() == "nccl" else tensor
            dist.all_reduce(wire)
            tensor = wire.to(tensor.device)
        return tensor

    def mean(self, values: Float[Tensor, "*shape"], keep: Bool[Tensor, "*shape"] | None = None) -> Float[Tensor, ""]:
        """Return this process's share of the mean over all kept entries of all processes.

        Args:
            values: one value per entry.
            keep: which entries count; all by default. The others get an exact zero gradient, even if they are
                infinite. If no process keeps any, the mean is 0.
        """
        if keep is None:
            # Filled on the device: a copy from the host would wait for it.
            count = torch.full((), float(values.numel()), device=values.device, dtype=values.dtype)
            terms = values
        else:
            count = keep.sum().to(values.dtype)
            terms = torch.where(keep, values, torch.zeros_like(values))
        return terms.sum() * self.count / self.total(count).clamp(min=1)
