"""From a configuration to the training rows, the data set and the order of its batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from degla.config import TrainConfig
from degla.data.batches import Batch, BatchPlan, make_loader
from degla.data.dataset import PairDataset
from degla.data.images import TrainTransform, check_images
from degla.data.pairs import PairRow, join
from degla.data.sources import Columns, read_captions, read_negatives
from degla.errors import InputError
from degla.model.encoder import Encoder
from degla.objectives import Processes

log = logging.getLogger("degla.train")


def read_rows(config: TrainConfig) -> list[PairRow]:
    """Captions joined with their accepted negatives, checked and reported.

    Raises:
        InputError: a file or record is wrong, or no row has the negatives that the recipe needs.
    """
    data = config.data
    assert data.captions is not None
    columns = Columns(
        id=data.id_column, image=data.image_column, text=data.text_column, image_id=data.image_id_column,
        image_pattern=data.image_pattern,
    )  # fmt: skip
    captions = read_captions(data.captions, format=data.format, columns=columns)
    wanted = data.negatives_per_caption
    if wanted and data.negatives is None:
        raise InputError(
            f"this recipe draws {wanted} negatives a caption and there are none: give --data.negatives FILE "
            f"(made by `degla negatives {data.captions} --out FILE`), or --data.negatives-per-caption 0."
        )
    negatives = read_negatives(data.negatives) if wanted and data.negatives is not None else None
    rows, report = join(captions, negatives, negatives_per_caption=wanted)
    log.info("%s", report)
    return rows


@dataclass
class Pairs:
    """The rows of a run with the order in which they come.

    Attributes:
        rules: names of all rules that occur; a batch's `rule` numbers index it.
        steps_per_epoch: batches of one pass.
    """

    rows: list[PairRow]
    rules: list[str]
    dataset: PairDataset
    plan: BatchPlan
    workers: int
    trim: bool
    pad_to_multiple: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the rows."""
        return len(self.plan)

    def batches(self, epoch: int, *, start: int, device: torch.device) -> Iterator[Batch]:
        """This process's batches of one epoch from position `start`; a pure function of seed, epoch and position."""
        loader = make_loader(self.dataset, self.plan, epoch=epoch, start=start, workers=self.workers, trim=self.trim)
        for batch in loader:
            yield batch.to(device)


def open_pairs(config: TrainConfig, *, encoder: Encoder, processes: Processes) -> Pairs:
    """Read, check and order the pairs of a run.

    Raises:
        InputError: see `read_rows`; a missing or damaged image where `data.bad_images` is "stop"; fewer rows than one
            batch; a batch that does not divide among the processes.
    """
    data, loop = config.data, config.train
    rows = read_rows(config)
    folder = Path(data.images or ".")
    if data.bad_images == "skip":
        rows, bad = check_images(rows, folder=folder, workers=max(data.workers, 1))
        for problem in bad:
            log.warning("left out: %s", problem)
    if loop.batch_size % processes.count:
        raise InputError(f"--train.batch-size {loop.batch_size} does not divide among {processes.count} processes.")
    size = encoder.description.preprocess_config["size"]
    transform = TrainTransform(
        size=size if isinstance(size, int) else int(size[0]),
        mean=tuple(encoder.description.preprocess_config["mean"]),
        std=tuple(encoder.description.preprocess_config["std"]),
        interpolation=encoder.description.preprocess_config["interpolation"],
        smallest_crop=data.smallest_crop,
    )
    dataset = PairDataset(
        rows, folder=folder, transform=transform, tokenize=encoder.tokenize,
        negatives_per_caption=data.negatives_per_caption, seed=loop.seed,
    )  # fmt: skip
    plan = BatchPlan(
        dataset.groups, batch_size=loop.batch_size // processes.count, world_size=processes.count,
        rank=processes.rank, seed=loop.seed, duplicates=data.duplicates,
    )  # fmt: skip
    return Pairs(
        rows=rows, rules=dataset.rules, dataset=dataset, plan=plan, workers=data.workers,
        trim=loop.trim and encoder.trims,
    )  # fmt: skip
