"""Composites of two images with the texts of both: the data of CLIC (arXiv 2505.24424), made from captions.

Each image gets a partner of the same orientation. Wide images are stacked, tall ones placed side by side. Each fills
half of the square, ignoring its aspect ratio. The order is drawn separately for the image and for each text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Final

from PIL import Image

from degla.data.images import read_image
from degla.data.pairs import normalized_words
from degla.errors import InputError
from degla.records import CaptionRecord, NegativeRecord
from degla.tagger import load_tagger

RULE: Final = "exchange_words"
"""Name of the negatives' rule."""
_FIXED: Final = frozenset(["AUX", "DET", "INTJ", "PART", "PUNCT", "SYM", "X", "SCONJ", "CCONJ"])
"""Parts of speech whose words are not exchanged."""
_ATTEMPTS: Final = 50
_BATCH: Final = 256


@dataclass(frozen=True)
class Composite:
    """One row.

    Attributes:
        caption: both captions in one order; `positives` are the other order, then twice an additional sentence of each
            image. `image` is the file name to write.
        negative: both captions with one word of each exchanged; None if no exchange changes the meaning.
        picture: square, RGB.
    """

    caption: CaptionRecord
    negative: NegativeRecord | None
    picture: Image.Image


@dataclass(frozen=True)
class _Scene:
    """One image with its texts and the tagged words of its caption."""

    record: CaptionRecord
    further: tuple[str, ...]
    words: tuple[tuple[str, str], ...]


def composites(captions: Sequence[CaptionRecord], *, folder: Path, size: int, seed: int) -> Iterator[Composite]:
    """Yield one composite per image that has a partner of the same orientation with a different caption.

    Args:
        captions: an image's additional sentences are the `positives` of its first caption, else its other captions.
        folder: base of relative image paths.
        size: height and width of the composites in pixels, an even number.
        seed: of all random draws.

    Raises:
        InputError: there are fewer than two images, an image cannot be read, or the tagger is not installed.
    """
    scenes = _scenes(captions)
    if len(scenes) < 2:
        raise InputError(f"the captions cover only {len(scenes)} image; a composite needs two.")
    for number, scene in enumerate(scenes):
        chance = Random(f"composite/{seed}/{scene.record.image_id}")
        picture = read_image(scene.record.image, folder=folder, caption_id=scene.record.id)
        for _ in range(_ATTEMPTS):
            other = scenes[(number + chance.randrange(1, len(scenes))) % len(scenes)]
            if normalized_words(other.record.text) == normalized_words(scene.record.text):
                continue  # Both orders would say the same, so the positive would equal the caption.
            partner = read_image(other.record.image, folder=folder, caption_id=other.record.id)
            if is_wide(partner) == is_wide(picture):
                pair = [picture, partner]
                chance.shuffle(pair)
                yield _composite(scene, other, join(*pair, size=size), chance)
                break


def is_wide(picture: Image.Image) -> bool:
    """Whether an image is at least as wide as it is high."""
    return picture.width >= picture.height


def join(first: Image.Image, second: Image.Image, *, size: int) -> Image.Image:
    """Join two images of the same orientation into a square: wide ones stacked, tall ones side by side."""
    wide, half = is_wide(first), size // 2
    joined = Image.new("RGB", (size, size))
    for place, picture in enumerate((first, second)):
        part = picture.resize((size, half) if wide else (half, size), Image.Resampling.BICUBIC)
        joined.paste(part, (0, place * half) if wide else (place * half, 0))
    return joined


def _scenes(captions: Sequence[CaptionRecord]) -> list[_Scene]:
    of_image: dict[str, list[CaptionRecord]] = {}
    for caption in captions:
        of_image.setdefault(caption.image_id, []).append(caption)
    firsts = [records[0] for records in of_image.values()]
    tagger: Any = load_tagger(exclude=("parser", "ner", "lemmatizer"))
    tagged = tagger.pipe((_plain(record.text) for record in firsts), batch_size=_BATCH)
    return [
        _Scene(
            records[0],
            records[0].positives or tuple(other.text for other in records[1:]),
            tuple((token.text, token.pos_) for token in words),
        )
        for records, words in zip(of_image.values(), tagged, strict=True)
    ]


def _composite(scene: _Scene, other: _Scene, picture: Image.Image, chance: Random) -> Composite:
    texts = [_plain(scene.record.text), _plain(other.record.text)]
    positives = [_as_sentences(texts[::-1])]
    if scene.further and other.further:
        pairs = zip(_two(scene.further, chance), _two(other.further, chance), strict=True)
        positives += [_as_sentences(chance.sample([_plain(text) for text in pair], 2)) for pair in pairs]
    name = f"{scene.record.id}+{other.record.id}"
    # Ids may contain any character, so the file is named by a number.
    image = f"{Random(name).getrandbits(64):016x}.png"
    caption = CaptionRecord(id=name, image=image, text=_as_sentences(texts), image_id=name, positives=tuple(positives))
    changed = exchange_words(scene.words, other.words, chance, texts=texts)
    negative = None
    if changed is not None:
        text = _as_sentences(chance.sample(changed, 2))
        negative = NegativeRecord(caption_id=name, rule=RULE, kind="exchange", text=text, source="rules", accepted=True)
    return Composite(caption, negative, picture)


def _two(texts: Sequence[str], chance: Random) -> list[str]:
    """Two of the texts; the same one twice if there is only one."""
    return chance.sample(texts, 2) if len(texts) > 1 else [texts[0]] * 2


def _plain(text: str) -> str:
    return text.strip().rstrip(".").rstrip().lower()


def _as_sentences(texts: Sequence[str]) -> str:
    return " ".join(f"{text}." for text in texts)


def exchange_words(
    first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]], chance: Random, *, texts: Sequence[str]
) -> list[str] | None:
    """Exchange one word between two captions, at every occurrence.

    The two words have the same part of speech, drawn from those that both captions contain; if they share none, any two
    words. Words that occur in both captions stay. Exchanges that only restate the captions are skipped.

    Args:
        first: words of the first caption with their parts of speech (universal tags).
        second: words of the second caption, likewise.
        chance: draws part of speech and words.
        texts: both captions as written, so that tokenisation (a space before a comma) does not reveal the change.

    Returns:
        Both texts; None if no exchange changes the meaning.
    """
    sides = [{word: sort for word, sort in side if sort not in _FIXED} for side in (first, second)]
    common = sides[0].keys() & sides[1].keys()
    sides = [{word: sort for word, sort in side.items() if word not in common} for side in sides]
    sorts = sorted(set(sides[0].values()) & set(sides[1].values()))
    chance.shuffle(sorts)
    pairs: list[tuple[str, str]] = []
    for sort in sorts:
        mine, theirs = ([word for word in side if side[word] == sort] for side in sides)
        pairs += _shuffled(mine, theirs, chance)
    every = [dict.fromkeys(word for word, sort in side if sort != "PUNCT") for side in (first, second)]
    mine, theirs = ([word for word in side if not all(word in other for other in every)] for side in every)
    word_lists = [sorted(normalized_words(text)) for text in texts]
    for one, other in pairs or _shuffled(mine, theirs, chance):
        changed = [_replaced(texts[0], one, other), _replaced(texts[1], other, one)]
        new = [sorted(normalized_words(text)) for text in changed]
        if new not in (word_lists, word_lists[::-1]) and changed[0] != texts[0] and changed[1] != texts[1]:
            return changed
    return None


def _shuffled(first: Sequence[str], second: Sequence[str], chance: Random) -> list[tuple[str, str]]:
    """All pairs of one word of each, in random order."""
    pairs = list(product(first, second))
    chance.shuffle(pairs)
    return pairs


def _replaced(text: str, word: str, by: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _: by, text)
