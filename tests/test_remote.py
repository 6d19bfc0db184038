"""Remote files: reading, writing and listing through fsspec, interrupted connections, and remote runs."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import random
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, product
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import torch
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image
from safetensors.torch import load_file, save_file

import degla
from degla import mirror, remote
from degla.cli import main
from degla.config.fields import place, read_config
from degla.config.sections import StopConfig, ValidationConfig
from degla.data import plan, shards
from degla.data.decoding import ImageError, Subject
from degla.data.images import locate, read_bytes
from degla.data.places import base_of
from degla.data.sources import read_captions
from degla.errors import DeglaError, InputError
from degla.evaluation.image_files import has_image
from degla.evaluation.models import load_floor, load_model
from degla.evaluation.overlap import training_images
from degla.losses.core import Processes
from degla.model import address
from degla.model.address import RunMirror, bring_here, folder_here, folder_of_run
from degla.model.integrity import STATE_NAME, write_state
from degla.model.load import load_encoder
from degla.model.runs import WEIGHTS_NAME, checkpoints
from degla.negatives.files.caption_index import CaptionIndex
from degla.processes import ProcessGroup
from degla.records import CaptionRecord
from degla.screening import require_images
from degla.training import loop
from degla.training import pairs as training_pairs
from degla.training.loop import train
from degla.training.rows import read_pairs
from degla.training.validation import Validation
from tests.data.test_shards import write_shards
from tests.evaluation.published_layouts import COLOURS, encoded, write_tar
from tests.training.configs import cut_off, interrupted, tiny_config, train_in

Pairs = dict[str, Path]
IMAGE = encoded(COLOURS[0])


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    remote.forget()
    yield files
    files.store.clear()
    remote.forget()


def test_an_address_is_known_as_a_path_too() -> None:
    for text in ("s3://bucket/a b/c.jsonl", "https://host:80/x", "memory://x/y"):
        assert remote.address_of(text) == remote.address_of(Path(text)) == remote.display_path(Path(text)) == text
    for text in ("/s3:/x", "dataset:/x#image/3", "c:/x", "x.tar@512+3", "s3:", "./http:/x"):
        assert remote.address_of(text) is None
    assert place({"data.captions": "gs://b/c.jsonl", "out": "run"}, Path("f")) == {
        "data.captions": "gs://b/c.jsonl",
        "out": "f/run",
    }
    told = remote.in_addresses("s3:/b/x.jsonl, 's3://b/y': no file of /home/s3:/b, ./http:/x or gs:/ is read")
    assert told == "s3://b/x.jsonl, 's3://b/y': no file of /home/s3:/b, ./http:/x or gs:/ is read"
    told = remote.in_addresses(
        "https://h/x?a=1&X-Amz-Signature=s3cr%3Det: no, 'az://c/x?sig=s/e=cret', (s3:/b/x?token=s)."
    )
    assert told == "https://h/x?a=1&X-Amz-Signature=...: no, 'az://c/x?sig=...', (s3://b/x?token=...)."
    with pytest.raises(InputError, match=r"^s3://: names no file\. Write s3://BUCKET/NAME\.$"):
        place({"data.captions": "s3://"}, Path("f"))
    assert locate("http://elsewhere/x.png", Path()) == str(Path.cwd() / "http:/elsewhere/x.png"), (
        "a record asked for it"
    )


def test_what_is_remembered_of_a_file_goes_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes within one tick of the clock have the same time, so files that fresh are read again."""
    file, reads = tmp_path / "a", []

    @remote.remembered(2)
    def content(path: Path) -> bytes:
        reads.append(path)
        return path.read_bytes()

    def write(words: bytes, changed: int) -> None:
        file.write_bytes(words)
        os.utime(file, ns=(changed, changed))

    write(b"one", 0)
    assert content(file) == content(file) == b"one" and len(reads) == 1
    write(b"two", 10**9)
    assert content(file) == b"two"
    monkeypatch.setattr(remote, "_TICK", 10**13)
    now = time.time_ns()
    write(b"six", now)
    assert content(file) == b"six"
    write(b"ten", now)
    assert content(file) == b"ten"
    file.unlink()
    with pytest.raises(InputError, match=r"a: cannot be read: No such file or directory\. Fetch the file again"):
        content(file)


def test_a_file_that_changes_between_two_calls_is_read_anew(memory: fsspec.AbstractFileSystem) -> None:
    for number in (1, 22):
        row = {"id": str(number), "image": "a.jpg", "text": "a dog"}
        memory.pipe("/d/c.jsonl", json.dumps(row).encode())
        assert [caption.id for caption in degla.read_captions("memory://d/c.jsonl")] == [str(number)]


def test_an_image_that_changes_between_two_calls_is_read_anew(memory: fsspec.AbstractFileSystem) -> None:
    model = load_floor("random")
    for size in (40, 80):  # Of the larger one, as many bytes as of the smaller one were read.
        content = io.BytesIO()
        Image.new("RGB", (size, size)).save(content, "BMP")
        memory.pipe("/d/a.bmp", content.getvalue())
        assert len(degla.encode_images(model, ["memory://d/a.bmp"])) == 1


def test_captions_and_pictures_at_addresses(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", {"k.png": IMAGE, "k.txt": f"number {number}".encode()})
        memory.pipe(f"/d/shards/{number}.tar", (tmp_path / f"{number}.tar").read_bytes())
    for name in ("shards", "shards/{0..1}.tar", "shards/*.tar"):
        captions = list(read_captions(Path(f"memory://d/{name}")))
        assert [(each.id, each.text) for each in captions] == [("0/k", "number 0"), ("1/k", "number 1")]
    assert read_bytes(locate(captions[1].image, Path("memory://d/shards")), Subject("x")) == IMAGE
    with pytest.raises(ImageError, match=r"^x cannot be read: the shard ends before"):
        read_bytes("memory:/d/shards/0.tar@512+99999", Subject("x"))
    with pytest.raises(ImageError, match=r"memory://d/none\.png: no such file"):
        read_bytes("memory:/d/none.png", Subject("x"))
    for name in ("bad.tar", "bad.parquet"):
        memory.pipe(f"/d/{name}", b"x" * 2000)
    for wrong, message in (
        ("https://host/c.jsonl?download=true", r"^https://host/c\.jsonl\?download=true: has a query"),
        ("memory://d/none.jsonl", r"memory://d/none\.jsonl: no such file"),
        ("memory://d/none-*.tar", r"^memory://d/none-\*\.tar: no file matches this pattern"),
        ("memory://d/shards/2.tar", r"memory://d/shards/2\.tar: no such file"),
        ("memory://d/other", r"^memory://d/other: no such file or folder, or nothing in it\."),
        ("memory://d/bad.tar", r"^memory://d/bad\.tar: cannot be read as an uncompressed tar"),
        ("memory://d/bad.parquet", r"^memory://d/bad\.parquet: not a valid Parquet file"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_captions(Path(wrong)))


def test_what_is_wrong_in_a_fetched_file_is_told_with_its_address(
    memory: fsspec.AbstractFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where a server answers with its page to log in."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    memory.pipe("/d/c.jsonl", b"<html>")
    assert main(["prepare", "rows", "clip", "--data.captions", "memory://d/c.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("degla: memory://d/c.jsonl line 1: not JSON")


def test_what_another_try_would_not_mend(monkeypatch: pytest.MonkeyPatch, memory: fsspec.AbstractFileSystem) -> None:
    class NoCredentialsError(Exception):
        pass

    class ParamValidationError(Exception):
        pass

    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    for error, message in (
        (NoCredentialsError("x"), "no credentials.*AWS_ACCESS_KEY_ID"),
        (PermissionError("x"), "access denied"),
        (ParamValidationError("Invalid bucket name."), r"memory://a: Invalid bucket name\.$"),
        (ImportError("Install s3fs"), r"Install s3fs.*pip install 'degla\[remote\]'"),
        (ConnectionResetError("reset"), r"reset, 10 times in a row"),
    ):
        calls = []

        def fail(*_: object, error: Exception = error, calls: list[int] = calls, **__: object) -> bytes:
            calls.append(1)
            raise error

        monkeypatch.setattr(type(memory), "info", fail)
        with pytest.raises(DeglaError, match=message) as caught:
            remote.size_of("memory://a")
        assert "memory://a" in str(caught.value) and "\n" not in str(caught.value)
        assert len(calls) == (remote.TRIES if isinstance(error, ConnectionResetError) else 1)
    monkeypatch.setattr(remote, "_SECONDS", -1.0)  # As if the library itself had retried for a long time.
    with pytest.raises(DeglaError, match=r"reset, 1 times in a row"):
        remote.size_of("memory://a")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"remote files need fsspec, which is not installed.*degla\[remote\]"):
        remote.size_of("memory://a")


def test_an_answer_of_too_few_bytes_is_asked_for_again(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, answers, whole = bytes(range(256)), count(), memory.cat_file
    memory.pipe("/d/x", content)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)

    def short(self: object, path: str, start: int, end: int) -> bytes:
        return whole(path, start, end)[: -1 if next(answers) < 2 else None]

    monkeypatch.setattr(type(memory), "cat_file", short)
    assert remote.read_range("memory://d/x", 10, 100) == content[10:100] and next(answers) == 3
    assert remote.read_range("memory://d/x", 250, 300) == content[250:], "the file ends there"


def test_a_file_that_changes_while_it_is_fetched_is_not_taken(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PIECE", 4)
    memory.pipe("/d/c.jsonl", b"old text")
    with pytest.raises(remote.RemoteError, match=r"memory://d/c\.jsonl: changed during the download"):
        remote.fetch("memory://d/c.jsonl", tmp_path / "c", lambda done: memory.pipe("/d/c.jsonl", b"new text"))
    remote.fetch("memory://d/c.jsonl", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"new text"


def test_a_server_that_is_away_or_refuses_makes_no_image_a_bad_one(
    memory: fsspec.AbstractFileSystem, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise `skip` would drop its rows, even after the server is back."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    memory.put(str(tiny_pairs["images"]), "/images", recursive=True)
    config = tiny_config("clip", model=tmp_path, pairs={**tiny_pairs, "images": Path("memory://images")}, out=tmp_path)
    config = replace(config, data=replace(config.data, bad_images="skip"))

    def rows() -> int:
        remote.forget()
        return len(read_pairs(config.pairs, seed=0, processes=Processes()).rows)

    def away(self: object, path: str, **_: object) -> None:
        raise OSError("the server is away")

    def refused(self: object, path: str, **_: object) -> None:
        raise PermissionError("the key is wrong")

    for answer, kind, message in (
        (away, remote.RemoteError, "the server is away, 10 times"),
        (refused, remote.AccessError, "access denied"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "info", answer)
            with pytest.raises(kind, match=rf"^memory://images/\d+\.png: {message}"):
                rows()
    memory.rm_file("/images/003.png")
    assert rows() == 22


def test_a_run_at_an_address_is_the_run_here(
    memory: fsspec.AbstractFileSystem, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Remote data, negatives and checkpoints; killed, and resumed on an empty disk."""
    for name in ("captions", "negatives"):
        memory.pipe(f"/data/{tiny_pairs[name].name}", tiny_pairs[name].read_bytes())
    for picture in tiny_pairs["images"].iterdir():
        memory.pipe(f"/data/images/{picture.name}", picture.read_bytes())
    here = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "here")
    train(here)
    data = replace(
        here.data, captions=Path("memory://data/captions.jsonl"), images=Path("memory://data/images"),
        negatives=Path("memory://data/negatives.jsonl"),
    )  # fmt: skip
    there = replace(
        here, data=data, out=Path("memory://runs/one"), checkpoint=replace(here.checkpoint, every_steps=1, keep=2)
    )
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "first"))
    train(there)
    files = remote.list_files("memory://runs/one")
    assert {name.removeprefix("memory://runs/one/").split("/")[0] for name in files} == {
        "config.json", "metrics.jsonl", "best.json", "step-3", "step-4",
    }, "those that are no longer kept are deleted there, too"  # fmt: skip
    with pytest.raises(InputError, match="memory://runs/one: already holds a run"):
        monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "second"))
        train(there)
    # As after a kill while step 4 was copied, on another machine.
    memory.rm_file("/runs/one/step-4/state.json")
    assert not (tmp_path / "second").exists()
    config = read_config(Path("memory://runs/one"))
    assert config == there and (folder_of_run(there.out) / "step-3").is_dir()
    with caplog.at_level(logging.WARNING):
        folder = train(config, resume=True).folder
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    one, other = (load_file(path / "open_clip_model.safetensors") for path in (tmp_path / "here" / "step-4", folder))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    for file in folder.iterdir():
        assert memory.cat(f"/runs/one/step-4/{file.name}") == file.read_bytes()
    assert memory.cat("/runs/one/metrics.jsonl").count(b"\n") == 4
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "third"))
    weights = load_encoder("memory://runs/one").clip.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in one.items())
    assert training_images("memory://runs/one") == training_images(str(folder)) is not None
    # Deleted there and started again on another machine, so far with fewer steps than are here.
    memory.rm("/runs/one", recursive=True)
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "fourth"))
    anew = train(replace(there, optim=replace(there.optim, lr=1e-2), train=replace(there.train, steps=3))).folder
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "third"))
    # With validation the first line is that of the base.
    lines = memory.cat("/runs/one/metrics.jsonl").splitlines(keepends=True)
    lines[0] = (folder_of_run(there.out) / "metrics.jsonl").read_bytes().splitlines(keepends=True)[0]
    memory.pipe("/runs/one/metrics.jsonl", b"".join(lines))
    remote.forget()
    with pytest.raises(InputError, match="memory://runs/one: holds another run than its copy here, ") as told:
        load_encoder("memory://runs/one")
    assert str(folder_of_run(there.out)) in str(told.value)
    shutil.rmtree(folder_of_run(there.out))
    weights = load_encoder("memory://runs/one").clip.state_dict()
    value = load_file(anew / "open_clip_model.safetensors")
    assert all(torch.equal(weights[name], row) for name, row in value.items())


def test_checkpoints_of_an_earlier_run_are_not_copied_to_its_address(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run at the address was deleted and started again elsewhere, and is ahead of the copy here."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    out = Path("memory://runs/one")
    for step in (2, 4):
        for name in ("state.json", "open_clip_model.safetensors"):
            memory.pipe(f"/runs/one/step-{step}/{name}", b"new %d" % step)
    run = folder_of_run(out)
    for step, content in ((1, b"old 1"), (2, b"old 2"), (3, b"old 3")):
        (run / f"step-{step}").mkdir(parents=True)
        for name in ("state.json", "open_clip_model.safetensors"):
            (run / f"step-{step}" / name).write_bytes(content)
    assert [path.name for path in checkpoints(bring_here(out))] == ["step-4"]
    with RunMirror(out, active=True, resume=True, keep=0) as mirror:
        mirror.copy()
    assert {path: memory.cat(path) for path in memory.find("/runs/one") if "step" in path} == {
        f"/runs/one/step-{step}/{name}": b"new %d" % step
        for step in (2, 4)
        for name in ("state.json", "open_clip_model.safetensors")
    }
    # An equal one stays.
    shutil.copytree(run / "step-4", run / "step-2")
    (run / "metrics.jsonl").write_bytes(b"before a kill\n")
    memory.pipe("/runs/one/metrics.jsonl", b"after it\n")
    for name in ("state.json", "open_clip_model.safetensors"):
        (run / "step-2" / name).write_bytes(b"new 2")
        memory.pipe(f"/runs/one/step-6/{name}", b"new 6")
    remote.forget()
    assert [path.name for path in checkpoints(bring_here(out))] == ["step-2", "step-4", "step-6"]
    # With no checkpoint here, nothing is lost if the run at the address takes the place of another one.
    for folder in checkpoints(run):
        shutil.rmtree(folder)
    (run / "metrics.jsonl").write_bytes(b"another run\n")
    assert [path.name for path in checkpoints(bring_here(out))] == ["step-6"]
    assert (run / "metrics.jsonl").read_bytes() == b"after it\n"


def test_a_run_whose_address_cannot_be_written_does_not_begin(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    for error, message in (
        (FileNotFoundError("x"), r"no such file or bucket\. Check its name\. Or change --out\.$"),
        (PermissionError("x"), r"access denied\. "),
        (NotImplementedError("x"), r"x\. Or change --out\.$"),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "pipe_file", fail)
            with pytest.raises(InputError, match=rf"^memory://runs/x: cannot be written: {message}"):
                RunMirror(Path("memory://runs/x"), active=True, resume=False, keep=0)
    with RunMirror(Path("memory://runs/x"), active=True, resume=False, keep=0):
        assert not memory.find("/runs")


def test_a_run_that_never_reached_its_address_is_not_deleted_for_another_there(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copies failed; then another machine started a run at the address, which is ahead."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    out = Path("memory://runs/one")
    run = folder_of_run(out)
    (run / "step-1").mkdir(parents=True)
    (run / "metrics.jsonl").write_bytes(b"old\n")
    memory.pipe("/runs/one/metrics.jsonl", b"new\n")
    for name in ("state.json", "open_clip_model.safetensors"):
        (run / "step-1" / name).write_bytes(b"old")
        memory.pipe(f"/runs/one/step-2/{name}", b"new")
    with pytest.raises(InputError, match=r"holds another run than its copy here, .*/one-.* delete that folder"):
        bring_here(out)
    assert [path.name for path in checkpoints(run)] == ["step-1"]


def test_images_at_an_address_are_there(memory: fsspec.AbstractFileSystem) -> None:
    """`negatives judge --clip` judged none of them."""
    memory.pipe("/images/a.png", b"1")
    assert [has_image(Path("memory://images"), name) for name in ("a.png", "b.png")] == [True, False]


def test_an_address_without_the_captions_images_is_asked_for_some_only(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for every one, a round trip each, before it was refused."""
    monkeypatch.setattr("degla.screening._MOST_ASKED", 10)
    texts = [CaptionRecord(id=f"{number}", image_id="1", image=f"{number}.png", text="A dog.") for number in range(95)]
    with CaptionIndex(texts) as captions:
        with pytest.raises(
            InputError, match=r"memory://images has none of the captions' 95 images \(10 were tried\), "
        ):
            require_images(captions, Path("memory://images"))
        memory.pipe("/images/50.png", b"1")
        remote.forget()
        require_images(captions, Path("memory://images"))


def test_a_folder_of_results_at_an_address_is_refused(
    memory: fsspec.AbstractFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    """ "line 1: not JSON", since a folder was fetched as an empty file."""
    memory.pipe("/results/a.json", b"{}")
    assert main(["report", "memory://results"]) == 2
    assert "memory://results: folders of results are read from this machine." in capsys.readouterr().err


def test_a_run_without_a_checkpoint_here_is_fetched_whatever_its_metrics(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed before its first checkpoint, so nothing of it is lost."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    out = Path("memory://runs/one")
    run = folder_of_run(out)
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_bytes(b"old\n")
    memory.pipe("/runs/one/metrics.jsonl", b"new\n")
    for name in ("state.json", "open_clip_model.safetensors"):
        memory.pipe(f"/runs/one/step-2/{name}", b"new")
    assert [path.name for path in checkpoints(bring_here(out))] == ["step-2"]
    assert (run / "metrics.jsonl").read_bytes() == b"new\n"
    assert not (run / "validation.jsonl").exists(), "an empty one would be copied to the address"


def test_a_run_does_not_begin_at_the_address_of_a_model(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config.json of a transformers model was replaced by the run's."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    memory.pipe("/models/one/config.json", b"{}")
    out = Path("memory://models/one")
    with RunMirror(out, active=True, resume=False, keep=0):  # Of a run whose checkpoints were deleted.
        memory.pipe("/models/one/model.safetensors", b"")
    with pytest.raises(InputError, match=r"memory://models/one: holds a model, .* Change --out\."):
        RunMirror(out, active=True, resume=False, keep=0)


@pytest.mark.parametrize("ahead", [0, 1])
def test_machines_resume_from_one_checkpoint_where_a_kill_came_before_its_copy(
    ahead: int, memory: fsspec.AbstractFileSystem, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """They would go on with different weights and steps, and the run would end without a word."""

    reported = [lru_cache(remote._info_of.__wrapped__) for _ in range(2)]

    def be(rank: int) -> None:
        monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / str(rank)))
        monkeypatch.setattr(remote, "_info_of", reported[rank])

    class Both(ProcessGroup):
        """Does the work of two processes, each on a machine of its own."""

        def together(self, work: Callable[[], Any]) -> list[Any]:
            results = []
            for rank in range(self.count):
                be(rank)
                results.append(work())
            be(0)
            return results

        def from_first(self, work: Callable[[], Any]) -> Any:
            return work()

    out, both = Path("memory://runs/one"), Both(count=2)
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=out, steps=2)
    be(ahead)
    train(replace(config, checkpoint=replace(config.checkpoint, every_steps=1)))
    memory.rm("/runs/one/step-2", recursive=True)
    metrics = memory.cat("/runs/one/metrics.jsonl")
    memory.pipe("/runs/one/metrics.jsonl", metrics[: metrics.index(b"\n") + 1])
    remote.forget()
    both.together(lambda: bring_here(out))
    with RunMirror(out, active=True, resume=True, keep=0) as mirror:
        if ahead:
            with pytest.raises(
                InputError, match=r"^the newest checkpoint is 'step-1' in process 0, but 'step-2' in process 1\."
            ):
                loop._require_same_checkpoint(out, mirror, both)
            return
        loop._require_same_checkpoint(out, mirror, both)
    assert both.together(lambda: [folder.name for folder in checkpoints(folder_of_run(out))][-1]) == ["step-2"] * 2
    assert both.together(lambda: (folder_of_run(out) / "metrics.jsonl").read_bytes()) == [metrics] * 2


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("memory://runs/one", "memory://runs/one: already holds a run. Continue it with --resume memory://runs/one"),
        ("memory://runs/model", "memory://runs/model: holds a model, whose config.json the run's would replace"),
        ("https://runs/one", "https://runs/one: is only read at http addresses"),
    ],
)
def test_a_dry_run_refuses_the_address_that_the_run_would_refuse(
    out: str, message: str, tiny_model: Path, tiny_pairs: Pairs, memory: fsspec.AbstractFileSystem,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Another machine's, of which nothing is here."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    files = {f"/runs/one/step-3/{name}" for name in (STATE_NAME, WEIGHTS_NAME)} | {"/runs/model/model.safetensors"}
    for file in files:
        memory.pipe(file, b"{}")
    data = [f"--data.{name}={path}" for name, path in tiny_pairs.items()]
    words = ["train", "negclip", "--model", str(tiny_model), "--train.batch-size", "4", *data]
    assert main([*words, "--out", out, "--dry-run"]) == 2
    assert message in capsys.readouterr().err
    assert set(memory.find("/")) == files


def test_a_dry_run_says_that_it_does_not_try_to_write_to_an_address(
    memory: fsspec.AbstractFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    """At a hub each file that is written and deleted would be two commits."""
    caplog.set_level("INFO", logger="degla")
    address.check_new_at(Path("runs/new"))
    assert not caplog.messages
    address.check_new_at(Path("memory://runs/new"))
    mirror.check_output("memory://far/n.jsonl")
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "memory://runs/new: --dry-run writes nothing there",
        "memory://far/n.jsonl: --dry-run writes nothing there",
    ]
    assert not memory.find("/")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ValueError("Repository id must be 'namespace/name'"), "hf://me/best: no model found"),
        (PermissionError("x"), "hf://me: access denied"),
    ],
)
def test_best_of_the_owner_of_models_is_no_model(
    failure: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub refuses the owner alone, `hf://me`, which is not what the user wrote."""

    def find(self: object, path: str) -> list[str]:
        raise FileNotFoundError(path) if "/" in path else failure

    monkeypatch.setattr("huggingface_hub.HfFileSystem.find", find)
    with pytest.raises(InputError, match=message):
        folder_here("hf://me/best")


def test_a_run_at_an_address_keeps_its_best_checkpoint_on_another_machine(
    memory: fsspec.AbstractFileSystem, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    scores = iter([0.60, 0.64, 0.66, 0.65, 0.60])  # Before the first step, and after steps 2 to 8.
    monkeypatch.setattr("degla.evaluation.run.ask_all", lambda *_, **__: [])
    monkeypatch.setattr("degla.evaluation.neutral.require_declared", lambda *_: None)
    monkeypatch.setattr(Validation, "_measure", lambda *_: {"composition": next(scores)})
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "out", steps=8)
    config = replace(
        config, out=Path("memory://runs/best"), checkpoint=replace(config.checkpoint, keep=1),
        validation=ValidationConfig(benchmarks=("world",), root=tmp_path, every_steps=2),
    )  # fmt: skip
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "first"))
    assert train(replace(config, stop=StopConfig(patience=1))).step == 6
    assert "memory://runs/best: ended early, after step 6 of 8" in caplog.text
    with pytest.raises(InputError, match=r"memory://runs/best: already holds a run\. Use --resume memory://"):
        train(config)
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "second"))
    best = train(config, resume=True).best
    assert best is not None and best.name == "step-4" and best.is_dir()
    files = [file.removeprefix("memory://runs/best/") for file in remote.list_files("memory://runs/best")]
    assert {file.partition("/")[0] for file in files if "/" in file} == {"step-4", "step-8"}
    assert memory.cat("/runs/best/validation.jsonl").count(b"\n") == 5
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "third"))
    remote.forget()
    assert load_model("memory://runs/best/best/").fingerprint == load_model(str(best)).fingerprint
    memory.rm("/runs/best/step-4", recursive=True)
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "fourth"))
    remote.forget()
    with pytest.raises(InputError, match=r"memory://runs/best/best: the best checkpoint, step-4, was deleted\."):
        load_model("memory://runs/best/best")


@pytest.mark.parametrize(("keep", "steps"), [(0, "123459"), (1, "459"), (3, "3459")])
def test_checkpoints_at_an_address_are_kept_where_only_the_newest_was_fetched(
    keep: int, steps: str, memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on on another machine has the others at its address alone; killed at any moment, what has a state
    is complete."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    out, done = Path("memory://runs/kept"), dict[str, list[str]]()
    for module, does in ((mirror, remote.put), (address, remote.remove)):

        def note(*arguments: Any, does: Any = does) -> None:
            *_, folder, file = arguments[-1].split("/")
            done.setdefault(f"{does.__name__} {folder}", []).append(file)
            does(*arguments)

        monkeypatch.setattr(module, does.__name__, note)
    memory.pipe("/runs/kept/step-9/state.json", b"of one that was not copied to its end")
    for step, name in product((1, 2, 3, 4, 5), ("state.json", "open_clip_model.safetensors", "teacher.safetensors")):
        if step < 5:
            memory.pipe(f"/runs/kept/step-{step}/{name}", b"{}")
        if step > 3:
            (folder_of_run(out) / f"step-{step}").mkdir(parents=True, exist_ok=True)
            (folder_of_run(out) / f"step-{step}" / name).write_bytes(b"{}")
    with RunMirror(out, active=True, resume=True, keep=keep):
        pass
    files = remote.list_files("memory://runs/kept")
    assert {file.removeprefix("memory://runs/kept/step-")[0] for file in files} == set(steps)
    assert done.pop("put step-5") == ["open_clip_model.safetensors", "teacher.safetensors", "state.json"]
    assert {place for place in done if done[place][0] == "state.json"} == {
        f"remove step-{step}" for step in "123" if step not in steps
    }


def test_a_run_says_that_another_machine_writes_to_its_address(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    out = Path("memory://runs/shared")
    metrics = folder_of_run(out) / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("1")
    with (
        pytest.raises(DeglaError, match=r"metrics\.jsonl: another process, .* has begun or resumed a run there\."),
        RunMirror(out, active=True, resume=False, keep=0) as run,
    ):
        run.copy()
        run.wait()
        memory.rm("/runs/shared/metrics.jsonl")
        run.copy()
        run.wait()
        assert memory.cat("/runs/shared/metrics.jsonl") == b"1", "what was deleted is written again"
        memory.pipe("/runs/shared/metrics.jsonl", b"2")
        metrics.write_text("3")
        run.copy()
        run.wait()
        assert caplog.messages[-1].endswith(f" run there. This run continues, in {metrics.parent} only.")
    assert memory.cat("/runs/shared/metrics.jsonl") == b"2"


def test_runs_that_two_machines_began_at_one_address_do_not_mix(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one wrote its checkpoint over that of the first, of the same step, and reported success."""
    out, runs = Path("memory://runs/both"), []
    for machine, steps in (("1", [2]), ("2", [2, 3])):
        monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / machine))
        for step in steps:
            folder = folder_of_run(out) / f"step-{step}"
            folder.mkdir(parents=True)
            for name in ("state.json", "open_clip_model.safetensors"):
                (folder / name).write_text(machine)
        (folder.parent / "config.json").write_text(machine)
        runs.append(RunMirror(out, active=True, resume=False, keep=0))
    with pytest.raises(DeglaError, match=r"both/config\.json: another process") as refused, runs[1], runs[0]:
        pass
    assert {memory.cat(file) for file in memory.find("/runs/both")} == {b"1"}
    assert str(refused.value).endswith(f"complete in {folder.parent}. Copy that folder to another address.")


@pytest.mark.parametrize(
    ("out", "protocol", "dropped"),
    [("gcs://b/runs/a b%20", ("gs", "gcs"), "gcs://"), ("ftp://me:p*w@host/runs/a", "ftp", "ftp://me:p*w@host")],
)
def test_a_run_goes_on_where_a_library_names_its_files_otherwise(
    out: str, protocol: str | tuple[str, ...], dropped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume was refused as if another machine had written the run's own files."""

    class Files(MemoryFileSystem):
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return MemoryFileSystem._strip_protocol(path.removeprefix(dropped))

    def copy(machine: str, step: int, *, resume: bool) -> None:
        monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / machine))
        run = bring_here(Path(out)) if resume else folder_of_run(Path(out))
        (run / f"step-{step}").mkdir(parents=True)
        for name in ("config.json", *(f"step-{step}/{file}" for file in (STATE_NAME, WEIGHTS_NAME))):
            (run / name).write_text(machine)
        with RunMirror(Path(out), active=True, resume=resume, keep=0):
            pass

    Files.protocol = protocol
    monkeypatch.setitem(_registry, out.partition(":")[0], Files)
    files = [f"{out}/config.json", *(f"{out}/step-1/{name}" for name in (WEIGHTS_NAME, STATE_NAME))]
    copy("1", 1, resume=False)
    assert remote.list_files(out) == files and remote.list_files(files[0]) == files[:1]
    assert remote.list_files(f"{out}/*/{STATE_NAME}") == files[2:]
    with pytest.raises(InputError, match="already holds a run"):
        copy("2", 1, resume=False)
    copy("3", 2, resume=True)
    assert [remote.read_range(file, 0, 9) for file in (files[0], files[2], f"{out}/step-2/{STATE_NAME}")] == [
        b"3", b"1", b"3",
    ]  # fmt: skip
    for file in remote.list_files(f"{out}/step-*/*"):
        remote.remove(file)
    copy("4", 1, resume=False)  # A run that was killed before its first checkpoint was there.
    assert {remote.read_range(file, 0, 9) for file in files} == {b"4"}


def test_what_an_upload_that_failed_left_is_not_of_another_machine(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    out, whole = Path("memory://runs/cut"), memory.pipe_file
    metrics = folder_of_run(out) / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("1")

    def cut(self: object, path: str, content: bytes) -> None:
        whole(path, b"part")
        raise PermissionError(path)

    with RunMirror(out, active=True, resume=False, keep=0) as run:
        run.copy()
        run.wait()
        metrics.write_text("2")
        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "pipe_file", cut)
            run.copy()
            run.wait()
        assert memory.cat("/runs/cut/metrics.jsonl") == b"part"
    assert memory.cat("/runs/cut/metrics.jsonl") == b"2"


def test_a_run_is_copied_to_where_files_can_be_written_but_not_read(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, path: str, **more: object) -> None:
        raise PermissionError(path)

    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    out = Path("memory://runs/closed")
    for name, content in (("metrics.jsonl", "1"), ("best.json", "{}")):
        folder_of_run(out).mkdir(parents=True, exist_ok=True)
        (folder_of_run(out) / name).write_text(content)
    with monkeypatch.context() as patch, RunMirror(out, active=True, resume=False, keep=0) as run:
        patch.setattr(type(memory), "info", refuse)
        run.copy()
    assert memory.cat("/runs/closed/metrics.jsonl") == b"1" and memory.cat("/runs/closed/best.json") == b"{}"


def state_with(step: int, best: str | None, folder: Path) -> bytes:
    """What a checkpoint's state of its step and of the best checkpoint is."""
    folder.mkdir()
    write_state(folder, {"step": step, "steps": 9, "data": {}, "best": best})
    content = (folder / STATE_NAME).read_bytes()
    shutil.rmtree(folder)
    return content


def test_the_best_checkpoint_is_that_of_the_newest_where_a_kill_came_before_best_json(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stayed the earlier one here, also after the kill, as long as no newer checkpoint came."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    for step, best in ((1, "step-1"), (2, "step-2"), (3, "step-2")):
        memory.pipe(f"/runs/late/step-{step}/{STATE_NAME}", state_with(step, best, tmp_path / "made"))
        memory.pipe(f"/runs/late/step-{step}/{WEIGHTS_NAME}", b"%d" % step)
    memory.pipe("/runs/late/best.json", b'{"checkpoint": "step-1"}')
    run = bring_here(Path("memory://runs/late"))
    assert (run / "best" / WEIGHTS_NAME).read_bytes() == b"2"
    assert [path.name for path in checkpoints(run)] == ["step-2", "step-3"]
    assert json.loads((run / "best.json").read_text()) == {"checkpoint": "step-2"}


def test_a_server_cannot_make_a_run_write_outside_its_folder(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    for name in ("state.json", "open_clip_model.safetensors", "../../../../outside.txt", "a/../../../../outside.txt"):
        path = f"/runs/evil/step-1/{name}"
        memory.store[path] = MemoryFile(memory, path, b"{}")  # `pipe` would resolve the dots; servers need not.
    for best in ("nothing", "../..1", "step-1"):
        memory.pipe(f"/runs/evil/step-1/{STATE_NAME}", state_with(1, best, tmp_path / "made"))
        remote.forget()
        run = bring_here(Path("memory://runs/evil"))
        assert {path.name for path in (run / "step-1").iterdir()} == {"state.json", "open_clip_model.safetensors"}
        assert (run / "best").is_symlink() is (best == "step-1")
        shutil.rmtree(run)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {f"{run.name}.lock"}


def test_a_model_at_an_address_is_fetched_and_again_when_it_changes(
    memory: fsspec.AbstractFileSystem, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    for file in tiny_model.iterdir():
        memory.pipe(f"/models/tiny/{file.name}", file.read_bytes())
    memory.pipe("/models/tiny/optimiser.pt", b"far too large")
    first = load_model("memory://models/tiny/")
    assert first.name == "memory://models/tiny/" and first.fingerprint == load_model(str(tiny_model)).fingerprint
    fetched = folder_here("memory://models/tiny")
    assert {path.name for path in fetched.iterdir()} == {path.name for path in tiny_model.iterdir()}
    assert folder_here("memory://models/tiny") == fetched and folder_here("world") == Path("world")
    remote.forget()
    weights = load_file(tiny_model / "open_clip_model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "other.safetensors")
    memory.pipe("/models/tiny/open_clip_model.safetensors", (tmp_path / "other.safetensors").read_bytes())
    assert load_model("memory://models/tiny").fingerprint != first.fingerprint
    memory.pipe("/models/old/open_clip_config.json", b"{}")
    memory.pipe("/models/old/open_clip_pytorch_model.bin", b"pickle")
    with pytest.raises(InputError, match="memory://models/old: has no weights in safetensors or ONNX"):
        load_model("memory://models/old")
    with pytest.raises(InputError, match=r"memory://models/none: no model found\. The address of a model is"):
        load_model("memory://models/none")


@contextmanager
def cutting_server(root: Path, share: float, *, seconds: float = 0) -> Iterator[tuple[str, list[int]]]:
    """Serves files with ranges, each request after some seconds, and cuts off a share of its answers.

    Counts all answers, those cut off, and those to GET.
    """
    chance, counts = random.Random(0), [0, 0, 0]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            file = root / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            time.sleep(seconds)
            content, code = file.read_bytes(), 200
            if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                content, code = content[int(match[1]) : int(match[2]) + 1], 206
            cut = chance.random() < share
            counts[0] += 1
            counts[1] += cut
            counts[2] += self.command == "GET"
            self.send_response(code)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        yield address, counts


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Hub(BaseHTTPRequestHandler):
    """What the hub answers about the files of one data set."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        place = self.path.partition("?")[0]
        if "/resolve/main/" in place:
            content = self.files[place.partition("/resolve/main/")[2]]
            if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                content = content[int(match[1]) : int(match[2]) + 1]
        elif "/tree/main" in place:
            start = place.partition("/tree/main")[2].lstrip("/")
            deep = "recursive=true" in self.path.lower()
            content = json.dumps(self.listed(f"{start}/" if start else "", deep=deep)).encode()
        else:
            content = json.dumps({"id": "owner/name", "sha": "a" * 40, "siblings": []}).encode()
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def listed(self, start: str, *, deep: bool) -> list[dict[str, object]]:
        below = {name: content for name, content in self.files.items() if name.startswith(start)}
        inside = {name.removeprefix(start): len(content) for name, content in below.items()}
        files = [{"type": "file", "path": start + name, "size": size, "oid": "b" * 40}
                 for name, size in inside.items() if deep or "/" not in name]  # fmt: skip
        folders = {name.partition("/")[0] for name in inside if "/" in name}
        return [*files, *({"type": "directory", "path": start + name, "oid": "c" * 40, "size": 0} for name in folders)]

    def log_message(self, *_: object) -> None:
        pass


def test_data_sets_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    rows = [{"image": {"bytes": IMAGE, "path": None}, "caption": "A red square."}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    Hub.files = {"README.md": b"x", "data/train-0.parquet": (tmp_path / "a.parquet").read_bytes()}
    with serving(Hub) as address:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in ("data/train-*.parquet", "data"):
            (caption,) = read_captions(Path(f"hf://datasets/owner/name/{name}"))
            assert (caption.image, caption.text) == ("train-0.parquet#image/0", "A red square.")
        assert read_bytes(locate(caption.image, Path("hf://datasets/owner/name/data")), Subject("x")) == IMAGE
        parquet = Hub.files["data/train-0.parquet"]
        # A new name each time, because the hub's client remembers listings.
        for number, others in enumerate(([], ["data/test-0.parquet"], ["README.parquet.md", "train.txt"])):
            Hub.files = {"data/train-0.parquet": parquet, **dict.fromkeys(others, b"never read")}
            whole = Path(f"hf://datasets/owner/name-1.{number}")
            (caption,) = read_captions(whole)
            assert caption.image == "data/train-0.parquet#image/0"
            assert read_bytes(locate(caption.image, base_of(whole)), Subject("x")) == IMAGE
        Hub.files = {"en/train-0.parquet": parquet, "fr/train-0.parquet": parquet}
        with pytest.raises(InputError, match=r"several folders \(en, fr\)\. Give .* hf://datasets/owner/two/en\."):
            list(read_captions(Path("hf://datasets/owner/two")))


def test_cut_connections_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "PIECE", 20_000)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    members = {f"{number:02d}{end}": content for number in range(30)
               for end, content in ((".png", IMAGE + bytes([number]) * 3000), (".txt", b"said"))}  # fmt: skip
    write_tar(tmp_path / "0.tar", members)
    (tmp_path / "c.jsonl").write_text(
        "".join(f'{{"id": "{number}", "image": "x", "text": "{"word " * 20}"}}\n' for number in range(2000))
    )
    with cutting_server(tmp_path, 0.2) as (address, counts):
        captions = list(read_captions(Path(f"{address}/{{0..0}}.tar")))
        assert len(captions) == 30
        for each in captions:
            content = read_bytes(locate(each.image, Path(address)), Subject("x"))
            assert content == members[f"{each.id[2:]}.png"]
        assert len(list(read_captions(Path(f"{address}/c.jsonl")))) == 2000
        assert counts[0] > 50 and counts[1] > 5
        with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
            list(read_captions(Path(f"{address}/none.jsonl")))


@pytest.fixture
def _two_shards_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    for module in (plan, training_pairs):
        monkeypatch.setattr(module, "SHARDS_AT_A_TIME", 2)
    monkeypatch.setattr(shards, "KEPT", 6)


@pytest.mark.usefixtures("_two_shards_at_a_time")
def test_training_from_shard_to_shard_copies_each_shard_once_an_epoch(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """Two epochs of twelve tars, two at a time, from a server and from a folder; interrupted and resumed."""
    write_shards(tiny_pairs, tmp_path / "tars", per_shard=2)
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "here", steps=12)
    data = replace(config.data, captions=tmp_path / "tars", images=None, order="shards")
    here = replace(config, data=data)
    train(here)
    with cutting_server(tmp_path / "tars", 0) as (server, counts):
        data = replace(data, captions=Path(f"{server}/{{00000..00011}}.tar"))
        read_pairs(replace(here, data=data).pairs, seed=0, processes=Processes())  # Scans the tars.
        counts[:] = 0, 0, 0
        whole = replace(here, data=data, out=tmp_path / "there")
        train(whole)
        pieces = 2 * 12
        assert counts[2] <= pieces
        # Of each shard its state before and after the copy, and once as it is looked for.
        assert pieces <= counts[0] <= 3 * pieces, "96 pairs of images and shards were read"
        assert len(list((tmp_path / "cache" / "shards").glob("*.copy"))) == 6
        half = interrupted(whole, tmp_path / "half")
        shutil.rmtree(tmp_path / "cache" / "shards")
        train(replace(half, data=replace(data, workers=2)), resume=True)
    assert {file.suffix for file in (tmp_path / "cache" / "shards").iterdir()} == {".copy", ".lock"}
    one, *others = (
        load_file(tmp_path / run / "step-12" / "open_clip_model.safetensors") for run in ("here", "there", "half")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items() for other in others)


@pytest.mark.usefixtures("_two_shards_at_a_time")
def test_training_from_remote_parquet_files_from_shard_to_shard(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    """As from the same files here; of each file the texts are read once, and the images once an epoch."""
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    cells = [{"bytes": (tiny_pairs["images"] / row.pop("image")).read_bytes(), "path": None} for row in rows]
    table = pyarrow.Table.from_pylist([{"image": cell, **row} for cell, row in zip(cells, rows, strict=True)])
    (tmp_path / "files").mkdir()
    for number in range(12):
        part = table.slice(2 * number, 2)
        pyarrow.parquet.write_table(part, tmp_path / "files" / f"{number:02d}.parquet", row_group_size=1)
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "here", steps=12)
    data = replace(config.data, captions=tmp_path / "files", images=None, order="shards")
    here = replace(config, data=data)
    train(here)
    with cutting_server(tmp_path / "files", 0) as (server, counts):
        shutil.rmtree(tmp_path / "cache" / "prepared")
        data = replace(data, captions=Path(f"{server}/{{00..11}}.parquet"), bad_images="skip")
        read_pairs(replace(here, data=data).pairs, seed=0, processes=Processes())
        assert not list((tmp_path / "cache" / "prepared").glob("*/*.parquet")), "no file was copied whole"
        whole = replace(here, data=replace(data, bad_images="stop"), out=tmp_path / "there")
        shutil.rmtree(tmp_path / "cache" / "shards")
        counts[:] = 0, 0, 0
        train(whole)
        once = counts[2]
        assert len(list((tmp_path / "cache" / "shards").glob("*.copy"))) == 6
        half = interrupted(whole, tmp_path / "half")
        shutil.rmtree(tmp_path / "cache" / "shards")
        train(replace(half, data=replace(half.data, workers=2)), resume=True)
        counts[:] = 0, 0, 0
        shutil.rmtree(tmp_path / "cache" / "shards")
        for number in range(12):
            place = f"{data.image_folder}/{number:02d}.parquet#image/1"
            assert shards.read_from_copy(place, Subject("x")) == cells[2 * number + 1]["bytes"]
        assert once <= 2 * counts[2]
        (tmp_path / "files" / "00.parquet").write_bytes(b"PAR1 and nothing more PAR1")
        remote.forget()
        with pytest.raises(InputError, match=r"00\.parquet: the Parquet file is damaged: .*Fetch it again"):
            shards.read_from_copy(f"{data.image_folder}/00.parquet#image/1", Subject("x"))
    assert not list((tmp_path / "cache" / "prepared").glob("*/*.parquet"))
    assert {file.suffix for file in (tmp_path / "cache" / "shards").iterdir()} == {".copy", ".lock"}
    one, *others = (
        load_file(tmp_path / run / "step-12" / "open_clip_model.safetensors") for run in ("here", "there", "half")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items() for other in others)


def test_shards_are_copied_ahead_of_the_batches_that_need_them(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PIECE", 40)
    folder, fetched, told = tmp_path / "cache" / "shards", list[int](), threading.Condition()
    pieces = shards.pieces

    def noted(address: str) -> Iterator[bytes]:
        with told:
            fetched.append(int(address[-5]))
            told.notify()
        yield from pieces(address)

    def wait(*numbers: int) -> None:
        with told:
            assert told.wait_for(lambda: len(fetched) >= len(numbers), 60)
        assert fetched == list(numbers)

    monkeypatch.setattr(shards, "pieces", noted)
    for number in range(6):
        memory.pipe(f"/d/{number}.tar", bytes([number]) * 100)
    places = [f"memory:/d/{number}.tar@5+3" for number in range(6)]
    uses = [(0, 4), (0, 2), (1, 0), (3, 1), (7, 3), (9, 5)]
    memory.rm_file("/d/1.tar")
    with shards.copied_ahead(uses, places, most=2) as (copy, reached):
        # A worker that is forked while the thread imports a module or reads would wait for its locks for ever.
        assert not [thread for thread in threading.enumerate() if thread.name == "degla-shards"]
        reached(-1)
        assert not [thread for thread in threading.enumerate() if thread.name == "degla-shards"]
        copy()
        wait(4, 2)
        reached(0)
        # 1 is missing, which matters only to who needs it; 3 waits for the batch that needs 0.
        wait(4, 2, 0)
        reached(1)
        wait(4, 2, 0, 3)
    with pytest.raises(ImageError, match=r"^x cannot be read: memory://d/1\.tar: no such file"):
        shards.read_from_copy(places[1], Subject("x"))
    assert len(list(folder.glob("*.copy"))) == 4 and shards.read_from_copy(places[3], Subject("x")) == b"\3\3\3"
    wait(4, 2, 0, 3)

    begun, ends = threading.Event(), threading.Event()

    def slow(address: str) -> Iterator[bytes]:
        for piece in pieces(address):
            yield piece
            begun.set()
            assert ends.wait(60)

    monkeypatch.setattr(shards, "pieces", slow)
    # The block ends in the middle of a copy.
    with pytest.raises(KeyboardInterrupt), shards.copied_ahead([(0, 5)], places, most=2) as (copy, reached):
        copy()
        assert begun.wait(60)
        threading.Timer(0.1, ends.set).start()
        raise KeyboardInterrupt
    assert {file.suffix for file in folder.iterdir()} == {".copy", ".lock"} and len(list(folder.glob("*.copy"))) == 4
    endless = ((number, 5) for number in count())
    with shards.copied_ahead(endless, places, most=2) as (copy, reached):
        copy()
        reached(-1)
    assert not [thread for thread in threading.enumerate() if thread.name == "degla-shards"]


def test_two_processes_of_one_machine_copy_each_shard_once(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And train as one; interrupted and resumed with an empty cache, in chunks."""
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    write_shards(tiny_pairs, tmp_path / "tars", per_shard=2)
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "one", batch_size=8)
    config = replace(
        config,
        train=replace(config.train, chunk_size=2),
        optim=replace(config.optim, warmup_steps=50),
        checkpoint=replace(config.checkpoint, every_steps=2),
    )
    with cutting_server(tmp_path / "tars", 0) as (server, counts):
        data = replace(config.data, captions=Path(f"{server}/{{00000..00011}}.tar"), images=None, order="shards")
        one = replace(config, data=data)
        train(one)
        for resume in (False, True):
            shutil.rmtree(tmp_path / "cache" / "shards")
            counts[:] = 0, 0, 0
            two = replace(one, out=tmp_path / "two")
            train_in(2, two, resume=resume)
            assert counts[2] == 12 if not resume else counts[2] <= 12
            if not resume:
                assert_close(tmp_path / "one" / "step-4", tmp_path / "two" / "step-4")
                cut_off(two, at=2)
    assert_close(tmp_path / "one" / "step-4", tmp_path / "two" / "step-4")


def assert_close(one: Path, other: Path) -> None:
    left, right = (load_file(folder / "open_clip_model.safetensors") for folder in (one, other))
    for key, value in left.items():
        torch.testing.assert_close(right[key], value, rtol=0, atol=2e-4)


def test_copies_of_shards(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "KEPT", 3)
    folder, fetched = tmp_path / "cache" / "shards", []
    pieces = shards.pieces
    monkeypatch.setattr(shards, "pieces", lambda address: fetched.append(address[-5]) or pieces(address))
    for number in range(6):
        memory.pipe(f"/d/{number}.tar", bytes([number]) * 100)

    def read(number: int, size: int = 3) -> bytes:
        return shards.read_from_copy(f"memory:/d/{number}.tar@5+{size}", Subject(f"memory://d/{number}.tar@5: x"))

    def age(seconds: float) -> None:
        for file in folder.iterdir():
            when = file.stat().st_mtime - seconds
            os.utime(file, (when, when))

    for number in (0, 1, 2, 0, 3, 0, 1):
        assert read(number) == bytes([number]) * 3
        age(10)
    assert "".join(fetched) == "01231", "the copy that was not used for the longest time is deleted"
    assert len(list(folder.glob("*.copy"))) == 3
    (folder / "00.copy.partial").write_bytes(b"left by a process that was killed")
    (folder / "11.copy.partial").write_bytes(b"still written")
    age(4000)
    os.utime(folder / "11.copy.partial")
    read(4)
    assert [file.name for file in folder.glob("*.partial")] == ["11.copy.partial"]
    assert len(list(folder.glob("*.copy"))) == 3

    read_file = shards.read_file

    def deleted_before(copy: Path, *arguments: Any, **part: int) -> bytes:
        monkeypatch.setattr(shards, "read_file", read_file)
        copy.unlink()
        return read_file(copy, *arguments, **part)

    monkeypatch.setattr(shards, "read_file", deleted_before)
    assert read(4) == b"\4\4\4", "by another process, between the look and the read"
    memory.pipe("/d/4.tar", b"y" * 50)
    remote.forget()
    assert read(4) == b"yyy", "a changed shard is copied again"
    with pytest.raises(ImageError, match=r"^memory://d/4\.tar@5: x cannot be read: the shard ends before byte 104;"):
        read(4, 99)
    with pytest.raises(ImageError, match=r"^memory://d/7\.tar@5: x cannot be read: memory://d/7\.tar: no such file"):
        read(7)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DeglaError, match=r"shards/.*: cannot be written: the disk is full") as caught:
            read(5)
    assert not isinstance(caught.value, InputError)
    assert {file.name for file in folder.glob("*.partial")} == {"11.copy.partial"} and read(5) == b"\5\5\5"
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written: Not a directory\. Set the environment variable DEGLA_"):
        read(5)
