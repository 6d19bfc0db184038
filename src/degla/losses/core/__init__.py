"""What all losses share: embeddings, the processes of a batch, the log-partition, base classes, the weighted sum."""

from degla.inputs import LossTensors
from degla.losses.core.embeddings import Embeddings, LossValue, Target, TeacherPart
from degla.losses.core.objective import AnyLoss, Loss, Objective, StatefulLoss, losses_by_name
from degla.losses.core.partition import log_partition, with_own
from degla.losses.core.processes import Processes

__all__ = [
    "AnyLoss",
    "Embeddings",
    "Loss",
    "LossTensors",
    "LossValue",
    "Objective",
    "Processes",
    "StatefulLoss",
    "Target",
    "TeacherPart",
    "log_partition",
    "losses_by_name",
    "with_own",
]
