"""One side of the comparison in a process of its own: `python -m degla.speed.measure SETTINGS OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from degla.errors import InputError
from degla.speed.workload import Workload

Side = Literal["baseline", "present"]


class MeasureSettings(BaseModel):
    """What a process is to measure.

    Attributes:
        side: which step.
        precision: "fp32" or "bf16".
        workload: of both sides.
        steps: that are timed, after two that are not.
        gradients: file to write loss and gradients of the first step to; None writes none.
    """

    side: Side
    precision: Literal["fp32", "bf16"]
    workload: Workload
    steps: int
    gradients: Path | None


class Measured(BaseModel):
    """What it found.

    Attributes:
        loss: of the first step.
        seconds: of each stage, one number a timed step.
        memory: bytes held at most.
        operations: floating point operations of the matrix products of one step, as counted.
        peak: floating point operations a second of the device's best matrix product in this precision.
        device: in words.
        kernels: the operations of each of PyTorch's kernels, by its name.
    """

    loss: float
    seconds: dict[str, list[float]]
    memory: int
    operations: int
    peak: float
    device: str
    kernels: dict[str, int] = Field(default_factory=dict)


def measure(settings: MeasureSettings) -> Measured:
    """Load the model, take the steps."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from degla.losses.core import Processes
    from degla.model.linear_kernel import count_operations, is_faster
    from degla.model.load import load_encoder
    from degla.speed.baseline import BaselineStep
    from degla.speed.machine import device_name, matmul_peak, peak_memory
    from degla.speed.stages import PresentStep, StagedStep, take_step
    from degla.speed.workload import make_batch
    from degla.training.build import build_trainer, open_accelerator

    workload = settings.workload
    if workload.threads:
        torch.set_num_threads(workload.threads)
    device = torch.device(workload.device)
    bf16 = settings.precision == "bf16"
    config = workload.config(settings.precision)
    encoder = load_encoder(workload.model, device=device)
    if encoder.bias is not None:
        raise InputError(
            f"{encoder.name}: has a logit_bias, and the released code that a step is compared with knows the softmax "
            "losses alone. Take a model without logit_bias; `degla doctor` says how long a step of this one takes."
        )
    batch = make_batch(workload, encoder, precision=settings.precision).to(device)
    step: StagedStep
    if settings.side == "baseline":
        step = BaselineStep(encoder, batch, config=config, autocast=bf16)
    else:
        accelerator = open_accelerator(config)
        trainer = build_trainer(config, accelerator, encoder, Processes(), rules=1, steps=1000)
        step = PresentStep(trainer, batch)

    # A compiled step is not counted as it runs for the first time: the counter would see the compiler's own work.
    is_faster()  # Measured here, so that its own products are not counted.
    known = {torch.ops.mkldnn._linear_pointwise: count_operations} if hasattr(torch.ops, "mkldnn") else {}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
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


def main() -> None:
    """Read the settings from the first word and write the result to the file named by the second."""
    settings = MeasureSettings.model_validate_json(sys.argv[1])
    Path(sys.argv[2]).write_text(measure(settings).model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
