"""Pairs a second that come from files: as training reads them, and by PIL, torchvision and PyTorch's own loader."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from degla.config.run import TrainConfig
from degla.data.loader import EpochSampler, make_loader
from degla.losses.core import Processes
from degla.model.encoder import Encoder
from degla.prefixes import Tokenize
from degla.speed.workload import Workload, read_workload
from degla.training.pairs import image_transform, open_pairs
from degla.training.rows import PairSource

_LARGE = 1 << 30


def plain_transform(size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Any], Tensor]:
    """What training scripts do with a picture: a random crop of nine tenths of it or more, resized and normalised."""
    from torchvision import transforms

    return transforms.Compose([  # type: ignore[no-any-return]
        transforms.RandomResizedCrop(size, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ])  # fmt: skip


def read_pairs_a_second(workload: Workload, encoder: Encoder, *, workers: int, seconds: float) -> float:
    """Pairs a second of a run's own loader: decoded, cropped, with their tokens, in batches in main memory."""
    pinned = encoder.device.type == "cuda"
    config = _config(workload, workers)
    source = PairSource(read_workload(workload), None, None)
    pairs = open_pairs(config, encoder=encoder, processes=Processes(), source=source)
    sampler = EpochSampler(pairs.plan, 0, steps=sys.maxsize)
    loader = make_loader(pairs.dataset, sampler, workers=workers, collate=pairs.collate, pin_memory=pinned)
    return _rate(iter(loader), workers=workers, seconds=seconds) * workload.batch_size


def read_plainly_a_second(workload: Workload, encoder: Encoder, *, workers: int, seconds: float) -> float:
    """The same pairs decoded whole, with padded tokens."""
    loader = DataLoader(
        _PlainPairs(workload, encoder), batch_size=workload.batch_size, num_workers=workers,
        pin_memory=encoder.device.type == "cuda",
    )  # fmt: skip
    return _rate(iter(loader), workers=workers, seconds=seconds) * workload.batch_size


def _config(workload: Workload, workers: int) -> TrainConfig:
    return replace(workload.config("fp32"), data=replace(workload.data, workers=workers))


def _rate(batches: Iterator[object], *, workers: int, seconds: float) -> float:
    """Batches a second, once all workers are under way; at least one of each worker, and some time long."""
    for _ in range(1 + 2 * workers):
        next(batches)
    started, done = time.perf_counter(), 0
    while done < max(2 * workers, 1) or time.perf_counter() - started < seconds:
        next(batches)
        done += 1
    return done / (time.perf_counter() - started)


class _PlainPairs(Dataset[tuple[Tensor, Tensor]]):
    """Rows one after another, again and again: a picture [3, H, W], and a caption with its negatives [1 + K, context].

    Args:
        workload: whose rows.
        encoder: for whose towers.
    """

    def __init__(self, workload: Workload, encoder: Encoder) -> None:
        form = image_transform(encoder)
        self.folder: Path = workload.data.image_folder
        self.transform = plain_transform(form.size, mean=form.mean, std=form.std)
        self.tokenize: Tokenize = encoder.tokenize
        wanted = workload.negatives
        rows = [row for row in read_workload(workload) if len(row.negatives) >= wanted]
        self.rows = [(row.caption.image, [row.caption.text, *row.negatives[:wanted]]) for row in rows]

    def __len__(self) -> int:
        return _LARGE

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, texts = self.rows[index % len(self.rows)]
        return self.transform(Image.open(self.folder / image).convert("RGB")), torch.as_tensor(self.tokenize(texts))
