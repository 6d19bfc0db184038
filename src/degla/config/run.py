"""`TrainConfig`, with its rehearsal and its checks. Each field is a flag; recipes are instances of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from degla.config.sections import (
    CheckpointConfig,
    DataConfig,
    LoopConfig,
    OptimConfig,
    StopConfig,
    TrackingConfig,
    ValidationConfig,
)
from degla.errors import InputError
from degla.model.adapters import AdapterConfig
from degla.model.attack import AttackConfig
from degla.model.teacher import TeacherConfig
from degla.objectives._sum import Terms, terms
from degla.training.anchor import AnchorConfig


@dataclass(frozen=True)
class RehearsalConfig:
    """A second stream of pairs, often generated ones, that joins every step with an objective of its own."""

    data: DataConfig = field(default_factory=lambda: DataConfig(negatives_per_caption=0))
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
    data: DataConfig = field(default_factory=DataConfig)
    objective: Terms = field(default_factory=terms)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

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
