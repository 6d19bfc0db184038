"""Kill training with kill -9, at random and during checkpoint replacement; let two processes race for one folder.

After every kill the run is resumed. In the end its weights must equal those of an undisturbed run bit for bit, and
nothing may be left behind. Processes are forked from one that has loaded torch, so 70 kills take minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import load_file
from torch.utils import _pytree as pytree

from degla.cli import exit_status_of
from degla.config.run import TrainConfig
from degla.data.joining import join
from degla.data.pack import Packing, pack
from degla.data.sources import read_captions
from degla.errors import DeglaError
from degla.model.integrity import is_whole
from degla.model.load import load_encoder
from degla.model.runs import checkpoints
from degla.study.conduct import conduct
from degla.study.plan import read_plan
from degla.training.loop import train
from degla.verbs._arguments import at_least
from tests.tiny import write_model, write_pairs
from tests.training.configs import tiny_config

LEFT = re.compile(r".*\.(partial|old|deleted)|\.lock")
"""What only a killed process leaves in a run folder."""
MOST_SECONDS = 120.0
"""A process that takes longer counts as hung."""
STUDY = """
arms: [{recipe: clip}]
world: {scenes: 40, items_per_part: 6, images_per_class: 1, retrieval_images: 4, split: validation}
set: {train.steps: 2, train.batch_size: 8, data.negatives_per_caption: 0}
"""


@dataclass
class Outcome:
    """The outcome of kills and races.

    Attributes:
        kills: processes killed while working, by what they were doing.
        left: leftovers in the folder after a kill.
        finished: runs that finished despite kills and were compared with the undisturbed one.
        races: races of two processes, by what they raced for.
        losses: everything lost, wrong or left behind, in words; empty if all is well.
    """

    kills: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    races: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)


def fork(work: Callable[[], object], log: Path, *, go: int | None = None) -> int:
    """Start `work` in a separate process; its messages go to `log`, which is overwritten.

    Args:
        work: function to run; a `DeglaError` ends the process with that error's exit status.
        log: file for its messages.
        go: a pipe whose end it waits for before it starts.
    """
    log.write_bytes(b"")
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        stream = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        if go is not None:
            os.read(go, 1)
        work()
        status = 0
    except DeglaError as error:
        os.write(2, f"error: {error}\n".encode())
        status = error.exit_status
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def load_what_it_loaded(log: str, model: Path) -> None:
    """Import here what training imports, so that later processes do not spend most of their time on it."""
    for name in log.partition("modules ")[2].split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    load_encoder(str(model))


def ended(process: int, *, seconds: float = MOST_SECONDS) -> int | None:
    """Return the exit status (below 0: a signal), or None if the process is still running after `seconds`."""
    last = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > last:
            return None
        time.sleep(0.0005)


def end(process: int) -> int:
    """Kill the process; return its exit status, -9 unless it had ended before."""
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def leftovers(run: Path) -> dict[str, int]:
    """Return names and inodes of everything being written, replaced or removed."""
    try:
        return {entry.name: entry.inode() for entry in os.scandir(run) if LEFT.fullmatch(entry.name)}
    except FileNotFoundError:
        return {}


def wait_for_replacement(process: int, run: Path, *, complete: bool, seconds: float) -> bool:
    """Wait until a checkpoint is being written, replaced or removed; return False if the process ended before.

    Args:
        process: the writing process.
        run: folder of the run.
        complete: wait for the checkpoint's last file, just before it is renamed.
        seconds: longest time to wait.
    """
    before = leftovers(run)
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        for name, inode in leftovers(run).items():
            if not name.startswith("step-") or before.get(name) == inode:
                continue
            if not complete or not name.endswith(".partial") or (run / name / "state.json").exists():
                return True
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
    return True


def newest(run: Path) -> int:
    """Return the step of the newest complete checkpoint, renamed or not; 0 if there is none."""
    steps = [0]
    for path in run.glob("step-*"):
        match = re.fullmatch(r"step-(\d+)(\.partial|\.old)?", path.name)
        if match and is_whole(path):
            steps.append(int(match.group(1)))
    return max(steps)


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of the tensors that differ between two checkpoints."""
    found = []
    for name in ("open_clip_model.safetensors", "teacher.safetensors"):
        left, right = load_file(one / name), load_file(other / name)
        found += [f"{name}: {key}" for key in left if not torch.equal(left[key], right[key])]
    states = [pytree.tree_flatten(torch.load(path / "optimizer.pt", weights_only=True)) for path in (one, other)]
    if states[0][1] != states[1][1]:
        return [*found, "optimizer.pt: its form"]
    for number, (left, right) in enumerate(zip(states[0][0], states[1][0], strict=True)):
        equal = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
        found += [] if equal else [f"optimizer.pt: value {number}"]
    return found


def look(run: Path, calm: Path, outcome: Outcome, what: str) -> None:
    """Compare a finished run with the undisturbed one, and check its folder for leftovers."""
    outcome.finished += 1
    last = checkpoints(run)[-1]
    if last.name != checkpoints(calm)[-1].name or not is_whole(last):
        outcome.losses.append(f"{what}: ends at {last.name}, or that is damaged")
        return
    outcome.losses += [f"{what}: {name} differs" for name in differences(checkpoints(calm)[-1], last)]
    whole = {path.name for path in checkpoints(run)}
    strange = [path.name for path in run.iterdir() if LEFT.fullmatch(path.name)]
    strange += [path.name for path in run.glob("step-*") if path.name not in whole]
    outcome.losses += [f"{what}: {name} was left behind" for name in dict.fromkeys(strange)]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    if steps != [json.loads(line)["step"] for line in (calm / "metrics.jsonl").read_text().splitlines()]:
        outcome.losses.append(f"{what}: metrics.jsonl has other steps")


def kill_trainings(config: TrainConfig, calm: Path, folder: Path, outcome: Outcome, *, kills: int, rng: Random) -> None:
    """Repeatedly kill runs and resume them until they finish; then also kill resumes of finished runs."""
    number = 0
    log = folder / "log"
    while sum(outcome.kills.values()) < kills:
        run = folder / f"run-{number}"
        number += 1
        this = replace(config, out=run)
        resumed = False
        while True:
            done = bool(checkpoints(run)) and checkpoints(run)[-1].name == checkpoints(calm)[-1].name
            share = sum(outcome.kills.values()) / kills
            if done and (share >= 1 or rng.random() < 0.3):
                break
            before = newest(run)
            resume = bool(before)
            if share >= 1:  # Enough kills: let this one finish.
                status = ended(fork(lambda this=this, resume=resume: train(this, resume=resume), log))
                if status != 0:
                    outcome.losses.append(f"{run.name}: ended with {status}: {log.read_text()[-300:]}")
                    break
                continue
            process = fork(lambda this=this, resume=resume: train(this, resume=resume), log)
            what = "a resume of a finished run" if done else "at random"
            if not done and outcome.kills["while a checkpoint is replaced"] <= outcome.kills["at random"]:
                what = "while a checkpoint is replaced"
                wait_for_replacement(process, run, complete=rng.random() < 0.7, seconds=30)
                time.sleep(rng.choice((0.0, rng.uniform(0, 0.002), rng.uniform(0, 0.02), rng.uniform(0, 0.1))))
            else:
                time.sleep(rng.uniform(0.0, 2.5) if not done else rng.uniform(0.2, 1.5))
            status = end(process)
            if status == -signal.SIGKILL:
                outcome.kills[what] += 1
                for name in leftovers(run):
                    state = " (complete)" if is_whole(run / name) else ""
                    outcome.left[re.sub(r"^step-\d+", "step-N", name) + state] += 1
            elif status != 0:
                outcome.losses.append(f"{run.name}: ended with {status}: {log.read_text()[-300:]}")
                break
            if (after := newest(run)) < before:
                outcome.losses.append(f"{run.name}: step {before} was there, step {after} is the newest ({what})")
            resumed = True
            print(f"{dict(outcome.kills)}, {outcome.losses}", file=sys.stderr)
        # Whatever was killed last, one more resume must repair everything.
        status = ended(fork(lambda this=this: train(this, resume=True), log))
        if status != 0 or not resumed:
            outcome.losses.append(f"{run.name}: the last resume ended with {status}: {log.read_text()[-300:]}")
        else:
            look(run, calm, outcome, run.name)
        shutil.rmtree(run)


def race(what: str, work: Callable[[], object], folder: Path, outcome: Outcome) -> None:
    """Let two processes do the same at once: one must succeed, the other must report who has locked the folder."""
    outcome.races[what] += 1
    go, start = os.pipe()
    logs = [folder / "one.log", folder / "other.log"]
    processes = [fork(work, log, go=go) for log in logs]
    os.write(start, b"..")
    statuses = [ended(process) for process in processes]
    os.close(go)
    os.close(start)
    for process, status in zip(processes, statuses, strict=True):
        if status is None:
            end(process)
    told = [log.read_text() for log in logs]
    if sorted(statuses, key=str) != [0, 2]:
        outcome.losses.append(f"race for a {what}: exit statuses {statuses}: {told[0][-300:]} {told[1][-300:]}")
        return
    winner, loser = processes[statuses.index(0)], told[statuses.index(2)]
    if f"in use by process {winner} on " not in loser or " since " not in loser:
        outcome.losses.append(f"race for a {what}: the second said: {loser[-300:]}")


def race_all(
    config: TrainConfig, pairs: dict[str, Path], calm: Path, folder: Path, outcome: Outcome, *, races: int
) -> None:
    """Race for a run (two fifths), a pack (two fifths) and a study (one fifth, the slowest)."""
    plan = folder / "plan.yaml"
    plan.write_text(STUDY)
    kinds = [("run", "pack", "run", "pack", "study")[number % 5] for number in range(races)]
    for number, kind in enumerate(kinds):
        out = folder / f"{kind}-{number}"
        if kind == "run":
            race(kind, lambda out=out: train(replace(config, out=out)), folder, outcome)
            look(out, calm, outcome, f"race for {out.name}")
        elif kind == "pack":
            rows = join(read_captions(pairs["captions"]), None)
            race(kind, lambda out=out, rows=rows: pack(rows, folder=pairs["images"], out=out, packing=Packing()),
                 folder, outcome)  # fmt: skip
            if LEFT.match(" ".join(path.name for path in out.iterdir())) or not (out / "pack.json").is_file():
                outcome.losses.append(f"race for {out.name}: the pack is not complete")
        else:
            race(kind, lambda out=out: conduct(read_plan(plan), out=out, where="plan", processes=1), folder, outcome)
            if not (out / "study.json").is_file() or (out / ".lock").exists():
                outcome.losses.append(f"race for {out.name}: the study is not complete")
        shutil.rmtree(out, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=at_least(0), default=70, help="half of them while a checkpoint is replaced")
    parser.add_argument("--races", type=at_least(0), default=20)
    parser.add_argument("--steps", type=at_least(1), default=16, help="steps per run, with a checkpoint per step")
    parser.add_argument("--seed", type=at_least(0), default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = write_model(folder / "model")
        pairs = write_pairs(folder / "pairs")
        config = tiny_config("degla", model=model, pairs=pairs, out=folder / "calm", steps=given.steps)
        config = replace(config, checkpoint=replace(config.checkpoint, every_steps=1, keep=2))
        calm = fork(lambda: (train(config), print("modules", *sys.modules)), folder / "log")
        assert ended(calm) == 0, (folder / "log").read_text()
        load_what_it_loaded((folder / "log").read_text(), model)
        kill_trainings(config, folder / "calm", folder, outcome, kills=given.kills, rng=Random(given.seed))
        many = write_pairs(folder / "many", images=300)
        race_all(config, many, folder / "calm", folder, outcome, races=given.races)
    print(json.dumps({
        "kill -9": sum(outcome.kills.values()), "of them": dict(outcome.kills), "left by them": dict(outcome.left),
        "finished and compared": outcome.finished, "races": dict(outcome.races), "losses": outcome.losses,
        "seconds": round(time.monotonic() - started),
    }, indent=2))  # fmt: skip
    return 1 if outcome.losses else 0


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
