"""Extract the text from a language model's answer, without reasoning, quotes, labels and JSON around it."""

from __future__ import annotations

import json
import re
from typing import Final

from degla.negatives.grammar.words import repair_articles

# Thinking as most models write it, then Magistral, Kimi, Cohere, Gemma 4 and gpt-oss (the last also with its control
# words removed); servers that do not know a model's format leave it in the answer.
_WORD: Final = r"(?:seed:)?(?:think|thinking|reasoning|thought)>"
_END_OF_THINKING: Final = (
    rf"</{_WORD}|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<channel\|>|<\|channel\|>final<\|message\|>|assistantfinal"
)
_THINKING: Final = re.compile(
    rf"(?:<{_WORD}|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|channel>thought|<\|channel\|>analysis|\Aanalysis(?=[A-Z]))"
    rf".*?(?:{_END_OF_THINKING}|\Z)|\A.*(?:{_END_OF_THINKING})",
    re.DOTALL,
)
_MARKUP: Final = re.compile(r"<\|\w{1,40}\|>|</?(?:s|eos|answer|start_of_turn|end_of_turn)>")
"""What else may be left around an answer."""
_FENCE: Final = re.compile(r"```\w*\n?(.*?)(?:```|\Z)", re.DOTALL)
_OBJECT: Final = re.compile(r"\{\s*[\"'}]|\[\s*[\"{]")
_MEMBER: Final = re.compile(r'"(?:negative|answer)"\s*:\s*("(?:[^"\\]|\\.)*")')
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
# The lookbehind keeps the time linear: without it, every place of a long run of spaces would be tried.
_AROUND: Final = re.compile(r"\A[\s*_]+|(?<![\s*_])[\s*_]+\Z")
_AROUND_QUOTED: Final = re.compile(r"\A[\s*_`]+|(?<![\s*_`])[\s*_`]+\Z")
_QUOTES: Final = "\"'“”‘’"
_DOUBLE: Final = re.compile(r"[\"“”]")


def read_reply(reply: str) -> str:
    """Return the text inside a model's answer: in JSON its "negative" or only string, else the first line with words.

    Reasoning (`<think>...</think>` and the like, closed or not), control words (`<|im_end|>`), code fences, bullets,
    labels ("Negative:"), openings ("Sure, here is the caption:"), quotes and whatever follows are removed; of "caption
    -> negative" only the end is kept. "a" and "an" are repaired; everything else is left to the checks. An answer
    without words gives "".
    """
    text = without_thinking(reply).strip()
    if (fence := _FENCE.search(text)) and _has_words(fence.group(1)):
        text = fence.group(1).strip()
    answer = read_member(text)
    if answer is None:
        answer = "" if _OBJECT.match(text) else text
    return repair_articles(_first_line(answer))


def without_thinking(reply: str) -> str:
    """Return the answer without the model's reasoning and the template's control words."""
    return _MARKUP.sub("\n", _THINKING.sub("", reply))


def read_member(text: str) -> str | None:
    """Return the string "negative" or "answer", else the only one, of the first JSON object or list; else None."""
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
    for name in ("negative", "answer"):
        if isinstance(string := members.get(name), str):
            return _encodable(string)
    return _encodable(strings[0]) if len(strings) == 1 else None


def _encodable(text: str) -> str:
    """Replace each lone surrogate, which cannot be written to a file, by a question mark."""
    return text.encode(errors="replace").decode()


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def _first_line(text: str) -> str:
    """Return the first line with words, without what models put around a text; "" if there is none."""
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
    """Remove quotes around the whole text, and a single unpaired quote; paired quotes inside stay."""
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return _DOUBLE.sub("", text).strip() if len(_DOUBLE.findall(text)) == 1 else text
