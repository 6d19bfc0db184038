"""Sigmoid losses: known answers, gradients, blocks, and which form of a recipe's losses a model is trained with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from term_cases import changed, gradients, make_case

from degla.errors import InputError
from degla.losses import (
    ConceptAttention,
    ConceptSigmoid,
    Contrastive,
    ImageGrounded,
    SelfDistillation,
    SigmoidContrastive,
    SigmoidImageGrounded,
    SigmoidTextGrounded,
    TextGrounded,
    concept_attention,
)
from degla.losses.core import Processes, Target, pairwise
from degla.losses.core.forms import fit_to_model
from degla.losses.core.objective import losses_by_name

ONE = Processes()
EYE = torch.eye(2, dtype=torch.float64)
LN2 = math.log(2)


def plus(z: float) -> float:
    return math.log1p(math.exp(z))


@pytest.mark.parametrize(("bias", "answer"), [(-10.0, 0.693193), (-5.0, 0.0134307)])
def test_two_pairs_that_are_alike_only_with_themselves(bias: float, answer: float) -> None:
    loss = SigmoidContrastive()(image=EYE, caption=EYE, scale=10.0, bias=bias)
    assert loss.item() == pytest.approx(answer, abs=5e-7)


@pytest.mark.parametrize("scope", ["own", "batch"])
@pytest.mark.parametrize(("cosine", "added"), [(1.0, LN2), (0.5, 0.00671535)])
def test_a_negative_is_one_more_false_pair(scope: Any, cosine: float, added: float) -> None:
    image = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    negative = torch.tensor([[[cosine, math.sqrt(1 - cosine**2), 0.0]]], dtype=torch.float64)
    inputs: Any = {"image": image, "caption": image, "negative": negative, "scale": 10.0, "bias": -10.0}
    for weight in (1.0, 0.25, 0.0):
        loss = SigmoidContrastive(negative_scope=scope, negative_weight=weight)(**inputs)
        assert loss.item() == pytest.approx(LN2 + weight * added, abs=5e-9)
    assert SigmoidImageGrounded()(**inputs).item() == pytest.approx(LN2 + added, abs=5e-9)


@pytest.mark.parametrize("negatives", [1, 2, 4])
def test_local_losses_do_not_depend_on_how_many_equal_negatives_there_are(negatives: int) -> None:
    rows = torch.nn.functional.normalize(torch.randn(5, 6, dtype=torch.float64), dim=-1)
    copies = rows[:, None].expand(-1, negatives, -1)
    text = SigmoidTextGrounded()(image=rows, caption=rows, negative=copies, teacher_caption=rows)
    assert text.item() == pytest.approx(LN2, abs=1e-12)
    image = SigmoidImageGrounded()(image=rows, caption=rows, negative=copies, scale=7.0, bias=-4.0)
    assert image.item() == pytest.approx(plus(-3) + plus(3), abs=1e-12)


def test_with_one_negative_the_text_grounded_losses_are_one() -> None:
    case = make_case(5, 1, mask="random", seed=3)
    values = [loss.value(case.student(), case.target(), ONE) for loss in (SigmoidTextGrounded(), TextGrounded())]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-14)


def test_gradients_are_those_written_down() -> None:
    case = make_case(4, 3, mask="random", seed=5)
    student = case.student()
    names = {name: getattr(student, name) for name in ("negative", "scale")} | {"bias": student.require("bias")}
    value = SigmoidContrastive(negative_scope="own", negative_weight=0.5).value(student, Target(), ONE)
    gradient_of = gradients(value, names)
    scale, bias = student.scale, student.require("bias")
    logits = scale * student.image @ student.caption.T + bias
    own = scale * torch.einsum("bd,bkd->bk", student.image, student.negative) + bias
    share = 0.5 * torch.sigmoid(own) * student.valid / 4
    torch.testing.assert_close(gradient_of["negative"], scale * share[..., None] * student.image[:, None])
    torch.testing.assert_close(gradient_of["bias"], (torch.sigmoid(logits) - torch.eye(4)).sum() / 4 + share.sum())


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("scope", ["none", "own", "batch"])
def test_blocks_change_nothing(block: int, scope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = SigmoidContrastive(negative_scope=scope, mask_same_image=True)
    case = make_case(5, 3, mask="random", seed=6)
    whole = loss.value(case.student(), Target(), ONE)
    expected = gradients(whole, case.leaves)
    monkeypatch.setattr(pairwise, "BLOCK_LOGITS", block)
    value = loss.value(case.student(), Target(), ONE)
    torch.testing.assert_close(value, whole, rtol=1e-13, atol=1e-13)
    for leaf, gradient in gradients(value, case.leaves).items():
        torch.testing.assert_close(gradient, expected[leaf], rtol=1e-11, atol=1e-13)


def test_large_logits_stay_exact() -> None:
    image = torch.eye(2)
    loss = SigmoidContrastive()(image=image, caption=image.flip(0), scale=100.0, bias=-10.0)
    assert loss.item() == pytest.approx(100.0, abs=1e-3)
    assert SigmoidContrastive()(image=image, caption=image, scale=100.0, bias=-40.0).item() < 1e-15


def test_a_model_with_a_bias_gets_the_sigmoid_form_with_all_settings() -> None:
    chosen = losses_by_name(
        contrastive=Contrastive(weight=0.7, negative_scope="own", mask_same_image=True),
        image_grounded=ImageGrounded(weight=0.3),
        text_grounded=TextGrounded(weight=0.2, fixed_scale=4.0, pairing="published"),
        self_distillation=SelfDistillation(image=2.0),
    )
    assert fit_to_model(chosen, biased=True, model="m") == {
        "sigmoid_contrastive": SigmoidContrastive(weight=0.7, negative_scope="own", mask_same_image=True),
        "sigmoid_image_grounded": SigmoidImageGrounded(weight=0.3),
        "sigmoid_text_grounded": SigmoidTextGrounded(weight=0.2, fixed_scale=4.0, pairing="published"),
        "self_distillation": SelfDistillation(image=2.0),
    }
    plain = fit_to_model(chosen, biased=False, model="m")
    assert plain == {name: loss for name, loss in chosen.items() if loss.weight > 0}


@pytest.mark.parametrize(
    ("chosen", "biased", "message"),
    [
        ([SigmoidContrastive()], False, r"m: the model has no logit_bias, .* for sigmoid_contrastive.*Use contrastive"),
        ([ConceptSigmoid(weight=1.0)], False, r"m: the model has no logit_bias, .*concept_sigmoid\. Choose a model"),
        ([Contrastive(), SigmoidContrastive()], True, "Set one of the two weights to 0"),
        ([ImageGrounded(focus=2.0)], True, r"--objective\.image-grounded\.focus 2\.0 has no sigmoid form"),
    ],
)
def test_a_mismatch_is_refused_with_the_remedy(chosen: list[Any], biased: bool, message: str) -> None:
    named = {type(loss).__module__.rpartition(".")[2]: loss for loss in chosen}
    with pytest.raises(InputError, match=message):
        fit_to_model(losses_by_name(**named), biased=biased, model="m")


def test_a_batch_without_a_bias_is_refused() -> None:
    case = make_case(3, 2, seed=8)
    student = dataclasses.replace(case.student(), extra={})
    with pytest.raises(LookupError, match="add 'bias' to `reads`"):
        SigmoidContrastive().value(student, Target(), ONE)


def phrases(student: Any, concept: torch.Tensor, valid: torch.Tensor) -> Any:
    """A batch whose phrases are these."""
    numbers = torch.arange(valid.numel()).view(valid.shape)
    return changed(student, concept=concept, concept_valid=valid, concept_group=numbers)


def test_c2lips_known_answers() -> None:
    concept = torch.stack([EYE[[0, 0]], EYE[[1, 0]]])
    valid = torch.tensor([[True, True], [True, False]])
    inputs: Any = {
        "image": EYE,
        "caption": EYE,
        "concept": concept,
        "concept_valid": valid,
        "scale": 10.0,
        "bias": -5.0,
    }
    assert ConceptSigmoid()(**inputs).item() == pytest.approx(0.0134307, abs=5e-8)
    # One image of two patches, one phrase that is the first: weights e / (e + 1) and the rest, cosine 0.938508.
    tokens: Any = {"caption_token": torch.zeros(1, 1, 2), "negative_token": torch.zeros(1, 0, 1, 2)}
    tokens |= {f"{name}_valid": torch.ones(value.shape[:-1], dtype=torch.bool) for name, value in tokens.items()}
    one: Any = {"image": EYE[:1], "caption": EYE[:1], "concept": EYE[:1, None], "patch": 3 * EYE[None]}
    cell = ConceptAttention()(**one, **tokens, scale=10.0, bias=-5.0)
    assert cell.item() == pytest.approx(0.0123849, abs=5e-8)


def test_phrases_that_are_the_captions_are_the_contrast_of_captions() -> None:
    student = make_case(5, 0, mask="all", seed=7).student()
    batch = phrases(student, student.caption[:, None], torch.ones(5, 1, dtype=torch.bool))
    expected = SigmoidContrastive(negative_scope="none").value(student, Target(), ONE)
    torch.testing.assert_close(ConceptSigmoid().value(batch, Target(), ONE), expected, rtol=1e-12, atol=0)
    # More places, all of them empty.
    wide = phrases(
        student, student.caption[:, None].expand(-1, 3, -1), torch.tensor([True, False, False]).expand(5, -1)
    )
    torch.testing.assert_close(ConceptSigmoid().value(wide, Target(), ONE), expected, rtol=1e-12, atol=0)


def test_where_all_patches_are_one_a_phrase_sees_that_one() -> None:
    student = make_case(4, 0, mask="random", seed=8).student()
    patch = torch.nn.functional.normalize(student.extra["patch"][:, 0], dim=-1)
    expected = ConceptSigmoid().value(changed(student, image=patch), Target(), ONE)
    for patches in (student.extra["patch"][:, :1], student.extra["patch"][:, :1].expand(-1, 3, -1)):
        actual = ConceptAttention().value(changed(student, patch=patches), Target(), ONE)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_blocks_of_phrases_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(4, 0, mask="random", seed=9)
    values = []
    for block in (concept_attention._BLOCK, 1):
        monkeypatch.setattr(concept_attention, "_BLOCK", block)
        value = ConceptAttention().value(case.student(), Target(), ONE)
        values.append({"value": value, **gradients(value, case.leaves)})
    for name, whole in values[0].items():
        torch.testing.assert_close(values[1][name], whole, rtol=1e-10, atol=1e-13)
