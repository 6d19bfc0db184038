"""The measurements of `degla bench`, each in a separate process: one side of the step in stages, or another part."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch.utils.flop_counter import FlopCounterMode

from degla.allowance import usable_cores
from degla.errors import DeglaError, InputError
from degla.evaluation.models import computing_in
from degla.losses.core import Processes
from degla.model import fast_paths, linear_kernel
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.records import Record
from degla.speed.loading import embed_images_a_second, embed_texts_a_second, read_pairs_a_second, read_plainly_a_second
from degla.speed.machine import device_name, matmul_peak, memory_of, peak_memory, processor_name
from degla.speed.stages import BaselineStep, PresentStep, take_step
from degla.speed.whole_steps import WARMING, clip_steps, host_waits, open_clip_steps, open_step, seconds_of
from degla.speed.workload import Workload, make_batch, sample_rows
from degla.training.build import build_trainer, open_accelerator
from degla.training.pairs import image_transform
from degla.version import installed_version

Side = Literal["baseline", "present"]


class MeasureSettings(BaseModel):
    """What a process measures.

    Attributes:
        side: which step.
        precision: "fp32" or "bf16".
        workload: of both sides.
        steps: timed steps, after two warm-up steps.
        gradients: file for the gradients of the first step; None writes none.
    """

    side: Side
    precision: Literal["fp32", "bf16"]
    workload: Workload
    steps: int
    gradients: Path | None


class Measured(BaseModel):
    """The result of a measurement.

    Attributes:
        loss: of the first step.
        seconds: of each stage, one number per timed step.
        memory: peak memory in bytes.
        operations: counted floating-point operations of the matrix products of one step.
        peak: floating-point operations per second of the device's fastest matrix product in this precision.
        device: its name.
        kernels: operations per PyTorch kernel, by name.
    """

    loss: float
    seconds: dict[str, list[float]]
    memory: int
    operations: int
    peak: float
    device: str
    kernels: dict[str, int] = Field(default_factory=dict)


def measure(settings: MeasureSettings) -> Measured:
    """Load the model and run the steps."""
    device = _open_device(settings.workload)
    workload, bf16 = settings.workload, settings.precision == "bf16"
    config = workload.config(settings.precision)
    encoder = _encoder(workload)
    if encoder.bias is not None:
        raise InputError(
            f"{encoder.name}: has a logit_bias, but the baseline, the released code, only has softmax losses. Use "
            "a model without logit_bias; `degla doctor` says how long a step of this one takes."
        )
    batch = make_batch(workload, encoder, precision=settings.precision).to(device)
    step: PresentStep | BaselineStep
    if settings.side == "baseline":
        step = BaselineStep(encoder, batch, config=config, autocast=bf16)
    else:
        accelerator = open_accelerator(config)
        trainer = build_trainer(config, accelerator, encoder, Processes(), rules=1, steps=1000)
        step = PresentStep(trainer, batch)

    # A compiled step is not counted on its first run, where the counter would see the compiler's own work.
    linear_kernel.is_faster()  # Measured now, so that its own matrix products are not counted.
    formulas = (
        {torch.ops.mkldnn._linear_pointwise: linear_kernel.count_operations} if hasattr(torch.ops, "mkldnn") else {}
    )
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        loss, _ = take_step(step, device=device, update=False)
    if settings.gradients is not None:
        torch.save({name: value.cpu() for name, value in step.gradients().items()}, settings.gradients)
    step.update()
    step.average()
    take_step(step, device=device)
    seconds: dict[str, list[float]] = {}
    for _ in range(settings.steps):
        _, stages = take_step(step, device=device)
        for stage, value in stages.items():
            seconds.setdefault(stage, []).append(value)
    return Measured(
        loss=loss,
        seconds=seconds,
        memory=peak_memory(device),
        operations=counter.get_total_flops(),
        peak=matmul_peak(device, bf16=bf16),
        device=device_name(device),
        kernels={str(kernel): count for kernel, count in counter.get_flop_counts()["Global"].items()},
    )


PartName = Literal[
    "machine", "step", "clip", "open_clip", "loader", "plain loader", "images", "plain images", "texts", "plain texts"
]


class PartSettings(Record):
    """What a process measures.

    Attributes:
        part: which part.
        precision: of steps and evaluations: "fp32" or "bf16".
        workload: with files.
        steps: timed steps in a process.
        seconds: minimum time to measure a loader.
        workers: decoding processes.
    """

    part: PartName
    precision: Literal["fp32", "bf16"]
    workload: Workload
    steps: int = 2
    seconds: float = 5.0
    workers: int = 0


class PartMeasured(BaseModel):
    """The result of a measurement.

    Attributes:
        per_second: pairs, images or texts per second.
        memory: peak memory in bytes: of the GPU if there is one, else main memory.
        in_main_memory: whether it is main memory although there is a GPU.
        facts: other results.
    """

    per_second: float = 0.0
    memory: int = 0
    in_main_memory: bool = False
    facts: dict[str, float | int | str | list[str]] = Field(default_factory=dict)


def measure_part(settings: PartSettings) -> PartMeasured:
    """Measure one part in this process.

    Raises:
        InputError: the model or the files are invalid.
    """
    device = _open_device(settings.workload)
    if settings.part == "machine":
        return PartMeasured(facts=_machine(settings, device))
    if settings.part == "step":
        result = _step(settings, device)
    elif settings.part in ("clip", "open_clip"):
        result = _clip(settings)
    else:
        result = PartMeasured(per_second=_inputs(settings))
    # A loader uses main memory whatever the device.
    loads = settings.part.endswith("loader")
    result.memory = peak_memory(torch.device("cpu") if loads else device)
    result.in_main_memory = loads and device.type == "cuda"
    return result


def _step(settings: PartSettings, device: torch.device) -> PartMeasured:
    step = open_step(settings.workload, precision=settings.precision)
    seconds, waits = seconds_of(step, device, times=settings.steps), host_waits(step, device)
    facts = {} if waits is None else {"host_waits": waits}
    return PartMeasured(per_second=settings.workload.batch_size / seconds, facts=facts)


def _clip(settings: PartSettings) -> PartMeasured:
    workload = settings.workload
    encoder, count = _encoder(workload), settings.steps + WARMING
    size = image_transform(encoder).size
    images = torch.randn(workload.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    batches = [(images, [row.caption.text for row in sample_rows(workload)])] * count
    if settings.part == "clip":
        steps = clip_steps(encoder, batches, precision=settings.precision)
    else:
        try:
            steps = open_clip_steps(encoder, batches, number=count, precision=settings.precision)
        except ImportError as error:
            raise DeglaError(f"open_clip's training package is not installed ({error})") from None
    seconds = statistics.median(steps.seconds[WARMING:])
    return PartMeasured(per_second=workload.batch_size / seconds, facts={"loss": steps.losses[0]})


def _inputs(settings: PartSettings) -> float:
    workload, workers = settings.workload, settings.workers
    encoder = _encoder(workload)
    plainly = settings.part.startswith("plain")
    if settings.part.endswith("loader"):
        read = read_plainly_a_second if plainly else read_pairs_a_second
        return read(workload, encoder, workers=workers, seconds=settings.seconds)
    with computing_in(encoder, "fp32" if plainly else settings.precision):
        if settings.part.endswith("images"):
            return embed_images_a_second(workload, encoder, plainly=plainly, workers=workers)
        return embed_texts_a_second(workload, encoder, plainly=plainly)


def _open_device(workload: Workload) -> torch.device:
    if workload.threads:
        torch.set_num_threads(workload.threads)
    return torch.device(workload.device)


def _encoder(workload: Workload) -> Encoder:
    return load_encoder(workload.model, device=workload.device)


def _machine(settings: PartSettings, device: torch.device) -> dict[str, float | int | str | list[str]]:
    """Facts about this machine and the model that figures depend on; loads the model, so that errors come first."""
    encoder = _encoder(settings.workload)
    return {
        "device": device_name(device),
        "memory": memory_of(device),
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or "",
        "open_clip": installed_version("open_clip_torch"),
        "degla": installed_version("degla"),
        "float32_products": torch.get_float32_matmul_precision(),
        "linear_layers": linear_kernel.used_on(device),
        "lacks": [str(lack) for lack in fast_paths.lacks(encoder)],
        "parameters": sum(value.numel() for value in encoder.parameters()),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    }
