"""A run that averages: it keeps the average with the start, and continues with its own student."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from degla.config.run import TrainConfig
from degla.config.sections import StopConfig, ValidationConfig
from degla.errors import InputError
from degla.evaluation.run import Evaluation
from degla.evaluation.terminal import named_scores
from degla.model.adapters import AdapterConfig
from degla.model.load import load_encoder
from degla.model.runs import checkpoints
from degla.training.loop import train
from degla.world.draw import draw_benchmark
from tests.tiny import write_model
from tests.training.configs import cut_off, needs_slices, tiny_config, train_in

Pairs = dict[str, Path]
Weights = dict[str, torch.Tensor]
MODEL, STUDENT = "open_clip_model.safetensors", "student.safetensors"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_benchmark(
        tmp_path_factory.mktemp("world") / "validation", split="validation", items_per_part=5, images_per_class=1,
        retrieval_images=4,
    )  # fmt: skip


def _averaging(config: TrainConfig, share: float | None) -> TrainConfig:
    return replace(config, train=replace(config.train, average=share))


def _assert_average(average: Weights, base: Weights, student: Weights, *, share: float, atol: float = 1e-6) -> None:
    assert average.keys() == base.keys() == student.keys()
    for name, value in average.items():
        torch.testing.assert_close(value, base[name] * (1 - share) + student[name] * share, rtol=0, atol=atol)
    assert any((student[name] - base[name]).abs().max() > 1e-4 for name in base), "nothing was trained"


def _assert_equal(one: Path, other: Path) -> None:
    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_average_is_what_is_evaluated_and_kept(
    benchmark: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    plain = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "plain", steps=4)
    outcome = train(plain)
    watched = ValidationConfig(benchmarks=("world",), root=benchmark, every_steps=4)
    config = replace(_averaging(plain, 0.3), out=tmp_path / "averaged", validation=watched)
    averaged = train(config)
    assert averaged.values == outcome.values, "averaging changed the training"
    _assert_equal(averaged.folder / STUDENT, outcome.folder / MODEL)
    _assert_equal(averaged.folder / "teacher.safetensors", outcome.folder / "teacher.safetensors")
    base, average = load_file(tiny_model / MODEL), load_file(averaged.folder / MODEL)
    _assert_average(average, base, load_file(outcome.folder / MODEL), share=0.3)

    # Loading the run gives the average: in this package by the run's name, in open_clip by the checkpoint's.
    encoder = load_encoder(str(tmp_path / "averaged"))
    assert all(torch.equal(value, average[name]) for name, value in encoder.clip.state_dict().items())
    alone = open_clip.create_model(f"local-dir:{averaged.folder}")
    assert all(torch.equal(value, average[name]) for name, value in alone.state_dict().items())
    result = Evaluation(["world"], benchmark, progress=False).score(encoder)
    row = json.loads((tmp_path / "averaged" / "validation.jsonl").read_text().splitlines()[-1])
    scores = named_scores(result)
    assert row["step"] == 4 and {name: row[name] for name in scores} == scores

    # A share of 1 is the tuned model itself, without a second file.
    whole = train(replace(_averaging(plain, 1.0), out=tmp_path / "whole"))
    _assert_equal(whole.folder / MODEL, outcome.folder / MODEL)
    assert not (whole.folder / STUDENT).exists()


def test_a_resume_continues_with_the_student(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = _averaging(tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", steps=4), 0.5)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=2))
    whole = train(config)
    parts = replace(config, out=tmp_path / "parts")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    cut_off(parts, at=2)
    folder = tmp_path / "parts" / "step-2"
    weights = (folder / STUDENT).read_bytes()
    (folder / STUDENT).unlink()
    with pytest.raises(InputError, match=r"student\.safetensors: missing"):
        train(parts, resume=True)
    (folder / STUDENT).write_bytes(weights)
    other = write_model(tmp_path / "other", seed=9)
    with pytest.raises(InputError, match="is not the model that the run started from"):
        train(replace(parts, model=str(other)), resume=True)
    again = train(parts, resume=True)
    for name in (MODEL, STUDENT, "teacher.safetensors"):
        _assert_equal(again.folder / name, whole.folder / name)
    assert again.values == whole.values


def test_adapters_are_averaged_as_the_weights_they_amount_to(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    plain = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "plain", steps=4)
    plain = replace(plain, adapter=AdapterConfig(rank=2), checkpoint=replace(plain.checkpoint, every_steps=2))
    outcome = train(plain)
    config = replace(_averaging(plain, 0.25), out=tmp_path / "averaged")
    averaged = train(config)
    base = load_file(tiny_model / MODEL)
    _assert_average(load_file(averaged.folder / MODEL), base, load_file(outcome.folder / MODEL), share=0.25)
    _assert_equal(averaged.folder / "adapters.safetensors", outcome.folder / "adapters.safetensors")
    assert not (averaged.folder / STUDENT).exists(), "the adapters are what a resume reads"
    averaged.folder.rename(tmp_path / "before")
    assert train(config, resume=True).values == outcome.values
    _assert_equal(averaged.folder / MODEL, tmp_path / "before" / MODEL)


@needs_slices
def test_sharded_processes_average_end_together_and_go_on_in_one(
    benchmark: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    loop = {"batch_size": 8, "steps": 6, "average": 0.5, "strategy": "fsdp"}
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", **loop)
    watched = ValidationConfig(benchmarks=("world",), root=benchmark, every_steps=1)
    config = replace(config, validation=watched, stop=StopConfig(patience=1))
    output = train_in(2, config)
    assert output.count("ended early, after step") == 1, "only one process reports it"
    rows = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(len(rows)))
    scores = [row["score"] for row in rows[1:]]
    # Each evaluation was better than the one before, until the last was not.
    rising = [later > earlier for earlier, later in itertools.pairwise(scores)]
    assert len(rows) <= 6 and not rising[-1] and all(rising[:-1])
    newest = checkpoints(tmp_path / "run")[-1]
    assert newest.name == f"step-{len(scores)}"
    assert (tmp_path / "run" / "best").resolve().name == f"step-{len(scores) - 1}"
    base = load_file(tiny_model / MODEL)
    _assert_average(load_file(newest / MODEL), base, load_file(newest / STUDENT), share=0.5)
    assert train(replace(config, stop=StopConfig(patience=9)), resume=True).step == 6
