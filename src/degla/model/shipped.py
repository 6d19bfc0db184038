"""The models that the package ships, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHIPPED: Final = ("world", "photo")
"""`world` sees the embedded world's drawings, `photo` sees photographs; each has its card in its folder."""


def shipped_folder(name: str) -> Path:
    """Folder of a shipped model, in open_clip's form.

    Args:
        name: of `SHIPPED`.
    """
    if name == "world":
        from degla.world import world_model_folder

        return world_model_folder()
    return Path(__file__).parent / name
