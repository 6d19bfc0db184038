"""Images are decoded completely and upright, or rejected by name."""

from __future__ import annotations

import io
import logging
import math
import struct
import unicodedata
import zlib
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from degla.data.dataset import ImageTransform, RandomCrop
from degla.data.decoding import ImageError
from degla.data.images import check_images, look_for, read_image, usable_rows
from degla.data.pairs import PairRow
from degla.data.sources import read_captions
from degla.data.table import PairTable, table_of
from degla.errors import InputError
from degla.records import CaptionRecord
from tests.official import SHARED


def photograph(width: int = 64, height: int = 48) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size in its header but contains almost nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_wrong_images(folder: Path) -> dict[str, str]:
    """Map file name to the expected message."""
    photograph(320, 240).save(folder / "whole.jpg", quality=95)
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    photograph(320, 240).save(folder / "whole2.jpg", quality=95, progressive=True)
    content = (folder / "whole2.jpg").read_bytes()
    (folder / "cut_progressive.jpg").write_bytes(content[: len(content) // 2])
    photograph(320, 240).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("A dog on a sofa.")
    (folder / "telephone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(png_of_size(30_000, 30_000))
    (folder / "small_bomb.png").write_bytes(png_of_size(10_000, 10_000))
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(folder / "float.tiff")
    (folder / "folder.jpg").mkdir()
    return {
        "missing.jpg": "is missing. Check the image folder",
        "cut.jpg": "is damaged or cut off",
        "cut_progressive.jpg": "is damaged or cut off",
        "cut.png": "is damaged or cut off",
        "text.jpg": "is not in a format Pillow reads: it begins with b'A dog on a sofa.'",
        "telephone.jpg": "cannot be read: it is HEIC, which Pillow does not read. Save it as JPEG, or remove it.",
        "empty.jpg": "the file is empty",
        "bomb.png": "more than 89,478,485 pixels",
        "small_bomb.png": "more than 89,478,485 pixels",
        "float.tiff": "floating point numbers. Save it with 8 bits per channel, or remove it.",
        "folder.jpg": "cannot be read",
    }


def rows_for(*images: str) -> PairTable:
    return table_of(
        [
            PairRow(CaptionRecord(id=f"caption {number}", image=image, text="A dog.", image_id=image), (), ())
            for number, image in enumerate(images)
        ]
    )


@pytest.mark.parametrize(("there", "name"), [("a.jpg", "a.JPG"), ("Dog.JPEG", "Dog.jpeg"), ("b.png", "B.PNG")])
def test_a_name_that_differs_in_case_alone_is_reported(there: str, name: str, tmp_path: Path) -> None:
    photograph(32, 24).save(tmp_path / there)
    with pytest.raises(ImageError, match=rf"{name}: the image .* is missing\. {there} exists: here, case matters"):
        look_for(name, folder=tmp_path, caption_id="1")
    with pytest.raises(ImageError, match=r"is missing\. Check"):
        look_for("other.jpg", folder=tmp_path, caption_id="1")


def test_an_address_in_a_captions_file_is_not_requested(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: the image of caption '1' is missing\. Addresses in a captions file"):
        look_for("https://example.org/a.jpg", folder=tmp_path, caption_id="1")


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_a_picture_that_is_larger_than_its_icon_says_is_judged_by_its_own_size(tmp_path: Path) -> None:
    for width, height in ((300, 1), (20, 30)):
        stream = io.BytesIO()
        Image.new("RGB", (width, height)).save(stream, "PNG")
        entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(stream.getvalue()), 22)
        (tmp_path / f"{width}.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + stream.getvalue())
    assert read_image("20.ico", folder=tmp_path, caption_id="1").size == (20, 30)
    with pytest.raises(ImageError, match=r"300 x 1 pixels: one side is more than 250 times the other"):
        read_image("300.ico", folder=tmp_path, caption_id="1")


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_that_differs_in_its_encoding_alone_is_reported(
    form: Literal["NFC", "NFD"], other: Literal["NFC", "NFD"], tmp_path: Path
) -> None:
    """As where files were packed on macOS."""
    photograph(32, 24).save(tmp_path / unicodedata.normalize(form, "café.jpg"))
    with pytest.raises(ImageError, match=rf"looks the same, but has its accents in the Unicode form {form}: rename"):
        look_for(unicodedata.normalize(other, "café.jpg"), folder=tmp_path, caption_id="1")


def test_a_path_with_backslashes_to_an_image_is_reported(tmp_path: Path) -> None:
    """As where captions were written on Windows."""
    (tmp_path / "sub").mkdir()
    photograph(32, 24).save(tmp_path / "sub" / "a.jpg")
    with pytest.raises(ImageError, match=r"sub/a\.jpg exists: separate folders by /, not by \\\."):
        look_for("sub\\a.jpg", folder=tmp_path, caption_id="1")
    with pytest.raises(ImageError, match=r"/sub/a\.jpg exists: write paths relative to the image folder\."):
        look_for("C:\\me\\a.jpg", folder=tmp_path / "sub", caption_id="1")


def test_a_missing_image_is_looked_for_in_the_folders_beside(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    below = folder / "train2017"
    below.mkdir(parents=True)
    (folder / "captions.json").touch()
    Image.new("RGB", (8, 8)).save(below / "1.png")
    for path, wrong, right in (("1.png", folder, below), ("train2017/1.png", below, folder)):
        first, second = check_images(rows_for(path, "gone.png"), wrong, depth="exists").bad
        assert first.message.endswith(f"relative paths. It is in {right}.") and "It is in" not in second.message
    (bad,) = check_images(rows_for("gone.png"), tmp_path / "nowhere").bad
    assert bad.message.endswith("relative paths.")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_wrong_image_is_named_when_read_and_when_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.data.images._AT_A_TIME", 3)
    wrong = write_wrong_images(tmp_path)
    rows = rows_for("whole.jpg", *wrong, "whole.png", "whole.jpg")
    ids = {rows.at("image", row): rows.at("id", row) for row in reversed(range(len(rows)))}
    report = check_images(rows, tmp_path, 2)
    assert report.checked == len(wrong) + 2
    assert [entry.image for entry in report.bad] == list(wrong)
    for entry in report.bad:
        with pytest.raises(ImageError) as caught:
            read_image(entry.image, folder=tmp_path, caption_id=ids[entry.image])
        for message in (str(caught.value), entry.message):
            assert wrong[entry.image] in message
            assert str(tmp_path / entry.image) in message
            assert repr(ids[entry.image]) in message


def test_cut_off_files_are_refused_even_where_another_library_allows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wrong_images(tmp_path)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="cut off"):
        read_image("cut.jpg", folder=tmp_path, caption_id="1")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert len(check_images(rows_for("cut.jpg"), tmp_path).bad) == 1


def test_usable_rows_stops_or_skips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_wrong_images(tmp_path)
    rows = rows_for("whole.jpg", "cut.jpg", "whole.png", "cut.jpg")
    assert usable_rows(rows, check_images(rows, tmp_path, depth="exists"), bad_images="stop") is None
    with caplog.at_level(logging.WARNING):
        usable = usable_rows(rows, check_images(rows, tmp_path), bad_images="skip")
    assert usable is not None and usable.tolist() == [0, 2] and list(rows.select(usable)) == [rows[0], rows[2]]
    assert "2 rows are skipped. 1 of 3 images cannot be used." in caplog.text
    assert str(tmp_path / "cut.jpg") in caplog.text
    gone, text = rows_for("whole.jpg", "gone.jpg"), rows_for("text.jpg")
    with pytest.raises(InputError, match=r"1 of 2 images cannot be used\.\n.*gone\.jpg.*\n.*--data\.bad-images skip"):
        usable_rows(gone, check_images(gone, tmp_path, depth="exists"), bad_images="stop")
    with pytest.raises(InputError, match="no image can be used"):
        usable_rows(text, check_images(text, tmp_path), bad_images="skip")


def save(folder: Path, picture: Image.Image, name: str, **options: object) -> np.ndarray:
    picture.save(folder / name, **options)
    image = read_image(name, folder=folder, caption_id="1")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_modes_become_rgb_as_they_look(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))
    wide = save(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257), "grey16.png")
    assert (wide == grey[..., None]).all()
    assert (save(tmp_path, Image.fromarray(grey), "grey.png") == grey[..., None]).all()

    colour = photograph()
    expected = np.asarray(colour).astype(int)
    cmyk = save(tmp_path, colour.convert("CMYK"), "cmyk.jpg", quality=100, subsampling=0)
    assert np.abs(cmyk - expected).mean() < 3
    palette = colour.quantize(256)
    assert (save(tmp_path, palette, "palette.png") == np.asarray(palette.convert("RGB"))).all()

    clear = np.zeros((2, 2, 4), dtype=np.uint8)
    clear[0] = (10, 20, 30, 255)
    pixels = save(tmp_path, Image.fromarray(clear), "alpha.png")
    assert pixels[0].tolist() == [[10, 20, 30]] * 2
    assert pixels[1].tolist() == [[255, 255, 255]] * 2
    holes = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    holes.putpalette([9, 9, 9, 50, 60, 70])
    assert save(tmp_path, holes, "holes.png", transparency=0).tolist() == [[[255] * 3, [50, 60, 70]]]
    frames = [Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")]
    assert (save(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])[0, 0] == [255, 0, 0]).all()


def test_exif_orientation_is_applied_and_a_broken_block_is_passed_over(tmp_path: Path) -> None:
    picture = photograph(64, 48)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path, picture, "turned.png", exif=exif)
    assert (turned == np.rot90(np.asarray(picture), k=-1)).all()
    assert save(tmp_path, picture, "broken.jpg", exif=b"Exif\x00\x00nonsense").shape == (48, 64, 3)


MODEL = ImageTransform(size=32, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


def test_crop_equals_torchvision_for_the_same_box() -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    picture = photograph(97, 61)
    crop = RandomCrop(MODEL)
    for seed in range(5):
        left, top, width, height = crop.draw(picture.size, Random(seed))
        part = functional.resized_crop(
            picture, top, left, height, width, [32, 32], interpolation=Image.Resampling.BICUBIC, antialias=True
        )
        expected = functional.normalize(functional.pil_to_tensor(part).float() / 255, MODEL.mean, MODEL.std)
        # PyTorch's filter over bytes rounds a few of them to the neighbour of Pillow's.
        gap = (crop(picture, Random(seed)) - expected) * torch.tensor(MODEL.std).view(3, 1, 1) * 255
        assert gap.abs().max() < 1.01 and (gap.abs() > 0.5).float().mean() < 0.03


def test_boxes_keep_their_promises_and_have_torchvisions_distribution() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    rng = Random(0)
    torch.manual_seed(0)
    for size in ((640, 480), (100, 400), (50, 1000)):
        mine, theirs = [], []
        empty = torch.empty(3, size[1], size[0])
        for _ in range(500):
            left, top, width, height = RandomCrop(MODEL).draw(size, rng)
            assert 0 <= left <= size[0] - width and 0 <= top <= size[1] - height and width > 0 < height
            assert 0.74 < width / height < 1.35
            mine.append((width, height, left, top))
            top, left, height, width = transforms.RandomResizedCrop.get_params(empty, (0.9, 1.0), (3 / 4, 4 / 3))
            theirs.append((width, height, left, top))
        gap = np.abs(np.mean(mine, axis=0) - np.mean(theirs, axis=0))
        noise = (np.std(mine, axis=0) + np.std(theirs, axis=0) + 1e-9) / math.sqrt(500)
        assert (gap < 4 * noise + 1e-6).all(), (size, gap, noise)


def test_transforms_depend_on_their_generator_alone() -> None:
    picture = photograph()
    crop = RandomCrop(MODEL)
    assert torch.equal(crop(picture, Random(1)), crop(picture, Random(1)))
    assert not torch.equal(crop(picture, Random(1)), crop(picture, Random(2)))


def test_pictures_inside_a_dataset_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("degla.data.formats.datasets._ROWS", 2)
    outside = photograph(32, 16)
    outside.save(tmp_path / "outside.png")
    stored = []
    for number in range(3):
        content = io.BytesIO()
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(content, "PNG")
        stored.append({"bytes": content.getvalue(), "path": f"{number}.png"})
    stored.append({"bytes": None, "path": str(tmp_path / "outside.png")})
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Sequence(datasets.Value("string"))})
    table = datasets.Dataset.from_dict({"image": stored, "text": [["A.", "B."]] * 4}, features=features)
    table.select([2, 1, 3]).save_to_disk(str(tmp_path / "pictures"))

    captions = list(read_captions(tmp_path / "pictures"))
    assert [caption.id for caption in captions] == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    assert captions[0].image_id == captions[1].image_id != captions[2].image_id
    sizes = [read_image(caption.image, folder=tmp_path, caption_id=caption.id).size for caption in captions]
    assert sizes == [(10, 8), (10, 8), (9, 8), (9, 8), (32, 16), (32, 16)]
    rows = table_of([PairRow(caption, (), ()) for caption in captions])
    assert check_images(rows, tmp_path).bad == ()
    with pytest.raises(ImageError, match=r"caption 'x' cannot be read: .*no such image"):
        read_image(captions[0].image.replace("/0", "/7"), folder=tmp_path, caption_id="x")


def test_photographs_decode(data_root: Path) -> None:
    folder = data_root / "coco" / "val2017"
    captions = read_captions(data_root / "coco" / "annotations" / "captions_val2017.json")
    rows = table_of([PairRow(caption, (), ()) for caption in captions])
    report = check_images(rows, folder, 2)
    assert (report.checked, report.bad) == (85 if data_root == SHARED else 6, ())
    picture = read_image(rows[0].caption.image, folder=folder, caption_id=rows[0].caption.id)
    assert RandomCrop(ImageTransform(224, MODEL.mean, MODEL.std))(picture, Random(0)).shape == (3, 224, 224)
