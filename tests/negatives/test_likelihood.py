"""Likelihoods over a tree equal those of plain forward passes, whatever prefixes are shared."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.errors import InputError
from degla.negatives.llm.embedded import WordTokens, propose
from degla.negatives.llm.likelihood import NOTHING, Likelihood, TooLongError, Tree, open_likelihood
from degla.negatives.llm.weights import find_weights, load
from tests.negatives.tiny_language_model import CAPTIONS, write_folder

pytest.importorskip("transformers", reason="the extra degla[embedded] is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def likelihood(folder: Path) -> Likelihood:
    return Likelihood(*load(find_weights(str(folder)), precision="float32"))


def plain(likelihood: Likelihood, before: tuple[int, ...], tokens: tuple[int, ...]) -> list[float]:
    """Log-probabilities of tokens by one pass over only this text."""
    text = torch.tensor([[*before, *tokens]])
    with torch.inference_mode():
        rows = torch.log_softmax(likelihood.model(input_ids=text).logits[0].float(), dim=-1)
    return [float(rows[len(before) + place - 1, token]) for place, token in enumerate(tokens)]


def test_tree_equals_plain_passes(likelihood: Likelihood) -> None:
    first, second = (likelihood.start, *likelihood.encode(CAPTIONS[0])), likelihood.encode("\n\n" + CAPTIONS[1])
    tree = Tree(likelihood.begin([first, second]))
    question = likelihood.encode("\nCaption:")
    last = tree.add(question)[-1]
    alone = tree.add((likelihood.start,), after=NOTHING)[-1]
    texts = [likelihood.encode(" " + text) for text in (*CAPTIONS, CAPTIONS[0].replace("horse", "cat"))]
    behind = [tree.add(text, after=last) for text in texts]
    apart = [tree.add(text, after=alone) for text in texts]
    computed = likelihood.compute(tree)
    assert len(tree.tokens) < len(question) + 1 + 2 * sum(map(len, texts)), "nothing was shared"
    for text, one, other in zip(texts, behind, apart, strict=True):
        assert computed.path(tree, one) == pytest.approx(plain(likelihood, first + second + question, text), abs=1e-4)
        assert computed.path(tree, other) == pytest.approx(plain(likelihood, (likelihood.start,), text), abs=1e-4)


def test_second_pass_sees_the_first(likelihood: Likelihood) -> None:
    tree = Tree(likelihood.begin([(likelihood.start,)]))
    first, branch, second = (likelihood.encode(text) for text in (" A man", " rides", " sits on a bench"))
    node = tree.add(first)[-1]
    tree.add(branch, after=node)
    likelihood.compute(tree)
    path = tree.add(second, after=node)
    computed = likelihood.compute(tree, ask=path)
    assert computed.path(tree, path[1:]) == pytest.approx(
        plain(likelihood, (likelihood.start, *first), second)[1:], abs=1e-4
    )


def test_what_is_cached_changes_no_bit(likelihood: Likelihood) -> None:
    parts = [(likelihood.start, *likelihood.encode(CAPTIONS[0])), likelihood.encode(CAPTIONS[1])]

    def answer() -> list[float]:
        tree = Tree(likelihood.begin(parts))
        tree.add(likelihood.encode(CAPTIONS[2]))
        computed = likelihood.compute(tree)
        return computed.path(tree, range(1, len(tree.tokens)))

    fresh = answer()
    likelihood.begin([parts[0], likelihood.encode(CAPTIONS[3])])
    assert answer() == fresh
    likelihood.forget()
    assert answer() == fresh


def test_equal_examples_after_other_instructions_are_computed_anew(likelihood: Likelihood) -> None:
    """The same part behind another one is another prefix, and so is no examples behind another instruction."""
    question = likelihood.encode(" A dog")
    for part in (likelihood.encode(CAPTIONS[2]), ()):
        for caption in CAPTIONS[:2]:
            first = (likelihood.start, *likelihood.encode(caption))
            tree = Tree(likelihood.begin([first, part]))
            nodes = tree.add(question)
            values = likelihood.compute(tree).path(tree, nodes[1:])
            assert values == pytest.approx(plain(likelihood, (*first, *part), question)[1:], abs=1e-4)


def test_control_words_are_text(likelihood: Likelihood) -> None:
    assert likelihood.start not in likelihood.encode("a <start> b")


def test_too_long(likelihood: Likelihood) -> None:
    words = likelihood.encode(" dog" * likelihood.context)
    with pytest.raises(TooLongError, match=str(likelihood.context)):
        likelihood.begin([words])
    with pytest.raises(TooLongError):
        likelihood.drops(" dog" * likelihood.context, ["a dog"])


def test_drop_is_a_difference_of_means(likelihood: Likelihood) -> None:
    caption, negative = CAPTIONS[0], CAPTIONS[0].replace("horse", "skateboard")
    means = []
    for text in (caption, negative):
        values = plain(likelihood, (likelihood.start,), likelihood.encode(" " + text))
        means.append(sum(values) / len(values))
    assert likelihood.drops(caption, [negative, caption]) == pytest.approx([means[0] - means[1], 0], abs=1e-4)


def test_a_model_that_ignores_the_mask_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load(find_weights(str(folder)), precision="float32")
    forward = type(model).forward

    @wraps(forward)
    def blind(self: Any, **arguments: Any) -> Any:
        return forward(self, **{name: value for name, value in arguments.items() if name != "attention_mask"})

    monkeypatch.setattr(type(model), "forward", blind)
    with pytest.raises(InputError, match=r"llama.*cannot be used"):
        Likelihood(model, tokenizer)


class TableModel:
    """A stand-in for a likelihood model with known next tokens of each text."""

    def __init__(self, likelihood: Likelihood, table: dict[str, dict[str, float]]) -> None:
        self.table = table
        self.tokenizer = likelihood.tokenizer
        self.model = likelihood.model
        self.real = likelihood

    def compute(self, tree: Tree, *, ask: list[int]) -> Any:
        computed = self.real.compute(tree, ask=ask)
        for node in ask:
            text, at = "", node
            while at >= 0:
                text, at = self.tokenizer.convert_ids_to_tokens(tree.tokens[at]) + text, tree.parents[at]
            row = computed.rows[computed.row[node]]
            row.fill_(-20.0)
            for token, share in self.table.get(text.replace("Ġ", " "), {}).items():
                number = self.tokenizer.convert_tokens_to_ids(token.replace(" ", "Ġ"))
                assert number is not None, token
                row[number] = torch.tensor(share).log()
        return computed


def test_pieces_are_completed_and_endless_ones_dropped(likelihood: Likelihood) -> None:
    model = TableModel(
        likelihood,
        {
            " A man": {" hor": 0.4, " cat": 0.3, " mo": 0.2, " do": 0.1},
            " A man hor": {"t": 0.7, " s": 0.3},  # a piece
            " A man cat": {" s": 0.8, "t": 0.2},  # a whole word
            " A man mo": {"t": 1.0},  # goes on and does not end
            " A man mot": {"o": 1.0},
            " A man do": {" s": 1.0},  # whole, but stands there already
        },
    )
    tree = Tree(likelihood.begin([(likelihood.start,)]))
    end = tree.add(likelihood.encode(" A man"))[-1]
    vocabulary = WordTokens(likelihood)
    (words,) = propose(model, vocabulary, tree, [end], ["Do"])  # type: ignore[arg-type]
    assert words[:2] == ("cat", "hort"), "0.3, and 0.4 times 0.7"
    assert not {"hor", "mo", "mot", "moto", "do"} & set(words)


def test_places_of_one_caption_share_its_words(likelihood: Likelihood) -> None:
    model = TableModel(
        likelihood,
        {
            " A man": {" cat": 0.6, " do": 0.4},
            " A man do": {" s": 1.0},
            " A man cat": {" mo": 1.0},
            " A man cat mo": {" s": 1.0},
        },
    )
    tree = Tree(likelihood.begin([(likelihood.start,)]))
    end = tree.add(likelihood.encode(" A man"))[-1]
    ends = [end, tree.add(likelihood.encode(" cat"), after=end)[-1]]
    first, second = propose(model, WordTokens(likelihood), tree, ends, ["cat", "sits"])  # type: ignore[arg-type]
    assert first[0] == "do" and "cat" not in first and second[0] == "mo"


def test_where_a_text_begins_and_how_long_it_may_be(folder: Path) -> None:
    model, tokenizer = load(find_weights(str(folder)), precision="float32")
    start = tokenizer.bos_token_id
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(start + 7)
    model.config.sliding_window = 40
    likelihood = Likelihood(model, tokenizer)
    assert (likelihood.start, likelihood.context) == (start, 40)
    words = likelihood.encode(" dog" * 40)
    assert len(likelihood.begin([words[:40]]).tokens) == 40
    with pytest.raises(TooLongError):
        likelihood.begin([words[:41]])


@pytest.mark.parametrize("wrong", ["nowhere/at/all", "./nowhere.gguf"])
def test_unknown_model(wrong: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_likelihood(wrong)
