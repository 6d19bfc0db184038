"""Rows drawn at random from a stream of unknown length."""

from __future__ import annotations

from random import Random
from typing import Generic, TypeVar

Drawn = TypeVar("Drawn")


class Reservoir(Generic[Drawn]):
    """Keeps `size` of the things that it is shown, each with the same probability.

    Attributes:
        kept: what is kept now; once full, in no meaningful order.
        shown: number of things shown.
    """

    def __init__(self, size: int, *, seed: str) -> None:
        self.kept: list[Drawn] = []
        self.shown = 0
        self._size = size
        self._random = Random(seed)

    def show(self, thing: Drawn) -> None:
        """Keep a thing, or not."""
        self.shown += 1
        if len(self.kept) < self._size:
            self.kept.append(thing)
        elif self._size:
            place = int(self._random.random() * self.shown)
            if place < self._size:
                self.kept[place] = thing
