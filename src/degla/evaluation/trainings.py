"""What weights were trained on: the record in a model's folder, and how it is collected from runs and their bases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from degla.errors import DeglaError, InputError
from degla.files import write_json
from degla.parse import read_json, read_json_object, require_form
from degla.passwords import without_passwords
from degla.records import Record, validate
from degla.remote import address_of

_REMEDY: Final = (
    "Restore the file, update degla if a newer version wrote it, or delete it: then it is not known what the model was "
    "trained on."
)


class TrainedPairs(Record):
    """Image-caption pairs that were trained on.

    Attributes:
        captions: the captions file.
        images: folder of the images; None: the captions' own.
        format, id_column, image_column, text_column, image_id_column, image_pattern, split: how the captions are read,
            as in `DataConfig`.
        digests: by which a later change shows: of the columns "images" and "captions", see `data_digests`, and the
            "image sizes", see `digest_of_sizes`; those that are not recorded are not compared.
    """

    # A configuration has further settings of the same section.
    model_config = ConfigDict(extra="ignore")

    captions: str = Field(min_length=1)
    images: str | None = None
    format: str = "auto"
    id_column: str = "id"
    image_column: str = "image"
    text_column: str = "text"
    image_id_column: str = "image_id"
    image_pattern: str = "COCO_train2014_{image_id:012d}.jpg"
    split: tuple[str, ...] = ()
    digests: dict[str, str] = Field(default_factory=dict)


class ReplayedPairs(Record):
    """The section `replay` of a training, as far as it says what was read; None if nothing was replayed."""

    data: TrainedPairs | None = None


class Training(Record):
    """One training.

    Attributes:
        data: its pairs.
        replay: pairs that were replayed.
        model: name of the model that it began from.
        base: fingerprint of that model; None if it is not recorded.
        seed: None if it is not recorded.
    """

    data: TrainedPairs
    replay: ReplayedPairs = Field(default_factory=ReplayedPairs)
    model: str = ""
    base: str | None = None
    seed: int | None = None

    @property
    def pairs(self) -> list[TrainedPairs]:
        """The pairs of each stream."""
        return [self.data, *([] if self.replay.data is None else [self.replay.data])]


class Trainings(Record):
    """What weights were trained on, as a model's folder records it.

    Attributes:
        schema_version: number of the form.
        data: each training, the newest first.
        unknown: models that they were fine-tuned from and that are not found, so that their data is unknown.
    """

    schema_version: Literal[1] = 1
    data: tuple[Training, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def last(self) -> Training | None:
        """The newest training; None if none is known."""
        return next(iter(self.data), None)

    @property
    def captions(self) -> list[str]:
        """Names of the captions files, each once."""
        return list(dict.fromkeys(Path(each.data.captions).name for each in self.data))

    @classmethod
    def read(cls, folder: Path) -> Trainings | None:
        """Read ``degla_training.json`` in a model's folder; None if there is none.

        In a run's checkpoint it has the trainings before its own, which do not change with the folder of the base.

        Raises:
            InputError: it is damaged.
        """
        from degla.model.integrity import STATE_NAME, check_one
        from degla.model.runs import TRAINING_NAME

        path = folder / TRAINING_NAME
        if not path.is_file():
            return None
        if (folder / STATE_NAME).is_file():
            check_one(folder, TRAINING_NAME)  # Its message names the newest intact checkpoint.
        # An error for every command, as for any other damaged file of a model: with a warning, a result or an export
        # would look like those of a model that was never trained.
        row = read_json_object(path, remedy=_REMEDY)
        require_form(row, where=path, remedy=_REMEDY)
        return validate(cls, row, where=str(path), remedy=_REMEDY)

    def write(self, folder: Path) -> None:
        """Write that file, without passwords, to the folder of a model that is not a run's, unless nothing is known."""
        from degla.model.runs import TRAINING_NAME

        if self.data or self.unknown:
            write_json(folder / TRAINING_NAME, _without_passwords(self.model_dump(mode="json")))


def joined_trainings(trainings: Iterable[Trainings]) -> Trainings:
    """Join what several models were trained on, each training once."""
    every = list(trainings)
    data = {each.model_dump_json(): each for one in every for each in one.data}
    return Trainings(
        data=tuple(data.values()), unknown=tuple(dict.fromkeys(name for one in every for name in one.unknown))
    )


def _without_passwords(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_passwords(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(inner) for inner in value]
    return without_passwords(value) if isinstance(value, str) else value


def training_of(config: Mapping[str, Any], *, where: str = "the configuration", **recorded: Any) -> Training:
    """Return the training that a run's configuration (plain values) describes.

    Args:
        config: the configuration.
        where: its file, for messages.
        recorded: what its checkpoint records: `base`, and `digests` by stream and column, see `CheckpointState`.

    Raises:
        InputError: a field has the wrong form.
    """
    digests = recorded.get("digests", {})
    replay, loop = config.get("replay", {}), config.get("train")
    if isinstance(replay, dict):
        again = replay.get("data")
        unread = isinstance(again, dict) and not again.get("captions")
        replay = {"data": None if unread else _digested(again, digests, "replay ")}
    row = {
        "model": config.get("model", ""),
        "base": recorded.get("base"),
        "seed": loop.get("seed") if isinstance(loop, dict) else None,
        "data": _digested(config["data"], digests, ""),
        "replay": replay,
    }
    return validate(Training, row, where=where, remedy="Restore the file.")


def _digested(data: Any, digests: Mapping[str, str], stream: str) -> Any:
    """The section `data` with the digests of its stream."""
    # Rows that were left out are missing from the digests, but not from the captions.
    if not isinstance(data, dict) or data.get("bad_images") == "skip":
        return data
    own = {name: digests[stream + name] for name in ("images", "captions", "image sizes") if stream + name in digests}
    return data | {"digests": own}


def trainings_of(name: str) -> Trainings:
    """Return what a run, a checkpoint, or a model exported from or averaged with one was trained on, with all bases.

    Where a folder records the trainings before its own, these count; bases of other runs are followed by their names,
    up to the first one whose folder is missing.

    Raises:
        InputError: a record of trainings or the configuration of a run is damaged.
    """
    from degla.model.load import SHIPPED

    data: list[Training] = []
    names: set[str] = set()
    while name not in names:
        names.add(name)
        folder = _folder(name)
        own, earlier = _own(folder), _earlier(folder)
        if own is not None:
            data.append(own)
        if earlier is not None:
            return Trainings(data=(*data, *earlier.data), unknown=earlier.unknown)
        if own is None:
            is_published = name in SHIPPED or (":" in name and not address_of(name))
            unknown = () if is_published or folder.is_dir() else (without_passwords(name),)
            return Trainings(data=tuple(data), unknown=unknown)
        name = own.model
    return Trainings(data=tuple(data))


def _own(folder: Path) -> Training | None:
    """The training of a run or checkpoint; None for any other folder."""
    for place in _places(folder):
        path = place / "config.json"
        try:
            config = read_json(path, constants=True)
        except InputError:
            continue
        # A folder of transformers has a config.json too, without training data.
        if isinstance(config, dict) and isinstance(config.get("data"), dict) and config["data"].get("captions"):
            require_form(config, where=path)
            return training_of(config, where=str(path), **_recorded(folder))
    return None


def _recorded(folder: Path) -> dict[str, Any]:
    """Fingerprint of the model that a run began from, and digests of its data, if a checkpoint of it is there."""
    from degla.model.integrity import STATE_NAME, read_state

    with suppress(InputError):  # Loading the model reports it.
        for place in _places(folder):
            if (place / STATE_NAME).is_file():
                state = read_state(place)
                return {"base": state.base, "digests": state.data | state.image_sizes}
    return {}


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


def _earlier(folder: Path) -> Trainings | None:
    return next((found for place in _places(folder) if (found := Trainings.read(place)) is not None), None)
