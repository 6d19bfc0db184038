"""Embed every distinct image and text of the benchmarks once, as unit rows.

Texts are identified by their tokens, not by their characters: two texts with the same tokens get the
same row, so they tie exactly, as they must. Images are identified by their files' bytes, not by their names.

Measurements that need pixels and not embeddings open some of a benchmark's images, batch by batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.backends import cudnn

from degla.allowance import main_memory, usable_cores
from degla.errors import DeglaError
from degla.evaluation.cache import Cache
from degla.evaluation.image_files import ImageFiles, decode_item, read_image_file
from degla.evaluation.models import HALVES, EmbeddingModel, takes_precision
from degla.evaluation.scoring import EmbeddingRows, unit_rows
from degla.model import linear_kernel
from degla.model.encoder import Encoder, float32_by_default, send
from degla.model.tokenizer import are_cut
from degla.pages.words import counted
from degla.parse import cut_short
from degla.processes import ProcessGroup
from degla.progress import TaskProgress
from degla.records import ImageReading, ItemImage

log = logging.getLogger(__name__)

Batches = Sequence[Sequence[int]]
"""Indices of keys, in batches."""
_MEMORY_SHARE: Final = 16
"""Inverse of the share of main memory in which files read for their digests may be kept."""
_SMALL = 20_000_000
"""Number of weights below which PyTorch's overhead per call outweighs the computation of a small batch."""


@dataclass(frozen=True)
class EmbeddedItems:
    """Unit float32 rows of all images and texts of a run.

    Attributes:
        images: `[I, D]`.
        image_row: an image to its row.
        texts: `[J, D]`, one row per distinct token sequence.
        text_row: a text to its row; texts with equal tokens share one.
        digests: sha256 of the file of each image, by path; empty if unknown.
        covariance: `[D, D]`, of the images; None: scores are cosines, not standardised.
    """

    images: EmbeddingRows
    image_row: dict[ItemImage, int]
    texts: EmbeddingRows
    text_row: dict[str, int]
    digests: dict[str, str] = field(default_factory=dict[str, str])
    covariance: NDArray[np.float64] | None = None

    def standardised(self, images: Iterable[ItemImage]) -> EmbeddedItems:
        """Return the items with standard scores in place of cosines: a text's mean over these distinct images is
        subtracted, and the difference is divided by their standard deviation.

        A preference that shifts or scales a text's cosines with all images alike is gone; one that turns unlikely texts
        to other content is not. The order of images for one text stays as it is, and so do cosines between texts.
        """
        rows = self.images[sorted({self.image_row[image] for image in images})].astype(np.float64)
        mean = rows.mean(axis=0)
        around = (self.images - mean).astype(np.float32)
        return replace(self, images=around, covariance=(rows - mean).T @ (rows - mean) / len(rows))

    def for_images(self, texts: EmbeddingRows) -> EmbeddingRows:
        """Return text or class rows `[N, D]` as they are compared with images: divided by the standard deviation of
        their cosines, if these are standardised."""
        if self.covariance is None:
            return texts
        deviation = np.sqrt(np.einsum("nd,nd->n", texts @ self.covariance, texts).clip(min=0)).astype(np.float32)
        deviation[deviation == 0] = 1  # To this model all images are alike.
        return np.asarray(texts / deviation[:, None], dtype=np.float32)


@dataclass(frozen=True)
class Embedder:
    """Embeds images and texts with one model.

    Attributes:
        encoder: the model.
        root: folder that image paths are relative to.
        images_per_batch: 0: 8 on a CPU, whose caches activations outgrow (32 with a small model), else 128.
        texts_per_batch: 0: 32 on a CPU (256 with a small model), else 512.
        reading: how images become pixels, see `data.decoding.decode`.
        workers: threads that open and transform images; 0: one per core.
        cache: rows of earlier runs, read and filled.
        identity: identifies the model in a shared cache, see `cache.identity_of`; needed if the cache outlives the
            call.
        image_identity: the same for images, see `cache.image_identity_of`; default: `identity`.
        progress: progress display.
        processes: processes that share the work; only the first gets the rows.
        cut: collects texts whose ends the model does not read; None: a warning reports them.
    """

    encoder: EmbeddingModel
    root: Path
    images_per_batch: int = 0
    texts_per_batch: int = 0
    reading: ImageReading = "upright"
    workers: int = 0
    cache: Cache = field(default_factory=dict[str, EmbeddingRows])
    identity: str = ""
    image_identity: str = ""
    progress: TaskProgress = field(default_factory=TaskProgress)
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    cut: dict[str, None] | None = None

    def embed(self, images: Iterable[ItemImage], texts: Iterable[str]) -> EmbeddedItems:
        """Embed every distinct image and text once.

        Raises:
            InputError: an image cannot be read, or a crop lies outside its image.
            DeglaError: the model returns a wrong number of rows.
        """
        faster = torch.device(self.encoder.device).type == "cpu" and linear_kernel.is_faster()
        kernel = linear_kernel.LinearKernel() if faster else contextlib.nullcontext()
        with kernel, forward_only(self.encoder):
            image_row, image_rows, digests = self._images(list(dict.fromkeys(images)))
            text_row, text_rows = self._texts(list(dict.fromkeys(texts)))
        if len(image_rows) and len(text_rows) and image_rows.shape[1] != text_rows.shape[1]:
            raise DeglaError(
                f"model {self.encoder.name!r} returned images of {image_rows.shape[1]} dimensions and texts of "
                f"{text_rows.shape[1]}; the two are compared, so they must have equally many."
            )
        return EmbeddedItems(image_rows, image_row, text_rows, text_row, digests)

    def _images(self, images: list[ItemImage]) -> tuple[dict[ItemImage, int], EmbeddingRows, dict[str, str]]:
        with ThreadPoolExecutor(self.workers or usable_cores(), thread_name_prefix="degla-image") as pool:
            try:
                files = ImageFiles(self.root, room=main_memory() // _MEMORY_SHARE // self.processes.count)
                digests = self._digests(list(dict.fromkeys(image.path for image in images)), files, pool)
                numbers: dict[str, int] = {}
                image_row = {
                    image: numbers.setdefault(self._key("image", f"{digests[image.path]}:{image.crop}"), len(numbers))
                    for image in images
                }
                image_of = {number: image for image, number in reversed(image_row.items())}
                ahead: dict[int, list[Future[Tensor]]] = {}

                def embed(mine: Batches, place: int) -> Tensor:
                    # Only three batches are in flight, so memory use does not depend on the number of images.
                    for later in range(place, min(place + 3, len(mine))):
                        if later not in ahead:
                            ahead[later] = [
                                pool.submit(self._open, image_of[number], digests[image_of[number].path], files)
                                for number in mine[later]
                            ]
                    pixels = pixels_of(self.encoder, [future.result() for future in ahead.pop(place)])
                    return self.encoder.encode_images(send(pixels, self.encoder.device))

                size = self.images_per_batch or self._batch_size(8, cpu_small=32, gpu=128)
                paths = {number: image.path for number, image in image_of.items()}
                table = self._rows(list(numbers), embed, size=size, name="images", name_of=paths.__getitem__)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return image_row, table, digests

    def _digests(self, paths: list[str], files: ImageFiles, pool: ThreadPoolExecutor) -> dict[str, str]:
        """sha256 of each image's content; every process reads its share of the files."""

        def read() -> dict[str, str]:
            mine = self.processes.share(paths)
            return dict(zip(mine, pool.map(files.digest, mine, chunksize=16), strict=True))

        return {path: digest for digests in self.processes.together(read) for path, digest in digests.items()}

    def _rows(
        self,
        keys: Sequence[str],
        embed: Callable[[Batches, int], Tensor],
        *,
        size: int,
        name: str,
        name_of: Callable[[int], str],
        order: Callable[[int], Any] | None = None,
    ) -> EmbeddingRows:
        """Return one row per key; rows missing in the cache are embedded, one batch per process in each round.

        Batches do not depend on the number of processes. Only the first process gets the rows.
        A batch's rows are awaited after the next batch was started, so that a GPU always has work.

        Args:
            keys: of the cache.
            embed: the batches of this process, and the index of one of them, to its rows on the model's device.
            size: number of keys in a batch.
            name: what is embedded, for the progress.
            name_of: what an index is called in an error: the image's path, or the text.
            order: sort key of the indices to embed; None: as they come.
        """
        count, first = self.processes.count, self.processes.first
        table, missing = _no_rows(), list[int]()

        def keep(index: int, row: EmbeddingRows) -> None:
            nonlocal table
            if table.size == 0:
                table = np.empty((len(keys), len(row)), dtype=np.float32)
            table[index] = row

        for index, key in enumerate(keys):
            if (row := self.cache.get(key) if first else None) is None:
                missing.append(index)
            else:
                keep(index, row)
        # Rows that the first process has in its cache need not be embedded by any process.
        todo = self.processes.from_first(lambda: missing)
        todo = todo if order is None else sorted(todo, key=order)
        batches = [todo[start : start + size] for start in range(0, len(todo), size)]
        mine = self.processes.share(batches)
        under_way: list[Callable[[], Tensor]] = []

        def work(place: int) -> EmbeddingRows:
            begun = []
            if place < len(mine):
                begun = [_fetched(rows_of(self.encoder, embed(mine, place), len(mine[place])))]
            embeddings = _no_rows()
            if under_way:
                batch = mine[place - 1]
                embeddings = unit_rows(under_way.pop()().numpy())
                _refuse_wrong(self.encoder, embeddings, lambda number: name_of(batch[number]))
            under_way.extend(begun)
            return embeddings

        with self.progress.task(name, len(todo)) as advance:
            rounds = math.ceil(len(batches) / count)
            for place in range(rounds + 1 if rounds else 0):  # The last one only awaits rows.
                finished = batches[(place - 1) * count : place * count] if place else []
                for batch, embeddings in zip(finished, self.processes.together(partial(work, place)), strict=False):
                    for index, row in zip(batch, embeddings, strict=True) if first else ():
                        keep(index, row)
                        self.cache[keys[index]] = table[index]  # In a dictionary a view, so that no row is there twice.
                    advance(len(batch))
        return table

    def _open(self, image: ItemImage, digest: str, files: ImageFiles) -> Tensor:
        picture = decode_item(files.read(image.path, digest), self.root, image, reading=self.reading)
        pixels: Tensor = self.encoder.transform(picture)  # Checked by `pixels_of`.
        return pixels

    def _texts(self, texts: list[str]) -> tuple[dict[str, int], EmbeddingRows]:
        padding = getattr(self.encoder, "padding", 0)
        text_row, distinct, full, width = dict[str, int](), dict[bytes, int](), list[str](), 0
        for start in range(0, len(texts), 4096):
            some = texts[start : start + 4096]
            tokens = np.asarray(tokens_of(self.encoder, some).cpu(), dtype=np.int64)
            width = width or tokens.shape[1]
            if tokens.shape[1] != width:
                raise DeglaError(
                    f"model {self.encoder.name!r}: tokenize returned {width} tokens a text in one call and "
                    f"{tokens.shape[1]} in another; it must pad all texts to one length, context_length."
                )
            for text, row in zip(some, tokens, strict=True):
                text_row[text] = distinct.setdefault(row.tobytes(), len(distinct))
            full += compress(some, tokens[:, -1] != padding)
        self._tell_cut(full)
        sequences = [np.frombuffer(row, dtype=np.int64) for row in distinct]
        lengths = [int(np.flatnonzero(row != padding)[-1]) + 1 if (row != padding).any() else 1 for row in sequences]
        keys = [self._key("text", hashlib.sha256(row).hexdigest()) for row in distinct]

        # Group texts by shared prefix if the tower computes prefixes once, else by length.
        bytes_of = list(distinct)
        grows = getattr(self.encoder, "grow", None) is not None

        def embed(mine: Batches, place: int) -> Tensor:
            batch = mine[place]
            stacked = np.stack([sequences[i] for i in batch])
            if self.encoder.trims:
                stacked = stacked[:, : max(lengths[i] for i in batch)]
            numbers = torch.from_numpy(stacked.copy())
            # Prefixes are found in main memory.
            return self.encoder.encode_captions(numbers if grows else send(numbers, self.encoder.device))

        order: Callable[[int], Any] = bytes_of.__getitem__ if grows else lengths.__getitem__
        size = self.texts_per_batch or self._batch_size(32, cpu_small=256, gpu=512)
        text_of = {number: text for text, number in reversed(text_row.items())}
        return text_row, self._rows(keys, embed, size=size, name="texts", name_of=text_of.__getitem__, order=order)

    def _tell_cut(self, full: list[str]) -> None:
        """Warn of texts whose ends are not read, among those with as many tokens as the encoder takes."""
        if not (full and self.processes.first):
            return
        cut = dict.fromkeys(compress(full, are_cut(self.encoder.tokenize, full)))
        if self.cut is None:
            warn_of_cut(self.encoder, cut)
        else:
            self.cut.update(cut)

    def _batch_size(self, cpu: int, *, cpu_small: int, gpu: int) -> int:
        """Batch size by device and, on a CPU, model size."""
        if not str(self.encoder.device).startswith("cpu"):
            return gpu
        parameters = getattr(self.encoder, "parameters", None)
        few = parameters is not None and sum(weight.numel() for weight in parameters()) < _SMALL
        return cpu_small if few else cpu

    def _key(self, kind: str, content: str) -> str:
        identity = self.image_identity if kind == "image" and self.image_identity else self.identity
        return f"{identity}:{kind}:{content}"


def warn_of_cut(encoder: EmbeddingModel, texts: Collection[str]) -> None:
    """Warn of the texts whose ends the model does not read, if there are any."""
    if texts:
        log.warning(
            "%s longer than the %d tokens of %s, which does not read the end, for example %r.",
            counted(len(texts), "text is", "texts are"), encoder.context_length, encoder.name,
            cut_short(next(iter(texts)), 60),
        )  # fmt: skip


def pixels_of(encoder: EmbeddingModel, pixels: Sequence[Any]) -> Tensor:
    """Stack what a model's transform made of each image; another library's gives a mapping, or batches of one."""
    for each in pixels:
        if not isinstance(each, Tensor) or (each.ndim == 4 and len(each) == 1):
            raise DeglaError(
                f"model {encoder.name!r}: transform returned {_kind(each)}; it must return a tensor for the one image, "
                "[3, height, width], for example its 'pixel_values' without the first dimension."
            )
        if each.shape != pixels[0].shape:
            raise DeglaError(
                f"model {encoder.name!r}: transform returned {_kind(pixels[0])} for one image and {_kind(each)} for "
                "another; it must return the same shape for all."
            )
    return torch.stack(list(pixels))


def tokens_of(encoder: EmbeddingModel, texts: list[str]) -> Tensor:
    """Return a model's tokens of texts, `[N, context]`; the tokenizers of transformers give a mapping."""
    given = encoder.tokenize(texts)
    try:
        tokens: Tensor | None = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        tokens = None
    if tokens is None or tokens.ndim != 2 or len(tokens) != len(texts):
        raise DeglaError(
            f"model {encoder.name!r}: tokenize returned {_kind(given)}; it must return the tokens alone, a tensor "
            f"[{len(texts)}, context_length], for example its 'input_ids', all padded to one length."
        )
    return tokens


def _kind(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def rows_of(encoder: EmbeddingModel, rows: Any, count: int) -> Tensor:
    """Return what a model gave for a batch of `count`, if it is one tensor of rows; others may give several outputs."""
    if not isinstance(rows, Tensor):
        raise DeglaError(
            f"model {encoder.name!r} returned a {type(rows).__name__}; encode_images and encode_captions must return "
            "one tensor, [batch, dimension]."
        )
    if rows.ndim != 2 or len(rows) != count:
        raise DeglaError(
            f"model {encoder.name!r} returned shape {tuple(rows.shape)} for {counted(count, 'input')}; expected one "
            f"row each, [{count}, dimension]."
        )
    return rows


def unit_tensor(encoder: EmbeddingModel, rows: Any, names: Sequence[str]) -> Tensor:
    """Return a model's rows for a batch of these names at length one, in float32 on the CPU."""
    wide = rows_of(encoder, rows, len(names)).detach().float().cpu()
    units = torch.nn.functional.normalize(wide, dim=-1)
    _refuse_wrong(encoder, units.numpy(), names.__getitem__)
    return units


def _refuse_wrong(encoder: EmbeddingModel, units: EmbeddingRows, name_of: Callable[[int], str]) -> None:
    wrong = ~(np.isfinite(units).all(axis=1) & units.any(axis=1))
    if wrong.any():
        raise DeglaError(
            f"model {encoder.name!r}: the embedding of {name_of(int(wrong.argmax()))!r} is zero or not finite "
            f"({int(wrong.sum())} of {len(units)} in its batch). Load it in fp32, or check its training for a loss "
            "that became NaN."
        )


def _fetched(rows: Tensor) -> Callable[[], Tensor]:
    """Start copying rows to main memory, in float32; the returned function waits for them."""
    # Always copy: a model may reuse this memory for its next rows.
    rows = rows.detach().to(torch.float32, copy=True)
    if rows.device.type != "cuda":
        return rows.cpu
    copied, done = rows.to("cpu", non_blocking=True), torch.cuda.Event()
    # The stream of the model's own GPU: the default is the first GPU, where there is nothing to wait for.
    done.record(torch.cuda.current_stream(rows.device))

    def wait() -> Tensor:
        done.synchronize()
        return copied

    return wait


def _autocast(encoder: EmbeddingModel) -> contextlib.AbstractContextManager[object]:
    if not takes_precision(encoder):
        return contextlib.nullcontext()
    dtype = torch.float16 if encoder.precision == "fp16" else torch.bfloat16
    # Disabled for float32: the caller may have it enabled.
    return torch.autocast(torch.device(encoder.device).type, dtype, enabled=encoder.precision in HALVES)


@contextlib.contextmanager
def _whole_convolutions() -> Iterator[None]:
    """On a GPU PyTorch computes convolutions of float32, such as those of an image's patches, in TF32 by default."""
    # From version 2.9 on, which refuses to read the older setting in a program that uses its new ones.
    conv: Any = getattr(cudnn, "conv", None)
    place, name, whole = (cudnn, "allow_tf32", False) if conv is None else (conv, "fp32_precision", "ieee")
    before = getattr(place, name)
    setattr(place, name, whole)
    try:
        yield
    finally:
        setattr(place, name, before)


def _no_rows() -> EmbeddingRows:
    return np.empty((0, 0), dtype=np.float32)


@contextlib.contextmanager
def forward_only(encoder: EmbeddingModel) -> Iterator[None]:
    """Compute embeddings as evaluation does, whatever mode, autocast or settings the caller has; then restore these."""
    with (
        _evaluating(encoder),
        torch.inference_mode(),
        _autocast(encoder),
        _whole_convolutions(),
        float32_by_default(),
    ):
        yield


@contextlib.contextmanager
def _evaluating(encoder: Any) -> Iterator[None]:
    """Switch to evaluation mode (no dropout), and back to training mode if it was on."""
    training = getattr(encoder, "training", False)
    if training:
        encoder.eval()
    try:
        yield
    finally:
        if training:
            encoder.train()


def drawn_numbers(count: int, most: int | None, *, key: str) -> list[int]:
    """Return the numbers below `count`, sorted; at most `most` of them, drawn at random."""
    return list(range(count)) if most is None or most >= count else sorted(Random(key).sample(range(count), most))


def open_images(
    encoder: Encoder, images: Sequence[ItemImage], numbers: Sequence[int], *, root: Path, name: str, size: int = 0
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield batches of images by index, opened, transformed and on the model's device.

    Args:
        encoder: model whose transform is used.
        images: all images.
        numbers: indices of the images to open.
        root: folder that their paths are relative to.
        name: of the task, for the progress display.
        size: batch size; 0: 32 on a CPU, else 128.
    """
    size = size or (32 if encoder.device.type == "cpu" else 128)
    with TaskProgress(show=True).task(name, len(numbers)) as advance:
        for start in range(0, len(numbers), size):
            batch = list(numbers[start : start + size])
            content = [(images[number], read_image_file(root, images[number].path)) for number in batch]
            pixels = [encoder.transform(decode_item(data, root, image)) for image, data in content]
            yield batch, torch.stack(pixels).to(encoder.device)
            advance(len(batch))
