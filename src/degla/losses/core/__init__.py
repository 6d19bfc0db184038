"""What all losses share: embeddings, the processes of a batch, the log-partition, base classes, the weighted sum."""

from degla.losses.core.embeddings import EXTRA_FIELDS, Embeddings, Extra, Target, TeacherPart
from degla.losses.core.loss import AnyLoss, Loss, StatefulLoss
from degla.losses.core.processes import Processes

__all__ = [
    "EXTRA_FIELDS",
    "AnyLoss",
    "Embeddings",
    "Extra",
    "Loss",
    "Processes",
    "StatefulLoss",
    "Target",
    "TeacherPart",
]
