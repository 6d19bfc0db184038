"""read, join and check captions, negatives and images before training, once for all processes"""

from __future__ import annotations

import sys

from degla.pages.words import counted
from degla.verbs._training import configure

_USAGE = (
    "usage: degla prepare rows RECIPE | --config FILE [FLAGS OF degla train]\n\n"
    "Builds the memory-mapped table that training would otherwise build itself, and checks every image. An existing\n"
    "table is rebuilt. It is stored in the cache folder (DEGLA_CACHE, else degla/prepared in ~/.cache) and is about\n"
    "as large as the captions and negatives. --out and --model are optional.\n"
)


def run_words(words: list[str]) -> int:
    """`degla prepare rows RECIPE [flags]`, with the flags of `degla train`."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0 if words else 2
    config = configure(words, verb="prepare rows")

    from degla.losses.core import Processes
    from degla.training.rows import read_pairs

    for stream in config.streams:
        stream.check()
        source = read_pairs(stream, seed=config.train.seed, processes=Processes(), anew=True)
        sys.stdout.write(f"{counted(len(source.rows), 'pair')}: {source.rows.source!s}\n")
    return 0
