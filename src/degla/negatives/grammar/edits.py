"""Edit a caption as a list of tokens: move or inflect words, make verbs agree, and write the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, governed, is_abbreviated
from degla.negatives.grammar.phrases import SENTENCE_ENDS, Caption

SUBJECTS: Final = ("nsubj", "nsubjpass", "expl")
"""Dependency labels of the words that a verb agrees with; the last one is "there"."""
_TITLED: Final = frozenset({"NN", "NNS", "NNP", "NNPS", "JJ", "CD", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ"})
"""Tags of the words that have a capital in a title."""
_MANY: Final = {"is": "are", "was": "were", "has": "have", "does": "do"}
_ONE: Final = {many: one for one, many in _MANY.items()}


def exchange(tokens: Sequence[Token], *spans: tuple[int, int]) -> list[Token]:
    """Rotate spans (start, end): each is replaced with the previous one, the first with the last.

    Args:
        tokens: tokens of a caption, changed or not.
        spans: two or more spans that change places, in the order of the text.
    """
    result: list[Token] = []
    place = 0
    for (start, end), (new_start, new_end) in zip(spans, [spans[-1], *spans[:-1]], strict=True):
        result += [*tokens[place:start], *tokens[new_start:new_end]]
        place = end
    return [*result, *tokens[place:]]


def substitute(tokens: Sequence[Token], place: tuple[int, int], word: str, *, lemma: str) -> list[Token]:
    """Replace the tokens from `place[0]` up to `place[1]` (exclusive) with one word, keeping capitals."""
    start, end = place
    old, head = tokens[start], tokens[end - 1]
    if old.is_shouted:
        word = word.upper()
    elif _has_capital(head if _is_spelt_so(old) else old):  # "a BMX bike" -> "a train", "CT Scan" -> "Photo"
        word = upper_first(word)
    new = replace(head, text=word, lower=word.lower(), lemma=lemma, glued=old.glued)
    return [*tokens[:start], new, *tokens[end:]]


def _is_spelt_so(token: Token) -> bool:
    """Whether a word has its capital wherever it stands: "BMX", "TVs", "T-shirt"."""
    return token.text[0].isupper() and not token.text[1:2].islower()


def _has_capital(token: Token) -> bool:
    return token.text[0].isupper() and not _is_spelt_so(token)


def insert(caption: Caption, tokens: Sequence[Token], place: int, texts: Sequence[str], *, tag: str) -> list[Token]:
    """Insert words before `place`, in capitals if the whole caption is, and where a word stood: "(dog" -> "(red dog".

    Args:
        caption: the original caption.
        tokens: its tokens, changed or not.
        place: index of the token to insert before; the number of tokens for the end.
        texts: the words in lower case.
        tag: part of speech of the last word.
    """
    new = [Token(text.upper() if caption.is_shouted else text, text, "DT", text) for text in texts]
    new[-1] = replace(new[-1], tag=tag)
    rest = list(tokens[place:])
    if rest and rest[0].glued and rest[0].text[0].isalnum():
        new[0], rest[0] = replace(new[0], glued=True), replace(rest[0], glued=False)
    return [*tokens[:place], *new, *rest]


def inflect(token: Token, *, like: Token) -> Token:
    """Return a noun in the number of another one: "cats" like "dog" is "cat"."""
    if like.is_plural == token.is_plural:
        return token
    one = "person" if token.lemma == "people" else token.lemma
    form, tag = (words.plural(one), "NNS") if like.is_plural else (one, "NN")
    text = form.upper() if token.is_shouted else form
    if not token.is_shouted and token.text[:2].isupper() and form.startswith(token.text[:2].lower()):
        text = token.text[: len(form)] + form[len(token.text) :]  # "TV" -> "TVs"
    return replace(token, text=text, lower=form, tag=tag)


def write(caption: Caption, tokens: Sequence[Token]) -> str:
    """Return the text of changed tokens, capitalised like the caption and with "a" and "an" corrected."""
    first = caption.tokens[0]
    sentence_case = first.text[0].isupper() and not caption.is_shouted
    lowered = sentence_case and not caption.is_titled and first.tag not in ("NNP", "NNPS") and first.text != "I"
    texts = words.fit_articles(
        [lower_first(token.text) if lowered and token is first else token.text for token in tokens]
    )
    if caption.is_titled:
        own = set(map(id, caption.tokens))
        for place, token in enumerate(tokens):
            if id(token) not in own and token.tag in _TITLED:
                texts[place] = upper_first(texts[place])
    if any(caption.followers.values()):
        for place, (before, token) in enumerate(pairwise(tokens), start=1):
            if before.text not in SENTENCE_ENDS or is_abbreviated(tokens, place - 1):
                if caption.followers.get(id(token)):
                    texts[place] = lower_first(texts[place])
            elif id(token) not in caption.followers:
                texts[place] = upper_first(texts[place])
    if sentence_case and texts:
        texts[0] = upper_first(texts[0])
    return "".join(
        text if not place or token.glued else " " + text
        for place, (token, text) in enumerate(zip(tokens, texts, strict=True))
    )


def agree(caption: Caption, chunk: Chunk, *, many: bool, announced: bool = True) -> list[Token] | None:
    """Return the tokens with the phrase's verbs in the singular or plural; None if a verb cannot be changed.

    Args:
        caption: the caption.
        chunk: the phrase.
        many: whether the phrase is plural.
        announced: whether to change verbs after "there" too, which may keep their number: "there is a dog and a cat".
    """
    tokens = list(caption.tokens)
    for place in {*agreeing_verbs(caption, chunk.holder), *agreeing_verbs(caption, chunk.head)}:
        about = (place, tokens[place].governor)
        if not announced and any(one.role == "expl" and one.governor in about for one in tokens):
            continue
        verb = in_number(tokens[place], many=many)
        if verb is None:
            return None
        tokens[place] = verb
    return tokens


def lower_first(text: str) -> str:
    """Return a word with its first letter in lower case, or unchanged if the next letter is a capital too."""
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def upper_first(text: str) -> str:
    """Return a word with its first letter as a capital."""
    return text[0].upper() + text[1:]


def agreeing_verbs(caption: Caption, head: int) -> list[int]:
    """Return the indices of the finite verbs whose subject is the noun at `head`, or that state its existence."""
    return [verb for verb, own in subjects_of_verbs(caption) if head in own]


@lru_cache(maxsize=64)
def subjects_of_verbs(caption: Caption) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return every finite verb with its subjects; cached because it is needed for every noun."""
    tokens = caption.tokens
    verbs = []
    for place, token in enumerate(tokens):
        if not token.is_finite:
            continue
        main = token.governor if token.role in ("aux", "auxpass") else place
        verbs.append((place, tuple(subjects(tokens, main))))
    return tuple(verbs)


def subjects(tokens: Sequence[Token], verb: int) -> list[int]:
    """Return the indices of a main verb's subjects: for "who" and "that" the noun before, for "there" what exists."""
    while not (own := governed(tokens, verb, *SUBJECTS)) and _is_joined(tokens, verb):
        verb = tokens[verb].governor  # "a child holds a spoon and looks up"
    if any(tokens[index].tag in ("WDT", "WP") for index in own):
        return [tokens[verb].governor]
    if any(tokens[index].role == "expl" for index in own):
        return governed(tokens, verb, "attr", "dobj")
    return own


def _is_joined(tokens: Sequence[Token], verb: int) -> bool:
    """Whether a conjunction joins a verb to an earlier one."""
    first = tokens[verb].governor
    joined = tokens[verb].role == "conj" and 0 <= first < verb and tokens[first].is_verb
    return joined and any(token.tag == "CC" for token in tokens[first:verb])


def disagrees(caption: Caption) -> bool:
    """Whether a verb of the caption disagrees in number with its subject, so no change would give correct English."""
    heads = {token.governor for token in caption.tokens if token.role == "conj"}
    return any(
        caption.tokens[place].number != chunk.number
        for chunk in caption.chunks
        if chunk.number != "any" and chunk.head not in heads
        for place in agreeing_verbs(caption, chunk.head)
    )


def in_number(verb: Token, *, many: bool) -> Token | None:
    """Return a finite verb in the singular or plural; None if it cannot be changed ("'s")."""
    if verb.lower.startswith("'"):
        return None
    if verb.lower in (_ONE if many else _MANY) or verb.lower in ("did", "had"):
        return verb
    form = (_MANY if many else _ONE).get(verb.lower)
    if form is None:
        if (verb.tag == "VBP") == many or verb.tag not in ("VBZ", "VBP"):
            return verb
        form = verb.lemma if many else words.conjugate(verb.lemma, "VBZ")
    form = form.upper() if verb.is_shouted else form
    return replace(verb, text=form, lower=form.lower(), tag="VBP" if many else "VBZ")
