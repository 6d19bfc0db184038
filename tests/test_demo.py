"""The demo at a small size: every stage runs, and the report shows what was run."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from degla.cli import main
from degla.demo import methods
from degla.demo import world as room
from degla.errors import DeglaError, InputError
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation
from degla.evaluation.terminal import named_scores
from degla.model.load import load_encoder
from degla.shelf import RECIPES
from degla.world import draw
from tests.launch import FORKS


def test_the_whole_pipeline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    small = room.Size(scenes=64, steps=1, items_per_part=2, images_per_class=1, retrieval_images=2)
    monkeypatch.setattr(room, "QUICK", small)
    monkeypatch.setattr("degla.study.workers.WORKERS", FORKS)
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--out", str(out), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)

    assert re.search(r"degla_plus: composition [+−][\d.]+, recognition [+−][\d.]+, joint [+−][\d.]+", caplog.text)

    labels = ["base", "clip", "negclip", "negclip averaged 0.5", "ce_clip", "degla", "degla averaged 0.7", "degla_plus"]
    assert [method["label"] for method in table["methods"]] == labels
    page = (out / "report.html").read_text()
    assert all(label in page for label in labels)
    assert "<svg" in page or "data:image/png" in page
    assert 'src="http' not in page and 'href="http' not in page, "the page asks for something outside it"
    assert (out / "report.md").is_file()
    notes = {method["label"]: method["training_data"] for method in table["methods"]}
    assert notes.pop("base") == ["not known"]
    assert all(data == ["captions.jsonl: 64 images, among them 0 of 146 of world"] for data in notes.values()), notes
    first = (out / "base.html").read_text()
    assert "no better than chance" in first, "the base model is below chance in word order"
    assert "data:image/jpeg" in first and 'class="up">✓' in first and "recognition" in first

    fingerprints = {load_result(path).model.fingerprint for path in (out / "results").glob("*-*.json")}
    assert len(fingerprints) == len(labels), "two methods gave the same model"
    negatives = [json.loads(line) for line in (out / "negatives-64.jsonl").read_text().splitlines()]
    assert {row["rule"] for row in negatives} == set(methods.RULES)
    base = load_encoder("world").fingerprint
    assert load_result(out / "results" / "base-0.json").model.fingerprint == base

    request.getfixturevalue("undrawn")
    # A second demo in the same folder replaces the first and draws nothing again.
    before = (out / "world" / "pairs-64" / "captions.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(methods, "METHODS", {"clip": None})
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    assert sorted(path.name for path in (out / "results").glob("*-0.json")) == ["base-0.json", "clip-0.json"]
    assert (out / "world" / "pairs-64" / "captions.jsonl").stat().st_mtime_ns == before


def test_what_makes_a_recipe_stays() -> None:
    plain, plus = (
        methods.demo_config(getattr(RECIPES.load(name), name)(), steps=7, seed=3) for name in ("degla", "degla_plus")
    )
    assert plus.train == replace(plain.train, freeze_image_blocks=-1)
    assert plus.optim.lr == pytest.approx(2 * plain.optim.lr)
    assert plus.optim == replace(plain.optim, lr=plus.optim.lr)
    assert plus.objective["text_grounded"].weight == 20 * plain.objective["text_grounded"].weight
    assert (plain.train.steps, plain.train.seed, plain.train.batch_size, plain.optim.lr) == (7, 3, 32, 4e-4)


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--quick", "--out", str(tmp_path / "file" / "demo")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["runs/plus", "results/plus.json", "train.jsonl", "report.md"])
def test_files_that_are_not_of_a_demo_stay(tmp_path: Path, name: str) -> None:
    methods.clear(tmp_path)
    methods.clear(tmp_path)  # Stopped before anything was drawn.
    own = tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("")
    for folder in (methods.LINK, methods.DRAWN):  # Folders of the user.
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match=r"is not of a demo, which would replace it\. Choose another --out\."):
        methods.clear(tmp_path)
    assert own.exists()
    (tmp_path / methods.LINK).rmdir()
    (tmp_path / methods.LINK).symlink_to(tmp_path)  # Of the user, too.
    with pytest.raises(InputError, match="is not of a demo"):
        methods.clear(tmp_path)
    (tmp_path / methods.LINK).unlink()
    (tmp_path / "own").mkdir()
    with pytest.raises(InputError, match="is not of a demo"):
        methods.clear(tmp_path)
    (tmp_path / methods.DRAWN / "benchmark-100").mkdir()
    (tmp_path / "report.html").touch()
    methods.clear(tmp_path)
    assert own.exists() == (name == "train.jsonl") and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("size", [room.QUICK, room.FULL], ids=lambda size: size.base)
def test_the_bases_shipped_results_are_of_the_shipped_model_and_questions(
    size: room.Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise: python tools/base_results.py."""
    if size is room.FULL:  # Only its questions are checked.
        monkeypatch.setattr(draw, "render", lambda scene: None)
        monkeypatch.setattr(draw, "save_picture", lambda picture, file: file.touch())
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "base-0.json"
    benchmark = size.draw_questions(tmp_path)
    assert room._take_base_result(size, benchmark, path), "weights or questions have changed"
    shipped = load_result(path, items=True)
    encoder = load_encoder("world")
    assert shipped.model.fingerprint == encoder.fingerprint and shipped.model.label == "base"
    if size is room.QUICK:  # The larger one is made by the same call.
        again = Evaluation(("world",), benchmark, progress=False).score(encoder, label="base")
        assert [row.id for row in again.items] == [row.id for row in shipped.items]
        # Other CPUs round differently, which shows in a few images between two answers.
        other = sum(one.ok != two.ok for one, two in zip(again.items, shipped.items, strict=True))
        assert other <= len(again.items) // 500
        assert named_scores(again) == pytest.approx(named_scores(shipped), abs=0.01)
    with (benchmark / "items.jsonl").open("a") as stream:
        stream.write("\n")
    assert not room._take_base_result(size, benchmark, path), "other questions"


def test_a_demo_that_is_stopped_says_that_its_runs_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.study.conduct.run_jobs", lambda *_, **__: ([], "SIGINT"))
    job = methods.base_job("world", ("world",), root=tmp_path, out=tmp_path)
    with (
        methods.lock(tmp_path) as folder_lock,
        pytest.raises(DeglaError, match="stopped by SIGINT; the same command starts these runs from scratch") as stop,
    ):
        methods.run_jobs([job], folder_lock)
    assert stop.value.exit_status == 130


def be_killed(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_of_the_demo_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "WORKERS", FORKS)
    monkeypatch.setattr(room, "draw_pairs", be_killed)
    for name in ("show_base", "load_result"):
        monkeypatch.setattr(room, name, lambda *_, **__: None)
    monkeypatch.setattr(room, "_take_base_result", lambda *_: True)
    monkeypatch.setattr(room, "QUICK", room.Size(0, 1, items_per_part=2, images_per_class=1, retrieval_images=2))
    assert main(["demo", "--quick", "--out", str(tmp_path / "demo")]) == 1
    assert capsys.readouterr().err.endswith(
        "degla: the process that draws the training pairs was killed. Run the same command again; if memory ran out, "
        "with --quick.\n"
    )


def test_a_demo_that_is_stopped_while_it_makes_negatives_does_not_train_on_a_part_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "generate", lambda *_, **__: SimpleNamespace(stopped="SIGTERM"))
    monkeypatch.setattr(methods, "read_captions", Path)
    with pytest.raises(DeglaError, match="stopped by SIGTERM while making negatives") as stop:
        methods.make_negatives(tmp_path / "captions.jsonl", tmp_path / "negatives.jsonl", words="captions")
    assert stop.value.exit_status == 143


def test_runs_of_several_seeds_are_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def jobs(*names: str) -> list[methods.Job]:
        class One:
            def __init__(self, name: str) -> None:
                self.alone = self
                self.paths = (Path(f"{name}.json"), Path(f"{name.replace('-', '-averaged-0.5-')}.json"))

        return [One(name) for name in names]  # type: ignore[misc]

    def ended(chains: list[methods.Job], **_: object) -> list[methods.Ended[methods.ChainResult]]:
        return [methods.Ended((chain,)) for chain in chains]  # type: ignore[arg-type]

    monkeypatch.setattr(methods, "run_chains", ended)
    done = methods.run_jobs(jobs("degla-0", "clip-0", "degla-1", "clip-1"), None)  # type: ignore[arg-type]
    assert [path.stem for path in done[:4]] == ["clip-0", "clip-averaged-0.5-0", "degla-0", "degla-averaged-0.5-0"]
    assert [path.stem for path in done[4:]] == ["clip-1", "clip-averaged-0.5-1", "degla-1", "degla-averaged-0.5-1"]
    monkeypatch.setattr(methods, "load_result", lambda path: SimpleNamespace(model=SimpleNamespace(label="clip")))
    scores = iter([{"composition": 0.5, "retrieval": 0.9}, {"composition": 0.6, "retrieval": 0.75}] * 2)
    monkeypatch.setattr(methods, "named_scores", lambda result: next(scores))
    with caplog.at_level("INFO"):
        for path in (done[0], done[4]):
            methods.log_changes(Path("base-0.json"), [path], kept="retrieval")
    assert caplog.messages == ["clip: composition +10.0, retrieval \N{MINUS SIGN}15.0, joint \N{MINUS SIGN}5.0"] * 2
    caplog.clear()
    monkeypatch.setattr(methods, "named_scores", lambda result: {"composition": 0.5, "recognition": 0.9})
    with caplog.at_level("INFO"):
        methods.log_changes(Path("base-0.json"), [done[0], done[4]])
    assert [message.split(":")[0] for message in caplog.messages] == ["clip, seed 0", "clip, seed 1"]
