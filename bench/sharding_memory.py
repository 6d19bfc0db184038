"""Memory and processor time of a step in each of several processes: full copies (ddp) against shards (fsdp)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from degla.cli import exit_status_of
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.speed.machine import device_name, peak_memory
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from degla.verbs._arguments import at_least

STRATEGIES = ("ddp", "fsdp")

# The second makes the C library return freed memory, so that memory in use is measured, not what it keeps in reserve.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def measure(given: argparse.Namespace) -> None:
    """Run one process of one strategy: a few steps on its own batch; write its peak memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workload = Workload(
        model=given.model, batch_size=given.batch_size, negatives=given.negatives, device=device,
        gradient_checkpointing=given.gradient_checkpointing,
    )  # fmt: skip
    config = workload.config(given.precision)
    config = replace(config, train=replace(config.train, strategy=given.side))
    accelerator = open_accelerator(config)
    before = peak_memory(accelerator.device)
    encoder = load_encoder(config.model, device=accelerator.device)
    parameters = sum(value.numel() for value in encoder.parameters())
    batch = make_batch(workload, encoder, precision=given.precision).to(accelerator.device)
    processes = Processes.current()
    trainer = build_trainer(config, accelerator, encoder, processes, rules=1, steps=1000)
    losses, seconds = [], []
    for number in range(given.steps):
        started = time.process_time()
        losses.append(float(trainer.step(batch, step=number)["loss"]))
        seconds.append(time.process_time() - started)
    found = {
        "parameters": parameters, "losses": losses, "seconds": min(seconds[1:] or seconds),
        "memory": peak_memory(accelerator.device) - before, "device": device_name(accelerator.device),
    }  # fmt: skip
    Path(given.out, f"{processes.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def launch(given: argparse.Namespace, strategy: str) -> list[dict[str, Any]]:
    """Start the processes of one strategy; return the figures of each."""
    words = ["--model", given.model, "--batch-size", str(given.batch_size), "--negatives", str(given.negatives)]
    words += ["--steps", str(given.steps), "--precision", given.precision, "--side", strategy]
    if given.gradient_checkpointing:
        words.append("--gradient-checkpointing")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={given.processes}",
             __file__, *words, "--out", folder],
            env={**_ENVIRONMENT, **os.environ}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(done.stderr[-4000:])
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).iterdir())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--processes", type=at_least(1), default=2)
    parser.add_argument("--batch-size", type=at_least(1), default=4, help="pairs per process (4)")
    parser.add_argument("--negatives", type=at_least(0), default=1, help="K (1)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--steps", type=at_least(1), default=2)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--side", choices=STRATEGIES, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        measure(given)
        return
    held = {}
    for strategy in given.strategies:
        found = launch(given, strategy)
        copies = 4 * found[0]["parameters"]
        held[strategy] = max(one["memory"] for one in found)
        print(
            f"{strategy:<5} {held[strategy] / 2**20:7.0f} MiB at most per process, {held[strategy] / copies:.2f} x the "
            f"parameters' {copies / 2**20:.0f} MiB;  {max(one['seconds'] for one in found):6.2f} processor seconds per "
            f"step;  losses {', '.join(f'{loss:.6f}' for loss in found[0]['losses'])}",
            flush=True,
        )
    print(f"{given.processes} processes, {found[0]['device']}, {given.model}, B={given.batch_size} each, "
          f"K={given.negatives}, {given.precision}")  # fmt: skip
    if len(held) == 2:
        print(f"ddp / fsdp: {held['ddp'] / held['fsdp']:.2f} x the memory")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
