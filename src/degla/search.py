"""Text-to-image search over a folder of images, with several models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from degla.allowance import usable_cores
from degla.api import encode_captions
from degla.data.decoding import ImageError, Subject, decode_part, read_file
from degla.errors import InputError
from degla.evaluation.cache import DiskCache, image_identity_of
from degla.evaluation.embed import Embedder
from degla.evaluation.models import EmbeddingModel
from degla.evaluation.scoring import EmbeddingRows
from degla.progress import TaskProgress
from degla.records import ItemImage

_NO_IMAGES = {".pdf", ".eps", ".ps", ".mpg", ".mpeg"}
"""File extensions known to Pillow of documents and videos, which are skipped."""


@dataclass(frozen=True)
class Hit:
    """An image that a model found.

    Attributes:
        path: relative to the folder.
        cosine: cosine similarity to the text.
        ranks: rank by each model, 1 for the best.
    """

    path: str
    cosine: float
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder and its subfolders.

    Attributes:
        folder: the folder.
        paths: sorted paths relative to it.
        bad: error message for each image file that cannot be read.
    """

    folder: Path
    paths: tuple[str, ...]
    bad: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> ImageFolder:
        """Find the images and read each completely, so that damaged ones are reported before anything is computed.

        Raises:
            InputError: there is no such folder, or it has no readable image.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of images.")
        paths = sorted(_image_paths(folder))
        with ThreadPoolExecutor(usable_cores()) as threads:
            faults = list(threads.map(lambda path: _fault(folder, path), paths))
        good = tuple(path for path, fault in zip(paths, faults, strict=True) if fault is None)
        bad = tuple(fault for fault in faults if fault is not None)
        if not good:
            raise InputError(f"{folder}: contains no readable image. " + (bad[0] if bad else "Choose another folder."))
        return cls(folder, good, bad)


def _image_paths(folder: Path) -> Iterator[str]:
    endings = Image.registered_extensions().keys() - _NO_IMAGES
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in endings and not hidden and not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _fault(folder: Path, path: str) -> str | None:
    subject = Subject(f"{path}", if_missing="It is a broken link.", if_damaged="Replace the file.")
    try:
        # Decode a JPEG at an eighth of its size: reads all compressed data, but skips the costly transform.
        decode_part(read_file(folder / path, subject), subject, draw=lambda size: (0, 0, *size), least=1)
    except ImageError as error:
        return str(error)
    return None


class ImageSearch:
    """Search over the embeddings of a folder's images by several models.

    Args:
        images: the folder.
        models: from `degla.load_model`.
        cache: embedding cache; None disables caching.
        progress: where to show progress.

    Raises:
        InputError: an image changed meanwhile.
        DeglaError: an embedding is zero or not finite.
    """

    def __init__(
        self,
        images: ImageFolder,
        models: Sequence[EmbeddingModel],
        *,
        cache: DiskCache | None = None,
        progress: TaskProgress | None = None,
    ) -> None:
        self.images, self.models = images, tuple(models)
        items = [ItemImage(path=path) for path in images.paths]
        self._rows: list[EmbeddingRows] = []
        for model in self.models:
            options = {} if cache is None else {"cache": cache, "image_identity": image_identity_of(model)}
            embedder = Embedder(model, images.folder, progress=progress or TaskProgress(), **options)  # type: ignore[arg-type]
            embeddings = embedder.embed(items, [])
            self._rows.append(embeddings.images[[embeddings.image_row[image] for image in items]])

    def search(self, text: str, *, count: int) -> tuple[tuple[Hit, ...], ...]:
        """Return each model's best images for a text, best first; ties are ordered by path.

        Raises:
            InputError: the text is empty.
        """
        if not text.strip():
            raise InputError("the text is empty. Describe what the image should show.")
        cosines = [
            rows @ encode_captions(model, [text]).numpy()[0]
            for model, rows in zip(self.models, self._rows, strict=True)
        ]
        orders = [np.argsort(-values, kind="stable") for values in cosines]
        ranks = np.stack([np.argsort(order, kind="stable") + 1 for order in orders])
        return tuple(
            tuple(
                Hit(self.images.paths[place], float(values[place]), tuple(map(int, ranks[:, place])))
                for place in order[:count]
            )
            for values, order in zip(cosines, orders, strict=True)
        )
