"""New processes without seconds of imports: each is forked from one that has already imported PyTorch and degla.

That one has no thread and no process group, and a fork of it shares nothing with the tests: files, environment and
everything that a program changes while it runs are its own. What only a new interpreter shows (imports, the hash seed,
torchrun itself) is tested by `subprocess` where it matters, once.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

_ROOT = Path(__file__).parents[1]
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preload"])


@dataclass(frozen=True)
class Program:
    """A running `python WORDS`."""

    process: BaseProcess
    folder: Path
    kept: object = None
    """What it needs as long as it runs."""

    def wait(self, seconds: float = 300) -> int:
        """Its exit status, below 0 for a signal; it is killed where it takes longer."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()


def start(
    words: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    kept: object = None,
    parent: bool = False,
) -> Program:
    """Start `python WORDS`: `-m MODULE ...`, `-c CODE ...` or `FILE ...`; `kept` lives as long as what is returned.

    Only a `parent` may start processes of its own; any other is killed where the tests end before it.
    """
    folder = Path(tempfile.mkdtemp(prefix="program-", dir=os.environ["DEGLA_CACHE"]))
    for name in ("stdout", "stderr"):
        (folder / name).touch()
    whole = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    process = FORKS.Process(target=_run, args=(list(words), whole, str(folder)), daemon=not parent)
    process.start()
    return Program(process, folder, kept)


def run(words: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Program:
    """As `start`, to the end."""
    program = start(words, environment=environment)
    program.wait()
    return program


def start_together(
    words: Sequence[str], *, count: int, environment: Mapping[str, str] | None = None, parent: bool = False
) -> list[Program]:
    """Start `python WORDS` in `count` processes of one group, as torchrun does.

    They meet at a store that this process keeps: a port that is only chosen here may be another's when it is opened.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
             "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), **(environment or {})}  # fmt: skip
    return [
        start(words, environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)}, kept=store, parent=parent)
        for rank in range(count)
    ]


def run_together(words: Sequence[str], *, count: int) -> str:
    """As `start_together`, all to a good end; returns what they wrote to stderr, in order of rank."""
    programs = start_together(words, count=count) if count > 1 else [start(words)]
    for program in programs:
        assert program.wait() == 0, program.stderr[-4000:]
    return "".join(program.stderr for program in programs)


def _run(words: list[str], environment: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, str(_ROOT))
    if environment.get("DEGLA_PARTS"):  # Fields were listed before these parts were known.
        from degla.config import fields

        for each in vars(fields).values():
            getattr(each, "cache_clear", int)()
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(folder) / name, os.O_WRONLY)
        os.dup2(file, number)
    kind, *rest = words
    if kind == "-m":
        sys.argv = list(rest)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<given>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(words)
        runpy.run_path(kind, run_name="__main__")
