"""Fine-tune CLIP-like models for compositional understanding without forgetting what they already know.

    import degla

    model = degla.load_model("world")
    images = degla.encode_images(model, ["cat.jpg"])
    captions = degla.encode_captions(model, ["a cat", "a dog"])

The losses are in `degla.losses`, the exceptions in `degla.errors`; each module of `degla.recipes` holds one recipe.
Importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from degla import shelf as _shelf  # noqa: F401 - finds the user's own parts
from degla.version import __version__

if TYPE_CHECKING:
    from degla import errors, losses
    from degla.api import (
        encode_captions,
        encode_images,
        evaluate,
        generate_negatives,
        load_model,
        read_captions,
        report,
        train,
        write_negatives,
    )

__all__ = [
    "__version__",
    "encode_captions",
    "encode_images",
    "errors",
    "evaluate",
    "generate_negatives",
    "load_model",
    "losses",
    "read_captions",
    "report",
    "train",
    "write_negatives",
]


if not TYPE_CHECKING:  # With it, type checkers could not detect misspelt names.

    def __getattr__(name: str) -> Any:
        """Import public names lazily."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("errors", "losses"):
            return importlib.import_module(f"degla.{name}")
        from degla import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
