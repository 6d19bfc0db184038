"""`degla bench --everything`: a failure is a row, ratios are per round, and every part measures something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.errors import DeglaError
from degla.speed import everything
from degla.speed.apart import reason_of
from degla.speed.everything import Bench, BenchRow, WaysCompared, bench_page, measure_ways, plan, ratio
from degla.speed.measure import Measured, MeasureSettings, PartMeasured, PartSettings, measure, measure_part
from degla.speed.stages import STAGES
from degla.speed.whole_steps import host_waits
from degla.speed.workload import Workload, draw_workload

_COMPILER = """Traceback (most recent call last):
  File "step.py", line 1, in <module>
torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in g++

Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace.
"""


def test_the_reason_of_a_failure() -> None:
    why = "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in g++"
    assert reason_of(_COMPILER, status=1) == why
    assert reason_of("Traceback:\n  x\ndegla.errors.InputError: m: is no model.\n", status=1) == "m: is no model"
    assert reason_of("torch.OutOfMemoryError: CUDA out of memory. Try less.", status=1).endswith("memory. Try less")
    assert "it ran out of memory" in reason_of("Traceback", status=-9)
    assert reason_of("", status=1) == "no message"


def test_ways_take_turns_and_one_that_fails_is_a_row() -> None:
    rates: Iterator[float] = iter([10.0, 40.0, 20.0, 40.0])
    order, messages = [], []

    def way(name: str) -> Any:
        def measured() -> PartMeasured:
            order.append(name)
            if name == "broken":
                raise DeglaError("no compiler.")
            return PartMeasured(per_second=next(rates), memory=2**30 * len(order), in_main_memory=name == "fast")

        return measured

    compared = WaysCompared("step", "pairs", {name: way(name) for name in ("slow", "broken", "fast")})
    slow, broken, fast = measure_ways(compared, rounds=2, tell=messages.append)
    assert order == ["slow", "broken", "fast", "slow", "fast"]
    assert (slow.per_second, fast.per_second, fast.memory) == ((10.0, 20.0), (40.0, 40.0), 5 * 2**30)
    assert (broken.failed, broken.per_second) == ("no compiler.", ())
    assert messages[1] == "step, broken, round 1 of 2: no compiler." and len(messages) == 5

    facts = {"device": "Card", "memory": 80 * 2**30, "processor": "Chip", "cores": 16, "threads": 8, "torch": "2.0",
             "cuda": "12.8", "open_clip": "3", "degla": "0", "float32_products": "highest", "linear_layers": "own",
             "lacks": [], "parameters": 151_300_000, "load": 0.5}  # fmt: skip
    bench = Bench(Workload(batch_size=20, device="cuda"), "bf16")
    other = BenchRow(what="loader", way="plain", unit="pairs", failed="no files.")
    last = BenchRow(what="loader", way="degla", unit="pairs", per_second=(1234.6,), memory=2**29)
    lines = bench_page(bench, facts, [slow, broken, fast, other, last]).markdown().splitlines()
    assert "* Machine: Card, 80.0 GiB of memory; 16 CPU cores (Chip); load average 0.5 at the start" in lines
    assert [line for line in lines if line.startswith("|")][2:] == [
        "| step | slow | 15.0 pairs | 1333 ms | 1.00 | 4.00 GiB |",
        "| step | broken | failed; no compiler. |  |  |  |",
        "| step | fast | 40.0 pairs | 500 ms | 3.00 | 5.00 GiB of main memory |",  # Median of 4 and 2.
        "| loader | plain | failed; no files. |  |  |  |",
        "| loader | degla | 1235 pairs |  |  | 0.50 GiB |",
    ]


def test_the_speed_up_is_the_median_of_the_rounds() -> None:
    first, row = (
        BenchRow(what="step", way="", unit="pairs", per_second=rates) for rates in ((1.0, 2.0, 4.0), (3.0, 8.0, 400.0))
    )
    assert ratio(row, first) == 4.0


def test_what_is_measured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, Any, Any]] = []

    def side(workload: Workload, *, side: str, precision: str, steps: int) -> Measured:
        calls.append((side, precision, workload.compile, None))
        return Measured(loss=1.0, seconds={name: [0.5] for name in STAGES}, memory=1, operations=8, peak=100.0,
                        device="Card", kernels={"aten.mm": 3, "aten.bmm": 1})  # fmt: skip

    def apart(_: Any, settings: PartSettings, *, device: str, environment: Any, **__: Any) -> PartMeasured:
        assert device == settings.workload.device == "cuda"
        calls.append((settings.part, settings.precision, settings.workload.chunk_size or settings.workers, environment))
        return PartMeasured(per_second=1.0)

    monkeypatch.setattr(everything, "run_side", side)
    monkeypatch.setattr(everything, "run_apart", apart)
    monkeypatch.setattr(everything, "choose_workers", lambda workers, *, on_gpu: 7 if on_gpu else 0)
    table = [row for each in plan(Bench(Workload(batch_size=256, device="cuda"), "bf16"))
             for row in measure_ways(each, rounds=1)]  # fmt: skip
    variables = {"DEGLA_KEEP_FREED_MEMORY": "0"}
    assert calls == [
        ("baseline", "fp32", False, None), ("baseline", "bf16", False, None), ("present", "bf16", False, None),
        ("present", "bf16", True, None), ("open_clip", "bf16", 0, variables), ("clip", "bf16", 0, None),
        ("step", "bf16", 0, None), ("step", "bf16", 32, None), ("plain loader", "bf16", 7, None),
        ("loader", "bf16", 0, None), ("loader", "bf16", 7, None), ("plain images", "bf16", 7, variables),
        ("images", "fp32", 0, None), ("images", "bf16", 0, None), ("plain texts", "bf16", 0, variables),
        ("texts", "fp32", 0, None), ("texts", "bf16", 0, None),
    ]  # fmt: skip
    assert table[0].per_second == (pytest.approx(256 / 4.5),)
    assert table[0].facts["kernels"] == ["aten.mm 75%", "aten.bmm 25%"]
    assert table[0].facts["share_of_peak"] == pytest.approx(8 / 4.5 / 100)


def test_the_command(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def side(workload: Workload, *, side: Any, precision: Any, steps: int) -> Measured:
        if workload.compile:
            raise DeglaError("there is no compiler.")
        return measure(MeasureSettings(side=side, precision=precision, workload=workload, steps=1, gradients=None))

    def apart(_: Any, settings: PartSettings, **__: Any) -> PartMeasured:
        return measure_part(settings.model_copy(update={"seconds": 0.0}))

    monkeypatch.setattr(everything, "run_side", side)
    monkeypatch.setattr(everything, "run_apart", apart)
    monkeypatch.setattr("degla.speed.measure.matmul_peak", lambda device, *, bf16: 1e9)
    out = tmp_path / "here" / "table.md"
    words = ["bench", "--everything", "--quick", "--model", str(tiny_model), "--batch-size", "4", "--negatives", "2",
             "--captions", str(tiny_pairs["captions"]), "--negatives-file", str(tiny_pairs["negatives"]), "--images",
             str(tiny_pairs["images"]), "--device", "cpu", "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    result = json.loads(out.with_suffix(".json").read_text())
    rows = {(row["what"], row["way"]): row for row in result["rows"]}
    failed = rows.pop(("step", "degla, fp32, --train.compile"))
    assert failed["failed"] == "there is no compiler." and "failed; there is no compiler." in out.read_text()
    assert len(rows) == 12 + (everything.choose_workers("auto", on_gpu=False) > 0)
    for row in rows.values():
        assert not row["failed"] and row["per_second"][0] > 0 and row["memory"] > 10**7, row
    for what in ("step", "step of clip"):
        losses = [row["facts"]["loss"] for (about, _), row in rows.items() if about == what]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), what
    assert result["machine"]["cores"] > 0 and result["workload"]["batch_size"] == 4
    assert "Kernels of a step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quick"], "--quick requires --everything"),
        (["--negatives-file", "n.jsonl"], "--negatives-file and --images require --captions"),
        (["--everything", "--images", "pictures"], "--negatives-file and --images require --captions"),
        (["--everything", "--compile"], "Omit --compile"),
        (["--everything", "--out", "a.json"], "name the Markdown file"),
        (["--everything", "--out", "."], "it is a folder"),
    ],
)
def test_flags_that_do_not_go_together(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_made_photographs(tmp_path: Path) -> None:
    workload = draw_workload(Workload(batch_size=1, negatives=1), tmp_path, photographs=True)
    assert workload.images is not None and workload.captions is not None
    files = sorted(workload.images.iterdir())
    assert len({file.read_bytes() for file in files}) == 4
    for file in files:
        with Image.open(file) as opened:
            assert (opened.format, opened.size, opened.mode) == ("JPEG", (640, 480), "RGB")
        assert 120_000 < file.stat().st_size < 200_000


def test_a_processor_waits_for_no_gpu() -> None:
    assert host_waits(lambda: None, torch.device("cpu")) is None
