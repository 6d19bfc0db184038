"""Train with data, negatives and checkpoints on an S3 server, with a fifth of all connections cut.

The server is moto's (`pip install 'moto[server]'`), which keeps everything in memory; a proxy in front of it cuts
connections in the middle of responses. The run is killed with kill -9 once a checkpoint has been copied, its disk is
emptied, and it resumes from the server. In the end its weights must equal those of a run on local files bit for bit,
and every file of the last checkpoint on the server must be complete.

With `--machines 2`, two groups of processes on the loopback interface, which share no folder, form one run under
torchrun; the local run then has as many processes on one disk.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import fsspec
import torch
from safetensors.torch import load

from tests.data.test_shards import write_shards
from tests.tiny import write_model, write_pairs

WEIGHTS = "open_clip_model.safetensors"


class CuttingProxy:
    """Forward connections to a server and cut a share of them after a random number of response bytes."""

    def __init__(self, port: int, share: float) -> None:
        self.target, self.share, self.chance = port, share, random.Random(0)
        self.connections = self.cut = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self.listening.accept()
            self.connections += 1
            left = int(10 ** self.chance.uniform(1, 3)) if self.chance.random() < self.share else None
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._hand_on, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._hand_on, args=(server, client, left), daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if left is not None and len(data) >= left:
                    target.sendall(data[:left])
                    self.cut += 1
                    break
                left = None if left is None else left - len(data)
                target.sendall(data)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def command(model: Path, data: str, negatives: str, out: str, given: argparse.Namespace) -> list[str]:
    return [
        "degla", "train", "negclip", "--model", str(model), "--data.captions", data,
        "--data.negatives", negatives, "--data.negatives-per-caption", "2", "--data.workers", "1", "--out", out,
        "--train.batch-size", "4", "--train.steps", str(given.steps), "--train.precision", "fp32", "--train.seed", "3",
        "--optim.lr", "1e-3", "--checkpoint.every-steps", "2", "--checkpoint.every-minutes", "0",
        "--tracking.no-progress",
    ]  # fmt: skip


def below(parent: int) -> list[int]:
    """Return the ids of the processes that a process has started, and of their children."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *below(child)]
    return found


class Run:
    """A training run on one or several machines, each with its own disk."""

    def __init__(self, words: list[str], *, caches: list[Path], processes: int = 1, **more: str) -> None:
        port, self.started = free_port(), []
        for rank, cache in enumerate(caches):
            start = [sys.executable, "-m"]
            if len(caches) * processes > 1:
                start += ["torch.distributed.run", "--nnodes", str(len(caches)), "--node-rank", str(rank),
                          "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1", "--master-port", str(port),
                          "-m"]  # fmt: skip
            environment = {**os.environ, "DEGLA_CACHE": str(cache), **more}
            self.started.append(subprocess.Popen([*start, *words], env=environment))

    def ends(self) -> bool:
        return any(process.poll() is not None for process in self.started)

    def finish(self) -> None:
        ended = [process.wait() for process in self.started]
        assert not any(ended), ended

    def kill(self) -> None:
        # torchrun's processes are in separate sessions.
        for number in [each for process in self.started for each in (process.pid, *below(process.pid))]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in self.started:
            process.wait()
        time.sleep(1)  # Until nothing writes to their disks.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.2, help="share of connections that are cut (0.2)")
    parser.add_argument("--machines", type=int, default=1)
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        with tempfile.TemporaryDirectory() as name:
            work(Path(name), given, port, server)
    finally:
        server.terminate()


def work(folder: Path, given: argparse.Namespace, port: int, server: subprocess.Popen[bytes]) -> None:
    direct = fsspec.filesystem("s3", endpoint_url=f"http://127.0.0.1:{port}", use_listings_cache=False)
    for _ in range(600):
        if server.poll() is not None:
            sys.exit("the server exited immediately; install it: pip install 'moto[server]'")
        try:
            direct.mkdir("bucket")
            break
        except Exception:
            time.sleep(0.2)
    model, pairs = write_model(folder / "model"), write_pairs(folder / "pairs")
    shards = write_shards(pairs, folder / "shards")
    for tar in shards.glob("*.tar"):
        direct.put_file(str(tar), f"bucket/data/shards/{tar.name}")
    direct.put_file(str(pairs["negatives"]), "bucket/data/negatives.jsonl")

    local = command(model, str(shards), str(pairs["negatives"]), str(folder / "local"), given)
    Run(local, caches=[folder / "cache-local"], processes=given.machines).finish()
    proxy = CuttingProxy(port, given.share)
    url = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
    words = command(model, "s3://bucket/data/shards", "s3://bucket/data/negatives.jsonl", "s3://bucket/run", given)
    names = [f"machine-{number}" for number in range(given.machines)]
    first = Run(words, caches=[folder / "first" / name for name in names], **url)
    while not direct.exists("bucket/run/step-4/state.json"):
        assert not first.ends(), "it ended before it was killed"
        time.sleep(0.05)
    first.kill()
    shutil.rmtree(folder / "first")
    there = sorted(path.rpartition("/")[2] for path in direct.ls("bucket/run"))
    print(f"killed; on the server: {', '.join(there)}")
    again = ["degla", "train", "--resume", "s3://bucket/run"]
    Run(again, caches=[folder / "second" / name for name in names], **url).finish()
    last = f"step-{given.steps}"
    one = load((folder / "local" / last / WEIGHTS).read_bytes())
    other = load(direct.cat(f"bucket/run/{last}/{WEIGHTS}"))
    same = one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())
    (run_folder,) = (folder / "second" / "machine-0" / "runs").glob("run-*/")
    files = (run_folder / last).iterdir()
    whole = all(direct.cat(f"bucket/run/{last}/{file.name}") == file.read_bytes() for file in files)
    print(f"{given.steps} steps; {proxy.connections} connections, {proxy.cut} of them cut")
    print(f"weights compared with the local run: {'equal' if same else 'DIFFER'}")
    print(f"files of the last checkpoint on the server: {'complete' if whole else 'DAMAGED'}")
    sys.exit(0 if same and whole else 1)


if __name__ == "__main__":
    main()
