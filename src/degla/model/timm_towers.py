"""SigLIP's image towers with the activation that they were trained with, for timm to make by name.

SigLIP was trained with GELU in its tanh form, and transformers computes it so. timm's towers of the same sizes compute
GELU itself in all but the largest, and open_clip hands no activation to timm, so each of them stands here a second
time, under its name and `_tanh`. Outside of this package, `import degla.model.timm_towers` makes them known to
open_clip.
"""

from __future__ import annotations

import sys
from typing import Any

import timm
from timm.models import list_models, model_entrypoint, register_model

ENDING = "_tanh"


def tanh_name(name: str) -> str:
    """The name of a tower of timm with the tanh form of GELU."""
    return name + ENDING


def register(name: str) -> None:
    """Make a tower of timm known with the tanh form of GELU, under `tanh_name`."""
    base = model_entrypoint(name)

    def tower(pretrained: bool = False, **options: Any) -> Any:
        return base(pretrained=pretrained, **{"act_layer": "gelu_tanh"} | options)

    tower.__name__ = tower.__qualname__ = tanh_name(name)
    tower.__module__ = __name__
    setattr(sys.modules[__name__], tower.__name__, tower)
    register_model(tower)


def register_all() -> None:
    """Make all of SigLIP's towers known with the tanh form of GELU, once."""
    for name in list_models("vit_*_siglip_*"):
        if not (name.endswith(ENDING) or "_gap_" in name or timm.is_model(tanh_name(name))):
            register(name)


register_all()
