"""The files of a transformers folder, checked before transformers reads them; and models of the Hugging Face hub, whose
files are fetched: a transformers model becomes a local folder."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from degla.errors import InputError
from degla.model.hub import offline
from degla.model.tokenizer import CONFIG_NAME, TOKENIZER_FILES, read_model_config
from degla.model.transformers_map import LAYOUTS
from degla.model.weights_file import (
    FLOATS,
    PICKLED,
    SAFE,
    conversion,
    in_python,
    python_command,
    stored_types,
    wrong_type,
)
from degla.pages.words import counted
from degla.parse import in_one_line, read_json, read_json_object
from degla.progress import only_errors, quiet_transformers

INSTALL = "Install it: pip install 'degla[export]'."
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_OTHERS = {
    "siglip2": "SigLIP 2 for images of any shape has no fixed size; use one of fixed resolution, such as "
    "hf-hub:google/siglip2-base-patch16-224",
    "altclip": "open_clip does not have its text tower (XLM-R, normalised and projected twice); for languages other "
    "than English use a CLIP, MetaCLIP 2 or SigLIP",
}


@dataclass(frozen=True)
class Opened:
    """A transformers model in float32, with its tokenizer, its image processor and the shape of the images from it."""

    model: Any
    tokenizer: Any
    processor: Any
    shape: list[int]


def model_type(folder: Path) -> str:
    """Return `model_type` of config.json, "" if it has none: the config.json of a `degla train` run is different."""
    try:
        content = read_json(folder / CONFIG, constants=True)
    except InputError:
        return ""
    return str(content.get("model_type", "")) if isinstance(content, dict) else ""


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder is in the format of `transformers` and not of open_clip."""
    own = (folder / "open_clip_config.json").is_file()
    return (folder / CONFIG).is_file() and not own and model_type(folder) != ""


def open_transformers(folder: Path) -> Opened:
    """Load a model, its tokenizer and its image processor. Fetches nothing and runs none of the folder's code.

    Raises:
        InputError: `transformers` is not installed, the folder holds another kind of model, or a file is missing,
            damaged or in another format.
    """
    check_files(folder)
    transformers = import_transformers(folder)
    here = {"local_files_only": True, "trust_remote_code": False}
    # Offline: "attn_implementation" in config.json can name a kernel on the hub, which would be fetched and run; from
    # version 5.25 on transformers takes kernels from there unless use_kernels is False.
    part, files = "configuration or weights", [CONFIG]
    with quiet_transformers(), offline():
        try:
            model, report = transformers.AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, use_safetensors=True, use_kernels=False, **here
            )
            part, files = "tokenizer", [*TOKENIZER_FILES]
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **here)
            part, files = "image processor", [*_PROCESSORS]
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **here)
            image = Image.new("RGB", (16, 8))  # Not square: all images must get one size.
            shape = [*processor(images=image, return_tensors="pt")["pixel_values"][0].shape]
        except ImportError as error:
            raise InputError(f"{folder}: needs a package that is not installed: {_first_lines(error)}.") from None
        except Exception as error:  # transformers, safetensors and tokenizers raise their own exception types
            for file in files:
                if file.endswith(".json") and (folder / file).is_file():
                    read_json_object(folder / file, remedy="Fetch the file again.", constants=True)
            raise InputError(f"{folder}: its {part} cannot be loaded by transformers: {_first_lines(error)}") from None
    # transformers fills missing weights with random numbers and continues.
    lacking = sorted(name for name in report["missing_keys"] if not name.endswith("position_ids"))
    if lacking or report.get("mismatched_keys"):
        raise InputError(
            f"{folder}: the weights lack {', '.join(lacking[:3]) or 'nothing'} ({counted(len(lacking), 'parameter')}) "
            "or do not match config.json, so every result would be wrong."
        )
    return Opened(model.eval(), tokenizer, processor, shape)


def import_transformers(folder: Path) -> Any:
    """Import transformers, which reads the folder.

    Raises:
        InputError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(f"{folder}: needs transformers, which is not installed. {INSTALL}") from None
    return transformers


def check_files(folder: Path) -> None:
    """Refuse a folder with another kind of model, or with weights that are missing, damaged or in another format.

    Raises:
        InputError: names the file or field, and what to do.
    """
    kind, where = model_type(folder), folder / CONFIG
    if kind not in LAYOUTS:
        hint = f": {_OTHERS[kind]}" if kind in _OTHERS else ""
        tower = kind.endswith(("_vision_model", "_text_model"))
        hint = ": this is only one tower; use the whole model with both towers" if tower else hint
        raise InputError(
            f"{where}: field 'model_type' is {kind!r}; of transformers, only clip, siglip (including SigLIP 2 of "
            f"fixed resolution) and metaclip_2 can be loaded{hint}."
        )
    adapter = folder / "adapter_config.json"
    if adapter.is_file():  # transformers before 5 would read the base that it names, not this folder's weights.
        raise InputError(f"{adapter}: is an adapter beside the model. Merge it into the weights, or remove the file.")
    content = read_json_object(where, constants=True)
    text = content.get("text_config")
    end = text.get("eos_token_id", 0) if isinstance(text, dict) else 0
    if LAYOUTS[kind] == "clip" and not isinstance(end, int):
        raise InputError(
            f"{where}: field 'text_config.eos_token_id' is {end!r}, but must be one number, the id of the token at "
            "which texts are read."
        )
    named = content.get("architectures") or []
    other = next((name for name in named if "Classification" in str(name) or str(name).endswith("Projection")), None)
    if other is not None:
        raise InputError(
            f"{where}: field 'architectures' names {other}, a classifier or a single tower. Use the model of images "
            "and texts that it was made from."
        )
    _check_weights(folder, _weight_files(folder))
    if not any((folder / name).is_file() for name in _PROCESSORS):
        add = f"AutoProcessor.from_pretrained('BASE').save_pretrained({in_python(folder)})"
        raise InputError(
            f"{folder}: has no image processor ({' or '.join(_PROCESSORS)}). A Trainer saves it, and the tokenizer, "
            "only if it is given as processing_class. Add those of the model that it started from: "
            f"{python_command(f'from transformers import AutoProcessor; {add}')}"
        )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = read_json_object(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise InputError(f"{folder / INDEX}: has no 'weight_map'. Fetch the file again.")
        names = list(dict.fromkeys(map(str, shards.values())))
        if outside := next((name for name in names if Path(name).name != name), None):
            raise InputError(f"{folder / INDEX}: 'weight_map' names {outside!r}, which is not a file of the folder.")
        files = [folder / name for name in names]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {counted(len(files), 'weights file is', 'weights files are')} "
                f"missing, first {missing[0]}; the download is incomplete. Fetch the folder again."
            )
        return files
    pickled = next((name for name in _PICKLED if (folder / name).is_file()), None)
    if pickled is not None:
        raise InputError(
            f"{folder / pickled}: pickled weights, which can run code when loaded, are not accepted. If you trust the "
            'file, convert it: python -c "from transformers import AutoModel; '
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
            raise InputError(f"{folder}: the weights have no {tower} tower ({prefix}*), but both towers are needed.")
    head = next((name for name in sorted(names) if name.startswith("classifier.")), None)
    if head is not None:
        raise InputError(
            f"{folder}: the weights include a classifier ({head}) with its own classes instead of texts. Use the model "
            "that it was made from."
        )


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return in_one_line(" ".join(lines[:3])) or type(error).__name__


def stored_type(folder: Path) -> str:
    """Return the dtype of the weights according to config.json, for example "bfloat16"; "float32" by default."""
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return str(content.get("dtype") or content.get("torch_dtype") or "float32")


_FILES = (CONFIG, *_PROCESSORS, WEIGHTS, INDEX, "model-*.safetensors",
          *TOKENIZER_FILES)  # fmt: skip
PREFIX = "hf-hub:"


def transformers_snapshot(name: str, *, online: bool) -> Path | None:
    """Return the local folder of a hub model that is in the format of transformers, not of open_clip.

    Args:
        name: hf-hub:ORGANISATION/NAME.
        online: whether the hub can be reached; otherwise only the local cache is searched.

    Returns:
        None if the model is in open_clip's format, or if it is not cached and the hub cannot be reached.

    Raises:
        InputError: there is no such model, access is denied, the download is incomplete, or a model in open_clip's
            format has another form than this version reads.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    repository = name.removeprefix(PREFIX)
    if not online:
        own, pickled, *safe = (try_to_load_from_cache(repository, name) for name in (CONFIG_NAME, PICKLED, *SAFE))
        if isinstance(own, str):
            read_model_config(Path(own))
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
            f"{name}: is only available to those who accept its authors' terms. Accept them on its hub page, then log "
            "in: hf auth login."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{name}: the hub has no such model, or it is private. Check the spelling; for a private one log in: "
            "hf auth login."
        ) from None
    except HFValidationError as error:
        raise InputError(f"{name}: not a valid hub name: {in_one_line(error)}") from None
    except Exception as error:  # errors of the hub's client and of its HTTP library
        raise InputError(
            f"{name}: could not be fetched from the hub: {in_one_line(error) or type(error).__name__}. Run the command "
            "again; files already downloaded are kept."
        ) from None


def _fetched_for_open_clip(repository: str) -> bool:
    """Whether the model is in open_clip's format. Also fetch its weights: if that fails, open_clip would silently use
    random weights."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        config = hf_hub_download(repository, CONFIG_NAME)
    except EntryNotFoundError:
        return False
    read_model_config(Path(config))
    for name in SAFE:
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(repository, name)
            return True
    raise _no_safe_weights(repository)


def fetched_weights(name: str) -> Path | None:
    """Return the weights file that open_clip reads for a hub model, if it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(name.removeprefix(PREFIX), file) for file in SAFE)
    return next((Path(file) for file in paths if isinstance(file, str)), None)


def _no_safe_weights(repository: str) -> InputError:
    return InputError(
        f"{PREFIX}{repository}: has {CONFIG_NAME} but no weights in {SAFE[0]}. Pickled weights ({PICKLED}), which can "
        "run code when loaded, are not accepted. If it has such weights and you trust its authors, fetch them: hf "
        f"download {repository} --local-dir OUT; convert them: {conversion(Path('OUT') / PICKLED)}; and give OUT as "
        "the model."
    )


def _downloaded(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, allow_patterns=list(_FILES)))
    if (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise InputError(
            f"{PREFIX}{repository}: has no {WEIGHTS}. Pickled weights (.bin), which can run code when loaded, are not "
            "accepted. If you trust its authors, convert them: python -c "
            f"\"from transformers import AutoModel as M; M.from_pretrained('{repository}').save_pretrained('OUT')\", "
            "add the tokenizer and preprocessing files, and give OUT as the model."
        )
    return folder
