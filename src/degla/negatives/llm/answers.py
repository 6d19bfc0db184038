"""What a server's answer amounts to: an outcome and a text, whatever the model put around it.

Every answer is read again here, the schema's promise or not: servers differ silently on `response_format`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AliasPath, BaseModel, BeforeValidator, Field

from degla.errors import InputError
from degla.negatives.llm import ReplyStatus, Request
from degla.negatives.llm.dialect import Mode
from degla.negatives.replies import read_member, read_reply, without_thinking
from degla.parse import parse_json

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
