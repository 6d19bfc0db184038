"""`degla train RECIPE --help`: short, with what does something in the recipe; `--help-all`: every flag."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from degla.cli import main
from degla.config.plain import flags
from degla.shelf import RECIPES

Capture = pytest.CaptureFixture[str]


def _shown(words: list[str], capsys: Capture) -> tuple[set[str], str]:
    """The flags that a help explains, and the whole of it."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    return set(re.findall(r"^\W{1,4}--(\w[\w.-]+)", text, re.MULTILINE)), text


def _known(recipe: str) -> set[str]:
    return set(flags(getattr(RECIPES.load(recipe), recipe)()))


def test_only_what_does_something_is_explained(capsys: Capture) -> None:
    shown, text = _shown(["train", "degla", "--help"], capsys)
    hidden = _known("degla") - shown
    assert len(text.splitlines()) < 500 and "Every flag: degla train degla --help-all\n" in text
    assert all(name.startswith(("rehearsal.", "objective.")) for name in hidden)
    assert not any(name.startswith("rehearsal.") for name in shown)
    assert {name.split(".")[1] for name in shown if name.startswith("objective.")} == {
        "contrastive", "image-grounded", "text-grounded", "self-distillation"
    }  # fmt: skip
    told = text.partition("Not shown")[2]
    assert all(name in told for name in ("--rehearsal", "own-hinge", "text-pull")) and "image-grounded" not in told


def test_a_recipe_that_rehearses_explains_its_rehearsal(capsys: Capture) -> None:
    shown, text = _shown(["doctor", "gift", "--help"], capsys)
    second = {name for name in shown if name.startswith("rehearsal.objective.")}
    assert {name.split(".")[2] for name in second} == {"logit-distillation", "soft-alignment"}
    assert {"rehearsal.data.captions", "rehearsal.batch-size"} <= shown
    assert "Every flag: degla doctor gift --help-all\n" in text and "--rehearsal," not in text


def test_every_flag_is_explained_where_all_are_asked_for(capsys: Capture) -> None:
    shown, text = _shown(["train", "clip", "--help-all"], capsys)
    assert _known("clip") <= shown and "Not shown" not in text


def test_hidden_flags_work(tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "clip", "--data.captions", "a", "--data.images", "b", "--out", str(tmp_path / "run")]
    assert main([*words, "--rehearsal.data.captions", "c"]) == 2
    assert "--rehearsal.data is given, but no loss of --rehearsal.objective" in capsys.readouterr().err
    assert main([*words, "--rehearsal.objective.soft-alignment.weight", "1", "--rehearsal.batch-size", "0"]) == 2
    assert "--rehearsal.batch-size is 0" in capsys.readouterr().err
