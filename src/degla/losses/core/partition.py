"""Log of a softmax denominator over many candidates, without holding all logits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.errors import InputError

BLOCK_LOGITS = 2**21
"""Number of logits held at a time: 8 MiB in float32, which also fits a CPU cache."""

Absent = Callable[[slice], Bool[Tensor, "rows candidates"]]


def outside_autocast(like: Tensor) -> torch.autocast:
    """Disable autocast for a block, whatever precision the surrounding training loop uses for the model.

    In bfloat16 a logit of 100 is off by up to a quarter.
    """
    return torch.autocast("cpu" if like.is_meta else like.device.type, enabled=False)


def refuse_second_derivative() -> None:
    """Refuse a backward pass that autograd would record; called by those that compute plain gradients.

    PyTorch's `once_differentiable` does so only if the gradient that arrives has one itself; the gradient of a mean has
    none, and second derivatives would lack a part without a word.

    Raises:
        InputError: the caller wants second derivatives.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise InputError("this loss has no second derivatives: omit create_graph=True, or write its formula out.")


def log_partition(
    queries: Float[Tensor, "batch dim"],
    candidates: Float[Tensor, "candidates dim"],
    scale: Float[Tensor, ""],
    *,
    absent: Absent | Bool[Tensor, " candidates"] | None = None,
    target: Int[Tensor, " batch"] | None = None,
    block_logits: int = BLOCK_LOGITS,
) -> Float[Tensor, " batch"]:
    """Return log sum_c e^{s<q, c>} for each query, minus the logit of its target if it has one (the cross-entropy).

    The backward pass computes the logits again, block by block.

    Args:
        queries: one row per softmax.
        candidates: rows that every query is compared with.
        scale: factor of the similarities; may carry a gradient.
        absent: mask of candidates that do not count, one for all queries, or a function from a slice of the queries to
            the mask of its rows. They get no gradient. A query without candidates is -inf and has no gradient.
        target: index of a candidate for each query; it must not be absent.
        block_logits: maximum number of logits held at a time.
    """
    size = max(1, block_logits // max(len(candidates), 1))
    blocks = [slice(start, min(start + size, len(queries))) for start in range(0, len(queries), size)]
    return cast(Tensor, _LogPartition.apply(queries, candidates, scale, absent, target, blocks))


def own_place(rows: slice, candidates: Float[Tensor, "candidates dim"]) -> Bool[Tensor, "rows candidates"]:
    """Mask the candidate with each query's own index; serves as `absent` where queries are among the candidates."""
    place = torch.arange(len(candidates), device=candidates.device)
    return place[rows, None] == place[None, :]


def with_own(whole: Float[Tensor, " batch"], logits: Float[Tensor, "batch own"]) -> Float[Tensor, " batch"]:
    """Return the log of each row's sum with additional terms of that row, all given by their logs."""
    return torch.cat([whole[:, None], logits], dim=1).logsumexp(dim=1)


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        candidates: Tensor,
        scale: Tensor,
        absent: Any,
        target: Tensor | None,
        blocks: list[slice],
    ) -> Tensor:
        whole = queries.new_empty(len(queries))
        chosen = torch.zeros_like(whole)
        for rows in blocks:
            logits = _logits(queries[rows], candidates, scale, absent, rows)
            whole[rows] = logits.logsumexp(dim=1)
            if target is not None:
                chosen[rows] = logits.gather(1, target[rows, None])[:, 0]
        ctx.save_for_backward(queries, candidates, scale, whole)
        ctx.absent, ctx.target, ctx.blocks = absent, target, blocks
        return whole - chosen

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        queries, candidates, scale, whole = ctx.saved_tensors
        to_queries = torch.empty_like(queries)
        to_candidates = torch.zeros_like(candidates)
        to_scale = torch.zeros_like(scale)
        # A row without any candidate is -inf; its shares are 0, not -inf minus -inf.
        shift = torch.where(torch.isinf(whole), torch.zeros_like(whole), whole)
        with outside_autocast(queries):
            for rows in ctx.blocks:
                shares = _logits(queries[rows], candidates, scale, ctx.absent, rows)
                shares = shares.sub_(shift[rows, None]).exp_().mul_(gradient[rows, None])
                if ctx.target is not None:
                    shares.scatter_add_(1, ctx.target[rows, None], -gradient[rows, None])
                unscaled = shares @ candidates
                to_queries[rows] = scale * unscaled
                to_candidates.addmm_(shares.T, scale * queries[rows])
                to_scale += (unscaled * queries[rows]).sum()
        return to_queries, to_candidates, to_scale, None, None, None


def _logits(queries: Tensor, candidates: Tensor, scale: Tensor, absent: Any, rows: slice) -> Tensor:
    logits = (scale * queries) @ candidates.T
    if absent is None:
        return logits
    return logits.masked_fill_(absent(rows) if callable(absent) else absent, -torch.inf)
