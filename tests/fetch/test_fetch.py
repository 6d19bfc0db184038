"""`degla fetch-data` with a local server: cut, resumed, wrong, full, refused, unknown."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.fetch.sources import read_sources
from degla.fetch.transfer import fetch_file, open_session
from degla.fetch.unpack import unpack_archive
from degla.shelf import BENCHMARKS
from tests.fetch.file_server import FileServer, file_server
from tests.official import OFFICIAL, SHARED

Capture = pytest.CaptureFixture[str]
CHUNK = 1 << 16
CONTENT = bytes(range(256)) * 2560  # ten chunks
CHECK = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_server() as running:
        yield running


def _get(url: str, target: Path, **how: Any) -> list[float]:
    waits: list[float] = []
    with open_session() as session:
        fetch_file(url, target, session=session, wait=waits.append, **how)
    return waits


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return stream.getvalue()


def _sources(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "sources.toml"
    file.write_text(text)
    return ["--root", str(tmp_path / "data"), "--sources", str(file)]


def test_cut_connections_are_resumed_and_bytes_come_once(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT, cut=CHUNK)  # More often than connections may fail without progress.
    came: list[int] = []
    waits = _get(url, tmp_path / "new" / "a.bin", check=CHECK, size=len(CONTENT), advance=came.append)
    assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT
    assert [span for _, span in server.asked] == ["", *(f"bytes={CHUNK * cut}-" for cut in range(1, 10))]
    assert sum(came) == len(CONTENT) and len(waits) == 9
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]


def test_a_second_command_continues_where_the_first_ended(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT)
    target = tmp_path / "a.bin"
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:4321])
    _get(url, target, check=CHECK)
    assert target.read_bytes() == CONTENT and server.asked == [("/a.bin", "bytes=4321-")]


def test_a_partial_download_of_an_older_file_is_not_resumed(server: FileServer, tmp_path: Path) -> None:
    part = tmp_path / "a.bin.partial"
    part.write_bytes(b"of another file")
    os.utime(part, (1_000_000_000, 1_000_000_000))
    url = server.add("/a.bin", CONTENT, modified=1_000_000_060.0)
    came: list[int] = []
    _get(url, tmp_path / "a.bin", advance=came.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and sum(came) == len(CONTENT)
    assert server.asked == [("/a.bin", "bytes=15-"), ("/a.bin", "")]


def test_a_complete_download_that_was_not_renamed_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT)
    (tmp_path / "a.bin.partial").write_bytes(CONTENT)
    _get(url, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.asked == [("/a.bin", f"bytes={len(CONTENT)}-")]


def test_more_bytes_than_the_server_has_are_refused(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT)
    (tmp_path / "a.bin.partial").write_bytes(CONTENT + b"more")
    with pytest.raises(DeglaError, match=r"655,364 bytes are here, but the server's file has 655360\. Delete the file"):
        _get(url, tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def _played(*answers: tuple[dict[str, str], bytes | int]) -> Any:
    """A session that ignores lengths; plays headers and bytes or status of each response."""
    queue = iter(answers)

    def get(url: str, **how: Any) -> Any:
        headers, body = next(queue)
        status = body if isinstance(body, int) else 206 if "Content-Range" in headers else 200
        stream = io.BytesIO(b"" if isinstance(body, int) else body)
        raw = SimpleNamespace(read1=lambda size, decode_content: stream.read(size))
        return nullcontext(SimpleNamespace(
            status_code=status, ok=status < 300, reason="", headers=headers, raw=raw
        ))  # fmt: skip

    return SimpleNamespace(get=get)


def test_an_answer_that_ends_early_without_an_error_is_not_taken_as_complete(tmp_path: Path) -> None:
    waits: list[float] = []
    rest = {"Content-Range": "bytes 3-7/*", "Content-Length": "5"}  # a complete file of unknown size
    other = {"Content-Range": "bytes 5-7/8"}
    busy = _played(({"Content-Length": "8"}, b"one"), (other, b"ore"), ({"Retry-After": "7"}, 503),
                   ({"Retry-After": "999"}, 503), (rest, b" more"))  # fmt: skip
    fetch_file("http://x/a", tmp_path / "a", session=busy, wait=waits.append)
    assert (tmp_path / "a").read_bytes() == b"one more" and waits == [0.5, 1.0, 7.0, 300.0]
    # Without a Content-Length, or with one that is no length, the published size is used.
    fetch_file("http://x/b", tmp_path / "b", session=_played(({}, b"one")), size=3)
    fetch_file("http://x/d", tmp_path / "d", session=_played(({"Content-Length": "9" * 5000}, b"one")), size=3)
    with pytest.raises(DeglaError, match=r"http://x/c: 3 bytes arrived, but the file has 8\. It was deleted"):
        fetch_file("http://x/c", tmp_path / "c", session=_played(({}, b"one")), size=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "d"]


def test_an_endless_body_ends_at_the_published_size(tmp_path: Path) -> None:
    raw = SimpleNamespace(read1=lambda size, decode_content: bytes(size))
    endless = SimpleNamespace(status_code=200, ok=True, headers={}, raw=raw)
    came: list[int] = []
    session: Any = SimpleNamespace(get=lambda url, **how: nullcontext(endless))
    with pytest.raises(DeglaError, match=r"131,072 bytes arrived, but the file has 70,000\. It was deleted"):
        fetch_file("http://x/a", tmp_path / "a", session=session, size=70_000, advance=came.append)
    assert max(came) == CHUNK and sum(came) == 0 and list(tmp_path.iterdir()) == []


def test_a_server_that_sends_single_bytes_is_given_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.fetch.transfer._SILENCE", 0.3)
    url = server.add("/a.bin", CONTENT[:200], pause=0.05)
    with open_session() as session, pytest.raises(DeglaError, match=r"less than 100 bytes a second .*6 times in a row"):
        fetch_file(url, tmp_path / "a.bin", session=session, wait=lambda seconds: None)
    assert (tmp_path / "a.bin.partial").stat().st_size > 6, "each attempt continues, so a later command can, too"


def test_a_server_that_falls_silent_after_a_byte_is_given_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.fetch.transfer._SILENCE", 0.2)
    url = server.add("/a.bin", CONTENT[:12], stall=1.0)
    with open_session() as session, pytest.raises(DeglaError, match=r"timed out.*, 6 times in a row"):
        fetch_file(url, tmp_path / "a.bin", session=session, wait=lambda seconds: None)
    assert (tmp_path / "a.bin.partial").read_bytes() == CONTENT[:6]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("coding", ["", "gzip", "chunked"])
def test_bodies_of_all_sizes_and_codings_arrive(size: int, coding: str, server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT[:size], coding=coding)
    _get(url, tmp_path / "a.bin", size=size or None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[:size] and len(server.asked) == 1


def test_a_server_without_ranges_begins_again(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT, cut=5 * CHUNK, cuts=2, ranges=False)
    came: list[int] = []
    _get(url, tmp_path / "a.bin", check=CHECK, advance=came.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and sum(came) == len(CONTENT)


def test_six_attempts_without_a_byte_end_and_the_partial_file_stays(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT, cut=4 * CHUNK, cuts=1)
    file = server.files["/a.bin"]

    def busy(seconds: float) -> None:
        file.statuses = (503,)

    with open_session() as session, pytest.raises(DeglaError) as caught:
        fetch_file(url, tmp_path / "a.bin", session=session, wait=busy)
    assert "503" in str(caught.value) and "262,144 bytes are kept" in str(caught.value) and len(server.asked) == 7
    assert (tmp_path / "a.bin.partial").read_bytes() == CONTENT[: 4 * CHUNK] and not (tmp_path / "a.bin").exists()
    file.statuses = ()
    _get(url, tmp_path / "a.bin", check=CHECK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_another_content_is_deleted_and_told(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT[::-1])
    with pytest.raises(DeglaError, match=r"its sha256 is [0-9a-f]{64}, but must be .* deleted"):
        _get(url, tmp_path / "a.bin", check=CHECK)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DeglaError, match=r"the server has 655,360 bytes, but the published file 655,361"):
        _get(url, tmp_path / "a.bin", size=len(CONTENT) + 1)


def test_a_part_of_another_file_is_begun_again_once(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT)
    (tmp_path / "a.bin.partial").write_bytes(b"x" * 100)
    _get(url, tmp_path / "a.bin", check=CHECK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and [span for _, span in server.asked] == ["bytes=100-", ""]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"statuses": (403,)}, "answered 403 Forbidden"),
        ({"kind": "text/html; charset=utf-8"}, "answered with a web page"),
    ],
)
def test_what_is_refused_is_not_tried_again(server: FileServer, tmp_path: Path, how: Any, message: str) -> None:
    url = server.add("/a.bin", CONTENT, **how)
    with pytest.raises(DeglaError, match=message):
        _get(url, tmp_path / "a.bin")
    assert len(server.asked) == 1 and list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_came(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("/a.bin", CONTENT)
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:500])
    real = Path.open

    class Full(io.FileIO):
        def write(self, piece: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(self: Path, mode: str = "r", **more: Any) -> Any:
        return Full(str(self), "r+") if mode == "r+b" else real(self, mode, **more)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(DeglaError, match=r"the disk is full\. Free space and run the command again"):
        _get(url, tmp_path / "a.bin")
    monkeypatch.undo()
    assert (tmp_path / "a.bin.partial").stat().st_size == 500


TOY = """
[sets]
toy = ["list", "pictures", "textures", "form"]
[list]
url = "{address}/data/{{}}"
to = "toy/{{}}"
files = {{ "one.json" = "{one}", "two.json" = "" }}
[pictures]
url = "{address}/val.zip"
unpack = {{ "val/" = "coco/val/" }}
holds = {{ "coco/val/*.jpg" = 2 }}
[textures]
url = "{address}/outer.zip"
inner = "deep/textures.tar.gz"
unpack = {{ "dtd/" = "zeroshot/dtd/", "lists/test.txt" = "zeroshot/test.txt" }}
[form]
ask = "Fill in the form at example.org."
holds = {{ "gated/*.png" = 1 }}
"""


def _toy(server: FileServer, tmp_path: Path) -> list[str]:
    one = f"sha256:{hashlib.sha256(b'[1]').hexdigest()}"
    server.add("/data/one.json", b"[1]")
    server.add("/data/two.json", b"[2]")
    server.add("/val.zip", _zip({"val/a.jpg": b"a" * 5000, "val/b.jpg": b"b", "val/../../evil.jpg": b"e", "c": b"c"}))
    inner = _tar({"dtd/images/x.jpg": b"x", "lists/test.txt": b"t", "other/y": b"y"})
    server.add("/outer.zip", _zip({"deep/textures.tar.gz": inner}))
    return ["fetch-data", "toy", *_sources(tmp_path, TOY.format(address=server.address, one=one))]


def test_a_set_is_fetched_unpacked_and_what_needs_a_form_is_reported(
    server: FileServer, tmp_path: Path, capsys: Capture
) -> None:
    words, data = _toy(server, tmp_path), tmp_path / "data"
    assert main(words) == 1  # the form is left
    output = capsys.readouterr()
    assert "form: Fill in the form at example.org." in output.out and "still missing: form" in output.err
    files = {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    record = json.loads(files.pop("downloads/fetched.json"))
    assert files == {
        "toy/one.json": b"[1]", "toy/two.json": b"[2]", "coco/val/a.jpg": b"a" * 5000, "coco/val/b.jpg": b"b",
        "zeroshot/dtd/images/x.jpg": b"x", "zeroshot/test.txt": b"t",
    }  # fmt: skip
    # No digest is known of the second plain file, nor of the archives.
    for name, content in (("two.json", b"[2]"), ("outer.zip", server.files["/outer.zip"].content)):
        assert f"{name} sha256:{hashlib.sha256(content).hexdigest()}" in output.out
    assert "one.json sha256" not in output.out and output.out.count("fetched, not verified") == 3
    assert record["textures"]["check"] == f"sha256:{hashlib.sha256(server.files['/outer.zip'].content).hexdigest()}"
    assert not (tmp_path / "evil.jpg").exists() and {name: row["files"] for name, row in record.items()} == {
        "pictures": 2,
        "textures": 2,
    }
    # Again: nothing is requested, and with the files from the form everything is present.
    requests = len(server.asked)
    (data / "gated").mkdir()
    (data / "gated" / "g.png").touch()
    assert main([*words, "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"there"} and len(server.asked) == requests
    # Of a source of verified files alone there is nothing to say.
    (data / "toy" / "one.json").unlink()
    sources = tmp_path / "sources.toml"
    sources.write_text(sources.read_text().replace(', "two.json" = ""', ""))
    assert main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["state"], first["note"]) == ("fetched", "")


def test_a_dry_run_fetches_and_writes_nothing(server: FileServer, tmp_path: Path, capsys: Capture) -> None:
    assert main([*_toy(server, tmp_path), "--dry-run", "--json"]) == 0
    states = [row["state"] for row in json.loads(capsys.readouterr().out)]
    assert states == ["missing", "missing", "missing", "ask"] and server.asked == []
    assert not (tmp_path / "data").exists()


def test_what_an_archive_of_another_address_held_is_fetched_again(
    server: FileServer, tmp_path: Path, capsys: Capture
) -> None:
    """Only its record says that an archive without a count of files was unpacked."""
    words = _toy(server, tmp_path)
    assert main(words) == 1
    capsys.readouterr()
    file = next(Path(word) for word in words if word.endswith(".toml"))
    for name, state in (("outer.zip", "there"), ("newer.zip", "missing")):
        file.write_text(file.read_text().replace("outer.zip", name))
        assert main([*words, "--dry-run", "--json"]) == 0
        states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
        assert states["textures"] == state


def test_what_must_be_requested_is_not_there_only_because_no_files_are_named(tmp_path: Path, capsys: Capture) -> None:
    words = ["fetch-data", "toy", *_sources(tmp_path, "[sets]\ntoy = ['form']\n[form]\nask = 'Write to them.'\n")]
    assert main([*words, "--dry-run", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["note"]) == ("ask", "Write to them.")


def test_one_source_that_fails_stops_no_other(server: FileServer, tmp_path: Path, capsys: Capture) -> None:
    words, data = _toy(server, tmp_path), tmp_path / "data"
    (data / "toy").mkdir(parents=True)
    (data / "toy" / "one.json").write_text("[3]")
    server.files["/val.zip"].content = _zip({"val/a.jpg": b"a"})
    assert main(words) == 1
    output = capsys.readouterr()
    assert "2 of 4 sources failed: list, pictures" in output.err
    assert "exists but is not the published file" in output.out and "only 1 file of the 2 published" in output.out
    assert (data / "toy" / "one.json").read_text() == "[3]" and (data / "zeroshot" / "test.txt").is_file()


def test_what_is_half_there_is_missing_and_is_completed(server: FileServer, tmp_path: Path, capsys: Capture) -> None:
    words, data = _toy(server, tmp_path), tmp_path / "data"
    server.files["/data/one.json"].content = b"[9]"
    assert main([*words, "--no-archives", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["failed", "missing", "missing", "ask"]
    assert "but must be" in rows[0]["note"] and not (data / "toy" / "one.json").exists()
    server.files["/data/one.json"].content = b"[1]"
    main(words)
    # One of several files is gone; and an archive without a file count was not unpacked completely: no record.
    (data / "toy" / "two.json").unlink()
    (data / "downloads" / "fetched.json").unlink()
    server.asked.clear()
    capsys.readouterr()
    main([*words, "--dry-run", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["missing", "there", "missing", "ask"]
    assert [row["places"] for row in rows] == [["toy/*"], ["coco/val/*.jpg"], ["zeroshot/dtd/"], ["gated/*.png"]]
    main(words)
    assert (data / "toy" / "two.json").is_file() and len(server.asked) == 2
    # Unpacked files that are gone count as missing.
    shutil.rmtree(data / "zeroshot" / "dtd")
    capsys.readouterr()
    main([*words, "--dry-run", "--json"])
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["there", "there", "missing", "ask"]


def test_a_damaged_archive_is_reported(server: FileServer, tmp_path: Path, capsys: Capture) -> None:
    words = _toy(server, tmp_path)
    packed = bytearray(server.files["/val.zip"].content)
    packed[100] ^= 255
    server.files["/val.zip"].content = bytes(packed)
    server.files["/outer.zip"].content = b"no archive"
    assert main(words) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "val.zip: is damaged (Bad CRC-32" in output and "outer.zip: is damaged" in output
    shutil.rmtree(tmp_path / "data")
    server.files["/val.zip"].content = server.files["/outer.zip"].content = _zip({"other/a.jpg": b"a"})
    assert main(words) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "val.zip: has no member that starts with val/" in output
    assert "outer.zip: has no member that starts with deep/textures.tar.gz" in output


def test_a_file_of_another_size_is_unpacked_again(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(_zip({"val/a.jpg": b"whole", "val/b.jpg": b"other"}))
    (tmp_path / "a.jpg").write_bytes(b"who")
    (tmp_path / "b.jpg").write_bytes(b"whole")
    assert unpack_archive(tmp_path / "a.zip", tmp_path, moves={"val/": ""}) == 2
    assert [(tmp_path / name).read_bytes() for name in ("a.jpg", "b.jpg")] == [b"whole", b"whole"], "b.jpg was complete"


def test_a_place_that_cannot_be_unpacked_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(_zip({"val/a.jpg": b"a"}))
    (tmp_path / "coco" / "a.jpg").mkdir(parents=True)
    with pytest.raises(DeglaError, match=r"coco/a\.jpg: cannot be written: .* Choose another --root\."):
        unpack_archive(tmp_path / "a.zip", tmp_path, moves={"val/": "coco/"})


def test_too_little_space_is_reported_before_a_byte_comes(
    server: FileServer, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/big.zip", _zip({"val/a.jpg": b"a"}))
    text = f"[sets]\nbig = ['zip']\n[zip]\nurl = '{server.address}/big.zip'\nabout = 5_000_000_000\n"
    words = _sources(tmp_path, text + 'unpack = { "val/" = "val/" }\n')
    usage = shutil.disk_usage(tmp_path)._replace(free=9_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert main(["fetch-data", "big", *words]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "10.0 GB are needed for big.zip and its contents, but 9.0 GB are free" in output and server.asked == []
    # Bytes already fetched need no space.
    partial = tmp_path / "data" / "downloads" / "big.zip.partial"
    with partial.open("wb") as stream:
        stream.truncate(500_000_000)
    assert main(["fetch-data", "big", *words]) == 1
    assert "9.5 GB are needed" in capsys.readouterr().out.replace("\n", " ")
    # A file that is not unpacked needs only its own size.
    server.add("/big.txt", b"text")
    text = text.replace("/big.zip", "/big.txt") + "to = 'big.txt'\n"
    assert main(["fetch-data", "big", *_sources(tmp_path, text)]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sets]\ntoy = ['nothing']\n", "set 'toy' lists 'nothing'"),
        ("[sets]\ntoy = ['a']\n[a]\nask = 'x'\nurl = 'http://x/'\n", "give either 'url', or 'ask'"),
        ("[sets]\ntoy = ['a']\n[a]\nurl = 'http://x/'\nto = '../a'\n", "paths must stay under the root"),
        (
            "[sets]\ntoy = ['a']\n[a]\nurl = 'http://x/{}'\nto = '.{}/.{}/a'\n[a.files]\n'.' = ''\n",
            "paths must stay under the root",
        ),
        ("[sets]\ntoy = ['a']\n[a]\nurl = 'http://x/'\n", "give either 'to' for files, or 'unpack' for an archive"),
        ("[sets]\ntoy = ['a']\n[a]\nurl = 'http://x/'\nto = 'a'\nunpack = { b = 'c' }\n", "give either 'to' for files"),
        ("[sets]\ntoy = ['a']\n[a]\nurl = 'http://x/{}'\nto = 'a'\nfiles = { b = '' }\n", "'url' and 'to' need {}"),
        ("[sets]\ntoy = ['a']\n[a]\nurl = 'ftp://x/'\nto = 'a'\n", "field 'url'"),
        ("[sets]\ntoy = ['a']\na = ['b']\nb = ['toy']\n", "a set lists itself: "),
        ("[sets]\ntoy = ['']\n", "set 'toy' lists '', which is not a source or another set"),
        ("[sets\n", "not TOML"),
    ],
)
def test_wrong_sources_are_refused(tmp_path: Path, capsys: Capture, text: str, message: str) -> None:
    assert main(["fetch-data", "toy", *_sources(tmp_path, text)]) == 2
    assert message in capsys.readouterr().err


def test_an_archive_stays_in_its_folder(server: FileServer, tmp_path: Path) -> None:
    url = server.add("/a.zip?id=/../../../b/c", _zip({"x": b"text"}))
    text = f"[sets]\ntoy = ['a']\n[a]\nurl = '{url}'\nunpack = {{ x = 'x' }}\n"
    assert main(["fetch-data", "toy", *_sources(tmp_path, text)]) == 0
    assert not (tmp_path / "b").exists()  # Which `id` would lead to.


def test_an_unknown_name_and_a_missing_root(tmp_path: Path, capsys: Capture) -> None:
    assert main(["fetch-data", "sugarcrep", "--root", str(tmp_path)]) == 2
    assert "no sources are known for 'sugarcrep'. Did you mean 'sugarcrepe'? Known: " in capsys.readouterr().err
    assert main(["fetch-data", "own", "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "own: cannot be downloaded by degla. Get it from captions of your own" in error
    assert "own/NAME.jsonl" in error
    (tmp_path / "file").touch()
    assert main(["fetch-data", "sugarcrepe", "--root", str(tmp_path / "file")]) == 2
    assert "file: cannot be written: Not a directory. Choose another --root." in capsys.readouterr().err
    assert main(["fetch-data", "sugarcrepe"]) == 2
    assert "--root DATA is missing" in capsys.readouterr().err
    assert main(["fetch-data"]) == 0
    listed = capsys.readouterr().out
    assert "sugarcrepe" in listed and "winoground" in listed


def test_the_table_names_files_where_the_readers_look(tmp_path: Path) -> None:
    sources = read_sources()
    for name in ("sugarcrepe", "sugarcrepe_pp", "valse", "aro", "cola", "retrieval"):
        layout = BENCHMARKS.load(name).BENCHMARK
        places = [file.to for source in sources.of(name).values() for file in source.downloads if file.to]
        for pattern in layout.annotations[:1]:
            folder = pattern.partition("/")[0]
            assert any(place.startswith(folder + "/") for place in places), (name, pattern)
    for name in sources.sets["paper"]:
        assert sources.of(name)
    with pytest.raises(InputError, match="no sources are known"):
        sources.of("nonsense")


@pytest.mark.skipif(not OFFICIAL, reason="the official files are not in ../shared/data")
def test_digests_are_those_of_the_official_files() -> None:
    sources = read_sources()
    for name in ("sugarcrepe_annotations", "sugarcrepe_pp_annotations", "valse_annotations", "cola_annotations"):
        for file in sources.table[name].downloads:
            assert file.check == f"sha256:{hashlib.sha256((SHARED / file.to).read_bytes()).hexdigest()}"
