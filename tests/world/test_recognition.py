"""Labelled images: one folder for training and for `zeroshot`, reproducible, and never those of a benchmark."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from degla.cli import main
from degla.data.extras import read_classes
from degla.errors import InputError
from degla.evaluation.benchmark import Classification
from degla.evaluation.benchmarks.zeroshot import BENCHMARK
from degla.records import CaptionRecord, read_jsonl
from degla.world.domains import DOMAINS, class_slug
from degla.world.draw import draw_benchmark
from degla.world.recognition import STYLES, draw_recognition
from degla.world.scenes import stream


def _pictures(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.png"))
    }


def test_one_folder_is_training_data_and_a_data_set(tmp_path: Path) -> None:
    drawn = draw_recognition(tmp_path / "zeroshot" / "mine", domains=("digit", "count"), images_per_class=2)
    rows = list(read_jsonl(CaptionRecord, drawn.captions))
    classes = read_classes(drawn.classes)
    assert classes == DOMAINS["digit"].classes + DOMAINS["count"].classes and len(rows) == 2 * len(classes)
    assert {row.label for row in rows} == set(classes) and len({row.id for row in rows}) == len(rows)
    assert all((drawn.images / row.image).is_file() and row.text == f"a photo of {row.label}" for row in rows)
    (entry,) = BENCHMARK.items(tmp_path)
    assert isinstance(entry, Classification) and set(entry.classes) == set(classes)
    label_of = {row.image: row.label for row in rows}
    for image, label in zip(entry.images, entry.labels, strict=True):
        assert label_of[image.path.removeprefix("zeroshot/mine/")] == entry.classes[label]


def test_classes_of_all_domains_are_distinguished() -> None:
    slugs = [class_slug(name) for domain in DOMAINS.values() for name in domain.classes]
    assert len(set(slugs)) == len(slugs)


def test_training_pictures_are_in_no_benchmark(tmp_path: Path) -> None:
    benchmark = draw_benchmark(tmp_path / "world", items_per_part=2, images_per_class=2, retrieval_images=2)
    digits = {
        split: _pictures(draw_recognition(tmp_path / split, domains=("digit",), split=split, images_per_class=2).images)
        for split in ("train", "validation", "test")
    }
    assert digits["test"] == _pictures(benchmark / "recognition" / "digit")
    contents = [set(pictures.values()) for pictures in digits.values()]
    assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]
    other = _pictures(draw_recognition(tmp_path / "other", domains=("digit",), images_per_class=2, seed=1).images)
    assert not set(other.values()) & contents[0]
    again = _pictures(draw_recognition(tmp_path / "again", domains=("digit",), images_per_class=2).images)
    assert again == digits["train"]


@pytest.mark.parametrize("name", [name for name in STYLES if name != "plain"])
def test_a_style_changes_the_picture_and_not_its_form(name: str) -> None:
    picture = DOMAINS["letter"].paint("the letter r", stream("style-test")).picture
    before = picture.copy()
    changed = STYLES[name](picture, Random(1))
    assert np.array_equal(picture, before), "the given picture was painted over"
    assert changed.shape == picture.shape and changed.dtype == np.uint8
    assert (changed != picture).mean() > 0.1
    assert np.array_equal(changed, STYLES[name](picture, Random(1)))


def test_what_styles_do() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :32] = (200, 0, 0)
    turned = STYLES["turned"](picture, Random(0))
    assert turned[40, 10].tolist() == [200, 0, 0] and turned[10, 10].tolist() == [0, 0, 0]
    sketched = STYLES["sketched"](picture, Random(0))
    assert sketched[10, 10].tolist() == [255, 255, 255] and sketched[10, 31].max() < 100
    snow = (STYLES["snowy"](picture, Random(0)) == 255).all(axis=2).mean()
    assert 0.4 < snow < 0.5
    assert len(np.unique(STYLES["mosaic"](picture, Random(0)).reshape(-1, 3), axis=0)) == 2


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"unknown domain 'digits'.*Did you mean 'digit'"):
        draw_recognition(tmp_path / "a", domains=("digits",))
    with pytest.raises(InputError, match=r"unknown style 'turnd'.*Did you mean 'turned'"):
        draw_recognition(tmp_path / "a", style="turnd")
    for domains in ((), ("digit", "digit")):
        with pytest.raises(InputError, match="name at least one domain, each only once"):
            draw_recognition(tmp_path / "a", domains=domains)
    assert not (tmp_path / "a").exists()
    (tmp_path / "b c" / class_slug(DOMAINS["count"].classes[0])).mkdir(parents=True)  # what a killed call leaves
    out = ["--out", str(tmp_path / "b c")]
    assert main(["world", "recognition", *out, "--domains", "count", "--images-per-class", "1"]) == 0
    flags = shlex.split(capsys.readouterr().err.partition("to train: ")[2])
    assert flags[:4] == ["--data.captions", str(tmp_path / "b c" / "captions.jsonl"), "--data.images", out[1]]
    few = ["--domains", "count", "--images-per-class", "1", "--split", "test"]
    assert main(["world", "recognition", "--out", str(tmp_path / "c"), *few]) == 0
    assert (
        "to evaluate: --benchmarks zeroshot --root ROOT, with this folder at ROOT/zeroshot/c\n"
        in (error := capsys.readouterr().err)
        and "to train" not in error
    )
    pictures = {file: file.stat().st_mtime_ns for file in (tmp_path / "b c").rglob("*")}
    assert draw_recognition(tmp_path / "b c", domains=("count",), images_per_class=1).images == tmp_path / "b c"
    assert pictures == {file: file.stat().st_mtime_ns for file in (tmp_path / "b c").rglob("*")}, "drawn twice"
    assert main(["world", "recognition", *out, "--domains", "count", "--images-per-class", "2"]) == 2
    assert main(["world", "draw", *out, "--style", "turned"]) == 2
    assert main(["world", "recognition", *out, "--pairs", "3"]) == 2
    assert main(["world", "recognition", *out, "--contexts"]) == 2
    error = capsys.readouterr().err
    assert "--contexts applies only to degla world draw" in error
    assert "world.json" in error and "--style applies only to degla world recognition" in error


def test_scenes_and_captions_are_as_many_as_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.world.draw.draw_benchmark", lambda *arguments, **options: None)
    draw = ["world", "draw", "--out", str(tmp_path / "drawn")]
    for flag in ("--pairs", "--captions-per-image"):
        assert main([*draw, flag, "0"]) == 2
        assert f"{flag} is 0; it must be 1 or more" in capsys.readouterr().err
    assert main([*draw, "--pairs", "3", "--captions-per-image", "2", "--contexts"]) == 0
    rows = list(read_jsonl(CaptionRecord, tmp_path / "drawn" / "pairs" / "captions.jsonl"))
    assert all(len(row.positives) == 1 for row in rows)
    assert Counter(Counter(row.image for row in rows).values()) == {2: 3}
