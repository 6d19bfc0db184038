"""Check that damaged files, a hostile server, bombs and odd inputs end in a one-line error, with little memory."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from degla.verbs._arguments import at_least

if TYPE_CHECKING:
    from tests.hostile.trials import Tally

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
MOST_MEMORY = 700 * 1_000_000
PARTS = {
    "servers": "Hostile server",
    "inputs": "Odd files and bombs",
    "paths": "Odd paths",
    "judge": "A text of 30 MB",
    "pictures": "Odd pictures",
    "texts": "Damaged files of texts and numbers",
    "checkpoints": "Damaged checkpoints",
    "binaries": "Damaged models, pictures and shards",
}


def fuzz(folder: Path, name: str, *, trials: int, slow: int, seed: int) -> list[str]:
    """Print the table by file kind; return the failures."""
    from tests.hostile.trials import run_trials

    if name == "texts":
        from tests.hostile.texts import text_kinds as kinds
    elif name == "checkpoints":
        from tests.hostile.binaries import checkpoint_kinds as kinds
    else:
        from tests.hostile.binaries import picture_kinds as kinds
    print(f"{'file':<40} trials refused harmless other FAILED")
    tallies: list[Tally] = []
    failed: list[str] = []
    for kind in kinds(folder):
        count = slow if kind.name.startswith(("resume", "evaluate")) else trials
        tallies.append(run_trials(kind, count=count, seed=seed))
        print(row(kind.name, tallies[-1:]), flush=True)
        failed += [f"{kind.name} {what}" for what in tallies[-1].failed]
    print(row("all", tallies))
    print("refused: a one-line error, exit status 1 or 2. harmless: the same value. other: another caption, name or")
    print("image that a person could have written; not possible for weights and run states.")
    return failed


def row(name: str, tallies: Sequence[Tally]) -> str:
    """Return a line of the table."""
    columns = ((6, "trials"), (7, "refused"), (8, "harmless"), (5, "other"))
    counts = "".join(f" {sum(getattr(one, field) for one in tallies):{width}}" for width, field in columns)
    return f"{name:<40}{counts} {sum(len(one.failed) for one in tallies):6}"


def command(*words: str) -> tuple[int, str]:
    """Return exit status and error output of a command, run in this process."""
    from degla.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    return status, said.getvalue()


def clear(name: str, status: int, said: str) -> list[str]:
    """Print an outcome, which must be a one-line error with the exit status of a failure."""
    lines = [line for line in said.splitlines() if line.startswith("degla: ")]
    good = status in (1, 2) and len(lines) == 1 and len(lines[0]) < 1500
    shown = lines[0].removeprefix("degla: ") if lines else said.strip()[-200:]
    print(f"{'ok' if good else 'FAILED':<7}{name}: {shown[:230]}", flush=True)
    return [] if good else [f"{name}: exit {status}: {said[-400:]}"]


def odd_inputs(folder: Path, part: str) -> list[str]:
    """Run the commands of the audit, each of which must give one line."""
    from tests.hostile.odd import COMMANDS

    failed = []
    for name, words in COMMANDS[part](folder):
        try:
            status, said = command(*words)
        except BaseException as error:  # a user would see a traceback
            status, said = -1, f"{type(error).__name__}: {error}"
        failed += clear(name, status, said)
    return failed


def servers() -> list[str]:
    """Try every response of the tests, from a server that sends nothing else: one caption, one retry."""
    from degla.errors import DeglaError
    from degla.negatives.llm.server import ServerModel
    from tests.hostile.servers import responses
    from tests.negatives.flaky_server import serving
    from tests.negatives.test_server import ask

    failed = []
    for name, respond in responses():
        with serving(respond) as server:
            model = ServerModel([server.url], "m", backoff=0.01, timeout=5.0, retries=1)
            try:
                model.start(ask(0))
                model.start(ask(1))
                replies = [*model.finished(), *model.finished()]
                said = f"recorded as {replies[0].outcome}: {replies[0].detail}"
                good = all(reply.outcome in ("unreachable", "answered", "rejected") for reply in replies)
            except DeglaError as error:
                said, good = f"the run ends: {error}", "\n" not in str(error)
            except Exception as error:
                said, good = f"{type(error).__name__}: {error}", False
            finally:
                model.close()
        print(f"{'ok' if good else 'FAILED':<7}{name}: {said[:200]}", flush=True)
        failed += [] if good else [f"server, {name}: {said}"]
    return failed


def peak_memory() -> int:
    """Return the peak resident memory in bytes of this process and its largest child."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) * 1024


def run_part(name: str, given: argparse.Namespace) -> int:
    """Run one part in this process; the last lines list failures, and the exit status is 1 if there are any."""
    print(f"\n## {PARTS[name]}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.environ["DEGLA_CACHE"] = f"{place}/cache"
        folder = Path(place) / "files"
        if name == "servers":
            failed = servers()
        elif name in ("inputs", "paths", "judge", "pictures"):
            failed = odd_inputs(folder, name)
        else:
            failed = fuzz(folder, name, trials=given.trials, slow=given.slow, seed=given.seed)
    memory = peak_memory()
    if memory > MOST_MEMORY:
        failed.append(f"peak memory {memory / 1e6:.0f} MB, more than {MOST_MEMORY / 1e6:.0f}")
    print(f"{time.monotonic() - began:.0f} s, peak memory {memory / 1e6:.0f} MB, {len(failed)} failed")
    for what in failed:
        print(f"  FAILED {what[:500]}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=at_least(1), default=15, help="trials per file kind (15)")
    parser.add_argument("--slow", type=at_least(0), default=8, help="trials per file of a checkpoint (8)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--part", choices=PARTS, help="only this part, in this process")
    given = parser.parse_args()
    if given.part:
        return run_part(given.part, given)
    # One process per part, so that memory is measured separately and a crash is a failure, not the end.
    own = [sys.executable, __file__, *sys.argv[1:]]
    statuses = {name: subprocess.run([*own, "--part", name], check=False).returncode for name in PARTS}
    failed = [PARTS[name] for name, status in statuses.items() if status]
    print(f"\npeak memory {peak_memory() / 1e6:.0f} MB (limit {MOST_MEMORY / 1e6:.0f})")
    print(f"failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    from degla.cli import exit_status_of

    raise SystemExit(exit_status_of(main))
