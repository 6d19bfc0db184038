"""Whatever a file or reply contains, its reader returns a value or a one-line error with the location."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from degla import parse, records
from degla.config.fields import read_values
from degla.data.sources import read_captions, read_negatives
from degla.errors import InputError
from degla.evaluation.archives import labelled_members
from degla.evaluation.results import load_result
from degla.negatives.replies import read_member, read_reply
from degla.results import ItemVerdict
from tests.evaluation.published_layouts import write_tar

DEEP = "[" * 100_000
DIGITS = "9" * 5_000
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))

JSON_TROUBLES = {
    "deep": (DEEP, "nested more than 64 levels"),
    "deep but closed": ('{"a":' * 100 + "1" + "}" * 100, "nested more than 64 levels"),
    "digits": (f'{{"image_id": {DIGITS}}}', "more than 4,300 digits"),
    "infinite": ('{"a": 1e999}', "1e999 is too large"),
    "nan": ('{"a": NaN}', "NaN is not a number"),
    "twice": ('{"a": 1, "a": 2}', "'a' occurs twice"),
    "half a pair": ('{"a": "\\ud83d"}', "surrogate"),
    "not utf-8": (b'{"a": "\xff"}', "not UTF-8 text"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 text"),
    "torn": ('{"a": ', "not JSON"),
    "two texts": ('{"a": 1} {"a": 2}', "not JSON: Extra data"),
    "nothing": ("", "not JSON"),
}


def one_line(caught: pytest.ExceptionInfo[InputError], *words: str) -> None:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", JSON_TROUBLES)
def test_json(name: str, tmp_path: Path) -> None:
    content, says = JSON_TROUBLES[name]
    raw = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(InputError) as caught:
        parse.parse_json(raw, where="reply 3", remedy="Ask again.")
    one_line(caught, "reply 3", says, "Ask again.")
    file = tmp_path / "x.json"
    file.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        parse.read_json(file)
    one_line(caught, "x.json", says)


def test_good_json_is_read_as_before(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "\U0001f600"], "b": {"c": []}, "d": 10**4000}
    file = tmp_path / "x.json"
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), "\ufeff" + json.dumps(value, indent=2)):
        file.write_text(text, encoding="utf-8")
        assert parse.read_json(file) == value
    assert parse.parse_json("[NaN, Infinity]", where="metrics", constants=True)[1] == float("inf")
    assert parse.parse_json("[" * 64 + "]" * 64, where="x") is not None


@pytest.mark.parametrize("name", [name for name in JSON_TROUBLES if name != "nothing"])
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_captions_and_negatives(name: str, ending: str, tmp_path: Path) -> None:
    content, _ = JSON_TROUBLES[name]
    file = tmp_path / f"captions.{ending}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (read_captions, read_negatives):
        with pytest.raises(InputError) as caught:
            list(read(file))  # type: ignore[operator]
        one_line(caught, file.name)


def test_a_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    good = b'{"id": "1", "image": "a.png", "text": "A dog.", "image_id": "a"}\n'
    file.write_bytes(good + good.replace(b"dog", b"d\xffg"))
    with pytest.raises(InputError) as caught:
        list(read_captions(file))
    one_line(caught, "captions.jsonl line 2: not UTF-8 text")


@pytest.mark.parametrize("name", JSON_TROUBLES)
def test_results(name: str, tmp_path: Path) -> None:
    content, says = JSON_TROUBLES[name]
    file = tmp_path / "results.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load_result(file)
    one_line(caught, "results.json", says, "degla evaluate")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 1\nsteps: 2", "line 2: not YAML: the key 'steps' occurs twice"),
        ("[" * 100_000, "nest"),
        ("a: " + "[" * 100 + "]" * 100, "nested more than 64 levels"),
        (BOMB, "aliases expand to more than"),
        ("a: &a [*a]", "nested more than 64 levels"),
        (f"a: {DIGITS}", "4300 digits"),
        (f"a: [{{b: 0x{'f' * 5000}}}]", "4,300 digits"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("!!int x", "YAML that cannot be read"),
        ("!!python/object/apply:os.system [ls]", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_yaml(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_values(file)
    one_line(caught, "plan.yaml", says)


def test_good_yaml_is_read_as_before(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("base: &b {a: 1}\nother: {<<: *b, c: 2.5}\nlist: [x, ~, true]\n", encoding="utf-8")
    assert read_values(file) == {"base": {"a": 1}, "other": {"a": 1, "c": 2.5}, "list": ["x", None, True]}


@pytest.mark.parametrize("text", [f"a = {DIGITS}", "a = " + "[" * 100_000, "a = 1\na = 2", "a = "])
def test_toml(text: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_values(file)
    one_line(caught, "plan.toml")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("captions.jsonl", "captions.csv", "captions.json", "captions.parquet", "captions"):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        with pytest.raises(InputError) as caught:
            list(read_captions(pipe))
        one_line(caught, name, "a pipe")


def test_a_path_that_no_file_system_takes() -> None:
    with pytest.raises(InputError) as caught:
        read_captions(Path("x" * 5_000))
    one_line(caught, "5000 characters")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_column_that_is_there_twice(separator: str, tmp_path: Path) -> None:
    file = tmp_path / ("captions.csv" if separator == "," else "captions.tsv")
    rows = (("image", "text", "text"), ("a.png", "A dog.", "A cat."))
    file.write_text("".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(read_captions(file))
    one_line(caught, file.name, "line 1", "two columns are named 'text'")


@pytest.mark.parametrize("label", [DIGITS, DEEP, "-1", "\u00b2", "1 2", "1" * 12])
def test_the_label_of_an_archive(label: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"0.png": b"", "0.cls": label.encode()})
    with pytest.raises(InputError) as caught:
        list(labelled_members(tmp_path / "0.tar"))
    one_line(caught, "0.tar", "0.cls")


@pytest.mark.parametrize(
    "answer",
    [f'{{"a": {DIGITS}, "negative": "A cat."}}', '{"a": ' + DEEP + ', "negative": "A cat."}'],
)
def test_a_models_answer_is_read_all_the_same(answer: str) -> None:
    assert read_member(answer) == "A cat."


def test_a_models_answer_never_holds_what_no_file_can() -> None:
    answers: list[Any] = ['{"negative": "A \\ud800 cat."}', '{"x": "\\udfff"}', '{"negative": "A \\x cat."']
    for answer in answers:
        read_reply(answer).encode()


def test_what_is_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "LARGEST_FILE", 10**6)
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(10**6 + 1)
    with pytest.raises(InputError, match=r"large\.json: 0\.0 GB, too large to read at once"):
        parse.read_json(tmp_path / "large.json")
    monkeypatch.setattr(parse, "LONGEST_LINE", 1 << 20)
    (tmp_path / "long.jsonl").write_text("{}\n" + json.dumps("x" * (1 << 20)) + "\n")
    with pytest.raises(InputError, match=r"long\.jsonl line 2: longer than 1 MiB; each line must contain one record"):
        list(parse.read_json_lines(tmp_path / "long.jsonl"))


PLAIN = '{"rule": "r", "kind": "k", "text": "t", "source": "s", "accepted": true'
MORE = ["", ', "draw": 2', ', "draw": 1, "draw": 2', ', "text": "u"', ', "accepted": true', ', "score": NaN',
        ', "score": 1e999', ', "reason": "\\u00e9"', ', "reason": "{[\\""', ', "oops": 1',
        ', "draw": []', f', "draw": {DIGITS}']  # fmt: skip


@pytest.mark.parametrize("name", ['"1"', "1"])
@pytest.mark.parametrize("more", MORE)
def test_lines_that_are_parsed_and_checked_in_one_are_read_as_others(
    more: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{PLAIN}, "caption_id": {name}{more}}}\n')

    def read() -> object:
        try:
            return list(records.read_jsonl(records.NegativeRecord, tmp_path / "rows.jsonl"))
        except InputError as error:
            return str(error)

    result = read()
    monkeypatch.setattr(records, "_flat_record", lambda *_: None)
    assert read() == result


ITEM = '"id": "i", "benchmark": "b", "part": "p", "image": "m", "margin": 0.1'
OBJECTS = ['"ok": {"a": 1.0}, "ties": {"a": 0}', '"ok": {"a": 1, "b": 0.3}, "ties": {}, "group": {"g": "x"}',
           '"ok": {"a": 1.0, "a": 0.0}, "ties": {}', '"ok": {"a": 1.0}, "ties": {"a": 0, "a": 0}',
           '"ok": {}, "ok": {"a": 1.0}, "ties": {}', '"ok": {}, "ties": {}, "group": {"g": "x", "g": "x"}',
           '"ok": {}, "ties": {}, "group": {"g": "{"}', '"ok": {}, "ties": {}, "group": {"g": {"h": "x"}}',
           '"ok": {}, "ties": {}, "group": {"g": 1}', '"ok": {}, "ties": {"a": 1.0}', '"ok": {}, "ties": {"a": "1"}',
           '"ok": {"a": NaN}, "ties": {}', '"ok": {"a": -Infinity}, "ties": {}', '"ok": {"a": 1e999}, "ties": {}',
           '"ok": {"a": "1"}, "ties": {}', '"ok": {"a": true}, "ties": {}', '"ok": 1, "ties": {}']  # fmt: skip


@pytest.mark.parametrize("objects", OBJECTS)
def test_lines_with_objects_of_plain_values_are_read_as_others(
    objects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{{{ITEM}, {objects}}}\n")

    def read() -> object:
        try:
            return list(records.read_jsonl(ItemVerdict, tmp_path / "rows.jsonl"))
        except InputError as error:
            return str(error)

    result = read()
    monkeypatch.setattr(records, "_flat_record", lambda *_: None)
    assert read() == result


def test_items_of_results_are_parsed_and_checked_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{{{ITEM}, {OBJECTS[0]}}}\n{{{ITEM}, {OBJECTS[1]}}}\n")
    monkeypatch.setattr(records, "parse_json", None)
    assert len(list(records.read_jsonl(ItemVerdict, tmp_path / "rows.jsonl"))) == 2


@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_pickles_are_read_and_forged_ones_refused(protocol: int) -> None:
    plain = [np.arange(6, dtype=">i4").reshape(2, 3), np.ones((2, 3)).T, np.array(["ab", "c"]), np.float32(2.5)]
    for array, value in zip(parse.unpickle(pickle.dumps(plain, protocol), encoding="bytes"), plain, strict=True):
        assert np.array_equal(array, value) and array.dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
    with pytest.raises(pickle.UnpicklingError, match="it has an array of object, not of numbers or texts"):
        parse.unpickle(pickle.dumps(np.array([None]), protocol), encoding="bytes")
    # Each of these would make numpy follow a pointer that the file made up, and end the process.
    kind = b"cnumpy\ndtype\n(S'O8'\ntR"
    pointers = b"cnumpy\nndarray\n((I2\nt" + kind + b"S'" + b"A" * 16 + b"'\ntR."
    outside = b"cnumpy\ndtype\n(S'V8'\ntR(I3\nS'|'\nN(S'a'\nt(dS'a'\n(" + kind + b"I1000000\ntsI8\nI1\nI27\ntb"
    for content in (pointers, b"cnumpy.core.multiarray\n_reconstruct\n(N(I4\nt" + outside + b"tR."):
        with pytest.raises(pickle.UnpicklingError, match="not of numbers or texts"):
            parse.unpickle(content, encoding="bytes")


def test_a_key_that_occurs_twice_is_found_at_once_in_a_large_object() -> None:
    keys = ",".join(f'"{number}":1' for number in range(100_000))
    with pytest.raises(InputError, match="x: the key '99999' occurs twice in one object"):  # in minutes, if by pairs
        parse.parse_json(f'{{{keys},"99999":2}}', where="x")


def test_a_gzip_file_needs_no_more_memory_than_its_content(tmp_path: Path) -> None:
    """The whole limit, 1 GiB, was reserved for any file, which failed under a limit of the address space."""
    (tmp_path / "rows.gz").write_bytes(gzip.compress(content := os.urandom(3 * 2**20)))
    tracemalloc.start()
    try:
        assert parse.read_gzip(tmp_path / "rows.gz") == content
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
