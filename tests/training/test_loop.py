"""Training: what changes, what stays, what is written, what stops it."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pty
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

from degla.config.fields import read_config
from degla.config.sections import LoopConfig, ValidationConfig
from degla.data.loader import make_loader
from degla.errors import DeglaError, InputError
from degla.locks import lock
from degla.losses.contrastive import Contrastive
from degla.losses.core import Processes
from degla.losses.core.objective import losses_by_name
from degla.model.load import load_encoder
from degla.model.runs import checkpoints
from degla.shelf import RECIPES
from degla.training import step as step_module
from degla.training.build import choose_precision, open_accelerator
from degla.training.loop import StopRequest, _notice, train
from tests.tiny import write_model
from tests.training.configs import tiny_config, whole_and_resumed
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]
WEIGHTS = "open_clip_model.safetensors"


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_every_recipe_trains(recipe: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config(recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    if "bias" in config.pairs.reads:
        config = replace(config, model=str(write_model(tmp_path / "siglip", init_logit_bias=-10)))
    outcome = train(config)
    assert outcome.finished and outcome.step == 2
    active = {name for name, term in config.objective.items() if term.weight > 0}
    for line in _lines(tmp_path / "run"):
        if config.replay.alternate and line["step"] % 2 == 0:  # The second stream's step.
            assert not active & line.keys() and line["replay.contrastive"] > 0
            continue
        assert active <= line.keys()
        assert not (set(config.objective) - active) & line.keys(), "a term of weight 0 was computed"
        assert all(math.isfinite(line[name]) for name in active | {"loss", "lr", "scale"})
    needs_teacher = config.replayed is not None and bool(config.replayed.needs)
    needs_teacher |= any(term.needs for term in config.objective.values() if term.weight > 0)
    assert (outcome.folder / "teacher.safetensors").is_file() == needs_teacher


def test_everything_trainable_moves_and_the_loss_falls(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=30)
    outcome = train(config)
    before, after = (load_file(folder / WEIGHTS) for folder in (tiny_model, outcome.folder))
    stuck = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert stuck == []
    losses = [line["loss"] for line in _lines(tmp_path / "run")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert {line["epoch"] for line in _lines(tmp_path / "run")} == {0, 1, 2, 3, 4}


def test_workers_live_through_all_epochs_and_change_nothing(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(*arguments: Any, **settings: Any) -> Any:
        counts.append(settings["workers"])
        return make_loader(*arguments, **settings)

    monkeypatch.setattr("degla.training.pairs.make_loader", counted)
    folders = []
    for workers in (0, 2):
        config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / str(workers), steps=16)
        folders.append(train(replace(config, data=replace(config.data, workers=workers))).folder)
    assert counts == [0, 2]
    assert max(line["epoch"] for line in _lines(tmp_path / "2")) == 2
    weights = [load_file(folder / WEIGHTS) for folder in folders]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("tower", ["image", "text", "scale"])
def test_frozen_parts_stay(tower: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=3)
    names = {"image": "train_image_tower", "text": "train_text_tower", "scale": "train_scale"}
    config = replace(config, train=replace(config.train, **{names[tower]: False}))
    outcome = train(config)
    after = load_file(outcome.folder / WEIGHTS)
    for name, value in load_file(tiny_model / WEIGHTS).items():
        part = "scale" if name == "logit_scale" else "image" if name.startswith("visual.") else "text"
        assert torch.equal(value, after[name]) == (part == tower), name


def test_nothing_to_train_is_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    nothing = LoopConfig(train_image_tower=False, train_text_tower=False, train_scale=False)
    with pytest.raises(InputError, match="nothing is left to train"):
        train(replace(config, train=replace(nothing, batch_size=4)))


def test_scale_is_clamped_before_the_teacher_follows(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    config = replace(config, optim=replace(config.optim, max_scale=2.0), teacher=replace(config.teacher, decay=0.0))
    outcome = train(config)
    teacher = load_file(outcome.folder / "teacher.safetensors")
    assert load_encoder(str(outcome.folder)).scale.item() == pytest.approx(2.0)
    assert teacher["logit_scale"].exp().item() == pytest.approx(2.0)


@pytest.mark.parametrize(("logarithm", "scale"), [(-1.0, 1.0), (9.0, 50.0)])
def test_the_scale_is_held_between_one_and_its_limit(
    logarithm: float, scale: float, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    _, _, trainer = first_step(replace(config, optim=replace(config.optim, max_scale=50.0)))
    trainer.encoder.clip.logit_scale.data.fill_(logarithm)
    trainer.update(torch.zeros(()))
    assert trainer.encoder.scale.item() == pytest.approx(scale)


def test_a_frozen_scale_above_the_limit_stays(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, train_scale=False)
    _, _, trainer = first_step(replace(config, optim=replace(config.optim, max_scale=2.0)))
    before = trainer.encoder.scale.item()
    trainer.update(torch.zeros(()))
    assert trainer.encoder.scale.item() == before > 2.0


def test_a_start_above_the_limit_is_refused_where_it_would_be_lowered(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    config = replace(config, optim=replace(config.optim, start_scale=60.0, max_scale=50.0))
    with pytest.raises(InputError, match=r"--optim\.start-scale 60 is above --optim\.max-scale 50"):
        first_step(config)
    _, _, trainer = first_step(replace(config, train=replace(config.train, train_scale=False)))
    assert trainer.encoder.scale.item() == pytest.approx(60.0), "a frozen scale stays"


def test_trimming_changes_nothing(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    values = []
    for trim in (True, False):
        config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / str(trim), steps=3, trim=trim)
        values.append(train(config).values)
    for name, value in values[0].items():
        assert value == pytest.approx(values[1][name], rel=1e-5), name


def test_bf16_is_close_and_weights_stay_fp32(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        config = tiny_config(
            "degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / precision, steps=2, precision=precision
        )
        outcome = train(config)
        losses[precision] = outcome.values["loss"]
        assert {value.dtype for value in load_file(outcome.folder / WEIGHTS).values()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_half_precision_needs_a_gpu(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", precision="fp16")
    with pytest.raises(InputError, match=r"^--train\.precision fp16 needs a GPU"):
        train(config)


@pytest.mark.parametrize(
    ("device", "native", "chosen"),
    [("cpu", "", "no"), ("cpu", "avx512_bf16", "bf16"), ("cpu", "amx_tile", "bf16"), ("cuda", "", "fp16"),
     ("cuda", "gpu", "bf16")],
)  # fmt: skip
def test_auto_takes_half_precision_where_the_device_computes_it(
    device: str, native: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name == native)
    emulated = {"including_emulation": False}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: native == "gpu" or how != emulated)
    assert choose_precision("auto", device=torch.device(device)) == chosen
    for precision, expected in (("fp32", "no"), ("bf16", "bf16"), ("fp16", "fp16")):
        if (precision, device) != ("fp16", "cpu"):
            assert choose_precision(precision, device=torch.device(device)) == expected


def test_an_apple_trains_on_its_processor_as_evaluation_does(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("is_available", "is_built"):
        monkeypatch.setattr(torch.backends.mps, name, lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Accelerate 1.16 asks this first, earlier versions ask the above alone.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("mps"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert PartialState().device.type == "mps"  # left to itself
    AcceleratorState._reset_state(reset_partial_state=True)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    assert open_accelerator(config).device == torch.device("cpu")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_gradient_accumulation_of_the_launcher_is_refused(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")  # As accelerate launch sets it.
    with pytest.raises(InputError, match=r"--gradient_accumulation_steps 4, but there is no .* --train\.chunk-size"):
        open_accelerator(tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path))


@pytest.mark.parametrize(("strategy", "warns"), [("fsdp", True), ("ddp", False)])
def test_slices_for_one_process_are_reported_as_none(
    strategy: str, warns: bool, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1, strategy=strategy)
    assert train(config).finished
    assert any("--train.strategy fsdp has no effect with one process" in line for line in caplog.messages) == warns


def test_zero_weight_asks_for_no_teacher(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from degla.model.teacher import Teacher

    monkeypatch.setattr(Teacher, "encode", lambda *_: pytest.fail("the teacher was run"))
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    config = replace(config, objective=losses_by_name(contrastive=Contrastive()))
    assert train(config).finished


def test_captions_of_one_image_are_avoided_or_masked(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    losses = {}
    for duplicates in ("allow", "mask"):
        config = tiny_config(
            "clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / duplicates, steps=1, batch_size=24
        )
        losses[duplicates] = train(replace(config, data=replace(config.data, duplicates=duplicates))).values["loss"]
    # All 24 rows, two per image: each row loses one candidate of 24 in each direction.
    assert losses["mask"] == pytest.approx(losses["allow"] - math.log(24 / 23), abs=0.02)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "avoid", steps=4, batch_size=12)
    groups: list[int] = []
    original = step_module.embed_student

    def watched(student: Any, encoder: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        groups.append(len(set(batch.group.tolist())))
        return original(student, encoder, batch, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "embed_student", watched)
        train(config)
    assert groups == [12, 12, 12, 12]


@pytest.mark.parametrize("every_steps", [1, 50])
def test_nonfinite_loss_stops_with_the_batch_written_down(
    every_steps: int, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=6)
    config = replace(
        config,
        checkpoint=replace(config.checkpoint, every_steps=2),
        tracking=replace(config.tracking, every_steps=every_steps),
    )
    original = step_module.embed_student
    poisoned: list[tuple[str, ...]] = []
    states: list[str] = []

    def poison(student: Any, encoder: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        embeddings, backpropagate = original(student, encoder, batch, *arguments, **options)
        poisoned.append(batch.ids)
        states.append(encoder.fingerprint)
        if len(poisoned) == 3:
            embeddings = replace(embeddings, image=embeddings.image * math.nan)
        return embeddings, backpropagate

    monkeypatch.setattr(step_module, "embed_student", poison)
    with pytest.raises(DeglaError, match=r"step 3: the loss is nan.*nonfinite\.json.*step-2"):
        train(config)
    note = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert note["step"] == 3 and note["epoch"] == 0 and note["caption_ids"] == list(poisoned[2])
    # If the loss is not checked at once, a fourth step is taken, on the same weights as the third.
    assert len(poisoned) == (3 if every_steps == 1 else 4)
    assert states[-1] == states[2] != states[1]
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-2"]


def test_weights_that_a_gradient_spoiled_under_a_finite_loss_are_not_written(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = step_module.embed_student

    def poison(student: Any, encoder: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        embeddings, backpropagate = original(student, encoder, batch, *arguments, **options)

        def spoil(loss: torch.Tensor) -> None:
            backpropagate(loss)
            encoder.clip.visual.proj.grad[0, 0] = math.inf

        return embeddings, spoil

    monkeypatch.setattr(step_module, "embed_student", poison)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    with pytest.raises(DeglaError, match=r"step-1: not written: visual\.proj has values that are not finite"):
        train(config)
    assert not checkpoints(tmp_path / "run")


def test_several_processes_stop_where_one_was_asked_to() -> None:
    class Pair(Processes):
        def total(self, tensor: torch.Tensor) -> torch.Tensor:
            requests.append(tensor.tolist())
            return tensor + other

    requests: list[list[float]] = []
    stop, both, other = StopRequest(), Pair(count=2), torch.zeros(3)
    assert not stop.agreed(both, 10) and not stop.agreed(both)
    other = torch.tensor([0.0, 1.0, 0.0])
    assert not stop.agreed(both, 13), "they do not synchronise at every step"
    assert stop.agreed(both, 20) == stop.agreed(both) == "SIGINT" and not stop.agreed(Processes())
    stop.name, other = "SIGTERM", torch.zeros(3)
    assert stop.agreed(both, 30) == stop.agreed(Processes(), 13) == "SIGTERM"
    assert requests == [[0.0, 0.0, 0.0]] * 4 + [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_stops_a_run_with_a_checkpoint_unless_that_is_ignored(
    ignored: bool, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hung-up trainings lost all steps since the last checkpoint; `nohup` ignores the signal before the start."""
    step = step_module.Trainer.step

    def hung_up(*arguments: Any, **more: Any) -> Any:
        signal.raise_signal(signal.SIGHUP)
        return step(*arguments, **more)

    monkeypatch.setattr(step_module.Trainer, "step", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        ended = train(tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (ended.stopped, ended.folder.name) == (("", "step-2") if ignored else ("SIGHUP", "step-1"))


def test_the_first_ctrl_c_tells_what_the_second_does(
    tiny_model: Path,
    tiny_pairs: Pairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    told = "\nstopping after this step, with a checkpoint. Ctrl-C again: stop at once, without one.\n"

    def step(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err.count(told) == 1
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(step_module.Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=4))
    assert not checkpoints(tmp_path / "run") and told not in capfd.readouterr().err


def test_several_processes_do_not_promise_to_stop_after_this_step() -> None:
    """They agree on it every ten steps, and torchrun does not pass a second Ctrl-C on."""
    assert [_notice(Processes(count=2, rank=rank)) for rank in range(2)] == [
        "stopping within 10 steps, with a checkpoint.", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "remedy"), [(0, r"start the run again"), (1, r"resume the run, whose last complete checkpoint is .*1")]
)
def test_a_killed_worker_is_one_line(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, remedy: str
) -> None:
    """It does not name `degla train --resume`: a study and a call from Python resume in another way."""
    train_step, left = step_module.Trainer.step, iter(range(steps))

    def step(self: Any, *arguments: Any, **more: Any) -> Any:
        if next(left, None) is not None:
            return train_step(self, *arguments, **more)
        multiprocessing.active_children()[0].kill()
        time.sleep(30)  # The signal that the child has ended interrupts it.
        return None

    monkeypatch.setattr(step_module.Trainer, "step", step)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=4)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=1))
    why = r"run: a process that loads images ended \(.*Killed.*--data\.workers, and "
    with pytest.raises(DeglaError, match=rf"{why}{remedy}\.$"):
        train(replace(config, data=replace(config.data, workers=1)))


def test_old_checkpoints_go_and_the_best_stays(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from degla.training.validation import Validation

    scores = {0: 0.3, 2: 0.5, 4: 0.9, 6: 0.7, 8: 0.6}
    measured = iter(scores.values())
    monkeypatch.setattr(Validation, "_measure", lambda self, encoder: {"composition": next(measured)})
    monkeypatch.setattr("degla.evaluation.run.ask_all", lambda *_, **__: [])
    monkeypatch.setattr("degla.evaluation.neutral.require_declared", lambda *_: None)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=8)
    config = replace(
        config,
        checkpoint=replace(config.checkpoint, keep=1),
        validation=ValidationConfig(benchmarks=("world",), root=tmp_path, every_steps=2),
    )
    train(config)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-4", "step-8"]
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == {"checkpoint": "step-4"}
    assert {line["step"]: line["validation/composition"] for line in _lines(tmp_path / "run")
            if "validation/composition" in line} == scores  # fmt: skip


def test_a_used_folder_and_missing_inputs_are_refused(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    train(config)
    with pytest.raises(InputError, match="already holds a run"):
        train(config)
    for field, message in [
        ("captions", "no captions"),
        ("images", "Check the image folder"),
        ("negatives", "draws 2 negatives"),
    ]:
        broken = replace(config, out=tmp_path / field, data=replace(config.data, **{field: None}))
        with pytest.raises(InputError, match=message):
            train(broken)
    with pytest.raises(InputError, match="do not fill one batch"):
        # Before a model is looked for, which may be downloaded.
        train(replace(config, model="none", out=tmp_path / "large", train=replace(config.train, batch_size=64)))
    with pytest.raises(InputError, match="no caption has more than 3"):
        train(replace(config, out=tmp_path / "many", data=replace(config.data, negatives_per_caption=9)))


def test_a_resumed_run_says_where_it_continues(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="degla.train")
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    _, resumed = whole_and_resumed(config)
    assert [line for line in caplog.messages if line.startswith("resumes ")] == ["resumes after step 2 of 4"]
    caplog.clear()
    train(replace(config, out=resumed.folder.parent), resume=True)
    assert not any(line.startswith("resumes ") for line in caplog.messages), "it is at its end"


def test_a_run_resumed_in_another_folder(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tiny_pairs["captions"].parent
    monkeypatch.chdir(started)
    relative = {name: path.relative_to(started) for name, path in tiny_pairs.items()}
    config = tiny_config("clip", model=tiny_model, pairs=relative, out=tmp_path / "run", steps=1)
    train(config)
    monkeypatch.chdir(tmp_path)
    where = r" A run's relative paths are relative to the folder in which its training was started\.$"
    with pytest.raises(InputError, match=rf"^images: no such image folder \(--data\.images\)\.{where}"):
        train(config, resume=True)
    elsewhere = replace(config, data=replace(config.data, images=tiny_pairs["images"]))
    with pytest.raises(InputError, match=rf"^captions\.jsonl: .*{where}"):
        train(elsewhere, resume=True)
    absolute = replace(config, data=replace(config.data, **{**tiny_pairs, "images": tmp_path / "none"}))
    with pytest.raises(InputError, match=r"none: no such image folder \(--data\.images\)\.$"):
        train(absolute, resume=True)


def test_negatives_of_other_captions_name_both_files(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(tiny_pairs["negatives"].read_text().replace('"caption_id": "', '"caption_id": "x'))
    config = tiny_config("negclip", model=tiny_model, pairs={**tiny_pairs, "negatives": other}, out=tmp_path / "run")
    with pytest.raises(InputError, match=rf"in {tiny_pairs['captions']}: .*; in {other}: 'x"):
        train(config)


def test_a_folder_that_holds_other_runs_is_no_run(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    inner = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "study" / "runs" / "clip-0", steps=1)
    train(inner)
    with pytest.raises(InputError, match=r"study: already holds 1 other run \(runs/clip-0\)\. Choose another --out\."):
        train(replace(inner, out=tmp_path / "study"))
    with pytest.raises(InputError, match=r"study: not a run, but holds 1 run\. Use --resume .*study/runs/clip-0\."):
        read_config(tmp_path / "study")


def test_a_run_in_use_without_a_checkpoint_is_not_started_again(tmp_path: Path) -> None:
    with lock(tmp_path / "run"), pytest.raises(InputError, match=r"run: in use by process .*no checkpoint yet; wait"):
        read_config(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=r"no complete checkpoint to resume from\. Start the run without --resume"):
        read_config(tmp_path / "run")


def test_a_refused_run_leaves_no_folder(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "new" / "run", steps=1)
    with pytest.raises(InputError, match="no such image folder"):
        train(replace(config, data=replace(config.data, images=tmp_path / "none")))
    assert not (tmp_path / "new").exists()


def test_a_closed_terminal_costs_neither_the_end_nor_the_exit_status() -> None:
    """The progress bar's last line raised an error, after which trackers were not finished and the status was 1."""
    code = (
        "import sys, time\n"
        "from degla.progress import TaskProgress\n"
        "from degla.stopping import Interruption, status_of_signal\n"
        "with Interruption() as stop, TaskProgress(True).task('steps', 9) as advance:\n"
        "    print('ready', flush=True)\n"
        "    while stop.name is None:\n"
        "        time.sleep(0.01)\n"
        "    advance(1)\n"
        "sys.stderr.write('stopped\\n')\n"
        "sys.exit(status_of_signal(stop.name))\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # The tests may run under nohup.
        os.execve(sys.executable, [sys.executable, "-c", code], os.environ | {"TERM": "xterm"})
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
