"""Similar images: hard images that join a batch, and second images of captions with the text that is true of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as arrow
from pydantic import Field

from degla.data.pairs import PairRow
from degla.data.randomness import stream
from degla.errors import InputError
from degla.records import CaptionRecord, NegativeRecord, Record, read_jsonl


class NeighbourRecord(Record):
    """Captions of images that are similar to a caption's image, the most similar first.

    Attributes:
        caption_id: `CaptionRecord.id`.
        neighbours: ids of captions of other images.
    """

    caption_id: str = Field(min_length=1)
    neighbours: tuple[str, ...]


class Neighbours:
    """The neighbours of each training row, by row number.

    Args:
        rows: of the training, in the order of the data set.
        records: for all of them; records and neighbours that are not among the rows are passed over.
        per_row: neighbours that are drawn a row.
        seed: of the draws.
        where: names the file in messages.

    Raises:
        InputError: a row has no neighbour among the rows.
    """

    def __init__(
        self, rows: Sequence[PairRow], records: Iterable[NeighbourRecord], *, per_row: int, seed: int, where: str
    ) -> None:
        self.per_row, self.seed = per_row, seed
        number_of = {row.caption.id: number for number, row in enumerate(rows)}
        found: list[list[int]] = [[] for _ in rows]
        for record in records:
            own = number_of.get(record.caption_id)
            if own is not None:
                found[own] = [number_of[name] for name in record.neighbours if name in number_of]
        lonely = next((row.caption.id for row, near in zip(rows, found, strict=True) if not near), None)
        if lonely is not None:
            raise InputError(
                f"{where}: caption {lonely!r} has no neighbour among the captions of this training. Make the file "
                "from the same captions: degla neighbours CAPTIONS --images DIR --model MODEL --out FILE."
            )
        # One Arrow column, so that worker processes do not copy it.
        self._rows = arrow.array(found, arrow.large_list(arrow.int64()))

    def draw(self, epoch: int, index: int) -> list[int]:
        """The `per_row` rows that join row `index` in an epoch; one comes twice only where it has fewer."""
        near: list[int] = self._rows[index].as_py()
        rng = stream("neighbours", seed=self.seed, epoch=epoch, index=index)
        # Always as many, so that all processes have batches of one size.
        return rng.sample(near, self.per_row) if len(near) >= self.per_row else rng.choices(near, k=self.per_row)


def read_neighbours(path: Path, rows: Sequence[PairRow], *, per_row: int, seed: int) -> Neighbours:
    """The file that `degla neighbours` writes, for these rows.

    Raises:
        InputError: the file or a record of it is wrong; or see `Neighbours`.
    """
    return Neighbours(rows, read_jsonl(NeighbourRecord, path), per_row=per_row, seed=seed, where=str(path))


ImageOf = Callable[[CaptionRecord], str | None]
"""The second image of a caption, None where there is none."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def similar_images(captions: Sequence[CaptionRecord], neighbours: Iterable[NeighbourRecord]) -> ImageOf:
    """The image of each caption's nearest neighbour, as CoN-CLIP takes its distractors."""
    images = {caption.id: caption.image for caption in captions}
    nearest = {
        record.caption_id: next((images[name] for name in record.neighbours if name in images), None)
        for record in neighbours
    }
    return lambda caption: nearest.get(caption.id)


def drawn_images(folder: Path) -> ImageOf:
    """The image that is called like the caption's id, as a text-to-image model drew it from the negative."""
    found = {path.stem: str(path.resolve()) for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}
    return lambda caption: found.get(caption.id)


def with_partners(
    captions: Sequence[CaptionRecord], negatives: Iterable[NegativeRecord], image_of: ImageOf, *, rule: str
) -> Iterator[CaptionRecord]:
    """All captions; those that have both a second image and an accepted negative of the rule with them as partner.

    Raises:
        InputError: at the end, no caption has both.
    """
    texts: dict[str, str] = {}
    for negative in negatives:
        if negative.accepted and negative.rule == rule and negative.text:
            texts.setdefault(negative.caption_id, negative.text)
    given = images = 0
    for caption in captions:
        image, text = image_of(caption), texts.get(caption.id)
        images += image is not None
        if image is not None and text is not None:
            given += 1
            yield caption.model_copy(update={"distractor_image": image, "distractor_text": text})
        else:
            yield caption
    if not given:
        raise InputError(
            f"no caption has both a second image ({images} have one) and an accepted negative of the rule {rule} "
            f"({len(texts)} have one)."
        )
