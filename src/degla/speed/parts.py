"""What `degla bench --everything` measures beside the step in stages: `python -m degla.speed.parts SETTINGS OUT`."""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field

from degla.data.loader import usable_cores
from degla.errors import DeglaError
from degla.evaluation.models import computing_in
from degla.model import fast_paths, linear_kernel
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.records import Record
from degla.speed.embedding import embed_images_a_second, embed_texts_a_second
from degla.speed.loading import read_pairs_a_second, read_plainly_a_second
from degla.speed.machine import device_name, memory_of, peak_memory, processor_name
from degla.speed.whole_steps import WARMING, clip_steps, host_waits, open_clip_steps, open_step, seconds_of
from degla.speed.workload import Workload, sample_rows
from degla.training.pairs import image_transform
from degla.version import installed_version

PartName = Literal[
    "machine", "step", "clip", "open_clip", "loader", "plain loader", "images", "plain images", "texts", "plain texts"
]


class PartSettings(Record):
    """What a process is to measure.

    Attributes:
        part: which.
        precision: of steps and evaluations: "fp32" or "bf16".
        workload: with files.
        steps: that are timed in a process.
        seconds: of a loader, at least.
        workers: processes that decode.
    """

    part: PartName
    precision: Literal["fp32", "bf16"]
    workload: Workload
    steps: int = 2
    seconds: float = 5.0
    workers: int = 0


class PartMeasured(BaseModel):
    """What it found.

    Attributes:
        per_second: pairs, pictures or texts.
        memory: bytes held at most: of the GPU where there is one, else of main memory.
        in_main_memory: it is main memory although there is a GPU.
        facts: whatever else is worth keeping.
    """

    per_second: float = 0.0
    memory: int = 0
    in_main_memory: bool = False
    facts: dict[str, float | int | str | list[str]] = Field(default_factory=dict)


def measure_part(settings: PartSettings) -> PartMeasured:
    """Measure one part in this process.

    Raises:
        InputError: of the model or the files.
    """
    workload = settings.workload
    if workload.threads:
        torch.set_num_threads(workload.threads)
    device = torch.device(workload.device)
    if settings.part == "machine":
        return PartMeasured(facts=_machine(settings, device))
    if settings.part in ("step", "clip", "open_clip"):
        found = _steps(settings, device)
    else:
        found = PartMeasured(per_second=_inputs(settings, device))
    # A loader fills main memory, whatever the device.
    loads = settings.part.endswith("loader")
    found.memory = peak_memory(torch.device("cpu") if loads else device)
    found.in_main_memory = loads and device.type == "cuda"
    return found


def _steps(settings: PartSettings, device: torch.device) -> PartMeasured:
    workload, times = settings.workload, settings.steps
    if settings.part == "step":
        step = open_step(workload, precision=settings.precision)
        seconds, waits = seconds_of(step, device, times=times), host_waits(step, device)
        facts = {} if waits is None else {"host_waits": waits}
        return PartMeasured(per_second=workload.batch_size / seconds, facts=facts)
    return _clip(settings)


def _clip(settings: PartSettings) -> PartMeasured:
    workload = settings.workload
    encoder, count = _encoder(workload), settings.steps + WARMING
    size = image_transform(encoder).size
    images = torch.randn(workload.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    batches = [(images, [row.caption.text for row in sample_rows(workload)])] * count
    if settings.part == "clip":
        taken = clip_steps(encoder, batches, precision=settings.precision)
    else:
        try:
            taken = open_clip_steps(encoder, batches, number=count, precision=settings.precision)
        except ImportError as error:
            raise DeglaError(f"open_clip's training package is not installed ({error})") from None
    seconds = statistics.median(taken.seconds[WARMING:])
    return PartMeasured(per_second=workload.batch_size / seconds, facts={"loss": taken.losses[0]})


def _inputs(settings: PartSettings, device: torch.device) -> float:
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


def _encoder(workload: Workload) -> Encoder:
    return load_encoder(workload.model, device=workload.device)


def _machine(settings: PartSettings, device: torch.device) -> dict[str, float | int | str | list[str]]:
    """What figures of this machine must be read with; loads the model, so that a wrong one is told first."""
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
        "linear_layers": linear_kernel.NAME if device.type == "cpu" and linear_kernel.is_faster() else "PyTorch's own",
        "lacks": [str(lack) for lack in fast_paths.lacks(encoder)],
        "parameters": sum(value.numel() for value in encoder.parameters()),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    }


def main() -> None:
    """Read the settings from the first word and write what is found to the file named by the second."""
    settings = PartSettings.model_validate_json(sys.argv[1])
    Path(sys.argv[2]).write_text(measure_part(settings).model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
