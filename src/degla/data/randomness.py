"""The only source of randomness for the data: a pure function of (seed, epoch, index), equal in every process."""

from __future__ import annotations

import hashlib
import random


def random_for(purpose: str, *, seed: int, epoch: int, index: int = 0) -> random.Random:
    """Return a fresh generator for one purpose ("crop", "negatives", "order") of one row in one epoch.

    Hashing makes the generators of neighbouring seeds, epochs and rows independent; adding the numbers would not.
    """
    key = f"{purpose}/{seed}/{epoch}/{index}".encode()
    return random.Random(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big"))
