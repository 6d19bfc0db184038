"""Which kernel attends where, and that both attend alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import SDPBackend

from degla.model import attention_kernel
from degla.model.attention_kernel import attention, flash_is_faster


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[SDPBackend]:
    """The kernels that are asked for by name; PyTorch's own choice is not."""
    asked: list[SDPBackend] = []

    @contextlib.contextmanager
    def spy(kernel: SDPBackend) -> Iterator[None]:
        asked.append(kernel)
        yield

    monkeypatch.setattr(attention_kernel, "sdpa_kernel", spy)
    return asked


@pytest.mark.parametrize(("faster", "expected"), [(False, [SDPBackend.MATH]), (True, [])])
def test_training_attends_by_what_was_measured_for_the_length(
    faster: bool, expected: list[SDPBackend], plain: list[SDPBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(attention_kernel, "flash_is_faster", lambda long: asked.append(long) or faster)
    rows = torch.randn(2, 3, 127, 8)
    attention(rows, rows, rows)
    with torch.no_grad():  # A teacher's, or the first pass of a gradient cache.
        attention(rows, rows, rows)
    assert plain == 2 * expected
    attention(rows, *2 * [torch.randn(2, 3, 128, 8)])
    assert asked == [False, False, True]


def test_evaluation_takes_pytorchs_choice(plain: list[SDPBackend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_kernel, "flash_is_faster", lambda long: False)
    rows = torch.randn(2, 3, 20, 8)
    with torch.inference_mode():
        attention(rows, rows, rows)
    assert plain == []


@pytest.mark.parametrize("length", [20, 197])
def test_both_kernels_attend_alike(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [torch.randn(2, 3, length, 16, requires_grad=True) for _ in range(3)]
    found = []
    for faster in (False, True):
        monkeypatch.setattr(attention_kernel, "flash_is_faster", lambda long, faster=faster: faster)
        attended = attention(*given, is_causal=True)
        found.append([attended, *torch.autograd.grad(attended.square().sum(), given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_is_measured_once_and_also_inside_of_an_evaluation() -> None:
    flash_is_faster.cache_clear()
    with torch.inference_mode():
        found = flash_is_faster(long=True)
    assert flash_is_faster(long=True) is found and flash_is_faster.cache_info().misses == 1
