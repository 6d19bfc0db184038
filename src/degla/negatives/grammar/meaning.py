"""The meaning of a text apart from its wording: a text with the caption's meaning or gist is not a negative.

The meaning of a text is a bag of prepositional units, the order of the bare noun phrases, and which phrase each verb
follows. Adjectives of one phrase, members of a list, and the two sides of "next to" have no order. It is computed from
tags only, so a permuted text costs microseconds.

The gist of a text is its dictionary forms in order, without articles and auxiliary verbs, with one word for synonymous
prepositions. Texts with equal gists make the same statement; so do "man ride horse" and "horse ride by man".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Number, Token
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.relations import ALIVE, MACHINE, agency, is_clothing, relations

SYMMETRIC: Final = frozenset(
    {"with", "near", "beside", "alongside", "by", "nearby", "next to", "close to", "along with", "adjacent to",
     "together with", "side by side with", "across from", "opposite", "facing", "touching", "plus", "against",
     "amongst", "among", "not far from", "right next to", "standing by", "meeting", "surrounded by", "accompanied by"}
)  # fmt: skip
"""Connectors whose two sides can be swapped with little or no change of meaning."""

JOINERS: Final = frozenset({"and", "or", "&", ",", "and also", ", and", "as well as", ", or", "nor"})
"""Words that join the members of a list."""
POSTURES: Final = frozenset(
    {"stand", "sit", "lie", "lay", "park", "be", "pose", "rest", "wait", "walk", "stay", "seat", "place", "hang", "set"}
)
"""Verbs of position, with which the two sides of "next to" can be swapped."""
_EMPTY: Final = frozenset({"DT", "MD", "EX", "PDT", "HYPH", ".", "''", "``", ":", "-LRB-", "-RRB-", "NFP"})
_JOINING: Final = frozenset({"IN", "TO", "RP", "CC"})
_COPULAS: Final = frozenset(
    {"is", "are", "was", "were", "be", "been", "being", "am", "'s", "'re", "has", "have", "had"}
)


_UNSAID: Final = frozenset(
    {"a", "the", "some", "this", "that", "these", "those", "is", "are", "was", "were", "be", "been", "being", "am",
     "'s", "which", "who", "there", "has", "have", "had", "do", "does", "did"}
)  # fmt: skip
"""Words omitted from the gist of a text."""
_ALIKE: Final = {
    tuple(alike.split()): word
    for word, alikes in {
        "beside": ("next to", "close to", "near", "alongside"),
        "on": ("on top of", "atop", "upon"),
        "under": ("underneath", "beneath", "below"),
        "in": ("inside of", "inside", "within"),
    }.items()
    for alike in alikes
}
"""Prepositions as tuples of words, and the one that represents them in a gist."""
_ALIKE_BEGIN: Final = frozenset(alike[0] for alike in _ALIKE)
_LONGEST: Final = 4
"""Maximum words of a phrase that moves in the passive."""

Gist = tuple[str, ...]
Statements = tuple[tuple[Hashable, ...], frozenset[Hashable], frozenset[Hashable]]
"""As a meaning, but verbs with who does it and with their object: a phrase's modifiers may come in any order."""
Meaning = tuple[tuple[Hashable, ...], frozenset[Hashable], frozenset[Hashable]]
"""The phrases without preposition, in order, each a set of joined phrases; the phrases with prepositions, unordered;
verbs and predicates with the phrase that they follow, unordered. Equal meanings compare equal."""


@dataclass
class _Unit:
    """One or more phrases joined as equals, and the preposition before them ("" for a bare phrase)."""

    preposition: str
    members: list[Hashable] = field(default_factory=list)
    number: Number = "any"

    def frozen(self) -> Hashable:
        return (self.preposition, frozenset(Counter(self.members).items()))


def meaning_and_disagreements(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> tuple[Meaning, int]:
    """Return the meaning, and the number of verbs that disagree with their subject ("a table are set")."""
    units, verbs, numbers = _read(tokens, chunks)
    bare = tuple(unit.frozen() for unit in units if not unit.preposition)
    bag = Counter(unit.frozen() for unit in units if unit.preposition)
    verb_bag = Counter((word, unit.frozen() if unit else None) for word, unit in verbs)
    finite = (token for token in tokens if token.is_finite)
    wrong = sum(subject not in ("any", verb.number) for subject, verb in zip(numbers, finite, strict=False))
    return (bare, frozenset(bag.items()), frozenset(verb_bag.items())), wrong


def statements(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> Statements:
    """Return what a text says of whom: "riding a horse on a beach" is "on a beach riding a horse".

    The doer of a verb is the nearest one alive before it, else the nearest vehicle, not a beach; what someone is
    "with", or the clothes that someone is "in", belong to the nearest one alive.
    """
    units: list[_Unit] = []
    agencies: list[int] = []
    clause = 0  # the number of the unit that begins the clause
    hosts: dict[int, _Unit] = {}
    deeds: list[tuple[str, _Unit | None, _Unit | None]] = []
    start, where, relative = 0, "", False
    for chunk in [*chunks, None]:
        gap = tokens[start : chunk.start if chunk else len(tokens)]
        start = chunk.end if chunk else start
        connector, words_of_gap = connect([token for token in gap if token.lower != "while"])
        relative = relative or any(token.tag == "WDT" for token in gap)
        active = () if relative else {token.lemma for token in gap if token.is_verb and _is_active(token)}
        last = units[-1] if units else None
        near = (_nearest(units[clause:], agencies[clause:], least) for least in (ALIVE, MACHINE))
        actor = next((unit for unit in near if unit), last)
        said = [(word, actor if word in active else last) for word in words_of_gap]
        relative = chunk is not None and chunk.noun.tag == "WP"
        if chunk is None or chunk.role == "where" or (chunk.role == "pronoun" and chunk.noun.tag in ("EX", "WP")):
            deeds += [(word, unit, None) for word, unit in said]
            where = f"{where} {connector} {chunk.noun.lower}".strip() if chunk and chunk.role == "where" else where
            continue
        connector, where = f"{where} {connector}".strip(), ""
        if last and connector in JOINERS and not said:
            last.members.append(_key(chunk))
            agencies[-1] = agency(chunk.noun)
            clause = len(units) - 1
            continue
        unit = _Unit("" if connector in JOINERS else connector, [_key(chunk)])
        deeds += [(word, doer, None) for word, doer in said[:-1]]
        deeds += [(word, doer, unit) for word, doer in said[-1:]]
        clause = clause if said or unit.preposition else len(units)
        host = _nearest(units, agencies, ALIVE)
        if host and (connector == "with" or (connector == "in" and is_clothing(chunk.noun.lemma))):
            hosts[id(unit)] = host
        units.append(unit)
        agencies.append(agency(chunk.noun))
    bag = Counter((unit.frozen(), _frozen(hosts.get(id(unit)))) for unit in units if unit.preposition)
    several = len(deeds) > 1
    verbs = Counter(
        (word, _frozen(doer), _frozen(unit) if unit and _completes(word, unit, several=several) else None)
        for word, doer, unit in deeds
    )
    bare = tuple(unit.frozen() for unit in units if not unit.preposition)
    return bare, frozenset(bag.items()), frozenset(verbs.items())


def _is_active(verb: Token) -> bool:
    return verb.tag != "VBN" or verb.lemma in relations().words["of_the_dressed"]


def _nearest(units: Sequence[_Unit], agencies: Sequence[int], least: int) -> _Unit | None:
    pairs = zip(reversed(units), reversed(agencies), strict=True)
    return next((unit for unit, agent in pairs if agent >= least), None)


def _completes(verb: str, unit: _Unit, *, several: bool) -> bool:
    """Whether what follows a verb tells it from the text's other verbs: its object, or where something is done."""
    return not unit.preposition or (several and verb not in POSTURES)


def _frozen(unit: _Unit | None) -> Hashable:
    return unit.frozen() if unit else None


def _key(chunk: Chunk) -> Hashable:
    modifiers = sorted(token.lower for token in chunk.modifiers if token.tag not in ("DT", "CC", ",", "IN", "POS"))
    return (chunk.noun.lemma, *modifiers)


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
        connector, gap_verbs = connect(gap)
        subject = next((unit for unit in reversed(units) if not unit.preposition), None)
        last = units[-1] if units else None
        relative = relative or any(token.tag == "WDT" for token in gap)
        agreeing += [last if relative else subject for token in gap if token.is_finite]
        relative = chunk is not None and chunk.noun.tag == "WP"
        if subject:
            verbs += [(word, last) for word in gap_verbs]
        else:
            waiting += gap_verbs  # "over the dog jumps the fox": the verb's phrase comes after it
        if chunk is None:
            break
        if chunk.role == "where":
            where = f"{where} {connector} {chunk.noun.lower}".strip()
            continue
        connector = f"{where} {connector}".strip()
        where = ""
        if chunk.role == "pronoun" and chunk.noun.tag in ("EX", "WP"):
            continue
        key, count = _key(chunk), chunk.number
        bare_symmetric = connector in SYMMETRIC and (not gap_verbs or set(gap_verbs) <= POSTURES)
        joins = connector in JOINERS and not gap_verbs
        if last and (joins or (bare_symmetric and not last.preposition)):
            last.members.append(key)
            last.number = "many" if joins else last.number
        else:
            units.append(_Unit("" if connector in JOINERS else connector, [key], count))
        if waiting and not units[-1].preposition:
            verbs += [(word, units[-1]) for word in waiting]
            waiting = []
    first = next((unit for unit in units if not unit.preposition), _Unit(""))
    return units, verbs, tuple((unit or first).number for unit in agreeing)


def connect(gap: Sequence[Token]) -> tuple[str, list[str]]:
    """Return the joining words between two phrases, and the verbs and predicates (dictionary forms) among them."""
    joining, verbs = [], []
    for token in gap:
        if token.tag in _EMPTY or token.lower in _COPULAS:
            continue
        if token.is_verb:
            if token.lower in ("surrounded", "accompanied", "facing", "touching"):
                joining.append(token.lower)
            else:
                verbs.append(token.lemma)
        elif token.tag in _JOINING or token.lower in (",", "next", "left", "right", "close"):
            joining.append(token.lower)
        elif token.tag[:2] in ("JJ", "RB") and token.tag != "RB":
            verbs.append(token.lower)
    if len(joining) > 1 and joining[-1] not in ("and", "or", ","):
        joining = [word for word in joining if word != ","]
    return " ".join(joining), verbs


def tagged(source: Sequence[Token], text: str) -> list[Token] | None:
    """Map each word of a text to its token in the source, in order of appearance.

    Returns None if the text has a word that the source lacks; new punctuation is ignored.
    """
    places: dict[str, list[Token]] = {}
    for token in source:
        places.setdefault(token.content, []).append(token)
    uses: Counter[str] = Counter()
    tokens = []
    for piece, _ in words.split(text):
        lower = words.lower_case(piece)
        word = "a" if lower == "an" else lower
        matches = places.get(word)
        if matches:
            tokens.append(matches[min(uses[word], len(matches) - 1)])
            uses[word] += 1
        elif words.is_word(piece):
            return None
    return tokens


def content_of(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Return the words of tokens in the form of `words.content`, without writing the text."""
    return tuple(token.content for token in tokens if words.is_word(token.text))


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    noun = words.singular(word)
    return noun if noun != word or lexicon().noun_groups(noun) else words.verb(word)


@lru_cache(maxsize=8_192)
def gist(content: tuple[str, ...]) -> Gist:
    """Return the gist of a text from its words (`words.content`)."""
    stems, place = [], 0
    while place < len(content):
        size = 0
        if content[place] in _ALIKE_BEGIN:
            size = next((size for size in (3, 2, 1) if content[place : place + size] in _ALIKE), 0)
        if size:
            stems.append(_ALIKE[content[place : place + size]])
        elif content[place] not in _UNSAID:
            stems.append(_stem(content[place]))
        place += size or 1
    return tuple(stems)


def says_the_same(content: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two texts, given by `words.content`, make the same statement; symmetric."""
    mine, theirs = gist(content), gist(other)
    return mine == theirs or _is_passive(mine, of=theirs) or _is_passive(theirs, of=mine)


def _is_passive(passive: Sequence[str], *, of: Sequence[str]) -> bool:
    """Whether "object verb by subject" in one text is "subject verb object" in the other."""
    if len(passive) != len(of) + 1:
        return False
    for by, word in enumerate(passive):
        if word != "by" or by < 2:
            continue
        for before in range(1, min(_LONGEST, by - 1) + 1):
            start = by - 1 - before
            for after in range(1, min(_LONGEST, len(passive) - by - 1) + 1):
                subject, thing = passive[by + 1 : by + 1 + after], passive[start : by - 1]
                active = (*passive[:start], *subject, passive[by - 1], *thing, *passive[by + 1 + after :])
                if active == tuple(of):
                    return True
    return False
