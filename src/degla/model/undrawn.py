"""Networks whose weights come from a file are made without drawing random ones first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWS = {
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.nn.init.kaiming_normal_,
    torch.nn.init.kaiming_uniform_,
    torch.nn.init.normal_,
    torch.nn.init.orthogonal_,
    torch.nn.init.trunc_normal_,
    torch.nn.init.uniform_,
    torch.nn.init.xavier_normal_,
    torch.nn.init.xavier_uniform_,
}


class Undrawn(TorchFunctionMode):
    """Within it what would be drawn stays as its memory is: only for parameters that are all read afterwards.

    A ViT-B/32 draws 151 million numbers when it is made, for nothing. Zeros, ones and constants are set as ever.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
