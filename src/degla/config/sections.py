"""Sections of a run's configuration: data, optimiser, loop, checkpoints, validation, stop, tracking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval

from degla.data.places import base_of
from degla.ranges import AnyWhole, AtLeastOne, Checked, Count, DecayRate, Factor, Positive, PositiveShare, Seed

if TYPE_CHECKING:
    from degla.data.columns import Columns


@dataclass(frozen=True)
class DataConfig(Checked, section="data"):
    """Image-caption pairs and their negatives."""

    captions: Path | None = None
    """Captions file: COCO or Karpathy's json, JSONL, JSON list, Parquet, CSV/TSV, a `datasets` folder, the published
    DeGLA json; or files with captions and images: WebDataset or img2dataset tars, Parquet (a folder, or
    "shards/{00000..00099}.tar")."""
    images: Path | None = None
    """Folder that the image paths are relative to; the captions file's folder by default."""
    negatives: Path | None = None
    """Negatives file, joined by caption id: JSONL or Parquet from `degla negatives`, or the published DeGLA json."""
    format: str = "auto"
    """Format of the captions file: auto, coco, karpathy, json, jsonl, parquet, csv, tsv, datasets, degla, cs_clip or
    webdataset."""
    split: tuple[str, ...] = ()
    """Splits to read from Karpathy's json, for example train restval; "all" reads all."""
    id_column: str = "id"
    """Column of the caption id (JSONL, Parquet, CSV)."""
    image_column: str = "image"
    """Column of the image path."""
    text_column: str = "text"
    """Column of the caption."""
    image_id_column: str = "image_id"
    """Column of the image id, equal for captions of one image; the image path if the column is missing."""
    image_pattern: str = "COCO_train2014_{image_id:012d}.jpg"
    """Image file name for the published DeGLA json, as a format string of image_id."""
    negatives_per_caption: Count = 4
    """K: negatives drawn per caption and epoch, 0 or more (4 in arXiv 2504.16801)."""
    draw: str = "random"
    """How K of a caption's negatives are chosen in each epoch: random, first, by_rule, by_score, or your own file in
    the folder of draws (random in the DeGLA paper, first in its released code)."""
    negatives_share: PositiveShare = 1.0
    """Share of the captions, redrawn in each epoch, that use their negatives, above 0 to 1."""
    rules: tuple[str, ...] = ()
    """Rules whose negatives are used; all rules by default."""
    positives: Literal["column", "same_image", "both"] = "column"
    """Source of positives, additional true texts: the field positives; other captions of the same image; or these and
    the fields positives of all captions of the image (READ-CLIP); "column", "same_image" or "both"."""
    positives_file: Path | None = None
    """File of positives from `degla negatives --positives`, added by caption id to those of the column."""
    positives_per_caption: AtLeastOne = 1
    """P: positives drawn per caption and epoch if a loss reads them, 1 or more."""
    distractor_negative: bool = False
    """Use each row's distractor_text as its only negative, instead of a negatives file; true or false."""
    classes: Path | None = None
    """File of class names, one per line or a JSON list, for losses that read classes; the field label refers to one."""
    class_template: str = "a photo of a {}."
    """Prompt template for class names, with {} for the name ("a photo of a {}." in GIFT)."""
    decoder: Path | None = None
    """Folder of a frozen T5-like decoder and its tokenizer, in transformers format, for losses that reconstruct texts
    from a caption's state."""
    neighbours: Path | None = None
    """File of similar images, from `degla neighbours`, or NegCLIP's table."""
    neighbours_per_pair: Count = 0
    """Pairs of similar images added to the batch for each of its pairs, 0 or more (1 in NegCLIP)."""
    bad_images: Literal["stop", "skip"] = "stop"
    """What to do about a missing or damaged image: stop the run, or skip its rows and report them; "stop" or "skip"."""
    duplicates: Literal["allow", "avoid", "mask"] = "avoid"
    """Captions of the same image in one batch: allow, avoid by ordering, or mask, so that they are not each other's
    negatives; "allow", "avoid" or "mask"."""
    order: Literal["rows", "shards"] = "rows"
    """Order of an epoch: all rows shuffled; or the shards (tars or Parquet files) shuffled and the rows of eight at a
    time, so that a remote shard is copied once per epoch instead of one request per image; "rows" or "shards"."""
    smallest_crop: PositiveShare = 0.9
    """Smallest share of the image's area that a random crop keeps, above 0 to 1 (0.9 in NegCLIP, CE-CLIP, FSC-CLIP and
    DeGLA)."""
    scaled_decoding: bool = True
    """Decode JPEG files at the lowest resolution that the crop needs; true or false."""
    workers: Count | Literal["auto"] = 0
    """Processes that decode images for each training process, 0 or more; "auto": by the available CPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Rows are in the file's order, so the same splits are the same rows: one cached table, and one run to resume.
        object.__setattr__(self, "split", tuple(sorted(set(self.split))))

    @property
    def image_folder(self) -> Path:
        """Folder that image paths are relative to."""
        assert self.captions is not None
        return self.images or base_of(self.captions)

    @property
    def columns(self) -> Columns:
        """Column names of the captions file."""
        from degla.data.columns import Columns

        return Columns.of(self)


@dataclass(frozen=True)
class OptimConfig(Checked, section="optim"):
    """AdamW with warm-up and cosine decay."""

    lr: Positive = 1e-6
    """Peak learning rate, > 0 (1e-6 in arXiv 2504.16801)."""
    weight_decay: Factor = 0.1
    """Weight decay of matrices; vectors, biases and the logit scale have none; >= 0 (0.1 in arXiv 2504.16801)."""
    beta1: DecayRate = 0.9
    """Adam's beta1, 0 to below 1."""
    beta2: DecayRate = 0.98
    """Adam's beta2, 0 to below 1 (0.98 in CLIP, arXiv 2103.00020)."""
    eps: Positive = 1e-6
    """Adam's epsilon, > 0 (1e-6 in CLIP)."""
    warmup_steps: Count = 50
    """Steps of linear warm-up, 0 or more (50 in NegCLIP and arXiv 2504.16801)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate schedule after the warm-up: cosine decay to 0, or constant; "cosine" or "constant"."""
    clip_norm: Positive | None = None
    """Gradient clipping norm, > 0; none by default (1 in READ-CLIP and CS-CLIP; no other recipe clips)."""
    max_scale: Annotated[float, Interval(gt=1)] = 100.0
    """Largest logit scale (1 / temperature) after each step, > 1 (100 in CLIP); a sigmoid-loss model that starts with
    a larger scale keeps that as its maximum."""
    start_scale: Annotated[float, Interval(ge=1)] | None = None
    """Logit scale at the start of training, 1 or more (1 in LABCLIP); the model's own by default."""


@dataclass(frozen=True)
class LoopConfig(Checked, section="train"):
    """Length, batch, precision and seed."""

    batch_size: AtLeastOne = 256
    """Global batch size in pairs, over all processes, 1 or more (256 in arXiv 2504.16801)."""
    epochs: AtLeastOne = 5
    """Passes over the pairs, 1 or more; ignored if `steps` is given (5 in arXiv 2504.16801)."""
    steps: AtLeastOne | None = None
    """Optimiser steps of the whole run, 1 or more; `epochs` passes by default."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast precision: bf16 if the device supports it natively (auto), or as named; weights stay fp32."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Each process holds a full copy of the model, or a shard of each parameter; "ddp" or "fsdp"."""
    chunk_size: AtLeastOne | None = None
    """Gradient caching: pairs embedded at a time in each process, 1 or more. Gradients are those of the whole batch,
    with the memory of one chunk."""
    trim: bool = True
    """Skip padding and compute shared prefixes of texts only once, where that is exact; true or false."""
    compile: bool = False
    """Compile both towers with torch.compile (needs a C++ compiler on CPUs); true or false."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time; true or false."""
    seed: Seed = 0
    """Seed of data order, crops and draws of negatives, 0 or more."""
    train_image_tower: bool = True
    """Train the image tower; true or false."""
    embed_images_once: bool = False
    """With a frozen image tower, embed each whole image once instead of a random crop at every step; true or false."""
    train_text_tower: bool = True
    """Train the text tower; true or false."""
    train_scale: bool = True
    """Train the logit scale, and the bias of a sigmoid-loss model; true or false."""
    freeze_image_blocks: AnyWhole = 0
    """Number of first blocks of the image tower to freeze, with everything before them; -N freezes all but the last N
    blocks."""
    freeze_text_blocks: AnyWhole = 0
    """Number of first blocks of the text tower to freeze, with everything before them; -N freezes all but the last N
    blocks."""
    batch_norm: Literal["frozen", "update"] = "frozen"
    """BatchNorm statistics in trained towers: keep the model's, or update them with each batch, which costs zero-shot
    accuracy (docs/training.md); "frozen" or "update"."""
    average: PositiveShare | None = None
    """Share of the tuned weights in their average with the model before training (WiSE-FT, arXiv 2109.01903), above 0
    to 1; the average is evaluated and saved for use. None, like 1, keeps the tuned weights."""


@dataclass(frozen=True)
class CheckpointConfig(Checked, section="checkpoint"):
    """When checkpoints are written, and how many are kept."""

    every_steps: Count = 0
    """Steps between checkpoints, 0 or more; 0 writes them only at the end of each epoch and of the run."""
    every_minutes: Factor = 30.0
    """Minutes after which another checkpoint is written, 0 or more; 0 turns this off."""
    keep: Count = 2
    """Newest checkpoints to keep in addition to the best one, 0 or more; 0 keeps all."""


@dataclass(frozen=True)
class ValidationConfig(Checked, section="validation"):
    """Evaluation during training, to find and keep the best checkpoint."""

    benchmarks: tuple[str, ...] = ()
    """Benchmarks to run, see `degla ls benchmarks`; none by default."""
    root: Path | None = None
    """Folder with the benchmarks' data."""
    every_steps: Count = 0
    """Steps between evaluations, 0 or more; 0 evaluates only at the end of each epoch and of the run."""
    score: str = "composition"
    """Score that selects the best checkpoint: a named average of the benchmarks, or "joint", the gain in `gain` minus
    `price` times the loss in `kept` since the start."""
    gain: str = "composition"
    """Score to improve: a headline column, a named average or a part."""
    kept: str = "recognition"
    """Score to preserve, named likewise."""
    price: Factor = 1.0
    """Points of gain that offset one point lost in the joint score, 0 or more."""


@dataclass(frozen=True)
class StopConfig(Checked, section="stop"):
    """Early stopping, based on the evaluations of `validation`."""

    max_forgetting: Factor | None = None
    """Largest accepted drop of `validation.kept` since the start, 0 or more points; a larger drop ends the run, and
    its checkpoint is never the best. None, the default, accepts any drop."""
    patience: AtLeastOne | None = None
    """Consecutive evaluations without a better score after which the run stops, 1 or more; none, the default, never
    stops early."""


@dataclass(frozen=True)
class TrackingConfig(Checked, section="tracking"):
    """Metrics and progress during training."""

    every_steps: AtLeastOne = 10
    """Steps between lines of metrics.jsonl, 1 or more."""
    progress: bool = True
    """Show a progress bar, or log lines if stderr is not a terminal; true or false."""
    trackers: tuple[str, ...] = ()
    """Additional accelerate trackers: tensorboard, wandb, mlflow, ..."""


@dataclass(frozen=True)
class L2SPConfig(Checked, section="l2_sp"):
    """L2-SP: a penalty on the squared distance between the trained weights and their initial values."""

    weight: Factor = 0.0
    """Weight of the penalty, >= 0; 0 turns it off (1 in arXiv 2503.04229)."""
    importance: Literal["adaptive", "equal"] = "adaptive"
    """How parameters are weighted: by the gradient of the replayed pairs in this step, as in arXiv 2503.04229, or all
    equally (L2-SP, arXiv 1802.01483); "adaptive" or "equal"."""
