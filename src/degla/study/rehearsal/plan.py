"""A plan as it is rehearsed: the same arms on a small model, few pairs, few steps and few questions of each part."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from degla.config.fields import path_fields
from degla.errors import InputError
from degla.study.plan import Plan
from degla.study.record import RehearsalRecord
from degla.study.rehearsal.pairs import lay_pairs
from degla.study.rehearsal.questions import lay_questions

MODEL: Final = "photo"
"""The small model that stands in for the plan's base."""
_SEEDS: Final = 2
_LIMITS: Final[Mapping[str, Any]] = {"train.steps": 4, "train.batch_size": 8, "data.workers": 0}
"""Fields of every arm, over what the plan says."""
_FOLDER: Final = "rehearsal"


def rehearse(plan: Plan, *, out: Path, where: str) -> tuple[Plan, RehearsalRecord]:
    """The plan to run in place of a plan, and what stands in for what.

    Args:
        plan: with `benchmarks`.
        out: folder of the study; what is laid goes to ``rehearsal`` in it, anew at every call.
        where: names the plan's file in messages.

    Raises:
        InputError: the plan draws from the embedded world, and needs no rehearsal; or files at hand are wrong.
    """
    if plan.benchmarks is None:
        raise InputError(
            f"{where}: --rehearse is for plans with 'benchmarks'; one of the world runs as it is, smaller by --set."
        )
    folder = out / _FOLDER
    if folder.exists():
        shutil.rmtree(folder)
    root = folder / "data"
    root.mkdir(parents=True)
    at_hand = plan.benchmarks.root
    laid = lay_pairs(
        Path(str(plan.set["data.captions"])), Path(str(plan.set["data.images"])),
        format=str(plan.set.get("data.format", "auto")), at_hand=at_hand, folder=folder / "pairs",
    )  # fmt: skip
    parts = lay_questions(plan.benchmarks.names, at_hand=at_hand, root=root)
    shared = {name: value for name, value in plan.set.items() if name != "data.format" and not _lacks(name, value)}
    shared |= {**_LIMITS, "data.captions": str(laid.captions), "data.images": str(laid.images)}
    arms = tuple(
        arm.model_copy(update={"fields": {name: value for name, value in arm.fields.items() if name not in _LIMITS}})
        for arm in plan.arms
    )
    changes = {
        "title": f"Rehearsal: {plan.title}",
        "base": MODEL,
        "benchmarks": plan.benchmarks.model_copy(update={"root": root}),
        "set": shared,
        "arms": arms,
        "seeds": plan.seeds[:_SEEDS],
        "replicates": (),
    }
    record = RehearsalRecord(
        base=plan.base, steps=int(_LIMITS["train.steps"]), batch_size=int(_LIMITS["train.batch_size"]), pairs=laid.told,
        negatives="" if "data.negatives" in shared else "made by the plan's rules", parts=tuple(parts),
    )  # fmt: skip
    return plan.model_copy(update=changes), record


def _lacks(name: str, value: Any) -> bool:
    """Whether the field names a file that is not there, as the negatives that a server has yet to make."""
    return name in path_fields() and value is not None and not Path(str(value)).exists()
