"""Members of the shelf keep its form; SugarCrepe against a literal, one-item-at-a-time twin; folders of classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.run import Evaluation
from degla.evaluation.verdicts import Judged
from degla.model.encoder import Encoder
from degla.results import ItemVerdict
from degla.shelf import BENCHMARKS
from degla.statistics.proportions import pooled_groups
from tests.evaluation.fake_encoders import bag_of_words, spreading, words
from tests.evaluation.shelf_contract import literal_image, literal_text, tiny_encoder
from tests.official import SHARED

COUNTS = {
    "replace_obj": 1652,
    "replace_att": 788,
    "replace_rel": 1406,
    "swap_obj": 245,
    "swap_att": 666,
    "add_obj": 2062,
    "add_att": 692,
}


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_member_is_complete(name: str) -> None:
    benchmark = BENCHMARKS.load(name).BENCHMARK
    assert isinstance(benchmark, Benchmark)
    assert benchmark.name == name
    assert all((benchmark.title, benchmark.paper, benchmark.licence, benchmark.source, benchmark.layout))
    patterns = {part.name for part in benchmark.parts}
    names: list[str] = []
    for average in benchmark.averages:
        for member in average.of:
            assert "*" in member or member in patterns or member in names or "*" in patterns
        names.append(average.name)
    # An average of averages, or a column, would take the one for the other.
    assert len({*names, *patterns}) == len(names) + len(patterns)
    for source in benchmark.headline.values():
        assert source in names or benchmark.part(source)


def test_the_pages_numbers_of_items_are_those_of_the_parts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    items = {name.strip("|` "): cells[1] for name, *cells in reversed(rows) if len(cells) == 3}
    names = ("bivlc", "cc_neg", "cola", "colorswap", "crepe", "eqben", "hard_positives", "valse", "vismin", "whatsup")
    for name in (*names, "winoground"):
        total = sum(part.n or 0 for part in BENCHMARKS.member(name, "BENCHMARK").parts)
        assert items[name].startswith(f"{total:,}"), name


def test_sugarcrepe_counts_are_the_published_ones(data_root: Path) -> None:
    benchmark = BENCHMARKS.load("sugarcrepe").BENCHMARK
    items = list(benchmark.items(data_root))
    official = data_root == SHARED
    assert {part.name: part.n for part in benchmark.parts} == COUNTS and sum(COUNTS.values()) == 7511
    counts = COUNTS if official else dict.fromkeys(COUNTS, 8)
    assert {part: sum(item.part == part for item in items) for part in COUNTS} == counts
    assert len({item.id for item in items}) == sum(counts.values())
    # A key is missing in swap_obj: 108 of the official file.
    assert f"sugarcrepe/swap_obj/{108 if official else 1}" not in {item.id for item in items}
    averages = {average.name for average in benchmark.averages}
    assert {"replace.macro", "replace.micro", "swap.macro", "add.micro", "macro7", "micro"} <= averages


def literal_sugarcrepe(encoder: Encoder, root: Path) -> dict[str, bool]:
    """One item at a time, whole token rows, one image a forward: what the protocol says and nothing else."""
    right: dict[str, bool] = {}
    for part in COUNTS:
        for key, row in json.loads((root / "sugarcrepe" / f"{part}.json").read_text()).items():
            path = root / "coco" / "val2017" / row["filename"]
            if not path.exists():
                continue
            image = literal_image(encoder, path)
            true, false = (float(image @ literal_text(encoder, row[name])) for name in ("caption", "negative_caption"))
            right[f"sugarcrepe/{part}/{key}"] = true > false
    return right


def test_sugarcrepe_equals_the_literal_protocol_item_by_item(data_root: Path) -> None:
    encoder = tiny_encoder()
    result = Evaluation(["sugarcrepe"], data_root, allow_missing=True, progress=False).score(encoder)
    expected = literal_sugarcrepe(encoder, data_root)
    official = data_root == SHARED
    assert len(expected) == (148 if official else 49)
    assert {item.id: item.ok["text_ok"] == 1 for item in result.items} == expected
    assert 0.2 < sum(expected.values()) / len(expected) < 0.8
    for part in result.benchmarks[0].parts:
        members = [right for name, right in expected.items() if name.split("/")[1] == part.name]
        assert part.scores[0].value == pytest.approx(sum(members) / len(members))
        assert part.scores[0].n + part.missing == (COUNTS[part.name] if official else 8)
    with pytest.raises(InputError, match=r"images are not under .*--allow-missing|has 8 items, the published"):
        Evaluation(["sugarcrepe"], data_root, progress=False).score(encoder)


def test_a_bag_of_words_ties_on_swaps(data_root: Path) -> None:
    result = Evaluation(["sugarcrepe"], data_root, allow_missing=True, progress=False).score(bag_of_words())
    swaps = [part for part in result.benchmarks[0].parts if part.family == "swap"]
    assert sum(part.scores[0].ties for part in swaps) > 5
    assert sum(part.scores[0].ties for part in result.benchmarks[0].parts if part.family == "replace") == 0
    texts = {item.id: item.texts for item in BENCHMARKS.load("sugarcrepe").BENCHMARK.items(data_root)}
    assert {item.id for item in result.items if item.ties["text_ok"]} == {
        item.id for item in result.items if len({tuple(sorted(words(text))) for text in texts[item.id]}) == 1
    }


def test_wrong_sugarcrepe_files_are_named(tmp_path: Path) -> None:
    items = BENCHMARKS.load("sugarcrepe").BENCHMARK.items
    with pytest.raises(InputError, match=r"replace_obj\.json: cannot be read.*github"):
        list(items(tmp_path))
    (tmp_path / "sugarcrepe").mkdir()
    file = tmp_path / "sugarcrepe" / "replace_obj.json"
    file.write_text('{"0": {"filename": "a.jpg", "caption": "x"}}')
    with pytest.raises(InputError, match=r"replace_obj\.json item '0': field 'negative_caption'"):
        list(items(tmp_path))
    file.write_text("[]")
    with pytest.raises(InputError, match="one JSON object"):
        list(items(tmp_path))


def write_folders(root: Path, description: object) -> Path:
    folder = root / "zeroshot" / "toys"
    for number, name in enumerate(("red_ball", "blue_cube")):
        (folder / name).mkdir(parents=True)
        for copy in range(2 + number):
            Image.new("RGB", (8, 8), (100 * number, 0, copy)).save(folder / name / f"{copy}.png")
    if description is not None:
        (folder / "classes.json").write_text(json.dumps(description))
    return folder


def test_class_folders_are_read(tmp_path: Path) -> None:
    write_folders(tmp_path, {"classes": {"red_ball": "ball", "blue_cube": "cube"}, "templates": ["a {}.", "one {}"]})
    (tmp_path / "zeroshot" / ".DS_Store").write_bytes(b"no folder of a data set")
    (entry,) = BENCHMARKS.load("zeroshot").BENCHMARK.items(tmp_path)
    assert entry.classes == ("cube", "ball")
    assert entry.labels == (0, 0, 0, 1, 1)
    assert entry.images[0].path == "zeroshot/toys/blue_cube/0.png"
    result = Evaluation(["zeroshot"], tmp_path, progress=False).score(spreading())
    top1, per_class, top5 = result.benchmarks[0].parts[0].scores
    right = {item.id: item.ok["top1"] for item in result.items}
    cubes = [worth for name, worth in right.items() if "blue_cube" in name]
    balls = [worth for name, worth in right.items() if "red_ball" in name]
    assert top1.value == pytest.approx(sum(right.values()) / 5)
    assert per_class.value == pytest.approx((sum(cubes) / 3 + sum(balls) / 2) / 2)
    assert top1.chance == 0.5
    assert (top5.value, top5.chance) == (1.0, 1.0), "two classes are both among the first five"


def test_copies_of_a_picture_are_drawn_with_it(tmp_path: Path) -> None:
    folder = write_folders(tmp_path, None)
    shutil.copy(folder / "red_ball" / "0.png", folder / "red_ball" / "copy.png")
    (tmp_path / "retrieval").mkdir()
    shown = [f"zeroshot/toys/red_ball/{name}.png" for name in ("0", "1", "copy")]
    rows = [{"id": path, "image": path, "image_id": path, "text": f"a ball {path}"} for path in shown]
    (tmp_path / "retrieval" / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = Evaluation(["zeroshot", "retrieval"], tmp_path, progress=False).score(spreading())
    copies = [item for item in result.items if item.image.endswith("copy.png")]
    assert [item.drawn_with for item in copies] == [item.image.replace("copy.png", "0.png") for item in copies]
    assert len(copies) == 3 and sum(bool(item.same_as) for item in result.items) == 3
    interval = result.benchmarks[0].parts[0].scores[0].interval
    assert interval is not None and "bootstrap" in interval.method


def test_a_mean_per_class_is_as_uncertain_as_classes_of_one_image_make_it() -> None:
    """Fifty classes of one image and fifty of twenty, four fifths right; a draw of one image is that image."""
    generator = np.random.default_rng(0)
    classes = [f"{name}" for name in (*range(50), *np.repeat(range(50, 100), 20))]
    widths = []
    for seed in range(12):
        rows = [
            ItemVerdict(id=f"{number}", benchmark="zeroshot", part="p", image=f"{number}", group={"class": name},
                        ok={"top1": float(generator.random() < 0.8), "top5": 1.0}, ties={"top1": 0, "top5": 0},
                        margin=None)
            for number, name in enumerate(classes)
        ]  # fmt: skip
        judged = [Judged(row, {}) for row in rows]
        scores = aggregate(BENCHMARKS.load("zeroshot").BENCHMARK, judged, seed=seed, draws=400).parts["p"]
        interval = next(score.interval for score in scores if score.metric == "mean_per_class")
        assert interval is not None
        widths.append(interval.high - interval.low)
    error = (0.8 * 0.2 * (50 + 50 / 20)) ** 0.5 / 100
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert pooled_groups(np.array([3, 0, 2, 2, 1, 2, 0])).tolist() == [0, 0, 1, 1, 0, 1, 0], "classes of one or two"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"classes": {"red_ball": "ball"}}, "no name for folder 'blue_cube'"),
        ({"classes": {"red_ball": "b", "blue_cube": "c", "cone": "d"}}, "no folder 'cone'"),
        ({"classes": ["a"]}, "1 names for 2 subfolders"),
        ({"templates": ["a {}", "a photo"]}, "field 'templates': every template needs exactly one {}: 'a photo'"),
        ({"names": []}, "field 'names'"),
    ],
)
def test_wrong_classes_file_is_named(tmp_path: Path, description: object, message: str) -> None:
    write_folders(tmp_path, description)
    with pytest.raises(InputError, match=message) as caught:
        list(BENCHMARKS.load("zeroshot").BENCHMARK.items(tmp_path))
    assert "classes.json" in str(caught.value)


def test_plain_class_folders_need_no_file(tmp_path: Path) -> None:
    folder = write_folders(tmp_path, None)
    (entry,) = BENCHMARKS.load("zeroshot").BENCHMARK.items(tmp_path)
    assert entry.classes == ("blue cube", "red ball")
    for image in (folder / "red_ball").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"red_ball: no image of class 'red ball'"):
        list(BENCHMARKS.load("zeroshot").BENCHMARK.items(tmp_path))
