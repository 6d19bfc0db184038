"""A deterministic language model for tests that answers from a table or a function, without network or weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import Field

from degla.errors import InputError
from degla.negatives.llm import Form, Reply, ReplyStatus, Request
from degla.parse import read_bytes
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
        forms: the supported forms, best first.
        capacity: number of concurrent requests.
        name: value for `NegativeRecord.source`.
        digest: sha256 of a script file; a table computes its own.
    """

    script: Mapping[tuple[str, str], str] | Script = field(default_factory=dict)
    forms: tuple[Form, ...] = ALL_FORMS
    capacity: int = 16
    name: str = "scripted"
    digest: str = ""
    _waiting: list[Request] = field(default_factory=list)

    def describe(self) -> dict[str, object]:
        """Return the name, and the script's digest if it is a table or a file."""
        digest = self.digest
        if not callable(self.script):
            digest = sha256(repr(sorted(self.script.items())).encode()).hexdigest()
        return {"name": self.name, "script_sha256": digest} if digest else {"name": self.name}

    def start(self, request: Request) -> None:
        """Take a request."""
        self._waiting.append(request)

    def finished(self) -> list[Reply]:
        """Return the replies to all requests taken, in order."""
        ready, self._waiting = self._waiting, []
        return [self._answer(request) for request in ready]

    def wait_no_longer(self) -> None:
        """Do nothing: no request is pending."""

    def close(self) -> None:
        """Drop pending requests."""
        self._waiting.clear()

    def _answer(self, request: Request) -> Reply:
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

    return ScriptedModel(answer, digest=sha256(read_bytes(path)).hexdigest())
