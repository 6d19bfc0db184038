"""Language models: requests enter, replies leave in any order; every one is of the same `LanguageModel` contract below.

server.py speaks to any OpenAI-compatible server, embedded.py runs a small model in this process, scripted.py answers
from a table or a function (for tests). pipeline.py, one folder up, makes requests and judges replies; no model decides
whether a text is a negative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, Protocol, runtime_checkable

_CONTROL: Final = re.compile(r"<(?=[|/\w])|\[(?=/?[A-Z_]+\])")
"""Where a word such as "<|im_end|>" or "[INST]" begins, which a tokenizer could take for the end of a turn."""


@lru_cache(maxsize=4_096)
def inert(text: str) -> str:
    """A text as one line that no chat template can take for markup of its own: a space goes into control words.

    `words.content` of the result is that of the text.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return _CONTROL.sub(lambda match: match.group() + " ", line)


ChatRole = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a chat."""

    role: ChatRole
    content: str


Chat = tuple[ChatMessage, ...]
"""What a model is asked: the rule's fixed instruction first, then examples, then the caption, so that prefix caches
serve it."""

Form = Literal["write", "choose", "fill"]
"""How a model may answer: write a text freely; choose one of the texts that the grammar found; fill a slot of the
caption with words."""


@dataclass(frozen=True, slots=True, order=True)
class RequestKey:
    """Names one request for good: a journal pays for each key once.

    Attributes:
        caption_id: the caption.
        rule: the rule.
        draw: number of the request for this caption and rule, from 0; it also decides which examples are drawn.
    """

    caption_id: str
    rule: str
    draw: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A place of a caption where one word may stand.

    Attributes:
        before: the caption's text up to the place, without the word and without the space before it.
        after: the text behind the word, "" at the end.
        word: the word that stands there.
    """

    before: str
    after: str
    word: str


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a language model.

    Attributes:
        key: its name.
        form: how it is to be answered.
        chat: the instruction, the examples, the caption.
        caption: the caption's text alone.
        choices: with form "choose", the texts to choose among, all of them valid; never empty.
        slots: with form "fill", the places; never empty.
    """

    key: RequestKey
    form: Form
    chat: Chat
    caption: str
    choices: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()


ReplyStatus = Literal[
    "answered",  # there is a text, or words
    "refused",  # the model or its content filter declined
    "empty",  # an answer without text
    "malformed",  # not what the form asks for, after all repair
    "implausible",  # choose: the model finds none of the choices likely enough
    "cut_off",  # ended at the limit of tokens
    "too_long",  # the request does not fit the model's context
    "rejected",  # the server answers that the request is wrong (4xx), with its message
    "unreachable",  # errors, time-outs, rate limits: gave up after all retries
]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request, or the reason that there is none.

    Attributes:
        key: that of the request.
        outcome: "answered", or what went wrong.
        text: write: the model's text as it came. choose: one of the choices, to the letter. fill: "".
        words: fill: for each slot the proposed words, likeliest first.
        score: mean log-likelihood a token (nats) of the text given the chat, where the model tells; else None.
        detail: what a person should know: the server's message, for example. Never a key or an address.
        repaired: True where the answer was not in the form asked for and was mended ("the schema was ignored").
        attempts: requests sent, retries included.
        counts: anything else to be counted, for example {"retry: 429": 2}.
    """

    key: RequestKey
    outcome: ReplyStatus
    text: str = ""
    words: tuple[tuple[str, ...], ...] = ()
    score: float | None = None
    detail: str = ""
    repaired: bool = False
    attempts: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class LanguageModel(Protocol):
    """Answers requests. One thread starts requests and fetches replies; what happens between is the model's affair."""

    @property
    def name(self) -> str:
        """What `NegativeRecord.source` says, for example "openai:llama-3.1-8b-instruct"; without host and key."""
        ...

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that it can answer, the one that it does best first."""
        ...

    @property
    def capacity(self) -> int:
        """Requests worth having under way at once; more are taken and wait."""
        ...

    def describe(self) -> dict[str, object]:
        """What the manifest records: model, settings, digest of weights or host-free name; JSON values."""
        ...

    def start(self, request: Request) -> None:
        """Take a request; returns at once."""
        ...

    def finished(self) -> list[Reply]:
        """Replies that have come, in any order; waits for one where requests are under way, else returns none.

        Raises:
            DeglaError: going on is senseless: the key is wrong, there is no such model, no server can be reached. Says
                what the server said. Requests under way are lost, not paid twice: they are not in the journal.
        """
        ...

    def wait_no_longer(self) -> None:
        """From now on `finished` gives only what has come, and nothing more is begun; a signal calls it, anywhere."""
        ...

    def close(self) -> None:
        """Drop what is under way and free what is held."""
        ...
