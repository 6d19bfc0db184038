"""Find leakage: benchmark images that a model was fine-tuned on.

Two images are the same if their names have the same COCO id, or their files the same bytes. What the model saw
before fine-tuning is unknown here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import Field

from degla.errors import DeglaError, InputError
from degla.evaluation.image_files import content_digest, size_of
from degla.parse import read_json
from degla.passwords import without_passwords
from degla.records import Original, Record, read_jsonl
from degla.remote import address_of

logger = logging.getLogger(__name__)
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
        captions: names of the captions files.
        images: number of distinct images in them.
        overlaps: one per benchmark.
        unknown: models that it was fine-tuned from and that are not found, so that their data is unknown.
    """

    captions: tuple[str, ...]
    images: int = Field(ge=0)
    overlaps: tuple[Overlap, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingImages:
    """The images that a model was fine-tuned on.

    Attributes:
        captions: the captions files.
        files: the images' full paths.
        originals: the original files of packed images; `files` then has their places in the shards.
        unknown: as in `Leakage`.
    """

    captions: tuple[Path, ...]
    files: frozenset[Path]
    originals: frozenset[Original] = frozenset()
    unknown: tuple[str, ...] = ()


_SECOND: Final = ("distractor_image", "distractor_text")
"""Fields with a second image of a caption, used by only some recipes."""


def training_images(name: str) -> TrainingImages | None:
    """Return the training images of a run or checkpoint folder, and of the runs that it was fine-tuned from.

    Returns:
        None for any other model, and, with a warning, if the captions file can no longer be read.
    """
    trainings: list[TrainingImages] = []
    configs, unknown = _configs(name)
    for config in configs:
        try:
            trainings += trained_by(config)
        except (InputError, KeyError, TypeError, AttributeError) as error:
            logger.warning(
                "%s: cannot check whether benchmark images were trained on: %s "
                "(A run's relative paths are relative to the folder in which its training was started.)",
                name,
                error,
            )
            return None
    return replace(joined_images(trainings), unknown=unknown) if trainings else None


def joined_images(trainings: Iterable[TrainingImages | None]) -> TrainingImages:
    """Join the training images of several trainings; None stands for an unknown one."""
    parts = [part for part in trainings if part is not None]
    captions = tuple(path for part in parts for path in part.captions)
    return TrainingImages(
        captions,
        frozenset().union(*(part.files for part in parts)),
        frozenset().union(*(part.originals for part in parts)),
        tuple(dict.fromkeys(name for part in parts for name in part.unknown)),
    )


def _configs(name: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Configuration of a run, and of each run that an earlier one began from; and the first whose folder is missing."""
    from degla.model.load import SHIPPED

    configs: list[dict[str, Any]] = []
    names: set[str] = set()
    while name not in names:
        names.add(name)
        folder = _folder(name)
        config = _config(folder)
        if config is None:
            is_published = name in SHIPPED or (":" in name and not address_of(name))
            return configs, () if is_published or folder.is_dir() else (without_passwords(name),)
        configs.append(config)
        name = str(config.get("model", ""))
    return configs, ()


def _folder(name: str) -> Path:
    from degla.model.address import folder_here

    # The run's base may no longer exist at its address.
    with suppress(DeglaError):
        return folder_here(name)
    return Path(name)


def _config(folder: Path) -> dict[str, Any] | None:
    from degla.model.runs import latest_checkpoint

    if not folder.is_dir():
        return None
    for place in (folder, latest_checkpoint(folder)):
        try:
            config = read_json((place or folder) / "config.json", constants=True)
        except InputError:
            continue
        # A folder of transformers has a config.json too, without training data.
        if isinstance(config, dict) and isinstance(config.get("data"), dict) and config["data"].get("captions"):
            return config
    return None


def trained_by(config: Mapping[str, Any]) -> list[TrainingImages]:
    """Return the images of each stream of pairs in a configuration (plain values), including replayed pairs.

    Raises:
        InputError: captions cannot be read.
    """
    replayed = config.get("replay", {}).get("data", {})
    return [trained_images(data) for data in (config["data"], *([replayed] if replayed.get("captions") else []))]


def trained_images(data: Mapping[str, Any], names: Iterable[str] | None = None) -> TrainingImages:
    """Return the images of the section `data` of a configuration (plain values).

    Args:
        data: the section.
        names: the images' names, if known; default: those in the captions.

    Raises:
        InputError: the captions cannot be read.
    """
    from degla.data.pack import ORIGINALS_NAME
    from degla.data.places import base_of

    captions = Path(data["captions"])
    folder = Path(data["images"]) if data.get("images") else base_of(captions)
    originals = captions.parent / ORIGINALS_NAME
    return TrainingImages(
        (captions,),
        frozenset(folder / name for name in (_named(captions, data) if names is None else names)),
        frozenset(read_jsonl(Original, originals)) if originals.is_file() else frozenset(),
    )


def _named(captions: Path, data: Mapping[str, Any]) -> Iterator[str]:
    from degla.data.sources import Columns, read_captions

    settings = {name: f"{name}_column" for name in ("id", "image", "text", "image_id")}
    settings["image_pattern"] = "image_pattern"
    names = {name: data[setting] for name, setting in settings.items() if setting in data}
    records = read_captions(captions, format=data.get("format", "auto"), columns=Columns(**names, optional=_SECOND))
    return (name for record in records for name in (record.image, record.distractor_image) if name)


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
    files = list(training.files)
    for file, state in zip(files, _of_each(_state_of, files), strict=True):
        # A file that is gone, or inside a data set's file, can only be compared by name.
        if state is not None:
            by_size.setdefault(state[0], []).append(file)
    overlaps = (_overlap(name, list(dict.fromkeys(paths)), ids, by_size, root=root) for name, paths in benchmarks)
    captions = tuple(path.name for path in training.captions)
    return Leakage(captions=captions, images=len(training.files), overlaps=tuple(overlaps), unknown=training.unknown)


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
