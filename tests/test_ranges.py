"""Every setting of a run has a range in its type, enforced in Python, on the command line, in files and in plans."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Interval as Range
from pydantic import ValidationError

from degla.cli import main
from degla.config.fields import change, documented, from_plain, to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core.objective import loss_class
from degla.ranges import Checked, allowed, allows, field_types
from degla.records import NegativeRecord
from degla.results import Interval
from degla.shelf import LOSSES, RECIPES
from degla.study.plan_file import RESERVED


def _kinds(kind: Any = TrainConfig) -> list[Any]:
    inner = [hint for hint in field_types(kind).values() if dataclasses.is_dataclass(hint)]
    return [kind, *(part for each in inner for part in _kinds(each))]


SECTIONS = list(dict.fromkeys(_kinds()))
KINDS = [*SECTIONS, *(loss_class(name) for name in LOSSES.names())]


def _type(hint: Any) -> Any:
    """A field's type without "or none" and without words that stand for a number."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    others = [each for each in get_args(hint) if each is not NoneType]
    return next((each for each in others if get_origin(each) is not Literal), others[0])


def _interval(hint: Any) -> Range | None:
    inner = _type(hint)
    return next((each for each in get_args(inner) if isinstance(each, Range)), None)


FIELDS = [(kind, name, hint) for kind in KINDS for name, hint in field_types(kind).items()]
RANGED = [(kind, name, hint) for kind, name, hint in FIELDS if _interval(hint) is not None]
CHOICES = [(kind, name, hint) for kind, name, hint in FIELDS if get_origin(_type(hint)) is Literal]
SWITCHES = [(kind, name, hint) for kind, name, hint in FIELDS if _type(hint) is bool]


def _title(entry: Any) -> str:
    return f"{entry[0].__name__}.{entry[1]}"


def _just_outside(hint: Any) -> list[Any]:
    """The nearest values outside the range, on each bounded side."""
    interval, whole = _interval(hint), get_args(_type(hint))[0] is int
    assert interval is not None

    def beside(value: Any, direction: float) -> Any:
        return value + int(direction) if whole else math.nextafter(value, direction * math.inf)

    values = [] if interval.ge is None else [beside(interval.ge, -1)]
    values += [] if interval.le is None else [beside(interval.le, 1)]
    return values + [end for end in (interval.gt, interval.lt) if end is not None]


def _flag(kind: Any, name: str) -> str:
    return f"{kind.section}.{name}".lstrip(".").replace("_", "-")


def test_every_number_has_a_range_or_says_that_it_has_none() -> None:
    bare = [_title(entry) for entry in FIELDS if _type(entry[2]) in (int, float)]
    assert not bare, f"no range: {bare}; take Annotated[..., Interval(...)], or AnyWhole"
    assert len(RANGED) > 60 and len(CHOICES) > 12 and len(SWITCHES) > 12
    kinds = (bool, str, Path)
    for kind, name, hint in FIELDS:
        inner = _type(hint)
        plain = inner in kinds or inner == tuple[str, ...] or get_origin(inner) in (Literal, Annotated, dict)
        assert plain or dataclasses.is_dataclass(inner), f"{_title((kind, name))}: {hint} is not understood"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_all_settings_are_checked(kind: Any) -> None:
    assert issubclass(kind, Checked) and dataclasses.is_dataclass(kind)
    own = vars(kind).get("__post_init__")
    assert own is None or "super().__post_init__()" in inspect.getsource(own), "it takes the place of the check"


@pytest.mark.parametrize("entry", RANGED, ids=_title)
def test_a_number_outside_its_range_is_refused_with_flag_value_and_range(entry: Any) -> None:
    kind, name, hint = entry
    for value in [*_just_outside(hint), math.nan, math.inf, -math.inf, True, "1"]:
        with pytest.raises(InputError) as caught:
            kind(**{name: value})
        text = repr(value) if isinstance(value, str) else str(value)
        assert str(caught.value) == f"--{_flag(kind, name)} is {text}; it must be {allowed(hint)}."
    interval = _interval(hint)
    assert interval is not None
    for value in (interval.ge, interval.le):
        if value is not None:
            assert getattr(kind(**{name: value}), name) == value


@pytest.mark.parametrize("entry", [*CHOICES, *SWITCHES], ids=_title)
def test_a_word_that_is_none_of_the_choices_is_refused(entry: Any) -> None:
    kind, name, hint = entry
    for value in ("maybe", 1, None):
        with pytest.raises(InputError) as caught:
            kind(**{name: value})
        assert str(caught.value).startswith(f"--{_flag(kind, name)} is ") and allowed(hint) in str(caught.value)


_STATED = re.compile(r"above (\d+) to (\d+)|(\d+) to below (\d+)|(\d+) to (\d+)|>= (\d+)|> (\d+)|(\d+) or more")


@pytest.mark.parametrize("entry", RANGED, ids=_title)
def test_the_help_states_the_range_of_the_type(entry: Any) -> None:
    kind, name, hint = entry
    interval, text = _interval(hint), documented(kind)[name]
    assert interval is not None
    if interval == Range():
        return
    match = _STATED.search(text)
    assert match, f"no range in {text!r}; the type says {allowed(hint)}"
    over, to, low, below, start, end, least, more, count = (int(each) if each else None for each in match.groups())
    ge = next((each for each in (low, start, least, count) if each is not None), None)
    gt, le = (over if over is not None else more), (to if to is not None else end)
    lt = None if name == "seed" else interval.lt  # A limit of the machine, not of the method.
    assert (ge, gt, le, below) == (interval.ge, interval.gt, interval.le, lt), text


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_recipes_hold_what_their_types_allow_and_come_back_from_files(recipe: str) -> None:
    config: TrainConfig = getattr(RECIPES.load(recipe), recipe)()

    def walk(owner: Any) -> None:
        for name, hint in field_types(type(owner)).items():
            value = getattr(owner, name)
            for each in value.values() if isinstance(value, dict) else [value]:
                if dataclasses.is_dataclass(each):
                    walk(each)
                else:
                    assert allows(hint, each), f"{type(owner).__name__}.{name}: {each!r}"

    walk(config)
    assert from_plain(json.loads(json.dumps(to_plain(config))), where="config.json") == config


WRONG = [
    ("train.steps", 0, "--train.steps is 0; it must be 1 or more, an integer, or none."),
    ("objective.image_grounded.smoothing", 5.0, "--objective.image-grounded.smoothing is 5.0; it must be from 0 to 1."),
    ("optim.beta2", 1.5, "--optim.beta2 is 1.5; it must be 0 or more and below 1."),
    ("optim.beta2", 1.0, "--optim.beta2 is 1.0; it must be 0 or more and below 1."),
    ("optim.eps", 0.0, "--optim.eps is 0.0; it must be above 0, a finite number."),
    ("optim.weight_decay", -1.0, "--optim.weight-decay is -1.0; it must be 0 or more, a finite number."),
    ("optim.lr", math.nan, "--optim.lr is nan; it must be above 0, a finite number."),
    ("train.seed", -1, "--train.seed is -1; it must be 0 or more"),
    ("train.seed", 2**70, f"--train.seed is {2**70}; it must be 0 or more and below {2**64}."),
    ("train.precision", "fp8", '--train.precision is \'fp8\'; it must be "auto", "fp32", "bf16" or "fp16".'),
    ("data.duplicates", "maybe", '--data.duplicates is \'maybe\'; it must be "allow", "avoid" or "mask".'),
    ("replay.data.workers", -1, '--replay.data.workers is -1; it must be 0 or more, an integer, or "auto".'),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_files_refuse_it_with_their_name(field: str, value: Any, message: str) -> None:
    plain = to_plain(RECIPES.load("degla").degla())
    owner = plain
    *path, last = field.split(".")
    for name in path:
        owner = owner[name]
    owner[last] = value
    with pytest.raises(InputError) as caught:
        from_plain(plain, where="run/config.json")
    assert str(caught.value).startswith("run/config.json: ") and message in str(caught.value)


@pytest.mark.parametrize(("field", "value", "message"), [entry for entry in WRONG if entry[0] not in RESERVED])
def test_plans_of_studies_refuse_it_with_the_arm(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"plan.yaml: arm 1: field '{field}'")) as caught:
        change(RECIPES.load("degla").degla(), {field: value}, where="plan.yaml: arm 1")
    assert "\n" not in str(caught.value) and (isinstance(value, str) or message in str(caught.value))


@pytest.mark.parametrize(("field", "value", "message"), WRONG[:2] + WRONG[-1:], ids=lambda value: str(value))
def test_the_command_line_refuses_it_in_one_line(
    field: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = "--" + field.replace("_", "-")
    assert main(["train", "degla", flag, str(value)]) == 2
    error = capsys.readouterr().err
    assert error == f"degla: {re.sub('^--[^ ]+', flag, message)}\n"


def test_an_older_file_without_a_field_takes_its_default_and_an_unknown_one_is_refused() -> None:
    plain = to_plain(RECIPES.load("degla").degla())
    del plain["data"]["draw"], plain["objective"]["text_contrast"]["anchor"], plain["train"]["batch_norm"]
    assert from_plain(plain, where="config.json") == RECIPES.load("degla").degla()
    with pytest.raises(InputError, match=r"config\.json: cannot set the section 'optim'"):
        from_plain(plain | {"optim": 3}, where="config.json")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_record_holds_what_is_no_number(value: float) -> None:
    negative = {"caption_id": "1", "rule": "swap", "kind": "order", "text": "a", "source": "rules", "accepted": True}
    assert NegativeRecord(**negative, score=-1.0).score == -1.0
    with pytest.raises(ValidationError, match="finite number"):
        NegativeRecord(**negative, score=value)
    for end in ({"low": value, "high": 1.0}, {"low": 0.0, "high": value}):
        with pytest.raises(ValidationError, match="finite number"):
            Interval(**end, method="exact")
