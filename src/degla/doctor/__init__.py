"""ROOM - doctor: a training configuration enters; what stands in its way, and what limits its speed, leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what, in a word or two.
        state: "ok", "warning" (training works, but not as it could) or "error" (it will not).
        text: what was found, and what to do.
        values: the numbers in it, by name with their unit.
    """

    about: str
    state: Literal["ok", "warning", "error"]
    text: str
    values: Mapping[str, float | int | str]
