"""Measure both sides alternately, in separate processes, and compare their costs."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from degla.errors import DeglaError
from degla.pages.words import counted
from degla.speed.apart import run_apart
from degla.speed.measure import Measured, MeasureSettings, Side, measure
from degla.speed.stages import STAGES, TEXT
from degla.speed.workload import Workload


def compare(
    workload: Workload, *, precision: str, steps: int, rounds: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measure both sides `rounds` times, alternating.

    Args:
        workload: the same for both.
        precision: of the present step.
        steps: timed steps in each process.
        rounds: processes per side.
        tell: called with a line before and after each process.

    Returns:
        See `summarize`.

    Raises:
        DeglaError: one of the processes failed, for example because it ran out of memory.
    """
    sides: dict[Side, list[Measured]] = {"baseline": [], "present": []}
    with tempfile.TemporaryDirectory() as folder:
        files = {side: Path(folder) / f"{side}.pt" for side in sides}
        for number in range(rounds):
            for side, runs in sides.items():
                own = "fp32" if side == "baseline" else precision
                file = files[side] if number == 0 and (side == "present" or precision == "fp32") else None
                label = f"round {number + 1} of {rounds}, {side} in {own}"
                tell(f"{label}: {counted(steps, 'step')} after two warm-up steps ...")
                runs.append(run_side(workload, side=side, precision=own, steps=steps, gradients=file))
                tell(f"{label}: {step_seconds(runs[-1]):.2f} s per step, at most {runs[-1].memory / 2**30:.2f} GiB")
        same = sides["baseline"][0]
        if precision != "fp32":
            tell(f"baseline in {precision}, once, to compare loss and gradients ...")
            same = run_side(workload, side="baseline", precision=precision, steps=0, gradients=files["baseline"])
        gap, worst = _gradient_gap(files["baseline"], files["present"])
    loss_gap = abs(sides["present"][0].loss - same.loss) / abs(same.loss)
    gaps: dict[str, float | str] = {"loss_gap": loss_gap, "gradient_gap": gap, "worst_gradient": worst}
    return summarize(workload, sides["baseline"], sides["present"], precision=precision, gaps=gaps)


def summarize(
    workload: Workload, baseline: Sequence[Measured], present: Sequence[Measured], *, precision: str,
    gaps: Mapping[str, float | str],
) -> dict[str, Any]:  # fmt: skip
    """Return ratios and costs as JSON values: seconds, bytes, operations per second.

    Args:
        workload: the measured workload.
        baseline: one entry per round, always in fp32.
        present: one entry per round.
        precision: of the present step.
        gaps: of both sides in that precision: the relative difference of the losses ("loss_gap"), the largest relative
            difference in norm of a parameter's gradient ("gradient_gap"), and that parameter ("worst_gradient").
    """
    ours, theirs = _stage_medians(present), _stage_medians(baseline)
    # One ratio per round: whatever slows the machine down for minutes slows down both sides.
    whole, texts = (
        [step_seconds(slow, stages) / step_seconds(fast, stages) for slow, fast in zip(baseline, present, strict=True)]
        for stages in (STAGES, TEXT)
    )
    seconds = statistics.median(map(step_seconds, present))
    memory, slow_memory = (max(one.memory for one in side) for side in (present, baseline))
    rate, peak = present[0].operations / seconds, max(one.peak for one in present)
    return {
        "model": workload.model,
        "device": present[0].device,
        "batch_size": workload.batch_size,
        "negatives": workload.negatives,
        "precision": precision,
        "baseline_precision": "fp32",
        "rounds": len(present),
        "ratio": statistics.median(whole),
        "ratios": whole,
        "text_ratio": statistics.median(texts),
        "seconds": seconds,
        "baseline_seconds": statistics.median(map(step_seconds, baseline)),
        "pairs_per_second": workload.batch_size / seconds,
        "memory": memory,
        "baseline_memory": slow_memory,
        "memory_share": memory / slow_memory,
        "operations": present[0].operations,
        "baseline_operations": baseline[0].operations,
        "operations_per_second": rate,
        "matmul_peak": peak,
        "share_of_peak": rate / peak,
        **gaps,
        "stages": {name: {"seconds": ours[name], "baseline_seconds": theirs[name]} for name in STAGES},
    }


def run_side(workload: Workload, *, side: Side, precision: str, steps: int, gradients: Path | None = None) -> Measured:
    """Measure one side in a separate process; see `MeasureSettings`.

    Raises:
        DeglaError: it failed.
    """
    settings = MeasureSettings(workload=workload, side=side, precision=precision, steps=steps, gradients=gradients)
    what = f"the {side} step in {precision}"
    return run_apart(measure, settings, what=what, device=workload.device)


def _gradient_gap(baseline: Path, present: Path) -> tuple[float, str]:
    left, right = (torch.load(path, weights_only=True, mmap=True) for path in (baseline, present))
    if left.keys() != right.keys():
        raise DeglaError(f"the two sides train different parameters: {sorted(left.keys() ^ right.keys())[:3]}.")
    gaps = {
        name: float((right[name].double() - value.double()).norm() / value.double().norm().clamp(min=1e-300))
        for name, value in left.items()
    }
    # Every comparison with NaN is false, so `max` would ignore it.
    worst = max(gaps, key=lambda name: math.inf if math.isnan(gaps[name]) else gaps[name])
    return gaps[worst], worst


def step_seconds(measured: Measured, stages: tuple[str, ...] = STAGES) -> float:
    """Return the median seconds of a step, or of some of its stages."""
    return statistics.median(map(sum, zip(*(measured.seconds[stage] for stage in stages), strict=True)))


def _stage_medians(rounds: Sequence[Measured]) -> dict[str, float]:
    return {stage: statistics.median(value for one in rounds for value in one.seconds[stage]) for stage in STAGES}
