"""Tars and Parquet files with images: the same training as from loose files; errors are named."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from degla.data import containers
from degla.data.columns import Columns
from degla.data.decoding import ImageError, Subject
from degla.data.images import locate, look_for, read_bytes
from degla.data.places import base_of, files_of
from degla.data.sources import read_captions
from degla.errors import DeglaError, InputError
from degla.evaluation.image_files import has_image, read_image_file
from degla.evaluation.overlap import find_leakage, images_of_pairs
from degla.evaluation.trainings import TrainedPairs
from degla.training.loop import train
from degla.training.rows import read_rows
from tests.evaluation.published_layouts import COLOURS, encoded, write_tar
from tests.training.configs import interrupted, tiny_config

Pairs = dict[str, Path]
IMAGE = encoded(COLOURS[0])


def write_shards(pairs: Pairs, folder: Path, *, per_shard: int = 5) -> Path:
    """The tiny pairs in img2dataset's layout: KEY.jpg, KEY.txt and KEY.json, and a .parquet next to each tar."""
    rows = [json.loads(line) for line in pairs["captions"].read_text().splitlines()]
    for number in range(0, len(rows), per_shard):
        members = {}
        for place, row in enumerate(rows[number : number + per_shard]):
            key = f"{number + place:09d}"
            members[f"{key}{Path(row['image']).suffix}"] = (pairs["images"] / row["image"]).read_bytes()
            members[f"{key}.txt"] = row["text"].encode()
            about = {"key": key, "url": "https://example.org/x", "id": row["id"], "image_id": row["image_id"]}
            members[f"{key}.json"] = json.dumps(about).encode()
        write_tar(folder / f"{number // per_shard:05d}.tar", members)
        (folder / f"{number // per_shard:05d}.parquet").write_bytes(b"not read")
    return folder


def test_training_from_tars_is_training_from_loose_files(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    shards = write_shards(tiny_pairs, tmp_path / "shards")
    loose = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "loose")
    train(loose)
    data = replace(loose.data, captions=shards / "{00000..00004}.tar", images=None)
    half = interrupted(replace(loose, data=data), tmp_path / "tars")
    train(replace(half, data=replace(data, workers=1)), resume=True)
    one, other = (load_file(tmp_path / run / "step-4" / "open_clip_model.safetensors") for run in ("loose", "tars"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_training_from_triplet_clips_tars_is_training_from_loose_files(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    members: dict[str, bytes] = {}
    with (tmp_path / "captions.jsonl").open("w") as captions:
        for number, row in enumerate(rows):
            name = f"shard-0/{number:05d}"
            partner = rows[(number + 5) % len(rows)]
            second = {"distractor_image": partner["image"], "distractor_text": f"not {row['text']}"}
            captions.write(json.dumps({**row, "id": name, "image_id": name, **second}) + "\n")
            members[f"{number:05d}.image"] = (tiny_pairs["images"] / row["image"]).read_bytes()
            members[f"{number:05d}.neg_image"] = (tiny_pairs["images"] / partner["image"]).read_bytes()
            members[f"{number:05d}.caption"] = row["text"].encode()
            members[f"{number:05d}.neg_caption"] = f"not {row['text']}\n".encode()
    write_tar(tmp_path / "shards" / "shard-0.tar", members)
    pairs = {**tiny_pairs, "captions": tmp_path / "captions.jsonl"}
    loose = tiny_config("triplet_clip", model=tiny_model, pairs=pairs, out=tmp_path / "loose", steps=2)
    loose = replace(loose, data=replace(loose.data, negatives=None))
    inside = replace(loose.data, captions=tmp_path / "shards" / "shard-{0..0}.tar", images=None, workers=1)
    for run in (loose, replace(loose, data=inside, out=tmp_path / "inside")):
        train(run)
    one, other = (load_file(tmp_path / run / "step-2" / "open_clip_model.safetensors") for run in ("loose", "inside"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_training_from_parquet_is_training_from_loose_files(
    tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files with several row groups, images in a struct as written by `datasets`; read in two processes."""
    monkeypatch.setattr("degla.data.containers._ROWS", 3)
    rows = [json.loads(line) for line in tiny_pairs["captions"].read_text().splitlines()]
    cells = [{"bytes": (tiny_pairs["images"] / row.pop("image")).read_bytes(), "path": None} for row in rows]
    table = pyarrow.Table.from_pylist([{"image": cell, **row} for cell, row in zip(cells, rows, strict=True)])
    for number, part in enumerate((table.slice(0, 11), table.slice(11))):
        (tmp_path / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(part, tmp_path / "data" / f"train-{number}.parquet", row_group_size=4)
    loose = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "loose", steps=2)
    inside = replace(loose.data, captions=tmp_path / "data", images=None, workers=1)
    for run in (loose, replace(loose, data=inside, out=tmp_path / "inside")):
        train(run)
    one, other = (load_file(tmp_path / run / "step-2" / "open_clip_model.safetensors") for run in ("loose", "inside"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_an_order_from_shard_to_shard_needs_shards(tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path) -> None:
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "loose")
    with pytest.raises(
        InputError, match=r"^--data\.order shards: the image of caption '0-0' \(000\.png\) is not in a "
    ):
        train(replace(config, data=replace(config.data, order="shards")))
    near = tiny_config("negclip_hard_images", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "near")
    names = [json.loads(line)["id"] for line in tiny_pairs["captions"].read_text().splitlines()]
    records = [json.dumps({"caption_id": name, "neighbours": names[:2]}) for name in names]
    (tmp_path / "near.jsonl").write_text("\n".join(records) + "\n")
    with pytest.raises(InputError, match=r"^--data\.order shards reads a few .* --data\.neighbours-per-pair adds"):
        train(replace(near, data=replace(near.data, order="shards", neighbours=tmp_path / "near.jsonl")))


def test_the_shard_of_an_image() -> None:
    places = ["a/0.tar@512+7", "A.TAR@0+1", "b@1+2/x.tar@3+4", "c.parquet#image/17", "d.pq#a/b/0", "x.png", "e.tar@5",
              "f.parquet", "line\n.tar@1+2", None]  # fmt: skip
    expected = ["a/0.tar", "A.TAR", "b@1+2/x.tar", "c.parquet", "d.pq", None, None, None, "line\n.tar", None]
    assert containers.containers_of(pyarrow.array(places, pyarrow.large_string())).to_pylist() == expected
    for place, shard in zip(places, expected, strict=True):
        if shard is not None:
            assert str((containers.parsed_cell(str(place)) or containers.parsed_place(str(place)))[0]) == shard


def test_pictures_in_parquet_files(tmp_path: Path) -> None:
    def write(*pictures: object, **more: object) -> Path:
        path = tmp_path / "own" / "a.parquet"
        path.parent.mkdir(exist_ok=True)
        rows = [{"image": picture, "caption": f"number {number}", **more} for number, picture in enumerate(pictures)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    def read(number: int, image: str = "image") -> bytes:
        return read_bytes(f"{path}#{image}/{number}", Subject("x"))

    path = write(IMAGE, b"x" * 100, None)
    records = list(read_captions(path))
    assert [(each.id, each.image, each.text) for each in records][1] == ("1", "a.parquet#image/1", "number 1")
    assert next(read_captions(tmp_path / "*" / "*.parquet")).image == "own/a.parquet#image/0"
    assert (read(0), read(1)) == (IMAGE, b"x" * 100)
    for wrong, message in (((2,), "row 2: column 'image' holds no image"), ((3,), "has 3 rows, but row 3"),
                           ((0, "caption"), "no image column 'caption'")):  # fmt: skip
        with pytest.raises(ImageError, match=message):
            read(*wrong)
    path = write(b"y" * 99)
    assert read(0) == b"y" * 99, "a changed file is copied again"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ImageError, match="the Parquet file is damaged"):
        read(0)


def test_columns_of_pictures_of_any_type_and_name(tmp_path: Path) -> None:
    old = int(pyarrow.__version__.partition(".")[0]) < 21  # Writes no views.
    view = pyarrow.binary() if old else pyarrow.binary_view()
    kinds = (pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()), view, pyarrow.large_binary())
    pictures = [pyarrow.array([b"x", IMAGE], pyarrow.binary()).cast(kind) for kind in kinds]
    for number, column in enumerate(("image", "a/b", "a#b/c")):
        path = tmp_path / f"{number}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({column: pictures[number], "text": ["one", "two"]}), path)
        records = list(read_captions(path, columns=Columns(image=column)))
        assert [read_bytes(locate(each.image, tmp_path), Subject("x")) for each in records] == [b"x", IMAGE]
    kind = pyarrow.struct([("path", pyarrow.string()), ("bytes", pyarrow.binary())])
    structs = pyarrow.array([{"path": "0.jpg", "bytes": b"x"}, {"path": "1.jpg", "bytes": IMAGE}], kind)
    pyarrow.parquet.write_table(pyarrow.table({"image": structs, "text": ["one", "two"]}), tmp_path / "3.parquet")
    records = list(read_captions(tmp_path / "3.parquet"))
    assert [read_bytes(locate(each.image, tmp_path), Subject("x")) for each in records] == [b"x", IMAGE]
    table = pyarrow.table([pictures[0], ["one", "two"], ["1", "2"]], names=["image", "text", "text"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(InputError, match=r"2\.parquet: two columns are named 'text'"):
        list(read_captions(path))


def test_files_of_pictures_need_their_ending(tmp_path: Path) -> None:
    """References to their images are recognised by it."""
    pyarrow.parquet.write_table(pyarrow.table({"image": [IMAGE], "text": ["one"]}), tmp_path / "parquet")
    write_tar(tmp_path / "webdataset", {"a.png": IMAGE, "a.txt": b"one"})
    for name, ending in (("parquet", ".parquet"), ("webdataset", ".tar")):
        with pytest.raises(InputError, match=f"{name}: .* must end in {ending}. Rename it"):
            list(read_captions(tmp_path / name, format=name))


def test_a_full_disk_is_no_damage_of_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise `skip` would skip all its rows even when there is space again."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [IMAGE], "text": ["one"]}), path)
    monkeypatch.setattr(containers, "_NAME", "/dev/full")
    with pytest.raises(DeglaError, match="the disk is full") as caught:
        look_for("a.parquet#image/0", folder=tmp_path, caption_id="0")
    assert not isinstance(caught.value, ImageError)


def test_too_little_memory_is_no_damage_of_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes can unpack to gigabytes; `skip` would skip all rows of a file that is whole."""

    def fail(*_: object, **__: object) -> None:
        raise pyarrow.ArrowMemoryError("realloc of size 2048000000 failed")

    pyarrow.parquet.write_table(pyarrow.table({"image": [IMAGE], "text": ["one"]}), tmp_path / "a.parquet")
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", fail)
    with pytest.raises(DeglaError, match=r"a\.parquet: 4,096 rows do not fit in memory"):
        list(read_captions(tmp_path / "a.parquet"))
    with pytest.raises(DeglaError, match=r"a\.parquet: 64 rows of column 'image' do not fit in memory") as caught:
        look_for("a.parquet#image/0", folder=tmp_path, caption_id="0")
    assert not isinstance(caught.value, ImageError)


def test_a_damaged_copy_of_pictures_is_no_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_CACHE", str(tmp_path / "cache"))
    pyarrow.parquet.write_table(pyarrow.table({"image": [IMAGE], "text": ["one"]}), tmp_path / "a.parquet")
    for _ in range(2):
        containers._image_column.cache_clear()
        look_for("a.parquet#image/0", folder=tmp_path, caption_id="0")
        (copy,) = (tmp_path / "cache").rglob("images.arrow")
        copy.write_bytes(copy.read_bytes()[:-20])
        containers._image_column.cache_clear()
        with pytest.raises(
            DeglaError, match=r"images\.arrow: is damaged: .* Delete its folder; it will be made"
        ) as caught:
            look_for("a.parquet#image/0", folder=tmp_path, caption_id="0")
        assert not isinstance(caught.value, ImageError)
        shutil.rmtree(copy.parent)


def test_a_parquet_file_of_another_name_has_its_own_pictures(tmp_path: Path) -> None:
    def pictures(name: str) -> list[bytes]:
        rows = read_rows(replace(tiny_data, captions=tmp_path / name))
        return [read_bytes(locate(row.caption.image, tmp_path), Subject("x")) for row in rows]

    tiny_data = replace(tiny_config("clip", model=tmp_path, pairs={}, out=tmp_path).data, negatives_per_caption=0)
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"old"], "text": ["one"]}), tmp_path / "a.parquet")
    assert pictures("a.parquet") == [b"old"]
    (tmp_path / "a.parquet").rename(tmp_path / "old.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"new"], "text": ["one"]}), tmp_path / "a.parquet")
    assert pictures("old.parquet") == [b"old"] and pictures("a.parquet") == [b"new"]


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    def texts() -> list[str]:
        rows = read_rows(replace(tiny_data, captions=tmp_path))
        return [rows.at("text", number) for number in range(len(rows))]

    tiny_data = replace(tiny_config("clip", model=tmp_path, pairs={}, out=tmp_path).data, negatives_per_caption=0)
    write_tar(tmp_path / "0.tar", {"a.png": IMAGE, "a.txt": b"one"})
    assert texts() == ["one"]
    write_tar(tmp_path / "0.tar", {"a.png": IMAGE, "a.txt": b"two"})
    assert texts() == ["two"]
    write_tar(tmp_path / "1.tar", {"a.png": IMAGE, "a.json": b'{"caption": ["three", "four"], "status": "success"}'})
    assert texts() == ["two", "three", "four"]


def test_records_are_called_by_archive_and_key(tmp_path: Path) -> None:
    write_tar(tmp_path / "b" / "0.tar", {"x/k.seg.txt": b"no", "x/k.JPG": IMAGE, "x/k.txt": b" said \n"})
    write_tar(
        tmp_path / "a" / "0.tar", {"k.webp": IMAGE, "k.json": b'{"caption": "told", "key": "own"}', "k.cls": b"1"}
    )
    records = list(read_captions(tmp_path / "*" / "0.tar"))
    assert [(each.id, each.image_id, each.text) for each in records] == [
        ("a/0/k", "a/0/k", "told"),
        ("b/0/x/k", "b/0/x/k", "said"),
    ]
    assert records[0].image == f"a/0.tar@512+{len(IMAGE)}"
    assert [each.id for each in read_captions(tmp_path / "a", columns=Columns(id="key"))] == ["own"]
    (single,) = read_captions(tmp_path / "a" / "0.tar", format="webdataset")
    assert single.id == "0/k"


def test_a_named_text_column_is_a_field_of_the_json_member(tmp_path: Path) -> None:
    """Beside a new caption, img2dataset's .txt still holds the old one."""
    write_tar(tmp_path / "0.tar", {"a.png": IMAGE, "a.txt": b"alt", "a.json": b'{"caption": "alt", "better": "new"}'})
    for name, text in (("text", "alt"), ("better", "new")):
        assert [each.text for each in read_captions(tmp_path, columns=Columns(text=name))] == [text]
    with pytest.raises(InputError, match=r"record 'a': has no field 'bettr' for the text\. Did you mean 'better'"):
        list(read_captions(tmp_path, columns=Columns(text="bettr")))


def test_names_in_capitals_and_those_that_begin_with_a_dot(tmp_path: Path) -> None:
    members = {"a.JPG": IMAGE, "a.TXT": b"one", "b.png": b"other", "b.JSON": b'{"caption": "two"}'}
    # As macOS packs them.
    write_tar(
        tmp_path / "A.TAR", {f"{dots}{name}": content for name, content in members.items() for dots in ("._", "")}
    )
    records = list(read_captions(tmp_path))
    assert [(each.id, each.text) for each in records] == [("A/a", "one"), ("A/b", "two")]
    assert [read_bytes(locate(each.image, tmp_path), Subject("x")) for each in records] == [IMAGE, b"other"]


WRONG: dict[str, tuple[Mapping[str, bytes], str]] = {
    "no caption": ({"a.jpg": IMAGE}, r"0\.tar record 'a': has an image but no caption\. Add a \.txt member"),
    "no picture": ({"a.txt": b"x"}, r"0\.tar record 'a': has 'a\.txt' but no image"),
    "nothing": ({"readme.md": b"x"}, r"0\.tar: has no image with a caption"),
    "two pictures": ({"a.jpg": IMAGE, "a.png": IMAGE}, r"two members for its image: 'a\.jpg', 'a\.png'"),
    "empty text": ({"a.jpg": IMAGE, "a.txt": b" "}, r"record 'a': field 'text' .* has no text"),
    "not UTF-8": ({"a.jpg": IMAGE, "a.txt": b"\xff"}, r"member 'a\.txt': not UTF-8"),
    "no field": ({"a.jpg": IMAGE, "a.json": b'{"alt": "x"}'}, r"record 'a': has no field 'text'.*Found: .*alt"),
    "null": ({"a.jpg": IMAGE, "a.json": b'{"caption": null}'}, r"record 'a': field 'text'"),
    "a list": ({"a.jpg": IMAGE, "a.json": b"[]"}, r"member 'a\.json': must be a JSON object"),
    "half a second pair": (
        {"a.image": IMAGE, "a.caption": b"x", "a.neg_caption": b"y"},
        r"record 'a'.*distractor_image and distractor_text require each other",
    ),
    "no JSON": ({"a.jpg": IMAGE, "a.json": b"{"}, r"member 'a\.json'.*not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_records_are_named(case: str, tmp_path: Path) -> None:
    members, message = WRONG[case]
    write_tar(tmp_path / "0.tar", dict(members))
    with pytest.raises(InputError, match=message) as caught:
        list(read_captions(tmp_path, columns=Columns(optional=("distractor_image", "distractor_text"))))
    assert "\n" not in str(caught.value)


def test_wrong_archives_are_named(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    write_tar(tar, {f"{key}{end}": content for key in "abc" for end, content in ((".png", IMAGE), (".txt", b"x"))})
    whole = tar.read_bytes()
    ends = [offset for offset in range(512, len(whole), 512) if whole[offset : offset + 5] in (b"b.png", b"c.png")]
    for size in (*ends, ends[0] + 100, ends[1] + 600):  # between two members, in a header, in an image
        tar.write_bytes(whole[:size])
        with pytest.raises(
            InputError, match=r"0\.tar: (ends inside|is damaged or cut off at|cannot be read as).*Fetch the file"
        ):
            list(read_captions(tmp_path))
    tar.write_bytes(whole[: ends[0]] + b"\1" * 512 + whole[ends[0] + 512 :])
    with pytest.raises(InputError, match=f"damaged or cut off at byte {ends[0]}"):
        list(read_captions(tmp_path))
    with tarfile.open(tar, "w") as archive:
        for _ in range(2):
            about = tarfile.TarInfo("a.png")
            about.size = len(IMAGE)
            archive.addfile(about, io.BytesIO(IMAGE))
    with pytest.raises(InputError, match=r"member 'a\.png' occurs twice"):
        list(read_captions(tmp_path))
    tar.write_bytes(whole + whole)
    with pytest.raises(InputError, match=r"0\.tar: has data after the end of the archive.*tar --concatenate"):
        list(read_captions(tmp_path))
    tar.write_bytes(whole + bytes(99_999))
    assert len(list(read_captions(tmp_path))) == 3
    write_tar(tar, {"a.png": IMAGE, "a.txt": b"x"}, mode="w:gz")
    with pytest.raises(InputError, match="cannot be read as an uncompressed tar"):
        list(read_captions(tmp_path))


def test_patterns(tmp_path: Path) -> None:
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "b-08.tar", "[x].jsonl"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in files_of(tmp_path / "{a,b}-08.tar")] == ["a-08.tar", "b-08.tar"]
    assert [path.name for path in files_of(tmp_path / "a-{08..10}.tar")] == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert [path.name for path in files_of(tmp_path / "?-08.tar")] == ["a-08.tar", "b-08.tar"]
    assert [path.name for path in files_of(tmp_path / "{a-08,a-0*,{a,b}-08}.tar")] == [
        "a-08.tar",
        "a-09.tar",
        "b-08.tar",
    ], "each once"
    assert files_of(tmp_path / "[x].jsonl") == [tmp_path / "[x].jsonl"], "an existing file is not a pattern"
    assert base_of(tmp_path / "s{0..1}" / "x" / "*.tar") == base_of(tmp_path / "a-08.tar") == tmp_path
    inside = tmp_path / "[2024] {raw}"
    inside.mkdir()
    (inside / "a-0.tar").write_bytes(b"")
    for pattern in ("*.tar", "a-{0..0}.tar"):
        assert files_of(inside / pattern) == [inside / "a-0.tar"] and base_of(inside / pattern) == inside
    for wrong, message in {
        "[2024] {raw}/a-{1..1}.tar": "a-1.tar: cannot be read",
        "none-*.tar": "no file matches this pattern",
        "a-{3..1}.tar": "must be ascending",
        "{0..9999999}.tar": "at most 1,000,000",
        "{1,2}.jsonl": "format 'jsonl' does not support patterns",
        "c-{1..2}.tar": "c-1.tar.*No such file",
    }.items():
        with pytest.raises(InputError, match=message):
            list(read_captions(tmp_path / wrong))


def test_leaked_pictures_inside_tars_are_found(tmp_path: Path) -> None:
    write_tar(tmp_path / "shards" / "0.tar", {"a.png": IMAGE, "a.txt": b"x"})
    (tmp_path / "seen.webp").write_bytes(IMAGE)
    (tmp_path / "new.webp").write_bytes(IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]))
    training = images_of_pairs(TrainedPairs(captions=str(tmp_path / "shards")))
    leakage = find_leakage(training, [("own", ["seen.webp", "new.webp"])], root=tmp_path)
    assert leakage.overlaps[0].by_content == 1 and leakage.overlaps[0].examples == ("seen.webp",)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("linked", ["b.jpg", "b.txt", "b.jpg b.txt"])
def test_a_link_that_is_asked_for_is_named(kind: bytes, linked: str, tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    write_tar(tar, {"a.jpg": IMAGE, "a.txt": b"a dog"})
    with tarfile.open(tar, "a") as archive:
        for name in linked.split():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, name.replace("b", "a", 1)
            archive.addfile(about)
    with pytest.raises(InputError, match=r"0\.tar: member 'b\.(jpg|txt)' is a link.*--hard-dereference --dereference"):
        list(read_captions(tar))
    for name in linked.split():
        assert has_image(tmp_path, f"0.tar#{name}")
        with pytest.raises(InputError, match=rf"0\.tar: member '{name}' is a link"):
            read_image_file(tmp_path, f"0.tar#{name}")
    assert read_image_file(tmp_path, "0.tar#a.jpg") == IMAGE


def test_a_sparse_file_is_named(tmp_path: Path) -> None:
    """Its bytes are not those from its offset on."""
    tar, holes = tmp_path / "0.tar", {"GNU.sparse.map": f"0,1,9999,{len(IMAGE)}", "GNU.sparse.size": "20000"}
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("a.jpg", holes), ("a.txt", {}), ("a.bak", holes)):
            about = tarfile.TarInfo(name)
            about.size, about.pax_headers = len(IMAGE) + 1, headers
            archive.addfile(about, io.BytesIO(b" " + IMAGE))
    with pytest.raises(InputError, match=r"member 'a\.jpg' is a link or sparse.*without --sparse"):
        list(read_captions(tar))


def test_links_that_nobody_asks_for_are_passed_over(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    write_tar(tar, {"a.jpg": IMAGE, "a.txt": b"a dog"})
    with tarfile.open(tar, "a") as archive:
        for name, kind in (("latest", tarfile.SYMTYPE), ("a.bak", tarfile.LNKTYPE)):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, "a.jpg"
            archive.addfile(about)
    assert [row.text for row in read_captions(tar)] == ["a dog"]
