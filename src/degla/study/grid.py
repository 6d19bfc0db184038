"""Expand a plan into runs: every arm, setting and seed, each with a full training configuration."""

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
from degla.pages.words import counted
from degla.study.plan import Plan, Replicate
from degla.study.plan_file import Arm
from degla.study.standings import BASE


@dataclass(frozen=True)
class Run:
    """One training run of the study, without its data and folder."""

    arm: str
    """Label of the arm."""
    setting: tuple[tuple[str, Any], ...]
    """Fields that the arm's grid varies, with this run's values."""
    label: str
    """The arm and its setting, as shown in tables."""
    config: TrainConfig
    rules: tuple[str, ...]
    """Rules that make its negatives, if it has no negatives file."""
    shares: tuple[float, ...]
    """Shares of the tuned weights in the weight averages to measure, largest first."""
    replicate: Replicate | None = None
    """The replicate that it belongs to; None: the plan itself."""

    @property
    def title(self) -> str:
        """The title in lists of runs."""
        return f"{titled(self.label, self.replicate)}, seed {self.seed}"

    @property
    def makes_negatives(self) -> bool:
        """Whether it reads negatives that the study makes with rules."""
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
        """Return the name in tables of its model with that share."""
        return self.label if share == 1 else f"{self.label} averaged {share:g}"


def titled(label: str, replicate: Replicate | None) -> str:
    """Return a label as shown in the results of a replicate."""
    return label if replicate is None else f"{label} [{replicate.title}]"


def file_name(label: str, seed: int | None, replicate: Replicate | None = None) -> str:
    """Return a file-name stem for a label, a replicate and a seed."""
    words = [label] if replicate is None else [label, replicate.title]
    plain = (re.sub(r"[^A-Za-z0-9_.+-]+", "-", word).strip("-") for word in words)
    return f"{'--'.join(plain)}-{seed or 0}"


def expand(plan: Plan, *, where: str) -> list[Run]:
    """Return all runs: all arms of the first seed first, for an early look at every arm, and replicates last.

    If a replicate changes only the negatives, arms that read no negatives made here are not run again.

    Args:
        plan: plan to expand.
        where: name of its file for messages.

    Raises:
        InputError: a value has the wrong type, or two runs would share a file.
    """
    runs = []
    for replicate in (None, *plan.replicates):
        varied = plan.varied(replicate)
        varied_runs = [
            replace(run, replicate=replicate)
            for seed in varied.seeds
            for arm in varied.arms
            for run in _runs_of(arm, plan=varied, seed=seed, where=where)
        ]
        unchanged = replicate is not None and plan.sources_of(replicate) == ("negatives",)
        runs += [run for run in varied_runs if run.makes_negatives or not unchanged]
    entries = [(file_name(BASE, None, replicate), titled(BASE, replicate)) for replicate in (None, *plan.replicates)]
    for run in runs:
        models = dict.fromkeys((run.label, *map(run.model_label, run.shares)))
        entries += [(file_name(model, run.seed, run.replicate), run.title) for model in models]
    refuse_shared(entries, where=where)
    return runs


def refuse_shared(entries: Iterable[tuple[str, str]], *, where: str) -> None:
    """Reject things that would share a file: the later would be taken for the earlier, or overwrite it.

    Args:
        entries: pairs of file name, as returned by `file_name`, and title.
        where: name of the plan file for the message.
    """
    titles: dict[str, str] = {}
    for name, title in entries:
        if name in titles:
            raise InputError(f"{where}: {titles[name]!r} and {title!r} would share a file; rename one of them.")
        titles[name] = title


def starting_config(arm: Arm, *, base: str) -> TrainConfig:
    """Return an arm's recipe on the plan's base, with checkpoint and logging intervals suited to one run of many."""
    checkpoint, tracking = CheckpointConfig(every_minutes=5, keep=1), TrackingConfig(every_steps=10, progress=False)
    return replace(recipe_config(arm.recipe), model=base, checkpoint=checkpoint, tracking=tracking)


def _runs_of(arm: Arm, *, plan: Plan, seed: int, where: str) -> list[Run]:
    lists = {name: value for name, value in {**plan.set, **arm.fields}.items() if isinstance(value, list)}
    shared = {name: value for name, value in plan.set.items() if not isinstance(value, list)}
    single = {name: value for name, value in arm.fields.items() if name not in lists}
    start = change(starting_config(arm, base=plan.base), shared, where=f"{where}: set")
    place = f"{where}: arm {arm.name!r}"
    empty = [name for name, values in lists.items() if not values]
    if empty:
        raise InputError(f"{place}: field {empty[0]!r} is an empty list; give at least one value.")
    start = change(start, single, where=place)
    start = replace(start, train=replace(start.train, seed=seed))
    short = _short_names(list(lists))
    runs = []
    for values in product(*lists.values()):
        setting = tuple(zip(lists, values, strict=True))
        setting_label = ", ".join(f"{short[name]} {_plain(value)}" for name, value in setting if len(lists[name]) > 1)
        run = Run(
            arm=arm.name,
            setting=setting,
            label=f"{arm.name} {setting_label}".strip(),
            config=change(start, dict(setting), where=place),
            rules=arm.rules or plan.rules,
            shares=arm.average or plan.average,
        )
        most, count = len(run.rules), run.config.data.negatives_per_caption
        if run.makes_negatives and count > most:  # Each rule makes one per caption.
            raise InputError(
                f"{place}: its rules ({', '.join(run.rules)}) make at most "
                f"{counted(most, 'negative')} per caption, but {count} are set. Set "
                f"data.negatives_per_caption to {most} or less, or add rules."
            )
        runs.append(run)
    return runs


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """The last word of each dotted name, or as many words as make it unique."""
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
