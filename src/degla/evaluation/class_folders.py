"""A folder with one subfolder a class enters, a `Classification` leaves.

    FOLDER/classes.json        optional: names and prompts
    FOLDER/<class>/*.jpg       the images of one class

`classes.json` is `{"classes": {"n01440764": "tench", ...} | ["tench", ...], "templates": ["a photo of a {}."]}`. A list
of names is matched with the sorted subfolders, one by one. Without the file a class is called as its folder is, with
spaces for underscores, and the only prompt is "a photo of a {}.".
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.benchmark import Classification
from degla.parse import read_json
from degla.records import ItemImage, Record, validate

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
DEFAULT_TEMPLATES = ("a photo of a {}.",)


class ClassesFile(Record):
    """`classes.json`: names of the classes and the prompts that they are put into."""

    classes: dict[str, str] | tuple[str, ...] | None = None
    templates: tuple[str, ...] = Field(default=DEFAULT_TEMPLATES, min_length=1)


def read_class_folder(folder: Path, *, root: Path, benchmark: str, part: str) -> Classification:
    """Read one classification folder.

    Args:
        folder: the folder.
        root: the benchmarks' root, which image paths are relative to.
        benchmark: name for the result.
        part: name for the result.

    Raises:
        InputError: fewer than two classes, a class without images, or `classes.json` does not fit the folders.
    """
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(subfolders) < 2:
        raise InputError(f"{folder}: holds {len(subfolders)} subfolder(s); one a class is needed, two at least.")
    file = folder / "classes.json"
    names, templates = _names(file, [path.name for path in subfolders])
    images: list[ItemImage] = []
    labels: list[int] = []
    for label, subfolder in enumerate(subfolders):
        found = sorted(
            path for path in subfolder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        if not found:
            raise InputError(
                f"{subfolder}: no image of class {names[label]!r} (known endings: "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}). Add its images or remove the folder."
            )
        images += [ItemImage(path=path.relative_to(root).as_posix()) for path in found]
        labels += [label] * len(found)
    row = {
        "benchmark": benchmark,
        "part": part,
        "images": tuple(images),
        "labels": tuple(labels),
        "classes": names,
        "templates": templates,
    }
    return validate(Classification, row, where=str(file if file.exists() else folder))


def read_classes_file(file: Path) -> ClassesFile:
    """Read `classes.json`; where it is not there, what holds without it.

    Raises:
        InputError: not JSON, or a field is wrong.
    """
    if not file.exists():
        return ClassesFile()
    return validate(ClassesFile, read_json(file), where=str(file))


def _names(file: Path, folders: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    read = read_classes_file(file)
    if read.classes is None:
        return tuple(name.replace("_", " ") for name in folders), read.templates
    if isinstance(read.classes, dict):
        unnamed = [name for name in folders if name not in read.classes]
        if unnamed:
            raise InputError(f"{file}: field 'classes': no name for folder {unnamed[0]!r} ({len(unnamed)} such).")
        without = [name for name in read.classes if name not in folders]
        if without:
            raise InputError(
                f"{file}: field 'classes': no folder {without[0]!r} ({len(without)} such). "
                "A class without images still changes the score; remove its name or add its folder."
            )
        return tuple(read.classes[name] for name in folders), read.templates
    if len(read.classes) != len(folders):
        raise InputError(
            f"{file}: field 'classes': {len(read.classes)} names for {len(folders)} subfolders. "
            'Write them as {"folder": "name"}.'
        )
    return tuple(read.classes), read.templates
