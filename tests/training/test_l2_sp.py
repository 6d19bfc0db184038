"""L2-SP against automatic differentiation, and in runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from degla.config.sections import L2SPConfig
from degla.errors import InputError
from degla.training.loop import train
from degla.training.optim import L2SP
from tests.training.configs import tiny_config, whole_and_resumed

Pairs = dict[str, Path]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    network[2].bias.requires_grad_(False)
    return network


@pytest.mark.parametrize("importance", ["adaptive", "equal"])
def test_value_and_gradient_against_autograd(importance: Literal["adaptive", "equal"]) -> None:
    network = _network()
    penalty_of = L2SP(network.parameters(), L2SPConfig(weight=0.7, importance=importance))
    start = [value.detach().clone() for value in network.parameters()]
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad:
                value += 0.3 * torch.randn_like(value)
    inputs = torch.randn(6, 5, dtype=torch.float64)
    replayed, own = network(inputs).square().mean(), network(inputs).sin().sum()

    trained = [value for value in network.parameters() if value.requires_grad]
    first = torch.autograd.grad(replayed, trained, retain_graph=True)
    penalty = torch.zeros((), dtype=torch.float64)
    for value, begun, gradient in zip(trained, start, first, strict=False):
        counts = gradient**2 / (gradient**2).mean() if importance == "adaptive" else torch.ones_like(gradient)
        penalty = penalty + (counts.detach() * (value - begun) ** 2).sum()
    expected = torch.autograd.grad(replayed + own + 0.7 * penalty, trained, retain_graph=True)

    replayed.backward(retain_graph=True)
    result = penalty_of.pull()
    own.backward()
    assert result.item() == pytest.approx(penalty.item()) and result > 0.1
    for value, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)
    assert network[2].bias.grad is None


def test_importance_does_not_depend_on_the_size_of_the_loss() -> None:
    gradients = []
    for factor in (1.0, 50.0):
        network = _network()
        penalty_of = L2SP(network.parameters(), L2SPConfig(weight=1.0))
        with torch.no_grad():
            network[0].weight += 0.1
        (factor * network(torch.ones(2, 5, dtype=torch.float64)).square().sum()).backward()
        before = network[0].weight.grad.clone()
        penalty_of.pull()
        gradients.append(network[0].weight.grad - before)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0.01


def test_a_tensor_without_gradient_is_not_held() -> None:
    network = _network()
    penalty_of = L2SP(network.parameters(), L2SPConfig(weight=1.0))
    with torch.no_grad():
        network[0].weight += 1.0
        network[2].weight += 1.0
    network[0].weight.grad = torch.zeros_like(network[0].weight)
    assert penalty_of.pull().item() == 0
    for value in (network[0].weight, network[2].weight):
        assert torch.equal(value.grad, torch.zeros_like(value))


def test_a_heavy_penalty_keeps_the_weights(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    begun = load_file(tiny_model / "open_clip_model.safetensors")
    moved = {}
    for weight in (0.0, 300.0):
        config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / str(weight), steps=12)
        config = replace(config, l2_sp=L2SPConfig(weight=weight, importance="equal"))
        ended = load_file(train(config).folder / "open_clip_model.safetensors")
        moved[weight] = sum(float((ended[name] - value).square().sum()) for name, value in begun.items())
    assert moved[300.0] < 0.5 * moved[0.0]


def test_a_resumed_run_is_held_by_the_same_start(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", steps=6)
    config = replace(config, l2_sp=L2SPConfig(weight=3.0, importance="equal"))
    files = [(run.folder.parent / "metrics.jsonl").read_text().splitlines() for run in whole_and_resumed(config, at=3)]
    rows = [[json.loads(line) for line in lines] for lines in files]
    values = [[row["l2_sp"] for row in steps] for steps in rows]
    assert all(row["loss"] == pytest.approx(row["contrastive"] + 3 * row["l2_sp"], rel=1e-6) for row in rows[0])
    assert values[0] == values[1] and values[0][0] == 0 and values[0][-1] > values[0][1] > 0


def test_what_does_not_go_together_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"--l2-sp\.importance equal"):
        train(replace(config, l2_sp=L2SPConfig(weight=1.0)))
    with pytest.raises(InputError, match=r"--l2-sp\.weight is -1"):
        train(replace(config, l2_sp=L2SPConfig(weight=-1.0)))
