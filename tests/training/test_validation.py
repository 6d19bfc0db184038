"""Evaluation during training on a real benchmark: scores are written, the best is known, a wrong name is reported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, StopConfig, ValidationConfig
from degla.doctor.examine import examine
from degla.errors import InputError
from degla.evaluation.run import Evaluation
from degla.evaluation.trainings import Trainings
from degla.losses.core import Processes
from degla.model.adapters import AdapterConfig
from degla.model.load import load_encoder
from degla.processes import ProcessGroup
from degla.training.loop import TrainResult, train
from degla.training.rows import read_pairs
from degla.training.validation import Validation
from degla.world.draw import draw_benchmark
from tests.training.configs import tiny_config

Pairs = dict[str, Path]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_benchmark(
        tmp_path_factory.mktemp("world") / "validation",
        split="validation",
        items_per_part=10,
        images_per_class=1,
        retrieval_images=4,
    )


@pytest.fixture(scope="module")
def watched(
    benchmark: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, TrainResult]:
    """A run that is evaluated every two steps."""
    out = tmp_path_factory.mktemp("watched") / "run"
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=out, steps=4)
    config = replace(config, validation=ValidationConfig(benchmarks=("world",), root=benchmark, every_steps=2))
    return config, train(config)


def test_scores_are_written_and_the_best_is_kept(watched: tuple[TrainConfig, TrainResult]) -> None:
    run = watched[1].folder.parent
    rows = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("score", "composition", "swap", "recognition"))
    assert all(row["score"] == row["composition"] == row["composition.id.neutral"] for row in rows)
    best = max(rows[1:], key=lambda row: (row["score"], -row["step"]))["step"]
    assert json.loads((run / "best.json").read_text()) == {"checkpoint": f"step-{best}"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["validation/composition"] for line in lines if "validation/composition" in line}
    assert logged == {row["step"]: row["composition"] for row in rows}


def test_evaluating_does_not_change_the_training(watched: tuple[TrainConfig, TrainResult], tmp_path: Path) -> None:
    config, outcome = watched
    plain = train(replace(config, out=tmp_path / "plain", validation=ValidationConfig()))
    assert plain.values == outcome.values


def test_nothing_is_evaluated_before_a_run_that_is_refused(
    benchmark: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", freeze_image_blocks=9)
    config = replace(config, validation=ValidationConfig(benchmarks=("world",), root=benchmark))
    with pytest.raises(InputError, match="freeze-image-blocks is 9"):
        train(config)
    assert not (tmp_path / "run" / "validation.jsonl").exists()


def test_adapters_do_not_change_the_scores_before_training(
    watched: tuple[TrainConfig, TrainResult], tmp_path: Path
) -> None:
    config, outcome = watched
    adapter = AdapterConfig(rank=2, text_map=True)
    train(replace(config, out=tmp_path / "run", adapter=adapter, train=replace(config.train, precision="bf16")))
    first, same = ((run / "validation.jsonl").open().readline() for run in (tmp_path / "run", outcome.folder.parent))
    assert first == same


def test_a_run_that_ends_before_an_evaluation_is_due_says_so(
    benchmark: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in (3, 2):
        caplog.clear()
        config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / f"{steps}", steps=steps)
        train(replace(config, validation=ValidationConfig(benchmarks=("world",), root=benchmark, every_steps=3)))
        assert ("--validation.every-steps is 3, but the run has 2 steps: only" in caplog.text) == (steps == 2)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_takes_part_and_the_first_writes(
    rank: int, benchmark: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[ProcessGroup] = []

    def evaluate_alone(*arguments: Any, processes: ProcessGroup, **options: Any) -> Any:
        calls.append(processes)
        return Evaluation(*arguments, **options)

    monkeypatch.setattr("degla.evaluation.run.Evaluation", evaluate_alone)
    wanted = ValidationConfig(benchmarks=("world",), root=benchmark, every_steps=1)
    processes = ProcessGroup(count=2, rank=rank)
    monkeypatch.setattr(ProcessGroup, "from_first", lambda self, work: work())
    validation = Validation(wanted, StopConfig(), run=tmp_path, label="x", seed=0, processes=processes)
    encoder = load_encoder(str(tiny_model))
    before, scores = validation.begin(encoder), validation.score(encoder, 1)
    assert calls == [processes] * 2 and scores["validation/composition"] == before["validation/composition"] > 0
    assert validation.best == "step-1" and (tmp_path / "validation.jsonl").is_file() == (rank == 0)


def test_wrong_names_are_reported(benchmark: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "a", steps=2)
    wrong = ValidationConfig(benchmarks=("world",), root=benchmark, every_steps=1, score="compositoin")
    with pytest.raises(InputError, match="Did you mean 'composition'"):
        train(replace(config, model=str(tmp_path / "not loaded"), validation=wrong))
    *_, last = examine(replace(config, validation=wrong))
    assert (last.about, last.state) == ("configuration", "error") and "score 'compositoin'" in last.text
    with pytest.raises(InputError, match=r"requires --validation\.root"):
        train(replace(config, out=tmp_path / "b", validation=ValidationConfig(benchmarks=("world",))))


def test_questions_about_trained_images_are_reported(
    tiny_model: Path,
    tiny_pairs: Pairs,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    trained, held_out = next(tiny_pairs["images"].glob("*.*")), tmp_path / "own" / "images" / "other.png"
    held_out.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(held_out)
    shutil.copy(trained, held_out.with_name("same.png"))

    # The captions need not be read again; the run has a record of what it started from.
    tables = [read_pairs(config.pairs, seed=0, processes=Processes.current()).rows]
    run = tmp_path / "earlier"
    run.mkdir()
    (run / "captions.jsonl").write_text('{"id": "1", "image": "earlier.png", "text": "a cat", "image_id": "1"}')
    earlier = DataConfig(captions=run / "captions.jsonl", images=held_out.parent)
    (run / "config.json").write_text(json.dumps(to_plain(replace(config, data=earlier))))
    Image.new("RGB", (8, 9)).save(held_out.with_name("earlier.png"))

    def told(*images: str, model: str = config.model, before: Trainings | None = None) -> list[str]:
        rows = [{"image": image, "caption": "a cat on a mat", "negative": "a mat on a cat"} for image in images]
        (tmp_path / "own" / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
        wanted = ValidationConfig(benchmarks=("own",), root=tmp_path, every_steps=1)
        processes = ProcessGroup()
        caplog.clear()
        Validation(wanted, StopConfig(), run=tmp_path, label="x", seed=0, processes=processes).read(
            trained=replace(config, model=model), rows=tables, earlier=before
        )
        return caplog.messages

    names = {str(run / "captions.jsonl"): {"earlier.png": None}}
    monkeypatch.setattr("degla.evaluation.overlap._sizes", lambda pairs, _: (names[pairs.captions], ()))
    assert told("other.png", "earlier.png") == []
    (warning,) = told("other.png", "earlier.png", model=str(run))
    assert "1 of 2 benchmark images are in the training data" in warning and "earlier.png" in warning
    recorded = Trainings(data=({"data": to_plain(earlier)},))
    assert told("other.png", "earlier.png", before=recorded) == [warning], "its base may have changed"
    (warning,) = told("other.png", "same.png")
    assert "validation: 1 of 2 benchmark images are in the training data (1 by content)" in warning
    assert "Its scores, and so the best checkpoint, also measure memorisation" in warning
    config = replace(config, data=earlier)
    (run / "config.json").write_text(json.dumps(to_plain(replace(config, model="runs/gone"))))
    (warning,) = told("other.png", model=str(run))
    assert "validation: was fine-tuned from runs/gone, which is not found" in warning
