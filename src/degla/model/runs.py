"""The folder of a run: its checkpoints, which of them represents it, and recovery after a killed process."""

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
from degla.pages.words import counted
from degla.remote import display_path

log = logging.getLogger("degla.train")

WEIGHTS_NAME = "open_clip_model.safetensors"
CARD_NAME = "README.md"
TRAINING_NAME = "degla_training.json"
"""What the weights in a folder were trained on, before the training in ``config.json`` if that is a run's."""
BEST_NAME = "best"
"""Link to the best checkpoint in a run's folder."""
_LEFT = re.compile(rf"({STEP.pattern})({re.escape(PARTIAL)}|{re.escape(OLD)}|{re.escape(DELETED)})?")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.gz")


def checkpoints(run: Path) -> list[Path]:
    """Return the run's complete checkpoints, oldest first."""
    return [path for _, path in named_by_step(run) if _is_complete(path)]


def latest_checkpoint(run: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None."""
    complete = checkpoints(run)
    return complete[-1] if complete else None


def how_to_restart(run: Path, *, out: Path | str | None = None) -> str:
    """Return what to do with a run that ended too soon, whatever command or call trains it.

    Args:
        run: folder of the run.
        out: the run as the user named it, if that is not its folder, such as an address.
    """
    if (newest := latest_checkpoint(run)) is None:
        return "start the run again"
    return f"resume the run, whose last complete checkpoint is {display_path(out or run)}/{newest.name}"


def require_checkpoint(run: Path, *, out: Path) -> Path:
    """Return the newest complete checkpoint of a run that is to be resumed; `out` is the run as the user named it.

    Raises:
        InputError: there is none; names runs that the folder holds, if any.
    """
    if (newest := latest_checkpoint(run)) is not None:
        return newest
    if inner := runs_within(run):
        named = " or ".join(f"--resume {display_path(out / name)}" for name in inner[:2])
        raise InputError(f"{display_path(out)}: not a run, but holds {counted(len(inner), 'run')}. Use {named}.")
    raise InputError(f"{display_path(out)}: no complete checkpoint to resume from. Start the run without --resume.")


def runs_within(folder: Path) -> list[str]:
    """Return the runs in a folder or in its subfolder `runs`, as a study has them, by their path from there."""
    if not folder.is_dir():
        return []
    inside = [path for path in folder.iterdir() if path.is_dir()]
    studied = [path for path in (folder / "runs").iterdir() if path.is_dir()] if (folder / "runs").is_dir() else []
    return sorted(path.relative_to(folder).as_posix() for path in (*inside, *studied) if checkpoints(path))


def chosen_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint that represents a run, or None if it has no complete one.

    This is the newest, or the best if the newest reached a limit of `--stop`: that one is over the budget or not better
    than an earlier one.
    """
    newest = latest_checkpoint(run)
    if newest is None:
        return None
    try:
        state = read_state(newest)
    except InputError:
        return newest  # Damaged; loading it will raise the error.
    ended, best = state.ended, state.best
    if not ended or best == newest.name:
        return newest
    if best is not None and run / best in checkpoints(run):
        log.info("%s: stopped early because %s; using its best checkpoint: %s", run, ended, best)
        return run / best
    log.warning("%s: stopped early because %s; no checkpoint is within the limits, using %s", run, ended, newest.name)
    return newest


def why_no_best(path: Path) -> str | None:
    """Return why there is no ``RUN/best``, and what to use instead; None for any other path.

    Raises:
        InputError: the newest checkpoint is damaged.
    """
    run = path.parent
    newest = latest_checkpoint(run) if path.name == BEST_NAME else None
    if newest is None:
        return None
    state = read_state(newest)
    if state.best is not None:
        if run / state.best in checkpoints(run):
            return f"the link is missing; the best checkpoint is {run / state.best}."
        why = f"the best checkpoint, {state.best}, was deleted"
    elif state.ended:
        why = f"no checkpoint of the run was within its limits: {state.ended}"
    else:
        why = "no validation has chosen a checkpoint of the run (--validation.benchmarks)"
    return f"{why}. Its newest checkpoint is {newest}."


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def point_to_best(run: Path, best: str | None) -> None:
    """Link ``RUN/best`` to the best checkpoint and record its name in ``best.json``; None removes the link."""
    write_json(run / "best.json", {"checkpoint": best})
    link, partial = run / BEST_NAME, run / f"{BEST_NAME}.partial"
    try:
        if link.is_dir() and not link.is_symlink():
            aside = link.rename(run / f"{BEST_NAME}.copy")
            log.warning("%s: was a folder instead of a link (as after cp -L); it was renamed to %s", link, aside)
        partial.unlink(missing_ok=True)
        if best is None:
            link.unlink(missing_ok=True)
        else:
            partial.symlink_to(best)
            partial.replace(link)
    except OSError as error:
        log.warning("%s: cannot link to the best checkpoint (%s); its name is in best.json.", link, error.strerror)


def remove_old_checkpoints(run: Path, *, keep: int, best: Path | None) -> None:
    """Delete all checkpoints except the last `keep` and the best one; 0 keeps all."""
    if keep <= 0:
        return
    for path in checkpoints(run)[:-keep]:
        if best is None or path.name != best.name:
            remove_folder(path)


def put_right(run: Path, *, sweep: bool = True) -> list[tuple[Path, str]]:
    """Repair a run's checkpoints after a killed process; the caller must hold the run's lock.

    A checkpoint that was complete but not yet in place is moved there; incomplete ones are deleted.

    Args:
        run: the run's folder.
        sweep: also delete incomplete checkpoints that are in place, which may be an unfinished copy.

    Returns:
        Folders that are named like a checkpoint but contain a foreign file, with that file; they are not touched.
    """
    strange = []
    names = {match.group(1) for path in run.iterdir() if (match := _LEFT.fullmatch(path.name))}
    for folder in sorted(run / name for name in names):
        if folder.is_symlink():
            continue
        if folder.is_dir() and not _is_complete(folder):
            if not sweep:
                log.warning("%s: is not a complete checkpoint and is ignored", folder)
                continue
            other = next((path.name for path in sorted(folder.iterdir()) if not _is_ours(path)), None)
            if other is not None:
                strange.append((folder, other))
                continue
            log.info("%s: deleting an incomplete checkpoint", folder)
            remove_folder(folder)
        origin = recover_folder(folder, is_whole=is_whole)
        if origin is not None:
            log.warning("%s was complete when its process was killed; it was moved to %s", origin, folder)
    (run / (BEST_NAME + PARTIAL)).unlink(missing_ok=True)
    return strange


def settle(run: Path, *, patience: float = 0.0) -> None:
    """Call `put_right` for a reader of a run, if repairs are needed and no process is writing it.

    Args:
        run: the run's folder.
        patience: seconds to wait for another process that holds the run's lock, if repairs are needed.
    """
    last = time.monotonic() + patience
    while run.is_dir() and _has_leftovers(run):
        with locked_if_free(run) as free:
            if free:
                put_right(run, sweep=False)
        if free or time.monotonic() >= last:
            return
        time.sleep(0.05)


def _has_leftovers(run: Path) -> bool:
    matches = ((path, _LEFT.fullmatch(path.name)) for path in run.iterdir())
    return any(match is not None and (match.group(3) or not _is_complete(path)) for path, match in matches)


def _is_complete(folder: Path) -> bool:
    return (folder / STATE_NAME).is_file() and (folder / WEIGHTS_NAME).is_file()


def _is_ours(path: Path) -> bool:
    name = path.name.removesuffix(PARTIAL)
    names = (CONFIG_NAME, WEIGHTS_NAME, STATE_NAME, CARD_NAME, TRAINING_NAME, "config.json", *FOR_TRAINING)
    return path.is_file() and (name in names or any(fnmatch(name, pattern) for pattern in _TOKENIZER))
