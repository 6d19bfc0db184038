"""The objective: the weighted sum, inactive losses, wrong names and weights, the memory of losses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from term_cases import RULES, evaluate, gradients, make_case

from degla.errors import InputError
from degla.losses.class_contrast import ClassContrast
from degla.losses.contrastive import Contrastive
from degla.losses.core import Loss, Processes, Target
from degla.losses.core.objective import Objective, loss_class, losses_by_name
from degla.losses.cross_modal_rank import CrossModalRank
from degla.losses.dense_grounded import DenseGrounded
from degla.losses.image_grounded import ImageGrounded
from degla.losses.self_distillation import SelfDistillation
from degla.losses.text_grounded import TextGrounded
from degla.losses.text_pull import TextPull
from degla.shelf import LOSSES

ONE = Processes()


def test_the_loss_is_the_weighted_sum_of_the_values() -> None:
    case = make_case(4, 3, mask="random", seed=40)
    chosen = {
        "contrastive": Contrastive(weight=0.7),
        "image_grounded": ImageGrounded(weight=0.2),
        "self_distillation": SelfDistillation(weight=3.0),
        "text_grounded": TextGrounded(weight=0.3),
    }
    loss, values = Objective(chosen, rules=RULES).value(case.student(), case.target(), ONE)
    assert list(values) == list(chosen)
    expected = torch.zeros((), dtype=torch.float64)
    for name, term in chosen.items():
        value = evaluate(term, case.student(), case.target(), case.memory)
        assert torch.equal(values[name], value) and not values[name].requires_grad
        expected = expected + term.weight * value
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    actual, wanted = gradients(loss, case.leaves), gradients(expected, case.leaves)
    for leaf in ("image", "caption", "negative", "scale"):
        assert actual[leaf].abs().max() > 0
        torch.testing.assert_close(actual[leaf], wanted[leaf])


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_term_of_weight_0_is_not_touched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    term_class = loss_class(name)

    def refuse(*_: Any) -> None:
        raise AssertionError("a term of weight 0 was called")

    for method in ("__call__", "value", "start"):
        if hasattr(term_class, method):
            monkeypatch.setattr(term_class, method, refuse)

    @dataclasses.dataclass(frozen=True)
    class Alone(Loss):
        weight: float = 2.0

        def value(self, student: Any, teacher: Any, processes: Any) -> Any:
            return student.scale

    objective = Objective({name: term_class(weight=0.0), "alone": Alone()}, rules=RULES)
    case = make_case(2, 2)
    loss, values = objective.value(case.student(), Target(), ONE)
    assert objective.needs == frozenset() and list(values) == ["alone"] and objective.memory == {}
    assert loss.item() == pytest.approx(2 * case.student().scale.item())


@pytest.mark.parametrize("name", LOSSES.names())
def test_the_objective_needs_what_its_terms_need(name: str) -> None:
    objective = Objective(losses_by_name(**{name: loss_class(name)()}), rules=RULES)
    assert objective.needs == loss_class(name).needs
    case = make_case(3, 2, mask="all")
    loss, values = objective.value(case.student(), case.target(objective.needs), ONE)
    assert list(values) == [name] and loss.isfinite()


def test_needs_are_joined() -> None:
    both = Objective(losses_by_name(text_grounded=TextGrounded(), contrastive=Contrastive()), rules=1)
    assert both.needs == {"caption"}
    assert Objective({"a": TextGrounded(), "b": SelfDistillation()}, rules=1).needs == {
        "image",
        "caption",
        "negative",
    }


def test_the_objective_reads_what_its_active_terms_read() -> None:
    chosen = losses_by_name(
        dense_grounded=DenseGrounded(), class_contrast=ClassContrast(), text_pull=TextPull(weight=0.0)
    )
    assert Objective(chosen, rules=1).reads == {"patches", "tokens", "classes"}
    assert Objective(losses_by_name(contrastive=Contrastive()), rules=1).reads == frozenset()


def test_terms_lists_the_whole_shelf() -> None:
    loss = ImageGrounded(weight=0.25)
    listed = losses_by_name(image_grounded=loss)
    assert list(listed) == LOSSES.names()
    assert listed["image_grounded"] is loss
    assert all(term.weight == 0 for name, term in listed.items() if name != "image_grounded")
    assert all(type(term) is loss_class(name) for name, term in listed.items())


def test_an_unknown_term_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"unknown loss 'contrastve'\. Did you mean 'contrastive'\?.*Known: "):
        losses_by_name(contrastve=Contrastive())
    with pytest.raises(InputError, match=r"Did you mean 'image_grounded'\?"):
        LOSSES.load("image_ground")


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match=r"--objective\.image-grounded\.weight is -0\.1; it must be 0 or more"):
        Objective(losses_by_name(contrastive=Contrastive(), image_grounded=ImageGrounded(weight=-0.1)), rules=1)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="weight"):
        Objective(losses_by_name(contrastive=Contrastive(), image_grounded=ImageGrounded(weight=weight)), rules=1)


@pytest.mark.parametrize("chosen", [{}, {"contrastive": Contrastive(weight=0.0)}])
def test_an_objective_without_a_term_is_refused(chosen: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="weight 0"):
        Objective(chosen, rules=1)


def test_memory_moves_on_from_step_to_step() -> None:
    term = CrossModalRank(weight=1.0)
    objective = Objective(losses_by_name(cross_modal_rank=term), rules=RULES)
    assert list(objective.memory) == ["cross_modal_rank"]
    memory = term.start(RULES)
    thresholds = []
    for seed in range(3):
        case = make_case(5, 4, mask="random", seed=seed).to(torch.float32)
        # Images near their captions, so that the thresholds leave 0.
        case = case.altered(image=case.leaves["caption"] + 0.3 * case.leaves["image"])
        expected, memory = term.value(case.student(), Target(), ONE, memory)
        loss, values = objective.value(case.student(), Target(), ONE)
        assert torch.equal(loss, expected) and torch.equal(values["cross_modal_rank"], expected.detach())
        assert torch.equal(objective.memory["cross_modal_rank"], memory)
        thresholds.append(memory.tolist())
    assert thresholds[0] != thresholds[1] != thresholds[2] and any(thresholds[0])


def test_two_objectives_share_no_memory() -> None:
    first, second = (Objective(losses_by_name(cross_modal_rank=CrossModalRank()), rules=RULES) for _ in range(2))
    case = make_case(5, 4, mask="all").to(torch.float32)
    case = case.altered(image=case.leaves["caption"])
    first.value(case.student(), Target(), ONE)
    assert any(first.memory["cross_modal_rank"].tolist())
    assert not any(second.memory["cross_modal_rank"].tolist())


def test_what_is_no_loss_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"Objective: 'near' is the class TextPull; pass TextPull\(\)\."):
        Objective({"near": TextPull})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"Objective: 'near' is of type float; it must be a loss\."):
        Objective({"near": 0.5})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"Objective: 'near' is of type CrossEntropyLoss; it must be a loss\."):
        Objective({"near": torch.nn.CrossEntropyLoss()})  # type: ignore[dict-item]
    for wrong in ("2", 2.0, -1):
        with pytest.raises(InputError, match=rf"^Objective: rules is {wrong!r}; it must be the number of rules\.$"):
            Objective({"near": TextPull()}, rules=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Objective: give the losses by name"):
        Objective([TextPull()])  # type: ignore[arg-type]
