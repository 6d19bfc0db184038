"""Second images from negatives: similar ones and drawn ones, and a recipe that trains on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from degla.cli import main
from degla.data.neighbours import with_partners
from degla.records import CaptionRecord, NegativeRecord, read_jsonl
from degla.training.loop import train
from tests.training.configs import tiny_config


@pytest.mark.parametrize("source", ["neighbours", "drawn"])
def test_the_command_writes_what_con_clip_reads(
    source: str, tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for name in ("0-0", "2-1"):
        shutil.copy(tiny_pairs["images"] / "005.png", drawn / f"{name}.png")
    where = ["--neighbours", str(tiny_pairs["neighbours"])] if source == "neighbours" else ["--drawn", str(drawn)]
    words = ["distractors", str(tiny_pairs["captions"]), "--negatives", str(tiny_pairs["negatives"]), *where]
    out = tmp_path / "partners.jsonl"
    # Every caption has a negative of this rule in the tiny pairs, every third of "replace_nouns".
    assert main([*words, "--rule", "reshuffle_order", "--out", str(out)]) == 0
    assert f"{24 if source == 'neighbours' else 2} of 24 captions" in capsys.readouterr().err
    texts: dict[str, str] = {}
    for row in map(json.loads, tiny_pairs["negatives"].open()):
        if row["rule"] == "reshuffle_order":
            texts[row["caption_id"]] = row["text"]
    near = {row["caption_id"]: row["neighbours"][0] for row in map(json.loads, tiny_pairs["neighbours"].open())}
    for record in read_jsonl(CaptionRecord, out):
        if source == "neighbours":
            assert record.distractor_image == f"{int(near[record.id].split('-')[0]):03d}.png"
        else:
            assert (record.distractor_image is not None) == (record.id in ("0-0", "2-1"))
        assert record.distractor_text == (texts[record.id] if record.distractor_image else None)
    config = tiny_config(
        "con_clip", model=tiny_model, pairs={**tiny_pairs, "captions": out}, out=tmp_path / "run", steps=2
    )
    assert train(config).finished


def test_what_other_commands_added_stays(tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tiny_pairs["captions"].open()][:20]  # Neighbours also list the others.
    captions, out = tmp_path / "captions.jsonl", tmp_path / "out.jsonl"
    added = {"positives": ["another text"], "masked_words": ["red"], "distractor_image": "old.png"}
    captions.write_text("".join(json.dumps({**row, **added, "distractor_text": "old"}) + "\n" for row in rows))
    words = ["--negatives", str(tiny_pairs["negatives"]), "--rule", "replace_nouns", "--out", str(out)]
    assert main(["distractors", str(captions), *words, "--neighbours", str(tiny_pairs["neighbours"])]) == 0
    made = list(read_jsonl(CaptionRecord, out))
    assert all((record.positives, record.masked_words) == (("another text",), ("red",)) for record in made)
    assert {record.distractor_image is None for record in made} == {True, False}
    assert "old.png" not in {record.distractor_image for record in made}


def test_the_text_of_a_second_image_is_the_first_that_the_checks_accepted() -> None:
    caption = CaptionRecord(id="0", image="a.png", text="a dog", image_id="a")
    rows = (("refused", "swap", False), ("other", "else", True), ("first", "swap", True), ("second", "swap", True))
    negatives = [
        NegativeRecord(caption_id="0", rule=rule, kind="k", text=text, source="s", accepted=accepted)
        for text, rule, accepted in rows
    ]
    (found,) = with_partners([caption], negatives, lambda caption: "b.png", rule="swap")
    assert (found.distractor_image, found.distractor_text) == ("b.png", "first")


def test_nothing_to_give_is_said(
    tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distractors", str(tiny_pairs["captions"]), "--negatives", str(tiny_pairs["negatives"])]
    words += ["--neighbours", str(tiny_pairs["neighbours"]), "--out", str(tmp_path / "partners.jsonl")]
    assert main(words) == 2
    assert "24 have one) and an accepted negative of the rule negation (0 have one)" in capsys.readouterr().err
    assert not (tmp_path / "partners.jsonl").exists()


@pytest.mark.parametrize(
    "command",
    [
        "distractors captions.jsonl --negatives negatives.jsonl --neighbours neighbours.jsonl",
        "neighbours captions.jsonl --images . --model world",
        "prepare units captions.jsonl",
        "prepare contexts captions.jsonl",
        "negatives judge negatives.jsonl --captions captions.jsonl --clip world --images .",
        "negatives balance negatives.jsonl --captions captions.jsonl",
        "negatives export negatives.jsonl --captions captions.jsonl --to csv",
        "negatives pack negatives.jsonl",
        "negatives report negatives.jsonl --captions captions.jsonl",
    ],
)
def test_no_command_writes_over_what_it_reads(
    command: str,
    tiny_pairs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("captions", "negatives", "neighbours"):
        shutil.copy(tiny_pairs[name], f"{name}.jsonl")
    for name in (f"{one}.jsonl" for one in ("captions", "negatives", "neighbours") if f"{one}.jsonl" in command):
        Path("link.jsonl").unlink(missing_ok=True)
        Path("link.jsonl").symlink_to(name)
        before = Path(name).read_bytes()
        for out in (name, "link.jsonl"):
            assert main([*command.split(), "--out", out]) == 2
            assert capsys.readouterr().err == (
                f"degla: {out}: this command reads it and would overwrite it. Choose another --out.\n"
            )
        assert Path(name).read_bytes() == before
