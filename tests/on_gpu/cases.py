"""Training and evaluation on a GPU: as on the processor, and without waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from degla.config.run import TrainConfig
from degla.evaluation.embed import Embedder
from degla.evaluation.models import computing_in
from degla.losses.core import Processes
from degla.model.adapters import AdapterConfig
from degla.model.load import load_encoder
from degla.records import ItemImage
from degla.shelf import RECIPES
from degla.training.build import build_trainer, open_accelerator
from degla.training.loop import TrainResult, train
from degla.training.pairs import open_pairs
from degla.training.step import Trainer
from tests.emulated_gpu.device import OnGpu, waits
from tests.tiny import write_model
from tests.training.configs import tiny_config, whole_and_resumed

Pairs = dict[str, Path]
WAITS = {"macco": 1}
"""Waits of a step: how many words of a row are masked says how many places its predictor takes."""
WAITS_WITH_OTHERS = {"c2lip": 1}
"""More waits of a step of several processes: the largest number of phrases of a row says how far all pad theirs."""


@pytest.fixture(autouse=True)
def on_gpu() -> None:
    assert isinstance(torch.zeros(1, device="cuda"), OnGpu)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Counter[tuple[str, str]]]:
    """The waits of each step that is taken."""
    counters: list[Counter[tuple[str, str]]] = []
    take = Trainer.step

    def step(self: Trainer, *args: Any, **more: Any) -> Any:
        before = waits.copy()
        result = take(self, *args, **more)
        counters.append(waits - before)
        return result

    monkeypatch.setattr(Trainer, "step", step)
    return counters


def _on_processor(work: Callable[[], Any]) -> Any:
    AcceleratorState._reset_state(reset_partial_state=True)  # It keeps the device of the first run.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        result = work()
    AcceleratorState._reset_state(reset_partial_state=True)
    return result


def _config(recipe: str, *, model: Path, pairs: Pairs, out: Path, **loop: Any) -> TrainConfig:
    config = tiny_config(recipe, model=model, pairs=pairs, out=out, **loop)
    if "bias" in config.pairs.reads:
        config = replace(config, model=str(write_model(out.with_name("siglip"), init_logit_bias=-10)))
    # Adam's first steps go by the sign of gradients that are rounding alone, unless epsilon is far above them.
    optim = replace(config.optim, eps=1e-3)
    return replace(config, optim=optim, tracking=replace(config.tracking, every_steps=100))


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_every_recipe_trains_as_on_the_processor_and_its_steps_wait_for_nothing(
    recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, steps: list[Counter[tuple[str, str]]]
) -> None:
    config = _config(recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path / "gpu", steps=3)
    result = train(config)
    for number, waited in enumerate(steps[1:], 2):
        assert sum(waited.values()) == WAITS.get(recipe, 0), f"step {number}: {waited}"
    wanted: TrainResult = _on_processor(lambda: train(replace(config, out=tmp_path / "processor")))
    assert result.values == pytest.approx(wanted.values, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_size": 2}, {"gradient_checkpointing": True}, {"average": 0.5}, {"embed_images_once": True},
        {"trim": False}, {"freeze_text_blocks": 1}, {"rank": 2},
    ],
    ids=str,
)  # fmt: skip
def test_ways_to_train_are_those_of_the_processor_and_wait_for_nothing(
    options: dict[str, Any], tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, steps: list[Counter[tuple[str, str]]]
) -> None:
    rank = options.get("rank", 0)
    loop = {name: value for name, value in options.items() if name != "rank"}
    loop |= {"train_image_tower": False} if "embed_images_once" in options else {}
    config = _config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "gpu", steps=3, **loop)
    config = replace(config, adapter=AdapterConfig(rank=rank), optim=replace(config.optim, clip_norm=1.0))
    result = train(config)
    assert not sum(steps[1:], Counter())
    wanted: TrainResult = _on_processor(lambda: train(replace(config, out=tmp_path / "processor")))
    assert result.values == pytest.approx(wanted.values, rel=1e-3, abs=1e-5)


class _Alike:
    """NCCL between two processes with the same rows: it takes only tensors of the GPU."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(dist, "get_backend", lambda: "nccl")
        patch.setattr(dist, "get_world_size", lambda: 2)
        patch.setattr(dist, "get_rank", lambda: 0)
        for name in ("all_gather", "all_reduce", "broadcast", "reduce"):
            patch.setattr(dist, name, getattr(self, name))

    def all_gather(self, parts: list[torch.Tensor], tensor: torch.Tensor) -> None:
        for part in parts:
            self.broadcast(part.copy_(self.broadcast(tensor)))

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.broadcast(tensor).mul_(2)

    def reduce(self, tensor: torch.Tensor, *, dst: int) -> None:
        self.all_reduce(tensor)

    def broadcast(self, tensor: torch.Tensor, *, src: int = 0) -> torch.Tensor:
        assert isinstance(tensor, OnGpu), "No backend type associated with device type cpu"
        return tensor


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_processes_exchange_only_tensors_of_the_gpu_and_wait_for_nothing(
    recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path,
    steps: list[Counter[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = _config(recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    accelerator, both = open_accelerator(config), Processes(count=2)
    encoder = load_encoder(config.model, device=accelerator.device)
    pairs = open_pairs(config, encoder=encoder, processes=Processes())
    trainer = build_trainer(config, accelerator, encoder, both, rules=len(pairs.dataset.rules), steps=10)
    _Alike(monkeypatch)
    for number, batch in enumerate(islice(pairs.batches(0, start=0, device=accelerator.device), 2)):
        loss = trainer.step(batch, step=number)["loss"]
    assert np.isfinite(float(loss))
    assert sum(steps[1].values()) == WAITS.get(recipe, 0) + WAITS_WITH_OTHERS.get(recipe, 0), steps[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_float32_weights_and_waits_for_nothing(
    precision: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, steps: list[Counter[tuple[str, str]]]
) -> None:
    config = _config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "half", steps=2, precision=precision)
    result = train(config)
    assert not sum(steps[1:], Counter())
    wanted = train(replace(config, out=tmp_path / "whole", train=replace(config.train, precision="fp32")))
    assert result.values["loss"] != wanted.values["loss"]
    assert result.values["loss"] == pytest.approx(wanted.values["loss"], rel=0.05)
    assert {value.dtype for value in load_file(result.folder / "open_clip_model.safetensors").values()} == {
        torch.float32
    }


def test_a_resumed_run_is_the_whole_one(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", steps=4)
    whole, resumed = whole_and_resumed(config)
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = load_file(whole.folder / name), load_file(resumed.folder / name)
        assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_embeddings_are_those_of_the_processor(
    precision: Literal["fp32", "bf16", "fp16"], tiny_model: Path, tiny_pairs: Pairs
) -> None:
    names = sorted(path.name for path in tiny_pairs["images"].iterdir())
    texts = [f"a dog and {number} balls" for number in range(20)]
    rows = {}
    for device in ("cpu", "cuda"):
        encoder = load_encoder(str(tiny_model), device=device)
        waits.clear()
        with computing_in(encoder, precision):
            embedder = Embedder(encoder, root=tiny_pairs["images"], images_per_batch=4, texts_per_batch=4)
            rows[device] = embedder.embed([ItemImage(path=name) for name in names], texts)
    assert not waits
    for name in ("images", "texts"):
        values, wanted = getattr(rows["cuda"], name), getattr(rows["cpu"], name)
        assert np.abs(values - wanted).max() < (1e-5 if precision == "fp32" else 2e-2)
