"""Similar images: found by a model, written for training, read by it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from degla.cli import main
from degla.data.neighbours import NeighbourRecord
from degla.errors import InputError
from degla.model.load import load_encoder
from degla.records import CaptionRecord, read_jsonl
from degla.training.features import find_neighbours, nearest_rows
from degla.training.loop import train
from tests.training.configs import cut_off, tiny_config
from tests.training.gradient_worker import first_step


def test_nearest_rows_equal_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.training.features._BLOCK", 64)
    monkeypatch.setattr("degla.training.features._OTHERS", 128)  # The last ones are fewer than four.
    rows = np.random.default_rng(0).normal(size=(1027, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = nearest_rows(rows, count=4)
    for row in (0, 63, 64, 127, 128, 1023, 1024, 1026):
        order = [other for other in np.argsort(-(rows[row] @ rows.T), kind="stable") if other != row]
        assert nearest[row].tolist() == order[:4]


def test_pictures_of_one_colour_are_near(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    captions = []
    for number, colour in enumerate([(250, 0, 0), (0, 0, 250), (245, 5, 0), (0, 5, 245)]):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{number}.png")
        for caption in ("a", "b"):
            captions.append(
                CaptionRecord(id=f"{number}{caption}", image=f"{number}.png", text="x", image_id=str(number))
            )
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    captions.append(CaptionRecord(id="copy", image="copy.png", text="x", image_id="copy"))
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    with caplog.at_level("INFO", "degla"):
        rows = list(find_neighbours(captions, folder=tmp_path, encoder=load_encoder(str(tiny_model)), count=2, seed=1))
    assert "images: 4 of 4" in caplog.text, "embedding can take hours and must show progress"
    near = {record.caption_id: record.neighbours for record in rows}
    assert list(near) == [caption.id for caption in captions]
    partner = {"0": "2", "2": "0", "1": "3", "3": "1", "c": "2"}
    for name, neighbours in near.items():
        images = ["0" if other == "copy" else other[0] for other in neighbours]
        assert images[0] == partner[name[0]] and len(set(images)) == 2
    with pytest.raises(InputError, match=r"4 neighbours per caption cannot be found: .* 4 different images"):
        list(find_neighbours(captions, folder=tmp_path, encoder=load_encoder(str(tiny_model)), count=4))


def test_the_command_writes_what_training_reads(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "neighbours.jsonl"
    words = [str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--model", str(tiny_model)]
    assert main(["neighbours", *words, "--out", str(out)]) == 0
    assert "24 captions with 3 neighbours each" in capsys.readouterr().err
    records = list(read_jsonl(NeighbourRecord, out))
    images = {row["id"]: row["image"] for row in map(json.loads, tiny_pairs["captions"].open())}
    assert len(records) == 24
    for record in records:
        assert len({images[name] for name in record.neighbours} | {images[record.caption_id]}) == 4
    files = {**tiny_pairs, "neighbours": out}
    config = tiny_config("negclip_hard_images", model=tiny_model, pairs=files, out=tmp_path / "run", steps=2)
    assert train(config).finished
    assert main(["neighbours", *words, "--out", str(out), "--count", "0"]) == 2
    assert "--count is 0" in capsys.readouterr().err


@pytest.mark.parametrize(("damage", "message"), [(b"no image", "image"), (None, r"the base of relative paths")])
def test_a_picture_that_cannot_be_read_is_named_with_its_caption(
    damage: bytes | None, message: str, tiny_model: Path, tmp_path: Path
) -> None:
    captions = [CaptionRecord(id=f"caption-{n}", image=f"{n}.png", text="x", image_id=str(n)) for n in range(3)]
    for number in range(2):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
    if damage is not None:
        (tmp_path / "2.png").write_bytes(damage)
    with pytest.raises(InputError, match=rf"2\.png: the image of caption 'caption-2'.*{message}"):
        list(find_neighbours(captions, folder=tmp_path, encoder=load_encoder(str(tiny_model)), count=1))


def test_one_process_writes_neighbours(
    tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["ls", "losses"]) == 0, "a cluster may number its machines so"
    monkeypatch.setenv("LOCAL_RANK", "0")
    words = [str(tiny_pairs["captions"]), "--images", str(tiny_pairs["images"]), "--model", "no/model"]
    assert main(["neighbours", *words, "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "degla neighbours runs in a single process. Start it without torchrun." in capsys.readouterr().err


def test_similar_images_of_negclips_table(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    rows = list(map(json.loads, tiny_pairs["captions"].open()))
    places = {row["id"]: place for place, row in enumerate(rows)}
    lists = [json.loads(line) for line in tiny_pairs["neighbours"].open()]
    near = {row["caption_id"]: [places[name] for name in row["neighbours"]] for row in lists}
    table = tmp_path / "negclip.tsv"
    lines = [f"{row['id']}\t{row['text']}\t{near[row['id']]}" for row in rows]
    table.write_text("\n".join(["id\ttitle\tneg_image", *lines]) + "\n")
    weights = []
    for name, file in (("jsonl", tiny_pairs["neighbours"]), ("tsv", table)):
        files, out = {**tiny_pairs, "neighbours": file}, tmp_path / name
        assert train(tiny_config("negclip_hard_images", model=tiny_model, pairs=files, out=out, steps=2)).finished
        weights.append(load_file(next(out.glob("step-*/open_clip_model.safetensors"))))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_command_that_makes_missing_neighbours_names_the_image_folder(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """Also where --data.images is not given: it is the captions' own."""
    folder = shutil.copytree(tiny_pairs["images"], tmp_path / "pairs")
    captions = shutil.copy(tiny_pairs["captions"], folder / "captions.jsonl")
    config = tiny_config("negclip_hard_images", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    data = replace(config.data, captions=captions, images=None, neighbours=None)
    with pytest.raises(InputError, match=rf"degla neighbours {captions} --images {folder} --model MODEL"):
        train(replace(config, data=data))


def test_similar_images_of_a_resumed_run_are_those_of_the_whole_one(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    whole = tiny_config("negclip_hard_images", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "whole", steps=8)
    assert train(whole).finished
    # An epoch has six steps: the run continues in the second, whose images and crops differ.
    parts = replace(whole, out=tmp_path / "parts", checkpoint=replace(whole.checkpoint, every_steps=7))
    train(parts)
    cut_off(parts, at=7)
    assert main(["train", "--resume", str(tmp_path / "parts")]) == 0
    left, right = (load_file(tmp_path / name / "step-8" / "open_clip_model.safetensors") for name in ("whole", "parts"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    ("duplicates", "neighbours", "masked"),
    [("avoid", 0, False), ("avoid", 1, True), ("mask", 0, True), ("allow", 1, False)],
)
def test_similar_images_of_one_picture_are_no_negatives(
    duplicates: Any, neighbours: int, masked: bool, tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    config = tiny_config("read_clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    config = replace(config, data=replace(config.data, duplicates=duplicates, neighbours_per_pair=neighbours))
    _, _, trainer = first_step(config)
    masks = {name: term.mask_same_image for name, term in trainer.main.objective.active.items()}  # type: ignore[union-attr]
    assert masks == {"contrastive": masked, "text_contrast": masked}


def test_a_mask_that_no_loss_can_make_is_reported(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for recipe, warns in (("con_clip", True), ("clip", False)):
        config = tiny_config(recipe, model=tiny_model, pairs=tiny_pairs, out=tmp_path)
        caplog.clear()
        first_step(replace(config, data=replace(config.data, duplicates="mask")))
        message = "--data.duplicates mask has no effect: distractor cannot mask captions of the same image"
        assert (message in caplog.text) == warns
