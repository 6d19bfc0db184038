"""Pictures in the layouts in which the eleven classification data sets are published: labelled files enter."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from degla.data.decoding import Subject, decode
from degla.evaluation.archives import SIDE
from degla.files import write_json, write_text
from degla.study.rehearsal.made import put_bytes

LabelledFiles = Sequence[tuple[int, str, bytes]]
"""Number and own name of a picture's class, and the bytes of its file."""


def _cifar(folder: Path, rows: LabelledFiles, *, file: str, field: str) -> None:
    """The labels are the classes' numbers in the data set's own order."""
    pixels = []
    for _, _, content in rows:
        picture = decode(content, Subject("a picture of the rehearsal")).resize((SIDE, SIDE))
        pixels.append(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1).reshape(-1))
    batch = {"data": np.stack(pixels), field: [label for label, _, _ in rows]}
    put_bytes(folder / file, pickle.dumps(batch, protocol=4))


def _food101(folder: Path, rows: LabelledFiles) -> None:
    listed: dict[str, list[str]] = {}
    for number, (_, kind, content) in enumerate(rows):
        listed.setdefault(kind, []).append(f"{kind}/{number}")
        put_bytes(folder / f"food-101/images/{kind}/{number}.jpg", content)
    write_json(folder / "food-101/meta/test.json", listed)


def _listed(folder: Path, rows: LabelledFiles, *, file: str, line: str, image: str, images: str) -> None:
    """A text file with a line for each picture.

    Args:
        folder: of the data set.
        rows: its pictures.
        file: path of the list.
        line: what stands in it, with {image} and {kind}.
        image: a picture's name, with {kind} and {number} from 1.
        images: folder of the pictures.
    """
    lines = []
    for number, (_, kind, content) in enumerate(rows, start=1):
        name = image.format(kind=kind, number=number)
        lines.append(line.format(image=name, kind=kind))
        put_bytes(folder / images / f"{name}.jpg", content)
    write_text(folder / file, "\n".join(lines) + "\n")


def _flowers102(folder: Path, rows: LabelledFiles) -> None:
    base = folder / "flowers-102"
    for number, (_, _, content) in enumerate(rows, start=1):
        put_bytes(base / f"jpg/image_{number:05d}.jpg", content)
    _save_matlab(base / "imagelabels.mat", {"labels": np.array([[int(kind) for _, kind, _ in rows]], np.uint8)})
    _save_matlab(base / "setid.mat", {"tstid": np.arange(1, len(rows) + 1, dtype=np.uint16)[None]})


def _cars(folder: Path, rows: LabelledFiles) -> None:
    base = folder / "stanford_cars"
    names = [f"{number:05d}.jpg" for number in range(1, len(rows) + 1)]
    for name, (_, _, content) in zip(names, rows, strict=True):
        put_bytes(base / "cars_test" / name, content)
    kinds = [(name, int(kind)) for name, (_, kind, _) in zip(names, rows, strict=True)]
    _save_matlab(
        base / "cars_test_annos_withlabels.mat",
        {"annotations": np.array([kinds], dtype=[("fname", "O"), ("class", "O")])},
    )


def _save_matlab(file: Path, arrays: Mapping[str, Any]) -> None:
    from scipy.io import savemat

    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, dict(arrays))
    with file.open("r+b") as written:  # Its first 116 bytes tell the time: the same questions would look changed.
        written.write(b"MATLAB 5.0 MAT-file".ljust(116))


def _imagenet(folder: Path, rows: LabelledFiles) -> None:
    for number, (_, kind, content) in enumerate(rows, start=1):
        put_bytes(folder / f"val/{kind}/ILSVRC2012_val_{number:08d}.JPEG", content)


LAYOUTS: Final[Mapping[str, Callable[[Path, LabelledFiles], None]]] = {
    "cifar10": partial(_cifar, file="cifar-10-batches-py/test_batch", field="labels"),
    "cifar100": partial(_cifar, file="cifar-100-python/test", field="fine_labels"),
    "food101": _food101,
    "pets": partial(
        _listed, file="oxford-iiit-pet/annotations/test.txt", line="{image} 1 1 1", image="{kind}_{number}",
        images="oxford-iiit-pet/images",
    ),
    "flowers102": _flowers102,
    "sun397": partial(
        _listed, file="SUN397/Testing_01.txt", line="/{image}.jpg", image="{kind[0]}/{kind}/sun_{number:03d}",
        images="SUN397",
    ),
    "cars": _cars,
    "dtd": partial(
        _listed, file="dtd/dtd/labels/test1.txt", line="{image}.jpg", image="{kind}/{kind}_{number:04d}",
        images="dtd/dtd/images",
    ),
    "caltech101": partial(
        _listed, file="caltech101/test.txt", line="{image}.jpg", image="{kind}/image_{number:04d}",
        images="caltech101/101_ObjectCategories",
    ),
    "aircraft": partial(
        _listed, file="fgvc-aircraft-2013b/data/images_variant_test.txt", line="{image} {kind}", image="9{number:06d}",
        images="fgvc-aircraft-2013b/data/images",
    ),
    "imagenet": _imagenet,
}  # fmt: skip
"""A data set's name to what writes labelled pictures as it is published."""
