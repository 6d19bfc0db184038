"""Benchmark images that a model was fine-tuned on are found, by COCO id and by content, and told."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from degla.cli import main
from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.errors import InputError
from degla.evaluation import overlap
from degla.evaluation.comparison import compare
from degla.evaluation.overlap import (
    TrainingImages,
    coco_id,
    find_leakage,
    images_of_training,
    joined_images,
    training_images,
)
from degla.evaluation.report import report
from degla.evaluation.results import load_result, save_result
from degla.evaluation.run import Evaluation, training_seed_of
from degla.evaluation.terminal import render_result
from degla.evaluation.trainings import (
    ReplayedPairs,
    TrainedPairs,
    Training,
    Trainings,
    joined_trainings,
    training_of,
    trainings_of,
)
from degla.export.run import To, export
from degla.model.checkpoint import save_encoder
from degla.model.integrity import write_state
from degla.model.load import load_encoder
from degla.records import CaptionRecord, Original, write_jsonl
from degla.training.loop import train
from tests.evaluation.fake_encoders import spreading
from tests.tiny import write_model
from tests.training.configs import tiny_config


def training(folder: Path, *names: str) -> TrainingImages:
    return TrainingImages((folder / "captions.jsonl",), frozenset(folder / name for name in names))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("000000391895.jpg", "000000391895"),
        ("COCO_val2014_000000391895.jpg", "000000391895"),
        ("COCO_train2014_000000000009.jpg", "000000000009"),
        ("v7w_2410049.jpg", None),
        ("2410049.jpg", None),
        ("1007129816.jpg", None),
        ("0000003918950.jpg", None),
        ("VisualDialog_val2018_000000254080.jpg", None),
    ],
)
def test_ids_of_coco(name: str, number: str | None) -> None:
    assert coco_id(name) == number


def test_images_are_found_by_id_and_by_content(tmp_path: Path) -> None:
    mine, root = tmp_path / "mine", tmp_path / "root"
    (mine / "deep").mkdir(parents=True)
    (root / "coco").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (9, 9), (40 * number, 0, 0)).save(root / f"{number}.png")
    # 0 is there under another name; 1 has the same size in bytes but another content; 2 is another size.
    shutil.copy(root / "0.png", mine / "deep" / "other.png")
    raw = bytearray((root / "1.png").read_bytes())
    raw[-1] ^= 1
    (mine / "1.png").write_bytes(raw)
    (mine / "2.png").write_bytes(b"x")
    Image.new("RGB", (9, 9)).save(root / "coco" / "000000000042.jpg")
    images = training(
        mine, "deep/other.png", "1.png", "2.png", "COCO_train2014_000000000042.jpg", "gone.png", "null\0", "a" * 5000
    )
    paths = ["0.png", "1.png", "2.png", "3.png", "coco/000000000042.jpg", "0.png"]
    leakage = find_leakage(images, [("a", paths), ("b", ["3.png"])], root=root)
    first, second = leakage.overlaps
    assert (first.images, first.by_id, first.by_content, first.shared) == (5, 1, 1, 2)
    assert first.examples == ("coco/000000000042.jpg", "0.png")
    assert (second.images, second.shared) == (1, 0)
    assert leakage.captions == ("captions.jsonl",) and leakage.images == 7
    assert find_leakage(joined_images([images, images]), [], root=root).captions == ("captions.jsonl",), "trained twice"


def test_packed_images_are_found_by_the_ids_of_their_originals(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "000000000042.jpg")
    original = Original(name="train2014/COCO_train2014_000000000042.jpg", bytes=5, sha256="0" * 64)
    images = TrainingImages((tmp_path / "captions.jsonl",), frozenset(), frozenset([original]))
    (overlap,) = find_leakage(images, [("a", ["000000000042.jpg"])], root=tmp_path).overlaps
    assert (overlap.by_id, overlap.by_content) == (1, 0)


def test_only_files_of_the_very_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(b"x" * number)
    names: list[str] = []
    whole = overlap._digest
    monkeypatch.setattr(overlap, "_digest", lambda file, modified: names.append(file.name) or whole(file, modified))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.png").write_bytes(b"y" * 7)
    images = training(tmp_path, *(f"{number}.png" for number in range(20)))
    assert find_leakage(images, [("a", ["a.png"])], root=tmp_path / "root").overlaps[0].shared == 0
    assert names == ["7.png"]


def test_remote_files_are_asked_about_and_read_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    together = threading.Barrier(3, timeout=20)
    content, state = overlap.content_digest, overlap._state_of
    asked: set[Path] = set()

    def read(root: Path, path: str) -> str:
        if root != tmp_path:
            together.wait()
        return content(root, path)

    def ask(file: Path) -> tuple[int, int] | None:
        if file not in asked:
            asked.add(file)
            together.wait()
        return state(file)

    monkeypatch.setattr(overlap, "content_digest", read)
    monkeypatch.setattr(overlap, "_state_of", ask)
    for number in range(3):
        files.pipe_file(f"/leak/{number}.png", b"%d" % number)
        (tmp_path / f"mine {number}.png").write_bytes(b"%d" % (number + 1))
    images = training(Path("memory://leak"), "0.png", "1.png", "2.png")
    (found,) = find_leakage(images, [("a", ["mine 0.png", "mine 1.png", "mine 2.png"])], root=tmp_path).overlaps
    assert found.by_content == 2 and len(asked) == 3


def test_an_image_of_a_size_that_no_training_image_has_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"x" * 5)
    (tmp_path / "theirs.png").write_bytes(b"x" * 6)
    (overlap,) = find_leakage(training(tmp_path, "mine.png"), [("a", ["theirs.png"])], root=tmp_path).overlaps
    assert (overlap.images, overlap.shared, overlap.examples) == (1, 0, ())


def test_every_training_image_of_a_size_is_looked_at(tmp_path: Path) -> None:
    for name in "abc":
        for whose in ("mine", "theirs"):
            (tmp_path / f"{whose}-{name}.png").write_bytes(name.encode() * 5)
    paths, images = [f"theirs-{name}.png" for name in "abc"], [f"mine-{name}.png" for name in "abc"]
    (overlap,) = find_leakage(training(tmp_path, *images), [("a", paths)], root=tmp_path).overlaps
    assert (overlap.images, overlap.by_content, overlap.examples) == (3, 3, tuple(paths))
    # One that has an id of COCO too is counted once.
    (tmp_path / "000000000042.jpg").write_bytes(b"d" * 5)
    both = training(tmp_path, *images, "000000000042.jpg")
    (overlap,) = find_leakage(both, [("a", [*paths, "000000000042.jpg"])], root=tmp_path).overlaps
    assert (overlap.images, overlap.by_id, overlap.by_content) == (4, 1, 3)


@pytest.fixture
def run(small_root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on two of the small benchmark's pictures, begun from a run trained on a third."""
    folder = tmp_path_factory.mktemp("runs")
    for name, images, base in (
        ("first", ["5.png"], str(tiny_model)),
        ("second", ["0.png", "1.png"], str(folder / "first")),
    ):
        rows = [{"id": f"{name}{image}", "image": image, "text": "a", "image_id": image} for image in images]
        captions = folder / f"{name}.jsonl"
        captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = TrainConfig(model=base, data=DataConfig(captions=captions, images=small_root))
        save_encoder(load_encoder(str(tiny_model)), folder / name / "step-3")
        for place in (folder / name, folder / name / "step-3"):
            (place / "config.json").write_text(json.dumps(to_plain(config)))
        write_state(folder / name / "step-3", {"step": 3, "steps": 3, "data": {}})
    return folder / "second"


def test_a_run_and_its_base_model_are_identified(run: Path, small_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place in (run, run / "step-3"):
        images = training_images(str(place))
        assert images is not None
        assert sorted(file.name for file in images.files) == ["0.png", "1.png", "5.png"]
        assert [path.name for path in images.captions] == ["second.jsonl", "first.jsonl"]
    assert training_images("ViT-B-32-quickgelu:openai") is None
    assert training_images("world") is None
    assert not caplog.records
    (run.parent / "first.jsonl").unlink()
    assert training_images(str(run)) is None
    assert "cannot check whether benchmark images were trained on" in caplog.text and "first.jsonl" in caplog.text


def test_a_damaged_configuration_is_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [CaptionRecord(id="1", image="a.jpg", text="a dog", image_id="1")])
    config = {"data": {"captions": str(tmp_path / "c.jsonl")}, "replay": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: field 'replay': .* Restore the file\.$"):
        training_images(str(tmp_path))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "must be one JSON object, got an empty list"),
        ('{"data": 3}', "field 'data': "),
        ('{"data": ["c.jsonl"]}', r"field 'data\.0': "),
        ('{"data": [{"seed": 1}]}', r"field 'data\.0\.data': "),
        ('{"data": [{"data": "c.jsonl"}]}', r"field 'data\.0\.data': "),
        ('{"data": [{"data": {"captions": 3}}]}', r"field 'data\.0\.data\.captions': "),
        ('{"data": [{"data": {"captions": ""}}]}', r"field 'data\.0\.data\.captions': "),
        ('{"data": [{"data": {"captions": "c.jsonl"}, "seed": "one"}]}', r"field 'data\.0\.seed': "),
        ('{"data": [{"data": {"captions": "c.jsonl"}, "replay": 3}]}', r"field 'data\.0\.replay': "),
        ('{"data": [{"data": {"captions": "c.jsonl"}, "later": 3}]}', r"field 'data\.0\.later': "),
        ('{"trainings": []}', "field 'trainings': "),
    ],
)
def test_a_damaged_record_is_the_same_error_for_every_command(
    run: Path, tiny_model: Path, tmp_path: Path, small_root: Path, record: str, message: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "degla_training.json").write_text(record)
    expected = rf"model/degla_training\.json:? {message}.* Restore the file, update degla if .*, or delete it: "
    commands: list[Callable[[], object]] = [
        lambda: training_images(str(model)),
        lambda: training_seed_of(str(model)),
        lambda: Evaluation(["small"], small_root, progress=False).score_named(str(model)),
        lambda: export(str(model), to="open_clip", out=tmp_path / "out"),
    ]
    for command in commands:
        with pytest.raises(InputError, match=expected):
            command()
    (model / "degla_training.json").unlink()
    assert training_images(str(model)) is None


def test_models_that_a_record_names_as_not_found_are_passed_on(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    training = Training(data=TrainedPairs(captions=str(run.parent / "first.jsonl")))
    Trainings(data=(training,), unknown=("runs/gone",)).write(model)
    images = training_images(str(model))
    assert images is not None and images.unknown == ("runs/gone",)
    again = export(str(model), to="open_clip", out=tmp_path / "again").folder
    assert trainings_of(str(again)).unknown == ("runs/gone",)


def test_a_record_that_a_checkpoint_does_not_vouch_for_is_damaged(run: Path) -> None:
    Trainings(unknown=("runs/gone",)).write(run / "step-3")
    state = {"step": 3, "steps": 3, "data": {}}
    write_state(run / "step-3", state)
    assert trainings_of(str(run)).unknown == ("runs/gone",)
    Trainings(unknown=("runs/lost",)).write(run / "step-3")
    with pytest.raises(InputError, match=r"degla_training\.json: damaged: .*There is no intact checkpoint before it"):
        trainings_of(str(run))


def test_images_of_captions_that_name_none_are_those_of_the_pattern(small_root: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('[{"image_id": 3, "original": "a", "enhanced": ["b"]}]')
    data = DataConfig(captions=tmp_path / "c.json", images=small_root, image_pattern="{image_id}.png")
    (images,) = images_of_training(training_of(to_plain(TrainConfig(data=data))))
    assert images.files == {small_root / "3.png"}


def test_second_and_replayed_images_are_trained_on_too(small_root: Path, tmp_path: Path) -> None:
    row = {"id": "1", "image": "0.png", "text": "a", "image_id": "0"}
    (tmp_path / "c.jsonl").write_text(json.dumps(row | {"distractor_image": "1.png", "distractor_text": "b"}))
    (tmp_path / "r.jsonl").write_text(json.dumps(row | {"image": "2.png"}))
    own, replayed = (DataConfig(captions=tmp_path / name, images=small_root) for name in ("c.jsonl", "r.jsonl"))
    config = TrainConfig(data=own, replay=replace(TrainConfig().replay, data=replayed))
    trainings = images_of_training(training_of(to_plain(config)))
    assert [sorted(file.name for file in each.files) for each in trainings] == [["0.png", "1.png"], ["2.png"]]


@pytest.mark.usefixtures("undrawn")
def test_result_and_report_say_so(run: Path, small_root: Path, tmp_path: Path) -> None:
    result = Evaluation(["small"], small_root, progress=False).score(spreading(), training=training_images(str(run)))
    save_result(result, tmp_path / "tuned.json")
    again = load_result(tmp_path / "tuned.json")
    assert again.leakage == result.leakage and again.leakage is not None
    (leak,) = again.leakage.overlaps
    assert (leak.benchmark, leak.images, leak.by_id, leak.by_content) == ("small", 6, 0, 3)
    (warning,) = compare([tmp_path / "tuned.json"]).warnings
    assert warning == (
        "Small, fake: 3 of 6 benchmark images are in the training data (3 by content), for example 0.png."
    )
    seeds = [tmp_path / f"seed-{seed}.json" for seed in (0, 1)]
    for seed, path in enumerate(seeds):
        save_result(result.model_copy(update={"training_seed": seed}), path)
    assert compare(seeds).warnings.count(warning) == 1
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_result(result))
    assert warning in capture.get()
    data = report([tmp_path / "tuned.json"], out=tmp_path / "report.html")
    assert data["methods"][0]["training_data"] == ["second.jsonl, first.jsonl: 3 images, among them 3 of 6 of small"]
    assert "3 of 6 benchmark images are in the training data" in (tmp_path / "report.html").read_text()
    assert "training data: second.jsonl" in (tmp_path / "report.md").read_text()
    unknown = Evaluation(["small"], small_root, progress=False).score(spreading())
    save_result(unknown, tmp_path / "base.json")
    assert report([tmp_path / "base.json"], out=tmp_path / "report.html")["methods"][0]["training_data"] == [
        "not known"
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_base_that_is_not_found_is_told(run: Path, small_root: Path, tmp_path: Path) -> None:
    first = run.parent / "first"
    first.rename(run.parent / "elsewhere")
    training = training_images(str(run))
    assert training is not None and sorted(file.name for file in training.files) == ["0.png", "1.png"]
    result = Evaluation(["small"], small_root, progress=False).score(spreading(), training=training)
    save_result(result, tmp_path / "tuned.json")
    known, unknown = compare([tmp_path / "tuned.json"]).warnings
    assert "2 of 6 benchmark images are in the training data" in known
    assert unknown == (
        f"fake: was fine-tuned from {first}, which is not found: what that was trained on is not counted."
    )
    (data,) = report([tmp_path / "tuned.json"], out=tmp_path / "report.html")["methods"][0]["training_data"]
    assert data.endswith(f"2 of 6 of small; that of {first} is not known")


@pytest.mark.parametrize(
    ("base", "unknown"),
    [
        ("photo", ()),
        ("ViT-B-32:openai", ()),
        ("", ()),
        ("runs/gone", ("runs/gone",)),
        ("memory://me:secret@here/gone", ("memory://here/gone",)),
    ],
)
def test_only_a_folder_can_be_missing(run: Path, base: str, unknown: tuple[str, ...]) -> None:
    for file in run.rglob("config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model": base}))
    training = training_images(str(run))
    assert training is not None and training.unknown == unknown


def test_runs_that_are_the_base_of_each_other_count_once(tmp_path: Path) -> None:
    """As when the first is trained again, on the second; runs of earlier versions record no trainings of their base."""
    for name, base in (("first", "second"), ("second", "first")):
        (tmp_path / name).mkdir()
        config = {"model": str(tmp_path / base), "data": {"captions": f"{name}.jsonl"}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert trainings_of(str(tmp_path / "first")).captions == ["first.jsonl", "second.jsonl"]


@pytest.mark.usefixtures("undrawn")
def test_averages_of_a_tuned_model_are_looked_at_too(
    run: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    for name, number in (("red", 0), ("blue", 3)):
        (root / "zeroshot" / "colours" / name).mkdir(parents=True)
        shutil.copy(tmp_path / f"{number}.png", root / "zeroshot" / "colours" / name / "a.png")
    words = ["interpolate", str(tiny_model), str(run), "--alphas", "0", "0.5", "--benchmarks", "zeroshot", "--root"]
    words += [str(root), "--no-cache", "--gain", "colours", "--kept", "colours", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    warning = "1 of 2 benchmark images are in the training data (1 by content)"
    assert warning in " ".join(capsys.readouterr().out.split())
    assert warning in json.loads((tmp_path / "out" / "sweep.json").read_text())["warnings"][0]
    assert warning in (tmp_path / "out" / "report.html").read_text()
    assert load_result(tmp_path / "out" / "results" / "alpha-0.json").leakage is None


def test_the_command_looks_by_itself(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name, number in (("red", 0), ("blue", 3)):
        (root / "zeroshot" / "colours" / name).mkdir(parents=True)
        shutil.copy(tmp_path / f"{number}.png", root / "zeroshot" / "colours" / name / "a.png")
    words = ["evaluate", str(run), "--benchmarks", "zeroshot", "--root", str(root), "--no-cache", "--json"]
    assert main([*words, "--out", str(tmp_path / "out.json")]) == 0
    leakage = load_result(tmp_path / "out.json").leakage
    assert leakage is not None
    assert (leakage.overlaps[0].images, leakage.overlaps[0].by_content) == (2, 1)


def _retrain(run: Path, image: str) -> None:
    """Let a run's configuration name another image, as if it had been trained again on other data."""
    captions = run.parent / "other.jsonl"
    captions.write_text(json.dumps({"id": "1", "image": image, "text": "a", "image_id": image}))
    config = json.loads((run / "config.json").read_text())
    data = config["data"] | {"captions": str(captions)}
    (run / "config.json").write_text(json.dumps(config | {"data": data}))


def _names(model: Path | str) -> list[str] | None:
    images = training_images(str(model))
    return None if images is None else sorted(file.name for file in images.files)


@pytest.mark.parametrize("to", ["open_clip", "transformers", "onnx"])
def test_an_export_keeps_what_was_trained_on(run: Path, tmp_path: Path, to: To) -> None:
    pytest.importorskip("onnxruntime")
    out = export(str(run), to=to, out=tmp_path / "out").folder
    run.rename(run.parent / "elsewhere")
    assert _names(out) == ["0.png", "1.png", "5.png"]
    if to == "open_clip":
        again = export(str(out), to=to, out=tmp_path / "again").folder
        assert _names(again) == _names(f"ViT-B-32:{again / 'open_clip_model.safetensors'}") == _names(out)
        assert "Fine-tuned by degla on `second.jsonl`, `first.jsonl`." in (again / "README.md").read_text()


def test_a_model_without_training_gets_no_record(tiny_model: Path, tmp_path: Path) -> None:
    out = export(str(tiny_model), to="open_clip", out=tmp_path / "out").folder
    assert not (out / "degla_training.json").exists() and training_images(str(out)) is None


def test_a_record_that_is_passed_on_has_no_passwords(tmp_path: Path) -> None:
    data = {"captions": "s3://me:secret@bucket/c.json", "id_column": "key", "workers": 8, "digests": {"images": "1"}}
    replayed = {"data": {"captions": "https://me:secret@here/r.json"}}
    Trainings.model_validate({"data": [{"data": data, "replay": replayed, "model": "s3://me:secret@b/m"}]}).write(
        tmp_path
    )
    expected = Training(
        data=TrainedPairs(captions="s3://bucket/c.json", id_column="key", digests={"images": "1"}),
        replay=ReplayedPairs(data=TrainedPairs(captions="https://here/r.json")),
        model="s3://b/m",
    )
    assert Trainings.read(tmp_path) == Trainings(data=(expected,))


def test_a_training_that_two_models_share_is_counted_once() -> None:
    first, second = (Training(data=TrainedPairs(captions=name)) for name in ("first.jsonl", "second.jsonl"))
    tuned = Trainings(data=(second, first), unknown=("runs/gone",))
    other = Trainings(data=(first,), unknown=("runs/gone", "runs/lost"))
    assert joined_trainings([tuned, other]) == Trainings(data=(second, first), unknown=("runs/gone", "runs/lost"))


@pytest.mark.usefixtures("undrawn")
def test_an_average_keeps_what_both_were_trained_on(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = run.parent / "other"
    shutil.copytree(run.parent / "first", other)
    _retrain(other, "3.png")
    root = tmp_path / "data"
    for name, number in (("red", 0), ("blue", 3)):
        (root / "zeroshot" / "colours" / name).mkdir(parents=True)
        shutil.copy(tmp_path / f"{number}.png", root / "zeroshot" / "colours" / name / "a.png")
    words = ["interpolate", str(other), str(run), "--alphas", "0", "0.5", "1", "--benchmarks", "zeroshot", "--root"]
    words += [str(root), "--no-cache", "--gain", "colours", "--kept", "colours", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shared, captions = [], []
    for alpha in ("0", "0.5", "1"):
        leakage = load_result(tmp_path / "out" / "results" / f"alpha-{alpha}.json").leakage
        assert leakage is not None
        shared.append(leakage.overlaps[0].shared)
        captions.append(leakage.captions)
    assert shared == [1, 2, 1]
    # The tuned model comes first: its training is the last one of an average.
    second = ("second.jsonl", "first.jsonl")
    assert captions == [("other.jsonl",), (*second, "other.jsonl"), second]
    chosen = json.loads((tmp_path / "out" / "sweep.json").read_text())["chosen"]["alpha"]
    expected = {0: ["3.png"], 0.5: ["0.png", "1.png", "3.png", "5.png"], 1: ["0.png", "1.png", "5.png"]}
    assert _names(tmp_path / "out" / "chosen") == expected[chosen]


def test_a_run_records_what_its_base_was_trained_on(
    run: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("clip", model=run, pairs=tiny_pairs, out=tmp_path / "tuned", steps=4)
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=2))
    folder = train(config).folder
    found = _names(folder)
    assert found is not None and {"0.png", "1.png", "5.png"} < set(found)
    names = [Path(each.data.captions).name for each in trainings_of(str(folder)).data]
    assert names == [tiny_pairs["captions"].name, "second.jsonl", "first.jsonl"], "the newest first"
    _retrain(run, "3.png")
    assert _names(folder) == found
    shutil.rmtree(folder)
    seen: list[Trainings] = []
    monkeypatch.setattr("degla.training.validation.Validation.read", lambda *_, earlier, **__: seen.append(earlier))
    assert _names(train(config, resume=True).folder) == found
    assert [Path(each.data.captions).name for each in seen[0].data] == ["second.jsonl", "first.jsonl"]
    assert "3.png" in (_names(run) or [])


@pytest.mark.usefixtures("undrawn")
def test_seed_and_base_are_those_of_the_last_training(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, small_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    run = train(tiny_config("clip", model=base, pairs=tiny_pairs, out=tmp_path / "run", steps=2)).folder.parent
    out = export(str(run), to="open_clip", out=tmp_path / "out").folder
    evaluation = Evaluation(["small"], small_root, progress=False)

    def told(*models: Path) -> list[str]:
        for number, model in enumerate(models):
            save_result(evaluation.score_named(str(model), label=f"model {number}"), tmp_path / f"{number}.json")
        results = [tmp_path / f"{number}.json" for number in range(len(models))]
        tuned = load_result(results[-1])
        assert (tuned.training_seed, tuned.model.base) == (3, str(base))
        return [warning for warning in compare(results, baseline="model 0").warnings if "fine-tuned from" in warning]

    assert told(base, run) == told(base, out) == []
    shutil.rmtree(base)
    write_model(base, seed=1)
    for model in (run, run / "step-2", out):
        assert told(base, model) == [
            f"model 1: was fine-tuned from {base} when it had other weights than were scored as model 0, so their "
            "difference is not what the training changed."
        ]
    words = ["interpolate", str(base), str(run), "--alphas", "1", "--benchmarks", "own", "--root", str(tmp_path)]
    (tmp_path / "own" / "images").mkdir(parents=True)
    shutil.copy(tmp_path / "0.png", tmp_path / "own" / "images" / "a.png")
    row = {"image": "a.png", "caption": "a cat on a mat", "negative": "a mat on a cat"}
    (tmp_path / "own" / "questions.jsonl").write_text(json.dumps(row))
    words += [
        "--gain",
        "questions",
        "--kept",
        "questions",
        "--keep",
        "0",
        "--no-cache",
        "--out",
        str(tmp_path / "sweep"),
    ]
    assert main(words) == 0
    assert "other weights than were scored as base" in (tmp_path / "sweep" / "sweep.json").read_text()
    for first, second, swapped in ((run, tiny_model, True), (run, out, False)):  # The latter as in a sequence.
        words[1:3] = str(first), str(second)
        caplog.clear()
        assert main(words) == 0
        note = f"the base ({first}) was fine-tuned from the tuned model ({second}). Are the two swapped?"
        assert (note in caplog.text) == swapped == (note in (tmp_path / "sweep" / "sweep.json").read_text())
