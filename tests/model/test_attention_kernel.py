"""The choice of attention kernel, and that both kernels agree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import SDPBackend

from degla.model import block
from degla.model.block import attention


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[SDPBackend]:
    """Record kernels requested by name, not PyTorch's own choices."""
    requests: list[SDPBackend] = []

    @contextlib.contextmanager
    def spy(kernel: SDPBackend) -> Iterator[None]:
        requests.append(kernel)
        yield

    monkeypatch.setattr(block, "sdpa_kernel", spy)
    return requests


def test_training_in_half_precision_attends_to_short_sequences_by_the_plain_kernel(plain: list[SDPBackend]) -> None:
    rows = torch.randn(2, 3, 127, 8)
    attention(rows, rows, rows)
    assert not plain
    half, long = rows.bfloat16(), torch.randn(2, 3, 128, 8).bfloat16()
    attention(half, half, half)
    with torch.no_grad():  # A teacher's, or the first pass of a gradient cache.
        attention(half, half, half)
    assert plain == [SDPBackend.MATH] * 2
    attention(half, long, long)
    with torch.inference_mode():  # An evaluation.
        attention(half, half, half)
    assert len(plain) == 2


@pytest.mark.parametrize("length", [20, 197])
def test_both_kernels_attend_alike(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [torch.randn(2, 3, length, 16, requires_grad=True) for _ in range(3)]
    results = []
    for plainly in (False, True):
        monkeypatch.setattr(block, "plain_is_faster", lambda *_, plainly=plainly: plainly)
        attended = attention(*inputs, is_causal=True)
        results.append([attended, *torch.autograd.grad(attended.square().sum(), inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
