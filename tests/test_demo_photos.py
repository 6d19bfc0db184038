"""The demo on your own photographs at a small size: every stage runs; and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from degla.cli import main
from degla.data.pairs import hold_out
from degla.demo import methods, photos
from degla.evaluation.image_files import has_image
from degla.evaluation.results import load_result
from degla.records import CaptionRecord
from tests.launch import FORKS

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
THINGS = ("dog", "cat", "horse", "bird")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """24 images in a subfolder and their captions, and one broken image."""
    folder = tmp_path / "mine"
    (folder / "album").mkdir(parents=True)
    rows = []
    for number, colour in enumerate(COLOURS * 4):
        name = f"album/{number}.png"
        Image.new("RGB", (20, 16), colour).save(folder / name)
        text = f"A {colour} {THINGS[number // 6]} sits beside a small {COLOURS[number % 5]} house."
        rows.append({"id": str(number), "image": name, "text": text, "image_id": str(number)})
    (folder / "album" / "broken.png").write_bytes(b"no picture")
    rows.append({"id": "b", "image": "album/broken.png", "text": "A broken one.", "image_id": "b"})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.usefixtures("undrawn")
def test_pictures_of_ones_own(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(photos, "QUICK_STEPS", 2)
    monkeypatch.setattr(photos, "METHODS", {"degla": None, "clip": None})
    monkeypatch.setattr("degla.study.workers.WORKERS", FORKS)
    out = tmp_path / "demo"
    captions = str(tmp_path / "captions.jsonl")
    (out / "own").mkdir(parents=True)
    (out / methods.LINK).symlink_to(pictures)
    for folder in (out, out / "own"):  # Of an earlier demo with other captions.
        (folder / "negatives.jsonl.manifest.json").write_text('{"captions": 9}')
    assert main(["demo", "--quick", "--photos", captions, "--images", str(pictures), "--out", str(out)]) == 0
    assert "album/broken.png" in caplog.text and "1 row is skipped" in caplog.text
    # The same few colours are on both sides.
    assert "Do not compare the methods by every number above: benchmark images were trained on." in caplog.text
    results = {path.stem: load_result(path) for path in (out / "results").glob("*-0.json")}
    assert {result.model.label for result in results.values()} == {"base", "degla", "clip"}
    assert len({result.model.fingerprint for result in results.values()}) == 3
    for result in results.values():
        assert {entry.name for entry in result.benchmarks} == {"own", "retrieval"}
    trained = {json.loads(line)["image"] for line in (out / "train.jsonl").read_text().splitlines()}
    questions = {json.loads(line)["image"] for line in (out / "own" / "captions.jsonl").read_text().splitlines()}
    assert len(trained) == 20 and len(questions) == 4 and not trained & questions
    assert all(name.startswith("pictures/album/") and (out / name).is_file() for name in trained | questions)
    page = (out / "report.html").read_text()
    assert "data:image/jpeg" in page, "no picture in the report"
    assert 'src="http' not in page and 'href="http' not in page, "the page asks for something outside it"


def test_too_few_pictures(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()[:5]
    (tmp_path / "few.jsonl").write_text("\n".join(lines))
    words = ["demo", "--photos", str(tmp_path / "few.jsonl"), "--images", str(pictures), "--out", str(tmp_path / "d")]
    assert main(words) == 2
    assert "few.jsonl: only 5 images with captions can be used; the demo needs 20" in capsys.readouterr().err


def test_captions_that_no_rule_can_change(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps({**row, "text": f"Ж{row['id']}"}) + "\n" for row in rows))
    out = tmp_path / "demo"
    words = ["demo", "--photos", str(tmp_path / "odd.jsonl"), "--images", str(pictures), "--out", str(out)]
    assert main(words) == 2
    assert "the rules found nothing to change in these captions" in capsys.readouterr().err


def test_one_flag_without_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--photos", "captions.jsonl"]) == 2
    assert "--images FOLDER require each other" in capsys.readouterr().err


def test_more_pictures_than_are_taken(pictures: Path, tmp_path: Path) -> None:
    rows = photos.usable(tmp_path / "captions.jsonl", pictures, largest=22)
    names = {row.image for row in rows}
    assert 20 <= len(names) <= 22
    assert rows == photos.usable(tmp_path / "captions.jsonl", pictures, largest=22)


def test_pictures_inside_a_dataset_stay_where_they_are(pictures: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted((pictures / "album").glob("[0-9]*.png"))]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": cells, "text": ["a dog"] * len(cells)}, features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    rows = photos.usable(tmp_path / "saved", pictures, largest=100)
    assert len(rows) == 24 and all(has_image(tmp_path, row.image) for row in rows)


def test_no_picture_is_on_both_sides() -> None:
    rows = [CaptionRecord(id=str(n), image=f"{n % 50}.png", text="a", image_id=str(n % 50)) for n in range(100)]
    train, questions = hold_out(rows, most=photos.LARGEST_HELD, seed=1)
    assert len(train) == 80 and len(questions) == 20
    assert not {row.image for row in train} & {row.image for row in questions}
    assert len({row.image for row in hold_out(rows, most=7, seed=1)[1]}) == 7
