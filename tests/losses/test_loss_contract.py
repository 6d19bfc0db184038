"""What every loss promises; a new loss is tested without changing this file."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import typing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from term_cases import (
    MASKED,
    Case,
    all_settings,
    assert_near,
    changed,
    describe,
    evaluate,
    gradients,
    leading_leaf,
    make_case,
)

from degla.inputs import inputs_of, parts
from degla.losses.core import Embeddings, Loss, Processes, StatefulLoss, Target
from degla.losses.core.objective import loss_class
from degla.shelf import LOSSES

NAMES = LOSSES.names()
EVERY = [term for name in NAMES for term in all_settings(name)]
SECTIONS = ["Formula", "Shapes", "Scope", "Source", "Differs", "Cost"]
PARTS = ("image", "caption", "negative", "raw_image")
ONE = Processes()
cached_case = cache(make_case)
"""For tests that change nothing of it."""

every_name = pytest.mark.parametrize("name", NAMES)
every_term = pytest.mark.parametrize("term", EVERY, ids=describe)


def value_of(term: Any, case: Case, target: Target | None = None) -> torch.Tensor:
    """The value under thresholds high enough for a ranking loss to be active."""
    return evaluate(term, case.student(), target or case.target(), case.memory + 3)


def test_the_shelf_holds_the_terms_of_the_paper() -> None:
    assert {"contrastive", "image_grounded", "text_grounded", "self_distillation"} <= set(NAMES)


@every_name
def test_a_term_is_a_frozen_dataclass_named_like_its_file(name: str) -> None:
    loss = loss_class(name)
    assert loss.__name__ == "".join(word.capitalize() for word in name.split("_"))
    assert loss.__module__ == f"degla.losses.{name}"
    assert dataclasses.is_dataclass(loss) and loss.__dataclass_params__.frozen
    term = loss()
    assert isinstance(term, StatefulLoss) != isinstance(term, Loss)
    assert loss.needs <= set(PARTS) and isinstance(loss.needs, frozenset)
    assert loss.reads <= parts().keys() and isinstance(loss.reads, frozenset)
    assert math.isfinite(term.weight) and term.weight > 0
    assert LOSSES.summary(name).endswith("."), "the module's first line is its summary in `degla ls`"


@every_name
def test_the_docstring_has_its_sections_in_order(name: str) -> None:
    lines = (inspect.getdoc(loss_class(name)) or "").splitlines()
    assert lines[0].endswith(".") and not lines[1].strip(), "one sentence, then the sections"
    sections = [line.split(":")[0] for line in lines if re.match(r"[A-Z]\w*:", line)]
    assert sections == SECTIONS
    for section in SECTIONS:
        line = next(line for line in lines if line.startswith(f"{section}:"))
        assert line.split(":", 1)[1].strip(), f"{section} is empty"
    scope = next(line for line in lines if line.startswith("Scope:")).split()[1]
    assert scope in ("local", "global")


@every_name
def test_every_field_says_its_range_or_options(name: str) -> None:
    loss = loss_class(name)
    hints = typing.get_type_hints(loss)
    tree = ast.parse(Path(inspect.getfile(loss)).read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == loss.__name__).body
    documented = {
        line.target.id: below.value.value
        for line, below in itertools.pairwise(body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
    for field in dataclasses.fields(loss):
        text = documented.get(field.name, "")
        assert text.endswith("."), f"{field.name} has no docstring that ends with a full stop"
        if typing.get_origin(hints[field.name]) is typing.Literal:
            missing = [each for each in typing.get_args(hints[field.name]) if f'"{each}"' not in text]
            assert not missing, f"{field.name} does not name {missing}"
        elif hints[field.name] is bool:
            assert "true or false" in text, field.name
        else:
            assert re.search(r"[<>]=? ?-?\d|\d to \d", text), f"{field.name} names no range"


@every_term
@pytest.mark.parametrize("mask", ["all", "random", "one empty row"])
def test_the_gradient_reaches_the_student(term: Any, mask: Any) -> None:
    case = cached_case(5, 3, mask=mask, seed=30)
    value = value_of(term, case)
    assert value.shape == () and value.isfinite() and value.item() > 0
    gradient_of = gradients(value, case.leaves)
    assert all(gradient.isfinite().all() for gradient in gradient_of.values())
    assert gradient_of[leading_leaf(term)].abs().max() > 1e-6


@every_term
def test_the_gradient_never_reaches_the_teacher(term: Any) -> None:
    case = make_case(4, 3, mask="all", seed=31)
    for rows in case.teacher.values():
        rows.requires_grad_()
    for gradient in gradients(value_of(term, case), case.teacher).values():
        assert torch.count_nonzero(gradient) == 0


@every_term
def test_the_parts_that_it_needs_are_enough(term: Any) -> None:
    case = cached_case(4, 3, mask="random", seed=32)
    assert torch.equal(value_of(term, case, case.target(term.needs)), value_of(term, case))


@cache
def with_other_teacher(part: str, seed: int) -> Case:
    case = cached_case(4, 3, mask="all", seed=seed)
    return dataclasses.replace(case, teacher={**case.teacher, part: case.teacher[part] + 1.0})


@every_term
def test_every_part_that_it_needs_is_read(term: Any) -> None:
    # Several batches, because inputs that are only compared with a bound need not matter in each.
    seeds = range(33, 39)
    values = {seed: value_of(term, cached_case(4, 3, mask="all", seed=seed)) for seed in seeds}
    case = cached_case(4, 3, mask="all", seed=seeds[0])
    for part in PARTS:
        moved = any(not torch.equal(values[seed], value_of(term, with_other_teacher(part, seed))) for seed in seeds)
        assert moved == (part in term.needs), part
        if part in term.needs:
            with pytest.raises(LookupError, match=part):
                value_of(term, case, case.target(term.needs - {part}))


@every_term
def test_the_extra_parts_that_it_reads_are_enough(term: Any) -> None:
    case = cached_case(4, 3, mask="random", seed=32)
    allowed = [name for extra in term.reads for name in parts()[extra]]
    dropped = {name: None for names in parts().values() for name in names if name not in allowed}
    assert dropped
    student = changed(case.student(), **dropped)
    value = evaluate(term, student, case.target(), case.memory)
    assert torch.equal(value, evaluate(term, case.student(), case.target(), case.memory))


@every_term
def test_every_extra_part_that_it_reads_is_read(term: Any) -> None:
    case = cached_case(4, 3, mask="all", seed=33)
    for extra in term.reads:
        missing = changed(case.student(), **dict.fromkeys(parts()[extra]))
        with pytest.raises(LookupError, match=extra):
            evaluate(term, missing, case.target(), case.memory)


@pytest.mark.parametrize("term", [term for term in EVERY if not term.reads_captions], ids=describe)
def test_a_term_that_says_that_it_reads_no_captions_reads_none(term: Any) -> None:
    case = cached_case(4, 3, mask="all", seed=38)
    gradient_of = gradients(value_of(term, case), case.leaves)
    leaves = {leaf for leaf, gradient in gradient_of.items() if torch.count_nonzero(gradient)}
    own = set(inputs_of(term.reads, kind="text"))
    assert leaves and leaves <= own | {"image", "distractor_image", "patch", "raw_image", "scale"}


@cache
def spoilt(junk: float) -> tuple[Embeddings, Target, dict[str, torch.Tensor]]:
    """The student and the teacher of a case with junk in the invalid places, and the student's rows that have some."""
    case = cached_case(5, 3, mask="random", seed=34)
    assert case.valid.any() and not case.valid.all() and not case.valid.any(dim=1).all()
    student, target = case.student(), case.target()
    spoiled = {}
    for name, mask in MASKED.items():
        hole = ~case.inputs[mask]
        # These have a number per place, not a row.
        hole = hole if name in ("reconstruction", "prediction") else hole[..., None]
        assert hole.any(), f"nothing to spoil in {name}"
        spoiled[name] = student.tensors()[name].detach().masked_fill(hole, junk).requires_grad_()
    assert target.negative is not None
    teacher = dataclasses.replace(target, negative=target.negative.masked_fill(~case.valid[..., None], junk))
    return changed(student, **spoiled), teacher, spoiled


@every_term
def test_invalid_places_leak_nothing(term: Any) -> None:
    """Fill the invalid places of student and teacher with junk: nothing may change, and they get gradient 0."""
    case = cached_case(5, 3, mask="random", seed=34)
    clean = evaluate(term, case.student(), case.target(), case.memory)
    expected = gradients(clean, case.leaves)
    for junk in (1e3, float("nan"), float("inf"), float("-inf")):
        student, teacher, spoiled = spoilt(junk)
        value = evaluate(term, student, teacher, case.memory)
        assert_near(value, clean, f"value with {junk}", rtol=1e-13, atol=1e-13)
        gradient_of = gradients(value, {**case.leaves, **spoiled})
        for leaf in case.leaves.keys() - spoiled.keys():
            assert_near(gradient_of[leaf], expected[leaf], f"{leaf} with {junk}", rtol=1e-11, atol=1e-13)
        for name in spoiled:
            assert torch.count_nonzero(gradient_of[name][~case.inputs[MASKED[name]]]) == 0, (
                f"an invalid place of {name} moved with {junk}"
            )
            assert gradient_of[name].isfinite().all(), (name, junk)


@every_term
def test_batches_without_a_negative_are_finite_and_can_go_backward(term: Any) -> None:
    sizes: list[tuple[int, int, Any]] = [(1, 0, "all"), (1, 2, "none"), (3, 0, "all"), (4, 2, "none")]
    for pairs, negatives, mask in sizes:
        case = cached_case(pairs, negatives, mask=mask, seed=35)
        value = value_of(term, case)
        assert value.isfinite() and value.item() >= 0, (pairs, negatives)
        assert value.requires_grad, "an objective of only this loss could not be backpropagated"
        gradient_of = gradients(value, case.leaves)
        assert all(gradient.isfinite().all() for gradient in gradient_of.values()), (pairs, negatives)


@every_term
def test_inputs_are_left_alone(term: Any) -> None:
    case = cached_case(4, 3, mask="random", seed=36)
    student, target = case.student(), case.target()
    memory = case.memory.clone()
    before = [value.clone() for value in (*student.tensors().values(), *vars(target).values())]
    assert len(before) > 20
    evaluate(term, student, target, memory)
    for old, new in zip(before, (*student.tensors().values(), *vars(target).values()), strict=True):
        assert torch.equal(old, new)
    assert torch.equal(memory, case.memory)


@pytest.mark.parametrize("term", [term for term in EVERY if isinstance(term, StatefulLoss)], ids=describe)
def test_a_memory_is_one_small_tensor(term: StatefulLoss) -> None:
    start = term.start(4)
    case = make_case(4, 3, mask="random", seed=37).to(torch.float32)
    _, after = term.value(case.student(), case.target(), ONE, start)
    assert start.isfinite().all() and not after.requires_grad
    assert (after.shape, after.dtype) == (start.shape, start.dtype)


@every_term
def test_settings_cannot_be_changed(term: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        term.weight = 2.0
