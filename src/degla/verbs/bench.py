"""measure a training step against the released code's, stage by stage, on this machine"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.verbs._terminal import show


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", default="ViT-B-32-quickgelu:random", help="any model (ViT-B-32-quickgelu:random)")
    verb.add_argument("--batch-size", type=int, default=32, metavar="B", help="pairs (32)")
    verb.add_argument("--negatives", type=int, default=4, metavar="K", help="negatives a caption (4)")
    verb.add_argument("--precision", choices=["fp32", "bf16"], default="fp32",
                      help="of the present step; the baseline is always timed in fp32 (fp32)")  # fmt: skip
    verb.add_argument("--captions", type=Path, metavar="FILE", help="real captions (some of the embedded world)")
    verb.add_argument("--negatives-file", type=Path, metavar="FILE", help="their negatives, by degla negatives")
    verb.add_argument("--steps", type=int, default=2, metavar="N", help="timed steps a process (2)")
    verb.add_argument("--rounds", type=int, default=2, metavar="N", help="processes a side, in turns (2)")
    verb.add_argument("--threads", type=int, metavar="N", help="threads of the processor (all)")
    verb.add_argument("--device", choices=["cpu", "cuda"], help="cpu or cuda (a GPU where there is one)")
    verb.add_argument("--compile", action="store_true", help="with torch.compile, as --train.compile")
    verb.add_argument("--gradient-checkpointing", action="store_true", help="as --train.gradient-checkpointing")
    verb.add_argument("--json", action="store_true", help="print as JSON")


def run(given: argparse.Namespace) -> int:
    for name in ("batch_size", "steps", "rounds"):
        if getattr(given, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(given, name)}; it must be 1 or more.")
    if given.negatives < 1:
        raise InputError("--negatives must be 1 or more: the recipe's losses are about them.")
    import torch

    from degla.speed.compare import compare
    from degla.speed.workload import Workload

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU that PyTorch can use.")
    workload = Workload(
        model=given.model, batch_size=given.batch_size, negatives=given.negatives, captions=given.captions,
        negatives_file=given.negatives_file, compile=given.compile, device=device, threads=given.threads,
        gradient_checkpointing=given.gradient_checkpointing,
    )  # fmt: skip
    found = compare(workload, precision=given.precision, steps=given.steps, rounds=given.rounds, tell=_tell).plain()
    if given.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _show(found)
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _show(found: dict[str, Any]) -> None:
    from degla.pages.table import Table, TableRow

    def row(name: str, slow: float, fast: float, form: str) -> TableRow:
        return TableRow([name, form.format(slow), form.format(fast), f"{slow / fast:.2f}"])

    rows = [
        row(name, 1000 * stage["baseline_seconds"], 1000 * stage["seconds"], "{:.0f} ms")
        for name, stage in found["stages"].items()
    ]
    rows.append(TableRow([""], kind="section"))
    rows.append(TableRow(["whole step", f"{found['baseline_seconds']:.2f} s", f"{found['seconds']:.2f} s",
                          f"{found['ratio']:.2f}"]))  # fmt: skip
    ratios = found["ratios"]
    if len(ratios) > 1:
        rows.append(TableRow(["in single rounds", "", "", f"{min(ratios):.2f} to {max(ratios):.2f}"]))
    rows.append(TableRow(["its text part", "", "", f"{found['text_ratio']:.2f}"]))
    rows.append(row("memory at most", found["baseline_memory"] / 2**30, found["memory"] / 2**30, "{:.2f} GiB"))
    rows.append(row("matrix operations", found["baseline_operations"] / 1e9, found["operations"] / 1e9, "{:.0f} G"))
    title = f"One training step, {found['model']}, B={found['batch_size']}, K={found['negatives']}"
    show(Table(["stage", "baseline, fp32", f"degla, {found['precision']}", "ratio"], rows).terminal(title=title))
    show(
        f"{found['device']}: {found['pairs_per_second']:.1f} pairs/s, "
        f"{found['operations_per_second'] / 1e9:.0f} GFLOP/s, {found['share_of_peak']:.0%} of the "
        f"{found['matmul_peak'] / 1e9:.0f} GFLOP/s that its matrix products reach in {found['precision']}.\n"
        f"Loss within {found['loss_gap']:.1e}, gradients within {found['gradient_gap']:.1e} "
        f"({found['worst_gradient']}) of the baseline's in {found['precision']}, relative."
    )
