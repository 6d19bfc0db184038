"""Read one data set's folder, in any supported layout, into a `Classification`.

Published layouts are those of torchvision's loaders. Their test lists are read here and not through
torchvision, since listing a folder's contents must not import torch, and since torchvision has no test split of SUN397
and Caltech-101.

The user's own data sets have one subfolder per class:

    FOLDER/classes.json        optional: names and prompts
    FOLDER/<class>/*.jpg       the images of one class; or FOLDER/test/<class>, FOLDER/val/<class>
    FOLDER/train/<class>       optional: training images of linear probes, beside `test` or `val`

`classes.json` is `{"classes": {"n01440764": "tench", ...} | ["tench", ...], "templates": ["a photo of a {}."]}`. A list
of names is matched with the sorted subfolders, one by one. Without the file a class has its folder's name, with
spaces for underscores, and the only prompt is "a photo of a {}."."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from degla.data.decoding import IMAGE_SUFFIXES
from degla.errors import InputError
from degla.evaluation.annotations import read_annotation, read_object
from degla.evaluation.archives import MARK, find_tars, labelled_members, read_batch
from degla.evaluation.benchmark import Classification
from degla.evaluation.data_sets import NAMES, DataSet, data_set
from degla.pages.words import counted
from degla.parse import read_json, read_text
from degla.records import ItemImage, Record, validate
from degla.shelf import did_you_mean

BENCHMARK_NAME = "zeroshot"
CLASSES_FILE = "classes.json"
CLASS_NAMES_FILE = "classnames.txt"
"""Class names of tar archives, one per line in the order of the labels, as written by CLIP_benchmark."""
TEMPLATES_FILE = "zeroshot_classification_templates.txt"
"""Prompts of tar archives, one per line with `{c}` for the class name, as written by CLIP_benchmark."""
Labelled = Iterator[tuple[str, str]]
"""Path relative to the data set's folder, and the class's own name."""
_TRAINING = "train"
CALTECH_TRAINING_IMAGES = 30
"""Training images per class in the protocol of Caltech-101."""
_CLASS_FIRST = "(?P<image>(?P<kind>[^/]*).*)"


class ClassesFile(Record):
    """`classes.json`: names of the classes and prompt templates."""

    classes: dict[str, str] | tuple[str, ...] | None = None
    templates: tuple[str, ...] = Field(default=("a photo of a {}.",), min_length=1)


def _read_classes_file(file: Path) -> ClassesFile:
    """Read `classes.json`; return the defaults if it does not exist.

    Raises:
        InputError: not JSON, or a field is wrong.
    """
    if not file.exists():
        return ClassesFile()
    return validate(ClassesFile, read_json(file), where=str(file))


def _names(file: Path, folders: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    content = _read_classes_file(file)
    if content.classes is None:
        return tuple(name.replace("_", " ") for name in folders), content.templates
    if isinstance(content.classes, dict):
        unnamed = [name for name in folders if name not in content.classes]
        if unnamed:
            raise InputError(f"{file}: field 'classes': no name for folder {unnamed[0]!r} ({len(unnamed)} in total).")
        without = [name for name in content.classes if name not in folders]
        if without:
            raise InputError(
                f"{file}: field 'classes': no folder {without[0]!r} ({len(without)} in total). "
                "A class without images still changes the score; remove its name or add its folder."
            )
        return tuple(content.classes[name] for name in folders), content.templates
    if len(content.classes) != len(folders):
        raise InputError(
            f"{file}: field 'classes': {len(content.classes)} names for {counted(len(folders), 'subfolder')}. "
            'Write them as {"folder": "name"}.'
        )
    return tuple(content.classes), content.templates


def read_data_set(folder: Path, *, root: Path) -> Classification:
    """Read one folder: a published data set if it has the name of one, else a custom data set.

    The published layout takes precedence over tars, and tars over class folders (in `test`, `val` or the folder).

    Raises:
        InputError: files are missing or wrong, or a class is unknown.
    """
    if folder.name in NAMES:
        return _read_published(folder, data_set(folder.name), root=root)
    if find_tars(folder):
        return _read_own_tars(folder, root=root)
    return _read_class_folder(folder, root=root)


def _read_published(folder: Path, about: DataSet, *, root: Path) -> Classification:
    names, templates = tuple(about.classes.values()), about.templates
    tars = find_tars(folder)
    if layout := _layout(folder):
        labelled: Iterable[tuple[str, int]] = _numbered(layout.read(folder, about, **layout.test), folder, about)
    elif tars:
        names = _names_of_tars(folder, expected=len(names)) or names
        templates = _templates_of_tars(folder) or templates
        labelled = _read_tars(tars, folder, classes=len(names))
    else:
        labelled = _numbered(_class_folders(folder, about), folder, about)
    return _classification(labelled, folder, root=root, classes=names, templates=templates)


def _layout(folder: Path) -> _Layout | None:
    """The published layout that a data set's folder has, if any."""
    layout = OFFICIAL.get(folder.name)
    return layout if layout is not None and (folder / layout.probe).exists() else None


def read_training_set(tested: Classification, *, root: Path) -> Classification | None:
    """Return the training split of a data set, with the same classes as its test split.

    It is that of the published layout (with the validation images where they are listed apart, as in arXiv 2103.00020);
    or the tars in `train`; or the class folders in `train`, if the test split is in `test` or `val`. None if there is
    none.

    Args:
        tested: the test split, from `read_data_set`.
        root: folder that image paths are relative to.

    Raises:
        InputError: files are wrong, or the two splits have other classes.
    """
    folder = root / BENCHMARK_NAME / tested.part
    about = data_set(folder.name) if folder.name in NAMES else None
    if about is not None and (layout := _layout(folder)):
        if not any((folder / file).exists() for file in layout.training["files"]):
            return None
        labelled: Iterable[tuple[str, int]] = _numbered(layout.read(folder, about, **layout.training), folder, about)
    elif find_tars(folder):
        labelled = _read_tars(sorted((folder / _TRAINING).glob("*.tar")), folder, classes=len(tested.classes))
    else:
        kinds, tested_kinds = subfolders(folder / _TRAINING), _kinds(folder)
        if not kinds or tested_kinds[0].parent == folder:  # There, `train` is a class.
            return None
        if about is not None:
            labelled = _numbered(_images_of(kinds, folder), folder, about)
        else:
            numbers = {path.name: number for number, path in enumerate(tested_kinds)}
            if odd := {path.name for path in kinds} ^ numbers.keys():
                raise InputError(
                    f"{folder}: class folder {min(odd)!r} is only in one of {tested_kinds[0].parent.name} and "
                    f"{_TRAINING}. Give both the same class folders."
                )
            labelled = ((path, numbers[kind]) for path, kind in _images_of(kinds, folder))
    rows = list(labelled)
    place = folder.relative_to(root).as_posix()
    if not rows:
        return None
    images, labels = zip(*rows, strict=True)
    if lacking := sorted(set(tested.labels).difference(labels)):
        raise InputError(
            f"{folder}: the training split has no image of class {tested.classes[lacking[0]]!r} ({len(lacking)} such "
            "classes in total). Add some."
        )
    return tested.model_copy(
        update={"images": tuple(ItemImage(path=f"{place}/{path}") for path in images), "labels": labels}
    )


def _numbered(labelled: Iterable[tuple[str, str]], folder: Path, about: DataSet) -> Iterator[tuple[str, int]]:
    """The same with labels instead of class names."""
    for path, key in labelled:
        label = about.label_of(key)
        if label is None:
            raise InputError(
                f"{folder}: {path} has class {key!r}, which is not in {about.title}.{did_you_mean(key, about.classes)}"
            )
        yield path, label


def _class_folders(folder: Path, about: DataSet) -> Iterator[tuple[str, str]]:
    kinds = _kinds(folder)
    if not kinds:
        raise InputError(
            f"{folder}: no {about.title} files found. Get them from {about.source}. Expected layout:\n{about.layout}\n"
            f"or one folder per class in zeroshot/{about.name}/test/, or WebDataset tars in it."
        )
    yield from _images_of(kinds, folder)


def _images_of(kinds: Iterable[Path], folder: Path) -> Labelled:
    """The images of class folders."""
    for kind in kinds:
        for path in _images(kind):
            yield path.relative_to(folder).as_posix(), kind.name


def _kinds(folder: Path) -> list[Path]:
    """The folders of the classes: in `test`, else in `val`, else in the folder itself."""
    return next(filter(None, (subfolders(folder / name) for name in ("test", "val", ""))), [])


def subfolders(folder: Path) -> list[Path]:
    """The subfolders by name, without hidden ones, such as those of a downloader; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """All image files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _read_class_folder(folder: Path, *, root: Path) -> Classification:
    """The user's own images, one subfolder per class."""
    subfolders = _kinds(folder)
    if len(subfolders) < 2:
        raise InputError(f"{folder}: has {counted(len(subfolders), 'subfolder')}. Make one per class, at least two.")
    names, templates = _names(folder / CLASSES_FILE, [path.name for path in subfolders])
    labelled: list[tuple[str, int]] = []
    for label, subfolder in enumerate(subfolders):
        paths = _images(subfolder)
        if not paths:
            raise InputError(
                f"{subfolder}: no image of class {names[label]!r} (known extensions: "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}). Add its images or remove the folder."
            )
        labelled += [(path.relative_to(folder).as_posix(), label) for path in paths]
    return _classification(labelled, folder, root=root, classes=names, templates=templates)


def _read_own_tars(folder: Path, *, root: Path) -> Classification:
    names = _names_of_tars(folder)
    if not names:
        raise InputError(f"{folder}: {CLASS_NAMES_FILE} is missing. List the names of the tars' classes, one per line.")
    labelled = _read_tars(find_tars(folder), folder, classes=len(names))
    file = folder / CLASSES_FILE
    content = _read_classes_file(file)
    others = content.classes.values() if isinstance(content.classes, dict) else content.classes
    if others is not None and tuple(others) != names:
        raise InputError(
            f"{file}: field 'classes': differs from {CLASS_NAMES_FILE}, which names the classes of tars. Remove the "
            "field, or write the same names in the same order."
        )
    templates = () if "templates" in content.model_fields_set else _templates_of_tars(folder)
    return _classification(labelled, folder, root=root, classes=names, templates=templates or content.templates)


def _templates_of_tars(folder: Path) -> tuple[str, ...]:
    """The prompts in `zeroshot_classification_templates.txt`; empty if it does not exist."""
    file = folder / TEMPLATES_FILE
    lines = [line.strip() for line in read_text(file).splitlines()] if file.exists() else []
    if wrong := next((line for line in lines if line and line.count("{c}") != 1), None):
        raise InputError(f"{file}: every line needs exactly one {{c}}, the place of the class name: {wrong!r}.")
    return tuple(line.replace("{c}", "{}") for line in lines if line)


def _names_of_tars(folder: Path, *, expected: int | None = None) -> tuple[str, ...]:
    """The names in `classnames.txt`; empty if it does not exist."""
    file = folder / CLASS_NAMES_FILE
    if not file.exists():
        return ()
    names = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    if expected is not None and len(names) != expected:
        raise InputError(f"{file}: names {counted(len(names), 'class', 'classes')}, but the data set has {expected}.")
    return names


def _read_tars(tars: Sequence[Path], folder: Path, *, classes: int) -> Iterator[tuple[str, int]]:
    for tar in tars:
        for name, label in labelled_members(tar):
            if label >= classes:
                raise InputError(
                    f"{tar}: {name!r} has label {label}; with {counted(classes, 'class', 'classes')} the largest is "
                    f"{classes - 1}."
                )
            yield f"{tar.relative_to(folder).as_posix()}{MARK}{name}", label


def _classification(
    labelled: Iterable[tuple[str, int]], folder: Path, *, root: Path, classes: Sequence[str], templates: Sequence[str]
) -> Classification:
    rows = list(labelled)
    if not rows:
        raise InputError(f"{folder}: has no images.")
    place = folder.relative_to(root).as_posix()
    row = {
        "benchmark": BENCHMARK_NAME,
        "part": folder.name,
        "images": tuple(ItemImage(path=f"{place}/{path}") for path, _ in rows),
        "labels": tuple(label for _, label in rows),
        "classes": tuple(classes),
        "templates": tuple(templates),
    }
    file = folder / CLASSES_FILE
    return validate(Classification, row, where=str(file if file.exists() else folder))


def _cifar(folder: Path, about: DataSet, *, files: Sequence[str]) -> Labelled:
    names = list(about.classes)
    for file in files:
        for number, label in enumerate(read_batch(folder / file)[1]):
            if not 0 <= label < len(names):
                raise InputError(f"{folder / file}: image {number} has label {label}, the largest is {len(names) - 1}.")
            yield f"{file}{MARK}{number}", names[label]


def _food101(folder: Path, about: DataSet, *, files: Sequence[str]) -> Labelled:
    for file in (folder / name for name in files):
        for key, paths in read_object(file, about).items():
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise InputError(f"{file}: field {key!r}: must be a list of strings. Fetch the file again.")
            for path in paths:
                yield f"food-101/images/{path}.jpg", key


def _flowers102(folder: Path, about: DataSet, *, files: Sequence[str], lists: Sequence[str]) -> Labelled:
    labels = _matlab(folder / "flowers-102/imagelabels.mat", "labels", about).ravel()
    for file, name in ((folder / file, name) for file in files for name in lists):
        for number in _matlab(file, name, about).ravel():
            if not 1 <= number <= len(labels):
                raise InputError(f"{file}: image {number} has no label in imagelabels.mat.")
            yield f"flowers-102/jpg/image_{int(number):05d}.jpg", str(int(labels[number - 1]))


def _cars(folder: Path, about: DataSet, *, files: Sequence[str], images: str) -> Labelled:
    for file in files:
        for row in _matlab(folder / file, "annotations", about).ravel():
            yield f"stanford_cars/{images}/{row['fname'].item()}", str(int(row["class"].item()))


def _listed(folder: Path, about: DataSet, *, files: Sequence[str], image: str, line: str, form: str = "") -> Labelled:
    """The images listed in text files, one per line.

    Args:
        folder: of the data set.
        about: says where to get the files.
        files: their paths in the folder.
        image: path of an image in the folder, with `{}` for the group.
        line: pattern of a line, with the groups `image` and `kind`.
        form: the same in words, for errors, if not every line matches.
    """
    for file in files:
        for number, words in enumerate(map(str.strip, read_annotation(folder / file, about).splitlines()), start=1):
            if not words:
                continue
            match = re.fullmatch(line, words)
            if match is None:
                raise InputError(f"{folder / file} line {number}: must {form}, got {words!r}.")
            yield image.format(match["image"]), match["kind"]


def _caltech101(folder: Path, about: DataSet, *, files: Sequence[str], training: bool = False) -> Labelled:
    """The images of `test.txt`, or the others for training; without it all but 30 per class, or these 30.

    No list of test images was ever published; each paper draws its own 30 training images per class. Here these are the
    ones with the smallest name digests.
    """
    (images,) = files
    listed = set()
    if tested := (folder / "caltech101/test.txt").exists():
        paths = _listed(folder, about, files=["caltech101/test.txt"], image=f"{images}/{{}}", line=_CLASS_FIRST)
        if not training:
            yield from paths
            return
        listed = {path for path, _ in paths}
    for kind in sorted(path for path in (folder / images).iterdir() if path.is_dir()):
        names = sorted(path.name for path in kind.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        order = sorted(names, key=lambda name: hashlib.sha256(f"{kind.name}/{name}".encode()).digest())
        drawn = set(order[:CALTECH_TRAINING_IMAGES]) if len(names) > CALTECH_TRAINING_IMAGES else set()
        for name in names:
            path = f"{images}/{kind.name}/{name}"
            if path not in listed if tested else (name in drawn) == training:
                yield path, kind.name


@dataclass(frozen=True)
class _Layout:
    """A published layout.

    Attributes:
        probe: path that only this layout has.
        read: reads a split.
        test, training: arguments of `read` for each split, of which `files` are the files that define it.
    """

    probe: str
    read: Callable[..., Labelled]
    test: dict[str, Any]
    training: dict[str, Any]


def _lists(path: str, test: Sequence[str], training: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `files` of the two splits; `path` has a place for their names."""
    of_test, of_training = ([path.format(name) for name in names] for names in (test, training))
    return {"files": of_test}, {"files": of_training}


_SETS = "flowers-102/setid.mat"
_PICTURES = "caltech101/101_ObjectCategories"
OFFICIAL: dict[str, _Layout] = {
    "cifar10": _Layout(
        "cifar-10-batches-py", _cifar,
        *_lists("cifar-10-batches-py/{}", ["test_batch"], [f"data_batch_{number}" for number in range(1, 6)]),
    ),
    "cifar100": _Layout("cifar-100-python", _cifar, *_lists("cifar-100-python/{}", ["test"], ["train"])),
    "food101": _Layout("food-101", _food101, *_lists("food-101/meta/{}.json", ["test"], ["train"])),
    "pets": _Layout(
        "oxford-iiit-pet",
        partial(
            _listed, image="oxford-iiit-pet/images/{}.jpg",
            line=r"(?P<image>(?P<kind>\S+)_\d+)(\s.*)?", form="begin with BREED_NUMBER",
        ),
        *_lists("oxford-iiit-pet/annotations/{}.txt", ["test"], ["trainval"]),
    ),
    "flowers102": _Layout(
        "flowers-102", _flowers102,
        {"files": [_SETS], "lists": ["tstid"]}, {"files": [_SETS], "lists": ["trnid", "valid"]},
    ),
    "sun397": _Layout(
        "SUN397",
        partial(
            _listed, image="SUN397/{}",
            line="/*(?P<image>[^/]+/(?P<kind>.+)/[^/]+)/*", form="be /LETTER/CLASS/IMAGE",
        ),
        *_lists("SUN397/{}_01.txt", ["Testing"], ["Training"]),
    ),
    "cars": _Layout(
        "stanford_cars", _cars,
        {"files": ["stanford_cars/cars_test_annos_withlabels.mat"], "images": "cars_test"},
        {"files": ["stanford_cars/devkit/cars_train_annos.mat"], "images": "cars_train"},
    ),
    "dtd": _Layout(
        "dtd", partial(_listed, image="dtd/dtd/images/{}", line=_CLASS_FIRST),
        *_lists("dtd/dtd/labels/{}1.txt", ["test"], ["train", "val"]),
    ),
    "caltech101": _Layout(_PICTURES, _caltech101, {"files": [_PICTURES]}, {"files": [_PICTURES], "training": True}),
    "aircraft": _Layout(
        "fgvc-aircraft-2013b",
        partial(
            _listed, image="fgvc-aircraft-2013b/data/images/{}.jpg",
            line="(?P<image>[^ ]+) (?P<kind>.+)", form="be NUMBER VARIANT",
        ),
        *_lists("fgvc-aircraft-2013b/data/images_variant_{}.txt", ["test"], ["trainval"]),
    ),
}  # fmt: skip
"""The published layouts by the data set's name. ImageNet has class folders."""


def _matlab(file: Path, name: str, about: DataSet) -> Any:
    """One array of a MATLAB file; the published files have versions 5 to 7."""
    if not file.is_file():
        read_annotation(file, about)  # says what is missing and where to get it
    from scipy.io import loadmat

    try:
        return loadmat(file)[name]
    except KeyError:
        raise InputError(f"{file}: has no variable {name!r}. Fetch the file again.") from None
    except Exception as error:  # scipy's reader raises half a dozen unrelated kinds for damaged files
        raise InputError(f"{file}: not a MATLAB file ({error}). Fetch the file again.") from None
