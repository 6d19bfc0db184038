"""Rows on disk: equal to a join in memory, made once, made again when files change, never incomplete."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from degla.cli import main
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.data import columns, images, joining, prepared, table
from degla.data.dataset import data_counts, data_digests
from degla.data.pairs import PairRow, normalized_words
from degla.errors import DeglaError, InputError
from degla.files import remove_folder
from degla.losses import PositiveContrast, losses_by_name
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.records import CaptionRecord, NegativeRecord
from degla.training.pairs import open_pairs
from degla.training.rows import read_pairs, read_rows
from tests.training.configs import tiny_config

Files = dict[str, Path]

# Digests of the columns, and of the texts, masks and numbers of two epochs, from version 0.1.0 before rows were stored
# on disk: checkpoints from then contain these digests.
KNOWN = {
    "degla": ("565d4e07df570b1a", "8a38da59990ea2f4"),
    "con_clip": ("1ee02c664fdcfdfe", "2944a58b715c720c"),
    "read_clip same_image": ("212795fdd575f5bf", "1e1f6749a7951074"),
    "negclip_hard_images rules": ("2c6441c96209010b", "5fdfc45c59f04a36"),
    "cs_clip": ("d06a70e6590043e4", "4ca5d5f61306aab7"),
    "c2lip": ("3d198a745fe8054e", "a24aaa2207294281"),
    "gift": ("c06463ee6609ee7c", "5cc5b2a852745f74"),
}


@pytest.mark.parametrize("case", KNOWN)
def test_rows_draws_and_digests_are_those_of_the_join_in_memory(
    case: str, all_tokens_model: Path, tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    for module in (table, joining):
        monkeypatch.setattr(module, "ROWS", 8)  # Three batches, and three files of negatives.
    recipe, _, variant = case.partition(" ")
    config = tiny_config(recipe, model=all_tokens_model, pairs=tiny_pairs, out=tmp_path / "run")
    if variant == "same_image":
        config = replace(config, data=replace(config.data, positives="same_image"))
    if variant == "rules":
        config = replace(config, data=replace(config.data, rules=("swap_nouns",), negatives_per_caption=1))
    pairs = open_pairs(config, encoder=load_encoder(str(all_tokens_model)), processes=Processes())
    neighbours = None if pairs.neighbours is None else pairs.neighbours.file
    digests = data_digests(pairs.dataset.rows, pairs.dataset.extras.file, neighbours)
    report = json.dumps([digests, data_counts(pairs.dataset)], sort_keys=True)
    draws = hashlib.sha256()
    for epoch in range(2):
        for batch in pairs.batches(epoch, start=0, device=torch.device("cpu")):
            whole = {
                name: value.tolist() for name, value in sorted(batch.tensors().items()) if not value.is_floating_point()
            }
            draws.update(json.dumps([batch.ids, whole]).encode())
    assert (hashlib.sha256(report.encode()).hexdigest()[:16], draws.hexdigest()[:16]) == KNOWN[case]


WORDS = ["a", "A", "dog", "cat", "sofa,", "red", "Red", "on", "the", "é", "ＡＢ"]


def made_up(seed: int, count: int) -> tuple[list[CaptionRecord], list[NegativeRecord]]:
    chance = random.Random(seed)

    def text() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randrange(1, 5)))

    captions = [
        CaptionRecord(
            id=f"c{number}", image=f"{number // 3}.jpg", text=text(),
            positives=tuple(text() for _ in range(number % 3)),
            image_id=str(number // 3 % 7 if number % 5 else number),
        )
        for number in range(count)
    ]  # fmt: skip
    negatives = [
        NegativeRecord(
            caption_id=f"c{chance.randrange(count * 11 // 10)}", rule=chance.choice("xbzq"), kind="k",
            text=chance.choice([text(), text(), None, " "]), source="s", accepted=chance.random() < 0.8,
            score=chance.choice([None, chance.random()]),
        )
        for _ in range(4 * count)
    ]  # fmt: skip
    return captions, negatives


def plain_join(captions: list[CaptionRecord], negatives: list[NegativeRecord]) -> tuple[list[Any], Counter[str]]:
    """The join in plain Python: for each caption, its negatives in order without repetitions."""
    dropped: Counter[str] = Counter()
    by_caption: dict[str, dict[tuple[str, ...], NegativeRecord]] = {caption.id: {} for caption in captions}
    by_id = {caption.id: caption for caption in captions}
    for negative in negatives:
        if negative.caption_id not in by_id:
            dropped["of captions that are not in the captions file"] += 1
        elif not (negative.text or "").strip():
            dropped["without text (nothing to change)"] += 1
        elif not negative.accepted:
            dropped["not accepted by the checks"] += 1
        else:
            caption, words = by_id[negative.caption_id], normalized_words(str(negative.text))
            if words == normalized_words(caption.text):
                dropped["equal to their caption"] += 1
            elif words in map(normalized_words, caption.positives):
                dropped["equal to a further true text of their caption"] += 1
            elif words in by_caption[caption.id]:
                dropped["equal to an earlier negative"] += 1
            else:
                by_caption[caption.id][words] = negative
    rows = [[(each.text, each.rule, each.score) for each in by_caption[caption.id].values()] for caption in captions]
    return rows, dropped


def plain_digest(array: Any) -> str:
    digest = hashlib.sha256()
    for buffer in array.buffers():
        if buffer is not None:
            digest.update(f"{buffer.size};".encode())
            digest.update(buffer)
    return digest.hexdigest()[:32]


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize(("count", "rows"), [(1, 1 << 16), (300, 1 << 16), (300, 16), (300, 8)])
def test_a_join_in_parts_is_the_plain_join(
    weak: bool, count: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (table, joining):
        monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(joining, "_PARTS", 9)  # Several batches per part.
    if weak:  # First hashes shared by many ids.
        whole = table.id_hashes
        monkeypatch.setattr(joining, "id_hashes", lambda names: (whole(names)[0] % 5, whole(names)[1]))
        monkeypatch.setattr(table, "id_hashes", joining.id_hashes)
    captions, negatives = made_up(count, count)
    done: list[int] = []
    report = joining.join_and_report(captions, negatives, folder=tmp_path, optional=("positives",), advance=done.append)
    assert sum(done) == len(captions) + 2 * len(negatives)
    pairs = table.PairTable(tmp_path / joining.TABLE_NAME)
    expected, dropped = plain_join(captions, negatives)
    assert [list(zip(row.negatives, row.rules, row.scores, strict=True)) for row in pairs] == expected
    assert [row.caption for row in pairs] == captions and report.dropped == dict(sorted(dropped.items()))
    assert report.per_row == dict(sorted(Counter(map(len, expected)).items()))
    text, number = pyarrow.large_string(), pyarrow.float64()
    rules = sorted({rule for row in expected for _, rule, _ in row})
    columns = {
        "ids": pyarrow.array([caption.id for caption in captions], text),
        "captions": pyarrow.array([caption.text for caption in captions], text),
        "negatives": pyarrow.array([[each for each, _, _ in row] for row in expected], pyarrow.large_list(text)),
        "scores": pyarrow.array([[each for *_, each in row] for row in expected], pyarrow.large_list(number)),
    }
    assert {name: pairs.digests[name] for name in columns} == {
        name: plain_digest(each) for name, each in columns.items()
    }
    assert pairs.rules == tuple(rules)
    again = pickle.loads(pickle.dumps(pairs))
    assert again[-1] == pairs[-1] and len(pickle.dumps(pairs)) < 1000, "spawned workers receive the path, not the rows"
    for numbers in ([0], list(range(0, count, 3))):
        some = pairs.select(pickle.loads(pickle.dumps(torch.tensor(numbers).numpy())))
        assert list(some) == [pairs[number] for number in numbers]
        assert some.digests == table.table_of([pairs[number] for number in numbers]).digests


def config_of(pairs: Files, **data: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(**{**pairs, "neighbours": None, "classes": None, "negatives_per_caption": 1, **data})
    )


def read(config: TrainConfig) -> table.PairTable:
    return read_pairs(config.pairs, seed=0, processes=Processes()).rows


def test_files_and_images_are_read_once_and_changes_are_noticed(
    tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    captions = tmp_path / "captions.jsonl"
    captions.write_bytes(tiny_pairs["captions"].read_bytes())
    config = config_of(tiny_pairs, captions=captions)
    first = read(config)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("was read again")

    with monkeypatch.context() as watched:
        watched.setattr(images, "_look_for", refuse)
        watched.setattr(columns, "captions_of_row", refuse)
        watched.setattr("degla.data.formats.jsonl.captions_of_rows", refuse)
        second = read(config)
        fewer = read_rows(replace(config.data, negatives_per_caption=2))
        assert second.source == first.source == fewer.source and list(second) == list(first)
    # The same length and, as with some editors, the same modification time.
    times = captions.stat()
    captions.write_text(captions.read_text().replace("a cat", "a cow", 1))
    os.utime(captions, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read(config).source != first.source
    assert any(row.caption.text == "a cow" for row in read(config))

    def write_on(*arguments: Any, **options: Any) -> Any:
        captions.write_text(
            captions.read_text() + captions.read_text().splitlines()[0].replace('"0-0"', '"new"') + "\n"
        )
        return joining.join_and_report(*arguments, **options)

    with monkeypatch.context() as writing:
        writing.setattr("degla.training.rows.join_and_report", write_on)
        captions.write_text(captions.read_text().replace("a cow", "a pig"))
        with pytest.raises(InputError, match=r"captions\.jsonl: the file changed while it was read\. Start again"):
            read(config)
    with pytest.raises(InputError, match=r"4 negatives per caption are needed, but no caption has more than 3"):
        read_rows(replace(config.data, negatives_per_caption=4))


def test_captions_in_a_file_without_lines_are_read_with_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    table = pyarrow.table({"image": ["1.jpg", "2.jpg"], "text": ["A dog.", "A cat."]})
    pyarrow.parquet.write_table(table, tmp_path / "captions.parquet", compression="none")
    monkeypatch.setattr("degla.training.rows.read_source", lambda path: prepared.SourceState(state=(), sha256="0"))
    with caplog.at_level(logging.INFO, "degla"):
        read_rows(DataConfig(captions=tmp_path / "captions.parquet", negatives_per_caption=0))
    assert caplog.messages[0].startswith("rows: 2, ")


def test_damaged_rows_say_what_to_delete(tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    config = config_of(tiny_pairs)
    for name, message in (("rows.arrow", "is damaged"), ("about.json", "not JSON")):
        read(config)
        (file,) = (path for path in (tmp_path / "cache").rglob(name) if (path.parent / "rows.arrow").is_file())
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(DeglaError, match=rf"{name}.*: {message}.* Delete its folder; it will be made again\."):
            read(config)
        shutil.rmtree(file.parent)


def test_a_file_that_rests_is_not_read_to_know_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    file = tmp_path / "file"
    file.write_text("a\nb\n")
    fresh = prepared.read_source(file)
    assert fresh.lines == 2 and not (tmp_path / "prepared").exists(), "it may still change within a clock tick"
    monkeypatch.setattr(prepared, "_SECONDS_TO_SETTLE", -1)
    assert prepared.read_source(file) == fresh
    (tmp_path / "prepared" / "sources.json").write_text(
        (tmp_path / "prepared" / "sources.json").read_text().replace(fresh.sha256, "f" * 64)
    )
    assert prepared.read_source(file).sha256 == "f" * 64, "the cached entry is used"
    file.write_text("a\nc\n")
    assert prepared.read_source(file).sha256 == hashlib.sha256(b"a\nc\n").hexdigest()


def test_shards_named_from_another_folder_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "0.tar").write_bytes(b"x")
    for path in (Path("shards"), Path("shards/0.tar"), Path("shards/{0..0}.tar")):
        monkeypatch.chdir(tmp_path)
        state = prepared.read_source(path)
        monkeypatch.chdir("/")
        assert prepared.read_source(tmp_path / path) == state
    (shards / "0.tar").write_bytes(b"y")
    assert prepared.read_source(tmp_path / path) != state


def test_a_digest_is_that_of_one_array_wherever_values_are_missing() -> None:
    first, second = (
        pyarrow.array(["a", "b"], pyarrow.large_string()),
        pyarrow.array([None, "c"], pyarrow.large_string()),
    )
    whole = table.digest([pyarrow.concat_arrays([first, second])])
    assert table.digest([first, second]) == table.digest([first, second[:1], second[1:]]) == whole
    assert table.digest([first, pyarrow.array(["", "c"], pyarrow.large_string())]) != whole


def test_the_images_of_rows_are_also_their_second_ones() -> None:
    """Those of questions that a validation asks during training are compared with them."""
    both = CaptionRecord(id="1", image="a.jpg", text="x", image_id="1", distractor_image="b.jpg", distractor_text="y")
    none = CaptionRecord(id="2", image="c.jpg", text="z", image_id="1")
    rows = table.table_of([PairRow(each, (), ()) for each in (both, none)])
    assert rows.images() == {"a.jpg", "b.jpg", "c.jpg"}


def test_what_nobody_uses_is_deleted_when_something_new_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    old, young = (prepared.prepare({"name": name}, lambda _: {"made": True})[0] for name in ("old", "young"))
    for folder, days in ((old, 91), (young, 89)):
        os.utime(folder / "about.json", (time.time() - days * 24 * 3600,) * 2)
    killed, under_way = (old.with_name(name + ".partial") for name in ("killed", "under_way"))
    for folder, days in ((killed, 91), (under_way, 0)):
        folder.mkdir()
        (folder / "columns.arrow").write_bytes(b"half")
        os.utime(folder, (time.time() - days * 24 * 3600,) * 2)
    with caplog.at_level(logging.INFO):
        assert prepared.prepare({"name": "new"}, lambda _: {})[0].is_dir()
    assert not killed.exists() and under_way.exists(), "a killed process leaves no about.json"
    assert not old.exists() and young.exists() and f"{old} was not used for 90 days" in caplog.text
    assert prepared.prepare({"name": "young"}, lambda _: {"made": False}) == (young, {"made": True})
    assert time.time() - (young / "about.json").stat().st_mtime < 3600


def test_another_process_may_delete_what_nobody_uses_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    old, _ = prepared.prepare({"name": "old"}, lambda _: {})
    os.utime(old / "about.json", (0, 0))

    def late(folder: Path) -> None:
        shutil.rmtree(folder)
        remove_folder(folder)

    monkeypatch.setattr(prepared, "remove_folder", late)
    assert prepared.prepare({"name": "new"}, lambda _: {})[0].is_dir() and not old.exists()


def test_bad_rows_are_named_and_leave_nothing(
    tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    for name, field, message in (
        ("captions", {"text": " "}, r"bad\.jsonl line 3: field 'text' .* has no text"),
        ("captions", {"id": "0-0"}, r"bad\.jsonl line 3: caption id '0-0' was already used at .*line 1"),
        ("negatives", {"score": "high"}, r"bad\.jsonl line 3: field 'score'"),
    ):
        rows = [json.loads(line) for line in tiny_pairs[name].read_text().splitlines()]
        rows[2] |= field
        (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for _ in range(2):
            with pytest.raises(InputError, match=message):
                read(config_of(tiny_pairs, **{name: tmp_path / "bad.jsonl"}))
    assert not [path for path in (tmp_path / "cache" / "prepared").iterdir() if path.is_dir()], "half a table"


def test_images_that_are_bad_are_left_out_the_same_way_in_every_process(
    tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for file in tiny_pairs["images"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[: 60 if file.stem == "003" else None])
    config = config_of(tiny_pairs, images=folder, bad_images="skip")
    whole = read(config_of(tiny_pairs, images=folder))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            rows = read(config)
        assert "2 rows are skipped. 1 of 12 images cannot be used." in caplog.text
    usable = [row for row in whole if row.caption.image != "003.png"]
    assert list(rows) == usable and rows.digests == table.table_of(usable).digests
    assert rows.groups().tolist() == table.table_of(usable).groups().tolist()
    (folder / "004.png").unlink()
    assert list(read(config)) == usable, "they were checked"
    again = read_pairs(config.pairs, seed=0, processes=Processes(), anew=True).rows
    assert len(again) == len(usable) - 2
    with pytest.raises(InputError, match=r"1 of 12 images cannot be used\.\n.*004\.png"):
        read_pairs(config_of(tiny_pairs, images=folder).pairs, seed=0, processes=Processes(), anew=True)


def test_further_texts_are_those_of_the_rows_that_are_left(
    tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all rows were prepared before."""
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    fewer = shutil.copytree(tiny_pairs["images"], tmp_path / "fewer")
    (fewer / "001.png").unlink()
    for folder, count in ((tiny_pairs["images"], 24), (fewer, 22)):
        config = config_of(tiny_pairs, images=folder, bad_images="skip")
        objective = losses_by_name(positive_contrast=PositiveContrast(weight=1.0))
        source = read_pairs(replace(config, objective=objective).pairs, seed=0, processes=Processes())
        assert source.extras is not None and len(source.rows) == count
        for number, row in enumerate(source.rows):
            assert all(row.caption.text in text for text in source.extras.at("positive", number))


def test_a_killed_preparation_leaves_nothing_and_the_next_one_is_whole(
    tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    config = config_of(tiny_pairs)
    program = os.fork()
    if program == 0:  # Killed between writing the table and its description.
        try:
            joining.JoinReport.__init__ = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            read(config)
        finally:
            os._exit(1)
    assert os.waitpid(program, 0)[1] == signal.SIGKILL
    assert [path.suffix for path in (tmp_path / "prepared").iterdir() if path.is_dir()] == [".partial"]
    assert len(read(config)) == 24
    assert not list((tmp_path / "prepared").glob("*.partial"))


def test_a_batch_that_does_not_divide_among_the_processes_is_refused(tiny_pairs: Files) -> None:
    """It would be a smaller one without a word."""
    with pytest.raises(InputError, match=r"--train\.batch-size 256 is not divisible by 3 processes"):
        read_pairs(config_of(tiny_pairs).pairs, seed=0, processes=Processes(count=3))


def test_the_command_prepares_what_training_then_finds(
    tiny_pairs: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path))
    flags = [word for name in ("captions", "images", "negatives") for word in (f"--data.{name}", str(tiny_pairs[name]))]
    assert main(["prepare", "rows", "negclip", *flags, "--data.negatives-per-caption", "1"]) == 0
    source = read(config_of(tiny_pairs)).source
    assert capsys.readouterr().out == f"24 pairs: {source}\n" and Path(str(source)).is_relative_to(tmp_path)
