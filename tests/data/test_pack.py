"""Packed pairs: readable by WebDataset, the same rows in training, images of the chosen size; scaled decoding."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from degla.cli import main
from degla.data import pack as pack_module
from degla.data.dataset import ImageTransform, RandomCrop
from degla.data.decoding import ImageError
from degla.data.images import read_image, read_part
from degla.evaluation.overlap import find_leakage, images_of_pairs
from degla.evaluation.trainings import TrainedPairs
from degla.locks import lock
from degla.model.runs import checkpoints
from degla.training.loop import train
from tests.training.configs import tiny_config

Pairs = dict[str, Path]


def _smooth(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 60, size[0] // 60, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def packed(tiny_pairs: Pairs, tmp_path: Path) -> Pairs:
    out = tmp_path / "pack"
    words = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--negatives",
             str(tiny_pairs["negatives"]), "--out", str(out), "--size", "34", "--per-shard", "5",
             "--quality", "95"]  # fmt: skip
    assert main(words) == 0
    return {"captions": out / "captions.jsonl", "images": out, "negatives": out / "negatives.jsonl"}


def test_shards_are_what_webdataset_reads(packed: Pairs, tiny_pairs: Pairs) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in packed["images"].glob("*.tar"))
    assert len(shards) == 3
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(samples) == 12
    captions = [row for sample in samples for row in sample["json"]["captions"]]
    originals = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    assert {(row["id"], row["text"]) for row in captions} == {(row["id"], row["text"]) for row in originals}
    assert all(1 <= len(row["negatives"]) <= 3 for row in captions)
    assert {sample["jpg"].size for sample in samples} == {(34, 38)}


def test_optional_columns_and_second_pictures_are_packed_too(
    tiny_pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()][:3]
    rows[0] |= {"positives": ["said otherwise"], "label": "dog"}
    rows[1] |= {"distractor_image": "011.png", "distractor_text": "another scene"}
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "own pack"
    words = ["pack", str(captions), "--images", str(tiny_pairs["images"]), "--out", str(out), "--size", "34"]
    assert main(words) == 0
    flags = shlex.split(capsys.readouterr().out.rpartition("Train with: ")[2])
    assert flags == ["--data.captions", str(out / "captions.jsonl"), "--data.images", str(out)], "quoted for a shell"
    records = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert records[0]["positives"] == ["said otherwise"] and records[0]["label"] == "dog"
    assert records[1]["distractor_text"] == "another scene"
    partner = np.asarray(read_image(records[1]["distractor_image"], folder=out, caption_id="1"), dtype=float)
    originals = {
        name: np.asarray(read_image(name, folder=tiny_pairs["images"], caption_id="1").resize((34, 38)), dtype=float)
        for name in ("011.png", rows[1]["image"], rows[2]["image"])
    }
    gaps = {name: np.abs(partner - original).mean() for name, original in originals.items()}
    assert min(gaps, key=gaps.__getitem__) == "011.png" and gaps["011.png"] < 0.6 * gaps[rows[1]["image"]]


def test_every_caption_points_at_its_own_picture(packed: Pairs, tiny_pairs: Pairs) -> None:
    names = {row["id"]: row["image"] for row in map(json.loads, tiny_pairs["captions"].read_text().splitlines())}
    rows = [json.loads(line) for line in packed["captions"].read_text().splitlines()]
    assert len(rows) == 24
    originals = {}
    for name in set(names.values()):
        whole = read_image(name, folder=tiny_pairs["images"], caption_id="1")
        originals[name] = np.asarray(whole.resize((34, 38), Image.Resampling.BICUBIC), dtype=float)
    for row in rows:
        small = np.asarray(read_image(row["image"], folder=packed["images"], caption_id=row["id"]), dtype=float)
        nearest = min(originals, key=lambda name: np.abs(small - originals[name]).mean())
        assert nearest == names[row["id"]]


def test_training_on_a_pack_resumes_bit_for_bit(packed: Pairs, tiny_model: Path, tmp_path: Path) -> None:
    whole = tiny_config("degla", model=tiny_model, pairs=packed, out=tmp_path / "whole", steps=8)
    outcome = train(whole)
    half = replace(whole, out=tmp_path / "half", checkpoint=replace(whole.checkpoint, every_steps=3))
    train(half)
    for later in checkpoints(tmp_path / "half"):
        if later.name != "step-3":
            (later / "state.json").unlink()
    resumed = train(half, resume=True)
    name = "open_clip_model.safetensors"
    from safetensors.torch import load_file

    left, right = load_file(outcome.folder / name), load_file(resumed.folder / name)
    assert all((value == right[key]).all() for key, value in left.items())


def test_a_cut_off_shard_and_a_missing_one_are_reported(packed: Pairs, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads(packed["captions"].read_text().splitlines()[-1])
    shard = packed["images"] / row["image"].partition("@")[0]
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(ImageError, match=r"the shard ends before byte \d+; pack it again"):
        read_image(row["image"], folder=packed["images"], caption_id=row["id"])
    shard.unlink()
    with pytest.raises(ImageError, match="is missing"):
        read_image(row["image"], folder=packed["images"], caption_id=row["id"])
    assert main(["pack", "x.jsonl", "--images", str(packed["images"]), "--out", "o", "--size", "3"]) == 2
    assert "--size is 3" in capsys.readouterr().err


def test_a_used_folder_is_refused(packed: Pairs, tiny_pairs: Pairs, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--out", str(packed["images"])]
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err


def test_negatives_of_other_captions_are_refused(
    tiny_pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "other.jsonl", tmp_path / "pack"
    words = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--out", str(out),
             "--negatives", str(other)]  # fmt: skip
    rows = [json.loads(line) for line in tiny_pairs["negatives"].read_text().splitlines()]
    other.write_text("".join(json.dumps(row | {"caption_id": "elsewhere"}) + "\n" for row in rows))
    assert main(words) == 2
    message = capsys.readouterr().err
    assert f"Caption ids in {tiny_pairs['captions']}: " in message and f"in {other}: 'elsewhere'" in message
    assert not out.exists()


def test_a_full_disk_is_one_line_and_the_same_command_packs_again(
    tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    words = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--out", str(out),
             "--size", "34", "--per-shard", "5"]  # fmt: skip
    original = pack_module._add

    def full(tar: tarfile.TarFile, name: str, content: bytes) -> int:
        if name.startswith("000000007"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(tar, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "_add", full)
        assert main(words) == 1
    message = capsys.readouterr().err.strip()
    assert "pairs-000001.tar: cannot be written: the disk is full." in message and len(message.splitlines()) == 1
    assert not out.exists(), "an incomplete pack leaves no files"
    assert main(words) == 0 and (out / "captions.jsonl").is_file()


def test_a_killed_pack_is_made_again_and_nothing_else_is_deleted(
    packed: Pairs, tiny_pairs: Pairs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = packed["images"]
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    words = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--negatives",
             str(tiny_pairs["negatives"]), "--out", str(out), "--size", "34", "--per-shard", "5",
             "--quality", "95"]  # fmt: skip
    # What a kill leaves.
    (out / "pack.json").write_text(json.dumps({"complete": False}))
    (out / "pairs-000002.tar").rename(out / "pairs-000002.tar.partial")
    (out / "captions.jsonl").rename(out / "captions.jsonl.host-12-0.partial")
    (out / "mine.txt").write_text("of the user")
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err and (out / "pairs-000000.tar").is_file()
    (out / "mine.txt").unlink()
    with monkeypatch.context() as patch:
        deleted, unlink = list[str](), Path.unlink

        def killed(path: Path, **options: bool) -> None:
            if len(deleted) > 1:
                raise KeyboardInterrupt
            deleted.extend([path.name] if path.parent == out and path.name != ".lock" else [])
            unlink(path, **options)

        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            pack_module._make_empty(out)
    assert len(deleted) == 2, "killed again, while the rest was deleted"
    assert main(words) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_a_pack_that_is_being_written_says_by_whom(
    tiny_pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--out", str(tmp_path / "o")]
    with lock(tmp_path / "o"):
        assert main(words) == 2
    message = capsys.readouterr().err.strip()
    assert f"in use by process {os.getpid()} on " in message and len(message.splitlines()) == 1
    assert main(words) == 0


@pytest.mark.parametrize("orientation", [1, 6, 3])
@pytest.mark.parametrize("size", [(640, 480), (500, 1200)])
def test_scaled_decoding_is_close_and_decodes_less(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _smooth(size).save(tmp_path / "a.jpg", quality=95, exif=exif)
    crop = RandomCrop(ImageTransform(size=100, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    whole = crop(read_image("a.jpg", folder=tmp_path, caption_id="1"), Random(3))
    rng = Random(3)
    part = read_part("a.jpg", folder=tmp_path, caption_id="1", draw=lambda full: crop.draw(full, rng), least=100)
    assert 100 <= min(part.size) < 350, "decoded in full"
    gap = (crop.finish(part) - whole).abs()
    assert gap.mean() < 0.03 and gap.max() < 0.25, "on a range of 2"


def test_files_that_cannot_be_scaled_give_the_same_pixels(tmp_path: Path) -> None:
    _smooth((640, 480)).save(tmp_path / "a.png")
    _smooth((120, 130)).save(tmp_path / "b.jpg")
    crop = RandomCrop(ImageTransform(size=100, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    for name in ("a.png", "b.jpg"):
        rng = Random(1)
        part = read_part(name, folder=tmp_path, caption_id="1", draw=lambda full: crop.draw(full, rng), least=100)  # noqa: B023
        whole = crop(read_image(name, folder=tmp_path, caption_id="1"), Random(1))
        assert (crop.finish(part) == whole).all()
    with pytest.raises(ImageError, match="is missing"):
        read_image("none.tar@0+5", folder=tmp_path, caption_id="1")


def test_what_a_pack_was_made_of_is_found_among_benchmark_images(
    packed: Pairs, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """Packed images are other files with other names, but training on them is still leakage."""
    root = tmp_path / "root"
    root.mkdir()
    first, *_ = sorted(tiny_pairs["images"].iterdir())
    shutil.copy(first, root / "renamed.jpg")
    Image.new("RGB", (9, 9)).save(root / "new.png")
    data = TrainedPairs(captions=str(packed["captions"]), images=str(packed["images"]))
    (overlap,) = find_leakage(images_of_pairs(data), [("b", ["renamed.jpg", "new.png"])], root=root).overlaps
    assert (overlap.images, overlap.by_content, overlap.examples) == (2, 1, ("renamed.jpg",))

    lines = packed["images"].joinpath("originals.jsonl").read_text().splitlines()
    assert len(lines) == 12
    named = json.loads(lines[0]) | {"name": "train/COCO_train2014_000000000042.jpg", "sha256": "0" * 64}
    packed["images"].joinpath("originals.jsonl").write_text(json.dumps(named) + "\n")
    Image.new("RGB", (9, 9)).save(root / "000000000042.jpg")
    (overlap,) = find_leakage(images_of_pairs(data), [("b", ["000000000042.jpg"])], root=root).overlaps
    assert (overlap.by_id, overlap.by_content) == (1, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "31"], "--size is 31; it must be from 32 to 4096"),
        (["--quality", "96"], "--quality is 96; it must be from 1 to 95"),
        (["--per-shard", "0"], "--per-shard is 0; it must be from 1 to 1000000"),
        (["--workers", "257"], "--workers is 257; it must be from 1 to 256"),
    ],
)
def test_settings_out_of_range_are_named_by_their_flags(
    words: list[str], message: str, tiny_pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pack", str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--out", str(tmp_path / "p")]
    assert main([*command, *words]) == 2 and f"degla: {message}.\n" == capsys.readouterr().err
    assert not (tmp_path / "p").exists()
