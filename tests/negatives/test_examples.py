"""The shipped examples pass their rules' checks; custom files are read, validated and sampled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from degla.errors import InputError
from degla.negatives.examples import (
    SHIPPED,
    ExampleEntry,
    draw_examples,
    examples_digest,
    load_examples,
    read_examples,
    write_examples,
)
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import parse
from degla.negatives.rule import judge, load_rule
from degla.shelf import RULES

ENTRIES = [
    ExampleEntry(caption="A dog barks at a horse: loudly.", negative="A horse barks at a dog: loudly.", note="why: ü"),
    ExampleEntry(caption="yes", negative="no"),
    ExampleEntry(caption="'two' # cats", negative="- {cats}"),
]


@pytest.mark.parametrize("rule", RULES.names())
def test_shipped_examples_pass_every_check(rule: str) -> None:
    examples = load_examples(rule)
    assert len(examples) >= 40
    for example, caption in zip(examples, parse([one.caption for one in examples]), strict=True):
        verdict = judge(load_rule(rule), caption, example.negative)
        assert verdict.accepted, f"{verdict.reason}: {example}"


def test_shipped_examples_are_varied() -> None:
    assert {file.stem for file in SHIPPED.glob("*.yaml")} == set(RULES.names())
    for rule in RULES.names():
        examples = load_examples(rule)
        assert len({words.content(one.caption) for one in examples}) > 0.95 * len(examples), rule
        lengths = [len(words.content(one.caption)) for one in examples]
        assert min(lengths) >= 4 and max(lengths) <= 20 and max(lengths) >= 14, rule
        assert any(one.caption[0].islower() for one in examples) and any(one.caption.endswith(".") for one in examples)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "swap_nouns.yaml"
    write_examples(file, ENTRIES, rule="swap_nouns")
    assert list(read_examples(file, rule="swap_nouns")) == ENTRIES
    file.write_text("# mine\n# and yours\n" + file.read_text())
    write_examples(file, ENTRIES[:1], rule="swap_nouns")
    assert file.read_text().startswith("# mine\n# and yours\nrule: swap_nouns\n")
    assert list(read_examples(file, rule="swap_nouns")) == ENTRIES[:1]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_folder_takes_the_place_of_the_shipped_ones_rule_by_rule(tmp_path: Path) -> None:
    write_examples(tmp_path / "swap_nouns.yaml", ENTRIES, rule="swap_nouns")
    assert [one.negative for one in load_examples("swap_nouns", folder=tmp_path)] == [one.negative for one in ENTRIES]
    assert load_examples("replace_nouns", folder=tmp_path) == load_examples("replace_nouns")
    write_examples(tmp_path / "swap_nouns.yaml", ENTRIES[1:], rule="swap_nouns")
    assert len(load_examples("swap_nouns", folder=tmp_path)) == 2, "a changed file is read anew"


def test_the_digest_follows_the_texts_alone(tmp_path: Path) -> None:
    shipped = examples_digest(["swap_nouns", "negation"])
    assert shipped == examples_digest(["negation", "swap_nouns"]) != examples_digest(["swap_nouns"])
    write_examples(tmp_path / "negation.yaml", ENTRIES, rule="negation")
    own = examples_digest(["negation"], folder=tmp_path)
    write_examples(
        tmp_path / "negation.yaml", [*ENTRIES[:2], ENTRIES[2].model_copy(update={"note": "x"})], rule="negation"
    )
    assert examples_digest(["negation"], folder=tmp_path) == own
    for changed in (ENTRIES[::-1], [*ENTRIES[:2], ENTRIES[2].model_copy(update={"caption": "three cats"})]):
        write_examples(tmp_path / "negation.yaml", changed, rule="negation")
        assert examples_digest(["negation"], folder=tmp_path) != own


def test_draws_are_different_random_and_repeatable() -> None:
    examples = load_examples("swap_nouns")
    draws = [draw_examples(examples, count=5, rng=Random(seed)) for seed in range(200)]
    assert all(len(set(some)) == 5 for some in draws)
    assert draws[7] == draw_examples(examples, count=5, rng=Random(7))
    assert {one for some in draws for one in some} == set(examples)
    assert set(draw_examples(examples[:3], count=5, rng=Random(0))) == set(examples[:3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule: swap_nouns\nexamples:\n- caption: A b\n", "swap_nouns.yaml example 1: field 'negative'"),
        ("rule: swap_nouns\nexamples:\n- {caption: a, negative: b}\n- {caption: c, negativ: d}\n", "example 2: field"),
        ("rule: swap_nouns\nexamples:\n- {caption: a, negative: 3}\n", "example 1: field 'negative': .*string"),
        ("rule: swap_nouns\nexamples:\n- {caption: a, negative: ' b'}\n", "must be one line"),
        ("rule: swap_nouns\nexamples:\n- {caption: a, negative: a}\n", "'negative': must differ from the caption"),
        ("rule: swap_nouns\nexamples:\n" + "- {caption: a, negative: b}\n" * 2, "example 2: repeats example 1"),
        ("rule: negation\nexamples: []\n", "has examples of the rule 'negation'"),
        ("- caption: a\n", "must have 'rule: swap_nouns'"),
        ("rule: swap_nouns\nexamples: [\n", "line 3: not YAML"),
        ("rule: !!python/object/apply:os.getcwd []\nexamples: []\n", "not YAML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "swap_nouns.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_examples("swap_nouns", folder=tmp_path)


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_examples("swap_nouns", folder=tmp_path / "none")
    (tmp_path / "swap_noun.yaml").write_text("")
    with pytest.raises(InputError, match="Did you mean 'swap_nouns'"):
        load_examples("swap_nouns", folder=tmp_path)
    (tmp_path / "swap_noun.yaml").rename(tmp_path / "swap_nouns.yml")
    with pytest.raises(InputError, match=r"would not be read\. Rename it to swap_nouns\.yaml\."):
        load_examples("swap_nouns", folder=tmp_path)


def test_yaml_is_imported_only_when_examples_are_read() -> None:
    code = "import sys, degla.negatives.examples; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
