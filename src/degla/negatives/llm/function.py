"""A function of chats as a language model, such as one that calls a model in the caller's own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from degla.errors import InputError
from degla.negatives.llm import Reply
from degla.negatives.llm.dialect import Choice, Completion, Dialect, ReplyMessage, RequestSettings, messages
from degla.negatives.llm.scripted import ScriptedModel
from degla.pages.words import counted
from degla.parse import cut_short

AnswerChats = Callable[[list[list[dict[str, str]]]], Sequence[str]]
"""Function from chats, each a list of messages with "role" and "content", to the texts of the answers, in order."""
_CHATS: Final = 256
"""Most chats of a call."""


class FunctionModel(ScriptedModel):
    """Sends a function the messages that a server gets, and reads its answers as a server's.

    Args:
        answer: the function.

    Raises:
        InputError: it cannot be called; raised by `finished`: it does not return a list of one text per chat.
    """

    def __init__(self, answer: AnswerChats) -> None:
        if not callable(answer):
            raise InputError(f"llm: expected a function from chats to answers, got {type(answer).__name__}.")
        name = f"python:{getattr(answer, '__name__', type(answer).__name__)}"
        super().__init__(forms=("write", "choose"), capacity=_CHATS, name=name)
        self._function = answer
        self._dialect = Dialect("", RequestSettings(name))

    def finished(self) -> list[Reply]:
        """Return the replies to all requests taken, in order, from one call of the function."""
        ready, self._waiting = self._waiting, []
        texts: Any = self._function([messages(request, mode="plain") for request in ready])
        texts_only = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
        if not texts_only or len(texts) != len(ready):
            raise InputError(
                f"llm: {self.name} must return a list of {counted(len(ready), 'text')}, one per chat; it returned "
                f"{cut_short(repr(texts), 80)}."
            )
        replies = []
        for request, text in zip(ready, texts, strict=True):
            try:
                text.encode()
            except UnicodeEncodeError:  # As of JSON that was cut off within an escape; no file could hold it.
                replies.append(Reply(request.key, "malformed", detail="it has half of a surrogate pair"))
                continue
            answer = Completion(choices=[Choice(message=ReplyMessage(content=text))])
            result = self._dialect.read(request, answer, mode="plain")
            replies.append(Reply(request.key, result.outcome, text=result.text, detail=result.detail))
        return replies
