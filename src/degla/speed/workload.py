"""The batch that both sides of a comparison receive: real captions and negatives, or generated ones."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, LoopConfig
from degla.data.batches import Batch, Pair
from degla.data.pairs import PairRow
from degla.data.table import PairTable
from degla.errors import InputError
from degla.model.encoder import Encoder
from degla.model.probe import picture
from degla.pages.words import counted
from degla.recipes.degla import degla
from degla.records import Record
from degla.training.pairs import choose_collate, image_transform
from degla.training.rows import read_rows

_GRAIN, _DIFFERENT = 30, 32
_RULES = ("replace_adjectives", "replace_nouns", "reshuffle_order", "swap_adjectives", "swap_nouns")


class Workload(Record):
    """The measured workload.

    Attributes:
        model: any model name that `degla` accepts; ARCHITECTURE:random needs no weights.
        batch_size: B, 1 or more.
        negatives: K, 0 or more.
        captions: captions file; None generates captions of the embedded world.
        negatives_file: their negatives.
        images: folder of their images; None for the folder of the captions.
        compile: as `--train.compile`.
        gradient_checkpointing: as `--train.gradient-checkpointing`.
        chunk_size: as `--train.chunk-size`.
        device: "cpu" or "cuda".
        threads: CPU threads; None keeps PyTorch's default.
    """

    model: str = "ViT-B-32-quickgelu:random"
    batch_size: int = 32
    negatives: int = 4
    captions: Path | None = None
    negatives_file: Path | None = None
    images: Path | None = None
    compile: bool = False
    gradient_checkpointing: bool = False
    chunk_size: int | None = None
    device: str = "cpu"
    threads: int | None = None

    @property
    def data(self) -> DataConfig:
        """The data settings of the rows, as for training."""
        return DataConfig(
            captions=self.captions,
            negatives=self.negatives_file,
            images=self.images,
            negatives_per_caption=self.negatives,
        )

    def config(self, precision: str) -> TrainConfig:
        """Return the recipe `degla` at this size."""
        base = degla()
        return replace(
            base,
            model=self.model,
            data=replace(base.data, negatives_per_caption=self.negatives),
            train=LoopConfig(
                batch_size=self.batch_size,
                precision=precision,  # type: ignore[arg-type]
                compile=self.compile,
                gradient_checkpointing=self.gradient_checkpointing,
                chunk_size=self.chunk_size,
            ),
        )


def make_batch(workload: Workload, encoder: Encoder, *, precision: str) -> Batch:
    """Collate B rows with K negatives, drawn with a fixed seed, as in training; images are noise.

    Raises:
        InputError: fewer than B rows have K negatives.
    """
    config, size = workload.config(precision), image_transform(encoder).size
    generator = torch.Generator().manual_seed(0)
    valid, rules = torch.ones(workload.negatives, dtype=torch.bool), torch.zeros(workload.negatives, dtype=torch.long)
    pairs = []
    for number, row in enumerate(sample_rows(workload)):
        tokens = encoder.tokenize([row.caption.text, *row.negatives[: workload.negatives]])
        image: Float[torch.Tensor, "3 size size"] = torch.randn(3, size, size, generator=generator)
        pairs.append(Pair(image, tokens[0], tokens[1:], valid, rules, number, row.caption.id))
    return choose_collate(config.pairs, config.train, encoder)(pairs)


def sample_rows(workload: Workload) -> list[PairRow]:
    """Return B rows with K negatives, the same at every call.

    Raises:
        InputError: fewer than B rows have K negatives.
    """
    rows = [row for row in read_workload(workload) if len(row.negatives) >= workload.negatives]
    if len(rows) < workload.batch_size:
        raise InputError(
            f"only {counted(len(rows), 'caption has', 'captions have')} {counted(workload.negatives, 'negative')}, but "
            f"the batch size is {workload.batch_size}. Give --captions and --negatives-file with more, or a smaller "
            "--batch-size."
        )
    return Random(0).sample(rows, workload.batch_size)


def read_workload(workload: Workload) -> PairTable:
    """Read the rows to measure with, or generate them if there are no captions.

    Raises:
        InputError: captions are given without negatives, or a file is invalid.
    """
    if workload.captions is None:
        with tempfile.TemporaryDirectory() as folder:
            return read_workload(draw_workload(workload, Path(folder)))
    if workload.negatives and workload.negatives_file is None:
        raise InputError("--captions requires --negatives-file, made by `degla negatives`.")
    return read_rows(workload.data)


def draw_workload(workload: Workload, folder: Path, *, photographs: bool = False) -> Workload:
    """Return the workload with generated captions, negatives and images of the embedded world, written to files.

    Args:
        workload: determines how many.
        folder: for the files.
        photographs: instead of small drawings, write distinct JPEG files of the size of COCO's photographs, in pixels
            (640 x 480) and in bytes (about 160 kB).
    """
    from degla.data.sources import read_captions
    from degla.negatives.generate import NegativesSettings, generate
    from degla.world.draw import draw_pairs

    pairs = draw_pairs(folder / "pairs", count=4 * workload.batch_size, captions_per_image=2)
    negatives = folder / "negatives.jsonl"
    per_rule = max(-(-workload.negatives // 3), 1)
    generate(read_captions(pairs.captions), NegativesSettings(_RULES, 0, per_rule), out=negatives)
    for number, file in enumerate(sorted(pairs.images.iterdir()) if photographs else ()):
        # The comment makes the bytes of every file distinct.
        _like_photograph(number % _DIFFERENT).save(file, format="JPEG", quality=90, comment=str(number))
    files = {"captions": pairs.captions, "negatives_file": negatives, "images": pairs.images}
    return workload.model_copy(update=files)


@functools.cache
def _like_photograph(seed: int) -> Image.Image:
    """Soft shapes with added grain."""
    soft = np.asarray(picture(width=640, height=480, seed=seed), dtype=np.int16)
    grain = np.random.default_rng(seed).integers(-_GRAIN, _GRAIN + 1, soft.shape[:2], dtype=np.int16)
    return Image.fromarray((soft + grain[..., None]).clip(0, 255).astype(np.uint8))
