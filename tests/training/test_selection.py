"""What a run keeps and when it ends: the joint score, the forgetting budget, patience, and both after a resume."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.cli import main
from degla.config.fields import check_unchanged, read_config
from degla.config.run import TrainConfig
from degla.config.sections import StopConfig, ValidationConfig
from degla.errors import DeglaError, InputError
from degla.evaluation.choice import trade_off
from degla.model.load import load_encoder
from degla.model.runs import checkpoints
from degla.processes import ProcessGroup
from degla.training.loop import TrainResult, train
from degla.training.step import Trainer
from degla.training.validation import Validation
from tests.training.configs import cut_off, tiny_config

Pairs = dict[str, Path]
Told = pytest.LogCaptureFixture

BASE = (60.0, 90.0)
CURVE = [(64.0, 89.5), (66.0, 89.0), (72.0, 86.0), (75.0, 80.0)]
"""Composition and recognition in points after steps 2, 4, 6 and 8."""


class Measured:
    """Replaces the benchmarks: the scores of each evaluation, in order."""

    def __init__(self) -> None:
        self.left: Iterator[tuple[float, float]] = iter(())
        self.count = 0

    def will_be(self, *scores: tuple[float, float]) -> None:
        self.left, self.count = iter(scores), 0

    def __call__(self, validation: Validation, encoder: object) -> dict[str, float]:
        composition, recognition = next(self.left)
        self.count += 1
        return {"composition": composition / 100, "recognition": recognition / 100}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    fake = Measured()
    monkeypatch.setattr(Validation, "_measure", lambda self, encoder: fake(self, encoder))
    fake.will_be(BASE, *CURVE)
    return fake


@pytest.fixture
def config(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    # Nothing is measured here; otherwise each test would draw the world's benchmark of 5,760 images.
    monkeypatch.setattr("degla.evaluation.run.ask_all", lambda *_, **__: [])
    monkeypatch.setattr("degla.evaluation.neutral.require_declared", lambda *_: None)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=8)
    return replace(
        config,
        checkpoint=replace(config.checkpoint, keep=1),
        validation=ValidationConfig(benchmarks=("world",), root=tmp_path, every_steps=2, score="joint"),
    )


def _rows(run: Path, name: str = "validation.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def _names(config: TrainConfig) -> list[str]:
    assert config.out is not None
    return [path.name for path in checkpoints(config.out)]


def _best(config: TrainConfig) -> str:
    """The best checkpoint, by the link, by the file and as a model."""
    assert config.out is not None
    name = json.loads((config.out / "best.json").read_text())["checkpoint"]
    link = config.out / "best"
    assert link.is_symlink() and link.resolve() == (config.out / name).resolve() and not link.readlink().is_absolute()
    assert load_encoder(str(link)).fingerprint == load_encoder(str(config.out / name)).fingerprint
    assert not (config.out / "best.copy").is_symlink(), "a link made room for the next one"
    return str(name)


def _fingerprint(model: Path) -> str:
    return load_encoder(str(model)).fingerprint


@pytest.mark.parametrize(("loop", "steps"), [({"epochs": 2}, [0, 6, 12]), ({"steps": 8}, [0, 6, 8])])
def test_the_end_of_every_pass_and_of_the_run_is_evaluated(
    loop: dict[str, int], steps: list[int], config: TrainConfig, measured: Measured
) -> None:
    watched = replace(config.validation, every_steps=0)
    config = replace(config, validation=watched, train=replace(config.train, **{"steps": None} | loop))
    assert train(config).step == steps[-1] and config.out is not None
    assert [row["step"] for row in _rows(config.out)] == steps and _best(config) == f"step-{steps[-1]}"
    assert measured.count == 3


def test_gain_minus_price_times_loss() -> None:
    start, scores = {"a": 0.5, "b": 0.9}, {"a": 0.7, "b": 0.8}
    trade = trade_off(scores, start, gain="a", kept="b", price=1.5)
    assert (trade.gained, trade.lost, trade.joint) == pytest.approx((0.2, 0.1, 0.05))
    assert trade_off(start, scores, gain="a", kept="b", price=0).joint == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("price", "scores", "warns"), [(1, (64.0, 89.5), False), (10, (64.0, 89.5), True), (1, BASE, True)]
)
def test_a_best_checkpoint_that_is_no_better_than_the_start_is_reported(
    price: float, scores: tuple[float, float], warns: bool, config: TrainConfig, measured: Measured, caplog: Told
) -> None:
    measured.will_be(BASE, scores)
    train(replace(config, validation=replace(config.validation, price=price), train=replace(config.train, steps=2)))
    assert any("best: its joint is no better than before training" in line for line in caplog.messages) == warns


@pytest.mark.parametrize(("price", "best"), [(0, "step-8"), (1, "step-6"), (9, "step-2")])
def test_the_price_decides_which_checkpoint_is_the_best(
    price: float, best: str, config: TrainConfig, measured: Measured, caplog: Told
) -> None:
    config = replace(config, validation=replace(config.validation, price=price))
    with caplog.at_level(logging.INFO, logger="degla.train"):
        outcome = train(config)
    assert config.out is not None and outcome.best == config.out / best and _best(config) == best
    assert outcome.finished and outcome.ended is None and outcome.step == 8
    assert _names(config) == sorted({best, "step-8"})
    rows = _rows(config.out)
    assert [row["step"] for row in rows] == [0, 2, 4, 6, 8] and rows[0]["score"] == 0
    for row, (composition, recognition) in zip(rows[1:], CURVE, strict=True):
        gained, lost = composition - 60, 90 - recognition
        assert [100 * row[name] for name in ("gained", "lost", "joint")] == pytest.approx(
            [gained, lost, gained - price * lost], abs=1e-9
        )
        assert row["score"] == row["joint"]
    logged = {row["step"]: row for row in _rows(config.out, "metrics.jsonl") if "validation/composition" in row}
    assert list(logged) == [0, 2, 4, 6, 8]
    assert all(logged[row["step"]]["validation/joint"] == row["joint"] for row in rows[1:])
    if price == 1:
        lines = [line for line in caplog.messages if line.startswith("step ") and "composition" in line]
        assert lines[:2] == [
            "step 0: composition 60.0, recognition 90.0, before training",
            "step 2: composition 64.0 (+4.0), recognition 89.5 (−0.5), joint +3.5, best",
        ]
        assert lines[-1] == "step 8: composition 75.0 (+15.0), recognition 80.0 (−10.0), joint +5.0"


def test_changes_are_rounded_as_in_reports(config: TrainConfig, measured: Measured, caplog: Told) -> None:
    measured.will_be(BASE, (61.25, 88.75))
    with caplog.at_level(logging.INFO, logger="degla.train"):
        train(replace(config, train=replace(config.train, steps=2)))
    # 0.6125 - 0.6 is a little more than 0.0125.
    assert any("composition 61.3 (+1.2), recognition 88.8 (−1.2), joint +0.0" in line for line in caplog.messages)


def test_the_budget_ends_the_run_and_the_best_within_it_stays(
    config: TrainConfig, measured: Measured, caplog: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(
        config,
        validation=replace(config.validation, score="composition"),
        stop=StopConfig(max_forgetting=1.0),
    )
    assert config.out is not None
    with caplog.at_level(logging.INFO, logger="degla.train"):
        outcome = train(config)
    # A loss of exactly the budget, at step 4, is within it; step 6 would be better, but is not allowed.
    assert (outcome.step, outcome.finished, outcome.best) == (6, True, config.out / "step-4")
    assert outcome.ended == "recognition is 4.00 points below its start (--stop.max-forgetting 1)"
    assert _best(config) == "step-4" and _names(config) == ["step-4", "step-6"]
    assert "step 6: composition 72.0 (+12.0), recognition 86.0 (−4.0), joint +8.0, over the budget" in caplog.messages
    again = f"raise that limit and resume the run, whose last complete checkpoint is {config.out / 'step-6'}."
    told = f"{config.out}: ended early, after step 6 of 8: {outcome.ended}. To continue, {again}"
    assert told in caplog.messages, "it names no command: a study and a call from Python resume in another way"
    assert _rows(config.out, "metrics.jsonl")[-1] == {"step": 6, "ended": outcome.ended}
    assert json.loads((config.out / "step-6" / "state.json").read_text())["ended"] == outcome.ended

    # The run's name loads the checkpoint within the budget.
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="degla.train"):
        assert _fingerprint(config.out) == _fingerprint(config.out / "step-4") != _fingerprint(config.out / "step-6")
    assert f"{config.out}: stopped early because {outcome.ended}; using its best checkpoint: step-4" in caplog.messages

    # Resumed with the same budget, it does not move, measures nothing and says why.
    caplog.clear()
    measured.will_be()
    again = train(config, resume=True)
    assert (again.step, again.ended, again.best) == (6, outcome.ended, outcome.best) and measured.count == 0
    assert any("does not continue after step 6 of 8" in line for line in caplog.messages)
    assert main(["train", "--resume", str(config.out)]) == 0
    assert capsys.readouterr().err.endswith(f"\nto continue: degla train --resume {config.out} [flags]\n")
    assert [row["step"] for row in _rows(config.out, "metrics.jsonl") if "ended" in row] == [6]

    # A larger budget lets it continue; a checkpoint over the old budget may be the best now.
    larger = replace(config, stop=StopConfig(max_forgetting=5.0))
    check_unchanged(read_config(config.out), larger)
    measured.will_be(CURVE[3])
    rest = train(larger, resume=True)
    assert (rest.step, rest.best) == (8, config.out / "step-6") and rest.ended is None, "step 8 was the last anyway"
    assert _best(larger) == "step-6" and [row["step"] for row in _rows(config.out)] == [0, 2, 4, 6, 8]
    assert _fingerprint(config.out) == _fingerprint(config.out / "step-6"), "over the budget at the last step"


def test_the_budget_needs_no_score_to_improve(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([0.9, 0.895, 0.85, 0.8])
    monkeypatch.setattr(Validation, "_measure", lambda self, encoder: {"recognition": next(left)})
    watched = replace(config.validation, score="recognition")
    outcome = train(replace(config, validation=watched, stop=StopConfig(max_forgetting=1.0)))
    assert outcome.ended == "recognition is 5.00 points below its start (--stop.max-forgetting 1)"
    assert outcome.step == 4 and _best(config) == "step-2"


def test_a_larger_budget_behind_the_last_step_lets_the_run_stand_for_its_end(
    config: TrainConfig, measured: Measured
) -> None:
    config = replace(config, stop=StopConfig(max_forgetting=1.0), train=replace(config.train, steps=6))
    config = replace(config, checkpoint=replace(config.checkpoint, keep=0))
    assert train(config).step == 6 and config.out is not None
    assert _fingerprint(config.out) == _fingerprint(config.out / "step-4") != _fingerprint(config.out / "step-6")
    again = train(replace(config, stop=StopConfig(max_forgetting=5.0)), resume=True)
    assert again.finished and again.ended is None and again.best == config.out / "step-6"
    assert _fingerprint(config.out) == _fingerprint(config.out / "step-6")


def test_a_run_that_never_was_within_the_budget_has_no_best(
    config: TrainConfig, measured: Measured, caplog: Told
) -> None:
    measured.will_be(BASE, (70.0, 50.0))
    outcome = train(replace(config, stop=StopConfig(max_forgetting=1.0)))
    assert config.out is not None and outcome.step == 2 and outcome.best is None
    assert json.loads((config.out / "best.json").read_text()) == {"checkpoint": None}
    assert not (config.out / "best").is_symlink()
    assert any("no checkpoint is within the limits" in line for line in caplog.messages)
    caplog.clear()
    assert _fingerprint(config.out) == _fingerprint(config.out / "step-2")
    assert any("no checkpoint is within the limits, using step-2" in line for line in caplog.messages)
    why = (
        r"run/best: no checkpoint .* within its limits: recognition is 40.00 points .*max-forgetting 1.*/run/step-2\.$"
    )
    with pytest.raises(InputError, match=why):
        load_encoder(str(config.out / "best"))


def test_a_best_that_is_gone_says_why_and_what_there_is(config: TrainConfig, measured: Measured) -> None:
    assert config.out is not None and train(config).best == config.out / "step-6"
    best = config.out / "best"
    best.unlink()
    with pytest.raises(InputError, match=r"run/best: the link is missing; the best checkpoint is .*/run/step-6\.$"):
        load_encoder(str(best))
    best.symlink_to("step-6")
    shutil.rmtree(config.out / "step-6")
    with pytest.raises(InputError, match=r"step-6, was deleted\. Its newest checkpoint is .*/run/step-8\.$"):
        load_encoder(str(best))
    plain = replace(config, out=config.out.with_name("plain"), validation=ValidationConfig())
    train(plain)
    with pytest.raises(InputError, match=r"no validation has chosen .*--validation\.benchmarks.*/plain/step-8\.$"):
        load_encoder(f"{plain.out}/best")


def test_patience_counts_evaluations_without_a_better_score(config: TrainConfig, measured: Measured) -> None:
    config = replace(config, stop=StopConfig(patience=2), train=replace(config.train, steps=20))
    measured.will_be(BASE, (61, 90), (61, 90), (63, 90), (62, 90), (63, 90), (99, 90))
    outcome = train(config)
    assert outcome.step == 10 and outcome.ended is not None and config.out is not None
    assert "last 2 evaluations did not improve joint (--stop.patience 2)" in outcome.ended
    assert _best(config) == "step-6"


def test_a_resume_in_between_decides_as_a_run_that_never_stopped(
    config: TrainConfig, measured: Measured, tmp_path: Path
) -> None:
    config = replace(config, stop=StopConfig(max_forgetting=3, patience=2), train=replace(config.train, steps=20))
    config = replace(config, checkpoint=replace(config.checkpoint, keep=0))
    curve = [BASE, (64, 90), (63, 90), (65, 90), (64, 90), (64, 90)]
    outcomes: list[TrainResult] = []
    for cut in (None, 4):
        config = replace(config, out=tmp_path / f"cut-{cut}")
        assert config.out is not None
        if cut is None:
            measured.will_be(*curve)
            outcome = train(config)
        else:
            shutil.copytree(tmp_path / "cut-None", config.out, symlinks=True)
            cut_off(config, at=2 * cut)
            # The process ended in the middle of a line.
            with (config.out / "validation.jsonl").open("a") as stream:
                stream.write('{"step": 1')
            measured.will_be(*curve[1 + cut :])
            outcome = train(config, resume=True)
            assert measured.count == 5 - cut, "the model before training was measured again"
        outcomes.append(outcome)
        assert [row["step"] for row in _rows(config.out)] == [0, 2, 4, 6, 8, 10]
        assert _best(config) == "step-6"
    assert {(outcome.step, outcome.ended) for outcome in outcomes} == {(10, outcomes[0].ended)}
    assert all(outcome.values == outcomes[0].values for outcome in outcomes)


def test_a_new_run_keeps_no_line_of_one_that_ended_before_its_first_checkpoint(
    config: TrainConfig, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    measured.will_be((10.0, 10.0))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", end)
        train(config)
    assert config.out is not None
    assert [row["step"] for row in _rows(config.out, "metrics.jsonl")] == [0]
    measured.will_be(BASE, *CURVE)
    train(config)
    scores = [row["validation/composition"] for row in _rows(config.out, "metrics.jsonl") if row["step"] == 0]
    assert scores == [BASE[0] / 100]


def test_nothing_is_scored_after_a_loss_that_is_not_finite(
    config: TrainConfig, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def poisoned(self: Trainer, *arguments: Any, **options: Any) -> dict[str, Any]:
        values = step(self, *arguments, **options)
        return values | ({"loss": torch.tensor(math.nan)} if options["step"] == 1 else {})

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(DeglaError, match="step 2: the loss is nan"):
        train(replace(config, tracking=replace(config.tracking, every_steps=50)))
    assert config.out is not None and [row["step"] for row in _rows(config.out)] == [0]


def test_what_a_run_asks_for_must_be_there_before_the_first_step(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"composition": 0.5, "swap": 0.4}
    monkeypatch.setattr(Validation, "_measure", lambda self, encoder: scores)
    cases = [
        (config.validation, StopConfig(), r"joint counts the loss of .*\.kept 'recognition'.* Known: comp"),
        (replace(config.validation, kept="swap", gain="swpa"), StopConfig(), r"--validation\.gain .*mean 'swap'"),
        (replace(config.validation, score="composition"), StopConfig(max_forgetting=1), r"limits the loss of .*\.kept"),
    ]
    for validation, stop, message in cases:
        with pytest.raises(InputError, match=message):
            train(replace(config, validation=validation, stop=stop))
    assert not checkpoints(tmp_path / "run") and not (tmp_path / "run" / "metrics.jsonl").exists()
    plain = replace(config.validation, score="swap")
    outcome = train(replace(config, validation=plain))
    assert outcome.best is not None, "another score does not need recognition"
    assert "joint" not in _rows(tmp_path / "run")[-1]


def test_a_limit_without_evaluations_is_refused(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="needs evaluations"):
        train(replace(config, validation=ValidationConfig(), stop=StopConfig(max_forgetting=1.0)))
    assert main(["train", "clip", "--stop.max-forgetting", "1.0", "--out", str(tmp_path / "x")]) == 2
    assert "--stop.max-forgetting 1 needs evaluations" in capsys.readouterr().err


def test_all_processes_decide_alike_after_a_resume(
    config: TrainConfig, measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first process has read decides, whatever the others find."""
    config = replace(config, stop=StopConfig(max_forgetting=1.0))
    train(config)
    assert config.out is not None
    sent: list[Any] = []
    monkeypatch.setattr(ProcessGroup, "together", lambda self, work: [sent.append(work()) or sent[0]])
    for rank, run in ((0, config.out), (1, tmp_path / "other disk")):
        processes = ProcessGroup(count=2, rank=rank)
        validation = Validation(config.validation, config.stop, run=run, label="x", seed=0, processes=processes)
        assert validation.begin(load_encoder(config.model), resumed_from=6) == {}
        assert validation.ended is not None and validation.best == "step-4"
