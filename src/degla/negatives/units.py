"""The things and relations that a caption names: texts of their own with foils, and said once more in a longer caption.

Foils are made by the rules for negatives. CS-CLIP (arXiv 2602.23906) has a language model do this; C2LIP (arXiv
2603.25722) reads the noun phrases alone, MACCO (arXiv 2606.13288) what is not one: the words of attributes and
relations.

Contextualization Distillation (arXiv 2402.01729) has a language model write a longer text about a triple of a knowledge
graph; here the triples are those of the caption's own parse, so that a text is as true as its caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from random import Random
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, governed, token_at
from degla.negatives.grammar.edits import lower_first
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption, parse, parse_records
from degla.negatives.rule import load_rule
from degla.records import LONGEST_TEXT, CaptionRecord, CaptionUnit

RULES: Final = {
    "thing": ("replace_adjectives", "replace_nouns"),
    "relation": ("replace_relation", "swap_nouns", "replace_nouns"),
}
"""The rules that make foils of a unit, of CS-CLIP's kinds: another attribute or thing; another relation, its things
exchanged, another of its things."""
FOILS_PER_RULE: Final = 2
_LONGEST: Final = 4
"""Words between the two things of a relation at most."""
_CLAUSES: Final = ("while", "as", "because", "than", "that")
"""Words that the tagger calls prepositions, and that relate what happens, not things."""
_FORMS: Final = (
    "{said}. We can see {things}.",
    "We can see {things}. {said}.",
    "{said}: {relations}. We can see {things}.",
    "We can see {things}: {relations}. {said}.",
)
"""Of longer captions; the latter two where there is a relation besides the caption itself."""


def with_units(captions: Iterable[CaptionRecord], *, seed: int) -> Iterator[CaptionRecord]:
    """The captions with their columns `units`, `concepts` and `masked_words`; a caption that names nothing is its own
    concept, and none is its own unit.

    Args:
        captions: in any number.
        seed: with a caption's id, of the order of the grammar's foils.

    Raises:
        InputError: the tagger is not installed.
    """
    for batch in parse_records(captions):
        phrases = [(things_of(caption), relations_of(caption)) for _, caption in batch]
        texts = list(dict.fromkeys(text for pair in phrases for some in pair for text in some))
        by_text = dict(zip(texts, parse(texts), strict=True))
        for (record, caption), (things, relations) in zip(batch, phrases, strict=True):
            said = [f" {_bare(text)} " for text in (record.text, *relations, *things)]
            units = [
                CaptionUnit(text=text, kind=kind, foils=_foils(by_text[text], record, said, kind=kind, seed=seed))
                for kind, some in (("relation", relations), ("thing", things))
                for text in some
                if by_text[text].content != caption.content
            ]
            concepts = [text for text in things if len(text) > 1] or [record.text]
            told = {"units": tuple(units), "concepts": tuple(concepts), "masked_words": described_by(caption)}
            yield record.model_copy(update=told)


def named_parts(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The relations and things that each text names, without foils.

    Raises:
        InputError: the tagger is not installed.
    """
    return [(*relations_of(caption), *things_of(caption)) for caption in parse(texts)]


def things_of(caption: Caption) -> list[str]:
    """The noun phrases that name a thing, each once."""
    spans = [(chunk.start, chunk.end) for chunk in caption.chunks if chunk.role == "thing"]
    return list(dict.fromkeys(_text(caption, *span) for span in spans))


def relations_of(caption: Caption) -> list[str]:
    """Two noun phrases that follow one another with a preposition between them, or a verb behind who does it.

    Each comes once. "A dog with a ball runs through snow" says "a dog with a ball" and "a dog runs through snow".
    """
    texts = []
    for first, second in _related(caption):
        verb = next((at for at in range(first.end, second.start) if caption.tokens[at].is_verb), None)
        if verb is None and _is_of_the_doer(first, second):
            continue
        doer = (first.start, first.end) if verb is None else _doer(caption, verb)
        if doer is not None and doer[1] == first.end:
            texts.append(_text(caption, doer[0], second.end))
        elif doer is not None and verb is not None and caption.tokens[verb].tag != "VB":  # "scissors to cut a ribbon"
            texts.append(f"{_text(caption, *doer)} {_text(caption, verb, second.end)}")
    return list(dict.fromkeys(texts))


def described_by(caption: Caption) -> tuple[str, ...]:
    """The words that say how things are and how they relate: adjectives, participles before a noun, and what stands
    between two things that are related; each once."""
    relating = {place for first, second in _related(caption) for place in range(first.end, second.start)}
    return tuple(
        dict.fromkeys(
            token.text
            for place, token in enumerate(caption.tokens)
            if token.is_adjective or place in relating or (token.is_verb and place in caption.inside)
        )
    )


def _related(caption: Caption) -> list[tuple[Chunk, Chunk]]:
    return [
        (first, second)
        for first, second in pairwise(caption.chunks)
        if first.role == second.role == "thing" and _relates(caption.tokens[first.end : second.start])
    ]


def _doer(caption: Caption, verb: int) -> tuple[int, int] | None:
    """The tokens of who does what a verb says, with what "and" joins to them; None where the parser finds no thing."""
    tokens, place = caption.tokens, verb
    for _ in tokens:  # at most: a root governs itself
        own = governed(tokens, place, "nsubj", "nsubjpass")
        place = own[0] if own else tokens[place].governor
        if own or not 0 <= place < len(tokens) or not tokens[place].is_verb:
            break
    if not own and _is_on_somebody(tokens, place):
        return None  # "a girl in a field hitting a ball": the parser's choice between the two is a guess
    last = place
    for at in range(place + 1, verb):
        if tokens[at].role == "conj" and tokens[at].governor == last:
            last = at  # "a dog and a cat run"
    start, end = ([one for one in caption.chunks if one.start <= at < one.end] for at in (place, last))
    if not start or not end or {start[0].role, end[0].role} != {"thing"} or end[0].end > verb:
        return None
    return start[0].start, end[0].end


def _is_of_the_doer(first: Chunk, second: Chunk) -> bool:
    """Whether a preposition says of who does something what he has: "a man jumps a rail on his skateboard"."""
    does = token_at(first.source, first.after.governor).is_verb
    return does and (first.after.lower == "with" or second.first.tag == "PRP$")


def _is_on_somebody(tokens: Sequence[Token], place: int) -> bool:
    """Whether a noun is a lifeless thing behind a preposition of somebody."""
    bearer = tokens[tokens[tokens[place].governor].governor] if tokens[place].role == "pobj" else None
    living = lexicon().is_living
    return bearer is not None and living(bearer.lemma) and not living(tokens[place].lemma)


def _relates(gap: Sequence[Token]) -> bool:
    """Whether words between two phrases relate them: verbs, prepositions and their particles."""
    related = {"IN", "RP", "TO", "RB"}
    says = any(token.is_verb or token.tag in ("IN", "TO") for token in gap)
    if any(token.role == "mark" or token.lower in _CLAUSES for token in gap):
        return False
    return 0 < len(gap) <= _LONGEST and says and all(token.is_verb or token.tag in related for token in gap)


def _text(caption: Caption, start: int, end: int) -> str:
    """Some tokens as a text that begins in lower case, unless the caption is in capitals."""
    tokens = caption.tokens[start:end]
    text = "".join(token.text if not at or token.glued else f" {token.text}" for at, token in enumerate(tokens))
    plain = start > 0 or caption.is_shouted or tokens[0].tag.startswith("NNP")
    return text if plain else lower_first(text)


def _bare(text: str) -> str:
    """A text without articles, its words in the singular: what "a woman", "the woman" and "two women" share."""
    return " ".join(words.singular(word) for word in words.content(text) if word not in words.ARTICLES)


def _foils(unit: Caption, record: CaptionRecord, said: Sequence[str], *, kind: str, seed: int) -> tuple[str, ...]:
    """What the rules make of a unit, and none of it is what the caption says: no woman for "a man and a woman"."""
    foils: list[str] = []
    for name in RULES[kind]:
        chance = Random(f"units/{seed}/{record.id}/{unit.text}/{name}")
        foils += load_rule(name).read(unit, None, chance, most=FOILS_PER_RULE)
    return tuple(foil for foil in dict.fromkeys(foils) if not any(f" {_bare(foil)} " in text for text in said))


def with_contexts(captions: Iterable[CaptionRecord], *, seed: int) -> Iterator[CaptionRecord]:
    """The captions with a longer true one in front of their column `positives`; a caption that names no thing, or is
    but one, stays as it is.

    Args:
        captions: in any number.
        seed: with a caption's id, of the form.

    Raises:
        InputError: the tagger is not installed.
    """
    for batch in parse_records(captions):
        for record, caption in batch:
            number = sha256(f"contexts/{seed}/{record.id}".encode()).digest()[0]
            text = context_of(caption, number=number)
            fits = text is not None and len(text) <= LONGEST_TEXT
            yield record.model_copy(update={"positives": (text, *record.positives)}) if fits else record


def context_of(caption: Caption, *, number: int) -> str | None:
    """A longer true text about a caption; None where it names no thing or nothing besides.

    Args:
        caption: tagged.
        number: of the form, 0 or more; of a caption without a relation besides itself, among the first two.
    """
    things = things_of(caption)
    if not things or all(words.content(thing) == caption.content for thing in things):
        return None
    relations = [text for text in relations_of(caption) if words.content(text) != caption.content]
    form = _FORMS[number % (len(_FORMS) if relations else 2)]
    said = caption.text.rstrip(" .!")
    if not form.startswith("{said}"):
        said = said[:1].upper() + said[1:]
    return form.format(said=said, things=_joined(things), relations=_joined(relations))


def _joined(texts: Sequence[str]) -> str:
    """ "one, two and three"."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
