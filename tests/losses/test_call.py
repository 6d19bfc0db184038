"""A loss called with plain tensors, as any training loop has them: the same value, with defaults, and clear errors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from term_cases import DENSE, RULES, UNIT, Case, all_settings, describe, evaluate, gradients, make_case
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import degla.losses
from degla.errors import InputError
from degla.inputs import INPUTS, LossTensors, inputs_of
from degla.losses import (
    ConceptSigmoid,
    Contrastive,
    CrossModalRank,
    Embeddings,
    ImageGrounded,
    Loss,
    Objective,
    RawDistillation,
    SelfDistillation,
    SigmoidContrastive,
)
from degla.losses.core import Processes, StatefulLoss, Target
from degla.losses.core.embeddings import embeddings_of
from degla.losses.core.objective import loss_class, losses_by_name, wanted_by
from degla.shelf import LOSSES

EVERY = [term for name in LOSSES.names() for term in all_settings(name)]


def tensors_of(case: Case) -> dict[str, Tensor]:
    """All that a loss can be called with; embeddings of any length."""
    student = {name: case.leaves[name] for name in (*UNIT, *DENSE)}
    teacher = {f"teacher_{part}": value for part, value in case.teacher.items()}
    return student | teacher | case.inputs | case.numbers()


def called(term: Any, case: Case, **tensors: Any) -> Tensor:
    inputs: Any = tensors_of(case) | tensors
    return term(case.memory, **inputs)[0] if isinstance(term, StatefulLoss) else term(**inputs)


@pytest.mark.parametrize("term", EVERY, ids=describe)
def test_a_call_with_tensors_is_the_value_with_its_gradients(term: Any) -> None:
    case = make_case(5, 3, seed=70)
    actual, wanted = called(term, case), evaluate(term, case.student(), case.target(), case.memory)
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)
    got, due = gradients(actual, case.leaves), gradients(wanted, case.leaves)
    for leaf, value in due.items():
        torch.testing.assert_close(got[leaf], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_that_is_nothing_without_negatives_asks_for_them(name: str) -> None:
    """Otherwise a forgotten tensor would silently give a loss of 0, and nothing would be learnt."""
    case, term = make_case(4, 0, seed=71), loss_class(name)()
    inputs = {key: value for key, value in tensors_of(case).items() if key not in ("negative", "valid", "rule")}
    if not term.of_negatives:
        value = term(case.memory, **inputs)[0] if isinstance(term, StatefulLoss) else term(**inputs)
        # The first needs tokens of negatives instead, the second the teacher's embedding of parts.
        assert value != 0 or name in ("dense_grounded", "evidence_contrast")
        return
    for call in (partial(term, case.memory) if isinstance(term, StatefulLoss) else term, Objective({name: term})):
        with pytest.raises(InputError, match=r": missing negative \[B, K, D\]\."):
            _ = call(**inputs)


def test_every_name_that_a_loss_can_read_is_tried() -> None:
    assert tensors_of(make_case(2, 2)).keys() == LossTensors.__annotations__.keys() == INPUTS.keys()


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_is_one_import_away(name: str) -> None:
    loss = loss_class(name)
    assert getattr(degla.losses, loss.__name__) is loss and loss.__name__ in dir(degla.losses)
    assert loss.__name__ in degla.losses.__all__


def test_a_loss_that_no_recipe_could_have_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = dataclasses.make_dataclass("Bare", [("weight", float), ("margin", float, 0.2)], bases=(Loss,), frozen=True)
    plain = type("Plain", (Loss,), {"margin": 0.2})
    for loss, text in ((bare, r"bare\.py: Bare must be .* default for each .*\. Fields without a default: weight\.$"),
                       (plain, "Plain must be a frozen dataclass with a field `weight`")):  # fmt: skip
        monkeypatch.setattr(type(LOSSES), "member", lambda self, name, attribute, loss=loss: loss)
        with pytest.raises(InputError, match=text):
            loss_class.__wrapped__("bare")


def test_names_that_type_checkers_see_are_exported() -> None:
    """Strict type checkers treat an import as an export only with `as`."""
    lines = Path(str(degla.losses.__file__)).read_text().splitlines()
    imports = [line.partition(" import ")[2] for line in lines if line.startswith("    from ")]
    imports = [names for names in imports if not names.startswith("ImageGrounded, ")]  # The docstring's example.
    assert "Contrastive as Contrastive" in imports
    assert {name for names in imports for name in names.split(" as ")} <= set(degla.losses.__all__)
    assert all(" as " in names for names in imports)


def test_listing_the_losses_imports_no_torch() -> None:
    code = "import sys, degla.losses as losses; dir(losses); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Contrastve'"):
        _ = degla.losses.Contrastve


def test_what_is_left_out_has_a_default() -> None:
    case = make_case(4, 1, mask="all", seed=71)
    image, caption, negative = (case.leaves[name] for name in ("image", "caption", "negative"))
    one = ImageGrounded()(image=image, caption=caption, negative=negative[:, 0], scale=10.0)
    every = torch.ones(4, 1, dtype=torch.bool)
    assert torch.equal(one, ImageGrounded()(image=image, caption=caption, negative=negative, valid=every, scale=10.0))
    plain = Contrastive()(image=image, caption=caption, scale=torch.tensor(10.0))
    logits = 10 * torch.nn.functional.normalize(image, dim=-1) @ torch.nn.functional.normalize(caption, dim=-1).T
    rows = torch.arange(4)
    both = [torch.nn.functional.cross_entropy(each, rows) for each in (logits, logits.T)]
    torch.testing.assert_close(plain, sum(both) / 2)
    masked = Contrastive(mask_same_image=True)(image=image, caption=caption, scale=10.0)
    assert torch.equal(masked, Contrastive()(image=image, caption=caption, scale=10.0)), "no two images are the same"
    none = SelfDistillation()(image=image, caption=caption, teacher_image=image, teacher_caption=caption)
    assert none.item() == pytest.approx(0, abs=1e-12)
    raw = RawDistillation()(image=2 * image, teacher_image=image)
    torch.testing.assert_close(raw, image.square().sum(-1).mean())


def test_numbers_of_texts_that_are_left_out_differ_in_all_processes() -> None:
    """A process has as many places for phrases as its own batch needs."""
    numbers = []
    for rank, places in enumerate((3, 2, 1)):
        inputs: LossTensors = {
            "image": torch.ones(4, 5),
            "caption": torch.ones(4, 5),
            "concept": torch.ones(4, places, 5),
        }
        wanted = dataclasses.replace(
            wanted_by("ConceptSigmoid", [ConceptSigmoid()]), scale=False, reads=frozenset({"concept"})
        )
        student, _ = embeddings_of(inputs, wanted, Processes(count=3, rank=rank))
        numbers += student.require("concept_group").flatten().tolist()
    assert len(numbers) == len(set(numbers)) == 24


LISTS = {"concept", "positive", "unit"}


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if loss_class(name).reads & LISTS])
def test_a_batch_may_have_no_phrases_positives_or_units(name: str) -> None:
    term, case = loss_class(name)(), make_case(3, 2, seed=80)
    inputs = {key: value[:, :0] if INPUTS[key].part in LISTS else value for key, value in tensors_of(case).items()}
    value = term(**inputs)
    assert value == 0
    gradients(value, case.leaves)


def test_half_precision_is_computed_in_float32_and_masked_rows_may_hold_anything() -> None:
    case = make_case(4, 3, seed=72).to(torch.float32)
    image, caption, negative = (case.leaves[name].detach() for name in ("image", "caption", "negative"))
    spoilt = negative.masked_fill(~case.valid[..., None], float("nan")).requires_grad_()
    loss = ImageGrounded()(image=image.bfloat16(), caption=caption, negative=spoilt, valid=case.valid, scale=5.0)
    assert loss.dtype == torch.float32
    loss.backward()
    assert spoilt.grad is not None and spoilt.grad.isfinite().all()
    exact = ImageGrounded()(image=image, caption=caption, negative=negative, valid=case.valid, scale=5.0)
    torch.testing.assert_close(loss.detach(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loop_that_computes_in_half_precision_changes_no_loss(name: str) -> None:
    """open_clip's loop and transformers' Trainer call the loss under autocast; some run the backward pass there too."""
    term, case = loss_class(name)(), make_case(4, 3, mask="all", seed=77).to(torch.float32)
    teacher_part = case.inputs["evidence_seen"].float()
    wanted = called(term, case, evidence_seen=teacher_part)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = called(term, case, evidence_seen=teacher_part)
        total, _ = Objective({name: term}, rules=RULES)(**tensors_of(case) | {"evidence_seen": teacher_part})
        gradients(actual, case.leaves)
    assert actual.dtype == torch.float32 and torch.equal(actual, wanted)
    if not isinstance(term, StatefulLoss):  # Those start with another memory.
        assert torch.equal(total, term.weight * wanted)
    due = gradients(wanted, case.leaves)
    for leaf, value in gradients(actual, case.leaves).items():
        assert torch.equal(value, due[leaf]), leaf


@pytest.mark.parametrize("name", LOSSES.names())
def test_the_default_type_of_a_program_changes_no_loss(name: str) -> None:
    """Programs that make large models set bfloat16, which has no number 257, as a count of rows or steps may be."""
    term, case = loss_class(name)(), make_case(257, 1, mask="all", seed=82).to(torch.float32)
    teacher_part = case.inputs["evidence_seen"].float()
    wanted = called(term, case, evidence_seen=teacher_part)
    torch.set_default_dtype(torch.bfloat16)
    try:
        actual = called(term, case, evidence_seen=teacher_part)
        memory = term.start(RULES) if isinstance(term, StatefulLoss) else torch.zeros(0, dtype=torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(actual, wanted) and memory.dtype == torch.float32


@pytest.mark.parametrize("term", [Contrastive(), SigmoidContrastive()])
def test_second_derivatives_are_refused_instead_of_incomplete(term: Any) -> None:
    case = make_case(4, 3, mask="all", seed=81)
    with pytest.raises(InputError, match="no second derivatives: omit create_graph=True"):
        torch.autograd.grad(called(term, case), case.leaves["image"], create_graph=True)


def test_shapes_can_be_followed_without_numbers() -> None:
    rows, scale = torch.zeros(4, 5, device="meta", requires_grad=True), torch.tensor(1.0, device="meta")
    Contrastive()(image=rows, caption=rows, negative=rows, scale=scale).backward()
    assert rows.grad is not None and rows.grad.shape == rows.shape


def test_a_loss_of_a_model_with_a_bias_can_be_compiled() -> None:
    term, case = SigmoidContrastive(negative_scope="none"), make_case(3, 0, seed=78)
    student = Embeddings.of({name: each.detach() for name, each in case.student().tensors().items()})
    actual = torch.compile(lambda: term.value(student, Target(), Processes()), backend="aot_eager")()
    torch.testing.assert_close(actual, term.value(student, Target(), Processes()))


@pytest.mark.parametrize("term", EVERY, ids=describe)
def test_numbers_may_be_whole_and_types_may_differ(term: Any) -> None:
    case = make_case(3, 2, seed=74)
    wanted = called(term, case, scale=7.0, bias=-3.0)
    single = {name: value.float() for name, value in tensors_of(case).items() if name in ("image", "teacher_image")}
    one = torch.tensor([7.0])  # As in transformers' SigLIP.
    for actual in (called(term, case, scale=7, bias=-3), called(term, case, scale=one, bias=-3, **single)):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)
        assert actual.dtype == torch.float64
        gradients(actual, case.leaves)


@pytest.mark.parametrize("name", LOSSES.names())
def test_indices_may_be_of_any_type_and_a_batch_may_be_small(name: str) -> None:
    term, case = loss_class(name)(), make_case(4, 3, mask="random", seed=79)
    small = {key: value.short() for key, value in case.inputs.items() if value.dtype == torch.int64}
    assert len(small) == 7 and torch.equal(called(term, case, **small), called(term, case))
    inputs = {key: value[:0] if INPUTS[key].shape[:1] == "B" else value for key, value in tensors_of(case).items()}
    if name != "hardest_hinge":
        value = term(case.memory, **inputs)[0] if isinstance(term, StatefulLoss) else term(**inputs)
        assert value == 0, "no pairs, no loss"


def test_more_rules_than_the_memory_has_are_reported() -> None:
    inputs: Any = tensors_of(make_case(4, 3, mask="all", seed=73))
    with pytest.raises(InputError, match=r"a rule has number 2, .* for 1\. Give .* Objective\(losses, rules="):
        Objective({"cross_modal_rank": CrossModalRank()})(**inputs)


def test_an_objective_is_called_with_the_same_tensors_and_keeps_the_memory() -> None:
    case = make_case(4, 3, mask="all", seed=73)
    losses = {"contrastive": Contrastive(), "cross_modal_rank": CrossModalRank(weight=0.5)}
    objective, again = (Objective(losses_by_name(**losses), rules=RULES) for _ in range(2))
    inputs: Any = tensors_of(case)
    for _ in range(2):
        total, values = objective(**inputs)
        wanted, parts = again.value(case.student(), Target(), Processes())
        torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)
        assert values.keys() == parts.keys() == losses.keys()
    assert torch.equal(objective.memory["cross_modal_rank"], again.memory["cross_modal_rank"])
    memory = losses["cross_modal_rank"].start(RULES)
    _, after = losses["cross_modal_rank"](memory, **inputs)
    assert after.shape == memory.shape and not torch.equal(after, memory)
    with pytest.raises(InputError, match=r"CrossModalRank: missing memory.* memory = loss\.start\(rules=5\)"):
        losses["cross_modal_rank"](**inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": None}, r"ImageGrounded: missing caption \[B, D\]\."),
        ({"scale": None}, r"missing scale\."),
        ({"scale": "100"}, r"scale is a str; it must be a tensor of one number, or the number\."),
        ({"scale": {}}, r"scale is a dict; it must be a tensor of one number, or the number\."),
        ({"captions": torch.zeros(4, 5)}, r"unknown tensor 'captions'\. Did you mean 'caption'\? Known: image, cap"),
        ({"caption": torch.zeros(3, 5)}, r"caption has shape \[3, 5\], but B is 4 in image \[4, 5\]"),
        ({"valid": torch.ones(4, 2, dtype=torch.bool)}, r"valid has shape \[4, 2\], but K is 3 in negative"),
        ({"negative": torch.zeros(12, 5)}, r"negative has shape \[12, 1, 5\], but B is 4"),
        ({"negative": torch.zeros(60)}, r"negative has shape \[60\]; it must be \[B, K, D\]"),
        ({"image": torch.zeros(4)}, r"image has shape \[4\]; it must be \[B, D\]"),
        ({"image": torch.zeros(4, 5).numpy()}, r"image is a ndarray; it must be a tensor of floating point numbers\."),
        ({"caption": torch.ones(4, 5).int()}, r"caption is a tensor of torch\.int32; it must be .* floating point"),
        ({"valid": torch.ones(4, 3).long()}, r"ImageGrounded: valid is a tensor of torch\.int64; .* of bool\."),
        ({"rule": [[0] * 3] * 4}, r"rule is a list; it must be a tensor of numbers\."),
        ({"scale": torch.ones(2)}, r"scale has shape \[2\]; it must be \[\]"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line(change: dict[str, Any], message: str) -> None:
    case = make_case(4, 3, mask="all", seed=74)
    inputs: Any = {name: value for name, value in tensors_of(case).items() if name in ("image", "caption", "negative")}
    with pytest.raises(InputError, match=message) as caught:
        ImageGrounded()(**inputs | {"scale": 1.0} | change)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("term", [Contrastive(), SigmoidContrastive()])
@pytest.mark.parametrize("reentrant", [True, False])
def test_first_derivatives_pass_gradient_checkpointing_and_a_penalty_on_others(term: Any, reentrant: bool) -> None:
    case = make_case(4, 3, mask="all", seed=81)
    wanted, image = gradients(called(term, case), case.leaves)["image"], case.leaves["image"]
    value = checkpoint(lambda rows: called(term, case, image=rows), image, use_reentrant=reentrant)
    (slope,) = torch.autograd.grad(image.pow(2).sum(), image, create_graph=True)
    image.grad = None
    (value + 0 * slope.sum()).backward()
    torch.testing.assert_close(image.grad, wanted)


@pytest.mark.parametrize(("result", "message"), [(torch.ones(4), r"a tensor of shape \[4\]"), (0.5, "float")])
def test_an_own_loss_that_returns_no_scalar_is_named(result: Any, message: str) -> None:
    own = dataclasses.make_dataclass("Own", [("weight", float, 1.0)], bases=(Loss,), frozen=True,
                                     namespace={"value": lambda *_: result})  # fmt: skip
    inputs: Any = tensors_of(make_case(4, 3, mask="all", seed=82))
    with pytest.raises(InputError, match=rf"^mine: Own\.value returned {message}; it must return a scalar tensor"):
        Objective({"mine": own()})(**inputs)


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_tensor_that_a_loss_reads_is_asked_for(name: str) -> None:
    term = loss_class(name)()
    case = make_case(3, 2, mask="all", seed=75)
    inputs = tensors_of(case)
    wanted = [f"teacher_{part}" for part in term.needs if part != "raw_image"]
    wanted += ["image", *(["caption"] if term.reads_captions else []), *(["scale"] if term.scaled else [])]
    memory = [case.memory] if isinstance(term, StatefulLoss) else []
    for absent in wanted:
        with pytest.raises(InputError, match=rf"missing .*\b{absent}\b"):
            term(*memory, **{each: value for each, value in inputs.items() if each != absent})
    if not term.reads_captions:
        formula = {*wanted, *inputs_of(term.reads), *(f"teacher_{part}" for part in term.needs)}
        term(*memory, **{each: value for each, value in inputs.items() if each in formula})


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if loss_class(name).needs])
def test_a_teacher_of_another_width_is_taken_or_refused_in_one_line(name: str) -> None:
    term = loss_class(name)()
    inputs: Any = tensors_of(make_case(4, 3, mask="all", seed=76))
    inputs |= {each: value[..., :-1] for each, value in inputs.items() if "E" in INPUTS[each].shape}
    objective = Objective({name: term})
    if term.same_width:
        message = r"teacher_\w+ has 4 dimensions and image has 5, .*as wide as the student, or LogitDistillation"
        with pytest.raises(InputError, match=f"{type(term).__name__}: {message}"):
            term(**inputs)
        with pytest.raises(InputError, match=f"Objective: {message}"):
            objective(**inputs)
    else:
        assert term(**inputs).isfinite()
        assert objective(**inputs)[0].isfinite()
