"""Several processes of one program, as torchrun starts them, without the processor time of a launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_together(words: list[str], *, count: int) -> str:
    """Run `python WORDS` in `count` processes of one group; returns what they wrote to stderr, in order of rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count),
             "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1",
             "PYTHONPATH": str(Path(__file__).parents[1])}  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, *words], env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text[-4000:]
    return "".join(said)
