"""One process of the distributed tests: its rows of the global batch through a small encoder and every term."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from term_cases import (
    CLASSES,
    CONCEPTS,
    DENSE,
    MASKS,
    PATCHES,
    POSITIVES,
    RULES,
    TOKENS,
    all_settings,
    at_work,
    describe,
)
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from degla.errors import InputError
from degla.losses.class_contrast import ClassContrast
from degla.losses.contrastive import Contrastive
from degla.losses.core import Embeddings, Processes, StatefulLoss, Target
from degla.losses.core.objective import Objective
from degla.losses.cross_modal_rank import CrossModalRank
from degla.losses.dense_grounded import DenseGrounded
from degla.losses.distractor_contrastive import DistractorContrastive
from degla.losses.image_grounded import ImageGrounded
from degla.losses.intra_modal import IntraModal
from degla.losses.self_distillation import SelfDistillation
from degla.losses.sigmoid_contrastive import SigmoidContrastive
from degla.losses.sigmoid_image_grounded import SigmoidImageGrounded
from degla.losses.sigmoid_text_grounded import SigmoidTextGrounded
from degla.losses.text_grounded import TextGrounded
from degla.shelf import LOSSES

PAIRS, NEGATIVES, DIM = 8, 3, 5
IMAGES = ("image", "distractor_image", "patch", "raw_image", "evidence_image", "evidence_seen")
TEXTS = ("caption", "negative", "distractor_caption", "positive", "classes", "caption_token", "negative_token", "unit",
         "foil", "concept", "reconstruction", "masked", "masked_token", "prediction")  # fmt: skip
ALL_MASKS = (*MASKS, "first half empty", "only the last row")
Outcome = dict[str, Tensor]


class Encoder(nn.Module):
    """Two small towers and a learnt scale, in float64."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also records where it was called, for CUDA.
        self.image = nn.Linear(4, DIM, dtype=torch.float64)
        self.text = nn.Linear(6, DIM, dtype=torch.float64)
        self.logit_scale = nn.Parameter(torch.tensor(1.2, dtype=torch.float64))
        self.logit_bias = nn.Parameter(torch.tensor(-1.7, dtype=torch.float64))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        embeddings = {name: self.image(batch[name]) for name in IMAGES} | {
            name: self.text(batch[name]) for name in TEXTS
        }
        for name in ("reconstruction", "prediction"):
            embeddings[name] = nn.functional.softplus(embeddings[name].sum(-1))  # Of each token, above 0.
        unit = {name: nn.functional.normalize(each, dim=-1) for name, each in embeddings.items() if name not in DENSE}
        # Data-parallel training waits for a gradient of the bias, even if no loss reads it.
        return (
            embeddings | unit | {"scale": self.logit_scale.exp() + 0.0 * self.logit_bias, "bias": self.logit_bias * 1.0}
        )


@cache
def global_batch(mask: str) -> dict[str, Tensor]:
    """Inputs of the 8 pairs, the same in every process."""
    random = torch.Generator().manual_seed(50 + ALL_MASKS.index(mask))

    def there(*shape: int) -> Tensor:
        flags = torch.ones(*shape, dtype=torch.bool)
        if mask == "random":
            flags = torch.rand(*shape, generator=random) < 0.5
        elif mask == "one empty row":
            flags[5] = False
        elif mask == "none":
            flags[:] = False
        elif mask == "first half empty":
            flags[: PAIRS // 2] = False
        elif mask == "only the last row":
            flags[:-1] = False
        return flags

    def images(*shape: int) -> Tensor:
        return torch.randn(*shape, 4, generator=random, dtype=torch.float64)

    def texts(*shape: int) -> Tensor:
        return torch.randn(*shape, 6, generator=random, dtype=torch.float64)

    valid = there(PAIRS, NEGATIVES)
    return {
        "image": images(PAIRS),
        "caption": texts(PAIRS),
        "negative": texts(PAIRS, NEGATIVES),
        "valid": valid,
        "group": torch.tensor([0, 1, 2, 0, 1, 3, 0, 3]),
        "rule": torch.randint(RULES, (PAIRS, NEGATIVES), generator=random).masked_fill(~valid, -1),
        "distractor_image": images(PAIRS),
        "distractor_caption": texts(PAIRS),
        "distractor_valid": there(PAIRS),
        "positive": texts(PAIRS, POSITIVES),
        "positive_valid": there(PAIRS, POSITIVES),
        "patch": images(PAIRS, PATCHES),
        "caption_token": texts(PAIRS, TOKENS),
        "caption_token_valid": torch.tensor([True, True, False]).expand(PAIRS, -1),
        "negative_token": texts(PAIRS, NEGATIVES, TOKENS),
        "negative_token_valid": torch.tensor([True, False, True]).expand(PAIRS, NEGATIVES, -1),
        "classes": texts(CLASSES),
        "label": torch.randint(CLASSES, (PAIRS,), generator=random).masked_fill(~there(PAIRS), -1),
        "text_group": torch.tensor([0, 1, 0, 2, 3, 1, 0, 4]),
        "raw_image": images(PAIRS),
        "evidence_image": images(PAIRS),
        "evidence_seen": images(PAIRS),
        "evidence_valid": there(PAIRS),
        "unit": texts(PAIRS, POSITIVES),
        "unit_valid": there(PAIRS, POSITIVES),
        "unit_group": torch.tensor([[0, 1], [2, 3], [0, 3], [4, 5], [2, 1], [6, 7], [0, 1], [8, 9]]),
        "foil": texts(PAIRS, POSITIVES),
        "foil_valid": there(PAIRS, POSITIVES),
        "concept": texts(PAIRS, CONCEPTS),
        "concept_valid": there(PAIRS, CONCEPTS),
        "concept_group": torch.randint(12, (PAIRS, CONCEPTS), generator=random),
        "reconstruction": texts(PAIRS, TOKENS),
        "reconstruction_valid": torch.tensor([[True, True, False], [True, False, False]]).repeat(PAIRS // 2, 1)
        & there(PAIRS, 1),
        "masked": texts(PAIRS),
        "masked_valid": there(PAIRS),
        "masked_token": texts(PAIRS, TOKENS),
        "prediction": texts(PAIRS, TOKENS),
        "prediction_valid": torch.tensor([[True, False, True], [True, True, False]]).repeat(PAIRS // 2, 1)
        & there(PAIRS, 1),
    }


def embed(encoder: nn.Module, batch: dict[str, Tensor]) -> Embeddings:
    return Embeddings.of({**batch, **encoder(batch)})


def sums() -> dict[str, dict[str, Any]]:
    """Objectives of complete methods."""
    return {
        "sum of DeGLA": {
            "contrastive": Contrastive(),
            "image_grounded": ImageGrounded(),
            "text_grounded": TextGrounded(),
            "self_distillation": SelfDistillation(),
        },
        "sum of DeGLA, sigmoid": {
            "sigmoid_contrastive": SigmoidContrastive(),
            "sigmoid_image_grounded": SigmoidImageGrounded(),
            "sigmoid_text_grounded": SigmoidTextGrounded(),
            "self_distillation": SelfDistillation(),
        },
        "sum of CE-CLIP": {
            "contrastive": Contrastive(),
            "intra_modal": IntraModal(),
            "cross_modal_rank": CrossModalRank(),
        },
        "sum of terms with further inputs": {
            "contrastive": Contrastive(),
            "distractor_contrastive": DistractorContrastive(),
            "dense_grounded": DenseGrounded(),
            "class_contrast": ClassContrast(),
        },
    }


def outcomes(processes: Processes, *, terms: bool = True) -> Iterator[tuple[str, Outcome]]:
    """Loss, gradients and memory of every term and sum under every mask, as a data-parallel trainer sees them."""
    alone = [at_work(term) for name in LOSSES.names() for term in all_settings(name)] if terms else []
    singles = {describe(term): {type(term).__name__: term} for term in alone}
    for title, chosen in {**singles, **sums()}.items():
        # What differs between processes: rows that only some have. The sums cover the other masks too.
        for mask in ALL_MASKS if title in sums() else ("random", "first half empty", "only the last row"):
            yield f"{title}, mask {mask}", _outcome(chosen, mask, processes, with_ddp=title in sums())


def _outcome(chosen: dict[str, Any], mask: str, processes: Processes, *, with_ddp: bool) -> Outcome:
    encoder, teacher = Encoder(seed=1), Encoder(seed=2)
    rows = PAIRS // processes.count
    batch = {
        name: each if name == "classes" else each[processes.rank * rows : (processes.rank + 1) * rows]
        for name, each in global_batch(mask).items()
    }
    wrapped = DistributedDataParallel(encoder) if with_ddp and dist.is_initialized() else encoder
    student = embed(wrapped, batch)
    with torch.no_grad():
        teacher_embeddings = embed(teacher, batch)
    objective = Objective(chosen, rules=RULES)
    for name, term in chosen.items():
        if isinstance(term, StatefulLoss):
            objective.memory[name] = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    target = Target(
        image=teacher_embeddings.image,
        caption=teacher_embeddings.caption,
        negative=teacher_embeddings.negative,
        raw_image=teacher_embeddings.extra["raw_image"],
    )
    loss, values = objective.value(student, target, processes)
    if loss.requires_grad:
        loss.backward()

    own: Outcome = {"loss": loss.detach(), **{f"value {name}": value for name, value in values.items()}}
    gradients = {
        f"gradient {name}": torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in encoder.named_parameters()
    }
    memory = {f"memory {name}": memory for name, memory in objective.memory.items()}
    if wrapped is not encoder:  # DistributedDataParallel has averaged the gradients already.
        return _average(own, processes) | gradients | memory
    return _average(own | gradients, processes) | memory


def _average(values: Outcome, processes: Processes) -> Outcome:
    """The mean over processes, in one collective."""
    message = torch.cat([value.flatten() for value in values.values()])
    if processes.count > 1:
        dist.all_reduce(message)
    parts = (message / processes.count).split([value.numel() for value in values.values()])
    return {name: part.view_as(value) for (name, value), part in zip(values.items(), parts, strict=True)}


def _shared_gradient(processes: Processes) -> Outcome:
    """Gather next to another consumer of the same gradient, whose gradient must not be changed."""
    gathered = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    everyone = torch.ones(2 * processes.count, 3, dtype=torch.float64, requires_grad=True)
    # A node older than the gather runs backward after it, so it would see a gradient changed in place.
    older = everyone * 1.0
    weights = torch.arange(1.0, 2 * processes.count * 3 + 1, dtype=torch.float64).view(-1, 3)
    ((processes.gather(gathered) + older) * weights).sum().backward()
    start = 2 * processes.rank
    assert gathered.grad is not None and everyone.grad is not None
    with pytest.raises(InputError, match="no second derivatives"):
        torch.autograd.grad(processes.gather(gathered).pow(2).sum(), gathered, create_graph=True)
    return {
        "beside": everyone.grad - weights,
        "gathered": gathered.grad - processes.count * weights[start : start + 2],
    }


def _beside_open_clip(processes: Processes) -> Outcome:
    """Loss and gradients of `SigmoidContrastive` less those of open_clip's SigLipLoss, every way in which it sends."""
    from open_clip.loss import SigLipLoss

    rows = PAIRS // processes.count
    batch = {
        name: each if name == "classes" else each[processes.rank * rows : (processes.rank + 1) * rows]
        for name, each in global_batch("all").items()
    }
    gaps: Outcome = {}
    for way in ("bidir", "shift", "reduce", "gather"):
        sides = []
        for ours in (True, False):
            encoder = Encoder(seed=1)
            student = embed(encoder, batch)
            if ours:
                loss = SigmoidContrastive(negative_scope="none").value(student, Target(), processes)
            else:
                siglip = SigLipLoss(rank=processes.rank, world_size=processes.count, dist_impl=way)
                loss = siglip(student.image, student.caption, student.scale, student.require("bias"))
            loss.backward()
            gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
            sides.append(_average({"loss": loss.detach(), **gradients}, processes))
        assert all(value.abs().max() > 1e-3 for value in sides[0].values())
        gaps |= {f"{way} {name}": value - sides[1][name] for name, value in sides[0].items()}
    return gaps


def work(rank: int, count: int, folder: str, what: str) -> None:
    """Run one process and leave what it found about "terms", "sums", "gather" or "siglip" in the folder."""
    torch.set_num_threads(1)
    meeting = (Path(folder) / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=timedelta(seconds=60))
    try:
        processes = Processes.current()
        assert (processes.count, processes.rank) == (count, rank)
        if what in ("terms", "sums"):
            result = dict(outcomes(processes, terms=what == "terms"))
        else:
            result = {what: _shared_gradient(processes) if what == "gather" else _beside_open_clip(processes)}
        torch.save(result, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
