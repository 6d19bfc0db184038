"""Made pictures in the very layouts in which the classification data sets are published: two images a class."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any, ClassVar

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def picture(path: Path, colour: Colour) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), colour).save(path, format="PNG")


def lines(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes byte strings with the codes that Python 2 had for them."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, content: bytes) -> None:
        short = len(content) < 256
        head = pickle.SHORT_BINSTRING + bytes([len(content)]) if short else pickle.BINSTRING + pack("<i", len(content))
        self.write(head + content)
        self.memoize(content)

    dispatch[bytes] = save_string


def pickled(path: Path, content: dict[str, Any]) -> None:
    """As Python 2 wrote it: protocol 2, byte strings, the old name of numpy's module."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump({key.encode(): value for key, value in content.items()})
    path.write_bytes(stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def cifar(folder: Path, *, file: str, meta: str, field: str, names: str, labels: list[int], classes: int) -> None:
    rows = np.zeros((len(labels), 3, 32, 32), dtype=np.uint8)
    for row, label in zip(rows, labels, strict=True):
        row[:] = np.array(COLOURS[label], dtype=np.uint8)[:, None, None]
    rows[0, 0, 0, 1] = 7  # one pixel tells rows from columns and colours from both
    pickled(folder / file, {"data": rows.reshape(len(labels), -1), field: labels, "filenames": [b"x"] * len(labels)})
    pickled((folder / file).with_name(meta), {names: [f"class {number}" for number in range(classes)]})


def cifar10(folder: Path) -> None:
    settings = {"meta": "batches.meta", "field": "labels", "names": "label_names"}
    cifar(folder, file="cifar-10-batches-py/test_batch", labels=[2, 0, 1, 0, 2, 1], classes=10, **settings)


def cifar100(folder: Path) -> None:
    settings = {"meta": "meta", "field": "fine_labels", "names": "fine_label_names"}
    cifar(folder, file="cifar-100-python/test", labels=[1, 2, 0, 0, 1, 2], classes=100, **settings)


def food101(folder: Path) -> None:
    rows = {"sushi": ["sushi/11", "sushi/12"], "apple_pie": ["apple_pie/3", "apple_pie/4"]}
    lines(folder / "food-101/meta/test.json", [json.dumps(rows)])
    for key, colour in (("sushi", COLOURS[0]), ("apple_pie", COLOURS[1])):
        for path in rows[key]:
            picture(folder / f"food-101/images/{path}.jpg", colour)


def pets(folder: Path) -> None:
    rows = [("Abyssinian_2", 1), ("american_bulldog_7", 2), ("Abyssinian_3", 1), ("american_bulldog_9", 2)]
    lines(folder / "oxford-iiit-pet/annotations/test.txt", [f"{name} {label} 1 1" for name, label in rows])
    for name, label in rows:
        picture(folder / f"oxford-iiit-pet/images/{name}.jpg", COLOURS[label])


def flowers102(folder: Path) -> None:
    from scipy.io import savemat

    (folder / "flowers-102/jpg").mkdir(parents=True)
    savemat(folder / "flowers-102/imagelabels.mat", {"labels": np.array([[2, 1, 2, 1, 9]], dtype=np.uint8)})
    splits = {"trnid": [[5]], "valid": [[5]], "tstid": [[4, 1, 3, 2]]}
    savemat(folder / "flowers-102/setid.mat", {key: np.array(value, np.uint16) for key, value in splits.items()})
    for number, label in enumerate([2, 1, 2, 1], start=1):
        picture(folder / f"flowers-102/jpg/image_{number:05d}.jpg", COLOURS[label])


def sun397(folder: Path) -> None:
    rows = ["/a/abbey/sun_aaa.jpg", "/c/church/indoor/sun_bbb.jpg", "/c/church/indoor/sun_ccc.jpg"]
    lines(folder / "SUN397/Testing_01.txt", rows)
    for path in rows:
        picture(folder / f"SUN397{path}", COLOURS["church" in path])
    picture(folder / "SUN397/a/abbey/sun_training.jpg", COLOURS[0])


def cars(folder: Path) -> None:
    from scipy.io import savemat

    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    rows = np.array([[(3, 2, "00001.jpg"), (4, 196, "00002.jpg"), (5, 2, "00003.jpg")]], dtype=kind)
    (folder / "stanford_cars/devkit").mkdir(parents=True)
    savemat(folder / "stanford_cars/cars_test_annos_withlabels.mat", {"annotations": rows})
    names = np.array([[f"car {number}" for number in range(196)]], dtype=object)
    savemat(folder / "stanford_cars/devkit/cars_meta.mat", {"class_names": names})
    for number, label in enumerate((0, 1, 0), start=1):
        picture(folder / f"stanford_cars/cars_test/{number:05d}.jpg", COLOURS[label])


def dtd(folder: Path) -> None:
    rows = ["banded/banded_0002.jpg", "polka-dotted/polka-dotted_0004.jpg", "banded/banded_0005.jpg"]
    lines(folder / "dtd/dtd/labels/test1.txt", rows)
    for path in rows:
        picture(folder / f"dtd/dtd/images/{path}", COLOURS["polka" in path])


def caltech101(folder: Path) -> None:
    for kind, colour in zip(("BACKGROUND_Google", "Faces", "yin_yang"), COLOURS, strict=True):
        for number in range(1, 34):
            picture(folder / f"caltech101/101_ObjectCategories/{kind}/image_{number:04d}.jpg", colour)


def aircraft(folder: Path) -> None:
    base = folder / "fgvc-aircraft-2013b/data"
    rows = ["0062765 707-320", "1340192 F/A-18", "0056978 707-320"]
    lines(base / "images_variant_test.txt", rows)
    lines(base / "variants.txt", ["707-320", "F/A-18"])
    for row in rows:
        picture(base / f"images/{row[:7]}.jpg", COLOURS["F/A" in row])


def imagenet(folder: Path) -> None:
    for kind, colour in zip(("n01440764", "n04355933", "n04356056"), COLOURS, strict=True):
        picture(folder / f"val/{kind}/ILSVRC2012_val_0000{kind[-4:]}.JPEG", colour)


def train_cifar10(folder: Path) -> None:
    settings = {"meta": "batches.meta", "field": "labels", "names": "label_names", "classes": 10}
    for number in range(1, 6):
        file = f"cifar-10-batches-py/data_batch_{number}"
        cifar(folder, file=file, labels=[number % 3, 2, 1, 0], **settings)  # type: ignore[arg-type]


def train_cifar100(folder: Path) -> None:
    settings = {"meta": "meta", "field": "fine_labels", "names": "fine_label_names"}
    cifar(folder, file="cifar-100-python/train", labels=[2, 1, 0, 2], classes=100, **settings)


def train_food101(folder: Path) -> None:
    rows = {"sushi": ["sushi/5"], "apple_pie": ["apple_pie/1", "apple_pie/2"]}
    lines(folder / "food-101/meta/train.json", [json.dumps(rows)])
    for path in ("sushi/5", "apple_pie/1", "apple_pie/2"):
        picture(folder / f"food-101/images/{path}.jpg", COLOURS["pie" in path])


def train_pets(folder: Path) -> None:
    rows = [("american_bulldog_1", 2), ("Abyssinian_1", 1), ("Abyssinian_4", 1)]
    lines(folder / "oxford-iiit-pet/annotations/trainval.txt", [f"{name} {label} 1 1" for name, label in rows])
    for name, label in rows:
        picture(folder / f"oxford-iiit-pet/images/{name}.jpg", COLOURS[label])


def train_flowers102(folder: Path) -> None:
    from scipy.io import savemat

    splits = {"trnid": [[6, 5]], "valid": [[7, 8]], "tstid": [[4, 1, 3, 2]]}
    savemat(folder / "flowers-102/setid.mat", {key: np.array(value, np.uint16) for key, value in splits.items()})
    labels = np.array([[2, 1, 2, 1, 2, 1, 1, 2]], dtype=np.uint8)
    savemat(folder / "flowers-102/imagelabels.mat", {"labels": labels})
    for number in (5, 6, 7, 8):
        picture(folder / f"flowers-102/jpg/image_{number:05d}.jpg", COLOURS[labels[0, number - 1]])


def train_sun397(folder: Path) -> None:
    rows = ["/a/abbey/sun_training.jpg", "/c/church/indoor/sun_ddd.jpg"]
    lines(folder / "SUN397/Training_01.txt", rows)
    picture(folder / "SUN397/c/church/indoor/sun_ddd.jpg", COLOURS[1])


def train_cars(folder: Path) -> None:
    from scipy.io import savemat

    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    rows = np.array([[(3, 196, "00001.jpg"), (4, 2, "00002.jpg")]], dtype=kind)
    savemat(folder / "stanford_cars/devkit/cars_train_annos.mat", {"annotations": rows})
    for number, label in enumerate((1, 0), start=1):
        picture(folder / f"stanford_cars/cars_train/{number:05d}.jpg", COLOURS[label])


def train_dtd(folder: Path) -> None:
    for split, row in (("train", "banded/banded_0001.jpg"), ("val", "polka-dotted/polka-dotted_0003.jpg")):
        lines(folder / f"dtd/dtd/labels/{split}1.txt", [row])
        picture(folder / f"dtd/dtd/images/{row}", COLOURS["polka" in row])


def train_aircraft(folder: Path) -> None:
    base = folder / "fgvc-aircraft-2013b/data"
    rows = ["0000001 F/A-18", "0000002 707-320"]
    lines(base / "images_variant_trainval.txt", rows)
    for row in rows:
        picture(base / f"images/{row[:7]}.jpg", COLOURS["F/A" in row])


def train_imagenet(folder: Path) -> None:
    for kind, colour in zip(("n01440764", "n04355933", "n04356056"), COLOURS, strict=True):
        picture(folder / f"train/{kind}/{kind}_1.JPEG", colour)


TRAINING_WRITERS: dict[str, Callable[[Path], None]] = {
    writer.__name__.removeprefix("train_"): writer
    for writer in (
        train_cifar10, train_cifar100, train_food101, train_pets, train_flowers102, train_sun397, train_cars, train_dtd,
        train_aircraft, train_imagenet,
    )
}  # fmt: skip
"""Each adds the training split to what the writer of `WRITERS` wrote."""

WRITERS: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer
    for writer in (cifar10, cifar100, food101, pets, flowers102, sun397, cars, dtd, caltech101, aircraft, imagenet)
}


def write_tar(path: Path, members: dict[str, bytes], *, mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def encoded(colour: Colour, *, kind: str = "WEBP") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(stream, format=kind, lossless=True)
    return stream.getvalue()
