"""SHELF - losses: embeddings enter, one scalar leaves; one loss a file, each usable in any training loop.

Flow: embeddings of student and teacher -> loss

    from degla.losses import ImageGrounded, Objective

Each file holds one loss: a frozen dataclass whose name is the file's name in CamelCase and whose fields are its
settings. `core/` holds what they share.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from degla.shelf import LOSSES, class_name

# ruff: noqa: F401
if TYPE_CHECKING:  # For type checkers; a loss that is not listed here works all the same.
    from degla.inputs import LossTensors
    from degla.losses.class_contrast import ClassContrast
    from degla.losses.concept_attention import ConceptAttention
    from degla.losses.concept_sigmoid import ConceptSigmoid
    from degla.losses.contextual_contrast import ContextualContrast
    from degla.losses.contrastive import Contrastive
    from degla.losses.core.embeddings import Embeddings, Target
    from degla.losses.core.objective import Loss, Objective, StatefulLoss, losses_by_name
    from degla.losses.cross_modal_rank import CrossModalRank
    from degla.losses.dense_grounded import DenseGrounded
    from degla.losses.distractor import Distractor
    from degla.losses.distractor_contrastive import DistractorContrastive
    from degla.losses.evidence_contrast import EvidenceContrast
    from degla.losses.hardest_hinge import HardestHinge
    from degla.losses.image_grounded import ImageGrounded
    from degla.losses.intra_modal import IntraModal
    from degla.losses.logit_distillation import LogitDistillation
    from degla.losses.masked_contrast import MaskedContrast
    from degla.losses.masked_text import MaskedText
    from degla.losses.own_hinge import OwnHinge
    from degla.losses.positive_contrast import PositiveContrast
    from degla.losses.positive_grounded import PositiveGrounded
    from degla.losses.raw_distillation import RawDistillation
    from degla.losses.self_distillation import SelfDistillation
    from degla.losses.sigmoid_contrastive import SigmoidContrastive
    from degla.losses.sigmoid_image_grounded import SigmoidImageGrounded
    from degla.losses.sigmoid_text_grounded import SigmoidTextGrounded
    from degla.losses.soft_alignment import SoftAlignment
    from degla.losses.text_contrast import TextContrast
    from degla.losses.text_grounded import TextGrounded
    from degla.losses.text_pull import TextPull
    from degla.losses.token_reconstruction import TokenReconstruction
    from degla.losses.unit_contrast import UnitContrast
    from degla.losses.view_contrast import ViewContrast

_CORE = {
    "Embeddings": "degla.losses.core.embeddings",
    "Loss": "degla.losses.core.objective",
    "LossTensors": "degla.inputs",
    "Objective": "degla.losses.core.objective",
    "StatefulLoss": "degla.losses.core.objective",
    "Target": "degla.losses.core.embeddings",
    "losses_by_name": "degla.losses.core.objective",
}
_LOSSES = {class_name(name): f"degla.losses.{name}" for name in LOSSES.names()}

__all__ = [*_CORE, *_LOSSES]


def __getattr__(name: str) -> Any:
    """Import a loss when it is asked for: listing them needs no torch."""
    place = (_CORE | _LOSSES).get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(place), name)


def __dir__() -> list[str]:
    return sorted(__all__)
