"""From a configuration to the training rows, the data set and the order of its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from degla.config import DataConfig, TrainConfig
from degla.data.batches import Batch
from degla.data.collate import Collate
from degla.data.dataset import PairDataset
from degla.data.image_check import usable_rows
from degla.data.loader import make_loader
from degla.data.pairs import PairRow, join
from degla.data.plan import BatchPlan
from degla.data.sources import Columns, read_captions, read_negatives
from degla.data.transforms import ImageTransform, RandomCrop
from degla.errors import InputError
from degla.model.encoder import Encoder
from degla.objectives import Part, Processes


def read_rows(data: DataConfig) -> list[PairRow]:
    """Captions joined with their accepted negatives, checked and reported.

    Raises:
        InputError: a file or record is wrong, or no row has the negatives that the recipe needs.
    """
    assert data.captions is not None
    wanted = data.negatives_per_caption
    if wanted and data.negatives is None:
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
    )
    return join(
        read_captions(data.captions, format=data.format, columns=columns),
        read_negatives(data.negatives) if wanted and data.negatives is not None else None,
        negatives_per_caption=wanted,
    )


@dataclass(frozen=True)
class Pairs:
    """The data of a run and the order in which they come.

    Attributes:
        dataset: pairs by (epoch, index); its `rules` are what a batch's `rule` numbers mean.
        plan: the order, the same for any number of processes.
        workers: processes that decode beside this one.
        collate: how pairs become a batch.
    """

    dataset: PairDataset
    plan: BatchPlan
    workers: int
    collate: Collate

    def batches(self, epoch: int, *, start: int, device: torch.device) -> Iterator[Batch]:
        """This process's batches of one epoch from position `start`; a pure function of seed, epoch and position."""
        on_gpu = device.type == "cuda"
        loader = make_loader(
            self.dataset, self.plan, epoch=epoch, start=start, workers=self.workers, collate=self.collate,
            pin_memory=on_gpu,
        )  # fmt: skip
        for batch in loader:
            yield batch.to(device, non_blocking=on_gpu)


def open_pairs(config: TrainConfig, *, encoder: Encoder, processes: Processes) -> Pairs:
    """Read, check and order the pairs of a run.

    Raises:
        InputError: see `read_rows`; a missing image; fewer rows than one batch; a batch that does not divide among
            the processes.
    """
    data, loop = config.data, config.train
    if loop.batch_size % processes.count:
        raise InputError(f"--train.batch-size {loop.batch_size} does not divide among {processes.count} processes.")
    folder = Path(data.images or ".")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images (--data.images).")
    rows = usable_rows(read_rows(data), folder, bad_images=data.bad_images, workers=max(data.workers, 2))
    dataset = PairDataset(
        rows,
        folder=folder,
        transform=RandomCrop(image_transform(encoder), scale=(data.smallest_crop, 1.0)),
        tokenize=encoder.tokenize,
        negatives_per_caption=data.negatives_per_caption,
        seed=loop.seed,
        scaled_decoding=data.scaled_decoding,
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
    return Pairs(dataset, plan, workers=data.workers, collate=collate)


def choose_collate(config: TrainConfig, encoder: Encoder, *, part_size: int | None) -> Collate:
    """How pairs become batches of this encoder; tells it to pad texts where the configuration says so."""
    if not config.train.trim:
        encoder.grow = None
        return Collate()
    if encoder.grow is not None and config.train.compile:
        # Few different lengths for compiled kernels; the number of nodes is left to vary.
        encoder.grow = replace(encoder.grow, multiple=8)
    needs = frozenset[Part]().union(*(term.needs for term in config.objective.values() if term.weight > 0))
    return Collate(
        trim=encoder.trims,
        grow=encoder.grow,
        part_size=part_size,
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
