"""`TrainConfig`: everything that a training run is made of. Each field is a flag; recipes are instances of it."""

from __future__ import annotations

import dataclasses
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from degla.errors import InputError
from degla.model.adapters import AdapterConfig
from degla.model.teacher import TeacherConfig
from degla.objectives._sum import Terms, term_class, terms
from degla.shelf import did_you_mean


@dataclass(frozen=True)
class DataConfig:
    """Image-caption pairs and their negatives."""

    captions: Path | None = None
    """File of captions: COCO json, JSONL, Parquet, CSV/TSV, a `datasets` folder, or the published DeGLA json."""
    images: Path | None = None
    """Folder that the image paths are relative to."""
    negatives: Path | None = None
    """File of negatives, joined by caption id: JSONL or Parquet of `degla negatives`, or the published DeGLA json."""
    format: str = "auto"
    """Format of the captions file: auto, coco, jsonl, parquet, csv, tsv, datasets or degla."""
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
    negatives_per_caption: int = 4
    """K: negatives drawn a caption and epoch, 0 or more (4 in arXiv 2504.16801)."""
    rules: tuple[str, ...] = ()
    """Rules whose negatives are used; those of all rules by default."""
    positives: Literal["column", "same_image"] = "column"
    """Where further true texts come from: the field positives, or other captions; "column" or "same_image"."""
    positives_per_caption: int = 1
    """P: further true texts drawn a caption and epoch where a term reads them, 1 or more."""
    partner_negative: bool = False
    """Take each row's partner_text as its one negative, in place of a file of negatives; true or false."""
    classes: Path | None = None
    """File of class names, one a line or a JSON list, where a term reads classes; the field label names one."""
    class_template: str = "a photo of a {}."
    """How a class becomes a text: {} stands for its name ("a photo of a {}." in GIFT)."""
    neighbours: Path | None = None
    """File of similar images, written by `degla neighbours`."""
    neighbours_per_pair: int = 0
    """Pairs of similar images that join the batch beside each of its pairs, 0 or more (1 in NegCLIP)."""
    bad_images: Literal["stop", "skip"] = "stop"
    """What a missing or damaged image does: end the run, or leave its rows out and say so; "stop" or "skip"."""
    duplicates: Literal["allow", "avoid", "mask"] = "avoid"
    """Two captions of one image in a batch: allow, avoid by order, or mask as negatives; "allow", "avoid", "mask"."""
    smallest_crop: float = 0.9
    """Smallest share of the image's area that a random crop keeps, above 0 to 1 (0.9 in all compared papers)."""
    scaled_decoding: bool = True
    """Decode JPEG files at no more than the resolution that the crop needs; true or false."""
    workers: int = 0
    """Processes that decode images beside the training process, 0 or more."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay."""

    lr: float = 1e-6
    """Largest learning rate, > 0 (1e-6 in arXiv 2504.16801)."""
    weight_decay: float = 0.1
    """Decay of matrices; vectors, biases and the scale have none; >= 0 (0.1 in arXiv 2504.16801)."""
    beta1: float = 0.9
    """Adam's first decay rate, 0 to 1."""
    beta2: float = 0.98
    """Adam's second decay rate, 0 to 1 (0.98 in CLIP, arXiv 2103.00020)."""
    eps: float = 1e-6
    """Adam's epsilon, > 0 (1e-6 in CLIP)."""
    warmup_steps: int = 50
    """Steps of linear warm-up, 0 or more (50 in NegCLIP and arXiv 2504.16801)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: down to 0 along half a cosine, or constant; "cosine" or "constant"."""
    clip_norm: float | None = None
    """Largest norm of the gradient, > 0; none by default (no published recipe clips)."""
    max_scale: float = 100.0
    """Largest scale (1 / temperature) after each step, > 1 (100 in CLIP)."""


@dataclass(frozen=True)
class LoopConfig:
    """Length, batch, precision and seed."""

    batch_size: int = 256
    """Pairs of the global batch, over all processes, 1 or more (256 in arXiv 2504.16801)."""
    epochs: int = 5
    """Passes over the pairs, 1 or more; ignored where `steps` is given (5 in arXiv 2504.16801)."""
    steps: int | None = None
    """Optimiser steps of the whole run; `epochs` passes by default."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast: bf16 where the device computes it natively (auto), or as named; weights stay fp32."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Several processes hold whole copies of the model, or a slice of each parameter; "ddp" or "fsdp"."""
    chunk_size: int | None = None
    """Pairs of a process embedded at a time, 1 or more: gradients of the whole batch in the memory of so many."""
    trim: bool = True
    """Compute no padding and no shared beginning of texts twice, where that is exact; true or false."""
    compile: bool = False
    """Compile both towers with torch.compile (needs a C++ compiler on CPUs); true or false."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, for less memory and a third more time; true or false."""
    seed: int = 0
    """Seed of order, crops and draws of negatives, 0 or more."""
    train_image_tower: bool = True
    """Train the image tower; true or false."""
    train_text_tower: bool = True
    """Train the text tower; true or false."""
    train_scale: bool = True
    """Train the scale; true or false."""
    freeze_image_blocks: int = 0
    """First blocks of the image tower, and what comes before them, that are not trained; 0 or more."""
    freeze_text_blocks: int = 0
    """First blocks of the text tower, and what comes before them, that are not trained; 0 or more."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run's state is written, and how much of it is kept."""

    every_steps: int = 0
    """Write a checkpoint every that many steps; 0 for only at the end of an epoch and of the run."""
    every_minutes: float = 30.0
    """Write a checkpoint when the last is older than that many minutes; 0 for never."""
    keep: int = 2
    """Newest checkpoints that are kept besides the best one; 0 keeps all."""


@dataclass(frozen=True)
class ValidationConfig:
    """Evaluation during training, to know and keep the best checkpoint."""

    benchmarks: tuple[str, ...] = ()
    """Benchmarks of the shelf to run; none by default."""
    root: Path | None = None
    """Folder that holds their data."""
    every_steps: int = 0
    """Steps between evaluations; 0 for only at checkpoints at the end of an epoch."""
    score: str = "composition"
    """Named average that decides which checkpoint is the best; a name that the benchmarks define."""


@dataclass(frozen=True)
class TrackingConfig:
    """What is written down while training."""

    every_steps: int = 10
    """Steps between two lines of metrics.jsonl, 1 or more."""
    progress: bool = True
    """Show a progress bar, or lines where stderr is no terminal; true or false."""
    trackers: tuple[str, ...] = ()
    """Names of accelerate trackers to feed besides metrics.jsonl: tensorboard, wandb, mlflow, ..."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Recipes on the shelf `recipes` return instances of it."""

    recipe: str = ""
    """Name of the recipe that this configuration came from."""
    model: str = "ViT-B-32-quickgelu:openai"
    """Model to fine-tune, in any form that `degla` takes."""
    out: Path | None = None
    """Folder of the run."""
    data: DataConfig = DataConfig()
    objective: Terms = field(default_factory=terms)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = OptimConfig()
    train: LoopConfig = LoopConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    tracking: TrackingConfig = TrackingConfig()

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            InputError: names the flag, its value and what is allowed.
        """
        rules: list[tuple[str, float, bool, str]] = [
            ("train.batch-size", self.train.batch_size, self.train.batch_size >= 1, "1 or more"),
            ("train.epochs", self.train.epochs, self.train.epochs >= 1, "1 or more"),
            ("train.chunk-size", self.train.chunk_size or 1, (self.train.chunk_size or 1) >= 1, "1 or more"),
            ("train.freeze-image-blocks", self.train.freeze_image_blocks, self.train.freeze_image_blocks >= 0,
             "0 or more"),
            ("train.freeze-text-blocks", self.train.freeze_text_blocks, self.train.freeze_text_blocks >= 0,
             "0 or more"),
            ("adapter.rank", self.adapter.rank, self.adapter.rank >= 0, "0 or more"),
            ("adapter.alpha", self.adapter.alpha, self.adapter.alpha > 0, "above 0"),
            ("train.steps", self.train.steps or 1, (self.train.steps or 1) >= 1, "1 or more"),
            ("optim.lr", self.optim.lr, self.optim.lr > 0, "above 0"),
            ("optim.warmup-steps", self.optim.warmup_steps, self.optim.warmup_steps >= 0, "0 or more"),
            ("optim.max-scale", self.optim.max_scale, self.optim.max_scale > 1, "above 1"),
            ("data.negatives-per-caption", self.data.negatives_per_caption, self.data.negatives_per_caption >= 0,
             "0 or more"),
            ("data.positives-per-caption", self.data.positives_per_caption, self.data.positives_per_caption >= 1,
             "1 or more"),
            ("data.neighbours-per-pair", self.data.neighbours_per_pair, self.data.neighbours_per_pair >= 0,
             "0 or more"),
            ("data.smallest-crop", self.data.smallest_crop, 0 < self.data.smallest_crop <= 1, "above 0 and at most 1"),
            ("data.workers", self.data.workers, self.data.workers >= 0, "0 or more"),
            ("tracking.every-steps", self.tracking.every_steps, self.tracking.every_steps >= 1, "1 or more"),
        ]  # fmt: skip
        for flag, value, good, allowed in rules:
            if not good:
                raise InputError(f"--{flag} is {value}; it must be {allowed}.")
        if self.data.class_template.count("{}") != 1:
            raise InputError(f"--data.class-template is {self.data.class_template!r}; it must hold {{}} once.")
        if self.data.captions is None:
            raise InputError("no captions: give --data.captions FILE.")
        if self.data.images is None:
            raise InputError("no images: give --data.images FOLDER, the folder that image paths are relative to.")
        if self.out is None:
            raise InputError("no place for the run: give --out FOLDER.")


def to_plain(config: Any) -> Any:
    """A configuration as JSON values: dataclasses to objects, paths to strings, tuples to lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {name: to_plain(value) for name, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_plain(values: dict[str, Any], *, where: str) -> TrainConfig:
    """Rebuild a configuration from its JSON values.

    Args:
        values: what `to_plain` gave.
        where: names the file in messages.

    Raises:
        InputError: an unknown field or a value of the wrong type, with the field's name.
    """
    values = dict(values)
    objective = {
        name: _build(term_class(name), chosen, where=f"{where}: objective.{name}")
        for name, chosen in dict(values.pop("objective", {})).items()
    }
    config: TrainConfig = _build(TrainConfig, values, where=where)
    return dataclasses.replace(config, objective=terms(**objective))


def _build(kind: type[Any], values: dict[str, Any], *, where: str) -> Any:
    hints = get_type_hints(kind)
    known = {entry.name for entry in dataclasses.fields(kind)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}.{did_you_mean(name, known)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            arguments[name] = _build(hint, value, where=f"{where}: {name}")  # type: ignore[arg-type]
        elif value is not None and (hint is Path or (isinstance(hint, types.UnionType) and Path in hint.__args__)):
            arguments[name] = Path(value)
        elif isinstance(value, list):
            arguments[name] = tuple(value)
        else:
            arguments[name] = value
    return kind(**arguments)


def flags(config: Any, *, prefix: str = "") -> dict[str, bool]:
    """Names of all flags of a configuration, without dashes in front, and whether each is a true-or-false switch."""
    values = to_plain(config)
    if isinstance(values, dict):
        found: dict[str, bool] = {}
        for name, value in values.items():
            found |= flags(value, prefix=f"{prefix}.{name}" if prefix else name)
        return found
    return {prefix.replace("_", "-"): isinstance(values, bool)}


def differences(old: Any, new: Any, *, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Flags whose values differ between two configurations: (name, old value, new value)."""
    old, new = to_plain(old), to_plain(new)
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[tuple[str, Any, Any]] = []
        for name in sorted(old.keys() | new.keys()):
            path = f"{prefix}.{name}" if prefix else name
            found += differences(old.get(name), new.get(name), prefix=path)
        return found
    return [] if old == new else [(prefix.replace("_", "-"), old, new)]
