"""The sections of a run's configuration: data, optimiser, loop, checkpoints, validation, stop, tracking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval

from degla.data.places import base_of
from degla.ranges import AnyWhole, AtLeastOne, Checked, Count, DecayRate, Factor, Positive, PositiveShare, Seed

if TYPE_CHECKING:
    from degla.data.sources import Columns


@dataclass(frozen=True)
class DataConfig(Checked, section="data"):
    """Image-caption pairs and their negatives."""

    captions: Path | None = None
    """File of captions: COCO json, JSONL, JSON list, Parquet, CSV/TSV, a `datasets` folder, the published DeGLA json;
    or files with captions and pictures: tars of WebDataset or img2dataset, Parquet (a folder, or
    "shards/{00000..00099}.tar")."""
    images: Path | None = None
    """Folder that the image paths are relative to; that of the captions by default."""
    negatives: Path | None = None
    """File of negatives, joined by caption id: JSONL or Parquet of `degla negatives`, or the published DeGLA json."""
    format: str = "auto"
    """Format of the captions file: auto, coco, json, jsonl, parquet, csv, tsv, datasets, degla or webdataset."""
    id_column: str = "id"
    """Name of the caption id's column (JSONL, Parquet, CSV)."""
    image_column: str = "image"
    """Name of the image path's column."""
    text_column: str = "text"
    """Name of the caption's column."""
    image_id_column: str = "image_id"
    """Name of the column that is equal for captions of one image; the image path where it is missing."""
    image_pattern: str = "COCO_train2014_{image_id:012d}.jpg"
    """File name of an image of the published DeGLA json, a format of image_id."""
    negatives_per_caption: Count = 4
    """K: negatives drawn a caption and epoch, 0 or more (4 in arXiv 2504.16801)."""
    draw: str = "random"
    """Which K of a caption's negatives come into an epoch: random, first, by_rule, by_score, or a file of your own on
    the shelf of draws (random in the paper of DeGLA, first in its released code)."""
    rules: tuple[str, ...] = ()
    """Rules whose negatives are used; those of all rules by default."""
    positives: Literal["column", "same_image"] = "column"
    """Where further true texts come from: the field positives, or other captions; "column" or "same_image"."""
    positives_file: Path | None = None
    """File of further true texts, by `degla negatives --positives`, that join those of the column by caption id."""
    positives_per_caption: AtLeastOne = 1
    """P: further true texts drawn a caption and epoch where a loss reads them, 1 or more."""
    distractor_negative: bool = False
    """Take each row's distractor_text as its one negative, in place of a file of negatives; true or false."""
    classes: Path | None = None
    """File of class names, one a line or a JSON list, where a loss reads classes; the field label names one."""
    class_template: str = "a photo of a {}."
    """How a class becomes a text: {} stands for its name ("a photo of a {}." in GIFT)."""
    decoder: Path | None = None
    """Folder of a frozen language decoder of the T5 kind with its tokenizer, in the form of transformers, where a loss
    reads what it writes from a caption's state."""
    neighbours: Path | None = None
    """File of similar images, written by `degla neighbours`."""
    neighbours_per_pair: Count = 0
    """Pairs of similar images that join the batch beside each of its pairs, 0 or more (1 in NegCLIP)."""
    bad_images: Literal["stop", "skip"] = "stop"
    """What a missing or damaged image does: end the run, or leave its rows out and say so; "stop" or "skip"."""
    duplicates: Literal["allow", "avoid", "mask"] = "avoid"
    """Two captions of one image in a batch: allow, avoid by order, or mask as negatives; "allow", "avoid", "mask"."""
    smallest_crop: PositiveShare = 0.9
    """Smallest share of the image's area that a random crop keeps, above 0 to 1 (0.9 in all compared papers)."""
    scaled_decoding: bool = True
    """Decode JPEG files at no more than the resolution that the crop needs; true or false."""
    workers: Count | Literal["auto"] = 0
    """Processes that decode images beside each training process, 0 or more; "auto": by the processors it has."""

    @property
    def image_folder(self) -> Path:
        """The folder that image paths are relative to."""
        assert self.captions is not None
        return self.images or base_of(self.captions)

    @property
    def columns(self) -> Columns:
        """Names of the fields of the captions file."""
        from degla.data.sources import Columns

        return Columns(self.id_column, self.image_column, self.text_column, self.image_id_column, self.image_pattern)


@dataclass(frozen=True)
class OptimConfig(Checked, section="optim"):
    """AdamW with warm-up and cosine decay."""

    lr: Positive = 1e-6
    """Largest learning rate, > 0 (1e-6 in arXiv 2504.16801)."""
    weight_decay: Factor = 0.1
    """Decay of matrices; vectors, biases and the scale have none; >= 0 (0.1 in arXiv 2504.16801)."""
    beta1: DecayRate = 0.9
    """Adam's first decay rate, 0 to below 1."""
    beta2: DecayRate = 0.98
    """Adam's second decay rate, 0 to below 1 (0.98 in CLIP, arXiv 2103.00020)."""
    eps: Positive = 1e-6
    """Adam's epsilon, > 0 (1e-6 in CLIP)."""
    warmup_steps: Count = 50
    """Steps of linear warm-up, 0 or more (50 in NegCLIP and arXiv 2504.16801)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: down to 0 along half a cosine, or constant; "cosine" or "constant"."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient, > 0; none by default (1 in READ-CLIP and CS-CLIP; no other recipe clips)."""
    max_scale: Annotated[float, Interval(gt=1)] = 100.0
    """Largest scale (1 / temperature) after each step, > 1 (100 in CLIP); a model of the sigmoid loss keeps what it
    starts with, where that is more."""
    start_scale: Annotated[float, Interval(ge=1)] | None = None
    """Scale that training starts with, 1 or more (1 in LABCLIP); the model's own by default."""


@dataclass(frozen=True)
class LoopConfig(Checked, section="train"):
    """Length, batch, precision and seed."""

    batch_size: AtLeastOne = 256
    """Pairs of the global batch, over all processes, 1 or more (256 in arXiv 2504.16801)."""
    epochs: AtLeastOne = 5
    """Passes over the pairs, 1 or more; ignored where `steps` is given (5 in arXiv 2504.16801)."""
    steps: AtLeastOne | None = None
    """Optimiser steps of the whole run, 1 or more; `epochs` passes by default."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast: bf16 where the device computes it natively (auto), or as named; weights stay fp32."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Several processes hold whole copies of the model, or a slice of each parameter; "ddp" or "fsdp"."""
    chunk_size: AtLeastOne | None = None
    """Pairs of a process embedded at a time, 1 or more: gradients of the whole batch in the memory of so many."""
    trim: bool = True
    """Compute no padding and no shared beginning of texts twice, where that is exact; true or false."""
    compile: bool = False
    """Compile both towers with torch.compile (needs a C++ compiler on CPUs); true or false."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, for less memory and a third more time; true or false."""
    seed: Seed = 0
    """Seed of order, crops and draws of negatives, 0 or more."""
    train_image_tower: bool = True
    """Train the image tower; true or false."""
    embed_images_once: bool = False
    """Where the image tower is not trained: embed each picture once, whole, instead of a random crop at every step;
    true or false."""
    train_text_tower: bool = True
    """Train the text tower; true or false."""
    train_scale: bool = True
    """Train the scale, and the bias of a model of the sigmoid loss; true or false."""
    freeze_image_blocks: AnyWhole = 0
    """First blocks of the image tower, and what comes before them, that are not trained; below 0: all but the last
    so many."""
    freeze_text_blocks: AnyWhole = 0
    """First blocks of the text tower, and what comes before them, that are not trained; below 0: all but the last
    so many."""
    batch_norm: Literal["frozen", "update"] = "frozen"
    """Statistics of BatchNorm in trained towers: as the model came with them, or moved by each batch, which costs
    zero-shot accuracy (docs/training.md); "frozen" or "update"."""
    average: PositiveShare | None = None
    """Share of the tuned weights in their average with the model before training (WiSE-FT, arXiv 2109.01903), above 0
    to 1: what is evaluated and kept for use is the average; none, like 1, keeps the tuned weights."""


@dataclass(frozen=True)
class CheckpointConfig(Checked, section="checkpoint"):
    """When the run's state is written, and how much of it is kept."""

    every_steps: Count = 0
    """Write a checkpoint every that many steps, 0 or more; 0 for only at the end of an epoch and of the run."""
    every_minutes: Factor = 30.0
    """Write a checkpoint when the last is older than that many minutes, 0 or more; 0 for never."""
    keep: Count = 2
    """Newest checkpoints that are kept besides the best one, 0 or more; 0 keeps all."""


@dataclass(frozen=True)
class ValidationConfig(Checked, section="validation"):
    """Evaluation during training, to know and keep the best checkpoint."""

    benchmarks: tuple[str, ...] = ()
    """Benchmarks of the shelf to run; none by default."""
    root: Path | None = None
    """Folder that holds their data."""
    every_steps: Count = 0
    """Steps between evaluations, 0 or more; 0 for only at the end of an epoch and of the run."""
    score: str = "composition"
    """What decides which checkpoint is the best: a named average of the benchmarks, or "joint": `gain` gained minus
    `price` times `kept` lost since the start."""
    gain: str = "composition"
    """Score that is to rise: a headline column, a named average or a part."""
    kept: str = "recognition"
    """Score that is to be kept, named likewise."""
    price: Factor = 1.0
    """Points gained that a point lost costs in the joint score, 0 or more."""


@dataclass(frozen=True)
class StopConfig(Checked, section="stop"):
    """When a run ends before its last step; the evaluations of `validation` decide."""

    max_forgetting: Factor | None = None
    """Largest loss of `validation.kept` since the start, 0 or more points; a checkpoint that lost more is never the
    best. None by default: any loss."""
    patience: AtLeastOne | None = None
    """Evaluations in a row without a better score that end the run, 1 or more; none by default: it never ends so."""


@dataclass(frozen=True)
class TrackingConfig(Checked, section="tracking"):
    """What is written down while training."""

    every_steps: AtLeastOne = 10
    """Steps between two lines of metrics.jsonl, 1 or more."""
    progress: bool = True
    """Show a progress bar, or lines where stderr is no terminal; true or false."""
    trackers: tuple[str, ...] = ()
    """Names of accelerate trackers to feed besides metrics.jsonl: tensorboard, wandb, mlflow, ..."""


@dataclass(frozen=True)
class L2SPConfig(Checked, section="l2_sp"):
    """L2-SP: a penalty on the squared distance of the trained weights from those that the run started with."""

    weight: Factor = 0.0
    """Factor of the penalty, >= 0; 0 for none (1 in arXiv 2503.04229)."""
    importance: Literal["adaptive", "equal"] = "adaptive"
    """What each weight counts: by the gradient of the replayed pairs in this step, as in arXiv 2503.04229, or all alike
    (L2-SP, arXiv 1802.01483); "adaptive" or "equal"."""
