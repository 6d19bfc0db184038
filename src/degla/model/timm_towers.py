"""SigLIP's image towers with the activation that they were trained with, registered in timm by name.

SigLIP was trained with the tanh approximation of GELU, which transformers uses. timm's towers of the same sizes use
exact GELU in all but the largest, and open_clip passes no activation to timm. So each tower is registered here again,
under its name plus `_tanh`. Outside this package, `import degla.model.timm_towers` makes them available to open_clip.
"""

from __future__ import annotations

import sys
from typing import Any

import timm
from timm.models import list_models, model_entrypoint, register_model

ENDING = "_tanh"


def register(name: str) -> None:
    """Register a timm tower with tanh GELU under its name plus `ENDING`."""
    base = model_entrypoint(name)

    def tower(pretrained: bool = False, **options: Any) -> Any:
        return base(pretrained=pretrained, **{"act_layer": "gelu_tanh"} | options)

    tower.__name__ = tower.__qualname__ = name + ENDING
    tower.__module__ = __name__
    setattr(sys.modules[__name__], tower.__name__, tower)
    register_model(tower)


for each in list_models("vit_*_siglip_*"):
    if not (each.endswith(ENDING) or "_gap_" in each or timm.is_model(each + ENDING)):
        register(each)
