"""The rehearsed version of a plan: the same arms on a small model, with few pairs, steps and questions per part.

The pairs are an arm's own, or available COCO pairs, or drawn ones in COCO's format.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from degla.config.fields import change, path_fields
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.data import images
from degla.data.columns import DEFAULT_COLUMNS, Columns
from degla.data.sources import read_captions
from degla.errors import InputError
from degla.files import write_json
from degla.inputs import inputs_of, own_columns
from degla.pages.words import counted
from degla.records import OPTIONAL_FIELDS, CaptionRecord, write_jsonl
from degla.study.grid import Run, expand
from degla.study.plan import Plan
from degla.study.plan_file import FieldValues
from degla.study.record import RehearsalRecord
from degla.study.rehearsal.made import draw_image, put_bytes, true_text
from degla.study.rehearsal.questions import lay_questions

MODEL: Final = "photo"
"""The small model that replaces the plan's base."""
_BIAS: Final = -10.0
"""Initial bias of models trained with the sigmoid loss (arXiv 2303.15343)."""
_SEEDS: Final = 2
_LIMITS: Final[Mapping[str, Any]] = {"train.steps": 4, "train.batch_size": 8, "data.workers": 0}
"""Fields of every arm, which override the plan."""
_PAIRS_AT: Final = ("data.captions", "data.images")
_READ_AS: Final = (
    "data.format", "data.id_column", "data.image_column", "data.text_column", "data.image_id_column",
    "data.image_pattern", "data.split",
)  # fmt: skip
"""How captions are read; the rehearsal's own files use the default names."""
_JOINED: Final = ("data.negatives", "data.positives_file")
"""Files that are joined by the ids of the plan's own captions."""
_UNITS: Final = ("units", "concepts", "masked_words")
"""Columns that `degla prepare units` adds to captions."""
_FOLDER: Final = "rehearsal"
_PAIRS: Final = 64
_CAPTIONS: Final = 2


def rehearse(plan: Plan, *, out: Path, where: str) -> tuple[Plan, RehearsalRecord]:
    """Return the plan to run instead of `plan`, and a record of what was replaced.

    Args:
        plan: plan with `benchmarks`.
        out: folder of the study; its subfolder ``rehearsal`` is rewritten by every call.
        where: name of the plan file for messages.

    Raises:
        InputError: the plan draws from the embedded world and needs no rehearsal, the folder has runs or
            results of the plan itself, or available files are invalid.
    """
    if plan.benchmarks is None:
        raise InputError(
            f"{where}: --rehearse requires a plan with 'benchmarks'. A world plan runs anyway; shrink it by --set."
        )
    folder = out / _FOLDER
    if folder.exists() and not is_rehearsal(out):
        raise InputError(f"{folder}: was not made by a rehearsal, which would replace it. Use another --out.")
    there = [name for name in ("runs", "results") if (out / name).exists()]
    if not folder.exists() and there:
        raise InputError(
            f"{out}: has {' and '.join(there)} that are not rehearsed and that a rehearsal would replace. Use another "
            "--out."
        )
    forget_rehearsal(out)
    root = folder / "data"
    root.mkdir(parents=True)
    at_hand = plan.benchmarks.root
    laid: list[LaidPairs] = []
    runs = expand(plan, where=where)
    reads = frozenset[str]().union(*(stream.reads for run in runs for stream in run.config.streams))
    further = own_columns(reads)
    units = any(each.column in _UNITS for each in inputs_of(reads).values())

    @cache  # Once for arms that share their pairs.
    def lay(data: DataConfig) -> LaidPairs:
        assert data.captions is not None
        place = folder / (f"pairs-{len(laid)}" if laid else "pairs")
        columns = replace(data.columns, own=further)
        laid.append(lay_pairs(data.captions, data.image_folder, format=data.format, columns=columns,
                              at_hand=at_hand, folder=place, units=units))  # fmt: skip
        return laid[-1]

    arms = []
    for arm in plan.arms:
        fields = {**plan.set, **arm.fields}
        pairs = {name: value for name, value in fields.items() if name in (*_PAIRS_AT, *_READ_AS)}
        first = {name: value[0] if isinstance(value, list) and value else value for name, value in pairs.items()}
        own = lay(change(TrainConfig(), first, where=f"{where}: arm {arm.name!r}").data)
        arms.append(arm.model_copy(update={"fields": _limited(fields, own)}))
    parts = lay_questions(plan.benchmarks.names, at_hand=at_hand, root=root)
    changes = {
        "title": f"Rehearsal: {plan.title}",
        "base": _small_model(plan.base, runs, folder),
        "benchmarks": plan.benchmarks.model_copy(update={"root": root}),
        "set": {name: arms[0].fields[name] for name in _PAIRS_AT},
        "arms": tuple(arms),
        "seeds": plan.seeds[:_SEEDS],
        "replicates": (),
        "scorer": "cosine",  # Its benchmarks have too few images to standardise by.
    }
    has_negatives = all(arm.fields.get("data.negatives") is not None for arm in arms)
    record = RehearsalRecord(
        base=plan.base, steps=int(_LIMITS["train.steps"]), batch_size=int(_LIMITS["train.batch_size"]),
        pairs=" and ".join(dict.fromkeys(each.origin for each in laid)),
        negatives="" if has_negatives else "made by the plan's rules", parts=tuple(parts),
    )  # fmt: skip
    return plan.model_copy(update=changes), record


def forget_rehearsal(out: Path) -> None:
    """Delete what a rehearsal wrote for itself, before runs of the folder become those of the plan."""
    if is_rehearsal(out):
        shutil.rmtree(out / _FOLDER)


def is_rehearsal(out: Path) -> bool:
    """Whether the runs and results in a study's folder are those of a rehearsal.

    That is, whether its folder "rehearsal", which may be another study's of that name, has only what `rehearse` writes.
    """
    folder = out / _FOLDER
    return folder.is_dir() and all(
        re.fullmatch(r"data|pairs(-\d+)?|model-with-bias", path.name) for path in folder.iterdir()
    )


def _small_model(base: str, runs: Iterable[Run], folder: Path) -> str:
    """The small model, or a copy of it with a bias in `folder` if the base has one or a run's losses read one."""
    import open_clip

    from degla.losses.core.forms import BIAS
    from degla.model.checkpoint import save_encoder
    from degla.model.load import folder_has_bias, load_encoder

    if Path(base).is_dir():
        biased = folder_has_bias(Path(base))
    else:
        biased = "init_logit_bias" in (open_clip.get_model_config(base.partition(":")[0]) or {})
    losses = (loss for run in runs for stream in run.config.streams for loss in stream.objective.values())
    if not biased and not any(loss.weight and BIAS in loss.reads for loss in losses):
        return MODEL
    model = load_encoder(MODEL)
    model.add_bias(_BIAS, scale=model.scale.item())
    save_encoder(model, folder / "model-with-bias")
    return str(folder / "model-with-bias")


def _limited(fields: FieldValues, laid: LaidPairs) -> FieldValues:
    """The fields of a rehearsed arm, without files that do not exist or do not match the rehearsal's pairs."""
    # The neighbours of most rows are not among these few: the study finds new ones among them.
    others = {*_LIMITS, *_PAIRS_AT, *_READ_AS, "data.neighbours", *(() if laid.own else _JOINED)}
    remaining = {name: value for name, value in fields.items() if name not in others and not _lacks(name, value)}
    return {**remaining, **_LIMITS, "data.captions": str(laid.captions), "data.images": str(laid.images)}


def _lacks(name: str, value: Any) -> bool:
    """Whether the field names a file that does not exist, such as negatives that a server has yet to make."""
    files = value if isinstance(value, list) else [value]
    return name in path_fields() and not all(file is None or Path(str(file)).exists() for file in files)


@dataclass(frozen=True)
class LaidPairs:
    """The training pairs of a rehearsal.

    Attributes:
        captions, images: file and folder.
        origin: where they come from, in words.
        own: whether they are a subset of the plan's own pairs.
    """

    captions: Path
    images: Path
    origin: str
    own: bool = False


def lay_pairs(
    captions: Path, images: Path, *, format: str, at_hand: Path, folder: Path, columns: Columns = DEFAULT_COLUMNS,
    units: bool = False,
) -> LaidPairs:  # fmt: skip
    """Select a few pairs and write their captions.

    Args:
        captions, images, format, columns: values from the plan; the files may be missing.
        at_hand: root of the benchmarks, which may contain COCO captions.
        folder: folder to write to.
        units: whether a recipe reads what `degla prepare units` adds; pairs that are not the plan's own get it here.

    Raises:
        InputError: an existing file is invalid.
    """
    if captions.exists() and images.is_dir():
        optional = (*OPTIONAL_FIELDS, *(name for name, _ in columns.own))
        own = read_captions(captions, format=format, columns=replace(columns, optional=optional))
        rows = _with_images(own, images)
        if rows:
            write_jsonl(folder / "captions.jsonl", rows)
            return LaidPairs(folder / "captions.jsonl", images, f"{counted(len(rows), 'pair')} of {captions}", own=True)
    write = _write_units if units else _write_coco
    for file in sorted((at_hand / "coco" / "annotations").glob("captions_*.json")):
        place = at_hand / "coco" / file.stem.removeprefix("captions_")
        rows = _with_images(read_captions(file), place) if place.is_dir() else []
        if rows:
            return LaidPairs(write(folder, rows), place, f"{counted(len(rows), 'pair')} of {file}")
    names = [f"9{number:011d}" for number in range(_PAIRS // _CAPTIONS)]
    for name in names:
        put_bytes(folder / "train2014" / f"COCO_train2014_{name}.jpg", draw_image(f"pairs {name}"))
    rows = [
        CaptionRecord(id=f"{name}{number}", image=f"COCO_train2014_{name}.jpg", image_id=name,
                      text=true_text(f"pairs {name}", number))
        for name in names
        for number in range(_CAPTIONS)
    ]  # fmt: skip
    return LaidPairs(write(folder, rows), folder / "train2014", f"{len(rows)} drawn pairs")


def _with_images(captions: Iterable[CaptionRecord], folder: Path) -> list[CaptionRecord]:
    there = (row for row in captions if images.is_there(images.locate(row.image, folder)))
    return list(islice(there, _PAIRS))


def _write_units(folder: Path, rows: list[CaptionRecord]) -> Path:
    from degla.negatives.units import with_units

    write_jsonl(folder / "captions.jsonl", with_units(rows, seed=0))
    return folder / "captions.jsonl"


def _write_coco(folder: Path, rows: list[CaptionRecord]) -> Path:
    """Write the captions in COCO's format."""
    images = {int(row.image_id): row.image for row in rows}
    content = {
        "images": [{"id": number, "file_name": image} for number, image in images.items()],
        "annotations": [{"id": int(row.id), "image_id": int(row.image_id), "caption": row.text} for row in rows],
    }
    file = folder / "annotations" / "captions_train2014.json"
    write_json(file, content)
    return file
