"""Each term against the slow loop of its formula: values, gradients and memory, over many small shapes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import slow_terms
import torch
from term_cases import (
    LEAVES,
    MASKED,
    MASKS,
    Case,
    all_settings,
    assert_near,
    describe,
    evaluate,
    gradients,
    leading_leaf,
    make_case,
    small_shapes,
)

from degla.losses.class_contrast import ClassContrast
from degla.losses.contextual_contrast import ContextualContrast
from degla.losses.core import Processes
from degla.losses.core.objective import loss_class
from degla.losses.cross_modal_rank import CrossModalRank
from degla.losses.dense_grounded import DenseGrounded
from degla.losses.distractor import Distractor
from degla.losses.hardest_hinge import HardestHinge
from degla.losses.image_grounded import ImageGrounded
from degla.losses.logit_distillation import LogitDistillation
from degla.losses.own_hinge import OwnHinge
from degla.losses.self_distillation import SelfDistillation
from degla.losses.sigmoid_contrastive import SigmoidContrastive
from degla.losses.sigmoid_image_grounded import SigmoidImageGrounded
from degla.losses.sigmoid_text_grounded import SigmoidTextGrounded
from degla.losses.soft_alignment import SoftAlignment
from degla.losses.text_grounded import TextGrounded
from degla.shelf import LOSSES

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
WITH_LOOP = [name for name in LOSSES.names() if hasattr(slow_terms, name)]
SETTINGS = [(name, term) for name in WITH_LOOP for term in all_settings(name)] + [
    ("text_grounded", TextGrounded(fixed_scale=3.0)),
    ("self_distillation", SelfDistillation(image=0.5, text=2.0)),
    ("cross_modal_rank", CrossModalRank(upper=0.5)),
    ("image_grounded", ImageGrounded(smoothing=0.2)),
    ("image_grounded", ImageGrounded(focus=2.0)),
    ("image_grounded", ImageGrounded(smoothing=0.02, focus=2.0)),
    ("image_grounded", ImageGrounded(smoothing=0.2, focus=2.0, missing="published")),
    ("hardest_hinge", HardestHinge(mean_steps=0)),
    ("hardest_hinge", HardestHinge(margin=1.5, mean_steps=0, mask_same_image=True)),
    ("hardest_hinge", HardestHinge(margin=1.5, mean_steps=2)),
    ("logit_distillation", LogitDistillation(temperature=0.5)),
    ("own_hinge", OwnHinge(margin=1.0)),
    ("dense_grounded", DenseGrounded(smoothing=0.0, focus=0.0)),
    ("distractor", Distractor(image=0.0, caption=2.0, distractor=0.5)),
    ("class_contrast", ClassContrast(smoothing=0.2)),
    ("sigmoid_contrastive", SigmoidContrastive(negative_weight=0.3)),
    ("sigmoid_contrastive", SigmoidContrastive(negative_scope="own", negative_weight=0.3)),
    ("sigmoid_image_grounded", SigmoidImageGrounded(negative_weight=2.0)),
    ("sigmoid_text_grounded", SigmoidTextGrounded(fixed_scale=3.0)),
    ("soft_alignment", SoftAlignment(smoothing=0.0)),
    ("contextual_contrast", ContextualContrast(scope=0)),
    ("contextual_contrast", ContextualContrast(scope=3, neighbours=1)),
    ("contextual_contrast", ContextualContrast(scope=2, least=0.5)),
]


@cache
def cases() -> list[tuple[str, Case]]:
    """Every small shape with masks of each kind, random ones twice."""
    named_cases = []
    for seed, ((pairs, negatives, dim), mask) in enumerate(itertools.product(small_shapes(), (*MASKS, "random"))):
        name = f"B={pairs} K={negatives} D={dim} mask={mask} seed={seed}"
        named_cases.append((name, make_case(pairs, negatives, dim, mask=mask, seed=seed)))
    return named_cases


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_term_has_a_slow_loop(name: str) -> None:
    assert name in WITH_LOOP, f"write the formula of {name} as a loop: a function {name} in slow_terms.py"


def _moved(value: torch.Tensor, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
    """Gradient of the value for each leaf, none where it does not depend on one."""
    if not value.requires_grad:
        return dict.fromkeys(leaves)
    gradient_list = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    return dict(zip(leaves, gradient_list, strict=True))


def compare(name: str, term: Any, case: Case) -> set[str]:
    """Assert equality of value and gradients; returns the leaves whose gradient was compared and is not zero."""
    student = case.student()
    value = evaluate(term, student, case.target(type(term).needs), case.memory)
    expected, moved = getattr(slow_terms, name)(term, student, case.target(), case.memory)
    assert_near(value, expected, "value", **TOLERANCE)
    assert value.shape == () and value.dtype == torch.float64

    fast, slow = _moved(value, case.leaves), _moved(expected, case.leaves)
    for leaf in LEAVES:
        of_fast, of_slow = fast[leaf], slow[leaf]
        if leaf in moved:
            assert of_fast is not None and of_slow is not None, f"no gradient of {leaf}"
            assert of_slow.numel() > 0 and of_slow.abs().max() > 1e-9, f"nothing to compare in {leaf}"
            assert_near(of_fast, of_slow, leaf, **TOLERANCE)
        else:
            assert of_slow is None or not of_slow.numel() or of_slow.abs().max() < 1e-12, leaf
            assert of_fast is None or of_fast.abs().sum() < 1e-12, f"{leaf} must not move"
    for leaf, mask in MASKED.items():
        of_fast = fast[leaf]
        if of_fast is not None:
            assert torch.count_nonzero(of_fast[~case.inputs[mask]]) == 0, f"{leaf} moved where there is none"
    return moved


@pytest.mark.parametrize(("name", "term"), SETTINGS, ids=[describe(term) for _, term in SETTINGS])
def test_value_and_gradients_equal_those_of_the_formula(name: str, term: Any) -> None:
    compared: dict[str, int] = dict.fromkeys(LEAVES, 0)
    for text, case in cases():
        try:
            moved = compare(name, term, case)
        except AssertionError as error:
            raise AssertionError(f"{text}: {error}") from error
        for leaf in moved:
            compared[leaf] += 1
    assert compared[leading_leaf(term)] >= 25, f"too few batches with a gradient: {compared}"


MOVING = [term for term in all_settings("cross_modal_rank") if term.threshold != "fixed"]


@pytest.mark.parametrize("term", [*MOVING, *(replace(term, upper=0.5) for term in MOVING)], ids=describe)
def test_thresholds_equal_those_of_the_formula(term: CrossModalRank) -> None:
    clamped = {"low": 0, "high": 0, "free": 0, "kept": 0}
    for text, case in cases():
        student = case.student()
        _, memory = term.value(student, case.target(()), Processes(), case.memory)
        expected = slow_terms.next_thresholds(term, student, case.memory)
        assert memory.tolist() == pytest.approx(expected, abs=1e-12), text
        assert not memory.requires_grad
        for new, old in zip(expected, case.memory.tolist(), strict=True):
            kind = "kept" if new == old else "low" if new == 0 else "high" if new == term.upper else "free"
            clamped[kind] += 1
    assert min(clamped["low"], clamped["free"], clamped["kept"]) > 0, clamped
    assert clamped["high"] > 0 or term.upper > 5, clamped


@cache
def both_precisions() -> list[tuple[Case, Case]]:
    """A batch of each kind of masks, in float64 and in float32."""
    exact = [make_case(4, 3, 6, mask=mask, seed=11) for mask in MASKS]
    return [(case, case.to(torch.float32)) for case in exact]


@pytest.mark.parametrize(("name", "term"), SETTINGS, ids=[describe(term) for _, term in SETTINGS])
def test_float32_gives_the_float64_answer(name: str, term: Any) -> None:
    for case, single in both_precisions():
        value = evaluate(term, single.student(), single.target(type(term).needs), single.memory)
        exact = evaluate(term, case.student(), case.target(type(term).needs), case.memory)
        assert value.dtype == torch.float32
        assert_near(value.double(), exact, "value", rtol=2e-5, atol=2e-5)
        actual, expected = gradients(value, single.leaves), gradients(exact, case.leaves)
        for leaf in LEAVES:
            assert_near(actual[leaf].double(), expected[leaf], leaf, rtol=1e-3, atol=1e-5)


def test_the_comparison_can_fail() -> None:
    """A parity test that passes for the wrong settings proves nothing."""
    case = make_case(4, 3, mask="random", seed=2)
    wrong = [
        ("contrastive", {"negative_scope": "own"}, {"negative_scope": "batch"}),
        ("text_grounded", {"pairing": "own"}, {"pairing": "published"}),
        ("intra_modal", {"target": "correct"}, {"target": "published"}),
        ("cross_modal_rank", {"reduction": "valid"}, {"reduction": "all"}),
        ("contrastive", {"queries": "images"}, {"queries": "both"}),
        ("contrastive", {"mask_same_image": True}, {"mask_same_image": False}),
        ("image_grounded", {"missing": "left_out"}, {"missing": "published"}),
        ("text_contrast", {"anchor": "caption"}, {"anchor": "image"}),
        ("text_contrast", {"anchor": "caption"}, {"anchor": "positive"}),
        ("class_contrast", {"smoothing": 0.2}, {"smoothing": 0.0}),
        ("dense_grounded", {"focus": 2.0}, {"focus": 0.0}),
        ("sigmoid_contrastive", {"negative_weight": 0.5}, {"negative_weight": 1.0}),
        ("sigmoid_contrastive", {"negative_scope": "own"}, {"negative_scope": "batch"}),
        ("sigmoid_image_grounded", {"negative_weight": 0.5}, {"negative_weight": 1.0}),
    ]
    for name, settings, expected in wrong:
        fast, slow = loss_class(name)(**settings), loss_class(name)(**expected)
        value = evaluate(fast, case.student(), case.target(), case.memory)
        other, _ = getattr(slow_terms, name)(slow, case.student(), case.target(), case.memory)
        assert abs(value.item() - other.item()) > 1e-3, name
