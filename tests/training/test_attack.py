"""Attacks on the images of a batch: what they reach, what they leave unchanged, and that their result is stable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.data.batches import Batch, BatchPart
from degla.errors import InputError
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.core.objective import losses_by_name
from degla.losses.text_pull import TextPull
from degla.model.attack import AttackConfig, draw_start, normalisation, perturb
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.model.teacher import Teacher
from degla.shelf import RECIPES
from degla.training.build import build_trainer, open_accelerator
from degla.training.embed import embed_student, teacher_target
from degla.training.loop import train
from degla.training.pairs import open_pairs
from degla.training.step import Trainer
from tests.launch import run_together
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]
SETTINGS = AttackConfig(epsilon=8 / 255, steps=3, step_size=3 / 255, momentum=0.9)


def _config(recipe: str, model: Path, pairs: Pairs, out: Path, *, attack: AttackConfig, **loop: Any) -> TrainConfig:
    config = tiny_config(recipe, model=model, pairs=pairs, out=out, **{"batch_size": 6} | loop)
    return replace(config, attack=attack)


def _open(config: TrainConfig, *, double: bool = True) -> tuple[Trainer, Batch, list[BatchPart], Target]:
    """A trainer before its first step, the batch of that step with its parts, and the teacher's target."""
    accelerator = open_accelerator(config)
    encoder = load_encoder(config.model, device=accelerator.device, seed=config.train.seed)
    pairs = open_pairs(config, encoder=encoder, processes=Processes())
    trainer = build_trainer(config, accelerator, encoder, Processes(), rules=len(pairs.dataset.rules), steps=10)
    batch = next(iter(pairs.batches(0, start=0, device=accelerator.device)))
    if double:
        encoder.double()
        if trainer.teacher is not None:
            trainer.teacher.encoder.double()
        batch = replace(batch, image=batch.image.double())
        if "distractor_image" in batch.extra:
            batch = replace(batch, extra={**batch.extra, "distractor_image": batch.extra["distractor_image"].double()})
    parts = list(batch.parts(trainer.main.part_size))
    needs, negatives = trainer.main.objective.needs, batch.negative.shape[1]
    return trainer, batch, parts, teacher_target(trainer.teacher, parts, needs=needs, negatives=negatives)


def _embedded(trainer: Trainer, batch: Batch, part: BatchPart) -> Embeddings:
    options: Any = {"objective": trainer.main.objective, "accelerator": trainer.accelerator}
    return embed_student(trainer.student, trainer.encoder, batch, [part], **options)[0]


def _loss(trainer: Trainer, batch: Batch, parts: list[BatchPart], target: Target) -> float:
    (part,) = parts
    with torch.no_grad():
        return trainer.main.objective.value_without_update(_embedded(trainer, batch, part), target, Processes()).item()


@pytest.mark.parametrize("recipe", ["tecoa", "fare", "ce_clip", "fsc_clip", "triplet_clip"])
def test_an_attack_leaves_no_trace_but_the_images(
    recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = _config(recipe, tiny_model, tiny_pairs, tmp_path, attack=SETTINGS)
    trainer, batch, parts, target = _open(config)
    clean = parts[0].image.clone()
    trained = {name: value.requires_grad for name, value in trainer.encoder.named_parameters()}
    before = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    memory = {name: value.clone() for name, value in trainer.main.objective.memory.items()}
    modes = {name: module.training for name, module in trainer.encoder.named_modules()}
    random = torch.get_rng_state()
    trainer.main.attack(batch, parts, target, step=1)
    assert all(value.grad is None for value in trainer.encoder.parameters())
    # Gradients from other losses of the step stay unchanged, too.
    for value in trainer.encoder.parameters():
        value.grad = torch.full_like(value, 0.5)
    moved = trainer.main.attack(batch, parts, target, step=0)

    assert torch.equal(parts[0].image, clean) and not torch.equal(moved[0].image, clean)
    assert not moved[0].image.requires_grad
    assert all((value.grad == 0.5).all() for value in trainer.encoder.parameters()), "gradients of parameters"
    assert {name: value.requires_grad for name, value in trainer.encoder.named_parameters()} == trained
    assert all(torch.equal(value, before[name]) for name, value in trainer.encoder.state_dict().items())
    after = {name: module.training for name, module in trainer.encoder.named_modules()}
    assert after == modes and modes["clip.visual"], "the attack left evaluation mode on"
    assert memory.keys() == trainer.main.objective.memory.keys()
    assert all(torch.equal(value, memory[name]) for name, value in trainer.main.objective.memory.items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("recipe", ["tecoa", "fare", "degla"])
def test_a_step_has_the_gradients_of_the_attacked_images_alone(
    recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = _config(recipe, tiny_model, tiny_pairs, tmp_path, attack=SETTINGS)
    trainer, batch, parts, target = _open(config)
    moved = trainer.main.attack(batch, parts, target, step=0)
    loss, _ = trainer.main.objective.value(_embedded(trainer, batch, moved[0]), target, Processes())
    loss.backward()
    expected = {name: value.grad for name, value in trainer.encoder.named_parameters() if value.grad is not None}
    assert len(expected) > 20 and max(value.abs().max().item() for value in expected.values()) > 1e-4

    trainer, batch, *_ = _open(config)
    trainer.backward(batch)
    gradients = {name: value.grad for name, value in trainer.encoder.named_parameters() if value.grad is not None}
    assert gradients.keys() >= expected.keys()
    for name, value in gradients.items():
        # The scale has a gradient of 0 where no term reads it.
        torch.testing.assert_close(value, expected.get(name, torch.zeros_like(value)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recipe", ["tecoa", "fare", "negclip", "triplet_clip"])
def test_pixels_stay_in_the_box_and_the_loss_rises(
    recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = _config(recipe, tiny_model, tiny_pairs, tmp_path, attack=SETTINGS)
    trainer, batch, parts, target = _open(config)
    moved = trainer.main.attack(batch, parts, target, step=0)
    mean, std = normalisation(trainer.encoder, like=parts[0].image)
    clean, attacked = parts[0].image * std + mean, moved[0].image * std + mean
    assert attacked.min() > -1e-6 and attacked.max() < 1 + 1e-6
    assert (clean < SETTINGS.epsilon / 2).any() and (clean > 1 - SETTINGS.epsilon / 2).any(), "no pixel near bounds"
    change = (attacked - clean).abs()
    assert change.max() < SETTINGS.epsilon + 1e-6 and change.mean() > SETTINGS.epsilon / 2
    assert _loss(trainer, batch, moved, target) > 1.02 * _loss(trainer, batch, parts, target)
    # Random changes of this size have less effect.
    noise = draw_start(range(len(clean)), epsilon=SETTINGS.epsilon, like=clean) / std
    noisy = [replace(parts[0], image=parts[0].image + noise)]
    assert _loss(trainer, batch, moved, target) > _loss(trainer, batch, noisy, target)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_attack_is_that_of_a_plain_loop_over_pixels_of_0_to_1(
    momentum: float, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, momentum=momentum, random_start=False)
    trainer, batch, parts, target = _open(_config("tecoa", tiny_model, tiny_pairs, tmp_path, attack=settings))
    images = trainer.main.attack(batch, parts, target, step=0)[0].image

    clip: Any = trainer.encoder.clip
    assert {"classes", "label"} <= batch.extra.keys()
    padded = functional.pad(batch.extra["classes"], (0, clip.context_length - batch.extra["classes"].shape[1]))
    classes = functional.normalize(clip.encode_text(padded), dim=-1).detach()
    mean = torch.tensor(trainer.encoder.description.preprocess_config["mean"], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor(trainer.encoder.description.preprocess_config["std"], dtype=torch.float64).view(1, 3, 1, 1)
    for row, label in enumerate(batch.extra["label"].tolist()):
        pixels = batch.image[row : row + 1] * std + mean
        moving, direction = pixels.clone(), torch.zeros_like(pixels)
        for _ in range(settings.steps):
            if label < 0:  # An image without a class does not count.
                continue
            moving = moving.detach().requires_grad_()
            embedding = functional.normalize(clip.encode_image((moving - mean) / std), dim=-1)
            logits = clip.logit_scale.exp().detach() * embedding @ classes.T
            (logits[0].exp().sum().log() - logits[0, label]).backward()
            direction = (momentum * direction + moving.grad.sign()).sign()
            moving = moving.detach() + settings.step_size * direction
            moving = torch.minimum(torch.maximum(moving, pixels - settings.epsilon), pixels + settings.epsilon)
            moving = moving.clamp(0, 1)
        torch.testing.assert_close(images[row] * std[0] + mean[0], moving[0].detach(), rtol=0, atol=1e-6)
    assert (batch.extra["label"] >= 0).any()


def test_the_teacher_sees_clean_images(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[Tensor] = []
    original = Teacher.encode_raw_images
    monkeypatch.setattr(
        Teacher, "encode_raw_images", lambda self, images: (inputs.append(images.clone()), original(self, images))[1]
    )
    trainer, batch, *_ = _open(_config("fare", tiny_model, tiny_pairs, tmp_path, attack=SETTINGS))
    inputs.clear()
    loss, _ = trainer.backward(batch)
    assert len(inputs) == 1 and torch.equal(inputs[0], batch.image)
    assert loss.item() > 0, "teacher and student are equal, so only the attack can move them apart"


def test_fare_without_a_random_start_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    still = replace(SETTINGS, random_start=False)
    with pytest.raises(InputError, match="finds no gradient at the clean images and nothing is trained"):
        train(_config("fare", tiny_model, tiny_pairs, tmp_path, attack=still))


def test_an_objective_without_texts_embeds_none(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "encode_captions", lambda *_: pytest.fail("the text tower was run"))
    for chunk_size in (None, 2):
        out = tmp_path / str(chunk_size)
        train(_config("fare", tiny_model, tiny_pairs, out, attack=SETTINGS, steps=2, chunk_size=chunk_size))


@pytest.mark.parametrize("recipe", ["tecoa", "fare", "ce_clip", "fsc_clip", "triplet_clip"])
def test_parts_are_attacked_like_the_whole(recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    def attack(**loop: Any) -> tuple[Tensor, int]:
        config = _config(recipe, tiny_model, tiny_pairs, tmp_path, attack=SETTINGS, **loop)
        trainer, batch, parts, target = _open(config)
        moved = trainer.main.attack(batch, parts, target, step=4)
        # Second images come after the images of each part.
        firsts = [part.image[: part.rows.stop - part.rows.start] for part in moved]
        seconds = [part.image[part.rows.stop - part.rows.start :] for part in moved]
        return torch.cat([*firsts, *seconds]), len(parts)

    whole, one = attack()
    cut, several = attack(chunk_size=4)
    assert (one, several) == (1, 2)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-9)


def test_an_attack_is_in_float32_whatever_the_precision(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    images = []
    for precision in ("fp32", "bf16"):
        config = _config("tecoa", tiny_model, tiny_pairs, tmp_path, attack=SETTINGS, precision=precision)
        trainer, batch, parts, target = _open(config, double=False)
        with trainer.accelerator.autocast():
            images.append(trainer.main.attack(batch, parts, target, step=0)[0].image)
    assert torch.equal(*images)


def test_starts_are_functions_of_seed_step_and_row(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config("tecoa", tiny_model, tiny_pairs, tmp_path, attack=SETTINGS)
    trainer, batch, parts, target = _open(config)
    first, again, later = (trainer.main.attack(batch, parts, target, step=step)[0].image for step in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later)
    seeds = trainer.main.attack._seeds(batch, parts, step=0)
    second = replace(trainer.main.attack, processes=Processes(count=2, rank=1))
    assert len({*seeds, *second._seeds(batch, parts, step=0)}) == 2 * len(batch)


def test_a_step_in_two_processes_attacks_as_one(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _config("negclip", tiny_model, tiny_pairs, tmp_path, attack=SETTINGS, batch_size=8)
    loss, gradients, _ = first_step(config)
    worker = Path(__file__).with_name("gradient_worker.py")
    run_together([str(worker), str(tmp_path / "found.pt"), json.dumps(to_plain(config))], count=2)
    result = torch.load(tmp_path / "found.pt", weights_only=True)["None"]
    # Where a gradient is nearly 0, the order of sums decides its sign.
    torch.testing.assert_close(result["loss"], loss, rtol=1e-4, atol=0)
    assert len(gradients) > 50
    for name, expected in gradients.items():
        gap = (result["gradients"].get(f"module.{name}", result["gradients"].get(name)) - expected).norm()
        assert gap < 0.01 * expected.norm(), name


@pytest.mark.parametrize("recipe", ["tecoa", "fare"])
def test_an_attacked_run_resumes_bit_for_bit(recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _config(recipe, tiny_model, tiny_pairs, tmp_path / "whole", attack=SETTINGS, steps=4)
    left, right = (load_file(run.folder / "open_clip_model.safetensors") for run in whole_and_resumed(whole))
    assert all(torch.equal(value, right[key]) for key, value in left.items())
    base = load_file(tiny_model / "open_clip_model.safetensors")
    assert any(not torch.equal(value, left[name]) for name, value in base.items())


def test_what_an_attack_does_not_go_together_with_is_refused(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = _config("tecoa", tiny_model, tiny_pairs, tmp_path / "run", attack=SETTINGS, strategy="fsdp")
    with pytest.raises(InputError, match=r"fsdp does not support --attack\.epsilon"):
        train(config)
    blind = _config("clip", tiny_model, tiny_pairs, tmp_path / "run", attack=SETTINGS)
    with pytest.raises(InputError, match="no active loss reads the images"):
        train(replace(blind, objective=losses_by_name(text_pull=TextPull())))


def test_the_kept_direction_is_a_sign_as_in_the_release_of_fare() -> None:
    """Two steps up, one down, with momentum: a pixel turns at once, as without; a gradient of 0 keeps the direction."""
    gradients = iter([[1.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])

    def gradient(images: Tensor) -> Tensor:
        return torch.tensor(next(gradients), dtype=images.dtype).expand_as(images)

    images = torch.full((1, 3, 1, 2), 0.5, dtype=torch.float64)
    zero, one = torch.zeros(3, 1, 1, dtype=torch.float64), torch.ones(3, 1, 1, dtype=torch.float64)
    settings = replace(RECIPES.load("fare").fare().attack, epsilon=0.5, steps=3, step_size=0.01)
    moved = perturb(images, config=settings, mean=zero, std=one, gradient=gradient)
    # An unsigned sum 1, 1.9, 0.71 would increase in all three steps.
    expected = torch.tensor([0.51, 0.53], dtype=torch.float64).expand_as(images)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-15)


def test_a_gradient_of_zero_moves_nothing() -> None:
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    plain = torch.zeros(3, 1, 1, dtype=torch.float64), torch.ones(3, 1, 1, dtype=torch.float64)
    moved = perturb(images, config=SETTINGS, mean=plain[0], std=plain[1], gradient=torch.zeros_like)
    assert torch.equal(moved, images)
