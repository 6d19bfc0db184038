"""The layouts in which the data sets are published: a folder enters, pictures with their class's own name leave.

They are those that torchvision's loaders make and read. Their test lists are read here and not through torchvision,
since listing what a folder holds must not import torch, and since torchvision has no test split of SUN397 and
Caltech-101.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.evaluation.annotations import read_object, read_text
from degla.evaluation.class_folders import IMAGE_SUFFIXES
from degla.evaluation.data_sets import DataSet
from degla.evaluation.data_sets.cifar import read_batch
from degla.evaluation.data_sets.tars import MARK

Labelled = Iterator[tuple[str, str]]
"""Path relative to the data set's folder, and the class's own name."""
CALTECH_TRAINING_IMAGES = 30
"""Images of each class that the protocol of Caltech-101 trains on."""


def _cifar10(folder: Path, about: DataSet) -> Labelled:
    return _cifar(folder, "cifar-10-batches-py/test_batch", about)


def _cifar100(folder: Path, about: DataSet) -> Labelled:
    return _cifar(folder, "cifar-100-python/test", about)


def _cifar(folder: Path, file: str, about: DataSet) -> Labelled:
    names = list(about.classes)
    for number, label in enumerate(read_batch(folder / file)[1]):
        if not 0 <= label < len(names):
            raise InputError(f"{folder / file}: picture {number} has label {label}, the largest is {len(names) - 1}.")
        yield f"{file}{MARK}{number}", names[label]


def _food101(folder: Path, about: DataSet) -> Labelled:
    file = folder / "food-101/meta/test.json"
    for key, paths in read_object(file, about).items():
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise InputError(f"{file}: field {key!r}: must be a list of texts. Fetch the file again.")
        for path in paths:
            yield f"food-101/images/{path}.jpg", key


def _pets(folder: Path, about: DataSet) -> Labelled:
    for words, where in _lines(folder / "oxford-iiit-pet/annotations/test.txt", about):
        name = words.split()[0]
        breed, _, number = name.rpartition("_")
        if not breed or not number.isdecimal():
            raise InputError(f"{where}: must begin with BREED_NUMBER, got {words!r}.")
        yield f"oxford-iiit-pet/images/{name}.jpg", breed


def _flowers102(folder: Path, about: DataSet) -> Labelled:
    labels = _matlab(folder / "flowers-102/imagelabels.mat", "labels", about).ravel()
    for number in _matlab(folder / "flowers-102/setid.mat", "tstid", about).ravel():
        if not 1 <= number <= len(labels):
            raise InputError(f"{folder / 'flowers-102/setid.mat'}: image {number} has no label in imagelabels.mat.")
        yield f"flowers-102/jpg/image_{int(number):05d}.jpg", str(int(labels[number - 1]))


def _sun397(folder: Path, about: DataSet) -> Labelled:
    for words, where in _lines(folder / "SUN397/Testing_01.txt", about):
        path = words.strip("/")
        parts = path.split("/")
        if len(parts) < 3:
            raise InputError(f"{where}: must be /LETTER/CLASS/IMAGE, got {words!r}.")
        yield f"SUN397/{path}", " ".join(parts[1:-1])


def _cars(folder: Path, about: DataSet) -> Labelled:
    for row in _matlab(folder / "stanford_cars/cars_test_annos_withlabels.mat", "annotations", about).ravel():
        yield f"stanford_cars/cars_test/{row['fname'].item()}", str(int(row["class"].item()))


def _dtd(folder: Path, about: DataSet) -> Labelled:
    for words, _ in _lines(folder / "dtd/dtd/labels/test1.txt", about):
        yield f"dtd/dtd/images/{words}", words.partition("/")[0]


def _caltech101(folder: Path, about: DataSet) -> Labelled:
    """The images of `test.txt` where it is there; else all but 30 a class, those of the smallest digests of names.

    No list of test images was ever published; papers draw 30 training images a class, each its own.
    """
    images = folder / "caltech101/101_ObjectCategories"
    listed = folder / "caltech101/test.txt"
    if listed.exists():
        for words, _ in _lines(listed, about):
            yield f"caltech101/101_ObjectCategories/{words}", words.partition("/")[0]
        return
    for kind in sorted(path for path in images.iterdir() if path.is_dir()):
        names = sorted(path.name for path in kind.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        drawn = sorted(names, key=lambda name: hashlib.sha256(f"{kind.name}/{name}".encode()).digest())
        left_out = set(drawn[:CALTECH_TRAINING_IMAGES]) if len(names) > CALTECH_TRAINING_IMAGES else set()
        for name in names:
            if name not in left_out:
                yield f"caltech101/101_ObjectCategories/{kind.name}/{name}", kind.name


def _aircraft(folder: Path, about: DataSet) -> Labelled:
    for words, where in _lines(folder / "fgvc-aircraft-2013b/data/images_variant_test.txt", about):
        number, _, variant = words.partition(" ")
        if not variant:
            raise InputError(f"{where}: must be NUMBER VARIANT, got {words!r}.")
        yield f"fgvc-aircraft-2013b/data/images/{number}.jpg", variant


OFFICIAL: dict[str, tuple[str, Callable[[Path, DataSet], Labelled]]] = {
    "cifar10": ("cifar-10-batches-py", _cifar10),
    "cifar100": ("cifar-100-python", _cifar100),
    "food101": ("food-101", _food101),
    "pets": ("oxford-iiit-pet", _pets),
    "flowers102": ("flowers-102", _flowers102),
    "sun397": ("SUN397", _sun397),
    "cars": ("stanford_cars", _cars),
    "dtd": ("dtd", _dtd),
    "caltech101": ("caltech101/101_ObjectCategories", _caltech101),
    "aircraft": ("fgvc-aircraft-2013b", _aircraft),
}
"""A data set's name to the folder that tells its published layout, and the reader. ImageNet's is one folder a class."""


def _lines(file: Path, about: DataSet) -> Iterator[tuple[str, str]]:
    """Each line that is not empty, and where it stands."""
    for number, line in enumerate(read_text(file, about).splitlines(), start=1):
        if line.strip():
            yield line.strip(), f"{file} line {number}"


def _matlab(file: Path, name: str, about: DataSet) -> Any:
    """One array of a MATLAB file; the published files are of versions 5 to 7."""
    if not file.is_file():
        read_text(file, about)  # says what is missing and where to get it
    from scipy.io import loadmat

    try:
        return loadmat(file)[name]
    except KeyError:
        raise InputError(f"{file}: has no variable {name!r}. Fetch the file again.") from None
    except Exception as error:  # scipy's reader raises half a dozen unrelated kinds for damaged files
        raise InputError(f"{file}: not a MATLAB file ({error}). Fetch the file again.") from None
