"""Recipes against a plain PyTorch loop: open_clip's own model, the losses of `slow_terms`, torch's AdamW.

From the run the loop takes only its configuration and its batches (pixels, token numbers, masks), and the predictor as
it is before training. Losses are the slow loops that are written from the formulas.
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
from torch.nn.functional import gelu, layer_norm, linear, normalize, pad

from degla.config.run import TrainConfig
from degla.data.batches import Batch, Collate, Pair
from degla.inputs import INPUTS
from degla.losses import ConceptAttention
from degla.losses.core import Embeddings, Target
from degla.losses.core.forms import fit_to_model
from degla.model.trained_along import WordPredictor
from degla.training.loop import train
from tests.losses import slow_terms
from tests.tiny import CONFIG, write_model
from tests.training.configs import tiny_config

STEPS = 8
"""One pass over 24 pairs in batches of 4 is 6."""

RECIPES = ["negclip", "ce_clip", "structure_clip", "con_clip", "fsc_clip", "read_clip", "cs_clip", "degla"]
RECIPES += ["degla_published", "context_clip", "ugcl_clip", "negclip_hard_images", "cs_clip_sg", "gift"]
IN_CHUNKS = ["clic", "macco", "excon_clip", "pointacl_clip", "c2lip", "degla with a bias"]


def open_clip_model(folder: Path) -> Any:
    import open_clip

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**{name: value for name, value in config.items() if name != "custom_text"})
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model.eval()


def in_heads(states: Tensor, heads: int) -> Tensor:
    return states.unflatten(2, (heads, -1)).transpose(1, 2)


def image_states(model: Any, pixels: Tensor, patches: Tensor | None = None, see: Any = None) -> Tensor:
    """Class token and patches in the space of captions; `see` gets the last attention and may replace it."""
    tower = model.visual
    hidden = tower.conv1(pixels).flatten(2).mT
    start = tower.class_embedding.expand(len(hidden), 1, -1)
    hidden = torch.cat([start, hidden], 1) + tower.positional_embedding
    if patches is not None:
        hidden = torch.stack([rows[[0, *(own + 1).tolist()]] for rows, own in zip(hidden, patches, strict=True)])
    *blocks, last = tower.transformer.resblocks
    hidden = torch.nn.Sequential(tower.ln_pre, *blocks)(hidden)
    parts = linear(last.ln_1(hidden), last.attn.in_proj_weight, last.attn.in_proj_bias).chunk(3, 2)
    query, key, value = (in_heads(each, last.attn.num_heads) for each in parts)
    share = (query @ key.mT / query.shape[3] ** 0.5).softmax(-1)
    share = share if see is None else see(share, value)
    hidden = hidden + last.attn.out_proj((share @ value).transpose(1, 2).flatten(2))
    return tower.ln_post(hidden + last.mlp(last.ln_2(hidden))) @ tower.proj


def embedded(
    model: Any, batch: Batch, *, patches: Tensor | None = None, mask_token: Tensor | None = None
) -> dict[str, Tensor]:
    """Unit embeddings of a batch's images and texts, patches in the space of captions, and the states of all tokens."""
    rows = {}
    for name, value in batch.tensors().items():
        if INPUTS[name].kind == "image":
            hidden = image_states(model, value, patches if name == "image" else None)
            rows[name] = normalize(hidden[:, 0], dim=-1)
            rows |= {"patch": hidden[:, 1:], "raw_image": hidden[:, 0]} if name == "image" else {}
        elif INPUTS[name].kind == "text":
            *places, length = value.shape
            tokens = pad(value.reshape(-1, length), (0, len(model.positional_embedding) - length))
            states = model.token_embedding(tokens.clamp(min=0))
            if mask_token is not None:
                states = torch.where(tokens[..., None] < 0, mask_token, states)
            states = model.transformer(states + model.positional_embedding, attn_mask=model.attn_mask)
            states = model.ln_final(states) @ model.text_projection
            ends = states[torch.arange(len(states)), tokens.argmax(-1)]
            rows[name] = normalize(ends, dim=-1).reshape(*places, ends.shape[1])
            if name == "masked":
                rows["queried"] = (states[:, :length] + ends[:, None]) / 2
            if name in ("caption", "negative"):
                place = torch.arange(length)
                rows[f"{name}_token"] = states[:, :length].reshape(*places, length, states.shape[2])
                rows[f"{name}_token_valid"] = (place > 0) & (place <= value.argmax(-1, keepdim=True))
        elif INPUTS[name].kind == "value":
            rows.setdefault(name, value)
    return rows


def kept_patches(config: TrainConfig, teacher: Any, images: Tensor) -> Tensor:
    """Without those of most significance, attention times length of values; the temperature is nearly 0."""
    scores: list[Tensor] = []

    def see(share: Tensor, value: Tensor) -> Tensor:
        scores.append(share[:, :, 0, 1:].sum(1) * value[:, :, 1:].transpose(1, 2).flatten(2).norm(dim=2))
        return share

    image_states(teacher, images, see=see)
    return scores[0].argsort(descending=True)[:, int(config.views.left_out * scores[0].shape[1]) :].sort().values


def with_evidence(config: TrainConfig, teacher: Any, batch: Batch, caption: Tensor) -> Batch:
    """With the part of each image with evidence for its caption, and the teacher's view of it."""
    shares: list[Tensor] = []

    def see(share: Tensor, _: Tensor) -> Tensor:
        shares.append(share.detach().requires_grad_())
        return shares[0]

    with torch.enable_grad():
        likeness = (normalize(image_states(teacher, batch.image, see=see)[:, 0], dim=-1) * caption).sum()
        (gradient,) = torch.autograd.grad(likeness, shares)
    patches = (shares[0].detach() * gradient).clamp(min=0)[:, :, 0, 1:].sum(1)
    least, most = patches.amin(1, keepdim=True), patches.amax(1, keepdim=True)
    mask = ((patches - least) / (most - least) > config.evidence.threshold).unflatten(1, (4, 4))
    part = batch.image * mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    there, view = mask.any(2).any(1) & ~mask.all(2).all(1), normalize(image_states(teacher, part)[:, 0], dim=-1)
    return replace(batch, extra={**batch.extra, "evidence_image": part, "evidence_valid": there, "evidence_seen": view})


def predicted(
    config: TrainConfig, weights: dict[str, Tensor], queries: Tensor, keys: Tensor, batch: Batch
) -> dict[str, Tensor]:
    """Of every token, how unlikely it is for the predictor; those that are masked count."""

    def layer(states: Tensor, name: str) -> Tensor:
        return linear(states, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(states: Tensor, name: str) -> Tensor:
        return layer_norm(states, states.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    for block in (f"blocks.{number}" for number in range(config.predictor.layers)):
        key, value = layer(norm(keys, f"{block}.ln_key"), f"{block}.key_value").chunk(2, -1)
        query = layer(norm(queries, f"{block}.ln_query"), f"{block}.query")
        query, key, value = (in_heads(each, config.predictor.heads) for each in (query, key, value))
        context = (query @ key.mT / query.shape[3] ** 0.5).softmax(-1) @ value
        queries = queries + layer(context.transpose(1, 2).flatten(2), f"{block}.out")
        queries = queries + layer(gelu(layer(norm(queries, f"{block}.ln_mlp"), f"{block}.mlp.0")), f"{block}.mlp.2")
    shares = layer(norm(queries, "head.0"), "head.1").log_softmax(-1)
    losses = -shares.gather(2, batch.caption[..., None])[..., 0]
    return {"prediction": losses, "prediction_valid": batch.extra["masked"] < 0}


def rate_at(config: TrainConfig, step: int) -> float:
    warmup = config.optim.warmup_steps
    if step < warmup:
        return config.optim.lr * (step + 1) / warmup
    if config.optim.schedule == "constant":
        return config.optim.lr
    return config.optim.lr * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2


def plain_loop(
    config: TrainConfig, streams: list[list[Batch]], predictor: dict[str, Tensor]
) -> tuple[list[dict[str, float]], Any, Any]:
    """Losses of each step by name, the model and its teacher."""
    settings, model = config.optim, open_clip_model(Path(config.model))
    teacher, biased = deepcopy(model).requires_grad_(False), model.logit_bias is not None
    model.visual.requires_grad_(config.train.train_image_tower)
    model.logit_scale.requires_grad_(config.train.train_scale)
    trained = [each for each in model.parameters() if each.requires_grad]
    start = [each.detach().clone() for each in trained]
    along = {name: value.clone().requires_grad_() for name, value in predictor.items()}
    groups = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
        {"params": list(along.values()), "weight_decay": config.predictor.weight_decay},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=settings.eps)
    thresholds = torch.zeros(10)
    history = []
    coming = [iter(batches) for batches in streams]
    for step in range(STEPS):
        for group, most in zip(optimiser.param_groups, (settings.lr, settings.lr, config.predictor.lr), strict=True):
            group["lr"] = most / settings.lr * rate_at(config, step)
        loss, losses = torch.zeros(()), {}
        # A replayed stream is first: its gradient weights the pull to the start.
        for turn in reversed(range(len(streams))):
            if config.replay.alternate and step % 2 != turn:
                continue
            batch, prefix = next(coming[turn]), "replay." if turn else ""
            active = fit_to_model(config.streams[turn].objective, biased=biased, model="")
            active = {name: each for name, each in active.items() if each.weight}
            if not turn and config.data.neighbours_per_pair:
                active = {name: replace(each, mask_same_image=True) for name, each in active.items()}
            patches = None
            with torch.no_grad():
                own = {name: embedded(teacher, batch)[name] for name in ("image", "caption", "negative")}
                if "evidence_contrast" in active:
                    batch = with_evidence(config, teacher, batch, own["caption"])
                if config.views.left_out:
                    patches = kept_patches(config, teacher, batch.image)
            target = Target(**own)
            rows = embedded(model, batch, patches=patches, mask_token=along.get("mask_token"))
            if along:
                keys = ((rows["patch"] + rows["raw_image"][:, None]) / 2).detach()
                rows |= predicted(config, along, rows.pop("queried"), keys, batch)
            bias = {"bias": model.logit_bias} if biased else {}
            student = Embeddings.of(rows | bias | {"scale": model.logit_scale.exp()})
            for name, each in active.items():
                memory = thresholds if name == "cross_modal_rank" else torch.tensor([float(step)])
                losses[prefix + name] = getattr(slow_terms, name)(each, student, target, memory)[0]
                loss = loss + each.weight * losses[prefix + name]
            if "cross_modal_rank" in active:
                thresholds = torch.tensor(slow_terms.next_thresholds(active["cross_modal_rank"], student, thresholds))
            if turn and config.l2_sp.weight:
                losses["l2_sp"] = torch.zeros(())
                gradients = torch.autograd.grad(loss, trained, retain_graph=True)
                for value, begin, gradient in zip(trained, start, gradients, strict=True):
                    importance = gradient**2 / (gradient**2).mean()
                    losses["l2_sp"] = losses["l2_sp"] + (importance * (value - begin) ** 2).sum()
                loss = loss + config.l2_sp.weight * losses["l2_sp"]
        optimiser.zero_grad()
        loss.backward()
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_([*trained, *along.values()], settings.clip_norm)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(settings.max_scale))
            for own_value, new in zip(teacher.parameters(), model.parameters(), strict=True):
                own_value.mul_(config.teacher.decay).add_(new, alpha=1 - config.teacher.decay)
        history.append({name: value.item() for name, value in ({"loss": loss} | losses).items()})
    return history, model, teacher


@pytest.mark.parametrize("case", [*RECIPES, *IN_CHUNKS])
def test_a_recipe_is_a_plain_loop(
    case: str, many_patches: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: dict[int, list[Batch]] = {}
    predictor: dict[str, Tensor] = {}
    collated, initialise = Collate.__call__, WordPredictor.__init__

    def kept(self: Collate, pairs: list[Pair]) -> Batch:
        batches.setdefault(id(self), []).append(collated(self, pairs))
        return batches[id(self)][-1]

    def noted(self: WordPredictor, **options: Any) -> None:
        initialise(self, **options)
        predictor.update({name: value.detach().clone() for name, value in self.named_parameters()})

    monkeypatch.setattr(Collate, "__call__", kept)
    monkeypatch.setattr(WordPredictor, "__init__", noted)
    rows = tiny_pairs["negatives"].read_text().splitlines(keepends=True)
    negatives = tmp_path / "negatives.jsonl"
    negatives.write_text("".join(row for row in rows if json.loads(row)["caption_id"] not in ("3-0", "7-1", "8-0")))
    pairs = tiny_pairs | {"negatives": negatives}
    recipe, chunk, model_folder = case.split()[0], 3 if case in IN_CHUNKS else None, many_patches
    if case in ("c2lip", "degla with a bias"):
        vision = CONFIG["vision_cfg"] | {"patch_size": 8}
        model_folder = write_model(tmp_path / "biased", vision_cfg=vision, init_logit_bias=-3.0)
    config = tiny_config(recipe, model=model_folder, pairs=pairs, out=tmp_path / "run", steps=STEPS, chunk_size=chunk)
    config = replace(
        config,
        optim=replace(config.optim, eps=1e-4),
        teacher=replace(config.teacher, decay=1.0 if config.teacher.kind == "frozen" else 0.9),
        views=replace(config.views, temperature=1e-9),
        predictor=replace(config.predictor, lr=3e-3, weight_decay=3.0),
    )
    if case == "c2lip":
        config = replace(config, objective=config.objective | {"concept_attention": ConceptAttention(weight=0.5)})
    folder = train(config).folder
    expected, model, teacher = plain_loop(config, list(batches.values()), predictor)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    tensors = [each for stream in batches.values() for batch in stream for each in batch.tensors().items()]
    left_out = [not value.all() for _, value in tensors if value.dtype == torch.bool]
    left_out += [bool((value < 0).any()) for name, value in tensors if name == "label"]
    assert len(lines) == STEPS and any(left_out), "nothing is left out, so no mask is tested"
    for line, losses in zip(lines, expected, strict=True):
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=2e-5, abs=5e-6)
    begin = load_file(model_folder / "open_clip_model.safetensors")
    files = {"open_clip_model.safetensors": model, "teacher.safetensors": teacher}
    taught = any(stream.needs for stream in config.streams)
    assert (folder / "teacher.safetensors").exists() == taught
    for file in files if taught else ["open_clip_model.safetensors"]:
        weights, own = load_file(folder / file), files[file].state_dict()
        for name in (each for each in weights if not each.endswith("attn_mask")):
            moved, apart = ((own[name] - other[name]) for other in (begin, weights))
            if name.endswith("in_proj_bias"):  # A bias of all keys changes no attention: its gradient is rounding.
                moved, apart = (torch.cat([each.chunk(3)[0], each.chunk(3)[2]]) for each in (moved, apart))
            rounding = 3e-7 * own[name].norm()
            assert apart.norm() <= 1e-4 * moved.norm() + rounding, f"{file}: {name}: {apart.norm()} of {moved.norm()}"
