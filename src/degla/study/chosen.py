"""The settings that came out best, as a plan of their own: chosen on validation scenes, reported on test scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from degla.study.plan import Plan
from degla.study.standings import BASE, Table


def chosen_plan(plan: Plan, table: Table) -> dict[str, Any]:
    """The plan with each arm at its best setting and share by the joint score, on the other split of the world.

    Args:
        plan: as it was run.
        table: what came of it.
    """
    best = {row.arm: row for row in table.standings if row.best and row.arm != BASE}
    arms = []
    for arm in plan.arms:
        if arm.name not in best:
            continue
        row = best[arm.name]
        fields = {**arm.fields, **dict(row.setting)}
        own = arm.model_dump(mode="json", exclude={"fields", "average"}, exclude_none=True, exclude_defaults=True)
        arms.append({**own, **fields, "average": [row.share]})
    values = plan.model_dump(mode="json", exclude={"arms", "average"}, exclude_defaults=True)
    values["title"] = f"{plan.title}, chosen settings"
    values["seeds"] = list(plan.seeds)
    if plan.world is not None:
        values["world"] = {**plan.world.model_dump(mode="json", exclude_defaults=True), "split": "test"}
    return {**values, "arms": arms}


def write_chosen(plan: Plan, table: Table, path: Path) -> None:
    """Write the plan that `chosen_plan` gives."""
    text = yaml.safe_dump(chosen_plan(plan, table), sort_keys=False, allow_unicode=True, width=110)
    path.write_text(
        f"# Made by degla study: each arm at its best setting by the joint score.\n{text}", encoding="utf-8"
    )


def is_choice(plan: Plan, table: Table) -> bool:
    """Whether an arm had several models to choose from."""
    arms = [row.arm for row in table.standings]
    return any(arms.count(arm.name) > 1 for arm in plan.arms)
