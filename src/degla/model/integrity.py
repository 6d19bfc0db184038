"""A checkpoint's `state.json`: the progress of its run and the sha256 of every file, verified on reading."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from degla.errors import InputError
from degla.files import OLD, PARTIAL, sha256_of, write_json
from degla.parse import FORM, NewerFormError, read_json_object, require_form
from degla.records import validate

if TYPE_CHECKING:
    from torch import Tensor


STATE_NAME = "state.json"
STUDENT_NAME = "student.safetensors"
"""The student that training resumes with, if the checkpoint's main model is an average."""
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
        steps: length of the run in steps.
        best: name of the best checkpoint.
        ended: the limit of `StopConfig` that the run reached here.
        data: digests of the training rows.
        image_sizes: digests of the sizes of their images by stream; empty if they are not recorded.
        start: fingerprint of the model that the kept one is averaged with.
        base: fingerprint of the model before training; None if the checkpoint does not record it.
        linear_layers: the kernel that computed them, see `linear_kernel`; None if the checkpoint does not record it.
        resumable: False if the files needed only for resuming were deleted because the run had finished.
        sha256: of every other file by name, and of this file's other fields as ``state.json``.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    best: str | None = Field(default=None, pattern=r"^step-\d+$")
    ended: str | None = None
    data: dict[str, str]
    image_sizes: dict[str, str] = Field(default_factory=dict)
    start: str | None = None
    base: str | None = None
    linear_layers: str | None = None
    resumable: bool = True
    sha256: dict[Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")], str]


def named_by_step(run: Path) -> list[tuple[int, Path]]:
    """Return the folders of a run that are named like a checkpoint, with their steps, oldest first."""
    folders = run.iterdir() if run.is_dir() else ()
    return sorted((int(match[1]), path) for path in folders if (match := STEP.fullmatch(path.name)))


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``state.json`` with the checksums of all other files; it is the last file of a checkpoint.

    Raises:
        DeglaError: it cannot be written.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != STATE_NAME)
    with ThreadPoolExecutor(_THREADS) as threads:
        sums = dict(zip((path.name for path in files), threads.map(_digest, files), strict=True))
    _write(folder, {**state, _SUMS: sums})


def amend_state(folder: Path, **changed: Any) -> None:
    """Replace fields of a checkpoint's state; its other files are unchanged.

    Raises:
        DeglaError: it cannot be read or written.
    """
    state = read_state(folder).model_dump()
    if any(state.get(name) != value for name, value in changed.items()):
        _write(folder, {**state, **changed})


def drop_training_state(folder: Path) -> None:
    """Delete the files needed only for resuming, two thirds of a checkpoint, after recording this in its state."""
    state = read_state(folder).model_dump()
    sums = {name: digest for name, digest in state[_SUMS].items() if name not in FOR_TRAINING}
    _write(folder, {**state, "resumable": False, _SUMS: sums})
    for name in FOR_TRAINING:
        (folder / name).unlink(missing_ok=True)


def read_state(folder: Path) -> CheckpointState:
    """Read and verify the state of a checkpoint.

    Raises:
        InputError: it is missing or damaged, or its step does not match the folder's name.
    """
    try:
        return _read(folder)
    except NewerFormError:
        raise
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}. {_remedy(folder)}") from None


@contextmanager
def checked(folder: Path, *, for_training: bool) -> Iterator[None]:
    """Verify the files of a checkpoint against their recorded checksums while the block reads them.

    The checksums are computed in threads alongside the block, which reads the files into memory anyway. A folder
    without ``state.json`` is not a checkpoint of a run and is not checked.

    Args:
        folder: of the checkpoint.
        for_training: also check the files needed only for resuming.

    Raises:
        InputError: a file is missing or differs; replaces any error of the block, which is a consequence.
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
                actual, recorded = digest.result(), state.sha256[name]
                if actual is None:
                    problem = f"missing or unreadable, but listed in {STATE_NAME}"
                elif actual != recorded:
                    problem = f"damaged: its sha256 is {actual[:12]}..., but {STATE_NAME} records {recorded[:12]}..."
                else:
                    continue
                raise InputError(f"{folder / name}: {problem}. {_remedy(folder)}")


def check_one(folder: Path, name: str) -> None:
    """Verify one file of a checkpoint against its recorded checksum.

    Raises:
        InputError: it differs, or the state is damaged.
    """
    recorded = read_state(folder).sha256.get(name)
    if recorded is not None and _digest(folder / name) != recorded:
        raise InputError(
            f"{folder / name}: damaged: its sha256 is not the one recorded in {STATE_NAME}. {_remedy(folder)}"
        )


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is complete and undamaged according to its state.

    Raises:
        NewerFormError: a newer version wrote it, so that this one cannot tell.
    """
    try:
        state = _read(folder)
    except NewerFormError:
        raise  # Otherwise what a kill left of a newer version's checkpoint would be deleted.
    except InputError:
        return False
    with ThreadPoolExecutor(_THREADS) as threads:
        sums = _sums(folder, state, threads, for_training=True)
        return all(digest.result() == state.sha256[name] for name, digest in sums.items())


def _read(folder: Path) -> CheckpointState:
    path = folder / STATE_NAME
    raw = read_json_object(path, constants=True)
    require_form(raw, where=path)
    state = validate(CheckpointState, raw, where=str(path))
    if state.sha256.get(STATE_NAME) != _own_digest(raw):
        raise InputError(f"{path}: damaged: its fields do not match the sha256 that it records.")
    named = STEP.fullmatch(folder.name.removesuffix(PARTIAL).removesuffix(OLD))
    if named is not None and int(named.group(1)) != state.step:
        raise InputError(
            f"{path}: field 'step' is {state.step}, but the folder is {folder.name}. If it was renamed, rename it "
            f"back to step-{state.step}."
        )
    return state


def _sums(
    folder: Path, state: CheckpointState, threads: ThreadPoolExecutor, *, for_training: bool
) -> dict[str, Future[str | None]]:
    names = [name for name in state.sha256 if name != STATE_NAME and (for_training or name not in FOR_TRAINING)]
    return {name: threads.submit(_digest, folder / name) for name in names}


def _write(folder: Path, state: dict[str, Any]) -> None:
    state = FORM | state
    sums = {name: digest for name, digest in state.pop(_SUMS).items() if name != STATE_NAME}
    write_json(folder / STATE_NAME, {**state, _SUMS: {**sums, STATE_NAME: _own_digest(state | {_SUMS: sums})}})


def _own_digest(state: Mapping[str, Any]) -> str:
    """The sha256 of the state itself, without this entry."""
    plain = json.loads(json.dumps(state))
    plain.get(_SUMS, {}).pop(STATE_NAME, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _remedy(folder: Path) -> str:
    """What to do about a damaged checkpoint: names the newest intact one before it."""
    named = STEP.fullmatch(folder.name)
    for step, path in reversed(named_by_step(folder.parent) if named else []):
        try:
            if named and step < int(named[1]) and is_whole(path):
                return (
                    f"Use {path}, which is intact; to resume the run from there, move {folder.name} out of its folder."
                )
        except NewerFormError:  # It would hide what is wrong with this one.
            return f"A newer version of degla wrote {path}, before it: update degla to use that one."
    return (
        f"There is no intact checkpoint before it: restore the file from a backup, or delete {folder} and train again."
    )


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and values of parameters and buffers in any order; reads all of them."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
