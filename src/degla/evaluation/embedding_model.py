"""What evaluation needs of a model: names, and embeddings of pictures and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class EmbeddingModel(Protocol):
    """What evaluation needs of a model; `degla.model.encoder.Encoder` satisfies it."""

    @property
    def name(self) -> str:
        """How the user named the model."""

    @property
    def activation(self) -> str:
        """Activation function, "quick_gelu" or "gelu": it changes scores more than most methods do."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights."""

    @property
    def precision(self) -> str:
        """Number format of the forward pass, for example "fp32"."""

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a text."""

    @property
    def trims(self) -> bool:
        """True where token rows may be cut to the longest text of a batch."""

    @property
    def device(self) -> Any:
        """Where inputs must be."""

    @property
    def tokenize(self) -> Any:
        """Callable: list of N texts to integer tokens `[N, context]`, padded with 0."""

    @property
    def transform(self) -> Any:
        """Callable: PIL image to float `[3, H, W]`, the model's evaluation transform."""

    def encode_images(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to unit rows `[B, D]`."""

    def encode_captions(self, tokens: Tensor) -> Tensor:
        """`[N, T]` to unit rows `[N, D]`."""
