"""Forms of questions that several benchmarks share: two by two, one image with options, one text with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from degla.evaluation.benchmark import Metric
from degla.records import ItemImage, PairItem

ItemPlace = tuple[str, str, object]
"""Benchmark, part, and the item's key in it."""
ItemPictures = Sequence[str | ItemImage]

SQUARE = ("group", "text", "image")
"""Winoground's three scores: both, the right text of each image, the right image of each text."""


def square_metrics(*names: str) -> tuple[Metric, ...]:
    """Metrics of two images with two texts, in this order; without names group, text, image."""
    return tuple(Metric(name=name, verdict=f"{name}_ok") for name in names or SQUARE)


def square_question(place: ItemPlace, images: ItemPictures, texts: Sequence[str], **fields: Any) -> PairItem:
    """As many images as texts, each text true of the image in its place; `fields` as for `PairItem`."""
    count = len(texts)
    gold = tuple(tuple(int(row == column) for column in range(count)) for row in range(count))
    return _item(place, images, tuple(texts), gold, fields)


def choice_question(
    place: ItemPlace, image: str | ItemImage, options: Sequence[str], *, right: int, **fields: Any
) -> PairItem:
    """One image with options in the order of the file, of which the one at `right` is true."""
    return _item(place, [image], tuple(options), (tuple(int(at == right) for at in range(len(options))),), fields)


def picture_question(place: ItemPlace, text: str, images: ItemPictures, *, right: int, **fields: Any) -> PairItem:
    """One text with pictures, of which it is true of the one at `right`."""
    return _item(place, images, (text,), tuple((int(at == right),) for at in range(len(images))), fields)


def _item(
    place: ItemPlace,
    images: ItemPictures,
    texts: tuple[str, ...],
    gold: tuple[tuple[int, ...], ...],
    fields: dict[str, Any],
) -> PairItem:
    benchmark, part, key = place
    row = {
        "id": f"{benchmark}/{part}/{key}",
        "benchmark": benchmark,
        "part": part,
        "images": tuple(ItemImage(path=image) if isinstance(image, str) else image for image in images),
        "texts": texts,
        "gold": gold,
    }
    return PairItem.model_validate(row | fields)
