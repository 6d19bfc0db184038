"""Known answers of the terms that read optional parts: second images, positives, tokens, classes, equal texts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from term_cases import changed, evaluate, gradients, make_case

from degla.losses.class_contrast import ClassContrast
from degla.losses.contextual_contrast import ContextualContrast, caption_edges, smoothed
from degla.losses.contrastive import Contrastive
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.dense_grounded import DenseGrounded
from degla.losses.distractor import Distractor
from degla.losses.distractor_contrastive import DistractorContrastive
from degla.losses.image_grounded import calibrated_own_negatives_loss, own_negatives_loss
from degla.losses.logit_distillation import LogitDistillation
from degla.losses.positive_grounded import PositiveGrounded
from degla.losses.soft_alignment import SoftAlignment
from degla.losses.text_contrast import TextContrast
from degla.losses.text_pull import TextPull
from degla.losses.unit_contrast import UnitContrast
from degla.shelf import RECIPES

ONE = Processes()
PAIRS, NEGATIVES = 5, 3


def value(term: Any, student: Embeddings) -> float:
    return evaluate(term, student, Target(), torch.zeros(1)).item()


def alike(pairs: int, **tensors: Any) -> Embeddings:
    """A batch in which every row of every kind is the same vector, so no loss can distinguish anything."""
    case = make_case(pairs, NEGATIVES, mask="all")
    row = case.student().image[0].detach()
    rows = {
        name: row.expand_as(each)
        for name, each in case.student().tensors().items()
        if each.is_floating_point() and each.dim() > 1 and each.shape[-1] == len(row)
    }
    group = torch.arange(pairs)
    return changed(case.student(), **{**rows, "group": group, "text_group": group, **tensors})


def test_partners_that_fit_everything() -> None:
    # Among 5 texts and 5 captions in one direction, among 5 images in the other.
    expected = math.log(2 * PAIRS) / 2 + math.log(PAIRS) / 2
    assert value(DistractorContrastive(), alike(PAIRS)) == pytest.approx(expected)
    only_two = alike(PAIRS, distractor_valid=torch.arange(PAIRS) < 2)
    expected = math.log(2 + PAIRS) / 2 + math.log(2) / 2
    assert value(DistractorContrastive(), only_two) == pytest.approx(expected)


def test_triplet_clip_is_symmetric() -> None:
    """Exchanging (image, caption) and (second image, its text) leaves TripletCLIP's loss as it is."""
    student = make_case(PAIRS, 1, mask="all", seed=3).student()

    def loss(image: str, text: str, other_image: str, other_text: str) -> float:
        rows = {name: student.tensors()[name] for name in (image, text, other_image, other_text)}
        batch = changed(
            student,
            image=rows[image],
            caption=rows[text],
            negative=rows[other_text][:, None],
            distractor_image=rows[other_image],
            distractor_caption=rows[other_text],
        )
        first, second = value(Contrastive(), batch), value(DistractorContrastive(), batch)
        assert first != pytest.approx(second)
        return first + second

    names = ("image", "caption", "distractor_image", "distractor_caption")
    assert loss(*names) == pytest.approx(loss(*names[2:], *names[:2]), rel=1e-13)


def test_distractors_that_fit_everything() -> None:
    assert value(Distractor(), alike(PAIRS)) == pytest.approx(math.log(2 * PAIRS))
    nobody = alike(PAIRS, distractor_valid=torch.zeros(PAIRS, dtype=torch.bool))
    assert value(Distractor(), nobody) == pytest.approx(2 / 3 * math.log(PAIRS))


def test_con_clip_without_distractors_is_contrast_with_negated_captions() -> None:
    """The images' part and the captions' part without distractor images are the two directions of `contrastive`."""
    student = make_case(PAIRS, 1, mask="all", seed=4).student()
    batch = changed(student, negative=student.extra["distractor_caption"][:, None])
    alone = changed(batch, distractor_valid=torch.zeros(PAIRS, dtype=torch.bool))
    from_image = value(Distractor(image=0.5, caption=0, distractor=0), batch)
    from_caption = value(Distractor(image=0, caption=0.5, distractor=0), alone)
    assert value(Contrastive(), batch) == pytest.approx(from_image + from_caption)


def test_a_negated_caption_is_never_a_query() -> None:
    case = make_case(PAIRS, 1, mask="all", seed=5)
    student = case.student()
    gradient_of = gradients(Distractor(image=0, distractor=0).value(student, Target(), ONE), case.leaves)
    assert (
        torch.count_nonzero(gradient_of["distractor_caption"]) == 0 and gradient_of["distractor_image"].abs().max() > 0
    )


@pytest.mark.parametrize("anchor", ["caption", "image", "both"])
def test_positives_that_fit_everything(anchor: Any) -> None:
    # The two positives of four other rows, and this one; the row's own second positive is not a negative.
    assert value(TextContrast(anchor=anchor), alike(PAIRS)) == pytest.approx(math.log(1 + 2 * (PAIRS - 1)))
    paired = alike(PAIRS, group=torch.tensor([0, 0, 1, 1, 2]))
    masked = TextContrast(anchor=anchor, mask_same_image=True)
    expected = 4 / 5 * math.log(1 + 2 * 3) + 1 / 5 * math.log(1 + 2 * 4)
    assert value(masked, paired) == pytest.approx(expected)


def test_read_clips_paraphrase_is_the_query_and_the_captions_are_the_candidates() -> None:
    """Both positives say what the first caption says: only as queries can they choose between captions."""
    first, second = torch.eye(2, dtype=torch.float64)
    texts = {
        "caption": torch.stack([first, second]),
        "positive": torch.stack([first, first])[:, None],
        "positive_valid": torch.ones(2, 1, dtype=torch.bool),
        "image": torch.stack([second, second]),
        "scale": torch.tensor(2.0, dtype=torch.float64),
    }
    student = changed(make_case(2, 0, dim=2, mask="all").student(), **texts)
    # Rows log(1 + e^-2) and log(1 + e^2), by hand; the other way round every row has two equal candidates.
    assert value(TextContrast(anchor="positive"), student) == pytest.approx(1.1269280110429725, rel=1e-13)
    assert value(TextContrast(anchor="caption"), student) == pytest.approx(0.6931471805599453, rel=1e-13)
    objective = RECIPES.load("read_clip").read_clip().objective
    assert value(objective["text_contrast"], student) == pytest.approx(1.1269280110429725, rel=1e-13)


def test_a_paraphrase_meets_the_captions_of_all_rows_and_of_other_pictures_alone_where_masked() -> None:
    assert value(TextContrast(anchor="positive"), alike(PAIRS)) == pytest.approx(math.log(PAIRS))
    paired = alike(PAIRS, group=torch.tensor([0, 0, 1, 1, 2]))
    masked = TextContrast(anchor="positive", mask_same_image=True)
    assert value(masked, paired) == pytest.approx(4 / 5 * math.log(4) + 1 / 5 * math.log(5))


def test_text_pull_of_equal_and_opposite_texts() -> None:
    assert value(TextPull(), alike(PAIRS)) == pytest.approx(0, abs=1e-14)
    student = alike(PAIRS)
    assert value(TextPull(), changed(student, positive=-student.extra["positive"])) == pytest.approx(4)


def test_clics_known_answers() -> None:
    """Four texts that are their image, a negative that is orthogonal to all."""
    student = two_axes(positive=torch.eye(4, dtype=torch.float64)[:2, None].expand(-1, 3, -1),
                       positive_valid=torch.ones(2, 3, dtype=torch.bool))  # fmt: skip
    losses = {name: each for name, each in RECIPES.load("clic").clic().objective.items() if each.weight}
    assert sum(each.weight * value(each, student) for each in losses.values()) == pytest.approx(0.313262, abs=1e-6)
    contrast = {"contrastive", "positive_contrast"}
    for name in contrast | {"image_grounded", "positive_grounded"}:
        assert value(losses[name], student) == pytest.approx(0.313262, abs=1e-6), name
    for names in (contrast, losses.keys() - contrast - {"text_pull"}):
        assert sum(losses[name].weight for name in names) == 0.5
    assert value(losses["text_pull"], student) == 0
    fooled = changed(student, negative=student.extra["positive"][:, :1])
    assert value(PositiveGrounded(), fooled) == pytest.approx(math.log(2))
    # The second text at cosine 0.5 to the first, the others anywhere.
    turned = student.extra["positive"].clone()
    turned[:, 0] = student.caption / 2 + math.sqrt(3) / 2 * student.negative[:, 0]
    turned[:, 1] = -student.caption
    assert value(losses["text_pull"], changed(student, positive=turned)) == pytest.approx(1)


def two_axes(**tensors: Any) -> Embeddings:
    """Two rows at scale 1, whose images, captions and units are the two axes; negatives and foils are two others."""
    axes = torch.eye(4, dtype=torch.float64)
    rows = dict.fromkeys(("image", "caption"), axes[:2]) | {"negative": axes[2:, None]}
    rows |= {"unit": axes[:2, None].expand(-1, 2, -1), "foil": axes[2:, None].expand(-1, 2, -1)}
    masks = {name: torch.ones(2, 2, dtype=torch.bool) for name in ("unit_valid", "foil_valid")}
    student = make_case(2, 1, dim=4, mask="all").student()
    scale = torch.ones((), dtype=torch.float64)
    return changed(student, **{**rows, **masks, "unit_group": torch.arange(4).view(2, 2), "scale": scale, **tensors})


def test_cs_clips_known_answers() -> None:
    objective = RECIPES.load("cs_clip").cs_clip().objective
    full, unit = (value(objective[name], two_axes()) for name in ("contrastive", "unit_contrast"))
    assert (full, unit) == pytest.approx((0.528465, 0.432353), abs=1e-6)
    assert full + objective["unit_contrast"].weight * unit == pytest.approx(0.744642, abs=1e-6)
    # A foil equal to its unit: the images' half is log((2e + 1) / e), the units' half does not change.
    fooled = value(UnitContrast(), two_axes(foil=two_axes().extra["unit"]))
    assert fooled == pytest.approx((math.log((2 * math.e + 1) / math.e) + 0.313262) / 2, abs=1e-6)


def test_units_without_foils_are_clip_on_units_and_places_are_alike() -> None:
    case = make_case(PAIRS, 0, mask="all", seed=17)
    student = changed(case.student(), foil_valid=torch.zeros(PAIRS, 2, dtype=torch.bool))
    plain = [
        value(Contrastive(negative_scope="none"), changed(student, caption=student.extra["unit"][:, place]))
        for place in (0, 1)
    ]
    assert value(UnitContrast(), student) == pytest.approx(sum(plain) / 2, rel=1e-12)
    full = case.student()
    turned = {name: full.extra[name].flip(1) for name in ("unit", "foil", "unit_valid", "foil_valid", "unit_group")}
    assert value(UnitContrast(), changed(full, **turned)) == pytest.approx(value(UnitContrast(), full), rel=1e-12)
    # One place empty: its part of the mean over places is 0.
    half = torch.tensor([True, False]).expand(PAIRS, -1)
    assert value(UnitContrast(), changed(student, unit_valid=half)) == pytest.approx(plain[0] / 2, rel=1e-12)


def test_a_unit_that_says_the_same_is_no_negative_where_masked() -> None:
    """Three rows, of which the third repeats image and units of the first: masked, both have the value of one."""
    axes = two_axes()
    twice = [0, 1, 0]
    student = Embeddings.of(
        {name: each if name in ("scale", "bias", "classes") else each[twice] for name, each in axes.tensors().items()}
    )
    assert value(UnitContrast(mask_same_text=True), changed(student, group=torch.arange(3))) < value(
        UnitContrast(), changed(student, group=torch.arange(3))
    )
    own = evaluate(UnitContrast(mask_same_text=True), student, Target(), torch.zeros(1)).item()
    first, second = _row(axes, 1), _row(axes, 2)
    assert own == pytest.approx((2 * first + second) / 3, abs=1e-6)


def _row(axes: Embeddings, others: int) -> float:
    """One row of `two_axes` and that many rows of another unit."""
    v, u, f = axes.image[0], axes.extra["unit"], axes.extra["foil"]
    right, wrong, foil = (v @ u[0, 0]).exp(), others * (v @ u[1, 0]).exp(), (v @ f[0, 0]).exp()
    return (torch.log((right + wrong + foil) / right) + torch.log((right + wrong) / right)).item() / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_contrast_equals_torch(smoothing: float) -> None:
    student = make_case(12, 0, mask="random", seed=9).student()
    assert (student.extra["label"] < 0).any() and (student.extra["label"] >= 0).any()
    expected = torch.nn.functional.cross_entropy(
        student.scale * student.image @ student.extra["classes"].T,
        student.extra["label"],
        ignore_index=-1,
        label_smoothing=smoothing,
    )
    assert value(ClassContrast(smoothing=smoothing), student) == pytest.approx(expected.item())


def test_soft_alignment_of_different_texts_is_twice_the_contrast() -> None:
    student = changed(make_case(PAIRS, 0, seed=10).student(), text_group=torch.arange(PAIRS))
    plain = value(Contrastive(negative_scope="none"), student)
    assert value(SoftAlignment(smoothing=0.0), student) == pytest.approx(2 * plain)
    assert value(SoftAlignment(), student) != pytest.approx(2 * plain)


def test_soft_alignment_of_equal_texts_shares_the_targets() -> None:
    one_text = torch.full((PAIRS,), 7)
    assert value(SoftAlignment(smoothing=0.0), alike(PAIRS, text_group=one_text)) == pytest.approx(2 * math.log(PAIRS))
    student = make_case(PAIRS, 0, seed=11).student()
    logits = student.scale * student.image @ student.caption.T
    even = -torch.log_softmax(logits, 1).mean() - torch.log_softmax(logits.T, 1).mean()
    for smoothing in (0.0, 0.2):
        loss = value(SoftAlignment(smoothing=smoothing), changed(student, text_group=one_text))
        assert loss == pytest.approx(even.item())


@pytest.mark.parametrize("negatives", [1, 2, 4])
def test_dense_contrast_of_negatives_that_are_the_caption(negatives: int) -> None:
    student = make_case(PAIRS, negatives, mask="all", seed=12).student()
    same = changed(
        student,
        negative_token=student.extra["caption_token"][:, None].expand(-1, negatives, -1, -1),
        negative_token_valid=student.extra["caption_token_valid"][:, None].expand(-1, negatives, -1),
    )
    assert value(DenseGrounded(smoothing=0.0, focus=0.0), same) == pytest.approx(math.log(1 + negatives))


def test_a_text_of_twice_as_many_tokens_that_fit_alike_scores_log_2_higher() -> None:
    student = make_case(1, 1, mask="all", seed=13).student()
    token = student.extra["caption_token"][:, :1]
    mask = torch.tensor([[True, False]])
    longer = changed(
        student,
        caption_token=token.expand(-1, 2, -1),
        caption_token_valid=mask,
        negative_token=token[:, None].expand(-1, 1, 2, -1),
        negative_token_valid=torch.ones(1, 1, 2, dtype=torch.bool),
    )
    # Scores x and x + log 2: the caption's share is 1/3.
    assert value(DenseGrounded(smoothing=0.0, focus=0.0), longer) == pytest.approx(math.log(3))


@pytest.mark.parametrize("detach", [False, True])
def test_a_token_that_is_equally_near_all_patches_looks_at_all_alike(detach: bool) -> None:
    case = make_case(2, 1, mask="all", seed=14)
    patch = case.leaves["patch"].detach()[:, :1].expand(-1, 4, -1).clone().requires_grad_()
    leaves = {**case.leaves, "patch": patch}
    student = changed(case.student(), patch=patch)
    term = DenseGrounded(smoothing=0.0, focus=0.0, detach_attention=detach)
    loss = term.value(student, Target(), ONE)
    assert loss.isfinite() and loss.item() > 0
    gradient_of = gradients(loss, leaves)
    assert all(each.isfinite().all() for each in gradient_of.values())
    # All patches are one, so each gets an equal part of the gradient.
    torch.testing.assert_close(gradient_of["patch"], gradient_of["patch"][:, :1].expand(-1, 4, -1))
    assert gradient_of["patch"].abs().max() > 0


def test_where_a_token_looks_has_a_gradient_only_if_asked() -> None:
    case = make_case(3, 2, mask="all", seed=15)
    free, cut = (
        gradients(DenseGrounded(detach_attention=detach).value(case.student(), Target(), ONE), case.leaves)["patch"]
        for detach in (False, True)
    )
    assert not torch.allclose(free, cut)


def test_calibration_without_smoothing_and_focus_is_plain_cross_entropy() -> None:
    positive, negative = torch.randn(6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    valid = torch.rand(6, 3) < 0.7
    plain = own_negatives_loss(positive, negative, valid)
    assert torch.equal(plain, calibrated_own_negatives_loss(positive, negative, valid, smoothing=0, focus=0))
    # Near those values, the general formula tends to the plain one.
    near = calibrated_own_negatives_loss(positive, negative, valid, smoothing=0, focus=1e-9)
    torch.testing.assert_close(near, plain, rtol=0, atol=1e-6)


def test_focus_silences_rows_that_are_sure() -> None:
    sure, valid = torch.tensor([60.0], dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    loss = calibrated_own_negatives_loss(sure, torch.zeros(1, 3, dtype=torch.float64), valid, smoothing=0, focus=2)
    assert 0 <= loss.item() < 1e-40


def test_distillation_of_a_copy_is_the_teachers_entropy_without_gradient() -> None:
    case = make_case(4, 0, seed=16)
    student = case.student()
    copy = Target(image=student.image.detach(), caption=student.caption.detach())
    gradient_of = gradients(LogitDistillation().value(student, copy, ONE), case.leaves)
    assert gradient_of["image"].abs().max() < 1e-12 and gradient_of["caption"].abs().max() < 1e-12


def _at(*degrees: float) -> torch.Tensor:
    """Unit rows at these angles in the plane."""
    angles = torch.tensor(degrees, dtype=torch.double).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_own_negatives_are_never_edges_nor_what_is_less_like_a_caption_than_they() -> None:
    captions = _at(0, 10, 25, 90)
    none = torch.zeros(4, 1, 2, dtype=torch.double)
    without = caption_edges(captions, none, torch.zeros(4, 1, dtype=torch.bool), neighbours=2, least=0.5)
    assert without.nonzero().tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    # The second caption's own negative lies at 12 degrees: the third is nearer to that than to the caption.
    negatives = torch.stack([_at(180), _at(12), _at(180), _at(180)])
    joined = caption_edges(captions, negatives, torch.ones(4, 1, dtype=torch.bool), neighbours=2, least=0.5)
    assert joined.nonzero().tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    # A caption of the batch that is identical to another one's negative is not joined with it.
    negatives[1] = _at(0)
    joined = caption_edges(captions, negatives, torch.ones(4, 1, dtype=torch.bool), neighbours=2, least=0.5)
    assert not joined[0, 1] and not joined[1, 0]
    # A missing negative sets no bound.
    valid = torch.tensor([[True], [False], [True], [True]])
    assert torch.equal(caption_edges(captions, negatives, valid, neighbours=2, least=0.5), without)


def test_edges_go_both_ways_and_are_few() -> None:
    captions, none = _at(0, 10, 16, 60), torch.zeros(4, 0, 2, dtype=torch.double)
    valid = torch.zeros(4, 0, dtype=torch.bool)
    one = caption_edges(captions, none, valid, neighbours=1, least=0.0)
    assert one.nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2]]
    assert not caption_edges(captions, none, valid, neighbours=0, least=0.0).any()
    assert caption_edges(captions, none, valid, neighbours=9, least=0.0).sum() == 12


def test_captions_smoothed_by_hand() -> None:
    captions = _at(0, 90, 180)
    edges = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    # A~ of a pair is 1/2 everywhere: both are their middle, at 45 degrees; a caption without an edge stays.
    torch.testing.assert_close(smoothed(edges, captions, hops=1), _at(45, 45, 180))
    torch.testing.assert_close(smoothed(edges, captions, hops=5), _at(45, 45, 180))
    assert smoothed(edges, captions, hops=0) is captions


def test_no_hop_is_the_contrast_of_the_teachers_captions_with_images() -> None:
    case = make_case(PAIRS, NEGATIVES, seed=14)
    student, teacher = case.student(), case.target()
    logits = student.scale * teacher.require("caption") @ student.image.T
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(PAIRS)).item()
    for setting in (ContextualContrast(scope=0), ContextualContrast(scope=3, neighbours=0)):
        assert evaluate(setting, student, teacher, torch.zeros(1)).item() == pytest.approx(expected)
