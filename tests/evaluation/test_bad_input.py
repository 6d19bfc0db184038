"""Whatever a user can bring that is wrong ends with an error that names the file and the remedy."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from struct import pack

import pytest
from PIL import Image

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.evaluation.benchmarks import world
from degla.evaluation.embed import Embedder
from degla.evaluation.results import load_result
from degla.evaluation.run import Evaluation
from degla.model.load import load_encoder
from degla.records import ItemImage
from degla.shelf import BENCHMARKS
from degla.world.draw import draw_benchmark
from tests.evaluation.fake_encoders import spreading
from tests.evaluation.made_up import write_results
from tests.tiny import write_nan_model

Capture = pytest.CaptureFixture[str]


def run(root: Path, *names: str) -> None:
    Evaluation(names, root, progress=False).score(spreading())


def write_bomb(path: Path, side: int) -> None:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    header = pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    # The first is Pillow's own limit; below it Pillow warns and decodes.
    for side in (30_000, 12_000):
        write_bomb(tmp_path / "bomb.png", side)
        with pytest.raises(InputError, match=r"bomb\.png: the image has more than 89,478,485 pixels"):
            Embedder(spreading(), root=tmp_path).embed([ItemImage(path="bomb.png")], [])


@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_truncated_jpeg_is_named(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other libraries switch this on for a whole process: half a picture must not pass for one all the same.
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    Image.effect_mandelbrot((300, 200), (-2, -1.5, 1, 1.5), 50).convert("RGB").save(tmp_path / "half.jpg", quality=95)
    whole = (tmp_path / "half.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        InputError, match=r"half\.jpg: the image is damaged or cut off: .*truncated.* Fetch the file again"
    ):
        Embedder(spreading(), root=tmp_path).embed([ItemImage(path="half.jpg")], [])


def test_weights_that_are_nan_are_refused(tiny_model: Path, tmp_path: Path, small_root: Path) -> None:
    folder = write_nan_model(tmp_path / "broken", tiny_model)
    with pytest.raises(DeglaError, match=r"broken': the embedding of 'true 0' is zero or not finite \(18 of 18"):
        Evaluation(["small"], small_root, progress=False).score(load_encoder(str(folder)))


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("sugarcrepe", "replace_obj.json", '{"7": {"filename": "a.jpg", "caption": "x", "negative_caption": 3}}',
         r"replace_obj\.json item '7': field 'negative_caption'.*got 3"),
        ("sugarcrepe", "replace_obj.json", '{"7": 1, "7": 2}', r"replace_obj\.json: the key '7' occurs twice"),
        ("sugarcrepe", "replace_obj.json", "[1]", r"replace_obj\.json: must be one JSON object, got a list"),
        ("sugarcrepe", "replace_obj.json", '{"7": ', r"replace_obj\.json line 1: not JSON: .* at column 7"),
        ("colorswap", "test.json", "[7]", r"test\.json item 0: must be one JSON object, got the number 7\. "
         r"Fetch the file again\."),
        ("mmvp_vlm", "Questions.csv", "", r"Questions\.csv: has no rows\. Get it again from "),
        ("mmvp_vlm", "Questions.csv", "Question ID,Type,Statement\n", r"Questions\.csv: has no rows\. Get it again"),
        ("sugarcrepe_pp", "replace_obj.json", '[{"id": 0, "filename": "a.jpg", "caption": "x"}]',
         r"replace_obj\.json .*field 'caption2'"),
        ("valse", "existence.json", '{"k": {"caption": "x"}}', r"existence\.json .*'k'.*field '"),
        ("cola", "COLA_multiobjects_matching_benchmark.json", '[["u", "c"]]', r"COLA_multi.* field '"),
    ],
)  # fmt: skip
def test_a_wrong_shape_names_file_key_and_field(
    name: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    layout = BENCHMARKS.load(name).BENCHMARK.layout
    (tmp_path / layout.split("/")[0]).mkdir()
    (tmp_path / layout.split("/")[0] / file).write_text(content)
    with pytest.raises(InputError, match=message):
        run(tmp_path, name)


def test_items_of_one_name_are_refused(tmp_path: Path) -> None:
    row = {"id": 5, "filename": "a.jpg", "caption": "x", "caption2": "y", "negative_caption": "z"}
    (tmp_path / "sugarcrepe_pp").mkdir()
    for part in ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att"):
        (tmp_path / "sugarcrepe_pp" / f"{part}.json").write_text(json.dumps([row, row]))
    with pytest.raises(InputError, match=r"(5.*twice|id.*5)"):
        run(tmp_path, "sugarcrepe_pp")


@pytest.mark.parametrize("name", [name for name in BENCHMARKS.names() if name != "world"])
def test_a_root_that_lacks_the_data_says_what_from_where_and_how(name: str, tmp_path: Path, capsys: Capture) -> None:
    benchmark = BENCHMARKS.load(name).BENCHMARK
    words = ["evaluate", "random", "--benchmarks", name, "--root", str(tmp_path), "--out", str(tmp_path / "o.json")]
    assert main([*words, "--no-cache"]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message and benchmark.layout.split("\n")[0] in message
    if name not in ("zeroshot", "own"):  # Several sources, and the user.
        assert benchmark.source in message
    assert not (tmp_path / "o.json").exists()


def test_a_folder_within_a_drawn_one_is_no_place_for_the_world(tmp_path: Path, capsys: Capture) -> None:
    """The default benchmark was drawn there and scored, whatever the settings of the one around it."""
    root = draw_benchmark(tmp_path / "w", items_per_part=1, images_per_class=1, retrieval_images=1, seed=5)
    words = ["evaluate", "random", "--benchmarks", "world", "--root", str(root / "images")]
    assert main([*words, "--out", str(tmp_path / "o.json"), "--no-cache"]) == 2
    assert f"{root / 'images'}: lies in {root}, which holds drawn data" in capsys.readouterr().err
    assert not (root / "images" / "items.jsonl").exists()


def test_a_folder_beside_a_drawn_one_may_be_named_from_within_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(draw_benchmark(tmp_path / "w", items_per_part=1, images_per_class=1, retrieval_images=1))
    drawn = list[Path]()
    monkeypatch.setattr("degla.world.draw.draw_benchmark", drawn.append)
    world.BENCHMARK.prepare(Path("../beside"))  # type: ignore[misc]
    assert drawn == [Path("../beside")]


def test_a_gelu_checkpoint_of_a_quickgelu_model_ends_the_command(tmp_path: Path, capsys: Capture) -> None:
    root = draw_benchmark(tmp_path / "w", items_per_part=1, images_per_class=1, retrieval_images=1)
    words = ["evaluate", "ViT-B-32:openai", "--benchmarks", "world", "--root", str(root)]
    assert main([*words, "--out", str(tmp_path / "o.json"), "--no-cache"]) == 2
    assert "trained with QuickGELU, but this architecture uses GELU" in capsys.readouterr().err
    assert main(["evaluate", "random", "--benchmarks", "sugarcrap", "--root", ".", "--out", "o.json"]) == 2
    assert "Did you mean 'sugarcrepe'" in capsys.readouterr().err


def test_a_result_whose_numbers_were_changed_is_refused(tmp_path: Path) -> None:
    path = write_results(tmp_path, n=4)[0]
    whole = path.read_text(encoding="utf-8")
    row = json.loads(whole)
    path.write_text(json.dumps(dict(reversed(row.items()))), encoding="utf-8")  # only laid out otherwise
    assert load_result(path, items=True).benchmarks
    score = row["benchmarks"][0]["parts"][0]["scores"][0]
    score["value"] = 1.0 - score["value"] / 2
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(InputError, match=r"changed since it was written \(sha256 differs\).*remove its field 'sha256'"):
        load_result(path)
    del row["sha256"]
    path.write_text(json.dumps(row), encoding="utf-8")
    assert load_result(path).benchmarks[0].parts[0].scores[0].value == score["value"]
    path.write_text(whole, encoding="utf-8")
    items = path.with_name(f"{path.stem}.items.jsonl")
    items.write_text(items.read_text(encoding="utf-8").replace('"margin":0.', '"margin":-0.', 1), encoding="utf-8")
    load_result(path)
    with pytest.raises(InputError, match=r"items\.jsonl: changed since .* was written"):
        load_result(path, items=True)


def test_an_edited_result_names_only_floors_that_it_has(tmp_path: Path, capsys: Capture) -> None:
    path = write_results(tmp_path, name="sugarcrepe", n=4)[0]
    row = json.loads(path.read_text(encoding="utf-8")) | {"sha256": ""}
    row["benchmarks"][0]["text_solvable"] = {"replace_att": ["shorter text"]}
    path.write_text(json.dumps(row), encoding="utf-8")
    assert main(["report", str(path), "--out", str(tmp_path / "report.html")]) == 2
    message = capsys.readouterr().err
    wrong = "field 'benchmarks.0': text_solvable names 'shorter text' for 'replace_att', but its first score has no"
    assert f"{path.name}: {wrong}" in message


@pytest.mark.parametrize("name", ["a/b.jsonl", "../other.items.jsonl", "."])
def test_items_lie_beside_their_result(tmp_path: Path, name: str) -> None:
    path = write_results(tmp_path, n=4)[0]
    row = json.loads(path.read_text(encoding="utf-8")) | {"items_file": name, "sha256": ""}
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(InputError, match="field 'items_file'"):
        load_result(path)


def test_a_misspelt_field_of_a_result_is_named(tmp_path: Path) -> None:
    path = write_results(tmp_path, n=4)[0]
    row = json.loads(path.read_text(encoding="utf-8"))
    del row["sha256"]
    row["benchmarks"][0]["parts"][0]["flors"] = {}
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(InputError, match=r"\.json: field 'benchmarks\.0\.parts\.0\.flors': Extra inputs"):
        load_result(path)


def test_a_model_that_is_missing_is_named_before_the_others_are_scored(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "own").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / "a.png")
    row = {"image": "own/a.png", "caption": "a cat on a mat", "negative": "a mat on a cat"}
    (tmp_path / "own" / "one.jsonl").write_text(json.dumps(row) + "\n")
    argv = ["--benchmarks", "own", "--root", str(tmp_path), "--out", str(tmp_path / "r.json"), "--no-cache"]
    assert main(["evaluate", "blind", *argv]) == 0 and (tmp_path / "r.json").exists()
    capsys.readouterr()
    assert main(["evaluate", "blind", "runs/nowhere", *argv]) == 2
    assert "runs/nowhere: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "r-1.json").exists()
