"""What `tools.build_photo_model` and `tools.build_minilm_model` share: batches, rates, contrast and retrieval."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.data.sources import read_captions


def parser(description: str | None, *, wheels: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that both scripts have; `wheels` names the wheels that are needed."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--wheels", type=Path, required=True, help=f"folder with {wheels}")
    flags.add_argument(
        "--captions", type=Path, required=True, help="folder with images/, captions_train.json and captions_dev.json"
    )
    flags.add_argument("--work", type=Path, required=True, help="folder for features that are computed once")
    flags.add_argument("--out", type=Path, required=True, help="output folder of the model")
    flags.add_argument("--seed", type=int, default=0)
    return flags


def captions_by_photograph(folder: Path, split: str) -> dict[str, list[str]]:
    """Return the captions of each photograph of a split, in the order of the photographs' names."""
    by_image: dict[str, list[str]] = {}
    for row in read_captions(folder / f"captions_{split}.json"):
        by_image.setdefault(row.image, []).append(row.text)
    return dict(sorted(by_image.items()))


def optimizer_of(parts: Iterable[tuple[Sequence[nn.Parameter], float]], *, decay: float) -> torch.optim.AdamW:
    """Return AdamW for parts of a model with their peak learning rates; only matrices decay."""
    groups = [
        {"params": [p for p in part if (p.ndim >= 2) == decayed], "weight_decay": decay * decayed, "top": rate}
        for part, rate in parts
        for decayed in (True, False)
        if any((p.ndim >= 2) == decayed for p in part)
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6)


def set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Set the rates of a step: linear warm-up over a tenth of the steps, then cosine decay to zero."""
    warmup = steps // 10
    share = (step + 1) / warmup if step < warmup else (step - warmup) / (steps - warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["top"] * (share if step < warmup else 0.5 * (1 + math.cos(math.pi * share)))


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor, logit_scale: Tensor) -> None:
    """Take one step with gradients of norm 1 at most; the scale stays at 100 or below."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    with torch.no_grad():
        logit_scale.clamp_(max=math.log(100))


def batches(count: int, size: int, draw: np.random.Generator) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    """Photographs of each step: each once per pass, and none twice in a batch."""
    while True:
        order = draw.permutation(count)
        for start in range(0, count - min(size, count) + 1, size):
            yield order[start : start + size]


def contrast(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """The symmetric contrastive loss of unit embeddings, [batch, dim] each."""
    similarity = logit_scale.exp() * image @ text.T
    target = torch.arange(len(image))
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2


def recalls(image: Tensor, text: Tensor, captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return R@1 and R@5 in percent, image to text and text to image, of unit embeddings.

    Args:
        image: [photographs, dim].
        text: [captions, dim], photograph by photograph.
        captions: the captions of each photograph.
    """
    similarity = image @ text.T
    owner = torch.tensor([number for number, own in enumerate(captions) for _ in own])
    to_text = owner[similarity.topk(5, dim=1).indices] == torch.arange(len(image))[:, None]
    to_image = similarity.T.topk(5, dim=1).indices == owner[:, None]
    return {
        f"{name} R@{k}": round(100 * float(hits[:, :k].any(1).float().mean()), 2)
        for name, hits in (("i2t", to_text), ("t2i", to_image))
        for k in (1, 5)
    }
