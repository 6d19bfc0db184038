"""Kill `degla negatives` at random moments while a faulty server answers, and compare with an undisturbed run."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.local_server import local_server
from degla.cli import exit_status_of
from degla.files import write_text
from degla.verbs._arguments import at_least

SERVER = Path(__file__).parents[1] / "tests" / "negatives" / "flaky_server.py"
RULES = ("reshuffle_order", "swap_nouns", "replace_adjectives")
MOST_SECONDS = 120.0
"""A run that takes longer counts as hung."""


@dataclass
class Outcome:
    """The outcome of a series of kills.

    Attributes:
        kills: processes killed while working.
        before_reply: those killed before the first reply.
        equal: whether the file equals that of the undisturbed run, byte by byte.
        rows: lines of the file.
        requests: requests that reached the server, including retries.
        keys: distinct request keys.
        asked_again: requests for keys whose reply was already in the journal.
        repaid: keys in flight when a process died, which had to be requested again.
        counts: totals over the journal's replies.
    """

    kills: int = 0
    before_reply: int = 0
    equal: bool = False
    rows: int = 0
    requests: int = 0
    keys: int = 0
    asked_again: int = 0
    repaid: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def write_captions(path: Path, number: int) -> None:
    """Write distinct captions to which every rule applies."""
    sizes, colours = ("small", "large", "old", "tall"), ("red", "white", "black", "green", "brown")
    animals, things = ("dog", "cat", "horse", "bird", "sheep"), ("bench", "table", "car", "tree", "wall", "boat")
    drawn = list(product(sizes, colours, animals, things))
    Random(0).shuffle(drawn)
    lines = [
        {"id": f"c{index}", "image": f"{index}.jpg", "text": f"A {size} {animal} stands next to a {colour} {thing}."}
        for index, (size, colour, animal, thing) in enumerate(drawn[:number])
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def serve(log: Path, *, faults: float, seed: int) -> contextlib.AbstractContextManager[tuple[str, int]]:
    """Start the faulty server."""
    words = (str(SERVER), "--faults", str(faults), "--seed", str(seed), "--log", str(log), "--hold", str(_hold(log)))
    return local_server(*words, "--delay", "0.02", "--hang", "1.5")


def _hold(log: Path) -> Path:
    """File that limits how many requests are answered while it exists."""
    return log.with_suffix(".hold")


def command(captions: Path, out: Path, url: str) -> list[str]:
    """Return the command as a user gives it, after `python`."""
    words = ["-m", "degla", "negatives", str(captions), "--out", str(out), "--rules", *RULES, "--llm", "openai"]
    return [*words, "--base-url", url, "--model", "m", "--timeout", "0.7", "--retries", "100", "--seed", "5",
            "--concurrency", "16"]  # fmt: skip


def start(given: list[str]) -> subprocess.Popen[bytes]:
    """Start `python` with these arguments."""
    return subprocess.Popen([sys.executable, *given], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a successful end."""
    _, errors = process.communicate(timeout=MOST_SECONDS)
    assert process.returncode == 0, errors.decode()


def digest(caption_id: str, rule: str, draw: int) -> str:
    """Return the name of a key in the server's log, as documented for the header."""
    return hashlib.sha256(f"{caption_id}\n{rule}\n{draw}".encode()).hexdigest()[:32]


def read_journal(out: Path) -> list[dict[str, object]]:
    """Return the complete lines of the journal, without those to request again."""
    journal = Path(f"{out}.replies.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [row for row in rows if row["outcome"] != "unreachable"]


def finished_keys(out: Path) -> set[str]:
    """Return the names of the keys whose reply is in the journal."""
    return {digest(str(row["caption_id"]), str(row["rule"]), int(str(row["draw"]))) for row in read_journal(out)}


def read_log(log: Path) -> list[str]:
    """Return the names of the requested keys, in order."""
    return [line.partition("-")[0] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def survive(
    folder: Path, *, kills: int, captions: int, faults: float, seed: int, start: Callable[[list[str]], Any] = start
) -> Outcome:
    """Make negatives undisturbed, then with kills, and compare; `start` starts each run."""
    rng = Random(seed)
    write_captions(folder / "captions.jsonl", captions)
    with serve(folder / "calm.log", faults=0.0, seed=0) as (url, _):
        finish(start(command(folder / "captions.jsonl", folder / "calm.jsonl", url)))
    share = max(1, len(read_log(folder / "calm.log")) // (kills + 1))
    outcome, log, out = Outcome(), folder / "flaky.log", folder / "killed.jsonl"
    with serve(log, faults=faults, seed=seed) as (url, _):
        while True:
            before, finished = len(read_log(log)), finished_keys(out)
            process = start(command(folder / "captions.jsonl", out, url))
            if outcome.kills < kills and _kill_later(process, rng, log=log, asked=before, most=share):
                outcome.kills += 1
                outcome.before_reply += finished_keys(out) == finished
                time.sleep(0.05)  # the last requests of the killed process may not be in the log yet
            else:
                finish(process)
            outcome.asked_again += sum(key in finished for key in read_log(log)[before:])
            outcome.repaid += len(set(read_log(log)[before:]) - finished_keys(out))
            if process.returncode == 0:
                break
    outcome.equal = out.read_bytes() == (folder / "calm.jsonl").read_bytes()
    outcome.rows = len(out.read_bytes().splitlines())
    outcome.requests, outcome.keys = len(read_log(log)), len(set(read_log(log)))
    for row in read_journal(out):
        outcome.counts[str(row["outcome"])] += 1
        counts = row.get("counts", {})
        assert isinstance(counts, dict)
        outcome.counts.update(counts)
    return outcome


def _kill_later(process: subprocess.Popen[bytes], rng: Random, *, log: Path, asked: int, most: int) -> bool:
    """Kill the process at a random moment, at its start or after some requests; return False if it ended before."""
    if rng.random() < 0.15:
        time.sleep(rng.uniform(0.0, 2.0))
    else:
        target = asked + rng.randint(1, most)
        # The last one gets no answer, so the process is still working however late the kill comes.
        write_text(_hold(log), str(target - 1))
        while process.poll() is None and len(read_log(log)) < target:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.1))
    at_work = process.poll() is None
    if at_work:
        process.kill()
        process.communicate()
    _hold(log).unlink(missing_ok=True)
    return at_work


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=at_least(0), default=50)
    parser.add_argument("--captions", type=at_least(1), default=200)
    parser.add_argument("--faults", type=float, default=0.25, help="share of requests that fail")
    parser.add_argument("--seed", type=at_least(0), default=0)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = survive(
            Path(folder), kills=given.kills, captions=given.captions, faults=given.faults, seed=given.seed
        )
    print(f"kill -9:                        {outcome.kills}, {outcome.before_reply} of them before the first reply")
    print(f"file equal to undisturbed run:  {'yes' if outcome.equal else 'NO'} ({outcome.rows} rows)")
    print(f"requests for finished keys:     {outcome.asked_again}")
    print(f"keys in flight when killed:     {outcome.repaid}")
    print(f"requests, keys:                 {outcome.requests}, {outcome.keys}")
    print(f"replies in the journal:         {dict(sorted(outcome.counts.items()))}")
    print(f"seconds:                        {time.monotonic() - started:.0f}")
    return 0 if outcome.equal and not outcome.asked_again else 1


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
