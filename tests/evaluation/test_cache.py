"""Embeddings on disk: nothing is embedded twice, nothing wrong is believed, two processes do not disturb each other."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.evaluation.cache import (
    DiskCache,
    identity_of,
    image_identity_of,
    open_cache,
    preprocessing_digest,
)
from degla.evaluation.embed import Embedder
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation
from degla.files import cache_folder
from degla.model.load import load_encoder
from degla.records import ItemImage
from degla.results import Result
from tests.evaluation.fake_encoders import FakeEncoder, spread_row, spreading
from tests.launch import Program, start

KEY = "a1b2:image:" + "c" * 64


def run(encoder: FakeEncoder, root: Path, folder: Path) -> Result:
    with open_cache(folder) as cache:
        return Evaluation(["small"], root, progress=False, cache=cache).score(encoder)


def embedding_counts(encoder: FakeEncoder) -> tuple[int, int]:
    return encoder.images_seen, encoder.texts_seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*.sqlite")
    return file


def test_the_second_run_embeds_nothing_and_says_the_same(small_root: Path, folder: Path) -> None:
    first, second = spreading(), spreading()
    one = run(first, small_root, folder)
    two = run(second, small_root, folder)
    assert embedding_counts(first) == (6, 18)
    assert embedding_counts(second) == (0, 0)
    assert two.items == one.items
    assert two.benchmarks == one.benchmarks
    fresh = Evaluation(["small"], small_root, progress=False).score(spreading())
    assert fresh.items == one.items


def test_rows_come_back_bit_by_bit(folder: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    with DiskCache(folder) as cache:
        for number, row in enumerate(rows):
            cache[f"a1:text:{number}"] = row
    assert cache.written == 1000
    with DiskCache(folder) as again:
        for number, row in enumerate(rows):
            cached = again.get(f"a1:text:{number}")
            assert cached is not None and cached.dtype == np.float32
            assert cached.tobytes() == row.tobytes()
        assert again.read == 1000
        assert again.get("a1:text:1000") is None
        with pytest.raises(ValueError, match="IDENTITY:KIND:CONTENT"):
            again["../elsewhere:text:3"] = rows[0]


def test_a_changed_image_of_the_same_name_is_embedded_again(small_root: Path, folder: Path) -> None:
    run(spreading(), small_root, folder)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(small_root / "4.png")
    changed = spreading()
    after = run(changed, small_root, folder)
    assert embedding_counts(changed) == (1, 0)
    fresh = Evaluation(["small"], small_root, progress=False).score(spreading())
    assert after.items == fresh.items


def test_names_and_places_of_images_do_not_matter(small_root: Path, folder: Path, tmp_path: Path) -> None:
    run(spreading(), small_root, folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in small_root.glob("*.png"):
        shutil.copy(path, elsewhere / path.name)
    moved = spreading()
    run(moved, elsewhere, folder)
    assert embedding_counts(moved) == (0, 0)


def test_the_same_bytes_under_two_names_are_one_row(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (5, 6, 7)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    encoder = spreading()
    images = [ItemImage(path="a.png"), ItemImage(path="b.png"), ItemImage(path="a.png", crop=(0, 0, 4, 4))]
    table = Embedder(encoder, root=tmp_path).embed(images, [])
    assert [table.image_row[image] for image in images] == [0, 0, 1]
    assert encoder.images_seen == 2


def brighter(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32) / 250).permute(2, 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda encoder: setattr(encoder, "fingerprint", "e" * 64),
        lambda encoder: setattr(encoder, "precision", "bf16"),
        lambda encoder: setattr(encoder, "activation", "gelu"),
        lambda encoder: setattr(encoder, "transform", brighter),
    ],
    ids=["weights", "precision", "activation", "preprocessing"],
)
def test_another_model_does_not_hit(small_root: Path, folder: Path, change: Callable[[FakeEncoder], None]) -> None:
    run(spreading(), small_root, folder)
    other = spreading()
    change(other)
    run(other, small_root, folder)
    assert embedding_counts(other) == (6, 18)
    assert len(list(folder.glob("*.sqlite"))) == 2


def test_preprocessing_is_recognised_by_what_it_does() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    def compose(size: int = 32, how: InterpolationMode = InterpolationMode.BICUBIC, mean: float = 0.5) -> Compose:
        return Compose([Resize(size, how), CenterCrop(size), ToTensor(), Normalize([mean] * 3, [0.5] * 3)])

    def digest(transform: Compose) -> str:
        return preprocessing_digest(transform)

    assert digest(compose()) == digest(compose())
    variants = [compose(), compose(33), compose(how=InterpolationMode.BILINEAR), compose(mean=0.501)]
    variants.append(Compose([Resize((32, 32)), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]))
    assert len({digest(variant) for variant in variants}) == 5


def test_the_device_counts(small_root: Path) -> None:
    one, other = spreading(), spreading()
    other.device = "cuda:1"
    assert identity_of(one) != identity_of(other)
    one.device = "cuda:0"
    assert identity_of(one) == identity_of(other)


def test_what_a_configuration_says_and_no_weight_shows_counts() -> None:
    text = {"heads": 2, "hf_tokenizer_name": "here", "tokenizer_kwargs": {"clean": "lower"}}
    identities = []
    for changes in ({}, {"hf_tokenizer_name": "there"}, {"heads": 4}, {"pool_type": "eos"}):
        encoder: Any = spreading()
        encoder.description = SimpleNamespace(model_config={"vision_cfg": {"width": 8}, "text_cfg": text | changes})
        encoder.image_fingerprint = "i" * 64
        identities.append((identity_of(encoder), image_identity_of(encoder)))
    whole, images = zip(*identities, strict=True)
    assert whole[0] == whole[1] and len(set(whole)) == 3 and len(set(images)) == 1
    encoder.description.model_config["vision_cfg"] = {"width": 8, "head_width": 4}
    assert image_identity_of(encoder) != images[0]


def test_how_images_are_read_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    upright, official = identity_of(spreading()), identity_of(spreading(), image_reading="official")
    assert upright != official
    monkeypatch.setattr("degla.data.decoding.VERSION", 3)
    assert len({upright, official, identity_of(spreading()), identity_of(spreading(), image_reading="official")}) == 4


@pytest.mark.parametrize("damage", ["garbage", "truncated", "other form", "other tables"])
def test_a_damaged_file_is_reported_and_not_believed(
    damage: str, small_root: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(spreading(), small_root, folder)
    file = only_file(folder)
    if damage == "garbage":
        file.write_bytes(b"not a database at all " * 400)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        if damage == "other tables":
            file.unlink()
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version = 7" if damage == "other form" else "CREATE TABLE mine (a)")
        connection.commit()
        connection.close()
    before = file.read_bytes()
    encoder = spreading()
    with caplog.at_level(logging.WARNING):
        after = run(encoder, small_root, folder)
    assert after.items == whole.items
    assert embedding_counts(encoder) == (6, 18)
    assert str(file) in caplog.text and "cannot be used" in caplog.text and "; delete the file if" in caplog.text
    assert caplog.text.count("cannot be used") == 1
    assert file.read_bytes() == before


def test_a_changed_byte_in_a_row_is_noticed_and_mended(
    small_root: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(spreading(), small_root, folder)
    connection = sqlite3.connect(only_file(folder))
    damaged = connection.execute("SELECT key, row FROM rows LIMIT 3").fetchall()
    for key, row in damaged:
        connection.execute("UPDATE rows SET row = ? WHERE key = ?", (bytes([row[0] ^ 1]) + row[1:], key))
    connection.commit()
    connection.close()
    encoder = spreading()
    with caplog.at_level(logging.WARNING):
        after = run(encoder, small_root, folder)
    assert sum(embedding_counts(encoder)) == 3
    assert after.items == whole.items
    assert caplog.text.count("damaged") == 1
    mended = spreading()
    run(mended, small_root, folder)
    assert embedding_counts(mended) == (0, 0)


def test_embeddings_that_are_not_finite_are_refused(folder: Path, small_root: Path) -> None:
    """They would be neighbours of nothing, and rank last in a search, without a word."""
    broken = FakeEncoder(lambda image: spread_row(b"a", 8) * float("nan"), lambda tokens: spread_row(b"b", 8))
    with pytest.raises(DeglaError, match=r"the embedding of '0\.png' is zero or not finite \(6 of 6 in its batch\)"):
        run(broken, small_root, folder)


def test_the_versions_of_what_computes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    identities = {identity_of(spreading())}
    libraries = ("torch", "torchvision", "pillow", "open_clip_torch", "transformers", "onnxruntime")
    for library in libraries:
        monkeypatch.setattr("degla.evaluation.cache.installed_version", lambda name, other=library: str(name == other))
        identities.add(identity_of(spreading()))
    assert len(identities) == 1 + len(libraries)


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot create the cache folder"):
        open_cache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING), DiskCache(tmp_path / "file" / "cache") as cache:
        cache[KEY] = np.ones(3, dtype=np.float32)
        cache.flush()
        row = cache.get(KEY)
        assert row is not None and row.tolist() == [1, 1, 1]
    assert "cannot be used" in caplog.text and "choose another cache folder" in caplog.text


def test_a_full_disk_is_no_reason_to_delete_the_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), DiskCache(tmp_path) as cache:
        cache[KEY] = np.ones(3, dtype=np.float32)
        cache.flush()
        connection = cache._file(KEY)._open()
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        cache[KEY + "1"] = np.ones(10**6, dtype=np.float32)
        cache.flush()
    assert "is full" in caplog.text and "; free some space on its disk if" in caplog.text
    with DiskCache(tmp_path) as cache:
        assert cache.get(KEY) is not None


@pytest.mark.parametrize(
    ("cause", "message", "remedy"),
    [
        ("PRAGMA query_only = 1", "readonly", "choose another cache folder"),
        ("DROP TABLE rows", "no such table", "delete the file"),
        ("ALTER TABLE rows ADD COLUMN more", "has 4 columns", "delete the file"),
    ],
)
def test_each_error_has_a_remedy_that_helps(
    cause: str, message: str, remedy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), DiskCache(tmp_path) as cache:
        cache[KEY] = np.ones(3, dtype=np.float32)
        cache.flush()
        cache._file(KEY)._open().execute(cause)
        cache[KEY + "1"] = np.ones(3, dtype=np.float32)
        cache.flush()
    assert message in caplog.text and f"; {remedy}" in caplog.text


def test_a_disk_too_full_for_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = DiskCache(tmp_path / "cache")
    monkeypatch.setattr(Path, "mkdir", full)
    with caplog.at_level(logging.WARNING):
        cache[KEY] = np.ones(3, dtype=np.float32)
        cache.flush()
    assert "; free some space on its disk if" in caplog.text


WRITER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from degla.evaluation.cache import DiskCache
folder, first, stop_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) or None
with DiskCache(folder) as cache:
    for number in range(first, first + 3000):
        if cache.get(f"a1:text:{number}") is None:
            cache[f"a1:text:{number}"] = np.full(64, number, dtype=np.float32)
        if number % 50 == 0:
            cache.flush()
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(folder: Path, first: int, stop_at: int = 0) -> Program:
    return start(["-c", WRITER, str(folder), str(first), str(stop_at)])


def test_two_processes_fill_one_file_at_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = [writer(folder, first) for first in (0, 1500)]
    assert [(program.wait(), program.stderr) for program in both] == [(0, ""), (0, "")]
    with DiskCache(folder) as cache:
        rows = [cache.get(f"a1:text:{number}") for number in range(4500)]
    assert all(row is not None and row[0] == number for number, row in enumerate(rows))
    assert not caplog.records


def test_a_killed_writer_leaves_whole_rows(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert writer(folder, 0, stop_at=523).wait() == -signal.SIGKILL
    with DiskCache(folder) as cache:
        rows = {number: row for number in range(600) if (row := cache.get(f"a1:text:{number}")) is not None}
    assert 501 <= len(rows) <= 524
    assert all((row == number).all() for number, row in rows.items())
    assert not caplog.records


def test_where_the_cache_is(tmp_path: Path) -> None:
    home = Path("~/.cache").expanduser() / "degla" / "embeddings"
    assert cache_folder("embeddings", {}) == home
    assert cache_folder("embeddings", {"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "degla" / "embeddings"
    assert cache_folder("embeddings", {"XDG_CACHE_HOME": "relative"}) == home
    environment = {"DEGLA_CACHE": str(tmp_path / "x"), "XDG_CACHE_HOME": "/y"}
    assert cache_folder("embeddings", environment) == tmp_path / "x" / "embeddings"


def test_embeddings_unused_for_90_days_are_deleted_when_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    caplog.set_level(logging.INFO, logger="degla")
    kept, named = cache_folder("embeddings"), tmp_path / "named"
    long_ago = time.time() - 91 * 24 * 3600

    def write(folder: Path, name: str) -> Path:
        with DiskCache(folder) as cache:
            cache[f"{name}:text:0"] = np.ones(4, np.float32)
        return folder / f"{name}.sqlite"

    old, patches, other = write(kept, "a1"), kept / "c3.patches.npy", kept / "notes.txt"
    killed = [kept / f"c3.{name}" for name in ("sqlite-journal", "patches.npy.partial", "patches.npy.host-1-0.partial")]
    for each in (patches, other, *killed):
        each.touch()
    read = write(kept, "b2")
    for each in (old, patches, *killed, other, read, write(named, "a1")):
        os.utime(each, (long_ago, long_ago))
    with DiskCache(kept) as cache:
        assert cache.get("b2:text:0") is not None
    assert old.exists() and patches.exists(), "nothing is deleted where nothing is made"
    write(kept, "d4")
    write(named, "d4")
    assert sorted(each.name for each in kept.iterdir()) == ["b2.sqlite", "d4.sqlite", "notes.txt"]
    assert sorted(each.name for each in named.iterdir()) == ["a1.sqlite", "d4.sqlite"], "a folder of the user's own"
    assert f"{old} was not used for 90 days and was deleted." in caplog.text


def test_a_folder_of_the_users_own_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError(f"no home for {path}")

    monkeypatch.delenv("DEGLA_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    with DiskCache(tmp_path) as cache:
        cache["a1:text:0"] = np.ones(4, np.float32)
    assert cache.written == 1


def test_an_image_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (9, 9), (5, 6, 7)).save(tmp_path / "a.png")
    monkeypatch.setattr("degla.evaluation.embed.ImageFiles.digest", lambda files, path: "0" * 64)
    with pytest.raises(InputError, match=r"a\.png: was changed while it was read"):
        Embedder(spreading(), root=tmp_path).embed([ItemImage(path="a.png")], [])


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    encoder = FakeEncoder(lambda image: spread_row(b"a", 8), lambda tokens: spread_row(b"b", 8))
    with pytest.raises(InputError, match=r"none\.png: the image is missing"):
        Embedder(encoder, root=tmp_path).embed([ItemImage(path="none.png")], [])


def test_the_command_uses_the_cache(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, colour in (("red", (250, 0, 0)), ("blue", (0, 0, 250))):
        (tmp_path / "data" / "zeroshot" / "colours" / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), colour).save(tmp_path / "data" / "zeroshot" / "colours" / name / "0.png")
    monkeypatch.delenv("DEGLA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))

    def command(*flags: str) -> tuple[Result, str]:
        out = tmp_path / "result.json"
        words = ["evaluate", str(tiny_model), "--benchmarks", "zeroshot", "--root", str(tmp_path / "data"), *flags]
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="degla.verbs"):
            assert main([*words, "--out", str(out), "--json"]) == 0
        message = [record.getMessage() for record in caplog.records if record.name == "degla.verbs._scoring"]
        return load_result(out, items=True), " ".join(message)

    first, message = command()
    assert message == f"{tmp_path}/xdg/degla/embeddings: 0 embeddings read, 4 written."
    second, message = command()
    assert message.endswith(": 4 embeddings read, 0 written.")
    assert second.items == first.items
    fresh, message = command("--no-cache")
    assert message == "" and fresh.items == first.items
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "mine"))
    assert command()[1].startswith(f"{tmp_path}/mine/embeddings: 0 embeddings read")
    assert command("--cache", str(tmp_path / "other"))[1].startswith(f"{tmp_path}/other: 0 embeddings read")
    (tmp_path / "file").write_text("")
    assert main(["evaluate", "world", "--benchmarks", "zeroshot", "--root", str(tmp_path / "data"), "--out",
                 str(tmp_path / "x.json"), "--cache", str(tmp_path / "file" / "deep")]) == 2  # fmt: skip
    assert not (tmp_path / "x.json").exists()


def test_models_that_differ_in_the_text_tower_share_rows_of_images(tiny_model: Path) -> None:
    one, other = (load_encoder(str(tiny_model)) for _ in range(2))
    with torch.no_grad():
        other.clip.token_embedding.weight[0] += 1
    assert image_identity_of(one) == image_identity_of(other) and identity_of(one) != identity_of(other)
    with torch.no_grad():
        next(other.clip.visual.parameters()).view(-1)[0] += 1
    assert image_identity_of(one) != image_identity_of(other)


def test_texts_are_not_shared_where_images_are(small_root: Path, folder: Path) -> None:
    def model(name: str) -> FakeEncoder:
        text_row = lambda tokens: spread_row(f"{name}{tokens}".encode(), 24)  # noqa: E731
        encoder = FakeEncoder(spreading().image_row, text_row, fingerprint=64 * name)
        encoder.image_fingerprint = 64 * "c"  # type: ignore[attr-defined]
        return encoder

    run(model("a"), small_root, folder)
    other = model("b")
    result = run(other, small_root, folder)
    assert embedding_counts(other) == (0, 18)
    assert result.items == Evaluation(["small"], small_root, progress=False).score(model("b")).items


def test_rows_of_texts_can_be_left_out_of_the_file(small_root: Path, folder: Path) -> None:
    first, second = spreading(), spreading()
    results = []
    for encoder in (first, second):
        with DiskCache(folder, images_only=True) as cache:
            results.append(Evaluation(["small"], small_root, progress=False, cache=cache).score(encoder))
    assert embedding_counts(first) == (6, 18) and embedding_counts(second) == (0, 18)
    assert results[0].items == results[1].items
