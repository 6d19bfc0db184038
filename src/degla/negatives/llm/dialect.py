"""How to send requests to one server and how to read its answers.

The answer format and the fields that a server accepts are learnt from its answers. Only the last turn differs between
requests, so a prefix cache can reuse the rest. An answer becomes an outcome and a text, whatever the model put around
the text; each is parsed here even if the server promises the schema, since servers silently differ on
`response_format`.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, Field

from degla.errors import InputError
from degla.negatives.llm import Form, ReplyStatus, Request, inert
from degla.negatives.llm.faults import Fault
from degla.negatives.replies import read_member, read_reply, without_thinking
from degla.parse import parse_json

log = logging.getLogger(__name__)

Mode = Literal["json_schema", "json_object", "plain"]
"""How the answer format is requested: by JSON schema (OpenAI, vLLM, llama-server), as a JSON object with a separate
schema (llama-cpp-python), or only in words."""

_CHOOSE: Final = "Choose one of these rewritten captions, the one that reads most like a caption of a real photograph:"
_BY_NUMBER: Final = "Answer with its number alone."
# No pattern such as {"negative": "..."}: small models copy it, dots and all.
_OBJECT: Final = {
    "write": 'Answer as a JSON object whose "negative" is the new caption.',
    "choose": 'Answer as a JSON object whose "negative" is the chosen caption.',
}
_FORMAT: Final = re.compile(
    r"response_format|json_schema|json_object|guided|grammar|structured[ _]output", re.IGNORECASE
)
_UNSUPPORTED: Final = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not (?:permitted|allowed|implemented)|invalid"
    r"|deprecated",
    re.IGNORECASE,
)
_SYSTEM: Final = re.compile(r"system.{0,20}\brole|\brole.{0,40}system|roles must alternate", re.IGNORECASE)
_CUT_BEFORE_WARNING: Final = 20
"""Answers cut off at the token limit after which a warning says so, if there were no more others."""
_ENOUGH: Final = 3
"""Number of answers that ignore the schema, or of requests that succeed only without it, after which a server counts as
unable to follow it."""


@dataclass(frozen=True)
class RequestSettings:
    """Settings common to all requests of a run.

    Attributes:
        model: the model's name on the server.
        temperature: sampling temperature; None uses the server's default for form "write" and 0 for "choose".
        max_tokens: maximum tokens of an answer.
        structured: whether to request a JSON schema; None does so for form "choose" if the server follows it.
        seed: sampling seed for the server.
        extra: more fields of every request.
    """

    model: str
    temperature: float | None = None
    max_tokens: int = 160
    structured: bool | None = None
    seed: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Dialect:
    """The part of the protocol that one server supports; starts with the best mode and falls back as needed.

    Attributes:
        host: host and port, for the log.
        settings: settings common to all requests.
        mode: how the answer format is requested.
        followed: number of answers that followed the schema.
    """

    host: str
    settings: RequestSettings
    mode: Mode = "json_schema"
    followed: int = 0
    _ignored: int = 0
    _failed: int = 0
    _cut: int = 0
    _uncut: int = 0
    _length_field: str = "max_tokens"
    _dropped: set[str] = field(default_factory=set)
    _joins: bool = False  # whether the first user turn begins with the system turn, which the server does not accept

    path: ClassVar[str] = "/chat/completions"

    def __post_init__(self) -> None:
        if self.settings.structured is False:
            self.mode = "plain"

    def mode_for(self, form: Form) -> Mode:
        """Return how to request the answer format.

        Free text is requested as plain text unless the user asks for a schema: the chat's examples are plain texts, and
        small models answer a schema of one free string with the schema's own words (docs/negatives-server.md has the
        counts).
        """
        return "plain" if form == "write" and not self.settings.structured else self.mode

    def body(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return a request's body in the form that this server accepts."""
        temperature = self.settings.temperature
        if temperature is None and request.form == "choose":
            temperature = 0.0
        fields: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages(request, mode=mode, join=self._joins),
            "response_format": response_format(request, mode=mode),
            "temperature": temperature,
            "seed": (self.settings.seed + request.key.draw) % 2**31,  # Larger ones are refused by some servers.
            self._length_field: self.settings.max_tokens,
        }
        return self.accepted(fields)

    def accepted(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that the server accepts, with those of the user."""
        members = {name: value for name, value in fields.items() if value is not None and name not in self._dropped}
        return members | self.settings.extra

    def learn(self, fault: Fault, body: dict[str, Any], *, mode: Mode) -> bool:
        """Learn about unsupported fields from a rejected request; return whether the request would now differ."""
        if fault.status not in (400, 422, 500, 501):
            return False
        message = fault.message
        body = {name: value for name, value in body.items() if name not in self.settings.extra}  # Those stay.
        if "max_completion_tokens" in message and "max_tokens" in body:
            self._length_field = "max_completion_tokens"
            return True
        if "response_format" in body and _FORMAT.search(message):
            if mode == self.mode:
                self._step_down(f"says: {message}", to="json_object" if mode == "json_schema" else "plain")
            return True
        if "messages" in body and body["messages"][0]["role"] == "system" and _SYSTEM.search(message):
            if not self._joins:
                self._joins = True
                log.warning(
                    "The server at %s accepts no system turn; its text goes first. Message: %s", self.host, message
                )
            return True
        return self.drop(("seed", "temperature"), body, message)

    def drop(self, names: tuple[str, ...], body: dict[str, Any], message: str) -> bool:
        """Omit one of these fields from now on if the message says that the server does not support it."""
        for name in names:
            if name in body and name in message and _UNSUPPORTED.search(message):
                if name not in self._dropped:
                    self._dropped.add(name)
                    log.warning(
                        'The server at %s does not accept "%s"; it is omitted. Message: %s', self.host, name, message
                    )
                return True
        return False

    def parse(self, content: bytes) -> Answer:
        """Parse the body of an answer; raise ValidationError if it is none."""
        return Completion.model_validate_json(content)

    def read(self, request: Request, answer: Any, *, mode: Mode) -> RequestResult:
        """Return the outcome and the text of an answer: the raw text for form "write", one of the choices for
        "choose"."""
        choice = answer.choices[0]
        reply = choice.message.content or ""
        if choice.message.refusal or _FILTERED.search(choice.finish_reason):
            return RequestResult(
                "refused", detail=_short(choice.message.refusal or "the content filter stopped the answer")
            )
        if len(reply) > _LONGEST:
            return RequestResult("malformed", detail=_short(reply), in_format=False)
        cut = choice.finish_reason in _AT_LIMIT
        bare = without_thinking(reply)
        # If an answer ended at the token limit, only its complete lines count.
        result = _read(request, (bare.rpartition("\n")[0] if cut else bare).strip(), mode=mode)
        if cut and result.outcome != "answered":
            return RequestResult("cut_off", text=reply, detail=_short(reply), in_format=result.in_format)
        return result

    def suspects_schema(self, fault: Fault, *, mode: Mode) -> bool:
        """Return whether the schema may have caused a failure that the server does not blame on it."""
        return mode != "plain" and not self.followed and (fault.outcome == "rejected" or fault.status in (500, 501))

    def note_format(self, in_format: bool | None, *, mode: Mode) -> None:
        """Record whether an answer to a request in that mode followed the format; None if unknown."""
        if mode == "plain" or mode != self.mode or in_format is None:
            return
        self.followed += in_format
        self._ignored += not in_format
        if self._ignored >= _ENOUGH and self._ignored > self.followed and not self.settings.structured:
            self._step_down("accepts but ignores it")

    def note_length(self, *, cut: bool) -> None:
        """Record whether an answer was cut off at the token limit."""
        self._cut += cut
        self._uncut += not cut
        if cut and self._cut == _CUT_BEFORE_WARNING > self._uncut:
            log.warning(
                "The server at %s has cut off %d of %d answers at the limit of %d tokens. If the model thinks before "
                "it answers, set a larger --max-tokens or turn its thinking off (docs/negatives-server.md).",
                self.host, self._cut, self._cut + self._uncut, self.settings.max_tokens,
            )  # fmt: skip

    def note_failure(self) -> None:
        """Record that a request failed with the schema but was answered without it."""
        self._failed += 1
        if self._failed >= _ENOUGH and not self.followed and self.mode != "plain":
            self._step_down("fails with it but answers without it")

    def _step_down(self, why: str, *, to: Mode = "plain") -> None:
        old, self.mode = self.mode, to
        self.followed = self._ignored = self._failed = 0
        log.warning(
            'The server at %s does not support "%s" for structured output, using "%s" from now on: it %s.',
            self.host, old, self.mode, why,
        )  # fmt: skip


def messages(request: Request, *, mode: Mode, join: bool = False) -> list[dict[str, str]]:
    """Return the turns in the order of the chat; only the last one is extended. `join` merges the first two."""
    turns = [{"role": message.role, "content": message.content} for message in request.chat]
    parts = [turns[-1]["content"]]
    if request.is_question:
        words = " or ".join(f'"{word}"' for word in request.choices)
        lead = "Answer with" if mode == "plain" else 'Answer as a JSON object whose "answer" is'
        parts.append(f"{lead} {words} and nothing else.")
    else:
        if request.form == "choose":
            choices = (f"{number}. {inert(text)}" for number, text in enumerate(request.choices, start=1))
            parts.append("\n".join([_CHOOSE, *choices]))
        if mode != "plain":
            parts.append(_OBJECT[request.form])
        elif request.form == "choose":
            parts.append(_BY_NUMBER)
    turns[-1]["content"] = "\n\n".join(parts)
    if join and turns[0]["role"] == "system":
        system = turns.pop(0)
        turns[0]["content"] = f"{system['content']}\n\n{turns[0]['content']}"
    return turns


def _member(request: Request) -> str:
    return "answer" if request.is_question else "negative"


def response_format(request: Request, *, mode: Mode) -> dict[str, Any] | None:
    """Return the value of the field `response_format`; None for plain text."""
    if mode == "plain":
        return None
    member: dict[str, Any] = {"type": "string"}
    if request.form == "choose":
        member["enum"] = list(dict.fromkeys(request.choices))
    schema = {
        "type": "object",
        "properties": {_member(request): member},
        "required": [_member(request)],
        "additionalProperties": False,
    }
    if mode == "json_object":
        return {"type": "json_object", "schema": schema}
    return {"type": "json_schema", "json_schema": {"name": "negative", "strict": True, "schema": schema}}


_REFUSAL: Final = re.compile(
    r"^\W*(?:(?:i['’]?m|i am|we['’]re)\s+(?:so |very |really |truly )?sorry\b|sorry,|i apologi[sz]e|unfortunately, i\b"
    r"|as an ai\b|as a language model\b"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|will not|am unable|am not able|must decline|do not feel)\b"
    r".{0,40}\b(?:help|assist|comply|provide|create|generate|fulfil|rewrite|write|produce|answer|continue|that)\b)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER: Final = re.compile(
    r"^\W*(?:(?:my |the )?(?:option|number|answer|choice|caption|no\.?)\s*(?:(?:is|:)\s*)?)*#?(\d{1,3})\b",
    re.IGNORECASE,
)


_AT_LIMIT: Final = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
"""Finish reasons of an answer that was cut off at the token limit."""
_FILTERED: Final = re.compile(r"content_filter|safety|recitation|blocklist|prohibited|spii|sensitive|refusal")
"""Finish reasons of an answer that a content filter stopped."""
BROKEN: Final = frozenset({"error", "abort", "aborted", "insufficient_system_resource", "network_error"})
"""Finish reasons with which servers (OpenRouter, vLLM, SGLang, DeepSeek) send half an answer with status 200."""

_MOST_TOKENS: Final = 1 << 30
_LONGEST: Final = 1 << 18
"""Maximum characters of an answer to parse; a caption has a hundred, reasoning some ten thousand."""


def _text(content: Any) -> Any:
    """Return a message's content as one string; some servers send a list of parts."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content


def _tokens(number: Any) -> Any:
    """Return a valid number of tokens, else None: a bad count must not lose the answer."""
    whole = isinstance(number, int) and not isinstance(number, bool)
    return number if whole and 0 <= number <= _MOST_TOKENS else None


TokenCount = Annotated[int | None, BeforeValidator(_tokens)]


class ReplyMessage(BaseModel):
    """The model's message."""

    content: Annotated[str | None, BeforeValidator(_text)] = None
    refusal: str | None = None


class Choice(BaseModel):
    """One of the answers; only one is requested."""

    message: ReplyMessage = ReplyMessage()  # Gemini omits it if its filter stops the answer
    finish_reason: Annotated[str, BeforeValidator(lambda reason: str(reason or "").casefold())] = ""


class Usage(BaseModel):
    """Billed tokens."""

    prompt_tokens: TokenCount = None
    completion_tokens: TokenCount = None
    # Prompt tokens served by a prefix cache.
    cached_tokens: TokenCount = Field(None, validation_alias=AliasPath("prompt_tokens_details", "cached_tokens"))

    # Output tokens of the model's thinking.
    reasoning_tokens: TokenCount = Field(
        None, validation_alias=AliasPath("completion_tokens_details", "reasoning_tokens")
    )

    @property
    def total(self) -> int:
        """Input and output tokens of the request."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def counts(self) -> dict[str, int]:
        """Return the server's counts by name."""
        return self.model_dump(exclude_none=True)


class Answer(BaseModel):
    """The parts of a server's answer that are used."""

    usage: Usage | None = None

    @property
    def broken(self) -> str:
        """Why the server broke the answer off; "" if it did not."""
        return ""


class Completion(Answer):
    """The answer to a chat."""

    # One is requested, some servers send up to 128; 8 MiB of empty ones would take a gigabyte and 12 s.
    choices: Annotated[list[Choice], Field(min_length=1, max_length=128)]

    @property
    def broken(self) -> str:
        """See `Answer`."""
        reason = self.choices[0].finish_reason
        return reason if reason in BROKEN else ""


@dataclass(frozen=True)
class RequestResult:
    """The result of one request.

    Attributes:
        outcome: as in `Reply`.
        text: as in `Reply`.
        detail: the model's words, if there is no usable text.
        in_format: whether the answer had the requested format; None if unknown.
    """

    outcome: ReplyStatus
    text: str = ""
    detail: str = ""
    in_format: bool | None = None


def _read(request: Request, reply: str, *, mode: Mode) -> RequestResult:
    if not reply:
        return RequestResult("empty")
    text = read_reply(reply)
    if _REFUSAL.match(text or reply):
        return RequestResult("refused", detail=_short(reply))
    if request.form == "choose":
        return _read_choice(request, reply, mode=mode)
    in_format = mode == "plain" or bool(_as_schema(reply, "negative"))
    if not text:
        return RequestResult("malformed", text=reply, detail=_short(reply), in_format=in_format)
    return RequestResult("answered", text=reply, in_format=in_format)


def _read_choice(request: Request, reply: str, *, mode: Mode) -> RequestResult:
    """Return the choice that an answer means: its exact text under a schema, else also its number."""
    exact = _as_schema(reply, _member(request))
    if exact in request.choices:
        return RequestResult("answered", text=exact, in_format=mode != "plain" or None)
    text = _find_word(reply, request.choices) if request.is_question else find_choice(reply, request.choices)
    if text is None:
        return RequestResult("malformed", detail=_short(reply), in_format=False)
    return RequestResult("answered", text=text, in_format=mode == "plain")


def find_choice(reply: str, choices: tuple[str, ...]) -> str | None:
    """Return the choice that a text names by its words, by its number, or as the only one contained; else None."""
    plain = {_plain(text): text for text in reversed(choices)}
    for wording in (read_member(reply), read_reply(reply), reply):
        if wording and (match := plain.get(_plain(wording))) is not None:
            return match
    within = [text for wording, text in plain.items() if f" {wording} " in f" {_plain(reply)} "]
    if len(within) == 1:
        return within[0]
    number = _NUMBER.match(read_member(reply) or reply)
    if number and not within and 1 <= int(number.group(1)) <= len(choices):
        # "2" names the second choice, "2 dogs on a mat" does not: a number must be followed by punctuation or nothing.
        rest = (read_member(reply) or reply)[number.end() :]
        if not rest.strip() or rest[0] in ".):*]\n\"'":
            return choices[int(number.group(1)) - 1]
    return None


def _find_word(reply: str, words: tuple[str, ...]) -> str | None:
    """Return the word that an answer begins or ends with, or None: "no" in "there is no dog" is not an answer."""
    pieces = _plain(read_member(reply) or reply).split()
    matches = {word for word in words if _plain(word) in (*pieces[:1], *pieces[-1:])}
    return matches.pop() if len(matches) == 1 else None


def _as_schema(reply: str, member: str) -> str:
    """Return the string of an answer that follows the schema; "" if it does not."""
    try:
        value = parse_json(reply, where="the answer")
    except InputError:
        return ""
    text = value.get(member) if isinstance(value, dict) and len(value) == 1 else None
    return text if isinstance(text, str) else ""


def _plain(text: str) -> str:
    """Normalise a text for comparison: lower-case letters and digits, with single spaces between words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", " ", folded).split())


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
