"""Training mode only for what is trained: a frozen layer drops nothing out and moves no statistics."""

from __future__ import annotations

from torch import Tensor, nn


def rest_what_stays(module: nn.Module, *, statistics: bool) -> None:
    """Put every part without a trained parameter into evaluation mode.

    Args:
        module: in training mode.
        statistics: whether BatchNorm stays in evaluation mode in trained parts too, so that it normalises by the
            statistics that it has and does not move them.
    """
    parameters = list(module.parameters())
    if parameters and not any(value.requires_grad for value in parameters):
        module.eval()
        return
    if statistics and _keeps_statistics(module):
        # Not by eval(): timm puts activation and dropout inside of its BatchNorm.
        module.training = False
    for child in module.children():
        rest_what_stays(child, statistics=statistics)


def has_statistics(module: nn.Module) -> bool:
    """Whether some trained layer normalises by running statistics."""
    return any(
        _keeps_statistics(part) and any(value.requires_grad for value in part.parameters()) for part in module.modules()
    )


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_mean", None), Tensor)
