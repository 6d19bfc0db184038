"""From a configuration to the training rows, the data set and the order of its batches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch

from degla.config.run import StreamConfig, TrainConfig
from degla.config.sections import DataConfig, LoopConfig
from degla.data.batches import Batch, Collate
from degla.data.dataset import PairDataset
from degla.data.extras import ExtraData, read_classes
from degla.data.images import check_further_images, usable_rows
from degla.data.loader import EpochSampler, make_loader
from degla.data.neighbours import Neighbours, read_neighbours
from degla.data.pairs import PairRow, join, negatives_of_rules, partner_negatives, with_positives
from degla.data.plan import BatchPlan
from degla.data.sources import Columns, read_captions, read_negatives
from degla.data.transforms import ImageTransform, RandomCrop
from degla.errors import InputError
from degla.inputs import inputs_of
from degla.losses.core import Processes
from degla.model import fast_paths
from degla.model.encoder import Encoder
from degla.records import CaptionRecord, NegativeRecord
from degla.shelf import TOLD_RULES
from degla.training.features import embed_pictures

_log = logging.getLogger(__name__)


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
    if wanted and data.negatives is None and not data.distractor_negative:
        raise InputError(
            f"this recipe draws {wanted} negatives a caption and there are none: give {data.flag('negatives')} FILE "
            f"(made by `degla negatives {data.captions} --out FILE`), or {data.flag('negatives_per_caption')} 0."
        )
    if data.positives_file is not None and "positive" not in reads:
        raise InputError(
            f"{data.flag('positives_file')} {data.positives_file}: no loss of this recipe reads further true texts. "
            "Give one a weight, for example --objective.text-pull.weight 0.1 (text-contrast, positive-contrast and "
            "positive-grounded read them too), or leave the file out."
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
    if "positive" in reads and data.positives_file is not None:
        flag = f"{data.flag('positives_file')} {data.positives_file}"
        if data.positives == "same_image":
            raise InputError(f"{flag} is not read with {data.flag('positives')} same_image. Leave one of them out.")
        captions = with_positives(captions, read_negatives(data.positives_file), flag=flag)
    negatives: Iterable[NegativeRecord] | None = None
    if wanted and data.distractor_negative:
        captions = list(captions)
        negatives = partner_negatives(captions, flag=data.flag("distractor_negative"))
    elif wanted and data.negatives is not None:
        negatives = read_negatives(data.negatives)
        if data.rules:
            negatives = negatives_of_rules(negatives, data.rules, flag=data.flag("rules"))
    rows = join(captions, negatives, negatives_per_caption=wanted)
    if not data.rules:
        _warn_of_told(rows, flag=f"{data.flag('negatives')} {data.negatives}", remedy=data.flag("rules"))
    return rows


def _warn_of_told(rows: Sequence[PairRow], *, flag: str, remedy: str) -> None:
    """Say which negatives a model can learn to refuse without looking."""
    found = Counter(rule for row in rows for rule in row.rules)
    told = [rule for rule in TOLD_RULES if found[rule]]
    if told:
        _log.warning(
            "%s: %d of %d negatives are of %s, which are longer than their captions: a model can learn to refuse them "
            "without looking. %s with other rules leaves them out.",
            flag, sum(found[rule] for rule in told), found.total(), ", ".join(told), remedy,
        )  # fmt: skip


def _optional_columns(data: DataConfig, reads: frozenset[str]) -> tuple[str, ...]:
    columns = [each.column for each in inputs_of(reads).values() if each.column]
    if data.distractor_negative and data.negatives_per_caption:
        columns += ["distractor_image", "distractor_text"]
    if data.positives == "same_image" or data.positives_file is not None:
        columns = [name for name in columns if name != "positives"]
    return tuple(dict.fromkeys(columns))


def extra_data(data: DataConfig, reads: frozenset[str]) -> ExtraData:
    """What the data set reads besides captions and negatives.

    Raises:
        InputError: a loss reads classes and there is no file of them, or it is wrong.
    """
    if "classes" in reads and data.classes is None:
        flag = data.flag("classes")
        raise InputError(f"this recipe tells images apart by classes and there are none: give {flag} FILE.")
    return ExtraData(
        reads=reads,
        positives=data.positives_per_caption,
        positive_source=data.positives,
        classes=read_classes(data.classes) if "classes" in reads and data.classes is not None else (),
        class_template=data.class_template,
        where=str(data.captions),
        flags=f"--{data.section}",
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
        sampler = EpochSampler(self.plan, epoch, start, self.neighbours)
        loader = make_loader(self.dataset, sampler, workers=self.workers, collate=self.collate, pin_memory=on_gpu)
        for batch in loader:
            yield batch.to(device, non_blocking=on_gpu)

    def endless(self, *, start: int, device: torch.device) -> Iterator[Batch]:
        """The batch of every step from number `start` on, pass after pass: a function of the seed and the number."""
        first, position = divmod(start, len(self.plan))
        for epoch in count(first):
            yield from self.batches(epoch, start=position if epoch == first else 0, device=device)


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


def read_pairs(stream: StreamConfig, *, seed: int, processes: Processes) -> PairSource:
    """Read and check the rows of a stream of pairs and their images.

    Args:
        stream: of a run.
        seed: of the run.
        processes: that share each batch.

    Raises:
        InputError: see `read_rows`; a missing image; a batch that does not divide among the processes.
    """
    data, workers = stream.data, max(stream.data.workers, 2)
    if stream.batch_size % processes.count:
        raise InputError(f"{stream.batch_flag} {stream.batch_size} does not divide among {processes.count} processes.")
    folder = Path(data.images or ".")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images ({data.flag('images')}).")
    extras = extra_data(data, stream.reads)
    rows = read_rows(data, reads=stream.reads)
    flag = data.flag("bad_images")
    rows = usable_rows(rows, folder, bad_images=data.bad_images, workers=workers, flag=flag)
    for each in inputs_of(stream.reads, kind="image").values():
        check_further_images(rows, each.column, folder, workers=workers)
    return PairSource(rows, extras, _neighbours(data, rows, seed))


def open_pairs(
    config: TrainConfig,
    *,
    encoder: Encoder,
    processes: Processes,
    source: PairSource | None = None,
    stream: StreamConfig | None = None,
) -> Pairs:
    """Order the pairs of a run for a model.

    Args:
        config: of the run.
        encoder: the model to train.
        processes: that share each batch.
        source: the rows, where they have been read already.
        stream: which pairs of the run; those that it is about by default.

    Raises:
        InputError: see `read_pairs`; fewer rows than one batch; a loss reads what the model does not give.
    """
    stream, loop = stream or config.pairs, config.train
    data = stream.data
    source = source or read_pairs(stream, seed=loop.seed, processes=processes)
    scale = (data.smallest_crop, 1.0)
    dataset = PairDataset(
        source.rows,
        folder=Path(data.images or "."),
        transform=RandomCrop(image_transform(encoder), scale=scale, scaled=data.scaled_decoding),
        tokenize=encoder.tokenize,
        negatives_per_caption=data.negatives_per_caption,
        seed=loop.seed,
        draw=data.draw,
        extras=source.extras,
    )
    if loop.embed_images_once:
        folder = dataset.folder
        dataset.features = embed_pictures(dataset.pictures(), folder=folder, encoder=encoder, processes=processes)
    plan = BatchPlan(
        dataset.groups,
        batch_size=stream.batch_size // processes.count,
        world_size=processes.count,
        rank=processes.rank,
        seed=loop.seed,
        duplicates="avoid" if data.duplicates == "avoid" else "allow",
    )
    collate = choose_collate(stream, loop, encoder)
    return Pairs(dataset, plan, workers=data.workers, collate=collate, neighbours=source.neighbours)


def _neighbours(data: DataConfig, rows: list[PairRow], seed: int) -> Neighbours | None:
    if not data.neighbours_per_pair:
        return None
    if data.neighbours is None:
        raise InputError(
            "this recipe trains on similar images together and does not know which are: give "
            f"{data.flag('neighbours')} FILE (made by `degla neighbours {data.captions} --images {data.images} "
            f"--model MODEL --out FILE`), or {data.flag('neighbours_per_pair')} 0."
        )
    return read_neighbours(data.neighbours, rows, per_row=data.neighbours_per_pair, seed=seed)


def choose_collate(stream: StreamConfig, loop: LoopConfig, encoder: Encoder) -> Collate:
    """How pairs become batches of this encoder; tells it to pad texts where the configuration says so.

    Raises:
        InputError: a loss reads patches and tokens, and the towers or flags do not give them; or no file of classes.
    """
    dense = "tokens" in stream.reads
    if dense and not (loop.trim and encoder.gives_tokens):
        raise InputError(
            f"{encoder.name} gives no outputs for patches and tokens with these flags, and a loss of this recipe reads "
            f"them: {fast_paths.why_no_tokens(encoder.clip) or 'they go together with --train.trim alone'}."
        )
    class_texts = extra_data(stream.data, stream.reads).class_texts()
    classes = encoder.tokenize(class_texts).long() if class_texts else None
    if not loop.trim:
        encoder.grow = None
        return Collate(classes=classes)
    if encoder.grow is not None and loop.compile:
        # Few different lengths for compiled kernels; the number of nodes is left to vary.
        encoder.grow = replace(encoder.grow, multiple=8)
    captions_alone = "caption" in stream.needs and "negative" not in stream.needs
    return Collate(
        trim=encoder.trims,
        padding=encoder.padding,
        grow=encoder.grow,
        part_size=loop.chunk_size,
        classes=classes,
        tokens=dense,
        caption_trees=captions_alone and stream.data.negatives_per_caption > 0,
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
