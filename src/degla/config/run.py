"""`TrainConfig`, with its rehearsal and its checks. Each field is a flag; recipes are instances of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from degla.config.sections import (
    AnchorConfig,
    CheckpointConfig,
    DataConfig,
    LoopConfig,
    OptimConfig,
    StopConfig,
    TrackingConfig,
    ValidationConfig,
)
from degla.errors import InputError
from degla.losses.core.objective import LossesByName, losses_by_name
from degla.model.adapters import AdapterConfig
from degla.model.attack import AttackConfig
from degla.model.teacher import TeacherConfig
from degla.ranges import AtLeastOne, Checked
from degla.shelf import DRAWS, RECIPES


@dataclass(frozen=True)
class RehearsalConfig(Checked, section="rehearsal"):
    """A second stream of pairs, often generated ones, that joins every step with an objective of its own."""

    data: DataConfig = field(default_factory=lambda: DataConfig(negatives_per_caption=0))
    """Its captions and images; each flag is that of --data with another beginning."""
    batch_size: AtLeastOne | None = None
    """Its pairs of a step over all processes, 1 or more; as many as `train.batch_size` by default."""
    objective: LossesByName = field(default_factory=losses_by_name)
    """Its losses, added to the objective; all have weight 0 where a recipe does not rehearse."""

    @property
    def active(self) -> bool:
        """Whether a loss has a weight."""
        return any(loss.weight > 0 for loss in self.objective.values())

    @property
    def needs_teacher(self) -> bool:
        """Whether a loss with a weight reads the teacher."""
        return any(loss.weight > 0 and loss.needs for loss in self.objective.values())

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
                "--rehearsal.data is given, but no loss of --rehearsal.objective has a weight: pairs would be read for "
                "nothing. Give a loss a weight, or leave the data out."
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
class TrainConfig(Checked, section=""):
    """A training run. Recipes on the shelf `recipes` return instances of it."""

    recipe: str = ""
    """Name of the recipe that this configuration came from."""
    model: str = "ViT-B-32-quickgelu:openai"
    """Model to fine-tune, in any form that `degla` takes."""
    out: Path | None = None
    """Folder of the run."""
    data: DataConfig = field(default_factory=DataConfig)
    objective: LossesByName = field(default_factory=losses_by_name)
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
        """Refuse settings that do not go together, and a run without data or a place; ranges are held by the types.

        Raises:
            InputError: names the flag, its value and what is allowed.
        """
        if self.attack.epsilon and self.train.strategy == "fsdp":
            raise InputError("--train.strategy fsdp does not go together with --attack.epsilon; use ddp.")
        DRAWS.require(self.data.draw)
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
                '--anchor.importance "adaptive" weighs parameters by the gradient of the rehearsal, and no loss of '
                "--rehearsal.objective has a weight; give one, or --anchor.importance equal."
            )


def recipe_config(name: str) -> TrainConfig:
    """The configuration of a recipe, by its name on the shelf.

    Raises:
        InputError: there is no such recipe; the message lists those that exist.
    """
    config: TrainConfig = getattr(RECIPES.load(name), name)()
    return config
