"""`degla ls benchmarks --root`: what is there, what lacks and where to get it, without torch and without writing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.inventory import take_inventory
from degla.evaluation.questions import ask
from degla.shelf import BENCHMARKS
from tests.evaluation.conftest import SMALL
from tests.official import SHARED

Capture = pytest.CaptureFixture[str]


def test_an_empty_folder_holds_nothing_and_is_left_empty(tmp_path: Path) -> None:
    rows = take_inventory(tmp_path)
    assert [row.name for row in rows] == BENCHMARKS.names()
    assert {row.state for row in rows} == {"absent"}
    assert all(row.items == 0 and row.source and row.layout and row.licence for row in rows)
    by_name = {row.name: row for row in rows}
    assert "creates it when needed" in by_name["world"].notes[0]
    assert list(tmp_path.iterdir()) == []


def test_counts_gaps_and_wrong_numbers(small_root: Path) -> None:
    (row,) = take_inventory(small_root, names=["small"])
    assert (row.state, row.items, row.kept, row.images, row.missing_images) == ("complete", 20, 20, 6, 0)
    assert [(part.name, part.items, part.published) for part in row.parts] == [
        ("pair", 6, 6), ("square", 2, None), ("recognise", 6, None), ("find", 6, None),
    ]  # fmt: skip
    (small_root / "5.png").unlink()
    (row,) = take_inventory(small_root, names=["small"])
    assert (row.state, row.missing_images, row.missing_examples) == ("incomplete", 1, ("5.png",))
    assert row.notes == ("1 of 6 images are missing, for example 5.png.",)


def test_another_number_than_published_is_reported(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = list(SMALL.items(small_root))
    monkeypatch.setitem(SMALL.__dict__, "items", lambda root: entries[1:])
    (row,) = take_inventory(small_root, names=["small"])
    assert row.state == "incomplete"
    assert "part 'pair' under" in row.notes[0] and "has 5 items, the published one has 6" in row.notes[0]


def test_wrong_files_do_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "sugarcrepe").mkdir()
    (tmp_path / "sugarcrepe" / "replace_obj.json").write_text("{")
    for name in ("cat", "dog"):
        (tmp_path / "zeroshot" / "animals" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "zeroshot" / "animals" / name / "0.png")
    rows = {row.name: row for row in take_inventory(tmp_path, names=["sugarcrepe", "zeroshot"])}
    assert rows["sugarcrepe"].state == "incomplete"
    assert "replace_obj.json line 1: not JSON" in rows["sugarcrepe"].notes[0]
    assert "\n" not in rows["sugarcrepe"].notes[0]
    assert (rows["zeroshot"].state, rows["zeroshot"].items) == ("complete", 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "x"}, {"id": "x"}], "'own/t/x' occurs twice"),
        ([{"part": "composition"}], "is called 'composition', which is also the name of a column"),
        ([], "hold no question to ask"),
    ],
)
def test_what_evaluate_refuses_is_not_complete(rows: list[dict[str, str]], message: str, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    whole = [{"image": "a.png", "caption": "a cat", "negative": "a dog", **row} for row in rows]
    if whole:
        (tmp_path / "own/t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole))
    else:  # Every negative was rejected.
        (tmp_path / "own/captions.jsonl").write_text('{"id": "0", "image": "a.png", "text": "a cat"}\n')
        row = {"caption_id": "0", "rule": "r", "kind": "k", "text": None, "source": "rules", "accepted": False}
        (tmp_path / "own/negatives.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = take_inventory(tmp_path, names=["own"])
    assert found.state == "incomplete" and message in found.notes[0]
    with pytest.raises(InputError, match=message):
        ask(BENCHMARKS.load("own").BENCHMARK, tmp_path, allow_missing=True)


def test_the_command(tmp_path: Path, capsys: Capture) -> None:
    assert main(["ls", "benchmarks", "--root", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == BENCHMARKS.names()
    assert {"state", "items", "kept", "missing_images", "licence", "source", "layout"} <= rows[0].keys()
    assert main(["ls", "benchmarks", "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in BENCHMARKS.names():
        assert name in printed
    assert "github.com/RAIVNLab/sugar-crepe" in printed and "licence: " in printed
    assert main(["ls", "benchmarks", "--root", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert main(["ls", "rules", "--root", str(tmp_path)]) == 2
    assert main(["ls", "--root", str(tmp_path)]) == 2
    assert "degla ls benchmarks --root DATA" in capsys.readouterr().err
    with pytest.raises(InputError, match="unknown benchmark"):
        take_inventory(tmp_path, names=["sugarcrap"])


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from degla.cli import main\n"
        "assert main(['ls', 'benchmarks', '--json', '--root', sys.argv[1]]) == 0\n"
        "names = {'torch', 'open_clip', 'torchvision', 'spacy', 'matplotlib', 'transformers', 'scipy'}\n"
        "heavy = names & {*sys.modules}\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_official_files(data_root: Path, tmp_path: Path) -> None:
    names = ["cola", "sugarcrepe", "sugarcrepe_pp", "valse"]
    rows = {row.name: row for row in take_inventory(data_root, names=names)}
    official = data_root == SHARED
    assert {name: (row.items, row.kept) for name, row in rows.items()} == (
        {"cola": (210, 210), "sugarcrepe": (7511, 7511), "sugarcrepe_pp": (9514, 9514), "valse": (8782, 7702)}
        if official
        else {"cola": (12, 12), "sugarcrepe": (56, 56), "sugarcrepe_pp": (80, 80), "valse": (66, 44)}
    )
    assert rows["sugarcrepe"].images == (1560 if official else 7)
    for row in rows.values() if official else [rows["sugarcrepe"], rows["valse"]]:
        assert row.state == "incomplete" and 0 < row.missing_images <= row.images
        assert f"{row.missing_images:,} of {row.images:,} images are missing" in row.notes[-1]
    shutil.copytree(data_root / "sugarcrepe", tmp_path / "sugarcrepe")
    (tmp_path / "sugarcrepe" / "swap_att.json").unlink()
    (row,) = take_inventory(tmp_path, names=["sugarcrepe"])
    assert row.state == "incomplete" and "swap_att.json: cannot be read" in row.notes[0]
