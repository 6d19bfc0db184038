"""Optional columns: second images, additional true texts, classes, equal texts, similar images, chosen rules."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.data.batches import Batch
from degla.data.columns import Columns
from degla.data.extras import ExtraData, RowExtras, read_classes, write_extras
from degla.data.images import read_image
from degla.data.joining import join
from degla.data.neighbours import NeighbourRecord, Neighbours, write_neighbours
from degla.data.pairs import PairRow
from degla.data.randomness import random_for
from degla.data.sources import read_captions
from degla.data.table import ColumnFile, PairTable, table_of
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.records import OPTIONAL_FIELDS, CaptionRecord, CaptionUnit, NegativeRecord, read_jsonl, write_jsonl
from degla.training.pairs import Pairs, open_pairs
from degla.training.rows import read_pairs, read_rows
from tests.tiny import CLASSES
from tests.training.configs import tiny_config


def pairs_of(recipe: str, model: Path, files: dict[str, Path], out: Path, **data: Any) -> Pairs:
    config = tiny_config(recipe, model=model, pairs=files, out=out)
    config = replace(config, data=replace(config.data, **data))
    return open_pairs(config, encoder=load_encoder(str(model)), processes=Processes())


def first_batch(pairs: Pairs, epoch: int = 0) -> Batch:
    return next(iter(pairs.batches(epoch, start=0, device=torch.device("cpu"))))


def write_captions(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "captions.jsonl"


def rows_of(files: dict[str, Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files["captions"].read_text().splitlines()]


def test_optional_fields_survive_files_and_empty_ones_are_not_written(tmp_path: Path) -> None:
    full = CaptionRecord(
        id="1", image="a.png", text="a cat", image_id="a", positives=("one cat",), distractor_image="b.png",
        distractor_text="a dog", label="cat", units=(CaptionUnit(text="cat", foils=("dog",)),), concepts=("a cat",),
        masked_words=("black",),
    )  # fmt: skip
    plain = CaptionRecord(id="2", image="a.png", text="a cat", image_id="a")
    write_jsonl(tmp_path / "captions.jsonl", [full, plain])
    assert list(read_jsonl(CaptionRecord, tmp_path / "captions.jsonl")) == [full, plain]
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert lines[0].keys() == {"id", "image", "text", "image_id", *OPTIONAL_FIELDS}
    assert lines[1].keys() == {"id", "image", "text", "image_id"}


@pytest.mark.parametrize("form", ["jsonl", "parquet", "datasets"])
def test_only_fields_that_are_asked_for_are_read(form: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "image": "a.png", "text": "a cat", "image_id": "a", "label": 7, "positives": ["one cat"]},
        {"id": "2", "image": "a.png", "text": "a dog", "image_id": "a", "label": None, "positives": None},
    ]
    rows[0]["units"] = None
    rows[1]["units"] = [{"text": "a dog"}, {"text": "it runs", "foils": ["it sits"], "kind": "relation"}]
    path = tmp_path / f"captions.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif form == "datasets":
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = list(read_captions(path))
    assert [record.label for record in plain] == [None, None] and plain[0].positives == ()
    records = list(read_captions(path, columns=Columns(optional=OPTIONAL_FIELDS)))
    assert [record.label for record in records] == ["7", None]
    assert [record.positives for record in records] == [("one cat",), ()]
    assert records[0].distractor_image is None
    runs = CaptionUnit(text="it runs", foils=("it sits",), kind="relation")
    assert [record.units for record in records] == [(), (CaptionUnit(text="a dog"), runs)]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("positives", "one text", "field 'positives'"),
        ("distractor_image", "b.png", "require each other"),
        ("label", 1.5, "field 'label'"),
        ("units", [{"text": "a cat", "foils": ["A cat"]}], "a foil is empty or equals the text"),
    ],
)
def test_wrong_fields_are_named(field: str, value: Any, message: str, tmp_path: Path) -> None:
    path = write_captions(tmp_path, [{"id": "1", "image": "a.png", "text": "a cat", "image_id": "a", field: value}])
    with pytest.raises(InputError, match=rf"captions.jsonl line 1: .*{message}"):
        list(read_captions(path, columns=Columns(optional=OPTIONAL_FIELDS)))


def test_a_batch_holds_what_its_terms_read_and_no_more(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    plain = first_batch(pairs_of("negclip", tiny_model, tiny_pairs, tmp_path))
    assert not plain.extra
    extra = (batch := first_batch(pairs_of("con_clip", tiny_model, tiny_pairs, tmp_path))).extra
    assert extra.keys() == {"distractor_image", "distractor_caption", "distractor_valid"}
    assert extra["distractor_image"].shape == batch.image.shape
    assert extra["distractor_caption"].shape == batch.caption.shape
    by_id = {row["id"]: row for row in rows_of(tiny_pairs)}
    cases = set()
    for epoch in range(3):
        pairs = pairs_of("con_clip", tiny_model, tiny_pairs, tmp_path)
        other = first_batch(pairs, epoch)
        for place, name in enumerate(other.ids):
            has = "distractor_image" in by_id[name]
            cases.add(has)
            assert bool(other.extra["distractor_valid"][place]) == has
            same_image = torch.equal(other.extra["distractor_image"][place], other.image[place])
            same_text = torch.equal(other.extra["distractor_caption"][place], other.caption[place])
            assert (same_image, same_text) == (not has, not has)
            if has:  # With the crops that a resumed run of an earlier version would use.
                chance = random_for("partner crop", seed=pairs.plan.seed, epoch=epoch, index=list(by_id).index(name))
                partner = read_image(by_id[name]["distractor_image"], folder=tiny_pairs["images"], caption_id=name)
                assert torch.equal(other.extra["distractor_image"][place], pairs.dataset.transform(partner, chance))
    assert cases == {False, True}


def test_positives_are_drawn_anew_and_never_say_what_the_caption_says(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    for source in ("column", "same_image"):
        pairs = pairs_of("read_clip", tiny_model, tiny_pairs, tmp_path, positives=source)
        draws: dict[str, set[tuple[int, ...]]] = {}
        for epoch in range(4):
            for batch in pairs.batches(epoch, start=0, device=torch.device("cpu")):
                assert batch.extra["positive"].shape == (4, 1, batch.caption.shape[1])
                for place, name in enumerate(batch.ids):
                    if batch.extra["positive_valid"][place, 0]:
                        assert not torch.equal(batch.extra["positive"][place, 0], batch.caption[place])
                        text = [token for token in batch.extra["positive"][place, 0].tolist() if token]
                        draws.setdefault(name, set()).add(tuple(text))
        if source == "column":
            assert set(draws) == {row["id"] for row in rows_of(tiny_pairs) if row["positives"]}
            assert max(map(len, draws.values())) == 2 and min(map(len, draws.values())) == 1
        else:
            assert len(draws) == 24 and {len(texts) for texts in draws.values()} == {1}


def test_fewer_positives_than_places_stay_in_the_files_order(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """CLIC pulls a caption only to the first, and a composite whose last two texts are equal has two."""
    pairs = pairs_of("clic", tiny_model, tiny_pairs, tmp_path)
    by_id = {row["id"]: row for row in rows_of(tiny_pairs)}
    tokenize, count = load_encoder(str(tiny_model)).tokenize, 0
    for epoch in range(4):
        for batch in pairs.batches(epoch, start=0, device=torch.device("cpu")):
            assert batch.extra["positive"].shape[:2] == (4, 3)
            for name, texts, valid in zip(
                batch.ids, batch.extra["positive"], batch.extra["positive_valid"], strict=True
            ):
                if own := by_id[name]["positives"]:
                    count += len(own) == 2
                    assert torch.equal(texts[: len(own)], tokenize(own)[:, : texts.shape[-1]])
                assert valid.sum() == len(own)
    assert count >= 8


def test_a_text_that_comes_again_leaves_the_first_in_its_place(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    rows = [{**row, "positives": ["one", "two", "One."]} for row in rows_of(tiny_pairs)]
    files = {**tiny_pairs, "captions": write_captions(tmp_path, rows)}
    extras = pairs_of("clic", tiny_model, files, tmp_path / "run").dataset.extras
    assert extras.text_of("positive", epoch=0, index=0) == ["one", "two"]


def test_texts_of_the_same_image_are_positives_of_each_other(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    pairs = pairs_of("read_clip", tiny_model, tiny_pairs, tmp_path)
    by_id = {row["id"]: row for row in rows_of(tiny_pairs)}
    tokenize = load_encoder(str(tiny_model)).tokenize
    batch = first_batch(pairs)
    for place, name in enumerate(batch.ids):
        image, number = name.split("-")
        other = tokenize([by_id[f"{image}-{1 - int(number)}"]["text"]])[0, : batch.extra["positive"].shape[-1]]
        assert torch.equal(batch.extra["positive"][place, 0], other)


def test_both_sources_together_are_the_images_other_captions_and_the_column_of_all_of_them(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """READ-CLIP draws from all captions and paraphrases of the image, but for the caption itself."""
    rows = [{**row, "positives": [f"{row['text']} here", row["text"]]} for row in rows_of(tiny_pairs)]
    files = {**tiny_pairs, "captions": write_captions(tmp_path, rows)}
    config = tiny_config("read_clip", model=tiny_model, pairs=files, out=tmp_path / "run")
    config = replace(config, data=replace(config.data, positives="both", positives_per_caption=8))
    extras = open_pairs(config, encoder=load_encoder(str(tiny_model)), processes=Processes()).dataset.extras
    for number, row in enumerate(rows):
        (other,) = (each["text"] for each in rows if each["image"] == row["image"] and each["id"] != row["id"])
        texts = extras.text_of("positive", epoch=0, index=number)
        assert sorted(texts) == sorted([other, f"{row['text']} here", f"{other} here"])


def test_one_text_has_the_same_tokens_in_every_role(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """A caption, a negative, a positive and the text of a second image are tokenised alike, commas and all."""
    text = "a red square, above a blue circle, and no dog"
    row = {"image": "000.png", "image_id": "0"}
    captions = [
        {**row, "id": "1", "text": text, "positives": ["x"], "distractor_image": "001.png", "distractor_text": "y"},
        {**row, "id": "2", "text": "z", "positives": [text], "distractor_image": "001.png", "distractor_text": text},
        {**row, "id": "3", "text": "w", "positives": ["v"], "distractor_image": "001.png", "distractor_text": "u"},
    ]
    negatives = [{"caption_id": "3", "rule": "negation", "kind": "x", "text": text, "source": "t", "accepted": True}]
    (tmp_path / "negatives.jsonl").write_text(json.dumps(negatives[0]) + "\n")
    files = {**tiny_pairs, "captions": write_captions(tmp_path, captions), "negatives": tmp_path / "negatives.jsonl"}
    config = tiny_config("con_clip", model=tiny_model, pairs=files, out=tmp_path / "run", batch_size=3)
    objective = config.objective | {
        name: replace(config.objective[name], weight=1.0) for name in ("text_pull", "contrastive")
    }
    config = replace(config, objective=objective, data=replace(config.data, negatives_per_caption=1))
    batch = first_batch(open_pairs(config, encoder=load_encoder(str(tiny_model)), processes=Processes()))
    first, second, third = (batch.ids.index(name) for name in "123")
    for tokens in (
        batch.negative[third, 0],
        batch.extra["positive"][second, 0],
        batch.extra["distractor_caption"][second],
    ):
        assert torch.equal(tokens, batch.caption[first])


def test_one_picture_has_the_same_pixels_in_every_role(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """An image of one colour, however it is cropped, is the same tensor as first and as second image."""
    for name, colour in (("red.png", (250, 20, 30)), ("blue.png", (10, 20, 250))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    captions = [
        {"id": "1", "image": "red.png", "text": "red", "distractor_image": "blue.png", "distractor_text": "blue"},
        {"id": "2", "image": "blue.png", "text": "blue", "distractor_image": "red.png", "distractor_text": "red"},
    ]
    files = {**tiny_pairs, "captions": write_captions(tmp_path, captions), "images": tmp_path}
    config = tiny_config("con_clip", model=tiny_model, pairs=files, out=tmp_path / "run", batch_size=2)
    batch = first_batch(open_pairs(config, encoder=load_encoder(str(tiny_model)), processes=Processes()))
    assert torch.equal(batch.image, batch.extra["distractor_image"].flip(0))
    assert not torch.equal(batch.image[0], batch.image[1])


def test_classes_and_labels(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    chosen = config.objective | {
        name: replace(config.objective[name], weight=1.0) for name in ("class_contrast", "soft_alignment")
    }
    encoder = load_encoder(str(tiny_model))
    batch = first_batch(open_pairs(replace(config, objective=chosen), encoder=encoder, processes=Processes()))
    texts = encoder.tokenize([f"a photo of a {name}." for name in CLASSES])[:, : batch.extra["classes"].shape[1]]
    assert torch.equal(batch.extra["classes"], texts)
    by_id = {row["id"]: row for row in rows_of(tiny_pairs)}
    for place, name in enumerate(batch.ids):
        label = by_id[name]["label"]
        assert int(batch.extra["label"][place]) == (-1 if label is None else CLASSES.index(label))
        for other, second in enumerate(batch.ids):
            same = by_id[name]["text"] == by_id[second]["text"]
            assert (batch.extra["text_group"][place] == batch.extra["text_group"][other]).item() == same
    with pytest.raises(InputError, match=r"Set --data\.classes FILE"):
        open_pairs(
            replace(config, objective=chosen, data=replace(config.data, classes=None)),
            encoder=encoder,
            processes=Processes(),
        )


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("cat\n", "classes.txt", "has 1 class;"),
        ("cat\ndog\ncat\n", "classes.txt", "'cat' occurs twice"),
        ('{"names": ["cat"]}', "classes.json", "found an object"),
        ("[1, 2]", "classes.json", "found a list"),
    ],
)
def test_wrong_lists_of_classes(text: str, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_classes(tmp_path / name)


def test_lists_of_classes(tmp_path: Path) -> None:
    for name, text in (
        ("a.txt", "cat\n\n big dog \n"),
        ("b.json", '["cat", "big dog"]'),
        ("c.json", '{"classes": ["cat", "big dog"]}'),
    ):
        (tmp_path / name).write_text(text)
        assert read_classes(tmp_path / name) == ("cat", "big dog")


def test_neighbours_join_the_batch(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    near = {row["caption_id"]: row["neighbours"] for row in map(json.loads, tiny_pairs["neighbours"].open())}
    pairs = pairs_of("negclip_hard_images", tiny_model, tiny_pairs, tmp_path)
    joined = set()
    for epoch in range(4):
        for batch in pairs.batches(epoch, start=0, device=torch.device("cpu")):
            assert len(batch) == 8 and batch.negative.shape[:2] == (8, 1)
            for own, other in zip(batch.ids[:4], batch.ids[4:], strict=True):
                assert other in near[own]
                joined.add((own, other))
    assert len(joined) > 24, "neighbours are not redrawn"
    again = pairs_of("negclip_hard_images", tiny_model, tiny_pairs, tmp_path)
    assert [batch.ids for batch in pairs.batches(2, start=3, device=torch.device("cpu"))] == [
        batch.ids for batch in again.batches(2, start=3, device=torch.device("cpu"))
    ]
    three = first_batch(pairs_of("negclip_hard_images", tiny_model, tiny_pairs, tmp_path, neighbours_per_pair=3))
    assert len(three) == 16


def test_neighbours_that_are_missing_are_reported(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"Set --data\.neighbours FILE"):
        pairs_of("negclip_hard_images", tiny_model, tiny_pairs, tmp_path, neighbours=None)
    lines = tiny_pairs["neighbours"].read_text().splitlines()
    (tmp_path / "few.jsonl").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(InputError, match=r"few\.jsonl: caption '0-0' has no neighbour"):
        pairs_of("negclip_hard_images", tiny_model, tiny_pairs, tmp_path, neighbours=tmp_path / "few.jsonl")


@pytest.mark.parametrize(
    ("recipe", "field", "message"),
    [
        ("con_clip", "distractor_image", "no caption has the field distractor_image"),
        ("triplet_clip", "distractor_text", r"no caption has a distractor_text"),
        ("tsvlc", "positives", r"no caption has additional true texts.*--positives --out.*--data\.positives-file FILE"),
        ("cs_clip", "units", "no caption has the field units"),
    ],
)
def test_a_recipe_whose_column_is_missing_says_so(
    recipe: str, field: str, message: str, tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    rows = [{name: row[name] for name in ("id", "image", "text", "image_id")} for row in rows_of(tiny_pairs)]
    files = {**tiny_pairs, "captions": write_captions(tmp_path, rows)}
    with pytest.raises(InputError, match=message) as caught:
        pairs_of(recipe, tiny_model, files, tmp_path)
    assert field in str(caught.value)
    for page in re.findall(r"docs/\w+\.md", str(caught.value)):
        assert f"`{field}`" in (Path(__file__).parents[2] / page).read_text()


def test_a_second_image_that_is_missing_and_a_label_without_a_class(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    rows = rows_of(tiny_pairs)
    lost = [{**row, "distractor_image": "lost.png", "distractor_text": "x"} for row in rows]
    with pytest.raises(InputError, match=r"(?s)column distractor_image.*lost\.png"):
        pairs_of("con_clip", tiny_model, {**tiny_pairs, "captions": write_captions(tmp_path, lost)}, tmp_path)
    for label, message in (
        ("zebra", "'0-0': label 'zebra' is not one of the 3 classes"),
        (None, "no caption has a label"),
    ):
        odd = [{**row, "label": label} for row in rows]
        config = tiny_config(
            "clip", model=tiny_model, pairs={**tiny_pairs, "captions": write_captions(tmp_path, odd)}, out=tmp_path
        )
        chosen = config.objective | {"class_contrast": replace(config.objective["class_contrast"], weight=1.0)}
        with pytest.raises(InputError, match=message):
            open_pairs(replace(config, objective=chosen), encoder=load_encoder(str(tiny_model)), processes=Processes())


def test_rows_of_bad_second_images_are_left_out(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, images = rows_of(tiny_pairs), shutil.copytree(tiny_pairs["images"], tmp_path / "images")
    cut = images / "cut.png"
    cut.write_bytes((images / rows[0]["image"]).read_bytes()[:60])
    for row, image in ((3, "cut.png"), (5, "lost.png")):
        rows[row] |= {"distractor_image": image, "distractor_text": "x"}
    (images / rows[-1]["image"]).unlink()
    files = {**tiny_pairs, "captions": write_captions(tmp_path, rows), "images": images}
    config = tiny_config("con_clip", model=tiny_model, pairs=files, out=tmp_path)
    skipping = replace(config, data=replace(config.data, bad_images="skip"))
    bad = {"cut.png", "lost.png", rows[-1]["image"]}
    kept = [row["id"] for row in rows if not bad & {row["image"], row.get("distractor_image")}]
    for _ in range(2):
        source = read_pairs(skipping.pairs, seed=0, processes=Processes())
        assert [row.caption.id for row in source.rows] == kept and 0 < len(kept) < len(rows) - 3
        assert source.rows.digests == PairTable(source.rows.source, kept=source.rows.kept).digests
        assert source.extras is not None and len(source.extras) == len(kept)
    assert "4 rows are skipped. images in column distractor_image: 3 of 10 images cannot be used." in caplog.text


def test_rows_left_out_in_one_folder_of_images_are_not_taken_for_those_of_another(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """In the first folder an image is missing that is no second image; in both, the same second image is damaged."""
    rows = rows_of(tiny_pairs)
    rows[5] |= {"distractor_image": "cut.png", "distractor_text": "x"}
    files = {**tiny_pairs, "captions": write_captions(tmp_path, rows)}
    for lost, count in (("001.png", 21), (None, 23)):
        images = shutil.copytree(tiny_pairs["images"], tmp_path / str(lost))
        (images / "cut.png").write_bytes((images / "000.png").read_bytes()[:60])
        if lost is not None:
            (images / lost).unlink()
        config = tiny_config("con_clip", model=tiny_model, pairs=files | {"images": images}, out=tmp_path)
        skipping = replace(config, data=replace(config.data, bad_images="skip"))
        source = read_pairs(skipping.pairs, seed=0, processes=Processes())
        assert source.extras is not None and len(source.extras) == len(source.rows) == count
        assert source.rows.digests == PairTable(source.rows.source, kept=source.rows.kept).digests


def test_rules_are_chosen_by_name(tiny_pairs: dict[str, Path]) -> None:
    data = DataConfig(**tiny_pairs, negatives_per_caption=1)  # type: ignore[arg-type]
    every = {rule for row in read_rows(data) for rule in row.rules}
    assert len(every) == 3
    rows = read_rows(replace(data, rules=("swap_nouns",)))
    assert {rule for row in rows for rule in row.rules} == {"swap_nouns"} and any(not row.negatives for row in rows)
    with pytest.raises(InputError, match=r"the file has no negatives of negation\. It has: replace_nouns \(8\), "):
        read_rows(replace(data, rules=("swap_nouns", "negation")))


def test_the_text_of_the_second_image_as_negative(tiny_pairs: dict[str, Path]) -> None:
    data = DataConfig(**{**tiny_pairs, "negatives": None}, negatives_per_caption=1, distractor_negative=True)  # type: ignore[arg-type]
    by_id = {row["id"]: row for row in rows_of(tiny_pairs)}
    for row in read_rows(data):
        text = by_id[row.caption.id].get("distractor_text")
        assert row.negatives == ((text,) if text else ()) and set(row.rules) <= {"partner"}


def test_other_braces_of_a_class_template_are_text() -> None:
    texts = ExtraData(classes=("cat", "{}"), class_template="a {} {x} {").class_texts()
    assert texts == ["a cat {x} {", "a {} {x} {"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"--data\.class-template"):
        replace(TrainConfig(), data=DataConfig(class_template="a photo")).check()
    with pytest.raises(InputError, match=r"--data\.neighbours-per-pair"):
        replace(TrainConfig(), data=DataConfig(neighbours_per_pair=-1)).check()


def test_what_is_drawn_for_a_row_is_of_the_seed_the_epoch_and_the_row(tmp_path: Path) -> None:
    words = ("dog", "cat", "cup", "hat", "car", "bed")
    units = tuple(CaptionUnit(text=f"a {word}", foils=("a fox", "a cow"), kind="thing") for word in words)
    rows = table_of([
        PairRow(CaptionRecord(id=str(row), image="i", text=f"text {row}", image_id="i", positives=words, units=units),
                (), ())
        for row in range(6)
    ])  # fmt: skip
    wanted = ExtraData(reads=frozenset({"positive", "unit", "reconstruction"}), positives=2)
    write_extras(tmp_path / "extras", rows, wanted)
    near = [NeighbourRecord(caption_id=str(row), neighbours=tuple("012345")) for row in range(6)]
    write_neighbours(tmp_path / "near", rows, near, where="near")

    def drawn(seed: int, epoch: int) -> dict[str, list[str]]:
        extras = RowExtras(
            ColumnFile(tmp_path / "extras"), wanted, seed=seed, target=lambda text: torch.tensor([*text.encode()])
        )
        near = Neighbours(ColumnFile(tmp_path / "near"), per_row=2, seed=seed)
        return {
            "positive": [str(extras.text_of("positive", epoch=epoch, index=row)) for row in range(6)],
            "unit": [str(extras.text_of("unit", epoch=epoch, index=row)) for row in range(6)],
            "target": [str(extras.target_of(epoch=epoch, index=row)) for row in range(6)],
            "neighbours": [str(near.draw(epoch, row)) for row in range(6)],
        }

    draws = [drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert drawn(0, 1) == draws[1]
    for kind in draws[0]:
        assert len({tuple(each[kind]) for each in draws}) == 4, f"{kind}: not of seed and epoch"
        assert all(len(set(each[kind])) > 1 for each in draws), f"{kind}: not of the row"
    every = Neighbours(ColumnFile(tmp_path / "near"), per_row=6, seed=0)
    assert all(sorted(every.draw(epoch, 0)) == [*range(6)] for epoch in range(3)), "one comes twice beside enough"


def test_a_phrase_counts_once_and_a_label_is_a_name_before_it_is_a_number(tmp_path: Path) -> None:
    several = CaptionRecord(id="0", image="i", text="so", image_id="i", label="1", concepts=("dog", "cat", "dog"))
    none = CaptionRecord(id="1", image="i", text="no phrase", image_id="i", label="2")
    wanted = ExtraData(reads=frozenset({"concept", "classes"}), classes=("1", "0", "x"))
    write_extras(tmp_path / "extras", table_of([PairRow(caption, (), ()) for caption in (several, none)]), wanted)
    extras = RowExtras(ColumnFile(tmp_path / "extras"), wanted, seed=0)
    assert [extras.at("concept", row) for row in (0, 1)] == [["dog", "cat"], ["no phrase"]]
    assert [extras.at("label", row) for row in (0, 1)] == [0, 2]


def test_all_rows_of_a_batch_on_the_disk_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("table", "joining"):
        monkeypatch.setattr(f"degla.data.{module}.ROWS", 2)
    captions = [
        CaptionRecord(id=str(row), image="i", text=f"{row}", image_id="i", concepts=("dog", "cat")) for row in range(6)
    ]
    wanted = ExtraData(reads=frozenset({"concept"}))
    write_extras(tmp_path / "extras", join(captions, None).select(np.array([0, 1, 4])), wanted)
    extras = RowExtras(ColumnFile(tmp_path / "extras"), wanted, seed=0)
    assert extras.texts_per_row("concept") == 2 and extras.at("concept", 2) == ["dog", "cat"]


def test_units_are_drawn_with_their_foils(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    pairs = pairs_of("cs_clip", tiny_model, tiny_pairs, tmp_path)
    by_id, tokenize = {row["id"]: row for row in rows_of(tiny_pairs)}, load_encoder(str(tiny_model)).tokenize
    cases = set()
    for batch in pairs.batches(0, start=0, device=torch.device("cpu")):
        extra, length = batch.extra, batch.caption.shape[1]
        assert extra["unit"].shape == extra["foil"].shape == (4, 2, length) and extra["unit_group"].shape == (4, 2)
        for row, name in enumerate(batch.ids):
            units = by_id[name]["units"]
            thing = next((unit for unit in units if unit.get("foils")), None)
            texts = [thing["text"]] if thing else [unit["text"] for unit in units]
            allowed = [tokenize([text])[0, :length] for text in texts]
            for place in range(2):
                there = bool(extra["unit_valid"][row, place])
                assert there == any(torch.equal(extra["unit"][row, place], one) for one in allowed) == bool(units)
                assert bool(extra["foil_valid"][row, place]) == (thing is not None)
                assert there or torch.equal(extra["unit"][row, place], batch.caption[row])
                cases.add((there, thing is not None))
    assert cases == {(False, False), (True, False), (True, True)}


def test_a_recipe_that_reads_no_positives_refuses_the_file() -> None:
    data = DataConfig(
        captions=Path("c.jsonl"), images=Path("i"), positives_file=Path("p.jsonl"), negatives_per_caption=0
    )
    with pytest.raises(InputError, match=r"positives-file p\.jsonl: no loss .*text-pull"):
        read_rows(data)


def test_texts_of_a_file_of_positives_stand_behind_those_of_the_column(tmp_path: Path) -> None:
    own = {"A dog.": ("A hound.",), "A cat.": ("A puss.",), "A cow.": ()}
    write_jsonl(tmp_path / "c.jsonl", [CaptionRecord(id=str(n), image="1.jpg", image_id="1", text=text, positives=texts)
                                       for n, (text, texts) in enumerate(own.items())])  # fmt: skip
    fields = {"rule": "passive", "kind": "positive", "text": "An animal.", "source": "rules", "accepted": True}
    write_jsonl(tmp_path / "p.jsonl", [NegativeRecord.model_validate({"caption_id": n, **fields}) for n in ("0", "2")])
    data = DataConfig(captions=tmp_path / "c.jsonl", negatives_per_caption=0)
    for file, further in ((None, ()), (tmp_path / "p.jsonl", ("An animal.",))):
        rows = read_rows(replace(data, positives_file=file), reads=frozenset({"positive"}))
        assert [row.caption.positives for row in rows] == [("A hound.", *further), ("A puss.",), further]


def test_negatives_that_length_gives_away_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "c.jsonl", [CaptionRecord(id="0", image="1.jpg", image_id="1", text="A dog.")])
    texts = (("negation", "A dog but no cat."), ("replace_nouns", "A cow."))
    write_jsonl(
        tmp_path / "n.jsonl",
        [
            NegativeRecord(caption_id="0", rule=rule, kind="x", text=text, source="rules", accepted=True)
            for rule, text in texts
        ],
    )
    data = DataConfig(captions=tmp_path / "c.jsonl", negatives=tmp_path / "n.jsonl", negatives_per_caption=1)
    caplog.set_level("WARNING")
    assert len(read_rows(data)[0].negatives) == 2
    assert "1 of 2 negatives are from negation" in caplog.text
    caplog.clear()
    with monkeypatch.context() as second:
        second.setattr("degla.training.rows.Processes.current", lambda: Processes(count=2, rank=1))
        assert len(read_rows(data)[0].negatives) == 2 and not caplog.text, "one of several processes tells it"
    assert len(read_rows(replace(data, rules=("replace_nouns",)))[0].negatives) == 1 and not caplog.text
