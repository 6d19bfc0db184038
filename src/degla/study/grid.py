"""A plan to its runs: every arm, setting and seed, each with a full training configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from degla.config.fields import change
from degla.config.run import TrainConfig, recipe_config
from degla.config.sections import CheckpointConfig, TrackingConfig
from degla.errors import InputError
from degla.study.plan import Plan, Replicate
from degla.study.plan_file import Arm
from degla.study.standings import BASE


@dataclass(frozen=True)
class Run:
    """One training of the study, without its data and folder."""

    arm: str
    """Label of the arm."""
    setting: tuple[tuple[str, Any], ...]
    """Fields that the arm's grid varies, with this run's values."""
    label: str
    """The arm and its setting, as in tables."""
    config: TrainConfig
    rules: tuple[str, ...]
    """Rules that its negatives are made by, where it has no file of them."""
    shares: tuple[float, ...]
    """Shares of the tuned weights in the averages that are measured, the largest first."""
    replicate: Replicate | None = None
    """What it varies for all arms; None: the plan as it is."""

    @property
    def title(self) -> str:
        """As in lists of runs."""
        return f"{titled(self.label, self.replicate)}, seed {self.seed}"

    @property
    def makes_negatives(self) -> bool:
        """Whether it reads negatives that the study makes by rules."""
        data = self.config.data
        return data.negatives is None and bool(data.negatives_per_caption) and not data.distractor_negative

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.config.train.seed

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return file_name(self.label, self.seed, self.replicate)

    def model_label(self, share: float) -> str:
        """The name of one of its models in tables."""
        return self.label if share == 1 else f"{self.label} averaged {share:g}"


def titled(label: str, replicate: Replicate | None) -> str:
    """A label as results of a replicate have it."""
    return label if replicate is None else f"{label} [{replicate.title}]"


def file_name(label: str, seed: int | None, replicate: Replicate | None = None) -> str:
    """A label, a replicate and a seed as the stem of a file's name."""
    words = [label] if replicate is None else [label, replicate.title]
    plain = (re.sub(r"[^A-Za-z0-9_.+-]+", "-", word).strip("-") for word in words)
    return f"{'--'.join(plain)}-{seed or 0}"


def expand(plan: Plan, *, where: str) -> list[Run]:
    """All runs, all arms of the first seed first, for an early look at every arm; replicates last.

    An arm that reads no negatives made here is not run again where a replicate changes nothing else.

    Args:
        plan: the plan.
        where: names its file in messages.

    Raises:
        InputError: a value of the wrong type, or files of one name.
    """
    runs = []
    for replicate in (None, *plan.replicates):
        varied = plan.varied(replicate)
        made = [
            replace(run, replicate=replicate)
            for seed in varied.seeds
            for arm in varied.arms
            for run in _runs_of(arm, plan=varied, seed=seed, where=where)
        ]
        unchanged = replicate is not None and plan.sources_of(replicate) == ("negatives",)
        runs += [run for run in made if run.makes_negatives or not unchanged]
    named = [(file_name(BASE, None, replicate), titled(BASE, replicate)) for replicate in (None, *plan.replicates)]
    for run in runs:
        models = dict.fromkeys((run.label, *map(run.model_label, run.shares)))
        named += [(file_name(model, run.seed, run.replicate), run.title) for model in models]
    refuse_shared(named, where=where)
    return runs


def refuse_shared(named: Iterable[tuple[str, str]], *, where: str) -> None:
    """Refuse things whose files would have one name: the later would be taken for, or overwrite, the earlier.

    Args:
        named: the file's name, as `file_name` gives it, and the thing's title.
        where: names the plan's file in the message.
    """
    titles: dict[str, str] = {}
    for name, title in named:
        if name in titles:
            raise InputError(f"{where}: {titles[name]!r} and {title!r} would share a file; name one of them otherwise.")
        titles[name] = title


def starting_config(arm: Arm, *, base: str) -> TrainConfig:
    """An arm's recipe on the plan's base, with checkpoints and lines of metrics that suit a run among many."""
    return replace(
        recipe_config(arm.recipe),
        model=base,
        checkpoint=CheckpointConfig(every_minutes=5, keep=1),
        tracking=TrackingConfig(every_steps=10, progress=False),
    )


def _runs_of(arm: Arm, *, plan: Plan, seed: int, where: str) -> list[Run]:
    lists = {name: value for name, value in {**plan.set, **arm.fields}.items() if isinstance(value, list)}
    shared = {name: value for name, value in plan.set.items() if not isinstance(value, list)}
    single = {name: value for name, value in arm.fields.items() if name not in lists}
    start = change(starting_config(arm, base=plan.base), shared, where=f"{where}: set")
    place = f"{where}: arm {arm.name!r}"
    empty = [name for name, values in lists.items() if not values]
    if empty:
        raise InputError(f"{place}: field {empty[0]!r} is an empty list; give one value or more.")
    start = change(start, single, where=place)
    start = replace(start, train=replace(start.train, seed=seed))
    short = _short_names(list(lists))
    runs = []
    for values in product(*lists.values()):
        setting = tuple(zip(lists, values, strict=True))
        told = ", ".join(f"{short[name]} {_plain(value)}" for name, value in setting if len(lists[name]) > 1)
        run = Run(
            arm=arm.name,
            setting=setting,
            label=f"{arm.name} {told}".strip(),
            config=change(start, dict(setting), where=place),
            rules=arm.rules or plan.rules,
            shares=arm.average or plan.average,
        )
        most, wanted = len(run.rules), run.config.data.negatives_per_caption
        if run.makes_negatives and wanted > most:  # Each rule makes one of a caption.
            raise InputError(
                f"{place}: {wanted} negatives a caption are wanted, and its rules ({', '.join(run.rules)}) make at "
                f"most {most}. Set data.negatives_per_caption to {most} or less, or name more rules."
            )
        runs.append(run)
    return runs


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """The last word of each dotted name, or as many as tell it from the others."""
    short = {}
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            end = ".".join(parts[-count:])
            if sum(other == end or other.endswith("." + end) for other in names) == 1:
                break
        short[name] = end
    return short


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).rpartition("/")[2]
