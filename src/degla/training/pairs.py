"""From a configuration to the training rows, the data set and the order of its batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.data.batches import Batch
from degla.data.classes import read_classes
from degla.data.collate import Collate
from degla.data.dataset import PairDataset
from degla.data.extras import ExtraData
from degla.data.image_check import check_further_images, usable_rows
from degla.data.loader import make_loader
from degla.data.neighbours import Neighbours, read_neighbours
from degla.data.pairs import PairRow, join, negatives_of_rules, partner_negatives
from degla.data.plan import BatchPlan
from degla.data.sources import Columns, read_captions, read_negatives
from degla.data.transforms import ImageTransform, RandomCrop
from degla.errors import InputError
from degla.inputs import inputs_of
from degla.losses.core import Processes, TeacherPart
from degla.model import fast_paths
from degla.model.encoder import Encoder
from degla.records import CaptionRecord, NegativeRecord


def read_rows(data: DataConfig, *, reads: frozenset[str] = frozenset()) -> list[PairRow]:
    """Captions joined with their accepted negatives, checked and reported.

    Args:
        data: files and columns.
        reads: optional parts that some loss reads; their columns must be there.

    Raises:
        InputError: a file or record is wrong, or no row has the negatives that the recipe needs.
    """
    assert data.captions is not None
    wanted = data.negatives_per_caption
    if wanted and data.negatives is None and not data.partner_negative:
        raise InputError(
            f"this recipe draws {wanted} negatives a caption and there are none: give --data.negatives FILE "
            f"(made by `degla negatives {data.captions} --out FILE`), or --data.negatives-per-caption 0."
        )
    columns = Columns(
        id=data.id_column,
        image=data.image_column,
        text=data.text_column,
        image_id=data.image_id_column,
        image_pattern=data.image_pattern,
        optional=_optional_columns(data, reads),
    )
    captions: Iterable[CaptionRecord] = read_captions(data.captions, format=data.format, columns=columns)
    negatives: Iterable[NegativeRecord] | None = None
    if wanted and data.partner_negative:
        captions = list(captions)
        negatives = partner_negatives(captions)
    elif wanted and data.negatives is not None:
        negatives = read_negatives(data.negatives)
        if data.rules:
            negatives = negatives_of_rules(negatives, data.rules)
    return join(captions, negatives, negatives_per_caption=wanted)


def _optional_columns(data: DataConfig, reads: frozenset[str]) -> tuple[str, ...]:
    columns = [each.column for each in inputs_of(reads).values() if each.column]
    if data.partner_negative and data.negatives_per_caption:
        columns += ["partner_image", "partner_text"]
    if data.positives == "same_image":
        columns = [name for name in columns if name != "positives"]
    return tuple(dict.fromkeys(columns))


def extra_data(data: DataConfig, reads: frozenset[str]) -> ExtraData:
    """What the data set reads besides captions and negatives.

    Raises:
        InputError: a loss reads classes and there is no file of them, or it is wrong.
    """
    if "classes" in reads and data.classes is None:
        raise InputError("this recipe tells images apart by classes and there are none: give --data.classes FILE.")
    return ExtraData(
        reads=reads,
        positives=data.positives_per_caption,
        positive_source=data.positives,
        classes=read_classes(data.classes) if "classes" in reads and data.classes is not None else (),
        class_template=data.class_template,
        where=str(data.captions),
    )


@dataclass(frozen=True)
class Pairs:
    """The data of a run and the order in which they come.

    Attributes:
        dataset: pairs by (epoch, index); its `rules` are what a batch's `rule` numbers mean.
        plan: the order, the same for any number of processes.
        workers: processes that decode beside this one.
        collate: how pairs become a batch.
        neighbours: rows of similar images that join each batch.
    """

    dataset: PairDataset
    plan: BatchPlan
    workers: int
    collate: Collate
    neighbours: Neighbours | None = None

    def batches(self, epoch: int, *, start: int, device: torch.device) -> Iterator[Batch]:
        """This process's batches of one epoch from position `start`; a pure function of seed, epoch and position."""
        on_gpu = device.type == "cuda"
        loader = make_loader(
            self.dataset, self.plan, epoch=epoch, start=start, workers=self.workers, collate=self.collate,
            pin_memory=on_gpu, neighbours=self.neighbours,
        )  # fmt: skip
        for batch in loader:
            yield batch.to(device, non_blocking=on_gpu)


@dataclass(frozen=True)
class PairSource:
    """The rows of a run, read and checked before any model is looked up.

    Attributes:
        rows: with their negatives; those without a usable image are left out.
        extras: what the data set reads besides.
        neighbours: rows of similar images that join each batch.
    """

    rows: list[PairRow]
    extras: ExtraData
    neighbours: Neighbours | None


def read_pairs(config: TrainConfig, *, processes: Processes) -> PairSource:
    """Read and check the rows of a run and their images.

    Raises:
        InputError: see `read_rows`; a missing image; a batch that does not divide among the processes.
    """
    data, loop = config.data, config.train
    if loop.batch_size % processes.count:
        raise InputError(f"--train.batch-size {loop.batch_size} does not divide among {processes.count} processes.")
    folder = Path(data.images or ".")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images (--data.images).")
    reads = active_reads(config)
    extras = extra_data(data, reads)
    rows = usable_rows(read_rows(data, reads=reads), folder, bad_images=data.bad_images, workers=max(data.workers, 2))
    for each in inputs_of(reads, kind="image").values():
        check_further_images(rows, each.column, folder, workers=max(data.workers, 2))
    return PairSource(rows, extras, _neighbours(data, rows, loop.seed))


def open_pairs(
    config: TrainConfig, *, encoder: Encoder, processes: Processes, source: PairSource | None = None
) -> Pairs:
    """Order the pairs of a run for a model.

    Args:
        config: of the run.
        encoder: the model to train.
        processes: that share each batch.
        source: its rows, where they have been read already.

    Raises:
        InputError: see `read_pairs`; fewer rows than one batch; a loss reads what the model does not give.
    """
    source = source or read_pairs(config, processes=processes)
    data, loop = config.data, config.train
    dataset = PairDataset(
        source.rows,
        folder=Path(data.images or "."),
        transform=RandomCrop(image_transform(encoder), scale=(data.smallest_crop, 1.0)),
        tokenize=encoder.tokenize,
        negatives_per_caption=data.negatives_per_caption,
        seed=loop.seed,
        draw=data.draw,
        scaled_decoding=data.scaled_decoding,
        extras=source.extras,
    )
    plan = BatchPlan(
        dataset.groups,
        batch_size=loop.batch_size // processes.count,
        world_size=processes.count,
        rank=processes.rank,
        seed=loop.seed,
        duplicates="avoid" if data.duplicates == "avoid" else "allow",
    )
    collate = choose_collate(config, encoder, part_size=loop.chunk_size)
    return Pairs(dataset, plan, workers=data.workers, collate=collate, neighbours=source.neighbours)


def _neighbours(data: DataConfig, rows: list[PairRow], seed: int) -> Neighbours | None:
    if not data.neighbours_per_pair:
        return None
    if data.neighbours is None:
        raise InputError(
            "this recipe trains on similar images together and does not know which are: give --data.neighbours FILE "
            f"(made by `degla neighbours {data.captions} --images {data.images} --model MODEL --out FILE`), "
            "or --data.neighbours-per-pair 0."
        )
    return read_neighbours(data.neighbours, rows, per_row=data.neighbours_per_pair, seed=seed)


def active_reads(config: TrainConfig) -> frozenset[str]:
    """The optional parts of a batch that the losses of the configuration read."""
    return frozenset[str]().union(*(loss.reads for loss in config.objective.values() if loss.weight > 0))


def choose_collate(config: TrainConfig, encoder: Encoder, *, part_size: int | None) -> Collate:
    """How pairs become batches of this encoder; tells it to pad texts where the configuration says so.

    Raises:
        InputError: a loss reads patches and tokens, and the towers or flags do not give them; or no file of classes.
    """
    reads = active_reads(config)
    if "tokens" in reads and not (config.train.trim and encoder.gives_tokens):
        raise InputError(
            f"{encoder.name} gives no outputs for patches and tokens with these flags, and a loss of this recipe reads "
            f"them: {fast_paths.why_no_tokens(encoder.clip) or 'they go together with --train.trim alone'}."
        )
    class_texts = extra_data(config.data, reads).class_texts()
    classes = encoder.tokenize(class_texts).long() if class_texts else None
    if not config.train.trim:
        encoder.grow = None
        return Collate(classes=classes)
    if encoder.grow is not None and config.train.compile:
        # Few different lengths for compiled kernels; the number of nodes is left to vary.
        encoder.grow = replace(encoder.grow, multiple=8)
    needs = frozenset[TeacherPart]().union(*(loss.needs for loss in config.objective.values() if loss.weight > 0))
    return Collate(
        trim=encoder.trims,
        padding=encoder.padding,
        grow=encoder.grow,
        part_size=part_size,
        classes=classes,
        tokens="tokens" in reads,
        caption_trees="caption" in needs and "negative" not in needs and config.data.negatives_per_caption > 0,
    )


def image_transform(encoder: Encoder) -> ImageTransform:
    """What the model expects of its images, from its own preprocessing configuration.

    Raises:
        InputError: the model takes images that are not square.
    """
    settings = encoder.description.preprocess_config
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    if height != width:
        raise InputError(f"{encoder.name}: takes images of {height} x {width} pixels; only square ones can be trained.")
    return ImageTransform(
        size=height,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
    )
