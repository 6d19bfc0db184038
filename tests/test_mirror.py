"""Outputs at addresses: continued after a kill at any moment, with cut connections, and complete at the end."""

from __future__ import annotations

import errno
import json
import random
import threading
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest

from degla import mirror, remote
from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.files import LineFile
from degla.mirror import written_to
from degla.negatives.files.pack import read_manifest
from degla.negatives.llm.scripted import ScriptedModel
from degla.passwords import without_passwords
from degla.records import write_jsonl
from tests.negatives.scripted_runs import many, records, run, varied
from tests.tiny import write_classes

NAMES = ("n.jsonl", "n.jsonl.manifest.json", "n.jsonl.replies.jsonl")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> fsspec.AbstractFileSystem:
    """fsspec's file system in memory, empty, and an empty cache."""
    files = fsspec.filesystem("memory")
    monkeypatch.setattr(type(files), "store", {})
    monkeypatch.setattr(type(files), "pseudo_dirs", [""])
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    remote.forget()
    return files


def content(name: str, read: Any) -> object:
    """What must be equal however often a run was killed: the manifest also holds the time."""
    text = read(name)
    return {**json.loads(text), "started": ""} if "manifest" in name else sorted(text.splitlines())


def test_negatives_at_an_address_are_those_here_after_a_kill_at_any_moment(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves what had been copied; another machine, whose disk is empty, goes on with that."""
    monkeypatch.setattr("degla.negatives.run.stream.BATCH", 40)
    texts = many(50)
    run(tmp_path / "n.jsonl", ScriptedModel(varied), texts)
    monkeypatch.setattr(mirror._OutputMirror, "_copy_often", lambda self: None)
    begin, append, put = mirror._OutputMirror.__enter__, LineFile.append, mirror.put
    moments: list[dict[str, Any]] = []

    def begun(self: Any) -> Any:
        numbers = count()

        def append_and_copy(file: LineFile, lines: Any) -> None:
            append(file, lines)
            if next(numbers) % 2 == 0:  # Both files have grown.
                self._try()

        monkeypatch.setattr(LineFile, "append", append_and_copy)
        return begin(self)

    def noted(*arguments: Any) -> None:
        put(*arguments)
        moments.append(deepcopy(memory.store))

    monkeypatch.setattr(mirror._OutputMirror, "__enter__", begun)
    monkeypatch.setattr(mirror, "put", noted)
    with written_to("memory://far/n.jsonl") as out:
        run(out, ScriptedModel(varied), texts)
    assert not out.parent.exists(), "what is at the address does not stay here, too"
    assert len(moments) > 8
    for moment in moments[:: -(-len(moments) // 12)]:
        monkeypatch.setattr(type(memory), "store", deepcopy(moment))
        remote.forget()
        with written_to("memory://far/n.jsonl") as out:
            run(out, ScriptedModel(varied), texts)
        for name in NAMES:
            there = content(name, lambda name: memory.cat(f"/far/{name}").decode())
            assert there == content(name, lambda name: (tmp_path / name).read_text()), name


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror._OutputMirror, "_copy_often", lambda self: None)


@pytest.mark.usefixtures("no_thread")
@pytest.mark.parametrize(("there", "seen"), [(None, "here"), (b"from elsewhere", "from elsewhere"), (b"he", "he")])
def test_what_a_killed_command_left_here_goes_first_unless_another_machine_went_on(
    there: bytes | None, seen: str, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "memory://far/n.jsonl"
    with monkeypatch.context() as patch, written_to(address) as out:
        out.write_text("first")
        out.with_name("n.jsonl.partial").write_text("not whole")
        patch.setattr(mirror.shutil, "rmtree", lambda *arguments, **more: None)
    assert [Path(name).name for name in memory.find("/far")] == ["n.jsonl"]
    out.write_text("here")
    if there is not None:
        memory.pipe("/far/n.jsonl", there)
        remote.forget()
    with written_to(address) as out:
        assert memory.cat("/far/n.jsonl").decode() == out.read_text() == seen
    assert not out.parent.exists()


@pytest.mark.usefixtures("no_thread")
@pytest.mark.parametrize("name", ["n.jsonl", "n.jsonl.manifest.json", "folder"])
@pytest.mark.parametrize("there", [False, True])
def test_what_another_machine_wrote_meanwhile_is_not_overwritten(
    name: str, there: bool, memory: fsspec.AbstractFileSystem
) -> None:
    address, name = ("memory://far/n", "n/a.json") if name == "folder" else ("memory://far/n.jsonl", name)
    if there and "/" not in name:
        memory.pipe(f"/far/{name}", b"before")
    told = rf"/far/{name}: another process, .* The output itself is complete in"
    with pytest.raises(DeglaError, match=told), written_to(address) as out:
        file = out.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
        if name == "n/a.json":
            file.with_name("b.json").write_text("mine")
        memory.pipe(f"/far/{name}", b"of another")
    assert file.read_text() == "mine" and memory.cat(f"/far/{name}") == b"of another"
    assert not memory.exists("/far/n/b.json"), "a folder of both is nobody's"
    beside = "memory://far/other.html"
    memory.pipe("/far/other.md", b"before")
    with written_to(beside) as out:  # A file beside it, which is not fetched, is replaced as here.
        out.with_suffix(".md").write_text("mine")
    assert memory.cat("/far/other.md") == b"mine"


@pytest.mark.usefixtures("no_thread")
@pytest.mark.parametrize(("name", "sent"), [(NAMES[0], 0), (NAMES[0], 3), (NAMES[0], 6), (NAMES[1], 0), (NAMES[1], 3)])
def test_a_kill_while_files_are_copied_loses_no_row_here(
    name: str, sent: int, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not write atomically keeps what had arrived of the file, here `sent` bytes."""
    put = mirror.put

    def killed(source: Any, address: str) -> None:
        if address.endswith(name):
            if sent:
                put(Path(source).read_bytes()[:sent], address)
            raise KeyboardInterrupt
        put(source, address)

    with monkeypatch.context() as patch:
        patch.setattr(mirror.shutil, "rmtree", lambda *arguments, **more: None)
        with written_to("memory://far/n.jsonl") as out:
            out.with_name(NAMES[1]).write_text("{older}")
        with pytest.raises(KeyboardInterrupt), written_to("memory://far/n.jsonl") as out:
            out.write_text("1\n2\n3\n")
            out.with_name(NAMES[1]).write_text("{new}")
            patch.setattr(mirror, "put", killed)
    with written_to("memory://far/n.jsonl") as out:
        assert out.read_text() == memory.cat("/far/n.jsonl").decode() == "1\n2\n3\n"
        assert memory.cat(f"/far/{NAMES[1]}") == b"{new}"


@pytest.mark.usefixtures("no_thread")
def test_a_kill_while_a_finished_output_is_deleted_here_loses_nothing_at_the_address(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mirror.shutil, "rmtree", lambda *arguments, **more: None)
        with written_to("memory://far/n.jsonl") as out:
            out.write_text("finished")
    out.unlink()
    with written_to("memory://far/n.jsonl") as out:
        assert out.read_text() == "finished"
    assert memory.cat("/far/n.jsonl") == b"finished"


@pytest.mark.usefixtures("no_thread")
def test_a_copy_that_fills_the_disk_is_not_kept(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(KeyboardInterrupt), written_to("memory://far/n.jsonl") as out:
        out.write_text("first")
        monkeypatch.setattr(mirror.shutil, "copyfile", full)
        raise KeyboardInterrupt
    assert out.read_text() == "first" and not (out.parent / ".sent").exists() and not memory.find("/far")
    said = remote.in_addresses(caplog.messages[-1])
    assert f"{tmp_path / 'cache' / 'outputs'}: cannot be written: the disk is full." in said, "not that of the address"


@pytest.mark.parametrize("name", ["..", ".lock", ".sent", "n.jsonl.partial"])
def test_a_name_of_files_here_is_refused(name: str, memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    other = tmp_path / "cache" / "outputs" / "other"
    other.mkdir(parents=True)
    with (
        pytest.raises(InputError, match="must not begin with a dot or end"),
        written_to(f"memory://f/{name}"),
    ):
        pass
    assert other.exists() and not memory.find("/")


@pytest.mark.usefixtures("no_thread")
def test_a_copy_holds_no_row_whose_reply_is_not_there(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files grow while they are copied, and a kill may come between them."""
    put, order = mirror.put, []

    def grow(*arguments: Any) -> None:
        for path in (journal, out):
            with path.open("a") as stream:
                stream.write("2\n")
        put(*arguments)
        order.append(arguments[1])

    with pytest.raises(KeyboardInterrupt), written_to("memory://far/n.jsonl") as out:
        journal = out.with_name("n.jsonl.replies.jsonl")
        for path in (journal, out):
            path.write_text("1\n")
        monkeypatch.setattr(mirror, "put", grow)
        raise KeyboardInterrupt
    assert {memory.cat(path) for path in memory.find("/far")} == {b"1\n"}
    assert not out.parent.exists()
    assert order == ["memory://far/n.jsonl.replies.jsonl", "memory://far/n.jsonl"]


def test_a_file_that_grows_is_copied_time_and_again(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_SECONDS", 0.01)
    copied, put = threading.Event(), mirror.put
    monkeypatch.setattr(mirror, "put", lambda *arguments: (put(*arguments), copied.set()))
    with written_to("memory://far/n.jsonl") as out:
        for text in ("one", "two"):
            copied.clear()
            out.write_text(text)
            assert copied.wait(60) and memory.cat("/far/n.jsonl").decode() == text


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    captions = tmp_path / "c.jsonl"
    captions.write_text('{"id": "1", "image": "a.jpg", "text": "a black dog chases a white cat"}\n')
    words = ["negatives", str(captions), "--workers", "1", "--out"]
    assert main([*words, str(tmp_path / "n.jsonl")]) == 0
    return words


def test_cut_connections(
    command: list[str], memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, cuts = random.Random(0), []
    kept = {name: getattr(type(memory), name) for name in ("info", "pipe_file", "put_file", "find", "rm_file")}
    for name in kept:

        def cut(*arguments: Any, name: str = name, **more: Any) -> Any:
            if chance.random() < 0.5:
                cuts.append(1)
                raise ConnectionResetError("reset")
            return kept[name](*arguments, **more)

        monkeypatch.setattr(type(memory), name, cut)
    assert main([*command, "memory://far/n.jsonl"]) == 0 and len(cuts) > 2
    assert memory.store["/far/n.jsonl"].getvalue() == (tmp_path / "n.jsonl").read_bytes()


def test_a_server_that_goes_away_leaves_the_output_here_and_the_next_command_copies_it(
    command: list[str], memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    put = mirror.put

    def away(content: Any, address: str) -> None:
        if not address.endswith(".writable"):
            raise remote.RemoteError(f"{address}: reset, 10 times in a row.")
        put(content, address)

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "put", away)
        assert main([*command, "memory://far/n.jsonl"]) == 1
    (here,) = (tmp_path / "cache").rglob("n.jsonl")
    printed = capsys.readouterr().err
    assert f"reset, 10 times in a row. The output itself is complete in {here.parent}. Copy it" in printed
    assert here.read_bytes() == (tmp_path / "n.jsonl").read_bytes() and not memory.find("/far")
    lines: list[str] = []
    monkeypatch.setattr(mirror.log, "info", lambda line, *values: lines.append(remote.in_addresses(line % values)))
    for _ in range(2):
        assert main([*command, "memory://far/n.jsonl"]) == 0
    assert lines[::2] == [f"the output is stored in {here.parent} and copied to memory://far/n.jsonl"] * 2
    assert memory.cat("/far/n.jsonl") == (tmp_path / "n.jsonl").read_bytes()


@pytest.mark.usefixtures("no_thread")
def test_an_output_is_complete_where_it_may_be_written_but_not_read(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(address: str) -> str:
        raise remote.AccessError(f"{address}: access denied.")

    monkeypatch.setattr(mirror, "state_of", denied)
    with written_to("memory://far/n.jsonl") as out:
        out.write_text("all")
    assert memory.cat("/far/n.jsonl") == b"all" and not out.parent.exists()


def test_what_commands_write_at_an_address_is_what_they_write_here(
    memory: fsspec.AbstractFileSystem, tiny_pairs: dict[str, Path], tiny_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Names of the files, and no name of the folder of the cache in them or in what is printed."""
    write_classes(tmp_path)
    captions, images = str(tiny_pairs["captions"]), str(tiny_pairs["images"])
    zeroshot = ["--benchmarks", "zeroshot", "--root", str(tmp_path), "--device", "cpu"]
    for words, out in (
        (["negatives", captions, "--workers", "1"], "n.jsonl"),
        (["pack", captions, "--images", images], "shards"),
        (["prepare", "units", captions], "units.jsonl"),
        (["prepare", "composites", captions, "--images", images, "--size", "64"], "composites"),
        (["export", str(tiny_model), "--to", "open_clip"], "exported"),
        (["evaluate", str(tiny_model), *zeroshot], "r.json"),
        (["evaluate", str(tiny_model), "random", *zeroshot], "both.json"),
        (["report", str(tmp_path / "r.json")], "report.html"),
    ):
        assert main([*words, "--out", str(tmp_path / out)]) == 0, capsys.readouterr().err
        capsys.readouterr()
        assert main([*words, "--out", f"memory://far/{out}"]) == 0, capsys.readouterr().err
        printed = capsys.readouterr()
        assert caplog.messages[-1] == f"copied to memory://far/{out}"
        assert "cache/outputs" not in printed.out + printed.err
    here = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    there = {name.removeprefix("/far/"): memory.cat(name) for name in memory.find("/far")}
    for name, content in there.items():
        assert b"cache/outputs" not in content
        if name.startswith(("n.jsonl", "shards", "units", "composites")) and "manifest" not in name:
            assert content == here[name].read_bytes(), name
    ours = ("n.jsonl", "shards", "units", "composites", "exported", "r.", "both-", "report.")
    assert set(there) == {name for name in here if name.startswith(ours) and not name.endswith(".lock")}

    # And what is there is read as what is here.
    assert main(["report", "memory://far/r.json", "--out", "memory://far/report.html"]) == 0
    memory.put(str(images), "/images", recursive=True)
    assert main(["pack", captions, "--images", "memory://images", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "captions.jsonl").read_bytes() == there["shards/captions.jsonl"]
    assert main(["negatives", "pack", "memory://far/n.jsonl", "--out", "memory://far/n.parquet"]) == 0
    manifests = [read_manifest(Path(f"memory://far/n.{ending}")) for ending in ("jsonl", "parquet")]
    assert manifests[0] == manifests[1] == json.loads(there["n.jsonl.manifest.json"])
    assert read_manifest(Path("memory://far/units.jsonl")) is None


def test_an_address_that_cannot_be_written_is_refused_before_the_work(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("degla.negatives.generate.generate", lambda *_, **__: pytest.fail("the work has begun"))
    memory.pipe("/far/shards/0.tar", b"x")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("x")

    negatives = ["negatives", "no/captions.jsonl", "--out"]
    assert main([*negatives, "memory://far/shards/0.jsonl", "--dry-run"]) == 2
    assert "no/captions.jsonl: no such" in capsys.readouterr().err
    for words, message in (
        (
            [*negatives, "memory://far/shards"],
            "memory://far/shards: is a folder that holds files. Choose another --out.",
        ),
        ([*negatives, "memory://far/shards", "--dry-run"], "memory://far/shards: is a folder that holds files. "),
        ([*negatives, "memory://far/.n.jsonl", "--dry-run"], "a name must not begin with a dot"),
        ([*negatives, "https://far/n.jsonl", "--dry-run"], "https://far/n.jsonl: is only read at http addresses."),
        ([*negatives, "memory://far/n.jsonl"], "memory://far/n.jsonl: cannot be written: access denied. "),
    ):
        if words[-1].endswith("/n.jsonl"):
            monkeypatch.setattr(type(memory), "pipe_file", refused)
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert memory.find("/far") == ["/far/shards/0.tar"]


def test_a_server_that_deletes_nothing_is_refused_and_the_file_that_tried_it_is_named(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("x")

    monkeypatch.setattr(type(memory), "rm_file", refused)
    message = r"^memory://f/n: memory://f/n\.writable was written to try it and cannot be deleted: access denied\. "
    with pytest.raises(InputError, match=message), written_to("memory://f/n"):
        pass


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "file"))
    message = r"file/outputs/.*: cannot be written: Not a directory\. Set the environment variable DEGLA_CACHE\.$"
    with pytest.raises(InputError, match=message), written_to("memory://f/n"):
        pass


def test_a_token_in_the_place_of_a_user_is_left_out() -> None:
    text = "https://secret@far/a.jsonl and https://far/a@b?c=d@e, abfs://container@account/x"
    assert without_passwords(text) == text.replace("secret@", "")


def test_no_message_names_a_password(
    command: list[str], memory: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "memory://me:secret@far/n.jsonl"
    assert main([*command, address]) == main([*command, f"{address}.jsonl"]) == 0
    assert main(["pack", address, "--images", f"{address}/", "--out", "memory://me:secret@far/n"]) == 2
    assert main(["negatives", address, "--out", address]) == 2
    printed = capsys.readouterr()
    assert "memory://far/n.jsonl: this command reads it" in printed.err and "secret" not in printed.err + printed.out
    assert not [name for name in memory.find("/") if b"secret" in memory.cat(name)]


@pytest.mark.usefixtures("no_thread")
def test_only_what_belongs_to_an_output_is_fetched(memory: fsspec.AbstractFileSystem) -> None:
    """A model's folder may lie beside its weights, a file beside a packed copy of it."""
    for name in (*NAMES, "n-1.jsonl", "n.tar", "n.jsonl.gz", "n.jsonl.partial.d/x.json", "n-old.jsonl", "n.json"):
        memory.pipe(f"/far/{name}", b"x")
    with written_to("memory://far/n") as out:
        assert {path.name for path in out.parent.iterdir()} == {".lock", ".there.json"} | {*NAMES[1:]}
    with written_to("memory://far/n.jsonl") as out:
        assert {path.name for path in out.parent.iterdir()} == {".lock", ".there.json", *NAMES, "n-1.jsonl"}


@pytest.mark.usefixtures("no_thread")
def test_a_folder_whose_copy_was_killed_is_named(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = mirror.put

    def killed(source: Any, address: str) -> None:
        if address.endswith("last"):
            raise KeyboardInterrupt
        put(source, address)

    monkeypatch.setattr(mirror, "put", killed)
    with pytest.raises(KeyboardInterrupt), written_to("memory://far/shards") as out:
        out.mkdir()
        for name in ("first", "last"):
            (out / name).write_text(name)
    with (
        pytest.raises(InputError, match=rf"Choose another --out\. What a .* killed wrote is in {out}\.$"),
        written_to("memory://far/shards"),
    ):
        pass
    assert (out / "last").exists()


def test_two_commands_on_one_machine_do_not_write_to_one_address(memory: fsspec.AbstractFileSystem) -> None:
    with (
        written_to("memory://far/n.jsonl"),
        pytest.raises(InputError, match=r"in use by process \d+ .*another --out"),
        written_to("memory://far/n.jsonl"),
    ):
        pass


def test_negatives_at_an_address_are_balanced(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    texts = many(4)
    run(tmp_path / "n.jsonl", ScriptedModel(varied), texts)
    write_jsonl(tmp_path / "c.jsonl", records(texts))
    memory.pipe("/far/n.jsonl", (tmp_path / "n.jsonl").read_bytes())
    entries = []
    for number, file in enumerate(("memory://far/n.jsonl", str(tmp_path / "n.jsonl"))):
        out = tmp_path / f"b{number}.jsonl"
        words = ["negatives", "balance", file, "--captions", str(tmp_path / "c.jsonl"), "--out", str(out)]
        assert main([*words, "--text-only-rule", "1"]) == 0
        entries.append(json.loads((tmp_path / f"{out.name}.manifest.json").read_text())["balanced"])
    assert entries[0] == entries[1]
