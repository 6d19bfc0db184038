"""A model that draws random numbers while it trains (here: dropped patches) goes on with the same draws."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.tiny import CONFIG, write_model
from tests.training.configs import tiny_config, whole_and_resumed

Pairs = dict[str, Path]


def test_a_resumed_run_drops_the_same_patches(tiny_pairs: Pairs, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", vision_cfg=CONFIG["vision_cfg"] | {"patch_size": 8, "patch_dropout": 0.5})
    whole = tiny_config("negclip", model=model, pairs=tiny_pairs, out=tmp_path / "whole")
    expected, found = (load_file(run.folder / "open_clip_model.safetensors") for run in whole_and_resumed(whole))
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
