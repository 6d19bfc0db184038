"""Read captions and negatives from files: any format of the shelf `formats` in, one kind of record out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from degla.data.places import check_unpacked, is_folder, is_pattern
from degla.data.prepared import fetched
from degla.errors import InputError
from degla.parse import PARQUET_ENDINGS, check_regular, describe_json, in_one_line, shorten
from degla.records import LISTS, CaptionRecord, NegativeRecord, validate, wider_captions
from degla.remote import address_of, display_path, list_files
from degla.shelf import Shelf, did_you_mean

VERSION = 2
"""Changes when the same file gives other records, which invalidates cached rows."""

Placed = tuple[str, CaptionRecord]
"""Where a record was read, for messages, and the record: ("captions.jsonl line 3", record)."""


@dataclass(frozen=True)
class Columns:
    """Names of the fields (columns) of the user's file. Other fields are ignored.

    Attributes:
        id: field of the caption's unique id; None numbers the records of the file from 0.
        image: field of the image's path, relative to the image folder or absolute.
        text: field of the caption, or of a list of captions of the image (their ids get "-0", "-1", ... appended).
        image_id: field of the image's id; None uses the image's path.
            If a file lacks the default "id" or "image_id", None is used; any other name must exist.
        image_pattern: template of the image's path from its number, for the published DeGLA file, which has no paths.
        split: splits to read, for Karpathy's file, which has several; other formats have none.
        optional: the optional fields of `CaptionRecord` to read as well; records may lack them.
        own: those optional fields that only a user's own losses read, and whether each is a number.
        absent: fields that the first record lacks, so no other record may have them (see `settle`).
    """

    id: str | None = "id"
    image: str = "image"
    text: str = "text"
    image_id: str | None = "image_id"
    image_pattern: str = "COCO_train2014_{image_id:012d}.jpg"
    split: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    own: tuple[tuple[str, bool], ...] = ()
    absent: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Any, **further: Any) -> Columns:
        """Return the columns of a run's section `data`, of its record, or of a command's arguments.

        Args:
            settings: has `id_column` and so on, `split`, and may have `image_pattern`.
            further: `optional` and `own`.
        """
        names = {role: getattr(settings, f"{role}_column") for role in _ROLES}
        pattern = getattr(settings, "image_pattern", cls.image_pattern)
        return cls(**names, image_pattern=pattern, split=tuple(settings.split), **further)

    def read_from(self, names: Sequence[str]) -> list[str]:
        """Return the fields to read from a file with these names: those that it must have, then the optional ones."""
        wanted = (self.id, self.image, self.text, self.image_id, *(name for name in names if name in self.optional))
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def settle(self, names: list[str], *, where: str) -> Columns:
        """Adapt the columns to one file, by its header or first row: default ids that it lacks become None.

        If it lacks the default text field, "caption" is used instead.

        Raises:
            InputError: a field is missing (see `require`).
        """
        lacking: dict[str, str | None] = {
            role: None
            for role in ("id", "image_id")
            if getattr(self, role) == getattr(Columns, role) and role not in names
        }
        if self.text == Columns.text not in names and "caption" in names:
            lacking["text"] = "caption"
        absent = tuple(getattr(Columns, role) for role in lacking)
        self._refuse_split(where)
        settled = dataclasses.replace(self, **lacking, absent=absent)  # type: ignore[arg-type]
        settled.require(names, where=where)
        return settled

    def require(self, names: list[str], *, where: str) -> None:
        """Refuse a file or row that lacks a named field, or has one that would be ignored.

        Raises:
            InputError: names the place, the role and name of the missing field, the fields found and the remedy.
        """
        if odd := next((name for name in self.absent if name in names), None):
            raise InputError(f"{where}: has a field {odd!r}, but the first record has none. Add it to all or none.")
        for role in _ROLES:
            name = getattr(self, role)
            if name is not None and name not in names:
                flag = _flag(role)
                # White space around a name would not be seen.
                there = in_one_line(", ".join(name if name == name.strip() else repr(name) for name in names)) or "none"
                raise InputError(
                    f"{where}: has no field {name!r} for the {role}.{did_you_mean(name, names)} "
                    f"Found: {there}. Set the field with --{flag} (training: --data.{flag}); where there is no "
                    "such flag, rename it."
                )

    def refuse_names(self, path: Path, *, splits: bool = False) -> None:
        """Raise InputError if fields are named for a file whose format has fixed fields, or splits where it has none.

        Args:
            path: the file.
            splits: whether its format has splits.
        """
        if not splits:
            self._refuse_split(str(path))
        if named := next((role for role in _ROLES if getattr(self, role) != getattr(Columns, role)), None):
            raise InputError(
                f"{path}: its format has fixed fields, so {getattr(self, named)!r} cannot be the {named}. Omit "
                f"--{_flag(named)} (training: --data.{_flag(named)})."
            )

    def _refuse_split(self, where: str) -> None:
        if self.split:
            raise InputError(
                f"{where}: --split (training: --data.split) applies only to Karpathy's json, whose images have a field "
                "'split'. Omit it."
            )


_ROLES = ("id", "image", "text", "image_id")


def _flag(role: str) -> str:
    return f"{role.replace('_', '-')}-column"


DEFAULT_COLUMNS = Columns()


def captions_of_row(row: Mapping[str, object], *, columns: Columns, where: str, number: int) -> Iterator[Placed]:
    """Convert one row of the user's file to caption records (several if the text is a list).

    Args:
        row: field name to value.
        columns: which field holds what.
        where: the file and record, for messages.
        number: the record's number in the file from 0; its id if `columns.id` is None.

    Raises:
        InputError: a field is missing, has the wrong type or is empty; names the place and the field.
    """
    columns.require(list(row), where=where)
    image = row[columns.image]
    if isinstance(image, list | tuple):
        raise InputError(
            f"{where}: field {columns.image!r} is a list, but a record has one image. Write one record per image, "
            "each with its own id."
        )
    name = str(number) if columns.id is None else as_name(row[columns.id], field=columns.id, where=where)
    if columns.image_id is None:
        image_id: object = image
    else:
        image_id = as_name(row[columns.image_id], field=columns.image_id, where=where)
    optional = {option: _option(row.get(option), option=option) for option in columns.optional}
    texts = row[columns.text]
    if isinstance(texts, list | tuple):
        if not texts:
            raise InputError(f"{where}: field {columns.text!r} is an empty list. Remove the record.")
        for position, text in enumerate(texts):
            fields = {"id": f"{name}-{position}", "image": image, "text": text, "image_id": image_id, **optional}
            yield where, caption(fields, where=where, text_field=f"{columns.text}.{position}", own=columns.own)
    else:
        fields = {"id": name, "image": image, "text": texts, "image_id": image_id, **optional}
        yield where, caption(fields, where=where, text_field=columns.text, own=columns.own)


def captions_of_rows(rows: Iterable[tuple[str, object]], columns: Columns) -> Iterator[Placed]:
    """Yield the captions of (place, row) pairs; the first row settles the columns.

    Raises:
        InputError: a row is not an object; or see `captions_of_row`.
    """
    for number, (where, row) in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object, found {describe_json(row)}.")
        if number == 0:
            columns = columns.settle(list(row), where=where)
        yield from captions_of_row(row, columns=columns, where=where, number=number)


def _option(value: object, *, option: str) -> object:
    """Convert an optional field for its record: a missing list becomes empty, a class number becomes text."""
    if option in LISTS:
        return () if value in (None, "") else value  # "": an empty cell of a table
    if value == "":
        return None
    return str(value) if option == "label" and isinstance(value, int) and not isinstance(value, bool) else value


def as_name(value: object, *, field: str, where: str) -> object:
    """Convert whole-number ids, which files often have, to text: 7 becomes "7". Other values are returned unchanged.

    Raises:
        InputError: the value is missing (None).
    """
    if value is None:
        raise InputError(f"{where}: field {field!r} is empty, but an id is needed.")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def caption(
    fields: Mapping[str, object], *, where: str, text_field: str, own: tuple[tuple[str, bool], ...] = ()
) -> CaptionRecord:
    """Validate one caption and strip white space around its text.

    Raises:
        InputError: a field has the wrong type, or the text is empty; names the place and the field.
    """
    text = fields["text"]
    if isinstance(text, str):
        text = text.strip()
        if not text:
            raise InputError(
                f"{where}: field {text_field!r} (caption id {fields['id']!r}) has no text. "
                "Remove the record or write its caption."
            )
    return validate(wider_captions(own), {**fields, "text": text}, where=where)


def published_negative(text: str, *, caption_id: str, draw: int, rule: str = "published") -> NegativeRecord:
    """Return a text of a published negatives file as an accepted negative; a blank one is rejected as "empty"."""
    stripped = text.strip()
    return NegativeRecord(
        caption_id=caption_id, rule=rule, kind="unknown", text=stripped or None, source="published",
        accepted=bool(stripped), reason="" if stripped else "empty", draw=draw,
    )  # fmt: skip


__all__ = ["FORMATS", "Columns", "read_captions", "read_negatives"]

FORMATS = Shelf("degla.data.formats", "file format")

_PICKLED = (".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle")
_RECENT = 65_536  # names held in a set before they are merged into the sorted array


def read_captions(path: Path, *, format: str = "auto", columns: Columns = DEFAULT_COLUMNS) -> Iterator[CaptionRecord]:
    """Read and validate the captions of a file, in the file's order.

    Args:
        path: the file, or the folder of a Hugging Face dataset.
        format: a member of the shelf `formats`, or "auto" to detect it from the path and the first bytes.
        columns: which field holds what, for formats with named fields.

    Raises:
        InputError: immediately if the file is missing or of unknown format; while reading if a record is invalid, an
            id occurs twice, or the file has no captions.
    """
    member, source = _choose(path, format=format, ability="captions")
    return _unique(lambda: member.captions(source, columns), path=path)


def read_negatives(path: Path) -> Iterator[NegativeRecord]:
    """Read and validate the negatives of a file, in the file's order, including rejected ones.

    Raises:
        InputError: immediately if the file is missing or of unknown format; while reading if a record is invalid
            or the file has no negatives.
    """
    member, source = _choose(path, format="auto", ability="negatives")
    return _some(member.negatives(source), path=path)


def _choose(path: Path, *, format: str, ability: str) -> tuple[ModuleType, Path]:
    """Return the format of a path and what to read: the path itself, or a cached copy of a remote file."""
    remote = address_of(path) is not None
    if remote and path.parts[0] in ("http:", "https:") and "?" in str(path):
        raise InputError(
            f"{display_path(path)}: has a query (?...). Give the address without it, or download the file first."
        )
    in_place = (".tar", *PARQUET_ENDINGS) if ability == "captions" and format in ("auto", "parquet") else (".tar",)
    if remote and not (is_folder(path) or is_pattern(path) or path.suffix.lower() in in_place):
        # Image paths in the file are relative to the address.
        copy = fetched(path)
        member, _ = _choose(copy, format=format, ability=ability)
        return member, path if hasattr(member, "PATTERNS") and ability == "captions" else copy
    try:
        there = remote or path.exists() or (ability == "captions" and is_pattern(path))
    except (OSError, ValueError) as error:  # a name that no file system allows
        raise InputError(f"{shorten(path)}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not there:
        raise InputError(f"{display_path(path)}: no such file or folder. {ability.capitalize()} are read from it.")
    if path.exists() and not path.is_dir():
        check_regular(path, remedy=f"Write the {ability} to a file first.")
        check_unpacked(path)
    if path.suffix.lower() in _PICKLED:
        raise InputError(
            f"{display_path(path)}: can hold a pickle, which runs code when it is opened, so it is not read. Convert "
            "it, where you trust it, to JSON, which is read as captions and as negatives: "
            '[{"image_path": "1.jpg", "true_caption": "A dog.", "false_caption": ["A cat."]}, ...]'
        )
    if format == "auto":
        members = [FORMATS.load(name) for name in FORMATS.names()]
        able = [member for member in members if hasattr(member, ability)]
        for member in able:
            if _takes(member, path):
                return _of_several(member, path), path
        if (address := address_of(path)) is not None and not list_files(address):
            raise InputError(f"{address}: no such file or folder, or nothing in it. Check its name.")
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty.")
        names = ", ".join(member.__name__.rpartition(".")[2] for member in able)
        remedy = f"Set the format (--format, in training --data.format) to one of: {names}"
        if ability == "negatives":  # No flag sets their format.
            remedy = (
                "Rename it to end in .jsonl, .parquet, .csv or .tsv; files of DeGLA, Structure-CLIP, CS-CLIP in .json"
            )
        raise InputError(f"{display_path(path)}: cannot detect the format of its {ability}. {remedy}.")
    member = FORMATS.load(format)
    if not hasattr(member, ability):
        names = ", ".join(name for name in FORMATS.names() if hasattr(FORMATS.load(name), ability))
        raise InputError(f"{path}: format {format!r} does not hold {ability}. Formats that do: {names}.")
    if is_folder(path) and not _takes(member, path):
        raise InputError(f"{path}: is a folder, but format {format!r} is read from a file.")
    return _of_several(member, path), path


def _takes(member: ModuleType, path: Path) -> bool:
    """Whether a format matches a path, by its suffix or by its content."""
    ends = path.suffix.lower() in member.ENDINGS
    return bool(member.claims(path)) if hasattr(member, "claims") and (ends or is_folder(path)) else ends


def _of_several(member: ModuleType, path: Path) -> ModuleType:
    """Return the format, which must support patterns if the path is one."""
    if is_pattern(path) and not hasattr(member, "PATTERNS"):
        raise InputError(
            f"{path}: no such file, and format {member.__name__.rpartition('.')[2]!r} does not support patterns. "
            "Combine the files into one, or give tar archives or Parquet files."
        )
    return member


def _unique(captions: Callable[[], Iterator[Placed]], *, path: Path) -> Iterator[CaptionRecord]:
    seen = _Seen()
    empty = True
    for where, record in captions():
        empty = False
        if seen.add(record.id):
            earlier = next(place for place, other in captions() if other.id == record.id or place == where)
            if earlier != where:
                raise InputError(
                    f"{where}: caption id {record.id!r} was already used at {earlier}. Negatives are joined by id, "
                    "so give every caption its own."
                )
        yield record
    if empty:
        raise InputError(f"{path}: the file has no captions.")


class _Seen:
    """Names seen so far, as hashes: 8 bytes each, so that millions of captions can be streamed."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def add(self, name: str) -> bool:
        """Add a name and return whether it was already seen, judged by its hash."""
        number = hash(name)
        is_known = number in self._recent
        if not is_known and len(self._older):
            place = int(self._older.searchsorted(number))
            is_known = place < len(self._older) and int(self._older[place]) == number
        self._recent.add(number)
        if len(self._recent) == _RECENT:
            recent = np.sort(np.fromiter(self._recent, dtype=np.int64, count=_RECENT))
            # Sorting all of them anew would take ten times as long.
            self._older, self._recent = np.insert(self._older, self._older.searchsorted(recent), recent), set()
        return is_known


def _some(negatives: Iterator[NegativeRecord], *, path: Path) -> Iterator[NegativeRecord]:
    empty = True
    for record in negatives:
        empty = False
        yield record
    if empty:
        raise InputError(f"{path}: the file has no negatives.")
