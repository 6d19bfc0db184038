"""Recipes against a plain PyTorch loop: open_clip's own model, losses from the papers' equations, torch's AdamW.

The loop shares no code with `degla.training`, `degla.losses` or `degla.model`: it takes only a run's configuration and
its batches (pixels, token numbers, masks). The formulas are those of arXiv 2504.16801 (DeGLA), 2306.08832 (CE-CLIP),
2305.06152 (Structure-CLIP), 2410.05210 (FSC-CLIP) and of NegCLIP (ICLR 2023).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, pad

from degla.config.run import TrainConfig
from degla.data.batches import Batch, Collate, Pair
from degla.training.loop import train
from tests.training.configs import tiny_config

STEPS = 8  # One pass over 24 pairs in batches of 4 is 6.
EMBEDDINGS = ("image", "caption", "negative")


@dataclass
class Found:
    """What a loss reads: unit embeddings of the student, of the teacher ("teacher_..."), masks, and the scale."""

    at: dict[str, Tensor]
    scale: Tensor
    thresholds: dict[int, float]

    def __getitem__(self, name: str) -> Tensor:
        return self.at[name]

    def own(self, query: str) -> Tensor:
        """Cosines of each query with its own negatives [B, K]."""
        return torch.einsum("bd,bkd->bk", self[query], self["negative"])

    def true(self) -> Tensor:
        """Cosine of each image with its caption [B]."""
        return (self["image"] * self["caption"]).sum(1)


def contrastive(e: Found, c: dict[str, Any]) -> Tensor:
    image, caption = e["image"], e["caption"]
    pairs = torch.arange(len(image))
    texts = caption if c["negative_scope"] == "none" else torch.cat([caption, e["negative"][e["valid"]]])
    return (cross_entropy(e.scale * image @ texts.T, pairs) + cross_entropy(e.scale * caption @ image.T, pairs)) / 2


def intra_modal(e: Found, c: dict[str, Any]) -> Tensor:
    true, false = e.scale * e.true(), e.scale * e["caption"] @ e["negative"][e["valid"]].T
    return (torch.cat([true[:, None], false], 1).logsumexp(1) - true).mean()


def cross_modal_rank(e: Found, c: dict[str, Any]) -> Tensor:
    true, false = e.scale * e.true(), e.scale * e.own("image")
    rules = {int(rule) for rule in e["rule"][e["valid"]]}
    terms = []
    for row, place in e["valid"].nonzero().tolist():
        threshold = e.thresholds.get(int(e["rule"][row, place]), 0.0)
        terms.append((threshold + false[row, place] - true[row]).clamp(min=0))
    for rule in rules:
        lead = true.mean() - false[e["valid"] & (e["rule"] == rule)].mean()
        e.thresholds[rule] = min(max(float(lead.detach()), 0.0), c["upper"])
    return torch.stack(terms).mean()


def own_hinge(e: Found, c: dict[str, Any]) -> Tensor:
    return (c["margin"] + e.own("image") - e.true()[:, None]).clamp(min=0)[e["valid"]].mean()


def hardest_hinge(e: Found, c: dict[str, Any]) -> Tensor:
    cosines = e["image"] @ e["caption"].T
    others = cosines.masked_fill(torch.eye(len(cosines), dtype=torch.bool), -math.inf)
    of_image, of_caption = others.amax(1), others.amax(0)
    if c["mean_steps"] > STEPS:  # In the first steps the mean over images stands for the hardest of them.
        of_caption = cosines.mean(0)
    margins = [(c["margin"] + hardest - cosines.diag()).clamp(min=0) for hardest in (of_image, of_caption)]
    return sum(margins, torch.zeros(())).mean()


def _focal(logits: Tensor, valid: Tensor, c: dict[str, Any]) -> Tensor:
    """Smoothed, focal cross entropy of the first of 1 + K logits, over rows with a negative."""
    rows = []
    for row, there in zip(logits, valid, strict=True):
        kept = row[torch.cat([torch.ones(1, dtype=torch.bool), there])]
        if len(kept) > 1:
            target = torch.full_like(kept, c["smoothing"] / len(kept))
            target[0] += 1 - c["smoothing"]
            log = kept.log_softmax(0)
            rows.append(-(target * (1 - log.exp()) ** c["focus"] * log).sum())
    return torch.stack(rows).mean()


def image_grounded(e: Found, c: dict[str, Any]) -> Tensor:
    return _focal(e.scale * torch.cat([e.true()[:, None], e.own("image")], 1), e["valid"], c)


def dense_grounded(e: Found, c: dict[str, Any]) -> Tensor:
    def similarity(patches: Tensor, tokens: Tensor) -> Tensor:
        weight = (tokens @ patches.T).detach()
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        weight = (weight - low) / (high - low)
        seen = normalize(weight / weight.sum(1, keepdim=True) @ patches, dim=1)
        return (e.scale * (seen * normalize(tokens, dim=1)).sum(1)).logsumexp(0)

    rows = []
    for row, patches in enumerate(e["patch"]):
        texts = [e["caption_token"][row], *e["negative_token"][row]]
        masks = [e["caption_token_valid"][row], *e["negative_token_valid"][row]]
        there = [True, *e["valid"][row].tolist()]
        found = [
            similarity(patches, text[mask]) if given else torch.zeros(())
            for text, mask, given in zip(texts, masks, there, strict=True)
        ]
        rows.append(torch.stack(found))
    return _focal(torch.stack(rows), e["valid"], c)


def text_grounded(e: Found, c: dict[str, Any]) -> Tensor:
    negative, valid = e["negative"], e["valid"]
    if c["pairing"] == "published":  # D-2: place m of row i is row i + m B of the batch's B K negatives.
        rows, places = valid.shape
        of = torch.arange(rows)[:, None] + rows * torch.arange(places)
        negative, valid = negative.flatten(0, 1)[of], valid.flatten()[of]
    true = c["fixed_scale"] * (e["caption"] * e["teacher_caption"]).sum(1, keepdim=True)
    false = c["fixed_scale"] * torch.einsum("bd,bkd->bk", e["caption"], negative)
    logits = torch.cat([true, false.masked_fill(~valid, -math.inf)], 1)
    return -logits.log_softmax(1)[valid.any(1), 0].mean()


def self_distillation(e: Found, c: dict[str, Any]) -> Tensor:
    image, caption, negative = ((e[name] - e[f"teacher_{name}"]).square().sum(-1) for name in EMBEDDINGS)
    return c["image"] * image.mean() + c["text"] * torch.cat([caption, negative[e["valid"]]]).mean()


LOSSES: dict[str, Callable[[Found, dict[str, Any]], Tensor]] = {
    each.__name__: each
    for each in (
        contrastive, intra_modal, cross_modal_rank, own_hinge, hardest_hinge, image_grounded, dense_grounded,
        text_grounded, self_distillation,
    )
}  # fmt: skip


def open_clip_model(folder: Path) -> Any:
    import open_clip

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**{name: value for name, value in config.items() if name != "custom_text"})
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model.eval()


def embedded(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Unit embeddings of a batch, patches in the space of captions, and the states of all tokens."""
    tower = model.visual
    hidden = tower.conv1(batch["image"]).flatten(2).mT
    hidden = torch.cat([tower.class_embedding.expand(len(hidden), 1, -1), hidden], 1) + tower.positional_embedding
    hidden = tower.ln_post(tower.transformer(tower.ln_pre(hidden))) @ tower.proj
    found = {"image": normalize(hidden[:, 0], dim=-1), "patch": hidden[:, 1:]}
    for name in ("caption", "negative"):
        *places, length = batch[name].shape
        tokens = batch[name].reshape(-1, length)
        if not len(tokens):
            continue
        tokens = pad(tokens, (0, len(model.positional_embedding) - length))
        states = model.token_embedding(tokens) + model.positional_embedding
        states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask)) @ model.text_projection
        ends = states[torch.arange(len(states)), tokens.argmax(-1)]
        found[name] = normalize(ends, dim=-1).reshape(*places, -1)
        found[f"{name}_token"] = states[:, :length].reshape(*places, length, -1)
        place = torch.arange(length)
        found[f"{name}_token_valid"] = (place > 0) & (place <= batch[name].argmax(-1, keepdim=True))
    return found


def plain_loop(config: TrainConfig, batches: list[Batch]) -> tuple[list[dict[str, float]], Any, Any]:
    """Losses of each step by name, the model and its teacher."""
    model = open_clip_model(Path(config.model))
    teacher = deepcopy(model).requires_grad_(False)
    given = config.optim
    groups = [
        {"params": [each for each in model.parameters() if each.ndim >= 2], "weight_decay": given.weight_decay},
        {"params": [each for each in model.parameters() if each.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(given.beta1, given.beta2), eps=given.eps)
    plain = json.loads((config.out or Path()).joinpath("config.json").read_text())["objective"]
    thresholds: dict[int, float] = {}
    found = []
    for step, batch in enumerate(batches[:STEPS]):
        rate = given.lr * min(1.0, (step + 1) / max(given.warmup_steps, 1))
        if given.schedule == "cosine" and step >= given.warmup_steps:
            rate *= (1 + math.cos(math.pi * (step - given.warmup_steps) / (STEPS - given.warmup_steps))) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        tensors = {name: getattr(batch, name) for name in (*EMBEDDINGS, "valid", "rule")}
        with torch.no_grad():
            of_teacher = {f"teacher_{name}": value for name, value in embedded(teacher, tensors).items()}
        read = Found(tensors | embedded(model, tensors) | of_teacher, model.logit_scale.exp(), thresholds)
        losses = {name: LOSSES[name](read, own) for name, own in plain.items() if own["weight"]}
        loss = sum((plain[name]["weight"] * value for name, value in losses.items()), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(given.max_scale))
            for own, new in zip(teacher.parameters(), model.parameters(), strict=True):
                own.mul_(config.teacher.decay).add_(new, alpha=1 - config.teacher.decay)
        found.append({name: value.item() for name, value in ({"loss": loss} | losses).items()})
    return found, model, teacher


@pytest.mark.parametrize("recipe", ["negclip", "ce_clip", "structure_clip", "fsc_clip", "degla", "degla_published"])
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
    config = replace(config, optim=replace(config.optim, eps=1e-5))
    if recipe.startswith("degla"):
        config = replace(config, teacher=replace(config.teacher, decay=0.9))
    folder = train(config).folder
    expected, model, teacher = plain_loop(config, batches)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == STEPS and any(not batch.valid.all() for batch in batches)
    for line, losses in zip(lines, expected, strict=True):
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=2e-5, abs=5e-6)
    begin = load_file(many_patches / "open_clip_model.safetensors")
    files = {"open_clip_model.safetensors": model, "teacher.safetensors": teacher}
    for file in files if recipe.startswith("degla") else ["open_clip_model.safetensors"]:
        weights, own = load_file(folder / file), files[file].state_dict()
        for name in (each for each in weights if not each.endswith("attn_mask")):
            moved, apart = ((own[name] - other[name]) for other in (begin, weights))
            if name.endswith("in_proj_bias"):  # A bias of all keys changes no attention: its gradient is rounding.
                moved, apart = (torch.cat([each.chunk(3)[0], each.chunk(3)[2]]) for each in (moved, apart))
            rounding = 3e-7 * own[name].norm()
            assert apart.norm() <= 1e-4 * moved.norm() + rounding, f"{file}: {name}: {apart.norm()} of {moved.norm()}"
