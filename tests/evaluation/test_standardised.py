"""Standardised scores, in which no preference counts that is the same for all images."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import degla
from degla.cli import main
from degla.errors import InputError
from degla.evaluation import in_print
from degla.evaluation.caveats import caveats_of
from degla.evaluation.embed import Embedder
from degla.evaluation.regions import Regions
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation
from degla.records import ItemImage
from degla.results import Result
from degla.study.jobs import Job, Measure, StudyQuestions
from degla.study.materials import CurrentQuestions
from degla.study.tuning import tune
from tests.evaluation.conftest import COLOURS, TRUTH
from tests.evaluation.fake_encoders import FakeEncoder, constant, knowing, spreading, words

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


def preferring(common: float, rest: float) -> FakeEncoder:
    """Knows which text is true of which image; false texts score more with every image, or differ more between them.

    Args:
        common: what a false text has in common with every image.
        rest: what a true text has in common with none.
    """
    (false,) = words("false")
    numbers = {words(str(number))[0]: number for number in range(COUNT)}

    def image_row(image: np.ndarray) -> np.ndarray:
        return np.concatenate([np.eye(COUNT)[round(float(image[0].mean()) * 25.5)], [2.0, 0.0]])

    def text_row(tokens: tuple[int, ...]) -> np.ndarray:
        own, next_one = (np.eye(COUNT)[(numbers[tokens[1]] + step) % COUNT] for step in (0, 1))
        if tokens[0] == false:  # True of the next image, too.
            return np.concatenate([own + 0.5 * next_one, [common, 0.0]])
        return np.concatenate([own, [0.0, rest]])

    return FakeEncoder(image_row, text_row)


def scored(root: Path, encoder: FakeEncoder, **settings: Any) -> Result:
    return Evaluation(["own"], root, progress=False, **settings).score(encoder)


def value(result: Result) -> float:
    return result.benchmarks[0].parts[0].scores[0].value


@pytest.mark.parametrize(("common", "rest"), [(3.0, 0.0), (0.0, 3.0)])
def test_a_preference_that_is_the_same_for_all_images_is_left_out(root: Path, common: float, rest: float) -> None:
    plain, standardised = (scored(root, preferring(common, rest), scorer=each) for each in ("cosine", "standardised"))
    assert (value(plain), value(standardised)) == (0.0, 1.0)
    assert (plain.scorer, standardised.scorer) == ("cosine", "standardised")
    caveats = list(caveats_of([("plain", plain), ("other", standardised)]))
    assert any("differ in the scorer: cosine, standardised" in caveat for caveat in caveats)


def test_scores_are_standard_scores_over_distinct_images(root: Path) -> None:
    images, texts = [ItemImage(path=f"{number}.png") for number in range(6)], ["one text", "another"]
    embeddings = Embedder(spreading(), root=root).embed(images, texts)
    standardised = embeddings.standardised([*images[:5], images[0]])
    cosines = embeddings.images.astype(float) @ embeddings.texts.T
    expected = (cosines - cosines[:5].mean(axis=0)) / cosines[:5].std(axis=0)
    scores = standardised.images @ standardised.for_images(standardised.texts).T
    assert np.allclose(scores, expected, atol=1e-5) and scores.dtype == np.float32
    assert (standardised.texts == embeddings.texts).all(), "texts are compared with texts as before"


def test_a_model_that_sees_no_difference_ties(root: Path) -> None:
    result = scored(root, constant(), scorer="standardised")
    assert (value(result), result.benchmarks[0].parts[0].scores[0].ties) == (0.0, COUNT)


def test_classes_and_candidates_are_standardised_too(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text, the name of a class and a candidate, scores most with every image."""
    monkeypatch.setattr("degla.evaluation.questions._FEWEST_IMAGES", 6)
    oracle = knowing(TRUTH, COLOURS, lying=False)
    liked = [tuple(words(text)) for text in TRUTH["0.png"]]
    encoder = FakeEncoder(
        lambda image: np.append(oracle.image_row(image), 2.0),
        lambda tokens: np.append(oracle.text_row(tokens), 5.0 if tokens in liked else 0.0),
    )

    def values(scorer: Any) -> dict[str, list[float]]:
        result = Evaluation(["small"], small_root, progress=False, scorer=scorer).score(encoder)
        return {part.name: [round(each.value, 2) for each in part.scores] for part in result.benchmarks[0].parts}

    wrong = {"pair": [1.0], "square": [0.5, 0.5, 1.0], "recognise": [0.17, 0.17], "find": [0.17, 1.0]}
    assert values("cosine") == wrong
    assert values("standardised") == {name: [1.0] * len(each) for name, each in wrong.items()}


def test_a_mean_over_few_images_is_refused(root: Path) -> None:
    file = root / "own" / "mine.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(
        InputError, match=r"need a mean over at least 20 images; it has 19\. Omit the benchmark, or score by cosine"
    ):
        scored(root, preferring(0, 0), scorer="standardised")
    for scorer in ("cosine", "standardised"):  # A study asks before its base is loaded.
        questions = StudyQuestions(("own",), root, "", scorer=scorer)  # type: ignore[arg-type]
        with nullcontext() if scorer == "cosine" else pytest.raises(InputError, match="it has 19"):
            CurrentQuestions().require_scores(questions, [], where="plan")


def test_questions_that_cannot_be_scored_are_refused_before_a_model_is_loaded(
    root: Path, small_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.evaluation.run.load_model", pytest.fail)
    (root / "own" / "mine.jsonl").write_text('{"image": "0.png", "caption": "one", "negative": "two"}\n')
    command = ["evaluate", "random", "--benchmarks", "own", "--root", str(root), "--out", str(root / "a.json")]
    assert main([*command, "--no-cache", "--scorer", "standardised"]) == 2
    assert "standardised scores need a mean over at least 20 images; it has 1." in capsys.readouterr().err
    with pytest.raises(InputError, match="but small has other questions"):
        Evaluation(["small"], small_root, regions=Regions((1,))).score_named("random")


def test_the_command_says_that_scores_are_standardised(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    command = ["evaluate", "random", "--benchmarks", "own", "--root", str(root), "--out", str(out), "--no-cache"]
    for label in ([], ["--label", "guesses"]):
        assert main([*command, "--scorer", "standardised", *label]) == 0
        result = load_result(out)
        name = label[-1] if label else "random"
        assert (result.scorer, result.model.label) == ("standardised", f"{name}, standardised")
    capsys.readouterr()
    assert main(command) == 2
    assert f"{out}: has results of random on own (standardised), which would be lost" in capsys.readouterr().err
    assert main(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    assert "Standardised scores: cosines minus" in (tmp_path / "report.md").read_text()


def test_from_python(root: Path, tmp_path: Path) -> None:
    result = degla.evaluate("random", ["own"], root, scorer="standardised", out=tmp_path / "a.json")
    assert (result.scorer, result.model.label) == ("standardised", "random, standardised")
    with pytest.raises(InputError, match=r"own \(standardised\), which would be lost"):
        degla.evaluate("random", ["own"], root, out=tmp_path / "a.json")
    with pytest.raises(InputError, match="scorer 'standardized': must be one of cosine, standardised"):
        degla.evaluate("random", ["own"], root, scorer="standardized")  # type: ignore[arg-type]


def test_regions_are_not_standardised(root: Path) -> None:
    with pytest.raises(InputError, match=r"scorer 'standardised' cannot be combined with regions"):
        Evaluation(["own"], root, scorer="standardised", regions=Regions((1,)))


def test_standardised_scores_are_not_set_beside_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def beside(scorer: str) -> int:
        result = SimpleNamespace(scorer=scorer)
        comparison = SimpleNamespace(methods=[SimpleNamespace(results={0: result})], rows=[row])
        return len(in_print._measured(comparison, "sugarcrepe"))  # type: ignore[arg-type]

    row = SimpleNamespace(benchmark="sugarcrepe", name="swap_obj", kind="part", metric="text_ok")
    monkeypatch.setattr(in_print, "entries_of", lambda methods, name: [])
    assert (beside("cosine"), beside("standardised")) == (2, 0)


def test_a_study_measures_again_by_another_scorer(root: Path, tiny_model: Path) -> None:
    def measured(scorer: Any) -> tuple[int, str]:
        questions = StudyQuestions(("own",), root, "", scorer=scorer)
        measures = (Measure("base", 1.0, root / "base.json"),)
        done = tune(Job("base", str(tiny_model), None, {}, measures, questions))
        return done.measured, load_result(done.paths[0]).scorer

    assert [measured("standardised"), measured("standardised"), measured("cosine")] == [
        (1, "standardised"),
        (0, "standardised"),
        (1, "cosine"),
    ]
