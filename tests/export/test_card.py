"""Model cards agree with the run and its results, and say what is unknown."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from degla.cli import main
from degla.config.fields import differences
from degla.errors import InputError
from degla.evaluation.comparison import compare
from degla.evaluation.overlap import Leakage, Overlap
from degla.evaluation.results import TracedResult, save_result
from degla.export.card import CardFacts, card
from degla.export.recipe_card import bare_name, command
from degla.shelf import BENCHMARKS
from degla.training.loop import train
from degla.verbs._training import configure
from tests.evaluation.made_up import draw_result
from tests.tiny import write_classes
from tests.training.configs import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_pairs: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("card") / "run"
    train(tiny_config("negclip", model=str(tiny_model), pairs=tiny_pairs, out=out, steps=2))
    return out


def _front(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return fields


def test_every_checkpoint_has_its_card(run: Path, tiny_pairs: dict[str, Path]) -> None:
    text = (run / "step-2" / "README.md").read_text()
    assert _front(text)["library_name"] == "open_clip" and "negclip" in _front(text)["tags"]
    assert "license" not in _front(text) and "## Licence\n\nNot stated." in text
    for part in ("# run/step-2", "| recipe | negclip |", "2 of 2, of 4 pairs: 8 pairs seen", "captions.jsonl`: 24",
                 "images`: 12", "No results were given when this card was written", "degla train negclip"):  # fmt: skip
        assert part in text
    assert str(tiny_pairs["captions"].parent) not in text, "local folders must not be published"


def test_a_card_that_is_changed_is_no_damage(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from degla.model.load import load_encoder

    card_file = run / "step-2" / "README.md"
    before = card_file.read_text()
    try:
        card_file.write_text(before + "\nMine.\n")
        load_encoder(str(run))
        train_again = tmp_path / "again"
        assert main(["export", str(run), "--to", "open_clip", "--out", str(train_again)]) == 0
        assert "Mine." not in (train_again / "README.md").read_text()
        # The size is compared with the checkpoint's, not the run folder's, which contains no weights.
        size = sum(path.stat().st_size for path in (run / "step-2").iterdir())
        assert f"(the model's own folder: {size / 1e6:,.1f} MB)" in capsys.readouterr().err
    finally:
        card_file.write_text(before)


def test_a_card_that_cannot_be_written_ends_no_training(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("no place")

    monkeypatch.setattr("degla.export.card.write_text", refuse)
    result = train(tiny_config("clip", model=str(tiny_model), pairs=tiny_pairs, out=tmp_path / "run", steps=1))
    assert result.finished and not (tmp_path / "run" / "step-1" / "README.md").exists()


@pytest.mark.parametrize("recipe", ["degla", "clip", "fsc_clip_lora", "gift"])
def test_the_command_makes_the_same_configuration(
    recipe: str, tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    config = tiny_config(recipe, model=str(tiny_model), pairs=tiny_pairs, out=tmp_path / "run", trim=False)
    config = replace(config, data=replace(config.data, rules=("swap_nouns", "negation")))
    words = shlex.split(shlex.join(command(config)))
    assert words[:3] == ["degla", "train", recipe]
    changed = differences(config, configure(words[2:], verb="train"))
    paths = {"model", "out", *(f"{part}data.{name}" for part in ("", "replay.") for name in tiny_pairs)}
    assert {name for name, _, _ in changed} <= paths
    assert all(Path(str(new)).name == Path(str(old)).name for _, old, new in changed)


def test_results_are_printed_with_gains(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data")
    files = []
    for label, model in (("before", tiny_model), ("after", run)):
        files.append(tmp_path / f"{label}.json")
        words = ["evaluate", str(model), "--benchmarks", "zeroshot", "--root", str(root), "--out", str(files[-1])]
        assert main([*words, "--label", label, "--no-cache"]) == 0
    out = ["export", str(run), "--to", "open_clip", "--out"]
    assert main([*out, str(tmp_path / "out"), "--results", *map(str, files), "--license", "cc-by-4.0"]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert _front(text)["license"] == "cc-by-4.0"
    assert "**after** (this model)" in text and text.count("(this model)") == 1
    assert "points over before, with its 95 % interval" in " ".join(text.split())
    rows = [
        line
        for line in text.splitlines()
        if re.search(r"; [+−]\d+\.\d \[[+−]\d+\.\d, [+−]\d+\.\d\](?: \(.*\))? \|$", line)
    ]
    assert rows, text
    assert "embeddings differ by at most" in text and "its training data is not recorded, so overlap" in text
    assert "no image of zeroshot is among the 12 that it was fine-tuned on" in text
    # A result of other weights does not apply to these.
    assert main([*out, str(tmp_path / "other"), "--results", str(files[0])]) == 2
    assert not (tmp_path / "other").exists()


def test_one_result_gives_no_gain(run: Path, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data")
    words = ["evaluate", str(run), "--benchmarks", "zeroshot", "--root", str(root), "--out", str(tmp_path / "r.json")]
    assert main([*words, "--no-cache", "--label", "a <b> c"]) == 0
    text = card(CardFacts(title="x", form="onnx", origin="x", results=[tmp_path / "r.json"]))
    assert "<b>" not in text and "| a &lt;b> c |" in text, "a label is shown as it is"
    assert "No result of the model before training was given" in text
    assert "No training by degla is recorded" in text and "onnxruntime" in text


def test_a_mean_over_seeds_has_the_interval_that_a_report_gives_it(tmp_path: Path) -> None:
    world, files = BENCHMARKS.load("world").BENCHMARK, []
    for label, seed in (("before", None), ("after", 0), ("after", 1)):
        files.append(tmp_path / f"{label}-{seed}.json")
        save_result(draw_result(label, (0.6,) * 4, seed, benchmark=world, n=20), files[-1])
    text = card(CardFacts(title="x", form="onnx", origin="x", results=files))
    cell = compare(files, baseline="before").headline[0].cells["after"]
    assert cell.interval is not None
    half = 100 * (cell.interval.high - cell.interval.low) / 2
    assert f"| {100 * cell.mean:.1f} ± {half:.1f}; " in text and "After ±: half of the 95 % interval" in text


@pytest.mark.parametrize(("shared", "unknown", "told"), [(0, (), True), (3, (), False), (0, ("runs/first",), False)])
def test_no_image_was_seen_only_if_none_of_any_benchmark_was(
    tmp_path: Path, shared: int, unknown: tuple[str, ...], told: bool
) -> None:
    drawn = draw_result("one", (0.6,) * 4, None, benchmark=BENCHMARKS.load("winoground").BENCHMARK, n=20)
    overlaps = (
        Overlap(benchmark="winoground", images=9, by_id=shared, by_content=0, examples=("a.jpg",)),
        Overlap(benchmark="cola", images=9, by_id=0, by_content=0),
    )
    leakage = Leakage(captions=("c.json",), images=50, overlaps=overlaps, unknown=unknown)
    save_result(TracedResult(**drawn.model_dump(), items=drawn.items, leakage=leakage), tmp_path / "r.json")
    text = card(CardFacts(title="x", form="onnx", origin="x", results=[tmp_path / "r.json"]))
    assert ("no image of winoground, cola is among" in text) is told
    assert ("3 of 9 benchmark images are in the training data" in text) is bool(shared)
    assert ("one: was fine-tuned from runs/first, which is not found" in text) is bool(unknown)


def test_a_tag_stands_once(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "step-2", tmp_path / "step-2")
    config_file = tmp_path / "step-2" / "config.json"
    config_file.write_text(config_file.read_text().replace('"negclip"', '"degla"'))
    text = card(CardFacts("made", "open_clip", "world", checkpoint=tmp_path / "step-2"))
    assert _front(text)["tags"] == ["clip", "degla"]


def test_a_card_tells_the_training_and_its_data(tmp_path: Path) -> None:
    plain: dict[str, Any] = {
        "model": "hf-hub:me/base", "objective": {"contrastive": {"weight": 1.0}, "own_hinge": {"weight": 0.0}},
        "train": {"batch_size": 32, "seed": 7}, "optim": {"lr": 2e-5},
        "data": {"captions": "/y/c.jsonl", "images": "/y/pictures", "negatives": "/y/n.jsonl",
                 "positives_file": "/y/p.jsonl", "decoder": "/y/t5", "negatives_per_caption": 5},
    }  # fmt: skip
    more = {
        "objective": {"contrastive": {"weight": 1.0}, "self_distillation": {"weight": 0.5}},
        "adapter": {"rank": 16},
        "replay": {"objective": {"contrastive": {"weight": 2.0}}, "data": {"captions": "/x/again.jsonl"}},
        "teacher": {"kind": "average", "decay": 0.99},
    }
    state = {"step": 50, "steps": 100, "ended": "no better score", "counts": {"captions": 1200, "images": 600}}

    def told(config: dict[str, Any], state: dict[str, Any], what: str | None) -> list[str]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "state.json").write_text(json.dumps(state))
        return card(CardFacts("x", "checkpoint", "x", checkpoint=tmp_path, what=what)).splitlines()

    own = [
        "base_model: me/base", "| recipe | – |", "| started from | hf-hub:me/base |", "| seed | 7 |",
        "| peak learning rate | 2e-05 |", "* negatives: `n.jsonl`", "* negatives per caption and step: 5",
        "* positives_file: `p.jsonl`", "* decoder: `t5`",
    ]  # fmt: skip
    lines = told(plain, {"step": 50}, None)
    assert {*own, "| losses and their weights | contrastive 1 |", "| steps | 50 of 50, of 32 pairs: 1,600 pairs seen |",
            "| adapters | none |", "| weights | the run's main model |",
            "* row counts are not recorded."} <= set(lines)  # fmt: skip
    assert not any(line.startswith(("| teacher", "| stopped", "| losses of replayed", "* replayed")) for line in lines)
    lines = told(plain | more, state, "student")
    assert {*own, "| losses and their weights | contrastive 1, self_distillation 0.5 |",
            "| losses of replayed pairs | contrastive 2 |", "| steps | 50 of 100, of 32 pairs: 1,600 pairs seen |",
            "| adapters | rank 16 |", "| weights | the student, the trained weights |",
            "| teacher | average, decay 0.99 |", "| stopped early | no better score |", "* captions: `c.jsonl`: 1,200",
            "* images: `pictures`: 600", "* replayed captions: `again.jsonl`"} <= set(lines)  # fmt: skip
    assert "| teacher | None, decay None |" in told(plain, {}, "teacher")
    lines = told(plain | {"model": "sftp://me:secret@host/runs/a"}, {}, None)
    assert "| started from | sftp://host/runs/a |" in lines and "secret" not in "\n".join(lines), "a card is published"


def test_an_address_is_no_local_folder() -> None:
    assert bare_name("s3://bucket/runs/a") == "s3://bucket/runs/a"


def test_a_card_names_no_local_folder_with_a_colon() -> None:
    assert [bare_name(f"{start}/me/lr:1e-5/step-5") for start in ("/home", ".", "~", "runs")] == ["step-5"] * 4
    assert bare_name("ViT-B-32:w/new.pt") == "ViT-B-32:new.pt" and bare_name("hf-hub:me/new") == "hf-hub:me/new"


def test_a_shipped_model_has_its_licence(tmp_path: Path) -> None:
    text = card(CardFacts("x", "open_clip", "photo"))
    assert _front(text)["license"] == "apache-2.0"
    assert "## Licence\n\napache-2.0: `photo`, which ships with degla.\n" in text
    assert _front(card(CardFacts("x", "open_clip", "photo", licence="mit")))["license"] == "mit"
    # A model fine-tuned from it has the licence of its trainer.
    (tmp_path / "config.json").write_text('{"recipe": "degla", "model": "world"}')
    text = card(CardFacts("x", "checkpoint", "step-2", checkpoint=tmp_path))
    assert "license" not in _front(text) and "Not stated. The weights come from `world` (mit, ships with degla)" in text


def test_a_damaged_run_has_a_card_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"recipe": "degla", "model": "/home/me/models/base", "odd": 1}')
    text = card(CardFacts(title="x", form="checkpoint", origin="x", checkpoint=tmp_path))
    assert "`base`, fine-tuned by degla" in text and "/home/me" not in text
    assert "configuration is from another version" in text
    for model in ("ViT-B-32:/home/me/w.pt", "local-dir:/home/me/w.pt", "ViT-B-32:../home/me/w.pt", "~/home/me/w.pt"):
        (tmp_path / "config.json").write_text(json.dumps({"recipe": "degla", "model": model}))
        text = card(CardFacts(title="x", form="checkpoint", origin=model, checkpoint=tmp_path))
        assert "w.pt" in text and "home" not in text, "a card is published"
