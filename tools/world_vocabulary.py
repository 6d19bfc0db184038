"""Write the small vocabulary of the world's model: the head of CLIP's merge list and merges of the world's words.

The file has CLIP's format and is read by open_clip's `SimpleTokenizer`, so any English still tokenises (into smaller
pieces), while the token table shrinks from 49,408 rows to about 2,250 and the model from 10 to 3 million parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from degla.world.captions import FULL_TEMPLATES, JOINERS, NESTINGS, PREFIXES
from degla.world.domains import DIGITS, DOMAINS, NUMBERS, plural
from degla.world.vocabulary import COLOURS, SHAPES, TEXTURES, WORDINGS
from tools.vocabulary import write_merges

KEPT_MERGES: Final = 1500
"""Merges kept from the head of CLIP's list in any case."""

_OTHER_WORDS: Final = (
    "capital letter number digit pattern wall view landscape shape shapes plain solid grey colored small large big "
    "red-colored behind between near outside front back top bottom middle side upper lower "
    "two three objects not no"
)


def world_words() -> list[str]:
    """Return every word of the world's captions and prompts, sorted."""
    texts = [*FULL_TEMPLATES, *PREFIXES, *JOINERS, *SHAPES, *COLOURS, *TEXTURES, *NUMBERS, *DIGITS]
    texts += [*NESTINGS, _OTHER_WORDS]
    texts += [plural(shape) for shape in SHAPES]
    texts += [wording for wordings in WORDINGS.values() for wording in wordings]
    for domain in DOMAINS.values():
        texts += [*domain.classes, *domain.templates]
    words = {word.strip("{}") for text in texts for word in text.replace(",", "").split()}
    return sorted(words - {"", "subject", "object", "relation"})


def write_vocabulary(file: Path) -> int:
    """Write the trimmed merge list; return the vocabulary size."""
    return write_merges(file, world_words(), kept=KEPT_MERGES)
