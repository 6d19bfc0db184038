"""The same run under one, two and four processes: losses and weights agree; a run moves between them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.launch import run, run_together
from tests.tiny import write_classes
from tests.training.configs import needs_slices

Pairs = dict[str, Path]


def _run(processes: int, *words: str) -> None:
    run_together(["-m", "degla", "train", *words], count=processes)


def _flags(model: Path, pairs: Pairs, out: Path) -> list[str]:
    return ["degla", "--model", str(model), "--out", str(out), "--data.captions", str(pairs["captions"]),
            "--data.images", str(pairs["images"]), "--data.negatives", str(pairs["negatives"]),
            "--data.negatives-per-caption", "2", "--train.batch-size", "8", "--train.steps", "4", "--optim.lr", "1e-3",
            "--train.precision", "fp32", "--tracking.every-steps", "1", "--checkpoint.every-minutes", "0",
            "--checkpoint.every-steps", "2", "--checkpoint.keep", "0", "--objective.intra-modal.weight", "0.1",
            "--objective.cross-modal-rank.weight", "0.2"]  # fmt: skip


def _metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def single(tiny_model: Path, tiny_pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "run"
    _run(1, *_flags(tiny_model, tiny_pairs, out))
    return out


@pytest.mark.parametrize("processes", [2, 4])
def test_number_of_processes_changes_nothing(
    processes: int, single: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _run(processes, *_flags(tiny_model, tiny_pairs, out))
    for one, many in zip(_metrics(single), _metrics(out), strict=True):
        for name in one.keys() - {"pairs_per_second"}:
            assert many[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), (one["step"], name)
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = load_file(single / "step-4" / name), load_file(out / "step-4" / name)
        for key, value in left.items():
            # Adam's first steps turn tiny gradients, where the order of sums shows, into steps of the learning rate.
            torch.testing.assert_close(right[key], value, rtol=0, atol=2e-4)
            assert (right[key] - value).abs().mean() < 2e-6


def test_a_run_of_one_process_goes_on_in_two_of_torchrun(single: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(single, out)
    (out / "step-4" / "state.json").unlink()
    # torchrun starts two new interpreters, which share not even the seed of hashes.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = run([*torchrun, "-m", "degla", "train", "--resume", str(out)])
    assert done.wait() == 0, done.stderr[-4000:]
    state = json.loads((out / "step-4" / "state.json").read_text())
    assert (state["step"], state["processes"]) == (4, 2)
    assert [row["step"] for row in _metrics(out)] == [1, 2, 3, 4]
    for one, moved in zip(_metrics(single), _metrics(out), strict=True):
        for name in one.keys() - {"pairs_per_second"}:
            assert moved[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), (one["step"], name)


@needs_slices
def test_slices_give_the_same_run_as_copies_and_each_goes_on_as_the_other(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    more = ["--optim.clip-norm", "0.5", "--train.chunk-size", "2", *_watched(tmp_path)]
    copies, slices = tmp_path / "ddp", tmp_path / "fsdp"
    for out in (copies, slices):
        _run(2, *_flags(tiny_model, tiny_pairs, out), *more, "--train.strategy", out.name)
    first = _metrics(copies)
    assert [row["loss"] for row in _metrics(slices)] == pytest.approx([row["loss"] for row in first], rel=1e-5)
    for one, other in zip(_validated(copies), _validated(slices), strict=True):
        assert other == pytest.approx(one, abs=0.1)
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = load_file(copies / "step-4" / name), load_file(slices / "step-4" / name)
        assert left.keys() == right.keys()
        for key, value in left.items():
            torch.testing.assert_close(right[key], value, rtol=0, atol=2e-4)
    for out, processes, strategy in ((copies, 2, "fsdp"), (slices, 1, "ddp")):
        (out / "step-4" / "state.json").unlink()
        _run(processes, "--resume", str(out), "--train.strategy", strategy)
        losses = [row["loss"] for row in _metrics(out)]
        assert losses == pytest.approx([row["loss"] for row in first], rel=1e-4), (processes, strategy)


def _watched(folder: Path) -> list[str]:
    """Flags of an evaluation every two steps."""
    root = write_classes(folder / "classes")
    return ["--validation.benchmarks", "zeroshot", "--validation.root", str(root), "--validation.every-steps", "2",
            "--validation.score", "recognition"]  # fmt: skip


def _validated(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


def test_a_run_of_two_processes_evaluates_in_both_and_goes_on_in_one(
    single: Path, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _run(2, *_flags(tiny_model, tiny_pairs, out), *_watched(tmp_path))
    shared = _validated(out)
    assert [row["step"] for row in shared] == [0, 2, 4], "each score is written once"
    (out / "step-4" / "state.json").unlink()
    _run(1, "--resume", str(out))
    assert [row["step"] for row in _metrics(out)] == [1, 2, 3, 4]
    assert _validated(out)[:2] == shared[:2] and _validated(out)[2] == pytest.approx(shared[2], abs=0.1)
    for one, moved in zip(_metrics(single), _metrics(out), strict=True):
        assert moved["loss"] == pytest.approx(one["loss"], rel=1e-4)
