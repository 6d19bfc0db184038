"""Text part of a training step, padded to the context length against trimmed to the longest text of the batch."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from degla.data.collate import text_length
from degla.data.sources import read_captions
from degla.model.load import load_encoder


def seconds(encoder: torch.nn.Module, tokens: torch.Tensor, *, autocast: bool) -> float:
    """Wall time of one forward and backward pass."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rows = encoder.encode_captions(tokens)
    rows.square()[:, ::2].sum().backward()
    encoder.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file, for example COCO's captions_val2017.json")
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--texts", type=int, default=80, help="texts a step: B (1 + K), 16 x 5 by default")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    encoder = load_encoder(given.model)
    texts = [record.text for record in read_captions(given.captions)][: given.texts]
    padded = encoder.tokenize(texts)
    trimmed = padded[:, : text_length(padded)]
    with torch.no_grad():
        gap = (encoder.encode_captions(padded) - encoder.encode_captions(trimmed)).abs().max().item()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        f"{len(texts)} texts, {padded.shape[1]} tokens padded, {trimmed.shape[1]} trimmed, largest difference {gap:.2g}"
    )
    for autocast in (False, True):
        pairs = [
            (seconds(encoder, padded, autocast=autocast), seconds(encoder, trimmed, autocast=autocast))
            for _ in range(given.runs + 1)
        ][1:]
        ratios = [slow / fast for slow, fast in pairs]
        print(
            f"{'bf16' if autocast else 'fp32'}: padded {statistics.median(slow for slow, _ in pairs):.2f} s, "
            f"trimmed {statistics.median(fast for _, fast in pairs):.2f} s, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
