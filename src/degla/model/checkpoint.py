"""Checkpoint folders that open_clip itself loads, and the state of a run beside the weights."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from degla.errors import DeglaError, InputError
from degla.model.adapters import adapter_state, has_adapters, load_adapter_state, merged_state
from degla.model.encoder import Encoder
from degla.model.load import WEIGHTS_NAME
from degla.model.teacher import Teacher
from degla.model.tokenizer import CONFIG_NAME, save_tokenizer
from degla.parse import read_json_object

log = logging.getLogger("degla.train")

STUDENT_NAME = "student.safetensors"
"""The student that training goes on with, where the model for use is an average."""
TEACHER_NAME = "teacher.safetensors"
ADAPTERS_NAME = "adapters.safetensors"
TEACHER_ADAPTERS_NAME = "teacher_adapters.safetensors"
OPTIMIZER_NAME = "optimizer.pt"
STATE_NAME = "state.json"
BEST_NAME = "best"
"""Link in a run's folder to its best checkpoint."""
_STEP = re.compile(r"^step-(\d+)$")


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = save_tokenizer(encoder, folder)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = _plain(merged_state(encoder.clip))
    note = {"format": "pt", "quick_gelu": "true" if encoder.description.quick_gelu else "false"}
    save_file(weights, folder / WEIGHTS_NAME, metadata=note)


def _plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in weights.items()}


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write to, and put it in place only when all of it is on the disk.

    Raises:
        DeglaError: the disk is full or not writable; what was there before is untouched.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                path.chmod(0o666 & ~_umask())  # safetensors makes its files for their owner alone.
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
        _sync_folder(folder.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full and not isinstance(error, OSError | SafetensorError):
            # torch.save reports a short write as a RuntimeError of its archive writer.
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            full = True
        newest = latest_checkpoint(folder.parent) if folder.parent.is_dir() else None
        kept = f" The last complete checkpoint is {newest}." if newest else ""
        cause = "the disk is full" if full else str(error)
        raise DeglaError(
            f"{folder}: the checkpoint could not be written: {cause}.{kept} Free space, then --resume."
        ) from None


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(
    folder: Path,
    *,
    encoder: Encoder,
    teacher: Teacher | None,
    optimizer: dict[str, Any],
    tensors: dict[str, Any],
    state: dict[str, Any],
    config: dict[str, Any],
    kept: Encoder | None = None,
) -> None:
    """Write everything that a run needs to go on, complete or not at all.

    Args:
        folder: the checkpoint's own folder, ``RUN/step-N``.
        encoder: the student.
        optimizer: the optimiser's state.
        tensors: further tensors by name (memory of terms, random states), stored beside the optimiser's.
        state: plain values: step, epoch, position in the epoch, ...
        config: the run's configuration as plain values.
        kept: the model for use where it is another than the student; the folder is that model to all who load it, and
            the student's own weights lie beside it.
    """
    with written_whole(folder) as partial:
        save_encoder(kept or encoder, partial)
        if kept is not None and not has_adapters(encoder.clip):
            save_file(_plain(encoder.clip.state_dict()), partial / STUDENT_NAME, metadata={"format": "pt"})
        if teacher is not None:
            weights = _plain(merged_state(teacher.encoder.clip))
            save_file(weights, partial / TEACHER_NAME, metadata={"format": "pt", "kind": teacher.config.kind})
        if has_adapters(encoder.clip):
            save_file(_plain(adapter_state(encoder.clip)), partial / ADAPTERS_NAME)
            if teacher is not None:
                save_file(_plain(adapter_state(teacher.encoder.clip)), partial / TEACHER_ADAPTERS_NAME)
        torch.save({"optimizer": optimizer, **tensors}, partial / OPTIMIZER_NAME)
        (partial / STATE_NAME).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(
    folder: Path, *, encoder: Encoder, teacher: Teacher | None, optimizer: torch.optim.Optimizer, averaged: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put a checkpoint's weights, teacher and optimiser into place; returns its `state` and `tensors`.

    Args:
        folder: the checkpoint's own folder.
        encoder: the student.
        averaged: the model for use in the folder is not the student, whose weights lie beside it.

    Raises:
        InputError: a file is missing or damaged, or its parameters are not exactly those of the model.
    """
    adapted = has_adapters(encoder.clip)
    _load_weights(encoder, folder / (ADAPTERS_NAME if adapted else STUDENT_NAME if averaged else WEIGHTS_NAME))
    if teacher is not None:
        if not (folder / TEACHER_NAME).is_file():
            raise InputError(f"{folder}: {TEACHER_NAME} is missing, but the objective needs a teacher.")
        _load_weights(teacher.encoder, folder / (TEACHER_ADAPTERS_NAME if adapted else TEACHER_NAME))
    try:
        tensors: dict[str, Any] = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        state: dict[str, Any] = read_json_object(folder / STATE_NAME, constants=True)
        optimizer.load_state_dict(tensors.pop("optimizer"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: {Path(str(error.filename)).name} is missing; this is no checkpoint of a run."
        ) from None
    except (RuntimeError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{folder}: damaged checkpoint: {error}. Use an earlier one.") from None
    return state, tensors


def _load_weights(encoder: Encoder, path: Path) -> None:
    try:
        if has_adapters(encoder.clip):
            load_adapter_state(encoder.clip, load_file(path))
        else:
            encoder.clip.load_state_dict(load_file(path), strict=True)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; this is no complete checkpoint.") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged weights file: {error}. Use an earlier checkpoint.") from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"{path}: these weights do not fit {encoder.name}: {' '.join(lines[1:3])}. "
            "Name the model that the checkpoint was made from."
        ) from None


def checkpoints(run: Path) -> list[Path]:
    """The run's complete checkpoints, oldest first."""
    found = []
    if run.is_dir():
        for path in run.iterdir():
            match = _STEP.match(path.name)
            if match and (path / STATE_NAME).is_file() and (path / WEIGHTS_NAME).is_file():
                found.append((int(match.group(1)), path))
    return [path for _, path in sorted(found)]


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    complete = checkpoints(run)
    return complete[-1] if complete else None


def chosen_checkpoint(run: Path) -> Path | None:
    """The checkpoint that a run's name stands for, or None where it has no complete one.

    It is the newest, or the best where the newest met a limit of `--stop`: that one is over the budget, or no better
    than an earlier one.
    """
    newest = latest_checkpoint(run)
    if newest is None:
        return None
    try:
        state: dict[str, str | None] = read_json_object(newest / STATE_NAME, constants=True)
        ended, best = state.get("ended"), state.get("best")
    except InputError:
        return newest  # Damaged; whoever needs the state says so.
    if not ended or best == newest.name:
        return newest
    if best is not None and run / best in checkpoints(run):
        log.info("%s: ended early, as %s; its best checkpoint is taken: %s", run, ended, best)
        return run / best
    log.warning("%s: ended early, as %s, with no checkpoint within the limits; %s is taken", run, ended, newest.name)
    return newest


def step_of(checkpoint: Path) -> int:
    """Number of the step after which a checkpoint of a run was written."""
    return int(checkpoint.name.removeprefix("step-"))


def point_to_best(run: Path, best: str | None) -> None:
    """Let ``RUN/best`` be the best checkpoint, whose name ``best.json`` holds; None takes the link away."""
    (run / "best.json").write_text(json.dumps({"checkpoint": best}) + "\n", encoding="utf-8")
    link, partial = run / BEST_NAME, run / f"{BEST_NAME}.partial"
    try:
        partial.unlink(missing_ok=True)
        if best is None:
            link.unlink(missing_ok=True)
        else:
            partial.symlink_to(best)
            partial.replace(link)
    except OSError as error:
        log.warning("%s: cannot be linked to the best checkpoint (%s); its name is in best.json.", link, error.strerror)


def recorded_seed(name: str) -> int | None:
    """The training seed of a run or checkpoint folder, or None for any other model."""
    path = Path(name)
    folder = path if (path / STATE_NAME).is_file() else latest_checkpoint(path)
    try:
        config = read_json_object((folder or path) / "config.json", constants=True)
        return int(config["train"]["seed"])
    except (InputError, ValueError, KeyError, TypeError):
        return None


def remove_old_checkpoints(run: Path, *, keep: int, best: Path | None) -> None:
    """Delete all but the last `keep` checkpoints and the best one; 0 keeps all."""
    if keep <= 0:
        return
    for path in checkpoints(run)[:-keep]:
        if best is None or path.name != best.name:
            shutil.rmtree(path, ignore_errors=True)
