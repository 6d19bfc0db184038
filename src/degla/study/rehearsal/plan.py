"""A plan as it is rehearsed: the same arms on a small model, few pairs, few steps and few questions of each part.

The pairs are the plan's own, or COCO's that are at hand, or drawn ones in COCO's form.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from degla.config.fields import path_fields
from degla.data import images
from degla.data.sources import Columns, read_captions
from degla.errors import InputError
from degla.files import write_json
from degla.records import OPTIONAL_FIELDS, CaptionRecord, write_jsonl
from degla.study.plan import Plan
from degla.study.record import RehearsalRecord
from degla.study.rehearsal.made import draw_picture, put_bytes, true_text
from degla.study.rehearsal.questions import lay_questions

MODEL: Final = "photo"
"""The small model that stands in for the plan's base."""
_SEEDS: Final = 2
_LIMITS: Final[Mapping[str, Any]] = {"train.steps": 4, "train.batch_size": 8, "data.workers": 0}
"""Fields of every arm, over what the plan says."""
_FOLDER: Final = "rehearsal"
_PAIRS: Final = 64
_CAPTIONS: Final = 2


def rehearse(plan: Plan, *, out: Path, where: str) -> tuple[Plan, RehearsalRecord]:
    """The plan to run in place of a plan, and what stands in for what.

    Args:
        plan: with `benchmarks`.
        out: folder of the study; what is laid goes to ``rehearsal`` in it, anew at every call.
        where: names the plan's file in messages.

    Raises:
        InputError: the plan draws from the embedded world, and needs no rehearsal; or files at hand are wrong.
    """
    if plan.benchmarks is None:
        raise InputError(
            f"{where}: --rehearse is for plans with 'benchmarks'; one of the world runs as it is, smaller by --set."
        )
    folder = out / _FOLDER
    if folder.exists():
        shutil.rmtree(folder)
    root = folder / "data"
    root.mkdir(parents=True)
    at_hand = plan.benchmarks.root
    laid = lay_pairs(
        Path(str(plan.set["data.captions"])), Path(str(plan.set["data.images"])),
        format=str(plan.set.get("data.format", "auto")), at_hand=at_hand, folder=folder / "pairs",
    )  # fmt: skip
    parts = lay_questions(plan.benchmarks.names, at_hand=at_hand, root=root)
    shared = {name: value for name, value in plan.set.items() if name != "data.format" and not _lacks(name, value)}
    shared |= {**_LIMITS, "data.captions": str(laid.captions), "data.images": str(laid.images)}
    arms = tuple(
        arm.model_copy(update={"fields": {name: value for name, value in arm.fields.items() if name not in _LIMITS}})
        for arm in plan.arms
    )
    changes = {
        "title": f"Rehearsal: {plan.title}",
        "base": MODEL,
        "benchmarks": plan.benchmarks.model_copy(update={"root": root}),
        "set": shared,
        "arms": arms,
        "seeds": plan.seeds[:_SEEDS],
        "replicates": (),
    }
    own = "data.negatives" in shared or all("data.negatives" in arm.fields for arm in arms)
    record = RehearsalRecord(
        base=plan.base, steps=int(_LIMITS["train.steps"]), batch_size=int(_LIMITS["train.batch_size"]), pairs=laid.told,
        negatives="" if own else "made by the plan's rules", parts=tuple(parts),
    )  # fmt: skip
    return plan.model_copy(update=changes), record


def _lacks(name: str, value: Any) -> bool:
    """Whether the field names a file that is not there, as the negatives that a server has yet to make."""
    return name in path_fields() and value is not None and not Path(str(value)).exists()


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
        own = read_captions(captions, format=format, columns=Columns(optional=OPTIONAL_FIELDS))
        rows = _with_pictures(own, pictures)
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
        put_bytes(folder / "train2014" / f"COCO_train2014_{name}.jpg", draw_picture(f"pairs {name}"))
    rows = [
        CaptionRecord(id=f"{name}{number}", image=f"COCO_train2014_{name}.jpg", image_id=name,
                      text=true_text(f"pairs {name}", number))
        for name in names
        for number in range(_CAPTIONS)
    ]  # fmt: skip
    return LaidPairs(_write_coco(folder, rows), folder / "train2014", f"{len(rows)} drawn pairs")


def _with_pictures(captions: Iterable[CaptionRecord], folder: Path) -> list[CaptionRecord]:
    there = (row for row in captions if images.is_there(images.locate(row.image, folder)))
    return list(islice(there, _PAIRS))


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
    write_json(file, content)
    return file
