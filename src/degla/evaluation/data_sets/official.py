"""The layouts in which the data sets are published: a folder enters, pictures with their class's own name leave.

They are those that torchvision's loaders make and read. Their test lists are read here and not through torchvision,
since listing what a folder holds must not import torch, and since torchvision has no test split of SUN397 and
Caltech-101.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from degla.data.decoding import IMAGE_SUFFIXES
from degla.errors import InputError
from degla.evaluation.annotations import read_annotation, read_object
from degla.evaluation.archives import MARK, read_batch
from degla.evaluation.data_sets import DataSet

Labelled = Iterator[tuple[str, str]]
"""Path relative to the data set's folder, and the class's own name."""
CALTECH_TRAINING_IMAGES = 30
"""Images of each class that the protocol of Caltech-101 trains on."""
_CLASS_FIRST = "(?P<image>(?P<kind>[^/]*).*)"


def _cifar(folder: Path, about: DataSet, *, file: str) -> Labelled:
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


def _flowers102(folder: Path, about: DataSet) -> Labelled:
    labels = _matlab(folder / "flowers-102/imagelabels.mat", "labels", about).ravel()
    for number in _matlab(folder / "flowers-102/setid.mat", "tstid", about).ravel():
        if not 1 <= number <= len(labels):
            raise InputError(f"{folder / 'flowers-102/setid.mat'}: image {number} has no label in imagelabels.mat.")
        yield f"flowers-102/jpg/image_{int(number):05d}.jpg", str(int(labels[number - 1]))


def _cars(folder: Path, about: DataSet) -> Labelled:
    for row in _matlab(folder / "stanford_cars/cars_test_annos_withlabels.mat", "annotations", about).ravel():
        yield f"stanford_cars/cars_test/{row['fname'].item()}", str(int(row["class"].item()))


def _listed(folder: Path, about: DataSet, *, file: str, image: str, line: str, form: str = "") -> Labelled:
    """The images that a text file names, one a line.

    Args:
        folder: of the data set.
        about: says where to get the file.
        file: its path in the folder.
        image: path of an image in the folder, with `{}` for the group.
        line: pattern of a line, with the groups `image` and `kind`.
        form: the same in words, where not every line fits.
    """
    for number, words in enumerate(map(str.strip, read_annotation(folder / file, about).splitlines()), start=1):
        if not words:
            continue
        found = re.fullmatch(line, words)
        if found is None:
            raise InputError(f"{folder / file} line {number}: must {form}, got {words!r}.")
        yield image.format(found["image"]), found["kind"]


def _caltech101(folder: Path, about: DataSet) -> Labelled:
    """The images of `test.txt` where it is there; else all but 30 a class, those of the smallest digests of names.

    No list of test images was ever published; papers draw 30 training images a class, each its own.
    """
    images = folder / "caltech101/101_ObjectCategories"
    if (folder / "caltech101/test.txt").exists():
        yield from _listed(
            folder, about, file="caltech101/test.txt", image="caltech101/101_ObjectCategories/{}", line=_CLASS_FIRST
        )
        return
    for kind in sorted(path for path in images.iterdir() if path.is_dir()):
        names = sorted(path.name for path in kind.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        drawn = sorted(names, key=lambda name: hashlib.sha256(f"{kind.name}/{name}".encode()).digest())
        left_out = set(drawn[:CALTECH_TRAINING_IMAGES]) if len(names) > CALTECH_TRAINING_IMAGES else set()
        for name in names:
            if name not in left_out:
                yield f"caltech101/101_ObjectCategories/{kind.name}/{name}", kind.name


OFFICIAL: dict[str, tuple[str, Callable[[Path, DataSet], Labelled]]] = {
    "cifar10": ("cifar-10-batches-py", partial(_cifar, file="cifar-10-batches-py/test_batch")),
    "cifar100": ("cifar-100-python", partial(_cifar, file="cifar-100-python/test")),
    "food101": ("food-101", _food101),
    "pets": (
        "oxford-iiit-pet",
        partial(
            _listed, file="oxford-iiit-pet/annotations/test.txt", image="oxford-iiit-pet/images/{}.jpg",
            line=r"(?P<image>(?P<kind>\S+)_\d+)(\s.*)?", form="begin with BREED_NUMBER",
        ),
    ),
    "flowers102": ("flowers-102", _flowers102),
    "sun397": (
        "SUN397",
        partial(
            _listed, file="SUN397/Testing_01.txt", image="SUN397/{}",
            line="/*(?P<image>[^/]+/(?P<kind>.+)/[^/]+)/*", form="be /LETTER/CLASS/IMAGE",
        ),
    ),
    "cars": ("stanford_cars", _cars),
    "dtd": ("dtd", partial(_listed, file="dtd/dtd/labels/test1.txt", image="dtd/dtd/images/{}", line=_CLASS_FIRST)),
    "caltech101": ("caltech101/101_ObjectCategories", _caltech101),
    "aircraft": (
        "fgvc-aircraft-2013b",
        partial(
            _listed, file="fgvc-aircraft-2013b/data/images_variant_test.txt",
            image="fgvc-aircraft-2013b/data/images/{}.jpg",
            line="(?P<image>[^ ]+) (?P<kind>.+)", form="be NUMBER VARIANT",
        ),
    ),
}  # fmt: skip
"""A data set's name to the folder that tells its published layout, and the reader. ImageNet's is one folder a class."""


def _matlab(file: Path, name: str, about: DataSet) -> Any:
    """One array of a MATLAB file; the published files are of versions 5 to 7."""
    if not file.is_file():
        read_annotation(file, about)  # says what is missing and where to get it
    from scipy.io import loadmat

    try:
        return loadmat(file)[name]
    except KeyError:
        raise InputError(f"{file}: has no variable {name!r}. Fetch the file again.") from None
    except Exception as error:  # scipy's reader raises half a dozen unrelated kinds for damaged files
        raise InputError(f"{file}: not a MATLAB file ({error}). Fetch the file again.") from None
