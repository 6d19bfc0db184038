"""A model that draws random numbers while it trains (here: dropped patches) goes on with the same draws, and draws none
while it is evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from degla.evaluation.embed import Embedder
from degla.model.load import load_encoder
from degla.records import ItemImage
from tests.tiny import CONFIG, write_model
from tests.training.configs import tiny_config, whole_and_resumed

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


def test_a_resumed_run_drops_the_same_patches(model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = tiny_config("negclip", model=model, pairs=tiny_pairs, out=tmp_path / "whole")
    expected, found = (load_file(run.folder / "open_clip_model.safetensors") for run in whole_and_resumed(whole))
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
