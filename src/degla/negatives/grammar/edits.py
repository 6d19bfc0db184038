"""Changes to a caption as lists of tokens: words elsewhere or in another number, verbs that suit it, and the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, governed
from degla.negatives.grammar.phrases import Caption

SUBJECTS: Final = ("nsubj", "nsubjpass", "expl")
"""Dependency labels of what a verb agrees with; the last is "there"."""
_MANY: Final = {"is": "are", "was": "were", "has": "have", "does": "do"}
_ONE: Final = {many: one for one, many in _MANY.items()}


def exchange(tokens: Sequence[Token], *spans: tuple[int, int]) -> list[Token]:
    """The tokens with each span (start, end) in the place of the next one, and the last in the place of the first.

    Args:
        tokens: of a caption, changed or not.
        spans: two that change places, or more; in the order of the text.
    """
    result: list[Token] = []
    place = 0
    for (start, end), (new_start, new_end) in zip(spans, [spans[-1], *spans[:-1]], strict=True):
        result += [*tokens[place:start], *tokens[new_start:new_end]]
        place = end
    return [*result, *tokens[place:]]


def substitute(tokens: Sequence[Token], place: tuple[int, int], word: str, *, lemma: str) -> list[Token]:
    """The tokens with those from `place[0]` to before `place[1]` replaced by one word, capitals kept."""
    start, end = place
    old, head = tokens[start], tokens[end - 1]
    if old.is_shouted:
        word = word.upper()
    elif old.text[0].isupper():
        word = word[0].upper() + word[1:]
    new = replace(head, text=word, lower=word.lower(), lemma=lemma, glued=old.glued)
    return [*tokens[:start], new, *tokens[end:]]


def insert(caption: Caption, tokens: Sequence[Token], place: int, texts: Sequence[str], *, tag: str) -> list[Token]:
    """The tokens with words put in before `place`, in capitals where the whole caption is.

    Args:
        caption: what the tokens were made from.
        tokens: its tokens, changed or not.
        place: index of the token that the words come before; the number of tokens for the end.
        texts: the words, lower case.
        tag: part of speech of the last one.
    """
    new = [Token(text.upper() if caption.is_shouted else text, text, "DT", text) for text in texts]
    new[-1] = replace(new[-1], tag=tag)
    return [*tokens[:place], *new, *tokens[place:]]


def inflect(token: Token, *, like: Token) -> Token:
    """A noun in the number of another one: "cats" like "dog" is "cat"."""
    if like.is_plural == token.is_plural:
        return token
    one = "person" if token.lemma == "people" else token.lemma
    form, tag = (words.plural(one), "NNS") if like.is_plural else (one, "NN")
    return replace(token, text=form.upper() if token.is_shouted else form, lower=form, tag=tag)


def write(caption: Caption, tokens: Sequence[Token]) -> str:
    """The text of changed tokens: begins with a capital where the caption does, "a" and "an" fitted."""
    first = caption.tokens[0]
    sentence_case = first.text[0].isupper() and not caption.is_shouted
    lowered = sentence_case and first.tag not in ("NNP", "NNPS") and first.text != "I"
    texts = words.fit_articles(
        [lower_first(token.text) if lowered and token is first else token.text for token in tokens]
    )
    if sentence_case and texts:
        texts[0] = texts[0][0].upper() + texts[0][1:]
    return "".join(
        text if not place or (token.glued and token is not first) else " " + text
        for place, (token, text) in enumerate(zip(tokens, texts, strict=True))
    )


def agree(caption: Caption, chunk: Chunk, *, many: bool, announced: bool = True) -> list[Token] | None:
    """The tokens with the verbs of a phrase for one or for many; None where a verb cannot be changed.

    Args:
        caption: whose tokens they are.
        chunk: the phrase.
        many: whether it stands for many.
        announced: also verbs behind "there", which may keep their number: "there is a dog and a cat".
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
    """A word without its capital at the start; as it is where the next letter is a capital too."""
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def agreeing_verbs(caption: Caption, head: int) -> list[int]:
    """Indices of the finite verbs whose subject is the noun at `head`, or that say that there is such a thing."""
    return [verb for verb, own in _subjects_of_verbs(caption) if head in own]


@lru_cache(maxsize=64)
def _subjects_of_verbs(caption: Caption) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Every finite verb with its subjects, kept because every noun asks for its verbs."""
    tokens = caption.tokens
    found = []
    for place, token in enumerate(tokens):
        if not token.is_finite:
            continue
        main = token.governor if token.role in ("aux", "auxpass") else place
        while not (own := governed(tokens, main, *SUBJECTS)) and _is_joined(tokens, main):
            main = tokens[main].governor  # "a child holds a spoon and looks up"
        if any(tokens[index].tag in ("WDT", "WP") for index in own):
            own = [tokens[main].governor]
        elif any(tokens[index].role == "expl" for index in own):
            own = governed(tokens, main, "attr", "dobj")
        found.append((place, tuple(own)))
    return tuple(found)


def _is_joined(tokens: Sequence[Token], verb: int) -> bool:
    """Whether "and" or the like joins a verb to one before it."""
    first = tokens[verb].governor
    joined = tokens[verb].role == "conj" and 0 <= first < verb and tokens[first].is_verb
    return joined and any(token.tag == "CC" for token in tokens[first:verb])


def disagrees(caption: Caption) -> bool:
    """Whether a verb of the caption is in another number than its subject, so that no change makes it English."""
    listed = {token.governor for token in caption.tokens if token.role == "conj"}
    return any(
        caption.tokens[place].number != chunk.number
        for chunk in caption.chunks
        if chunk.number != "any" and chunk.head not in listed
        for place in agreeing_verbs(caption, chunk.head)
    )


def in_number(verb: Token, *, many: bool) -> Token | None:
    """A finite verb with a subject of one or of many; None where it cannot be changed ("'s")."""
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
