"""What `state.json` says of a checkpoint: where its run stood, and the sha256 of every file, compared on reading."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from degla.errors import InputError
from degla.files import OLD, PARTIAL, sha256_of, write_json
from degla.parse import read_json_object
from degla.records import validate

if TYPE_CHECKING:
    from torch import Tensor


STATE_NAME = "state.json"
STUDENT_NAME = "student.safetensors"
"""The student that training goes on with, where the model for use is an average."""
TEACHER_NAME = "teacher.safetensors"
ADAPTERS_NAME = "adapters.safetensors"
TEACHER_ADAPTERS_NAME = "teacher_adapters.safetensors"
OPTIMIZER_NAME = "optimizer.pt"
FOR_TRAINING = (OPTIMIZER_NAME, STUDENT_NAME, TEACHER_NAME, ADAPTERS_NAME, TEACHER_ADAPTERS_NAME)
"""Files that only a resumed run reads."""
STEP = re.compile(r"step-(\d+)")
"""Name of a checkpoint's folder."""
_SUMS = "sha256"
_THREADS = 4


class CheckpointState(BaseModel):
    """The contents of ``state.json``.

    Attributes:
        step: optimiser steps taken.
        epoch: number of the running pass, from 0.
        batch: batches of this pass already used.
        steps: length of the run.
        best: name of the best checkpoint.
        ended: the limit of `StopConfig` that the run met here.
        data: digests of the rows that it is trained on.
        start: fingerprint of the model that the kept one is an average with.
        base: fingerprint of the model before training, where a resumed run reads it.
        linear_layers: what computed them, of `linear_kernel`; None in checkpoints that do not say it.
        resumable: False where what only a resumed run reads was deleted, because the run had finished.
        sha256: of every other file by its name, and of this one's other fields as ``state.json``.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    step: int = Field(ge=0)
    epoch: int = Field(ge=0)
    batch: int = Field(ge=0)
    steps: int = Field(ge=0)
    best: str | None = Field(default=None, pattern=r"^step-\d+$")
    ended: str | None = None
    data: dict[str, str]
    start: str | None = None
    base: str | None = None
    linear_layers: str | None = None
    resumable: bool = True
    sha256: dict[str, str]


def named_by_step(run: Path) -> list[tuple[int, Path]]:
    """The folders of a run that have the name of a checkpoint, with their steps, oldest first."""
    folders = run.iterdir() if run.is_dir() else ()
    return sorted((int(match[1]), path) for path in folders if (match := STEP.fullmatch(path.name)))


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``state.json`` with the sums of all files that lie beside it: the last file of a checkpoint.

    Raises:
        DeglaError: it cannot be written.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != STATE_NAME)
    with ThreadPoolExecutor(_THREADS) as threads:
        sums = dict(zip((path.name for path in files), threads.map(_digest, files), strict=True))
    _write(folder, {**state, _SUMS: sums})


def amend_state(folder: Path, **changed: Any) -> None:
    """Replace fields of a checkpoint's state; its files stay as they are.

    Raises:
        DeglaError: it cannot be read or written.
    """
    state = read_state(folder).model_dump()
    if any(state.get(name) != value for name, value in changed.items()):
        _write(folder, {**state, **changed})


def drop_training_state(folder: Path) -> None:
    """Delete what only a resumed run would read: two thirds of a checkpoint. Its state says so first."""
    state = read_state(folder).model_dump()
    sums = {name: digest for name, digest in state[_SUMS].items() if name not in FOR_TRAINING}
    _write(folder, {**state, "resumable": False, _SUMS: sums})
    for name in FOR_TRAINING:
        (folder / name).unlink(missing_ok=True)


def read_state(folder: Path) -> CheckpointState:
    """The state of a checkpoint, checked.

    Raises:
        InputError: it is missing or damaged, or is that of another step than the folder's name says.
    """
    try:
        return _read(folder)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}. {_remedy(folder)}") from None


@contextmanager
def checked(folder: Path, *, for_training: bool) -> Iterator[None]:
    """Compare the files of a checkpoint with its recorded sums while the block reads them.

    The sums are computed in threads beside the block, which brings the files into memory anyway. A folder without
    ``state.json`` is no checkpoint of a run and is not checked.

    Args:
        folder: of the checkpoint.
        for_training: also what only a resumed run reads.

    Raises:
        InputError: a file is missing or differs; in place of any error of the block, which is a consequence.
    """
    if not (folder / STATE_NAME).is_file():
        yield
        return
    state = read_state(folder)
    with ThreadPoolExecutor(_THREADS) as threads:
        sums = _sums(folder, state, threads, for_training=for_training)
        try:
            yield
        finally:
            for name, digest in sums.items():
                found, recorded = digest.result(), state.sha256[name]
                if found is None:
                    told = f"missing, or it cannot be read; {STATE_NAME} names it"
                elif found != recorded:
                    told = f"damaged: its sha256 is {found[:12]}..., {STATE_NAME} records {recorded[:12]}..."
                else:
                    continue
                raise InputError(f"{folder / name}: {told}. {_remedy(folder)}")


def check_one(folder: Path, name: str) -> None:
    """Compare one file of a checkpoint with its recorded sum.

    Raises:
        InputError: it differs, or the state is damaged.
    """
    recorded = read_state(folder).sha256.get(name)
    if recorded is not None and _digest(folder / name) != recorded:
        raise InputError(
            f"{folder / name}: damaged: its sha256 is not the one that {STATE_NAME} records. {_remedy(folder)}"
        )


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is complete and undamaged, as far as its state tells."""
    try:
        state = _read(folder)
    except InputError:
        return False
    with ThreadPoolExecutor(_THREADS) as threads:
        sums = _sums(folder, state, threads, for_training=True)
        return all(digest.result() == state.sha256[name] for name, digest in sums.items())


def _read(folder: Path) -> CheckpointState:
    path = folder / STATE_NAME
    raw = read_json_object(path, constants=True)
    state = validate(CheckpointState, raw, where=str(path))
    if state.sha256.get(STATE_NAME) != _own_digest(raw):
        raise InputError(f"{path}: damaged: its fields are not those whose sha256 it records.")
    named = STEP.fullmatch(folder.name.removesuffix(PARTIAL).removesuffix(OLD))
    if named is not None and int(named.group(1)) != state.step:
        raise InputError(
            f"{path}: field 'step' is {state.step}, but the folder is {folder.name}. If it was renamed, call it "
            f"step-{state.step} again."
        )
    return state


def _sums(
    folder: Path, state: CheckpointState, threads: ThreadPoolExecutor, *, for_training: bool
) -> dict[str, Future[str | None]]:
    names = [name for name in state.sha256 if name != STATE_NAME and (for_training or name not in FOR_TRAINING)]
    return {name: threads.submit(_digest, folder / name) for name in names}


def _write(folder: Path, state: dict[str, Any]) -> None:
    sums = {name: digest for name, digest in state.pop(_SUMS).items() if name != STATE_NAME}
    write_json(folder / STATE_NAME, {**state, _SUMS: {**sums, STATE_NAME: _own_digest(state | {_SUMS: sums})}})


def _own_digest(state: Mapping[str, Any]) -> str:
    """Of the state itself: all that stands in it but this."""
    plain = json.loads(json.dumps(state))
    plain.get(_SUMS, {}).pop(STATE_NAME, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _remedy(folder: Path) -> str:
    """What to do about a damaged checkpoint: names the newest one before it that is whole."""
    named = STEP.fullmatch(folder.name)
    for step, path in reversed(named_by_step(folder.parent) if named else []):
        if named and step < int(named[1]) and is_whole(path):
            return f"Use {path}, which is whole; to resume the run from there, move {folder.name} out of its folder."
    return "There is no whole checkpoint before it: bring the file back from a copy, or train again."


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and values of parameters and buffers, whatever their order; reads all of them."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
