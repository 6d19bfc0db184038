"""Score frozen towers part by part: image crops against phrases of texts, without training.

After "Adding simple structure at inference" (arXiv 2506.09691), whose code was not released: S(I, T) = 1/G sum_g max_r
cos(v_r, t_g) over G parts g of the text and the crops r of the image. Crops and parts are this package's own choice:
the whole image, 2 x 2 and 3 x 3 overlapping crops; the whole text, its noun phrases, and each pair of neighbouring
phrases with the words between them. The paper's numbers are not comparable with these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from degla.errors import InputError
from degla.evaluation.embed import EmbeddedItems
from degla.evaluation.image_files import decode_image, read_image_file
from degla.evaluation.scoring import Similarities
from degla.negatives.units import named_parts
from degla.records import ImageReading, ItemImage, PairItem


@dataclass(frozen=True)
class RegionTable:
    """The crops that represent an image, and the phrases that represent a text.

    Attributes:
        crops: of each image, including the image itself if the grid has a 1.
        parts: of each text, the text itself first.
    """

    crops: dict[ItemImage, tuple[ItemImage, ...]]
    parts: dict[str, tuple[str, ...]]

    @property
    def images(self) -> list[ItemImage]:
        """All distinct crops."""
        return list(dict.fromkeys(crop for some in self.crops.values() for crop in some))

    @property
    def texts(self) -> list[str]:
        """All distinct parts."""
        return list(dict.fromkeys(part for some in self.parts.values() for part in some))

    def similarities(self, items: Sequence[PairItem], embeddings: EmbeddedItems) -> Similarities:
        """Compute S of each image with each text of an item, [N, K, L].

        Args:
            items: of equal shape.
            embeddings: of all crops and parts.
        """
        return np.array(
            [[[self._similarity(image, text, embeddings) for text in item.texts] for image in item.images]
             for item in items], dtype=np.float32,
        )  # fmt: skip

    def _similarity(self, image: ItemImage, text: str, embeddings: EmbeddedItems) -> np.float32:
        crops = embeddings.images[[embeddings.image_row[crop] for crop in self.crops[image]]]
        parts = embeddings.texts[[embeddings.text_row[part] for part in self.parts[text]]]
        # Multiplied and added along the row, as `scoring.pair_similarities` does: one crop and one part give its bits.
        cosines = (crops[:, None] * parts[None]).sum(axis=-1)
        return np.float32(cosines.max(axis=0).mean(dtype=np.float32))


@dataclass(frozen=True)
class Regions:
    """How images are cropped.

    Attributes:
        grid: numbers n of crops per side, each 1 or more: n x n crops of 2 / (n + 1) of the image's width and height,
            each overlapping half of the next; 1 is the whole image.
    """

    grid: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        if not self.grid or any(count < 1 for count in self.grid):
            raise InputError(f"--crops {' '.join(map(str, self.grid))}: give the crops per side, each 1 or more.")

    @property
    def name(self) -> str:
        """For labels."""
        return f"regions {'+'.join(map(str, self.grid))}"

    def table(
        self, images: Iterable[ItemImage], texts: Iterable[str], *, root: Path, reading: ImageReading = "upright"
    ) -> RegionTable:
        """Find the crops of images and the parts of texts; every image is opened for its size.

        Args:
            images: duplicates are ignored.
            texts: likewise.
            root: folder that image paths are relative to.
            reading: how images become pixels.

        Raises:
            InputError: an image cannot be read, or the tagger is not installed.
        """

        def size_of(path: str) -> tuple[int, int]:
            return decode_image(read_image_file(root, path), root, path, reading=reading).size

        images, texts = list(dict.fromkeys(images)), list(dict.fromkeys(texts))
        paths = list(dict.fromkeys(image.path for image in images))
        with ThreadPoolExecutor() as pool:
            sizes = dict(zip(paths, pool.map(size_of, paths), strict=True))
        crops = {image: self.crops(image, sizes[image.path]) for image in images}
        parts = {
            text: tuple(dict.fromkeys([text, *some])) for text, some in zip(texts, named_parts(texts), strict=True)
        }
        return RegionTable(crops, parts)

    def crops(self, image: ItemImage, size: tuple[int, int]) -> tuple[ItemImage, ...]:
        """Return the crops of an image of this width and height, or of its own crop, that show a part of the image."""
        left, top, width, height = image.crop or (0, 0, *size)
        crops = []
        for count in self.grid:
            if count == 1:
                crops.append(image)
                continue
            wide, high = max(1, round(2 * width / (count + 1))), max(1, round(2 * height / (count + 1)))
            for row in range(count):
                for column in range(count):
                    x = left + min(round(column * width / (count + 1)), width - wide)
                    y = top + min(round(row * height / (count + 1)), height - high)
                    if x + wide > 0 and y + high > 0:  # A box may begin above or left of the image.
                        crops.append(ItemImage(path=image.path, crop=(x, y, wide, high)))
        return tuple(dict.fromkeys(crops)) or (image,)


def require_pairs(entries: Iterable[object], *, benchmark: str) -> None:
    """Reject a benchmark that ranks long lists of candidates, each of which would need a table of cosines.

    Raises:
        InputError: names the benchmark.
    """
    if not all(isinstance(entry, PairItem) and entry.images for entry in entries):
        raise InputError(
            f"--scorer regions compares the few images and texts of one question, but {benchmark} has other questions "
            "(retrieval, classes or only texts). Omit the benchmark or the flag."
        )
