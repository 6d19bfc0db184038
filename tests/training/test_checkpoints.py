"""What a kill, damage or a second process does to the checkpoints of a run: nothing is lost, all damage reported."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from degla.cli import main
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.files import sha256_of
from degla.locks import lock
from degla.model.integrity import (
    FOR_TRAINING,
    _own_digest,
    amend_state,
    digest_of_weights,
    drop_training_state,
    is_whole,
    read_state,
)
from degla.model.load import load_encoder
from degla.model.runs import CARD_NAME, checkpoints, point_to_best, settle
from degla.parse import NewerFormError
from degla.training.loop import train
from tests.training.configs import tiny_config

Pairs = dict[str, Path]


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tiny_pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of four steps with checkpoints at steps 2 and 4; tests work on copies."""
    out = tmp_path_factory.mktemp("finished") / "run"
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=out)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=2))
    train(config)
    return config


@pytest.fixture
def copied(finished: TrainConfig, tmp_path: Path) -> TrainConfig:
    assert finished.out is not None
    shutil.copytree(finished.out, tmp_path / "run", symlinks=True)
    return replace(finished, out=tmp_path / "run")


def _out(config: TrainConfig) -> Path:
    assert config.out is not None
    return config.out


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        (tmp_path / f"step-{step}").mkdir()
        for name in ("state.json", "open_clip_model.safetensors"):
            (tmp_path / f"step-{step}" / name).touch()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-9", "step-10", "step-100"]


def test_weights_are_known_by_names_forms_and_values_and_not_by_their_order() -> None:
    one, two = torch.arange(6.0).view(2, 3), torch.ones(2)
    digest = digest_of_weights({"one": one, "two": two})
    assert digest == digest_of_weights({"two": two, "one": one.clone()})
    others = ({"two": one, "one": two}, {"one": one.view(3, 2), "two": two}, {"one": one, "two": two.int()},
              {"one": one, "two": two + 1e-7}, {"one": one})  # fmt: skip
    assert len({digest, *map(digest_of_weights, others)}) == 6


def test_a_checkpoint_is_written_when_the_last_is_older_than_asked(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 40 seconds pass between two clock readings: at the start, after each step and after each checkpoint.
    clock = itertools.count(0.0, 40.0)
    monkeypatch.setattr("degla.training.runstate.time", SimpleNamespace(monotonic=lambda: next(clock)))
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=5)
    train(replace(config, checkpoint=replace(config.checkpoint, every_minutes=1.0)))
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-2", "step-4", "step-5"]


def test_a_resume_of_a_finished_run_leaves_its_checkpoints_alone(copied: TrainConfig) -> None:
    run = _out(copied)
    before = {path: path.stat() for path in run.glob("step-*/*")}
    names = _names(run)
    again = train(copied, resume=True)
    assert again.finished and again.folder == run / "step-4"
    after = {path: path.stat() for path in run.glob("step-*/*")}
    assert {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in before.items()} == {
        path: (stat.st_ino, stat.st_mtime_ns) for path, stat in after.items()
    }
    assert _names(run) == names, "nothing is left behind, not even the lock"


@pytest.mark.parametrize("ending", [".partial", ".old"])
def test_a_complete_checkpoint_that_is_not_in_its_place_is_taken(
    ending: str, copied: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run = _out(copied)
    digest = read_state(run / "step-4").sha256
    (run / "step-4").rename(run / f"step-4{ending}")
    shutil.rmtree(run / "step-2")
    with pytest.raises(InputError, match="already holds a run"):
        train(copied)
    assert read_state(run / "step-4").sha256 == digest
    assert any(
        f"step-4{ending} was complete when its process was killed; it was moved to" in line for line in caplog.messages
    )
    assert train(copied, resume=True).finished and is_whole(run / "step-4")


def test_evaluation_takes_it_too_unless_the_run_is_being_written(copied: TrainConfig) -> None:
    run = _out(copied)
    whole = load_encoder(str(run)).fingerprint
    (run / "step-4").rename(run / "step-4.partial")
    with lock(run):
        assert load_encoder(str(run)).fingerprint != whole, "step 2, while another process writes step 4"
        assert (run / "step-4.partial").is_dir()
    assert load_encoder(str(run)).fingerprint == whole and not (run / "step-4.partial").exists()


def test_what_a_kill_left_is_deleted_and_nothing_else(copied: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    run = _out(copied)
    names = _names(run)
    shutil.copytree(run / "step-4", run / "step-4.partial")  # Complete, but so is the one in place.
    shutil.copytree(run / "step-4", run / "step-6.partial")
    (run / "step-6.partial" / "state.json").unlink()
    shutil.copytree(run / "step-4", run / "step-8")
    (run / "step-8" / "state.json").unlink()
    shutil.copytree(run / "step-2", run / "step-1.deleted")
    (run / "best.partial").symlink_to("step-2")
    (run / "steps.partial").mkdir()
    with caplog.at_level(logging.INFO):
        assert train(copied, resume=True).finished
    assert _names(run) == sorted([*names, "steps.partial"])
    assert sum("deleting an incomplete checkpoint" in line for line in caplog.messages) == 1


def test_reading_a_run_that_is_half_copied_deletes_nothing(
    copied: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The copy may still be running, or be the only one of the newest checkpoint."""
    run = _out(copied)
    (run / "step-4" / "open_clip_model.safetensors").unlink()
    files = _names(run / "step-4")
    assert load_encoder(str(run)).fingerprint == load_encoder(str(run / "step-2")).fingerprint
    assert _names(run / "step-4") == files
    assert [line for line in caplog.messages if "step-4: is not a complete checkpoint and is ignored" in line]


def test_a_folder_of_the_user_is_not_deleted(copied: TrainConfig) -> None:
    run = _out(copied)
    shutil.copytree(run / "step-4", run / "step-8")
    (run / "step-8" / "state.json").unlink()
    (run / "step-8" / "notes.txt").write_text("of the user")
    with pytest.raises(InputError, match=r"step-8: not a complete checkpoint, but contains notes\.txt. Move it away"):
        train(copied, resume=True)
    load_encoder(str(run))
    assert _names(run / "step-8") == sorted([*(set(_names(run / "step-4")) - {"state.json"}), "notes.txt"])


def test_a_damaged_partial_checkpoint_is_not_taken(copied: TrainConfig) -> None:
    run = _out(copied)
    (run / "step-4").rename(run / "step-4.partial")
    _flip(run / "step-4.partial" / "optimizer.pt")
    settle(run)
    assert [path.name for path in checkpoints(run)] == ["step-2"] and not (run / "step-4.partial").exists()


def test_a_run_that_another_process_trains_is_refused(copied: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    run = _out(copied)
    with lock(run):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
        assert main(["train", "--resume", str(run)]) == 2
        with pytest.raises(InputError, match="in use by process"):
            train(copied)
        assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and f"in use by process {os.getpid()} on " in error and "since 2" in error


def test_any_changed_byte_of_a_checkpoint_is_noticed(copied: TrainConfig) -> None:
    run = _out(copied)
    names = _names(run / "step-4")
    assert {"open_clip_model.safetensors", "teacher.safetensors", "optimizer.pt", "config.json"} <= set(names)
    names.remove(CARD_NAME)  # Text that users may edit.
    for name in names:
        path = run / "step-4" / name
        content = path.read_bytes()
        _flip(path)
        assert not is_whole(run / "step-4"), name
        if name not in FOR_TRAINING:
            with pytest.raises(InputError, match=rf"step-4/{name}.*Use .*step-2, which is intact; to resume") as caught:
                load_encoder(str(run))
            assert len(str(caught.value).splitlines()) == 1
        else:
            load_encoder(str(run))  # Evaluation does not read it.
        path.write_bytes(content)
    assert is_whole(run / "step-4")


@pytest.mark.parametrize("name", ["optimizer.pt", "teacher.safetensors", "open_clip_model.safetensors"])
def test_a_resume_from_a_damaged_file_is_refused(name: str, copied: TrainConfig) -> None:
    run = _out(copied)
    _flip(run / "step-4" / name)
    with pytest.raises(InputError, match=rf"step-4/{name}: damaged.*Use .*step-2, which is intact"):
        train(copied, resume=True)
    _flip(run / "step-2" / "config.json")
    with pytest.raises(InputError, match="There is no intact checkpoint before it"):
        train(copied, resume=True)
    assert [path.name for path in checkpoints(run)] == ["step-2", "step-4"], "nothing is deleted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [state], "must be one JSON object, got a list of 1 entry"),
        (lambda state: state | {"step": "x"}, "field 'step': .*valid integer"),
        (lambda state: {name: value for name, value in state.items() if name != "step"}, "field 'step': .*required"),
        (lambda state: state | {"step": -5}, "field 'step': .*greater than or equal to 0"),
        (lambda state: state | {"best": "../../x"}, "field 'best': .*pattern"),
        (lambda state: state | {"sha256": {"../../x": ""}}, r"match pattern .*'\.\./\.\./x'"),
        (lambda state: state | {"sha256": {"..": ""}}, r"match pattern .*'\.\.'"),
        (lambda state: state | {"step": 3}, "its fields do not match the sha256"),
        (lambda state: state | {"step": 2, "sha256": {}}, "its fields do not match the sha256"),
        (
            lambda state: {name: value for name, value in state.items() if name != "sha256"},
            "field 'sha256': .*required",
        ),
    ],
)
def test_a_wrong_state_is_one_line(
    change: Callable[[dict[str, Any]], Any], message: str, copied: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _out(copied) / "step-4" / "state.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=rf"step-4/state\.json.*{message}.*Use .*step-2, which is intact") as caught:
        read_state(path.parent)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match=message):
        load_encoder(str(_out(copied)))


def _numbers(folder: Path) -> dict[str, int]:
    files = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return {name: row[key] for name, row in files.items() for key in row if key.endswith("schema_version")}


def test_a_checkpoint_without_numbers_of_its_forms_is_resumed_exactly(copied: TrainConfig) -> None:
    """As written before there were any."""
    run, names = _out(copied), ("config.json", "degla_training.json", "open_clip_config.json", "state.json")
    assert _numbers(run / "step-4") == dict.fromkeys(names, 1) and _numbers(run) == {"config.json": 1}
    whole, old = (run / "step-4" / "open_clip_model.safetensors").read_bytes(), run / "step-2"
    shutil.rmtree(run / "step-4")
    for path in (run / "config.json", *(old / name for name in names)):
        row = {key: value for key, value in json.loads(path.read_text()).items() if not key.endswith("schema_version")}
        if path.name == "state.json":
            row["sha256"] |= {name: sha256_of(old / name) for name in names[:3]}
            row["sha256"]["state.json"] = _own_digest(row)
        path.write_text(json.dumps(row))
    assert not _numbers(old) | _numbers(run) and is_whole(old)
    assert (
        train(copied, resume=True).finished and (run / "step-4" / "open_clip_model.safetensors").read_bytes() == whole
    )
    amend_state(old, best="step-2")
    assert _numbers(old) == {"state.json": 1} and is_whole(old)


def test_a_checkpoint_of_a_newer_version_is_refused_and_left_alone(copied: TrainConfig) -> None:
    run = _out(copied)
    path = run / "step-4" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2, "versions": {"degla": "7.0"}}))
    message = r"step-4\S*/state\.json: field 'schema_version' is 2, .* reads 1\. .* \(degla 7\.0\): update degla\.\Z"
    for read in (read_state, is_whole, drop_training_state, lambda folder: load_encoder(str(folder.parent))):
        with pytest.raises(NewerFormError, match=message):
            read(run / "step-4")
    with pytest.raises(NewerFormError, match=message):
        train(copied, resume=True)
    (run / "step-4").rename(run / "step-4.partial")
    for put_in_order in (lambda: settle(run), lambda: train(copied, resume=True)):
        with pytest.raises(NewerFormError, match=message):
            put_in_order()
    assert (run / "step-4.partial" / "optimizer.pt").is_file(), "of a newer version's process that was killed"


def test_a_newer_checkpoint_before_a_damaged_one_does_not_hide_the_damage(copied: TrainConfig) -> None:
    run = _out(copied)
    path = run / "step-2" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    _flip(run / "step-4" / "optimizer.pt")
    with pytest.raises(
        InputError, match=r"step-4/optimizer\.pt: damaged: .* A newer version of degla wrote \S*/step-2,"
    ):
        train(copied, resume=True)


def test_the_message_names_a_renamed_checkpoint_by_its_own_name(copied: TrainConfig) -> None:
    (_out(copied) / "step-4").rename(_out(copied) / "step-9")
    with pytest.raises(
        InputError, match=r"'step' is 4, but the folder is step-9\. If .*, rename it back to step-4\. Use "
    ):
        train(copied, resume=True)


def test_a_copy_in_place_of_the_link_to_the_best_checkpoint_makes_room_and_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "state.json").write_text("{}")
    point_to_best(tmp_path, "step-4")
    assert (tmp_path / "best").readlink() == Path("step-4")
    assert (tmp_path / "best.copy" / "state.json").is_file()
    assert "best: was a folder instead of a link (as after cp -L); it was renamed to" in caplog.text
    (tmp_path / "best").unlink()
    (tmp_path / "best").mkdir()
    point_to_best(tmp_path, None)
    assert (tmp_path / "best").is_dir() and "best: cannot link to the best checkpoint" in caplog.text


def test_a_checkpoint_without_its_training_state_is_a_model_and_no_start_of_a_resume(copied: TrainConfig) -> None:
    run = _out(copied)
    whole = load_encoder(str(run)).fingerprint
    drop_training_state(run / "step-4")
    assert not {*FOR_TRAINING} & {*_names(run / "step-4")} and is_whole(run / "step-4")
    assert load_encoder(str(run)).fingerprint == whole
    with pytest.raises(InputError, match=r"was deleted when the run finished.*--model .*step-4"):
        train(copied, resume=True)


def test_damaged_lines_of_the_metrics_are_left_out_with_a_word(
    copied: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    path = _out(copied) / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\xff" + lines[1] + b"".join(lines[2:]) + b'{"step": 5, "lo')
    with caplog.at_level(logging.WARNING):
        train(copied, resume=True)
    assert path.read_bytes() == lines[0] + b"".join(lines[2:])
    assert [line for line in caplog.messages if "damaged" in line] == [f"{path} line 2: damaged, skipped"]
