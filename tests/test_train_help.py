"""`degla train RECIPE --help`: the usual flags on two screens; `--help WHAT`: a field, a section, or all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from degla.cli import main
from degla.config.fields import flags
from degla.shelf import RECIPES

Capture = pytest.CaptureFixture[str]


def _shown(words: list[str], capsys: Capture) -> tuple[set[str], str]:
    """The flags that a help text explains, and the text."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    return set(re.findall(r"^\W{0,4}--(\w[\w.-]+)", text, re.MULTILINE)), text


def _known(recipe: str) -> set[str]:
    return set(flags(getattr(RECIPES.load(recipe), recipe)()))


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_help_of_a_recipe_fits_two_screens_and_leads_to_the_rest(recipe: str, capsys: Capture) -> None:
    shown, text = _shown(["train", recipe, "--help"], capsys)
    lines = text.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 115, (len(lines), max(lines, key=len))
    assert shown <= _known(recipe) and {"data.captions", "data.images", "out", "model", "optim.lr"} <= shown
    assert all(f"degla train {recipe} --help {word} " in text for word in ("optim.lr", "optim", "all"))


def test_the_losses_of_a_recipe_are_shown_and_the_others_named(capsys: Capture) -> None:
    shown, text = _shown(["train", "degla", "--help"], capsys)
    assert {name for name in shown if name.startswith("objective.")} == {
        f"objective.{name}.weight" for name in ("contrastive", "image-grounded", "text-grounded", "self-distillation")
    }
    others = text.partition("Weight 0")[2]
    assert all(name in others for name in ("own-hinge", "text-pull")) and " image-grounded" not in others
    assert re.search(r"--objective\.text-grounded\.weight +0\.1 ", text) and "teacher.decay" in shown
    assert not any(name.startswith("replay.") for name in shown)


def test_a_recipe_that_replays_shows_it(capsys: Capture) -> None:
    shown, _ = _shown(["doctor", "gift", "--help"], capsys)
    assert {"replay.data.captions", "replay.batch-size", "replay.objective.soft-alignment.weight"} <= shown
    assert {"l2-sp.weight", "data.classes"} <= shown and "teacher.decay" not in shown


def test_a_field_and_a_section_are_described_with_the_recipes_values(capsys: Capture) -> None:
    _, text = _shown(["train", "gift", "--help", "optim.lr"], capsys)
    assert text.startswith("--optim.lr\n") and "Here: 1e-05." in text and "Allowed: above 0" in text
    _, text = _shown(["train", "gift", "--help", "--optim.lr", "1"], capsys)
    assert "Usual flags, with their values" in text
    _, text = _shown(["train", "gift", "--help", "l2-sp"], capsys)
    assert re.findall(r"^--(\S+)", text, re.MULTILINE) == ["l2-sp.importance", "l2-sp.weight"]
    assert main(["train", "gift", "--help", "optm"]) == 2 and "unknown name 'optm'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train"], ["train", "gift"], ["doctor", "gift"]])
def test_help_about_two_things_is_refused(words: list[str], capsys: Capture) -> None:
    assert main([*words, "--help", "optim", "extra"]) == 2
    assert "--help takes one field, section or 'all'; got optim extra." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help", "all"], ["--help-all"]])
def test_every_flag_is_explained_where_all_are_asked_for(words: list[str], capsys: Capture) -> None:
    shown, _ = _shown(["train", "clip", *words], capsys)
    assert _known("clip") <= shown


def test_flags_that_the_help_does_not_show_work(tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "clip", "--data.captions", "a", "--data.images", "b", "--out", str(tmp_path / "run")]
    assert main([*words, "--replay.data.captions", "c"]) == 2
    assert "--replay.data is given, but no loss of --replay.objective" in capsys.readouterr().err
    assert main([*words, "--replay.objective.soft-alignment.weight", "1", "--replay.batch-size", "0"]) == 2
    assert "--replay.batch-size is 0" in capsys.readouterr().err
    assert main([*words, "--replay.objective.soft-alignment.weight", "-1"]) == 2
    assert "--replay.objective.soft-alignment.weight is -1.0" in capsys.readouterr().err
