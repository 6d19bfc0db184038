"""A deterministic language model for tests that answers from a table or a function, without network or weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final

from pydantic import Field

from degla.errors import DeglaError, InputError
from degla.negatives.llm import Form, Reply, ReplyStatus, Request, RequestKey
from degla.records import Record, read_jsonl

ScriptedReply = str | Reply
"""A script's answer to one request: a text (for form "fill": words separated by spaces), or a whole reply."""
Script = Callable[[Request], ScriptedReply | None]

ALL_FORMS: Final[tuple[Form, ...]] = ("write", "choose", "fill")


class ScriptLine(Record):
    """One line of a script file.

    Attributes:
        caption: the exact caption of the request.
        rule: the rule.
        text: the answer; for "fill", words separated by spaces.
        form: the form of the request; "write" by default.
        outcome: outcome of the request; anything but "answered" is a failure.
    """

    caption: str = Field(min_length=1)
    rule: str = Field(min_length=1)
    text: str = ""
    form: Form = "write"
    outcome: ReplyStatus = "answered"


@dataclass
class ScriptedModel:
    """Answers from a script; implements `LanguageModel`.

    Without an answer in the script it chooses the first choice, fills nothing, and writes nothing ("empty").

    Attributes:
        script: answers by (caption, rule), or a function of the request that returns None if it has no answer.
        faults: outcomes by key instead of an answer; each is used once, so a later run gets an answer.
        forms: the supported forms, best first.
        capacity: number of concurrent requests.
        shuffle: seed for replies in random order, a few at a time; None replies in order, all at once.
        fail_after: number of replies after which the model is unreachable; None means never.
        name: value for `NegativeRecord.source`.
        digest: sha256 of a script file; a table computes its own.
        remember: whether to record requests in `requests`.
        requests: every request so far, in order, if `remember` is set.
    """

    script: Mapping[tuple[str, str], str] | Script = field(default_factory=dict)
    faults: dict[RequestKey, ReplyStatus] = field(default_factory=dict)
    forms: tuple[Form, ...] = ALL_FORMS
    capacity: int = 16
    shuffle: int | None = None
    fail_after: int | None = None
    name: str = "scripted"
    digest: str = ""
    remember: bool = True
    requests: list[Request] = field(default_factory=list)
    _waiting: deque[Request] = field(default_factory=deque)
    _reply_count: int = 0
    _rng: Random | None = None

    def describe(self) -> dict[str, object]:
        """Return the name, and the script's digest if it is a table or a file."""
        digest = self.digest
        if not callable(self.script):
            digest = sha256(repr(sorted(self.script.items())).encode()).hexdigest()
        return {"name": self.name, "script_sha256": digest} if digest else {"name": self.name}

    def start(self, request: Request) -> None:
        """Take a request."""
        if self.remember:
            self.requests.append(request)
        self._waiting.append(request)

    def finished(self) -> list[Reply]:
        """Return replies to the requests taken.

        Raises:
            DeglaError: `fail_after` replies were given.
        """
        if self._waiting and self.fail_after is not None and self._reply_count >= self.fail_after:
            raise DeglaError(f"{self.name}: cannot be reached any more, as scripted.")
        ready = self._pick()
        if self.fail_after is not None:
            room = self.fail_after - self._reply_count
            self._waiting.extendleft(reversed(ready[room:]))
            ready = ready[:room]
        self._reply_count += len(ready)
        return [self._answer(request) for request in ready]

    def wait_no_longer(self) -> None:
        """Do nothing: no request is pending."""

    def close(self) -> None:
        """Drop pending requests."""
        self._waiting.clear()

    def _pick(self) -> list[Request]:
        if self.shuffle is None or not self._waiting:
            ready = list(self._waiting)
            self._waiting.clear()
            return ready
        self._rng = self._rng or Random(self.shuffle)
        ready = []
        for _ in range(self._rng.randint(1, max(1, len(self._waiting) // 2))):
            self._waiting.rotate(self._rng.randrange(len(self._waiting)))
            ready.append(self._waiting.popleft())
        return ready

    def _answer(self, request: Request) -> Reply:
        fault = self.faults.pop(request.key, None)
        if fault is not None:
            return Reply(request.key, fault)
        answer = self._look_up(request)
        if isinstance(answer, Reply):
            return answer
        if request.form == "fill":
            return Reply(request.key, "answered", words=tuple(tuple((answer or "").split()) for _ in request.slots))
        if answer is None and request.form == "choose":
            answer = request.choices[0]
        return Reply(request.key, "answered" if answer else "empty", text=answer or "")

    def _look_up(self, request: Request) -> ScriptedReply | None:
        if callable(self.script):
            return self.script(request)
        return self.script.get((request.caption, request.key.rule)) if request.form == "write" else None


def read_script(path: Path) -> ScriptedModel:
    """Create a model that answers from a JSONL file of `ScriptLine`.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing, or a line is invalid or repeated.
    """
    lines: dict[tuple[str, str, Form], ScriptLine] = {}
    for line in read_jsonl(ScriptLine, path):
        key = (line.caption.strip(), line.rule, line.form)
        if key in lines:
            raise InputError(f"{path}: caption {line.caption!r}, rule {line.rule}, form {line.form} occurs twice.")
        lines[key] = line

    def answer(request: Request) -> ScriptedReply | None:
        line = lines.get((request.caption, request.key.rule, request.form))
        if line is None:
            return None
        return line.text if line.outcome == "answered" else Reply(request.key, line.outcome)

    return ScriptedModel(answer, digest=sha256(path.read_bytes()).hexdigest(), remember=False)
