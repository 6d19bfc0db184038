"""Linear layers by oneDNN in evaluation: the same numbers up to rounding, only where asked for, known to the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from degla.evaluation.cache import identity_of
from degla.evaluation.embed import Embedder
from degla.model import linear_kernel
from degla.model.linear_kernel import LinearKernel, has_kernel
from degla.model.load import load_encoder
from tests.evaluation.fake_encoders import spreading
from tests.tiny import CAPTIONS

needs_kernel = pytest.mark.skipif(not has_kernel(), reason="this build of PyTorch has no oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each linear layer inside the mode fitted the kernel."""
    answers: list[bool] = []
    fits = linear_kernel.fits
    monkeypatch.setattr(linear_kernel, "fits", lambda *args: answers.append(fits(*args)) or answers[-1])
    return answers


@needs_kernel
@pytest.mark.parametrize("shape", [(1, 64), (7, 64), (2, 3, 64), (2, 5, 3, 64)])
def test_numbers_are_those_of_float64(shape: tuple[int, ...], calls: list[bool]) -> None:
    rows, weight, bias = torch.randn(shape), torch.randn(40, 64), torch.randn(40)
    with torch.inference_mode(), LinearKernel():
        output, without = linear(rows, weight, bias), linear(rows, weight)
    assert calls == [True, True]
    torch.testing.assert_close(output.double(), rows.double() @ weight.double().T + bias.double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(without.double(), rows.double() @ weight.double().T, rtol=0, atol=1e-4)


def test_other_numbers_and_gradients_are_left_alone(calls: list[bool]) -> None:
    weight = torch.randn(4, 8, requires_grad=True)
    with LinearKernel():
        linear(torch.randn(3, 8), weight).sum().backward()
        with torch.inference_mode():
            assert linear(torch.randn(3, 8).double(), torch.randn(4, 8).double()).dtype == torch.float64
            assert linear(torch.randn(0, 8), torch.randn(4, 8)).shape == (0, 4)
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert calls == [False, False], "with gradients nobody is asked; the two others do not fit"
    linear(torch.randn(3, 8), weight)
    assert len(calls) == 2, "outside the block nothing is changed"


@needs_kernel
def test_embeddings_agree_and_the_cache_tells_them_apart(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[bool]
) -> None:
    encoder = load_encoder(str(tiny_model))
    monkeypatch.setattr(linear_kernel, "is_faster", lambda: True)
    fast = Embedder(encoder, root=tmp_path).embed([], CAPTIONS)
    assert sum(calls) >= 8, "the layers of both blocks went to the kernel"
    identity = identity_of(spreading())
    count = len(calls)
    monkeypatch.setattr(linear_kernel, "is_faster", lambda: False)
    plain = Embedder(encoder, root=tmp_path).embed([], CAPTIONS)
    assert len(calls) == count, "PyTorch's own are taken where they are as fast"
    assert abs(fast.texts - plain.texts).max() < 1e-6
    assert identity_of(spreading()) != identity
