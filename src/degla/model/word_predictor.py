"""Masked words read from an image: the mask token of the text tower, and what predicts the words that it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.errors import InputError
from degla.model.block import attention, split_heads
from degla.prefixes import MASKED
from degla.ranges import AtLeastOne, Checked, Factor, Positive


@dataclass(frozen=True)
class PredictorConfig(Checked, section="predictor"):
    """The mask token and the predictor of masked words, where a loss reads them."""

    layers: AtLeastOne = 2
    """Blocks of the predictor, 1 or more (2 in arXiv 2606.13288 for ViT-B/32, 4 for ViT-B/16 and ViT-L/14)."""
    heads: AtLeastOne = 8
    """Heads of its attention, 1 or more; must divide the width of the joint space (8 in arXiv 2606.13288)."""
    lr: Positive = 1e-3
    """Largest learning rate of predictor and mask token, > 0; it rises and falls with that of the model (1e-3 in
    arXiv 2606.13288)."""
    weight_decay: Factor = 0.01
    """Decay of all of their parameters, >= 0 (0.01 in arXiv 2606.13288)."""


class WordPredictor(nn.Module):
    """The mask token, and blocks in which masked tokens attend to an image's patches and become words.

    A masked token's output and its text's embedding are averaged, and so are a patch's and its image's; attention from
    the first to the second, twice or more often, then a linear layer to the vocabulary. No gradient goes to the image.

    Args:
        width: of the text tower's states.
        dim: of the joint space.
        vocabulary: number of tokens.
        config: layers and heads.
        predicts: whether words are predicted; else there is the mask token alone.

    Raises:
        InputError: the heads do not divide the joint space.
    """

    def __init__(self, *, width: int, dim: int, vocabulary: int, config: PredictorConfig, predicts: bool) -> None:
        super().__init__()
        if dim % config.heads:
            raise InputError(f"--predictor.heads {config.heads} does not divide the joint space of {dim} dimensions.")
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
        """-log of the probability of each masked token, and which there are; at least one column.

        Args:
            tokens: outputs for the tokens of the captions with masked words.
            patches: outputs for the images' patches.
            images: embeddings of the images, before they are brought to length one.
            caption: token numbers of the captions.
            masked: the same with `MASKED` where a word is masked.
            end: place of each text's end token.
        """
        hidden = masked == MASKED
        most = max(int(hidden.sum(dim=1).max()), 1)
        # The masked places of each row in order; a row with fewer takes others, which count nowhere.
        place = hidden.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        there = hidden.gather(1, place)
        rows = torch.arange(len(tokens), device=tokens.device)
        queries = (tokens[rows[:, None], place] + tokens[rows, end][:, None]) / 2
        keys = (patches.detach() + images.detach()[:, None]) / 2
        for block in self.blocks:
            queries = block(queries, keys)
        logits = self.head(queries).float()
        wanted = caption.gather(1, place)
        return cross_entropy(logits.transpose(1, 2), wanted, reduction="none"), there


class _CrossBlock(nn.Module):
    """Attention from queries to keys and a perceptron, each behind a norm and beside what it changes."""

    def __init__(self, dim: int, *, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_query, self.ln_key, self.ln_mlp = (nn.LayerNorm(dim) for _ in range(3))
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        wider, narrower = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.mlp = nn.Sequential(wider, nn.GELU(), narrower)
        last = dim**-0.5 * (2 * layers) ** -0.5
        for layer, std in ((self.query, dim**-0.5), (self.key_value, dim**-0.5), (self.out, last),
                           (wider, (2 * dim) ** -0.5), (narrower, last)):  # fmt: skip
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
