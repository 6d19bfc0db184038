"""The eleven published classification data sets: names, prompts, and every layout against torchvision's own loader."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets as theirs

from degla.errors import InputError
from degla.evaluation.benchmark import Classification
from degla.evaluation.data_sets import NAMES, data_set, plain
from degla.evaluation.image_files import decode_image, has_image, read_image_file, thumbnail
from degla.evaluation.run import Evaluation
from degla.records import ItemImage
from degla.shelf import BENCHMARKS
from tests.evaluation.fake_encoders import FakeEncoder, knowing
from tests.evaluation.published_layouts import COLOURS, WRITERS, encoded, pickled, picture, write_tar

SIZES = {
    "cifar10": (10, 18, 10000), "cifar100": (100, 18, 10000), "food101": (101, 1, 25250), "pets": (37, 1, 3669),
    "flowers102": (102, 1, 6149), "sun397": (397, 2, 19850), "cars": (196, 8, 8041), "dtd": (47, 8, 1880),
    "caltech101": (102, 34, None), "aircraft": (100, 2, 3333), "imagenet": (1000, 80, 50000),
}  # fmt: skip
PER_CLASS = {"pets", "flowers102", "caltech101", "aircraft"}


def read(root: Path) -> list[Classification]:
    return list(BENCHMARKS.load("zeroshot").BENCHMARK.items(root))


def one_entry(root: Path, name: str) -> Classification:
    WRITERS[name](root / "zeroshot" / name)
    (entry,) = read(root)
    return entry


@pytest.mark.parametrize("name", NAMES)
def test_names_and_prompts_are_the_published_ones(name: str) -> None:
    about = data_set(name)
    assert (len(about.classes), len(about.templates), about.items) == SIZES[name]
    assert about.metric == ("mean_per_class" if name in PER_CLASS else "top1")
    assert about.part.metrics[0].name == about.metric
    assert all(template.count("{}") == 1 for template in about.templates)
    assert len(set(about.templates)) == len(about.templates)
    assert len({plain(key) for key in about.classes}) == len(about.classes)
    assert [about.label_of(key) for key in about.classes] == list(range(len(about.classes)))
    assert about.label_of("no such thing") is None
    assert about.names_from and about.source and about.licence


def test_imagenet_is_open_clips_and_its_equal_names_are_distinguished() -> None:
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    about = data_set("imagenet")
    assert list(about.classes.values()) == list(IMAGENET_CLASSNAMES)
    assert list(about.templates) == [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    assert list(about.classes) == sorted(about.classes)
    assert about.tie == "half"
    twice = [key for key, name in about.classes.items() if name == "sunglasses"]
    assert [about.label_of(key) for key in twice] == [list(about.classes).index(key) for key in twice]
    assert len(twice) == 2 and about.label_of("sunglasses") is None


def torchvisions(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """(path or pixels, label) as torchvision reads the same files, without their published checksums."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setattr(theirs.Flowers102, "_check_integrity", lambda self: True)
    if name in ("cifar10", "cifar100"):
        kind = theirs.CIFAR10 if name == "cifar10" else theirs.CIFAR100
        data = kind(folder, train=False, download=False)
        return list(zip(data.data, data.targets, strict=True))
    loaders: dict[str, Callable[[], Any]] = {
        "food101": lambda: theirs.Food101(folder, "test"),
        "pets": lambda: theirs.OxfordIIITPet(folder, "test"),
        "flowers102": lambda: theirs.Flowers102(folder, "test"),
        "cars": lambda: theirs.StanfordCars(folder, "test"),
        "dtd": lambda: theirs.DTD(folder, "test"),
        "aircraft": lambda: theirs.FGVCAircraft(folder, "test", "variant"),
    }
    data = loaders[name]()
    if name == "cars":
        return [(Path(path), label) for path, label in data._samples]
    files = data._images if name == "pets" else data._image_files
    return [(Path(path), label) for path, label in zip(files, data._labels, strict=True)]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "food101", "pets", "flowers102", "cars", "dtd", "aircraft"])
def test_the_layout_is_read_as_torchvision_reads_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = one_entry(tmp_path, name)
    expected = torchvisions(name, tmp_path / "zeroshot" / name, monkeypatch)
    assert entry.part == name and len(entry.images) == len(expected) >= 3
    for image, (place, _) in zip(entry.images, expected, strict=True):
        pil_image = decode_image(read_image_file(tmp_path, image.path), tmp_path, image.path)
        if isinstance(place, Path):
            assert tmp_path / image.path == place
            assert pil_image.size == (12, 10)
        else:
            assert np.array_equal(np.asarray(pil_image), place)
            for beyond in ("x", "-1", str(len(expected))):
                path = f"{image.path.partition('#')[0]}#{beyond}"
                assert not has_image(tmp_path, path)
                with pytest.raises(InputError, match="so there is no number"):
                    read_image_file(tmp_path, path)
    if name in ("food101", "dtd", "aircraft", "pets"):
        # torchvision numbers the classes that it happens to find; ours are always all of them.
        ours = [list(data_set(name).classes)[label] for label in entry.labels]
        order = sorted(set(ours), key=str.lower)
        assert [order.index(key) for key in ours] == [label for _, label in expected]
    else:
        assert list(entry.labels) == [label for _, label in expected]


def test_layouts_of_sun397_caltech101_and_imagenet(tmp_path: Path) -> None:
    for name in ("sun397", "caltech101", "imagenet"):
        WRITERS[name](tmp_path / "zeroshot" / name)
    sun, caltech, imagenet = read(tmp_path)
    assert [sun.classes[label] for label in sun.labels] == ["abbey", "church indoor", "church indoor"]
    assert sun.images[1].path == "zeroshot/sun397/SUN397/c/church/indoor/sun_bbb.jpg"
    assert [imagenet.classes[label] for label in imagenet.labels] == ["tench", "sunglasses", "sunglasses"]
    assert len(set(imagenet.labels)) == 3
    # 33 images a class, of which 30 are the training images of the protocol.
    assert [caltech.classes[label] for label in caltech.labels[::3]] == [
        "background",
        "off-center face",
        "yin and yang symbol",
    ]
    assert len(caltech.images) == 9
    folder = tmp_path / "zeroshot/caltech101/caltech101/101_ObjectCategories/Faces"
    names = [path.name for path in folder.iterdir()]
    left = sorted(names, key=lambda name: hashlib.sha256(f"Faces/{name}".encode()).hexdigest())[30:]
    assert {Path(image.path).name for image in caltech.images if "/Faces/" in image.path} == set(left)
    again = read(tmp_path)[1]
    assert again == caltech
    for name in sorted(names)[30:]:
        (folder / name).unlink()
    few = read(tmp_path)[1]
    assert sum("/Faces/" in image.path for image in few.images) == 30, "a class of 30 images keeps them"
    (tmp_path / "zeroshot/caltech101/caltech101/test.txt").write_text("Faces/image_0001.jpg\nyin_yang/image_0002.jpg\n")
    listed = read(tmp_path)[1]
    assert [listed.classes[label] for label in listed.labels] == ["off-center face", "yin and yang symbol"]


def colour_classifier(entry: Classification, root: Path) -> FakeEncoder:
    """Knows of each colour which class's prompts are true."""
    truth: dict[str, list[str]] = {}
    colours: dict[str, tuple[int, int, int]] = {}
    for image, label in zip(entry.images, entry.labels, strict=True):
        name = str(label)
        truth[name] = [template.replace("{}", entry.classes[label]) for template in entry.templates]
        pixel = decode_image(read_image_file(root, image.path), root, image.path).getpixel((5, 5))
        assert isinstance(pixel, tuple)
        colours[name] = (int(pixel[0]), int(pixel[1]), int(pixel[2]))
    return knowing(truth, colours, lying=False)


@pytest.mark.parametrize("name", ["cifar10", "pets", "cars"])
def test_pictures_and_labels_belong_together(name: str, tmp_path: Path) -> None:
    entry = one_entry(tmp_path, name)
    encoder = colour_classifier(entry, tmp_path)
    with pytest.raises(InputError, match=f"part '{name}' under .* has {len(entry.images)} items, the published one"):
        Evaluation(["zeroshot"], tmp_path, progress=False).score(encoder)
    result = Evaluation(["zeroshot"], tmp_path, progress=False, allow_missing=True).score(encoder)
    (part,) = result.benchmarks[0].parts
    assert [score.value for score in part.scores] == [1.0, 1.0, 1.0]
    assert part.scores[0].metric == data_set(name).metric
    averages = {score.name: score.value for score in result.benchmarks[0].averages}
    assert averages["mean.there"] == 1.0 and "mean" not in averages
    assert result.benchmarks[0].headline == {"recognition": "mean.there"}


def test_pictures_inside_files_have_thumbnails(tmp_path: Path) -> None:
    entry = one_entry(tmp_path, "cifar10")
    address = thumbnail(entry.images[1], root=tmp_path)
    assert address is not None and address.startswith("data:image/jpeg;base64,")
    assert thumbnail(ItemImage(path=entry.images[1].path + "00"), root=tmp_path) is None


def test_one_folder_a_class_and_tars_serve_too(tmp_path: Path) -> None:
    folders = tmp_path / "a" / "zeroshot" / "food101"
    picture(folders / "test" / "sushi" / "x.jpg", COLOURS[0])
    picture(folders / "test" / "Apple Pie" / "y.png", COLOURS[1])
    (entry,) = read(tmp_path / "a")
    assert sorted(entry.classes[label] for label in entry.labels) == ["apple pie", "sushi"]
    assert len(entry.classes) == 101
    picture(folders / "test" / "sushy" / "x.jpg", COLOURS[0])
    with pytest.raises(InputError, match=r"sushy/x\.jpg has class 'sushy', which is not in Food-101.*'sushi'"):
        read(tmp_path / "a")

    tars = tmp_path / "b" / "zeroshot" / "food101" / "test"
    write_tar(
        tars / "0.tar",
        {"s0.webp": encoded(COLOURS[0]), "s0.cls": b"95\n", "s1.webp": encoded(COLOURS[1]), "s1.cls": b"0"},
    )
    write_tar(tars / "1.tar", {"s2.cls": b"95", "s2.seg.webp": encoded(COLOURS[0])})
    (entry,) = read(tmp_path / "b")
    assert [entry.classes[label] for label in entry.labels] == ["sushi", "apple pie", "sushi"]
    assert entry.images[0].path == "zeroshot/food101/test/0.tar#s0.webp"
    assert has_image(tmp_path / "b", entry.images[2].path)
    assert not has_image(tmp_path / "b", "zeroshot/food101/test/0.tar#s9.webp")
    encoder = colour_classifier(entry, tmp_path / "b")
    result = Evaluation(["zeroshot"], tmp_path / "b", progress=False, allow_missing=True).score(encoder)
    assert result.benchmarks[0].parts[0].scores[0].value == 1.0
    assert encoder.images_seen == 2, "equal bytes in two tars are one picture"


def test_own_classes_may_be_in_a_test_split(tmp_path: Path) -> None:
    """`train` and `val` are no classes; `test` is one if it holds images and no folders."""

    def classes(*files: str) -> tuple[tuple[str, ...], list[str]]:
        for file in files:
            picture(tmp_path / "zeroshot" / file, COLOURS[0])
        entry = read(tmp_path)[-1]
        return entry.classes, [image.path.removeprefix("zeroshot/") for image in entry.images]

    there = [f"own/val/{name}/0.png" for name in ("cat", "dog")]
    assert classes("own/train/cat/1.png", "own/train/dog/1.png", *there) == (("cat", "dog"), there)
    assert classes("own/test/cow/0.png", "own/test/hen/0.png")[0] == ("cow", "hen")
    assert classes("quizzes/test/0.png", "quizzes/quiz/0.png")[0] == ("quiz", "test")
    # A downloader's own folder is none of them.
    assert classes(".cache/a/0.png", "own/.cache/a/0.png")[0] == ("quiz", "test") and len(read(tmp_path)) == 2


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "zeroshot/cifar10/cifar-10-batches-py/test_batch"
    pickled(file, {"data": Harm(tmp_path / "harm"), "labels": []})
    with pytest.raises(InputError, match=r"test_batch: not a CIFAR batch \(it refers to posix\.mkdir"):
        read(tmp_path)
    assert not (tmp_path / "harm").exists()
    file.write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"test_batch: not a CIFAR batch"):
        read(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_reported_with_its_source_and_layout(name: str, tmp_path: Path) -> None:
    (tmp_path / "zeroshot" / name).mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    about = data_set(name)
    assert about.source in str(caught.value)
    assert f"zeroshot/{name}/{about.files[0]}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("food101", "food-101/meta/test.json", '{"sushi": "x"}', r"test\.json: field 'sushi': must be a list"),
        ("food101", "food-101/meta/test.json", '{"sushy": ["sushy/1"]}', r"class 'sushy'.*Did you mean 'sushi'"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", "\nbulldog 1 1 1\n", r"test\.txt line 2: must begin with"),
        ("sun397", "SUN397/Testing_01.txt", "sun_a.jpg", r"Testing_01\.txt line 1: must be /LETTER/CLASS/IMAGE"),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt", "123", r"line 1: must be NUMBER VARIANT"),
        ("flowers102", "flowers-102/imagelabels.mat", "no matlab", r"imagelabels\.mat: not a MATLAB file"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat", "", r"cars_test_annos_withlabels\.mat: not a MATLAB"),
    ],
)
def test_wrong_lists_are_named(name: str, file: str, content: str, message: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "zeroshot" / name)
    (tmp_path / "zeroshot" / name / file).write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_test_list_that_is_missing_is_reported(tmp_path: Path) -> None:
    WRITERS["flowers102"](tmp_path / "zeroshot" / "flowers102")
    (tmp_path / "zeroshot/flowers102/flowers-102/setid.mat").unlink()
    with pytest.raises(InputError, match=r"setid\.mat: cannot be read: No such file.*robots\.ox\.ac\.uk"):
        read(tmp_path)
    WRITERS["sun397"](tmp_path / "b" / "zeroshot" / "sun397")
    (tmp_path / "b/zeroshot/sun397/SUN397/Testing_01.txt").unlink()
    with pytest.raises(InputError, match=r"Testing_01\.txt: cannot be read.*Partitions\.zip"):
        read(tmp_path / "b")
