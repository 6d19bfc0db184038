"""The words of the world: shapes, colours, textures and relations, and the two vocabularies made of them.

Everything here is data. Fine-tuning sees `IN_DOMAIN` only; pre-training sees `FULL`; the out-of-domain part of the
benchmark uses scenes with at least one word that fine-tuning never sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Colour = tuple[int, int, int]
"""Red, green, blue; each 0 to 255."""

RelationName = Literal["left", "right", "above", "below", "inside", "around"]
CanonicalRelation = Literal["left", "above", "inside"]

SHAPES: Final = (
    "circle", "square", "triangle", "star", "heart", "diamond", "ring", "arrow",
    "cross", "hexagon", "crescent", "oval", "semicircle", "trapezoid",
)  # fmt: skip
"""The first eight are the fine-tuning shapes: those that an English tagger most reliably tags as nouns."""

ROOMY_SHAPES: Final = frozenset(SHAPES) - {"cross", "arrow", "crescent", "semicircle"}
"""Shapes with enough room in the middle for another one. Scenes with "inside" use them for both things: if only the
outer one were limited, the words would reveal which thing is inside."""

PALETTE: Final[dict[str, Colour]] = {
    "red": (218, 36, 40),
    "green": (36, 156, 60),
    "blue": (40, 78, 212),
    "yellow": (242, 216, 44),
    "pink": (250, 148, 192),
    "purple": (132, 46, 172),
    "black": (22, 22, 24),
    "white": (246, 246, 246),
    "orange": (246, 132, 22),
    "brown": (122, 72, 34),
    "gray": (128, 128, 130),
    "cyan": (70, 212, 222),
}
"""The first eight are the fine-tuning colours: those that an English tagger most reliably tags as adjectives."""

COLOURS: Final = tuple(PALETTE)
TEXTURES: Final = ("striped", "dotted", "plaid")
"""The textures that have a word; a plain thing is described without one."""

INVERSE: Final[dict[RelationName, RelationName]] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "inside": "around",
    "around": "inside",
}

WORDINGS: Final[dict[RelationName, tuple[str, ...]]] = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
    "inside": ("inside", "within", "in"),
    "around": ("around", "surrounding"),
}
"""Wordings of a relation. Full captions use the first two, loose ones use all."""


@dataclass(frozen=True)
class Vocabulary:
    """The shapes and colours that a set of scenes is drawn from."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]

    def knows(self, word: str) -> bool:
        """Whether a shape or colour belongs to this vocabulary."""
        return word in self.shapes or word in self.colours


IN_DOMAIN: Final = Vocabulary(SHAPES[:8], COLOURS[:8])
FULL: Final = Vocabulary(SHAPES, COLOURS)
