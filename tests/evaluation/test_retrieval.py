"""Retrieval: both forms of Karpathy's files, files of captions, several captions an image, a literal twin, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from degla.errors import InputError
from degla.evaluation.annotations import COCO, FLICKR30K
from degla.evaluation.benchmark import Retrieval
from degla.evaluation.benchmarks.retrieval import BENCHMARK
from degla.evaluation.models import load_floor
from degla.evaluation.questions import ask
from degla.records import CaptionRecord, write_jsonl
from tests.evaluation.fake_encoders import constant, knowing
from tests.evaluation.shelf_contract import literal_image, literal_text, paint, score, tiny_encoder, values_of
from tests.official import SHARED

METRICS = [f"{way}@{k}" for k in (1, 5, 10) for way in ("image_to_text", "text_to_image")]


def write_blip(root: Path, count: int = 12) -> dict[str, list[str]]:
    """COCO in the list form; every fourth image has one caption more."""
    (root / "karpathy").mkdir(exist_ok=True)
    rows = [
        {
            "image": f"val2014/COCO_val2014_{number}.jpg",
            "caption": [f"picture {number} in words {copy}" for copy in range(5 + (number % 4 == 0))],
        }
        for number in range(count)
    ]
    (root / "karpathy" / COCO.blip).write_text(json.dumps(rows))
    return {f"coco/{row['image']}": row["caption"] for row in rows}


def write_original(root: Path, truth: dict[str, list[str]], name: str) -> None:
    (root / "karpathy").mkdir(exist_ok=True)
    images = [
        {
            "filepath": "val2014",
            "filename": path.split("/")[-1],
            "cocoid": number,
            "split": "test",
            "sentences": [{"raw": text, "tokens": text.split()} for text in texts],
        }
        for number, (path, texts) in enumerate(truth.items())
    ]
    other = [images[0] | {"split": split, "filename": "other.jpg"} for split in ("train", "val", "restval")]
    (root / "karpathy" / name).write_text(json.dumps({"images": other + images, "dataset": "coco"}))


def test_both_forms_give_the_same_questions(tmp_path: Path) -> None:
    truth = write_blip(tmp_path)
    (listed,) = BENCHMARK.items(tmp_path)
    assert isinstance(listed, Retrieval)
    assert len(listed.images) == 12
    assert len(listed.texts) == 63
    (tmp_path / "karpathy" / COCO.blip).unlink()
    write_original(tmp_path, truth, COCO.original)
    (original,) = BENCHMARK.items(tmp_path)
    assert original == listed
    flickr = {path.replace("coco/val2014", "flickr30k-images"): texts for path, texts in truth.items()}
    write_original(tmp_path, flickr, FLICKR30K.original)
    coco, other = BENCHMARK.items(tmp_path)
    assert (coco.part, other.part) == ("coco", "flickr30k")
    assert isinstance(other, Retrieval)
    assert other.images[0].path == "flickr30k-images/COCO_val2014_0.jpg"


def test_equals_the_literal_protocol(tmp_path: Path, data_root: Path) -> None:
    """COCO's captions and their pictures through a file of captions; recall written as loops."""
    (tmp_path / "coco").symlink_to(data_root / "coco")
    content = json.loads((data_root / "coco" / "annotations" / "captions_val2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    rows = [row for row in content["annotations"] if row["image_id"] in sorted(names)[:20]]
    (tmp_path / "retrieval").mkdir()
    write_jsonl(
        tmp_path / "retrieval" / "photos.jsonl",
        [
            CaptionRecord(
                id=str(row["id"]),
                image=f"coco/val2017/{names[row['image_id']]}",
                text=row["caption"],
                image_id=str(row["image_id"]),
            )
            for row in rows
        ],
    )
    encoder = tiny_encoder()
    files = list(dict.fromkeys(f"coco/val2017/{names[row['image_id']]}" for row in rows))
    pictures = [literal_image(encoder, tmp_path / file) for file in files]
    captions = [literal_text(encoder, row["caption"]) for row in rows]
    owner = [files.index(f"coco/val2017/{names[row['image_id']]}") for row in rows]
    cosines = [[float(picture @ caption) for caption in captions] for picture in pictures]
    expected = {}
    for k in (1, 5, 10):
        for number, file in enumerate(files):
            best = sorted(range(len(captions)), key=lambda text: -cosines[number][text])[:k]
            expected[f"retrieval/captions/photos/image/{file}", f"image_to_text@{k}"] = any(
                owner[text] == number for text in best
            )
        for text in range(len(captions)):
            best = sorted(range(len(files)), key=lambda image: -cosines[image][text])[:k]
            expected[f"retrieval/captions/photos/text/{text}", f"text_to_image@{k}"] = owner[text] in best
    result = score(encoder, "retrieval", tmp_path)
    verdicts = {(item.id, key): worth == 1 for item in result.items for key, worth in item.ok.items()}
    assert verdicts == expected
    assert (len(files), len(rows)) == ((20, 100) if data_root == SHARED else (6, 31))
    (part,) = result.benchmarks[0].parts
    assert [score.metric for score in part.scores] == METRICS
    for measured in part.scores:
        worths = [right for (_, key), right in expected.items() if key == measured.metric]
        assert measured.value == pytest.approx(sum(worths) / len(worths))
        assert measured.n == (len(files) if measured.metric.startswith("image") else len(rows))
        assert measured.ties == 0
    assert 0 < part.scores[1].value < 1
    assert part.scores[1].chance == pytest.approx(1 / len(files))


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    truth = write_blip(tmp_path)
    write_original(tmp_path, {"flickr30k-images/a.jpg": ["one"], "flickr30k-images/b.jpg": ["two"]}, FLICKR30K.original)
    truth |= {"flickr30k-images/a.jpg": ["one"], "flickr30k-images/b.jpg": ["two"]}
    colours = paint(tmp_path, truth)
    oracle = score(knowing(truth, colours, lying=False), "retrieval", tmp_path).benchmarks[0]
    assert set(values_of(oracle).values()) == {1.0}
    assert oracle.headline == {"retrieval": "recall@1"}
    assert all(row.ties == 0 for part in oracle.parts for row in part.scores)
    liar = score(knowing(truth, colours, lying=True), "retrieval", tmp_path).benchmarks[0]
    assert {value for name, value in values_of(liar).items() if name.startswith("coco.")} == {0.0}
    assert values_of(liar)["recall@1"] == 0.0
    for tie, value in ((None, 1.0), ("lenient", 1.0), ("strict", 0.0)):
        blind = score(constant(), "retrieval", tmp_path, tie=tie).benchmarks[0]
        coco = blind.parts[0]
        assert coco.tie == (tie or "lenient")
        assert {score.value for score in coco.scores} == {value}
        assert all(score.ties == score.n for score in coco.scores)


def test_a_floor_without_sight_is_at_chance_in_both_directions(tmp_path: Path) -> None:
    paint(tmp_path, write_blip(tmp_path))
    (part,) = score(load_floor("blind"), "retrieval", tmp_path).benchmarks[0].parts
    found = {measured.metric: measured for measured in part.scores}
    for k in (1, 5, 10):
        assert found[f"text_to_image@{k}"].value == pytest.approx(k / 12)
    assert found["image_to_text@1"].value == pytest.approx(1 / 12), "the shortest caption is of one image"
    assert part.tie == "lenient", "the rule of the models beside it"
    (asked,) = score(load_floor("blind"), "retrieval", tmp_path, tie="lenient").benchmarks[0].parts
    assert asked.scores[1].value == 1.0


def test_a_caption_of_two_images_is_two_texts(tmp_path: Path) -> None:
    """An equal caption of another image ties with one's own: right by the lenient rule, and counted."""
    truth = {"a.jpg": ["a dog", "grass"], "b.jpg": ["a dog", "snow"]}
    colours = paint(tmp_path, truth)
    (tmp_path / "retrieval").mkdir()
    write_jsonl(
        tmp_path / "retrieval" / "dogs.jsonl",
        [
            CaptionRecord(id=f"{image}{number}", image=image, text=text, image_id=image)
            for image, texts in truth.items()
            for number, text in enumerate(texts)
        ],
    )
    result = score(knowing(truth, colours, lying=False), "retrieval", tmp_path)
    (part,) = result.benchmarks[0].parts
    assert part.name == "captions/dogs"
    # Each image is nearest to its own second text; the shared caption is equally near to both images.
    assert [(row.metric, row.value, row.ties) for row in part.scores[:2]] == [
        ("image_to_text@1", 1.0, 0),
        ("text_to_image@1", 1.0, 2),
    ]
    for seed in range(8):  # Floors that see the images, too.
        items = score(load_floor(f"random:{seed}"), "retrieval", tmp_path).items
        assert {value for item in items for value in item.ok.values()} <= {0.0, 1.0}


def test_captions_with_one_image_id_are_of_one_image(tmp_path: Path) -> None:
    """Rows of a Parquet file have a path each: `degla prepare split` writes them so."""
    (tmp_path / "retrieval").mkdir()
    rows = [
        CaptionRecord(id=f"{n}", image=f"c.parquet#image/{n}", image_id=f"{n // 3}", text=f"dog {n}") for n in range(9)
    ]
    write_jsonl(tmp_path / "retrieval" / "dogs.jsonl", rows)
    (question,) = BENCHMARK.items(tmp_path)
    assert isinstance(question, Retrieval)
    assert [image.path for image in question.images] == [f"c.parquet#image/{n}" for n in (0, 3, 6)]
    assert question.owners == tuple((n // 3,) for n in range(9))


def test_captions_of_missing_images_go_and_those_of_the_others_keep_their_own(tmp_path: Path) -> None:
    (tmp_path / "retrieval").mkdir()
    for name, first in (("own", 0), ("gone", 8)):
        rows = [
            CaptionRecord(id=f"{number}", image=f"{number}.png", image_id=f"{number}", text=f"text of {number}")
            for number in range(first, first + 4)
        ]
        write_jsonl(tmp_path / "retrieval" / f"{name}.jsonl", rows)
    for number in (1, 2, 3):  # Neither the first image nor any of the second file.
        (tmp_path / f"{number}.png").touch()
    asked = ask(BENCHMARK, tmp_path, allow_missing=True)
    (question,) = asked.entries
    assert isinstance(question, Retrieval)
    shown = {question.images[owner].path: text for text, (owner,) in zip(question.texts, question.owners, strict=True)}
    assert shown == {f"{number}.png": f"text of {number}" for number in (1, 2, 3)}
    assert asked.missing == {"captions/gone": 4, "captions/own": 1} and len(asked.absent) == 5


def test_captions_in_any_form(tmp_path: Path) -> None:
    """As clip-benchmark's release of Karpathy's COCO split: COCO's own form, with the names of the images alone."""
    folder = tmp_path / "retrieval"
    (folder / "images").mkdir(parents=True)
    truth = {"a.jpg": ["a dog", "grass"], "b.jpg": ["a cat"]}
    content = {
        "images": [{"id": number, "file_name": image} for number, image in enumerate(truth)],
        "annotations": [
            {"id": 10 * number + place, "image_id": number, "caption": text}
            for number, texts in enumerate(truth.values())
            for place, text in enumerate(texts)
        ],
    }
    (folder / "karpathy.json").write_text(json.dumps(content))
    rows = [f"{image}\t{text}" for image, texts in truth.items() for text in texts]
    (folder / "table.tsv").write_text("\n".join(["image\tcaption", *rows]) + "\n")
    for entry, part in zip(BENCHMARK.items(tmp_path), ("karpathy", "table"), strict=True):
        assert isinstance(entry, Retrieval) and entry.part == f"captions/{part}"
        assert [image.path for image in entry.images] == ["retrieval/images/a.jpg", "retrieval/images/b.jpg"]
        assert (entry.texts, entry.owners) == (("a dog", "grass", "a cat"), ((0,), (0,), (1,)))
    (folder / "images").rmdir()
    entry = next(iter(BENCHMARK.items(tmp_path)))
    assert isinstance(entry, Retrieval) and entry.images[0].path == "a.jpg"
    (folder / "table.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"table\.tsv: table\.json gives a part of the same name"):
        list(BENCHMARK.items(tmp_path))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no retrieval data found(.|\n)*openflamingo(.|\n)*retrieval/NAME\.\{jsonl"):
        list(BENCHMARK.items(tmp_path))
    (tmp_path / "karpathy").mkdir()
    file = tmp_path / "karpathy" / COCO.original
    for content, message in (
        ("[]", "must be one JSON object, got a list"),
        ("{}", "field 'images': must be a list"),
        ('{"images": [{"filename": "a.jpg", "split": "test"}]}', "image 0: field 'sentences'"),
        (
            '{"images": [{"filename": "a.jpg", "split": "test", "sentences": [{}]}]}',
            r"image 0: field 'sentences\.0\.raw'",
        ),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=rf"dataset_coco\.json:? ?{message}"):
            list(BENCHMARK.items(tmp_path))
    file.write_text('{"images": [{"filename": "a.jpg", "split": "val", "sentences": [{"raw": "x"}]}]}')
    with pytest.raises(InputError, match="karpathy: has no captions for coco"):
        list(BENCHMARK.items(tmp_path))
    file.unlink()
    (tmp_path / "retrieval").mkdir()
    own = tmp_path / "retrieval" / "own.jsonl"
    own.write_text('{"id": "1", "image": "a.jpg", "text": "", "image_id": "1"}\n')
    with pytest.raises(InputError, match=r"own\.jsonl line 1: field 'text'"):
        list(BENCHMARK.items(tmp_path))
    own.write_text("\n")
    with pytest.raises(InputError, match=r"own\.jsonl: the file has no captions"):
        list(BENCHMARK.items(tmp_path))


def test_another_five_thousand_images_are_refused(tmp_path: Path) -> None:
    """COCO's val2017 also has 5,000 images, with 25,014 captions."""
    (tmp_path / "karpathy").mkdir()
    rows = [{"image": f"val2014/{number}.jpg", "caption": ["a"] * (5 + (number < 14))} for number in range(5000)]
    file = tmp_path / "karpathy" / COCO.blip
    file.write_text(json.dumps(rows))
    with pytest.raises(
        InputError, match="coco has 25,014 captions of 5,000 test images, but Karpathy's split has 25,010"
    ):
        list(BENCHMARK.items(tmp_path))
    for row in rows[10:14]:
        row["caption"].pop()
    file.write_text(json.dumps(rows))
    (entry,) = BENCHMARK.items(tmp_path)
    assert isinstance(entry, Retrieval)
    assert (len(entry.images), len(entry.texts)) == (COCO.images, COCO.captions)
