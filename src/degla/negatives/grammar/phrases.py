"""Tag captions in batches with spaCy: tokens, dictionary forms and noun phrases.

Only the tagger and parser run (about 1,200 short captions per second on one core). Everything after that
works on tokens, so no candidate is parsed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import islice, pairwise
from typing import Any, Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, find_chunks, governed, is_abbreviated, token_at
from degla.negatives.grammar.lexicon import lexicon
from degla.records import CaptionRecord
from degla.tagger import load_tagger

_BATCH: Final = 256
_CACHE_SIZE: Final = 2_048
_RECORDS: Final = 1_000
_NONE: Final = frozenset({"no", "none", "nobody", "nothing", "neither"})
SENTENCE_ENDS: Final = frozenset(".!?")


@dataclass(frozen=True, eq=False)
class Caption:
    """A tagged caption, compared by identity.

    Attributes:
        text: the text as written, without leading and trailing spaces.
        tokens: words and punctuation marks in order.
    """

    text: str
    tokens: tuple[Token, ...]

    def __reduce__(self) -> tuple[type[Caption], tuple[str, tuple[Token, ...]]]:
        return Caption, (self.text, self.tokens)  # Cached values name tokens by id, which holds in one process only.

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """Noun phrases in order, without overlap."""
        return find_chunks(self.tokens)

    @property
    def is_shouted(self) -> bool:
        """Whether the caption is written in capitals."""
        return self.text.isupper() and len(self.text) > 1

    @cached_property
    def is_titled(self) -> bool:
        """Whether it is written like a title: two or more words of four letters or more, all with a capital."""
        long = [
            token.text for token in self.tokens if len(token.text) > 3 and token.tag not in ("IN", "TO", "CC", "DT")
        ]
        return len(long) > 1 and all(text[0].isupper() for text in long) and not self.is_shouted

    @cached_property
    def named(self) -> frozenset[int]:
        """Indices of the words of names: two or more with a capital, as in "near Holy Cross Church", and "May"."""
        if self.text[1:].islower():
            return frozenset()
        months = {at for at, token in enumerate(self.tokens) if token.lower == "may" and token.text[0].isupper()}
        places: list[int] = []
        if not (self.is_titled or self.is_shouted):
            for place, token in enumerate(self.tokens):
                capital = token.text[0].isupper() and (token.is_noun or token.is_adjective)
                if is_abbreviated(self.tokens, place) or (
                    capital and (token.tag.startswith("NNP") or (place and id(token) not in self.followers))
                ):
                    places.append(place)
        runs = [places[at : at + 1] for at in range(len(places)) if places[at] - 1 not in places]
        for run in runs:
            while run[-1] + 1 in places:
                run.append(run[-1] + 1)
        names = (run for run in runs if len(run) > 1 and any(self.tokens[at].tag.startswith("NNP") for at in run))
        counters = words.COUNTING | {"an"}
        indices = {at for run in names if token_at(self.tokens, run[0] - 1).lower not in counters for at in run}
        return frozenset(indices | months)

    @cached_property
    def followers(self) -> dict[int, bool]:
        """Ids of the tokens after a full stop, and whether they are written with a capital because of it."""
        return {
            id(token): token.text[0].isupper() and not token.tag.startswith("NNP") and token.text != "I"
            for place, (before, token) in enumerate(pairwise(self.tokens))
            if before.text in SENTENCE_ENDS and not is_abbreviated(self.tokens, place)
        }

    @cached_property
    def inside(self) -> frozenset[int]:
        """Indices of the tokens that are in a noun phrase."""
        return frozenset(place for chunk in self.chunks for place in range(chunk.start, chunk.end))

    @cached_property
    def is_denied(self) -> bool:
        """Whether its only sentence is denied: "a dog is not on a mat", "no dog is on a mat", "there are no dogs".

        What is denied of a property ("a river is not wide") leaves the rest of the sentence as it is.
        """
        roots = [place for place, token in enumerate(self.tokens) if token.role == "ROOT"]
        if len(roots) != 1 or not self.tokens[roots[0]].is_verb:
            return False
        said, there = (governed(self.tokens, roots[0], role) for role in ("attr", "expl"))
        denied = {
            token.governor if token.role == "det" else place
            for place, token in enumerate(self.tokens)
            if token.lower in _NONE and len(governed(self.tokens, token.governor, "det")) < 2  # "a no parking sign"
        }
        none = [*governed(self.tokens, roots[0], "nsubj", "nsubjpass"), *(said if there else ())]
        described = governed(self.tokens, roots[0], "acomp") or (said and not there)
        return not denied.isdisjoint(none) or bool(not described and governed(self.tokens, roots[0], "neg"))

    def nouns(self) -> Iterator[tuple[Chunk, tuple[int, int]]]:
        """Yield phrases with the spans of their replaceable nouns, except names and phrases with a wrong determiner.

        Changing an already wrong phrase ("a dogs") would not give a correct text.
        """
        for chunk in self.chunks:
            if chunk.determiner_fits:
                yield from ((chunk, span) for span in chunk.nouns() if span[1] - 1 not in self.named)

    def chunk_from(self, place: int) -> Chunk | None:
        """Return the noun phrase that starts at a token; None if there is none."""
        return next((chunk for chunk in self.chunks if chunk.start == place), None)

    def chunk_at(self, place: int) -> Chunk:
        """Return the noun phrase that contains a token, which must be in one."""
        return next(chunk for chunk in self.chunks if chunk.start <= place < chunk.end)

    @lru_cache(maxsize=64)  # noqa: B019 - no more captions than these are kept alive
    def other_nouns(self, span: tuple[int, int]) -> tuple[str, ...]:
        """Return the dictionary forms of the nouns outside a span; cached because they are compared repeatedly."""
        tokens = (*self.tokens[: span[0]], *self.tokens[span[1] :])
        return tuple(dict.fromkeys(token.lemma for token in tokens if token.is_noun))

    @cached_property
    def content(self) -> tuple[str, ...]:
        """Lower-case words without punctuation, "an" written "a"."""
        return words.content(self.text)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word of the caption, as written (lower case) and in its dictionary form; of "sofa/bed", both."""
        return frozenset(
            form
            for token in self.tokens
            for piece in {token.lower, *token.lower.split("/")} - {""}
            for form in (piece, words.singular(piece), *((token.lemma,) if piece == token.lower else ()))
        )


@cache
def _pipeline() -> Any:
    return load_tagger(exclude=("ner", "lemmatizer", "attribute_ruler"))


_CAPTIONS: dict[str, Caption] = {}


def parse(texts: Sequence[str]) -> list[Caption]:
    """Tag captions in batches, with a cache of 2,048 captions.

    Raises:
        InputError: the tagger is not installed (the message gives the install command).
    """
    tagged = {text: _CAPTIONS[text] for text in texts if text in _CAPTIONS}
    missing = [text for text in dict.fromkeys(texts) if text not in tagged]
    if len(_CAPTIONS) + len(missing) > _CACHE_SIZE:
        _CAPTIONS.clear()
    fresh = dict(zip(missing, _tag(missing), strict=True))
    _CAPTIONS.update(fresh)
    tagged |= fresh
    return [tagged[text] for text in texts]


def parse_records(captions: Iterable[CaptionRecord]) -> Iterator[list[tuple[CaptionRecord, Caption]]]:
    """Yield caption records with their tagged captions, a thousand at a time; see `parse`."""
    records = iter(captions)
    while batch := list(islice(records, _RECORDS)):
        yield list(zip(batch, parse([record.text for record in batch]), strict=True))


def parse_one(text: str) -> Caption:
    """Tag one caption; see `parse`."""
    return parse([text])[0]


def _tag(texts: Iterable[str]) -> Iterator[Caption]:
    pipeline = _pipeline()
    from spacy.tokens import Doc  # After the pipeline, which imports spaCy without torch.

    splits = [(text.strip(), words.split(text.strip())) for text in texts]
    documents = (
        Doc(
            pipeline.vocab,
            # A lone "’" is a closing quotation mark.
            words=[(piece.lower() if shouted else piece).replace("’t", "'t") for piece, _ in pieces],
            spaces=[after for _, after in pieces[1:]] + [False] if pieces else [],
        )
        for pieces, shouted in ((pieces, text.isupper()) for text, pieces in splits)
    )
    for (text, pieces), document in zip(splits, pipeline.pipe(documents, batch_size=_BATCH), strict=True):
        capitals = [piece.isupper() and len(piece) > 1 for piece, _ in pieces]
        shouted = 2 * sum(capitals) > sum(words.is_word(piece) and len(piece) > 1 for piece, _ in pieces)
        tokens = [
            Token(
                piece, lower, word.tag_, _lemma(lower, word.tag_), word.dep_, word.head.i, not spaced, loud and shouted
            )
            for (piece, spaced), word, loud in zip(pieces, document, capitals, strict=True)
            for lower in [words.lower_case(piece)]
        ]
        caption = Caption(text, tuple(_mend(tokens)))
        yield Caption(text, tuple(_with_plurals(caption.tokens))) if caption.is_titled else caption


def _with_plurals(tokens: Iterable[Token]) -> Iterator[Token]:
    """Tag everyday nouns of a title as plural, which the tagger takes for names: "Braised Duck Legs"."""
    for token in tokens:
        many = token.tag == "NNP" and words.is_plural(token.lower) and lexicon().is_noun(token.lemma)
        yield replace(token, tag="NNPS") if many else token


def _lemma(word: str, tag: str) -> str:
    if tag.startswith("NN"):
        return words.singular(word)
    return words.verb(word) if tag.startswith("VB") else word


def _mend(tokens: list[Token]) -> list[Token]:
    """Correct typical tagger errors in captions: attributes before nouns, and nouns tagged as verbs.

    It sometimes tags "a plain red cross" as adverb, adjective, verb, and "a yellow rose" as if something rose.
    """
    tables = lexicon()
    tokens = _with_verb(_out_of_compounds(tokens))
    result = list(tokens)
    for place in _verbs_tagged_as_nouns(tokens):  # "a person in skis flies", "a girl sits and waits"
        result[place] = replace(tokens[place], tag="VBZ", lemma=words.verb(tokens[place].lower))
    for place in range(len(result) - 1, -1, -1):
        token, before, after = result[place], token_at(tokens, place - 1), token_at(result, place + 1)
        noun, tag, lemma = words.singular(token.lower), token.tag, token.lower
        heads_noun = (after.is_noun or after.tag == "JJ") and not after.glued
        coloured = tables.is_attribute(before.lower)
        if token.lower in ("left", "right") and after.lower == "of":
            if before.text and (before.tag not in ("DT", "IN", "JJ") or _is_shape(before.lower)):
                tag = "RB"
        elif tables.is_attribute(token.lower) and heads_noun and token.tag not in ("DT", "IN", "JJ"):
            if token.is_noun or before.tag in ("DT", "CD", "JJ") or coloured:
                tag = "JJ"
        elif token.is_verb and before.tag in ("CC", ",") and _is_food(token.lower):
            tag = "NN"  # "meat and broccoli"
        elif (
            token.tag in ("RB", "JJ")
            and before.is_noun
            and not heads_noun
            and (tables.is_name(before.lower, noun) or tables.is_in_group(token.lower, "appliance"))
        ):
            tag = "NN"  # "a fire hydrant", "a stove top oven"
        elif not heads_noun and not token.is_noun:
            described = before.tag in ("DT", "PRP$") or (coloured and before.tag not in ("RB", "IN"))
            named = before.tag == "DT" or tables.is_in_group(before.lower, "colour")
            noun_as_verb = token.tag in ("VBD", "VBZ", "VBP", "VB") and tables.noun_groups(noun) and named
            if described and (noun_as_verb or _is_shape(token.lower)):
                tag, lemma = "NNS" if words.is_plural(token.lower) else "NN", noun
        if tag != token.tag:
            result[place] = replace(token, tag=tag, lemma=lemma)
    return result


def _out_of_compounds(tokens: Sequence[Token]) -> list[Token]:
    """Split compounds that the parser made of a subject and its verb: "a dog runs", "a dog running"."""
    result, tables = list(tokens), lexicon()
    for place, (doer, token) in enumerate(pairwise(tokens), start=1):
        if not doer.is_noun or not tables.is_living(doer.lemma):
            continue
        joined = doer.role == "compound" and doer.governor == place
        if token.is_finite and joined and not governed(tokens, place, "nsubj", "nsubjpass", "expl"):
            result[place - 1] = replace(doer, role="nsubj")
        elif (
            token.tag == "NN"
            and token.lower.endswith("ing")
            and token.role in ("acl", "ROOT")
            and not tables.is_name(doer.lower, token.lower)
            and not token_at(tokens, place + 1).is_noun
        ):
            result[place - 1] = replace(doer, role="ROOT", governor=place - 1)
            result[place] = replace(token, tag="VBG", lemma=words.verb(token.lower), role="acl", governor=place - 1)
    return result


def _with_verb(tokens: list[Token]) -> list[Token]:
    """Restore a verb that the tagger took for the head of a compound noun: "a man in a tie poses".

    No plural noun follows "a" or "an"; such a word is the verb of the caption's first noun, if it can be a verb.
    """
    for place, token in enumerate(tokens):
        if token.tag not in ("NNS", "VBZ") or token.role not in ("dobj", "pobj") or not place:
            continue
        before = tokens[place - 1]
        own = [at for at, one in enumerate(tokens[:place]) if one.governor == place]
        lone = any(tokens[at].lower in ("a", "an") for at in own)
        if before.tag != "NN" or before.role != "compound" or before.governor != place or not lone:
            continue
        verb = words.verb(token.lower)
        subject = token.governor
        while tokens[subject].role != "ROOT" and not tokens[subject].is_noun:
            subject = tokens[subject].governor
        if words.conjugate(verb, "VBZ") != token.lower or not tokens[subject].is_noun or tokens[subject].role != "ROOT":
            continue
        result = list(tokens)
        for at in own:
            result[at] = replace(tokens[at], governor=place - 1)
        result[place - 1] = replace(before, role=token.role, governor=token.governor)
        result[place] = replace(token, tag="VBZ", lemma=verb, role="ROOT", governor=place)
        result[subject] = replace(tokens[subject], role="nsubj", governor=place)
        return result
    return tokens


def _verbs_tagged_as_nouns(tokens: Sequence[Token]) -> list[int]:
    """Return the indices of words tagged as plural nouns that the parser gives a subject or joins to a verb."""
    predicates = {one.governor for at, one in enumerate(tokens) if one.role == "nsubj" and at < one.governor}
    copulas = {one.governor for one in tokens if one.role in ("cop", "aux", "auxpass")}
    return [
        place
        for place, token in enumerate(tokens)
        if token.tag == "NNS"
        and (
            (token.role == "ROOT" and place in predicates - copulas)
            or (token.role == "conj" and tokens[token.governor].tag == "VBZ" and tokens[place - 1].tag == "CC")
        )
        and words.conjugate(words.verb(token.lower), "VBZ") == token.lower
    ]


def _is_food(word: str) -> bool:
    return any(lexicon().is_in_group(word, group) for group in ("mass_vegetable", "vegetable", "mass_food", "fruit"))


def _is_shape(word: str) -> bool:
    return lexicon().is_in_group(words.singular(word), "shape")
