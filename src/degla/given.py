"""Checks of what a function of `import degla` was given, where a wrong type would be read as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from degla.errors import InputError


def listed(values: Any, what: str, *kinds: type) -> list[Any]:
    """The values as a list, each of one of these kinds.

    Args:
        values: any iterable.
        what: is given, in messages.
        kinds: of each value.

    Raises:
        InputError: one text or other value alone, which would be read letter by letter, or a value of another kind.
    """
    if isinstance(values, (str, *kinds)):
        raise InputError(f"{what}: {values!r} is one {type(values).__name__}; give a list.")
    found = list(values)
    for number, value in enumerate(found, 1):
        if not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{what}: number {number} is of type {type(value).__name__}; it must be {wanted}.")
    return found


def refuse_name(model: object, function: str) -> None:
    """Raise InputError where a model's name was given in place of the model."""
    if isinstance(model, str | Path):
        raise InputError(f"{function}: {str(model)!r} is the name of a model; give what load_model makes of it.")
