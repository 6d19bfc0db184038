"""A model on the Hugging Face hub: its files are fetched, and one of transformers becomes a folder on this machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from degla.errors import InputError
from degla.model.hub import offline
from degla.model.tokenizer import CONFIG_NAME, TOKENIZER_FILES
from degla.model.transformers_files import CONFIG, INDEX, WEIGHTS
from degla.model.weights_file import PICKLED, SAFE, conversion
from degla.parse import in_one_line

_FILES = (CONFIG, "preprocessor_config.json", "processor_config.json", WEIGHTS, INDEX, "model-*.safetensors",
          *TOKENIZER_FILES)  # fmt: skip
PREFIX = "hf-hub:"


def transformers_snapshot(name: str, *, online: bool) -> Path | None:
    """The folder of a model of the hub that is in the form of transformers and not in open_clip's.

    Args:
        name: hf-hub:ORGANISATION/NAME.
        online: whether the hub can be reached; otherwise only what is on this machine is looked at.

    Returns:
        None where the model is in open_clip's form, or where nothing of it is here and the hub cannot be reached.

    Raises:
        InputError: there is no such model, it may not be read, or the download did not end.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    repository = name.removeprefix(PREFIX)
    if not online:
        own, pickled, *safe = (try_to_load_from_cache(repository, name) for name in (CONFIG_NAME, PICKLED, *SAFE))
        if isinstance(own, str) and isinstance(pickled, str) and not any(isinstance(file, str) for file in safe):
            raise _no_safe_weights(repository)
        if isinstance(own, str) or not isinstance(try_to_load_from_cache(repository, CONFIG), str):
            return None
    try:
        with contextlib.nullcontext() if online else offline(), _quiet():
            return None if online and _fetched_for_open_clip(repository) else _downloaded(repository)
    except InputError:
        raise
    except GatedRepoError:
        raise InputError(
            f"{name}: its authors let only those have it who accept their terms. Accept them at its page on the hub, "
            "then log in: hf auth login."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{name}: the hub has no such model, or it is private. Look at the spelling; for a private one log in: "
            "hf auth login."
        ) from None
    except HFValidationError as error:
        raise InputError(f"{name}: no name of the hub: {in_one_line(error)}") from None
    except Exception as error:  # the client's own kinds, and those of what it speaks HTTP with
        raise InputError(
            f"{name}: could not be fetched from the hub: {in_one_line(error) or type(error).__name__}. What is "
            "already here is kept; run the command again."
        ) from None


def _fetched_for_open_clip(repository: str) -> bool:
    """Whether the model is in open_clip's form, whose weights are fetched here: open_clip itself goes on without any
    where that fails, with a model of random numbers."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(repository, CONFIG_NAME)
    except EntryNotFoundError:
        return False
    for name in SAFE:
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(repository, name)
            return True
    raise _no_safe_weights(repository)


def _no_safe_weights(repository: str) -> InputError:
    return InputError(
        f"{PREFIX}{repository}: holds {CONFIG_NAME} and no weights in {SAFE[0]}. Weights in a pickle ({PICKLED}), "
        "which can run code when it is read, are not taken. Where there are such, and you trust its authors, fetch "
        f"them: hf download {repository} --local-dir OUT; convert them: {conversion(Path('OUT') / PICKLED)}; and name "
        "OUT."
    )


def _downloaded(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, allow_patterns=list(_FILES)))
    if (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise InputError(
            f"{PREFIX}{repository}: holds no {WEIGHTS}. Weights in a pickle (.bin), which can run code when it is "
            "read, are not taken. Where you trust its authors, convert them: python -c "
            f"\"from transformers import AutoModel as M; M.from_pretrained('{repository}').save_pretrained('OUT')\", "
            "with the tokenizer and preprocessing beside them, and name OUT."
        )
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The client without a line for every try; what comes of it is told by who calls."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
