"""Recipes against a plain PyTorch loop: open_clip's own model, the losses of `slow_terms`, torch's AdamW.

From the run the loop takes only its configuration and its batches (pixels, token numbers, masks). Losses are the slow
loops that are written from the formulas.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize, pad

from degla.config.run import TrainConfig
from degla.data.batches import Batch, Collate, Pair
from degla.inputs import INPUTS
from degla.losses.core import Embeddings, Target
from degla.training.loop import train
from tests.losses import slow_terms
from tests.training.configs import tiny_config

STEPS = 8
"""One pass over 24 pairs in batches of 4 is 6."""

RECIPES = ["negclip", "ce_clip", "structure_clip", "con_clip", "fsc_clip", "read_clip", "cs_clip", "degla"]


def open_clip_model(folder: Path) -> Any:
    import open_clip

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**{name: value for name, value in config.items() if name != "custom_text"})
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model.eval()


def embedded(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Unit embeddings of a batch's images and texts, patches in the space of captions, and the states of all tokens."""
    tower, found = model.visual, {}
    for name, value in batch.tensors().items():
        if INPUTS[name].kind == "image":
            hidden = tower.conv1(value).flatten(2).mT
            start = tower.class_embedding.expand(len(hidden), 1, -1)
            hidden = tower.ln_pre(torch.cat([start, hidden], 1) + tower.positional_embedding)
            hidden = tower.ln_post(tower.transformer(hidden)) @ tower.proj
            found |= {name: normalize(hidden[:, 0], dim=-1)} | ({"patch": hidden[:, 1:]} if name == "image" else {})
        elif INPUTS[name].kind == "text":
            *places, length = value.shape
            tokens = pad(value.reshape(-1, length), (0, len(model.positional_embedding) - length))
            states = model.token_embedding(tokens) + model.positional_embedding
            states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask)) @ model.text_projection
            ends = states[torch.arange(len(states)), tokens.argmax(-1)]
            found[name] = normalize(ends, dim=-1).reshape(*places, ends.shape[1])
            if name in ("caption", "negative"):
                place = torch.arange(length)
                found[f"{name}_token"] = states[:, :length].reshape(*places, length, states.shape[2])
                found[f"{name}_token_valid"] = (place > 0) & (place <= value.argmax(-1, keepdim=True))
        elif INPUTS[name].kind == "value":
            found.setdefault(name, value)
    return found


def rate_at(config: TrainConfig, step: int) -> float:
    warmup = config.optim.warmup_steps
    if step < warmup:
        return config.optim.lr * (step + 1) / warmup
    if config.optim.schedule == "constant":
        return config.optim.lr
    return config.optim.lr * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2


def plain_loop(config: TrainConfig, batches: list[Batch]) -> tuple[list[dict[str, float]], Any, Any]:
    """Losses of each step by name, the model and its teacher."""
    given, model = config.optim, open_clip_model(Path(config.model))
    teacher = deepcopy(model).requires_grad_(False)
    model.visual.requires_grad_(config.train.train_image_tower)
    trained = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": given.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(given.beta1, given.beta2), eps=given.eps)
    active = {name: loss for name, loss in config.objective.items() if loss.weight}
    thresholds = torch.zeros(10)
    found = []
    for step, batch in enumerate(batches[:STEPS]):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(config, step)
        with torch.no_grad():
            target = Target(**{name: embedded(teacher, batch)[name] for name in ("image", "caption", "negative")})
        student = Embeddings.of(embedded(model, batch) | {"scale": model.logit_scale.exp()})
        losses = {}
        for name, loss in active.items():
            memory = thresholds if name == "cross_modal_rank" else torch.tensor([float(step)])
            losses[name] = getattr(slow_terms, name)(loss, student, target, memory)[0]
        if "cross_modal_rank" in active:
            thresholds = torch.tensor(slow_terms.next_thresholds(active["cross_modal_rank"], student, thresholds))
        loss = sum((active[name].weight * value for name, value in losses.items()), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if given.clip_norm:
            torch.nn.utils.clip_grad_norm_(trained, given.clip_norm)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(given.max_scale))
            for own, new in zip(teacher.parameters(), model.parameters(), strict=True):
                own.mul_(config.teacher.decay).add_(new, alpha=1 - config.teacher.decay)
        found.append({name: value.item() for name, value in ({"loss": loss} | losses).items()})
    return found, model, teacher


@pytest.mark.parametrize("recipe", [*RECIPES, "degla_published"])
def test_a_recipe_is_a_plain_loop(
    recipe: str, many_patches: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []
    collated = Collate.__call__

    def kept(self: Collate, pairs: list[Pair]) -> Batch:
        batches.append(collated(self, pairs))
        return batches[-1]

    monkeypatch.setattr(Collate, "__call__", kept)
    rows = tiny_pairs["negatives"].read_text().splitlines(keepends=True)
    negatives = tmp_path / "negatives.jsonl"
    negatives.write_text("".join(row for row in rows if json.loads(row)["caption_id"] not in ("3-0", "7-1", "8-0")))
    pairs = tiny_pairs | {"negatives": negatives}
    config = tiny_config(recipe, model=many_patches, pairs=pairs, out=tmp_path / "run", steps=STEPS)
    config = replace(config, optim=replace(config.optim, eps=1e-5), teacher=replace(config.teacher, decay=0.9))
    folder = train(config).folder
    expected, model, teacher = plain_loop(config, batches)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    masks = [value for batch in batches for value in batch.tensors().values() if value.dtype == torch.bool]
    assert len(lines) == STEPS and not all(mask.all() for mask in masks), "nothing is left out, so no mask is tested"
    for line, losses in zip(lines, expected, strict=True):
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=2e-5, abs=5e-6)
    begin = load_file(many_patches / "open_clip_model.safetensors")
    files = {"open_clip_model.safetensors": model, "teacher.safetensors": teacher}
    assert (folder / "teacher.safetensors").exists() == recipe.startswith("degla")
    for file in files if recipe.startswith("degla") else ["open_clip_model.safetensors"]:
        weights, own = load_file(folder / file), files[file].state_dict()
        for name in (each for each in weights if not each.endswith("attn_mask")):
            moved, apart = ((own[name] - other[name]) for other in (begin, weights))
            if name.endswith("in_proj_bias"):  # A bias of all keys changes no attention: its gradient is rounding.
                moved, apart = (torch.cat([each.chunk(3)[0], each.chunk(3)[2]]) for each in (moved, apart))
            rounding = 3e-7 * own[name].norm()
            assert apart.norm() <= 1e-4 * moved.norm() + rounding, f"{file}: {name}: {apart.norm()} of {moved.norm()}"
