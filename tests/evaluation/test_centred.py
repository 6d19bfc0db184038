"""Centred scores: what a text scores with the mean image is subtracted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.caveats import caveats_of
from degla.evaluation.embed import Embedder
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation
from degla.records import ItemImage
from degla.results import Result
from degla.study.jobs import Job, Measure, StudyQuestions
from degla.study.tuning import tune
from tests.evaluation.fake_encoders import FakeEncoder, spreading, words

COUNT = 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Questions about 20 images of one colour each: the texts "true N" and "false N"."""
    rows = []
    for number in range(COUNT):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"true {number}", "negative": f"false {number}"})
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def preferring() -> FakeEncoder:
    """Knows which text is true of which image, but likes any text that begins with "false" more."""
    (false,) = words("false")
    numbers = {words(str(number))[0]: number for number in range(COUNT)}

    def image_row(image: np.ndarray) -> np.ndarray:
        return np.append(np.eye(COUNT)[round(float(image[0].mean()) * 25.5)], 2.0)

    def text_row(tokens: tuple[int, ...]) -> np.ndarray:
        liked = tokens[0] == false
        return np.append(np.zeros(COUNT) if liked else np.eye(COUNT)[numbers[tokens[1]]], 3.0 if liked else 0.5)

    return FakeEncoder(image_row, text_row)


def scored(root: Path, encoder: FakeEncoder, **settings: Any) -> Result:
    return Evaluation(["own"], root, progress=False, **settings).score(encoder)


def value(result: Result) -> float:
    return result.benchmarks[0].parts[0].scores[0].value


def test_what_a_text_scores_with_every_image_is_subtracted(root: Path) -> None:
    plain, centred = scored(root, preferring()), scored(root, preferring(), centred=True)
    assert (value(plain), value(centred)) == (0.0, 1.0)
    assert (plain.scorer, centred.scorer) == ("cosine", "centred")
    caveats = list(caveats_of([("plain", plain), ("centred", centred)]))  # type: ignore[list-item]
    assert any("differ in the scorer: centred, cosine" in caveat for caveat in caveats)


def test_the_mean_is_of_distinct_images_and_keeps_the_order_of_images(root: Path) -> None:
    images = [ItemImage(path=f"{number}.png") for number in range(4)]
    embeddings = Embedder(spreading(), root=root).embed(images, ["one text", "another"])
    centred = embeddings.centred([*images[:3], images[0]])
    rows = embeddings.images
    assert np.allclose(centred.images, rows - rows[:3].mean(axis=0), atol=1e-6) and centred.images.dtype == np.float32
    assert (centred.texts == embeddings.texts).all() and centred.image_row == embeddings.image_row
    orders = [(rows @ embeddings.texts.T).argsort(axis=0).tolist() for rows in (embeddings.images, centred.images)]
    assert orders[0] == orders[1]


def test_a_mean_over_few_images_is_refused(root: Path) -> None:
    file = root / "own" / "mine.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match=r"there must be 20; it has 19 images\. Omit it, or score by cosine"):
        scored(root, preferring(), centred=True)


def test_the_command_labels_centred_scores(root: Path, tmp_path: Path) -> None:
    for label in ([], ["--label", "guesses"]):
        out = str(tmp_path / "result.json")
        words_ = ["evaluate", "random", "--benchmarks", "own", "--root", str(root), "--out", out, "--no-cache"]
        assert main([*words_, "--scorer", "centred", *label]) == 0
        result = load_result(Path(out))
        assert (result.scorer, result.model.label) == ("centred", f"{label[-1] if label else 'random'}, centred")


def test_a_study_measures_again_by_another_scorer(root: Path, tiny_model: Path) -> None:
    def measured(scorer: str) -> tuple[int, str]:
        questions = StudyQuestions(("own",), root, "", scorer=scorer)
        measures = (Measure("base", 1.0, root / "base.json"),)
        done = tune(Job("base", str(tiny_model), None, {}, measures, questions))
        return done.measured, load_result(done.paths[0]).scorer

    assert [measured("centred"), measured("centred"), measured("cosine")] == [
        (1, "centred"),
        (0, "centred"),
        (1, "cosine"),
    ]
