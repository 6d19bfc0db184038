"""Words of a text, the same way for captions and for negatives: splitting, joining, "a" and "an", number.

Everything is a function of the text alone, so that a check on a negative needs no tagger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from degla.negatives.grammar.lexicon import lexicon
from degla.tagger import inflections

_PIECE: Final = re.compile(
    r"[^\W_]+?(?=n['’]t\b)|n['’]t\b|[^\W_]+(?:[-&/.][^\W_]+)*|['’](?:s|re|ve|ll|d|m)\b|\S", re.IGNORECASE
)
_AN: Final = re.compile(r"(?:[aeiou]|hour|honest|honou?r|heir|x-ray\b|[fhlmnrsx]\b|8|11\b|18\b)", re.IGNORECASE)
_NOT_AN: Final = re.compile(
    r"(?:one\b|ones\b|once|one-|ubi|uf[ao]|uk[ue]|ur[ai]|us[aeiu]|ut[ei]|uni(?!n|m)|eu|ewe|usa\b|uk\b|u\b|u-)",
    re.IGNORECASE,
)

_SPELT: Final = re.compile(r"[fhlmnrsx][^aeiouy\W_]*", re.IGNORECASE)
"""Said letter by letter, beginning with a vowel sound: "LCD", "mp3"."""
_SHORT: Final = frozenset({"mr", "mrs", "ms", "st", "ft", "rd", "hrs", "sq"})

_ARTICLES: Final = frozenset({"a", "an", "A", "An", "AN"})
_PLURALS: Final = {"person": "people", "ox": "oxen"}
"""What lemminflect would make "persons" and "oxes"."""
_SINGULARS: Final = {"leaves": "leaf", "oxen": "ox"}
"""What lemminflect would make "leave" and leave "oxen"."""

DETERMINERS_OF_ONE: Final = frozenset({"a", "an", "one", "this", "that", "each", "every", "another", "1"})
DETERMINERS_OF_MANY: Final = frozenset(
    {"two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "these", "those", "several", "many",
     "few", "both", "various", "numerous", "multiple", "2", "3", "4", "5", "6", "7", "8", "9", "10"}
)  # fmt: skip


@lru_cache(maxsize=4_096)
def split(text: str) -> tuple[tuple[str, bool], ...]:
    """Split a text into (word or punctuation mark, whether a space or the start comes before it)."""
    pieces = []
    end = -1
    for match in _PIECE.finditer(text):
        pieces.append((match.group(), match.start() != end))
        end = match.end()
    return tuple(pieces)


@lru_cache(maxsize=4_096)
def spans(text: str) -> tuple[tuple[int, int], ...]:
    """Where the pieces of `split` begin and end in the text."""
    return tuple(match.span() for match in _PIECE.finditer(text))


def lower_case(piece: str) -> str:
    """A piece in lower case, its apostrophe straight: "n’t" and "n't" are one word."""
    return piece.lower().replace("’", "'")


def is_word(piece: str) -> bool:
    """Whether a piece has a letter or digit in it."""
    return piece[0].isalnum() or len(piece) > 1


@lru_cache(maxsize=4_096)
def content(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation, "an" written "a": two texts with equal content say the same thing."""
    lower = [lower_case(piece) for piece, _ in split(text) if is_word(piece)]
    return tuple(["a" if word == "an" else word for word in lower])


def shared_ends(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """How many words two texts have in common at their beginnings, and of the rest at their ends."""
    shorter = min(len(one), len(other))
    start = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    rest = shorter - start
    return start, next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)


def article(word: str) -> str:
    """ "a" or "an", by how the word after it begins to sound."""
    if _SPELT.fullmatch(word) and word.lower() not in _SHORT:
        return "an"
    return "an" if _AN.match(word) and not _NOT_AN.match(word) else "a"


def fit_articles(words: Sequence[str]) -> list[str]:
    """Set every "a" and "an" to what the next word asks for; letter case is kept."""
    fitted = list(words)
    for place, word in enumerate(words[:-1]):
        if word in _ARTICLES and words[place + 1] not in _ARTICLES:  # "a a dog" is beyond repair
            right = article(words[place + 1])
            if word.lower() != right:
                shouted = words[place + 1].isupper() and len(words[place + 1]) > 1
                fitted[place] = right if word[0] == "a" else right.upper() if shouted else right.capitalize()
    return fitted


def articles_fit(text: str) -> bool:
    """Whether every "a" and "an" of a text suits the next word."""
    words = [piece for piece, _ in split(text)]
    return fit_articles(words) == words


def repair_articles(text: str) -> str:
    """The text with every "a" and "an" made to suit the next word, otherwise unchanged."""
    fitted = fit_articles([piece for piece, _ in split(text)])
    for (start, end), word in reversed([*zip(spans(text), fitted, strict=True)]):
        text = text[:start] + word + text[end:]
    return text


@lru_cache(maxsize=65_536)
def plural(noun: str) -> str:
    """The plural of a noun in its dictionary form."""
    words = lexicon().words
    if noun in words["plural_only"] or noun in words["invariant"]:
        return noun
    if noun in _PLURALS:
        return _PLURALS[noun]
    if "-" in noun:
        first, _, last = noun.rpartition("-")
        return f"{first}-{plural(last)}"
    forms = inflections().getInflection(noun, "NNS")
    return str(forms[0]) if forms else noun + "s"


@lru_cache(maxsize=65_536)
def singular(noun: str) -> str:
    """The dictionary form of a noun, whatever its number; lower case."""
    known, noun = lexicon(), noun.lower()
    if noun in known.words["plural_only"] or noun in known.words["invariant"]:
        return noun
    if noun in _SINGULARS:
        return _SINGULARS[noun]
    if noun.endswith("ies") and known.is_noun(noun[:-1]):
        return noun[:-1]  # "veggies", "cookies", "brownies": lemminflect makes "veggy"
    forms = inflections().getLemma(noun, "NOUN")
    found = str(forms[0]) if forms else noun
    return noun if known.is_noun(noun) and not known.is_noun(found) else found


def is_plural(noun: str) -> bool:
    """Whether a noun form is a plural; forms that are both ("sheep") are not."""
    noun = noun.lower()
    return noun in lexicon().words["plural_only"] or singular(noun) != noun


@lru_cache(maxsize=65_536)
def is_known(word: str) -> bool:
    """Whether an English dictionary lists the word in any form."""
    known, word = lexicon(), word.lower()
    return bool(inflections().getAllLemmas(word)) or known.is_noun(word) or known.is_adjective(word)


@lru_cache(maxsize=65_536)
def verb(form: str) -> str:
    """The dictionary form of a verb, whatever its form; lower case."""
    forms = inflections().getLemma(form, "VERB")
    return str(forms[0]) if forms else form


@lru_cache(maxsize=65_536)
def conjugate(verb: str, tag: str) -> str:
    """A verb in the form that a Penn Treebank tag names: "VBG" of "sit" is "sitting"."""
    if verb == "lie":
        return {"VBG": "lying", "VBD": "lay", "VBN": "lain", "VBZ": "lies"}.get(tag, "lie")
    forms = inflections().getInflection(verb, tag)
    return str(forms[0]) if forms else verb
