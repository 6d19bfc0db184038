"""The files of a folder of transformers: looked at before transformers reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from degla.errors import InputError
from degla.model.transformers_map import LAYOUTS
from degla.model.weights_file import FLOATS, stored_types, wrong_type
from degla.parse import in_one_line, read_json, read_json_object

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
    with quiet():
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
            f"{folder}: the weights lack {', '.join(lacking[:3]) or 'nothing'} ({len(lacking)} parameters) or do not "
            "fit config.json; every number would be wrong."
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


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its notes and progress bars; errors are told by who calls."""
    from transformers.utils import logging as transformers_logging

    theirs: Any = transformers_logging
    level, bars = logging.getLogger("transformers").level, theirs.is_progress_bar_enabled()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        logging.getLogger("transformers").setLevel(level)
        if bars:
            theirs.enable_progress_bar()


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
                f"{folder}: {len(missing)} of {len(files)} files of weights are missing, first {missing[0]}; the "
                "download did not end. Fetch the folder again."
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
