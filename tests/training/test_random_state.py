"""A model that draws random numbers while it trains (here: dropped patches) goes on with the same draws, and draws none
while it is evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from degla.evaluation.embed import Embedder
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.records import ItemImage
from degla.training.loop import train
from tests.tiny import CONFIG, write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", vision_cfg=CONFIG["vision_cfg"] | {"patch_size": 8, "patch_dropout": 0.5})


def test_an_evaluation_in_between_drops_none(model: Path, tiny_pairs: Pairs) -> None:
    encoder = load_encoder(str(model))
    images = [ItemImage(path=path.name) for path in sorted(tiny_pairs["images"].iterdir())[:3]]
    expected = Embedder(encoder, root=tiny_pairs["images"]).embed(images, []).images
    encoder.train()
    assert np.array_equal(Embedder(encoder, root=tiny_pairs["images"]).embed(images, []).images, expected)
    assert encoder.training and encoder.clip.visual.patch_dropout.training


def test_parts_of_a_batch_drop_the_same_patches_when_they_are_embedded_again(
    model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise gradients of one draw would flow through the patches of the other."""
    embeddings: list[torch.Tensor] = []
    embed = Encoder.embed

    def watched(self: Encoder, *arguments: Any, **options: Any) -> Any:
        outputs = embed(self, *arguments, **options)
        embeddings.append(outputs.image.detach())
        return outputs

    monkeypatch.setattr(Encoder, "embed", watched)
    first_step(tiny_config("clip", model=model, pairs=tiny_pairs, out=tmp_path, chunk_size=2))
    torch.testing.assert_close(torch.cat(embeddings[2:]), torch.cat(embeddings[:2]))


def test_a_resumed_run_drops_the_same_patches(model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = tiny_config("negclip", model=model, pairs=tiny_pairs, out=tmp_path / "whole")
    expected, weights = (load_file(run.folder / "open_clip_model.safetensors") for run in whole_and_resumed(whole))
    assert [name for name in expected if not torch.equal(expected[name], weights[name])] == []
    # So does a run with the same seed.
    torch.rand(1)
    again = load_file(train(replace(whole, out=tmp_path / "again")).folder / "open_clip_model.safetensors")
    assert [name for name in expected if not torch.equal(expected[name], again[name])] == []
