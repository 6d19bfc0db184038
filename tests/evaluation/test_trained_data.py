"""Captions and images that were edited after a training are reported wherever they are compared with benchmarks."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
from PIL import Image

from degla.config.fields import change, check_unchanged, from_plain, read_config, to_plain
from degla.config.run import ReplayConfig, ReplayDataConfig, TrainConfig
from degla.evaluation import overlap
from degla.evaluation.caveats import of_training
from degla.evaluation.cells import provenance
from degla.evaluation.comparison import compare
from degla.evaluation.overlap import digest_of_sizes, find_leakage, sizes_of, training_images
from degla.evaluation.results import save_result
from degla.evaluation.run import Evaluation
from degla.evaluation.trainings import training_of
from degla.export.run import export
from degla.losses import Contrastive, losses_by_name
from degla.training.loop import train
from degla.training.rows import image_sizes, read_rows
from tests.training.configs import interrupted, tiny_config

Pairs = dict[str, Path]


@pytest.fixture
def pairs(tiny_pairs: Pairs, tmp_path: Path) -> Pairs:
    """A copy of the tiny pairs that a test may edit, and captions to replay."""
    folder = tmp_path / "pairs"
    shutil.copytree(tiny_pairs["captions"].parent, folder)
    names = ("images/again.png", "images/000.png")
    rows = [{"id": name, "image": name, "text": "a cow", "image_id": name} for name in names]
    rows[0] |= {"distractor_image": "images/second.png", "distractor_text": "a sow"}  # Only some recipes read these.
    (folder / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (40, 40)).save(folder / "images" / "again.png")
    return {name: folder / file.name for name, file in tiny_pairs.items()}


def _config(model: Path, pairs: Pairs, out: Path) -> TrainConfig:
    replayed = ReplayDataConfig(captions=pairs["captions"].with_name("again.jsonl"), negatives_per_caption=0)
    objective = losses_by_name(contrastive=Contrastive())
    config = tiny_config("clip", model=model, pairs=pairs, out=out)
    return replace(config, replay=ReplayConfig(data=replayed, objective=objective, batch_size=2))


def _changed(model: Path) -> tuple[str, ...]:
    images = training_images(str(model))
    assert images is not None
    return images.changed


def test_what_changed_after_the_training_is_named(tiny_model: Path, pairs: Pairs, tmp_path: Path) -> None:
    config = interrupted(_config(tiny_model, pairs, tmp_path / "run"), tmp_path / "run")
    captions, images = pairs["captions"], pairs["images"]
    again = captions.with_name("again.jsonl")
    # The same rows in another form are the same data. What the run began with counts, not what it was resumed with.
    rows = [json.loads(line) for line in captions.read_text().splitlines()]
    captions.write_text("".join(json.dumps(dict(reversed(row.items()))) + "\n" for row in rows))
    first = (images / "003.png").read_bytes()
    (images / "003.png").write_bytes(first + b"x")
    run = train(config, resume=True).folder.parent
    out = export(str(run), to="open_clip", out=tmp_path / "out").folder
    for model in (run, run / "step-4", out):
        assert _changed(model) == ("the images of captions.jsonl",)
    (images / "003.png").write_bytes(first)
    edits: dict[str, tuple[Path, Callable[[bytes], bytes]]] = {
        "captions.jsonl": (captions, lambda content: content.replace(b'"text": "a red', b'"text": "a blue')),
        "captions.jsonl ": (captions, lambda content: content.replace(b'"image": "003.png"', b'"image": "004.png"')),
        "again.jsonl": (again, lambda content: content.replace(b'images/again.png"', b'images/003.png"')),
        "the images of again.jsonl": (images / "again.png", lambda content: content + b"x"),
    }
    for name, (file, edit) in edits.items():
        before = file.read_bytes()
        file.write_bytes(edit(before))
        assert file.read_bytes() != before
        assert _changed(run) == _changed(out) == (name.strip(),)
        file.write_bytes(before)
        assert _changed(run) == _changed(out) == ()
    (images / "again.png").unlink()
    assert _changed(run) == ("the images of again.jsonl",)


def test_images_that_are_elsewhere_are_said_to_be(
    tiny_model: Path, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Absolute captions and relative images: from another folder, no image is there."""
    monkeypatch.chdir(pairs["images"].parent)
    run = train(_config(tiny_model, pairs | {"images": Path(pairs["images"].name)}, tmp_path / "run")).folder
    assert _changed(run) == () and "is there" not in caplog.text
    monkeypatch.chdir(tmp_path)
    assert _changed(run) == ("the images of captions.jsonl",)
    assert "images: none of the images of captions.jsonl is there. A run's relative paths are relative" in caplog.text


def test_second_images_that_no_training_read_may_lack_a_text(tiny_model: Path, pairs: Pairs, tmp_path: Path) -> None:
    rows = [json.loads(line) | {"distractor_image": "003.png"} for line in pairs["captions"].read_text().splitlines()]
    pairs["captions"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = train(tiny_config("clip", model=tiny_model, pairs=pairs, out=tmp_path / "run")).folder
    images = training_images(str(run))
    assert images is not None and images.files == {pairs["images"] / row["image"] for row in rows}


def test_each_size_is_read_once(
    tiny_model: Path, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(_config(tiny_model, pairs, tmp_path / "run")).folder
    first, again = pairs["images"] / "003.png", pairs["images"] / "again.png"
    again.unlink()
    again.mkdir()
    images = training_images(str(run))
    assert images is not None and images.sizes[first] == first.stat().st_size
    unsized = {again, pairs["images"] / "second.png"}
    assert images.files - images.sizes.keys() == unsized
    asked, state_of = [], overlap._state_of
    monkeypatch.setattr(overlap, "_state_of", lambda file: asked.append(file) or state_of(file))
    assert find_leakage(images, [], root=tmp_path).images == len(images.files)
    assert len(asked) == 2 and {*asked} == unsized
    shutil.copy(first, tmp_path / "renamed.png")
    (leak,) = find_leakage(images, [("own", ["renamed.png"])], root=tmp_path).overlaps
    assert leak.by_content == 1


def test_rows_that_were_left_out_are_no_change(tiny_model: Path, pairs: Pairs, tmp_path: Path) -> None:
    (pairs["images"] / "005.png").unlink()
    config = _config(tiny_model, pairs, tmp_path / "run")
    run = train(replace(config, data=replace(config.data, bad_images="skip"))).folder
    assert _changed(run) == ()
    again = pairs["captions"].with_name("again.jsonl")
    again.write_text(again.read_text().replace("a cow", "a calf"))
    assert _changed(run) == ("again.jsonl",)


def _with_splits(rows: list[dict[str, str]], splits: tuple[str, ...], file: Path) -> Path:
    """Write rows as Karpathy's json, with these splits in turn."""
    images = [
        {"filename": row["image"], "split": split, "sentences": [{"raw": row["text"], "sentid": n}]}
        for n, (row, split) in enumerate(zip(rows, cycle(splits)))
    ]
    file.write_text(json.dumps({"images": images}))
    return file


def test_sizes_are_recorded_of_local_images_that_are_not_too_many(
    tiny_model: Path, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").write_bytes(b"abc")
    expected = hashlib.sha256(b"a b 3\ngone None\nnull\0 None\n").hexdigest()
    assert digest_of_sizes(sizes_of(tmp_path, ["null\0", "gone", "a b", "gone"])) == expected, "as in older checkpoints"
    config = _config(tiny_model, pairs, tmp_path / "run")
    tables = [read_rows(stream.data) for stream in config.streams]
    sizes = image_sizes(config, tables)
    assert sizes.keys() == {"image sizes", "replay image sizes"}
    far = replace(config, data=replace(config.data, images=Path("memory://images")))
    assert image_sizes(far, tables) == {"replay image sizes": sizes["replay image sizes"]}
    monkeypatch.setattr("degla.training.rows._MOST_ROWS_WITH_SIZES", len(tables[1]))
    assert image_sizes(config, tables) == image_sizes(far, tables)
    recorded = {"captions": "c", "image sizes": "s", "replay captions": "r"}
    first, again = training_of(to_plain(config), digests=recorded).pairs
    assert (first.digests, again.digests) == ({"captions": "c", "image sizes": "s"}, {"captions": "r"})


def test_only_the_splits_trained_on_count(tiny_model: Path, pairs: Pairs, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in pairs["captions"].read_text().splitlines()]
    file = _with_splits(rows, ("train", "test"), pairs["captions"].with_name("dataset_coco.json"))
    config = _config(tiny_model, pairs, tmp_path / "run")
    config = replace(config, data=replace(config.data, captions=file, split=("train",)), replay=ReplayConfig())
    half, whole = (read_rows(replace(config.data, split=(split,))) for split in ("train", "all"))
    assert (len(half), len(whole)) == (len(rows) // 2, len(rows)), "a table in the cache is of its splits only"
    found = training_images(str(train(config).folder))
    assert found is not None and not found.changed
    assert found.files == {pairs["images"] / row["image"] for row in rows[::2]}


def test_the_order_of_splits_does_not_count(tiny_model: Path, pairs: Pairs, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in pairs["captions"].read_text().splitlines()]
    file = _with_splits(rows, ("train", "test", "restval"), tmp_path / "dataset_coco.json")
    config = replace(_config(tiny_model, pairs, tmp_path / "run"), replay=ReplayConfig())
    config = replace(config, data=replace(config.data, captions=file, split=("train", "restval")))
    table = read_rows(config.data)
    assert table.images() == {row["image"] for n, row in enumerate(rows) if n % 3 != 1}
    assert [row.caption.id for row in table] == [str(n) for n in range(len(rows)) if n % 3 != 1], "the file's order"
    again = change(config, {"data.split": ["restval", "train", "restval"]}, where="")
    assert read_rows(again.data).source == table.source
    interrupted(config, tmp_path / "run")
    check_unchanged(read_config(tmp_path / "run"), again)
    assert train(again, resume=True).finished
    # Records of earlier versions have the order of the flag.
    plain = to_plain(config)
    plain["data"]["split"] = ["train", "restval"]
    check_unchanged(from_plain(plain, where="config.json"), again)


def test_results_and_reports_say_so(
    tiny_model: Path, pairs: Pairs, small_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(_config(tiny_model, pairs, tmp_path / "run")).folder.parent
    (pairs["images"] / "003.png").write_bytes(b"")
    result = Evaluation(["small"], small_root, progress=False).score_named(str(run), label="tuned")
    assert result.leakage is not None and result.leakage.changed == ("the images of captions.jsonl",)
    assert not result.leakage.is_sure and "none of the images" not in caplog.text
    save_result(result, tmp_path / "tuned.json")
    sentence = (
        "tuned: the images of captions.jsonl changed or moved after the training: benchmark images that were trained "
        "on may be missed, and others counted."
    )
    comparison = compare([tmp_path / "tuned.json"])
    assert sentence in comparison.warnings
    assert "changed or moved since: the images of captions.jsonl" in str(provenance(comparison.methods[0]))
    images = training_images(str(run))
    assert images is not None
    assert list(of_training("tuned", find_leakage(images, [], root=tmp_path), {})) == [sentence]
