"""Pictures inside Parquet and Arrow files, byte for byte; VisMin and BiVLC in the forms of their official files."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from degla.errors import InputError
from degla.evaluation import archives
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmarks import bivlc, vismin
from degla.evaluation.forms import square_question
from degla.evaluation.image_files import has_image, read_image_file, size_of, thumbnail
from degla.evaluation.inventory import take_inventory
from degla.evaluation.item_difference import lead_over
from degla.evaluation.overlap import TrainingImages, find_leakage
from degla.evaluation.results import save_result
from degla.evaluation.verdicts import Judged, order_blind
from degla.records import ItemImage, PairItem
from degla.results import ItemVerdict, Result
from degla.statistics.proportions import wilson
from tests.evaluation.fake_encoders import constant, knowing
from tests.evaluation.shelf_contract import Colours, literal_text, score, tiny_encoder, values_of
from tests.official import OFFICIAL, SHARED

IMAGE = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
Columns = dict[str, list[Any]]


def encoded(number: int, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    colour = (25 * (number % 10), 250 - 25 * (number // 10), 40)
    Image.new("RGB", (32, 24), colour).save(stream, form, **({"quality": 97} if form == "JPEG" else {}))
    return stream.getvalue()


def table_of(columns: Columns, pictures: tuple[str, ...]) -> arrow.Table:
    types = {name: IMAGE if name in pictures else None for name in columns}
    return arrow.table({
        name: arrow.array([{"bytes": cell, "path": None} for cell in cells], IMAGE) if types[name] else cells
        for name, cells in columns.items()
    })  # fmt: skip


def write_bivlc(root: Path) -> dict[str, bytes]:
    """Two files of two groups of rows each; name of each picture to its bytes."""
    (root / "bivlc").mkdir(parents=True)
    contents: dict[str, bytes] = {}
    kinds = [name.split("_") for name in bivlc._COUNTS]
    for part in range(2):
        name = f"test-0000{part}-of-00002.parquet"
        rows = range(7 * part, 7 * part + 7)
        columns: Columns = {
            "image": [encoded(2 * row) for row in rows],
            "caption": [f"A dog {row}." for row in rows],
            "negative_caption": [f"A cat {row}." for row in rows],
            "negative_image": [encoded(2 * row + 1, "PNG") for row in rows],
            "type": [kinds[row % 7][0] for row in rows],
            "subtype": [kinds[row % 7][1] for row in rows],
        }
        parquet.write_table(table_of(columns, ("image", "negative_image")), root / "bivlc" / name, row_group_size=4)
        for column in ("image", "negative_image"):
            contents |= {f"bivlc/{name}#{column}/{at}": content for at, content in enumerate(columns[column])}
    return contents


def write_vismin(root: Path) -> dict[str, bytes]:
    """As `save_to_disk` writes it: an Arrow stream."""
    (root / "vismin").mkdir(parents=True)
    columns: Columns = {
        "id": [f"x{row}" for row in range(8)],
        **{f"image_{side}": [encoded(2 * row + side) for row in range(8)] for side in (0, 1)},
        **{f"text_{side}": [f"{('one', 'two')[side]} {row}" for row in range(8)] for side in (0, 1)},
        "category": [list(vismin._COUNTS)[row % 4] for row in range(8)],
        "question": [["not used"]] * 8,
    }
    table = table_of(columns, ("image_0", "image_1"))
    file = root / "vismin" / "data-00000-of-00001.arrow"
    with arrow.OSFile(str(file), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return {
        f"vismin/{file.name}#image_{side}/{row}": columns[f"image_{side}"][row] for row in range(8) for side in (0, 1)
    }


WRITERS = {"bivlc": (write_bivlc, bivlc.BENCHMARK), "vismin": (write_vismin, vismin.BENCHMARK)}


@pytest.mark.parametrize("name", WRITERS)
def test_bytes_are_those_that_were_written(name: str, tmp_path: Path) -> None:
    write, benchmark = WRITERS[name]
    written = write(tmp_path)
    items = [item for item in benchmark.items(tmp_path) if isinstance(item, PairItem)]
    paths = [image.path for item in items for image in item.images]
    assert sorted(paths) == sorted(written) and len(paths) == 2 * len(items)
    for path, content in written.items():
        assert has_image(tmp_path, path) and read_image_file(tmp_path, path) == content
        assert size_of(tmp_path, path) == len(content)
    assert thumbnail(ItemImage(path=paths[0]), root=tmp_path)
    beyond = paths[0].rpartition("/")[0]
    assert not any(has_image(tmp_path, f"{beyond}/{row}") for row in ("99", "-1", "x", ""))
    assert not has_image(tmp_path, paths[0].rpartition("#")[0] + "#caption/0")


def test_rows_of_the_same_photograph_are_not_independent(tmp_path: Path) -> None:
    """BiVLC's 2,933 rows show 1,164 photographs: an interval over rows was a fifth too narrow."""
    columns: Columns = {
        "image": [encoded(2 * (row // 2)) for row in range(6)],
        "caption": [f"A dog {row}." for row in range(6)],
        "negative_caption": [f"A cat {row}." for row in range(6)],
        "negative_image": [encoded(2 * row + 1, "PNG") for row in range(6)],
        "type": ["replace"] * 6,
        "subtype": ["obj"] * 6,
    }
    (tmp_path / "bivlc").mkdir()
    parquet.write_table(table_of(columns, ("image", "negative_image")), tmp_path / "bivlc" / "a.parquet")
    result = score(constant(), "bivlc", tmp_path)
    assert [item.image for item in result.items] == [f"bivlc/a.parquet#image/{row}" for row in range(6)]
    assert [item.drawn_with for item in result.items] == [f"bivlc/a.parquet#image/{row // 2 * 2}" for row in range(6)]
    interval = result.benchmarks[0].parts[0].scores[0].interval
    assert interval is not None and interval.high == pytest.approx(wilson(0, 3).high)
    # A result of a version that did not know it numbers its pictures otherwise: no difference is paired with that.
    one, older = tmp_path / "one.json", tmp_path / "older.json"
    save_result(result, one)
    save_result(result.model_copy(update={"items": [_unaware(item) for item in result.items]}), older)
    names = [("bivlc", ("replace_obj", result.benchmarks[0].parts[0].scores[0].metric))]
    assert lead_over(names, [one], [one]) is not None and lead_over(names, [one], [older]) is None


def _unaware(item: ItemVerdict) -> ItemVerdict:
    return item.model_copy(update={"same_as": ""})


def test_threads_share_a_file(tmp_path: Path) -> None:
    """Evaluation opens pictures in threads, of several groups of rows at a time."""
    contents = [bytes([row % 256]) * 2000 for row in range(64)]
    parquet.write_table(arrow.table({"image": contents}), tmp_path / "a.parquet", row_group_size=2)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            archives._open.cache_clear()
            archives._image_column.cache_clear()
            results = threads.map(lambda row: read_image_file(tmp_path, f"a.parquet#image/{row}"), range(64))
            assert list(results) == contents


def colours_of(written: dict[str, bytes]) -> Colours:
    colours: Colours = {}
    for path, content in written.items():
        pixel = Image.open(io.BytesIO(content)).convert("RGB").getpixel((5, 5))
        assert isinstance(pixel, tuple)
        colours[path] = pixel  # type: ignore[assignment]
    return colours


@pytest.mark.parametrize("name", WRITERS)
def test_oracle_liar_and_constant(name: str, tmp_path: Path) -> None:
    write, benchmark = WRITERS[name]
    written = write(tmp_path)
    items = [item for item in benchmark.items(tmp_path) if isinstance(item, PairItem)]
    truth = {image.path: [text] for item in items for image, text in zip(item.images, item.texts, strict=True)}
    for lying, worth in ((False, 1.0), (True, 0.0)):
        encoder = knowing(truth, colours_of(written), lying=lying)
        assert set(values_of(score(encoder, name, tmp_path).benchmarks[0]).values()) == {worth}
    tied = score(constant(), name, tmp_path).benchmarks[0]
    assert all(row.ties == row.n and row.value == 0 for part in tied.parts for row in part.scores)


def literal(name: str, root: Path, written: dict[str, bytes]) -> tuple[Result, dict[str, list[list[float]]]]:
    """A result, and each item's four cosines `[image][text]`, one forward each."""
    encoder = tiny_encoder()
    import torch

    def image_row(path: str) -> torch.Tensor:
        with torch.no_grad():
            picture = Image.open(io.BytesIO(written[path])).convert("RGB")
            row = encoder.clip.encode_image(encoder.transform(picture)[None])[0]
        return row / row.norm()

    cosines = {
        item.id: [[float(image_row(image.path) @ literal_text(encoder, text)) for text in item.texts]
                  for image in item.images]
        for item in WRITERS[name][1].items(root) if isinstance(item, PairItem)
    }  # fmt: skip
    return score(encoder, name, root), cosines


def test_bivlc_equals_its_protocol_item_by_item(tmp_path: Path) -> None:
    result, cosines = literal("bivlc", tmp_path, write_bivlc(tmp_path))
    verdicts = {item.id: item.ok for item in result.items}
    assert verdicts.keys() == cosines.keys() and len(verdicts) == 14
    for name, s in cosines.items():
        ways = {
            "text_ok.1": s[0][0] > s[0][1], "text_ok.2": s[1][1] > s[1][0],
            "image_ok.1": s[0][0] > s[1][0], "image_ok.2": s[1][1] > s[0][1],
        }  # fmt: skip
        texts, images = ways["text_ok.1"] and ways["text_ok.2"], ways["image_ok.1"] and ways["image_ok.2"]
        assert verdicts[name] == ways | {"text_ok": texts, "image_ok": images, "group_ok": texts and images}
    ways_of = [f"{side}_ok.{number}" for side in ("text", "image") for number in (1, 2)]
    assert list(result.items[0].ok) == ["text_ok", "image_ok", "group_ok", *ways_of], "equal results are equal files"
    chance = {row.metric: row.chance for row in result.benchmarks[0].parts[0].scores}
    assert chance == {"group": 1 / 6, "text": 0.25, "image": 0.25} | {way.name: 0.5 for way in bivlc._DIRECTIONS}


def test_each_row_of_bivlc_weighs_the_same_in_a_family() -> None:
    names = {metric.verdict for metric in bivlc.BENCHMARK.parts[0].metrics}
    rows = [
        ItemVerdict(id=f"{part}/{number}", benchmark="bivlc", part=part, image=f"{part}{number}.jpg",
                    ok=dict.fromkeys(names, float(part == "replace_att")), ties=dict.fromkeys(names, 0), margin=None)
        for part, count in (("replace_obj", 3), ("replace_att", 1)) for number in range(count)
    ]  # fmt: skip
    averages = aggregate(bivlc.BENCHMARK, [Judged(row, {}) for row in rows], draws=1).averages
    assert {row.name: row.value for row in averages} == {"replace": 0.25}


def test_vismin_equals_its_protocol_item_by_item(tmp_path: Path) -> None:
    result, cosines = literal("vismin", tmp_path, write_vismin(tmp_path))
    verdicts = {item.id: [item.ok[f"{name}_ok"] == 1 for name in ("text", "image")] for item in result.items}
    assert verdicts == {
        name: [s[0][0] > s[0][1] and s[1][1] > s[1][0], s[0][0] > s[1][0] and s[1][1] > s[0][1]]
        for name, s in cosines.items()
    }
    averages = {average.name: average.value for average in result.benchmarks[0].averages}
    assert averages["mean12"] == pytest.approx(sum(averages[name] for name in ("group", "text", "image")) / 3)


@pytest.mark.skipif(not OFFICIAL, reason="the official rows are not in ../shared/data")
def test_order_blind_ceilings_are_the_share_of_pairs_of_other_words() -> None:
    rows = json.loads((SHARED / "bivlc" / "bivlc_test_rows.json").read_text())
    items = [
        square_question(
            ("bivlc", f"{row['type']}_{row['subtype']}", number), ("a.png", "b.png"),
            (row["caption"], row["negative_caption"]),
        )
        for number, row in enumerate(rows)
    ]  # fmt: skip
    scores = aggregate(bivlc.BENCHMARK, order_blind(bivlc.BENCHMARK, items), draws=1).parts
    expected = {"swap_obj": 24 / 81, "swap_att": 109 / 278}
    for part in bivlc.BENCHMARK.parts:
        ceilings = {score.metric: (score.value, score.n) for score in scores[part.name]}
        share = expected.get(part.name, 1.0)
        for metric in ("group", "text", "image", "texts_of_photograph"):
            assert ceilings[metric] == (pytest.approx(share), part.n)
        assert ceilings["images_of_caption"] == (1.0, part.n)


def test_published_counts() -> None:
    assert sum(part.n or 0 for part in bivlc.BENCHMARK.parts) == 2933
    assert sum(part.n or 0 for part in vismin.BENCHMARK.parts) == 2084


def test_a_picture_that_is_not_in_the_file_is_named(tmp_path: Path) -> None:
    write_bivlc(tmp_path)
    file = tmp_path / "bivlc" / "test-00000-of-00002.parquet"
    table = parquet.read_table(file)
    cells = table.column("image").to_pylist()
    cells[3] = {"bytes": None, "path": "3.jpg"}
    place = table.column_names.index("image")
    parquet.write_table(table.set_column(place, "image", arrow.array(cells, IMAGE)), file)
    path = f"bivlc/{file.name}#image/3"
    assert not has_image(tmp_path, path) and has_image(tmp_path, path[:-1] + "4")
    with pytest.raises(InputError, match=r"#image/3: the file has no such image"):
        read_image_file(tmp_path, path)
    (row,) = take_inventory(tmp_path, names=["bivlc"])
    assert (row.missing_images, row.missing_examples) == (1, (path,))
    entry = score(constant(), "bivlc", tmp_path).benchmarks[0]
    assert sum(part.missing for part in entry.parts) == 1
    with pytest.raises(InputError, match=r"'replace_obj' under .* has 2 items, the published one has 1,200"):
        score(constant(), "bivlc", tmp_path, allow_missing=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bivlc", "not a valid Parquet file: .*Download or generate it again"),
        ("vismin", "cannot be read as an Arrow stream: .*Fetch the file again"),
    ],
)
def test_damaged_and_missing_files_are_named(name: str, message: str, tmp_path: Path) -> None:
    write, benchmark = WRITERS[name]
    with pytest.raises(InputError, match=rf"has no {name}/\*.*huggingface\.co"):
        list(benchmark.items(tmp_path))
    write(tmp_path)
    file = min((tmp_path / name).iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:200] if name == "bivlc" else b"ARROW1" + whole[:100])
    with pytest.raises(InputError, match=f"{file.name}: {message}"):
        list(benchmark.items(tmp_path))
    file.write_bytes(whole)
    table = arrow.table({"caption": ["a"]})
    parquet.write_table(table, tmp_path / name / "a.parquet")
    if name == "bivlc":
        with pytest.raises(InputError, match=r"a\.parquet row 0: field 'image'"):
            list(benchmark.items(tmp_path))


@pytest.mark.parametrize(("name", "place"), [("a.parquet", b"a dog"), ("a.arrow", b"a dog"), ("a.arrow", b"caption")])
def test_what_is_not_utf8_is_damaged(name: str, place: bytes, tmp_path: Path) -> None:
    file, table = tmp_path / name, arrow.table({"caption": ["a dog"]})
    if file.suffix == ".parquet":
        parquet.write_table(table, file, compression="none")
    else:
        with arrow.OSFile(str(file), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    file.write_bytes(file.read_bytes().replace(place, b"\xff" * len(place)))
    with pytest.raises(InputError, match=rf"{name}: cannot be read as .*Fetch the file again"):
        list(archives.read_rows(file))


def test_damaged_pictures_are_noted_in_an_inventory(tmp_path: Path) -> None:
    write_bivlc(tmp_path)
    file = min((tmp_path / "bivlc").iterdir())
    table = parquet.read_table(file)
    parquet.write_table(table, file, write_page_checksum=True, compression="none", use_dictionary=False)
    content = file.read_bytes()
    place = content.index(encoded(0)) + 300
    file.write_bytes(content[:place] + b"\0" + content[place + 1 :])
    (row,) = take_inventory(tmp_path, names=["bivlc"])
    assert row.state == "incomplete" and f"{file.name}: cannot be read as a Parquet file" in row.notes[0]


def test_rows_of_a_folder_of_datasets_have_the_size_of_their_files(tmp_path: Path) -> None:
    """By which `find_leakage` looks for images that a run was trained on."""
    datasets = pytest.importorskip("datasets")
    rows = [{"text": "a", "image": {"bytes": encoded(at), "path": None}} for at in range(2)]
    features = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image()})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "captions"))
    (tmp_path / "train.jpg").write_bytes(encoded(1))
    paths = [f"dataset:{tmp_path / 'captions'}#image/{at}" for at in range(2)]
    assert [size_of(tmp_path, path) for path in paths] == [len(encoded(at)) for at in range(2)]
    training = TrainingImages((tmp_path / "captions",), frozenset({tmp_path / "train.jpg"}))
    (overlap,) = find_leakage(training, [("own", paths)], root=tmp_path).overlaps
    assert (overlap.images, overlap.by_content, overlap.examples) == (2, 1, (paths[1],))
