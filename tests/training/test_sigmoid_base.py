"""A softmax model becomes a sigmoid model: the best scale and bias, the same towers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from degla.errors import InputError
from degla.losses.sigmoid_contrastive import SigmoidContrastive
from degla.model.checkpoint import save_encoder
from degla.model.load import load_encoder
from degla.training.loop import train
from tests.training.configs import tiny_config
from tools.sigmoid_base import fit


def siglip(images: torch.Tensor, captions: torch.Tensor, scale: float, bias: float) -> float:
    """The mean over whole batches of the loss computed in recipes."""
    whole = len(images) // 8 * 8
    losses = [
        SigmoidContrastive()(image=image, caption=caption, scale=scale, bias=bias).item()
        for image, caption in zip(images[:whole].double().split(8), captions[:whole].double().split(8), strict=True)
    ]
    return sum(losses) / len(losses)


def test_no_other_scale_and_bias_have_a_smaller_loss() -> None:
    torch.manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(26, 8), dim=1)
    captions = torch.nn.functional.normalize(images + 0.5 * torch.randn(26, 8), dim=1)
    scale, bias, least = fit(images, captions, batch_size=8)
    assert least == pytest.approx(siglip(images, captions, scale, bias), rel=1e-6)
    for away in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert siglip(images, captions, scale + away[0], bias + away[1]) > least


def test_it_is_trained_by_the_sigmoid_loss(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    encoder.add_bias(-12.5, scale=20.0)
    save_encoder(encoder, tmp_path / "biased")
    start = load_encoder(str(tmp_path / "biased"))
    assert start.clip.logit_scale.item() == pytest.approx(math.log(20)) and start.clip.logit_bias.item() == -12.5
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(start.encode_images(images), load_encoder(str(tiny_model)).encode_images(images))
    config = tiny_config("c2lip", model=tmp_path / "biased", pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    trained = load_encoder(str(train(config).folder))
    assert trained.clip.logit_bias.item() != -12.5
    with pytest.raises(InputError, match="has a logit_bias"):
        start.add_bias(1.0, scale=1.0)
