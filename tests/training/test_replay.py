"""Replay: gradients are those of the sum of both objectives, batches depend only on the step, errors name flags."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from degla.cli import main
from degla.config.fields import from_plain, read_config, to_plain
from degla.config.run import ReplayConfig, ReplayDataConfig, TrainConfig
from degla.data.dataset import PairDataset
from degla.errors import DeglaError, InputError
from degla.losses import CrossModalRank, HardestHinge
from degla.losses.core import Processes
from degla.losses.core.objective import Objective, losses_by_name
from degla.losses.self_distillation import SelfDistillation
from degla.model.load import load_encoder
from degla.model.teacher import Teacher
from degla.training.build import build_trainer, open_accelerator
from degla.training.embed import teacher_target, to_embeddings
from degla.training.loop import train
from degla.training.pairs import open_pairs
from degla.training.step import Trainer
from tests.training.configs import tiny_config, train_in, whole_and_resumed

Pairs = dict[str, Path]


def _gift(model: Path, pairs: Pairs, out: Path, **loop: Any) -> TrainConfig:
    """The recipe on tiny data, with a second stream whose batch size differs from the first."""
    config = tiny_config("gift", model=model, pairs=pairs, out=out, train_scale=False, **loop)
    return replace(config, replay=replace(config.replay, batch_size=6))


def _trainer(config: TrainConfig) -> tuple[Trainer, Any, Any]:
    torch.manual_seed(0)
    encoder = load_encoder(config.model)
    pairs = open_pairs(config, encoder=encoder, processes=Processes())
    replay = open_pairs(config, encoder=encoder, processes=Processes(), stream=config.replayed)
    trainer = build_trainer(config, open_accelerator(config), encoder, Processes(), rules=1, steps=4)
    batch = next(pairs.batches(0, start=0, device=encoder.device))
    return trainer, batch, next(replay.endless(start=0, device=encoder.device))


def _gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in trainer.encoder.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_gradients_are_those_of_the_sum_of_both_objectives(
    chunk_size: int | None, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = _gift(tiny_model, tiny_pairs, tmp_path, chunk_size=chunk_size)
    config = replace(config, l2_sp=replace(config.l2_sp, weight=0.0))
    trainer, batch, replayed = _trainer(config)
    assert len(batch) == 4 and len(replayed) == 6
    with torch.no_grad():  # Away from the teacher, whose distillation has no gradient at the start.
        for value in trainer.encoder.parameters():
            value += 0.02 * torch.randn_like(value) * value.requires_grad
    loss, values = trainer.gradients(batch, replayed, step=0)
    gradients = _gradients(trainer)

    encoder = trainer.encoder
    encoder.zero_grad()
    assert trainer.teacher is not None
    total = torch.zeros(())
    streams = ((batch, config.objective), (replayed, config.replay.objective))
    for pairs, chosen in streams:
        objective = Objective(chosen, rules=1)
        whole = next(iter(replace(pairs, trees=(), caption_trees=()).parts(len(pairs))))
        target = teacher_target(trainer.teacher, [whole], needs=objective.needs, negatives=0)
        rows = encoder.embed(whole.image, whole.texts)
        total = total + objective.value(to_embeddings([rows], scale=encoder.scale, batch=pairs), target, Processes())[0]
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert values.keys() == {"class_contrast", "replay.logit_distillation", "replay.soft_alignment"}
    expected = _gradients(trainer)
    assert gradients.keys() == expected.keys() and any(value.abs().max() > 1e-3 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(
            gradients[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name} {text}"
        )


def test_the_batch_of_a_step_is_a_function_of_its_number(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _gift(tiny_model, tiny_pairs, tmp_path)
    encoder = load_encoder(config.model)
    pairs = open_pairs(config, encoder=encoder, processes=Processes(), stream=config.replayed)
    assert len(pairs.plan) == 4
    first = pairs.endless(start=0, device=encoder.device)
    ids = [next(first).ids for _ in range(10)]
    assert len({name for batch in ids[:4] for name in batch}) == 24, "an epoch takes every pair once"
    assert ids[4:8] != ids[:4], "the next epoch has another order"
    for start in (3, 4, 6):
        later = pairs.endless(start=start, device=encoder.device)
        assert [next(later).ids for _ in range(10 - start)] == ids[start:]


def test_streams_that_take_turns_read_their_own_batches_alone(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _gift(tiny_model, tiny_pairs, tmp_path)
    encoder = load_encoder(config.model)
    pairs = open_pairs(config, encoder=encoder, processes=Processes(), stream=config.replayed)

    def ids(start: int, steps: int, turn: int | None = None) -> list[Any]:
        batches = islice(pairs.endless(start=start, device=encoder.device, steps=steps, turn=turn), steps)
        return [None if batch is None else batch.ids for batch in batches]

    whole, keys, row = ids(0, 9), list[Any](), PairDataset.__getitem__
    monkeypatch.setattr(PairDataset, "__getitem__", lambda self, key: keys.append(key) or row(self, key))
    for start, turn in product((0, 3, 4), (0, 1)):
        keys.clear()
        result = ids(start, 9 - start, turn)
        assert result == [each if number % 2 == turn else None for number, each in enumerate(whole)][start:]
        assert len(keys) == 6 * sum(each is not None for each in result)


def test_resume_is_bit_equal(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    whole = _gift(tiny_model, tiny_pairs, tmp_path / "whole", steps=7)
    # A memory of the second stream that counts steps across the resume, and a teacher that changes.
    hinge = replace(whole.objective["hardest_hinge"], weight=0.5, mean_steps=6)
    chosen = whole.replay.objective | {"hardest_hinge": hinge}
    whole = replace(whole, replay=replace(whole.replay, objective=chosen))
    whole = replace(whole, teacher=replace(whole.teacher, kind="average", decay=0.9))
    runs = whole_and_resumed(whole, at=5)
    parts = replace(whole, out=tmp_path / "half", checkpoint=replace(whole.checkpoint, every_steps=5))
    assert read_config(tmp_path / "half") == parts, "a configuration with two objectives survives JSON"
    assert runs[1].step == 7
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = (load_file(run.folder / name) for run in runs)
        assert all(torch.equal(left[key], right[key]) for key in left), name
    rows = [
        [json.loads(line) for line in (run.folder.parent / "metrics.jsonl").read_text().splitlines()] for run in runs
    ]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert all(row["l2_sp"] > 0 for row in rows[0][1:]) and rows[0][0]["l2_sp"] == 0
    memory = torch.load(runs[0].folder / "optimizer.pt", weights_only=True)["memory"]
    assert "replay.hardest_hinge" in memory
    other = tmp_path / "other.jsonl"
    other.write_text(tiny_pairs["captions"].read_text().replace("a ", "the ", 1))
    changed = replace(parts.replay, data=replace(parts.replay.data, captions=other))
    with pytest.raises(InputError, match=r"training data have changed .*/other\.jsonl.*; changed: replay captions, "):
        train(replace(parts, replay=changed), resume=True)


def test_losses_of_replayed_pairs_have_a_memory_of_their_own_that_survives_a_resume(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """The run's own pairs have no negatives, so no rules; the replayed ones have three."""
    config = tiny_config("negbench", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    losses = losses_by_name(cross_modal_rank=CrossModalRank(), hardest_hinge=HardestHinge())
    config = replace(config, replay=replace(config.replay, objective=losses))
    whole, resumed = (
        torch.load(done.folder / "optimizer.pt", weights_only=True)["memory"] for done in whole_and_resumed(config)
    )
    assert whole.keys() == {"replay.cross_modal_rank", "replay.hardest_hinge"}
    assert len(whole["replay.cross_modal_rank"]) == 3 and whole["replay.hardest_hinge"].tolist() == [4.0]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_loss_that_is_not_finite_is_reported_with_the_captions_of_both_batches(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[str] = []

    def step(self: Trainer, batch: Any, *, step: int, replayed: Any) -> dict[str, Any]:
        batches.extend([*batch.ids, *replayed.ids])
        return {"loss": torch.tensor(torch.nan)}

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(DeglaError, match="step 1: the loss is nan"):
        train(_gift(tiny_model, tiny_pairs, tmp_path / "run"))
    note = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert note["caption_ids"] == batches and len(batches) == 4 + 6


def test_two_processes_train_as_one(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    """Also in chunks, of which only the first has texts that a loss reads: those of the classes."""
    config = _gift(tiny_model, tiny_pairs, tmp_path / "1", steps=3)
    term = replace(config.replay.objective["soft_alignment"], weight=0.0)
    config = replace(
        config,
        replay=replace(config.replay, objective=config.replay.objective | {"soft_alignment": term}),
        train=replace(config.train, train_scale=True),
        # At the start the distillation's gradient is pure rounding error, which a small epsilon would turn into steps.
        optim=replace(config.optim, warmup_steps=0, eps=1e-3),
    )
    train(config)
    train_in(2, replace(config, out=tmp_path / "2"))
    train_in(2, replace(config, out=tmp_path / "chunks", train=replace(config.train, chunk_size=1)))
    alone, *others = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("1", "2", "chunks")
    )
    assert alone[-1]["l2_sp"] > 0
    for one, two, chunks in zip(alone, *others, strict=True):
        for name in ("loss", "l2_sp", "class_contrast", "replay.logit_distillation"):
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-7), (one["step"], name)
            assert chunks[name] == pytest.approx(one[name], rel=2e-3, abs=1e-7), (one["step"], name)


def test_errors_name_the_flags_of_the_replay(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _gift(tiny_model, tiny_pairs, tmp_path / "run")

    def replaying(**fields: Any) -> TrainConfig:
        data = replace(config.replay.data, **fields)
        return replace(config, replay=replace(config.replay, data=data))

    for wrong, message in [
        (replaying(captions=None), r"no captions: give --replay\.data\.captions FILE"),
        (replaying(images=tmp_path / "none"), r"no such image folder \(--replay\.data\.images\)"),
        (replaying(negatives_per_caption=2), r"Set --replay\.data\.negatives FILE"),
        (replace(config, replay=replace(config.replay, batch_size=99)), r"Lower --replay\.batch-size to at most"),
        (replace(config, replay=ReplayConfig(data=config.replay.data)), "would not be used"),
        (replace(config, replay=ReplayConfig(data=ReplayDataConfig(negatives=Path("x")))), "would not be used"),
    ]:
        with pytest.raises(InputError, match=message):
            train(wrong)


def test_any_recipe_replays_by_flags(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "clip", "--model", str(tiny_model), "--data.captions", str(tiny_pairs["captions"]),
             "--data.images", str(tiny_pairs["images"]), "--train.batch-size", "4", "--train.steps", "2",
             "--tracking.every-steps", "1", "--out", str(tmp_path / "run")]  # fmt: skip
    again = ["--replay.data.captions", str(tiny_pairs["captions"]), "--replay.data.images",
             str(tiny_pairs["images"]), "--replay.objective.self-distillation.weight", "1"]  # fmt: skip
    assert main([*words, *again]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row.keys() >= {"contrastive", "replay.self_distillation"} for row in lines)
    assert (tmp_path / "run" / "step-2" / "teacher.safetensors").is_file()
    assert main(["train", "--resume", str(tmp_path / "run"), "--replay.objective.self-distillation.weight", "2"]) == 2
    assert "--replay.objective.self-distillation.weight was 1.0 and is now 2.0" in capsys.readouterr().err


def test_both_objectives_survive_json(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _gift(tiny_model, tiny_pairs, tmp_path)
    second = losses_by_name(self_distillation=SelfDistillation(weight=3.0))
    config = replace(config, replay=replace(config.replay, objective=second))
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(plain, where="test") == config
    plain["replay"]["objective"]["self_distillation"]["wieght"] = 1
    with pytest.raises(InputError, match=r"unknown field 'replay\.objective\.self_distillation\.wieght'"):
        from_plain(plain, where="test")


def test_the_second_stream_is_frozen_out_of_the_teacher(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _gift(tiny_model, tiny_pairs, tmp_path / "run", steps=3)
    outcome = train(config)
    start = Teacher(load_encoder(config.model), config.teacher).encoder.clip.state_dict()
    teacher = load_file(outcome.folder / "teacher.safetensors")
    moved = load_file(outcome.folder / "open_clip_model.safetensors")
    assert all(torch.equal(value, teacher[name]) for name, value in start.items() if name in teacher)
    assert any(not torch.equal(value, moved[name]) for name, value in teacher.items())
