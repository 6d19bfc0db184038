"""Export a model's tokenizer as `tokenizer.json`, which transformers, tokenizers and other languages can read."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.model.encoder import Encoder
from degla.model.tokenizer import transformers_form

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPACES: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Strip", "strip_left": True, "strip_right": True},
]
_LOWER = {"type": "Lowercase"}
_MENDED: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"Regex": "[\u02bc\u2018-\u201b]"}, "content": "'"},  # Curly quotes.
    {"type": "Replace", "pattern": {"Regex": "[\u201c-\u201f]"}, "content": '"'},
    {"type": "NFC"},
]
_CLEANING: dict[str, list[dict[str, Any]]] = {
    "lower": [*_MENDED, *_SPACES, _LOWER],
    "whitespace": [*_MENDED, *_SPACES],
    "canonicalize": [
        *_MENDED,
        {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
        {
            "type": "Replace",
            "pattern": {"Regex": "[" + "".join(f"\\{mark}" for mark in string.punctuation) + "]"},
            "content": "",
        },
        _LOWER,
        *_SPACES,
    ],
}
"""open_clip's cleaning of texts as normalisation steps of `tokenizer.json`. Unlike open_clip, these steps do not repair
broken encodings, HTML entities, ligatures and full-width letters."""
_ANY_CLASS = "PreTrainedTokenizerFast"


def write_tokenizer(encoder: Encoder, folder: Path) -> None:
    """Write the files of a transformers tokenizer that encodes texts like the model's.

    Raises:
        InputError: the tokenizer cannot be converted.
    """
    import open_clip

    tokenize: Any = encoder.tokenize
    options = encoder.description.model_config.get("text_cfg", {}).get("tokenizer_kwargs") or {}
    if isinstance(tokenize, open_clip.SimpleTokenizer):
        odd = sorted(options.keys() & {"additional_special_tokens", "reduction_mask"})
        if odd or options.get("clean", "lower") != "lower":
            raise InputError(
                f"{encoder.name}: its tokenizer has the setting {(odd or ['clean'])[0]}, which other programs do not "
                "support. Export it to open_clip."
            )
        for name, content in clip_files(tokenize, context=encoder.context_length).items():
            (folder / name).write_text(content, encoding="utf-8")
        return
    inner = getattr(tokenize, "tokenizer", None)
    if inner is None or getattr(tokenize, "tokenizer_mode", None):
        raise InputError(
            f"{encoder.name}: its tokenizer, a {type(tokenize).__name__}, cannot be converted for other programs. "
            "Export it to open_clip."
        )
    inner.save_pretrained(folder)
    clean = "canonicalize" if type(tokenize).__name__ == "SigLipTokenizer" else options.get("clean", "whitespace")
    _prepend(folder, _CLEANING[clean])
    change_settings(folder, model_max_length=encoder.context_length)


def clip_files(tokenizer: Any, *, context: int) -> dict[str, str]:
    """Convert an open_clip `SimpleTokenizer` to the files of a transformers tokenizer: name to content.

    Args:
        tokenizer: with its merges.
        context: context length in tokens.
    """
    form = transformers_form(tokenizer, context=context)
    start, end = (tokenizer.decoder[number] for number in (tokenizer.sot_token_id, tokenizer.eot_token_id))
    text = json.dumps(form["tokenizer.json"], ensure_ascii=False)
    content = json.loads(text.replace(json.dumps(start), json.dumps(_START)).replace(json.dumps(end), json.dumps(_END)))
    # open_clip pads with the id of "!"; in transformers the padding token is the end token.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in (_START, _END)]
    content["model"]["vocab"].pop("<PAD>", None)
    content["model"]["unk_token"] = _END
    content["normalizer"] = {"type": "Sequence", "normalizers": _CLEANING["lower"]}
    content["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in content["model"]["merges"])]
    files = {
        "tokenizer.json": content,
        # transformers' class for CLIP would clean texts by its own rules, which keep curly quotes.
        "tokenizer_config.json": {
            "tokenizer_class": _ANY_CLASS,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": context,
            **special,
        },
        "special_tokens_map.json": special,
        "vocab.json": content["model"]["vocab"],
    }
    plain = {name: json.dumps(value, ensure_ascii=False) + "\n" for name, value in files.items()}
    return plain | {"merges.txt": "\n".join(merges) + "\n"}


def _prepend(folder: Path, steps: list[dict[str, Any]]) -> None:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"{folder}: the tokenizer has no tokenizer.json to store its text cleaning in. Export it to open_clip."
        )
    content = json.loads(file.read_text(encoding="utf-8"))
    own = content.get("normalizer")
    content["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *([own] if own else [])]}
    file.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    # A specific tokenizer class would rebuild the steps by its own rules.
    change_settings(folder, tokenizer_class=_ANY_CLASS)


def change_settings(folder: Path, **fields: Any) -> None:
    """Replace fields of tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
