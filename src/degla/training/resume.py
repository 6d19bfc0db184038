"""Going on with a run: its configuration, and which of it may change on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from degla.config.plain import differences, from_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.model.integrity import check_one
from degla.model.runs import latest_checkpoint, settle
from degla.parse import read_json_object

FREE = ("checkpoint.", "tracking.", "stop.", "data.workers", "rehearsal.data.workers", "train.strategy", "out")
"""Beginnings of the flags that change nothing about what a step computes, and so may differ after a resume."""


def read_config(run: Path) -> TrainConfig:
    """The configuration of a run's newest checkpoint, with `out` where the run lies now.

    Raises:
        InputError: there is no run, or its configuration was made by another version or by hand and does not fit.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder.")
    settle(run, patience=5.0)
    newest = latest_checkpoint(run)
    if newest is None:
        raise InputError(f"{run}: no complete checkpoint to go on from; start the run without --resume.")
    path = newest / "config.json"
    check_one(newest, path.name)
    values = read_json_object(path, remedy="Use an earlier checkpoint.", constants=True)
    return replace(from_plain(values, where=str(path)), out=run)


def check_unchanged(old: TrainConfig, new: TrainConfig) -> None:
    """Refuse a resume that would compute something else.

    Raises:
        InputError: names each changed flag with both values.
    """
    changed = [entry for entry in differences(old, new) if not entry[0].startswith(FREE)]
    if changed:
        told = "; ".join(f"--{name} was {before!r} and is now {now!r}" for name, before, now in changed)
        raise InputError(
            f"a resumed run must stay the same: {told}. Leave the flag out, or start a new run from the checkpoint "
            f"with --model {new.out} and another --out."
        )
