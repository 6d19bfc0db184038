"""Which negatives a row meets: own negatives stay own, other pairings are exactly those that the settings name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from term_cases import (
    Case,
    all_settings,
    at_work,
    describe,
    evaluate,
    gradients,
    is_published,
    leading_leaf,
    make_case,
)
from torch import Tensor

from degla.losses.contrastive import Contrastive
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.core.objective import loss_class
from degla.losses.intra_modal import IntraModal
from degla.losses.text_grounded import TextGrounded
from degla.shelf import LOSSES

PAIRS, NEGATIVES = 4, 3
WHOLE = ("scale", "bias", "classes")
"""The fields of `Embeddings` that are the same for all rows."""


def is_local(name: str) -> bool:
    """Whether the docstring promises that a pair is not compared with anything of another pair."""
    text = inspect.getdoc(loss_class(name)) or ""
    return next(line for line in text.splitlines() if line.startswith("Scope:")).split()[1] == "local"


LOCAL = [
    at_work(term)
    for name in LOSSES.names()
    # The mean of given numbers: linear, so no gradient changes; other tests check its values.
    if is_local(name) and name not in ("token_reconstruction", "masked_text")
    for term in all_settings(name)
    if not is_published(term)
]


OWN = {"patches": "negative_token", "positive": "positive", "classes": "image", "raw_image": "raw_image"}
"""The leaf of a row's own rows, negatives apart, that a local term compares it with."""


def own_leaf(term: Any) -> str:
    """The leaf of the rows that belong to one pair only, for this loss."""
    return next((OWN[extra] for extra in sorted(term.reads - {"bias"})), "negative")


def moved_rows(term: Any, case: Case, changed: int) -> dict[str, set[int]]:
    """The rows whose gradient changes when something that belongs to one pair only changes; one set for each leaf."""
    with torch.no_grad():
        rows_of = case.leaves[own_leaf(term)].clone()
        rows_of[changed] += torch.randn(rows_of[changed].shape, dtype=rows_of.dtype)
    other = case.altered(**{own_leaf(term): rows_of})

    def rows(one: Case) -> dict[str, Tensor]:
        value = evaluate(term, one.student(), one.target(type(term).needs), one.memory)
        return gradients(value, one.leaves)

    before, after = rows(case), rows(other)
    assert before[leading_leaf(term)].abs().max() > 0
    return {
        leaf: {
            row
            for row in range(case.pairs)
            if not torch.allclose(before[leaf][row], after[leaf][row], rtol=0, atol=1e-14)
        }
        for leaf in case.leaves.keys() - {"scale", "bias", "classes"}
    }


def test_there_are_local_terms() -> None:
    assert {type(term).__name__ for term in LOCAL} >= {"ImageGrounded", "TextGrounded", "SelfDistillation"}


@pytest.mark.parametrize("changed", range(PAIRS))
@pytest.mark.parametrize("term", LOCAL, ids=describe)
def test_a_local_term_moves_in_no_other_row(term: Any, changed: int) -> None:
    case = make_case(PAIRS, NEGATIVES, mask="all", seed=changed)
    case.memory[:] = 5.0
    moved = moved_rows(term, case, changed)
    assert moved[own_leaf(term)] == {changed}
    assert all(rows <= {changed} for rows in moved.values()), moved


@pytest.mark.parametrize("term", LOCAL, ids=describe)
def test_a_local_term_is_the_mean_of_its_rows(term: Any) -> None:
    case = make_case(PAIRS, NEGATIVES, mask="all", seed=7)
    student, target = case.student(), case.target()

    def row(index: int) -> Tensor:
        part = slice(index, index + 1)
        one = Embeddings.of({name: each if name in WHOLE else each[part] for name, each in student.tensors().items()})
        teacher = Target(**{name: each[part] for name, each in vars(target).items()})
        return evaluate(term, one, teacher, case.memory)

    together = evaluate(term, student, target, case.memory)
    torch.testing.assert_close(together, torch.stack([row(index) for index in range(PAIRS)]).mean())


@pytest.mark.parametrize("changed", range(PAIRS))
def test_the_published_pairing_moves_exactly_the_rows_of_the_released_mask(changed: int) -> None:
    case = make_case(PAIRS, NEGATIVES, mask="all", seed=changed)
    moved = moved_rows(TextGrounded(pairing="published"), case, changed)
    # Row i meets the flattened rows i + m B; the flattened row r belongs to caption r // K.
    expected = {i for i in range(PAIRS) for m in range(NEGATIVES) if (i + m * PAIRS) // NEGATIVES == changed}
    assert expected != {changed}
    assert moved["caption"] == expected
    assert moved["image"] == set()


@pytest.mark.parametrize("changed", range(PAIRS))
def test_own_scope_moves_one_image_and_batch_scope_moves_all(changed: int) -> None:
    case = make_case(PAIRS, NEGATIVES, mask="all", seed=changed)
    everyone = set(range(PAIRS))

    # For an image with fixed captions, because the caption side of the loss shares every row.
    def share(scope: Any, image: int) -> Tensor:
        student = case.student()
        value = Contrastive(negative_scope=scope).value(student, Target(), Processes())
        none = Contrastive(negative_scope="none").value(student, Target(), Processes())
        return gradients(value - none, case.leaves)["negative"][image]

    assert share("own", changed).abs().max() > 1e-6
    assert torch.count_nonzero(share("none", changed)) == 0

    def meets(scope: Any) -> set[int]:
        rows = set()
        for row in everyone:
            image = case.leaves["image"].detach().clone()
            image[row] = torch.randn(image.shape[1:], dtype=image.dtype)
            one, two = case.altered(), case.altered(image=image)
            moved = [
                gradients(Contrastive(negative_scope=scope).value(each.student(), Target(), Processes()), each.leaves)
                for each in (one, two)
            ]
            if not torch.allclose(moved[0]["negative"][changed], moved[1]["negative"][changed], rtol=0, atol=1e-14):
                rows.add(row)
        return rows

    assert meets("own") == {changed}
    assert meets("batch") == everyone
    assert meets("none") == set()


def test_intra_modal_meets_the_negatives_of_the_whole_batch() -> None:
    case = make_case(PAIRS, NEGATIVES, mask="all", seed=3)
    for target in ("correct", "published"):
        assert moved_rows(IntraModal(target=target), case, 1)["caption"] == set(range(PAIRS))


@pytest.mark.parametrize(
    "term", [term for name in LOSSES.names() for term in all_settings(name) if not is_published(term)], ids=describe
)
def test_the_order_of_the_pairs_is_without_meaning(term: Any) -> None:
    case = make_case(5, 3, mask="random", seed=21)
    order = torch.tensor([3, 0, 4, 1, 2])
    student, target = case.student(), case.target()
    shuffled = Embeddings.of({name: each if name in WHOLE else each[order] for name, each in student.tensors().items()})
    teacher = Target(**{name: each[order] for name, each in vars(target).items()})
    torch.testing.assert_close(
        evaluate(term, shuffled, teacher, case.memory), evaluate(term, student, target, case.memory)
    )
