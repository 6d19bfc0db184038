"""Batches whose answer is known without a computation (methods, section 15.1)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from term_cases import evaluate, gradients, make_case
from torch import Tensor

from degla.losses.contrastive import Contrastive
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.cross_modal_rank import CrossModalRank
from degla.losses.image_grounded import ImageGrounded
from degla.losses.intra_modal import IntraModal
from degla.losses.self_distillation import SelfDistillation
from degla.losses.text_grounded import TextGrounded

ONE = Processes()
COUNTS = [1, 2, 4]


def unit(*shape: int, seed: int = 0) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def batch(image: Tensor, caption: Tensor, negative: Tensor, *, scale: float = 7.0, **tensors: Any) -> Embeddings:
    pairs, negatives, _ = negative.shape
    return Embeddings(
        image=image,
        caption=caption,
        negative=negative,
        valid=tensors.get("valid", torch.ones(pairs, negatives, dtype=torch.bool)),
        scale=torch.tensor(scale, dtype=torch.float64),
        group=torch.arange(pairs),
        rule=tensors.get("rule", torch.zeros(pairs, negatives, dtype=torch.long)),
    )


def caption_as_negatives(pairs: int, negatives: int) -> Embeddings:
    caption = unit(pairs, 6, seed=1)
    return batch(unit(pairs, 6), caption, caption[:, None].expand(-1, negatives, -1))


@pytest.mark.parametrize("negatives", COUNTS)
def test_image_grounded_is_ln_1_plus_k_where_the_negatives_are_the_caption(negatives: int) -> None:
    value = ImageGrounded().value(caption_as_negatives(5, negatives), Target(), ONE)
    assert value.item() == pytest.approx(math.log(1 + negatives), abs=1e-12)


@pytest.mark.parametrize("negatives", COUNTS)
def test_text_grounded_is_ln_1_plus_k_where_teacher_and_negatives_are_the_caption(negatives: int) -> None:
    student = caption_as_negatives(5, negatives)
    value = TextGrounded().value(student, Target(caption=student.caption), ONE)
    assert value.item() == pytest.approx(math.log(1 + negatives), abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 3.0, 100.0])
def test_text_grounded_has_a_scale_of_its_own(scale: float) -> None:
    student = batch(unit(3, 6), unit(3, 6, seed=1), unit(3, 2, 6, seed=2))
    target = Target(caption=unit(3, 6, seed=3))
    other = dataclasses.replace(student, scale=torch.tensor(scale, dtype=torch.float64))
    assert torch.equal(TextGrounded().value(student, target, ONE), TextGrounded().value(other, target, ONE))
    assert TextGrounded().fixed_scale == 10.0


@pytest.mark.parametrize("mask", ["all", "random", "none"])
def test_with_one_negative_both_pairings_are_the_same(mask: Any) -> None:
    case = make_case(5, 1, mask=mask, seed=4)
    own, published = (
        TextGrounded(pairing=pairing).value(case.student(), case.target(), ONE) for pairing in ("own", "published")
    )
    torch.testing.assert_close(own, published, rtol=0, atol=1e-14)
    first, second = gradients(own, case.leaves), gradients(published, case.leaves)
    for leaf in case.leaves:
        torch.testing.assert_close(first[leaf], second[leaf], rtol=0, atol=1e-14)


def met_by(term: TextGrounded, pairs: int, negatives: int) -> Tensor:
    """[caption, negative, row]: which row of the batch meets which negative, read off the gradient.

    The captions are the unit axes, so that the gradient of a negative points along the captions that met it.
    """
    negative = unit(pairs, negatives, pairs).requires_grad_()
    caption = torch.eye(pairs, dtype=torch.float64)
    value = term.value(batch(caption, caption, negative), Target(caption=caption), ONE)
    (gradient,) = torch.autograd.grad(value, [negative])
    return gradient != 0


def test_the_published_pairing_hits_four_own_negatives_of_1024() -> None:
    pairs, negatives = 256, 4
    met = met_by(TextGrounded(pairing="published"), pairs, negatives)
    assert met.sum().item() == pairs * negatives
    assert torch.equal(met.sum(dim=(0, 1)), torch.full((pairs,), negatives))
    own = met[torch.arange(pairs), :, torch.arange(pairs)]
    assert set(own.any(dim=1).nonzero().flatten().tolist()) == {0, 85, 170, 255}
    assert own.sum().item() == 4
    for row in range(pairs):
        captions, numbers = met[:, :, row].nonzero(as_tuple=True)
        assert captions.tolist() == [row // 4 + 64 * m for m in range(4)]
        assert set(numbers.tolist()) == {row % 4}


def test_the_own_pairing_hits_nothing_but_own_negatives() -> None:
    met = met_by(TextGrounded(), 64, 4)
    assert torch.equal(met, torch.eye(64, dtype=torch.bool)[:, None, :].expand(-1, 4, -1))


@pytest.mark.parametrize("mask", ["all", "random", "none"])
def test_self_distillation_of_a_copy_is_0_with_gradient_0(mask: Any) -> None:
    case = make_case(4, 3, mask=mask, seed=6)
    student = case.student()
    same = Target(image=student.image.detach(), caption=student.caption.detach(), negative=student.negative.detach())
    value = SelfDistillation().value(student, same, ONE)
    assert value.requires_grad and value.item() == 0.0
    for gradient in gradients(value, case.leaves).values():
        assert torch.count_nonzero(gradient) == 0


def test_the_published_sum_equals_its_mean_form() -> None:
    pairs, negatives = 256, 4
    student = batch(unit(pairs, 8), unit(pairs, 8, seed=1), unit(pairs, negatives, 8, seed=2))
    target = Target(
        image=unit(pairs, 8, seed=3), caption=unit(pairs, 8, seed=4), negative=unit(pairs, negatives, 8, seed=5)
    )
    assert target.image is not None and target.caption is not None and target.negative is not None
    gaps = [student.image - target.image, student.caption - target.caption, student.negative - target.negative]
    published = 0.005 * sum((gap**2).sum().item() for gap in gaps)
    converted = SelfDistillation.published_sum(0.005, batch_size=pairs, negatives=negatives)
    for term in (converted, SelfDistillation()):
        assert (term.weight * term.value(student, target, ONE)).item() == pytest.approx(published, rel=1e-13)
    assert (converted.image, converted.text) == pytest.approx((1.28, 6.4))


def test_the_mean_form_does_not_depend_on_the_batch() -> None:
    student = batch(unit(3, 8), unit(3, 8, seed=1), unit(3, 2, 8, seed=2))
    target = Target(image=unit(3, 8, seed=3), caption=unit(3, 8, seed=4), negative=unit(3, 2, 8, seed=5))
    twice = batch(student.image.repeat(2, 1), student.caption.repeat(2, 1), student.negative.repeat(2, 1, 1))
    assert target.image is not None and target.caption is not None and target.negative is not None
    again = Target(
        image=target.image.repeat(2, 1), caption=target.caption.repeat(2, 1), negative=target.negative.repeat(2, 1, 1)
    )
    torch.testing.assert_close(
        SelfDistillation().value(twice, again, ONE), SelfDistillation().value(student, target, ONE)
    )


@pytest.mark.parametrize("reduction", ["valid", "all"])
def test_rank_starts_at_0_where_the_negatives_are_the_caption(reduction: Any) -> None:
    term = CrossModalRank(reduction=reduction)
    memory = term.start(3)
    assert memory.shape == (3,) and torch.count_nonzero(memory) == 0
    student = caption_as_negatives(5, 4)
    student = dataclasses.replace(student, rule=torch.arange(4).remainder(3).expand(5, -1))
    value, after = term.value(student, Target(), ONE, memory)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert after.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_rank_is_theta_where_the_negatives_are_the_caption() -> None:
    student = caption_as_negatives(4, 2)
    student = dataclasses.replace(student, rule=torch.tensor([0, 1]).expand(4, -1))
    value, _ = CrossModalRank().value(student, Target(), ONE, torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert value.item() == pytest.approx(2.5)


@pytest.mark.parametrize("reduction", ["valid", "all"])
def test_rank_ignores_what_stands_in_invalid_places(reduction: Any) -> None:
    term = CrossModalRank(reduction=reduction)
    case = make_case(5, 4, mask="random", seed=8)
    student = case.student()
    assert not student.valid.all() and student.valid.any()
    spoiled = dataclasses.replace(
        student,
        negative=torch.where(student.valid[..., None], student.negative, 100.0 * unit(5, 4, 5, seed=9)),
        rule=torch.where(student.valid, student.rule, 1),
    )
    value, after = term.value(student, Target(), ONE, case.memory)
    other, other_after = term.value(spoiled, Target(), ONE, case.memory)
    assert torch.equal(value, other) and torch.equal(after, other_after)


def test_a_rule_without_negatives_keeps_its_threshold() -> None:
    term = CrossModalRank()
    memory = torch.tensor([1.5, 2.5, 3.5], dtype=torch.float64)
    case = make_case(4, 2, mask="all", seed=10)
    student = dataclasses.replace(case.student(), rule=torch.full((4, 2), 1))
    value, after = term.value(student, Target(), ONE, memory)
    assert value.isfinite() and after.isfinite().all()
    assert after[0] == 1.5 and after[2] == 3.5 and after[1] != 2.5
    nothing = dataclasses.replace(student, valid=torch.zeros(4, 2, dtype=torch.bool), rule=torch.full((4, 2), -1))
    value, after = term.value(nothing, Target(), ONE, memory)
    assert value.item() == 0 and torch.equal(after, memory)


def test_a_fixed_threshold_starts_and_stays_at_upper() -> None:
    case = make_case(4, 3, mask="all")
    student, target = case.student(), case.target()
    term = CrossModalRank(upper=2.0, threshold="fixed")
    value, after = term.value(student, target, Processes(), term.start(3))
    assert after.tolist() == [2.0, 2.0, 2.0]
    gaps = 2.0 + case.leaves["scale"].exp() * (
        torch.einsum("bd,bkd->bk", student.image, student.negative) - (student.image * student.caption).sum(-1)[:, None]
    )
    torch.testing.assert_close(value, gaps.relu().mean())


def test_thresholds_stay_between_0_and_upper() -> None:
    image = unit(3, 6)
    far, near = -image[:, None], image[:, None]
    term = CrossModalRank(upper=2.0)
    easy = batch(image, image, far, scale=50.0)
    hard = batch(image, -image, near, scale=50.0)
    assert term.value(easy, Target(), ONE, term.start(1))[1].tolist() == [2.0]
    assert term.value(hard, Target(), ONE, term.start(1))[1].tolist() == [0.0]


@pytest.mark.parametrize(("pairs", "negatives"), [(1, 1), (4, 2), (8, 4)])
def test_contrast_of_uniform_features(pairs: int, negatives: int) -> None:
    row = unit(6)
    student = batch(row.expand(pairs, -1), row.expand(pairs, -1), row.expand(pairs, negatives, -1))

    def value(scope: Any) -> float:
        return Contrastive(negative_scope=scope).value(student, Target(), ONE).item()

    # Without negatives both directions are ln B; negatives change only the images' direction.
    text_to_image = value("none")
    assert text_to_image == pytest.approx(math.log(pairs), abs=1e-12)
    assert 2 * value("batch") - text_to_image == pytest.approx(math.log(pairs * (1 + negatives)), abs=1e-12)
    assert 2 * value("own") - text_to_image == pytest.approx(math.log(pairs + negatives), abs=1e-12)


def test_contrast_masks_the_same_image() -> None:
    row = unit(6)
    student = batch(row.expand(4, -1), row.expand(4, -1), row.expand(4, 0, -1))
    paired = dataclasses.replace(student, group=torch.tensor([0, 0, 5, 5]))
    term = Contrastive(mask_same_image=True)
    assert term.value(student, Target(), ONE).item() == pytest.approx(math.log(4), abs=1e-12)
    assert term.value(paired, Target(), ONE).item() == pytest.approx(math.log(3), abs=1e-12)
    assert Contrastive().value(paired, Target(), ONE).item() == pytest.approx(math.log(4), abs=1e-12)


def test_intra_modal_of_uniform_features() -> None:
    row = unit(6)
    student = batch(row.expand(4, -1), row.expand(4, -1), row.expand(4, 3, -1))
    assert IntraModal().value(student, Target(), ONE).item() == pytest.approx(math.log(1 + 12), abs=1e-12)
    assert IntraModal(target="published").value(student, Target(), ONE).item() == pytest.approx(math.log(12), abs=1e-12)


@pytest.mark.parametrize("target", ["correct", "published"])
def test_intra_modal_pulls_where_its_target_says(target: Any) -> None:
    case = make_case(3, 2, mask="all", seed=12)
    term = IntraModal(target=target)
    student = case.student()
    caption = torch.autograd.grad(evaluate(term, student, Target(), case.memory), [student.negative])[0]
    scale = student.scale.item()
    # A pull towards a negative shows as a gradient against the captions' mean; a push as one along it.
    along = torch.einsum("bkd,d->bk", caption, student.caption.detach().mean(0)) / scale
    assert (along[0, 0] < 0) == (target == "published")
