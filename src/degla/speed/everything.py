"""The measurements of `degla bench --everything`: which, compared with what, in which order; their rows and page."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from degla.data.loader import choose_workers
from degla.errors import DeglaError
from degla.model.heap import KEPT
from degla.pages.page import Facts, Page
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.pages.words import counted
from degla.records import Record
from degla.speed.apart import run_apart
from degla.speed.compare import run_side, step_seconds
from degla.speed.measure import PartMeasured, PartName, PartSettings, Side, measure_part
from degla.speed.workload import Workload, draw_workload, sample_rows

_NOTES = (
    "Each number is the median over rounds. Each round runs in a separate process, alternating with the other ways. "
    "The speed-up is the median of the ratios within each round.",
    "Training steps decode nothing: their batch is in memory. The first group runs the step in stages and waits for "
    "the device after each; the others wait once per step. Loaders read batches of captions with negatives from image "
    "files, which were read shortly before, so that disk speed is not measured. Evaluation embeds each image and text "
    "once, in float32, with an empty cache.",
    "Peak memory is that of the process. On a GPU it is the memory allocated by PyTorch; for loaders it is main memory "
    "without that of their workers.",
)


class BenchRow(Record):
    """One way to do a task.

    Attributes:
        what: the task; rows of the same task are compared with the first of them.
        way: how it is done.
        unit: what is counted: "pairs", "images" or "texts".
        per_second: throughput, one number per round.
        memory: peak memory in bytes: of the GPU if there is one, else main memory.
        in_main_memory: whether it is main memory although there is a GPU.
        facts: other results.
        failed: why there is no number; "" if there is one.
    """

    what: str
    way: str
    unit: str
    per_second: tuple[float, ...] = ()
    memory: int = 0
    in_main_memory: bool = False
    facts: Mapping[str, float | int | str | list[str]] = {}
    failed: str = ""

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.per_second)


@dataclass(frozen=True)
class Bench:
    """What to measure, and for how long.

    Attributes:
        workload: model, sizes and device. Rows are drawn if it has no captions.
        precision: "fp32" or "bf16", of training steps.
        steps: timed steps in each process.
        rounds: processes per way, alternating with the ways that it is compared with.
        seconds: minimum time to measure a loader.
    """

    workload: Workload
    precision: Literal["fp32", "bf16"]
    steps: int = 2
    rounds: int = 2
    seconds: float = 5.0


Way = Callable[[], PartMeasured]


class WaysCompared(NamedTuple):
    """Ways to do the same task; all are compared with the first."""

    what: str
    unit: str
    ways: Mapping[str, Way]


def plan(bench: Bench) -> list[WaysCompared]:
    """List the measurements, in order."""
    precision = bench.precision
    workers = choose_workers("auto", on_gpu=bench.workload.device == "cuda")
    chunk = max(bench.workload.batch_size // 8, 1)
    released = {f"released code, {each}": _side(bench, "baseline", each) for each in dict.fromkeys(("fp32", precision))}
    plainly = {KEPT: "0"}  # As for users who have not loaded a model with this package.
    several = f"{workers} worker{'s' * (workers != 1)}"
    return [
        WaysCompared("step", "pairs", {
            **released,
            f"degla, {precision}": _side(bench, "present", precision),
            f"degla, {precision}, --train.compile": _side(bench, "present", precision, compile=True),
        }),
        WaysCompared("step of clip", "pairs", {
            f"open_clip's own trainer, {precision}": _part(bench, "open_clip", environment=plainly),
            f"degla, {precision}": _part(bench, "clip"),
        }),
        WaysCompared("step in chunks", "pairs", {
            f"whole batch, {precision}": _part(bench, "step"),
            f"--train.chunk-size {chunk}, {precision}": _part(bench, "step", chunk_size=chunk),
        }),
        WaysCompared("loader", "pairs", {
            f"PIL, torchvision and PyTorch's loader, {several}": _part(bench, "plain loader", workers=workers),
            **({"degla, no workers": _part(bench, "loader")} if workers else {}),
            f"degla, --data.workers auto: {several}": _part(bench, "loader", workers=workers),
        }),
        WaysCompared("image embedding", "images", {
            f"open_clip in plain batches, {several}": _part(
                bench, "plain images", workers=workers, environment=plainly
            ),
            **_embedding_ways(bench, "images"),
        }),
        WaysCompared("text embedding", "texts", {
            "open_clip in plain batches": _part(bench, "plain texts", environment=plainly),
            **_embedding_ways(bench, "texts"),
        }),
    ]  # fmt: skip


def _embedding_ways(bench: Bench, part: Literal["images", "texts"]) -> dict[str, Way]:
    """Evaluation's own way, in float32 and in the precision of the training steps."""
    ways = {"degla": _part(bench, part, precision="fp32")}
    if bench.precision != "fp32":
        ways[f"degla, --precision {bench.precision}"] = _part(bench, part)
    return ways


def machine_of(bench: Bench) -> dict[str, Any]:
    """Return the facts about machine and model that the figures depend on.

    Raises:
        DeglaError: the model cannot be loaded on the device.
    """
    return dict(_part(bench, "machine")().facts)


def measure_everything(bench: Bench, *, tell: Callable[[str], None] = lambda line: None) -> Iterator[BenchRow]:
    """Yield one row per way, after its rounds. A way that fails yields a row with the reason; the others continue.

    Args:
        bench: what to measure.
        tell: called with a line after each process.

    Raises:
        InputError: the captions are invalid or too few.
    """
    with tempfile.TemporaryDirectory() as folder:
        if bench.workload.captions is None:
            workload = draw_workload(bench.workload, Path(folder), photographs=True)
            bench = replace(bench, workload=workload)
        sample_rows(bench.workload)  # Raises for invalid captions once, instead of in each row.
        for compared in plan(bench):
            yield from measure_ways(compared, rounds=bench.rounds, tell=tell)


def measure_ways(
    compared: WaysCompared, *, rounds: int, tell: Callable[[str], None] = lambda line: None
) -> Iterator[BenchRow]:
    """Measure the ways alternately, so that whatever slows the machine down for minutes affects all of them."""
    results: dict[str, list[PartMeasured]] = {way: [] for way in compared.ways}
    failed: dict[str, str] = {}
    for number in range(rounds):
        for way, measure in compared.ways.items():
            if way in failed:
                continue
            label = f"{compared.what}, {way}, round {number + 1} of {rounds}"
            try:
                one = measure()
            except DeglaError as error:
                failed[way] = str(error)
                tell(f"{label}: {error}")
                continue
            results[way].append(one)
            tell(f"{label}: {one.per_second:.1f} {compared.unit}/s, peak memory {one.memory / 2**30:.2f} GiB")
    for way, measured in results.items():
        yield BenchRow(
            what=compared.what, way=way, unit=compared.unit,
            per_second=tuple(one.per_second for one in measured),
            memory=max((one.memory for one in measured), default=0),
            in_main_memory=any(one.in_main_memory for one in measured),
            facts=measured[0].facts if measured else {}, failed=failed.get(way, ""),
        )  # fmt: skip


def _side(bench: Bench, side: Side, precision: str, *, compile: bool = False) -> Way:
    """The step in stages."""
    workload = bench.workload.model_copy(update={"compile": compile})

    def measure() -> PartMeasured:
        result = run_side(workload, side=side, precision=precision, steps=bench.steps)
        rate, whole = workload.batch_size / step_seconds(result), sum(result.kernels.values()) or 1
        kernels = [f"{name} {count / whole:.0%}" for name, count in result.kernels.items()]
        share = result.operations * rate / workload.batch_size / result.peak
        return PartMeasured(
            per_second=rate,
            memory=result.memory,
            facts={"loss": result.loss, "operations": result.operations, "share_of_peak": share, "kernels": kernels},
        )

    return measure


def _part(
    bench: Bench, part: PartName, *, workers: int = 0, chunk_size: int | None = None,
    precision: Literal["fp32", "bf16"] | None = None, environment: Mapping[str, str] | None = None,
) -> Way:  # fmt: skip
    workload = bench.workload.model_copy(update={"chunk_size": chunk_size})
    settings = PartSettings(
        part=part, precision=precision or bench.precision, workload=workload, steps=bench.steps, seconds=bench.seconds,
        workers=workers,
    )  # fmt: skip

    def measure() -> PartMeasured:
        what, device = f"the measurement ({part})", bench.workload.device
        return run_apart(measure_part, settings, what=what, device=device, environment=environment)

    return measure


def bench_page(bench: Bench, machine: Mapping[str, Any], rows: Sequence[BenchRow]) -> Page:
    """Return the page with the machine and the table of measurements so far."""
    return Page("degla bench", parts=[Facts(machine_facts(bench, machine, rows)), bench_table(bench, rows), *_NOTES])


def bench_json(bench: Bench, machine: Mapping[str, Any], rows: Sequence[BenchRow]) -> dict[str, Any]:
    """Return all numbers as JSON values: bytes, and items per second."""
    sizes = {"precision": bench.precision, "steps": bench.steps, "rounds": bench.rounds, "seconds": bench.seconds}
    return {
        "machine": dict(machine),
        "workload": bench.workload.model_dump(mode="json") | sizes,
        "rows": [row.model_dump(mode="json") for row in rows],
    }


def machine_facts(bench: Bench, machine: Mapping[str, Any], rows: Sequence[BenchRow]) -> dict[str, str]:
    """Describe the machine, software, model and sizes in words."""
    workload, cores = bench.workload, counted(machine["cores"], "CPU core")
    if workload.device == "cuda":
        cores += f" ({machine['processor']})"
    cuda = f" (CUDA {machine['cuda']})" if machine["cuda"] else ""
    # From degla's step without compilation: a compiler's kernels have no names.
    steps = [row for row in rows if row.facts.get("kernels") and "degla" in row.way]
    kernels = ", ".join(steps[0].facts["kernels"]) if steps else "not measured"  # type: ignore[arg-type]
    source = workload.captions or "drawn, with synthetic photographs of 640 x 480 pixels"
    return {
        "Machine": f"{machine['device']}, {machine['memory'] / 2**30:.1f} GiB of memory; {cores}; load average "
        f"{machine['load']:.1f} at the start",
        "Software": f"degla {machine['degla']}, PyTorch {machine['torch']}{cuda}, open_clip {machine['open_clip']}",
        "Model": f"{workload.model}, {machine['parameters'] / 1e6:.1f} million parameters; missing fast paths: "
        f"{'; '.join(machine['lacks']) or 'none'}",
        "Sizes": f"{counted(workload.batch_size, 'pair')} with {counted(workload.negatives, 'negative')}, steps "
        f"in {bench.precision}, {bench.steps} timed in each of {counted(bench.rounds, 'round')}; captions: {source}",
        "Kernels of a step, by operations": f"{kernels}; linear layers: {machine['linear_layers']}; float32 matrix "
        f"products at precision {machine['float32_products']!r}",
    }


def bench_table(bench: Bench, rows: Sequence[BenchRow]) -> Table:
    """Return a table with one row per way; a failed way shows the reason."""
    columns = (Column("task"), Column("way", align="left"), "per second", "per step", "speed-up", "peak memory")
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
    """Return the speed-up over the first way: the median of the ratios in each round."""
    return statistics.median(own / other for own, other in zip(row.per_second, first.per_second, strict=True))
