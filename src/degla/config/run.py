"""`TrainConfig`, with its two streams of pairs and its checks. Each field is a flag; recipes are instances of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from degla.config.sections import (
    CheckpointConfig,
    DataConfig,
    L2SPConfig,
    LoopConfig,
    OptimConfig,
    StopConfig,
    TrackingConfig,
    ValidationConfig,
)
from degla.errors import InputError
from degla.inputs import with_sources
from degla.losses.core.embeddings import TeacherPart
from degla.losses.core.objective import LossesByName, losses_by_name
from degla.model.adapters import AdapterConfig
from degla.model.attack import AttackConfig
from degla.model.evidence import EvidenceConfig
from degla.model.teacher import TeacherConfig
from degla.model.token_mask import ViewsConfig
from degla.model.trained_along import PredictorConfig
from degla.ranges import AtLeastOne, Checked, Count
from degla.shelf import DRAWS, RECIPES


@dataclass(frozen=True)
class ReplayDataConfig(DataConfig, section="replay.data"):
    """Captions and images of the replayed pairs; each flag is that of --data with another beginning."""

    negatives_per_caption: Count = 0
    """K: negatives drawn a caption and epoch, 0 or more; none by default."""


@dataclass(frozen=True)
class StreamConfig:
    """A stream of pairs that brings one batch to every step, and what is minimised on it.

    Attributes:
        data: of the pairs.
        objective: the losses by name.
        batch_size: pairs of a step over all processes.
        batch_flag: that sets it.
    """

    data: DataConfig
    objective: LossesByName
    batch_size: int
    batch_flag: str

    @property
    def reads(self) -> frozenset[str]:
        """The optional inputs that the losses with a weight read, and those that these are made of."""
        return with_sources(
            frozenset[str]().union(*(loss.reads for loss in self.objective.values() if loss.weight > 0))
        )

    @property
    def needs(self) -> frozenset[TeacherPart]:
        """The parts of the teacher's embeddings that they read."""
        return frozenset[TeacherPart]().union(*(loss.needs for loss in self.objective.values() if loss.weight > 0))

    def check(self) -> None:
        """Refuse data that are not given, or settings of them that do not exist."""
        data = self.data
        DRAWS.require(data.draw)
        if data.class_template.count("{}") != 1:
            flag = data.flag("class_template")
            raise InputError(f"{flag} is {data.class_template!r}; it must hold {{}} once.")
        if data.captions is None:
            raise InputError(f"no captions: give {data.flag('captions')} FILE.")


@dataclass(frozen=True)
class ReplayConfig(Checked, section="replay"):
    """A second stream of pairs, often generated ones, that joins every step with an objective of its own."""

    data: ReplayDataConfig = field(default_factory=ReplayDataConfig)
    batch_size: AtLeastOne | None = None
    """Its pairs of a step over all processes, 1 or more; as many as `train.batch_size` by default."""
    objective: LossesByName = field(default_factory=losses_by_name)
    """Its losses, added to the objective; all have weight 0 where a recipe replays nothing."""
    alternate: bool = False
    """Take every other step on these pairs alone, beginning with the second, in place of adding their losses to every
    step (CLIC); true or false."""

    @property
    def active(self) -> bool:
        """Whether a loss has a weight."""
        return any(loss.weight > 0 for loss in self.objective.values())


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
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    l2_sp: L2SPConfig = field(default_factory=L2SPConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def pairs(self) -> StreamConfig:
        """The stream of pairs that a run is about."""
        return StreamConfig(self.data, self.objective, self.train.batch_size, "--train.batch-size")

    @property
    def streams(self) -> tuple[StreamConfig, ...]:
        """The pairs that a run is about, and those that it replays, if any."""
        return (self.pairs,) if self.replayed is None else (self.pairs, self.replayed)

    @property
    def replayed(self) -> StreamConfig | None:
        """The second stream; None where nothing is replayed."""
        size = self.replay.batch_size or self.train.batch_size
        replay = self.replay
        return StreamConfig(replay.data, replay.objective, size, "--replay.batch-size") if replay.active else None

    @property
    def reads_base(self) -> bool:
        """Whether a resumed run computes with the model that it began with, which its checkpoints do not hold."""
        return self.adapter.active or bool(self.l2_sp.weight) or self.train.embed_images_once

    def check(self) -> None:
        """Refuse settings that do not go together, and a run without data or a place; ranges are held by the types.

        Raises:
            InputError: names the flag, its value and what is allowed.
        """
        if self.attack.epsilon and self.train.strategy == "fsdp":
            raise InputError("--train.strategy fsdp does not go together with --attack.epsilon; use ddp.")
        if self.views.left_out:
            self._check_views()
        if not self.validation.benchmarks:
            for flag, limit in (("max-forgetting", self.stop.max_forgetting), ("patience", self.stop.patience)):
                if limit is not None:
                    raise InputError(
                        f"--stop.{flag} {limit:g} needs evaluations: give --validation.benchmarks NAME ... and "
                        "--validation.root FOLDER."
                    )
        for stream in self.streams:
            stream.check()
        if self.replayed is not None and "evidence" in self.replayed.reads:
            raise InputError(
                "--replay.objective.evidence-contrast.weight: replayed images have no part with evidence; set it to 0."
            )
        if self.train.embed_images_once:
            self._check_embedded_once()
        if self.out is None:
            raise InputError("no place for the run: give --out FOLDER.")
        if not self.replay.active and any(isinstance(value, Path) for value in vars(self.replay.data).values()):
            raise InputError(
                "--replay.data is given, but no loss of --replay.objective has a weight: pairs would be read for "
                "nothing. Give a loss a weight, or leave the data out."
            )
        if self.replay.alternate and self.l2_sp.weight and self.l2_sp.importance == "adaptive":
            raise InputError(
                '--l2-sp.importance "adaptive" weighs parameters by the gradient of the replayed pairs in every step, '
                "and with --replay.alternate every other step has none; give --l2-sp.importance equal."
            )
        if self.l2_sp.weight and self.l2_sp.importance == "adaptive" and not self.replay.active:
            raise InputError(
                '--l2-sp.importance "adaptive" weighs parameters by the gradient of the replayed pairs, and no loss of '
                "--replay.objective has a weight; give one, or --l2-sp.importance equal."
            )

    def _check_views(self) -> None:
        """Refuse what does not go together with images of which the student reads a part."""
        if self.views.by != "random" and not self.pairs.needs:
            raise InputError(
                f'--views.by "{self.views.by}" asks the teacher, and no loss reads one; give view_contrast a weight, '
                "or take --views.by random."
            )
        _refuse("--views.left-out", (
            (bool(self.attack.epsilon), "--attack.epsilon attacks whole images; set it to 0"),
            ("tokens" in self.pairs.reads, "a loss reads the image tower's outputs for patches; give it weight 0"),
            ("evidence" in self.pairs.reads, "a loss reads parts of images with evidence; give it weight 0"),
        ))  # fmt: skip

    def _check_embedded_once(self) -> None:
        """Refuse what needs the pixels at each step."""
        streams = [stream.reads | stream.needs for stream in self.streams]
        _refuse("--train.embed-images-once", (
            (self.train.train_image_tower, "the image tower is trained; leave it as it is with "
             "--train.no-train-image-tower"),
            (bool(self.attack.epsilon), "--attack.epsilon moves the pixels at each step; set it to 0"),
            (bool(self.views.left_out), "--views.left-out draws other patches at each step; set it to 0"),
            # Rows with patches hold the image's embedding as it came; those without hold it at length one.
            (any("raw_image" in reads and "tokens" not in reads for reads in streams),
             "a loss reads image embeddings of any length; give it weight 0"),
            (any("evidence" in reads for reads in streams),
             "a loss reads parts of images with evidence; give it weight 0"),
        ))  # fmt: skip


def _refuse(flag: str, reasons: Iterable[tuple[bool, str]]) -> None:
    """Refuse a flag that does not go together with something else: what it is and what to do about it."""
    for there, why in reasons:
        if there:
            raise InputError(f"{flag}: {why}, or leave this flag out.")


def recipe_config(name: str) -> TrainConfig:
    """The configuration of a recipe, by its name on the shelf.

    Raises:
        InputError: there is no such recipe; the message lists those that exist.
    """
    config: TrainConfig = RECIPES.member(name, name)()
    return config
