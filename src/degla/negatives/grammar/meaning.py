"""What a caption says apart from its wording, as far as word order goes: two texts with one meaning are no negative.

The meaning of a text is a bag of prepositional units, the order of the bare noun phrases, and which phrase each verb
follows. Adjectives of one phrase, members of a list, and the two sides of "next to" have no order. It is cut from tags
alone, so a permuted text costs microseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Number, find_chunks, number
from degla.negatives.grammar.tokens import Token

SYMMETRIC: Final = frozenset(
    {
        "with",
        "near",
        "beside",
        "alongside",
        "by",
        "nearby",
        "next to",
        "close to",
        "along with",
        "adjacent to",
        "together with",
        "side by side with",
        "across from",
        "opposite",
        "facing",
        "touching",
        "plus",
        "against",
        "amongst",
        "among",
        "not far from",
        "right next to",
        "standing by",
        "meeting",
        "surrounded by",
        "accompanied by",
    }
)
"""Connectors whose two sides can change places without a change of meaning, or nearly so."""

JOINERS: Final = frozenset({"and", "or", "&", ",", "and also", ", and", "as well as", ", or", "nor"})
"""Words that make a list."""
POSTURES: Final = frozenset(
    {"stand", "sit", "lie", "lay", "park", "be", "pose", "rest", "wait", "walk", "stay", "seat", "place", "hang", "set"}
)
"""Verbs of being somewhere, which leave the two sides of "next to" equal."""
_EMPTY: Final = frozenset({"DT", "MD", "EX", "PDT", "HYPH", ".", "''", "``", ":", "-LRB-", "-RRB-", "NFP"})
_PREPOSITIONS: Final = frozenset({"IN", "TO", "RP"})
_COPULAS: Final = frozenset(
    {"is", "are", "was", "were", "be", "been", "being", "am", "'s", "'re", "has", "have", "had"}
)


@dataclass
class _Unit:
    """One or more phrases joined as equals, and the preposition before them ("" for a bare phrase)."""

    preposition: str
    members: list[Hashable] = field(default_factory=list)
    number: Number = "any"

    def frozen(self) -> Hashable:
        return (self.preposition, frozenset(Counter(self.members).items()))


@dataclass(frozen=True)
class Meaning:
    """A text's meaning; equal meanings are equal objects.

    Attributes:
        bare: the phrases without preposition, in order; each a set of joined phrases.
        units: the phrases with their prepositions, in any order.
        verbs: verbs and predicates with the phrase that they follow, in any order.
    """

    bare: tuple[Hashable, ...]
    units: frozenset[Hashable]
    verbs: frozenset[Hashable]


def meaning(tokens: Sequence[Token], chunks: Sequence[Chunk] | None = None) -> Meaning:
    """The meaning of a tagged text; `chunks` where they are known already."""
    return meaning_and_disagreements(tokens, find_chunks(tokens) if chunks is None else chunks)[0]


def meaning_and_disagreements(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> tuple[Meaning, int]:
    """The meaning, and how many verbs do not suit the number of their subject ("a table are set")."""
    units, spoken, numbers = _read(tokens, chunks)
    bare = tuple(unit.frozen() for unit in units if not unit.preposition)
    bag = Counter(unit.frozen() for unit in units if unit.preposition)
    said = Counter((word, unit.frozen() if unit else None) for word, unit in spoken)
    finite = [token for token in tokens if _is_finite(token)]
    wrong = sum(
        subject not in ("any", "one" if verb.tag == "VBZ" or verb.lower == "was" else "many")
        for subject, verb in zip(numbers, finite, strict=False)
    )
    return Meaning(bare, frozenset(bag.items()), frozenset(said.items())), wrong


def _key(tokens: Sequence[Token], chunk: Chunk) -> Hashable:
    modifiers = sorted(
        token.lower for token in tokens[chunk.start : chunk.head] if token.tag not in ("DT", "CC", ",", "IN", "POS")
    )
    return (tokens[chunk.head].lemma, *modifiers)


def _read(
    tokens: Sequence[Token], chunks: Sequence[Chunk]
) -> tuple[list[_Unit], list[tuple[str, _Unit | None]], tuple[Number, ...]]:
    units: list[_Unit] = []
    verbs: list[tuple[str, _Unit | None]] = []
    waiting: list[str] = []  # verbs before any bare phrase
    agreeing: list[_Unit | None] = []  # the subject of each finite verb; None: the phrase to come ("there is _")
    start = 0
    where = ""
    relative = False  # "who" came last: the next verb belongs to the phrase before it
    for chunk in [*chunks, None]:
        gap = tokens[start : chunk.start if chunk else len(tokens)]
        start = chunk.end if chunk else start
        connector, said = connect(gap)
        subject = next((unit for unit in reversed(units) if not unit.preposition), None)
        last = units[-1] if units else None
        relative = relative or any(token.tag == "WDT" for token in gap)
        agreeing += [last if relative else subject for token in gap if _is_finite(token)]
        relative = chunk is not None and tokens[chunk.head].tag == "WP"
        if subject:
            verbs += [(word, last) for word in said]
        else:
            waiting += said  # "over the dog jumps the fox": the verb's phrase comes after it
        if chunk is None:
            break
        if chunk.role == "where":
            where = f"{where} {connector} {tokens[chunk.head].lower}".strip()
            continue
        connector = f"{where} {connector}".strip()
        where = ""
        if chunk.role == "pronoun" and tokens[chunk.head].tag in ("EX", "WP"):
            continue
        key, count = _key(tokens, chunk), number(tokens, chunk)
        bare_symmetric = connector in SYMMETRIC and (not said or set(said) <= POSTURES)
        joins = connector in JOINERS and not said
        if last and (joins or (bare_symmetric and not last.preposition)):
            last.members.append(key)
            last.number = "many" if joins else last.number
        else:
            units.append(_Unit("" if connector in JOINERS else connector, [key], count))
        if waiting and not units[-1].preposition:
            verbs += [(word, units[-1]) for word in waiting]
            waiting = []
    numbers = _resolve(agreeing, units)
    return units, verbs, numbers


def _resolve(agreeing: list[_Unit | None], units: list[_Unit]) -> tuple[Number, ...]:
    first = next((unit for unit in units if not unit.preposition), None)
    return tuple((unit or first).number if (unit or first) else "any" for unit in agreeing)  # type: ignore[union-attr]


def _is_finite(token: Token) -> bool:
    return token.tag in ("VBZ", "VBP") or token.lower in ("was", "were")


def connect(gap: Sequence[Token]) -> tuple[str, list[str]]:
    """The joining words between two phrases, and the verbs and predicates among them (dictionary forms)."""
    joining, verbs = [], []
    for token in gap:
        if token.tag in _EMPTY or token.lower in _COPULAS:
            continue
        if token.is_verb:
            if token.lower in ("surrounded", "accompanied", "facing", "touching"):
                joining.append(token.lower)
            else:
                verbs.append(token.lemma)
        elif (
            token.tag in _PREPOSITIONS
            or token.tag == "CC"
            or token.text == ","
            or token.lower in ("next", "left", "right", "close")
        ):
            joining.append(token.lower)
        elif token.tag[:2] in ("JJ", "RB") and token.tag != "RB":
            verbs.append(token.lower)
    if len(joining) > 1 and joining[-1] not in ("and", "or", ","):
        joining = [word for word in joining if word != ","]
    return " ".join(joining), verbs


def tagged(source: Sequence[Token], text: str) -> list[Token] | None:
    """Give each word of a text the token that it has in the source, in order of appearance.

    Returns None where the text has a word that the source has not; new punctuation is passed over.
    """
    places: dict[str, list[Token]] = {}
    for token in source:
        places.setdefault("a" if token.lower == "an" else token.lower, []).append(token)
    used: Counter[str] = Counter()
    tokens = []
    for piece, _ in words.split(text):
        word = "a" if piece.lower() == "an" else piece.lower()
        known = places.get(word)
        if known:
            tokens.append(known[min(used[word], len(known) - 1)])
            used[word] += 1
        elif words.is_word(piece):
            return None
    return tokens


def content_of(tokens: Sequence[Token]) -> tuple[str, ...]:
    """The words of tokens in the form of `words.content`, without writing the text."""
    return tuple("a" if token.lower == "an" else token.lower for token in tokens if words.is_word(token.text))
