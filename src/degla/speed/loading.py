"""How fast inputs come and go: pairs from files as training reads them, pictures and texts as evaluation embeds them.

Beside each the plain way: PIL, torchvision and PyTorch's own loader, and open_clip in plain batches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from degla.data.loader import EpochSampler, make_loader
from degla.evaluation.embed import Embedder
from degla.losses.core import Processes
from degla.model.encoder import Encoder
from degla.prefixes import Tokenize
from degla.progress import TaskProgress
from degla.records import ItemImage
from degla.speed.workload import Workload, read_workload
from degla.training.pairs import image_transform, open_pairs
from degla.training.rows import PairSource

Input = TypeVar("Input", str, ItemImage)

PLAIN_BATCH = 64
"""Inputs of a plain batch of an evaluation: what open_clip's own scripts take."""
_LARGE = 1 << 30


def plain_transform(size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Any], Tensor]:
    """What training scripts do with a picture: a random crop of nine tenths of it or more, resized and normalised."""
    from torchvision import transforms

    crop = transforms.RandomResizedCrop(size, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)
    made: Callable[[Any], Tensor] = transforms.Compose([crop, transforms.ToTensor(), transforms.Normalize(mean, std)])
    return made


def read_pairs_a_second(workload: Workload, encoder: Encoder, *, workers: int, seconds: float) -> float:
    """Pairs a second of a run's own loader: decoded, cropped, with their tokens, in batches in main memory."""
    pinned = encoder.device.type == "cuda"
    config = replace(workload.config("fp32"), data=replace(workload.data, workers=workers))
    source = PairSource(read_workload(workload), None, None)
    pairs = open_pairs(config, encoder=encoder, processes=Processes(), source=source)
    sampler = EpochSampler(pairs.plan, 0, steps=sys.maxsize)
    loader = make_loader(pairs.dataset, sampler, workers=workers, collate=pairs.collate, pin_memory=pinned)
    return _batches_a_second(iter(loader), workers=workers, seconds=seconds) * workload.batch_size


def read_plainly_a_second(workload: Workload, encoder: Encoder, *, workers: int, seconds: float) -> float:
    """The same pairs decoded whole, with padded tokens."""
    loader = DataLoader(
        _PlainPairs(workload, encoder),
        batch_size=workload.batch_size,
        num_workers=workers,
        pin_memory=encoder.device.type == "cuda",
    )
    return _batches_a_second(iter(loader), workers=workers, seconds=seconds) * workload.batch_size


def _batches_a_second(batches: Iterator[object], *, workers: int, seconds: float) -> float:
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
        return self.transform(_open(self.folder / image)), torch.as_tensor(self.tokenize(texts))


def distinct_inputs(workload: Workload) -> tuple[list[str], list[str]]:
    """Paths of at most four pictures for each pair of a batch, and all texts of their rows, each once."""
    images: dict[str, None] = {}
    texts: dict[str, None] = {}
    for row in read_workload(workload):
        if row.caption.image not in images and len(images) == 4 * workload.batch_size:
            break
        images[row.caption.image] = None
        texts |= dict.fromkeys((row.caption.text, *row.negatives))
    return list(images), list(texts)


def embed_images_a_second(workload: Workload, encoder: Encoder, *, plainly: bool, workers: int = 0) -> float:
    """Pictures a second, from files to unit rows in main memory; nothing is remembered from before.

    Args:
        workload: whose pictures.
        encoder: the model, of a precision.
        plainly: open_clip's own tower in batches that PyTorch's loader makes.
        workers: processes of that loader.
    """
    images, _ = distinct_inputs(workload)
    folder = workload.data.image_folder
    if plainly:
        return _inputs_a_second(lambda paths: _plain_images(encoder, paths, folder, workers), images)
    embedder = _embedder(encoder, folder)
    items = [ItemImage(path=path) for path in images]
    return _inputs_a_second(lambda some: replace(embedder, cache={}).embed(some, ()), items)


def embed_texts_a_second(workload: Workload, encoder: Encoder, *, plainly: bool) -> float:
    """Distinct texts a second, tokens made anew; see `embed_images_a_second`."""
    _, texts = distinct_inputs(workload)
    if plainly:
        return _inputs_a_second(lambda some: _plain_texts(encoder, some), texts)
    embedder = _embedder(encoder, workload.data.image_folder)
    return _inputs_a_second(lambda some: replace(embedder, cache={}).embed((), some), texts)


def _embedder(encoder: Encoder, folder: Path) -> Embedder:
    return Embedder(encoder, folder, progress=TaskProgress(False))


def _inputs_a_second(embed: Callable[[list[Input]], object], inputs: list[Input]) -> float:
    """Inputs a second; a batch that is embedded before is not counted."""
    embed(inputs[:PLAIN_BATCH])
    started = time.perf_counter()
    embed(inputs)  # Ends in main memory, so that the device has been waited for.
    return len(inputs) / (time.perf_counter() - started)


class _Files(Dataset[Tensor]):
    def __init__(self, paths: list[str], folder: Path, encoder: Encoder) -> None:
        self.paths, self.folder, self.transform = paths, folder, encoder.transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(_open(self.folder / self.paths[index]))


def _open(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB")


@torch.inference_mode()
def _plain_images(encoder: Encoder, paths: list[str], folder: Path, workers: int) -> Tensor:
    on_gpu = encoder.device.type == "cuda"
    loader = DataLoader(_Files(paths, folder, encoder), batch_size=PLAIN_BATCH, num_workers=workers, pin_memory=on_gpu)
    rows = [
        encoder.clip.encode_image(images.to(encoder.device, non_blocking=on_gpu), normalize=True) for images in loader
    ]
    return torch.cat(rows).cpu()


@torch.inference_mode()
def _plain_texts(encoder: Encoder, texts: list[str]) -> Tensor:
    rows = []
    for start in range(0, len(texts), PLAIN_BATCH):
        tokens = torch.as_tensor(encoder.tokenize(texts[start : start + PLAIN_BATCH]))
        rows.append(encoder.clip.encode_text(tokens.to(encoder.device), normalize=True))
    return torch.cat(rows).cpu()
