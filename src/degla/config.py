"""`TrainConfig`: everything that a training run is made of. Each field is a flag; recipes are instances of it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from degla.errors import InputError
from degla.model.adapters import AdapterConfig
from degla.model.attack import AttackConfig
from degla.model.teacher import TeacherConfig
from degla.objectives._sum import Terms, term_class, terms
from degla.shelf import did_you_mean
from degla.training.anchor import AnchorConfig


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
    """First blocks of the image tower, and what comes before them, that are not trained; below 0: all but the last
    so many."""
    freeze_text_blocks: int = 0
    """First blocks of the text tower, and what comes before them, that are not trained; below 0: all but the last
    so many."""
    average: float | None = None
    """Share of the tuned weights in their average with the model before training (WiSE-FT, arXiv 2109.01903), above 0
    to 1: what is evaluated and kept for use is the average; none, like 1, keeps the tuned weights."""


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
    """What decides which checkpoint is the best: a named average of the benchmarks, or "joint": `gain` gained minus
    `price` times `kept` lost since the start."""
    gain: str = "composition"
    """Score that is to rise: a headline column, a named average or a part."""
    kept: str = "recognition"
    """Score that is to be kept, named likewise."""
    price: float = 1.0
    """Points gained that a point lost costs in the joint score, 0 or more."""


@dataclass(frozen=True)
class StopConfig:
    """When a run ends before its last step; the evaluations of `validation` decide."""

    max_forgetting: float | None = None
    """Largest loss of `validation.kept` since the start, 0 or more points; a checkpoint that lost more is never the
    best. None by default: any loss."""
    patience: int | None = None
    """Evaluations in a row without a better score that end the run, 1 or more; none by default: it never ends so."""


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
class RehearsalConfig:
    """A second stream of pairs, often generated ones, that joins every step with an objective of its own."""

    data: DataConfig = DataConfig(negatives_per_caption=0)
    """Its captions and images; each flag is that of --data with another beginning."""
    batch_size: int | None = None
    """Its pairs of a step over all processes, 1 or more; as many as `train.batch_size` by default."""
    objective: Terms = field(default_factory=terms)
    """Its terms, added to the objective; all have weight 0 where a recipe does not rehearse."""

    @property
    def active(self) -> bool:
        """Whether a term has a weight."""
        return any(term.weight > 0 for term in self.objective.values())

    @property
    def needs_teacher(self) -> bool:
        """Whether a term with a weight reads the teacher."""
        return any(term.weight > 0 and term.needs for term in self.objective.values())

    def stream(self, config: TrainConfig) -> TrainConfig:
        """The configuration of the second stream alone: its data, batch and objective in a run's places of them, and
        no attack on its images.
        """
        loop = dataclasses.replace(config.train, batch_size=self.batch_size or config.train.batch_size)
        return dataclasses.replace(
            config, data=self.data, objective=self.objective, train=loop, rehearsal=RehearsalConfig(),
            anchor=AnchorConfig(), attack=AttackConfig(),
        )  # fmt: skip

    def check(self, config: TrainConfig) -> None:
        """Refuse what cannot be meant, with the names that its flags have; see `TrainConfig.check`."""
        if self.active:
            with self.named():
                self.stream(config).check()
        elif self.data.captions is not None or self.data.images is not None:
            raise InputError(
                "--rehearsal.data is given, but no term of --rehearsal.objective has a weight: pairs would be read for "
                "nothing. Give a term a weight, or leave the data out."
            )

    @staticmethod
    @contextmanager
    def named() -> Iterator[None]:
        """Errors about the second stream name its flags, not those of the first."""
        try:
            yield
        except InputError as error:
            told = str(error).replace("--data.", "--rehearsal.data.").replace("--train.batch", "--rehearsal.batch")
            raise InputError(f"rehearsal: {told}") from None


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
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = OptimConfig()
    train: LoopConfig = LoopConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    stop: StopConfig = StopConfig()
    tracking: TrackingConfig = TrackingConfig()

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            InputError: names the flag, its value and what is allowed.
        """
        rehearsed = 1 if self.rehearsal.batch_size is None else self.rehearsal.batch_size
        share = 1.0 if self.train.average is None else self.train.average
        rules: list[tuple[str, float, bool, str]] = [
            ("train.batch-size", self.train.batch_size, self.train.batch_size >= 1, "1 or more"),
            ("train.epochs", self.train.epochs, self.train.epochs >= 1, "1 or more"),
            ("train.chunk-size", self.train.chunk_size or 1, (self.train.chunk_size or 1) >= 1, "1 or more"),
            ("attack.epsilon", self.attack.epsilon, 0 <= self.attack.epsilon <= 1, "from 0 to 1"),
            ("attack.steps", self.attack.steps, self.attack.steps >= 1, "1 or more"),
            ("attack.step-size", self.attack.step_size, self.attack.step_size > 0, "above 0"),
            ("attack.momentum", self.attack.momentum, 0 <= self.attack.momentum < 1, "0 or more and below 1"),
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
            ("rehearsal.batch-size", rehearsed, rehearsed >= 1, "1 or more"),
            ("anchor.weight", self.anchor.weight, self.anchor.weight >= 0, "0 or more"),
            ("train.average", share, 0 < share <= 1, "above 0 and at most 1"),
            ("validation.price", self.validation.price, self.validation.price >= 0, "0 or more"),
            ("stop.max-forgetting", self.stop.max_forgetting or 0, (self.stop.max_forgetting or 0) >= 0, "0 or more"),
            ("stop.patience", self.stop.patience or 0, self.stop.patience is None or self.stop.patience >= 1,
             "1 or more"),
            ("tracking.every-steps", self.tracking.every_steps, self.tracking.every_steps >= 1, "1 or more"),
        ]  # fmt: skip
        for flag, value, good, allowed in rules:
            if not good:
                raise InputError(f"--{flag} is {value}; it must be {allowed}.")
        if self.attack.epsilon and self.train.strategy == "fsdp":
            raise InputError("--train.strategy fsdp does not go together with --attack.epsilon; use ddp.")
        if self.data.class_template.count("{}") != 1:
            raise InputError(f"--data.class-template is {self.data.class_template!r}; it must hold {{}} once.")
        if not self.validation.benchmarks:
            for flag, limit in (("max-forgetting", self.stop.max_forgetting), ("patience", self.stop.patience)):
                if limit is not None:
                    raise InputError(
                        f"--stop.{flag} {limit:g} needs evaluations: give --validation.benchmarks NAME ... and "
                        "--validation.root FOLDER."
                    )
        if self.data.captions is None:
            raise InputError("no captions: give --data.captions FILE.")
        if self.data.images is None:
            raise InputError("no images: give --data.images FOLDER, the folder that image paths are relative to.")
        if self.out is None:
            raise InputError("no place for the run: give --out FOLDER.")
        self.rehearsal.check(self)
        if self.anchor.weight and self.anchor.importance == "adaptive" and not self.rehearsal.active:
            raise InputError(
                '--anchor.importance "adaptive" weighs parameters by the gradient of the rehearsal, and no term of '
                "--rehearsal.objective has a weight; give one, or --anchor.importance equal."
            )


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
    config: TrainConfig = _build(TrainConfig, values, where=where)
    return config


def _build_terms(values: dict[str, Any], *, where: str) -> Terms:
    built = {name: _build(term_class(name), chosen, where=f"{where}.{name}") for name, chosen in values.items()}
    return terms(**built)


def _build(kind: type[Any], values: dict[str, Any], *, where: str) -> Any:
    hints = get_type_hints(kind)
    known = {entry.name for entry in dataclasses.fields(kind)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}.{did_you_mean(name, known)}")
        hint = hints[name]
        if hint == Terms:
            arguments[name] = _build_terms(value, where=f"{where}: {name}")
        elif dataclasses.is_dataclass(hint):
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
