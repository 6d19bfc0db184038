"""What a server takes and keeps of the OpenAI protocol, learnt from its answers: it is told nothing twice in vain."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any, Final

from degla.negatives.llm import Form, Request
from degla.negatives.llm.faults import Fault
from degla.negatives.llm.wording import MODES, Mode, messages, response_format

LOG = logging.getLogger(__name__)

_FORMAT: Final = re.compile(
    r"response_format|json_schema|json_object|guided|grammar|structured[ _]output", re.IGNORECASE
)
_UNSUPPORTED: Final = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not (?:permitted|allowed|implemented)|invalid",
    re.IGNORECASE,
)
_IGNORED: Final = 3
"""Answers beside the schema, more than half of all, after which a server counts as one that ignores it."""
_FELL: Final = 3
"""Requests that failed with the schema and were answered without it, before one was answered with it."""


@dataclass(frozen=True)
class RequestSettings:
    """What every request of a run has in common.

    Attributes:
        model: its name at the server.
        temperature: None: the server's own for form "write", 0 for "choose".
        max_tokens: of an answer.
        seed: of the server's draws.
    """

    model: str
    temperature: float | None
    max_tokens: int
    seed: int


@dataclass
class Support:
    """What one server does with requests; begins with the best and steps down as answers demand.

    Attributes:
        host: for the log.
        mode: how the form of an answer is asked for.
        fixed: True where the user wants the schema, for form "write" too; then only a refusal changes the mode.
        kept: answers that kept the schema.
    """

    host: str
    mode: Mode = "json_schema"
    fixed: bool = False
    kept: int = 0
    _ignored: int = 0
    _fell: int = 0
    _length_field: str = "max_tokens"
    _dropped: set[str] = field(default_factory=set)

    def body(self, request: Request, settings: RequestSettings, *, mode: Mode) -> dict[str, Any]:
        """A request as this server takes it."""
        temperature = settings.temperature
        if temperature is None and request.form == "choose":
            temperature = 0.0
        fields: dict[str, Any] = {
            "model": settings.model,
            "messages": messages(request, mode=mode),
            "response_format": response_format(request, mode=mode),
            "temperature": temperature,
            "seed": settings.seed + request.key.draw,
            self._length_field: settings.max_tokens,
        }
        return {name: value for name, value in fields.items() if value is not None and name not in self._dropped}

    def mode_for(self, form: Form, *, lowered: int = 0) -> Mode:
        """How to ask for the form of an answer: in the present mode, or in one that asks less by so many steps.

        A text is asked for as a text unless the user wants it otherwise: the chat's examples are texts, and small
        models answer a schema of one free string with its own words (docs/negatives-server.md has the count).
        """
        if form == "write" and not self.fixed:
            return "plain"
        return self._below(lowered)

    def _below(self, steps: int) -> Mode:
        return MODES[min(MODES.index(self.mode) + steps, len(MODES) - 1)]

    def learn(self, fault: Fault, sent: dict[str, Any], *, mode: Mode) -> bool:
        """Take a refused request as a lesson about a field; whether the request would now be put otherwise."""
        if fault.status not in (400, 422, 500, 501):
            return False
        said = fault.message
        if "max_completion_tokens" in said and self._length_field in sent:
            self._length_field = "max_completion_tokens"
            return "max_tokens" in sent
        if "response_format" in sent and _FORMAT.search(said):
            if mode == self.mode:
                self._step_down(f"says: {said}")
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

    def note(self, kept: bool | None, *, mode: Mode) -> None:
        """An answer came to a request in that mode: whether it kept the form; None where it cannot be told."""
        if mode == "plain" or mode != self.mode or kept is None:
            return
        if kept:
            self.kept += 1
            return
        self._ignored += 1
        if self._ignored >= _IGNORED and self._ignored > self.kept and not self.fixed:
            self._step_down("accepts it and ignores it", to="plain")

    def note_fall(self, *, failed: Mode, answered: Mode, rejected: bool) -> None:
        """A request failed in one mode and was answered in another, weaker one.

        Args:
            failed: the mode in which it failed.
            answered: the mode in which it was answered.
            rejected: whether it failed by a refusal, which is no accident, or by a server error, which may be one.
        """
        if failed != self.mode or self.kept:
            return
        self._fell += 1
        if rejected or self._fell >= _FELL:
            self._step_down("fails with it and answers without it", to=answered)

    def _step_down(self, why: str, *, to: Mode | None = None) -> None:
        old, self.mode = self.mode, to or self._below(1)
        self.kept = self._ignored = self._fell = 0
        LOG.warning(
            'The server at %s does not keep "%s" for structured output, asked as "%s" from now on: it %s.',
            self.host, old, self.mode, why,
        )  # fmt: skip
