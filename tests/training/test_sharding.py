"""FSDP2 block by block: gradients are those of whole copies, and no more than a block or two is gathered at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.config.fields import to_plain
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.adapters import AdapterConfig
from degla.model.load import load_encoder
from degla.training.sharding import Sharding
from tests.launch import run_together
from tests.tiny import CONFIG, write_model
from tests.training.configs import needs_slices, tiny_config

Pairs = dict[str, Path]

_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "chunks": {"chunk_size": 2, "gradient_checkpointing": True},
    "frozen": {"freeze_text_blocks": 1, "freeze_image_blocks": 1, "trim": False},
    "open_clip 4": {},
    "sigmoid": {},
}
_LAYERS = 3
_PARTS = {"views": "pointacl_clip", "evidence": "excon_clip"}
"""Recipes whose teacher is asked for its attention, forward, and forward and backward."""


@pytest.fixture(scope="module")
def steps(tiny_pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The first batch with both strategies and each of the options, all in one launch."""
    folder = tmp_path_factory.mktemp("sharding")
    deeper = {tower: CONFIG[tower] | {"layers": _LAYERS} for tower in ("vision_cfg", "text_cfg")}
    model = write_model(folder / "model", **deeper)
    biased = write_model(folder / "siglip", init_logit_bias=-10, **deeper)
    configs = {
        f"{strategy} {name}": tiny_config(
            _PARTS.get(name, "degla"),
            model=biased if name == "sigmoid" else model,
            pairs=tiny_pairs,
            out=folder,
            batch_size=8,
            strategy=strategy,
            **options,
        )
        for strategy in ("ddp", "fsdp")
        for name, options in (_OPTIONS | {name: {} for name in _PARTS}).items()
        if strategy == "fsdp" or name in ("plain", "frozen", "sigmoid", *_PARTS)
    }
    forms = ["4" if "open_clip 4" in name else "installed" for name in configs]
    words = [json.dumps([form, to_plain(config)]) for form, config in zip(forms, configs.values(), strict=True)]
    words = [str(folder / "found.pt"), *words]
    run_together([str(Path(__file__).with_name("sharding_worker.py")), *words], count=2)
    return dict(zip(configs, torch.load(folder / "found.pt", weights_only=True), strict=True))


@needs_slices
@pytest.mark.parametrize("name", [*_OPTIONS, *_PARTS])
def test_gradients_are_those_of_whole_copies(name: str, steps: dict[str, dict[str, Any]]) -> None:
    slices, copies = steps[f"fsdp {name}"], steps.get(f"ddp {name}", steps["ddp plain"])
    torch.testing.assert_close(slices["loss"], copies["loss"], rtol=1e-6, atol=0)
    assert slices["gradients"].keys() == copies["gradients"].keys() and len(copies["gradients"]) > 50
    for key, expected in copies["gradients"].items():
        assert expected.norm() > 0, key
        gap = (slices["gradients"][key] - expected).norm() / expected.norm()
        assert gap < 1e-4, (key, gap.item())
        torch.testing.assert_close(slices["clipped"][key], slices["gradients"][key] / 4, rtol=1e-4, atol=0)


@needs_slices
@pytest.mark.parametrize("name", _OPTIONS)
def test_a_block_is_whole_only_for_its_own_work(name: str, steps: dict[str, dict[str, Any]]) -> None:
    for model in ("student", "teacher"):
        copies, slices = steps["ddp plain"][model], steps[f"fsdp {name}"][model]
        assert set(copies["blocks"]) == {2 * _LAYERS} and set(copies["tables"]) == {1}, "nothing was counted"
        assert len(slices["blocks"]) >= 2 * _LAYERS and min(slices["blocks"]) >= 1
        # The teacher runs only forward; in the backward pass the next block is prefetched while one runs.
        assert max(slices["blocks"]) <= (1 if model == "teacher" else 2), slices["blocks"]
        assert max(slices["tables"]) == 0


@needs_slices
@pytest.mark.parametrize("refused", ["--adapter.rank", "--train.compile", "fp16"])
def test_what_does_not_go_together_is_refused(
    refused: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path, strategy="fsdp")
    encoder = load_encoder(str(tiny_model))
    if refused == "--adapter.rank":
        config = replace(config, adapter=AdapterConfig(rank=2))
    elif refused == "--train.compile":
        config = replace(config, train=replace(config.train, compile=True))
    else:
        encoder.precision = "fp16"
    with pytest.raises(InputError, match=f"--train.strategy fsdp cannot be combined with {refused}. "):
        Sharding(encoder, None, config=config, processes=Processes(count=2, rank=0))


def test_an_older_pytorch_is_refused(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, strategy="fsdp")
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    with pytest.raises(InputError, match=r"fsdp needs PyTorch 2\.\d+ or newer, but 2\.7\.1\+cpu is installed.*Use ddp"):
        Sharding(load_encoder(str(tiny_model)), None, config=config, processes=Processes(rank=0, count=2))
