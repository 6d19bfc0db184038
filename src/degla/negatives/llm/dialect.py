"""How one server is asked, and what its answers amount to.

The form of the answer and the fields that a server takes are learnt from what it answers. Whatever differs from request
to request stands in the last turn, so that a prefix cache serves the rest. An answer is an outcome and a text, whatever
the model put around it; every one is read again here, the schema's promise or not: servers differ silently on
`response_format`.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, Field

from degla.errors import InputError
from degla.negatives.llm import Form, ReplyStatus, Request, inert
from degla.negatives.llm.faults import Fault
from degla.negatives.replies import read_member, read_reply, without_thinking
from degla.parse import parse_json

LOG = logging.getLogger(__name__)

Mode = Literal["json_schema", "json_object", "plain"]
"""How the form of an answer is asked for: a JSON schema (OpenAI, vLLM, llama-server), a JSON object with the schema
beside it (llama-cpp-python), or words alone."""

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
        structured: ask by a JSON schema: always, or never; None: for form "choose", as far as the server keeps it.
        seed: of the server's draws.
    """

    model: str
    temperature: float | None = None
    max_tokens: int = 160
    structured: bool | None = None
    seed: int = 0


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
        parts.append(_BY_NUMBER)
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


_REFUSAL: Final = re.compile(
    r"^\W*(?:(?:i['’]?m|i am|we['’]re)\s+(?:so |very |really |truly )?sorry\b|sorry,|i apologi[sz]e|unfortunately, i\b"
    r"|as an ai\b|as a language model\b"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|will not|am unable|am not able|must decline|do not feel)\b"
    r".{0,40}\b(?:help|assist|comply|provide|create|generate|fulfil|rewrite|write|produce|answer|continue|that)\b)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER: Final = re.compile(
    r"^\W*(?:(?:my |the )?(?:option|number|answer|choice|caption|no\.?)\s*(?:is|:)?\s*)*#?(\d{1,3})\b", re.IGNORECASE
)


_MOST_TOKENS: Final = 1 << 30
_LONGEST: Final = 1 << 18
"""Characters of an answer that is looked into; a caption has a hundred, thinking aloud some ten thousand."""


def _text(content: Any) -> Any:
    """A message's content as one string: some servers send a list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content


def _tokens(number: Any) -> Any:
    """A number of tokens; None where it cannot be one: what is only counted must not cost the answer."""
    whole = isinstance(number, int) and not isinstance(number, bool)
    return number if whole and 0 <= number <= _MOST_TOKENS else None


TokenCount = Annotated[int | None, BeforeValidator(_tokens)]


class ReplyMessage(BaseModel):
    """What the model said."""

    content: Annotated[str | None, BeforeValidator(_text)] = None
    refusal: str | None = None


class Choice(BaseModel):
    """One of the answers; only one is asked for."""

    message: ReplyMessage
    finish_reason: str | None = None


class Usage(BaseModel):
    """Tokens that were paid for."""

    prompt_tokens: TokenCount = None
    completion_tokens: TokenCount = None
    # Those of the prompt that a prefix cache served.
    cached_tokens: TokenCount = Field(None, validation_alias=AliasPath("prompt_tokens_details", "cached_tokens"))

    @property
    def total(self) -> int:
        """Tokens of the request, in and out."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def counts(self) -> dict[str, int]:
        """What the server says, by name."""
        return self.model_dump(exclude_none=True)


class Completion(BaseModel):
    """The body of a server's answer, as far as it is read."""

    choices: Annotated[list[Choice], Field(min_length=1)]
    usage: Usage | None = None


@dataclass(frozen=True)
class RequestResult:
    """What became of one request.

    Attributes:
        outcome: as in `Reply`.
        text: as in `Reply`.
        detail: what the model said, where there is no text to give.
        kept: whether the answer had the form asked for; None where it cannot be told.
    """

    outcome: ReplyStatus
    text: str = ""
    detail: str = ""
    kept: bool | None = None


def read_answer(request: Request, completion: Completion, *, mode: Mode) -> RequestResult:
    """The outcome of an answer, and its text: as it came for form "write", one of the choices for "choose"."""
    choice = completion.choices[0]
    said = choice.message.content or ""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return RequestResult(
            "refused", detail=_short(choice.message.refusal or "the content filter stopped the answer")
        )
    if len(said) > _LONGEST:
        return RequestResult("malformed", detail=_short(said), kept=False)
    cut = choice.finish_reason == "length"
    bare = without_thinking(said)
    # Of an answer that ended at the limit of tokens only whole lines count.
    answer = _read(request, bare.rpartition("\n")[0].strip() if cut else bare, mode=mode)
    if cut and answer.outcome != "answered":
        return RequestResult("cut_off", text=said, detail=_short(said))
    return answer


def _read(request: Request, said: str, *, mode: Mode) -> RequestResult:
    if not said:
        return RequestResult("empty")
    text = read_reply(said)
    if _REFUSAL.match(text or said):
        return RequestResult("refused", detail=_short(said))
    if request.form == "choose":
        return _read_choice(request, said, mode=mode)
    kept = mode == "plain" or bool(_as_schema(said))
    if not text:
        return RequestResult("malformed", text=said, detail=_short(said), kept=kept)
    return RequestResult("answered", text=said, kept=kept)


def _read_choice(request: Request, said: str, *, mode: Mode) -> RequestResult:
    """The choice that an answer means; asked for as a schema it is one to the letter, else its number will do."""
    exact = _as_schema(said)
    if exact in request.choices:
        return RequestResult("answered", text=exact, kept=mode != "plain" or None)
    text = find_choice(said, request.choices)
    if text is None:
        return RequestResult("malformed", detail=_short(said), kept=False)
    return RequestResult("answered", text=text, kept=mode == "plain")


def find_choice(said: str, choices: tuple[str, ...]) -> str | None:
    """The choice that a text names: by its words, by its number, or by containing it and no other; else None."""
    plain = {_plain(text): text for text in reversed(choices)}
    for wording in (read_member(said), read_reply(said), said):
        if wording and (found := plain.get(_plain(wording))) is not None:
            return found
    within = [text for wording, text in plain.items() if f" {wording} " in f" {_plain(said)} "]
    if len(within) == 1:
        return within[0]
    number = _NUMBER.match(read_member(said) or said)
    if number and not within and 1 <= int(number.group(1)) <= len(choices):
        # "2" names the second choice, "2 dogs on a mat" does not: what follows a number must end or punctuate it.
        rest = (read_member(said) or said)[number.end() :]
        if not rest.strip() or rest[0] in ".):*]\n\"'":
            return choices[int(number.group(1)) - 1]
    return None


def _as_schema(said: str) -> str:
    """The string of an answer that keeps the schema; "" where it does not."""
    try:
        value = parse_json(said, where="the answer")
    except InputError:
        return ""
    negative = value.get("negative") if isinstance(value, dict) and len(value) == 1 else None
    return negative if isinstance(negative, str) else ""


def _plain(text: str) -> str:
    """Letters and digits in lower case, spaces between words: what two spellings of one text share."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", " ", folded).split())


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
