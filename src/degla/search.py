"""Retrieval over a folder of one's own pictures: a folder and models enter, for a text each model's best ones leave."""

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

_NO_PICTURES = {".pdf", ".eps", ".ps", ".mpg", ".mpeg"}
"""Endings that Pillow knows, of files that are pages or films."""


@dataclass(frozen=True)
class Hit:
    """A picture that a model chose.

    Attributes:
        path: relative to the folder.
        cosine: to the text.
        ranks: 1 for the best, by each of the models.
    """

    path: str
    cosine: float
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder and the folders below it.

    Attributes:
        folder: their root.
        pictures: paths relative to it, in order.
        bad: what is wrong with each file that is called a picture and cannot be read.
    """

    folder: Path
    pictures: tuple[str, ...]
    bad: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> PictureFolder:
        """Look for pictures and read each to its end, so that a damaged one is named before anything is computed.

        Raises:
            InputError: there is no such folder, or no picture in it can be read.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder of pictures.")
        paths = sorted(_picture_paths(folder))
        with ThreadPoolExecutor(usable_cores()) as threads:
            faults = list(threads.map(lambda path: _fault(folder, path), paths))
        good = tuple(path for path, fault in zip(paths, faults, strict=True) if fault is None)
        bad = tuple(fault for fault in faults if fault is not None)
        if not good:
            raise InputError(
                f"{folder}: holds no picture that can be read. " + (bad[0] if bad else "Name another one.")
            )
        return cls(folder, good, bad)


def _picture_paths(folder: Path) -> Iterator[str]:
    endings = Image.registered_extensions().keys() - _NO_PICTURES
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in endings and not hidden and not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _fault(folder: Path, path: str) -> str | None:
    subject = Subject(f"{path}", if_missing="It is a broken link.", if_damaged="Replace the file.")
    try:
        # A JPEG at an eighth of its size: all compressed data is still read, but the costly transform is skipped.
        decode_part(read_file(folder / path, subject), subject, draw=lambda size: (0, 0, *size), least=1)
    except ImageError as error:
        return str(error)
    return None


class PictureSearch:
    """Embeddings of a folder's pictures by several models, and searches in them.

    Args:
        pictures: the folder.
        models: from `degla.load_model`.
        cache: where embeddings of earlier runs are kept; None: none are.
        progress: where to show how far it is.

    Raises:
        InputError: a picture was changed meanwhile.
        DeglaError: embeddings are not finite.
    """

    def __init__(
        self,
        pictures: PictureFolder,
        models: Sequence[EmbeddingModel],
        *,
        cache: DiskCache | None = None,
        progress: TaskProgress | None = None,
    ) -> None:
        self.pictures, self.models = pictures, tuple(models)
        images = [ItemImage(path=path) for path in pictures.pictures]
        self._rows: list[EmbeddingRows] = []
        for model in self.models:
            kept = {} if cache is None else {"cache": cache, "image_identity": image_identity_of(model)}
            embedder = Embedder(model, pictures.folder, progress=progress or TaskProgress(), **kept)  # type: ignore[arg-type]
            embedded = embedder.embed(images, [])
            self._rows.append(embedded.images[[embedded.image_row[image] for image in images]])

    def search(self, text: str, *, count: int) -> tuple[tuple[Hit, ...], ...]:
        """For each model its best pictures for a text, best first; equal ones in the order of their paths.

        Raises:
            InputError: the text is empty.
        """
        if not text.strip():
            raise InputError("the text is empty: write what the picture should show.")
        cosines = [
            rows @ encode_captions(model, [text]).numpy()[0]
            for model, rows in zip(self.models, self._rows, strict=True)
        ]
        orders = [np.argsort(-values, kind="stable") for values in cosines]
        ranks = np.stack([np.argsort(order, kind="stable") + 1 for order in orders])
        return tuple(
            tuple(
                Hit(self.pictures.pictures[place], float(values[place]), tuple(map(int, ranks[:, place])))
                for place in order[:count]
            )
            for values, order in zip(cosines, orders, strict=True)
        )
