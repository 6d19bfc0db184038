"""Checks of the weights file that open_clip reads from a folder, messages for weights that do not fit, and creation of
a network without random initialisation if its weights come from a file."""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from degla.errors import InputError
from degla.pages.words import counted
from degla.parse import in_one_line, open_file

FLOATS = {"F64", "F32", "F16", "BF16"}
"""Supported dtypes of weights, by their names in safetensors."""
SAFE = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLED = "open_clip_pytorch_model.bin"
_READ_FIRST = (*SAFE, PICKLED, "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin",
               "pytorch_model.pth", "model.pth")  # fmt: skip
"""Names of weights files in the order in which open_clip looks for them; others come last."""
_ENDINGS = (".safetensors", ".bin", ".pth")
_QUOTED = re.compile(r'"([^"]+)"')
_OF_TRAINERS = ("*.safetensors", "*.ckpt", "checkpoints/*.ckpt", "epoch_*.pt", "checkpoints/epoch_*.pt")
"""Weights that other programs leave behind, in a folder without a configuration."""
_HEADS = ("classifier.", "head.", "fc.")


def require_weights(folder: Path) -> Path:
    """Return the weights file that open_clip reads from a folder; without one, open_clip makes a random model.

    Raises:
        InputError: there is no weights file, or the one that open_clip would read is a pickle.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
    if not files:
        if made := _of_trainers(folder):
            raise InputError(
                f"{folder}: its weights are in {made.name}. If you trust it, convert it: {conversion(made)}"
            )
        raise InputError(
            f"{folder}: has no weights (open_clip_model.safetensors). Fetch the folder again; for a model with random "
            "weights use ARCHITECTURE:random."
        )
    places = {name: place for place, name in enumerate(_READ_FIRST)}
    weights = min(files, key=lambda path: (places.get(path.name, len(places)), path.suffix != ".safetensors"))
    if weights.suffix != ".safetensors":
        raise InputError(
            f"{weights}: pickled weights, which can run code when loaded, are not accepted. If you trust the "
            f"file, convert it: {conversion(weights)}"
        )
    return weights


def conversion(file: Path, *, prefix: str = "") -> str:
    """Return the command that converts weights to open_clip_model.safetensors without running any code in them.

    Args:
        file: of weights, pickled or not.
        prefix: what their names begin with, besides the "module." of DDP.
    """
    prefix = prefix.removeprefix("module.")
    read = f"torch.load({in_python(file)}, map_location='cpu', weights_only=True)"
    if file.suffix == ".safetensors":
        read = f"load_file({in_python(file)})"
    name = f"k.removeprefix('module.').removeprefix({prefix!r})" if prefix else "k.removeprefix('module.')"
    own = f" if {prefix!r} in k" if prefix else ""
    return python_command(
        "import torch; from safetensors.torch import load_file, save_file; "
        f"w = {read}; w = w.get('state_dict', w); "
        f"save_file({{{name}: v.contiguous().clone() for k, v in w.items(){own}}}, "
        f"{in_python(file.parent / SAFE[0])})"
    )


def in_python(path: Path) -> str:
    """Return a path as Python reads it."""
    return repr(path.as_posix())


def python_command(code: str) -> str:
    """Return the shell command that runs some code; quotes of sh only where double quotes would not do."""
    return f"python -c {shlex.quote(code)}" if set(code) & set('"$`\\!') else f'python -c "{code}"'


def what_trainers_left(folder: Path) -> str:
    """Return what to do with a folder that another program's training left, if it is one: a sentence, or ""."""
    if (folder / "adapter_config.json").is_file():
        return (
            " It is an adapter of peft. Save the model with it: PeftModel.from_pretrained(BASE, "
            f"{in_python(folder)}).merge_and_unload().save_pretrained('OUT'), and BASE's tokenizer and image processor "
            "to OUT."
        )
    if steps := sorted(folder.glob("checkpoint-*/"), key=lambda path: (len(path.name), path.name)):
        return f" Give a checkpoint in it, such as {steps[-1]}."
    made = _of_trainers(folder)
    if made is None:
        return ""
    return (
        f" If {made.name} holds weights of open_clip, give ARCHITECTURE:{made}; if of transformers, add their "
        "config.json, tokenizer and image processor."
    )


def _of_trainers(folder: Path) -> Path | None:
    files = (path for pattern in _OF_TRAINERS for path in folder.glob(pattern) if path.is_file())
    return max(files, key=lambda path: (len(path.name), path.name), default=None)


def require_whole(path: Path, *, name: str) -> None:
    """Refuse a file that is neither a zip archive nor a pickle, of which PyTorch says that it may be trusted.

    Args:
        path: of a weights file; safetensors and .npy are not checked.
        name: of the model, for the message.

    Raises:
        InputError: it is empty, damaged, cut off or of another kind, such as a web page or an archive of other files.
    """
    if path.suffix in (".safetensors", ".npy"):
        return
    with open_file(path) as stream:
        pickled = stream.read(1) == b"\x80"
    if not (pickled or any(Path(entry).name == "data.pkl" or entry.endswith(".npy") for entry in zip_names(path))):
        raise InputError(
            f"{name}: not a weights file, or one that is cut off: PyTorch's are zip archives or pickles. Download "
            "or save it again."
        )


def zip_names(path: Path) -> list[str]:
    """Return the names in a zip archive; none for another file, or an archive whose list of names is damaged."""
    with open_file(path) as stream:
        try:
            return zipfile.ZipFile(stream).namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError):  # The last: a format that Python does not read.
            return []


def require_floats(path: Path, clip: nn.Module) -> None:
    """Refuse weights stored as integers, which PyTorch would load as if they were the actual values.

    Args:
        path: of a safetensors file; other files are not checked.
        clip: the model that it was loaded into.

    Raises:
        InputError: names the tensor and its type.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return
    kinds = stored_types(path)
    for name, _ in clip.named_parameters():
        if kinds.get(name, "F32") not in FLOATS:
            raise wrong_type(path, name, kinds[name])


def stored_types(path: Path) -> dict[str, str]:
    """Return the dtype of every tensor of a safetensors file by name; the values are not read.

    Raises:
        SafetensorError: the file is damaged.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return {name: str(weights.get_slice(name).get_dtype()) for name in weights.keys()}  # noqa: SIM118


def has_bias(path: Path) -> bool:
    """Whether a file of weights has a bias of the sigmoid loss; False if there is no such file."""
    import open_clip

    return path.is_file() and "logit_bias" in open_clip.factory.load_state_dict(str(path))


def wrong_type(path: Path, name: str, kind: str) -> InputError:
    """Return the error for a tensor whose dtype is not in `FLOATS`."""
    return InputError(
        f"{path}: {name} has the type {kind}, but weights must be float32, float16 or bfloat16. Use the model before "
        "quantisation."
    )


def what_does_not_fit(error: Exception, weights: Path, config: Mapping[str, Any]) -> str:
    """Summarise PyTorch's lists of mismatched parameters, or timm's unknown tower, in one line with a remedy.

    Args:
        error: from loading the weights.
        weights: their file, in which to look for the architectures of their size.
        config: of the architecture that they do not fit.
    """
    text = str(error)
    if "Weights only load failed" in text:
        return (
            "it pickles more than weights, such as a whole model, which can run code when loaded. If you trust it, "
            f"save only the weights: w = torch.load({in_python(weights)}, weights_only=False); "
            'torch.save(w["state_dict"] if isinstance(w, dict) else w.state_dict(), NEW).'
        )
    if (unknown := re.search(r"Unknown model \((.+)\)", text)) is not None:
        return (
            f"the installed timm has no image tower {unknown[1]!r} (vision_cfg.timm_model_name). A newer one may have "
            "it: pip install --upgrade timm."
        )
    lines = [line.strip() for line in text.splitlines()]
    lacking, more = (
        [name for line in lines if line.startswith(word) for name in _QUOTED.findall(line)]
        for word in ("Missing key", "Unexpected key")
    )
    # open_clip reads scale and bias before PyTorch compares the names.
    if isinstance(error, KeyError) and text.startswith("'logit_"):
        lacking = [text.strip("'")]
    if isinstance(error, AttributeError) and text.endswith("has no attribute 'ndim'"):
        more = ["logit_bias"]
    differences = [f"they {verb} {_some(names)}" for verb, names in (("lack", lacking), ("have", more)) if names]
    differences += [line.partition(": copying")[0] for line in lines if line.startswith("size mismatch")][:1]
    if "pos_embed width changed" in text:  # open_clip asserts this before PyTorch compares the others.
        differences = ["their text tower has another width"]
    if isinstance(error, StopIteration) or text.endswith("has no attribute 'items'"):
        return "the file has no weights by name. Give one that torch.save(model.state_dict(), FILE) wrote."
    if re.search(r"not implemented for '(Half|BFloat16)'", text):
        differences = ["they are for another number of patches, and open_clip resizes only float32 weights"]
    if not differences:
        start = "cannot be loaded: " if isinstance(error, KeyError | AttributeError) else ""
        return start + (first_lines(text) or type(error).__name__)
    remedy = _remedy(lacking, more, weights, config)
    return f"the weights do not match this architecture: {'; '.join(differences)}. {remedy}"


def _architectures_of(weights: Path, config: Mapping[str, Any]) -> list[str]:
    """Return open_clip's architectures of two plain transformers with the sizes of some weights.

    There are none if the weights cannot be read, or have the sizes of `config`.
    """
    import open_clip

    try:
        state = open_clip.factory.load_state_dict(str(weights))
        blocks = [
            {name.split(".")[count] for name in state if name.startswith(f"{tower}transformer.resblocks.")}
            for tower, count in (("visual.", 3), ("", 2))
        ]
        width, _, patch, _ = state["visual.conv1.weight"].shape
        sizes = (state["text_projection"].shape[1], width, patch, len(blocks[0]), state["ln_final.weight"].shape[0],
                 len(blocks[1]))  # fmt: skip
    except Exception:  # The file may hold anything; it only improves a message.
        return []
    if sizes == _sizes(config):
        return []
    configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return [name for name, each in configs.items() if _sizes(each) == sizes and "multimodal_cfg" not in each]


def _sizes(config: Mapping[str, Any]) -> tuple[Any, ...]:
    image, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    return (config.get("embed_dim"), image.get("width"), image.get("patch_size"), image.get("layers"),
            text.get("width"), text.get("layers"))  # fmt: skip


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _common_prefix(lacking: list[str], more: list[str]) -> str:
    """Return what precedes every name that is lacking, or ""."""
    likely = [name.removesuffix(lacking[0]) for name in more if lacking and name.endswith(lacking[0])]
    return next((each for each in likely if {each + name for name in lacking} <= set(more)), "")


def _remedy(lacking: list[str], more: list[str], weights: Path, config: Mapping[str, Any]) -> str:
    tower = {name.startswith("visual.") for name in lacking if not name.startswith("logit_")}
    if not more and len(tower) == 1:
        return "A single tower is not enough; both towers are needed."
    if prefix := _common_prefix(lacking, more):
        return (
            f"Their names begin with {prefix!r}, as Lightning or torch.compile writes them. If you trust the file, "
            f"convert it: {conversion(weights, prefix=prefix)}, and give {SAFE[0]}."
        )
    if lacking and more and not any("." in name for name in more):
        inner = f"torch.load({in_python(weights)})[{more[0]!r}]"
        return f"The file holds more than weights. Save those alone: torch.save({inner}, NEW)."
    if any(name.startswith("text_model.") for name in more):
        return "They are of transformers: give the folder with them and config.json, without an architecture."
    if more and not lacking and all(name.startswith(_HEADS) for name in more):
        return "This is a classifier with its own classes instead of texts. Use the model that it was made from."
    if likely := _architectures_of(weights, config):
        return f"They have the size of {' or '.join(likely)}: use that architecture, or other weights."
    return "Use weights and open_clip_config.json of the same model, or the weights' own architecture."


def first_lines(text: str) -> str:
    """Join the first lines of another library's error into one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return in_one_line(" ".join(lines[:4])) + (
        f" ... and {counted(len(lines) - 4, 'more line')}" if len(lines) > 4 else ""
    )


_DRAWS = {
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.nn.init.kaiming_normal_,
    torch.nn.init.kaiming_uniform_,
    torch.nn.init.normal_,
    torch.nn.init.orthogonal_,
    torch.nn.init.trunc_normal_,
    torch.nn.init.uniform_,
    torch.nn.init.xavier_normal_,
    torch.nn.init.xavier_uniform_,
}


class Undrawn(TorchFunctionMode):
    """Context manager that skips random initialisation, for models whose parameters are all loaded afterwards.

    A ViT-B/32 would draw 151 million random numbers for nothing. Zeros, ones and constants are set as usual.

    Attributes:
        interpolated: the size before and after of each interpolation, which open_clip applies only to the position
            embeddings of weights for another size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.interpolated: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        keywords = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else keywords["tensor"]
        if func is torch.nn.functional.interpolate and (size := keywords["size"]) is not None:
            self.interpolated.append((tuple(args[0].shape[2:]), (size,) if isinstance(size, int) else tuple(size)))
        return func(*args, **keywords)
