"""Embeddings computed before the first step: of each image, for a run with a frozen image tower; and of images whose
nearest neighbours serve as hard images in training."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degla.data.decoding import ImageError
from degla.data.images import look_for, read_image
from degla.data.neighbours import NeighbourRecord
from degla.data.randomness import random_for
from degla.errors import InputError
from degla.evaluation.cache import DiskCache, image_identity_of, is_cached
from degla.evaluation.embed import Embedder
from degla.evaluation.image_files import content_digest, decode_image, read_image_file
from degla.evaluation.models import EmbeddingModel
from degla.evaluation.scoring import EmbeddingRows
from degla.files import cache_folder, cannot_write, whole_file
from degla.locks import in_turn
from degla.pages.words import counted
from degla.progress import TaskProgress
from degla.records import CaptionRecord, ItemImage

if TYPE_CHECKING:
    from degla.losses.core import Processes
    from degla.model.encoder import Encoder

log = logging.getLogger("degla.train")
_BATCH = 32
"""Number of images embedded at a time with their patches."""
_REMEDY = "Set DEGLA_CACHE to another folder."


@dataclass(frozen=True)
class ImageRows:
    """Unit-length embeddings [D] of images by path, which a data set returns instead of pixels."""

    row_of: dict[str, int]
    rows: EmbeddingRows

    def __call__(self, path: str) -> Tensor:
        """Return the embedding of one image."""
        return torch.from_numpy(self.rows[self.row_of[path]].copy())


@dataclass(frozen=True)
class PatchRows:
    """Unnormalised embeddings of images, each followed by the outputs of its patches [1 + P, D]."""

    row_of: dict[str, int]
    file: Path

    def __call__(self, path: str) -> Tensor:
        """Return the rows of one image."""
        # Mapped again each time: pickling a mapped array for another process would copy all of it.
        return torch.from_numpy(np.load(self.file, mmap_mode="r")[self.row_of[path]].copy())


def embed_images(paths: Iterable[str], *, folder: Path, encoder: Encoder, processes: Processes) -> ImageRows:
    """Embed each whole image with the model's evaluation transform, using the cache of earlier runs and evaluations.

    Args:
        paths: paths relative to `folder`, or absolute; may repeat.
        folder: folder of the images.
        encoder: the student before the first step.
        processes: processes that share the work; all get the rows.

    Raises:
        InputError: an image cannot be read.
    """
    images = [ItemImage(path=path) for path in dict.fromkeys(paths)]
    with DiskCache(cache_folder("embeddings")) as cache:
        identity, bar = image_identity_of(encoder), TaskProgress(processes.first)
        embedder = Embedder(encoder, root=folder, cache=cache, identity=identity, processes=processes, progress=bar)
        embedded = embedder.embed(images, [])
    log.info(
        "%s embedded once, with the model's own transform and without random crops.",
        counted(len(images), "image is", "images are"),
    )
    row_of = {image.path: row for image, row in embedded.image_row.items()}
    return ImageRows(row_of, processes.from_first(lambda: embedded.images))


def embed_patches(paths: Iterable[str], *, folder: Path, encoder: Encoder, processes: Processes) -> PatchRows:
    """Embed images together with their patches, in one file of the cache that all processes of a machine map.

    It takes 4 bytes for each of the (1 + P) D numbers of an image. On each machine one process writes it; later runs of
    the same image tower on the same images use it again.

    Raises:
        InputError: an image cannot be read, or the file cannot be written.
    """
    names = list(dict.fromkeys(paths))

    def digest() -> str:
        with ThreadPoolExecutor(thread_name_prefix="degla-image") as pool:
            contents = list(pool.map(lambda path: content_digest(folder, path), names, chunksize=16))
        return hashlib.sha256("\n".join([image_identity_of(encoder), *contents]).encode()).hexdigest()

    def make() -> None:
        # One process of each machine works, and an error that it meets ends all of them.
        if os.environ.get("LOCAL_RANK", "0") != "0" or is_cached(file):
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with in_turn(file), ThreadPoolExecutor(thread_name_prefix="degla-image") as pool:
                if not is_cached(file):
                    batches = _batches_of_rows(names, folder=folder, encoder=encoder, pool=pool)
                    _write_rows(file, batches, count=len(names))
        except OSError as error:
            raise cannot_write(file, error, remedy=_REMEDY) from None

    file = cache_folder("embeddings") / f"{processes.from_first(digest)}.patches.npy"
    processes.together(make)
    log.info(
        "%s and their patches are embedded once, with the model's own transform and without random crops.",
        counted(len(names), "image"),
    )
    return PatchRows({path: row for row, path in enumerate(names)}, file)


def _batches_of_rows(
    names: Sequence[str], *, folder: Path, encoder: Encoder, pool: ThreadPoolExecutor
) -> Iterator[NDArray[np.float32]]:
    def pixels(path: str) -> Tensor:
        return encoder.transform(decode_image(read_image_file(folder, path), folder, path))

    with TaskProgress(show=True).task("patches", len(names)) as advance, torch.inference_mode():
        for start in range(0, len(names), _BATCH):
            opened = torch.stack(list(pool.map(pixels, names[start : start + _BATCH])))
            outputs = encoder.embed(opened.to(encoder.device), None, dense=True, raw=True)
            assert outputs.raw_image is not None and outputs.patch is not None
            yield torch.cat([outputs.raw_image[:, None], outputs.patch], dim=1).cpu().numpy()
            advance(len(opened))


def _write_rows(file: Path, batches: Iterator[NDArray[np.float32]], *, count: int) -> None:
    first = next(batches)
    form: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (count, *first.shape[1:])}
    with whole_file(file, binary=True, remedy=_REMEDY) as stream:
        np.lib.format.write_array_header_1_0(stream, form)
        stream.write(first.tobytes())
        for rows in batches:
            stream.write(rows.tobytes())


_BLOCK, _OTHERS = 1024, 16 * 1024
"""Numbers of images whose similarities to each other are held at a time; the second is a multiple of the first."""


def find_neighbours(
    captions: Sequence[CaptionRecord],
    *,
    folder: Path,
    encoder: EmbeddingModel,
    count: int,
    seed: int = 0,
) -> Iterator[NeighbourRecord]:
    """Yield, for each caption, one caption of each of the images nearest to its own by cosine, the nearest first.

    The seed determines which caption of an image is drawn. Images with equal bytes count as one, never as neighbours.

    Args:
        captions: captions of all images.
        folder: folder that image paths are relative to.
        encoder: model whose embeddings are compared.
        count: neighbours per caption, 1 or more.
        seed: seed of the draws.

    Raises:
        InputError: an image cannot be read, or there are not more images than neighbours.
    """
    embedder = Embedder(encoder, root=folder, progress=TaskProgress(show=True))
    images = [ItemImage(path=caption.image) for caption in captions]
    try:
        embedded = embedder.embed(images, [])
    except ImageError:
        # Find the caption to name it too; missing files first, which is one stat each.
        for look in (look_for, read_image):
            for caption in captions:
                look(caption.image, folder=folder, caption_id=caption.id)
        raise
    row_of = [embedded.image_row[image] for image in images]
    if len(embedded.images) <= count:
        raise InputError(
            f"{counted(count, 'neighbour')} per caption cannot be found: the captions have only "
            f"{counted(len(embedded.images), 'different image')}. Give captions of more images (degla neighbours: or "
            "lower --count)."
        )
    owners: dict[int, list[str]] = {}
    for row, caption in zip(row_of, captions, strict=True):
        owners.setdefault(row, []).append(caption.id)
    nearest = nearest_rows(embedded.images, count=count)
    for index, (row, caption) in enumerate(zip(row_of, captions, strict=True)):
        rng = random_for("neighbour captions", seed=seed, epoch=0, index=index)
        neighbours = tuple(rng.choice(owners[near]) for near in nearest[row].tolist())
        yield NeighbourRecord(caption_id=caption.id, neighbours=neighbours)


def nearest_rows(rows: EmbeddingRows, *, count: int) -> NDArray[np.int64]:
    """Return the `count` other rows with the largest product with each unit row, the largest first: [rows, count]."""
    nearest = np.empty((len(rows), count), dtype=np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        best, others = torch.empty(len(block), 0), torch.empty(len(block), 0, dtype=torch.int64)
        for first in range(0, len(rows), _OTHERS):
            products = torch.from_numpy(block @ rows[first : first + _OTHERS].T)
            if first <= start < first + _OTHERS:
                own = torch.arange(len(block))
                products[own, start - first + own] = -torch.inf
            top = products.topk(min(count, products.shape[1]))
            best, others = torch.cat([best, top.values], dim=1), torch.cat([others, top.indices + first], dim=1)
            best, order = best.topk(min(count, best.shape[1]))
            others = others.gather(1, order)
        nearest[start : start + _BLOCK] = others.numpy()
    return nearest
