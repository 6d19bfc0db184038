"""A square matrix on the text embeddings of a frozen model (LABCLIP, arXiv 2502.03566), as part of its projection."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from degla.errors import InputError
from degla.model.text import text_tower


class _MappedColumns(nn.Module):
    """A projection by x @ P, P: [width, D], with the map behind it: P A^T."""

    def __init__(self, matrix: nn.Parameter) -> None:
        super().__init__()
        self.text_map = matrix

    def forward(self, projection: Float[Tensor, "width dim"]) -> Float[Tensor, "width dim"]:
        return projection @ self.text_map.T


class _MappedRows(nn.Module):
    """A linear layer's weight [D, width] or bias [D] with the map behind it: A W and A b."""

    def __init__(self, matrix: nn.Parameter) -> None:
        super().__init__()
        self.text_map = matrix

    def forward(self, layer: Float[Tensor, "dim ..."]) -> Float[Tensor, "dim ..."]:
        return self.text_map @ layer


def add_text_map(clip: nn.Module, *, name: str) -> None:
    """Put a matrix A behind the projection of the text tower: texts become A t, and A is the identity at first.

    The model computes with the product of projection and A, so that a checkpoint of it (`adapters.merged_state`) is a
    plain open_clip model of the same embeddings. A has a gradient, whatever the projection has.

    Args:
        clip: an open_clip model.
        name: of the model, for the message.

    Raises:
        InputError: the text tower has no linear projection.
    """
    tower: Any = text_tower(clip)
    place = next((place for place in ("text_projection", "proj") if getattr(tower, place, None) is not None), "")
    projection = getattr(tower, place) if place else None
    if isinstance(projection, nn.Linear):
        matrix = nn.Parameter(torch.eye(projection.out_features, device=projection.weight.device))
        for part in ("weight", "bias"):
            if getattr(projection, part) is not None:
                parametrize.register_parametrization(projection, part, _MappedRows(matrix))
    elif isinstance(projection, nn.Parameter):
        matrix = nn.Parameter(torch.eye(projection.shape[1], device=projection.device))
        parametrize.register_parametrization(tower, place, _MappedColumns(matrix))
    else:
        raise InputError(
            f"--adapter.text-map: {name} has no linear projection of its texts that a matrix could be folded into "
            f"({type(projection).__name__}). Take an open_clip model that has one."
        )


def folded(clip: nn.Module) -> dict[str, Tensor]:
    """What a map makes of the projection, by the names that it has in a model without one; nothing without a map."""
    values: dict[str, Tensor] = {}
    for place, module in clip.named_modules():
        if parametrize.is_parametrized(module):
            start = f"{place}." if place else ""
            names: Any = module.parametrizations
            values |= {f"{start}{name}": getattr(module, name) for name in names}
    return values
