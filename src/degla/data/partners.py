"""Gives captions a second image and the text that is true of it: from negatives, and similar or drawn images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from degla.data.neighbours import NeighbourRecord
from degla.errors import InputError
from degla.records import CaptionRecord, NegativeRecord

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
            yield caption.model_copy(update={"partner_image": image, "partner_text": text})
        else:
            yield caption
    if not given:
        raise InputError(
            f"no caption has both a second image ({images} have one) and an accepted negative of the rule {rule} "
            f"({len(texts)} have one)."
        )
