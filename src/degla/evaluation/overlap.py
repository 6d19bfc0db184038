"""Find leakage: benchmark images that a model was fine-tuned on.

Two images are the same if their names have the same COCO id, or their files the same bytes. What the model saw
before fine-tuning is unknown here.
"""

from __future__ import annotations

import json
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
from degla.files import write_json
from degla.parse import read_json
from degla.passwords import without_passwords
from degla.records import Original, Record, read_jsonl, validate
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


class Trainings(Record):
    """What weights were trained on, as a model's folder records it.

    Attributes:
        data: of each training, the newest first: the sections `data` and `replay` of its configuration (plain values),
            the latter with its own `data` only; its seed; and name (`model`) and fingerprint (`base`) of what it began
            from.
        unknown: as in `Leakage`.
    """

    data: tuple[dict[str, Any], ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def last(self) -> Mapping[str, Any]:
        """The newest training; empty if none is known."""
        return next(iter(self.data), {})

    @property
    def captions(self) -> list[str]:
        """Names of the captions files, each once."""
        return list(dict.fromkeys(Path(str(each.get("data", {}).get("captions"))).name for each in self.data))

    @classmethod
    def read(cls, folder: Path) -> Trainings | None:
        """Read ``degla_training.json`` in a model's folder; None if there is none.

        In a run's checkpoint it has the trainings before its own, which do not change with the folder of the base.

        Raises:
            InputError: it is damaged.
        """
        from degla.model.runs import TRAINING_NAME

        path = folder / TRAINING_NAME
        return validate(cls, read_json(path), where=str(path)) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write that file, without passwords, to the folder of a model that is not a run's, unless nothing is known."""
        from degla.model.runs import TRAINING_NAME

        if self.data or self.unknown:
            write_json(folder / TRAINING_NAME, _without_passwords(self.model_dump(mode="json")))


def joined_trainings(trainings: Iterable[Trainings]) -> Trainings:
    """Join what several models were trained on, each training once."""
    every = list(trainings)
    data = {json.dumps(each, sort_keys=True): each for one in every for each in one.data}
    return Trainings(
        data=tuple(data.values()), unknown=tuple(dict.fromkeys(name for one in every for name in one.unknown))
    )


def _without_passwords(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_passwords(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(inner) for inner in value]
    return without_passwords(value) if isinstance(value, str) else value


def training_images(name: str, known: Trainings | None = None) -> TrainingImages | None:
    """Return the images that a model was trained on by degla.

    Args:
        name: of the model.
        known: what it was trained on, default `trainings_of(name)`.

    Returns:
        None for a model without a record of it, and, with a warning, if a captions file can no longer be read.
    """
    trainings: list[TrainingImages] = []
    try:
        found = known or trainings_of(name)
    except InputError as error:
        logger.warning("%s: cannot check whether benchmark images were trained on: %s", name, error)
        return None
    for config in found.data:
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
    return replace(joined_images(trainings), unknown=found.unknown) if trainings else None


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


def trainings_of(name: str) -> Trainings:
    """Return what a run, a checkpoint, or a model exported from or averaged with one was trained on, with all bases.

    Where a folder records the trainings before its own, these count; bases of other runs are followed by their names,
    up to the first one whose folder is missing.

    Raises:
        InputError: a record of trainings is damaged.
    """
    from degla.model.load import SHIPPED

    data: list[dict[str, Any]] = []
    names: set[str] = set()
    while name not in names:
        names.add(name)
        folder = _folder(name)
        config, earlier = _config(folder), _earlier(folder)
        if config is not None:
            data.append(_sections(config) | {"base": _base_of(folder)})
        if earlier is not None:
            return Trainings(data=(*data, *earlier.data), unknown=earlier.unknown)
        if config is None:
            is_published = name in SHIPPED or (":" in name and not address_of(name))
            unknown = () if is_published or folder.is_dir() else (without_passwords(name),)
            return Trainings(data=tuple(data), unknown=unknown)
        name = str(config.get("model", ""))
    return Trainings(data=tuple(data))


def _sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a run's configuration names; anything else than a section is kept as it is, to be told later."""
    replay = config.get("replay", {})
    loop = config.get("train")
    return {
        "model": str(config.get("model", "")),
        "seed": loop.get("seed") if isinstance(loop, dict) else None,
        "data": config["data"],
        "replay": {"data": replay.get("data")} if isinstance(replay, dict) else replay,
    }


def _base_of(folder: Path) -> str | None:
    """The fingerprint of the model that a run began from, if a checkpoint of it is there."""
    from degla.model.integrity import STATE_NAME, read_state

    with suppress(InputError):
        return next((read_state(place).base for place in _places(folder) if (place / STATE_NAME).is_file()), None)
    return None


def _folder(name: str) -> Path:
    from degla.model.address import folder_here

    file = Path(name.partition(":")[2])
    if name.partition(":")[2] and not address_of(name) and file.is_file():
        return file.parent  # ARCHITECTURE:FILE
    # The run's base may no longer exist at its address.
    with suppress(DeglaError):
        return folder_here(name)
    return Path(name)


def _places(folder: Path) -> Iterator[Path]:
    """The folder of a model or run itself, and the newest checkpoint of a run."""
    from degla.model.runs import latest_checkpoint

    if folder.is_dir():
        yield folder
        if (newest := latest_checkpoint(folder)) is not None:
            yield newest


def _config(folder: Path) -> dict[str, Any] | None:
    for place in _places(folder):
        try:
            config = read_json(place / "config.json", constants=True)
        except InputError:
            continue
        # A folder of transformers has a config.json too, without training data.
        if isinstance(config, dict) and isinstance(config.get("data"), dict) and config["data"].get("captions"):
            return config
    return None


def _earlier(folder: Path) -> Trainings | None:
    return next((found for place in _places(folder) if (found := Trainings.read(place)) is not None), None)


def trained_by(config: Mapping[str, Any]) -> list[TrainingImages]:
    """Return the images of each stream of pairs in a configuration (plain values), including replayed pairs.

    Raises:
        InputError: captions cannot be read.
    """
    replayed = config.get("replay", {}).get("data") or {}
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
