"""Evaluation reads images as training does; as the released codes do only where that is asked for, and it says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from degla.cli import main
from degla.data.decoding import Subject, decode
from degla.evaluation.report import report
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.results import Result
from degla.world.recognition import draw_recognition
from tests.odd_images import OddImage, odd_images


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The world's shapes as they are, and the same pictures lying on their side with the tag that turns them up."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes = draw_recognition(folder / "upright/zeroshot/shapes", domains=["shape"], split="test", images_per_class=2)
    turned = folder / "turned/zeroshot/shapes"
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in shapes.images.rglob("*.png"):
        to = turned / file.relative_to(shapes.images)
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).transpose(Image.Transpose.ROTATE_90).save(to, exif=exif)
    (turned / "classes.json").write_bytes((shapes.images / "classes.json").read_bytes())
    return {"upright": folder / "upright", "turned": folder / "turned"}


def score(root: Path, out: Path, *more: str) -> Result:
    words = [
        "evaluate",
        "world",
        "--benchmarks",
        "zeroshot",
        "--root",
        str(root),
        "--out",
        str(out),
        "--label",
        out.stem,
    ]
    assert main([*words, "--cache", str(out.parent / "cache"), *more]) == 0
    return load_result(out, items=True)


def test_turned_pictures_are_scored_upright_and_official_reading_is_another_result(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upright = score(roots["upright"], tmp_path / "upright.json")
    turned = score(roots["turned"], tmp_path / "turned.json")
    assert turned.items == upright.items
    assert named_scores(upright)["shapes"] > 0.8
    capsys.readouterr()

    # The rows of the upright reading stand in the cache; they must not answer for the official one, nor it for them.
    official = score(roots["turned"], tmp_path / "official.json", "--image-reading", "official")
    assert "Images are read as in the released codes" in capsys.readouterr().out
    assert named_scores(official)["shapes"] < named_scores(upright)["shapes"] - 0.2
    assert score(roots["turned"], tmp_path / "again.json").items == upright.items
    assert (upright.image_reading, official.image_reading) == ("upright", "official")

    report([tmp_path / "upright.json", tmp_path / "official.json"], out=tmp_path / "report.html")
    for page in ("report.html", "report.md"):
        text = (tmp_path / page).read_text()
        assert "The results differ in the image reading: official, upright." in text, page
    assert "image reading: upright; " in (tmp_path / "report.md").read_text()


@pytest.fixture(scope="module")
def odd_ones() -> list[OddImage]:
    return odd_images()


@pytest.mark.filterwarnings("ignore:Palette images")
def test_official_reading_is_pillows_conversion_alone_within_the_same_limits(
    odd_ones: list[OddImage], tmp_path: Path
) -> None:
    file = tmp_path / "a"
    differ = set()
    for odd in odd_ones:
        if odd.pixels is None:
            continue
        file.write_bytes(odd.content)
        pixels = np.asarray(decode(odd.content, Subject(odd.name), reading="official"))
        with Image.open(file) as opened:
            assert np.array_equal(pixels, np.asarray(opened.convert("RGB")))
        if pixels.shape != odd.pixels.shape or np.abs(pixels.astype(int) - odd.pixels).mean() > odd.tolerance:
            differ.add(odd.name)
    assert {"turned-6.jpg", "turned-3.png", "grey-16-bit.png", "alpha.png", "palette-hole.gif"} <= differ
    assert not differ & {"turned-1.jpg", "grey.png", "palette.png", "cmyk.jpg", "colour-16-bit.png", "several.gif"}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_official_reading_refuses_what_is_cut_off_or_too_large(odd_ones: list[OddImage]) -> None:
    from degla.data.decoding import ImageError

    for odd in odd_ones:
        if odd.name.startswith(("half", "bomb", "thin", "empty", "text", "program")):
            with pytest.raises(ImageError):
                decode(odd.content, Subject(odd.name), reading="official")
