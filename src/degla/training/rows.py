"""Read the training rows of a configuration: files are read, joined and checked once, and the result is cached."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from degla.config.run import StreamConfig, TrainConfig
from degla.config.sections import DataConfig
from degla.data.extras import ExtraData, read_classes, write_extras
from degla.data.images import ImageReport, check_images, read_bytes, usable_rows
from degla.data.joining import TABLE_NAME, JoinReport, join_and_report
from degla.data.loader import choose_workers
from degla.data.neighbours import Neighbours, read_neighbours, write_neighbours
from degla.data.pairs import negatives_of_rules, partner_negatives, with_positives
from degla.data.places import place_of
from degla.data.prepared import prepare, read_source
from degla.data.shards import reader_of
from degla.data.sources import VERSION, read_captions, read_negatives
from degla.data.table import ColumnFile, PairTable
from degla.errors import InputError
from degla.evaluation.overlap import digest_of_sizes, sizes_of
from degla.inputs import images_of_columns, inputs_of, own_columns
from degla.losses.core import Processes
from degla.pages.words import counted
from degla.parse import PARQUET_ENDINGS
from degla.progress import TaskProgress
from degla.records import CaptionRecord
from degla.remote import address_of, display_path
from degla.shelf import TEXT_SOLVABLE_RULES

log = logging.getLogger("degla.train")

_COLUMNS: Final = "columns.arrow"
_MOST_ROWS_WITH_SIZES: Final = 1_000_000
"""Largest number of rows of whose images `image_sizes` records the sizes."""


def read_rows(data: DataConfig, *, reads: frozenset[str] = frozenset(), verbose: bool = True) -> PairTable:
    """Join captions with their accepted negatives, check and report them.

    The first call for these files and settings makes the table, with a progress bar; later ones map it, in any process.

    Args:
        data: files and columns.
        reads: optional parts that some loss reads; their columns are required.
        verbose: log the result of the join.

    Raises:
        InputError: a file or record is wrong, or no row has the negatives that the recipe needs.
    """
    return _joined(data, reads, verbose=verbose)[0]


def _joined(
    data: DataConfig, reads: frozenset[str], *, anew: bool = False, verbose: bool = True
) -> tuple[PairTable, dict[str, Any]]:
    """Return the rows, and the cache key of these files and settings."""
    file, count = data.captions, data.negatives_per_caption
    assert file is not None
    if count and data.negatives is None and not data.distractor_negative:
        raise InputError(
            f"this recipe draws {counted(count, 'negative')} per caption, but no negatives are given. Set "
            f"{data.flag('negatives')} FILE (made by `degla negatives {data.captions} --out FILE`), or "
            f"{data.flag('negatives_per_caption')} 0."
        )
    positives = data.positives_file
    if positives is not None and "positive" not in reads:
        raise InputError(
            f"{data.flag('positives_file')} {positives}: no loss of this recipe reads additional true texts. "
            "Give one a weight, for example --objective.text-pull.weight 0.1 (text-contrast, positive-contrast and "
            "positive-grounded read them too), or omit the flag."
        )
    if positives is not None and data.positives == "same_image":
        flag = f"{data.flag('positives_file')} {positives}"
        raise InputError(f"{flag} is not read with {data.flag('positives')} same_image. Omit one of them.")
    distractors = bool(count) and data.distractor_negative
    negatives = data.negatives if count and not distractors else None
    columns = dataclasses.replace(data.columns, optional=_optional_columns(data, reads), own=own_columns(reads))
    # The readers report a wrong path before the file is opened for its digest.
    read_captions(file, format=data.format)
    for path in (negatives, positives):
        if path is not None:
            read_negatives(path)
    sources = {path: read_source(path) for path in (file, negatives, positives) if path is not None}
    suffix = file.suffix.lower()
    key = {
        "version": VERSION,
        # Without splits the key is that of earlier versions, whose tables stay valid.
        "columns": {name: value for name, value in dataclasses.asdict(columns).items() if name != "split" or value},
        # Images of a Parquet file are named by the file.
        "format": [data.format, file.name if suffix in PARQUET_ENDINGS else suffix],
        "captions": sources[file].sha256,
        "negatives": [negatives.suffix.lower(), sources[negatives].sha256, data.rules] if negatives else distractors,
        "positives": [positives.suffix.lower(), sources[positives].sha256] if positives else None,
    }

    def captions() -> Iterable[CaptionRecord]:
        return read_captions(file, format=data.format, columns=columns)

    def make(folder: Path) -> dict[str, Any]:
        records = captions()
        if positives is not None:
            flag = f"{data.flag('positives_file')} {positives}"
            records = with_positives(records, read_negatives(positives), flag=flag)
        negative_records = read_negatives(negatives) if negatives else None
        if negative_records is not None and data.rules:
            negative_records = negatives_of_rules(negative_records, data.rules, flag=data.flag("rules"))
        if distractors:
            negative_records = partner_negatives(captions(), flag=data.flag("distractor_negative"))
        # The number of rows is known in text only.
        read = [file, *([negatives] * 2 if negatives else [])]
        lines = [0 if path.suffix.lower() in PARQUET_ENDINGS else sources[path].lines for path in read]
        with TaskProgress(True).task("rows", sum(lines) if all(lines) else None) as advance:
            numbers = [name for name, numeric in columns.own if numeric]
            report = join_and_report(
                records, negative_records, folder=folder, optional=columns.optional, numbers=numbers, advance=advance,
                files=(display_path(file), display_path(negatives or file)),
            )  # fmt: skip
        for path, source in sources.items():
            if read_source(path).sha256 != source.sha256:
                raise InputError(f"{path}: the file changed while it was read. Start again when it is complete.")
        return {"report": report.model_dump(), **PairTable(folder / TABLE_NAME).describe()}

    folder, about = prepare({"rows": key}, make, anew=anew)
    report = JoinReport.model_validate(about["report"])
    report.require(count, flag=data.flag("negatives_per_caption"))
    if verbose and Processes.current().first:
        report.tell()
        if not data.rules:
            _warn_of_text_cues(report, flag=f"{data.flag('negatives')} {data.negatives}", remedy=data.flag("rules"))
    return PairTable(folder / TABLE_NAME, about=about), key


def _warn_of_text_cues(report: JoinReport, *, flag: str, remedy: str) -> None:
    """Warn of negatives that a model can learn to reject without the image."""
    rules = [rule for rule in TEXT_SOLVABLE_RULES if report.per_rule.get(rule)]
    if rules:
        log.warning(
            "%s: %s of %s from %s. They are longer than their captions, so a model can learn to reject them without "
            "the image. Use %s with other rules to leave them out.",
            flag, f"{sum(report.per_rule[rule] for rule in rules):,}",
            counted(report.negatives, "negative is", "negatives are"), ", ".join(rules), remedy,
        )  # fmt: skip


def _optional_columns(data: DataConfig, reads: frozenset[str]) -> tuple[str, ...]:
    columns = [each.column for each in inputs_of(reads).values() if each.column]
    if data.distractor_negative and data.negatives_per_caption:
        columns += ["distractor_image", "distractor_text"]
    if data.positives == "same_image":
        columns = [name for name in columns if name != "positives"]
    return tuple(dict.fromkeys(columns))


def extra_data(data: DataConfig, reads: frozenset[str]) -> ExtraData:
    """Return what the data set reads in addition to captions and negatives.

    Raises:
        InputError: a loss reads classes, but their file is wrong or not given.
    """
    if "classes" in reads and data.classes is None:
        flag = data.flag("classes")
        raise InputError(f"this recipe needs class names, but none are given. Set {flag} FILE.")
    return ExtraData(
        reads=reads,
        positives=data.positives_per_caption,
        positive_source=data.positives,
        classes=read_classes(data.classes) if "classes" in reads and data.classes is not None else (),
        class_template=data.class_template,
        where=str(data.captions),
        flags=f"--{data.section}",
    )


def decoder_folder(data: DataConfig) -> Path:
    """Return the folder of the frozen decoder that a loss uses.

    Raises:
        InputError: no folder is given.
    """
    if data.decoder is None:
        raise InputError(
            f"a loss of this recipe needs a frozen decoder, but none is given. Set {data.flag('decoder')} FOLDER, for "
            "example of t5-v1_1-large, or set the weight of that loss to 0."
        )
    return data.decoder


@dataclass(frozen=True)
class PairSource:
    """The rows of a run, read and checked before any model is loaded.

    Attributes:
        rows: rows with their negatives, without those that have no usable image.
        extras: additional columns that the data set reads, or None.
        neighbours: rows of similar images that are added to each batch.
    """

    rows: PairTable
    extras: ColumnFile | None
    neighbours: Neighbours | None


def require_image_folder(data: DataConfig) -> Path:
    """Return the folder of a stream's images.

    Raises:
        InputError: there is no such folder.
    """
    folder = data.image_folder
    if not folder.is_dir() and address_of(folder) is None:
        there = "is not a folder of images" if folder.exists() else "no such image folder"
        raise InputError(f"{folder}: {there} ({data.flag('images')}).")
    return folder


def require_divisible(stream: StreamConfig, count: int) -> None:
    """Raise InputError if a stream's batch cannot be divided among this number of processes."""
    if stream.batch_size % count:
        raise InputError(f"{stream.batch_flag} {stream.batch_size} is not divisible by {count} processes.")


def read_pairs(stream: StreamConfig, *, seed: int, processes: Processes, anew: bool = False) -> PairSource:
    """Read and check the rows of a stream of pairs and their images.

    Args:
        stream: stream of pairs of a run.
        seed: seed of the run.
        processes: processes that share each batch.
        anew: read and check everything again, ignoring the cache.

    Raises:
        InputError: see `read_rows`; an image is missing; or the batch size is not a multiple of the process count.
    """
    data = stream.data
    require_divisible(stream, processes.count)
    folder = require_image_folder(data)
    extras = extra_data(data, stream.reads)
    if "reconstruction" in stream.reads:
        decoder_folder(data)
    rows, key = _joined(data, stream.reads, anew=anew)
    bad: list[str] = []
    for column in ("image", *(each.column for each in images_of_columns(stream.reads).values())):
        rows, more = _with_images(data, rows, key, column, folder=folder, bad=bad, anew=anew)
        bad = bad + more
    settings = {"rows": key, "left out": bad}
    columns = {name: value for name, value in dataclasses.asdict(extras).items() if name not in ("where", "flags")}
    own = {column for column, _ in own_columns(extras.reads)}
    if own:  # They may be declared otherwise, such as without mask.
        read = inputs_of(extras.reads).items()
        columns["own"] = {name: dataclasses.asdict(each) for name, each in read if each.column in own}
    make = partial(write_extras, rows=rows, wanted=extras)
    file = _column_file({**settings, "extras": {**columns, "reads": sorted(extras.reads)}}, make, anew=anew)
    return PairSource(rows, file, _neighbours(data, rows, settings, seed=seed, anew=anew))


def _with_images(
    data: DataConfig, rows: PairTable, key: Mapping[str, Any], column: str, *, folder: Path, bad: list[str], anew: bool
) -> tuple[PairTable, list[str]]:
    """Return the rows with usable images in a column, and the images that are not usable; each is checked once.

    Args:
        data: data settings.
        rows: the rows.
        key: their cache key.
        column: of the images.
        folder: base of relative paths.
        bad: images of the columns before that are not usable.
        anew: check them again.
    """
    own = column == "image"
    about = {"folder": place_of(folder), "bad": data.bad_images} | ({} if own else {"column": column})
    choose = partial(usable_rows, rows, column=column, bad_images=data.bad_images, flag=data.flag("bad_images"))

    def look(_: Path) -> dict[str, Any]:
        report = check_images(
            rows,
            folder,
            max(choose_workers(data.workers), 2),
            depth="exists" if data.bad_images == "stop" else "decode",
            column=column,
            read=reader_of(data.order) if own else read_bytes,
            progress=TaskProgress(True),
        )
        if data.bad_images == "stop":
            choose(report)
        return report.model_dump()

    report = ImageReport.model_validate(prepare({"rows": key, "images": about}, look, anew=anew)[1])
    usable, more = choose(report), [entry.image for entry in report.bad]
    if usable is not None:
        fewer = rows.select(usable)
        rows = rows.select(
            usable, prepare({"rows": key, "left out": bad + more}, lambda _: fewer.describe(), anew=anew)[1]
        )
    return rows, more


def image_sizes(config: TrainConfig, rows: Sequence[PairTable]) -> dict[str, str]:
    """Return digests of the sizes of the images that a run trains on, "image sizes" and "replay image sizes".

    Streams with more than a million pairs have none: their names would take gigabytes, and their files minutes.

    Args:
        config: configuration of the run.
        rows: rows of each stream of pairs.
    """
    digests = {}
    for name, stream, table in zip(("image sizes", "replay image sizes"), config.streams, rows, strict=False):
        folder = stream.data.image_folder
        # Asking a server about every image would delay the run.
        if len(table) <= _MOST_ROWS_WITH_SIZES and address_of(folder) is None:
            images = {image for chunk in table.chunks("image") for image in chunk.unique().to_pylist()}
            digests[name] = digest_of_sizes(sizes_of(folder, images))
    return digests


def _column_file(key: Mapping[str, object], make: Callable[[Path], None], *, anew: bool) -> ColumnFile | None:
    """Return a cached column file, made if missing; None if `make` writes none."""

    def write(folder: Path) -> dict[str, Any]:
        make(folder / _COLUMNS)
        return ColumnFile(folder / _COLUMNS).describe() if (folder / _COLUMNS).is_file() else {}

    folder, about = prepare(key, write, anew=anew)
    return ColumnFile(folder / _COLUMNS, about=about) if about else None


def _neighbours(
    data: DataConfig, rows: PairTable, key: Mapping[str, object], *, seed: int, anew: bool
) -> Neighbours | None:
    if not data.neighbours_per_pair:
        return None
    path = data.neighbours
    if path is None:
        raise InputError(
            "this recipe adds similar images to each batch, but none are given. Set "
            f"{data.flag('neighbours')} FILE (made by `degla neighbours {data.captions} --images "
            f"{data.image_folder} --model MODEL --out FILE`), or {data.flag('neighbours_per_pair')} 0."
        )
    records = read_neighbours(path)
    make = partial(write_neighbours, rows=rows, records=records, where=str(path))
    file = _column_file({**key, "neighbours": read_source(path).sha256}, make, anew=anew)
    assert file is not None
    return Neighbours(file, per_row=data.neighbours_per_pair, seed=seed)
