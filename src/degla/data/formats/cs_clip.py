"""CS-CLIP's training files: a JSON list of images with a caption, its entities and relations, and foils of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from degla.data.columns import Columns, Placed, caption, published_negative
from degla.data.formats.json import beginning, read_document
from degla.errors import InputError
from degla.parse import describe_json
from degla.records import NegativeRecord, validate

ENDINGS = (".json",)
_KEYS = (b'"image_path"', b'"original_caption"', b'"entities"')  # Other files have original captions, too.
_EXAMPLE = (
    'Needed: [{"image_path": "1.jpg", "original_caption": "A man rides a horse.", "entities": ["horse"], '
    '"negative_entities": {"horse": [{"negative": "cow"}]}, "relations": [...]}, ...].'
)


class _Foil(BaseModel):
    negative: str = ""


class _Statement(BaseModel):
    """A relation, or a foil of one, in which some words may be missing."""

    subject: str | None = None
    relation_type: str | None = None
    object: str | None = None
    swap_subject: str | None = None
    swap_object: str | None = None
    change_type: str | None = None


class _Relation(_Statement):
    negatives: list[_Statement] | None = None


class _Sample(BaseModel):
    image_path: str
    original_caption: str
    entities: list[str] | None = None
    negative_entities: dict[str, list[_Foil | str] | None] | None = None
    relations: list[_Relation] | None = None
    swap_negatives: list[_Foil] | None = None


def claims(path: Path) -> bool:
    """Claim a file that starts with a list of records with an image, an original caption and its entities."""
    head = beginning(path)
    return head.startswith(b"[") and all(key in head for key in _KEYS)


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption per record, with the record's number from 0 as its id, and its units if they are read.

    Raises:
        InputError: the file has another structure, a record has an invalid field, or a column is named.
    """
    columns.refuse_names(path)
    for where, name, sample in _samples(path):
        image = sample.image_path
        fields: dict[str, object] = {"id": name, "image": image, "text": sample.original_caption, "image_id": image}
        if "units" in columns.optional:
            fields["units"] = [
                {"text": text, "kind": kind, "foils": foils} for text, kind, foils in _units(sample) if foils
            ]
        yield where, caption(fields, where=where, text_field="original_caption")


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """Yield the false captions that the released code draws from first, as accepted negatives of unknown rule: those in
    `swap_negatives`, and the caption with one entity replaced.

    Raises:
        InputError: as `captions`.
    """
    for _, name, sample in _samples(path):
        said = sample.original_caption
        texts = [foil.negative for foil in sample.swap_negatives or ()]
        for entity, foils in _entities(sample):
            if place := re.search(rf"(?<!\w){re.escape(entity)}(?!\w)", said):
                texts += [said[: place.start()] + foil + said[place.end() :] for foil in foils]
        for draw, text in enumerate(_different(said, texts)):
            yield published_negative(text, caption_id=name, draw=draw)


def _units(sample: _Sample) -> Iterator[tuple[str, str, list[str]]]:
    for relation in sample.relations or ():
        if relation.subject and relation.relation_type and relation.object:
            text = _text(relation, relation)
            yield text, "relation", _different(text, (_text(foil, relation) for foil in relation.negatives or ()))
    for entity, foils in _entities(sample):
        yield entity, "thing", _different(entity, foils)


def _entities(sample: _Sample) -> Iterator[tuple[str, list[str]]]:
    for entity in filter(str.strip, sample.entities or ()):
        foils = (sample.negative_entities or {}).get(entity) or ()
        texts = (foil if isinstance(foil, str) else foil.negative for foil in foils)
        yield entity, list(filter(str.strip, texts))


def _text(statement: _Statement, of: _Relation) -> str:
    """The words of a relation or foil; those that a foil lacks are the relation's, exchanged if it says so."""
    first, last = (of.object, of.subject) if "swap" in (statement.change_type or "") else (of.subject, of.object)
    kind = statement.relation_type or of.relation_type or ""
    for prefix in ("spatial_", "action_", "attribute_"):
        kind = kind.removeprefix(prefix)
    return " ".join(
        f"{statement.subject or statement.swap_subject or first} {kind.replace('_', ' ')} "
        f"{statement.object or statement.swap_object or last}".split()
    )


def _different(text: str, others: Iterable[str]) -> list[str]:
    """Those that are not empty and differ from a text, each once."""
    stripped = dict.fromkeys(other.strip() for other in others)
    return [other for other in stripped if other and other.casefold() != text.strip().casefold()]


def _samples(path: Path) -> Iterator[tuple[str, str, _Sample]]:
    document = read_document(path, list, needed=f"a list is needed. {_EXAMPLE}")
    for number, row in enumerate(document):
        where = f"{path} record {number}"
        if not isinstance(row, dict) or not {"image_path", "original_caption"} <= row.keys():
            raise InputError(f"{where}: found {describe_json(row)}. {_EXAMPLE}")
        yield where, str(number), validate(_Sample, row, where=where)
