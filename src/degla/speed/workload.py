"""The batch that both sides of a comparison are given: real captions and negatives, or drawn ones."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from jaxtyping import Float

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, LoopConfig
from degla.data.batches import Batch, Pair
from degla.data.table import PairTable
from degla.errors import InputError
from degla.model.encoder import Encoder
from degla.recipes.degla import degla
from degla.records import Record
from degla.training.pairs import choose_collate, image_transform
from degla.training.rows import read_rows

_RULES = ("replace_adjectives", "replace_nouns", "reshuffle_order", "swap_adjectives", "swap_nouns")


class Workload(Record):
    """What is measured.

    Attributes:
        model: in any form that `degla` takes; ARCHITECTURE:random needs no weights.
        batch_size: B, 1 or more.
        negatives: K, 0 or more.
        captions: file of captions; None draws some of the embedded world.
        negatives_file: their negatives.
        compile: as `--train.compile`.
        gradient_checkpointing: as `--train.gradient-checkpointing`.
        device: "cpu" or "cuda".
        threads: of the processor; None leaves PyTorch's choice.
    """

    model: str = "ViT-B-32-quickgelu:random"
    batch_size: int = 32
    negatives: int = 4
    captions: Path | None = None
    negatives_file: Path | None = None
    compile: bool = False
    gradient_checkpointing: bool = False
    device: str = "cpu"
    threads: int | None = None

    def config(self, precision: str) -> TrainConfig:
        """The recipe `degla` at this size."""
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
            ),
        )


def make_batch(workload: Workload, encoder: Encoder, *, precision: str) -> Batch:
    """B rows that have K negatives, drawn with a fixed seed, as training collates them; pictures are noise.

    Raises:
        InputError: there are not so many rows.
    """
    rows = [row for row in _rows(workload) if len(row.negatives) >= workload.negatives]
    if len(rows) < workload.batch_size:
        raise InputError(
            f"only {len(rows)} captions have {workload.negatives} negatives; a batch of {workload.batch_size} needs "
            "as many. Give --captions and --negatives-file with more, or a smaller --batch-size."
        )
    config, size = workload.config(precision), image_transform(encoder).size
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for number, row in enumerate(Random(0).sample(rows, workload.batch_size)):
        tokens = encoder.tokenize([row.caption.text, *row.negatives[: workload.negatives]])
        image: Float[torch.Tensor, "3 size size"] = torch.randn(3, size, size, generator=generator)
        valid = torch.ones(workload.negatives, dtype=torch.bool)
        pairs.append(
            Pair(
                image,
                tokens[0],
                tokens[1:],
                valid,
                torch.zeros(workload.negatives, dtype=torch.long),
                number,
                row.caption.id,
            )
        )
    return choose_collate(config.pairs, config.train, encoder)(pairs)


def _rows(workload: Workload) -> PairTable:
    if workload.captions is not None:
        if workload.negatives and workload.negatives_file is None:
            raise InputError("--captions goes with --negatives-file, made by `degla negatives`, or --negatives 0.")
        return read_rows(
            DataConfig(
                captions=workload.captions, negatives=workload.negatives_file, negatives_per_caption=workload.negatives
            )
        )
    from degla.data.sources import read_captions
    from degla.negatives.generate import NegativesSettings, generate
    from degla.world.draw import draw_pairs

    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_pairs(Path(folder) / "pairs", count=4 * workload.batch_size, captions_per_image=2)
        negatives = Path(folder) / "negatives.jsonl"
        per_rule = max(-(-workload.negatives // 3), 1)
        generate(read_captions(drawn.captions), NegativesSettings(_RULES, 0, per_rule), out=negatives)
        return read_rows(
            DataConfig(captions=drawn.captions, negatives=negatives, negatives_per_caption=workload.negatives)
        )
