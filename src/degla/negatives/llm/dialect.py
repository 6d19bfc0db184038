"""How one server is asked: the form of the answer and the fields that it takes, learnt from what it answers.

Whatever differs from request to request stands in the last turn, so that a prefix cache serves the rest.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from degla.negatives.llm import Form, Request, inert
from degla.negatives.llm.faults import Fault

LOG = logging.getLogger(__name__)

Mode = Literal["json_schema", "json_object", "plain"]
"""How the form of an answer is asked for: a JSON schema (OpenAI, vLLM, llama-server), a JSON object with the schema
beside it (llama-cpp-python), or words alone."""

_CHOOSE: Final = "Choose one of these rewritten captions, the one that reads most like a caption of a real photograph:"
_NUMBER: Final = "Answer with its number alone."
# No pattern such as {"negative": "..."}: small models copy it, dots and all.
_OBJECT: Final = {
    "write": 'Answer as a JSON object whose "negative" is the new caption.',
    "choose": 'Answer as a JSON object whose "negative" is the chosen caption.',
}
_FORMAT: Final = re.compile(
    r"response_format|json_schema|json_object|guided|grammar|structured[ _]output", re.IGNORECASE
)
_UNSUPPORTED: Final = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not (?:permitted|allowed|implemented)|invalid",
    re.IGNORECASE,
)
_ENOUGH: Final = 3
"""Answers that ignore the schema, or requests that fail with it and are answered without it, after which a server
counts as one that cannot keep it."""


@dataclass(frozen=True)
class RequestSettings:
    """What every request of a run has in common.

    Attributes:
        model: its name at the server.
        temperature: None: the server's own for form "write", 0 for "choose".
        max_tokens: of an answer.
        seed: of the server's draws.
        structured: ask by a JSON schema: always, or never; None: for form "choose", as far as the server keeps it.
    """

    model: str
    temperature: float | None = None
    max_tokens: int = 160
    seed: int = 0
    structured: bool | None = None


@dataclass
class Dialect:
    """What one server takes and keeps of the protocol; begins with the best and steps down as answers demand.

    Attributes:
        host: for the log.
        settings: what all requests have in common.
        mode: how the form of an answer is asked for.
        kept: answers that kept the schema.
    """

    host: str
    settings: RequestSettings
    mode: Mode = "json_schema"
    kept: int = 0
    _ignored: int = 0
    _failed: int = 0
    _length_field: str = "max_tokens"
    _dropped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.settings.structured is False:
            self.mode = "plain"

    def mode_for(self, form: Form) -> Mode:
        """How to ask for the form of an answer.

        A text is asked for as a text unless the user wants it otherwise: the chat's examples are texts, and small
        models answer a schema of one free string with its own words (docs/negatives-server.md has the count).
        """
        return "plain" if form == "write" and not self.settings.structured else self.mode

    def body(self, request: Request, mode: Mode) -> dict[str, Any]:
        """A request as this server takes it."""
        temperature = self.settings.temperature
        if temperature is None and request.form == "choose":
            temperature = 0.0
        fields: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages(request, mode=mode),
            "response_format": response_format(request, mode=mode),
            "temperature": temperature,
            "seed": self.settings.seed + request.key.draw,
            self._length_field: self.settings.max_tokens,
        }
        return {name: value for name, value in fields.items() if value is not None and name not in self._dropped}

    def learn(self, fault: Fault, sent: dict[str, Any], *, mode: Mode) -> bool:
        """Take a refused request as a lesson about a field; whether the request would now be put otherwise."""
        if fault.status not in (400, 422, 500, 501):
            return False
        said = fault.message
        if "max_completion_tokens" in said and "max_tokens" in sent:
            self._length_field = "max_completion_tokens"
            return True
        if "response_format" in sent and _FORMAT.search(said):
            if mode == self.mode:
                self._step_down(f"says: {said}", to="json_object" if mode == "json_schema" else "plain")
            return True
        for name in ("seed", "temperature"):
            if name in sent and name in said and _UNSUPPORTED.search(said):
                if name not in self._dropped:
                    self._dropped.add(name)
                    LOG.warning(
                        'The server at %s does not take "%s"; it is left out. It says: %s', self.host, name, said
                    )
                return True
        return False

    def is_doubtful(self, fault: Fault, *, mode: Mode) -> bool:
        """Whether the schema may be what fails, though the server does not say so; without it the answer shows."""
        return mode != "plain" and not self.kept and (fault.outcome == "rejected" or fault.status in (500, 501))

    def note(self, kept: bool | None, *, mode: Mode) -> None:
        """An answer came to a request in that mode: whether it kept the form; None where it cannot be told."""
        if mode == "plain" or mode != self.mode or kept is None:
            return
        self.kept += kept
        self._ignored += not kept
        if self._ignored >= _ENOUGH and self._ignored > self.kept and not self.settings.structured:
            self._step_down("accepts it and ignores it")

    def note_failure(self) -> None:
        """A request failed with the schema and was answered without it."""
        self._failed += 1
        if self._failed >= _ENOUGH and not self.kept and self.mode != "plain":
            self._step_down("fails with it and answers without it")

    def _step_down(self, why: str, *, to: Mode = "plain") -> None:
        old, self.mode = self.mode, to
        self.kept = self._ignored = self._failed = 0
        LOG.warning(
            'The server at %s does not keep "%s" for structured output, asked as "%s" from now on: it %s.',
            self.host, old, self.mode, why,
        )  # fmt: skip


def messages(request: Request, *, mode: Mode) -> list[dict[str, str]]:
    """The turns in the order of the chat; only the last one says more than the chat does."""
    turns = [{"role": message.role, "content": message.content} for message in request.chat]
    parts = [turns[-1]["content"]]
    if request.form == "choose":
        listed = (f"{number}. {inert(text)}" for number, text in enumerate(request.choices, start=1))
        parts.append("\n".join([_CHOOSE, *listed]))
    if mode != "plain":
        parts.append(_OBJECT[request.form])
    elif request.form == "choose":
        parts.append(_NUMBER)
    turns[-1]["content"] = "\n\n".join(parts)
    return turns


def response_format(request: Request, *, mode: Mode) -> dict[str, Any] | None:
    """What the field of that name holds; None for plain text."""
    if mode == "plain":
        return None
    member: dict[str, Any] = {"type": "string"}
    if request.form == "choose":
        member["enum"] = list(dict.fromkeys(request.choices))
    schema = {
        "type": "object",
        "properties": {"negative": member},
        "required": ["negative"],
        "additionalProperties": False,
    }
    if mode == "json_object":
        return {"type": "json_object", "schema": schema}
    return {"type": "json_schema", "json_schema": {"name": "negative", "strict": True, "schema": schema}}
