"""`degla negatives` killed with -9 while a faulty server answers: nothing is lost or requested twice.

`python bench/kill_negatives.py` does the same with fifty kills.
"""

from __future__ import annotations

from pathlib import Path

from bench.kill_negatives import digest, survive
from degla.negatives.llm import RequestKey
from degla.negatives.llm.asker import key_digest
from tests import launch


class Forked:
    """The parts of `Popen` that `survive` uses, without seconds of imports."""

    def __init__(self, words: list[str]) -> None:
        self.program = launch.start(words)

    @property
    def returncode(self) -> int | None:
        return self.program.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.program.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        self.program.process.join(timeout)
        return b"", self.program.stderr.encode()


def test_killed_runs(tmp_path: Path) -> None:
    outcome = survive(tmp_path, kills=3, captions=24, faults=0.2, seed=4, start=Forked)
    assert outcome.kills == 3
    assert outcome.equal and outcome.rows >= 3 * 24
    assert outcome.asked_again == 0
    # The run was disturbed indeed, and the log sees what is asked again.
    assert outcome.requests > outcome.keys and outcome.repaid > 0
    assert sum(count for kind, count in outcome.counts.items() if kind.startswith("retry: ")) > 3
    assert outcome.counts["answered"] > 20


def test_log_names_keys_as_the_client_does() -> None:
    assert digest("c1", "swap_nouns", 2) == key_digest(RequestKey("c1", "swap_nouns", 2))
