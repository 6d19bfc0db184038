"""Pictures and texts a second that are embedded: as evaluation does it, and in plain batches with open_clip."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from degla.evaluation.embed import Embedder
from degla.model.encoder import Encoder
from degla.progress import TaskProgress
from degla.records import ItemImage
from degla.speed.workload import Workload, read_workload

Input = TypeVar("Input", str, ItemImage)

PLAIN_BATCH = 64
"""Inputs of a plain batch: what open_clip's own scripts take."""


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
        return _rate(lambda paths: _plain_images(encoder, paths, folder, workers), images)
    embedder = _embedder(encoder, folder)
    items = [ItemImage(path=path) for path in images]
    return _rate(lambda some: replace(embedder, cache={}).embed(some, ()), items)


def embed_texts_a_second(workload: Workload, encoder: Encoder, *, plainly: bool) -> float:
    """Distinct texts a second, tokens made anew; see `embed_images_a_second`."""
    _, texts = distinct_inputs(workload)
    if plainly:
        return _rate(lambda some: _plain_texts(encoder, some), texts)
    embedder = _embedder(encoder, workload.data.image_folder)
    return _rate(lambda some: replace(embedder, cache={}).embed((), some), texts)


def _embedder(encoder: Encoder, folder: Path) -> Embedder:
    return Embedder(encoder, folder, progress=TaskProgress(False))


def _rate(embed: Callable[[list[Input]], object], inputs: list[Input]) -> float:
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
        return self.transform(Image.open(self.folder / self.paths[index]).convert("RGB"))


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
