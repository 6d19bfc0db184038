"""`degla doctor`: findings for good files, bad files and a batch that does not fit into memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from degla.cli import main
from degla.config.fields import to_plain
from degla.config.run import recipe_config
from degla.doctor import Finding
from degla.doctor.examine import _checkpoints, _device, _disk, _files, _part_size, _require_compiler, _run, _time
from degla.doctor.examine import examine as look
from degla.doctor.step import available_memory, estimate_memory, examine_speed
from degla.errors import InputError
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.training.pairs import open_pairs
from degla.training.step import Trainer
from tests.launch import run_together
from tests.tiny import write_nan_model
from tests.training.configs import needs_slices, tiny_config
from tests.training.gradient_worker import first_step

Pairs = dict[str, Path]


def _findings(config: Any) -> dict[str, Finding]:
    return {finding.about: finding for finding in look(config, seconds=0.02)}


def test_a_good_configuration(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="degla")
    report = _findings(tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run"))
    assert list(report) == ["files", "model", "device", "texts", "run", "disk", "memory", "speed", "time"]
    assert report["files"].values == {"rows": 24, "images": 12, "decoded": 12, "negatives": 48}
    assert report["speed"].values["step_pairs_per_second"] > 0 and report["speed"].values["data_pairs_per_second"] > 0  # type: ignore[operator]
    assert not (tmp_path / "run").exists(), "looking at a run began it"
    assert caplog.text.count("24 pairs of 12 images") == 1


def test_texts_that_are_cut_are_counted(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    assert _findings(config)["texts"].state == "ok"
    captions = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    full = " ".join(["red"] * 22)  # the 24 tokens of the model with start and end
    captions[0]["text"], captions[1]["text"], captions[2]["text"] = f"{full} a", f"{full} a b", f"{full}  "
    captions[3]["text"], captions[4]["text"] = "\u72d7" * 30, f"{full[:-4]} dog!!"  # no spaces; cut in its last word
    files = {name: tmp_path / f"{name}.jsonl" for name in ("captions", "negatives")}
    files["captions"].write_text("".join(json.dumps(row) + "\n" for row in captions))
    negative = json.loads(tiny_pairs["negatives"].read_text().splitlines()[0])
    texts = [(0, f"{full} b"), (0, "a dog"), (1, f"{full} a c"), (2, full[4:])]
    negatives = [negative | {"caption_id": captions[row]["id"], "text": text} for row, text in texts]
    files["negatives"].write_text("".join(json.dumps(row) + "\n" for row in negatives))
    finding = _findings(tiny_config("degla", model=tiny_model, pairs=tiny_pairs | files, out=tmp_path / "run"))["texts"]
    assert finding.state == "warning"
    assert finding.values == {"texts": 28, "cut": 6, "negatives_as_caption": 2}, finding.text


def test_a_loss_that_is_not_finite_ends_it(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    broken = write_nan_model(tmp_path / "broken", tiny_model)
    report = _findings(tiny_config("clip", model=broken, pairs=tiny_pairs, out=tmp_path / "run"))
    assert report["loss"].state == "error" and report["loss"].text.startswith("the loss of the first step is nan. ")
    assert "speed" not in report


def test_a_replay_is_looked_at_and_takes_part_in_the_steps(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("gift", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    config = replace(config, replay=replace(config.replay, batch_size=20))
    results: list[dict[str, Any]] = []
    original = Trainer.step

    def step(self: Trainer, *arguments: Any, **options: Any) -> Any:
        results.append(original(self, *arguments, **options))
        return results[-1]

    monkeypatch.setattr(Trainer, "step", step)
    report = _findings(config)
    assert list(report) == ["files", "replay", "model", "device", "texts", "run", "disk", "memory", "speed", "time"]
    assert report["replay"].state == "ok" and report["replay"].values["rows"] == 24
    assert report["speed"].values["replay_batch_size"] == 16 and "16 replayed pairs" in report["speed"].text
    assert len(results) >= 2
    assert all(values.keys() >= {"replay.logit_distillation", "replay.soft_alignment", "l2_sp"} for values in results)
    assert float(results[-1]["l2_sp"]) > 0, "the penalty holds the weights of before the first step"

    # Twenty replayed pairs are held at a time, four of the first stream; or the other way round.
    assert report["memory"].values["pairs_held"] == 20
    second = replace(config.replay, batch_size=4, data=replace(config.replay.data, workers=1))
    turned = replace(config, train=replace(config.train, batch_size=20), replay=second)
    calls: list[tuple[int, int]] = []
    values = report["speed"].values

    def speed(trainer: Trainer, pairs: Any, replay: Any, *, workers: int, seconds: float, auto: bool) -> Finding:
        calls.append((workers, replay.workers))
        return Finding("speed", "ok", "", values)

    with monkeypatch.context() as patch:
        patch.setattr("degla.doctor.examine.examine_speed", speed)
        turned = replace(turned, data=replace(turned.data, workers=2))
        assert _findings(turned)["memory"].values["pairs_held"] == 20
    assert calls == [(2, 1)], "each stream is measured with the workers that it will have"
    few = replace(config, replay=replace(config.replay, batch_size=99))
    text = _findings(few)["replay"].text
    assert "24 pairs do not fill one batch of 99" in text and "a smaller --replay.batch-size" in text
    gone = replace(config.replay.data, captions=tmp_path / "none.jsonl")
    report = _findings(replace(config, replay=replace(config.replay, data=gone)))
    assert report["configuration"].state == "error" and "none.jsonl" in report["configuration"].text


def test_bad_files_end_it(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    empty = tmp_path / "images"
    empty.mkdir()
    report = _findings(replace(config, data=replace(config.data, images=empty)))
    assert report["files"].state == "error" and "12 of 12 images" in report["files"].text
    assert report["files"].text.endswith("\nTo train without them, add --data.bad-images skip.")
    assert list(report) == ["files"], "once"
    for images, wrong in ((tmp_path / "none", "no such image folder"), (Path(__file__), "is not a folder of images")):
        report = _findings(replace(config, data=replace(config.data, images=images)))
        assert report["configuration"].text == f"{images}: {wrong} (--data.images)."
    report = _findings(replace(config, data=replace(config.data, captions=None)))
    assert report["configuration"].state == "error" and "--data.captions" in report["configuration"].text
    report = _findings(replace(config, train=replace(config.train, batch_size=64)))
    assert report["files"].state == "error" and "do not fill one batch of 64" in report["files"].text


def test_the_speed_says_what_auto_became(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.data.loader.usable_cores", lambda: 2)
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    assert "with --data.workers 0, waits" in _findings(config)["speed"].text
    auto = replace(config, data=replace(config.data, workers="auto"))
    assert "with --data.workers auto, here 0, waits" in _findings(auto)["speed"].text


def test_the_rows_that_remain_fill_the_configured_batch(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    images = shutil.copytree(tiny_pairs["images"], tmp_path / "images")
    for file in sorted(images.iterdir())[:5]:
        file.write_bytes(file.read_bytes()[:-100])
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    few = replace(config.data, images=images, bad_images="skip")
    for size in (15, 20):  # 16 pairs are measured at most.
        report = _findings(replace(config, data=few, train=replace(config.train, batch_size=size)))
        assert report["files"].state == "warning" and "or skip its rows" not in report["files"].text
        remedy = "Lower --train.batch-size to at most 14, or provide more pairs."
        assert report["configuration"].text == f"14 pairs do not fill one batch of {size}. {remedy}"


def test_a_batch_that_does_not_fit_gets_a_chunk_size(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", batch_size=24)
    values = _findings(config)["memory"].values
    fixed, pair = int(values["fixed_bytes"]), int(values["bytes_per_pair"])
    monkeypatch.setattr("degla.doctor.examine.available_memory", lambda device, held: int((fixed + 5.5 * pair) / 0.9))
    finding = _findings(config)["memory"]
    assert finding.state == "error" and "--train.chunk-size 5," in finding.text
    assert _findings(replace(config, train=replace(config.train, chunk_size=5)))["memory"].state == "ok"

    def enough_for_weights(device: torch.device, *, held: int) -> int:
        assert 5 * held == 2 * fixed, "student and teacher, and the gradient and moments of one"
        return fixed

    monkeypatch.setattr("degla.doctor.examine.available_memory", enough_for_weights)
    finding = _findings(config)["memory"]
    assert finding.state == "error" and "Train adapters (--adapter.rank 16) or freeze a tower." in finding.text


def test_memory_of_a_pair_grows_with_its_negatives(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    estimates = []
    for negatives in (1, 3):
        config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path, batch_size=8)
        config = replace(config, data=replace(config.data, negatives_per_caption=negatives))
        _, _, trainer = first_step(config)
        pairs = open_pairs(config, encoder=trainer.encoder, processes=trainer.processes)
        batch = next(pairs.batches(0, start=0, device=torch.device("cpu")))
        estimates.append(estimate_memory(trainer, trainer.main, batch))
    size = sum(value.numel() for value in trainer.encoder.parameters())
    assert estimates[0][0] == estimates[1][0] == 4 * 5 * size, "weights, gradient, two moments, teacher"
    assert estimates[1][1] > 1.1 * estimates[0][1] > 10_000


def test_copies_of_the_weights_in_half_precision_belong_to_no_pair(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    estimates = []
    for precision in ("fp32", "bf16"):
        config = tiny_config(
            "clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, batch_size=8, precision=precision
        )
        _, _, trainer = first_step(config)
        pairs = open_pairs(config, encoder=trainer.encoder, processes=trainer.processes)
        batch = next(pairs.batches(0, start=0, device=torch.device("cpu")))
        estimates.append(estimate_memory(trainer, trainer.main, batch))
    count = sum(value.numel() for value in trainer.encoder.parameters())
    assert [fixed for fixed, _ in estimates] == [4 * 4 * count, (4 * 4 + 2) * count]
    assert estimates[1][1] < 0.95 * estimates[0][1], "activations are smaller"


def test_memory_of_a_batch_of_one_is_that_of_its_pair(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    estimates = []
    for size in (1, 8):
        config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path, batch_size=size)
        _, _, trainer = first_step(config)
        pairs = open_pairs(config, encoder=trainer.encoder, processes=trainer.processes)
        batch = next(pairs.batches(0, start=0, device=torch.device("cpu")))
        estimates.append(estimate_memory(trainer, trainer.main, batch)[1])
    assert 10_000 < estimates[0] < 3 * estimates[1], "its weights are of no pair"


def test_texts_of_classes_are_counted_once_and_not_for_each_pair(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    estimates, names = [], tiny_pairs["classes"].read_text()
    for more in ("", "".join(f"thing {number}\n" for number in range(100))):
        classes = tmp_path / "classes.txt"
        classes.write_text(names + more)
        config = tiny_config("gift", model=tiny_model, pairs=tiny_pairs | {"classes": classes}, out=tmp_path)
        _, _, trainer = first_step(config)
        pairs = open_pairs(config, encoder=trainer.encoder, processes=trainer.processes)
        batch = next(pairs.batches(0, start=0, device=torch.device("cpu")))
        estimates.append(estimate_memory(trainer, trainer.main, batch))
    assert estimates[0][1] == estimates[1][1]
    assert estimates[1][0] > estimates[0][0] + 100 * 10_000


def test_copies_of_the_weights_are_counted(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    plain = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    averaging = replace(plain, train=replace(plain.train, average=0.5))
    anchored = replace(plain, l2_sp=replace(plain.l2_sp, weight=1.0, importance="equal"))
    findings = [_findings(config) for config in (plain, averaging, anchored)]
    fixed, disk = ([int(each[about].values[name]) for each in findings]
                   for about, name in (("memory", "fixed_bytes"), ("disk", "checkpoint_bytes")))  # fmt: skip
    count = int(findings[0]["model"].values["parameters"])
    assert fixed == [4 * 4 * count, 4 * 5 * count, 4 * 5 * count]
    assert disk == [4 * 3 * count, 4 * 4 * count, 4 * 3 * count]


def test_what_is_counted_without_a_step(tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("gift", model=tmp_path, pairs=tiny_pairs, out=tmp_path / "run", batch_size=24)
    config = replace(config, replay=replace(config.replay, batch_size=20))
    measured = {"batch_size": 16, "replay_batch_size": 16, "step_pairs_per_second": 8.0, "waiting_share": 0.2}
    seconds = _time(config, Finding("speed", "ok", "", measured), steps=10).values["seconds"]
    assert seconds == pytest.approx(10 * (16 / 8 / 0.8) * (24 + 20) / 32)
    # Without benchmarks nothing is scored, and no checkpoint is written for it.
    often = replace(config, validation=replace(config.validation, every_steps=1))
    assert _checkpoints(often, 10, 6) == _checkpoints(config, 10, 6) == 2
    monkeypatch.setattr("degla.doctor.examine.started_processes", lambda: 2)
    assert (
        _part_size(config, 24) == 12 and _part_size(replace(config, train=replace(config.train, chunk_size=5)), 24) == 5
    )
    few = replace(config, data=replace(config.data, negatives_per_caption=3))
    finding = _files(few.pairs, about="files")
    assert finding.state == "warning" and "16 have fewer than 3 negatives; missing slots stay empty" in finding.text


def test_a_disk_that_checkpoints_do_not_fit_on(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=36)
    config = replace(config, checkpoint=replace(config.checkpoint, keep=4))
    size = int(_findings(config)["disk"].values["checkpoint_bytes"])
    for checkpoints, state in ((1.5, "error"), (2.5, "warning"), (50, "ok")):
        free = SimpleNamespace(free=int(checkpoints * size))
        monkeypatch.setattr("degla.doctor.examine.shutil.disk_usage", lambda place, free=free: free)
        finding = _findings(config)["disk"]
        assert finding.state == state
        assert ("Free some" in finding.text) == (state != "ok")
    places: list[Path] = []
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "run"))
    monkeypatch.setattr("degla.doctor.examine.shutil.disk_usage", lambda place: places.append(place) or free)
    for out in (tmp_path / "run" / "new", Path("s3://bucket/run")):  # The latter is first written in the cache.
        (tmp_path / "run").mkdir(exist_ok=True)
        _disk(replace(config, out=out), load_encoder(str(tiny_model)), teacher=False, written=1)
    assert places == [tmp_path / "run"] * 2


def test_a_batch_that_does_not_divide_among_the_processes_is_an_error(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torchrun ... degla train ... --dry-run` found nothing wrong."""
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", batch_size=8)
    monkeypatch.setattr("degla.doctor.examine.started_processes", lambda: 3)
    findings = _findings(config)
    assert list(findings) == ["configuration"] and findings["configuration"].state == "error"
    assert findings["configuration"].text == "--train.batch-size 8 is not divisible by 3 processes."


_OTHER_CLOCK = """
import json, os, sys, time
from types import SimpleNamespace
from degla.config.fields import from_plain
from degla.doctor import step
from degla.doctor.examine import examine
fast = 1 + 99 * int(os.environ["RANK"])
step.time = SimpleNamespace(perf_counter=lambda: fast * time.perf_counter())
findings = list(examine(from_plain(json.loads(sys.argv[1]), where="test"), seconds=1.0))
assert findings[-1].about == "time", findings[-1]
"""


def test_processes_measure_as_many_steps_whatever_their_clocks(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """Each waits for the gradients of all: one that took a step more than the others waited for ever."""
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", batch_size=8)
    run_together(["-c", _OTHER_CLOCK, json.dumps(to_plain(config))], count=2)


@dataclass(frozen=True)
class _SlowPairs:
    """Batches that take `seconds` to load on the test's own clock, divided among workers."""

    clock: list[float]
    seconds: float
    workers: int = 0

    def endless(self, *, start: int, device: torch.device, turn: int | None = None) -> Iterator[int | None]:
        for number in count(start):
            mine = turn in (None, number % 2)
            self.clock[0] += mine * self.seconds / max(self.workers, 1)
            yield number if mine else None


@pytest.mark.parametrize(
    ("device", "data", "workers", "cores", "share", "state", "message"),
    [
        ("cpu", 0.03, 0, 2, 0.03 / 1.03, "ok", "waits 2.9% of the time for data. The step is the bottleneck."),
        ("cpu", 0.25, 0, 4, 0.2, "warning", "Use --data.workers 1 to decode in parallel, and degla pack to"),
        ("cpu", 0.25, 0, 2, 0.2, "warning", "waits 20.0% of the time for data. Use degla pack to"),
        ("cpu", 0.5, 2, 2, 0.2, "warning", "with --data.workers 2, waits 20.0% of the time for data. Use degla pack"),
        ("cuda", 3.0, 0, 8, 0.75, "warning", "Use --data.workers 4 to avoid this."),
        ("cuda", 3.0, 1, 2, 0.75, "warning", "Data loading is the bottleneck. Use --data.workers 2 and degla pack."),
    ],
)
def test_how_long_a_step_waits_for_data(
    device: str, data: float, workers: int, cores: int, share: float, state: str, message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    clock = [0.0]

    def step(batch: int, *, step: int, replayed: None) -> dict[str, float]:
        clock[0] += 1.0
        return {"loss": 0.0}

    trainer: Any = SimpleNamespace(
        encoder=SimpleNamespace(device=torch.device(device)),
        step=step,
        config=SimpleNamespace(train=SimpleNamespace(batch_size=8)),
    )
    monkeypatch.setattr("degla.doctor.step.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    for module in ("degla.doctor.step", "degla.data.loader"):
        monkeypatch.setattr(f"{module}.usable_cores", lambda: cores)
    pairs: Any = _SlowPairs(clock, data)
    finding = examine_speed(trainer, pairs, workers=workers, seconds=10.0)
    assert (finding.state, finding.values["waiting_share"]) == (state, pytest.approx(share)) and message in finding.text
    assert finding.values["step_pairs_per_second"] == pytest.approx(8.0)
    assert finding.values["data_pairs_per_second"] == pytest.approx(8 / data)


@dataclass(frozen=True)
class _PrefetchedPairs(_SlowPairs):
    """Two batches of each worker are loaded before the first is asked for."""

    def endless(self, *, start: int, device: torch.device, turn: int | None = None) -> Iterator[int | None]:
        for number in count(start):
            self.clock[0] += self.seconds * (number >= 2 * self.workers)
            yield number


def test_batches_that_workers_prefetched_do_not_hide_that_they_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def step(batch: int, *, step: int, replayed: None) -> dict[str, float]:
        clock[0] += 1.0
        return {"loss": 0.0}

    trainer: Any = SimpleNamespace(
        encoder=SimpleNamespace(device=torch.device("cpu")), step=step,
        config=SimpleNamespace(train=SimpleNamespace(batch_size=8)),
    )  # fmt: skip
    monkeypatch.setattr("degla.doctor.step.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    pairs: Any = _PrefetchedPairs(clock, 1.0)
    finding = examine_speed(trainer, pairs, workers=2, seconds=2.0)
    assert finding.state == "warning" and float(finding.values["waiting_share"]) > 0.2


def test_steps_on_replayed_pairs_alone_count_as_often_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def step(batch: int | None, *, step: int, replayed: int | None) -> dict[str, float]:
        assert (batch is None, replayed is None) == (bool(step % 2), not step % 2)
        clock[0] += 3.0 if step % 2 else 1.0
        return {"loss": 0.0}

    trainer: Any = SimpleNamespace(
        encoder=SimpleNamespace(device=torch.device("cpu")), step=step,
        config=SimpleNamespace(train=SimpleNamespace(batch_size=8), replay=SimpleNamespace(alternate=True),
                               replayed=SimpleNamespace(batch_size=6)),
    )  # fmt: skip
    monkeypatch.setattr("degla.doctor.step.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    pairs: Any = _SlowPairs(clock, 0.001)
    finding = examine_speed(trainer, pairs, pairs, workers=0, seconds=2.0)
    assert finding.values["step_pairs_per_second"] == pytest.approx(8 / 2), "one step of each kind"
    assert finding.values["waiting_share"] == pytest.approx(0.001 / 2.001), "each with one batch"
    assert "(batches of 8, alternating with 6 replayed pairs)" in finding.text


def test_no_more_memory_is_free_than_a_container_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3000 bytes are in memory, 2000 of them weights, which the estimate counts as needed.
    monkeypatch.setattr("psutil.Process.memory_info", lambda process: SimpleNamespace(rss=3000))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=5000))
    for most, expected in ((4096, 3096), (9000, 7000), (0, 7000)):
        monkeypatch.setattr("degla.doctor.step.main_memory", lambda most=most: most)
        assert available_memory(torch.device("cpu"), held=2000) == expected


def test_what_a_process_holds_of_a_gpu_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1000, 4096))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 200)
    assert available_memory(torch.device("cuda"), held=150) == 1200


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    finding = _device(torch.device("cpu"), "no")
    assert finding.values["cores"] == 3 and finding.text.startswith("3 CPU cores, ")


def test_the_command(tiny_model: Path, tiny_pairs: Pairs, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "negclip", "--model", str(tiny_model), "--data.images", str(tiny_pairs["images"]), "--json"]
    assert main([*words, "--data.captions", "none.jsonl"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding["state"] == "error" and "none" in finding["text"]
    assert main(["doctor", "negclpi"]) == 2
    assert "Did you mean 'negclip'" in capsys.readouterr().err
    assert main(["doctor"]) == 2


@pytest.mark.parametrize(
    ("every", "steps", "evaluations"), [(0, 8, 2), (0, 5, 1), (0, 12, 2), (4, 10, 2), (10, 10, 1), (20, 10, 0)]
)
def test_evaluations_are_counted_as_training_has_them(
    every: int, steps: int, evaluations: int, tiny_model: Path, tmp_path: Path
) -> None:
    """Without a number of steps, the end of the run is evaluated too, wherever in its epoch it is."""
    config = recipe_config("clip")
    config = replace(config, optim=replace(config.optim, lr=1e-3))
    watched = replace(config.validation, benchmarks=("zeroshot",), root=tmp_path, every_steps=every)
    trainer: Any = SimpleNamespace(encoder=load_encoder(str(tiny_model)), teacher=None)
    finding = _run(replace(config, validation=watched), trainer, steps=steps, per_epoch=6)
    assert finding.values["evaluations"] == evaluations
    assert ("Only the starting model is evaluated: reduce --validation.every-steps" in finding.text) == (every > steps)
    assert finding.state == ("warning" if every > steps or steps < config.optim.warmup_steps else "ok")
    unwatched = replace(config, validation=replace(watched, benchmarks=()))
    assert "starting model" not in _run(unwatched, trainer, steps=steps, per_epoch=6).text


def test_few_steps_at_the_rate_of_the_recipe_are_remarked(tiny_model: Path) -> None:
    """20,000 pairs are 390 steps of 256; the paper's run has about 8,000 at the same rate."""
    trainer: Any = SimpleNamespace(encoder=load_encoder(str(tiny_model)), teacher=None)

    def remark(recipe: str, steps: int, **optim: float) -> str:
        config = recipe_config(recipe)
        config = replace(config, optim=replace(config.optim, **optim))
        finding = _run(config, trainer, steps=steps, per_epoch=steps)
        assert (finding.state == "warning") == ("Its learning rate" in finding.text)
        return finding.text.partition(" Its learning rate ")[2]

    assert remark("degla", 390) == (
        "is that of degla, 1e-06, which is for thousands of steps: compare --optim.lr 3e-06 and 1e-05."
    )
    assert "--optim.lr 6e-06 and 2e-05" in remark("degla_plus", 390)
    assert not remark("degla", 8000) and not remark("degla", 390, lr=3e-6)
    assert not remark("smoke", 4) and not remark("labclip", 60)


def test_what_the_whole_run_is(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=None, epochs=3)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=4, keep=2), train=replace(
        config.train, train_image_tower=False))  # fmt: skip
    report = _findings(config)
    run, disk, speed = report["run"].values, report["disk"].values, report["speed"].values
    # 24 pairs in batches of 4; checkpoints after steps 4, 6, 8, 12, 16 and 18.
    assert (run["steps"], run["steps_per_epoch"], run["evaluations"], disk["checkpoints"]) == (18, 6, 0, 6)
    assert 0 < int(run["trained_parameters"]) < int(report["model"].values["parameters"])
    assert "18 steps of 4 pairs, 3 epochs of 6 steps; " in report["run"].text and "EMA teacher" in report["run"].text
    assert disk["needed_bytes"] == 3 * int(disk["checkpoint_bytes"])
    encoder, watched = load_encoder(str(tiny_model)), replace(config.validation, benchmarks=("zeroshot",))
    assert "; up to 3 exist at a time" in _disk(config, encoder, teacher=True, written=6).text
    # The best one is also kept.
    best = _disk(replace(config, validation=watched), encoder, teacher=True, written=6)
    assert "; up to 4 exist at a time" in best.text
    # Student and teacher, and two moments of what is trained.
    count = int(report["model"].values["parameters"])
    assert disk["checkpoint_bytes"] == 4 * (2 * count + 2 * int(run["trained_parameters"]))
    step = 4 / float(speed["step_pairs_per_second"]) / (1 - float(speed["waiting_share"]))
    assert report["time"].values["seconds"] == pytest.approx(18 * step)
    slow = replace(config.optim, lr=1e-3, warmup_steps=40)
    larger = _findings(replace(config, train=replace(config.train, batch_size=24, steps=10), optim=slow))
    assert report["run"].state == "ok" and larger["run"].state == "warning"
    seven = _findings(replace(config, train=replace(config.train, batch_size=7)))["run"]
    assert seven.state == "warning" and " 3 of 24 pairs do not fill a batch of 7 and are left out, " in seven.text
    assert "a learning rate of 0.00025 instead of 0.001: reduce --optim.warmup-steps 40." in larger["run"].text
    once = _findings(
        replace(config, checkpoint=replace(config.checkpoint, every_steps=0), train=replace(config.train, steps=5))
    )["disk"].values
    assert (once["checkpoints"], once["needed_bytes"]) == (1, once["checkpoint_bytes"])
    rate = float(larger["speed"].values["step_pairs_per_second"]) * (1 - float(larger["speed"].values["waiting_share"]))
    assert larger["time"].values["seconds"] == pytest.approx(10 * 24 / rate)


def test_a_dry_run_does_not_compile(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", compile=True)
    monkeypatch.setattr(Encoder, "compile", lambda *_: pytest.fail("it compiles"))
    # Not by `monkeypatch`, which would leave torch without this setting. "true" answers like an installed compiler.
    with inductor.patch({"cpp.cxx": (None, "true")}):
        assert "Measured without compiling, which comes on top" in _findings(config)["time"].text
    plain = replace(config, train=replace(config.train, compile=False))
    assert "compil" not in _findings(plain)["time"].text
    with inductor.patch({"cpp.cxx": (None, str(tmp_path / "none"))}):
        refused = _findings(config)["configuration"]
    assert refused.state == "error" and "--train.compile needs a C++ compiler on a CPU" in refused.text
    with (
        inductor.patch({"cpp.cxx": (None, str(tmp_path))}),  # A folder, which cannot be run.
        pytest.raises(InputError, match=r"--train\.compile needs a C\+\+ compiler on a CPU"),
    ):
        _require_compiler()
    monkeypatch.delattr("torch._inductor.cpp_builder.get_cpp_compiler")
    _require_compiler()


@pytest.mark.parametrize(
    ("section", "fields", "refused"),
    [
        ("train", {"compile": True}, "--train.compile"),
        ("l2_sp", {"weight": 0.1}, "--l2-sp.weight"),
        ("adapter", {"text_map": True}, "--adapter.text-map"),
    ],
)
@needs_slices
def test_one_process_refuses_what_several_cannot_share_out(
    section: str, fields: dict[str, Any], refused: str, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", strategy="fsdp")
    assert "time" in _findings(config)
    report = _findings(replace(config, **{section: replace(getattr(config, section), **fields)}))
    assert f"--train.strategy fsdp cannot be combined with {refused}. " in report["configuration"].text


def test_a_dry_run_writes_nothing(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("degla.doctor.examine.examine", lambda config: look(config, seconds=0.02))
    out = tmp_path / "run"
    words = ["train", "negclip", "--model", str(tiny_model), "--train.batch-size", "4", "--train.steps", "7"]
    words += ["--data.negatives-per-caption", "2", *(f"--data.{name}={path}" for name, path in tiny_pairs.items())]
    assert main([*words, "--out", str(out), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "7 steps of 4 pairs" in output and "time" in output and not out.exists()
    assert main([*words, "--dry-run"]) == 2
    assert "give --out FOLDER" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*words, "--out", str(tmp_path / "file" / "run"), "--dry-run"]) == 2
    assert "is not a folder. Choose another --out." in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setenv("DEGLA_CACHE", str(tmp_path / "file"))
        assert main([*words, "--out", "memory://runs/one", "--dry-run"]) == 2
    assert "is not a folder. Set DEGLA_CACHE to another folder." in capsys.readouterr().err
    (out / "step-3").mkdir(parents=True)
    monkeypatch.setattr("degla.training.loop.checkpoints", lambda run: [run / "step-3"])
    assert main([*words, "--out", str(out), "--dry-run"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["train", "--resume", str(out), "--dry-run"]) == 2
