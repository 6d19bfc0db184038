"""Help of verbs that take a training configuration: its fields as flags, or those that do something."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from dataclasses import field, fields, make_dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from degla.config.run import TrainConfig

ALL = "--help-all"
"""The word that asks for the help of every flag."""


def show_help(config: TrainConfig, *, program: str, everything: bool) -> None:
    """Print the flags with the values of a configuration as defaults.

    Left out are the settings of losses without a weight, and those of a rehearsal that has no loss with one; the end
    says so. They are flags like all others.

    Args:
        config: a recipe's, or a run's.
        program: the words of the command up to the flags.
        everything: leave nothing out.
    """
    import tyro

    from degla.config.run import RehearsalConfig, TrainConfig

    shown: Any = config
    kind: Any = TrainConfig
    if not everything:
        again = replace(config.rehearsal, objective=_weighted(config.rehearsal.objective))
        shown = replace(config, objective=_weighted(config.objective), rehearsal=again)
        if not config.rehearsal.active:
            hidden = ("rehearsal", tyro.conf.Suppress[RehearsalConfig], field(default_factory=RehearsalConfig))
            kind = make_dataclass("TrainConfig", [hidden], bases=(TrainConfig,), frozen=True)
            kind.__doc__ = TrainConfig.__doc__
            shown = kind(**{entry.name: getattr(shown, entry.name) for entry in fields(TrainConfig)})
    # tyro would end the program here; there is something to add.
    with contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], default=shown, prog=program)
    if not everything:
        sys.stdout.write(_left_out(config, program=program))


def _weighted(objective: dict[str, Any]) -> dict[str, Any]:
    return {name: loss for name, loss in objective.items() if loss.weight > 0}


def _left_out(config: TrainConfig, *, program: str) -> str:
    names = sorted(config.objective.keys() - _weighted(config.objective).keys())
    hidden = "" if config.rehearsal.active else "all flags of --rehearsal, a second stream of pairs; "
    listed = textwrap.fill(
        f"Not shown: {hidden}the flags of the losses that have no weight here. --objective.NAME.weight gives one: "
        f"{', '.join(name.replace('_', '-') for name in names)}.",
        width=80, break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    return f"\n{listed}\nEvery flag: {program} {ALL}\n"
