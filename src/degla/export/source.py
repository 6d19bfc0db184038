"""Which weights of a run are meant: the model for use, the student, its teacher or its average with the start."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from safetensors.torch import load_file

from degla.errors import InputError
from degla.model.address import folder_here
from degla.model.encoder import Encoder
from degla.model.integrity import ADAPTERS_NAME, STATE_NAME, STUDENT_NAME, TEACHER_NAME, check_one, read_state
from degla.model.load import load_encoder
from degla.model.runs import chosen_checkpoint, settle

What = Literal["student", "teacher", "average"]


def checkpoint_of(name: str) -> Path | None:
    """The checkpoint that a model's name stands for; None where it is no run and no checkpoint of one."""
    folder = folder_here(name)
    if not folder.is_dir():
        return None
    if (folder / STATE_NAME).is_file():
        return folder
    settle(folder)
    return chosen_checkpoint(folder)


def load_weights(name: str, *, what: What | None = None) -> Encoder:
    """Load the weights of a model that are meant.

    Args:
        name: any form of `degla.model.load.FORMS`.
        what: of a run's checkpoint; None: the model that `name` stands for everywhere else.

    Raises:
        InputError: there is no such model, or the checkpoint does not hold these weights.
    """
    folder = checkpoint_of(name) if what is not None else None
    if what is None:
        return load_encoder(name)
    if folder is None:
        raise InputError(f"--what {what}: {name} is no run and no checkpoint of one; leave --what out.")
    state = read_state(folder)
    encoder = load_encoder(str(folder))
    if what == "average":
        if state.start is None:
            raise InputError(
                f"--what average: {folder} keeps the student itself, as the run was not started with --train.average."
            )
        return encoder
    if what == "student" and state.start is None:
        return encoder
    if what == "student" and not (folder / STUDENT_NAME).is_file() and (folder / ADAPTERS_NAME).is_file():
        raise InputError(
            f"--what student: {folder} holds the student as adapters beside an average; take --what average."
        )
    file = folder / (STUDENT_NAME if what == "student" else TEACHER_NAME)
    if not file.is_file():
        gone = "" if state.resumable else "; what only a resumed run reads was deleted when the run had finished"
        raise InputError(f"--what {what}: {file} is missing: the run had no {what}{gone}.")
    check_one(folder, file.name)
    encoder.clip.load_state_dict(load_file(file), strict=True)
    return encoder
