"""The tokenizer of a model: open_clip's own, with a folder's merges, or one of transformers; and its files."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from degla.errors import InputError
from degla.files import sha256_of
from degla.model.hub import downloads_allowed
from degla.parse import read_gzip, read_json_object, require_form

if TYPE_CHECKING:
    from degla.model.encoder import Encoder

CONFIG_NAME = "open_clip_config.json"
FORM_FIELD = "degla_schema_version"
"""The number of the form of a model's folder, in that file: by a name of its own, since the file is open_clip's."""
AGAIN: Final = "Fetch or copy the folder again."
"""Remedy for a wrong file of a model's folder."""

_BPE = "bpe_path"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
    "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "added_tokens.json",
)  # fmt: skip
"""File names of transformers tokenizers."""
VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
"""The files among them that contain a vocabulary."""

_OPTIONS = frozenset({_BPE, "additional_special_tokens", "clean", "reduction_mask", "strip_sep_token", "language"})
"""Tokenizer settings that a folder may set: others would be passed to transformers and could run code."""

_CONTEXT = 77
"""Default context length in tokens."""

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's pre-tokenisation: each part of a text is tokenised separately."""
_LAST_CHARACTER = re.compile(r"\S\s*\Z")
_LAST_LETTER = re.compile(r"\w\W*\Z|\S\s*\Z")
"""With what follows it, for tokenizers that drop punctuation; of a text without letters the last character."""


def read_model_config(file: Path) -> dict[str, Any]:
    """Read open_clip_config.json of a folder or of the hub, before anything else of the model is fetched or read.

    Raises:
        InputError: it cannot be read, or has another form than this version reads.
    """
    config = read_json_object(file, remedy=AGAIN)
    require_form(config, where=file, remedy=AGAIN, field=FORM_FIELD)
    return config


def tokenizer_form(config: dict[str, Any]) -> dict[str, Any]:
    """Return the `model_cfg` of a folder's configuration, with its merges file where open_clip expects it.

    `save_tokenizer` stores it outside `model_cfg`, because open_clip reads the same tokenizer in another format.

    Raises:
        KeyError: there is no `model_cfg`.
    """
    model_config = copy.deepcopy(dict(config["model_cfg"]))
    if _BPE in config:
        text = model_config["text_cfg"]
        text.pop("hf_tokenizer_name", None)
        text["tokenizer_kwargs"] = (text.get("tokenizer_kwargs") or {}) | {_BPE: config[_BPE]}
    return model_config


def tokenizer_files(folder: Path, model_config: dict[str, Any]) -> tuple[Path, ...]:
    """Return the tokenizer files of a folder; none if the tokenizer is open_clip's own.

    Raises:
        InputError: the configuration names a file that is not in the folder, a hub tokenizer without its files, or a
            setting that is not allowed.
    """
    where, text = folder / CONFIG_NAME, model_config.get("text_cfg", {})
    options = text.get("tokenizer_kwargs") or {}
    if options.get("reduction_mask") == "syntax" and not downloads_allowed():
        raise InputError(
            f"{where}: field 'text_cfg.tokenizer_kwargs.reduction_mask' is 'syntax', which downloads a tagger of NLTK. "
            "Add --allow-download, or use a model without it."
        )
    odd = sorted(options.keys() - _OPTIONS)
    if odd:
        raise InputError(f"{where}: field 'text_cfg.tokenizer_kwargs.{odd[0]}' is not allowed in a model's folder.")
    if text.get("hf_tokenizer_name"):
        paths = tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())
        if not paths and not downloads_allowed():
            raise InputError(
                f"{where}: field 'text_cfg.hf_tokenizer_name' names {text['hf_tokenizer_name']!r}, but its files are "
                "not in the folder. Put tokenizer.json and tokenizer_config.json there, or add --allow-download to "
                "fetch them from the hub."
            )
        return paths
    recorded = options.get(_BPE)
    if not recorded:
        return ()
    # The recorded path was valid where the folder was written; use the file that was copied with it.
    file = folder / Path(str(recorded)).name
    if not file.is_file():
        raise InputError(
            f"{where}: field '{_BPE}' is {recorded!r}, but the folder has no file {file.name!r}. Put it into the "
            "folder."
        )
    return (file.resolve(),)


def open_tokenizer(source: str, model_config: dict[str, Any], files: tuple[Path, ...]) -> Any:
    """Open the tokenizer of a model.

    Args:
        source: open_clip's name of the model.
        model_config: its `model_cfg`.
        files: as returned by `tokenizer_files`.

    Raises:
        InputError: a file is damaged, or its vocabulary is not that of the model.
    """
    import open_clip

    from degla.model.clip_tokenizer import fast

    text = model_config.get("text_cfg", {})
    options = {name: value for name, value in (text.get("tokenizer_kwargs") or {}).items() if name != _BPE}
    context = text.get("context_length", _CONTEXT)
    if text.get("hf_tokenizer_name"):
        if source.startswith("local-dir:") and not files:
            return open_clip.tokenizer.HFTokenizer(
                text["hf_tokenizer_name"], context_length=context, tokenizer_mode=text.get("tokenizer_mode"), **options
            )
        return open_clip.get_tokenizer(source)
    if not files:
        plain = source.startswith("local-dir:") and not options
        return clip_tokenizer(context) if plain else fast(open_clip.get_tokenizer(source))
    read_gzip(files[0], remedy="Fetch or copy the folder again.")  # open_clip would unpack any amount.
    try:
        tokenizer = open_clip.SimpleTokenizer(bpe_path=str(files[0]), context_length=context, **options)
    except Exception as error:  # special tokens become part of a regular expression, whose errors are of its own kind
        raise InputError(f"{files[0]}: damaged tokenizer file: {error or type(error).__name__}.") from None
    size = int(text.get("vocab_size", 49408))
    if tokenizer.vocab_size != size:
        raise InputError(
            f"{files[0]}: has {tokenizer.vocab_size} tokens, but the model has {size} ({CONFIG_NAME}, field "
            "'text_cfg.vocab_size'). This is the tokenizer of another model."
        )
    return fast(tokenizer)


def are_cut(tokenize: Any, texts: Sequence[str]) -> list[bool]:
    """Whether each text is cut at the context: it has the same tokens without its end and with another word."""
    import torch

    word, marked = torch.as_tensor(tokenize(["a", "a!"]))
    end = _LAST_LETTER if torch.equal(word, marked) else _LAST_CHARACTER
    changed = ([end.sub("", text) for text in texts], [f"{text} a" for text in texts])
    # In one call: some tokenizers pad to the longest text of each.
    whole, shorter, longer = torch.as_tensor(tokenize([*texts, *chain(*changed)])).split(len(texts))
    return [bool(same) for same in ((shorter == whole) & (longer == whole)).all(dim=1)]


@cache
def clip_tokenizer(context: int) -> Any:
    """Return open_clip's own tokenizer with CLIP's merges, cached: reading it takes as long as a small model."""
    import open_clip

    from degla.model.clip_tokenizer import fast

    if context == _CONTEXT:
        return fast(open_clip.SimpleTokenizer(context_length=context))
    other = copy.copy(clip_tokenizer(_CONTEXT))
    other.context_length = context
    return other


def save_tokenizer(encoder: Encoder, folder: Path) -> dict[str, Any]:
    """Write the tokenizer's files to a model's folder; return the content of the folder's configuration.

    open_clip resolves a merges file from the working directory, so a path to it breaks when the folder moves. A
    tokenizer in the format of transformers is read from the folder itself. Merges are written in both formats.
    """
    description = encoder.description
    model_config = json.loads(json.dumps(description.model_config))
    config = {"model_cfg": model_config, "preprocess_cfg": description.preprocess_config}
    text = model_config.get("text_cfg", {})
    fetched: Any = getattr(encoder.tokenize, "tokenizer", None)
    if fetched is not None and not description.tokenizer_files:
        fetched.save_pretrained(folder)  # It came from the hub, where no folder looks.
    for file in description.tokenizer_files:
        target = folder / file.name
        if target.resolve() != file.resolve():
            shutil.copyfile(file, target)
        if not text.get("hf_tokenizer_name"):
            options = text.pop("tokenizer_kwargs", None) or {}
            options.pop(_BPE, None)
            for name, content in transformers_form(encoder.tokenize, context=encoder.context_length).items():
                (folder / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
            text |= {"hf_tokenizer_name": file.name, "tokenizer_kwargs": {"clean": "lower"} | options}
            return config | {_BPE: file.name}
    return config


def tokenizer_options(model_config: dict[str, Any]) -> dict[str, Any]:
    """Return what a `model_cfg` says of its tokenizer besides the files, with open_clip's defaults."""
    text = model_config.get("text_cfg", {})
    hub = bool(text.get("hf_tokenizer_name"))  # The name itself only says where the files are from.
    options: dict[str, Any] = {"clean": "whitespace" if hub else "lower"} | (text.get("tokenizer_kwargs") or {})
    return {
        "hf_tokenizer_name": hub,
        "tokenizer_mode": text.get("tokenizer_mode") or None,
        "context_length": text.get("context_length", _CONTEXT),
        **{name: options.get(name) or None for name in sorted(_OPTIONS - {_BPE})},
    }


def changed_file(encoder: Encoder, folder: Path, saved: dict[str, Any]) -> str | None:
    """Return the name of a tokenizer file of a model that differs from the copy in a checkpoint; None if none does, or
    the tokenizer is the same, as when files from the hub were put into the model's folder.

    Args:
        encoder: the model now; without files of its own the tokenizer was fetched from the hub or is open_clip's.
        folder: the checkpoint.
        saved: content of the folder's configuration, as `save_tokenizer` returned it.
    """
    now = {file.name: file for file in encoder.description.tokenizer_files}
    before = {name for name in TOKENIZER_FILES if now and (folder / name).is_file()}
    if _BPE in saved:
        # Merges are one file, saved under the name of a link's target: another name is no change.
        now, before = dict(zip([saved[_BPE]], now.values(), strict=False)), {saved[_BPE]}
    for name in sorted(now.keys() | before):
        if name not in now or not (folder / name).is_file() or sha256_of(now[name]) != sha256_of(folder / name):
            return None if before and _is_saved(encoder.tokenize, folder, tokenizer_form(saved)) else str(name)
    return None


def _is_saved(tokenize: Any, folder: Path, model_config: dict[str, Any]) -> bool:
    """Whether a tokenizer has the vocabulary, merges and steps of the one whose files are in a checkpoint."""
    content = _content(tokenize)
    other = open_tokenizer(f"local-dir:{folder}", model_config, tokenizer_files(folder, model_config))
    return content is not None and content == _content(other)


def _content(tokenize: Any) -> Any:
    if hasattr(tokenize, "bpe_ranks"):
        return tokenize.encoder, tokenize.bpe_ranks
    fetched: Any = getattr(tokenize, "tokenizer", None)
    backend = getattr(fetched, "backend_tokenizer", None)
    if backend is None:
        return None
    # Each call sets how texts are cut and padded.
    steps = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    return steps, fetched.special_tokens_map, fetched.padding_side, fetched.truncation_side


def transformers_form(tokenizer: Any, *, context: int) -> dict[str, Any]:
    """Convert an open_clip `SimpleTokenizer` to the files of an equivalent `transformers` tokenizer.

    Args:
        tokenizer: with its merges.
        context: context length in tokens.
    """
    start, end = tokenizer.decoder[tokenizer.sot_token_id], tokenizer.decoder[tokenizer.eot_token_id]
    # The padding id 0 is also "!". It gets a second name, because the text of a special token is not split.
    pad = "<PAD>"  # Cannot occur in a text, since texts are lower-cased.
    merges = [list(pair) for pair, _ in sorted(tokenizer.bpe_ranks.items(), key=lambda item: item[1]) if len(pair) == 2]
    single = [{"id": text, "type_id": 0} for text in (start, end)]
    special = {token: {"id": token, "ids": [tokenizer.encoder[token]], "tokens": [token]} for token in (start, end)}
    before, after = ({"SpecialToken": part} for part in single)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for token, number in sorted({pad: 0, **{token: tokenizer.encoder[token] for token in (start, end)}}.items(),
                                        key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [before, {"Sequence": {"id": "A", "type_id": 0}}, after],
            "pair": [before, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, after],
            "special_tokens": special,
        },
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": False, "byte_fallback": False,
            "vocab": {**tokenizer.encoder, pad: 0}, "merges": merges,
        },
    }  # fmt: skip
    named = {"bos_token": start, "eos_token": end, "pad_token": pad, "model_max_length": context}
    return {
        "tokenizer.json": content,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right",
                                  "truncation_side": "right", **named},
    }  # fmt: skip
