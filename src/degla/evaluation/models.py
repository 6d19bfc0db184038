"""Whatever can be scored, by name: floors, folders of transformers, and all that `degla.model.load` knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from degla.evaluation.floors import is_floor, load_floor

if TYPE_CHECKING:
    from degla.evaluation.embed import Encoder


def load_model(name: str, *, device: str = "cpu") -> Encoder:
    """Load a model for evaluation.

    Args:
        name: random, random:SEED, blind, blind:LANGUAGE_MODEL, a folder of transformers (CLIP or SigLIP), or any form
            of `degla.model.load.FORMS`. A folder of that name is meant before a floor.
        device: where its parameters go.

    Raises:
        InputError: see `load_floor`, `load_transformers_folder` and `load_encoder`.
    """
    if is_floor(name) and not Path(name).exists():
        return load_floor(name)
    from degla.model.transformers_folder import is_transformers_folder, load_transformers_folder

    if is_transformers_folder(Path(name)):
        return load_transformers_folder(Path(name), device=device)
    from degla.model.load import load_encoder

    return load_encoder(name, device=device)
