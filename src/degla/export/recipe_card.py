"""The training sections of a model card: settings, data, and the command that reproduces it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from degla.config.fields import differences, from_plain, path_fields, to_plain
from degla.config.run import TrainConfig, recipe_config
from degla.errors import InputError
from degla.pages.table import markdown_line
from degla.pages.words import counted

_WHAT = {
    None: "the run's main model",
    "student": "the student, the trained weights",
    "teacher": "the teacher, which follows the student",
    "average": "the average of the student with the model before training",
}


def training_lines(config: dict[str, Any], state: dict[str, Any], *, what: str | None) -> Iterator[str]:
    """Yield the settings of a run from the plain values of its configuration and state."""
    train, optim = config.get("train") or {}, config.get("optim") or {}
    again = (config.get("replay") or {}).get("objective") or {}
    steps, batch = int(state.get("step", 0)), int(train.get("batch_size", 0))
    rows = {
        "recipe": config.get("recipe") or "–",
        "started from": bare_name(str(config.get("model", "–"))),
        "losses and their weights": _weights(config.get("objective") or {}),
        "losses of replayed pairs": _weights(again),
        "steps": f"{steps:,} of {int(state.get('steps', steps)):,}, of {counted(batch, 'pair')}: "
        f"{counted(steps * batch, 'pair')} seen",
        "peak learning rate": f"{float(optim.get('lr', 0)):g}",
        "seed": str(train.get("seed", "–")),
        "adapters": f"rank {rank}" if (rank := (config.get("adapter") or {}).get("rank")) else "none",
        "weights": _WHAT.get(what, str(what)),
    }
    teacher = config.get("teacher") or {}
    if "distillation" in rows["losses and their weights"] or what == "teacher":
        rows["teacher"] = f"{teacher.get('kind')}, decay {teacher.get('decay')}"
    if state.get("ended"):
        rows["stopped early"] = str(state["ended"])
    yield from ("## Training", "", markdown_line(["", ""]), markdown_line(["---", "---"]))
    yield from (markdown_line([name, value]) for name, value in rows.items() if value)
    yield ""


def _weights(losses: dict[str, Any]) -> str:
    return ", ".join(f"{name} {loss['weight']:g}" for name, loss in losses.items() if loss.get("weight"))


def data_lines(config: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    """Yield the data files of a run without their folders, with row counts if the checkpoint records them."""
    data, counts = config.get("data") or {}, state.get("counts") or {}
    yield from ("## Data", "")
    for name in path_fields():
        section, _, field = name.rpartition(".")
        if section == "data" and data.get(field):
            count = f": {int(counts[field]):,}" if field in counts else ""
            yield f"* {field}: `{Path(str(data[field])).name}`{count}"
    replayed = ((config.get("replay") or {}).get("data") or {}).get("captions")
    if replayed:
        yield f"* replayed captions: `{Path(str(replayed)).name}`"
    if not counts:
        yield "* row counts are not recorded."
    yield f"* negatives per caption and step: {data.get('negatives_per_caption', '–')}"
    yield ""


def reproduce_lines(config: dict[str, Any]) -> Iterator[str]:
    """Yield the command that reproduces the training, with file names instead of full paths."""
    yield from ("## Reproduce", "")
    try:
        words = command(from_plain(config, where="config.json"))
    except InputError as error:
        yield f"The configuration is from another version of degla and cannot be read by this one: {error}"
    else:
        yield from ("```sh", shlex.join(words), "```")
    yield ""


def command(config: TrainConfig) -> list[str]:
    """Return the `degla train` command line of a configuration: its recipe, and each flag that differs from it."""
    start = recipe_config(config.recipe) if config.recipe else TrainConfig()
    paths = {name.replace("_", "-") for name in path_fields()}
    words = ["degla", "train", config.recipe or "RECIPE"]
    for flag, _, value in differences(start, to_plain(config)):
        if flag == "recipe":
            continue
        if isinstance(value, bool):
            section, _, name = flag.rpartition(".")
            words.append("--" + (flag if value else f"{section}.no-{name}" if section else f"no-{name}"))
        elif isinstance(value, list):
            words += [f"--{flag}", *map(str, value)]
        else:
            text = Path(str(value)).name if flag in paths else str(value)
            words += [f"--{flag}", bare_name(text) if flag == "model" else text]
    return words


def bare_name(model: str) -> str:
    """Return a model's name without local folders, which FOLDER and ARCHITECTURE:FILE may have."""
    kind, _, path = model.partition(":")
    if "/" in kind:
        return Path(model).name
    is_local = path and kind != "hf-hub" and not path.startswith("//")  # "//": an address
    return f"{kind}:{Path(path).name}" if is_local else model
