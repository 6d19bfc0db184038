"""A model at an address, `s3://bucket/runs/first`: a run, or a folder with a model, copied into the cache folder."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Final

from degla.errors import InputError
from degla.files import whole_folder
from degla.model.integrity import STEP
from degla.model.mirror import bring_here, place_in_cache
from degla.model.onnx_folder import INFO
from degla.model.tokenizer import CONFIG_NAME
from degla.remote import address_of, fetch, list_files, state_of

_READ: Final = (".json", ".safetensors", ".txt", ".gz", ".model", ".onnx", ".data", ".py")
"""Endings of the files that a model is read from; what else lies there, such as an optimiser's state, stays there."""
log = logging.getLogger(__name__)


def model_here(name: str) -> str:
    """What names the model on this machine: the folder of its copy for an address, anything else as it is.

    A run at an address is brought here as `degla train --resume` does; a folder is fetched again when one of its files
    has changed there.

    Raises:
        InputError: there is no model at the address, or it may not be read.
        DeglaError: it cannot be read, or the disk is full.
    """
    from filelock import FileLock

    address = (address_of(name) or "").rstrip("/")
    if not address:
        return name
    files = {file.removeprefix(f"{address}/"): file for file in list_files(address)}
    if any(STEP.fullmatch(PurePosixPath(file).parts[0]) for file in files):
        return str(bring_here(Path(name)))
    if not files.keys() & {CONFIG_NAME, "config.json", INFO}:
        raise InputError(
            f"{address}: no model is there. An address of a model is that of a run, or of a folder with {CONFIG_NAME}, "
            "a transformers config.json or ONNX graphs of `degla export`."
        )
    wanted = {file: there for file, there in files.items() if PurePosixPath(file).suffix in _READ and "/" not in file}
    if not any(PurePosixPath(file).suffix in (".safetensors", ".onnx") for file in wanted):
        raise InputError(
            f"{address}: holds no weights in safetensors or ONNX, and pickles of weights, which can run code, are not "
            "fetched. Copy the folder to this machine: its name there is answered with the command that converts them."
        )
    states = repr([(file, state_of(there)) for file, there in sorted(wanted.items())])
    folder = place_in_cache("models", address, state=f"\n{states}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            log.info("%s is fetched to %s", address, folder)
            with whole_folder(folder) as partial:
                for file, there in wanted.items():
                    fetch(there, partial / file)
    return str(folder)


def folder_here(name: str) -> Path:
    """Where the model lies on this machine, if it is a folder: its copy for an address. Raises like `model_here`."""
    return Path(model_here(name).removeprefix("local-dir:"))
