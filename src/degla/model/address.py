"""Models and runs at remote addresses, `s3://bucket/runs/first`: copied into the cache folder. A run whose `--out` is
an address is kept in a local folder, and its checkpoints are copied to the address in the background."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from degla.errors import DeglaError, InputError
from degla.files import remove_folder, sha256_of, whole_folder
from degla.locks import in_turn
from degla.mirror import Mirror, place_in_cache, refuse_http, tell_untried
from degla.model.integrity import STATE_NAME, STEP, read_state
from degla.model.onnx_folder import INFO
from degla.model.runs import (
    BEST_NAME,
    WEIGHTS_NAME,
    checkpoints,
    latest_checkpoint,
    point_to_best,
    step_of,
    why_no_best,
)
from degla.model.tokenizer import CONFIG_NAME
from degla.remote import AccessError, address_of, fetch, list_files, read_range, remove, state_of

_READ: Final = (".json", ".safetensors", ".txt", ".gz", ".model", ".onnx", ".data", ".py")
"""Suffixes of the files that a model is read from; other files, such as an optimiser's state, are not fetched."""
_WEIGHTS: Final = (".safetensors", ".bin", ".onnx")


def folder_here(name: str) -> Path:
    """Return a model's local folder, if it is a folder: that of its copy for an address.

    A run at an address is fetched as by `degla train --resume`, also for its best checkpoint, ``RUN/best``; a folder is
    fetched again when one of its files has changed.

    Raises:
        InputError: there is no model at the address, or access is denied.
        DeglaError: it cannot be read, or the disk is full.
    """
    address = (address_of(name) or "").rstrip("/")
    if not address:
        return Path(name.removeprefix("local-dir:"))
    files = {file.removeprefix(f"{address}/"): file for file in list_files(address)}
    if any(STEP.fullmatch(PurePosixPath(file).parts[0]) for file in files):
        return bring_here(Path(name))
    run, _, last = address.rpartition("/")
    if last == BEST_NAME and not files and _has_run(run):
        best = bring_here(Path(run)) / BEST_NAME
        if not best.is_dir():
            raise InputError(f"{address}: {why_no_best(best)}")
        return best
    if not files.keys() & {CONFIG_NAME, "config.json", INFO}:
        raise InputError(
            f"{address}: no model found. The address of a model is that of a run, or of a folder with {CONFIG_NAME}, "
            "a transformers config.json or ONNX graphs from `degla export`."
        )
    sources = {file: source for file, source in files.items() if PurePosixPath(file).suffix in _READ and _is_name(file)}
    if not any(PurePosixPath(file).suffix in (".safetensors", ".onnx") for file in sources):
        raise InputError(
            f"{address}: has no weights in safetensors or ONNX. Pickled weights, which can run code, are not fetched. "
            "Copy the folder to this machine and give its local name to see the command that converts them."
        )
    states = repr([(file, state_of(source)) for file, source in sorted(sources.items())])
    folder = place_in_cache("models", address, state=f"\n{states}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(folder):
        if not folder.is_dir():
            log.info("fetching %s to %s", address, folder)
            with whole_folder(folder) as partial:
                for file, source in sources.items():
                    fetch(source, partial / file)
    return folder


def _has_run(address: str) -> bool:
    """Whether there is a run; what holds no files, such as the owner of models at a hub, has none."""
    try:
        return bool(_complete(_files(address)))
    except AccessError:
        raise
    except InputError:
        return False


_METRICS: Final = "metrics.jsonl"
_CONFIG: Final = "config.json"
_BESIDE = (_CONFIG, _METRICS, "validation.jsonl", "best.json")
log = logging.getLogger("degla.train")


def folder_of_run(out: Path) -> Path:
    """Return the local folder of a run: itself, or a cache folder for an address."""
    address = address_of(out)
    return out if address is None else place_in_cache("runs", address)


def bring_here(out: Path) -> Path:
    """Return `folder_of_run` after fetching the newest checkpoint of the address, if it is newer, and the best one.

    Several processes on one machine take turns.

    Raises:
        InputError: access to the address is denied, or it holds another run than the folder.
        DeglaError: it cannot be read, or the disk is full.
    """
    run, address = folder_of_run(out), address_of(out)
    if address is None:
        return run
    run.mkdir(parents=True, exist_ok=True)
    with in_turn(run):
        steps = _complete(_files(address))
        newest = latest_checkpoint(run)
        if not steps or (newest is not None and step_of(newest) >= max(steps)):
            if steps:
                _refuse_another(run, address)
            return run
        here = checkpoints(run)
        # Of a run that was deleted there, or of steps repeated elsewhere: a resume would copy it there again.
        stale = [each for each in here if step_of(each) not in steps or not _is_copied(each, address)]
        if here and stale == here:  # Perhaps a run that could never be copied there, and this is all of it.
            _refuse_another(run, address)
        for folder in stale:
            remove_folder(folder)
        for name in _BESIDE[:-1]:
            with suppress(InputError):  # Missing if the run was killed before its first line.
                fetch(f"{address}/{name}", run / name)
        _fetch_step(max(steps), steps, run, address)
        best = None
        with suppress(InputError):  # Damaged; loading it will raise the error.
            best = read_state(run / f"step-{max(steps)}").best  # best.json is copied after it.
        if best and step_of(Path(best)) in steps.keys() - {max(steps)}:
            _fetch_step(step_of(Path(best)), steps, run, address)
        point_to_best(run, best if best and (run / best).is_dir() else None)
    return run


def _fetch_step(step: int, steps: dict[int, list[str]], run: Path, address: str) -> None:
    log.info("fetching %s/step-%d to %s", address, step, run)
    with whole_folder(run / f"step-{step}") as partial:
        for name in steps[step]:
            fetch(f"{address}/step-{step}/{name}", partial / name)


def _is_copied(checkpoint: Path, address: str) -> bool:
    """Whether a checkpoint equals that of the same name at the run's address, by its state."""
    state = (checkpoint / STATE_NAME).read_bytes()
    return read_range(f"{address}/{checkpoint.name}/{STATE_NAME}", 0, len(state) + 1) == state


def _refuse_another(run: Path, address: str) -> None:
    """Refuse a folder with another run than its address, which was deleted there and started again elsewhere.

    A run is identified by its first metrics, which stay the same when it is resumed: two lines, since with validation
    the first has the scores of the base, which runs share.
    """
    first = there = b""
    with suppress(FileNotFoundError), (run / _METRICS).open("rb") as stream:
        first = b"".join(islice(stream, 2))
    with suppress(InputError):  # Not copied yet, or not readable.
        there = read_range(f"{address}/{_METRICS}", 0, len(first))
    if not first.startswith(there):  # A copy that failed may have left a part of it.
        raise InputError(
            f"{address}: holds another run than its copy here, {run}. To use the run at the address, "
            "delete that folder."
        )


def check_new_at(out: Path) -> None:
    """Raise the InputError of a new run's `RunMirror`, as far as one shows without writing; a folder is not checked."""
    if (address := address_of(out)) is not None:
        refuse_http(address)
        _refuse_taken(address, _files(address))
        tell_untried(address)


def _refuse_taken(address: str, files: list[str]) -> None:
    if _complete(files):
        raise InputError(f"{address}: already holds a run. Continue it with --resume {address}, or change --out.")
    if any(file.endswith(_WEIGHTS) for file in files if "/" not in file):
        raise InputError(f"{address}: holds a model, whose config.json the run's would replace. Change --out.")


class RunMirror(Mirror):
    """Copies the files of a run to its address after each checkpoint; does nothing if `out` is a local folder.

    Args:
        out: of the run.
        active: whether this process does the copying.
        resume: whether the address may already hold a run.
        keep: newest checkpoints to keep there in addition to the best one; 0 keeps all.

    Raises:
        InputError: the address holds a run or a model and `resume` is False, or access is denied.
    """

    def __init__(self, out: Path, *, active: bool, resume: bool, keep: int) -> None:
        address = address_of(out) if active else None
        super().__init__(address, folder_of_run(out), probe=f"{address}/.writable")
        self.keep = keep
        self._copied: dict[str, str] = {}  # Names of checkpoints at the address, and the sha256 of their state.
        self._names: dict[int, list[str]] = {}
        self._there: frozenset[str] = frozenset()  # Files at the address when the run began or resumed.
        self._is_taken = False
        if address is not None:
            files = _files(address)
            self._names, self._there = _complete(files), frozenset(files)
            if not resume:
                _refuse_taken(address, files)
            for step in self._names:
                folder = self.folder / f"step-{step}"
                with suppress(FileNotFoundError):
                    if _is_copied(folder, address):
                        self._copied[folder.name] = sha256_of(folder / STATE_NAME)
            log.info("the run is stored in %s and copied to %s after each checkpoint", self.folder, address)

    def _remedy(self) -> str:
        missing = f"To copy what is missing, resume the run {self.address}."
        if self._is_taken:  # A resume would bring the other run here.
            missing = "Copy that folder to another address."
        return f"The run itself is complete in {self.folder}. {missing}"

    def _after_failure(self) -> str:
        return f"This run continues, in {self.folder} only." if self._is_taken else super()._after_failure()

    def _taken(self, address: str) -> DeglaError:
        self._is_taken = True
        return DeglaError(f"{address}: another process, perhaps on another machine, has begun or resumed a run there.")

    def _send(self, content: Path | bytes, name: str) -> None:
        """As `_put`; a file that appeared meanwhile is of another process that began this run, too."""
        place = f"{self.address}/{name}"
        if name not in self._there:
            self._states.setdefault(place, "")
        self._put(content, place)

    def _copy(self) -> None:
        # First: of two runs that began at one address, the later one is refused before it writes a checkpoint.
        with suppress(FileNotFoundError):
            self._send((self.folder / _CONFIG).read_bytes(), _CONFIG)
        here = {path.name: path for path in checkpoints(self.folder)}
        for name, folder in here.items():
            state = (folder / STATE_NAME).read_bytes()
            digest = hashlib.sha256(state).hexdigest()
            if self._copied.get(name) == digest:
                continue
            if name not in self._copied:
                for file in sorted(path for path in folder.iterdir() if path.is_file() and path.name != STATE_NAME):
                    self._send(file, f"{name}/{file.name}")
                self._names[step_of(folder)] = [path.name for path in folder.iterdir()]
            self._send(state, f"{name}/{STATE_NAME}")  # Last: without it a checkpoint is not complete.
            self._copied[name] = digest
        for name in _BESIDE[1:]:
            with suppress(FileNotFoundError):
                self._send((self.folder / name).read_bytes(), name)
        # By the rule, not by the local files: a resumed run has fetched only the newest one.
        for step in sorted(self._names)[: -self.keep] if self.keep else ():
            if f"step-{step}" in here:
                continue
            names = self._names.pop(step)
            for file_name in sorted(names, key=lambda name: name != STATE_NAME):
                remove(f"{self.address}/step-{step}/{file_name}")
            self._copied.pop(f"step-{step}", None)


def _files(address: str) -> list[str]:
    """Relative names of all files of a run at an address."""
    start = address.rstrip("/") + "/"
    return [file.removeprefix(start) for file in list_files(address) if file.startswith(start)]


def _complete(files: list[str]) -> dict[int, list[str]]:
    """Steps of the complete checkpoints among the files of a run, with the names of their files."""
    steps: dict[int, list[str]] = {}
    for file in files:
        folder, _, name = file.partition("/")
        if (step := STEP.fullmatch(folder)) and _is_name(name):
            steps.setdefault(int(step[1]), []).append(name)
    return {step: names for step, names in steps.items() if {STATE_NAME, WEIGHTS_NAME} <= set(names)}


def _is_name(file: str) -> bool:
    """Whether a server's relative name is that of a file in the folder itself, so that it cannot lead elsewhere."""
    return Path(file).name == file and file not in ("", "..")
