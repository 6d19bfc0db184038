"""Modules trained along with the student if a loss reads them: a linear map from caption states to a frozen language
decoder that writes a text from one vector; the text tower's mask token and the predictor of masked words."""

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
from degla.model.block import attention, split_heads
from degla.model.hub import offline
from degla.model.transformers_files import import_transformers
from degla.parse import in_one_line, read_json_object
from degla.prefixes import MASKED
from degla.progress import quiet_transformers
from degla.ranges import AtLeastOne, Checked, Factor, Positive

LONGEST = 77
"""Maximum tokens of a text, including its end token (READ-CLIP)."""
_KINDS = ("t5", "mt5", "umt5")


class TextDecoder(nn.Module):
    """A frozen T5 decoder that reads caption states through a linear map, its only trained parameters.

    Args:
        folder: a transformers folder with weights in safetensors; nothing is fetched, and none of its code is run.
        width: of the states.

    Raises:
        InputError: the folder does not hold such a model, or transformers is not installed.
    """

    def __init__(self, folder: Path, *, width: int) -> None:
        super().__init__()
        # Without use_kernels=False transformers takes kernels from the hub, from version 5.25 on.
        decoder = _open(folder, "AutoModelForSeq2SeqLM", use_safetensors=True, use_kernels=False, dtype=torch.float32)
        decoder.eval().requires_grad_(False)
        # Its own encoder never runs: the decoder only attends to the state.
        decoder.encoder.block = nn.ModuleList()
        self.entry = nn.Linear(width, int(decoder.config.d_model), bias=False)
        self._frozen: tuple[Any, ...] = (decoder,)  # Inside a tuple it is not part of this module's state.

    def to_device(self, device: torch.device) -> TextDecoder:
        """Move the map and the frozen decoder."""
        for part in (self.entry, *self._frozen):
            part.to(device)
        return self

    def forward(
        self, states: Float[Tensor, "batch width"], target: Int[Tensor, "batch length"]
    ) -> tuple[Float[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
        """Return each token's negative log-probability given the previous tokens, and a mask of real tokens.

        Args:
            states: of the captions.
            target: token ids, padded; columns with only padding are dropped from the result.
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
    """Tokenises texts for the decoder, `LONGEST` ids per row; picklable, for data workers.

    Args:
        tokenizer: of transformers.
    """

    tokenizer: Any

    @classmethod
    def of(cls, folder: Path) -> DecoderTokens:
        """Load the tokenizer of a decoder's folder.

        Raises:
            InputError: the folder has none, or transformers is not installed.
        """
        return cls(_open(folder, "AutoTokenizer"))

    def __call__(self, text: str) -> Int[Tensor, " length"]:
        """Return the token ids, followed by the end token and padding."""
        batch = self.tokenizer(text, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        numbers: Tensor = batch["input_ids"][0].long()
        return numbers


def decoder_digest(folder: Path) -> str:
    """Return the first 32 hexadecimal digits of the sha256 of the decoder's weights."""
    sums = (bytes.fromhex(sha256_of(path)) for path in sorted(folder.glob("*.safetensors")))
    return hashlib.sha256(b"".join(sums)).hexdigest()[:32]


def _open(folder: Path, kind: str, **options: Any) -> Any:
    where = folder / "config.json"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. A decoder is a transformers folder of a T5 model.")
    model_type = read_json_object(where, constants=True).get("model_type")
    if model_type not in _KINDS:
        raise InputError(
            f"{where}: field 'model_type' is {model_type!r}, but the decoder must be a T5 model ({', '.join(_KINDS)})."
        )
    opener = getattr(import_transformers(folder), kind)
    with quiet_transformers(), offline():
        try:
            return opener.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
        except Exception as error:  # transformers, safetensors and tokenizers raise their own exception types
            raise InputError(f"{folder}: cannot be loaded by transformers: {in_one_line(error)}") from None


@dataclass(frozen=True)
class PredictorConfig(Checked, section="predictor"):
    """The mask token and the predictor of masked words, if a loss reads them."""

    layers: AtLeastOne = 2
    """Blocks of the predictor, 1 or more (2 in arXiv 2606.13288 for ViT-B/32, 4 for ViT-B/16 and ViT-L/14)."""
    heads: AtLeastOne = 8
    """Number of its attention heads, 1 or more; must divide the joint space's dimension (8 in arXiv 2606.13288)."""
    lr: Positive = 1e-3
    """Peak learning rate of predictor and mask token, > 0; it follows the schedule of the model's (1e-3 in
    arXiv 2606.13288)."""
    weight_decay: Factor = 0.01
    """Weight decay of all their parameters, >= 0 (0.01 in arXiv 2606.13288)."""


class WordPredictor(nn.Module):
    """The mask token, and blocks that predict masked words by attending to an image's patches.

    Queries average a masked token's output with its text's embedding, keys a patch's output with its image's embedding.
    `layers` blocks of cross-attention are followed by a linear layer to the vocabulary. No gradient reaches the image.

    Args:
        width: of the text tower's states.
        dim: of the joint space.
        vocabulary: number of tokens.
        config: layers and heads.
        predicts: whether words are predicted; otherwise there is only the mask token.

    Raises:
        InputError: the heads do not divide the joint space.
    """

    def __init__(self, *, width: int, dim: int, vocabulary: int, config: PredictorConfig, predicts: bool) -> None:
        super().__init__()
        if dim % config.heads:
            raise InputError(f"--predictor.heads {config.heads} does not divide the joint space's dimension, {dim}.")
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        layers = config.layers if predicts else 0
        self.blocks = nn.ModuleList(_CrossBlock(dim, heads=config.heads, layers=layers) for _ in range(layers))
        self.head = nn.Sequential()
        if predicts:
            words = nn.Linear(dim, vocabulary)
            nn.init.xavier_uniform_(words.weight)
            self.head = nn.Sequential(nn.LayerNorm(dim), words)

    def forward(
        self,
        tokens: Float[Tensor, "batch length dim"],
        patches: Float[Tensor, "batch patches dim"],
        images: Float[Tensor, "batch dim"],
        *,
        caption: Int[Tensor, "batch length"],
        masked: Int[Tensor, "batch length"],
        end: Int[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch places"], Bool[Tensor, "batch places"]]:
        """Return each masked token's negative log-probability and a mask of real ones; at least one column.

        Args:
            tokens: outputs for the tokens of the captions with masked words.
            patches: outputs for the images' patches.
            images: embeddings of the images before normalisation.
            caption: token ids of the captions.
            masked: the same with `MASKED` for masked words.
            end: position of each text's end token.
        """
        hidden = masked == MASKED
        most = max(int(hidden.sum(dim=1).max()), 1)
        # The masked positions of each row in order; rows with fewer are filled with others, which do not count.
        place = hidden.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        there = hidden.gather(1, place)
        rows = torch.arange(len(tokens), device=tokens.device)
        queries = (tokens[rows[:, None], place] + tokens[rows, end][:, None]) / 2
        keys = (patches.detach() + images.detach()[:, None]) / 2
        for block in self.blocks:
            queries = block(queries, keys)
        logits = self.head(queries).float()
        targets = caption.gather(1, place)
        return cross_entropy(logits.transpose(1, 2), targets, reduction="none"), there


class _CrossBlock(nn.Module):
    """Cross-attention from queries to keys and an MLP, each pre-normalised and residual."""

    def __init__(self, dim: int, *, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_query, self.ln_key, self.ln_mlp = (nn.LayerNorm(dim) for _ in range(3))
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        wider, narrower = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.mlp = nn.Sequential(wider, nn.GELU(), narrower)
        last = dim**-0.5 * (2 * layers) ** -0.5
        stds = (dim**-0.5, dim**-0.5, last, (2 * dim) ** -0.5, last)
        for layer, std in zip((self.query, self.key_value, self.out, wider, narrower), stds, strict=True):
            nn.init.normal_(layer.weight, std=std)
        for layer in (self.query, self.key_value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Float[Tensor, "batch places dim"], keys: Float[Tensor, "batch patches dim"]
    ) -> Float[Tensor, "batch places dim"]:
        query = split_heads(self.query(self.ln_query(queries)), self.heads)
        key, value = (split_heads(half, self.heads) for half in self.key_value(self.ln_key(keys)).chunk(2, dim=-1))
        attended = attention(query, key, value).transpose(1, 2).flatten(2)
        queries = queries + self.out(attended)
        mixed: Tensor = queries + self.mlp(self.ln_mlp(queries))
        return mixed
