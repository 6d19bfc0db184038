"""Tagged words and noun phrases, found from tags only: a negative, whose words keep their tags, is chunked alike.

A measure or container joins the phrase that it measures: "a group of people" and "a bowl of soup" are one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.words import DETERMINERS_OF_MANY, DETERMINERS_OF_ONE, is_known, is_word

NounRole = Literal["thing", "frame", "where", "pronoun", "technique"]
Number = Literal["one", "many", "any"]

_DETERMINERS: Final = frozenset({"DT", "PDT", "PRP$", "WP$"})
_NOUNS: Final = frozenset({"NN", "NNS", "NNP", "NNPS"})
_ADJECTIVES: Final = frozenset({"JJ", "JJR", "JJS"})
_NOMINAL: Final = _NOUNS | _ADJECTIVES
_DESCRIBING: Final = _ADJECTIVES | {"VBN"}
_UNITS: Final = frozenset({"mm", "cm", "m", "km", "mg", "g", "kg", "lb", "oz", "ml", "l", "inch", "foot", "ft", "px"})
_PRONOUNS: Final = frozenset({"PRP", "WP", "EX"})


@dataclass(frozen=True, slots=True)
class Token:
    """A word or punctuation mark; a negative contains the same object wherever the word was moved.

    Attributes:
        text: the text as written.
        lower: `text` in lower case.
        tag: part of speech, Penn Treebank names ("NN", "JJ", "VBG", ...).
        lemma: dictionary form, lower case.
        role: dependency label ("amod", "nsubj", ...).
        governor: index of the word that it depends on.
        glued: whether it has no space before it in the caption.
        is_shouted: whether it is written in capitals and longer than one letter, like most words of its caption.
    """

    text: str
    lower: str
    tag: str
    lemma: str
    role: str = ""
    governor: int = -1
    glued: bool = False
    is_shouted: bool = False

    @property
    def is_noun(self) -> bool:
        """Whether it is tagged as a noun."""
        return self.tag in ("NN", "NNS", "NNP", "NNPS")

    @property
    def is_adjective(self) -> bool:
        """Whether it is tagged as an adjective."""
        return self.tag in ("JJ", "JJR", "JJS")

    @property
    def is_verb(self) -> bool:
        """Whether it is tagged as a verb."""
        return self.tag.startswith("VB")

    @property
    def is_plural(self) -> bool:
        """Whether it is tagged as a plural noun."""
        return self.tag in ("NNS", "NNPS")

    @property
    def is_many(self) -> bool:
        """Whether it is a plural noun, or "people"."""
        return self.is_plural or self.lower == "people"

    @property
    def is_finite(self) -> bool:
        """Whether it is a verb form that agrees with its subject."""
        return self.tag in ("VBZ", "VBP") or self.lower in ("was", "were")

    @property
    def number(self) -> Number:
        """The number of a finite verb's subject: "one" of "is", "many" of "are"."""
        return "one" if self.tag == "VBZ" or self.lower == "was" else "many"

    @property
    def content(self) -> str:
        """The word in the form of `words.content`."""
        return "a" if self.lower == "an" else self.lower


_NO_TOKEN: Final = Token("", "", "", "")


def token_at(tokens: Sequence[Token], place: int) -> Token:
    """Return the token at a place; an empty one before the first and after the last."""
    return tokens[place] if 0 <= place < len(tokens) else _NO_TOKEN


def is_abbreviated(tokens: Sequence[Token], place: int) -> bool:
    """Whether the token is the full stop of an initial or title: "J. Smith", "Mrs. Smith"."""
    before, token = token_at(tokens, place - 1).text, token_at(tokens, place)
    short = len(before) == 1 or before in ("Mr", "Mrs", "Ms", "Dr", "St", "Mt", "Rev", "Atty", "Jr", "Sr", "Chas")
    return token.text == "." and token.glued and short and before.istitle()


def governed(tokens: Sequence[Token], place: int, *roles: str) -> list[int]:
    """Return the indices of the words that depend on the one at a place with one of these labels."""
    return [at for at, one in enumerate(tokens) if one.governor == place and one.role in roles]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A noun phrase.

    Attributes:
        start: index of its first token.
        end: index after its last token, which is its head noun.
        core: start of the part with the head: after "a bowl of" in "a bowl of hot soup", else `start`.
        role: "thing", or a role that is never changed: image frame, place word, pronoun, or technique of a work of art.
        source: all tokens of the text.
    """

    start: int
    end: int
    core: int
    role: NounRole
    source: Sequence[Token] = field(compare=False, repr=False)

    @property
    def head(self) -> int:
        """Index of the head noun."""
        return self.end - 1

    @property
    def holder(self) -> int:
        """Index of the noun that counts: the measure or container before "of", else the head noun."""
        return self.head if self.core == self.start else self.core - 2

    @property
    def tokens(self) -> Sequence[Token]:
        """The phrase's tokens."""
        return self.source[self.start : self.end]

    @property
    def first(self) -> Token:
        """The phrase's first token."""
        return self.source[self.start]

    @property
    def before(self) -> Token:
        """The token right before the phrase; an empty one at the start of the text."""
        return token_at(self.source, self.start - 1)

    @property
    def after(self) -> Token:
        """The token right after the phrase; an empty one at the end of the text."""
        return token_at(self.source, self.end)

    @property
    def modifiers(self) -> Sequence[Token]:
        """The phrase's tokens before the head noun."""
        return self.source[self.start : self.head]

    @property
    def noun(self) -> Token:
        """The head noun."""
        return self.source[self.head]

    @property
    def is_living(self) -> bool:
        """Whether the phrase names a person or an animal."""
        return lexicon().is_living(self.noun.lemma)

    @property
    def holder_noun(self) -> Token:
        """The noun that counts, see `holder`."""
        return self.source[self.holder]

    @property
    def number(self) -> Number:
        """Whether the phrase is singular or plural for a verb; "any" if both are used ("a group of people is/are")."""
        head, words = self.holder_noun, lexicon().words
        measured = self.holder != self.head and head.lemma not in words["container"]
        if measured or head.lower in words["invariant"]:
            return "any"
        if head.tag not in _PRONOUNS:
            return "many" if head.is_many else "one"
        if head.lower in ("you", "who", "which", "that", "there"):
            return "any"
        return "many" if head.lower in ("they", "we", "i", "them", "us") else "one"

    @property
    def determiner(self) -> Token | None:
        """The article, possessive or number at the start of the phrase's core."""
        first = self.source[self.core]
        return first if first.tag in _DETERMINERS | {"CD"} and self.core < self.head else None

    @property
    def determiner_fits(self) -> bool:
        """Whether "a", "two", "these" ... agrees with the number of the head noun."""
        first, head = self.determiner, self.noun
        if first is None or head.tag in _PRONOUNS or head.lower in lexicon().words["invariant"]:
            return True
        if first.lower in DETERMINERS_OF_ONE:
            return not head.is_many or self.source[self.core + 1].lower in ("few", "couple", "dozen", "many")
        return head.is_many or first.lower not in DETERMINERS_OF_MANY

    def nouns(self) -> list[tuple[int, int]]:
        """Return the spans (start, end) of the phrase's replaceable nouns: the head, and the container before "of".

        A noun before the head belongs to it: "birthday cupcake" is one span, and so is "hot dog".
        """
        if self.role != "thing" or self.noun.lemma in lexicon().words["generic"]:
            return []
        spans = [_span(self.source, self.core, self.head)]
        if self.holder != self.head and self.holder_noun.lemma in lexicon().words["container"]:
            spans.append(_span(self.source, self.start, self.holder))
        return spans

    def adjectives(self) -> list[int]:
        """Return the indices of the replaceable descriptive adjectives before the head noun."""
        if self.role != "thing":
            return []
        start, _ = _span(self.source, self.core, self.head)
        person = lexicon().is_person(self.noun.lemma)
        return [
            place
            for place in range(self.core, start)
            if _describes(self.source, place)
            and not (place and _joins(self.source[place - 1]))
            and not (person and lexicon().is_in_group(self.source[place].lower, "colour"))
        ]


def is_bare(chunk: Chunk) -> bool:
    """Whether the phrase is a singular countable noun without an article."""
    head = chunk.holder_noun  # "piece of concrete"
    return (
        head.tag == "NN"
        and chunk.first.tag not in ("DT", "CD", "PRP$", "PDT", "WP$")
        and not lexicon().is_mass(head.lemma)
        and head.lemma not in lexicon().words["plural_only"]
        and not any(token.tag == "POS" for token in chunk.tokens)
    )


def shares_article(chunk: Chunk | None, following: Chunk | None) -> bool:
    """Whether the next phrase shares this one's article or adjective: "a fork and knife", "old cups and plates"."""
    if chunk is None or following is None:
        return False
    gap, first = chunk.source[chunk.end : following.start], following.first
    if not gap or gap[0].lower not in ("and", "or", ",") or any(one.tag != "VBG" for one in gap[1:]):
        return False
    if following.head != following.start and not (first.is_noun or first.tag == "VBG"):
        return False
    described = any(token.is_adjective or token.tag in ("VBN", "VBG") for token in chunk.modifiers)
    counted = chunk.determiner is not None
    return (counted and is_bare(following)) or (described and following.determiner is None)


def makes_compound(chunk: Chunk | None, following: Chunk | None) -> bool:
    """Whether a noun, a participle and a noun without article form one phrase: "a building lined street"."""
    return (
        chunk is not None
        and following is not None
        and following.start == chunk.end + 1
        and chunk.after.tag in ("VBN", "VBD")
        and is_bare(following)
        and chunk.noun.tag == "NN"
    )


def find_chunks(tokens: Sequence[Token]) -> tuple[Chunk, ...]:
    """Return the noun phrases of a tagged text, in order."""
    chunks: list[Chunk] = []
    place = 0
    while place < len(tokens):
        end = _end(tokens, place)
        if end <= place:
            place += 1
            continue
        chunk = Chunk(place, end, place, _role(tokens, end), tokens)
        if chunks and _is_measured(tokens, chunks[-1], chunk):
            last = chunks.pop()
            chunk = Chunk(last.start, end, place, chunk.role, tokens)
        chunks.append(chunk)
        place = end
    technique = _technique(chunks)
    return (*chunks[:technique], *(replace(chunk, role="technique") for chunk in chunks[technique:]))


def _technique(chunks: Sequence[Chunk]) -> int:
    """Return at which phrase a title's technique begins ("Two women on a beach, ink on paper"); the end if none."""
    media, marks = lexicon().words["media"], (",", ";", ".")
    for place, chunk in enumerate(chunks):
        before = chunk.before
        if before.text in marks:
            begun = chunk.noun.lemma in media and chunk.first.tag not in ("DT", "CD", "PRP$")  # no "a steel pole"
        else:
            begun = before.lower in media and token_at(chunk.source, chunk.start - 2).text in marks
        if begun:
            return place
    return len(chunks)


def _end(tokens: Sequence[Token], start: int) -> int:
    """Return the index after the head noun of the phrase that starts here; `start` if there is none."""
    if tokens[start].tag in _PRONOUNS:
        return start + 1
    where = lexicon().words["where"]
    head = -1
    for place in range(start, len(tokens)):
        token, before, after = tokens[place], tokens[place - 1], token_at(tokens, place + 1)
        if token.tag in _DETERMINERS:
            goes_on = place == start or before.tag == "PDT" or before.lower in ("all", "both", "half")
        elif token.tag in _NOUNS:
            goes_on = head < 0 or token.lower not in where or after.lower != "of"
            head = place if goes_on else head
        elif token.tag == "POS" and head >= 0 and after.tag in _NOMINAL:
            goes_on, head = True, -1
        elif head >= 0:
            goes_on = _modifies_later(tokens, place)
        elif token.tag in ("VBN", "VBG"):
            goes_on = after.tag in _NOMINAL and (place > start or token.role in ("amod", "compound"))
        elif token.tag == "RB":
            goes_on = place > start and after.tag in _DESCRIBING
        elif token.tag == "CC" or token.text == ",":
            goes_on = place > start and before.tag in _ADJECTIVES and after.tag in _DESCRIBING
        else:
            goes_on = token.tag == "CD" or token.tag in _ADJECTIVES
        if not goes_on:
            break
    return head + 1 if head >= start else start


def _modifies_later(tokens: Sequence[Token], place: int) -> bool:
    """Whether a participle after a noun belongs to a later noun, as in "a stone covered walkway"."""
    token, nominal = tokens[place], token_at(tokens, place + 1).tag in _NOMINAL
    own = token.role in ("amod", "acl", "nmod", "compound") and token.governor > place
    covered = token.lower == "covered" and token.is_verb  # "a snow covered hill", to the parser often a clause
    return nominal and (covered or (token.tag in ("VBN", "VBG") and own))


def _role(tokens: Sequence[Token], end: int) -> NounRole:
    head, words = tokens[end - 1], lexicon().words
    if head.tag in _PRONOUNS:
        return "pronoun"
    if head.lemma in words["frame"] or head.lower in words["frame"]:
        return "frame"
    place_word = head.lemma in words["where"] or head.lower in words["where"]
    return "where" if place_word and (head.lower != "top" or token_at(tokens, end).lower == "of") else "thing"


def _is_measured(tokens: Sequence[Token], measure: Chunk, chunk: Chunk) -> bool:
    """Whether "measure of chunk" is one phrase."""
    words, head = lexicon().words, measure.noun
    return (
        chunk.start == measure.end + 1
        and tokens[measure.end].lower == "of"
        and chunk.role in ("thing", "pronoun")
        and measure.role == "thing"
        and (head.lemma in words["measure"] | words["container"] or head.lower in words["measure"])
    )


def _span(tokens: Sequence[Token], first: int, head: int) -> tuple[int, int]:
    start = head
    while start - 1 >= first and _belongs(tokens[start - 1]) and tokens[start].tag != "POS":
        if tokens[start - 1].lower in _UNITS and token_at(tokens, start - 2).tag == "CD":
            break  # "a 2 kg bag"
        start -= 1
    if start == head and start - 1 >= first and tokens[start - 1].is_adjective:
        start -= lexicon().is_name(tokens[start - 1].lower, tokens[head].lemma)
    return start, head + 1


def _belongs(token: Token) -> bool:
    """Whether a word forms a compound with the noun after it: "tennis racket", "mixing equipment"."""
    noun = token.is_noun and is_word(token.text)  # the tagger takes emoji and "_" for nouns
    return noun or (token.tag == "VBG" and token.role == "compound")


def _joins(before: Token) -> bool:
    """Whether the word before an adjective forms one word with it: "lap top", "middle aged", "paper" in a name."""
    if before.is_noun or before.lower in lexicon().words["where"]:
        return True
    return before.is_adjective and not lexicon().is_attribute(before.lower) and not is_known(before.lower)


def _describes(tokens: Sequence[Token], place: int) -> bool:
    """Whether the word is a descriptive adjective of the head noun: not counting, pointing or part of a participle."""
    token, following = tokens[place], tokens[place + 1]
    attribute = lexicon().is_attribute
    return (
        (token.is_adjective or (token.tag in ("VBN", "VBG") and attribute(token.lower)))
        and token.lower not in lexicon().words["pointing"]
        and following.tag != "POS"
        and not (following.tag in ("VBN", "VBG") and not attribute(following.lower))
    )
