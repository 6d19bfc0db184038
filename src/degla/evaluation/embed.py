"""The embedding table: every distinct image and text of all asked benchmarks enters once, unit rows leave.

Texts are told apart by their tokens, not by their letters: two texts that the tokenizer reads alike get the
very same row, so that they tie exactly, as they must.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from degla.errors import DeglaError, InputError
from degla.evaluation.progress import Progress
from degla.evaluation.scoring import Rows, unit_rows
from degla.records import ItemImage

if TYPE_CHECKING:
    from torch import Tensor

Cache = MutableMapping[str, Rows]
"""Rows `[D]` by key. A dict keeps them in memory; anything that behaves like one may keep them elsewhere."""


class Encoder(Protocol):
    """What evaluation needs of a model; `degla.model.encoder.Encoder` satisfies it."""

    @property
    def name(self) -> str:
        """How the user named the model."""

    @property
    def activation(self) -> str:
        """Activation function, "quick_gelu" or "gelu": it changes scores more than most methods do."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights."""

    @property
    def precision(self) -> str:
        """Number format of the forward pass, for example "fp32"."""

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a text."""

    @property
    def trims(self) -> bool:
        """True where token rows may be cut to the longest text of a batch."""

    @property
    def device(self) -> Any:
        """Where inputs must be."""

    @property
    def tokenize(self) -> Any:
        """Callable: list of N texts to integer tokens `[N, context]`, padded with 0."""

    @property
    def transform(self) -> Any:
        """Callable: PIL image to float `[3, H, W]`, the model's evaluation transform."""

    def encode_images(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to unit rows `[B, D]`."""

    def encode_captions(self, tokens: Tensor) -> Tensor:
        """`[N, T]` to unit rows `[N, D]`."""


@dataclass(frozen=True)
class Embeddings:
    """Unit float32 rows of all images and texts of a run.

    Attributes:
        images: `[I, D]`.
        image_row: an image to its row.
        texts: `[J, D]`, one row a distinct token sequence.
        text_row: a text to its row; texts with equal tokens share one.
    """

    images: Rows
    image_row: dict[ItemImage, int]
    texts: Rows
    text_row: dict[str, int]


@dataclass(frozen=True)
class Embedder:
    """Embeds with one model.

    Attributes:
        encoder: the model.
        root: folder that image paths are relative to.
        images_per_batch: larger is not faster on CPUs, where 32 fill the cores.
        texts_per_batch: likewise.
        workers: threads that open and transform images; 0: one a core.
        cache: rows of earlier runs, read and filled.
        identity: tells models apart in a cache that they share: weights, activation and precision.
        progress: where to show how far it is.
    """

    encoder: Encoder
    root: Path
    images_per_batch: int = 64
    texts_per_batch: int = 256
    workers: int = 0
    cache: Cache = field(default_factory=dict)
    identity: str = ""
    progress: Progress = field(default_factory=Progress)

    def embed(self, images: Iterable[ItemImage], texts: Iterable[str]) -> Embeddings:
        """Embed every distinct image and text once.

        Raises:
            InputError: an image cannot be read, or a crop lies outside its image.
            DeglaError: the model returns rows of another number than it was given.
        """
        import torch

        with _evaluating(self.encoder), torch.inference_mode():
            image_row, image_rows = self._images(list(dict.fromkeys(images)))
            text_row, text_rows = self._texts(list(dict.fromkeys(texts)))
        return Embeddings(image_rows, image_row, text_rows, text_row)

    def _images(self, images: list[ItemImage]) -> tuple[dict[ItemImage, int], Rows]:
        import torch

        keys = [self._key("image", f"{self.root / image.path}|{image.crop}") for image in images]
        todo = [index for index, key in enumerate(keys) if key not in self.cache]
        batches = [todo[start : start + self.images_per_batch] for start in range(0, len(todo), self.images_per_batch)]
        with (
            ThreadPoolExecutor(self.workers or os.cpu_count() or 1, thread_name_prefix="degla-image") as pool,
            self.progress.task("images", len(todo)) as advance,
        ):
            ahead: dict[int, list[Future[Tensor]]] = {}
            try:
                for number, batch in enumerate(batches):
                    # Three batches are in flight, so memory stays small however long the list is.
                    for later in range(number, min(number + 3, len(batches))):
                        if later not in ahead:
                            ahead[later] = [pool.submit(self._open, images[i]) for i in batches[later]]
                    pixels = torch.stack([future.result() for future in ahead.pop(number)])
                    rows = self.encoder.encode_images(pixels.to(self.encoder.device))
                    self._keep([keys[i] for i in batch], rows)
                    advance(len(batch))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return {image: row for row, image in enumerate(images)}, self._gather(keys)

    def _open(self, image: ItemImage) -> Tensor:
        from PIL import Image

        path = self.root / image.path
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: cannot be read as an image: {error}. Fetch the file again.") from None
        if image.crop is not None:
            x, y, width, height = image.crop
            if width <= 0 or height <= 0 or x < 0 or y < 0:
                raise InputError(f"{path}: crop {image.crop} must be (x, y, width, height) inside the image.")
            if x + width > picture.width or y + height > picture.height:
                raise InputError(
                    f"{path}: crop {image.crop} lies outside the image of {picture.width} x {picture.height} "
                    "pixels. The image is not the one that the annotation is about."
                )
            picture = picture.crop((x, y, x + width, y + height))
        pixels: Tensor = self.encoder.transform(picture)
        return pixels

    def _texts(self, texts: list[str]) -> tuple[dict[str, int], Rows]:
        import torch

        tokens: list[NDArray[np.int64]] = []
        for start in range(0, len(texts), 4096):
            block = self.encoder.tokenize(texts[start : start + 4096])
            tokens.extend(np.asarray(torch.as_tensor(block).cpu(), dtype=np.int64))
        distinct: dict[bytes, int] = {}
        text_row = {
            text: distinct.setdefault(row.tobytes(), len(distinct)) for text, row in zip(texts, tokens, strict=True)
        }
        sequences = [np.frombuffer(row, dtype=np.int64) for row in distinct]
        keys = [self._key("text", hashlib.sha256(row.tobytes()).hexdigest()) for row in sequences]
        lengths = [int(row.nonzero()[0][-1]) + 1 if row.any() else 1 for row in sequences]
        todo = sorted((i for i, key in enumerate(keys) if key not in self.cache), key=lambda i: lengths[i])
        with self.progress.task("texts", len(todo)) as advance:
            for start in range(0, len(todo), self.texts_per_batch):
                batch = todo[start : start + self.texts_per_batch]
                stacked = np.stack([sequences[i] for i in batch])
                if self.encoder.trims:
                    stacked = stacked[:, : lengths[batch[-1]]]
                rows = self.encoder.encode_captions(torch.from_numpy(stacked.copy()).to(self.encoder.device))
                self._keep([keys[i] for i in batch], rows)
                advance(len(batch))
        return text_row, self._gather(keys)

    def _key(self, kind: str, content: str) -> str:
        return f"{self.identity}:{kind}:{content}"

    def _keep(self, keys: Sequence[str], rows: Tensor) -> None:
        values = unit_rows(rows.detach().float().cpu().numpy())
        if values.ndim != 2 or len(values) != len(keys):
            raise DeglaError(
                f"model {self.encoder.name!r} returned {tuple(values.shape)} for {len(keys)} inputs; "
                f"one row each, [{len(keys)}, dimension], is needed."
            )
        for key, value in zip(keys, values, strict=True):
            self.cache[key] = value

    def _gather(self, keys: Sequence[str]) -> Rows:
        return np.stack([self.cache[key] for key in keys]) if keys else np.empty((0, 0), dtype=np.float32)


@contextlib.contextmanager
def _evaluating(encoder: Any) -> Iterator[None]:
    """Switch dropout and the like off, and back on if they were on."""
    training = getattr(encoder, "training", False)
    if training:
        encoder.eval()
    try:
        yield
    finally:
        if training:
            encoder.train()
