"""Locks on folders: a single holder, its description, and release when it and its child processes have ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import pytest

from degla import locks
from degla.data import shards
from degla.errors import InputError
from degla.files import has_ended, whole_folder
from degla.locks import Lock, in_turn, lock, locked_if_free

if sys.platform != "win32":
    import fcntl


def hold(folder: Path, connection: Connection) -> None:
    """Take the lock in a separate process and report it; keep it until told to end."""
    with lock(folder):
        connection.send("held")
        connection.recv()


def keep(folder_lock: Lock, connection: Connection) -> None:
    """Hold a lock that was passed on, whatever happens to the process that passed it."""
    connection.send(os.getpid())
    threading.Event().wait()


def hand_over(folder: Path, connection: Connection) -> None:
    """Take the lock, hand it to another process, and wait to be killed."""
    child = multiprocessing.get_context("spawn").Process(target=keep, args=(lock(folder), connection))
    child.start()
    threading.Event().wait()


def test_no_lock_names_a_key_or_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["degla", "negatives", "--base-url=http://me:secret@h/v1", "--extra-body", '{"api_key":\n"secret"}', "x"]
    monkeypatch.setattr(sys, "argv", words)
    with lock(tmp_path), pytest.raises(InputError, match=r"--base-url=http://h/v1 --extra-body '{...}' x") as caught:
        assert "secret" not in (tmp_path / locks.NAME).read_text()
        lock(tmp_path)
    assert "secret" not in str(caught.value)


def test_a_second_process_learns_who_holds_it_and_since_when(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock(folder):
        with pytest.raises(InputError) as caught, lock(folder):
            pass
        expected = (
            rf"{folder}: in use by process {os.getpid()} on {socket.gethostname()} since \d{{4}}-\d\d-\d\dT.*\. Wait"
        )
        assert re.match(expected, str(caught.value)) and caught.value.exit_status == 2
        with locked_if_free(folder) as free:
            assert not free
    assert not folder.exists(), "nothing is left behind"
    with lock(folder), pytest.raises(InputError, match="Stop it"):
        lock(folder, remedy="Stop it.")


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, there))
    process.start()
    assert here.recv() == "held"
    with pytest.raises(InputError, match=f"process {process.pid} on"):
        lock(tmp_path)
    process.kill()
    process.join()
    with lock(tmp_path) as folder_lock:
        assert json.loads(folder_lock.path.read_text())["process"] == os.getpid()


def test_a_lock_is_held_until_all_processes_that_share_it_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hand_over, args=(tmp_path, there))
    process.start()
    child = os.pidfd_open(number := here.recv())
    process.kill()
    process.join()
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    with pytest.raises(
        InputError, match=f"process {process.pid} .*has ended, but its child processes are still running"
    ):
        lock(tmp_path)
    os.kill(number, signal.SIGKILL)
    monkeypatch.setattr(locks, "_PATIENCE", 30.0)
    lock(tmp_path).release()
    os.close(child)


def test_without_flock_the_named_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with lock(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        lock(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder = {"process": ended.pid, "host": socket.gethostname(), "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".lock").write_text(json.dumps(holder))
    lock(tmp_path).release()
    (tmp_path / ".lock").write_text(json.dumps({**holder, "host": "elsewhere"}))
    with pytest.raises(InputError, match=rf"on elsewhere since .*; if it has ended, delete {tmp_path}/\.lock"):
        lock(tmp_path)


def test_on_windows_no_process_is_asked_and_no_folder_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> None:
        raise AssertionError("there this would stop the process, or fail")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", wrong)
    monkeypatch.setattr(os, "fsync", wrong)
    assert not has_ended(os.getpid())
    with whole_folder(tmp_path / "step-1") as new:
        (new / "weights").touch()
    assert (tmp_path / "step-1" / "weights").is_file()


def test_functions_missing_on_windows_do_not_keep_the_lock_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_use(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "it is used by another process", str(path))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(Path, "unlink", in_use)
    for _ in range(2):
        with lock(tmp_path) as folder_lock:
            pickle.loads(pickle.dumps(folder_lock)).release()
            with pytest.raises(InputError, match=rf"in use by .*; if it has ended, delete {folder_lock.path}\. Wait"):
                lock(tmp_path)


def test_one_of_many_threads_gets_it(tmp_path: Path) -> None:
    winners, refused = [], []

    def take() -> None:
        try:
            winners.append(lock(tmp_path))
        except InputError as error:
            refused.append(error)

    for _ in range(20):
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1 and len(refused) == 3
        winners.pop().release()
        refused.clear()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run: cannot be written: Not a directory"):
        lock(tmp_path / "file" / "run")
    with locked_if_free(tmp_path / "none") as free:
        assert not free


def test_a_folder_made_for_a_lock_goes_with_it_unless_something_is_written(tmp_path: Path) -> None:
    with lock(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run" / ".lock").is_file()
    assert not (tmp_path / "new").exists()
    with lock(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "config.json").touch()
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["config.json"]
    (tmp_path / "own").mkdir()
    with lock(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir(), "it was there before"


def test_a_long_wait_for_a_turn_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "degla")
    monkeypatch.setattr(locks, "_ANNOUNCED", 0.05)
    with in_turn(tmp_path / "entry"), in_turn(tmp_path / "other"):
        pass
    assert not caplog.records
    second_has_it = threading.Event()

    def second() -> None:
        with in_turn(tmp_path / "entry"):
            second_has_it.set()

    waits = threading.Thread(target=second)
    with in_turn(tmp_path / "entry"):
        waits.start()
        tries = 1000
        while not caplog.records and tries:
            tries -= 1
            assert not second_has_it.wait(0.01)
    waits.join()
    assert second_has_it.is_set()
    assert caplog.messages == [f"waiting for another process, which holds the lock {tmp_path / 'entry.lock'}"]


def test_threads_and_workers_that_wait_for_a_shard_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each wrote a line for each shard that took long to fetch, though all of them belonged to one command."""
    caplog.set_level("INFO", "degla")
    monkeypatch.setattr(locks, "_ANNOUNCED", 0.0)
    copy = tmp_path / "6b" / "6b1f.tar"
    copy.parent.mkdir()

    class Shard:
        def write(self, stream: IO[bytes], ended: threading.Event) -> None:
            stream.write(b"pictures")

    waits = threading.Thread(target=shards._copy, args=(Shard(), copy))
    with in_turn(copy.with_name("6b")):
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
    waits.join()
    assert copy.read_bytes() == b"pictures"
    assert not caplog.records
