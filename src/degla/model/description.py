"""What a model is beyond its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

EvaluationTransform = Callable[[Any], Float[Tensor, "3 height width"]]


@dataclass(frozen=True)
class Description:
    """What a model is beyond its weights: all that a checkpoint folder must say so that others load the same thing.

    Attributes:
        name: how the user named it.
        model_config: open_clip's `model_cfg`.
        preprocess_config: open_clip's `preprocess_cfg`: size, mean, std, interpolation, resize mode.
        tokenizer_files: files that the tokenizer is read from where it is not open_clip's own.
    """

    name: str
    model_config: dict[str, Any]
    preprocess_config: dict[str, Any]
    tokenizer_files: tuple[Path, ...] = field(default=())

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is QuickGELU, x sigmoid(1.702 x), rather than GELU."""
        return bool(self.model_config.get("quick_gelu", False))

    @property
    def activation(self) -> str:
        """Name of the activation function, "quick_gelu" or "gelu"."""
        return "quick_gelu" if self.quick_gelu else "gelu"


def three_channels(value: Any) -> list[float]:
    """A mean or standard deviation of each channel; configurations may hold one number for all."""
    return [float(part) for part in (value if isinstance(value, list | tuple) else [value] * 3)]
