from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from degla.errors import InputError
from degla.negatives.grammar.exclusion import adjective_choices, noun_choices, noun_relation
from degla.negatives.grammar.lexicon import DATA_FOLDER, GROUPS_NAME, Lexicon, lexicon, read_tables
from tools import build_lexicon as lexicon_build

SHAPES = ["circle", "square", "triangle", "star", "heart", "cross", "ring", "arrow", "diamond", "hexagon", "crescent",
          "oval", "semicircle", "trapezoid"]  # fmt: skip
WORDNET = Path("/usr/share/wordnet")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_replaced_by_every_other_shape_and_nothing_else(shape: str) -> None:
    assert sorted(noun_choices(shape, mass=False)) == sorted(set(SHAPES) - {shape})


def test_colours_are_replaced_by_colours_and_textures_by_textures() -> None:
    colours = {"red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white", "gray"}
    for colour in (*colours, "cyan", "maroon", "beige"):
        choices = set(adjective_choices(colour, living=False))
        assert len(choices) >= 8
        assert choices <= colours - {colour}
    textures = {"plain", "striped", "dotted", "checkered"}
    for texture in textures:
        assert set(adjective_choices(texture, living=False)) == textures - {texture}


@pytest.mark.parametrize(
    ("word", "other"),
    [("chair", "seating"), ("worker", "people"), ("finger", "hand"), ("dugout", "stadium"), ("banana", "fruit"),
     ("dog", "animal"), ("couch", "sofa"), ("car", "vehicle"), ("toe", "foot"), ("street", "road"), ("man", "chef"),
     ("park", "field"), ("chef", "person"), ("puppy", "dog"), ("bike", "bicycle"), ("tree", "trunk")],
)  # fmt: skip
def test_related_nouns_never_replace_each_other(word: str, other: str) -> None:
    assert noun_relation(word, other)
    assert noun_relation(other, word) == noun_relation(word, other)
    assert other not in noun_choices(word, mass=False)


@pytest.mark.parametrize(("word", "other"), [("dog", "cat"), ("man", "girl"), ("bus", "car"), ("apple", "banana")])
def test_words_that_exclude_each_other_are_not_related(word: str, other: str) -> None:
    assert noun_relation(word, other) == ""


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("baked", "cooked"),
        ("snowy", "rainy"),
        ("big", "large"),
        ("shiny", "red"),
        ("quick", "fast"),
        ("awful", "terrible"),
    ],
)
def test_adjectives_that_may_both_be_true_never_replace_each_other(word: str, other: str) -> None:
    assert lexicon().adjective_relation(word, other)
    assert lexicon().adjective_relation(other, word)


def test_the_opposite_of_an_old_man_is_no_new_man() -> None:
    assert "new" not in adjective_choices("old", living=True)
    assert "young" not in adjective_choices("old", living=False)


def test_every_draw_is_a_known_word_in_dictionary_form() -> None:
    tables = lexicon()
    for name, group in tables.nouns.items():
        assert group.draws, name
        assert all(tables.is_noun(draw) for draw in group.draws), name
    for name, adjectives in tables.adjectives.items():
        assert len(adjectives.clusters) > 1, name
        for cluster in adjectives.clusters:
            assert set(adjectives.draws) - cluster, name
        listed = frozenset().union(*adjectives.clusters)
        assert set(adjectives.draws) <= listed, name


def test_licence_is_beside_the_table() -> None:
    notice = (DATA_FOLDER / "WORDNET-NOTICE.txt").read_text(encoding="utf-8")
    assert "Princeton University" in notice
    assert "WordNet 3.0" in notice


def test_build_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wordnet-base"):
        lexicon_build.build(tmp_path)


@pytest.mark.skipif(not (WORDNET / "data.noun").exists(), reason="Debian's wordnet-base is not installed")
def test_table_in_the_package_is_what_the_script_builds() -> None:
    assert (DATA_FOLDER / "wordnet.tsv").read_text(encoding="utf-8") == lexicon_build.build(WORDNET)


def test_an_anchor_without_sense_is_named() -> None:
    groups = {"thing": {**read_tables(GROUPS_NAME)["nouns"]["bird"], "anchors": ["bird#99"]}}
    with pytest.raises(InputError, match="bird#99"):
        lexicon_build._anchors(groups, {"bird": [1, 2]})


def test_rules_are_listed_without_importing_torch_or_spacy() -> None:
    program = (
        "import sys; from degla.shelf import RULES; from degla.negatives.rule import load_rule;"
        "[load_rule(name) for name in RULES.names()]; import degla.negatives.generate;"
        "print(sorted({'torch', 'spacy', 'lemminflect'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_adjectives_of_one_cluster_do_not_exclude_each_other() -> None:
    clusters = [["wet", "rainy"], ["wet", "muddy"], ["dry"]]
    tables = Lexicon({"nouns": {}, "adjectives": {"state": {"clusters": clusters}}, "words": {}}, "")
    assert [tables.adjective_relation("wet", other) for other in ("rainy", "muddy", "dry")] == [*2 * ["synonym"], ""]
