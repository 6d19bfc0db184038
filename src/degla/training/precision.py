"""Which number format the matrix products of a device should use."""

from __future__ import annotations

from typing import Literal

import torch

from degla.errors import InputError


def choose_precision(asked: str, *, device: torch.device) -> Literal["no", "bf16", "fp16"]:
    """Name of accelerate's mixed precision for a flag: bf16 for "auto" where the device computes it natively.

    On processors without native bf16 (AVX-512 BF16 or AMX) autocast is slower than fp32, so "auto" stays with fp32.

    Raises:
        InputError: fp16 on a processor, for which accelerate has none.
    """
    if asked == "fp32":
        return "no"
    if asked == "fp16" and device.type == "cpu":
        raise InputError("--train.precision fp16 needs a GPU, and there is none; use bf16, fp32 or auto.")
    if asked in ("bf16", "fp16"):
        return "bf16" if asked == "bf16" else "fp16"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native else "no"
    return "no"
