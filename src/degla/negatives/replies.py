"""A language model's answer to one request, as a text: thinking, quotes, labels and JSON around it are removed."""

from __future__ import annotations

import json
import re
from typing import Final

from degla.negatives.grammar.words import repair_articles

_THINKING: Final = re.compile(
    r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)|\A.*</(?:think|thinking|reasoning)>", re.DOTALL
)
_FENCE: Final = re.compile(r"```\w*\n?(.*?)(?:```|\Z)", re.DOTALL)
_OBJECT: Final = re.compile(r"\{\s*[\"'}]|\[\s*[\"{]")
_MEMBER: Final = re.compile(r'"negative"\s*:\s*("(?:[^"\\]|\\.)*")')
_LABEL: Final = re.compile(
    r"^(?:output|answer|response|result|rewritten|(?:(?:the|my|a|new|hard|rewritten|modified|negative)\s+)*"
    r"(?:negative|caption|sentence))(?:\s+is)?\s*:\s*",
    re.IGNORECASE,
)
_OPENING: Final = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here(?:['’]s| is| are))\b[^:\"“]*:\s*", re.IGNORECASE
)
_BULLET: Final = re.compile(r"^(?:[-*•#>]+|\(?\d{1,2}[.)])\s+")
_ARROW: Final = re.compile(r"\s(?:->|=>|→)\s")
_QUOTED: Final = re.compile(r"^[\"“]([^\"“”]+)[\"”]")
_AROUND: Final = re.compile(r"\A[\s*_]+|[\s*_]+\Z")
_AROUND_QUOTED: Final = re.compile(r"\A[\s*_`]+|[\s*_`]+\Z")
_QUOTES: Final = "\"'“”‘’"
_DOUBLE: Final = re.compile(r"[\"“”]")

MOST_CANDIDATES: Final = 6
"""Candidates that a rule gives for one caption; enough to pass over duplicates."""


def read_reply(reply: str) -> str:
    """The text inside a model's answer: of JSON its "negative" or its only string, else the first line that is one.

    Thinking (`<think>...</think>`, closed or not), code fences, bullets, labels ("Negative:"), openings ("Sure, here
    is the caption:"), quotes and whatever follows are removed; of "caption -> negative" the end remains. "a" and "an"
    are repaired; everything else is for the checks to judge. An answer without words gives "".
    """
    text = without_thinking(reply)
    if (fence := _FENCE.search(text)) and _has_words(fence.group(1)):
        text = fence.group(1).strip()
    found = read_member(text)
    if found is None:
        found = "" if _OBJECT.match(text) else text
    return repair_articles(_first_line(found))


def without_thinking(reply: str) -> str:
    """The answer without what a model thought aloud before it."""
    return _THINKING.sub("", reply).strip()


def read_member(text: str) -> str | None:
    """The string in the first JSON object or list of a text: that of "negative", else the only one; else None."""
    start = _OBJECT.search(text)
    if start is None:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.start())
    except (ValueError, RecursionError):  # ValueError also for a number of more than 4,300 digits
        member = _MEMBER.search(text)
        try:
            return _encodable(json.loads(member.group(1), strict=False)) if member else None
        except ValueError:  # an escape that JSON does not know
            return None
    members = value if isinstance(value, dict) else dict(enumerate(value))
    strings = [member for member in members.values() if isinstance(member, str)]
    named = members.get("negative")
    if isinstance(named, str):
        return _encodable(named)
    return _encodable(strings[0]) if len(strings) == 1 else None


def _encodable(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which no file can hold."""
    return text.encode(errors="replace").decode()


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def _first_line(text: str) -> str:
    """The first line with words, bare of what models put around a text; "" where there is none."""
    for line in text.splitlines():
        bare = _AROUND.sub("", _BULLET.sub("", line.strip()))
        bare = _AROUND.sub("", _LABEL.sub("", _AROUND.sub("", _OPENING.sub("", bare))))
        bare = _ARROW.split(bare)[-1]
        quoted = _QUOTED.match(bare)
        bare = _AROUND_QUOTED.sub("", _unquote(quoted.group(1) if quoted else _AROUND_QUOTED.sub("", bare)))
        if _has_words(bare):
            return bare
    return ""


def _unquote(text: str) -> str:
    """The text without quotes around all of it, and without one that is alone; quotes inside stay."""
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return _DOUBLE.sub("", text).strip() if len(_DOUBLE.findall(text)) == 1 else text
