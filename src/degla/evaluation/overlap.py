"""Leakage: the images that a model was fine-tuned on enter, and those of a benchmark; what both have leaves.

Two images are the same where their names carry the same COCO id, or their files the same bytes. What the model saw
before fine-tuning is not known here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from degla.errors import DeglaError, InputError
from degla.evaluation.pictures import content_digest, size_of
from degla.parse import read_json
from degla.records import Original, Record, read_jsonl

logger = logging.getLogger(__name__)
_EXAMPLES = 3
_COCO_NAME = re.compile(r"^(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.\w+$")


class Overlap(Record):
    """Images that a benchmark and the training data have in common.

    Attributes:
        benchmark: its name.
        images: distinct images of the items that were scored.
        by_id: of them, those whose COCO id is in the training data.
        by_content: of them, those whose file is byte by byte in the training data and whose id is not.
        examples: paths of the first few.
    """

    benchmark: str
    images: int = Field(ge=0)
    by_id: int = Field(ge=0)
    by_content: int = Field(ge=0)
    examples: tuple[str, ...] = ()

    @property
    def shared(self) -> int:
        """Images that are in the training data, for either reason."""
        return self.by_id + self.by_content


class Leakage(Record):
    """What is known of a model's fine-tuning data beside the benchmarks.

    Attributes:
        captions: names of the captions files.
        images: distinct images in them.
        overlaps: one a benchmark.
    """

    captions: tuple[str, ...]
    images: int = Field(ge=0)
    overlaps: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class TrainingImages:
    """The images that a model was fine-tuned on.

    Attributes:
        captions: the captions files.
        files: the images' full paths.
        originals: what the images of packed pairs were before; `files` then has their places in the shards.
    """

    captions: tuple[Path, ...]
    files: frozenset[Path]
    originals: frozenset[Original] = frozenset()


_SECOND: Final = ("distractor_image", "distractor_text")
"""Fields with a second image of a caption, which only some recipes train on."""


def training_images(name: str) -> TrainingImages | None:
    """The images behind a run or checkpoint folder, and behind the run that it began from, if it began from one.

    Returns:
        None for any other model, and, with a warning, where the captions file cannot be read any more.
    """
    found: list[TrainingImages] = []
    for config in _configs(name):
        try:
            found += trained_by(config)
        except (InputError, KeyError, TypeError, AttributeError) as error:
            logger.warning(
                "%s: whether benchmark images were trained on is not known: %s "
                "(A run's relative paths count from the folder that its training was started in.)",
                name,
                error,
            )
            return None
    return joined_images(found) if found else None


def joined_images(given: Iterable[TrainingImages | None]) -> TrainingImages:
    """Those of several trainings; None: of one that nothing is known of."""
    parts = [part for part in given if part is not None]
    captions = tuple(path for part in parts for path in part.captions)
    return TrainingImages(
        captions,
        frozenset().union(*(part.files for part in parts)),
        frozenset().union(*(part.originals for part in parts)),
    )


def _configs(name: str) -> Iterator[dict[str, Any]]:
    """Configuration of a run, and of each run that an earlier one began from."""
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        config = _config(_folder(name))
        if config is None:
            return
        yield config
        name = str(config.get("model", ""))


def _folder(name: str) -> Path:
    from degla.model.address import folder_here

    # What a run began from may be gone from its address, as a folder may be.
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
    """The images of each stream of pairs of a configuration, as plain values; replayed pairs are trained on, too.

    Raises:
        InputError: captions cannot be read.
    """
    replayed = config.get("replay", {}).get("data", {})
    return [trained_images(data) for data in (config["data"], *([replayed] if replayed.get("captions") else []))]


def trained_images(data: Mapping[str, Any], names: Iterable[str] | None = None) -> TrainingImages:
    """The images that the section `data` of a configuration, as plain values, names.

    Args:
        data: the section.
        names: the images' names, where they are known; those of the captions by default.

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
    """Look for the images of benchmarks among those of the training.

    Files are read only where a training image has the very size of a benchmark image: another size is another file.

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
    for file in training.files:
        # Of one that is gone, or inside a data set's file, the name is all that can be compared.
        if (state := _state_of(str(file))) is not None:
            by_size.setdefault(state[0], []).append(file)
    return Leakage(
        captions=tuple(path.name for path in training.captions),
        images=len(training.files),
        overlaps=tuple(
            _overlap(name, list(dict.fromkeys(paths)), ids, by_size, root=root) for name, paths in benchmarks
        ),
    )


def _overlap(
    name: str, paths: list[str], ids: set[str], by_size: Mapping[int, list[Path | str]], *, root: Path
) -> Overlap:
    same_id = [path for path in paths if coco_id(path.rpartition("/")[2]) in ids]
    rest = sorted(set(paths) - set(same_id))
    same_content = [path for path in rest if _is_among(path, by_size.get(size_of(root, path), []), root=root)]
    return Overlap(
        benchmark=name,
        images=len(paths),
        by_id=len(same_id),
        by_content=len(same_content),
        examples=tuple([*same_id, *same_content][:_EXAMPLES]),
    )


def coco_id(file_name: str) -> str | None:
    """The twelve digits of `COCO_val2014_000000391895.jpg` and `000000391895.jpg`; None for any other name.

    The splits of 2014 and 2017 share out the same images, so the digits alone name one.
    """
    found = _COCO_NAME.match(file_name)
    return found[1] if found else None


def _is_among(path: str, files: list[Path | str], *, root: Path) -> bool:
    """Whether a picture's file is one of these, each given by its path or its digest."""
    if not files:
        return False
    digest = content_digest(root, path)
    return any(digest == (file if isinstance(file, str) else _digest(file, _state_of(str(file)))) for file in files)


@lru_cache(maxsize=1 << 17)
def _digest(file: Path, state: tuple[int, int] | None) -> str:
    """sha256 of a picture; `state` makes a changed file a new key."""
    return content_digest(file.parent, file.name)


def _state_of(file: str) -> tuple[int, int] | None:
    from degla.data.images import picture_state  # A report reads what was found, and no Arrow.

    return picture_state(file)
