"""Digests of the rows that a run is trained on, by column: a resume compares them, and reads no image for it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as arrow

from degla.training.pairs import Pairs


def data_digests(pairs: Pairs) -> dict[str, str]:
    """A digest of each column of the rows as they were read, joined and checked.

    Args:
        pairs: of the run.

    Returns:
        The column's name (ids, images, captions, negatives, rules, ...) to the first 32 hexadecimal digits of its
        sha256; columns that the run does not read are not among them.
    """
    digests = {"rules": hashlib.sha256("\n".join(pairs.dataset.rules).encode())}
    for holder in (pairs.dataset, pairs.dataset.extras):
        for name, value in vars(holder).items():
            _add(digests, name.removeprefix("_"), value)
    for value in vars(pairs.neighbours).values() if pairs.neighbours is not None else ():
        _add(digests, "neighbours", value)
    return {name: digest.hexdigest()[:32] for name, digest in sorted(digests.items())}


def data_counts(pairs: Pairs) -> dict[str, int]:
    """How many captions, images and negatives the rows hold, once joined and checked."""
    dataset = pairs.dataset
    negatives = sum(len(row) for row in dataset._negatives)
    images = len(np.unique(dataset.groups))
    return {"captions": len(dataset), "images": images} | ({"negatives": negatives} if negatives else {})


def _add(digests: dict[str, Any], name: str, column: object) -> None:
    if isinstance(column, arrow.Array):
        buffers = [buffer for buffer in column.buffers() if buffer is not None]
    elif isinstance(column, np.ndarray) and column.size:
        buffers = [np.ascontiguousarray(column).data]
    else:
        return
    digest = digests.setdefault(name, hashlib.sha256())
    for buffer in buffers:
        digest.update(f"{buffer.size if isinstance(buffer, arrow.Buffer) else buffer.nbytes};".encode())
        digest.update(buffer)
