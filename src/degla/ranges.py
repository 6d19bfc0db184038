"""Ranges of settings, declared in the types of fields and checked for flags, files, plans and Python calls alike."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval
from pydantic import ConfigDict, TypeAdapter, ValidationError

from degla.errors import InputError

Factor = Annotated[float, Interval(ge=0)]
Positive = Annotated[float, Interval(gt=0)]
LearningRate = Annotated[float, Interval(gt=0, le=1e6)]
"""Bounded so that the steps of a system's optimiser are representable in float32."""
Share = Annotated[float, Interval(ge=0, le=1)]
DecayRate = Annotated[float, Interval(ge=0, lt=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
CosineMargin = Annotated[float, Interval(ge=0, le=2)]
Count = Annotated[int, Interval(ge=0)]
AtLeastOne = Annotated[int, Interval(ge=1)]
AnyWhole = Annotated[int, Interval()]
Seed = Annotated[int, Interval(ge=0, lt=2**64)]
"""The range that PyTorch accepts."""

_PLAIN: Final[dict[Any, str]] = {
    bool: "true or false",
    str: "a string",
    Path: "a path",
    int: "an integer",
    float: "a number",
    tuple: "a list of strings",
}


class RangeError(InputError):
    """A setting has a value that is not allowed.

    Attributes:
        flag: flag of the setting, without leading dashes.
        reason: its value, and the allowed values.
    """

    def __init__(self, flag: str, reason: str) -> None:
        super().__init__(f"--{flag} {reason}")
        self.flag, self.reason = flag, reason


class Checked:
    """Base of settings dataclasses, which check on construction that the type of each field allows its value.

    Numbers must be finite and have the declared type: neither True nor "1" is a number.

    Attributes:
        section: prefix of the flags of the fields.
    """

    section: ClassVar[str]

    def __init_subclass__(cls, section: str | None = None) -> None:
        if section is not None:
            cls.section = section

    @classmethod
    def flag(cls, name: str) -> str:
        """Return the flag of a field, with its dashes."""
        return f"--{cls.section}.{name}".replace("--.", "--").replace("_", "-")

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _settings(kind):
            value = getattr(self, name)
            if not allows(hint, value):
                text = repr(value) if isinstance(value, str) else str(value)
                text = type(value).__name__ if "\n" in text else text  # A model, say.
                raise RangeError(self.flag(name).removeprefix("--"), f"is {text}; it must be {allowed(hint)}.")
            if isinstance(value, int) and abs(value) >= 2**64:
                raise RangeError(self.flag(name).removeprefix("--"), f"is {value}, which is too large.")


def allows(hint: Any, value: Any) -> bool:
    """Whether a field of this type allows a value."""
    try:
        _adapter(hint).validate_python(value)
    except ValidationError:
        return False
    return True


@cache
def field_types(kind: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass, with its range."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@cache
def _settings(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return name and type of each field of a dataclass that is not a group of settings."""
    return tuple((name, hint) for name, hint in field_types(kind).items() if not _is_group(hint))


def allowed(hint: Any) -> str:
    """Describe the values that a field of this type allows: "0 or more", "from 0 to 1", '"a" or "b"', ..."""
    kind, *rest = get_args(hint) or (hint,)
    if get_origin(hint) in (Union, UnionType):
        several = [allowed(each) for each in (kind, *rest) if each is not NoneType]
        return ", or ".join([*several, *(["none"] if NoneType in (kind, *rest) else [])])
    if get_origin(hint) is Literal:
        words = [f'"{word}"' for word in (kind, *rest)]
        return " or ".join([", ".join(words[:-1]), words[-1]] if rest else words)
    if rest and isinstance(rest[0], Interval):
        return _between(rest[0], whole=kind is int)
    return _PLAIN[get_origin(hint) or hint]


def _between(interval: Interval, *, whole: bool) -> str:
    low = f"above {interval.gt}" if interval.gt is not None else f"{interval.ge} or more"
    number = "an integer" if whole else "a finite number"
    if interval.le is not None:
        return f"from {interval.ge} to {interval.le}" if interval.gt is None else f"{low} and at most {interval.le}"
    if interval.lt is not None:
        return f"{low} and below {interval.lt}"
    return number if low == "None or more" else f"{low}, {number}"


def _is_group(hint: Any) -> bool:
    """Whether a field holds nested settings, which check themselves."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return dataclasses.is_dataclass(kind) or get_origin(kind) is dict


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
