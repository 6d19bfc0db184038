"""Time the text part of a training step: padded to the context length, trimmed to the longest text, as prefix tree.

A text tower of transformers has no tree; it reads groups of texts of similar length, each trimmed to its longest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from degla.cli import exit_status_of
from degla.config.sections import DataConfig
from degla.data.batches import text_length
from degla.model.load import load_encoder
from degla.model.text import encode_tree, encode_trimmed, masks_padding, padding_token
from degla.speed.machine import device_name
from degla.training.rows import read_rows
from degla.verbs._arguments import at_least


def seconds(encode: Callable[[], torch.Tensor], encoder: torch.nn.Module, *, autocast: bool) -> float:
    """Return processor seconds of one forward and backward pass."""
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rows = torch.nn.functional.normalize(encode().float(), dim=-1)
    rows[:, ::2].sum().backward()
    encoder.zero_grad(set_to_none=True)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file, for example COCO's captions_val2017.json")
    parser.add_argument("--negatives", type=Path, required=True, help="their negatives, made by degla negatives")
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--per-caption", type=at_least(0), default=4, help="negatives per caption (4)")
    parser.add_argument("--runs", type=at_least(1), default=3)
    given = parser.parse_args()
    encoder = load_encoder(given.model)
    data = DataConfig(captions=given.captions, negatives=given.negatives, negatives_per_caption=given.per_caption)
    rows = [row for row in read_rows(data) if len(row.negatives) >= given.per_caption][: given.batch_size]
    padded = encoder.tokenize(
        [text for row in rows for text in (row.caption.text, *row.negatives[: given.per_caption])]
    )
    trimmed = padded[:, : text_length(padded, padding=padding_token(encoder.clip))].contiguous()

    def trim() -> torch.Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return encode_trimmed(encoder.clip, trimmed)

    ways: dict[str, tuple[Callable[[], torch.Tensor], int | None]] = {
        "padded": (lambda: encoder.clip.encode_text(padded), padded.numel())
    }
    if masks_padding(encoder.clip):
        ways["trimmed"] = lambda: encoder.clip.encode_text(trimmed), trimmed.numel()
        ways["groups"] = lambda: encode_trimmed(encoder.clip, trimmed), None
    else:
        assert encoder.grow is not None
        tree = encoder.grow(padded)
        ways["trimmed"] = trim, trimmed.numel()
        ways["tree"] = lambda: encode_tree(encoder.clip, tree), len(tree.token)
    with torch.no_grad():
        first, *others = (encode() for encode, _ in ways.values())
        gap = max((first - other).abs().max().item() for other in others)
    print(f"{device_name(torch.device('cpu'))}; {len(padded)} texts; largest difference from padded {gap:.2g}")
    for autocast in (False, True):
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.runs + 1):
            for name, (encode, _) in ways.items():
                taken[name].append(seconds(encode, encoder, autocast=autocast))
        for name, (_, tokens) in ways.items():
            ratio = statistics.median(a / b for a, b in zip(taken["padded"][1:], taken[name][1:], strict=True))
            print(f"{'bf16' if autocast else 'fp32'} {name:<8} {tokens or '':>6} states  "
                  f"{statistics.median(taken[name][1:]):6.2f} processor seconds  x {ratio:.2f}")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
