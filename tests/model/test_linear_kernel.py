"""Linear layers with oneDNN in training: forward and both gradients are correct, and nothing else uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from degla.model import linear_kernel
from degla.model.linear_kernel import apply_layer, count_operations, has_kernel, linear, measured
from degla.model.load import load_encoder
from tests.tiny import CAPTIONS

needs_kernel = pytest.mark.skipif(not has_kernel(), reason="this build of PyTorch has no oneDNN")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Force the kernel whatever is measured; list the shape of each product's left side."""
    shapes: list[tuple[int, ...]] = []
    multiply = linear_kernel._multiply

    def seen(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        shapes.append(tuple(rows.shape))
        return multiply(rows, weight, bias)

    monkeypatch.setattr(linear_kernel, "is_faster", lambda: True)
    monkeypatch.setattr(linear_kernel, "_LARGE", 1)
    monkeypatch.setattr(linear_kernel, "_multiply", seen)
    return shapes


@needs_kernel
@pytest.mark.parametrize("shape", [(1, 64), (7, 64), (2, 3, 64), (16, 64), (13, 5, 64)])
@pytest.mark.parametrize("expanded", [False, True], ids=["whole gradient", "expanded gradient"])
def test_values_and_gradients_are_those_of_float64(
    shape: tuple[int, ...], expanded: bool, kernel: list[tuple[int, ...]]
) -> None:
    inputs = [torch.randn(shape), torch.randn(40, 64), torch.randn(40)]
    sent = torch.randn(()).expand(*shape[:-1], 40) if expanded else torch.randn(*shape[:-1], 40)
    actual = [value.clone().requires_grad_() for value in inputs]
    expected = [value.double().requires_grad_() for value in inputs]
    rows = linear(*actual)
    rows.backward(sent)
    exact = functional.linear(*expected)
    exact.backward(sent.double())
    flat = {1: 1, 6: 6, 7: 7, 16: 16, 65: 72}[rows.numel() // 40]
    assert kernel == [(flat, 64), (flat, 40), (40, flat)]
    torch.testing.assert_close(rows.double(), exact, rtol=1e-5, atol=1e-5)
    for one, other in zip(actual, expected, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)


@needs_kernel
def test_few_numbers_of_rows_reach_the_kernel(kernel: list[tuple[int, ...]]) -> None:
    weight = torch.randn(3, 8)
    for count in range(1024, 2048):
        assert linear(torch.ones(count, 8), weight, None).shape == (count, 3)
    numbers = [shape[0] for shape in kernel]
    assert len(set(numbers)) == 17 and all(
        count <= number < 1.0625 * count for count, number in enumerate(numbers, 1024)
    )


@needs_kernel
def test_gradients_that_nobody_asks_for_are_not_computed(kernel: list[tuple[int, ...]]) -> None:
    rows, weight = torch.randn(5, 8), torch.randn(3, 8, requires_grad=True)
    linear(rows, weight, None).sum().backward()
    assert len(kernel) == 2 and weight.grad is not None and rows.grad is None
    kernel.clear()
    with torch.no_grad():
        assert not linear(rows, weight, None).requires_grad
    assert len(kernel) == 1


def test_what_does_not_fit_goes_to_pytorch(kernel: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(4, 8)
    assert linear(torch.randn(3, 8).double(), weight.double(), None).dtype == torch.float64
    assert linear(torch.randn(0, 8), weight, None).shape == (0, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(3, 8), weight, None).dtype == torch.bfloat16

    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    layer = Doubled(8, 4)
    torch.testing.assert_close(
        apply_layer(layer, torch.ones(1, 8)), 2 * functional.linear(torch.ones(1, 8), *layer.parameters())
    )
    monkeypatch.setattr(linear_kernel, "_LARGE", 3 * 8 * 4 + 1)
    linear(torch.randn(3, 8), weight, None)
    assert kernel == []


@needs_kernel
@pytest.mark.parametrize("recompute", [False, True], ids=["activations kept", "activations computed again"])
def test_both_towers_agree_with_and_without(
    tiny_model: Path, recompute: bool, kernel: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)  # How far rounding goes depends on the numbers.
    images = torch.randn(3, 3, 32, 32, generator=generator)
    weights = torch.randn(2, 3, 16, generator=generator)
    grads = []
    for fast in (True, False):
        monkeypatch.setattr(linear_kernel, "is_faster", lambda fast=fast: fast)
        kernel.clear()
        encoder = load_encoder(str(tiny_model)).train()
        if recompute:
            encoder.checkpoint_gradients()
        image, text, *_ = encoder(images, encoder.tokenize(CAPTIONS[:3]))
        (weights[0] * image + weights[1] * text).sum().backward()
        assert (len(kernel) > 40) == fast
        grads.append({name: value.grad for name, value in encoder.clip.named_parameters() if value.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 50
    for name, expected in grads[1].items():
        torch.testing.assert_close(grads[0][name], expected, rtol=1e-4, atol=1e-5)


@needs_kernel
def test_operations_are_counted(kernel: list[tuple[int, ...]]) -> None:
    rows, weight = torch.randn(2, 8, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    counts = []
    for call in (lambda: linear(rows, weight, None), lambda: functional.linear(rows, weight)):
        mapping = {torch.ops.mkldnn._linear_pointwise: count_operations}
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            call().sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [3 * 2 * 16 * 8 * 3] * 2


@needs_kernel
def test_it_is_taken_only_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state, before, threads = torch.random.get_rng_state(), torch.get_num_threads(), set[int]()
    torch.set_num_threads(2)

    def told(work: Callable[[], object], clock: Iterator[float], **_: object) -> float:
        work()
        threads.add(torch.get_num_threads())
        return next(clock)

    try:
        for own, expected in ((1.1, True), (1.05, False)):
            monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / str(own)))
            monkeypatch.setattr(linear_kernel, "timeit", partial(told, clock=iter([own, 1.0] * 7)))
            assert measured.__wrapped__() is expected
            assert measured.__wrapped__() is expected, "measured again, which the clock is not for"
        assert threads == {1}, "threads that wait for each other on a busy machine count as slow kernels"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(state, torch.random.get_rng_state()), "measuring draws from the run's random numbers"


@needs_kernel
def test_it_is_measured_once_on_a_kind_of_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ratios = iter([1.3, 0.9, 0.8, 1.5])
    monkeypatch.setattr(linear_kernel, "_ratio", lambda: next(ratios))
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    assert measured.__wrapped__() and measured.__wrapped__()
    (file,) = (tmp_path / "kernels").iterdir()
    assert file.read_text() == "1.3\n"
    monkeypatch.setattr(linear_kernel, "_processor", lambda: "another")
    assert not measured.__wrapped__(), "the ratio of another processor"
    for each in (tmp_path / "kernels").iterdir():
        each.write_text("damaged")
    assert not measured.__wrapped__() and "0.8\n" in {each.read_text() for each in file.parent.iterdir()}
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "file"))
    assert measured.__wrapped__(), "a cache that cannot be written must not end a run"


@pytest.mark.skipif(has_kernel(), reason="this build of PyTorch has oneDNN")
def test_it_is_not_taken_where_it_does_not_exist() -> None:
    assert not measured()


@needs_kernel
def test_two_threads_that_measure_at_once_leave_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    both, counts = threading.Barrier(2), list[int]()

    def meet(work: Callable[[], object], **_: object) -> float:
        with suppress(threading.BrokenBarrierError):  # They never do.
            both.wait(0.2)
        return 1.0

    monkeypatch.setattr(linear_kernel, "timeit", meet)
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1] if counts else 7)
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: measured.__wrapped__(), range(2)))
    assert counts == [1, 7, 1, 7]
