"""A model of transformers on the Hugging Face hub, as the folder of its files on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

from degla.errors import InputError
from degla.model.hub import offline
from degla.model.tokenizer import CONFIG_NAME, TOKENIZER_FILES
from degla.model.transformers_files import CONFIG, INDEX, WEIGHTS
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
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repository = name.removeprefix(PREFIX)
    if not online:
        own = try_to_load_from_cache(repository, CONFIG_NAME)
        if isinstance(own, str) or not isinstance(try_to_load_from_cache(repository, CONFIG), str):
            return None
    try:
        with contextlib.nullcontext() if online else offline():
            if online:
                with contextlib.suppress(EntryNotFoundError):
                    hf_hub_download(repository, CONFIG_NAME)
                    return None
            return _downloaded(repository)
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
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{name}: could not be fetched from the hub: {in_one_line(error) or type(error).__name__}. What is "
            "already here is kept; run the command again."
        ) from None


def _downloaded(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=list(_FILES)))
