"""Which bugs would the tests miss? Plant the bugs of tools/mutants/*.toml one at a time and run their tests.

    python tools/mutate.py [--only WORDS] [--jobs 2] [--room losses] [--check]

The working tree is never touched: each job has a copy of it, and a process forked from one that has imported PyTorch,
so most bugs take a few seconds. A bug whose tests pass survives. First all named tests run without a bug, because a
test that always fails would catch everything. Exit status: 1 if a bug survives that is not marked as known, or more
than five survive; 2 if a bug no longer fits the source, or its tests fail without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "tools" / "mutants"
MOST_KNOWN = 5
LIMIT_SECONDS = 300  # of a bug's tests; without a bug one job runs half of all tests
LIMIT_WITHOUT_BUG = 4 * LIMIT_SECONDS
COPIED = ("src", "tests", "bench", "docs", "tools", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
HEAVY = (
    "torch", "open_clip", "accelerate", "scipy.special", "scipy.stats", "safetensors.torch", "pydantic", "spacy",
    "matplotlib", "hypothesis", "pyarrow.parquet", "torch.distributed.fsdp", "pytest", "openai", "jinja2",
)  # fmt: skip
PASSED, FAILED, INTERRUPTED, TIMED_OUT = 0, 1, 2, -signal.SIGALRM


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        room: name of its list.
        name: what is wrong.
        file: path under src/degla.
        old: text that occurs once in the file.
        new: text that replaces it.
        tests: files or single tests under tests/.
        harm: what the user would suffer.
        audit: whether an audit found that the tests missed it.
        known: why it survives; "" if it must not.
    """

    room: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    harm: str
    audit: bool = False
    known: str = ""

    def planted(self, root: Path = ROOT) -> str:
        """Return the file's text with the bug.

        Raises:
            ValueError: the old text does not occur exactly once, or the result is not Python.
        """
        path = root / "src" / "degla" / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.room}: {self.name}: the old text occurs {count} times in {self.file}, not once")
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"{self.room}: {self.name}: {error}") from None
        return changed


def read_mutants(folder: Path = LISTS) -> list[Mutant]:
    """Read all bugs, room by room."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            found.append(Mutant(path.stem, **{**row, "tests": tuple(row["tests"])}))
    return found


class Place:
    """A copy of the tree in which one bug at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / ROOT.name
        for name in COPIED:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            if source.is_dir():
                shutil.copytree(source, self.root / name, ignore=ignored)
            elif source.is_file():
                shutil.copy(source, self.root / name)
        shared = ROOT.parent / "shared"
        if shared.exists():
            (folder / "shared").symlink_to(shared.resolve())

    def start(self, tests: Sequence[str], mutant: Mutant | None, log: Path) -> int:
        """Fork a run of the tests; return its process id."""
        kept = None
        if mutant is not None:
            path = self.root / "src" / "degla" / mutant.file
            kept = path.read_text(encoding="utf-8")
            path.write_text(mutant.planted(self.root), encoding="utf-8")
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        self._kept = (mutant, kept)
        child = os.fork()
        if child == 0:
            self._run(tests, log, LIMIT_WITHOUT_BUG if mutant is None else LIMIT_SECONDS)
        return child

    def restore(self) -> None:
        """Remove the bug."""
        mutant, kept = self._kept
        if mutant is not None and kept is not None:
            path = self.root / "src" / "degla" / mutant.file
            path.write_text(kept, encoding="utf-8")
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def _run(self, tests: Sequence[str], log: Path, limit: int) -> None:
        status = INTERRUPTED
        try:
            os.setpgid(0, 0)
            signal.alarm(limit)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(self.root)
            source = str(self.root / "src")
            sys.path[:] = [source, str(self.root), *(entry for entry in sys.path if entry != str(ROOT / "src"))]
            os.environ["PYTHONPATH"] = source
            # Modules of the same name must not share a folder of compiled files; a bug's own is removed above.
            sys.dont_write_bytecode = False
            import pytest

            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]))
        finally:
            sys.stdout.flush()
            os._exit(status)


def run_all(
    jobs: Iterable[tuple[Mutant | None, Sequence[str]]], places: Sequence[Place], logs: Path
) -> Iterator[tuple[Mutant | None, int, float, Path]]:
    """Run each job in a free place; yield bug, exit status (below 0: the signal), seconds and log as they end."""
    waiting, free, running = iter(jobs), list(places), dict[int, tuple[Place, Mutant | None, float, Path]]()
    number = 0
    while True:
        while free and (job := next(waiting, None)) is not None:
            place, number = free.pop(), number + 1
            log = logs / f"{number}.log"
            running[place.start(job[1], job[0], log)] = (place, job[0], time.monotonic(), log)
        if not running:
            return
        child, code = os.wait()
        place, mutant, started, log = running.pop(child)
        with_children_gone(child)
        place.restore()
        free.append(place)
        yield mutant, os.waitstatus_to_exitcode(code), time.monotonic() - started, log


def with_children_gone(group: int) -> None:
    """Kill what a stopped test left running."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only bugs whose name or file contains this text")
    rooms = sorted({mutant.room for mutant in read_mutants()})
    parser.add_argument("--room", default="", choices=["", *rooms], metavar="ROOM", help="only this list")
    parser.add_argument("--jobs", type=int, default=2, help="parallel jobs")
    parser.add_argument("--check", action="store_true", help="only check that every bug still fits the source")
    parser.add_argument("--no-baseline", action="store_true", help="skip the run of all tests without a bug")
    given = parser.parse_args()
    chosen = [
        mutant
        for mutant in read_mutants()
        if given.only.lower() in f"{mutant.name} {mutant.file}".lower() and given.room in ("", mutant.room)
    ]
    unfit = []
    for mutant in chosen:
        try:
            mutant.planted()
        except ValueError as error:
            unfit.append(str(error))
    if unfit or given.check:
        print("\n".join(unfit) or f"{len(chosen)} bugs fit the source")
        return 2 if unfit else 0
    sys.path[:] = [entry for entry in sys.path if entry not in (str(ROOT / "src"), str(ROOT / "tools"))]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in HEAVY:
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    assert not any(name.partition(".")[0] == "degla" for name in sys.modules), "every process must import degla itself"
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        places = [Place(Path(folder) / f"{job}") for job in range(max(1, given.jobs))]
        logs = Path(folder) / "logs"
        logs.mkdir()
        if not given.no_baseline and (broken := baseline(chosen, places, logs)):
            print("\n".join(broken))
            return 2
        return judge(chosen, places, logs)


def baseline(chosen: Sequence[Mutant], places: Sequence[Place], logs: Path) -> list[str]:
    """Return the tests that fail without a bug, with the end of their output."""
    tests = sorted({name for mutant in chosen for name in mutant.tests})
    # A file includes its own tests, but not necessarily one with a given parameter.
    whole = [
        name for name in tests if "[" in name or name.partition("::")[0] == name or name.partition("::")[0] not in tests
    ]
    shares = [whole[job :: len(places)] for job in range(len(places))]
    jobs = [(None, share) for share in shares if share]
    found = []
    for _, code, seconds, log in run_all(jobs, places, logs):
        print(f"without a bug: {seconds:.0f} s", flush=True)
        if code != PASSED:
            found.append(f"without a bug, the tests ended with {code}:\n{log.read_text(errors='replace')[-3000:]}")
    return found


def judge(chosen: Sequence[Mutant], places: Sequence[Place], logs: Path) -> int:
    """Run every bug; print each and the summary."""
    survivors: list[Mutant] = []
    wrong: list[str] = []
    started = time.monotonic()
    for mutant, code, seconds, log in run_all(((mutant, mutant.tests) for mutant in chosen), places, logs):
        assert mutant is not None
        caught = code in (FAILED, INTERRUPTED, TIMED_OUT) or code < 0
        state = "caught" if caught else "SURVIVES" if code == PASSED else f"status {code}"
        print(f"{state:9} {seconds:5.1f} s  {mutant.room}: {mutant.name}", flush=True)
        if code == PASSED:
            survivors.append(mutant)
        elif not caught:
            wrong.append(f"{mutant.name}:\n{log.read_text(errors='replace')[-1500:]}")
    audit = [mutant for mutant in chosen if mutant.audit]
    print(f"\n{len(chosen)} bugs, {len(survivors)} survive, {time.monotonic() - started:.0f} s")
    print(f"of {len(audit)} that survived in the audit, {sum(one in survivors for one in audit)} survive")
    for mutant in survivors:
        print(f"  {mutant.room}: {mutant.name} ({mutant.file})\n    {mutant.known or 'NOT EXPECTED'}: {mutant.harm}")
    print("\n".join(wrong), end="")
    if wrong:
        return 2
    return int(any(not mutant.known for mutant in survivors) or len(survivors) > MOST_KNOWN)


if __name__ == "__main__":
    raise SystemExit(main())
