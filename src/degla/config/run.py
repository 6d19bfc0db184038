"""`TrainConfig` with its two streams of pairs and its checks. Each field is a flag; recipes return instances of it."""

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
from degla.shelf import BENCHMARKS, DRAWS, LOSSES, RECIPES


@dataclass(frozen=True)
class ReplayDataConfig(DataConfig, section="replay.data"):
    """Captions and images of the replayed pairs; the flags are those of --data with another prefix."""

    negatives_per_caption: Count = 0
    """K: negatives drawn per caption and epoch, 0 or more; none by default."""


@dataclass(frozen=True)
class StreamConfig:
    """A stream of pairs that supplies one batch per step, and the losses on it.

    Attributes:
        data: where the pairs come from.
        objective: the losses by name.
        batch_size: pairs per step, over all processes.
        batch_flag: flag that sets the batch size.
    """

    data: DataConfig
    objective: LossesByName
    batch_size: int
    batch_flag: str

    @property
    def reads(self) -> frozenset[str]:
        """Optional inputs that the losses with a weight read, and the inputs that these are computed from."""
        return with_sources(
            frozenset[str]().union(*(loss.reads for loss in self.objective.values() if loss.weight > 0))
        )

    @property
    def needs(self) -> frozenset[TeacherPart]:
        """Parts of the teacher's embeddings that the losses with a weight read."""
        return frozenset[TeacherPart]().union(*(loss.needs for loss in self.objective.values() if loss.weight > 0))

    @property
    def own_parts(self) -> dict[str, str]:
        """Digests of the user's own files that its batches and losses depend on, by name."""
        active = [name for name, loss in self.objective.items() if loss.weight > 0]
        # A model with a bias takes a loss's sigmoid form.
        return LOSSES.digests([*active, *map("sigmoid_{}".format, active)]) | DRAWS.digests([self.data.draw])

    def check(self) -> None:
        """Check that captions are given and that the data settings are valid."""
        data = self.data
        DRAWS.require(data.draw)
        if data.class_template.count("{}") != 1:
            flag = data.flag("class_template")
            raise InputError(f"{flag} is {data.class_template!r}; it must contain {{}} exactly once.")
        if data.captions is None:
            raise InputError(f"no captions: give {data.flag('captions')} FILE.")


@dataclass(frozen=True)
class ReplayConfig(Checked, section="replay"):
    """A second stream of pairs, often generated ones, that joins every step with its own objective."""

    data: ReplayDataConfig = field(default_factory=ReplayDataConfig)
    batch_size: AtLeastOne | None = None
    """Replayed pairs per step, over all processes, 1 or more; equal to `train.batch_size` by default."""
    objective: LossesByName = field(default_factory=losses_by_name)
    """Losses on the replayed pairs, added to the objective; all have weight 0 if a recipe replays nothing."""
    alternate: bool = False
    """Use only these pairs in every other step, starting with the second, instead of adding their losses to every step
    (CLIC); an epoch then uses half of the other pairs; true or false."""

    @property
    def active(self) -> bool:
        """Whether any loss has a weight."""
        return any(loss.weight > 0 for loss in self.objective.values())


@dataclass(frozen=True)
class TrainConfig(Checked, section=""):
    """A training run. Recipes on the shelf `recipes` return instances of it."""

    recipe: str = ""
    """Name of the recipe that this configuration came from."""
    model: str = "ViT-B-32-quickgelu:openai"
    """Model to fine-tune, any model that `degla` loads."""
    out: Path | None = None
    """Output folder of the run."""
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
        """The main stream of pairs."""
        return StreamConfig(self.data, self.objective, self.train.batch_size, "--train.batch-size")

    @property
    def streams(self) -> tuple[StreamConfig, ...]:
        """The main stream, and the replayed stream if there is one."""
        return (self.pairs,) if self.replayed is None else (self.pairs, self.replayed)

    @property
    def replayed(self) -> StreamConfig | None:
        """The replayed stream; None if nothing is replayed."""
        size = self.replay.batch_size or self.train.batch_size
        replay = self.replay
        return StreamConfig(replay.data, replay.objective, size, "--replay.batch-size") if replay.active else None

    @property
    def data_files(self) -> list[Path]:
        """Files of captions, negatives and classes of all streams."""
        files = [(each.data.captions, each.data.negatives, each.data.classes) for each in self.streams]
        return [file for group in files for file in group if file is not None]

    @property
    def own_parts(self) -> dict[str, str]:
        """Digests of the user's own files that the run depends on, by name; see `degla.shelf`."""
        digests = BENCHMARKS.digests(self.validation.benchmarks)
        for stream in self.streams:
            digests |= stream.own_parts
        return digests

    @property
    def reads_base(self) -> bool:
        """Whether a resumed run needs the model that it started from, which its checkpoints do not contain."""
        return self.adapter.active or bool(self.l2_sp.weight) or self.train.embed_images_once

    @property
    def unread(self) -> dict[str, str]:
        """Flags that the run does not read, or their sections (with a dot at the end), and the reason for each."""
        own, steps = self.pairs.reads, self.train.steps
        unread = {
            "replay.": (not self.replay.active, "no loss of --replay.objective has a weight"),
            "teacher.": (not any(stream.needs for stream in self.streams), "no loss uses a teacher"),
            "l2-sp.": (not self.l2_sp.weight, "--l2-sp.weight is 0"),
            "attack.": (not self.attack.epsilon, "--attack.epsilon is 0"),
            "views.": (not self.views.left_out, "--views.left-out is 0"),
            "evidence.": ("evidence" not in own, "no loss reads parts of images with evidence"),
            "predictor.": ("masked" not in own, "no loss reads masked words"),
            "adapter.alpha": (not self.adapter.rank, "--adapter.rank is 0"),
            "adapter.parts": (not self.adapter.rank, "--adapter.rank is 0"),
            "validation.": (not self.validation.benchmarks, "--validation.benchmarks names none"),
            "train.epochs": (steps is not None, f"--train.steps is {steps}; with none, epochs count"),
        }
        for stream in self.streams:
            data, section, reads = stream.data, stream.data.section, stream.reads
            without_negatives = not data.negatives_per_caption, f"--{section}.negatives-per-caption is 0"
            whys = {
                ("negatives", "draw", "rules", "negatives-share"): without_negatives,
                ("neighbours",): (not data.neighbours_per_pair, f"--{section}.neighbours-per-pair is 0"),
                ("classes", "class-template"): ("classes" not in reads, "no loss reads classes"),
                ("decoder",): ("reconstruction" not in reads, "no loss uses a decoder"),
                ("positives",): ("positive" not in reads, "no loss reads additional true texts"),
            }
            unread |= {f"{section}.{name}": why for names, why in whys.items() for name in names}
        for section, losses in (("objective", self.objective), ("replay.objective", self.replay.objective)):
            for name, loss in losses.items():
                flag = f"{section}.{name}.".replace("_", "-")
                unread[flag] = (not loss.weight, f"--{flag}weight is 0")
        return {flag: why for flag, (idle, why) in unread.items() if idle}

    def check(self) -> None:
        """Check that the settings are compatible and that data and output folder are given; types check the ranges.

        Raises:
            InputError: names the flag, its value and what is allowed.
        """
        if self.attack.epsilon and self.train.strategy == "fsdp":
            raise InputError("--train.strategy fsdp does not support --attack.epsilon. Use --train.strategy ddp.")
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
                "--replay.objective.evidence-contrast.weight: not supported for replayed images. Set it to 0."
            )
        if self.train.embed_images_once:
            self._check_embedded_once()
        if self.out is None:
            raise InputError("no output folder: give --out FOLDER.")
        if not self.replay.active and any(isinstance(value, Path) for value in vars(self.replay.data).values()):
            raise InputError(
                "--replay.data is given, but no loss of --replay.objective has a weight, so the pairs would not be "
                "used. Give a loss a weight, or omit the data."
            )
        if self.replay.alternate and self.l2_sp.weight and self.l2_sp.importance == "adaptive":
            raise InputError(
                '--l2-sp.importance "adaptive" weights parameters by the gradient of the replayed pairs in every step, '
                "but with --replay.alternate every other step has none. Use --l2-sp.importance equal."
            )
        if self.l2_sp.weight and self.l2_sp.importance == "adaptive" and not self.replay.active:
            raise InputError(
                '--l2-sp.importance "adaptive" weights parameters by the gradient of the replayed pairs, but no loss '
                "of --replay.objective has a weight. Give one a weight, or use --l2-sp.importance equal."
            )

    def _check_views(self) -> None:
        """Check for settings that are incompatible with masked images."""
        if self.views.by != "random" and not self.pairs.needs:
            raise InputError(
                f'--views.by "{self.views.by}" needs a teacher, but no loss uses one. Give '
                "--objective.view-contrast.weight, or use --views.by random."
            )
        if self.views.by == "random" and self.views.anneal_steps:
            raise InputError("--views.anneal-steps turns a random draw into one by attention. Omit --views.by random.")
        _refuse("--views.left-out", (
            (bool(self.attack.epsilon), "--attack.epsilon attacks whole images; set it to 0"),
            ("tokens" in self.pairs.reads, "a loss reads the image tower's patch outputs; give it weight 0"),
            ("evidence" in self.pairs.reads, "a loss reads parts of images with evidence; give it weight 0"),
        ))  # fmt: skip

    def _check_embedded_once(self) -> None:
        """Check for settings that need the pixels at each step."""
        streams = [stream.reads | stream.needs for stream in self.streams]
        _refuse("--train.embed-images-once", (
            (self.train.train_image_tower, "the image tower is trained; freeze it with --train.no-train-image-tower"),
            (bool(self.attack.epsilon), "--attack.epsilon changes the pixels at each step; set it to 0"),
            (bool(self.views.left_out), "--views.left-out masks other patches at each step; set it to 0"),
            # Rows with patches store the raw image embedding; those without store it normalised.
            (any("raw_image" in reads and "tokens" not in reads for reads in streams),
             "a loss reads unnormalised image embeddings; give it weight 0"),
            (any("evidence" in reads for reads in streams),
             "a loss reads parts of images with evidence; give it weight 0"),
        ))  # fmt: skip


def _refuse(flag: str, reasons: Iterable[tuple[bool, str]]) -> None:
    """Raise an error for a flag if one of the reasons against it holds."""
    for there, why in reasons:
        if there:
            raise InputError(f"{flag}: {why}, or omit this flag.")


def recipe_config(name: str) -> TrainConfig:
    """Return the configuration of a recipe, by name.

    Raises:
        InputError: there is no such recipe; the message lists the known ones; or it returns something else.
    """
    config = RECIPES.member(name, name)()
    if not isinstance(config, TrainConfig):
        raise InputError(f"{RECIPES.file(name)}: {name}() must return a TrainConfig; it returned {config!r:.80}.")
    return config
