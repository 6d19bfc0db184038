"""The folder of a run: its checkpoints, which of them stands for it, and what a killed process left of them."""

from __future__ import annotations

import logging
import re
import time
from fnmatch import fnmatch
from pathlib import Path

from degla.errors import InputError
from degla.files import DELETED, OLD, PARTIAL, recover_folder, remove_folder, write_json
from degla.locks import locked_if_free
from degla.model.integrity import FOR_TRAINING, STATE_NAME, STEP, is_whole, named_by_step, read_state
from degla.model.tokenizer import CONFIG_NAME
from degla.parse import read_json_object

log = logging.getLogger("degla.train")

WEIGHTS_NAME = "open_clip_model.safetensors"
CARD_NAME = "README.md"
BEST_NAME = "best"
"""Link in a run's folder to its best checkpoint."""
_LEFT = re.compile(rf"({STEP.pattern})({re.escape(PARTIAL)}|{re.escape(OLD)}|{re.escape(DELETED)})?")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model", "*.gz")


def checkpoints(run: Path) -> list[Path]:
    """The run's complete checkpoints, oldest first."""
    return [path for _, path in named_by_step(run) if _is_complete(path)]


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    complete = checkpoints(run)
    return complete[-1] if complete else None


def chosen_checkpoint(run: Path) -> Path | None:
    """The checkpoint that a run's name stands for, or None where it has no complete one.

    It is the newest, or the best where the newest met a limit of `--stop`: that one is over the budget, or no better
    than an earlier one.
    """
    newest = latest_checkpoint(run)
    if newest is None:
        return None
    try:
        state = read_state(newest)
    except InputError:
        return newest  # Damaged; whoever loads it says so.
    ended, best = state.ended, state.best
    if not ended or best == newest.name:
        return newest
    if best is not None and run / best in checkpoints(run):
        log.info("%s: ended early, as %s; its best checkpoint is taken: %s", run, ended, best)
        return run / best
    log.warning("%s: ended early, as %s, with no checkpoint within the limits; %s is taken", run, ended, newest.name)
    return newest


def step_of(checkpoint: Path) -> int:
    """Number of the step after which a checkpoint of a run was written."""
    return int(checkpoint.name.removeprefix("step-"))


def point_to_best(run: Path, best: str | None) -> None:
    """Let ``RUN/best`` be the best checkpoint, whose name ``best.json`` holds; None takes the link away."""
    write_json(run / "best.json", {"checkpoint": best})
    link, partial = run / BEST_NAME, run / f"{BEST_NAME}.partial"
    try:
        if link.is_dir() and not link.is_symlink():
            aside = link.rename(run / f"{BEST_NAME}.copy")
            log.warning("%s: was a folder where a link belongs, as cp -L leaves it; that folder is now %s", link, aside)
        partial.unlink(missing_ok=True)
        if best is None:
            link.unlink(missing_ok=True)
        else:
            partial.symlink_to(best)
            partial.replace(link)
    except OSError as error:
        log.warning("%s: cannot be linked to the best checkpoint (%s); its name is in best.json.", link, error.strerror)


def recorded_seed(name: str) -> int | None:
    """The training seed of a run or checkpoint folder, or None for any other model."""
    path = Path(name)
    folder = path if (path / STATE_NAME).is_file() else latest_checkpoint(path)
    try:
        config = read_json_object((folder or path) / "config.json", constants=True)
        return int(config["train"]["seed"])
    except (InputError, ValueError, KeyError, TypeError):
        return None


def remove_old_checkpoints(run: Path, *, keep: int, best: Path | None) -> None:
    """Delete all but the last `keep` checkpoints and the best one; 0 keeps all."""
    if keep <= 0:
        return
    for path in checkpoints(run)[:-keep]:
        if best is None or path.name != best.name:
            remove_folder(path)


def put_right(run: Path, *, sweep: bool = True) -> list[tuple[Path, str]]:
    """Put right what a killed process left of a run's checkpoints; hold the run's lock.

    A checkpoint that was complete but not yet in its place is put there; incomplete ones are deleted.

    Args:
        run: the run's folder.
        sweep: delete incomplete checkpoints in their place too, which may be a copy that has not ended.

    Returns:
        Folders that have a checkpoint's name but are none, since they hold another file, and that file: they are left.
    """
    strange = []
    names = {match.group(1) for path in run.iterdir() if (match := _LEFT.fullmatch(path.name))}
    for folder in sorted(run / name for name in names):
        if folder.is_symlink():
            continue
        if folder.is_dir() and not _is_complete(folder):
            if not sweep:
                log.warning("%s: is no complete checkpoint, and is passed over", folder)
                continue
            other = next((path.name for path in sorted(folder.iterdir()) if not _is_ours(path)), None)
            if other is not None:
                strange.append((folder, other))
                continue
            log.info("%s: an incomplete checkpoint is deleted", folder)
            remove_folder(folder)
        taken = recover_folder(folder, is_whole=is_whole)
        if taken is not None:
            log.warning("%s was complete when its process was killed: it is now %s", taken, folder)
    (run / (BEST_NAME + PARTIAL)).unlink(missing_ok=True)
    return strange


def settle(run: Path, *, patience: float = 0.0) -> None:
    """`put_right` for who only reads a run, where there is something to do and no process writes it.

    Args:
        run: the run's folder.
        patience: seconds to wait while another process holds the run and there is something to do.
    """
    last = time.monotonic() + patience
    while run.is_dir() and _has_leftovers(run):
        with locked_if_free(run) as held:
            if held:
                put_right(run, sweep=False)
        if held or time.monotonic() >= last:
            return
        time.sleep(0.05)


def _has_leftovers(run: Path) -> bool:
    found = ((path, _LEFT.fullmatch(path.name)) for path in run.iterdir())
    return any(match is not None and (match.group(3) or not _is_complete(path)) for path, match in found)


def _is_complete(folder: Path) -> bool:
    return (folder / STATE_NAME).is_file() and (folder / WEIGHTS_NAME).is_file()


def _is_ours(path: Path) -> bool:
    name = path.name.removesuffix(PARTIAL)
    known = (CONFIG_NAME, WEIGHTS_NAME, STATE_NAME, CARD_NAME, "config.json", *FOR_TRAINING)
    return path.is_file() and (name in known or any(fnmatch(name, pattern) for pattern in _TOKENIZER))
