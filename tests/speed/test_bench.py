"""`degla bench`: both sides have the same loss and gradients, and the ratio is that of the measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.compiled import open_both
from degla.cli import main
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.speed import apart
from degla.speed.compare import _gradient_gap, compare, summarize
from degla.speed.measure import Measured
from degla.speed.stages import STAGES, BaselineStep, PresentStep, take_step
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from tests.launch import run

Pairs = dict[str, Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize(("last", "gap", "worst"), [(3.3, 0.25, "b"), (float("nan"), float("nan"), "c")])
def test_the_worst_gradient_is_reported_even_where_it_is_no_number(
    tmp_path: Path, last: float, gap: float, worst: str
) -> None:
    sides = ({"a": [1.0], "b": [0.0, 4.0], "c": [3.0]}, {"a": [1.2], "b": [0.0, 3.0], "c": [last]})
    files = tmp_path / "baseline.pt", tmp_path / "present.pt"
    for file, gradients in zip(files, sides, strict=True):
        torch.save({name: torch.tensor(values) for name, values in gradients.items()}, file)
    assert _gradient_gap(*files) == (pytest.approx(gap, nan_ok=True), worst)


def test_both_sides_take_the_same_step(tiny_model: Path, tiny_pairs: Pairs) -> None:
    workload = Workload(
        model=str(tiny_model), batch_size=6, negatives=2, captions=tiny_pairs["captions"],
        negatives_file=tiny_pairs["negatives"],
    )  # fmt: skip
    config = workload.config("fp32")
    encoder = load_encoder(workload.model)
    batch = make_batch(workload, encoder, precision="fp32")
    assert batch.valid.all() and batch.negative.shape[:2] == (6, 2)
    baseline = BaselineStep(load_encoder(workload.model), batch, config=config, autocast=False)
    assert baseline.tokens.shape == (18, encoder.context_length), "the baseline does not pad"
    trainer = build_trainer(config, open_accelerator(config), encoder, Processes(), rules=1, steps=10)
    present = PresentStep(trainer, batch)

    for number in range(2):
        losses, gradients = [], []
        for step in (baseline, present):
            loss, seconds = take_step(step, device=CPU, update=False)
            losses.append(loss)
            gradients.append({name: value.clone() for name, value in step.gradients().items()})
            assert set(seconds) == set(STAGES) - {"optimiser", "average"}
            step.update()
            step.average()
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 50
        for name, expected in gradients[0].items():
            gap = (gradients[1][name] - expected).norm() / expected.norm()
            assert gap < (1e-4 if number == 0 else 1e-2), (number, name, gap)
    own = dict(trainer.teacher.encoder.clip.named_parameters()) if trainer.teacher else {}
    for name, value in baseline.teacher.named_parameters():
        torch.testing.assert_close(own[name], value, rtol=0, atol=1e-5)


def test_the_compiled_step_is_opened_beside_the_eager_one(tiny_model: Path, tiny_pairs: Pairs) -> None:
    workload = Workload(model=str(tiny_model), batch_size=2, negatives=1, captions=tiny_pairs["captions"],
                        negatives_file=tiny_pairs["negatives"])  # fmt: skip
    assert [trainer.config.train.compile for trainer, _ in open_both(workload, "fp32")] == [False, True]


def test_ratios_are_of_what_was_measured() -> None:
    def side(step: float, memory: int) -> Measured:
        return Measured(loss=1.0, seconds={name: [step, step, 9.0] for name in STAGES}, memory=memory, operations=900,
                        peak=1000.0, device="some")  # fmt: skip

    baseline, present = [side(0.4, 80), side(0.8, 100)], [side(0.1, 30), side(0.1, 40)]
    plain = summarize(Workload(), baseline, present, precision="bf16", gaps={})
    assert plain["ratio"] == pytest.approx(6.0) and plain["ratios"] == pytest.approx([4.0, 8.0])
    assert plain["seconds"] == pytest.approx(0.9) and plain["pairs_per_second"] == pytest.approx(32 / 0.9)
    assert plain["memory_share"] == pytest.approx(0.4)
    assert plain["operations_per_second"] == pytest.approx(1000) and plain["share_of_peak"] == pytest.approx(1.0)


def test_the_baseline_is_timed_in_fp32_and_compared_in_the_precision_of_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[tuple[str, str, int, bool]] = []

    def run_side(_: Workload, *, side: str, precision: str, steps: int, gradients: Path | None = None) -> Measured:
        runs.append((side, precision, steps, gradients is not None))
        loss = 1.1 if side == "present" else 1.0 if precision == "bf16" else 9.0
        return Measured(
            loss=loss, seconds={name: [1.0] for name in STAGES}, memory=1, operations=1, peak=1.0, device=""
        )

    monkeypatch.setattr("degla.speed.compare.run_side", run_side)
    monkeypatch.setattr("degla.speed.compare._gradient_gap", lambda *_: (0.0, "none"))
    result = compare(Workload(), precision="bf16", steps=3, rounds=2, tell=lambda _: None)
    assert runs == [
        ("baseline", "fp32", 3, False), ("present", "bf16", 3, True), ("baseline", "fp32", 3, False),
        ("present", "bf16", 3, False), ("baseline", "bf16", 0, True),
    ]  # fmt: skip
    assert result["loss_gap"] == pytest.approx(0.1) and result["baseline_precision"] == "fp32"


def forked(command: list[str], *, env: Mapping[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run` for a Python program, without the time for its imports."""
    assert command[0] == sys.executable
    program = run(command[1:], environment=env)
    return subprocess.CompletedProcess(command, program.wait(), stderr=program.stderr)


def test_the_command(
    tiny_model: Path, tiny_pairs: Pairs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "subprocess", SimpleNamespace(run=forked, DEVNULL=None, PIPE=None))
    words = ["bench", "--model", str(tiny_model), "--batch-size", "4", "--negatives", "2", "--captions",
             str(tiny_pairs["captions"]), "--negatives-file", str(tiny_pairs["negatives"]), "--steps", "1", "--rounds",
             "1", "--threads", "1", "--device", "cpu", "--json"]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr()
    assert [line.partition(":")[0] for line in printed.err.splitlines() if line.startswith("round")] == [
        "round 1 of 1, baseline in fp32", "round 1 of 1, baseline in fp32",
        "round 1 of 1, present in fp32", "round 1 of 1, present in fp32",
    ]  # fmt: skip
    result = json.loads(printed.out)
    assert result["loss_gap"] < 1e-5 and result["gradient_gap"] < 1e-4
    assert set(result["stages"]) == set(STAGES) and result["baseline_operations"] > result["operations"] > 0
    assert result["memory"] > 10**8 and result["ratio"] > 0
    for flag in ("--batch-size", "--threads"):
        assert main(["bench", flag, "0"]) == 2
        assert f"{flag} is 0" in capsys.readouterr().err
