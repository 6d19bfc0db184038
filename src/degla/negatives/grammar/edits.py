"""Changes to a caption as lists of tokens, and their text: capital at the start, spaces, "a" and "an"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.tokens import Token


def exchange(tokens: Sequence[Token], first: tuple[int, int], second: tuple[int, int]) -> list[Token]:
    """The tokens with two spans (start, end) in each other's place; `first` lies before `second`."""
    (a, b), (c, d) = first, second
    return [*tokens[:a], *tokens[c:d], *tokens[b:c], *tokens[a:b], *tokens[d:]]


def rotate(tokens: Sequence[Token], spans: Sequence[tuple[int, int]]) -> list[Token]:
    """The tokens with each span in the place of the next one, and the last in the place of the first."""
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
    if old.text.isupper() and len(old.text) > 1:
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
    shouted = caption.text.isupper() and len(caption.text) > 1
    new = [Token(text.upper() if shouted else text, text, "DT", text) for text in texts]
    new[-1] = replace(new[-1], tag=tag)
    return [*tokens[:place], *new, *tokens[place:]]


def inflect(token: Token, *, like: Token) -> Token:
    """A noun in the number of another one: "cats" like "dog" is "cat"."""
    many = like.tag in ("NNS", "NNPS")
    if many == (token.tag in ("NNS", "NNPS")):
        return token
    one = "person" if token.lemma == "people" else token.lemma
    form = words.plural(one) if many else one
    shouted = token.text.isupper() and len(token.text) > 1
    return replace(token, text=form.upper() if shouted else form, lower=form, tag="NNS" if many else "NN")


def write(caption: Caption, tokens: Sequence[Token]) -> str:
    """The text of changed tokens: begins with a capital where the caption does, "a" and "an" fitted."""
    first = caption.tokens[0]
    sentence_case = first.text[0].isupper() and not (caption.text.isupper() and len(caption.text) > 1)
    texts = []
    for token in tokens:
        text = token.text
        if (
            sentence_case
            and token is first
            and first.tag not in ("NNP", "NNPS")
            and text != "I"
            and not text[1:2].isupper()
        ):
            text = text[0].lower() + text[1:]
        texts.append(text)
    texts = words.fit_articles(texts)
    if sentence_case and texts:
        texts[0] = texts[0][0].upper() + texts[0][1:]
    return "".join(
        text if token.glued and place and token is not first else (" " + text if place else text)
        for place, (token, text) in enumerate(zip(tokens, texts, strict=True))
    )
