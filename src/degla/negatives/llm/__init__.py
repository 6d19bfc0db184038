"""Language models that take requests and return replies in any order; all follow the `LanguageModel` protocol below.

server.py talks to any OpenAI-compatible server, embedded.py runs a small model in this process, scripted.py answers
from a table or a function (for tests). run/pipeline.py makes requests and run/dialogue.py judges replies; no model
decides whether a text is a negative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, Protocol, runtime_checkable

_CONTROL: Final = re.compile(r"<(?=[|/\w])|\[(?=/?[A-Z_]+\])")
"""The start of a word such as "<|im_end|>" or "[INST]", which a tokenizer could take for the end of a turn."""


@lru_cache(maxsize=4_096)
def inert(text: str) -> str:
    """Return a text as one line without chat-template markup, by inserting a space into control words.

    `words.content` of the result equals that of the text.
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
"""A prompt for a model: first the rule's fixed instruction, then examples, then the caption, so that prefix caches
can be used."""

Form = Literal["write", "choose", "fill"]
"""How a model is to answer: write a text freely, choose one of the grammar's candidates, or fill a slot of the caption
with words."""

YES_OR_NO: Final = ("yes", "no")
"""Choices of a request that asks a question."""


@dataclass(frozen=True, slots=True, order=True)
class RequestKey:
    """Permanent identifier of a request, by which a journal ensures that it is paid for only once.

    Attributes:
        caption_id: id of the caption.
        rule: name of the rule.
        draw: number of the request for this caption and rule, from 0; it also determines the examples.
    """

    caption_id: str
    rule: str
    draw: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A position in a caption for one word.

    Attributes:
        before: the caption's text before the word, without the space before it.
        after: the caption's text after the word; "" at the end.
        word: the current word.
    """

    before: str
    after: str
    word: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a language model.

    Attributes:
        key: identifier of the request.
        form: how it is to be answered.
        chat: the instruction, the examples and the caption.
        caption: the caption's text only.
        choices: for form "choose", the texts to choose among, all valid; never empty.
        slots: for form "fill", the slots; never empty.
    """

    key: RequestKey
    form: Form
    chat: Chat
    caption: str
    choices: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()

    @property
    def is_question(self) -> bool:
        """Whether the choices are answers to a question rather than captions."""
        return self.choices == YES_OR_NO


ReplyStatus = Literal[
    "answered",  # there is a text, or words
    "refused",  # the model or its content filter declined
    "empty",  # an answer without text
    "malformed",  # not in the requested form, even after repair
    "implausible",  # choose: the model finds none of the choices likely enough
    "cut_off",  # ended at the token limit
    "too_long",  # the request does not fit the model's context
    "rejected",  # the server rejects the request as invalid (4xx), with its message
    "unreachable",  # errors, time-outs, rate limits: gave up after all retries
]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request, or the reason that there is none.

    Attributes:
        key: key of the request.
        outcome: "answered", or what went wrong.
        text: write: the model's raw text. choose: exactly one of the choices. fill: "".
        words: fill: the proposed words for each slot, likeliest first.
        score: mean log-likelihood per token (nats) of the text given the chat, if the model reports it; else None.
        detail: details for people, such as the server's message; never a key or an address.
        repaired: True if the answer was not in the requested format and was repaired, as when a schema was ignored.
        attempts: requests sent, including retries.
        counts: other counts, for example {"retry: 429": 2}.
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
    """Protocol of all models. One thread starts requests and fetches replies; the rest is up to the model."""

    @property
    def name(self) -> str:
        """Value for `NegativeRecord.source`, such as "openai:llama-3.1-8b-instruct", without host and key."""
        ...

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that the model supports, best first."""
        ...

    @property
    def capacity(self) -> int:
        """Useful number of concurrent requests; additional ones are queued."""
        ...

    def describe(self) -> dict[str, object]:
        """Return JSON values for the manifest: model, settings, digest of weights or name without host."""
        ...

    def start(self, request: Request) -> None:
        """Take a request and return at once."""
        ...

    def finished(self) -> list[Reply]:
        """Return the replies received, in any order; waits for one if requests are pending, else returns none.

        Raises:
            DeglaError: continuing is pointless (invalid key, unknown model, no server reachable); the message includes
                the server's. Pending requests are lost: they are not in the journal.
        """
        ...

    def wait_no_longer(self) -> None:
        """Let `finished` return without waiting and start nothing new; called from a signal handler at any time."""
        ...

    def close(self) -> None:
        """Drop pending requests and free resources."""
        ...
