"""Frozen towers asked part by part: crops of pictures against parts of texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.embed import Embedder
from degla.evaluation.regions import Regions, RegionTable
from degla.evaluation.run import Evaluation, ask_all
from degla.evaluation.scoring import pair_similarities
from degla.records import ItemImage, PairItem
from tests.evaluation.fake_encoders import spreading

IMAGE = ItemImage(path="a.png")
TEXTS = ("a dog on a sofa", "a sofa on a dog", "Raining.")


def test_crops_cover_the_picture_and_overlap() -> None:
    crops = Regions().crops(IMAGE, (80, 40))
    assert len(crops) == 1 + 4 + 9 and crops[0] == IMAGE
    assert [crop.crop for crop in crops[1:5]] == [(0, 0, 53, 27), (27, 0, 53, 27), (0, 13, 53, 27), (27, 13, 53, 27)]
    covered = np.zeros((40, 80), dtype=int)
    for x, y, wide, high in (crop.crop for crop in crops[5:] if crop.crop):
        assert (wide, high) == (40, 20)
        covered[y : y + high, x : x + wide] += 1
    assert covered.min() == 1 and covered.max() == 4
    # A part of a picture is cut within itself; one pixel is a picture too.
    own = Regions((2,)).crops(ItemImage(path="a.png", crop=(10, 20, 30, 30)), (80, 80))
    assert [crop.crop for crop in own] == [(10, 20, 20, 20), (20, 20, 20, 20), (10, 30, 20, 20), (20, 30, 20, 20)]
    assert {crop.crop for crop in Regions((3,)).crops(IMAGE, (1, 1))} == {(0, 0, 1, 1)}
    outside = Regions((3,)).crops(ItemImage(path="a.png", crop=(-60, -10, 100, 40)), (80, 40))
    assert len(outside) == 6 and all(crop.crop and crop.crop[0] >= -35 for crop in outside), "nothing without a pixel"
    beside = ItemImage(path="a.png", crop=(-60, 0, 40, 40))
    assert Regions((3,)).crops(beside, (80, 40)) == (beside,), "refused where it is read"
    with pytest.raises(InputError, match="--crops 1 0: give the crops per side"):
        Regions((1, 0))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path


def scored(table: RegionTable, root: Path) -> np.ndarray:
    """Similarities of the image with the three texts, and that of image and texts themselves in front."""
    embeddings = Embedder(spreading(), root=root).embed([IMAGE, *table.images], [*TEXTS, *table.texts])
    item = PairItem(id="1", benchmark="b", part="p", images=(IMAGE,), texts=TEXTS, gold=((1, 0, 0),))
    rows = np.array([[embeddings.text_row[text] for text in TEXTS]])
    plain = pair_similarities(embeddings.images, embeddings.texts, np.array([[embeddings.image_row[IMAGE]]]), rows)
    return np.stack([plain[0, 0], table.similarities([item], embeddings)[0, 0]])


def test_one_crop_and_one_part_is_the_cosine_and_more_crops_never_less(pictures: Path) -> None:
    whole = Regions((1,)).table([IMAGE], TEXTS, root=pictures)
    assert whole.parts["a dog on a sofa"] == ("a dog on a sofa", "a dog", "a sofa") and whole.parts["Raining."] == (
        "Raining.",
    )
    alone = replace(whole, parts={text: (text,) for text in TEXTS})
    plain, same = scored(alone, pictures)
    assert (plain == same).all() and len(set(plain)) == 3
    # The text without parts keeps its cosine to the bit; the others are means.
    assert (scored(whole, pictures)[0] == scored(whole, pictures)[1]).tolist() == [False, False, True]
    twice = replace(whole, crops={IMAGE: (IMAGE, IMAGE)})
    assert (scored(twice, pictures)[1] == scored(whole, pictures)[1]).all()
    more = Regions((1, 2, 3)).table([IMAGE], TEXTS, root=pictures)
    assert (scored(more, pictures)[1] >= scored(whole, pictures)[1]).all() and scored(more, pictures)[1].max() <= 1
    assert (scored(more, pictures)[1] > scored(whole, pictures)[1]).any()


def test_an_evaluation_by_parts_says_so_and_refuses_rankings(
    small_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: Any = {"benchmarks": ["small"], "root": small_root, "progress": False, "regions": Regions((1, 2))}
    (questions,) = ask_all(["small"], small_root)
    with pytest.raises(InputError, match=r"--scorer regions compares the few .* but small has other questions"):
        Evaluation(questions=[questions], **settings).score(spreading())
    pairs = tuple(entry for entry in questions.entries if isinstance(entry, PairItem))
    encoder = spreading()
    result = Evaluation(questions=[replace(questions, entries=pairs, passing=pairs)], **settings).score(encoder)
    assert result.model.label == "fake, regions 1+2" and encoder.images_seen == 6 * 5
    assert len(result.items) == 8
    named = Evaluation(questions=[replace(questions, entries=pairs, passing=pairs)], **settings).score(
        encoder, label="a"
    )
    assert named.model.label == "a, regions 1+2"
    words = [
        "evaluate",
        "random",
        "--benchmarks",
        "world",
        "--root",
        str(small_root),
        "--out",
        "x.json",
        "--crops",
        "2",
    ]
    assert main(words) == 2 and "--crops requires --scorer regions" in capsys.readouterr().err
