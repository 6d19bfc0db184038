"""A frozen language decoder that writes a text from one vector, and the map of captions' states to that vector."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.errors import InputError
from degla.files import sha256_of
from degla.model.transformers_files import import_transformers, quiet
from degla.parse import in_one_line, read_json_object

LONGEST = 77
"""Tokens of a text at most, its end token included (READ-CLIP)."""
_KINDS = ("t5", "mt5", "umt5")


class TextDecoder(nn.Module):
    """What a decoder of the T5 kind makes of captions' states. Its only parameters are those of the linear map.

    Args:
        folder: of transformers, with weights in safetensors; nothing is fetched, and no code of it is run.
        width: of the states.

    Raises:
        InputError: the folder holds no such model, or transformers is not installed.
    """

    def __init__(self, folder: Path, *, width: int) -> None:
        super().__init__()
        decoder = _open(folder, "AutoModelForSeq2SeqLM", use_safetensors=True, dtype=torch.float32)
        decoder.eval().requires_grad_(False)
        # Its own encoder never runs: the state is all that is attended to.
        decoder.encoder.block = nn.ModuleList()
        self.entry = nn.Linear(width, int(decoder.config.d_model), bias=False)
        self._frozen: tuple[Any, ...] = (decoder,)  # In a tuple, it is no part of this module's state.

    def to_device(self, device: torch.device) -> TextDecoder:
        """Move the map and the frozen decoder."""
        for part in (self.entry, *self._frozen):
            part.to(device)
        return self

    def forward(
        self, states: Float[Tensor, "batch width"], target: Int[Tensor, "batch length"]
    ) -> tuple[Float[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
        """-log of each token's probability behind the tokens before it, and which tokens there are.

        Args:
            states: of the captions.
            target: numbers of the tokens, padded; columns of padding alone are left out of the result.
        """
        (decoder,) = self._frozen
        valid = target != decoder.config.pad_token_id
        length = max(int(valid.sum(dim=1).max()), 1)
        target, valid = target[:, :length], valid[:, :length]
        start = torch.full_like(target[:, :1], decoder.config.decoder_start_token_id)
        logits = decoder(
            encoder_outputs=(self.entry(states)[:, None],),
            decoder_input_ids=torch.cat([start, target[:, :-1]], dim=1),
            use_cache=False,
        ).logits.float()
        return cross_entropy(logits.transpose(1, 2), target, reduction="none"), valid


@dataclass(frozen=True)
class DecoderTokens:
    """Texts as the decoder's own tokens, `LONGEST` a row; picklable, for workers that make batches.

    Args:
        tokenizer: of transformers.
    """

    tokenizer: Any

    @classmethod
    def of(cls, folder: Path) -> DecoderTokens:
        """The tokenizer of a decoder's folder.

        Raises:
            InputError: it has none, or transformers is not installed.
        """
        return cls(_open(folder, "AutoTokenizer"))

    def __call__(self, text: str) -> Int[Tensor, " length"]:
        """Numbers of the tokens, end token and padding behind them."""
        given = self.tokenizer(text, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        numbers: Tensor = given["input_ids"][0].long()
        return numbers


def decoder_digest(folder: Path) -> str:
    """The first 32 hexadecimal digits of a sha256 over the decoder's weights."""
    sums = (bytes.fromhex(sha256_of(path)) for path in sorted(folder.glob("*.safetensors")))
    return hashlib.sha256(b"".join(sums)).hexdigest()[:32]


def _open(folder: Path, kind: str, **options: Any) -> Any:
    where = folder / "config.json"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a decoder is a folder of transformers, of the T5 kind.")
    found = read_json_object(where, constants=True).get("model_type")
    if found not in _KINDS:
        raise InputError(
            f"{where}: field 'model_type' is {found!r}; the decoder must be of the T5 kind ({', '.join(_KINDS)})."
        )
    opener = getattr(import_transformers(folder), kind)
    with quiet():
        try:
            return opener.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
        except Exception as error:  # transformers, safetensors and tokenizers raise kinds of their own
            raise InputError(f"{folder}: cannot be loaded by transformers: {in_one_line(error)}") from None
