"""Find leakage: benchmark images that a model was fine-tuned on.

Two images are the same if their names have the same COCO id, or their files the same bytes. What the model saw
before fine-tuning is unknown here.
"""

from __future__ import annotations

import hashlib
import logging
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.image_files import content_digest, size_of
from degla.evaluation.trainings import TrainedPairs, Training, Trainings, trainings_of
from degla.records import Original, Record, read_jsonl
from degla.remote import address_of

log = logging.getLogger(__name__)
_EXAMPLES = 3
_AT_ONCE: Final = 32
"""Remote files that are read or asked about at once."""
_Result = TypeVar("_Result")
_COCO_NAME = re.compile(r"^(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.\w+$")


class Overlap(Record):
    """Images that a benchmark and the training data have in common.

    Attributes:
        benchmark: its name.
        images: number of distinct images of the scored items.
        by_id: number of those whose COCO id is in the training data.
        by_content: number of those whose file is byte for byte in the training data, but not their id.
        examples: paths of the first few.
    """

    benchmark: str
    images: int = Field(ge=0)
    by_id: int = Field(ge=0)
    by_content: int = Field(ge=0)
    examples: tuple[str, ...] = ()

    @property
    def shared(self) -> int:
        """Number of images in the training data, by id or content."""
        return self.by_id + self.by_content


class Leakage(Record):
    """A model's fine-tuning data and its overlap with the benchmarks.

    Attributes:
        captions: names of the captions files, each once.
        images: number of distinct images in them.
        overlaps: one per benchmark.
        unknown: models that it was fine-tuned from and that are not found, so that their data is unknown.
        changed: what of the data is no longer as it was trained on: "captions.jsonl", "the images of captions.jsonl".
    """

    captions: tuple[str, ...]
    images: int = Field(ge=0)
    overlaps: tuple[Overlap, ...] = ()
    unknown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def is_sure(self) -> bool:
        """Whether all of the data is known, as it was trained on."""
        return not self.unknown and not self.changed


@dataclass(frozen=True)
class TrainingImages:
    """The images that a model was fine-tuned on.

    Attributes:
        captions: the captions files.
        files: the images' full paths.
        originals: the original files of packed images; `files` then has their places in the shards.
        sizes: of those files whose size in bytes is already read.
        unknown, changed: as in `Leakage`.
    """

    captions: tuple[Path, ...]
    files: frozenset[Path]
    originals: frozenset[Original] = frozenset()
    sizes: Mapping[Path, int] = field(default_factory=dict, compare=False)
    unknown: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


_SECOND: Final = ("distractor_image", "distractor_text")
"""Fields with a second image of a caption, used by only some recipes."""
RELATIVE: Final = "A run's relative paths are relative to the folder in which its training was started."


def training_images(name: str, known: Trainings | None = None) -> TrainingImages | None:
    """Return the images that a model was trained on by degla.

    Args:
        name: of the model.
        known: what it was trained on, default `trainings_of(name)`.

    Returns:
        None for a model without a record of it, and, with a warning, if a captions file can no longer be read.

    Raises:
        InputError: as `trainings_of`.
    """
    found = known or trainings_of(name)
    try:
        trainings = [images for training in found.data for images in images_of_training(training)]
    except InputError as error:
        # Unlike the record, the data may well be elsewhere by now.
        log.warning("%s: cannot check whether benchmark images were trained on: %s (%s)", name, error, RELATIVE)
        return None
    return replace(joined_images(trainings), unknown=found.unknown) if trainings else None


def joined_images(trainings: Iterable[TrainingImages | None]) -> TrainingImages:
    """Join the training images of several trainings; None stands for an unknown one."""
    parts = [part for part in trainings if part is not None]
    captions = tuple(path for part in parts for path in part.captions)
    return TrainingImages(
        captions,
        frozenset().union(*(part.files for part in parts)),
        frozenset().union(*(part.originals for part in parts)),
        dict(chain.from_iterable(part.sizes.items() for part in parts)),
        tuple(dict.fromkeys(name for part in parts for name in part.unknown)),
        tuple(dict.fromkeys(name for part in parts for name in part.changed)),
    )


def images_of_training(training: Training) -> list[TrainingImages]:
    """Return the images of each stream of pairs of a training, including replayed pairs.

    Raises:
        InputError: captions cannot be read.
    """
    return [images_of_pairs(pairs) for pairs in training.pairs]


def images_of_pairs(pairs: TrainedPairs, names: Iterable[str] | None = None) -> TrainingImages:
    """Return the images of pairs.

    Args:
        pairs: the pairs.
        names: the images' names, if known; default: those in the captions, which are compared with the digests.

    Raises:
        InputError: the captions cannot be read.
    """
    from degla.data.pack import ORIGINALS_NAME
    from degla.data.places import base_of

    captions = Path(pairs.captions)
    folder = Path(pairs.images) if pairs.images else base_of(captions)
    originals = captions.parent / ORIGINALS_NAME
    sizes, changed = _sizes(pairs, folder) if names is None else (dict.fromkeys(names), ())
    files = {folder / name: size for name, size in sizes.items()}
    return TrainingImages(
        (captions,),
        frozenset(files),
        frozenset(read_jsonl(Original, originals)) if originals.is_file() else frozenset(),
        {file: size for file, size in files.items() if size is not None},
        changed=changed,
    )


def _sizes(pairs: TrainedPairs, folder: Path) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Names of the images in the captions, each with its size if that is compared, and what of these has changed since
    its digest was recorded."""
    from degla.data.table import digest

    try:
        first, second, read = _read(pairs, optional=_SECOND)
    except InputError:
        # Training that reads second images refuses an incomplete one; any other did not read them.
        first, second, read = _read(pairs, optional=())
    before = pairs.digests
    name = Path(pairs.captions).name
    names = dict.fromkeys(first | second)
    if any(column in before and before[column] != digest(chunks) for column, chunks in read.items()):
        return names, (name,)
    if "image sizes" not in before:
        return names, ()
    sizes = sizes_of(folder, first)
    if before["image sizes"] == digest_of_sizes(sizes):
        return names | sizes, ()
    if not any(sizes.values()):
        log.warning("%s: none of the images of %s is there. %s", folder, name, RELATIVE)
    return names | sizes, (f"the images of {name}",)


def _read(pairs: TrainedPairs, *, optional: tuple[str, ...]) -> tuple[set[str], set[str], dict[str, list[Any]]]:
    """Names of the first and second images in the captions, and the columns of which digests are recorded, in chunks.

    Raises:
        InputError: the captions cannot be read.
    """
    import pyarrow as arrow

    from degla.data.columns import Columns
    from degla.data.sources import read_captions
    from degla.data.table import ROWS

    columns = Columns.of(pairs, optional=optional)
    records = iter(read_captions(Path(pairs.captions), format=pairs.format, columns=columns))
    first, second = set[str](), set[str]()
    read: dict[str, list[Any]] = {"images": [], "captions": []}
    while rows := list(islice(records, ROWS)):
        first.update(row.image for row in rows)
        second.update(row.distractor_image for row in rows if row.distractor_image)
        read["images"].append(arrow.array([row.image for row in rows], arrow.large_string()))
        read["captions"].append(arrow.array([row.text for row in rows], arrow.large_string()))
    return first, second, read


def sizes_of(folder: Path, names: Iterable[str]) -> dict[str, int | None]:
    """Return the sizes of image files in bytes by name; one that is gone, or in a shard or table, has none.

    Args:
        folder: base of relative names.
        names: of the files, in any order.
    """
    return {name: _bytes_of(folder / name) for name in names}


def digest_of_sizes(sizes: Mapping[str, int | None]) -> str:
    """Return the sha256 of the names and sizes of image files, by which most edits show without reading any."""
    digest = hashlib.sha256()
    for name in sorted(sizes):
        digest.update(f"{name} {sizes[name]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _bytes_of(file: Path) -> int | None:
    try:
        state = file.stat()
    except (OSError, ValueError):
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def find_leakage(training: TrainingImages, benchmarks: Iterable[tuple[str, Iterable[str]]], *, root: Path) -> Leakage:
    """Look for benchmark images among the training images.

    Files are read only if a training image has the same size in bytes as a benchmark image.

    Args:
        training: see `training_images`.
        benchmarks: name, and paths of the images of its scored items.
        root: folder that those paths are relative to.
    """
    names = [*(file.name for file in training.files), *(Path(original.name).name for original in training.originals)]
    ids = {number for name in names if (number := coco_id(name)) is not None}
    by_size: dict[int, list[Path | str]] = {}
    for original in training.originals:
        by_size.setdefault(original.bytes, []).append(original.sha256)
    for file, size in training.sizes.items():
        by_size.setdefault(size, []).append(file)
    files = list(training.files - training.sizes.keys())
    for file, state in zip(files, _of_each(_state_of, files), strict=True):
        # A file that is gone, or inside a data set's file, can only be compared by name.
        if state is not None:
            by_size.setdefault(state[0], []).append(file)
    overlaps = (_overlap(name, list(dict.fromkeys(paths)), ids, by_size, root=root) for name, paths in benchmarks)
    captions = tuple(dict.fromkeys(path.name for path in training.captions))
    return Leakage(
        captions=captions, images=len(training.files), overlaps=tuple(overlaps), unknown=training.unknown,
        changed=training.changed,
    )  # fmt: skip


def _overlap(
    name: str, paths: list[str], ids: set[str], by_size: Mapping[int, list[Path | str]], *, root: Path
) -> Overlap:
    same_id = [path for path in paths if coco_id(path.rpartition("/")[2]) in ids]
    rest = sorted(set(paths) - set(same_id))
    alike = {path: by_size.get(size_of(root, path), []) for path in rest}
    _of_each(_digest_of, {file for files in alike.values() for file in files if address_of(str(file))})
    same_content = [path for path in rest if _is_among(path, alike[path], root=root)]
    return Overlap(
        benchmark=name,
        images=len(paths),
        by_id=len(same_id),
        by_content=len(same_content),
        examples=tuple([*same_id, *same_content][:_EXAMPLES]),
    )


def coco_id(file_name: str) -> str | None:
    """Return the twelve digits of `COCO_val2014_000000391895.jpg` or `000000391895.jpg`; None for any other name.

    The splits of 2014 and 2017 divide the same images, so the digits identify an image.
    """
    match = _COCO_NAME.match(file_name)
    return match[1] if match else None


def _is_among(path: str, files: list[Path | str], *, root: Path) -> bool:
    """Whether a picture's file is one of these, each given by its path or its digest."""
    if not files:
        return False
    digest = content_digest(root, path)
    return any(digest == (file if isinstance(file, str) else _digest_of(file)) for file in files)


def _of_each(work: Callable[[Any], _Result], files: Iterable[Path | str]) -> list[_Result]:
    """Call a function of each file; for remote ones, whose server takes its time, in several threads."""
    files = list(files)
    far = [file for file in files if address_of(str(file))]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = dict(zip(far, threads.map(work, far), strict=True))
    return [found[file] if file in found else work(file) for file in files]


def _digest_of(file: Path) -> str:
    return _digest(file, _state_of(file))


@lru_cache(maxsize=1 << 17)
def _digest(file: Path, state: tuple[int, int] | None) -> str:
    """sha256 of a picture; `state` makes a changed file a new key."""
    return content_digest(file.parent, file.name)


def _state_of(file: Path) -> tuple[int, int] | None:
    from degla.data.images import image_state  # A report reads what was found, and no Arrow.

    return image_state(str(file))
