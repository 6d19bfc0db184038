"""A language model's answer to one request, as a text: quotes, labels and JSON around it are removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Final

from degla.negatives.words import repair_articles

_LABEL: Final = re.compile(r"^(?:output|answer|negative|new caption|caption|rewritten|result)\s*:\s*", re.IGNORECASE)
_QUOTES: Final = "\"'“”‘’` "

MOST_CANDIDATES: Final = 6
"""Candidates that a rule gives for one caption; enough to pass over duplicates."""


def read_reply(reply: str) -> str:
    """The text inside a model's answer: a JSON object's only string, else the first line that has words.

    "a" and "an" are repaired; everything else is for the checks to judge. An answer without words gives "".
    """
    text = reply.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    if text.startswith("{"):
        try:
            texts = [value for value in json.loads(text).values() if isinstance(value, str)]
        except json.JSONDecodeError:
            texts = []
        text = texts[0] if len(texts) == 1 else ""
    lines = (_LABEL.sub("", line.strip()).strip(_QUOTES) for line in text.splitlines())
    first = next((line for line in lines if any(letter.isalpha() for letter in line)), "")
    return repair_articles(first)


def proposals(reply: str | None, enumerate_all: Callable[[], list[str]], rng: Random) -> list[str]:
    """What a rule's `read` returns: the model's answer, or without one the grammar's candidates in random order.

    Args:
        reply: the model's answer; None where none was asked.
        enumerate_all: gives the candidates that the grammar finds.
        rng: draws the order.
    """
    if reply is not None:
        text = read_reply(reply)
        return [text] if text else []
    candidates = list(dict.fromkeys(enumerate_all()))
    rng.shuffle(candidates)
    return candidates[:MOST_CANDIDATES]
