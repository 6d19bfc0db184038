"""What an image shows and does not show, by its captions: the two streams of NegBench's fine-tuning (arXiv 2501.09425),
and whether a text denies what it shows, for CoN-CLIP's distractor images (arXiv 2403.20312).

An image shows what any of its captions names. A thing counts as absent if it often occurs with one of these things in
captions of other images, none of the image's captions names it, and none of the named things could be it. As captions
do not name everything, some things called absent are in fact present.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from degla.errors import InputError
from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Token, token_at
from degla.negatives.grammar.exclusion import noun_relation
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption, parse, parse_records
from degla.records import CaptionRecord, NegativeRecord

RULE: Final = "presence"
"""Rule name of the false options."""
_COMPANIONS: Final = 20
"""Number of most frequent companions of a thing from which absent things are drawn."""
_DENIALS: Final = frozenset({"no", "not", "n't", "never", "without", "neither", "nor", "none", "nobody"})
_OF_NOUNS: Final = frozenset({"no", "without", "none"})
"""Denials that no denied verb follows."""
_SHORT: Final = 5
"""Length of a word up to which a derived name keeps its last letter."""


@dataclass(frozen=True)
class Contents:
    """What the captions of one image say about it.

    Attributes:
        things: present things by dictionary form, as a phrase with its article ("a dog"; "two dogs" gives "dogs").
        absent: dictionary forms of absent things, in random order.
    """

    things: dict[str, str]
    absent: tuple[str, ...]


def survey(captions: Sequence[CaptionRecord], *, seed: int) -> dict[str, Contents]:
    """Return the contents of every image by `CaptionRecord.image_id`.

    Args:
        captions: all captions, because an image's absent things are found with those of other images.
        seed: determines, with an image's id, the order of its absent things.

    Raises:
        InputError: the tagger is not installed.
    """
    things: dict[str, dict[str, str]] = {}
    vocabularies: dict[str, set[str]] = {}
    for batch in parse_records(captions):
        for record, caption in batch:
            vocabularies.setdefault(record.image_id, set()).update(caption.vocabulary)
            own = things.setdefault(record.image_id, {})
            for lemma, phrase in _things(caption):
                own.setdefault(lemma, phrase)
    together: dict[str, Counter[str]] = {}
    for own in things.values():
        for lemma in own:
            together.setdefault(lemma, Counter()).update(other for other in own if other != lemma)
    usual = {lemma: [other for other, _ in counts.most_common(_COMPANIONS)] for lemma, counts in together.items()}
    contents = {}
    for image, own in things.items():
        companions = sorted({other for lemma in own for other in usual[lemma]})
        absent = [other for other in companions if other not in vocabularies[image] and _differs_from(other, own)]
        Random(f"{RULE}/{seed}/{image}").shuffle(absent)
        contents[image] = Contents(own, tuple(absent))
    return contents


def _things(caption: Caption) -> Iterator[tuple[str, str]]:
    """Yield the dictionary form and the phrase of each concrete thing that a caption names without negation."""
    for chunk in caption.chunks:
        before = [token.lower for token in caption.tokens[max(0, chunk.start - 2) : chunk.end]]
        if _DENIALS.isdisjoint(before):
            for start, end in chunk.nouns():
                tokens = caption.tokens[start:end]
                if lexicon().is_concrete(tokens[-1].lemma):
                    text = " ".join(token.lower for token in tokens)
                    lemma = " ".join([*(token.lower for token in tokens[:-1]), tokens[-1].lemma])
                    yield lemma, text if tokens[-1].is_many else with_article(text)


def with_article(noun: str) -> str:
    """Return a singular noun as a phrase: "a dog", "an umbrella", "grass"."""
    last = noun.rpartition(" ")[2]
    return noun if lexicon().is_mass(last) or words.is_plural(last) else f"{words.article(noun)} {noun}"


def _differs_from(other: str, own: Iterable[str]) -> bool:
    """Whether a noun is neither a synonym of one of these, nor a part, a kind or a possible name of it.

    Body parts are present wherever bodies are, and people named after a thing have it: no "skier, but no ski".
    """
    last = other.rpartition(" ")[2]
    if lexicon().is_in_group(last, "body_upper") or last == "body":
        return False
    stem = last[:-1] if len(last) > _SHORT else last  # "bicyclist"
    nouns = [thing.rpartition(" ")[2] for thing in own]
    return not any(thing.startswith(stem) or noun_relation(last, thing) for thing in nouns)


def naming_the_absent(captions: Iterable[CaptionRecord], contents: dict[str, Contents]) -> Iterator[CaptionRecord]:
    """Yield captions that also name something absent ("a dog on a sofa, but no cat"), omitting those without any.

    The captions of an image use its absent things in turn.
    """
    turn: Counter[str] = Counter()
    for caption in captions:
        absent = contents[caption.image_id].absent
        if absent:
            other = absent[turn[caption.image_id] % len(absent)]
            turn[caption.image_id] += 1
            text = f"{caption.text.strip().rstrip('.').rstrip()}, but no {other}"
            yield caption.model_copy(update={"text": text})


def questions(
    captions: Iterable[CaptionRecord], contents: dict[str, Contents], *, seed: int
) -> Iterator[tuple[CaptionRecord, list[NegativeRecord]]]:
    """Yield one question per image, for its first caption: a true text about presence or absence, and three false ones.

    The true text has one of three forms, drawn uniformly; the false ones have one form each, so the form does not give
    the answer away. Images without named or absent things have no question.

    Args:
        captions: as for `survey`.
        contents: the result of `survey`.
        seed: determines, with an image's id, the form and the things.
    """
    images: set[str] = set()
    for caption in captions:
        own = contents[caption.image_id]
        if caption.image_id in images or not own.things or not own.absent:
            continue
        images.add(caption.image_id)
        chance = Random(f"{RULE}/{seed}/{caption.image_id}/question")
        names = chance.sample(list(own.things), len(own.things))
        second = next((name for name in names[1:] if _differs_from(name, names[:1])), names[0])  # no "bike and bicycle"
        there = [own.things[name] for name in dict.fromkeys((names[0], second))]
        absent = with_article(own.absent[0])
        shows, both = "This image features", " and ".join(there)
        true = (f"{shows} {both}.", f"This image does not feature {absent}.", f"{shows} {there[0]}, but not {absent}.")
        false = (
            f"{shows} {there[0]} and {absent}.",
            f"This image does not feature {there[-1]}.",
            f"{shows} {absent}, but not {there[0]}.",
        )
        yield (
            caption.model_copy(update={"text": chance.choice(true), "positives": ()}),
            [
                NegativeRecord(
                    caption_id=caption.id, rule=RULE, kind="negation", text=text, source="rules", accepted=True
                )
                for text in false
            ],
        )


def require_something(contents: dict[str, Contents], *, where: str) -> None:
    """Reject captions from which no absent things can be found.

    Raises:
        InputError: no image has absent things.
    """
    if not any(own.things and own.absent for own in contents.values()):
        raise InputError(
            f"{where}: no image has absent things: things that often occur with one of its things but that none of its "
            "captions names. Give captions of more images."
        )


def find_contradicted(captions: Iterable[CaptionRecord], texts: Mapping[str, str]) -> Callable[[str, str], bool]:
    """Return a function that says, by a caption's id, whether its negative denies what an image shows.

    Args:
        captions: all captions, which say what their images (`CaptionRecord.image`) show.
        texts: negatives, by the caption's id.

    Raises:
        InputError: a negative denies something, but the tagger is not installed.
    """
    denying = {name: text for name, text in texts.items() if not _DENIALS.isdisjoint(words.content(text))}
    parsed = parse(list(denying.values())) if denying else []
    denied = {name: list(_denied_by(text)) for name, text in zip(denying, parsed, strict=True)}
    shown: dict[str, set[str]] = {}
    for batch in parse_records(captions) if denied else ():
        for record, caption in batch:
            shown.setdefault(record.image, set()).update(caption.vocabulary)
    return lambda name, image: any(_names(shown.get(image, set()), each) for each in denied.get(name, ()))


def _denied_by(text: Caption) -> Iterator[tuple[Token, ...]]:
    """Yield what each denial denies: after "not" a verb with its object, otherwise the noun that follows."""
    for place, token in enumerate(text.tokens):
        if token.lower not in _DENIALS:
            continue
        no_one = token.lower == "no" and token_at(text.tokens, place + 1).lower == "one"
        at = place + 1 + no_one
        while token_at(text.tokens, at).lemma == "be":
            at += 1
        verb = token_at(text.tokens, at)
        if verb.is_verb and (no_one or token.lower not in _OF_NOUNS):
            following = text.chunk_from(at + 1)
            yield (verb,) if following is None else (verb, following.noun)
        elif no_one or token.lower == "nobody":
            yield (replace(token, tag="NN", lemma="human"),)  # In WordNet, a dog may be a "person".
        elif noun := next((chunk.noun for chunk in text.chunks if chunk.head > place), None):
            yield (noun,)


def _names(vocabulary: set[str], denied: Iterable[Token]) -> bool:
    """Whether captions with this vocabulary name all of these words, or nouns that may be the same things."""
    return all(
        word.lemma in vocabulary
        or (word.is_noun and any(noun_relation(word.lemma, other) for other in vocabulary if lexicon().is_noun(other)))
        for word in denied
    )
