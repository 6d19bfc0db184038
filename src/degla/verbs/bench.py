"""benchmark a training step against the released code's, stage by stage, on this machine"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.errors import InputError
from degla.files import require_writable
from degla.verbs._arguments import refuse_flags, require_least
from degla.verbs._terminal import answer, print_json, show, tell

if TYPE_CHECKING:
    from degla.speed.workload import Workload


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", default="ViT-B-32-quickgelu:random", help="any model (ViT-B-32-quickgelu:random)")
    everything = "also benchmark the loader, evaluation, gradient cache and recipe clip against common alternatives"
    verb.add_argument("--everything", action="store_true", help=everything)
    verb.add_argument("--quick", action="store_true", help="with --everything: 8 pairs, one step, one round")
    verb.add_argument("--out", type=Path, metavar="FILE.md", help="with --everything: write the table, and FILE.json")
    verb.add_argument("--batch-size", type=int, metavar="B", help="batch size (32; with --everything on a GPU 256)")
    verb.add_argument("--negatives", type=int, default=4, metavar="K", help="negatives per caption (4)")
    verb.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        help="precision of degla's step; the baseline runs in fp32 (fp32; with --everything on a GPU bf16)",
    )
    verb.add_argument("--captions", type=Path, metavar="FILE", help="real captions (captions of the embedded world)")
    verb.add_argument("--negatives-file", type=Path, metavar="FILE", help="their negatives, from degla negatives")
    verb.add_argument("--images", type=Path, metavar="FOLDER", help="with --everything: image folder of the captions")
    verb.add_argument("--steps", type=int, metavar="N", help="timed steps per process (2)")
    verb.add_argument("--rounds", type=int, metavar="N", help="processes per side, run alternately (2)")
    verb.add_argument("--threads", type=int, metavar="N", help="CPU threads (all)")
    verb.add_argument("--device", choices=["cpu", "cuda"], help="cpu or cuda (a GPU if there is one)")
    verb.add_argument("--compile", action="store_true", help="use torch.compile, as --train.compile")
    verb.add_argument("--gradient-checkpointing", action="store_true", help="as --train.gradient-checkpointing")
    verb.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    import torch

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no usable GPU.")
    return _everything(arguments, device) if arguments.everything else _compare(arguments, device)


def _check(arguments: argparse.Namespace) -> None:
    require_least(arguments, "batch_size", "steps", "rounds", "threads", least=1)
    if arguments.negatives < 1:
        raise InputError("--negatives must be 1 or more: the recipe's losses need negatives.")
    if not arguments.everything:
        refuse_flags(arguments, "quick", "out", "images", why="requires --everything.")
    if arguments.captions is None and (arguments.negatives_file or arguments.images):
        raise InputError("--negatives-file and --images require --captions.")
    if arguments.everything and arguments.compile:
        raise InputError("--everything measures both with and without compilation. Omit --compile.")
    if arguments.out is not None and arguments.out.suffix == ".json":
        raise InputError(
            f"--out {arguments.out}: name the Markdown file; the numbers are written beside it to a .json file."
        )
    if arguments.out is not None:
        require_writable(arguments.out)


def _workload(arguments: argparse.Namespace, device: str, *, batch_size: int) -> Workload:
    from degla.speed.workload import Workload

    return Workload(
        model=arguments.model, batch_size=arguments.batch_size or batch_size, negatives=arguments.negatives,
        captions=arguments.captions, negatives_file=arguments.negatives_file, images=arguments.images,
        compile=arguments.compile, device=device, threads=arguments.threads,
        gradient_checkpointing=arguments.gradient_checkpointing,
    )  # fmt: skip


def _compare(arguments: argparse.Namespace, device: str) -> int:
    from degla.speed.compare import compare

    workload, steps, rounds = _workload(arguments, device, batch_size=32), arguments.steps or 2, arguments.rounds or 2
    precision = arguments.precision or "fp32"
    comparison = compare(workload, precision=precision, steps=steps, rounds=rounds, tell=tell)
    answer(arguments, lambda: comparison, lambda: _show(comparison))
    return 0


def _everything(arguments: argparse.Namespace, device: str) -> int:
    from degla.files import write_json, write_text
    from degla.speed.everything import (
        Bench,
        bench_json,
        bench_page,
        bench_table,
        machine_facts,
        machine_of,
        measure_everything,
    )

    on_gpu = device == "cuda"
    few = 1 if arguments.quick else 2
    bench = Bench(
        _workload(arguments, device, batch_size=8 if arguments.quick else 256 if on_gpu else 32),
        arguments.precision or ("bf16" if on_gpu else "fp32"),
        steps=arguments.steps or few,
        rounds=arguments.rounds or few,
        seconds=1.0 if arguments.quick else 5.0,
    )
    machine, rows = machine_of(bench), []
    for row in measure_everything(bench, tell=tell):
        rows.append(row)
        if arguments.out is not None:  # After each row, so that finished measurements are kept if a later one fails.
            write_text(arguments.out, bench_page(bench, machine, rows).markdown())
            write_json(arguments.out.with_suffix(".json"), bench_json(bench, machine, rows))
    if arguments.json:
        print_json(bench_json(bench, machine, rows))
    else:
        for name, fact in machine_facts(bench, machine, rows).items():
            sys.stdout.write(f"{name}: {fact}\n")
        sys.stdout.flush()
        show(bench_table(bench, rows).terminal())
    return int(all(row.failed for row in rows))


def _show(comparison: dict[str, Any]) -> None:
    from degla.pages.table import Table, TableRow

    def row(name: str, slow: float, fast: float, form: str) -> TableRow:
        return TableRow([name, form.format(slow), form.format(fast), f"{slow / fast:.2f}"])

    rows = [
        row(name, 1000 * stage["baseline_seconds"], 1000 * stage["seconds"], "{:.0f} ms")
        for name, stage in comparison["stages"].items()
    ]
    rows.append(TableRow([""], kind="section"))
    seconds = [f"{comparison[name]:.2f} s" for name in ("baseline_seconds", "seconds")]
    rows.append(TableRow(["whole step", *seconds, f"{comparison['ratio']:.2f}"]))
    ratios = comparison["ratios"]
    if len(ratios) > 1:
        rows.append(TableRow(["in single rounds", "", "", f"{min(ratios):.2f} to {max(ratios):.2f}"]))
    rows.append(TableRow(["its text part", "", "", f"{comparison['text_ratio']:.2f}"]))
    rows.append(
        row("memory at most", comparison["baseline_memory"] / 2**30, comparison["memory"] / 2**30, "{:.2f} GiB")
    )
    rows.append(
        row("matrix operations", comparison["baseline_operations"] / 1e9, comparison["operations"] / 1e9, "{:.0f} G")
    )
    title = f"One training step, {comparison['model']}, B={comparison['batch_size']}, K={comparison['negatives']}"
    show(Table(["stage", "baseline, fp32", f"degla, {comparison['precision']}", "ratio"], rows).terminal(title=title))
    show(
        f"{comparison['device']}: {comparison['pairs_per_second']:.1f} pairs/s, "
        f"{comparison['operations_per_second'] / 1e9:.0f} GFLOP/s, {comparison['share_of_peak']:.0%} of the "
        f"{comparison['matmul_peak'] / 1e9:.0f} GFLOP/s that its matrix products reach in {comparison['precision']}.\n"
        f"Loss within {comparison['loss_gap']:.1e}, gradients within {comparison['gradient_gap']:.1e} "
        f"({comparison['worst_gradient']}) of the baseline's in {comparison['precision']}, relative."
    )
