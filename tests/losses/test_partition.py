"""The blocked log-partition against the plain one: values, gradients, absent candidates, bounded memory."""

from __future__ import annotations

import pytest
import torch

from degla.losses.core.partition import log_partition


@pytest.mark.parametrize("block_logits", [1, 20, 10_000])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("masked", ["none", "candidates", "pairs"])
def test_blocks_change_nothing(block_logits: int, targeted: bool, masked: str) -> None:
    generator = torch.Generator().manual_seed(1)
    queries, candidates = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (7, 9))
    scale = torch.tensor(3.0, dtype=torch.float64)
    target = torch.arange(7) if targeted else None
    away = torch.rand(7, 9, generator=generator) < 0.3
    if masked == "candidates":
        away = away[:1].expand(7, -1).clone()
        away[:, :7] = False
    if targeted:
        away[torch.arange(7), torch.arange(7)] = False
    if not targeted and masked == "pairs":
        away[3] = True  # A row without any candidate.
    absent = {"none": None, "candidates": away[0], "pairs": lambda rows: away[rows]}[masked]
    weights = torch.randn(7, generator=generator, dtype=torch.float64)

    def plain(queries: torch.Tensor, candidates: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        logits = scale * queries @ candidates.T
        masked_logits = logits if masked == "none" else logits.masked_fill(away, -torch.inf)
        whole = masked_logits.logsumexp(dim=1)
        return whole if target is None else whole - logits[torch.arange(7), target]

    inputs = [value.requires_grad_() for value in (queries, candidates, scale)]
    expected = plain(*inputs)
    actual = log_partition(*inputs, absent=absent, target=target, block_logits=block_logits)
    torch.testing.assert_close(actual, expected)
    finite = torch.isfinite(expected)
    assert bool(finite.all()) != (not targeted and masked == "pairs")
    expected_gradients = torch.autograd.grad((expected * weights)[finite].sum(), inputs)
    actual_gradients = torch.autograd.grad((actual * weights)[finite].sum(), inputs)
    for one, other in zip(expected_gradients, actual_gradients, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(other, one)


def test_only_one_block_of_logits_is_held() -> None:
    largest = 0

    def watch(rows: slice) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, rows.stop - rows.start)
        return torch.zeros(rows.stop - rows.start, 100, dtype=torch.bool)

    queries = torch.randn(64, 3, requires_grad=True)
    log_partition(queries, torch.randn(100, 3), torch.tensor(1.0), absent=watch, block_logits=800).sum().backward()
    assert largest == 8
