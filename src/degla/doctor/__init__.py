"""ROOM - doctor: checks a training configuration for problems that would stop a run, and for what limits its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        about: what was checked, in a word or two.
        state: "ok", "warning" (training works, but not optimally) or "error" (it will not work).
        text: what was found, and what to do.
        values: the numbers in the text, by name with unit.
    """

    about: str
    state: Literal["ok", "warning", "error"]
    text: str
    values: Mapping[str, float | int | str]
