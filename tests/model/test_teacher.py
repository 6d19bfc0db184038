"""The teacher: closed form, strict names, frozen teacher, float32, evaluation mode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from degla.errors import InputError
from degla.model.load import load_encoder
from degla.model.teacher import Teacher, TeacherConfig
from tests.tiny import write_model


def _change(encoder: torch.nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in encoder.parameters():
            value.add_(torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.dtype))


def test_closed_form_after_n_steps(tiny_model: Path) -> None:
    student = load_encoder(str(tiny_model))
    teacher = Teacher(student, TeacherConfig(decay=0.9))
    start = {name: value.double() for name, value in student.clip.named_parameters()}
    _change(student, seed=1)
    for _ in range(7):
        teacher.update(student, decay=0.9)
    now = dict(student.clip.named_parameters())
    for name, value in teacher.encoder.clip.named_parameters():
        expected = 0.9**7 * start[name] + (1 - 0.9**7) * now[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_updates_are_in_place_and_reach_every_parameter_and_buffer(tiny_model: Path) -> None:
    student = load_encoder(str(tiny_model))
    student.clip.register_buffer("statistic", torch.zeros(3))
    teacher = Teacher(student, TeacherConfig(decay=0.5))
    before = {name: (value.data_ptr(), value.clone()) for name, value in teacher.encoder.clip.named_parameters()}
    _change(student, seed=2)
    student.clip.statistic.fill_(4.0)
    teacher.update(student, decay=0.5)
    for name, value in teacher.encoder.clip.named_parameters():
        pointer, old = before[name]
        assert value.data_ptr() == pointer
        assert not torch.equal(value, old), f"{name} did not move"
        assert not value.requires_grad
    assert torch.equal(teacher.encoder.clip.statistic, torch.full((3,), 4.0))


def test_frozen_teacher_never_moves(tiny_model: Path) -> None:
    student = load_encoder(str(tiny_model))
    teacher = Teacher(student, TeacherConfig(kind="frozen"))
    before = teacher.encoder.fingerprint
    _change(student, seed=3)
    teacher.update(student, decay=0.0)
    assert teacher.encoder.fingerprint == before


def test_stays_in_float32_and_in_evaluation_mode(tiny_model: Path) -> None:
    student = load_encoder(str(tiny_model)).bfloat16().train()
    teacher = Teacher(student, TeacherConfig(decay=0.9996))
    assert not any(module.training for module in teacher.encoder.modules())
    assert {value.dtype for value in teacher.encoder.parameters()} == {torch.float32}
    _change(student, seed=4)
    first = teacher.encoder.clip.logit_scale.clone()
    teacher.update(student, decay=0.9996)
    assert teacher.encoder.clip.logit_scale != first, "an increment of 4e-4 was lost to rounding"
    teacher.train()
    assert not any(module.training for module in teacher.modules())


def test_the_tokenizer_is_shared_and_no_weight_is(tiny_model: Path) -> None:
    """A vocabulary of 50,000 entries takes longer to copy than a small model takes for a step."""
    student = load_encoder(str(tiny_model))
    copied = Teacher(student, TeacherConfig()).encoder
    assert copied.tokenize is student.tokenize and copied.transform is student.transform
    own = {value.data_ptr() for value in student.parameters()}
    assert own.isdisjoint(value.data_ptr() for value in copied.parameters())


def test_other_architectures_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    teacher = Teacher(load_encoder(str(tiny_model)), TeacherConfig())
    deeper = write_model(
        tmp_path / "deeper", vision_cfg={"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}
    )
    with pytest.raises(ValueError, match="differ in their parameters"):
        teacher.update(load_encoder(str(deeper)), decay=0.5)
    wider = write_model(tmp_path / "wider", embed_dim=8)
    with pytest.raises(ValueError, match="differ in the shape"):
        teacher.update(load_encoder(str(wider)), decay=0.5)


def test_decay_schedule() -> None:
    rising = TeacherConfig(decay=0.9, schedule="cosine")
    assert rising.decay_at(0, steps=11) == pytest.approx(0.9)
    assert rising.decay_at(5, steps=11) == pytest.approx(0.95)
    assert rising.decay_at(10, steps=11) == pytest.approx(1.0)
    assert TeacherConfig(decay=0.9).decay_at(10, steps=11) == 0.9
    assert TeacherConfig(kind="frozen", decay=0.9).decay_at(3, steps=11) == 1.0


def test_decay_out_of_range(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="must be from 0 to 1"):
        Teacher(load_encoder(str(tiny_model)), TeacherConfig(decay=1.2))
