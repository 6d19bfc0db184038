"""Whatever can be scored, by name: floors, folders of transformers, and all that `degla.model.load` knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from degla.evaluation.floors import is_floor, load_floor

if TYPE_CHECKING:
    from degla.evaluation.embedding_model import EmbeddingModel


def means_floor(name: str) -> bool:
    """Whether a user who gives this name means a floor, and not a file or folder that is called so."""
    return is_floor(name) and not Path(name).exists()


def load_model(name: str, *, device: str = "cpu") -> EmbeddingModel:
    """Load a model for evaluation.

    Args:
        name: random, random:SEED, blind, blind:LANGUAGE_MODEL, a folder of transformers (CLIP or SigLIP), or any form
            of `degla.model.load.FORMS`. A folder of that name is meant before a floor.
        device: where its parameters go.

    Raises:
        InputError: see `load_floor`, `load_transformers_folder` and `load_encoder`.
    """
    if means_floor(name):
        return load_floor(name)
    from degla.model.transformers_folder import is_transformers_folder, load_transformers_folder

    if is_transformers_folder(Path(name)):
        return load_transformers_folder(Path(name), device=device)
    from degla.model.load import load_encoder

    return load_encoder(name, device=device)
