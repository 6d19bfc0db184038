"""Atomic writes of files and folders: errors, kills at any point, two writers."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from degla import files, locks
from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.files import recover_folder, remove_folder, whole_file, whole_folder, write_json, write_text


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_new_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "page.html"
    write_text(path, "first")
    path.chmod(0o600)
    with pytest.raises(KeyError), whole_file(path) as stream:
        stream.write("half of the sec")
        raise KeyError("while it was made")
    assert path.read_text() == "first"
    with whole_file(path, newline="") as stream:
        stream.write("second\r\n")
        assert path.read_text() == "first", "readers see the old file until the new one is complete"
    assert path.read_bytes() == b"second\r\n" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _names(path.parent) == ["page.html"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.json"
    write_json(path, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DeglaError, match=r"study\.json: cannot be written: the disk is full\. Free space") as caught:
        write_json(path, {"new": 2})
    assert "\n" not in str(caught.value) and caught.value.exit_status == 1
    assert path.read_text() == '{\n  "old": 1\n}\n' and _names(tmp_path) == ["study.json"]


def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(InputError, match=r"cannot be written: .* Choose another --sheet\.$"):
            write_text(path, "", remedy="Choose another --sheet.")
    assert _names(tmp_path) == ["file"]


def test_links_stay_and_pipes_are_written_to(tmp_path: Path) -> None:
    write_text(tmp_path / "there", "old")
    (tmp_path / "link").symlink_to("there")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "through")
    reader.join()
    assert got == ["through"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("locks", [True, False])
def test_two_writers_of_one_file_take_turns(tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locks:
        monkeypatch.setattr(files, "hold", lambda descriptor, **options: None)
    path = tmp_path / "best.json"
    texts = [str(number) * 50_000 for number in range(4)]

    def write(text: str) -> None:
        for _ in range(10):
            write_text(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(write, texts))
    assert path.read_text() in texts and _names(tmp_path) == ["best.json"]


def test_a_folder_that_is_being_written_is_left_to_its_writer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two commands with one --out deleted each other's files, and both failed."""
    captions, out = tmp_path / "c.csv", tmp_path / "data"
    captions.write_text("image,text\n" + "".join(f"{number}.jpg,A dog.\n" for number in range(10)))
    with whole_folder(out) as new:
        write_text(new / "train.jsonl", "first")
        assert main(["prepare", "split", str(captions), "--out", str(out)]) == 2
        message = f"degla: {out}: cannot be written: another process is writing it. Choose another --out.\n"
        assert capsys.readouterr().err == message
    assert _names(tmp_path) == ["c.csv", "data"] and (out / "train.jsonl").read_text() == "first"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_an_unfinished_file_or_lock_is_no_link(tmp_path: Path) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    other.write_text("as it was")
    out.mkdir()
    for name in ("a.json.partial", locks.NAME):
        (out / name).symlink_to(other)
    write_text(out / "a.json", "new")
    with locks.lock(out):
        assert other.read_text() == "as it was"
    assert (out / "a.json").read_text() == "new" and not (out / "a.json").is_symlink()


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "page.html.partial").write_text("a long torn beginning of a page")
    write_text(tmp_path / "page.html", "page")
    assert (tmp_path / "page.html").read_text() == "page" and _names(tmp_path) == ["page.html"]


def test_without_locks_what_a_killed_writer_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "hold", lambda descriptor, **options: None)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = f"page.html.{socket.gethostname()}-"
    for name in (f"{here}{ended.pid}-0", f"{here}{os.getppid()}-0", f"page.html.elsewhere-{ended.pid}-0", f"{here}a-b"):
        (tmp_path / f"{name}.partial").write_text("torn")
    write_text(tmp_path / "page.html", "page")
    names = [f"{here}{os.getppid()}-0.partial", f"{here}a-b.partial", f"page.html.elsewhere-{ended.pid}-0.partial"]
    assert _names(tmp_path) == sorted(["page.html", *names])


def _replace(folder: Path, text: str) -> None:
    with whole_folder(folder) as new:
        (new / "inner").mkdir()
        (new / "inner" / "weights").write_text(text)
        (new / "done").write_text("")


def _copied_at(place: int, folder: Path, copies: Path, act: Callable[[Path], None]) -> bool:
    """Copy the state on disk before change number `place`, which a kill at that moment would leave."""
    count = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == place + 1:
                with pytest.MonkeyPatch.context() as undone:
                    for (owner, name), before in changes.items():
                        undone.setattr(owner, name, before)
                    shutil.copytree(folder.parent, copies)
            return original(*arguments, **named)

        return call

    names = [(Path, "rename"), (Path, "mkdir"), (Path, "chmod"), (os, "fsync"), (os, "unlink"), (os, "rmdir")]
    changes = {(owner, name): getattr(owner, name) for owner, name in names}
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), original in changes.items():
            patch.setattr(owner, name, counted(original))
        act(folder)
    return count > place


@pytest.mark.parametrize("before", ["old", None])
def test_a_kill_at_any_place_leaves_the_old_or_the_new_folder(tmp_path: Path, before: str | None) -> None:
    def is_whole(folder: Path) -> bool:
        return (folder / "done").exists()

    contents = set()
    for place in range(60):
        folder, copies = tmp_path / str(place) / "chosen", tmp_path / f"{place} killed"
        folder.parent.mkdir()
        if before:
            _replace(folder, before)
        if not _copied_at(place, folder, copies, lambda folder: _replace(folder, "new")):
            break
        recover_folder(copies / "chosen", is_whole=is_whole)
        weights = copies / "chosen" / "inner" / "weights"
        contents.add(weights.read_text() if weights.exists() else None)
        assert _names(copies) == ["chosen"] * weights.exists(), place
    assert place > 8 and contents == {before, "new"}


def test_an_error_while_a_folder_is_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace(tmp_path / "chosen", "old")
    with pytest.raises(KeyError), whole_folder(tmp_path / "chosen") as new:
        (new / "inner").mkdir()
        raise KeyError
    assert (tmp_path / "chosen" / "inner" / "weights").read_text() == "old"
    assert _names(tmp_path) == ["chosen"]
    rename = Path.rename

    def fail_at_the_last_step(path: Path, target: Path) -> Path:
        if path.name == "chosen.partial":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", fail_at_the_last_step)
        _replace(tmp_path / "chosen", "new")
    assert (tmp_path / "chosen" / "inner" / "weights").read_text() == "old"
    assert _names(tmp_path) == ["chosen"]


def test_an_old_folder_comes_back_where_the_new_one_is_not_whole(tmp_path: Path) -> None:
    _replace(tmp_path / "chosen.old", "old")
    (tmp_path / "chosen.partial").mkdir()
    assert recover_folder(tmp_path / "chosen", is_whole=lambda folder: False) == tmp_path / "chosen.old"
    assert (tmp_path / "chosen" / "inner" / "weights").read_text() == "old" and _names(tmp_path) == ["chosen"]


@pytest.mark.skipif(sys.platform == "win32", reason="without permissions")
@pytest.mark.parametrize("before", [None, "{}"])
def test_a_password_is_private_from_the_first_byte(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, modes = tmp_path / "config.json", []
    if before is not None:
        path.write_text(before)
    synchronise = os.fsync

    def look(descriptor: int) -> None:
        modes.extend(stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir())
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_json(path, {"captions": "sftp://me:secret@far/a.jsonl"})
    assert {*modes, stat.S_IMODE(path.stat().st_mode)} == {0o600}


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_a_folder_is_as_private_as_the_user_has_it(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with whole_folder(tmp_path / "chosen") as new:
            (new / "weights").touch(0o600)  # as safetensors makes its files
            write_json(new / "config.json", {"captions": "sftp://me:secret@host/x"})
            write_json(new / "state.json", {"step": 1})
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "chosen").iterdir()}
    assert modes == {"weights": mode, "state.json": mode, "config.json": 0o600}


def test_a_kill_while_a_folder_is_removed_leaves_it_whole_or_under_another_name(tmp_path: Path) -> None:
    for place in range(20):
        folder, copies = tmp_path / str(place) / "step-4", tmp_path / f"{place} killed"
        _replace(folder, "weights")
        if not _copied_at(place, folder, copies, remove_folder):
            break
        whole = (copies / "step-4" / "done").exists() and (copies / "step-4" / "inner" / "weights").exists()
        assert whole == (copies / "step-4").exists()
        recover_folder(copies / "step-4", is_whole=lambda folder: False)
        assert _names(copies) == (["step-4"] if whole else [])
    assert place > 2
