"""`degla explain`: every member and field is explained; recipes and rules say when to use them; help is short."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from degla.cli import main, spoken
from degla.config.fields import documented, explain_field, field_of, flags, known_fields, shown_value
from degla.config.run import TrainConfig, recipe_config
from degla.config.sections import OptimConfig
from degla.losses import Loss
from degla.losses.core.objective import loss_class
from degla.shelf import BENCHMARKS, LOSSES, RECIPES, RULES, SHELVES, VERBS
from degla.verbs.explain import KINDS, explain

Capture = pytest.CaptureFixture[str]
MEMBERS = [(kind, name) for kind, shelf in KINDS.items() for name in shelf.names()]


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_every_member_is_explained(kind: str, name: str) -> None:
    text = explain([kind, name])
    assert text.startswith(f"{kind} {name}\n\n{KINDS[kind].summary(name)}\n") and text.endswith("\n")
    if kind == "loss":
        assert all(f"\n{section}: " in text for section in ("Formula", "Source", "Differs", "Cost", "Recipes"))
    elif kind == "benchmark":
        assert all(f"\n{section}: " in text for section in ("Parts", "Source", "Licence", "Files"))
        facts = text[text.index("\nParts: ") + 1 :].splitlines()
        assert all(re.match(r"(Parts|Source|Licence|Files|Citation): | {10}|$", line) for line in facts), name
        benchmark = BENCHMARKS.load(name).BENCHMARK
        assert benchmark.paper in text
        entry = re.search(r"\nCitation: (@[a-z]+\{\w+, title=\{\S.*\}, author=\{\S.*\}, .*year=\{\d{4}\}\})\n\Z", text)
        assert (entry[1] if entry else "") == benchmark.citation
        assert benchmark.citation or name in ("half_truths", "own", "world"), "BibTeX of a published benchmark"
    elif kind == "recipe":
        assert "degla explain LOSS" in text and f"degla train {name} FLAGS --dry-run" in text
    elif kind == "rule":
        assert "Source: " in text and "Differs: " in text
        examples = re.search(r"\nExamples: (\d+) in (.*\.yaml)\n\Z", text)
        assert examples and int(examples[1]) >= 40 and Path(examples[2]).is_file()
    if kind in ("rule", "positive"):
        _, of_class = KINDS[kind].docstrings(name)
        first, _, rest = of_class.partition("\n\n")
        assert f"\n\n{first}\n" not in text and f"\n\n{rest}\n" in text, "the rule is described once"


@pytest.mark.parametrize(("kind", "name"), [entry for entry in MEMBERS if entry[0] != "loss"])
def test_all_but_losses_say_when_to_use_them(kind: str, name: str) -> None:
    """A section "Use when:" of one to three sentences ends the docstring; a benchmark's sections follow it."""
    docstring = KINDS[kind].docstrings(name)[-1].partition("\n\nTitle:")[0]
    section = re.search(r"\n\nUse when: ([^\n].*)\Z", docstring, re.DOTALL)
    assert section, "write a section 'Use when:' at the end of the docstring"
    text = section[1]
    assert "\n\n" not in text and text.endswith(".") and len(text.split()) < 60
    assert text in explain([kind, name])


def test_all_that_degla_ls_names_is_explained() -> None:
    assert set(KINDS.values()) == set(SHELVES.values())


def test_one_name_is_enough(capsys: Capture) -> None:
    assert main(["explain", "image_grounded"]) == 0
    output = capsys.readouterr().out
    assert output == explain(["loss", "image_grounded"])
    assert "\nRecipes:  clic, degla, degla_plus, degla_published, fsc_clip, " in output
    unused = explain(["concept_attention"])
    assert "Recipes:  none; it is added by --objective.concept-attention.weight.\nSettings:" in unused


def test_the_recipes_of_a_loss_are_those_that_have_it() -> None:
    """By the configurations themselves: `explain` only reads their sources."""
    users: dict[str, list[str]] = {name: [] for name in LOSSES.names()}
    for recipe in RECIPES.names():
        config = recipe_config(recipe)
        for name in users:
            if config.objective[name].weight > 0 or config.replay.objective[name].weight > 0:
                users[name].append(recipe)
    for name, recipes in users.items():
        section = explain(["loss", name]).partition("\nRecipes: ")[2].partition("\nSettings: ")[0]
        assert " ".join(section.split()).startswith(f"{', '.join(recipes) or 'none'};"), name


def test_a_field_is_described_as_in_the_help(capsys: Capture) -> None:
    assert main(["explain", "optim.lr"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("--optim.lr\n") and documented(OptimConfig)["lr"] in output
    assert "Allowed: above 0, a finite number. Default: 1e-06; " in output
    for words in (["train", "--help", "optim.lr"], ["train", "--help", "--optim.lr"]):
        assert main(words) == 0 and capsys.readouterr().out == output
    assert main(["explain", "--optim.lr"]) == 0 and capsys.readouterr().out == output
    flag = "objective.contrastive.negative-scope"
    assert documented(loss_class("contrastive"))["negative_scope"].split(":")[0] in explain([flag])
    assert explain([flag]) == explain([flag.replace("-", "_")])
    assert explain(["teacher"]).count("\n--teacher.") == 2


def test_values_are_written_as_a_flag_takes_them() -> None:
    config = replace(TrainConfig(), data=replace(TrainConfig().data, rules=("negation", "swap_nouns")))
    assert "Here: negation swap_nouns." in explain_field("data.rules", config)
    assert "Here: none." in explain_field("data.split", config) and "Default: none;" in explain_field("data.images")
    assert "Default: false;" in explain_field("train.compile") and "Default: true;" in explain_field("train.trim")
    assert 'Default: "a photo of a {}.";' in explain_field("data.class_template")
    assert 'Default: "";' in explain_field("recipe")
    assert "Allowed: --train.trim, or --train.no-trim for false." in explain_field("train.trim")
    assert shown_value((1, 0.5)) == "1 0.5" and shown_value(Path("my photos")) == '"my photos"'


@dataclass(frozen=True)
class Mine(Loss):
    """A custom loss whose setting has no description."""

    weight: float = 1.0
    margin: float = 0.2

    def value(self, *arguments: object) -> Tensor:
        return torch.zeros(())


def test_a_field_without_a_docstring_is_described_too() -> None:
    config = replace(TrainConfig(), objective={"mine": Mine()})
    assert field_of("objective.mine.margin", config) == (0.2, "")
    assert "Here: 0.2." in explain_field("objective.mine.margin", config)


def test_every_field_is_described() -> None:
    sections = {name.partition(".")[0] for name in known_fields()}
    assert sum(explain([name]).count("Allowed: ") for name in sections) == len(known_fields())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ce_clpi"], "unknown name 'ce_clpi'. Did you mean 'ce_clip'?"),
        (["optim.lrr"], "Did you mean 'optim.lr'?"),
        (["loss", "negclip"], "unknown loss 'negclip'."),
        (["term", "negclip"], "one of loss, recipe, rule, positive, benchmark, draw, system and a name."),
    ],
)
def test_wrong_names_say_what_is_right(words: list[str], says: str, capsys: Capture) -> None:
    assert main(["explain", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_name_of_two_kinds_asks_for_the_kind(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(KINDS, "draw", RULES)
    assert main(["explain", "negation"]) == 2
    assert "Use degla explain rule negation or degla explain draw negation." in capsys.readouterr().err


def test_help_fits_on_two_screens_and_leads_on(capsys: Capture) -> None:
    assert main(["train", "--help"]) == 0
    train = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    top = capsys.readouterr().out
    for text in (train, top):
        lines = text.splitlines()
        assert len(lines) <= 60 and max(map(len, lines)) <= 125, len(lines)
        assert "degla explain" in text and "--config" in text and "docs/" in text
    assert "options:" not in top and "--version" in top, "four lines that say what the usage says"
    assert "--help WHAT" in train and "--help all" in top and all(f"  {name} " in train for name in RECIPES.names())
    assert all(f"  {spoken(name)} " in top for name in VERBS.names())
    assert main(["train", "--help", "all"]) == 0  # As the help says: every flag with its default, without a recipe.
    every = capsys.readouterr().out
    assert set(re.findall(r"^--(\S+)$", every, re.MULTILINE)) == set(flags(TrainConfig()))
    assert max(map(len, every.splitlines())) <= 110 and "Formula:" not in every, "formulas lost their columns here"
