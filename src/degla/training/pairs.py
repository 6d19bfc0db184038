"""Build the data set and the batch order from a configuration and its training rows."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from degla.config.run import StreamConfig, TrainConfig
from degla.config.sections import DataConfig, LoopConfig
from degla.data.batches import Batch, Collate
from degla.data.dataset import ImageTransform, PairDataset, RandomCrop
from degla.data.extras import RowExtras
from degla.data.images import locate
from degla.data.loader import EpochSampler, choose_workers, make_loader
from degla.data.neighbours import Neighbours
from degla.data.plan import SHARDS_AT_A_TIME, BatchPlan, RowNumbers
from degla.data.shards import copied_ahead, reader_of, shards_of
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model import fast_paths
from degla.model.encoder import Encoder
from degla.model.trained_along import DecoderTokens
from degla.training.features import embed_images, embed_patches
from degla.training.rows import PairSource, decoder_folder, extra_data, read_pairs


@dataclass(frozen=True)
class Pairs:
    """The data of a run and their order.

    Attributes:
        dataset: pairs by (epoch, index); its `rules` name the `rule` numbers of a batch.
        plan: order of the pairs, the same for any number of processes.
        workers: number of worker processes that decode images.
        collate: collates pairs into a batch.
        neighbours: rows of similar images that are added to each batch.
        places: an image in each shard, if shards are copied ahead of the batches that need them.
        most_ahead: number of shards that are copied ahead.
    """

    dataset: PairDataset
    plan: BatchPlan
    workers: int
    collate: Collate
    neighbours: Neighbours | None = None
    places: Sequence[str] = ()
    most_ahead: int = SHARDS_AT_A_TIME

    def batches(self, epoch: int, *, start: int, device: torch.device) -> Iterator[Batch]:
        """Yield this process's batches of one epoch from `start`; a pure function of seed, epoch and position."""
        yield from self._load(EpochSampler(self.plan, epoch, start, self.neighbours), device)

    def endless(
        self, *, start: int, device: torch.device, steps: int = sys.maxsize, turn: int | None = None
    ) -> Generator[Batch | None, None, None]:
        """Yield the batch of every step from number `start`, epoch after epoch, a function of the seed and the number.

        Args:
            start: number of the first step, counted over all epochs.
            device: device of the batches.
            steps: number of steps, so that workers prepare no more.
            turn: if two streams alternate, 0 for the even steps or 1 for the odd ones. The other steps yield None, and
                no batch is prepared for them.
        """
        epoch, position = divmod(start, len(self.plan))
        if turn is None:
            yield from self._load(EpochSampler(self.plan, epoch, position, self.neighbours, steps), device)
            return
        waits = (start + turn) % 2
        yield from [None] * waits
        sampler = EpochSampler(self.plan, epoch, position, self.neighbours, steps, every=2, first=waits)
        for batch in self._load(sampler, device):
            yield from (batch, None)

    def _load(self, sampler: EpochSampler, device: torch.device) -> Iterator[Batch]:
        on_gpu = device.type == "cuda"
        with copied_ahead(sampler.first_uses(), self.places, most=self.most_ahead) as (copy, reached):
            sampler = replace(sampler, reached=reached)
            loader = make_loader(self.dataset, sampler, workers=self.workers, collate=self.collate, pin_memory=on_gpu)
            for batch in loader:
                yield batch.to(device, non_blocking=on_gpu)
                # Starts the thread that copies shards, whose locks a worker forked later would inherit: a second batch
                # is asked for when every stream has given its first, so all workers are forked.
                copy()


def open_pairs(
    config: TrainConfig,
    *,
    encoder: Encoder,
    processes: Processes,
    source: PairSource | None = None,
    stream: StreamConfig | None = None,
) -> Pairs:
    """Prepare the pairs of a run for a model.

    Args:
        config: configuration of the run.
        encoder: model to train.
        processes: processes that share each batch.
        source: the rows, if they have been read already.
        stream: stream of pairs; the main one by default.

    Raises:
        InputError: see `read_pairs`; there are fewer rows than one batch; the model lacks an output a loss reads; or
            the order is from shard to shard, but images are not in shards or batches have neighbours.
    """
    stream, loop = stream or config.pairs, config.train
    data = stream.data
    source = source or read_pairs(stream, seed=loop.seed, processes=processes)
    scale = (data.smallest_crop, 1.0)
    target = DecoderTokens.of(decoder_folder(data)) if "reconstruction" in stream.reads else None
    dataset = PairDataset(
        source.rows,
        folder=data.image_folder,
        transform=RandomCrop(image_transform(encoder), scale=scale, scaled=data.scaled_decoding),
        tokenize=encoder.tokenize,
        negatives_per_caption=data.negatives_per_caption,
        seed=loop.seed,
        draw=data.draw,
        negatives_share=data.negatives_share,
        read=reader_of(data.order),
        extras=RowExtras(source.extras, extra_data(data, stream.reads), seed=loop.seed, target=target),
    )
    if loop.embed_images_once:
        folder = dataset.folder
        embed = embed_patches if "tokens" in stream.reads else embed_images
        dataset.features = embed(dataset.image_paths(), folder=folder, encoder=encoder, processes=processes)
    shards, places = _shards(source, data), list[str]()
    if shards is not None and not loop.embed_images_once:
        firsts = np.unique(shards, return_index=True)[1].tolist()
        places = [locate(source.rows.at("image", row), dataset.folder) for row in firsts]
    plan = BatchPlan(
        dataset.groups,
        batch_size=stream.batch_size // processes.count,
        world_size=processes.count,
        rank=processes.rank,
        seed=loop.seed,
        duplicates="avoid" if data.duplicates == "avoid" else "allow",
        shards=shards,
        batch_flag=stream.batch_flag,
    )
    collate = choose_collate(stream, loop, encoder)
    on_gpu, streams = encoder.device.type == "cuda", len(config.streams)
    workers = choose_workers(data.workers, on_gpu=on_gpu, streams=streams)
    by_shards = sum(each.data.order == "shards" for each in config.streams)
    return Pairs(
        dataset, plan, workers=workers, collate=collate, neighbours=source.neighbours,
        places=places, most_ahead=SHARDS_AT_A_TIME // max(by_shards, 1),
    )  # fmt: skip


def _shards(source: PairSource, data: DataConfig) -> RowNumbers | None:
    if data.order == "rows":
        return None
    if source.neighbours is not None:
        raise InputError(
            f"{data.flag('order')} shards reads a few shards at a time, but {data.flag('neighbours_per_pair')} adds "
            "images of any shard. Omit one of them."
        )
    return shards_of(source.rows, flag=f"{data.flag('order')} shards")


def choose_collate(stream: StreamConfig, loop: LoopConfig, encoder: Encoder) -> Collate:
    """Return how pairs are collated for this encoder; make it pad texts if configured.

    Raises:
        InputError: a loss reads patches and tokens, but the towers or flags do not give them; or no classes are given.
    """
    dense = "tokens" in stream.reads
    if dense and not (loop.trim and encoder.gives_tokens):
        raise InputError(
            f"{encoder.name} has no patch and token outputs with these flags, but a loss of this recipe needs them: "
            f"{fast_paths.why_no_tokens(encoder.clip) or 'they require --train.trim'}."
        )
    class_texts = extra_data(stream.data, stream.reads).class_texts()
    classes = encoder.tokenize(class_texts).long() if class_texts else None
    if not loop.trim:
        encoder.grow = None
        return Collate(classes=classes)
    if encoder.grow is not None and loop.compile:
        # Few different lengths for compiled kernels; the number of nodes may vary.
        encoder.grow = replace(encoder.grow, multiple=8)
    return Collate(
        trim=encoder.trims,
        padding=encoder.padding,
        grow=encoder.grow,
        part_size=loop.chunk_size,
        classes=classes,
        tokens=dense,
        caption_trees="caption" in stream.needs and "negative" not in stream.needs,
    )


def image_transform(encoder: Encoder) -> ImageTransform:
    """Return the image transform that the model's preprocessing configuration asks for.

    Raises:
        InputError: the model takes images that are not square.
    """
    settings, (height, width) = encoder.description.preprocess_config, encoder.image_size
    if height != width:
        raise InputError(f"{encoder.name}: its images have {height} x {width} pixels; training needs square images.")
    return ImageTransform(
        size=height,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
    )
