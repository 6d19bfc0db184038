"""A few pairs to train on in a rehearsal: the plan's own, or COCO's that are at hand, or drawn ones in COCO's form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from degla.data import images
from degla.data.sources import read_captions
from degla.files import write_json
from degla.records import CaptionRecord, write_jsonl
from degla.study.rehearsal.drawn import draw_picture, put_picture, true_text

_PAIRS: Final = 64
_CAPTIONS: Final = 2


@dataclass(frozen=True)
class LaidPairs:
    """What is trained on.

    Attributes:
        captions, images: file and folder.
        told: where they come from, in words.
    """

    captions: Path
    images: Path
    told: str


def lay_pairs(captions: Path, pictures: Path, *, format: str, at_hand: Path, folder: Path) -> LaidPairs:
    """Choose a few pairs and write their captions.

    Args:
        captions, pictures, format: as the plan has them; they may be missing.
        at_hand: root of the benchmarks, where captions of COCO may lie.
        folder: to write to.

    Raises:
        InputError: a file that is there is wrong.
    """
    if captions.exists() and pictures.is_dir():
        rows = _with_pictures(read_captions(captions, format=format), pictures)
        if rows:
            write_jsonl(folder / "captions.jsonl", rows)
            return LaidPairs(folder / "captions.jsonl", pictures, f"{len(rows)} pairs of {captions}")
    for file in sorted((at_hand / "coco" / "annotations").glob("captions_*.json")):
        place = at_hand / "coco" / file.stem.removeprefix("captions_")
        rows = _with_pictures(read_captions(file), place) if place.is_dir() else []
        if rows:
            return LaidPairs(_write_coco(folder, rows), place, f"{len(rows)} pairs of {file}")
    names = [f"9{number:011d}" for number in range(_PAIRS // _CAPTIONS)]
    for name in names:
        put_picture(folder / "train2014" / f"COCO_train2014_{name}.jpg", draw_picture(f"pairs {name}"))
    rows = [
        CaptionRecord(id=f"{name}{number}", image=f"COCO_train2014_{name}.jpg", image_id=name,
                      text=true_text(f"pairs {name}", number))
        for name in names
        for number in range(_CAPTIONS)
    ]  # fmt: skip
    return LaidPairs(_write_coco(folder, rows), folder / "train2014", f"{len(rows)} drawn pairs")


def _with_pictures(captions: Iterable[CaptionRecord], folder: Path) -> list[CaptionRecord]:
    def there() -> Iterator[CaptionRecord]:
        for row in captions:
            if images.is_there(images.locate(row.image, folder)):
                yield row

    return list(islice(there(), _PAIRS))


def _write_coco(folder: Path, rows: list[CaptionRecord]) -> Path:
    """The captions as COCO publishes them."""
    numbers = {row.image_id: int(row.image_id) for row in rows}
    content: dict[str, Any] = {
        "images": [
            {"id": numbers[image_id], "file_name": image}
            for image_id, image in {row.image_id: row.image for row in rows}.items()
        ],
        "annotations": [{"id": int(row.id), "image_id": numbers[row.image_id], "caption": row.text} for row in rows],
    }
    file = folder / "annotations" / "captions_train2014.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
    return file
