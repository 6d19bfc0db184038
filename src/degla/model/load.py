"""Load models by name: checkpoint folders, open_clip architectures with a tag or a file, hub ids, shipped models."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from degla.errors import InputError
from degla.model import fast_paths
from degla.model.address import folder_here
from degla.model.encoder import Description, Encoder, float32_by_default
from degla.model.from_transformers import load_from_transformers
from degla.model.heap import keep_freed_memory
from degla.model.hub import NeedsCodeError, downloads_allowed, offline, refusing_code, why_unreachable
from degla.model.integrity import checked
from degla.model.onnx_folder import is_onnx_folder
from degla.model.runs import chosen_checkpoint, settle, why_no_best
from degla.model.tokenizer import (
    AGAIN,
    CONFIG_NAME,
    open_tokenizer,
    read_model_config,
    tokenizer_files,
    tokenizer_form,
)
from degla.model.transformers_files import (
    PREFIX,
    fetched_weights,
    is_transformers_folder,
    model_type,
    transformers_snapshot,
)
from degla.model.transformers_map import LAYOUTS, three_channels
from degla.model.weights_file import (
    Undrawn,
    first_lines,
    has_bias,
    require_floats,
    require_weights,
    require_whole,
    what_does_not_fit,
    what_trainers_left,
    zip_names,
)
from degla.parse import read_json, read_json_object
from degla.progress import only_errors
from degla.remote import address_of, display_path
from degla.shelf import did_you_mean

log = logging.getLogger(__name__)

INSTALL = "Install it: pip install 'degla[embedded]'."
_FETCHED = Path(os.path.expanduser("~/.cache/clip"))  # noqa: PTH111 as open_clip does: no error without a home
"""Where open_clip keeps weights that it downloads from their own URL."""

FORMS = (
    "a run or checkpoint folder, a transformers folder, ARCHITECTURE:TAG (for example ViT-B-32-quickgelu:openai), "
    "ARCHITECTURE:FILE, ARCHITECTURE:random, hf-hub:ORGANISATION/NAME, the address of a run or folder (s3://...), or "
    "world or photo (small models shipped with degla)"
)


@contextlib.contextmanager
def _usual_defaults() -> Iterator[None]:
    """Restore PyTorch's defaults, which a program may have changed, and afterwards the program's.

    Weights could not be trained if made in inference mode, and a block of CLIP does not compute the same under
    autocast.
    """
    with float32_by_default(), torch.device("cpu"), torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        yield


@_usual_defaults()
def load_encoder(name: str | Path, *, device: str | torch.device = "cpu", seed: int = 0) -> Encoder:
    """Load any model that `degla` supports, in float32 and evaluation mode.

    Args:
        name: one of the forms in `FORMS`, or the path of a folder.
        device: of the parameters.
        seed: for ARCHITECTURE:random.

    Raises:
        InputError: there is no such model or device, or the weights belong to another architecture or activation.
        DeglaError: an address cannot be read.
    """
    try:
        torch.zeros(1, device=device).item()  # Computes: PyTorch may know a device that it has no programs for.
    except (AssertionError, RuntimeError, TypeError) as error:
        message = re.split(r"\.\s|\n", str(error))[0].rstrip(".")  # More than the first sentence may fill pages.
        raise InputError(
            f"device {str(device)!r} cannot be used: {message}. Use cpu, or cuda if there is a GPU."
        ) from None
    name = display_path(name) if isinstance(name, Path) else name
    here = folder_here(name)
    with refusing_code(name):
        if name in SHIPPED:
            encoder = _from_folder(shipped_folder(name), name=name)
        elif name.startswith("hf-hub:"):
            encoder = _from_known_name(name, pretrained=None, name=name)
        elif name and here.is_dir():
            folder = _checkpoint_folder(here)
            with checked(folder, for_training=False):
                own = not is_transformers_folder(folder)
                encoder = _from_folder(folder, name=name) if own else load_from_transformers(folder, name=name)
        else:
            encoder = _from_architecture(name, seed=seed)
    encoder = encoder.to(device).float()
    encoder.eval()
    if encoder.device.type == "cpu":
        keep_freed_memory()  # Only from here on, so that temporary memory of loading is returned.
    fast_paths.tell(encoder)
    return encoder


def model_from(folder: Path, name: str) -> str:
    """Return the name of a model with the path in it, FOLDER or ARCHITECTURE:FILE, joined to a folder.

    Args:
        folder: what a relative path is relative to.
        name: of the model; if there is no such folder or file, or it is a shipped model or has random weights, it is
            returned unchanged.
    """
    kind, _, file = name.partition(":")
    if name in ("", *SHIPPED) or file == "random" or address_of(name) is not None:
        return name
    path = folder / name.removeprefix("local-dir:")
    if os.path.isdir(path):  # noqa: PTH112 no error for any text
        return str(path)
    return f"{kind}:{folder / file}" if file and os.path.isfile(folder / file) else name  # noqa: PTH113


def holds_model(folder: Path) -> bool:
    """Whether a folder is itself a model: of open_clip, of transformers or of ONNX graphs; a run is none."""
    return (folder / CONFIG_NAME).is_file() or is_transformers_folder(folder) or is_onnx_folder(folder)


def _checkpoint_folder(folder: Path) -> Path:
    """The folder itself if it holds a model, else the checkpoint that represents the run."""
    if (folder / CONFIG_NAME).is_file() or is_transformers_folder(folder):
        return folder
    if is_onnx_folder(folder):
        raise InputError(f"{folder}: ONNX graphs can be scored with `degla evaluate`, but not trained or averaged.")
    settle(folder)
    checkpoint = chosen_checkpoint(folder)
    if checkpoint is None:
        if (folder / "config.json").is_file():
            read_json(folder / "config.json", remedy=AGAIN, constants=True)  # Not JSON: that is why.
        raise InputError(
            f"{folder}: not a model ({CONFIG_NAME} is missing), not a run with a complete checkpoint (step-N) and "
            f"not a transformers folder (config.json with 'model_type').{what_trainers_left(folder)}"
        )
    return checkpoint


def folder_has_bias(folder: Path) -> bool:
    """Whether a folder holds a sigmoid-loss model according to its configuration; no weights are read.

    Raises:
        InputError: it holds no model.
    """
    checkpoint = _checkpoint_folder(folder)
    if is_transformers_folder(checkpoint):
        return LAYOUTS.get(model_type(checkpoint)) == "siglip"
    model_config = read_model_config(checkpoint / CONFIG_NAME).get("model_cfg")
    return isinstance(model_config, dict) and model_config.get("init_logit_bias") is not None


def _from_folder(folder: Path, *, name: str) -> Encoder:
    try:
        model_config = tokenizer_form(read_model_config(folder / CONFIG_NAME))
        quick_gelu = bool(model_config.get("quick_gelu", False))
        references = _hub_references(model_config)
        files = tokenizer_files(folder, model_config)
        if files:
            references.pop("text_cfg.hf_tokenizer_name", None)
    except (KeyError, AttributeError, TypeError, ValueError):
        raise InputError(f"{folder / CONFIG_NAME}: not an open_clip configuration (no 'model_cfg').") from None
    for field, value in references.items():
        if value.startswith("local-dir:") or os.path.isdir(value):  # noqa: PTH112 no error for any text
            raise InputError(
                f"{folder / CONFIG_NAME}: field '{field}' names {value!r}, another folder. A model's folder reads no "
                "files of others; only a name on the Hugging Face hub is allowed."
            )
    weights = require_weights(folder)
    _check_recorded_activation(weights, quick_gelu=quick_gelu)
    source = f"local-dir:{folder}"
    why = why_unreachable() if references and downloads_allowed() else "--allow-download is not set"
    with contextlib.nullcontext() if why is None else offline():
        try:
            return _from_open_clip(source, name=name, model_config=model_config, files=files, weights=weights)
        except InputError as error:
            if not references or why is None or isinstance(error, NeedsCodeError):
                raise
            fields = " and ".join(f"field '{field}' names {value!r}" for field, value in references.items())
            raise InputError(
                f"{folder / CONFIG_NAME}: {fields}, which is not on this machine and cannot be fetched from the "
                f"Hugging Face hub: {why}."
            ) from None


def _hub_references(model_config: dict[str, Any]) -> dict[str, str]:
    """Fields of a configuration that may refer to the hub, with their values."""
    text, vision = model_config.get("text_cfg", {}), model_config.get("vision_cfg", {})
    references = {"text_cfg.hf_model_name": text.get("hf_model_name"), "text_cfg.hf_tokenizer_name": None}
    if text.get("hf_tokenizer_name"):
        references["text_cfg.hf_tokenizer_name"] = text["hf_tokenizer_name"]
    timm = str(vision.get("timm_model_name") or "")
    references["vision_cfg.timm_model_name"] = timm if ":" in timm else None
    return {field: str(value) for field, value in references.items() if value}


def require_folders(names: Sequence[str]) -> None:
    """Reject paths where nothing is, before any model is loaded; names with a colon are not looked at.

    Raises:
        InputError: a name is a path that does not exist.
    """
    for name in names:
        if ":" not in name and "/" in name and not Path(name).exists():
            why = why_no_best(Path(name))
            raise InputError(f"{name}: {why}") if why else _no_folder(name)


def _no_folder(name: str) -> InputError:
    hub = f" Of the Hugging Face hub: hf-hub:{name}." if re.fullmatch(r"[\w-]+/[\w.-]+", name) else ""
    return InputError(f"{name}: no such folder.{hub} A model is {FORMS}.")


def _from_architecture(name: str, *, seed: int) -> Encoder:
    import open_clip

    architecture, _, source = name.partition(":")
    if architecture in ("random", "blind"):
        raise InputError(f"{name}: is a baseline, not a network: it can only be scored, with `degla evaluate`.")
    architectures = open_clip.list_models()
    if architecture not in architectures:
        if Path(name).is_file():
            raise InputError(f"{name}: is a file. Give the folder that contains it, or ARCHITECTURE:{name}.")
        if why := why_no_best(Path(name)):
            raise InputError(f"{name}: {why}")
        if "/" in name or "\\" in name:
            raise _no_folder(name)
        raise InputError(
            f"unknown model {name!r}.{did_you_mean(architecture, [*SHIPPED, *architectures])} A model is {FORMS}."
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not source:
        raise InputError(
            f"{name!r} is an architecture without weights. Add :TAG ({', '.join(tags) or 'none known'}), "
            ":FILE or :random."
        )
    config = open_clip.get_model_config(architecture)
    quick_gelu = bool(config.get("quick_gelu", False))
    twin = architecture.removesuffix("-quickgelu") if quick_gelu else f"{architecture}-quickgelu"
    if source == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _from_known_name(architecture, pretrained=None, name=name)
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{name}: {source} is a folder. Give it without {architecture}: before it.")
    if path.exists():
        recorded = _check_recorded_activation(path, quick_gelu=quick_gelu)
        if not (recorded or quick_gelu) and "openai" in open_clip.list_pretrained_tags_by_model(twin):
            log.warning(
                "%s: the file does not record its activation function, and %s computes GELU. Weights fine-tuned from "
                "OpenAI's need %s.", name, architecture, twin,
            )  # fmt: skip
        require_whole(path, name=name)
        return _from_known_name(architecture, pretrained=source, name=name)
    if source not in tags:
        if source in open_clip.list_pretrained_tags_by_model(twin):
            raise _activation_error(name, f"Use {twin} instead.", quick_gelu=quick_gelu)
        raise InputError(
            f"{name!r}: there is no file or pre-trained tag {source!r}.{did_you_mean(source, tags)} "
            f"Tags of {architecture}: {', '.join(tags) or 'none'}."
        )
    tag = open_clip.get_pretrained_cfg(architecture, source) or {}
    if bool(tag.get("quick_gelu", False)) != quick_gelu:
        if twin == architecture or twin not in architectures:
            raise InputError(
                f"{name}: open_clip's table of weights and its architecture differ in the activation, and there is no "
                f"other {architecture}. Use hf-hub:{str(tag.get('hf_hub')).strip('/')}, which records it."
            )
        raise _activation_error(name, f"Use {twin} instead.", quick_gelu=quick_gelu)
    return _from_known_name(architecture, pretrained=source, name=name)


def _activation_error(name: str, remedy: str, *, quick_gelu: bool, part: str = "this architecture") -> InputError:
    wrong, right = ("QuickGELU", "GELU") if quick_gelu else ("GELU", "QuickGELU")
    return InputError(
        f"{name}: these weights were trained with {right}, but {part} uses {wrong}, so every result would be wrong. "
        f"{remedy}"
    )


def _check_recorded_activation(path: Path, *, quick_gelu: bool) -> bool:
    """Compare the activation with the one recorded in the weights file or the configuration next to it, if any.

    Returns:
        Whether it is recorded.
    """
    recorded: bool | None = None
    if path.suffix == ".safetensors" and path.is_file():
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as weights:
                note = (weights.metadata() or {}).get("quick_gelu")
        except SafetensorError as error:
            remedy = "Fetch it again, or use an earlier checkpoint."
            raise InputError(f"{path}: damaged weights file: {error}. {remedy}") from None
        recorded = None if note is None else note == "true"
    elif path.is_file() and any(Path(entry).name == "constants.pkl" for entry in zip_names(path)):
        recorded = True  # TorchScript: OpenAI's own archives, all trained with QuickGELU.
    beside = path.parent / CONFIG_NAME
    if recorded is None and beside.is_file():
        try:
            recorded = bool(read_json_object(beside)["model_cfg"].get("quick_gelu", False))
        except (InputError, KeyError, AttributeError, TypeError):
            recorded = None
    if recorded is not None and recorded != quick_gelu:
        remedy = f"Use the architecture {'with' if recorded else 'without'} the suffix '-quickgelu'"
        remedy += f", or set quick_gelu in {CONFIG_NAME}." if beside.is_file() else "."
        raise _activation_error(str(path), remedy, quick_gelu=quick_gelu, part="the configuration")
    return recorded is not None


def _from_known_name(source: str, *, pretrained: str | None, name: str) -> Encoder:
    """Load a model that open_clip knows by name; weights, text tower or tokenizer may have to be fetched."""
    import open_clip

    at_hub = source.startswith("hf-hub:")
    config = {} if at_hub else open_clip.get_model_config(source)
    tag = open_clip.get_pretrained_cfg(source, pretrained) if pretrained else {}
    siglip = "siglip" in source.lower()  # open_clip chooses their tokenizer by name.
    if not (at_hub or tag or siglip or _hub_references(config)):
        return _from_open_clip(source, pretrained=pretrained, name=name)
    why = why_unreachable()
    folder = transformers_snapshot(source, online=why is None) if at_hub else None
    if folder is not None:
        return load_from_transformers(folder, name=name)
    if why is None:
        return _with_fetched_weights(source, _from_open_clip(source, pretrained=pretrained, name=name))
    only_parts = not (tag or at_hub)  # Only text tower or tokenizer come from the hub, not the weights.
    with offline():
        try:
            if tag and not tag.get("hf_hub") and not (_FETCHED / Path(tag.get("url", "")).name).is_file():
                raise InputError(f"{_FETCHED} does not contain its weights")
            encoder = _from_open_clip(source, pretrained=pretrained, name=name)
        except InputError as error:
            wrong_file = only_parts and pretrained and not isinstance(error.__context__, OSError)
            if wrong_file or isinstance(error, NeedsCodeError):  # Neither is a matter of the network.
                raise
            raise InputError(
                f"{name}: {'its text tower or tokenizer ' if only_parts else ''}is not on this machine, and the "
                f"Hugging Face hub cannot be reached ({why}). Connect to the network, or use a local model: a folder, "
                f"{'' if only_parts else 'ARCHITECTURE:FILE, '}world or photo."
            ) from None
    return _with_fetched_weights(source, encoder)


def _with_fetched_weights(source: str, encoder: Encoder) -> Encoder:
    """Return the model after checking its weights file, as for a folder, if it was fetched from the hub."""
    weights = fetched_weights(source) if source.startswith(PREFIX) else None
    if weights is not None:
        _check_recorded_activation(weights, quick_gelu=encoder.description.quick_gelu)
        require_floats(weights, encoder.clip)
    return encoder


def _from_open_clip(
    source: str,
    *,
    name: str,
    pretrained: str | None = None,
    model_config: dict[str, Any] | None = None,
    files: tuple[Path, ...] = (),
    weights: Path | None = None,
) -> Encoder:
    import open_clip

    file, undrawn = weights or Path(pretrained or ""), Undrawn()
    try:
        with only_errors():  # open_clip logs each step to the root logger and warns about the activation.
            tower = str((model_config or {}).get("vision_cfg", {}).get("timm_model_name") or "")
            if tower.endswith("_tanh"):
                importlib.import_module("degla.model.timm_towers")
            folder = source.startswith(("hf-hub:", "local-dir:"))
            with warnings.catch_warnings(), undrawn if folder or pretrained else contextlib.nullcontext():
                warnings.filterwarnings("error", message=".*[Qq]uick_?[Gg][Ee][Ll][Uu].*")
                clip, _, transform = open_clip.create_model_and_transforms(
                    source, pretrained=pretrained, require_pretrained=folder, pretrained_text=False
                )
            require_floats(file, clip)
            bias = getattr(clip, "logit_bias", None)
            # open_clip fills in 0 where the weights have none.
            if (folder or pretrained) and bias is not None and not bias.any() and not has_bias(file):
                raise KeyError("logit_bias")
            config = model_config or dict(open_clip.get_model_config(source))
            tokenize = open_tokenizer(source, config, files)
    except InputError:
        raise
    except UserWarning as error:
        raise InputError(f"{name}: {error}. Use the architecture whose activation matches the weights.") from None
    except ImportError as error:
        raise InputError(f"{name}: needs a package that is not installed: {error}. {INSTALL}") from None
    except (RuntimeError, KeyError, AttributeError, AssertionError, StopIteration, pickle.UnpicklingError) as error:
        config = model_config or (open_clip.get_model_config(source) if source in open_clip.list_models() else {})
        raise InputError(f"{name}: {what_does_not_fit(error, file, config)}") from None
    except Exception as error:  # timm, transformers, tokenizers and the hub's client raise their own exception types
        raise InputError(f"{name}: cannot be loaded: {first_lines(str(error)) or type(error).__name__}") from None
    for before, after in undrawn.interpolated:
        log.warning(
            "%s: the weights have positions for %s, but the architecture is for %s. open_clip interpolates them, which "
            "makes another model. Use an architecture, or sizes in %s, that match the weights.",
            name, _extent(before), _extent(after), CONFIG_NAME,
        )  # fmt: skip
    # As resolved by open_clip: the size is the network's own, whatever else a configuration says.
    settings = dict(open_clip.model.get_model_preprocess_cfg(clip))
    try:
        settings |= {field: three_channels(settings[field]) for field in ("mean", "std")}
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    description = Description(name=name, model_config=config, preprocess_config=settings, tokenizer_files=files)
    return Encoder(clip, description=description, tokenize=tokenize, transform=transform)


def _extent(size: tuple[int, ...]) -> str:
    return f"{size[0]} tokens" if len(size) == 1 else f"{size[0]} x {size[1]} patches"


SHIPPED: Final = {"world": "mit", "photo": "apache-2.0"}
"""Shipped models and their licences in the hub's spelling: `world` for the embedded world's drawings, `photo` for
photographs."""


def shipped_folder(name: str) -> Path:
    """Return the folder of a shipped model, in open_clip's format.

    Args:
        name: a key of `SHIPPED`.
    """
    if name == "world":
        from degla.world import world_model_folder

        return world_model_folder()
    return Path(__file__).parent / name
