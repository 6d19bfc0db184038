"""Every entry point decodes an odd image to the same pixels, or rejects it for the same reason."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from degla.data.containers import packed_place
from degla.data.decoding import ImageError
from degla.data.images import check_images, read_image, read_part, usable_rows
from degla.data.pack import Packing, pack
from degla.data.pairs import PairRow
from degla.data.table import table_of
from degla.errors import InputError
from degla.evaluation.embed import Embedder, open_images
from degla.evaluation.image_files import has_image, thumbnail
from degla.records import CaptionRecord, ItemImage
from tests.odd_images import OddImage, odd_images

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
ODD = odd_images()
Reader = Callable[[Path, str], np.ndarray]


def row(image: str) -> PairRow:
    return PairRow(CaptionRecord(id="1", image=image, text="A dog.", image_id=image), (), ())


class Seeing:
    """A model whose transform records its inputs; otherwise only what an embedding needs."""

    name, activation, fingerprint, precision, context_length = "seeing", "gelu", "0" * 64, "fp32", 8
    trims, device, tokenize = False, torch.device("cpu"), None

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def transform(self, picture: Image.Image) -> torch.Tensor:
        assert picture.mode == "RGB"
        self.seen.append(np.array(picture))
        return torch.zeros(3, 2, 2)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 4)


def embedded(folder: Path, name: str) -> np.ndarray:
    encoder: Any = Seeing()
    Embedder(encoder, root=folder, workers=1).embed([ItemImage(path=name)], [])
    return encoder.seen[0]


def attacked(folder: Path, name: str) -> np.ndarray:
    encoder: Any = SimpleNamespace(
        transform=lambda image: torch.from_numpy(np.array(image)), device=torch.device("cpu")
    )
    options: Any = {"name": "pictures"}
    ((_, pixels),) = open_images(encoder, [ItemImage(path=name)], [0], root=folder, **options)
    return pixels[0].numpy()


def whole(size: tuple[int, int]) -> tuple[int, int, int, int]:
    return (0, 0, *size)


ENTRANCES: dict[str, Reader] = {
    "training, whole": lambda folder, name: np.array(read_image(name, folder=folder, caption_id="1")),
    "training, part": lambda folder, name: np.array(
        read_part(name, folder=folder, caption_id="1", draw=whole, least=10**9)
    ),
    "evaluation": embedded,
    "attack": attacked,
}


def as_jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.pixels is not None], ids=lambda odd: odd.name)
def test_every_entrance_gives_the_same_pixels(odd: OddImage, tmp_path: Path) -> None:
    assert odd.pixels is not None
    (tmp_path / odd.name).write_bytes(odd.content)
    first = ENTRANCES["training, whole"](tmp_path, odd.name)
    assert first.shape == odd.pixels.shape
    assert np.abs(first.astype(int) - odd.pixels).mean() <= odd.tolerance
    for name, read in ENTRANCES.items():
        assert np.array_equal(read(tmp_path, odd.name), first), name
    assert check_images(table_of([row(odd.name)]), tmp_path).bad == ()
    # These two write JPEG files: the same image with the same settings gives the same bytes.
    pack([row(odd.name)], folder=tmp_path, out=tmp_path / "pack", packing=Packing(size=4096, quality=90))
    assert as_jpeg(first, quality=90) in (tmp_path / "pack" / "pairs-000000.tar").read_bytes()
    address = thumbnail(ItemImage(path=odd.name), root=tmp_path)
    assert address is not None
    assert base64.b64decode(address.partition(",")[2]) == as_jpeg(first, quality=82, optimize=True)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_part_is_a_part_of_the_upright_picture(number: int, tmp_path: Path) -> None:
    (odd,) = (odd for odd in ODD if odd.name == f"turned-{number}.jpg")
    (tmp_path / odd.name).write_bytes(odd.content)
    sizes: list[tuple[int, int]] = []

    def draw(size: tuple[int, int]) -> tuple[int, int, int, int]:
        sizes.append(size)
        return (4, 2, size[0] - 16, size[1] - 8)

    upright = read_image(odd.name, folder=tmp_path, caption_id="1")
    part = read_part(odd.name, folder=tmp_path, caption_id="1", draw=draw, least=10**9)
    assert sizes == [upright.size]
    assert np.array_equal(part, upright.crop((4, 2, upright.width - 12, upright.height - 6)))
    # At half the size it is the same part with fewer pixels.
    half = read_part(odd.name, folder=tmp_path, caption_id="1", draw=draw, least=8)
    assert half.size == (part.width // 2, part.height // 2)
    gap = np.asarray(part.resize(half.size, Image.Resampling.BOX)).astype(int) - np.asarray(half)
    assert np.abs(gap).mean() < 6


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.pixels is None], ids=lambda odd: odd.name)
def test_every_entrance_refuses_with_the_same_reason(odd: OddImage, tmp_path: Path) -> None:
    (tmp_path / odd.name).write_bytes(odd.content)
    reasons = set()
    for name, read in ENTRANCES.items():
        with pytest.raises(ImageError) as caught:
            read(tmp_path, odd.name)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / odd.name}: the image") and "\n" not in text and odd.refusal in text, name
        skip = ", or skip its rows (in training with --data.bad-images skip)"
        assert text.endswith(("Fetch the file again.", f"Fetch the file again{skip}.", "or remove it.")), name
        reasons.add(text.replace(" of caption '1'", "").replace(skip, ""))
    assert len(reasons) == 1
    assert [bad.image for bad in check_images(table_of([row(odd.name)]), tmp_path).bad] == [odd.name]
    with pytest.raises(ImageError):
        pack([row(odd.name)], folder=tmp_path, out=tmp_path / "pack", packing=Packing())
    assert thumbnail(ItemImage(path=odd.name), root=tmp_path) is None


def odd_places(folder: Path) -> dict[str, str]:
    """Map invalid image paths to the expected messages."""
    (folder / "x.tar").write_bytes(bytes(1000))
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    return {
        packed_place("x.tar", start=0, size=10**12): "the shard ends before byte 1000000000000; pack it again",
        packed_place("x.tar", start=10**17, size=5): "the shard ends before byte",
        packed_place("x.tar", start=0, size=int("9" * 60)): "is missing",
        packed_place("gone.tar", start=0, size=5): "is missing",
        "a" * 5000 + ".jpg": "File name too long",
        "b/" * 3000 + "c.jpg": "File name too long",
        "null\0byte.jpg": "null ",  # "null byte", and from Python 3.13 on "null character".
        "folder.jpg": "it is a folder, not a file",
        "x.tar/inside.jpg": "Not a directory",
        "pipe.jpg": "it is a pipe, socket or device, not a file",
        "/dev/zero": "it is a pipe, socket or device, not a file",
        "gone.jpg": "is missing",
        "dataset:gone#image/" + "9" * 5000: "cannot be read",
    }


def test_what_is_no_file_is_refused_at_once_and_in_one_short_line(tmp_path: Path) -> None:
    for place, reason in odd_places(tmp_path).items():
        for name, read in ENTRANCES.items():
            with pytest.raises(ImageError) as caught:
                read(tmp_path, place)
            message = str(caught.value)
            assert reason in message and len(message) < 800 and message.isprintable(), (name, place[:50])
        has_image(tmp_path, place)
        assert thumbnail(ItemImage(path=place), root=tmp_path) is None
        # A missing row of a dataset is only noticed when it is read.
        for depth in ("decode",) if place.startswith("dataset:") else ("decode", "exists"):
            (bad,) = check_images(table_of([row(place)]), tmp_path, depth=depth).bad
            assert reason in bad.message


def test_rows_of_wrong_references_are_left_out_or_stop_the_training_before_it_begins(tmp_path: Path) -> None:
    places = odd_places(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    rows = table_of([row("good.png"), *map(row, places)])
    assert usable_rows(rows, check_images(rows, tmp_path), bad_images="skip").tolist() == [0]
    with pytest.raises(InputError, match=r"12 of 14 images cannot be used\.\n.*pack it again"):
        usable_rows(rows, check_images(rows, tmp_path, depth="exists"), bad_images="stop")


def test_files_of_more_bytes_than_an_image_has_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as stream:
        stream.truncate(10**12)
    for read in ENTRANCES.values():
        with pytest.raises(ImageError, match=r"it has 1,000,000,000,000 bytes, more than the 357,913,940"):
            read(tmp_path, "huge.jpg")


def test_the_members_and_the_parts_of_a_tar_are_read_alike(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for odd in ODD:
            entry = tarfile.TarInfo(odd.name)
            entry.size = len(odd.content)
            tar.addfile(entry, io.BytesIO(odd.content))
    with tarfile.open(tmp_path / "all.tar") as tar:
        part_of = {
            member.name: packed_place("all.tar", start=member.offset_data, size=member.size)
            for member in tar.getmembers()
        }
    for odd in ODD:
        for name in (f"all.tar#{odd.name}", part_of[odd.name]):
            if odd.pixels is None:
                with pytest.raises(InputError):
                    embedded(tmp_path, name)
            else:
                assert np.abs(embedded(tmp_path, name).astype(int) - odd.pixels).mean() <= odd.tolerance
