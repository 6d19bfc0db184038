"""SHELF - losses: embeddings enter, one scalar leaves; one loss per file, each usable in any training loop.

Flow: embeddings of student and teacher -> loss

    from degla.losses import ImageGrounded, Objective

Each file holds one loss: a frozen dataclass whose name is the file's name in CamelCase and whose fields are its
settings. `core/` holds what they share.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from degla.shelf import LOSSES, class_name

if TYPE_CHECKING:  # For type checkers, which take `as` for export; what is not listed works all the same.
    from degla.losses.class_contrast import ClassContrast as ClassContrast
    from degla.losses.concept_attention import ConceptAttention as ConceptAttention
    from degla.losses.concept_sigmoid import ConceptSigmoid as ConceptSigmoid
    from degla.losses.contextual_contrast import ContextualContrast as ContextualContrast
    from degla.losses.contrastive import Contrastive as Contrastive
    from degla.losses.core import Embeddings as Embeddings
    from degla.losses.core import Loss as Loss
    from degla.losses.core import LossTensors as LossTensors
    from degla.losses.core import Objective as Objective
    from degla.losses.core import StatefulLoss as StatefulLoss
    from degla.losses.core import Target as Target
    from degla.losses.core import losses_by_name as losses_by_name
    from degla.losses.cross_modal_rank import CrossModalRank as CrossModalRank
    from degla.losses.dense_grounded import DenseGrounded as DenseGrounded
    from degla.losses.distractor import Distractor as Distractor
    from degla.losses.distractor_contrastive import DistractorContrastive as DistractorContrastive
    from degla.losses.evidence_contrast import EvidenceContrast as EvidenceContrast
    from degla.losses.hardest_hinge import HardestHinge as HardestHinge
    from degla.losses.image_grounded import ImageGrounded as ImageGrounded
    from degla.losses.intra_modal import IntraModal as IntraModal
    from degla.losses.logit_distillation import LogitDistillation as LogitDistillation
    from degla.losses.masked_contrast import MaskedContrast as MaskedContrast
    from degla.losses.masked_text import MaskedText as MaskedText
    from degla.losses.own_hinge import OwnHinge as OwnHinge
    from degla.losses.positive_contrast import PositiveContrast as PositiveContrast
    from degla.losses.positive_grounded import PositiveGrounded as PositiveGrounded
    from degla.losses.raw_distillation import RawDistillation as RawDistillation
    from degla.losses.self_distillation import SelfDistillation as SelfDistillation
    from degla.losses.sigmoid_contrastive import SigmoidContrastive as SigmoidContrastive
    from degla.losses.sigmoid_image_grounded import SigmoidImageGrounded as SigmoidImageGrounded
    from degla.losses.sigmoid_text_grounded import SigmoidTextGrounded as SigmoidTextGrounded
    from degla.losses.soft_alignment import SoftAlignment as SoftAlignment
    from degla.losses.text_contrast import TextContrast as TextContrast
    from degla.losses.text_grounded import TextGrounded as TextGrounded
    from degla.losses.text_pull import TextPull as TextPull
    from degla.losses.token_reconstruction import TokenReconstruction as TokenReconstruction
    from degla.losses.unit_contrast import UnitContrast as UnitContrast
    from degla.losses.view_contrast import ViewContrast as ViewContrast

_CORE = ("Embeddings", "Loss", "LossTensors", "Objective", "StatefulLoss", "Target", "losses_by_name")


def _losses() -> dict[str, str]:
    return {class_name(name): f"degla.losses.{name}" for name in LOSSES.names()}


__all__ = [*_CORE, *_losses()]


def __getattr__(name: str) -> Any:
    """Import a loss on first access, so that listing the losses does not need torch."""
    place = "degla.losses.core" if name in _CORE else _losses().get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(place), name)


def __dir__() -> list[str]:
    return sorted(__all__)
