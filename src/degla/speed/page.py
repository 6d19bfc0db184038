"""The page of `degla bench --everything`: the machine, and one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from degla.pages.page import Facts, Page
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.speed.everything import Bench, BenchRow

_NOTES = (
    "Each number is the median of the rounds, each in a process of its own, in turns with what it is compared with; "
    "times the first is the median of the rounds' own ratios.",
    "Training steps decode nothing: their batch is there. The first group takes the step in stages and waits for the "
    "device after each; the others wait once a step. Loaders read batches of captions with negatives from picture "
    "files; a picture's file was read shortly before, so that no disk is measured. Evaluation embeds each picture and "
    "text once, in float32, with an empty cache.",
    "Memory is what the process held at most. On a GPU that is what PyTorch's allocator gave out there; of loaders it "
    "is main memory, without that of their workers.",
)


def bench_page(bench: Bench, machine: Mapping[str, Any], rows: Sequence[BenchRow]) -> Page:
    """The machine, and the table of what has been measured so far."""
    return Page("degla bench", parts=[Facts(machine_facts(bench, machine, rows)), bench_table(bench, rows), *_NOTES])


def bench_json(bench: Bench, machine: Mapping[str, Any], rows: Sequence[BenchRow]) -> dict[str, Any]:
    """All numbers as JSON values: bytes, and things a second."""
    sizes = {"precision": bench.precision, "steps": bench.steps, "rounds": bench.rounds, "seconds": bench.seconds}
    return {
        "machine": dict(machine),
        "workload": bench.workload.model_dump(mode="json") | sizes,
        "rows": [row.model_dump(mode="json") for row in rows],
    }


def machine_facts(bench: Bench, machine: Mapping[str, Any], rows: Sequence[BenchRow]) -> dict[str, str]:
    """What the figures must be read with, in words."""
    workload, cores = bench.workload, f"{machine['cores']} processor cores"
    if workload.device == "cuda":
        cores += f" ({machine['processor']})"
    cuda = f" (CUDA {machine['cuda']})" if machine["cuda"] else ""
    # Of the step that is neither the baseline's nor compiled; a compiler's kernels have no names.
    steps = [row for row in rows if row.facts.get("kernels") and "degla" in row.way]
    kernels = ", ".join(steps[0].facts["kernels"]) if steps else "not measured"  # type: ignore[arg-type]
    source = workload.captions or "drawn, with made photographs of 640 x 480 pixels"
    return {
        "Machine": f"{machine['device']}, {machine['memory'] / 2**30:.1f} GiB of memory; {cores}; load average "
        f"{machine['load']:.1f} at the start",
        "Software": f"degla {machine['degla']}, PyTorch {machine['torch']}{cuda}, open_clip {machine['open_clip']}",
        "Model": f"{workload.model}, {machine['parameters'] / 1e6:.1f} million parameters; fast paths that it lacks: "
        f"{'; '.join(machine['lacks']) or 'none'}",
        "Sizes": f"{workload.batch_size} pairs with {workload.negatives} negatives, steps in {bench.precision}, "
        f"{bench.steps} timed in each of {bench.rounds} rounds; captions: {source}",
        "Kernels of a step, by operations": f"{kernels}; linear layers: {machine['linear_layers']}; products of "
        f"float32 at precision {machine['float32_products']!r}",
    }


def bench_table(bench: Bench, rows: Sequence[BenchRow]) -> Table:
    """One row a way; a way that failed has its reason."""
    columns = (Column("what"), Column("way", align="left"), "a second", "a step", "x the first", "memory at most")
    return Table(columns, list(_rows(rows, bench.workload.batch_size)))


def _rows(rows: Sequence[BenchRow], batch_size: int) -> Iterator[TableRow]:
    firsts: dict[str, BenchRow] = {}
    for row in rows:
        first = firsts.setdefault(row.what, row)
        if row.failed:
            yield TableRow([row.what, row.way, TableCell("failed", note=row.failed), "", "", ""])
            continue
        step = f"{1000 * batch_size / row.rate:.0f} ms" if row.what.startswith("step") else ""
        memory = f"{row.memory / 2**30:.2f} GiB" + (" of main memory" if row.in_main_memory else "")
        rate = f"{row.rate:.{0 if row.rate >= 100 else 1}f} {row.unit}"
        yield TableRow([row.what, row.way, rate, step, "" if first.failed else f"{ratio(row, first):.2f}", memory])


def ratio(row: BenchRow, first: BenchRow) -> float:
    """How many times as fast: the median over rounds, each of which measured both."""
    return statistics.median(own / other for own, other in zip(row.per_second, first.per_second, strict=True))
