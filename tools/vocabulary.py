"""Trim CLIP's merge list to its head and the merges that given words need.

The file has CLIP's format and is read by open_clip's `SimpleTokenizer`, so any English still tokenises, other words
into smaller pieces, while a model's token table shrinks from 49,408 rows to a few thousand.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import open_clip


def clip_merges() -> Path:
    """Return CLIP's full merge list, as shipped with open_clip."""
    return Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


def merges_of(word: str, ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Return the merges that byte-pair encoding applies to one lower-case ASCII word."""
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


def write_merges(file: Path, words: Iterable[str], *, kept: int) -> int:
    """Write the trimmed merge list.

    Args:
        file: output file, a .txt.gz.
        words: words that stay whole if CLIP has them as one token.
        kept: number of merges kept from the head of CLIP's list in any case.

    Returns:
        The size of the vocabulary.
    """
    lines = gzip.decompress(clip_merges().read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    needed = {merge for word in words for merge in merges_of(word, ranks)}
    chosen = [merge for rank, merge in enumerate(merges) if rank < kept or merge in needed]
    text = "\n".join(["#version: 0.2", *(" ".join(merge) for merge in chosen)])
    # No time stamp in the archive, so the same words give the same file.
    file.write_bytes(gzip.compress(text.encode(), mtime=0))
    return 2 * 256 + len(chosen) + 2
