"""The training splits of classification data sets, for linear probes: every layout against torchvision's own loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets as theirs

from degla.errors import InputError
from degla.evaluation.benchmark import Classification
from degla.evaluation.data_sets import NAMES
from degla.evaluation.data_sets.reading import read_data_set, read_training_set
from degla.evaluation.image_files import decode_image, read_image_file
from tests.evaluation.published_layouts import COLOURS, TRAINING_WRITERS, WRITERS, encoded, picture, write_tar


def read(root: Path, name: str) -> tuple[Classification, Classification | None]:
    """The test split and the training split."""
    tested = read_data_set(root / "zeroshot" / name, root=root)
    return tested, read_training_set(tested, root=root)


def written(root: Path, name: str) -> tuple[Classification, Classification]:
    WRITERS[name](root / "zeroshot" / name)
    if name not in ("caltech101", "flowers102"):  # These list their training images beside those of the test.
        assert read(root, name)[1] is None
    if name in TRAINING_WRITERS:
        TRAINING_WRITERS[name](root / "zeroshot" / name)
    tested, training = read(root, name)
    assert training is not None
    return tested, training


def torchvisions(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """(path or pixels, label) as torchvision reads the same files, without their published checksums."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setattr(theirs.Flowers102, "_check_integrity", lambda self: True)
    if name in ("cifar10", "cifar100"):
        kind = theirs.CIFAR10 if name == "cifar10" else theirs.CIFAR100
        data: Any = kind(folder, train=True, download=False)
        return list(zip(data.data, data.targets, strict=True))
    loaders: dict[str, Callable[[], list[Any]]] = {
        "food101": lambda: [theirs.Food101(folder, "train")],
        "pets": lambda: [theirs.OxfordIIITPet(folder, "trainval")],
        "flowers102": lambda: [theirs.Flowers102(folder, split) for split in ("train", "val")],
        "cars": lambda: [theirs.StanfordCars(folder, "train")],
        "dtd": lambda: [theirs.DTD(folder, split) for split in ("train", "val")],
        "aircraft": lambda: [theirs.FGVCAircraft(folder, "trainval", "variant")],
    }
    rows: list[tuple[Any, int]] = []
    for data in loaders[name]():
        if name == "cars":
            rows += [(Path(path), label) for path, label in data._samples]
        else:
            files = data._images if name == "pets" else data._image_files
            rows += [(Path(path), label) for path, label in zip(files, data._labels, strict=True)]
    return rows


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "food101", "pets", "flowers102", "cars", "dtd", "aircraft"])
def test_the_training_split_is_torchvisions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested, training = written(tmp_path, name)
    assert training.classes == tested.classes and not {*training.images} & {*tested.images}
    expected = torchvisions(name, tmp_path / "zeroshot" / name, monkeypatch)
    assert len(training.images) == len(expected) >= 2
    for image, (place, _) in zip(training.images, expected, strict=True):
        if isinstance(place, Path):
            assert tmp_path / image.path == place and place.is_file()
        else:
            pil_image = decode_image(read_image_file(tmp_path, image.path), tmp_path, image.path)
            assert np.array_equal(np.asarray(pil_image), place)
    if name in ("food101", "dtd", "aircraft", "pets"):
        # torchvision numbers the classes that it happens to find, in some splits apart; a class has one colour here.
        colours = [encoded_colour(tmp_path, image.path) for image in training.images]
        of_test = {
            label: encoded_colour(tmp_path, image.path)
            for image, label in zip(tested.images, tested.labels, strict=True)
        }
        assert colours == [of_test[label] for label in training.labels] and len(set(colours)) == 2
    else:
        assert list(training.labels) == [label for _, label in expected]


def encoded_colour(root: Path, path: str) -> Any:
    return decode_image(read_image_file(root, path), root, path).getpixel((0, 0))


def test_sun397_and_imagenet(tmp_path: Path) -> None:
    _, training = written(tmp_path, "sun397")
    assert [training.classes[label] for label in training.labels] == ["abbey", "church indoor"]
    assert training.images[1].path == "zeroshot/sun397/SUN397/c/church/indoor/sun_ddd.jpg"
    tested, training = written(tmp_path, "imagenet")
    assert training.labels == tested.labels
    assert training.images[0].path == "zeroshot/imagenet/train/n01440764/n01440764_1.JPEG"


def test_caltech101_trains_on_what_the_test_split_leaves(tmp_path: Path) -> None:
    tested, training = written(tmp_path, "caltech101")
    assert np.bincount(training.labels).max() == 30 and len(training.images) == 90
    assert len({*training.images, *tested.images}) == 99
    base = tmp_path / "zeroshot/caltech101/caltech101"
    (base / "test.txt").write_text("Faces/image_0001.jpg\nyin_yang/image_0002.jpg\n")
    tested, rest = read(tmp_path, "caltech101")
    assert rest is not None and len(rest.images) == 97 and not {*rest.images} & {*tested.images}


def test_class_folders_and_tars(tmp_path: Path) -> None:
    folders = tmp_path / "a" / "zeroshot" / "food101"
    picture(folders / "test" / "sushi" / "x.jpg", COLOURS[0])
    picture(folders / "train" / "Sushi" / "y.jpg", COLOURS[0])
    tested, training = read(tmp_path / "a", "food101")
    assert training is not None and training.labels == tested.labels
    assert training.images[0].path == "zeroshot/food101/train/Sushi/y.jpg"

    tars = tmp_path / "b" / "zeroshot" / "food101"
    write_tar(tars / "test" / "0.tar", {"s0.webp": encoded(COLOURS[0]), "s0.cls": b"95"})
    assert read(tmp_path / "b", "food101")[1] is None
    write_tar(tars / "train" / "0.tar", {"s1.webp": encoded(COLOURS[1]), "s1.cls": b"95"})
    tested, training = read(tmp_path / "b", "food101")
    assert training is not None and training.labels == tested.labels == (95,)
    assert training.images[0].path == "zeroshot/food101/train/0.tar#s1.webp"


def test_own_classes_have_the_same_folders_in_both_splits(tmp_path: Path) -> None:
    own = tmp_path / "zeroshot" / "own"
    for name in ("cat", "dog"):
        picture(own / "test" / name / "0.png", COLOURS[0])
    assert read(tmp_path, "own")[1] is None
    picture(own / "train" / "dog" / "1.png", COLOURS[0])
    picture(own / "train" / "dog" / "2.png", COLOURS[0])
    with pytest.raises(InputError, match=r"own: class folder 'cat' is only in one of test and train\. Give both"):
        read(tmp_path, "own")
    (own / "train" / "cat").mkdir()
    with pytest.raises(InputError, match=r"no image of class 'cat' \(1 such classes in total\)"):
        read(tmp_path, "own")
    picture(own / "train" / "cat" / "3.png", COLOURS[0])
    _, training = read(tmp_path, "own")
    assert training is not None and training.labels == (0, 1, 1)
    assert training.images[0].path == "zeroshot/own/train/cat/3.png"


def test_a_class_called_train_is_no_training_split(tmp_path: Path) -> None:
    for name in ("train", "car"):
        picture(tmp_path / "zeroshot" / "vehicles" / name / "0.png", COLOURS[0])
    picture(tmp_path / "zeroshot" / "vehicles" / "train" / "express" / "1.png", COLOURS[0])
    tested, training = read(tmp_path, "vehicles")
    assert tested.classes == ("car", "train") and training is None


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("food101", "food-101/meta/train.json", '{"sushy": ["sushy/1"]}', r"class 'sushy'.*Did you mean 'sushi'"),
        ("pets", "oxford-iiit-pet/annotations/trainval.txt", "bulldog 1 1 1\n", r"trainval\.txt line 1: must begin"),
        ("cars", "stanford_cars/devkit/cars_train_annos.mat", "", r"cars_train_annos\.mat: not a MATLAB"),
        ("cifar10", "cifar-10-batches-py/data_batch_3", "", r"data_batch_3: not a CIFAR batch"),
        ("dtd", "dtd/dtd/labels/val1.txt", None, r"val1\.txt: cannot be read: No such file.*robots\.ox\.ac\.uk"),
        ("cifar10", "cifar-10-batches-py/data_batch_5", None, r"data_batch_5: cannot be read: No such file"),
    ],
)
def test_wrong_and_missing_lists_are_named(
    name: str, file: str, content: str | None, message: str, tmp_path: Path
) -> None:
    written(tmp_path, name)
    path = tmp_path / "zeroshot" / name / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path, name)


def test_every_data_set_has_a_training_split() -> None:
    assert {*TRAINING_WRITERS, "caltech101"} == {*NAMES}
