"""metrics.jsonl, the trackers, and what a resumed run does to the lines after its checkpoint."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from degla.config.sections import TrackingConfig
from degla.errors import DeglaError, InputError
from degla.shelf import LOSSES
from degla.training.loop import train
from degla.training.metrics import FiniteWatch, Metrics, NonFiniteLossError, lines_up_to
from tests.training.configs import tiny_config

Pairs = dict[str, Path]


def test_lines_come_every_few_steps_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("degla.training.metrics.time", SimpleNamespace(perf_counter=lambda: now[0]))
    reports: list[tuple[int, dict[str, float]]] = []

    def tracker(values: dict[str, float], *, step: int) -> None:
        reports.append((step, values))

    options = {"steps": 7, "every_steps": 3, "pairs_per_step": 4, "active": True, "tracker": tracker}
    with Metrics(tmp_path, start=0, **options) as metrics:  # type: ignore[arg-type]
        for step in range(1, 8):
            now[0] += 0.5 if step <= 3 else 2.0
            metrics.record(step, epoch=0, values={"loss": step / 10})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(3, 0.3), (6, 0.6), (7, 0.7)]
    # Rate of the steps since the previous line: three of 0.5 s, three of 2 s, and one.
    assert [(row["pairs_per_second"], row["epoch"]) for row in rows] == [(8.0, 0), (2.0, 0), (2.0, 0)]
    assert [step for step, _ in reports] == [3, 6, 7]

    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "lo')  # The process died here.
    with Metrics(tmp_path, start=3, **options) as metrics:  # type: ignore[arg-type]
        now[0] += 3.0
        metrics.record(6, epoch=0, values={"loss": 0.5})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(3, 0.3), (6, 0.5)]
    assert rows[1]["pairs_per_second"] == 4.0, "steps of the process before do not count"


def test_a_line_has_the_losses_of_streams_that_take_turns(tmp_path: Path) -> None:
    options = {"steps": 4, "every_steps": 2, "pairs_per_step": 4, "active": True, "tracker": lambda *_, **__: None}
    with Metrics(tmp_path, start=0, **options) as metrics:  # type: ignore[arg-type]
        for step in range(1, 5):
            metrics.record(step, epoch=0, values={"loss": step, "own" if step % 2 else "replay.own": 10 * step})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["loss"], row["own"], row["replay.own"]) for row in rows] == [(2, 10, 20), (4, 30, 40)]


def test_a_line_of_one_step_has_only_the_losses_of_that_step(tmp_path: Path) -> None:
    options = {"steps": 2, "every_steps": 1, "pairs_per_step": 4, "active": True, "tracker": lambda *_, **__: None}
    with Metrics(tmp_path, start=0, **options) as metrics:  # type: ignore[arg-type]
        for step in (1, 2):
            metrics.record(step, epoch=0, values={"loss": step, "own" if step == 1 else "replay.own": step})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [rows[0].get("replay.own"), rows[1].get("own")] == [None, None]


def test_no_own_loss_can_have_the_name_of_another_column(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=1)
    train(replace(config, l2_sp=replace(config.l2_sp, weight=1.0, importance="equal")))
    columns = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]).keys()
    assert "l2_sp" in columns and columns - LOSSES.reserved[0] == {"contrastive"}


def test_a_last_line_without_its_end_is_not_joined_to_the_next(tmp_path: Path) -> None:
    options = {"steps": 2, "every_steps": 1, "pairs_per_step": 4, "active": True, "tracker": lambda *_, **__: None}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}')  # The process died before the line's end.
    with Metrics(tmp_path, start=1, **options) as metrics:  # type: ignore[arg-type]
        metrics.record(2, epoch=0, values={"loss": 0.25})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.25)]


def test_a_damaged_line_is_reported_and_the_torn_last_one_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What metrics and validation read back from a run."""
    file = tmp_path / "validation.jsonl"
    file.write_text('{"step": 0}\n{"step": 1, "lo\n{"step": 2}\n{"step": 4}\n{"step": 3')
    assert [row["step"] for _, row in lines_up_to(file, 3)] == [0, 2]
    assert [record.getMessage() for record in caplog.records] == [f"{file} line 2: damaged, skipped"]


def test_a_long_file_is_not_read_into_memory(tmp_path: Path) -> None:
    line = '{"step": %d, "loss": 0.5, "note": "' + 1000 * "x" + '"}\n'
    (tmp_path / "metrics.jsonl").write_text("".join(line % step for step in range(1, 5001)))
    options = {"steps": 5000, "every_steps": 1, "pairs_per_step": 4, "active": True, "tracker": lambda *_, **__: None}
    tracemalloc.start()
    with Metrics(tmp_path, start=4990, **options):  # type: ignore[arg-type]
        most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 4990
    assert most < 1e6 < (tmp_path / "metrics.jsonl").stat().st_size / 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    options = {"steps": 2, "every_steps": 1, "pairs_per_step": 4, "active": True, "tracker": lambda *_, **__: None}
    message = rf"^{tmp_path}/metrics.jsonl: cannot be written: the disk is full. Free space"
    with pytest.raises(DeglaError, match=message), Metrics(tmp_path, start=0, **options) as metrics:  # type: ignore[arg-type]
        metrics.record(1, epoch=0, values={"loss": 0.5})


def test_losses_are_checked_without_a_line_for_a_long_time() -> None:
    """Their captions' ids would fill the memory."""
    watch = FiniteWatch()
    with pytest.raises(NonFiniteLossError) as caught:
        for step in range(1, 1001):
            watch.note(step, loss=torch.tensor(float("nan") if step == 7 else 1.0), ids=(f"caption {step}",))
    assert (caught.value.step, caught.value.ids) == (7, ("caption 7",))


def test_inactive_metrics_write_nothing(tmp_path: Path) -> None:
    options = {"steps": 2, "every_steps": 1, "pairs_per_step": 4, "tracker": None}
    with Metrics(tmp_path, start=0, active=False, **options) as metrics:  # type: ignore[arg-type]
        metrics.record(1, epoch=0, values={"loss": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_trackers_by_name(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    tracked = replace(config, tracking=TrackingConfig(every_steps=1, trackers=("tensorboard",)))
    train(tracked)
    files = list((tmp_path / "run").rglob("events.out.tfevents.*"))
    train(tracked, resume=True)
    assert files and list((tmp_path / "run").rglob("events.out.tfevents.*")) == files, "a finished run adds no file"
    with pytest.raises(InputError, match="nonsense"):
        train(replace(config, out=tmp_path / "b", tracking=TrackingConfig(trackers=("nonsense",))))


@pytest.mark.filterwarnings("error")  # accelerate's, before the message
def test_a_tracker_that_is_not_installed(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    with pytest.raises(InputError, match=r"wandb is not installed\. Install it: pip install wandb\.$"):
        train(replace(config, tracking=TrackingConfig(trackers=("wandb",))))
