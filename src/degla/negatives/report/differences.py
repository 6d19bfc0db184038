"""How a negative differs from its caption, word by word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from degla.negatives.grammar import words


@dataclass(frozen=True, slots=True)
class WordDifference:
    """What was changed.

    Attributes:
        distance: words to insert, delete or replace (Levenshtein); case, punctuation and a/an do not count.
        put_in: words of the negative that the caption lacks, lower case, as often as they are more.
    """

    distance: int
    put_in: tuple[str, ...]


def compare(caption: str, negative: str) -> WordDifference:
    """The difference of two texts."""
    first, second = words.content(caption), words.content(negative)
    start = 0
    limit = min(len(first), len(second))
    while start < limit and first[start] == second[start]:
        start += 1
    end = 0
    while end < limit - start and first[-1 - end] == second[-1 - end]:
        end += 1
    before, after = first[start : len(first) - end], second[start : len(second) - end]
    if len(before) <= 1 and len(after) <= 1:
        return WordDifference(max(len(before), len(after)), after)
    return WordDifference(_levenshtein(before, after), tuple((Counter(after) - Counter(before)).elements()))


def _levenshtein(first: Sequence[str], second: Sequence[str]) -> int:
    above = list(range(len(second) + 1))
    for row, word in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            current.append(min(above[column] + 1, current[-1] + 1, above[column - 1] + (word != other)))
        above = current
    return above[-1]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of a text; `changed` where the other text does not have it in this place."""

    text: str
    changed: bool


def mark_changes(caption: str, negative: str) -> tuple[tuple[TextPiece, ...], tuple[TextPiece, ...]]:
    """Both texts cut into spans; put together again, the spans are the texts to the letter."""
    first, second = words.split(caption), words.split(negative)
    matcher = SequenceMatcher(
        None, [piece.lower() for piece, _ in first], [piece.lower() for piece, _ in second], autojunk=False
    )
    changed_first, changed_second = [True] * len(first), [True] * len(second)
    for block in matcher.get_matching_blocks():
        changed_first[block.a : block.a + block.size] = [False] * block.size
        changed_second[block.b : block.b + block.size] = [False] * block.size
    return _spans(caption, first, changed_first), _spans(negative, second, changed_second)


def _spans(text: str, pieces: Sequence[tuple[str, bool]], changed: Sequence[bool]) -> tuple[TextPiece, ...]:
    spans: list[TextPiece] = []
    start = place = 0
    for number, (piece, _) in enumerate(pieces):
        found = text.index(piece, place)
        if number and changed[number] != changed[number - 1]:
            # The space between two spans belongs to the unchanged one, so that no mark begins or ends with a space.
            cut = found if changed[number] else place
            spans.append(TextPiece(text[start:cut], changed[number - 1]))
            start = cut
        place = found + len(piece)
    if start < len(text):
        spans.append(TextPiece(text[start:], bool(changed) and changed[-1]))
    return tuple(spans)
