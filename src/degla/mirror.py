"""Outputs at addresses: a command writes to a folder of the cache, whose files a thread copies to the address."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

from degla.errors import DeglaError, InputError
from degla.files import PARTIAL, cache_folder, cannot_write, write_json
from degla.locks import NAME, lock
from degla.parse import read_json_object
from degla.remote import fetch, forget, list_files, pieces, put, remove, show_as, state_of

_SECONDS: Final = 60.0
"""Shortest pause between two copies in the background, which also take at most a tenth of the time."""
_RECORD, _SENT = ".there.json", ".sent"
_OURS: Final = frozenset({NAME, _RECORD})
_CACHE: Final = "Set the environment variable DEGLA_CACHE."
log = logging.getLogger(__name__)


def place_in_cache(kind: str, address: str, *, state: str = "") -> Path:
    """Return the cache folder for the content of an address.

    Args:
        kind: subfolder of the cache.
        address: without a trailing slash.
        state: distinguishes versions of the content.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(address).name)
    return cache_folder(kind) / f"{name}-{hashlib.sha256(f'{address}{state}'.encode()).hexdigest()[:12]}"


class Mirror(ABC):
    """Copies what a command writes to an address, in a thread and at the end; does nothing without an address.

    Args:
        address: where it is copied to, or None.
        folder: where the command writes.
        probe: address of a file that is written and removed, because a command that cannot write there must not begin.

    Raises:
        InputError: the address cannot be written to.
        RemoteError: its server does not answer.
    """

    after_errors = False
    """Whether what is there is copied even if the command fails."""

    def __init__(self, address: str | None, folder: Path, *, probe: str) -> None:
        self.address, self.folder = address, folder
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._copying: Future[None] | None = None
        # Of files at the address, as this command left them; "": not there; None while it writes to them.
        self._states: dict[str, str | None] = {}
        self.complete = False
        if address is not None:
            _try_to_write(address, probe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
            if self.address is not None and (error is None or self.after_errors):
                self._copy()
                self.complete = True
        except DeglaError as failed:
            remedy = self._remedy()
            if error is None:
                raise DeglaError(f"{failed} {remedy}") from None
            log.warning("%s was not copied completely: %s", self.folder, failed)
        finally:
            self._threads.shutdown()

    def copy(self) -> None:
        """Start copying new files; failures are retried with the next copy and at the end."""
        if self.address is not None:
            self.wait()
            self._copying = self._threads.submit(self._try)

    def wait(self) -> None:
        """Wait for the current copy to finish: files must not be deleted before they are copied."""
        if self._copying is not None:
            self._copying.result()

    def _try(self) -> None:
        try:
            self._copy()
        except DeglaError as error:
            log.warning("%s %s", error, self._after_failure())

    def _after_failure(self) -> str:
        """Return what follows a copy in the background that failed."""
        return "It is tried again later."

    def _put(self, content: Path | bytes, address: str) -> None:
        """Upload a file as `put` does.

        Raises:
            DeglaError: it is not as this command left it: another one has written to it.
        """
        known = self._states.get(address)
        if known is not None:
            forget()
            there = known
            with suppress(InputError):  # A file that was deleted may be written.
                there = state_of(address)
            if there != known:
                raise self._taken(address)
        self._states[address] = None
        put(content, address)
        with suppress(InputError):  # A server may let files be written, but not read.
            self._states[address] = state_of(address)

    def _taken(self, address: str) -> DeglaError:
        return _of_another(address)

    @abstractmethod
    def _copy(self) -> None:
        """Copy what is new."""

    @abstractmethod
    def _remedy(self) -> str:
        """Return where the files are that could not be copied, and what to do."""


def _of_another(address: str) -> DeglaError:
    return DeglaError(
        f"{address}: another process, perhaps on another machine, has written to it. End it and delete this file "
        "there, or end this one."
    )


def refuse_http(address: str) -> None:
    """Raise InputError if an address is one that nothing can be written to."""
    if address.startswith(("http://", "https://")):
        raise InputError(f"{address}: is only read at http addresses. Choose another --out.")


def _try_to_write(address: str, probe: str) -> None:
    refuse_http(address)
    problem = "cannot be written"
    try:
        put(b"", probe)
        problem = f"{probe} was written to try it and cannot be deleted"
        remove(probe)
    except DeglaError as error:
        reason = str(error).removeprefix(f"{probe}: ")
        raise type(error)(f"{address}: {problem}: {reason} Or change --out.") from None


@contextmanager
def written_to(address: str) -> Iterator[Path]:
    """Yield the local path that a command writes instead of an address, with what lies there.

    A file, with the manifest and replies beside it, is fetched first, so that a command continues it. A folder must be
    new.

    Raises:
        InputError: the address cannot be written to or is a folder with files; or another process writes to it.
        DeglaError: it cannot be read or written, or the disk is full. What the command wrote remains in the cache.
    """
    parent, name = _parts_of(address)
    folder = place_in_cache("outputs", address)
    with lock(folder, if_unwritable=_CACHE), _OutputMirror(address, parent, folder / name) as mirror:
        yield mirror.out


def check_output(address: str) -> None:
    """Raise the InputError of `written_to`, as far as one shows without writing to the address."""
    _, name = _parts_of(address)
    refuse_http(address)
    _refuse_files_in(address, place_in_cache("outputs", address) / name)
    tell_untried(address)


def tell_untried(address: str) -> None:
    """Log that a dry run wrote nothing to an address: at some, a file that was written and deleted leaves versions."""
    log.info("%s: --dry-run writes nothing there; whether it can be written shows at the start of the command", address)


def _parts_of(address: str) -> tuple[str, str]:
    """Return the address of the folder, and the name of what is written there."""
    parent, _, name = address.rpartition("/")
    if parent.endswith("/"):
        raise InputError(f"{address}: has no name of a file or folder. Add one: {address}/NAME.")
    if re.search(r"[*?[]", address):
        raise InputError(f"{address}: a name with *, ? or [ stands for several files. Choose another --out.")
    if name.startswith(".") or name.endswith(PARTIAL):
        raise InputError(f"{address}: a name must not begin with a dot or end in {PARTIAL}. Choose another --out.")
    return parent, name


def _refuse_files_in(address: str, out: Path) -> None:
    if _inside(address):
        kept = f" What a command that was killed wrote is in {out}." if out.is_dir() else ""
        raise InputError(f"{address}: is a folder that holds files. Choose another --out.{kept}")


class _OutputMirror(Mirror):
    """Copies the output of a command: a file and those beside it time and again, a folder at the end.

    After a kill, the files here are copied first if those at the address are as this machine left them (if it was
    killed while it copied them: their beginning), and replaced with those there if not.
    """

    after_errors = True

    def __init__(self, address: str, parent: str, out: Path) -> None:
        super().__init__(address, out.parent, probe=f"{address}.writable")
        self.out, self._parent = out, parent
        self._ended, self._whole = threading.Event(), False
        # Names; states at the address and here when they were the same. The latter is None while a file is copied.
        self._copied: dict[str, list[Any]] = {}
        _refuse_files_in(address, self.out)
        self._bring()
        show_as(self.folder, None)  # An earlier command of this process may have written to it.
        log.info("the output is stored in %s and copied to %s", self.folder, address)
        show_as(self.folder, parent)

    def __enter__(self) -> Self:
        self._copying = self._threads.submit(self._copy_often)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._whole = error is None
        super().__exit__(kind, error, trace)
        # What a cluster's workers had sent when the command was stopped, or a folder that is not complete.
        rest = [each for each in self.folder.iterdir() if each.is_dir() and any(each.iterdir())]
        if error is None:
            log.info("copied to %s", self.address)
            rest = [each for each in rest if each != self.out]
        if self.complete and not rest:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_often(self) -> None:
        pause = _SECONDS
        while not self._ended.wait(pause):
            began = time.monotonic()
            self._try()
            pause = max(_SECONDS, 9 * (time.monotonic() - began))

    def _bring(self) -> None:
        try:
            if self.out.is_dir():
                shutil.rmtree(self.out)  # Of a command that was killed; it may be incomplete.
            with suppress(InputError):
                self._copied = read_json_object(self.folder / _RECORD)
            states = self._states_there()
            self._states = {f"{self._parent}/{name}": state for name, state in states.items()}
            if self._left_by_us(states):
                self._copy()
                return
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in _OURS:
                    path.unlink()
            self._copied = {}
            for name, state in states.items():
                fetch(f"{self._parent}/{name}", self.folder / name)
                self._copied[name] = [state, _state_here(self.folder / name)]
            write_json(self.folder / _RECORD, self._copied)
        except OSError as error:
            raise cannot_write(self.folder.parent, error, remedy=_CACHE) from None

    def _left_by_us(self, states: dict[str, str]) -> bool:
        """Whether this machine, and no other, has written what is at the address, and still has it."""
        missing = [name for name, (state, _) in self._copied.items() if state is not None and name not in states]
        return not missing and all(self._is_ours(name, state) for name, state in states.items())

    def _is_ours(self, name: str, state: str) -> bool:
        file = self.folder / name
        state_then, here = self._copied.get(name, ["", ""])
        if state == state_then or here is not None or not file.is_file():
            return state == state_then and file.is_file()
        with file.open("rb") as stream:  # It was being copied.
            return all(stream.read(len(piece)) == piece for piece in pieces(f"{self._parent}/{name}"))

    def _states_there(self) -> dict[str, str]:
        """States of the file, of its numbered parts (one per model) and of manifests and replies beside them."""
        files = list_files(f"{self._parent}/{escape(self.out.stem)}*")
        names = (file.removeprefix(f"{self._parent}/") for file in files)
        return {name: state_of(f"{self._parent}/{name}") for name in names if self._is_fetched(name)}

    def _is_fetched(self, name: str) -> bool:
        pattern = rf"{re.escape(self.out.stem)}(-\d+)?{re.escape(self.out.suffix)}(\.[^/]+\.jsonl?)?"
        return re.fullmatch(pattern, name, re.DOTALL) is not None

    def _copy(self) -> None:
        try:
            self._send(self._whole)
        except OSError as error:
            raise cannot_write(self.folder.parent, error, remedy=_CACHE) from None
        finally:
            shutil.rmtree(self.folder / _SENT, ignore_errors=True)  # It would keep a full disk full.

    def _send(self, whole: bool) -> None:
        # First here and last there: every row at the address then has its reply, from which it was made, there, too.
        files = sorted(_files(self.folder), key=lambda path: path != self.out)
        sent = self.folder / _SENT
        changed: dict[str, tuple[Path, list[int]]] = {}
        for path in files:
            state = _state_here(path)
            if state != self._copied.get(path.name, [None, None])[1]:
                source = path
                if not whole:  # It may be growing.
                    sent.mkdir(exist_ok=True)
                    source = Path(shutil.copyfile(path, sent / path.name))
                changed[path.name] = source, state
        if whole and self.out.is_dir():
            for other in _inside(f"{self._parent}/{self.out.name}"):  # It was new when the command began.
                raise _of_another(other)
            inside = sorted(self.out.rglob("*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            named = {path.relative_to(self.folder).as_posix(): path for path in inside if path.is_file()}
            changed |= {name: (path, _state_here(path)) for name, path in named.items()}
        if changed:
            self._copied |= {name: [self._copied.get(name, [None])[0], None] for name in changed}
            write_json(self.folder / _RECORD, self._copied)
        for name, (source, state) in reversed(changed.items()):
            place = f"{self._parent}/{name}"
            if self._is_fetched(name):  # What was not there when the command began is not there now.
                self._states.setdefault(place, "")
            self._put(source, place)
            self._copied[name] = [self._states[place], state]
        if changed:
            write_json(self.folder / _RECORD, self._copied)

    def _remedy(self) -> str:
        show_as(self.folder, None)
        return f"The output itself is complete in {self.folder}. Copy it from there before you use this address again."


def _inside(address: str) -> list[str]:
    """Files in a folder at an address, which may be a file, too."""
    return [file for file in list_files(address) if file != address]


def _files(folder: Path) -> list[Path]:
    """Files that the command has written to a folder."""
    return [each for each in folder.iterdir() if each.is_file() and each.name not in _OURS and each.suffix != PARTIAL]


def _state_here(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
