"""Units of a caption (the things and relations that it names) with foils, and longer captions that repeat them.

Foils are made by the rules for negatives. CS-CLIP (arXiv 2602.23906) uses a language model for this, as written.py
does; C2LIP (arXiv 2603.25722) reads only the noun phrases, MACCO (arXiv 2606.13288) everything else: the words of
attributes and relations.

In Contextualization Distillation (arXiv 2402.01729), a language model writes a longer text about a triple of a
knowledge graph; here the triples come from the caption's own parse, so a text is as true as its caption. written.py has
a language model write it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

FOIL_RULES: Final = {
    "thing": ("replace_adjectives", "replace_nouns"),
    "relation": ("replace_relation", "swap_nouns", "replace_nouns"),
}
"""The rules that make foils of a unit, of CS-CLIP's kinds: another attribute or thing; another relation, its things
swapped, or another thing in it."""
FOILS_PER_RULE: Final = 2
_LONGEST: Final = 4
"""Maximum words between the two things of a relation."""
_CLAUSES: Final = ("while", "as", "because", "than", "that")
"""Words that the tagger labels prepositions but that relate clauses, not things."""
_FORMS: Final = (
    "{sentence}. We can see {things}.",
    "We can see {things}. {sentence}.",
    "{sentence}: {relations}. We can see {things}.",
    "We can see {things}: {relations}. {sentence}.",
)
"""Forms of longer captions; the last two are for captions with a relation other than the caption itself."""


TaggedCaptions = Sequence[tuple[CaptionRecord, Caption]]


def with_units(
    captions: Iterable[CaptionRecord],
    *,
    seed: int,
    write: Callable[[TaggedCaptions], Sequence[Sequence[CaptionUnit]]] | None = None,
) -> Iterator[CaptionRecord]:
    """Add the columns `units`, `concepts` and `masked_words` to captions; a caption that names nothing is its own
    concept, and none is its own unit.

    Args:
        captions: any number of captions.
        seed: determines, with a caption's id, the order of the grammar's foils.
        write: returns the units of each caption; the grammar makes those of captions for which it returns none.

    Raises:
        InputError: the tagger is not installed.
    """
    for batch in parse_records(captions):
        written = [()] * len(batch) if write is None else write(batch)
        phrases = [(things_of(caption), relations_of(caption)) for _, caption in batch]
        texts = list(dict.fromkeys(text for pair in phrases for some in pair for text in some))
        by_text = dict(zip(texts, parse(texts), strict=True))
        for (record, caption), (things, relations), own in zip(batch, phrases, written, strict=True):
            statements = (record.text, *relations, *things)
            units = own or [
                CaptionUnit(text=text, kind=kind, foils=_foils(by_text[text], record, statements, kind=kind, seed=seed))
                for kind, some in (("relation", relations), ("thing", things))
                for text in some
                if by_text[text].content != caption.content
            ]
            concepts = [text for text in things if len(text) > 1] or [record.text]
            columns = {"units": tuple(units), "concepts": tuple(concepts), "masked_words": described_by(caption)}
            yield record.model_copy(update=columns)


def named_parts(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the relations and things that each text names, without foils.

    Raises:
        InputError: the tagger is not installed.
    """
    return [(*relations_of(caption), *things_of(caption)) for caption in parse(texts)]


def things_of(caption: Caption) -> list[str]:
    """Return the noun phrases that name a thing, each once."""
    spans = [(chunk.start, chunk.end) for chunk in caption.chunks if chunk.role == "thing"]
    return list(dict.fromkeys(_text(caption, *span) for span in spans))


def relations_of(caption: Caption) -> list[str]:
    """Return relations: consecutive noun phrases joined by a preposition, or by a verb with its subject; each once.

    "A dog with a ball runs through snow" has "a dog with a ball" and "a dog runs through snow".
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
    """Return the words for attributes and relations: adjectives, participles before a noun, and the words between two
    related things; each once."""
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
    """Return the span of a verb's subject, with what "and" joins to it; None if the parser finds no thing."""
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
    """Whether a preposition belongs to the subject rather than the object: "a man jumps a rail on his skateboard"."""
    does = token_at(first.source, first.after.governor).is_verb
    return does and (first.after.lower == "with" or second.first.tag == "PRP$")


def _is_on_somebody(tokens: Sequence[Token], place: int) -> bool:
    """Whether a noun is an inanimate object of a preposition that belongs to a living thing."""
    bearer = tokens[tokens[tokens[place].governor].governor] if tokens[place].role == "pobj" else None
    living = lexicon().is_living
    return bearer is not None and living(bearer.lemma) and not living(tokens[place].lemma)


def _relates(gap: Sequence[Token]) -> bool:
    """Whether words between two phrases relate them: verbs, prepositions and their particles."""
    if len(gap) > _LONGEST or any(token.role == "mark" or token.lower in _CLAUSES for token in gap):
        return False
    relates = any(token.is_verb or token.tag in ("IN", "TO") for token in gap)
    return relates and all(token.is_verb or token.tag in ("IN", "TO", "RP", "RB") for token in gap)


def _text(caption: Caption, start: int, end: int) -> str:
    """Return some tokens as a text that starts in lower case, unless the caption is in capitals."""
    tokens = caption.tokens[start:end]
    text = "".join(token.text if not at or token.glued else f" {token.text}" for at, token in enumerate(tokens))
    plain = start > 0 or caption.is_shouted or tokens[0].tag.startswith("NNP")
    return text if plain else lower_first(text)


def bare(text: str) -> str:
    """Normalise a text: no articles, words in the singular, so that "a woman" and "the women" are equal."""
    return " ".join(words.singular(word) for word in words.content(text) if word not in words.ARTICLES)


def unsaid(foils: Iterable[str], statements: Sequence[str]) -> tuple[str, ...]:
    """Return the foils that no statement contains, each once: no woman for "a man and a woman"."""
    texts = [f" {bare(text)} " for text in statements]
    return tuple(foil for foil in dict.fromkeys(foils) if not any(f" {bare(foil)} " in text for text in texts))


def _foils(unit: Caption, record: CaptionRecord, statements: Sequence[str], *, kind: str, seed: int) -> tuple[str, ...]:
    """Return the rules' foils of a unit that the caption does not say itself."""
    foils: list[str] = []
    for name in FOIL_RULES[kind]:
        chance = Random(f"units/{seed}/{record.id}/{unit.text}/{name}")
        foils += load_rule(name).propose(unit, chance, FOILS_PER_RULE)
    return unsaid(foils, statements)


def with_contexts(
    captions: Iterable[CaptionRecord],
    *,
    seed: int,
    write: Callable[[TaggedCaptions], Sequence[str | None]] | None = None,
) -> Iterator[CaptionRecord]:
    """Put a longer true caption first in each caption's column `positives`; a caption that names no thing, or is just
    one, is unchanged.

    Args:
        captions: any number of captions.
        seed: determines the form of a text by template, with a caption's id.
        write: returns the longer version of each caption; where it returns None, the template's is used.

    Raises:
        InputError: the tagger is not installed.
    """
    for batch in parse_records(captions):
        written = [None] * len(batch) if write is None else write(batch)
        for (record, caption), own in zip(batch, written, strict=True):
            text = own or context_of(caption, number=sha256(f"contexts/{seed}/{record.id}".encode()).digest()[0])
            fits = text is not None and len(text) <= LONGEST_TEXT  # A record takes no longer one.
            yield record.model_copy(update={"positives": (text, *record.positives)}) if fits else record


def context_of(caption: Caption, *, number: int) -> str | None:
    """Return a longer true text about a caption; None if it names no thing or is just one.

    Args:
        caption: the tagged caption.
        number: number of the form, 0 or more; captions without a relation other than themselves use the first two.
    """
    things = things_of(caption)
    if not things or all(words.content(thing) == caption.content for thing in things):
        return None
    relations = [text for text in relations_of(caption) if words.content(text) != caption.content]
    form = _FORMS[number % (len(_FORMS) if relations else 2)]
    sentence = caption.text.rstrip(" .!")
    if not form.startswith("{sentence}"):
        sentence = sentence[:1].upper() + sentence[1:]
    return form.format(sentence=sentence, things=_joined(things), relations=_joined(relations))


def _joined(texts: Sequence[str]) -> str:
    """Join texts as in "one, two and three"."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
