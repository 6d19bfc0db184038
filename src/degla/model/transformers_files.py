"""The files of a folder of transformers, looked at before transformers reads them; and models of the Hugging Face hub,
whose files are fetched: one of transformers becomes a folder on this machine."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from degla.errors import InputError
from degla.model.hub import offline
from degla.model.tokenizer import CONFIG_NAME, TOKENIZER_FILES
from degla.model.transformers_map import LAYOUTS
from degla.model.weights_file import FLOATS, PICKLED, SAFE, conversion, stored_types, wrong_type
from degla.pages.words import counted
from degla.parse import in_one_line, read_json, read_json_object
from degla.progress import only_errors, quiet_transformers

INSTALL = "Install it: pip install 'degla[export]'."
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_OTHERS = {
    "siglip2": "SigLIP 2 for images of any shape has no form of fixed size; take one of fixed resolution, such as "
    "hf-hub:google/siglip2-base-patch16-224",
    "altclip": "its text tower (XLM-R, normalised and projected twice) is none of open_clip's; take a CLIP, MetaCLIP "
    "2 or SigLIP for other languages than English",
}


@dataclass(frozen=True)
class Opened:
    """A model of transformers in float32, with its tokenizer and image processor."""

    model: Any
    tokenizer: Any
    processor: Any


def model_type(folder: Path) -> str:
    """`model_type` of config.json, "" where it has none: a run of `degla train` has a config.json of another sort."""
    try:
        content = read_json(folder / CONFIG, constants=True)
    except InputError:
        return ""
    return str(content.get("model_type", "")) if isinstance(content, dict) else ""


def is_transformers_folder(folder: Path) -> bool:
    """Whether it is a folder of `transformers` and not one of open_clip."""
    own = (folder / "open_clip_config.json").is_file()
    return (folder / CONFIG).is_file() and not own and model_type(folder) != ""


def open_transformers(folder: Path) -> Opened:
    """Load a model, its tokenizer and its image processor. Nothing is fetched, and no code of the folder is run.

    Raises:
        InputError: `transformers` is not installed, the folder is of another kind of model, or a file is missing,
            damaged or of another format.
    """
    check_files(folder)
    transformers = import_transformers(folder)
    here = {"local_files_only": True, "trust_remote_code": False}
    with quiet_transformers():
        try:
            model, report = transformers.AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, use_safetensors=True, **here
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **here)
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **here)
        except ImportError as error:
            raise InputError(f"{folder}: needs a package that is not installed: {_first_lines(error)}.") from None
        except Exception as error:  # transformers, safetensors and tokenizers raise kinds of their own
            raise InputError(f"{folder}: cannot be loaded by transformers: {_first_lines(error)}") from None
    # transformers fills what is missing with random numbers and goes on.
    lacking = sorted(name for name in report["missing_keys"] if not name.endswith("position_ids"))
    if lacking or report.get("mismatched_keys"):
        raise InputError(
            f"{folder}: the weights lack {', '.join(lacking[:3]) or 'nothing'} ({counted(len(lacking), 'parameter')}) "
            "or do not fit config.json; every number would be wrong."
        )
    return Opened(model.eval(), tokenizer, processor)


def import_transformers(folder: Path) -> Any:
    """The library, which reads the folder.

    Raises:
        InputError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(f"{folder}: a folder of transformers, which is not installed. {INSTALL}") from None
    return transformers


def check_files(folder: Path) -> None:
    """Refuse a folder that holds another kind of model, or weights that are missing, damaged or of another format.

    Raises:
        InputError: names the file or field, and what to do.
    """
    kind, where = model_type(folder), folder / CONFIG
    if kind not in LAYOUTS:
        hint = f": {_OTHERS[kind]}" if kind in _OTHERS else ""
        tower = kind.endswith(("_vision_model", "_text_model"))
        hint = ": one tower alone; the whole model, with image and text tower, is needed" if tower else hint
        raise InputError(
            f"{where}: field 'model_type' is {kind!r}; of transformers, clip and siglip (SigLIP 2 of fixed "
            f"resolution is one) and metaclip_2 can be loaded{hint}."
        )
    content = read_json_object(where, constants=True)
    text = content.get("text_config")
    end = text.get("eos_token_id", 0) if isinstance(text, dict) else 0
    if LAYOUTS[kind] == "clip" and not isinstance(end, int):
        raise InputError(
            f"{where}: field 'text_config.eos_token_id' is {end!r}; it must be one number, of the token at which texts "
            "are read."
        )
    named = content.get("architectures") or []
    other = next((name for name in named if "Classification" in str(name) or str(name).endswith("Projection")), None)
    if other is not None:
        raise InputError(
            f"{where}: field 'architectures' names {other}: a classifier or one tower alone. A model of images and "
            "texts is needed: the one that it was made from."
        )
    _check_weights(folder, _weight_files(folder))


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = read_json_object(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise InputError(f"{folder / INDEX}: no 'weight_map'; fetch the file again.")
        files = [folder / Path(str(name)).name for name in dict.fromkeys(shards.values())]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {counted(len(files), 'file of weights is', 'files of weights are')} "
                f"missing, first {missing[0]}; the download did not end. Fetch the folder again."
            )
        return files
    pickled = next((name for name in _PICKLED if (folder / name).is_file()), None)
    if pickled is not None:
        raise InputError(
            f"{folder / pickled}: weights in a pickle, which can run code when it is read, are not taken. Where you "
            'trust the file, convert it: python -c "from transformers import AutoModel; '
            f"AutoModel.from_pretrained('{folder}').save_pretrained('{folder}')\" writes {WEIGHTS}."
        )
    raise InputError(f"{folder}: cannot be loaded by transformers: {WEIGHTS} is missing, and there is no {INDEX}.")


def _check_weights(folder: Path, files: list[Path]) -> None:
    from safetensors import SafetensorError

    names: set[str] = set()
    for path in files:
        try:
            kinds = stored_types(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{folder}: cannot be loaded by transformers: {path.name} is damaged ({_first_lines(error)}). Fetch "
                "it again."
            ) from None
        names |= kinds.keys()
        odd = sorted(name for name, kind in kinds.items() if kind not in FLOATS and not name.endswith("position_ids"))
        if odd:
            raise wrong_type(path, odd[0], kinds[odd[0]])
    for tower, prefix in (("image", "vision_model."), ("text", "text_model.")):
        if not any(name.startswith(prefix) for name in names):
            raise InputError(f"{folder}: the weights hold no {tower} tower ({prefix}*); both towers are needed.")
    head = next((name for name in sorted(names) if name.startswith("classifier.")), None)
    if head is not None:
        raise InputError(
            f"{folder}: the weights hold a classifier ({head}), which was trained for other classes than texts name. "
            "The model that it was made from is needed."
        )


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return in_one_line(" ".join(lines[:3])) or type(error).__name__


def stored_type(folder: Path) -> str:
    """Number format of the weights as config.json has it, for example "bfloat16"; "float32" where it says nothing."""
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return str(content.get("dtype") or content.get("torch_dtype") or "float32")


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
        with contextlib.nullcontext() if online else offline(), only_errors("huggingface_hub"):
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
    """Whether the model is in open_clip's form, whose weights are fetched here: where that fails, open_clip itself
    would use random weights."""
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


def fetched_weights(name: str) -> Path | None:
    """The file of weights that open_clip reads of a model of the hub, where it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(name.removeprefix(PREFIX), file) for file in SAFE)
    return next((Path(file) for file in found if isinstance(file, str)), None)


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
