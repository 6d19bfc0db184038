"""An example of what a rule makes of a caption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A caption with a negative that a rule makes of it, accepted by a person; negatives/examples holds them."""

    caption: str
    negative: str
