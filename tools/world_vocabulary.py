"""The small vocabulary of the world's model: the head of CLIP's merge list plus the merges that the world's words need.

The file has CLIP's format and is read by open_clip's `SimpleTokenizer`, so any English still tokenises (into smaller
pieces), while the token table shrinks from 49,408 rows to about 2,250 and the model from 10 to 3 million parameters.
"""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Final

from degla.world.captions import FULL_TEMPLATES, JOINERS, NESTINGS, PREFIXES
from degla.world.domains import DIGITS, DOMAINS, NUMBERS, plural
from degla.world.vocabulary import COLOURS, SHAPES, TEXTURES, WORDINGS

KEPT_MERGES: Final = 1500
"""Merges taken from the head of CLIP's list whatever the world needs."""

_OTHER_WORDS: Final = (
    "capital letter number digit pattern wall view landscape shape shapes plain solid grey colored small large big "
    "red-colored behind between near outside front back top bottom middle side upper lower "
    "two three objects not no"
)


def world_words() -> list[str]:
    """Every word that the world's captions and prompts are made of, sorted."""
    texts = [*FULL_TEMPLATES, *PREFIXES, *JOINERS, *SHAPES, *COLOURS, *TEXTURES, *NUMBERS, *DIGITS]
    texts += [*NESTINGS, _OTHER_WORDS]
    texts += [plural(shape) for shape in SHAPES]
    texts += [wording for wordings in WORDINGS.values() for wording in wordings]
    for domain in DOMAINS.values():
        texts += [*domain.classes, *domain.templates]
    words = {word.strip("{}") for text in texts for word in text.replace(",", "").split()}
    return sorted(words - {"", "subject", "object", "relation"})


def _merges_of(word: str, ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The merges that byte-pair encoding applies to one lower-case ASCII word."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    used: set[tuple[str, str]] = set()
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        used.add(best)
        merged: list[str] = []
        index = 0
        while index < len(pieces):
            if tuple(pieces[index : index + 2]) == best:
                merged.append("".join(best))
                index += 2
            else:
                merged.append(pieces[index])
                index += 1
        pieces = merged
    return used


def write_vocabulary(file: Path, *, source: Path) -> int:
    """Write the trimmed merge list; `source` is CLIP's `bpe_simple_vocab_16e6.txt.gz`. Returns the vocabulary size."""
    lines = gzip.decompress(source.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    needed = {merge for word in world_words() for merge in _merges_of(word, ranks)}
    kept = [merge for rank, merge in enumerate(merges) if rank < KEPT_MERGES or merge in needed]
    text = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in kept)])
    # No time stamp in the archive: the same words give the same file.
    file.write_bytes(gzip.compress(text.encode(), mtime=0))
    return 2 * 256 + len(kept) + 2
