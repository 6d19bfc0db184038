"""Throughput of inputs: pairs read from files as in training, images and texts embedded as in evaluation.

Each is compared with a plain baseline: PIL, torchvision and PyTorch's own loader, and open_clip in plain batches.
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
from degla.records import ItemImage
from degla.speed.workload import Workload, read_workload
from degla.training.pairs import image_transform, open_pairs
from degla.training.rows import PairSource

Input = TypeVar("Input", str, ItemImage)

PLAIN_BATCH = 64
"""Batch size of the plain evaluation baseline, as in open_clip's own scripts."""
_LARGE = 1 << 30


def plain_transform(size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Any], Tensor]:
    """Return the usual training transform: a random crop of at least nine tenths, resized and normalised."""
    from torchvision import transforms

    crop = transforms.RandomResizedCrop(size, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)
    transform: Callable[[Any], Tensor] = transforms.Compose(
        [crop, transforms.ToTensor(), transforms.Normalize(mean, std)]
    )
    return transform


def read_pairs_a_second(workload: Workload, encoder: Encoder, *, workers: int, seconds: float) -> float:
    """Return pairs per second of a run's own loader: decoded, cropped and tokenised, as batches in main memory."""
    pinned = encoder.device.type == "cuda"
    config = replace(workload.config("fp32"), data=replace(workload.data, workers=workers))
    source = PairSource(read_workload(workload), None, None)
    pairs = open_pairs(config, encoder=encoder, processes=Processes(), source=source)
    sampler = EpochSampler(pairs.plan, 0, steps=sys.maxsize)
    loader = make_loader(pairs.dataset, sampler, workers=workers, collate=pairs.collate, pin_memory=pinned)
    return _batches_a_second(iter(loader), workers=workers, seconds=seconds) * workload.batch_size


def read_plainly_a_second(workload: Workload, encoder: Encoder, *, workers: int, seconds: float) -> float:
    """Return pairs per second of the plain baseline: the same pairs decoded in full, with padded tokens."""
    pairs, pinned = _PlainPairs(workload, encoder), encoder.device.type == "cuda"
    loader = DataLoader(pairs, batch_size=workload.batch_size, num_workers=workers, pin_memory=pinned)
    return _batches_a_second(iter(loader), workers=workers, seconds=seconds) * workload.batch_size


def _batches_a_second(batches: Iterator[object], *, workers: int, seconds: float) -> float:
    """Batches per second once all workers are running, over a minimum time and at least two batches per worker."""
    for _ in range(1 + 2 * workers):
        next(batches)
    started, done = time.perf_counter(), 0
    while done < max(2 * workers, 1) or time.perf_counter() - started < seconds:
        next(batches)
        done += 1
    return done / (time.perf_counter() - started)


class _PlainPairs(Dataset[tuple[Tensor, Tensor]]):
    """Cycles through the rows: an image [3, H, W], and a caption with its negatives [1 + K, context].

    Args:
        workload: provides the rows.
        encoder: the model to prepare them for.
    """

    def __init__(self, workload: Workload, encoder: Encoder) -> None:
        form = image_transform(encoder)
        self.folder: Path = workload.data.image_folder
        self.transform = plain_transform(form.size, mean=form.mean, std=form.std)
        self.tokenize: Tokenize = encoder.tokenize
        count = workload.negatives
        rows = [row for row in read_workload(workload) if len(row.negatives) >= count]
        self.rows = [(row.caption.image, [row.caption.text, *row.negatives[:count]]) for row in rows]

    def __len__(self) -> int:
        return _LARGE

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, texts = self.rows[index % len(self.rows)]
        return self.transform(_open(self.folder / image)), torch.as_tensor(self.tokenize(texts))


def distinct_inputs(workload: Workload) -> tuple[list[str], list[str]]:
    """Return the paths of at most four images per pair of a batch, and the distinct texts of their rows."""
    images: dict[str, None] = {}
    texts: dict[str, None] = {}
    for row in read_workload(workload):
        if row.caption.image not in images and len(images) == 4 * workload.batch_size:
            break
        images[row.caption.image] = None
        texts |= dict.fromkeys((row.caption.text, *row.negatives))
    return list(images), list(texts)


def embed_images_a_second(workload: Workload, encoder: Encoder, *, plainly: bool, workers: int = 0) -> float:
    """Return images per second, from files to unit-length embeddings in main memory, without any cache.

    Args:
        workload: provides the images.
        encoder: the model, in some precision.
        plainly: use open_clip's own tower with batches from PyTorch's loader.
        workers: processes of that loader.
    """
    images, _ = distinct_inputs(workload)
    folder = workload.data.image_folder
    if plainly:
        return _inputs_a_second(lambda paths: _plain_images(encoder, paths, folder, workers), images)
    items = [ItemImage(path=path) for path in images]
    return _inputs_a_second(lambda some: Embedder(encoder, folder).embed(some, ()), items)


def embed_texts_a_second(workload: Workload, encoder: Encoder, *, plainly: bool) -> float:
    """Return distinct texts per second, including tokenisation; see `embed_images_a_second`."""
    _, texts = distinct_inputs(workload)
    if plainly:
        return _inputs_a_second(lambda some: _plain_texts(encoder, some), texts)
    return _inputs_a_second(lambda some: Embedder(encoder, workload.data.image_folder).embed((), some), texts)


def _inputs_a_second(embed: Callable[[list[Input]], object], inputs: list[Input]) -> float:
    """Inputs per second, after a warm-up batch that is not counted."""
    embed(inputs[:PLAIN_BATCH])
    started = time.perf_counter()
    embed(inputs)  # The result is in main memory, so the device has finished.
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
