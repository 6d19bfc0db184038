"""Pictures and labels in one file, nothing unpacked: WebDataset archives (`*.tar`) and CIFAR's own pickled batches."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from degla.data.tars import PICTURE, file_state, records_of
from degla.errors import InputError

MARK = "#"
"""Stands between a file that holds several pictures and the name of one in it."""
LABEL_SUFFIX = ".cls"
_NUMBER = re.compile("[0-9]{1,9}")


def find_tars(folder: Path) -> list[Path]:
    """The archives of a folder, or of its subfolder `test`, by name."""
    return sorted(folder.glob("*.tar")) or sorted((folder / "test").glob("*.tar"))


def labelled_members(tar: Path) -> Iterator[tuple[str, int]]:
    """Name and label of each picture: members that are equal up to the first dot of their name belong together.

    Raises:
        InputError: a picture without label, a label without picture, or one that is no number.
    """
    for key, group in records_of(tar, {LABEL_SUFFIX[1:]: "label"}).items():
        for kind, suffix in (("picture", "an image's ending"), ("label", LABEL_SUFFIX)):
            if kind not in group:
                raise InputError(f"{tar}: record {key!r} has no {kind} (a member with {suffix}).")
        text = (group["label"].content or b"").decode("ascii", errors="replace").strip()
        if not _NUMBER.fullmatch(text):
            raise InputError(
                f"{tar}: member {group['label'].name!r} must be the number of a class, from 0, got {text[:40]!r}."
            )
        yield group[PICTURE].name, int(text)


SIDE = 32
_ALLOWED = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }
)


class _OnlyArrays(pickle.Unpickler):
    """Makes containers, texts, numbers and arrays; the published files need nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        self._refuse(module, name)

    @staticmethod
    def _refuse(module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of CIFAR does")


def read_batch(file: Path) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Pictures `[N, 3, 32, 32]` and labels of one file of the Python version.

    Raises:
        InputError: the file cannot be read, or is no batch of CIFAR-10 or CIFAR-100.
    """
    return _read(file, *file_state(file))


@lru_cache(maxsize=2)
def _read(file: Path, modified: int, size: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    try:
        with file.open("rb") as stream:
            content = _OnlyArrays(stream, encoding="bytes").load()
        found = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        labels = tuple(int(label) for label in found["fine_labels" if "fine_labels" in found else "labels"])
        pictures = np.asarray(found["data"], dtype=np.uint8).reshape(len(labels), 3, SIDE, SIDE)
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(f"{file}: not a batch of CIFAR ({error}). Fetch the file again.") from None
    return pictures, labels


def as_image_file(file: Path, number: int) -> bytes:
    """One picture as the bytes of a PPM file, which every reader of images knows.

    Raises:
        InputError: see `read_batch`; or there is no picture of that number.
    """
    pictures, _ = read_batch(file)
    if not 0 <= number < len(pictures):
        raise InputError(f"{file}: has {len(pictures)} pictures, number {number} was asked for.")
    pixels: bytes = pictures[number].transpose(1, 2, 0).tobytes()
    return f"P6 {SIDE} {SIDE} 255\n".encode() + pixels
