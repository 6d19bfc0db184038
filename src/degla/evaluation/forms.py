"""Forms of questions shared by several benchmarks: two by two, one image with options, one text with images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from degla.evaluation.benchmark import ImageOrPath, ItemPlace, Metric, pair_question
from degla.records import PairItem

SQUARE = ("group", "text", "image")
"""Winoground's three scores: both, the right text of each image, the right image of each text."""


def square_metrics(*names: str) -> tuple[Metric, ...]:
    """Return metrics of two images with two texts, in this order; default: group, text, image."""
    return tuple(Metric(name=name, verdict=f"{name}_ok") for name in names or SQUARE)


def square_question(place: ItemPlace, images: Sequence[ImageOrPath], texts: Sequence[str], **fields: Any) -> PairItem:
    """Make an item with as many images as texts, the k-th text true of the k-th image; `fields` as for `PairItem`."""
    count = range(len(texts))
    return pair_question(place, images, texts, tuple(tuple(int(row == at) for at in count) for row in count), **fields)


def choice_question(
    place: ItemPlace, image: ImageOrPath, options: Sequence[str], *, right: int, **fields: Any
) -> PairItem:
    """Make an item of one image with options in the order of the file; the one at index `right` is true."""
    return pair_question(place, [image], options, (tuple(int(at == right) for at in range(len(options))),), **fields)


def image_choice_question(
    place: ItemPlace, text: str, images: Sequence[ImageOrPath], *, right: int, **fields: Any
) -> PairItem:
    """Make an item of one text with images; it is true of the one at index `right`."""
    return pair_question(place, images, [text], tuple((int(at == right),) for at in range(len(images))), **fields)
