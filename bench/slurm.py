"""Is a requeued run of `examples/slurm/train.sbatch` on two machines identical to a local run with as many processes?

Slurm is simulated: `srun` runs the script's own launch line once per machine, with separate folders and SLURM_NODEID,
on the loopback interface; `scontrol` names the machines. PyTorch's torchrun and `degla train` are real. The job takes
four steps and loses its last checkpoint; it is started again as Slurm does after a requeue, resumes at step 2, and its
weights must equal those of a local run of four steps bit for bit.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import load_file

from tests.tiny import write_model, write_pairs

ROOT = Path(__file__).parents[1]
WEIGHTS = "open_clip_model.safetensors"
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
pids=()
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
    SLURM_NODEID=$node DEGLA_CACHE=$DEGLA_CACHE/machine-$node "$@" & pids+=($!)
done
ended=0
for pid in "${pids[@]}"; do wait "$pid" || ended=$?; done
exit "$ended"
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1" != show ] || printf '127.0.0.1\\n127.0.0.1\\n'
"""


def flags(model: Path, pairs: dict[str, Path], out: Path) -> list[str]:
    return [
        "negclip", "--model", str(model), "--data.captions", str(pairs["captions"]), "--data.images",
        str(pairs["images"]), "--data.negatives", str(pairs["negatives"]), "--data.negatives-per-caption", "2",
        "--data.workers", "auto", "--out", str(out), "--train.batch-size", "4", "--train.steps", "4",
        "--train.precision", "fp32", "--train.seed", "3", "--optim.lr", "1e-3", "--checkpoint.every-steps", "2",
        "--checkpoint.every-minutes", "0", "--tracking.no-progress",
    ]  # fmt: skip


def job(folder: Path, words: list[str], **more: str) -> None:
    """Run the script as Slurm would on two machines."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    played = {"PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
              "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "machine-[0-1]", "SLURM_JOB_NUM_NODES": "2", "PORT": str(port),
              "DEGLA_CACHE": str(folder / "cache")}  # fmt: skip
    script = ROOT / "examples" / "slurm" / "train.sbatch"
    subprocess.run(["bash", str(script), *words], env=os.environ | played | more, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bin").mkdir()
        for program, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (folder / "bin" / program).write_text(text)
            (folder / "bin" / program).chmod(0o755)
        model, pairs = write_model(folder / "model"), write_pairs(folder / "pairs")
        local = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "degla", "train"]
        environment = os.environ | {"DEGLA_CACHE": str(folder / "cache-local")}
        command = [sys.executable, "-m", *local, *flags(model, pairs, folder / "local")]
        subprocess.run(command, env=environment, check=True)
        out = folder / "job"
        job(folder, flags(model, pairs, out))
        shutil.rmtree(out / "step-4")
        job(folder, flags(model, pairs, out), SLURM_RESTART_COUNT="1")
        one, other = (load_file(run / "step-4" / WEIGHTS) for run in (folder / "local", out))
        same = one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())
        print(f"weights after 4 steps on two machines, two of them after a restart: {'equal' if same else 'DIFFER'}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
