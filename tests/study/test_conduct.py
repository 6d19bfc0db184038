"""A whole study at a tiny size: files, failures, what is reused, what is retrained, resuming after a stop."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from degla.cli import main
from degla.config.run import TrainConfig, recipe_config
from degla.config.sections import DataConfig, StopConfig, ValidationConfig
from degla.data import prepared
from degla.errors import DeglaError, InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.overlap import Leakage
from degla.evaluation.questions import BenchmarkQuestions, ask
from degla.evaluation.results import items_name, load_result
from degla.files import sha256_of
from degla.locks import lock
from degla.model.checkpoint import average_weights
from degla.model.load import load_encoder
from degla.negatives.run.output import manifest_path
from degla.parse import NewerFormError
from degla.records import CaptionRecord, NegativeRecord, read_jsonl
from degla.study import materials, tuning
from degla.study.conduct import Watch, _jobs, _last_metrics, _models, conduct, open_log
from degla.study.grid import expand
from degla.study.jobs import ChainResult, Cost, Job, JobResult, Measure, StudyQuestions
from degla.study.materials import CurrentQuestions, _neighbours, digest_of, digest_of_base, prepare, questions_of
from degla.study.plan import Plan, WorldData, read_plan
from degla.study.plan_file import BenchmarkData
from degla.study.record import load_study
from degla.study.standings import BASE
from degla.study.study import Study
from degla.study.tuning import tune
from degla.study.workers import Ended
from degla.training.metrics import Metrics
from degla.training.validation import Validation
from tests.tiny import write_small_world

_TINY: dict[str, Any] = {
    "world": {"scenes": 40, "items_per_part": 6, "images_per_class": 1, "retrieval_images": 4, "split": "validation"},
    "set": {"train.steps": 2, "train.batch_size": 8, "data.negatives_per_caption": 2, "optim.lr": 1e-3},
    "average": [0.5, 1],
}


def _write(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(_TINY | fields, sort_keys=False))
    return path


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base of all plans here: the world model would take twice as long."""
    _TINY["base"] = str(write_small_world(tmp_path_factory.mktemp("base") / "small"))
    return _TINY["base"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, base: str) -> Path:
    """A folder with the data of `_TINY`; of each recognition domain three classes, else they are all of the work."""
    out = tmp_path_factory.mktemp("drawn")
    plan = _plan_of(out, train_steps=2)
    prepare(plan, expand(plan, where="plan"), out=out)
    for path in out.glob("data/benchmark-*/recognition/*/classes.json"):
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({name: values[:3] for name, values in fields.items()}))
    return out / "data"


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are half of the work of a study that trains nothing: only tests that read the page draw them."""
    if request.function not in (test_a_study_with_a_run_that_fails, test_images_that_runs_are_trained_on_are_named):
        _draw_nothing(monkeypatch)


def _draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.study.page.frontier", lambda *_, **__: "<svg ></svg>")


def test_a_study_with_a_run_that_fails(
    tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"train.train_image_tower": False, "train.train_text_tower": False, "train.train_scale": False}
    arms = [{"recipe": "degla", "label": "fails", **nothing}, {"recipe": "clip"}, {"recipe": "negclip"}]
    # A list of one value is a grid that does not appear in labels.
    path = _write(tmp_path, arms=arms, seeds=2, set=_TINY["set"] | {"train.steps": [2]})
    out = tmp_path / "out"
    shutil.copytree(drawn, out / "data")
    assert main(["study", str(path), "--out", str(out), "--processes", "1", "--json"]) == 1
    output = capsys.readouterr()
    assert "2 runs failed: fails, seed 0:" in output.err and ".; fails" not in output.err and ".. The" not in output.err
    data = json.loads(output.out)
    labels = ["base", "clip", "clip averaged 0.5", "negclip", "negclip averaged 0.5"]
    assert [model["label"] for model in data["models"]] == labels
    assert [title for title, _ in data["failures"]] == ["fails, seed 0", "fails, seed 1"]
    assert {test["score"] for test in data["tests"]} == {"composition", "recognition", "joint"}
    assert "other words" in data["headline"] and {"swap id", "swap ood"} <= data["families"].keys()
    clip = data["models"][1]
    assert [run["seed"] for run in clip["runs"]] == [0, 1]
    assert clip["cost"]["negatives"] == 2 and not clip["cost"]["teacher"]
    assert clip["cost"]["seconds"] > 0

    stored = [load_result(out / "results" / f"clip-{seed}.json") for seed in (0, 1)]
    averages = [next(score.value for score in result.benchmarks[0].averages if score.name == "composition.id")
                for result in stored]  # fmt: skip
    assert [run["scores"]["composition"] for run in clip["runs"]] == averages
    assert [(result.model.label, result.training_seed) for result in stored] == [("clip", 0), ("clip", 1)]
    assert len({result.model.fingerprint for result in stored}) == 2, "two seeds gave one model"

    page = (out / "study.html").read_text()
    assert "<svg" in page and 'src="http' not in page and 'href="http' not in page and "2 runs failed" in page
    text = (out / "study.md").read_text()
    assert all(label in page and label in text for label in labels)
    glance, rest = text.split("## By family")
    assert glance.count("\n| clip ") == glance.count("\n| negclip ") == 1, "the best of each arm, no more"
    assert rest.split("## All models")[1].count("clip averaged 0.5") == 2
    chosen = read_plan(out / "chosen.yaml")
    assert chosen.world == WorldData(scenes=40, split="test") and chosen.seeds == (0, 1, 2, 3, 4)
    assert "train.steps" not in chosen.set and all(arm.fields["train.steps"] == 2 for arm in chosen.arms)
    assert [arm.name for arm in chosen.arms] == ["clip", "negclip"]
    mentions = ["averaged 0.5" in part for part in chosen.about.split("; ")]
    assert mentions == [arm.average == (0.5,) for arm in chosen.arms], chosen.about
    assert all(arm.average is not None and len(arm.average) == 1 for arm in chosen.arms)

    # Without the failing arm, nothing is left to do; the numbers stay exactly the same.
    _draw_nothing(monkeypatch)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.json") if file.parent.name == "results"}
    path = _write(tmp_path, arms=arms[1:], seeds=2, set=_TINY["set"] | {"train.steps": [2]})
    study = conduct(read_plan(path), out=out, where="plan", processes=1)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    again = json.loads((out / "study.json").read_text())
    assert again["models"] == data["models"] and not study.record.failures

    path = _write(tmp_path, arms=arms[:1], set=_TINY["set"] | {"train.steps": [2]})
    with pytest.raises(DeglaError, match=r"no run finished: fails, seed 0: .*\. Details are in .*study\.log\."):
        conduct(read_plan(path), out=out, where="plan", processes=1)
    assert json.loads((out / "study.json").read_text()) == again

    # One setting of each arm: the plan that an earlier one chose goes, unless it is the user's or the one that is run.
    path = _write(tmp_path, arms=arms[1:], seeds=2, set=_TINY["set"] | {"train.steps": [2]}, average=[1])
    made = (out / "chosen.yaml").read_text()
    for text, where in ((made, "plan"), (made, str(out / "chosen.yaml")), ("title: mine", "plan")):
        (out / "chosen.yaml").write_text(text)
        conduct(read_plan(path), out=out, where=where, processes=1)
        assert (out / "chosen.yaml").exists() == (text != made or where != "plan")


def _plan_of(folder: Path, *, train_steps: int, **fields: Any) -> Plan:
    values = _TINY["set"] | {"train.steps": train_steps}
    return read_plan(_write(folder, set=values, arms=[{"recipe": "degla", **fields}]))


def _job(folder: Path, drawn: Path, *, train_steps: int, **fields: Any) -> Job:
    out = folder / "out"
    if not out.exists():
        shutil.copytree(drawn, out / "data")
    plan = _plan_of(folder, train_steps=train_steps, **fields)
    runs = expand(plan, where="plan")
    return _jobs(runs, prepare(plan, runs, out=out), CurrentQuestions(), out=out)[1][0]


@pytest.fixture
def of_images(
    tmp_path: Path, tiny_model: Path, tiny_pairs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Study]:
    """Runs a study on recognition alone, two of three pictures from the training data; in this process."""
    root = tmp_path / "data" / "zeroshot" / "noise"
    for number in range(3):
        (root / f"class {number}").mkdir(parents=True)
        shutil.copy(tiny_pairs["images"] / f"00{number}.png", root / f"class {number}" / "a.png")
    (root / "class 2" / "a.png").write_bytes((root / "class 2" / "a.png").read_bytes() + b" ")

    def one_by_one(work: Any, jobs: Any, *, ended: Any, **_: Any) -> Any:
        ends = []
        for job in jobs:
            try:
                ends.append(Ended(work(job)))
            except DeglaError as error:
                ends.append(Ended(error=str(error)))
        for number, end in enumerate(ends):
            ended(number, end)
        return ends, ""

    monkeypatch.setattr("degla.study.conduct.run_jobs", one_by_one)
    data = {"data.captions": str(tiny_pairs["captions"]), "data.images": str(tiny_pairs["images"])}
    fields = {"world": None, "benchmarks": {"names": ["zeroshot"], "root": str(tmp_path / "data")},
              "set": {**_TINY["set"], **data, "data.negatives": str(tiny_pairs["negatives"])}, "average": [1],
              "base": str(tiny_model), "gain": "noise", "kept": "recognition"}  # fmt: skip

    def study(*arms: dict[str, Any]) -> Study:
        plan = read_plan(_write(tmp_path, arms=list(arms), **fields))
        return conduct(plan, out=tmp_path / "out", where="plan", processes=1)

    return study


def test_images_that_runs_are_trained_on_are_named(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    study = of_images({"recipe": "clip"}, {"recipe": "negclip"})
    warning = "clip, negclip: 2 of 3 benchmark images are in the training data (2 by content)"
    assert warning in study.warnings[0] and warning in (tmp_path / "out" / "study.md").read_text()
    leakage = load_result(tmp_path / "out" / "results" / "clip-0.json").leakage
    assert leakage is not None and leakage.overlaps[0].shared == 2
    assert load_result(tmp_path / "out" / "results" / "base-0.json").leakage is None
    assert not any(test.significant for test in study.tests)


def test_results_of_models_that_a_plan_no_longer_has_are_moved_away_and_back(
    tmp_path: Path, of_images: Callable[..., Study], caplog: pytest.LogCaptureFixture
) -> None:
    clip, negclip = {"recipe": "clip", "average": [0.5, 1]}, {"recipe": "negclip"}
    caplog.set_level(logging.INFO, "degla.study")

    def names(folder: str) -> list[str]:
        return sorted(path.name for path in (tmp_path / "out" / folder).iterdir() if path.is_file())

    of_images(clip, negclip)
    before = names("results")
    of_images({**clip, "average": [1]})
    assert names("results") == ["base-0.items.jsonl", "base-0.json", "clip-0.items.jsonl", "clip-0.json"]
    assert names("removed") == sorted({*before} - {*names("results")})
    assert f"2 results not of this plan moved to {tmp_path / 'out' / 'removed'}" in caplog.text
    at = (tmp_path / "out" / "removed" / "negclip-0.json").stat().st_mtime_ns
    of_images(clip, negclip)
    assert names("results") == before and not names("removed")
    assert (tmp_path / "out" / "results" / "negclip-0.json").stat().st_mtime_ns == at, "not measured again"
    own = tmp_path / "out" / "results" / "own.json"
    own.write_text("{}")
    of_images(clip)
    assert own.is_file() and not (tmp_path / "out" / "removed" / "own.json").exists(), "no result"
    own.unlink()
    shutil.move(tmp_path / "data", tmp_path / "away")
    of_images(clip, negclip)
    assert names("results") == before, "nothing is left to measure"
    shutil.move(tmp_path / "away", tmp_path / "data")
    of_images(clip)
    of_images(clip, {**negclip, "train.steps": 1})
    assert names("results") == before and not names("removed"), "those of the other model are gone"


def test_damaged_results_and_those_of_the_user_move_away_too(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    clip, negclip = {"recipe": "clip"}, {"recipe": "negclip"}
    first = of_images(clip, negclip)
    results, removed = tmp_path / "out" / "results", tmp_path / "out" / "removed"
    whole = (results / "negclip-0.json").read_bytes()
    (results / "negclip-0.json").write_bytes(whole[: len(whole) // 2])
    of_images(clip)
    assert not list(results.glob("negclip*")) and len(list(removed.glob("negclip*"))) == 2
    assert of_images(clip, negclip).record.models == first.record.models, "measured again"
    for model in ("clip", "negclip", "base"):
        for end in (".json", ".items.jsonl"):
            shutil.copy(results / f"{model}-0{end}", results / f"own{end}")
        of_images(clip, negclip)
    there = {str(path.parent.relative_to(removed)): load_result(path).model.label
             for path in removed.rglob("own.json") if items_name(path).is_file()}  # fmt: skip
    assert there == {".": "clip", "again-2": "negclip", "again-3": "base"}, "none replaced another"


def test_results_that_cannot_be_moved_or_deleted_are_named(
    tmp_path: Path, of_images: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_images({"recipe": "clip"}, {"recipe": "negclip"})
    results = tmp_path / "out" / "results"

    def move(path: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("degla.study.tuning.shutil.move", move)
    with pytest.raises(InputError, match=r"negclip-0.items.jsonl: cannot be written: Read-only file system\. Choose"):
        of_images({"recipe": "clip"})
    with pytest.raises(InputError, match=r"results: cannot be written: .*\. Choose another --out\."):
        Measure("folder", 1.0, results).forget()


def test_results_behind_a_link_are_written_by_one_study_at_a_time(
    tmp_path: Path, of_images: Callable[..., Study]
) -> None:
    shared, out = tmp_path / "shared", tmp_path / "out"
    shared.mkdir()
    out.mkdir()
    (out / "results").symlink_to(shared)
    (tmp_path / "study.log").touch()  # A refused study leaves only this.
    with lock(shared), pytest.raises(InputError, match="results: in use by process"):
        of_images({"recipe": "clip"})
    of_images({"recipe": "clip"})
    assert (shared / "clip-0.json").is_file()
    other = tmp_path / "other" / "results"
    other.mkdir(parents=True)
    shutil.move(shared / "clip-0.json", other / "negclip-0.json")
    (other.parent / "study.log").touch()
    for target in (other, other.parent):
        (out / "results").unlink()
        (out / "results").symlink_to(target)
        with pytest.raises(InputError, match=r"results: is a link into another study, .*other, whose files it would"):
            of_images({"recipe": "clip"})
        assert (other / "negclip-0.json").is_file()
    (out / "results").unlink()
    (out / "results").symlink_to("results")  # To itself: no path is the end of it.
    with pytest.raises(InputError, match=r"results: cannot be written: .*\. Choose another --out\."):
        of_images({"recipe": "clip"})
    (out / "results").unlink()
    (out / "chosen.yaml").symlink_to("chosen.yaml")
    of_images({"recipe": "clip"})


def test_a_run_of_a_newer_version_is_refused_and_stays(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    arms = {"recipe": "clip"}, {"recipe": "negclip"}
    of_images(*arms)
    run = tmp_path / "out" / "runs" / "clip-0"
    record = json.loads((run / "record.json").read_text())
    assert record["schema_version"] == 1
    (run / "record.json").write_text(json.dumps(record | {"schema_version": 2, "finished": "yes"}))
    weights = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    ((title, error),) = of_images(*arms).record.failures
    assert (
        title == "clip, seed 0"
        and "record.json: field 'schema_version' is 2" in error
        and error.endswith("update degla")
    )
    assert weights == {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} and weights


def test_a_result_of_a_newer_version_is_refused_and_stays(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    arms = {"recipe": "clip"}, {"recipe": "negclip"}
    of_images(*arms)
    result = tmp_path / "out" / "results" / "clip-0.json"
    newer = json.dumps(json.loads(result.read_text()) | {"schema_version": 2})
    result.write_text(newer)
    ((title, error),) = of_images(*arms).record.failures
    assert title == "clip, seed 0" and "clip-0.json: field 'schema_version' is 2" in error
    assert result.read_text() == newer, "not measured again, as a damaged one"


def test_a_study_of_a_newer_version_is_refused_and_stays(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    of_images({"recipe": "clip"})
    file = tmp_path / "out" / "study.json"
    newer = json.dumps(json.loads(file.read_text()) | {"format": 3})
    file.write_text(newer)
    pages = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("study.*") if path.suffix != ".log"}
    message = r"study\.json: field 'format' is 3, .* reads 2\. .*: update degla\.\Z"
    with pytest.raises(NewerFormError, match=message):
        of_images({"recipe": "clip"})
    assert {path: path.stat().st_mtime_ns for path in pages} == pages and file.read_text() == newer
    file.write_text("{")
    of_images({"recipe": "clip"})
    assert load_study(file).models, "a damaged one is replaced"


def test_a_damaged_record_repeats_its_run_only(
    tmp_path: Path, of_images: Callable[..., Study], caplog: pytest.LogCaptureFixture
) -> None:
    arms = {"recipe": "clip"}, {"recipe": "negclip"}
    of_images(*arms)
    out = tmp_path / "out"
    (out / "removed").mkdir()
    file = out / "runs" / "clip-0" / "record.json"
    record = json.loads(file.read_text())
    caplog.set_level(logging.INFO, "degla.study")
    for damaged, note in (
        ({"measured": [1]}, f"retrained: {file} was damaged"),
        ({"measured": {"clip": "x"}, "cost": {"seconds": 1}}, f"retrained: {file} was damaged"),
        ({"made_from": {**record["made_from"], "inputs": [1]}}, "retrained: inputs.captions was None"),
    ):
        caplog.clear()
        file.write_text(json.dumps({**record, **damaged}))
        assert not of_images(*arms).record.failures
        assert note in caplog.text and "negclip, seed 0: already done" in caplog.text


def test_a_copied_result_of_another_model_is_measured_again(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    arms = {"recipe": "clip"}, {"recipe": "negclip"}
    first = of_images(*arms)
    results = tmp_path / "out" / "results"
    for end in (".json", ".items.jsonl"):
        shutil.copy(results / f"negclip-0{end}", results / f"clip-0{end}")
    assert of_images(*arms).record.models == first.record.models
    assert load_result(results / "clip-0.json").model.label == "clip"
    # As of another study, with the same label and seed.
    shutil.copytree(results, tmp_path / "other")
    of_images({"recipe": "clip", "train.steps": 1})
    own = load_result(results / "clip-0.json").model.fingerprint
    for end in (".json", ".items.jsonl"):
        shutil.copy(tmp_path / "other" / f"clip-0{end}", results / f"clip-0{end}")
    of_images({"recipe": "clip", "train.steps": 1})
    assert load_result(results / "clip-0.json").model.fingerprint == own
    record = tmp_path / "out" / "runs" / "clip-0" / "record.json"
    values = json.loads(record.read_text())
    del values["measured"]["clip"]["fingerprint"]  # As written by an older version.
    record.write_text(json.dumps(values))
    at = (results / "clip-0.json").stat().st_mtime_ns
    of_images({"recipe": "clip", "train.steps": 1})
    assert (results / "clip-0.json").stat().st_mtime_ns == at


@pytest.mark.parametrize("asked", ["now", "before"])
def test_a_removed_result_comes_back_only_if_the_same_is_asked(tmp_path: Path, asked: str) -> None:
    """One that stayed in removed/ would come back later, beside results of other questions."""
    results, removed = tmp_path / "results", tmp_path / "removed"
    measure, questions = Measure("base", 1.0, results / "base-0.json"), StudyQuestions(("world",), tmp_path, asked)
    job = Job("base", "world", None, {}, (measure,), questions)
    for folder in (removed, results / "base-0"):
        folder.mkdir(parents=True)
    for end in (".json", ".items.jsonl"):
        (removed / f"base-0{end}").write_text("{}")
    (results / "base-0" / "record.json").write_text(json.dumps({"measured": {"base": tuning._origin(job)}}))
    tuning.sort_results([replace(job, questions=replace(questions, digest="now"))], out=tmp_path)
    assert measure.path.exists() == (results / "base-0.items.jsonl").exists() == (asked == "now")
    assert not list(removed.iterdir())


def test_a_removed_result_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    results, removed = tmp_path / "results", tmp_path / "removed"
    measure, questions = Measure("base", 1.0, results / "base-0.json"), StudyQuestions(("world",), tmp_path, "now")
    job = Job("base", "world", None, {}, (measure,), questions)
    for folder, text in ((removed, "old"), (results, "new")):
        (folder / "base-0").mkdir(parents=True)
        for end in (".json", ".items.jsonl"):
            (folder / f"base-0{end}").write_text(text)
    (results / "base-0" / "record.json").write_text(json.dumps({"measured": {"base": tuning._origin(job)}}))
    tuning.sort_results([job], out=tmp_path)
    assert measure.path.read_text() == (results / "base-0.items.jsonl").read_text() == "new"
    assert not list(removed.rglob("*.json*"))


def test_a_result_of_another_model_or_seed_is_no_answer(tmp_path: Path) -> None:
    job = Job("base", "world", None, {}, (), StudyQuestions(("world",), tmp_path, ""))
    for label, seed, weights in (("base", None, "a"), ("base", 1, "a"), ("clip", None, "a"), ("base", None, "b")):
        result: Any = SimpleNamespace(
            model=SimpleNamespace(label=label, fingerprint=weights), training_seed=seed, scorer="cosine"
        )
        for measured in ({"fingerprint": "a"}, {}):
            right = (label, seed) == ("base", None) and (weights == "a" or not measured)
            assert tuning._answers(result, job, label="base", measured=measured) == right


def test_negatives_that_an_earlier_version_finished_stay(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs would be repeated on others, or all be refused."""
    shutil.copytree(drawn, tmp_path / "out" / "data")
    plan = _plan_of(tmp_path, train_steps=2)
    runs = expand(plan, where="plan")

    def negatives() -> Path:
        path = prepare(plan, runs, out=tmp_path / "out")[0].config.data.negatives
        assert path is not None
        return path

    path = negatives()
    rows = path.read_bytes()
    manifest = manifest_path(path)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "degla": "0.0"}))
    assert negatives() == path and path.read_bytes() == rows
    with monkeypatch.context() as patched:
        patched.setattr("degla.shelf.Shelf.digests", lambda shelf, names: {"rules/own.py": "changed"})
        assert negatives() != path, "by a rule of the user's own that changed"
    path.write_bytes(rows[: len(rows) // 2])
    with pytest.raises(InputError, match="was changed after it was made"):
        negatives()
    path.with_suffix(".sha256").unlink()
    with pytest.raises(InputError, match=r"made with other settings or captions \(degla: was '0.0'"):
        negatives()


def test_a_finished_study_needs_its_benchmarks_no_more(tmp_path: Path, of_images: Callable[..., Study]) -> None:
    first = of_images({"recipe": "clip"})
    shutil.move(tmp_path / "data", tmp_path / "away")
    again = of_images({"recipe": "clip"})
    assert again.record.models == first.record.models and again.record.caveats == first.record.caveats
    result = tmp_path / "out" / "results" / "clip-0.json"
    # What is left to do is refused before anything goes or is trained.
    with pytest.raises(DeglaError, match=r"no such folder of the benchmarks' data"):
        of_images({"recipe": "clip", "train.steps": 1})
    assert result.is_file()
    with pytest.raises(InputError, match=r"no such folder of the benchmarks' data"):
        of_images({"recipe": "clip"}, {"recipe": "negclip"})
    assert not (tmp_path / "out" / "runs" / "negclip-0").exists()
    (tmp_path / "data" / "other").mkdir(parents=True)  # The root is there, with other benchmarks.
    assert of_images({"recipe": "clip"}).record.models == first.record.models
    with pytest.raises(InputError, match=r"data: has no files of Zero-shot classification\. Expected layout:"):
        of_images({"recipe": "clip"}, {"recipe": "negclip"})
    assert not (tmp_path / "out" / "runs" / "negclip-0").exists()


def test_files_of_a_benchmark_are_gone_with_all_of_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan_of(tmp_path, train_steps=2)
    root, results = tmp_path / "data", tmp_path / "results"
    results.mkdir()
    (results / "base-0.json").touch()
    benchmarks = {
        "listed": SimpleNamespace(prepare=None, annotations=("b/*.json", "a*/c.json")),
        "drawn": SimpleNamespace(prepare=Mock(), annotations=("d/x.json",)),
        "unlisted": SimpleNamespace(prepare=None, annotations=()),
    }
    for module in ("study.materials", "evaluation.questions"):
        shelf = Mock(member=lambda name, _: benchmarks[name], digests=lambda _: {})
        monkeypatch.setattr(f"degla.{module}.BENCHMARKS", shelf)

    def known(*names: str) -> bool:
        data = BenchmarkData.model_construct(names=names, root=root)
        return bool(questions_of(plan.model_copy(update={"benchmarks": data}), tmp_path / "data").digest)

    assert known("drawn") and not known("listed") and not known("unlisted")
    (root / "d").mkdir(parents=True)
    assert known("drawn", "unlisted") and not known("drawn", "listed")
    (root / "a1").mkdir()
    assert known("drawn", "listed")


def test_what_is_done_stays_done_and_what_changed_is_made_again(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(tmp_path, drawn, train_steps=2)
    first = tune(job)
    assert first.trained and first.measured == 2 and first.cost is not None and first.cost.teacher
    second = tune(job)
    assert not second.trained and second.measured == 0 and second.paths == first.paths and second.cost == first.cost

    # Later findings about the training data are added to existing results.
    leakage = Leakage(captions=("c.jsonl",), images=1)
    assert tune(replace(job, leakage=leakage)).measured == 0
    assert all(load_result(path).leakage == leakage for path in first.paths)

    # A missing or damaged result is measured again, from the kept model.
    fingerprint = load_result(job.measures[0].path).model.fingerprint
    job.measures[0].path.unlink()
    job.measures[1].path.write_text("{")
    third = tune(job)
    assert not third.trained and third.measured == 2
    assert load_result(job.measures[0].path).model.fingerprint == fingerprint

    # A disabled loss, a checkpoint interval, workers and other names of the same file change nothing.
    same = _job(
        tmp_path,
        drawn,
        train_steps=2,
        **{"objective.own_hinge.margin": 0.4, "checkpoint.every_steps": 1, "data.workers": 3},
    )
    assert not tune(same).trained

    # Nor does a setting that an earlier version did not know, at its default.
    (record,) = (tmp_path / "out" / "runs").glob("*/record.json")
    row = json.loads(record.read_text())
    del row["made_from"]["data"]["draw"], row["made_from"]["train"]["batch_norm"]
    record.write_text(json.dumps(row))
    assert not tune(job).trained

    fourth = tune(_job(tmp_path, drawn, train_steps=3))
    assert fourth.trained and fourth.measured == 2
    assert fourth.notes == ("retrained: train.steps was 2, is 3",)
    assert load_result(job.measures[0].path).model.fingerprint != fingerprint
    questions = replace(job.questions, digest="other")
    other = replace(job, questions=questions, config=_job(tmp_path, drawn, train_steps=3).config)
    fifth = tune(other)
    assert not fifth.trained and fifth.measured == 2, "other questions, the same model"
    other = replace(other, inputs=other.inputs | {"negatives": "other"})

    def ends(folder: Path) -> None:
        record = json.loads((folder / "record.json").read_text())
        assert record["finished"], "a checkpoint without its state is a finished run's"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tuning, "_drop_state", ends)
        tune(other)
    last = tune(other)
    assert not last.trained and last.measured == 2
    assert not list((tmp_path / "out" / "runs").rglob("optimizer.pt")), "what was left to delete"

    monkeypatch.setattr("degla.training.loop.train", Mock(side_effect=DeglaError("fails")))
    folder = next((tmp_path / "out" / "runs").iterdir())
    shutil.move(folder, tmp_path / "elsewhere")
    with pytest.raises(DeglaError, match="fails"):
        tune(other)
    assert all(path.is_file() for path in last.paths), "of a model whose folder the user moved"
    shutil.rmtree(folder)
    shutil.move(tmp_path / "elsewhere", folder)
    tuning.forget_rehearsed(other)
    assert all(path.is_file() for path in last.paths), "of this plan, whatever an earlier version left of a rehearsal"
    rehearsed = replace(other.questions, digest="a few")
    tuning.forget_rehearsed(replace(other, measures=other.measures[:1], questions=rehearsed))
    assert [path.is_file() for path in last.paths] == [False, True], "measured on other questions than these"
    with pytest.raises(DeglaError, match="fails"):
        tune(replace(other, inputs=other.inputs | {"negatives": "yet another"}))
    results = tmp_path / "out" / "results"
    assert all(path.parent == results for path in last.paths)
    assert not [path for path in results.iterdir() if path.is_file()], "results of a model that is gone"


def test_other_weights_of_the_base_make_runs_again(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's folder keeps its name; models of the old weights must not be set against the new ones."""
    base = tmp_path / "base"
    shutil.copytree(_TINY["base"], base)
    monkeypatch.setitem(_TINY, "base", str(base))

    def jobs() -> tuple[Job, Job]:
        plan, out = _plan_of(tmp_path, train_steps=2), tmp_path / "out"
        runs = expand(plan, where="plan")
        bases, tunings = _jobs(runs, prepare(plan, runs, out=out), CurrentQuestions(), out=out)
        return bases[0], tunings[0]

    shutil.copytree(drawn, tmp_path / "out" / "data")
    first, tuned = map(tune, jobs())
    assert first.measured == 1 and tuned.trained
    assert [(done.trained, done.measured) for done in map(tune, jobs())] == [(False, 0)] * 2
    weights = base / "open_clip_model.safetensors"
    save_file({name: value * 1.1 for name, value in load_file(weights).items()}, weights)
    first, tuned = map(tune, jobs())
    assert first.measured == 1 and tuned.trained and tuned.measured == 2
    assert "retrained: inputs.base was" in tuned.notes[0]

    # Missing weights, and a record of a version that did not distinguish them, are no reason to repeat everything.
    shutil.move(base, tmp_path / "other")
    assert [(done.trained, done.measured) for done in map(tune, jobs())] == [(False, 0)] * 2
    # Another base is, even if its weights are unknown.
    assert tune(replace(jobs()[0], base=str(tmp_path / "other"), inputs={})).measured == 1


def test_weights_in_a_file_are_distinguished_too(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    digests = set()
    for content in ("one", "other"):
        file.write_text(content)
        digests.add(digest_of_base(f"ViT-B-32:{file}", {})["base"])
    assert len(digests) == 2 and digest_of_base("ViT-B-32:openai", {}) == {}


def test_files_of_a_pattern_are_distinguished_too(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tar").write_bytes(name.encode())
    before = digest_of(tmp_path / "*.tar", {})
    assert digest_of(tmp_path / "*.tar", {}) == before
    (tmp_path / "b.tar").write_bytes(b"other")
    assert digest_of(tmp_path / "*.tar", {}) != before


def test_large_files_that_rest_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.tar", "b.tar"):
        (tmp_path / "data" / name).write_bytes(name.encode() * 20)
    (tmp_path / "data" / "note").write_text("n")
    paths = (tmp_path / "data", tmp_path / "data" / "a.tar")
    whole = [digest_of(path, {}) for path in paths]
    assert whole == [sha256_of(path) for path in paths]
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(materials, "_LARGE", 50)
    monkeypatch.setattr(prepared, "_SECONDS_TO_SETTLE", -1)
    assert [digest_of(path, {}) for path in paths] == whole
    notes = tmp_path / "cache" / "prepared" / "sources.json"
    assert set(json.loads(notes.read_text())) == {str(tmp_path / "data" / name) for name in ("a.tar", "b.tar")}
    notes.write_text(notes.read_text().replace(whole[1], "f" * 64))
    assert digest_of(paths[1], {}) == "f" * 64, "what is remembered is used"
    paths[1].write_bytes(b"other" * 20)
    assert digest_of(paths[1], {}) == sha256_of(paths[1])


def test_what_a_training_took_is_read_from_its_metrics(tmp_path: Path) -> None:
    rates = {10: 5.0, 15: None, 20: 10.0, 30: 8.0}  # After step 15, a validation.
    lines = [json.dumps({"step": step} | ({"pairs_per_second": rate} if rate else {})) for step, rate in rates.items()]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    recipe = recipe_config("degla")
    config = replace(recipe, out=tmp_path, train=replace(recipe.train, batch_size=8))
    seconds = 10 * 8 / 5 + 10 * 8 / 10 + 10 * 8 / 8
    assert tuning._cost(config) == Cost(seconds, 8.0, teacher=True, negatives=recipe.data.negatives_per_caption)


def test_results_come_to_the_models_that_they_are_of(tmp_path: Path) -> None:
    """One of three arms fails; one has only runs of a replicate, and so no row."""
    arms = [{"recipe": "degla", "average": [1, 0.5]}, {"recipe": "clip"}, {"recipe": "negclip"}]
    plan = read_plan(_write(tmp_path, arms=arms, replicates=[{"name": "w", "questions_seed": 1}], average=[1]))
    runs = expand(plan, where="plan")

    def job(label: str, replicate: str, shares: tuple[float, ...], seed: int | None) -> Job:
        questions = StudyQuestions(("world",), tmp_path / f"questions {replicate}", "digest")
        measures = tuple(Measure(label, share, Path(f"{label} {replicate} {share}")) for share in shares)
        config = None if seed is None else replace(TrainConfig(), train=replace(TrainConfig().train, seed=seed))
        return Job(label, "base", config, {}, measures, questions)

    bases = [job(BASE, replicate, (1.0,), None) for replicate in ("", "w")]
    jobs = [job(run.arm, run.replicate.title if run.replicate else "", run.shares, run.seed) for run in runs]
    cost = Cost(1.0, 2.0, teacher=True, negatives=3)
    done = [Ended((JobResult((Path("x"),), cost=replace(cost, seconds=n)),)) for n in range(len(runs))]
    ends: list[Ended[ChainResult] | None] = [done[0], Ended(error="broke"), Ended((JobResult((), notes=("stopped",)),))]
    models, failures = _models(runs, bases, jobs, [*ends, done[3], Ended(error="broke, too"), done[5]])
    assert failures == [("clip, seed 0", "broke"), ("negclip, seed 0", "stopped"), ("clip, seed 0", "broke, too")]
    assert [(model.label, model.share) for model in models] == [
        (BASE, 1.0),
        ("degla", 1.0),
        ("degla averaged 0.5", 0.5),
    ]
    assert models[0].files == {(None, ""): Path("base  1.0"), (None, "w"): Path("base w 1.0")}
    assert models[2].files == {(0, ""): Path("degla  0.5"), (0, "w"): Path("degla w 0.5")}
    assert [model.costs for model in models[1:]] == [[replace(cost, seconds=0)]] * 2, "of the plan's own runs"


def test_similar_images_are_looked_for_again_by_other_weights(
    tmp_path: Path, tiny_pairs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    monkeypatch.setattr("degla.model.load.load_encoder", loads.append)
    monkeypatch.setattr("degla.training.features.find_neighbours", lambda *_, **__: [])
    data = DataConfig(captions=tiny_pairs["captions"], images=tiny_pairs["images"])
    # The last two: a base that no longer exists, and the same weights again.
    for weights in ("one", "one", "other", "", "other"):
        _neighbours(tmp_path, data, base="runs/x", weights=weights, digest="captions")
    assert len(loads) == 2
    # Killed between both files: their origin is unknown.
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as killed:
        killed.setattr("degla.study.materials.write_text", Mock(side_effect=KeyboardInterrupt))
        _neighbours(tmp_path, data, base="runs/x", weights="new", digest="captions")
    _neighbours(tmp_path, data, base="runs/x", weights="other", digest="captions")
    assert len(loads) == 4


def test_columns_of_one_file_have_negatives_neighbours_and_leaks_of_their_own(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with two texts and two images per row contains two sets of pairs."""
    captions, root = tmp_path / "captions.csv", tmp_path / "data"
    captions.write_text("id,image,old,text,new\n0,a.png,b.png,a red dog on a blue car,a black cat on a white cup\n")
    for name, colour in (("a", 0), ("b", 200)):
        (root / "zeroshot" / "noise" / name).mkdir(parents=True)
        Image.new("L", (9, 9), colour).save(root / "zeroshot" / "noise" / name / f"{name}.png")
        shutil.copy(root / "zeroshot" / "noise" / name / f"{name}.png", tmp_path)
    monkeypatch.setattr("degla.model.load.load_encoder", lambda _: None)
    monkeypatch.setattr("degla.training.features.find_neighbours", lambda *_, **__: [])
    data = {"data.captions": str(captions), "data.images": str(tmp_path), "data.neighbours_per_pair": 1,
            "data.negatives_per_caption": 1}  # fmt: skip
    fields = {"world": None, "benchmarks": {"names": ["zeroshot"], "root": str(root)}, "base": str(tiny_model),
              "set": {**_TINY["set"], **data}, "rules": ["swap_adjectives"], "average": [1]}  # fmt: skip
    arms = [{"recipe": "negclip"}, {"recipe": "negclip", "label": "text", "data.text_column": "new"},
            {"recipe": "negclip", "label": "picture", "data.image_column": "old"},
            {"recipe": "negclip", "label": "folder", "data.images": str(root / "zeroshot/noise/a")}]  # fmt: skip
    plan = read_plan(_write(tmp_path, arms=arms, **fields))
    runs = expand(plan, where="plan")
    materials = prepare(plan, runs, out=tmp_path / "out")
    data_configs = [each.config.data for each in materials]
    assert [next(read_jsonl(NegativeRecord, each.negatives)).text for each in data_configs if each.negatives] == [
        "a blue dog on a red car", "a white cat on a black cup", *["a blue dog on a red car"] * 2,
    ]  # fmt: skip
    assert len({each.neighbours for each in data_configs}) == 4
    _, jobs = _jobs(runs, materials, CurrentQuestions(), out=tmp_path / "out")
    leaks = [job.leakage.overlaps[0].examples for job in jobs if job.leakage]
    assert leaks == [(f"zeroshot/noise/{name}/{name}.png",) for name in ("a", "a", "b", "a")]


def test_files_made_by_an_earlier_version_keep_their_names() -> None:
    columns = (
        "Columns(id='id', image='image', text='new', image_id='image_id', "
        "image_pattern='COCO_train2014_{image_id:012d}.jpg', optional=(), own=(), absent=())"
    )
    assert materials._read_as(DataConfig(text_column="new")) == ("auto", columns)
    assert materials._read_as(DataConfig()) == ()
    train, test = (materials._read_as(DataConfig(split=(split,))) for split in ("train", "test"))
    assert train != test and train and test, "negatives of other captions"


def test_images_and_classes_that_came_are_asked_about(
    tmp_path: Path, tiny_model: Path, tiny_pairs: dict[str, Path]
) -> None:
    """No annotation file lists them."""
    root = tmp_path / "data"
    for number in range(3):
        folder = root / "zeroshot" / "noise" / f"class {number}"
        folder.mkdir(parents=True)
        shutil.copy(tiny_pairs["images"] / f"00{number}.png", folder / "a.png")
    # More prompts than a rehearsal asks; all of them are asked here.
    prompts = {"templates": [f"{number} {{}}" for number in range(150)]}
    (root / "zeroshot" / "noise" / "classes.json").write_text(json.dumps(prompts))
    data = {"data.captions": str(tiny_pairs["captions"]), "data.images": str(tiny_pairs["images"])}
    fields = {"world": None, "benchmarks": {"names": ["zeroshot"], "root": str(root)}, "base": str(tiny_model),
              "set": {**_TINY["set"], **data, "data.negatives": str(tiny_pairs["negatives"])}}  # fmt: skip
    plan = read_plan(_write(tmp_path, arms=[{"recipe": "clip"}], **fields))

    def measured() -> tuple[int, int]:
        runs = expand(plan, where="plan")
        ((base,), _) = _jobs(runs, prepare(plan, runs, out=tmp_path / "out"), CurrentQuestions(), out=tmp_path / "out")
        done = tune(base)
        return done.measured, load_result(done.paths[0]).items_count

    assert [measured(), measured()] == [(1, 3), (0, 3)]
    shutil.copy(tiny_pairs["images"] / "003.png", root / "zeroshot" / "noise" / "class 2" / "b.png")
    assert [measured(), measured()] == [(1, 4), (0, 4)]


def test_questions_of_a_missing_image_are_not_asked_again(
    tmp_path: Path, tiny_model: Path, tiny_pairs: dict[str, Path]
) -> None:
    names = [f"00{number}.png" for number in range(3)]
    for name in names:
        shutil.copy(tiny_pairs["images"] / name, tmp_path)
    rows = [{"image": name, "caption": f"true {name}", "negative": f"false {name}"} for name in names]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def measured(*, allow_missing: bool) -> tuple[int, int]:
        questions = StudyQuestions(("own",), tmp_path, "", allow_missing)
        measures = (Measure("base", 1.0, tmp_path / f"{allow_missing}.json"),)
        items = CurrentQuestions().digests(questions)
        done = tune(Job("base", str(tiny_model), None, {}, measures, questions, items=items))
        return done.measured, load_result(done.paths[0]).items_count

    assert measured(allow_missing=False) == (1, 3)
    (tmp_path / names[0]).unlink()
    assert measured(allow_missing=False) == (0, 3), "deleted since"
    assert [measured(allow_missing=True), measured(allow_missing=True)] == [(1, 2), (0, 2)]


@pytest.mark.parametrize("captions", ["captions.jsonl", "pairs.tar"])
def test_images_in_or_beside_the_captions_need_no_folder(
    captions: str, tmp_path: Path, tiny_model: Path, tiny_pairs: dict[str, Path]
) -> None:
    pairs, root = tmp_path / "pairs", tmp_path / "data"
    shutil.copytree(tiny_pairs["images"], pairs)
    shutil.copy(tiny_pairs["captions"], pairs / "captions.jsonl")
    with tarfile.open(pairs / "pairs.tar", "w") as archive:
        for number, record in enumerate(read_jsonl(CaptionRecord, tiny_pairs["captions"])):
            archive.add(tiny_pairs["images"] / record.image, f"{number:03}.png")
            about = tarfile.TarInfo(f"{number:03}.txt")
            about.size = len(record.text.encode())
            archive.addfile(about, io.BytesIO(record.text.encode()))
    for number in range(2):
        folder = root / "zeroshot" / "noise" / f"class {number}"
        folder.mkdir(parents=True)
        shutil.copy(tiny_pairs["images"] / f"00{number}.png", folder / "a.png")
    fields = {"world": None, "benchmarks": {"names": ["zeroshot"], "root": str(root)}, "base": str(tiny_model),
              "gain": "zeroshot", "kept": "noise", "average": [1],
              "set": {**_TINY["set"], "data.captions": str(pairs / captions)}}  # fmt: skip
    plan = read_plan(_write(tmp_path, arms=[{"recipe": "clip"}], **fields))
    runs = expand(plan, where="plan")
    _, (job,) = _jobs(runs, prepare(plan, runs, out=tmp_path / "out"), CurrentQuestions(), out=tmp_path / "out")
    assert tune(job).measured == 1 and job.inputs["images"] == str(pairs)


def test_all_models_of_a_job_are_asked_questions_that_are_read_once(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(benchmark: Benchmark, root: Path, *, allow_missing: bool) -> BenchmarkQuestions:
        read.append(benchmark.name)
        return ask(benchmark, root, allow_missing=allow_missing)

    job = _job(tmp_path / "run", drawn, train_steps=1)
    monkeypatch.setattr("degla.evaluation.run.ask", counting)
    assert tune(job).measured == 2 and read == ["world"]


def test_a_run_that_was_stopped_continues(tmp_path: Path, drawn: Path) -> None:
    whole = tune(_job(tmp_path / "whole", drawn, train_steps=6, **{"tracking.every_steps": 1}))
    assert len({load_result(path).model.fingerprint for path in whole.paths}) == 2, "two shares are one model"
    job = _job(tmp_path / "stopped", drawn, train_steps=6, **{"tracking.every_steps": 1})
    assert job.config is not None and job.config.out is not None
    metrics = job.config.out / "metrics.jsonl"
    record = Metrics.record

    def stopping(self: Metrics, step: int, **more: Any) -> None:
        record(self, step, **more)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Metrics, "record", stopping)
        stopped = tune(job)
    assert stopped.paths == () and "stopped at step" in stopped.notes[-1] and not job.measures[0].path.exists()
    rest = tune(job)
    assert "resumed from" in rest.notes[0] and rest.trained and rest.measured == 2
    for one, other in zip(whole.paths, rest.paths, strict=True):
        assert load_result(one).model.fingerprint == load_result(other).model.fingerprint
    assert rest.cost is not None and rest.cost.seconds > 0
    assert len(metrics.read_text().splitlines()) == 6


def test_a_run_that_ended_on_its_budget_is_measured_at_its_best(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = iter([0.9, 0.9, 0.5])
    monkeypatch.setattr(Validation, "_measure", lambda *_: {"composition": 0.5, "recognition": next(curve)})
    job = _job(tmp_path, drawn, train_steps=4, average=[0.25, 1])
    assert job.config is not None and job.config.out is not None
    watched = ValidationConfig(benchmarks=("world",), root=job.questions.root, every_steps=1)
    job = replace(job, config=replace(job.config, validation=watched, stop=StopConfig(max_forgetting=1.0)))
    done = tune(job)
    run = job.config.out if job.config is not None else None
    assert run is not None and sorted(path.name for path in run.glob("step-*")) == ["step-1", "step-2"]
    assert done.trained and f"its best checkpoint is measured: {run / 'step-1'}" in done.notes[-1]
    tuned = load_encoder(str(run / "step-1"))
    models = [tuned, average_weights(load_encoder(job.base), tuned, share=0.25)]
    measured = [load_result(measure.path).model.fingerprint for measure in job.measures]
    assert measured == [model.fingerprint for model in models]
    assert not list(run.rglob("optimizer.pt")) and not list(run.rglob("teacher.safetensors"))
    again = tune(job)
    assert not again.trained and again.measured == 0 and again.paths == done.paths


def test_given_data_is_the_same_as_drawn_data(tmp_path: Path, drawn: Path) -> None:
    (pairs,) = drawn.glob("pairs-*")
    (benchmark,) = drawn.glob("benchmark-*")
    (negatives,) = drawn.glob("negatives-*.jsonl")
    shutil.copy(negatives, tmp_path / "other.jsonl")
    fields = {"data.captions": str(pairs / "captions.jsonl"), "data.images": str(pairs / "images")}
    files = [str(negatives), "other.jsonl"]
    arms = [{"recipe": "degla", "data.negatives": files}, {"recipe": "degla", "label": "made"}, {"recipe": "clip"}]
    plan = read_plan(
        _write(
            tmp_path, world=None, benchmarks={"names": ["world"], "root": str(benchmark)}, arms=arms,
            set=_TINY["set"] | fields,
        )
    )  # fmt: skip
    own = prepare(plan, expand(plan, where="plan"), out=tmp_path / "out")
    world = _plan_of(tmp_path / "world", train_steps=2)
    shutil.copytree(drawn, tmp_path / "world" / "out" / "data")
    other = prepare(world, expand(world, where="plan"), out=tmp_path / "world" / "out")
    assert own[0].questions.digest == other[0].questions.digest and own[0].questions.benchmarks == ("world",)
    wanted = {name: other[0].inputs[name] for name in ("captions", "negatives")}
    assert all(run.inputs | wanted == run.inputs for run in own[:3]), "equal contents under other names"
    assert own[0].inputs["images"] == str(pairs / "images")
    assert own[2].config.data.negatives is not None and own[2].config.data.negatives.parent == tmp_path / "out/data"
    (tmp_path / "other.jsonl").write_text((tmp_path / "other.jsonl").read_text() + "\n")
    changed = prepare(plan, expand(plan, where="plan"), out=tmp_path / "out")
    assert changed[0].inputs == own[0].inputs and changed[1].inputs != own[1].inputs


def test_negatives_that_were_edited_are_refused(tmp_path: Path) -> None:
    """They were believed, since they were complete, and counted as those of the rules."""
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"id": "1", "image": "a.jpg", "text": "A red dog sits beside a black cat."}) + "\n")

    def make() -> str:
        data = DataConfig(captions=captions)
        return materials._negatives(
            tmp_path / "out", ("swap_adjectives",), data=data, seed=0, digest="", digests={}
        ).read_text()

    before = make()
    (file,) = (tmp_path / "out").glob("negatives-*.jsonl")
    assert make() == before and "A black dog" in before
    file.write_text(before.replace("A black dog", "A blue dog"))
    message = (
        r"negatives-.*\.jsonl: was changed after it was made, or negatives-.*\.sha256, its checksum, was\. Delete it"
    )
    with pytest.raises(InputError, match=message):
        make()
    file.unlink()
    assert make() == before


def test_the_world_is_drawn_as_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[dict[str, Any]] = []

    def draw(folder: Path, **options: Any) -> Any:
        draws.append(options)
        return folder

    monkeypatch.setattr(materials, "draw_pairs", draw)
    monkeypatch.setattr(materials, "draw_benchmark", draw)
    scenes = {"scenes": 7, "captions_per_image": 2, "partners": True, "scenes_seed": 4}
    questions = {"split": "validation", "items_per_part": 8, "images_per_class": 9, "retrieval_images": 10}
    plan = Plan.model_validate({"world": scenes | questions | {"questions_seed": 5}, "arms": [{"recipe": "clip"}]})
    other = plan.model_copy(update={"world": WorldData(**scenes, **questions | {"split": "test"})})
    folders = [make(each, tmp_path) for make in (materials._pairs, materials._questions) for each in (plan, other)]
    assert draws[0] == draws[1] == {"count": 7, "captions_per_image": 2, "partners": True, "seed": 4}
    assert draws[2:] == [questions | {"seed": 5}, questions | {"split": "test", "seed": 0}]
    assert folders[0] == folders[1] and folders[2] != folders[3]
    truth = plan.model_copy(update={"world": WorldData(**scenes | {"contexts": "truth"})})
    folders.append(materials._pairs(truth, tmp_path))
    assert draws[-1] == draws[0] | {"contexts": True} and folders[-1] not in folders[:-1]


def test_a_world_with_longer_captions_has_them_beside_its_own(tmp_path: Path, drawn: Path) -> None:
    shutil.copytree(drawn, tmp_path / "out" / "data")
    fields = {"world": _TINY["world"] | {"contexts": True}, "arms": [{"recipe": "context_clip"}]}
    plan = read_plan(_write(tmp_path, **fields))
    (material,) = prepare(plan, expand(plan, where="plan"), out=tmp_path / "out")
    config = material.config
    assert config.data.captions is not None
    longer = list(read_jsonl(CaptionRecord, config.data.captions))
    plain = list(read_jsonl(CaptionRecord, config.data.captions.with_name("captions.jsonl")))
    assert [each.model_copy(update={"positives": ()}) for each in longer] == plain
    assert all(len(each.positives) == 1 and each.text.lower() in each.positives[0].lower() for each in longer)


def test_a_score_that_no_benchmark_has(tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(drawn, tmp_path / "out" / "data")
    path = _write(tmp_path, arms=[{"recipe": "clip"}], gain="compositon")
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--processes", "1"]) == 2
    error = capsys.readouterr().err
    assert "field 'gain'" in error and "Did you mean 'composition'?" in error
    assert not (tmp_path / "out" / "results").exists(), "the base was measured before it was said"
    assert "add a benchmark that has it" in error


def test_replicates_draw_anew_and_leave_finished_runs_alone(tmp_path: Path, drawn: Path, base: str) -> None:
    plan = _plan_of(tmp_path, train_steps=2)
    shutil.copytree(drawn, tmp_path / "out" / "data")
    before = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    job = _job(tmp_path, drawn, train_steps=2)
    assert tune(job).trained
    world = {"scenes_seed": 1, "questions_seed": 2, "base": str(job.config and job.config.out)}
    replicates = [{"negatives_seed": 3}, {"name": "world", **world}]
    arms = [{"recipe": "degla"}, {"recipe": "clip", "data.negatives_per_caption": 0}]
    fields = {"set": _TINY["set"], "average": [1], "replicates": replicates}
    plan = read_plan(_write(tmp_path, arms=arms, **fields))
    runs = expand(plan, where="plan")
    # Arms that read no negatives would give the same result again.
    assert [run.title for run in runs] == [
        "degla, seed 0", "clip, seed 0", "degla [negatives 3], seed 0", "degla [world], seed 0", "clip [world], seed 0",
    ]  # fmt: skip
    materials = prepare(plan, runs, out=tmp_path / "out")
    bases, jobs = _jobs(runs, materials, CurrentQuestions(), out=tmp_path / "out")
    assert [job.base for job in bases] == [base, world["base"]]
    assert jobs[0].config == job.config and jobs[0].inputs == job.inputs and not tune(jobs[0]).trained
    files = [measure.path for each in (*bases, *jobs) for measure in each.measures]
    folders = [each.config.out for each in jobs if each.config is not None]
    assert len(set(files)) == len(files) and len(set(folders)) == len(folders)

    names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    new = set(names) - set(before)
    assert {name.partition("-")[0] for name in new} == {"pairs", "benchmark", "negatives"} and len(before) == 5
    assert sum(name.endswith("-seed-1") for name in new) == 1 and sum(name.endswith("-seed-2") for name in new) == 1
    first, _, negatives, other, _ = jobs
    assert (
        negatives.inputs["negatives"] not in ("", first.inputs["negatives"])
        and negatives.questions.root == first.questions.root
    )
    assert {**negatives.inputs, "negatives": ""} == {**first.inputs, "negatives": ""}
    assert other.questions.digest != first.questions.digest and other.inputs["images"] != first.inputs["images"]
    assert other.inputs["negatives"] not in ("", first.inputs["negatives"]), "made of its own captions"
    assert other.base == world["base"] and other.config is not None and other.config.model == world["base"]

    fewer = [{**row, "arms": ["clip"]} for row in replicates]
    runs = expand(read_plan(_write(tmp_path, arms=arms, **{**fields, "replicates": fewer})), where="plan")
    assert [run.title for run in runs] == ["degla, seed 0", "clip, seed 0", "clip [world], seed 0"]


def test_a_folder_that_another_study_writes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, arms=[{"recipe": "clip"}])
    with lock(tmp_path / "out"):
        before = sorted((tmp_path / "out").iterdir())
        assert main(["study", str(path), "--out", str(tmp_path / "out"), "--processes", "1"]) == 2
        assert sorted((tmp_path / "out").iterdir()) == before, "nothing was written"
    error = capsys.readouterr().err.strip()
    assert f"in use by process {os.getpid()} on " in error and len(error.splitlines()) == 1


def test_the_folder_of_a_training_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, arms=[{"recipe": "clip"}])
    run = tmp_path / "run" / "step-2"
    run.mkdir(parents=True)
    for name in ("state.json", "open_clip_model.safetensors"):
        (run / name).touch()
    assert main(["study", str(path), "--out", str(run.parent), "--processes", "1"]) == 2
    assert "run: already holds a training run. Choose another --out." in capsys.readouterr().err
    assert list(run.parent.iterdir()) == [run], "nothing was written"


@pytest.mark.parametrize("name", ["study.html", "study.md", "study.tex", "frontier.svg"])
def test_a_file_of_the_users_own_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = _write(tmp_path, arms=[{"recipe": "clip"}])
    file = tmp_path / "out" / name
    file.parent.mkdir()
    file.write_text("mine")
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--processes", "1"]) == 2
    assert f"out: holds {name} of no study, which this one would replace." in capsys.readouterr().err
    assert list(file.parent.iterdir()) == [file] and file.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "other"),
    [("runs/clip-0/1-digit/record.json", "tasks in sequence"), ("world/benchmark-4/items.jsonl", "a demo")],
)
def test_the_folder_of_other_work_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, other: str
) -> None:
    path = _write(tmp_path, arms=[{"recipe": "clip"}])
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.touch()
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--processes", "1"]) == 2
    assert f"out: already holds {other}. Choose another --out." in capsys.readouterr().err and file.exists()


@pytest.mark.parametrize("inner", [".", "1-digit"])
def test_a_run_of_the_user_is_not_replaced(tmp_path: Path, drawn: Path, inner: str) -> None:
    job = _job(tmp_path, drawn, train_steps=2)
    assert job.config is not None and job.config.out is not None
    own = job.config.out / inner / "step-9"
    own.mkdir(parents=True)
    for name in ("state.json", "open_clip_model.safetensors"):
        (own / name).touch()
    with pytest.raises(InputError, match="is not of this study, which would replace it"):
        tune(job)
    assert own.is_dir()


def test_a_study_killed_while_it_clears_a_run_goes_on(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(_job(tmp_path, drawn, train_steps=2))
    job = _job(tmp_path, drawn, train_steps=3)
    with monkeypatch.context() as context:
        listed = Path.iterdir
        context.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path))))
        context.setattr("degla.study.tuning.shutil.rmtree", lambda path: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            tune(job)
    assert tune(job).trained


def test_the_list_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, arms=[{"recipe": "clip", "optim.lr": ["1e-4", "2e-4"]}], seeds=2)
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--list", "--set", "seeds=[7]"]) == 0
    assert capsys.readouterr() == ("clip lr 1e-4, seed 7\nclip lr 2e-4, seed 7\n", "")
    assert not (tmp_path / "out").exists()
    own = {"data.captions": "no.jsonl", "data.images": str(tmp_path), "data.negatives": "hf://datasets/a/b/c.jsonl"}
    path = _write(
        tmp_path, arms=[{"recipe": "clip"}], set=_TINY["set"] | own, world=None,
        benchmarks={"names": ["zeroshot"], "root": "no"},
    )  # fmt: skip
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--list"]) == 0
    missing = [f"{tmp_path / name}: no such file or folder, which the plan reads" for name in ("no", "no.jsonl")]
    assert capsys.readouterr() == ("clip, seed 0\n", "\n".join([*missing, ""]))


def test_only_methods_with_steps_state_steps(tmp_path: Path) -> None:
    questions = StudyQuestions(("world",), tmp_path, "digest")
    trained = replace(TrainConfig(), train=replace(TrainConfig().train, steps=20), out=tmp_path)
    chains = [Job(label, "base", config, {}, (Measure(label, 1.0, tmp_path / label),), questions).alone
              for label, config in ((BASE, None), ("clip", trained))]  # fmt: skip
    watch = Watch(chains, log=logging.getLogger("test"), when_ended=lambda number, ended: None)
    assert [watch._describe(number, []) for number in range(2)] == [
        f"{BASE}: being measured", "clip, seed 0: 0 of 20"
    ]  # fmt: skip
    assert watch._describe(1, [{"step": 5, "loss": 0.25}]) == "clip, seed 0: 5 of 20, loss 0.250"
    assert watch._describe(1, [{"step": 20, "loss": 0.25}]) == "clip, seed 0: being measured"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What a watch and its progress log: threads that earlier tests left may log, too, and set the root's level."""
    names = ("test", "degla.progress")
    for name in names:
        caplog.set_level(logging.INFO, logger=name)
    own = get_ident()
    return lambda: "\n".join(row.getMessage() for row in caplog.records if row.name in names and row.thread == own)


def test_steps_of_an_earlier_call_are_no_speed(
    tmp_path: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = StudyQuestions(("world",), tmp_path, "digest")
    config = replace(TrainConfig(), train=replace(TrainConfig().train, steps=20), out=tmp_path)
    chains = [
        Job("clip", "base", config, {}, (Measure("clip", 1.0, tmp_path / str(number)),), questions).alone
        for number in range(4)
    ]
    for number in range(2):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    with Watch(chains, log=logging.getLogger("test"), when_ended=lambda number, ended: None) as watch:
        for number in range(2):
            watch.ended(number, Ended((JobResult((tmp_path / str(number),)),)))
        assert "/s" not in told()
        watch.ended(2, Ended((JobResult((tmp_path / "2",), trained=True),)))
    assert "training steps: 60 of 80" in told() and "/s" in told()


def test_the_time_left_counts_workers_and_the_runs_under_way(
    tmp_path: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base and eight runs of 600 s by four workers: 20 minutes in all, after the base."""
    questions = StudyQuestions(("world",), tmp_path, "digest")
    chains = [
        Job(label, "base", config, {}, (Measure(label, 1.0, tmp_path / label),), questions).alone
        for label, config in ((BASE, None), *((f"run {number}", TrainConfig()) for number in range(8)))
    ]
    now = [0.0]
    monkeypatch.setattr("degla.study.conduct.time", SimpleNamespace(monotonic=lambda: now[0]))
    watch = Watch(chains, log=logging.getLogger("test"), when_ended=lambda number, ended: None)
    monkeypatch.setattr(watch, "_advance", lambda steps: None, raising=False)

    def end(number: int, *, at: float, seconds: float, then: list[int]) -> str:
        now[0] = at
        watch.ended(
            number, Ended((JobResult((tmp_path / "result",), trained=number > 0, measured=True),), seconds=seconds)
        )
        watch.show(then)
        return told().splitlines()[-1]

    watch.show([0, 1, 2, 3])
    assert "left" not in end(0, at=5, seconds=5, then=[1, 2, 3, 4]), "a base does not say how long a run takes"
    assert end(1, at=600, seconds=600, then=[2, 3, 4, 5]).endswith("done in 600 s; about 10.0 min left")
    for number in (2, 3):
        end(number, at=600, seconds=600, then=[4, 5, 6, 7])
    end(4, at=605, seconds=600, then=[5, 6, 7, 8])
    assert end(5, at=1200, seconds=600, then=[6, 7, 8]).endswith("about 2 s left")


def test_a_run_whose_process_alone_was_stopped_is_not_called_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    questions = StudyQuestions(("world",), tmp_path, "digest")
    chain = Job("clip", "base", TrainConfig(), {}, (Measure("clip", 1.0, tmp_path / "clip"),), questions).alone
    with Watch([chain], log=logging.getLogger("test"), when_ended=lambda number, ended: None) as watch:
        watch.ended(0, Ended((JobResult((), notes=("stopped at step 41",)),)))
    (row,) = (row for row in caplog.records if row.name == "test")
    assert row.levelno == logging.ERROR
    assert row.getMessage() == "1 of 1: clip, seed 0: not finished (stopped at step 41)"


def test_steps_of_a_stopped_job_are_no_speed(
    tmp_path: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = StudyQuestions(("world",), tmp_path, "digest")
    config = replace(TrainConfig(), train=replace(TrainConfig().train, steps=20), out=tmp_path)
    measures = (Measure("clip", 1.0, tmp_path / "result"),)
    chain = Job("clip", "base", config, {}, measures, questions, resume=True).alone
    (tmp_path / "metrics.jsonl").write_text('{"step": 18}\n')
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    with Watch([chain], log=logging.getLogger("test"), when_ended=lambda number, ended: None) as watch:
        watch.show([0])
        assert "/s" not in told()
        (tmp_path / "metrics.jsonl").write_text('{"step": 20}\n')
        watch.show([0])
    assert "training steps: 20 of 20" in told() and "/s" in told()


def test_a_run_that_did_not_finish_counts_the_steps_that_it_took(
    tmp_path: Path, told: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted in full. One that a limit ended early is finished."""
    questions = StudyQuestions(("world",), tmp_path, "digest")
    results = [tmp_path / str(number) for number in range(3)]
    train = replace(TrainConfig().train, steps=20)
    chains = [
        Job("clip", "base", replace(TrainConfig(), train=train, out=out), {}, (Measure("clip", 1.0, out / "result"),),
            questions).alone
        for out in results
    ]  # fmt: skip
    for out in results[1:]:
        out.mkdir()
        (out / "metrics.jsonl").write_text('{"step": 3}\n')
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    with Watch(chains, log=logging.getLogger("test"), when_ended=lambda number, ended: None) as watch:
        watch.ended(0, Ended(error="No space left."))
        watch.ended(1, Ended((JobResult((), notes=("stopped at step 3",)),)))
        watch._advance(0)
        assert watch._steps == [0, 3, 3]
        watch.ended(2, Ended((JobResult((results[2] / "result",), trained=True),)))
    assert "training steps: 23 of 60" in told()


def test_of_a_long_run_only_the_end_of_its_metrics_is_read(tmp_path: Path) -> None:
    questions = StudyQuestions(("world",), tmp_path, "digest")
    job = Job("clip", "base", replace(TrainConfig(), out=tmp_path), {}, (), questions)
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        file.truncate(3 << 30)  # A file with a hole: nobody could read all of it twice a second.
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"step": 4, "loss": 0.5}\n{"step": 5, "loss": 0.25}\n')
    assert _last_metrics(job) == {"step": 5, "loss": 0.25}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_log_on_a_full_disk_hides_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.log").symlink_to("/dev/full")
    with pytest.raises(DeglaError, match="no run finished"), open_log(tmp_path):
        logging.getLogger("degla.study").error("clip: failed")
        raise DeglaError("no run finished")
    assert "Traceback" not in capsys.readouterr().err
