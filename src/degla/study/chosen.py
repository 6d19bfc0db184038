"""The settings that came out best, as a plan of their own: chosen on validation scenes, reported on test scenes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml

from degla.config.fields import path_fields
from degla.files import write_text
from degla.study.plan import Plan, WorldData
from degla.study.standings import BASE, StudyTable

_SEEDS = 5
"""A report takes so many seeds at least: a choice may be coarse, what is said of it may not."""
_QUESTIONS = ("items_per_part", "images_per_class", "retrieval_images")


def chosen_plan(plan: Plan, table: StudyTable, *, folder: Path) -> dict[str, Any]:
    """The plan with each arm at its best setting and share by the joint score, on test scenes of the world.

    A plan that chose with few seeds or few questions of the world reports with five and the default number.

    Args:
        plan: as it was run.
        table: what came of it.
        folder: that the plan will lie in; its paths are given from there.
    """
    best = {row.arm: row for row in table.standings if row.best and row.arm != BASE}
    arms = []
    for arm in plan.arms:
        if arm.name not in best:
            continue
        row = best[arm.name]
        fields = {**arm.fields, **dict(row.setting)}
        own = arm.model_dump(mode="json", exclude={"fields", "average"}, exclude_none=True, exclude_defaults=True)
        arms.append({**own, **_from(folder, fields), "average": [row.share]})
    values = plan.model_dump(mode="json", exclude={"arms", "average"}, exclude_defaults=True)
    values["title"] = f"{plan.title}, chosen settings"
    told = "; ".join(row.label for row in best.values())
    values["about"] = f"Each arm as it had its best joint score in “{plan.title}”: {told}."
    # What spans a grid is in the arms, with one value each.
    values["set"] = _from(folder, {name: value for name, value in plan.set.items() if not isinstance(value, list)})
    more = (seed for seed in count() if seed not in plan.seeds)
    values["seeds"] = [*plan.seeds, *islice(more, max(0, _SEEDS - len(plan.seeds)))]
    if plan.benchmarks is not None:
        values["benchmarks"]["root"] = os.path.relpath(plan.benchmarks.root, folder)
    if plan.world is not None:
        least = WorldData()
        sizes = {name: max(getattr(plan.world, name), getattr(least, name)) for name in _QUESTIONS}
        values["world"] = {**plan.world.model_dump(mode="json", exclude_defaults=True), **sizes, "split": "test"}
    return {**values, "arms": arms}


def _from(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: os.path.relpath(value, folder) if name in path_fields() and value is not None else value
        for name, value in fields.items()
    }


def write_chosen(plan: Plan, table: StudyTable, path: Path) -> None:
    """Write the plan that `chosen_plan` gives."""
    text = yaml.safe_dump(chosen_plan(plan, table, folder=path.parent), sort_keys=False, allow_unicode=True, width=110)
    write_text(path, f"# Made by degla study: each arm at its best setting by the joint score.\n{text}")


def is_choice(plan: Plan, table: StudyTable) -> bool:
    """Whether an arm had several models to choose from."""
    arms = [row.arm for row in table.standings]
    return any(arms.count(arm.name) > 1 for arm in plan.arms)


def at_edges(table: StudyTable) -> dict[str, list[str]]:
    """Arms whose best setting is the smallest or largest value that was tried of a field, and which: a better one may
    lie beyond. A share of 1 is the tuned model, beyond which there is none."""
    found: dict[str, list[str]] = {}
    for best in table.best:
        rows = [row for row in table.standings if row.arm == best.arm]
        tried: dict[str, set[float]] = {}
        for row in rows:
            for name, value in (*row.setting, ("share", row.share)):
                if (number := _number(value)) is not None:
                    tried.setdefault(name, set()).add(number)
        for name, value in (*best.setting, ("share", best.share)):
            number, values = _number(value), tried.get(name, set())
            if number is None or len(values) < 2 or (name == "share" and number == 1):
                continue
            if number in (min(values), max(values)):
                end = "smallest" if number == min(values) else "largest"
                told = f"{value:g}" if isinstance(value, float) else str(value)
                found.setdefault(best.arm, []).append(f"{name} {told}, the {end}")
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
